-- Mixup and CutMix of a batch (method.md 6.6): who is mixed with whom, by how much, and the labels.
-- Rule: a plan depends on the random generator it is given alone; lam is corrected for the clipped box
-- before anything reads it.
local m = require "mimic"

local mixing = {}

--- Every switch of mixing and its default.
mixing.defaults = {
    mixup = 2, cutmix = 2,  -- a of Beta(a,a); 0 = never
    switch = 0.5,           -- probability of CutMix when both are on
    prob = 1,               -- probability of mixing at all
    mode = "batch",         -- batch | elem | pair: who shares one draw
    partner = "flip",       -- flip | randperm
}

---@class mixing.Plan
---@field lam any f32 [n], share of the sample itself, after correction
---@field box any i32 [n,4]: yl, yh, xl, xh; all 0 for Mixup
---@field partner any i32 [n], 0-based
---@field draws table the same as Lua lists

--- The box of CutMix around a centre, clipped, and the lam that its area gives.
---@param lam number as drawn
---@return integer yl, integer yh, integer xl, integer xh, number lam
function mixing.box(lam, height, width, cy, cx)
    local side = math.sqrt(1 - lam)
    local h, w = math.floor(height * side), math.floor(width * side)
    local function clip(v, max) return math.min(math.max(v, 0), max) end
    local yl, yh = clip(cy - h // 2, height), clip(cy + h // 2, height)
    local xl, xh = clip(cx - w // 2, width), clip(cx + w // 2, width)
    return yl, yh, xl, xh, 1 - (yh - yl) * (xh - xl) / (height * width)
end

--- Builds the plan of given draws: lists lam, cutmix (booleans), cy, cx, partner (0-based) of n entries.
---@return mixing.Plan
function mixing.plan(draws, height, width)
    local lam, box = {}, {}
    for i, drawn in ipairs(draws.lam) do
        lam[i], box[i] = drawn, { 0, 0, 0, 0 }
        if draws.cutmix[i] then
            local yl, yh, xl, xh, corrected = mixing.box(drawn, height, width, draws.cy[i], draws.cx[i])
            lam[i] = corrected
            -- An empty box replaces nothing; 0,0,0,0 with lam = 1 says the same.
            if corrected < 1 then box[i] = { yl, yh, xl, xh } end
        end
    end
    return {
        lam = m.tensor(lam), box = m.tensor(box, "i32"), partner = m.tensor(draws.partner, "i32"),
        draws = { lam = lam, box = box, partner = draws.partner, cutmix = draws.cutmix },
    }
end

-- One Mixup/CutMix decision with its numbers; the same count of draws whatever is decided.
local function draw_one(c, rng, height, width)
    local mix = rng:uniform() < c.prob
    local choice = rng:uniform()
    local cut = c.cutmix > 0 and (c.mixup == 0 or choice < c.switch)
    local a = cut and c.cutmix or c.mixup
    local lam = mix and a > 0 and rng:beta(a, a) or 1
    return lam, mix and cut, rng:below(height), rng:below(width)
end

--- Refuses modes that cannot be.
---@param c table mixing.defaults' keys
function mixing.check(c)
    if c.mode ~= "batch" and c.mode ~= "elem" and c.mode ~= "pair" then
        error(("mix.mode '%s': batch, elem or pair"):format(tostring(c.mode)), 0)
    end
    if c.mode == "pair" and c.partner ~= "flip" then
        error("mix.mode = pair needs mix.partner = flip", 0)
    end
end

--- Draws a plan for n samples.
---@param n integer
---@param c table mixing.defaults' keys
---@param rng any m.rng
---@return mixing.Plan
function mixing.draw(n, c, rng, height, width)
    mixing.check(c)
    local draws = { lam = {}, cutmix = {}, cy = {}, cx = {} }
    local distinct = c.mode == "batch" and 1 or c.mode == "elem" and n or (n + 1) // 2
    for i = 1, n do
        local from = i
        if i > distinct then from = c.mode == "batch" and 1 or n + 1 - i end
        if from == i then
            draws.lam[i], draws.cutmix[i], draws.cy[i], draws.cx[i] = draw_one(c, rng, height, width)
        else
            for _, list in pairs(draws) do list[i] = list[from] end
        end
    end
    if c.partner == "flip" then
        draws.partner = {}
        for i = 1, n do draws.partner[i] = n - i end
    elseif c.partner == "randperm" then
        draws.partner = rng:shuffle(n)
    else
        error(("mix.partner '%s': flip or randperm"):format(tostring(c.partner)), 0)
    end
    return mixing.plan(draws, height, width)
end

--- Mixed pictures of x [n,C,H,W].
---@param plan mixing.Plan
function mixing.images(x, plan)
    return m.mix(x, plan.lam, plan.box, plan.partner)
end

--- Mixed labels of y f32 [n,K]: lam y + (1 - lam) y[partner].
---@param plan mixing.Plan
function mixing.labels(y, plan)
    local lam = plan.lam:reshape{ -1, 1 }
    return y * lam + m.gather_rows(y, plan.partner) * (1 - lam)
end

return mixing

-- Contrastive losses: InfoNCE (Eq. 5), SCL (Eq. 6-8), MSCL (Eq. 11-13) with all switches of method.md 2.
-- Rule: all three are one sum over anchors; they differ in who is a candidate and who is positive.
local m = require "mimic"

local contrastive = {}

--- Every switch of the contrastive loss and its default (preset mimic).
contrastive.defaults = {
    tau = 0.07,
    base_temperature = false, -- a number multiplies the loss by tau / base_temperature
    reduction = "mean",       -- mean | sum over anchors
    empty = "zero",           -- an anchor without positives: zero | skip (leaves the mean)
    dist = "tv",              -- label distance: tv | linf | l1 | l2
    t = 0.5,                  -- positive iff distance <= t
    exclude_self = true,      -- leave out candidates that contain the anchor
    candidates = "mixed",     -- mixed | mixed+clean
    visual_gate = "none",     -- none | cosine
    visual_min = 0.5,         -- least cosine of a positive that is not case 1
    visual_fail = "ignored",  -- what a positive below it becomes: ignored | negative
}

--- i32 [n]: 0..n-1, the sample each anchor is.
---@param n integer
function contrastive.identity(n)
    local list = {}
    for i = 1, n do list[i] = i - 1 end
    return m.tensor(list, "i32")
end

--- L2-normalised f32 rows: the projections as all losses here take them.
function contrastive.normalise(h)
    if h.dtype == "bf16" then h = h:cast{ dtype = "f32" } end
    return h:l2norm()
end

local function reduce(za, zc, pos, cand, c)
    local loss = m.contrastive(za, zc, pos, cand,
        { tau = c.tau or 0.07, reduction = c.reduction or "mean", empty = c.empty or "zero" })
    return c.base_temperature and loss * ((c.tau or 0.07) / c.base_temperature) or loss
end

--- Supervised contrastive loss of normalised z [n,d] with integer labels i32 [n].
---@param z any
---@param labels any i32 [n]
---@param classes integer
---@param c table? contrastive.defaults' keys
---@return any loss, table parts {pos, cand}
function contrastive.scl(z, labels, classes, c)
    c = c or contrastive.defaults
    local y = m.onehot(labels, { classes = classes })
    local self_index = contrastive.identity(labels.shape[1])
    local pos, cand = m.mscl_masks(y, y, self_index, self_index, { dist = "tv", t = 0.5 })
    return reduce(z, z, pos, cand, c), { pos = pos, cand = cand }
end

--- Self-supervised loss of normalised z [2B,d], sample k and k + B being views of one picture.
function contrastive.infonce(z, c, views)
    local n = z.shape[1]
    local pictures = n // (views or 2)
    local list = {}
    for i = 1, n do list[i] = (i - 1) % pictures end
    return contrastive.scl(z, m.tensor(list, "i32"), pictures, c)
end

--- Takes label positives whose picture is not similar out of the positives (method.md 2.4). Case 1, a
--- candidate with exactly the anchor's label, always stays.
local function visual_gate(pos, cand, case1, anchors, candidates, c)
    local cosine = m.no_grad(function()
        return m.matmul(contrastive.normalise(anchors:detach()),
            contrastive.normalise(candidates:detach()), { tb = true })
    end):tolist()
    local p, a, same = pos:tolist(), cand:tolist(), case1:tolist()
    local p_bytes, a_bytes = {}, {}
    for i, row in ipairs(cosine) do
        for j, similarity in ipairs(row) do
            if p[i][j] == 1 and same[i][j] == 0 and similarity < c.visual_min then
                p[i][j] = 0
                if c.visual_fail == "ignored" then a[i][j] = 0 end
            end
            p_bytes[#p_bytes + 1], a_bytes[#a_bytes + 1] = string.char(p[i][j]), string.char(a[i][j])
        end
    end
    return m.frombytes(table.concat(p_bytes), pos.shape, "u8"),
        m.frombytes(table.concat(a_bytes), pos.shape, "u8")
end

-- One set of candidates: z [m,d], labels [m,K], the samples a, b [m] each was made of.
local function masks(u, set, c, exclude_self, features)
    local attrs = { dist = c.dist, t = c.t, exclude_self = exclude_self }
    local pos, cand = m.mscl_masks(u, set.labels, set.a, set.b, attrs)
    if c.visual_gate == "cosine" then
        attrs.t = 0
        local case1 = m.mscl_masks(u, set.labels, set.a, set.b, attrs)
        pos, cand = visual_gate(pos, cand, case1, features, set.features, c)
    elseif c.visual_gate ~= "none" then
        error(("mscl.visual_gate '%s': none or cosine"):format(tostring(c.visual_gate)), 0)
    end
    return pos, cand
end

---@class contrastive.Views
---@field z any normalised projections [n,d]
---@field labels any f32 [n,K]
---@field features any? r [n,D], for the visual gate

--- Mix-supervised contrastive loss, anchors un-mixed, candidates mixed (variant eq).
---@param clean contrastive.Views the 2B views
---@param mixed contrastive.Views candidate j mixes sample j with sample partner[j]
---@param partner any i32 [m]
---@param c table? contrastive.defaults' keys
---@return any loss, table parts {pos, cand}
function contrastive.mscl_eq(clean, mixed, partner, c)
    c = c or contrastive.defaults
    local n = clean.z.shape[1]
    local self_index = contrastive.identity(n)
    local set = { labels = mixed.labels, a = self_index, b = partner, features = mixed.features }
    local pos, cand = masks(clean.labels, set, c, c.exclude_self, clean.features)
    local zc = mixed.z
    if c.candidates == "mixed+clean" then
        -- The pairs a = b; the anchor itself is never its own candidate.
        set = { labels = clean.labels, a = self_index, b = self_index, features = clean.features }
        local clean_pos, clean_cand = masks(clean.labels, set, c, true, clean.features)
        pos = m.concat(pos, clean_pos, { axis = 2 })
        cand = m.concat(cand, clean_cand, { axis = 2 })
        zc = m.concat(zc, clean.z, { axis = 1 })
    elseif c.candidates ~= "mixed" then
        error(("mscl.candidates '%s': mixed or mixed+clean"):format(tostring(c.candidates)), 0)
    end
    return reduce(clean.z, zc, pos, cand, c), { pos = pos, cand = cand }
end

--- The other reading: anchors are the mixed views with their soft labels, candidates the other mixed
--- views (variant alg).
---@param mixed contrastive.Views
---@param c table? contrastive.defaults' keys
---@return any loss, table parts {pos, cand}
function contrastive.mscl_alg(mixed, c)
    c = c or contrastive.defaults
    local self_index = contrastive.identity(mixed.z.shape[1])
    local set = { labels = mixed.labels, a = self_index, b = self_index, features = mixed.features }
    local pos, cand = masks(mixed.labels, set, c, true, mixed.features)
    return reduce(mixed.z, mixed.z, pos, cand, c), { pos = pos, cand = cand }
end

return contrastive

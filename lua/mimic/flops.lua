-- FLOPs of the tasks, by the formulas of method.md 4.5: matrix products only, 2 per multiply-add, backward
-- twice forward, nothing recomputed counted. What a run costs, and how fast this machine is.
local m = require "mimic"
local vit = require "mimic.vit"

local flops = {}

---@class flops.Count multiply-adds of one picture
---@field macs number forward
---@field patch number of which the patch embedding, whose input needs no gradient

-- depth blocks of width D on T tokens.
local function blocks(T, D, depth, ratio)
    return depth * ((4 + 2 * (ratio or 4)) * T * D * D + 2 * T * T * D)
end

local function sizes(model)
    local c = vit.resolve(model)
    local patches = (c.img // c.patch) ^ 2
    return c, patches, 3 * c.patch * c.patch, c.cls_token and 1 or 0
end

--- A ViT on one picture.
---@param model table keys of vit.defaults
---@param classes integer? outputs of the head
---@return flops.Count
function flops.vit(model, classes)
    local c, patches, pixels, class = sizes(model)
    local patch = patches * c.dim * pixels
    local macs = patch + blocks(patches + class, c.dim, c.depth, c.mlp_ratio) + (classes or 0) * c.dim
    return { macs = macs, patch = patch }
end

-- Encoder on the visible patches alone: model, all tokens, pixels of a patch, visible tokens, count.
local function masked_encoder(model, mask)
    local c, patches, pixels, class = sizes(model)
    local kept = math.floor(patches * (1 - mask))
    local patch = kept * c.dim * pixels
    return c, patches + class, pixels, kept + class, {
        macs = patch + blocks(kept + class, c.dim, c.depth, c.mlp_ratio), patch = patch }
end

---@return flops.Count
function flops.mae(model, mask)
    local c, all, pixels, tokens, count = masked_encoder(model, mask)
    local d = model.decoder
    count.macs = count.macs + tokens * c.dim * d.dim + blocks(all, d.dim, d.depth, c.mlp_ratio)
        + all * d.dim * pixels
    return count
end

---@return flops.Count
function flops.localmim(model, mask)
    local c, all, _, tokens, count = masked_encoder(model, mask)
    local d, out, patches = model.decoder, 3 * model.bins, all - 1
    local up = 2 * d.dim * d.dim * patches -- a transposed convolution that halves the width
    count.macs = count.macs
        + 4 * (tokens * c.dim * d.dim + blocks(all, d.dim, d.depth, c.mlp_ratio))
        + 2 * up + 16 * patches * d.dim / 4 * out -- scale 4: the second one has half the width, twice
        + up + 4 * patches * d.dim / 2 * out      -- the map in each direction: the same products
        + patches * d.dim * out + patches / 4 * d.dim * out
    return count
end

---@return flops.Count
function flops.simmim(model)
    local count = flops.vit(model)
    local c, patches, pixels = sizes(model)
    count.macs = count.macs + patches * c.dim * pixels
    return count
end

--- FLOPs of training on a picture once.
---@param count flops.Count
function flops.train(count)
    return 2 * (3 * count.macs - count.patch)
end

--- FLOPs of a picture in MoCo v3: two views, base forward and backward with frozen patch embedding, momentum
--- encoder forward, the heads of both.
function flops.moco(model)
    local c = vit.resolve(model)
    local count = flops.vit(model)
    local projector = (c.dim + model.mlp_dim + model.out_dim) * model.mlp_dim
    local predictor = 2 * model.out_dim * model.mlp_dim
    local base = 3 * (count.macs - count.patch + projector + predictor) + count.patch
    return 2 * 2 * (base + count.macs + projector)
end

local projections = {
    none = function() return 0 end,
    linear = function(D, d) return D * d end,
    dense = function(D, d) return D * D + D * d end,
}

--- FLOPs of training on one picture under a resolved configuration.
---@param kind "pretrain"|"finetune"
---@param c table
---@param classes integer
function flops.picture(kind, c, classes)
    if kind == "pretrain" then
        if c.method == "moco" then return flops.moco(c.model) end
        if c.method == "supervised" then return flops.train(flops.vit(c.model, classes)) end
        return flops.train(flops[c.method](c.model, c.mask))
    end
    local s = require("mimic.finetune").switches(c)
    local clean, mixed = require("mimic.finetune").needs(s)
    local passes = c.views * ((clean and 1 or 0) + (mixed and 1 or 0))
    local count = flops.vit(c.model, classes)
    if c.freeze == "encoder" then return passes * 2 * count.macs end
    if s.loss ~= "none" then
        count.macs = count.macs + projections[c.proj.kind](vit.resolve(c.model).dim, c.proj.dim)
    end
    return passes * flops.train(count)
end

-- Pictures of sets that are not there, by path and split: what a plan counts with.
local expected = {}

local function key(spec)
    if type(spec) == "string" then return spec end
    return spec.path .. "\0" .. (spec.split or "")
end

--- Says how many pictures a data set has, for plans made without it.
---@param spec string|table data.train and the like
---@param pictures integer
---@param classes integer
function flops.expect(spec, pictures, classes)
    expected[key(spec)] = { pictures = pictures, classes = classes }
end

local opened = {} -- sizes of sets that were looked at

-- Number of pictures and classes of a split, or nil when nobody knows.
local function size_of(data, split, labels)
    local spec = data[split]
    if not spec then return 0, 0 end
    local name = key(spec) .. "\0" .. tostring(labels)
    if opened[name] then return table.unpack(opened[name]) end
    local path = type(spec) == "table" and spec.path or spec
    if m.sys.realpath(path) then
        local ok, set = pcall(require("mimic.task").open, data, split, labels)
        if ok then
            opened[name] = { #set, set.classes }
            return #set, set.classes
        end
    end
    local known = expected[key(spec)]
    if known then return known.pictures, known.classes end
end

--- FLOPs of a run: training, and forward passes of evaluation. nil when the data is not known.
---@param kind string
---@param c table resolved configuration
---@return number?
function flops.run(kind, c)
    if kind ~= "pretrain" and kind ~= "finetune" then return nil end
    local labels = kind == "finetune" or c.method == "supervised"
    local pictures, classes = size_of(c.data, "train", labels)
    if not pictures then return nil end
    local repeats = c.method == "supervised" and c.repeats or 1
    local total = pictures // (c.batch // repeats) * c.batch * (c.epochs / repeats)
        * flops.picture(kind, c, classes)
    if kind == "finetune" then
        local forward = 2 * flops.vit(c.model, classes).macs
        for _, split in ipairs { "val", "test" } do
            local n = size_of(c.data, split, true)
            if n then total = total + c.epochs / c.eval.every * n * forward end
        end
    end
    return total
end

local rates = {} -- measured in this process

--- FLOP/s of training steps on this machine: one block of the model, a few pictures, for about half a second.
---@param model table keys of vit.defaults
---@param precision "f32"|"bf16"
---@return number
function flops.rate(model, precision)
    local task = require "mimic.task"
    local c = vit.resolve(task.merge(model, { depth = 1 }))
    local name = table.concat({ precision, c.img, c.patch, c.dim, c.heads }, " ")
    if rates[name] then return rates[name] end
    local scope <close> = m.scope() -- luacheck: ignore
    local net = vit.new(task.merge(c, { classes = 8 }), 0)
    local optimizer = require("mimic.optim").new(net, { kind = "adamw", bf16 = precision == "bf16" })
    net:compute(precision, optimizer)
    net:train()
    local work = flops.train(flops.vit(c, 8))
    local batch = math.max(1, math.min(64, math.floor(4e9 / work)))
    local images, list = m.rand_normal { batch, 3, c.img, c.img, seed = 0, stream = 1, step = 0 }, {}
    for i = 1, batch do list[i] = i % 8 end
    local labels = m.tensor(list, "i32")
    local function step()
        local inner <close> = m.scope() -- luacheck: ignore
        local loss = m.cross_entropy(net(images), labels)
        loss:backward()
        optimizer:step(1e-5)
        return loss:item()
    end
    step()
    local n, began = 0, m.sys.clock()
    repeat
        step()
        n = n + 1
    until m.sys.clock() - began > 0.5
    rates[name] = n * batch * work / (m.sys.clock() - began)
    return rates[name]
end

--- What runs cost together, with the time on this machine at a rate measured now: ", 3.1e+15 FLOP: 4.2 h at
--- 205 GFLOP/s". "" when no cost is known.
---@param runs {kind: string, config: table, flops: number?}[]
---@return string text, number? rate
function flops.bill(runs)
    local total, largest = 0, nil
    for _, run in ipairs(runs) do
        if run.flops then
            total = total + run.flops
            if not largest or run.flops > largest.flops then largest = run end
        end
    end
    if not largest then return "" end
    local rate = flops.rate(largest.config.model, largest.config.precision)
    return (", %.2g FLOP: %s at %.0f GFLOP/s (measured now)"):format(total, flops.time(total / rate),
        rate / 1e9), rate
end

--- Seconds as a person plans with them: 40 s, 12 min, 3.5 h, 20 days.
---@param s number
function flops.time(s)
    if s < 100 then return ("%.0f s"):format(s) end
    if s < 6000 then return ("%.0f min"):format(s / 60) end
    if s < 72 * 3600 then return ("%.1f h"):format(s / 3600) end
    return ("%.0f days"):format(s / 86400)
end

return flops

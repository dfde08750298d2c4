-- Task "pretrain": an encoder learns from pictures by one of the methods of mimic/pretrain/*.lua, chosen by
-- `method`. Each holds its recipe (every key with its default) in one table; here is what they share.
local m = require "mimic"
local config = require "mimic.config"
local ranges = require "mimic.ranges"
local suggest = require "mimic.suggest"
local task = require "mimic.task"
local train = require "mimic.train"
local vit = require "mimic.vit"

local pretrain = {}

--- Names that `method` takes.
pretrain.methods = { "mae", "moco", "localmim", "simmim", "supervised" }

---@class pretrain.Method
---@field defaults table every key of the task under this method
---@field labelled boolean? the pictures need labels
---@field repeated boolean? c.repeats views of a picture count as pictures of an epoch
---@field model fun(c: table, seed: integer, classes: integer): nn.Module
---@field loss fun(model: nn.Module, batch: table, c: table, at: train.At, seed: integer): any, table?
---@field check (fun(c: table, model: table))? refuses settings that do not go together
---@field views (fun(c: table): integer, integer)? views of each picture, pictures per batch; else 1, c.batch
---@field eval (fun(c: table): table)? how pictures are resized for looking at them
---@field prepare (fun(model: nn.Module, batch: table, c: table, at: train.At, seed: integer))? before each batch of
---  training: what the host computes for it goes into the batch
---@field evaluate (fun(model: nn.Module, loader: any, c: table, classes: integer): table)? named values
---@field values string[]? names of evaluate's values; without it the loss alone is measured
---@field terms string[]? names of what `loss` gives beside the loss
---@field picture (fun(model: nn.Module, batch: table, c: table): any)? a JPEG of what the model does

---@param name string
---@return pretrain.Method
local function method_of(name)
    for _, known in ipairs(pretrain.methods) do
        if name == known then return require("mimic.pretrain." .. name) end
    end
    config.refuse("method '%s'%s: %s", tostring(name), suggest.hint(tostring(name), pretrain.methods),
        table.concat(pretrain.methods, ", "))
end

--- The recipe of a method: its keys and defaults.
---@param given table? a configuration, for its `method`
---@return table
function pretrain.defaults_of(given)
    local name = given and given.method or "mae"
    return task.merge(method_of(name).defaults, { method = name })
end

--- Every key of any method (defaults of MAE where several have it).
pretrain.defaults = {}
for i = #pretrain.methods, 1, -1 do
    task.merge_into(pretrain.defaults, pretrain.defaults_of { method = pretrain.methods[i] })
end

--- Refuses values that cannot be.
---@param c table resolved
---@param defaults table
function pretrain.check(c, defaults)
    ranges.check(c, defaults)
    local model = task.merge(ranges.try(vit.resolve, c.model), { decoder = c.model.decoder })
    ranges.check_sizes(model)
    local method = method_of(c.method)
    if method.check then method.check(c, model) end
    if not c.data.train then config.refuse("data.train is not set: the pictures to pre-train on") end
end

local function set_name(c)
    return c.data.name or task.data_name(c.data.val or c.data.train)
end

--- What a run of a configuration will record.
---@param c table
---@return metrics.Known
function pretrain.metrics(c)
    local method, out = method_of(c.method), task.metrics()
    for _, name in ipairs(method.terms or {}) do out.series[#out.series + 1] = "train/" .. name end
    for k, name in ipairs(c.data.val and (method.values or { "loss" }) or {}) do
        table.insert(out.series, k, "val/" .. name)
        out.results[k] = { set_name(c), "val", name }
    end
    out.at_end = true
    return out
end

-- Mean loss over a data set, with the same random numbers every time.
local function mean_loss(method, model, loader, c, at, seed)
    local sum, n = 0.0, 0
    m.no_grad(function()
        local step = 0
        local next_batch, state, control = loader:epoch(0)
        while true do
            local scope <close> = m.scope() -- luacheck: ignore
            local batch = next_batch(state, control)
            if not batch then break end
            control = batch
            m.set_step(step)
            step = step + 1
            sum, n = sum + method.loss(model, batch, c, at, seed):item() * batch.n, n + batch.n
        end
    end)
    return { loss = sum / n }, n
end

-- Whether an epoch ends with a picture: as often as asked for, else about ten times and with a checkpoint.
local function picture_due(c, at)
    local every = c.picture_epochs
    if not every then every = c.checkpoint_epochs * math.ceil(at.epochs / (10 * c.checkpoint_epochs)) end
    return every > 0 and at.epoch % every == 0
end

--- Pre-trains as run.config says; the final checkpoint holds the parameters under the reference's names.
function pretrain.run(run)
    local c = run.config
    local method = method_of(c.method)
    local data = task.open(c.data, "train", method.labelled or false)
    local val = task.open(c.data, "val", method.labelled or false)
    local views, pictures = 1, c.batch
    if method.views then views, pictures = method.views(c) end
    local model = method.model(c, run.seed, data.classes)
    local optimizer = task.optimizer(model, c)
    local loader = task.training_loader(c.data, data, task.merge(c, { batch = pictures }), run.seed, views)
    -- Repeated augmentation shows `repeats` times the pictures in a pass over the data: fewer passes.
    local repeats = method.repeated and c.repeats or 1
    local loop = repeats == 1 and c or task.merge(c, { epochs = c.epochs // repeats })
    local schedule = task.schedule(c, task.rate(c))
    local name = set_name(c)

    -- What is looked at between epochs: resized pictures, or the views of training where a loss needs both.
    local function looking(dataset)
        if views > 1 and not method.evaluate then
            return task.training_loader(c.data, dataset, task.merge(c, { batch = pictures }), run.seed, views,
                { ordered = true })
        end
        local eval = method.eval and method.eval(c)
            or { batch = c.batch, resize_short = 0, filter = c.augment.filter }
        return task.evaluation_loader(c.data, dataset, c, eval)
    end
    local shown = (val or method.picture) and looking(val or data)

    local function picture(at)
        local scope <close> = m.scope() -- luacheck: ignore
        local next_batch, state = shown:epoch(0)
        run:artifact("reconstruction", "image/jpeg", method.picture(model, next_batch(state), c), at.update)
    end

    local function evaluate(at)
        local values, n
        if method.evaluate then
            values, n = method.evaluate(model, shown, c, data.classes)
        else
            values, n = mean_loss(method, model, shown, c, at, run.seed)
        end
        for metric, value in pairs(values) do
            run:log(at.update, { ["val/" .. metric] = value })
            if at.epoch == at.epochs then run:result(name, "val", metric, value, n, at.update) end
        end
        return values.acc and { value = values.acc, goal = "max", acc = values.acc }
            or { value = values.loss, goal = "min" }
    end

    return train.loop(run, {
        model = model, optimizer = optimizer, loader = loader, config = loop, phase = "pt",
        schedule = function(epoch) return schedule(epoch * repeats) end,
        prepare = method.prepare and function(batch, at)
            method.prepare(model, batch, c, at, run.seed)
        end,
        step = function(batch, at) return method.loss(model, batch, c, at, run.seed) end,
        epoch_end = function(at)
            local last = at.epoch == at.epochs
            if method.picture and c.pictures > 0 and (last or picture_due(c, at)) then picture(at) end
            return val and evaluate(at) or {}
        end,
    })
end

return setmetatable(pretrain, { __call = function(_, run) return pretrain.run(run) end })

-- What the tasks share: opening data sets, the augmentation program, precision, optimiser, schedule.
local m = require "mimic"
local optim = require "mimic.optim"
local schedule = require "mimic.schedule"
local train = require "mimic.train"
local vit = require "mimic.vit"

local task = {}

--- Data sets: a path, or {path, format, split, label_column, mode}.
task.data_defaults = {
    train = false, val = false, test = false,
    name = false,          -- name of the data set in results; false = from the path
    format = "auto", label_column = false,
    mode = false,          -- label rule: maxvote, majority, ... of FERPlus; 7 or 8 classes of AffectNet
    workers = 1, ahead = 2, -- loader threads and batches prepared; results do not depend on them
    cache = 0,             -- MiB of decoded pictures kept in memory
    -- With device = "cuda", where views are made; results do not depend on it. auto: on the GPU, the set kept there
    -- when its pictures have one size and need up to a quarter of the free memory, else sent as bytes; off: on the
    -- CPU; stream: on the GPU, always sent; keep: on the GPU and kept, or an error that says what lacks.
    device = "auto",
    skip_damaged = false,
    balanced = false,      -- draw with weight 1 / count(class)
}

--- Augmentation of training pictures (method.md 6); the size is model.img.
task.augment_defaults = {
    pre_resize = 0, crop = true, scale = { 0.67, 1 }, ratio = { 3 / 4, 4 / 3 }, filter = "bilinear",
    flip = 0.5,
    jitter = { 0, 0, 0, 0 }, jitter_p = 0, grey_p = 0, blur_p = 0, blur_sigma = { 0.1, 2 }, solarize_p = 0,
    randaugment = { n = 0, m = 9, std = 0.5 }, erase_p = 0,
    mean = { 0.485, 0.456, 0.406 }, std = { 0.229, 0.224, 0.225 },
}

--- Keys of optimiser and schedule; a task overrides some values.
task.optim_defaults = {
    opt = "adam", lr = 1e-4, betas = { 0.9, 0.999 }, eps = 1e-8, momentum = 0.9, weight_decay = 5e-4,
    exempt = "timm", layer_decay = 1, clip = 0,
    schedule = "cosine", warmup = 5, min_lr = 1e-6, warmup_lr = 1e-6, gamma = 0.9, milestones = false,
}

--- Tables side by side, later ones win; nested tables are copied.
function task.merge(...)
    local out = {}
    for _, t in ipairs { ... } do
        for k, v in pairs(t) do
            out[k] = type(v) == "table" and task.merge(v) or v
        end
    end
    return out
end

--- Puts the entries of `patch` into `base`, table by table.
---@param base table changed in place
---@param patch table
function task.merge_into(base, patch)
    for k, v in pairs(patch) do
        if type(v) == "table" and type(base[k]) == "table" and #v == 0 then
            task.merge_into(base[k], v)
        else
            base[k] = type(v) == "table" and task.merge(v) or v
        end
    end
end

--- Name of a data set in results: "core/ferplus48_test.tar" -> "ferplus48".
---@param spec string|table
---@return string
function task.data_name(spec)
    local path = type(spec) == "table" and spec.path or spec
    local name = path:gsub("/+$", ""):match("([^/]+)$"):gsub("%.%w+$", "")
    local stem = name:gsub("[_-]train$", ""):gsub("[_-]test$", ""):gsub("[_-]valid$", ""):gsub("[_-]val$", "")
    return stem ~= "" and stem or name
end

--- What every run of train.loop records: the beginning of a task's `metrics`.
---@return metrics.Known
function task.metrics()
    return { series = { "train/loss", "train/epoch_loss", "train/lr", "train/grad_norm", "sys/" }, results = {} }
end

--- Opens one split of config.data; nil when it is not given.
---@param data table config.data
---@param split "train"|"val"|"test"
---@param need_labels boolean
function task.open(data, split, need_labels)
    local spec = data[split]
    if not spec then return nil end
    if type(spec) == "string" then spec = { path = spec } end
    return m.data.open {
        path = spec.path, format = spec.format or data.format, split = spec.split,
        label_column = spec.label_column or data.label_column or nil, need_labels = need_labels,
        mode = (spec.mode or data.mode) and tostring(spec.mode or data.mode) or nil,
    }
end

local function transform(augment, size)
    local out = task.merge(augment)
    out.size = size
    if not out.pre_resize then out.pre_resize = size end
    return out
end

--- Loader of training batches: `views` augmented views of each picture, first views first; c.second
--- changes the augmentation of the views after the first. opts.ordered: every picture once, in order.
function task.training_loader(data, dataset, c, seed, views, opts)
    local drawn = not (opts and opts.ordered)
    local second = c.second and transform(task.merge(c.augment, c.second), c.model.img)
    return m.data.loader(dataset, {
        batch = c.batch, views = views, shuffle = drawn and not data.balanced,
        balanced = drawn and data.balanced, draw_labels = drawn, drop_last = drawn, second = second or nil,
        workers = data.workers, ahead = data.ahead, seed = seed, skip_damaged = data.skip_damaged,
        cache = math.floor(data.cache * 2 ^ 20), device = data.device,
        transform = transform(c.augment, c.model.img),
    })
end

--- Loader of evaluation batches: all pictures in order, resized (or short side + centre crop), normalised.
---@param eval {batch: integer, resize_short: integer, filter: string}
function task.evaluation_loader(data, dataset, c, eval)
    return m.data.loader(dataset, {
        batch = math.min(eval.batch, math.max(#dataset, 1)), views = 1,
        workers = data.workers, ahead = data.ahead,
        cache = math.floor(data.cache * 2 ^ 20), device = data.device,
        transform = {
            size = c.model.img, resize_short = eval.resize_short, filter = eval.filter,
            mean = c.augment.mean, std = c.augment.std,
        },
    })
end

--- Optimiser of a model from the task's configuration, with the model set to its precision.
---@return optim.Optimizer
function task.optimizer(model, c)
    if c.precision ~= "f32" and c.precision ~= "bf16" then
        error(("precision '%s': f32 or bf16"):format(tostring(c.precision)), 0)
    end
    local optimizer = optim.new(model, {
        kind = c.opt, betas = c.betas, eps = c.eps, momentum = c.momentum, weight_decay = c.weight_decay,
        exempt = c.exempt, layer_decay = c.layer_decay, clip = c.clip, bf16 = c.precision == "bf16",
    })
    model:compute(c.precision, optimizer)
    return optimizer
end

--- The learning rate a configuration means: lr, or with lr = false blr for a total batch of `per` pictures.
---@param c table
---@return number
function task.rate(c)
    if not c.lr and not c.blr then error("lr or blr must be set", 0) end
    return c.lr or c.blr * c.batch * c.accumulate / c.per
end

--- Schedule of the task's configuration around a base rate.
function task.schedule(c, lr)
    return schedule.new {
        schedule = c.schedule, lr = lr, min_lr = c.min_lr, warmup = c.warmup, epochs = c.epochs,
        gamma = c.gamma, milestones = c.milestones or {}, warmup_lr = c.warmup_lr,
    }
end

task.loop_defaults = train.defaults
task.model_defaults = vit.defaults

return task

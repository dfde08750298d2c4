-- Task "finetune": encoder + classifier + projection on labelled faces, CE + weight * MSCL (Eq. 14).
-- Presets ce, scl, mimic and mimic-alg are the rows of the paper's tables (method.md 2.10); linear-probe
-- trains a classifier on a frozen encoder (mae main_linprobe.py).
local m = require "mimic"
local config = require "mimic.config"
local contrastive = require "mimic.contrastive"
local evaluate = require "mimic.evaluate"
local heads = require "mimic.heads"
local mixing = require "mimic.mixing"
local nn = require "mimic.nn"
local ranges = require "mimic.ranges"
local task = require "mimic.task"
local train = require "mimic.train"
local vit = require "mimic.vit"
local weights = require "mimic.weights"

local finetune = {}

--- Every key of the task and its default.
finetune.defaults = task.merge(train.defaults, task.optim_defaults, {
    preset = "mimic",       -- ce | scl | mimic | mimic-alg | linear-probe: what "auto" below means
    data = task.data_defaults,
    -- Faces are resized to the model's side first (pre_resize = false), then cropped; 0: from the source.
    augment = task.merge(task.augment_defaults, { pre_resize = false }),
    model = task.merge(vit.defaults, { drop_path = 0.1 }),
    head = { std = 2e-5, batchnorm = false },
    proj = { kind = "dense", dim = 128, init = "torch" },
    ce = { on = "auto", smoothing = 0 }, -- on: clean | mixed | both
    mscl = task.merge(contrastive.defaults, {
        loss = "auto",      -- none | scl | mscl
        variant = "auto",   -- eq | alg
        weight = 0.1,
    }),
    mix = mixing.defaults,
    views = 2,              -- augmented views of each picture
    init_from = false,      -- weights to start from when the run has no parent
    freeze = "none",        -- none | patch_embed | encoder
    layer_decay = 0.65,
    blr = false, per = 256, -- with lr = false: lr = blr * batch * accumulate / per
    eval = { batch = 128, resize_short = 0, filter = "bilinear", every = 1 },
})

finetune.presets = {
    ["ce"] = { loss = "none", variant = "eq", on = "clean" },
    ["scl"] = { loss = "scl", variant = "eq", on = "clean" },
    ["mimic"] = { loss = "mscl", variant = "eq", on = "clean" },
    ["mimic-alg"] = { loss = "mscl", variant = "alg", on = "mixed" },
    ["linear-probe"] = { loss = "none", variant = "eq", on = "clean" },
}

-- Defaults that a preset changes.
local recipes = {
    ["linear-probe"] = {
        freeze = "encoder", head = { std = 0.01, batchnorm = true }, model = { drop_path = 0 }, views = 1,
        augment = { pre_resize = 0, scale = { 0.08, 1 }, filter = "bicubic" },
        opt = "lars", lr = false, blr = 0.1, weight_decay = 0, layer_decay = 1, min_lr = 0,
        epochs = 90, warmup = 10,
    },
}

--- The defaults that hold for a configuration, by its preset.
---@param given table?
---@return table
function finetune.defaults_of(given)
    local preset = given and given.preset or finetune.defaults.preset
    local out = task.merge(finetune.defaults, { preset = preset })
    task.merge_into(out, recipes[preset] or {})
    return out
end

function finetune.check(c, defaults)
    ranges.check(c, defaults)
    ranges.check_sizes(ranges.try(vit.resolve, c.model))
    if c.model.pool == "cls" and not c.model.cls_token then
        config.refuse("model.pool = cls needs model.cls_token = true")
    end
    local variant = finetune.switches(c).variant
    if c.mscl.candidates == "mixed+clean" and variant == "alg" then
        config.refuse("mscl.candidates = mixed+clean needs mscl.variant = eq: alg encodes mixed views only")
    end
    ranges.try(mixing.check, c.mix)
    if not c.data.train then config.refuse("data.train is not set: the labelled pictures to train on") end
end

--- The switches of a configuration with its preset filled in.
---@param c table
---@return {loss: string, variant: string, on: string}
function finetune.switches(c)
    local preset = finetune.presets[c.preset]
    local function pick(value, default) return value == "auto" and default or value end
    return {
        loss = pick(c.mscl.loss, preset.loss),
        variant = pick(c.mscl.variant, preset.variant),
        on = pick(c.ce.on, preset.on),
    }
end

--- The model of Eq. 14: a ViT with head, and proj_head when the loss contrasts.
---@param c table finetune.defaults' keys
---@param classes integer
---@param seed integer?
---@return vit.ViT
function finetune.model(c, classes, seed)
    local settings = task.merge(c.model)
    settings.classes, settings.head = classes, c.head
    local model = vit.new(settings)
    if finetune.switches(c).loss ~= "none" then
        model:child("proj_head", heads.projection(model.config.dim, c.proj))
    end
    return seed and model:initialise(seed) or model
end

--- Name of a split's data set in the results.
local function set_name(c, split)
    return c.data.name or task.data_name(c.data[split])
end

--- What a run of a configuration will record.
---@param c table finetune.defaults' keys
---@return metrics.Known
function finetune.metrics(c)
    local out = task.metrics()
    out.series[#out.series + 1] = "train/ce"
    if finetune.switches(c).loss ~= "none" and c.mscl.weight ~= 0 then
        out.series[#out.series + 1] = "train/contrast"
    end
    for _, split in ipairs { "test", "val" } do
        if c.data[split] then
            for k, name in ipairs { "acc", "loss" } do table.insert(out.series, k, split .. "/" .. name) end
            for _, metric in ipairs { "acc", "acc_last", "best_epoch", "mean_recall", "recall/" } do
                out.results[#out.results + 1] = { set_name(c, split), split, metric }
            end
        end
    end
    if c.data.val and c.data.test then
        out.results[#out.results + 1] = { set_name(c, "test"), "test", "acc_at_best_val" }
    end
    return out
end

--- Whether a loss needs the un-mixed and the mixed views in the encoder.
---@param s table of finetune.switches
---@return boolean clean, boolean mixed
function finetune.needs(s)
    local mixed = s.on ~= "clean" or s.loss == "mscl"
    local clean = s.on ~= "mixed" or s.loss == "scl" or s.loss == "mscl" and s.variant == "eq"
    return clean, mixed
end

local function contrast(model, s, c, clean, mixed, labels, classes, plan)
    local function project(r) return contrastive.normalise(model.proj_head(r)) end
    if s.loss == "scl" then
        local z = project(clean.r)
        local loss, parts = contrastive.scl(z, labels, classes, c.mscl)
        parts.z_anchor = z
        return loss, parts
    end
    local candidates = { z = project(mixed.r), labels = mixed.labels, features = mixed.r }
    local loss, parts
    if s.variant == "alg" then
        loss, parts = contrastive.mscl_alg(candidates, c.mscl)
    else
        local anchors = { z = project(clean.r), labels = clean.labels, features = clean.r }
        loss, parts = contrastive.mscl_eq(anchors, candidates, plan.partner, c.mscl)
        parts.z_anchor = anchors.z
    end
    parts.z_mixed = candidates.z
    return loss, parts
end

--- Eq. 14 on a batch of views.
---@param model vit.ViT of finetune.model
---@param views any f32 [n,3,H,W], un-mixed: all first views, then all second views
---@param labels any i32 [n]
---@param plan mixing.Plan? needed when something is mixed
---@param c table finetune.defaults' keys
---@param shares any? f32 [n,classes], soft labels in the place of `labels`
---@return any loss, table terms (ce, contrast), table parts for tests and pictures
function finetune.loss(model, views, labels, plan, c, shares)
    local s = finetune.switches(c)
    local need_clean, need_mixed = finetune.needs(s)
    local classes = model.config.classes
    local n = labels.shape[1]
    local y = shares or m.onehot(labels, { classes = classes })
    local parts, clean, mixed = {}, nil, nil
    local images = views
    if need_mixed then
        parts.mixed = mixing.images(views, plan)
        parts.label_mix = mixing.labels(y, plan)
        images = need_clean and m.concat(views, parts.mixed, { axis = 1 }) or parts.mixed
    end
    -- One pass of the encoder over all views: clean ones first.
    local r = model:features(images)
    if need_clean then
        clean = { labels = y, r = need_mixed and r:slice{ axis = 1, start = 1, stop = n } or r }
    end
    if need_mixed then
        mixed = { labels = parts.label_mix,
            r = need_clean and r:slice{ axis = 1, start = n + 1, stop = 2 * n } or r }
    end

    local smoothing = { smoothing = c.ce.smoothing }
    local ce
    if s.on ~= "mixed" then
        parts.logits = model:logits(clean.r)
        ce = m.cross_entropy(parts.logits, shares or labels, smoothing)
    end
    if s.on ~= "clean" then
        parts.logits_mixed = model:logits(mixed.r)
        local soft = m.cross_entropy(parts.logits_mixed, mixed.labels, smoothing)
        ce = ce and (ce + soft) * 0.5 or soft
    end
    if s.loss == "none" or c.mscl.weight == 0 then return ce, { ce = ce }, parts end
    local term, found = contrast(model, s, c, clean, mixed, labels, classes, plan)
    for k, v in pairs(found) do parts[k] = v end
    return ce + term * c.mscl.weight, { ce = ce, contrast = term }, parts
end

-- Best epochs so far and what was measured in them: the task's state across interruptions.
local Scores = {}
Scores.__index = Scores

--- Takes one split's report of an epoch; true when it is the best so far.
function Scores:add(split, report, at)
    local best = self.best[split]
    self.last[split] = { correct = report.correct, n = report.n, confusion = report.confusion,
        mistaken = report.mistaken, epoch = at.epoch, update = at.update }
    if best and report.correct <= best.correct then return false end
    self.best[split] = self.last[split]
    return true
end

local function percent(score) return 100 * score.correct / score.n end

-- Writes the results of a split: best epoch (what papers on faces report), last epoch, per class.
function Scores:record(run, name, split, classes)
    local best, last = self.best[split], self.last[split]
    if not best then return end
    run:result(name, split, "acc", percent(best), best.n, best.update)
    run:result(name, split, "acc_last", percent(last), last.n, last.update)
    run:result(name, split, "best_epoch", best.epoch, best.n, best.update)
    local recall, mean = evaluate.recall(best.confusion)
    run:result(name, split, "mean_recall", mean, best.n, best.update)
    for k, value in ipairs(recall) do
        local class = classes[k] ~= "" and classes[k] or tostring(k - 1)
        if value then run:result(name, split, "recall/" .. class, value, best.n, best.update) end
    end
    run:confusion(name, split, best.confusion)
    local chosen = split == "test" and self.best.test_at_best_val
    if chosen then run:result(name, "test", "acc_at_best_val", percent(chosen), chosen.n, chosen.update) end
end

-- Pictures of the worst confusions in the best epoch, for the report.
function Scores:show(run, name, split, dataset, at)
    for _, c in ipairs(self.best[split] and self.best[split].mistaken or {}) do
        run:artifact(("mistaken/%s/%s/%d/%d"):format(name, split, c.truth, c.pred), "image/jpeg",
            evaluate.strip(dataset, c.index), at.update)
    end
end

-- JSON has one kind of number; counts come back as integers.
local function integers(t)
    for k, v in pairs(t) do
        if type(v) == "table" then integers(v) else t[k] = math.tointeger(v) or v end
    end
    return t
end

local function freeze(model, what)
    if what == "patch_embed" then model:freeze("^patch_embed%.") end
    if what ~= "encoder" then return end
    for _, p in ipairs(model:parameters()) do
        local head = p.name:find("^head%.") or p.name:find("^proj_head%.")
        if not head then p.tensor:requires_grad_(false) end
    end
end

local function start_weights(run, model, c)
    local path = run.parent and run.parent:weights() or c.init_from
    if not path then return end
    local report = weights.transfer(model, path)
    run:artifact("transfer", "application/json", config.json {
        loaded = #report.loaded, resized = report.resized, missing = report.missing,
    })
end

--- Fine-tunes (or trains from scratch) as run.config says.
function finetune.run(run)
    local c = run.config
    local s = finetune.switches(c)
    run:artifact("switches", "application/json", config.json(s))
    local data = task.open(c.data, "train", true)
    local splits, loaders, names, sets = {}, {}, {}, {}
    for _, split in ipairs { "val", "test" } do
        local opened = task.open(c.data, split, true)
        if opened then
            if opened.classes > data.classes then
                error(("data.%s has %d classes, but data.train %d"):format(split, opened.classes, data.classes), 0)
            end
            splits[#splits + 1] = split
            sets[split] = opened
            loaders[split] = task.evaluation_loader(c.data, opened, c, c.eval)
            names[split] = set_name(c, split)
        end
    end
    local classes, class_names = data.classes, {}
    for k = 1, classes do class_names[k] = data:class_name(k - 1) end
    run:artifact("classes", "application/json", config.json(class_names))

    local model = finetune.model(c, classes, run.seed)
    if not run:resume() then start_weights(run, model, c) end
    freeze(model, c.freeze)
    local optimizer = task.optimizer(model, c)
    local loader = task.training_loader(c.data, data, c, run.seed, c.views)
    local scores = setmetatable({ best = {}, last = {} }, Scores)
    local _, need_mixed = finetune.needs(s)
    local mix_stream = nn.stream("mix")

    local function prepare(batch, at)
        local shape = batch.images.shape
        batch.plan = need_mixed and
            mixing.draw(shape[1], c.mix, m.rng(run.seed, mix_stream, at.step), shape[3], shape[4]) or nil
    end

    local function step(batch)
        local labels = batch.labels
        local shares = batch.soft
        for _ = 2, c.views do
            labels = m.concat(labels, batch.labels, { axis = 1 })
            shares = shares and m.concat(shares, batch.soft, { axis = 1 })
        end
        local loss, terms = finetune.loss(model, batch.images, labels, batch.plan, c, shares)
        return loss, terms
    end

    local function epoch_end(at)
        if at.epoch < at.epochs and at.epoch % c.eval.every ~= 0 then return false end
        local reports, better = {}, {}
        for _, split in ipairs(splits) do
            local report = evaluate.classifier(model, loaders[split], classes)
            reports[split] = report
            better[split] = scores:add(split, report, at)
            run:log(at.update, { [split .. "/acc"] = report.acc, [split .. "/loss"] = report.loss })
        end
        if better.val and reports.test then scores.best.test_at_best_val = scores.last.test end
        for _, split in ipairs(splits) do
            scores:record(run, names[split], split, class_names)
            if at.epoch == at.epochs then scores:show(run, names[split], split, sets[split], at) end
        end
        local judge = reports.val or reports.test
        return judge and { value = judge.acc, goal = "max", acc = (reports.test or judge).acc } or {}
    end

    return train.loop(run, {
        model = model, optimizer = optimizer, schedule = task.schedule(c, task.rate(c)), loader = loader,
        config = c, phase = "ft", prepare = prepare, step = step, epoch_end = epoch_end,
        save = function() return { best = scores.best, last = scores.last } end,
        load = function(state)
            scores.best, scores.last = integers(state.best or {}), integers(state.last or {})
        end,
    })
end

return setmetatable(finetune, { __call = function(_, run) return finetune.run(run) end })

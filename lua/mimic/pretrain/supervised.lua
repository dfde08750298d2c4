-- method = "supervised": classification of labelled pictures, DeiT's recipe (method.md Eq. 1, 3.1). Of that
-- recipe the average of weights (EMA), which the result does not need, is left out.
local m = require "mimic"
local config = require "mimic.config"
local evaluate = require "mimic.evaluate"
local mixing = require "mimic.mixing"
local nn = require "mimic.nn"
local task = require "mimic.task"
local train = require "mimic.train"
local vit = require "mimic.vit"

local method = { labelled = true, repeated = true }

--- Every key and its default (DeiT main.py).
method.defaults = task.merge(train.defaults, task.optim_defaults, {
    method = "supervised",
    data = task.data_defaults,
    augment = task.merge(task.augment_defaults, {
        scale = { 0.08, 1 }, filter = "bicubic", randaugment = { n = 2, m = 9, std = 0.5 }, erase_p = 0.25,
    }),
    repeats = 3,            -- repeated augmentation: views of a picture in a batch, each counts as a picture
    mix = task.merge(mixing.defaults, { mixup = 0.8, cutmix = 1 }),
    smoothing = 0.1,
    model = task.merge(vit.defaults, { pool = "cls", drop_path = 0.1 }),
    head = { std = 0.02, batchnorm = false },
    epochs = 300, warmup = 5, batch = 64,
    schedule = "deit", warmup_lr = 1e-6, min_lr = 1e-5,
    opt = "adamw", betas = { 0.9, 0.999 }, weight_decay = 0.05, exempt = "timm",
    blr = 5e-4, per = 512,  -- lr = blr * batch * accumulate / per; the published batch is 1024
    lr = false,             -- absolute rate instead of blr
    eval = { batch = 128, resize_short = 0, filter = "bicubic" }, -- resize_short 0: 8/7 of the side
})

function method.model(c, seed, classes)
    local settings = task.merge(c.model)
    settings.classes, settings.head = classes, c.head
    return vit.new(settings, seed)
end

function method.check(c)
    if c.batch % c.repeats ~= 0 or c.epochs % c.repeats ~= 0 then
        config.refuse("repeats = %d must divide batch = %d and epochs = %d", c.repeats, c.batch, c.epochs)
    end
end

function method.views(c)
    return c.repeats, c.batch // c.repeats
end

function method.eval(c)
    local short = c.eval.resize_short > 0 and c.eval.resize_short or (c.model.img * 8 + 6) // 7
    return task.merge(c.eval, { resize_short = short })
end

local stream = nn.stream("mix")

function method.prepare(_, batch, c, at, seed)
    local shape = batch.images.shape
    batch.plan = mixing.draw(shape[1], c.mix, m.rng(seed, stream, at.step), shape[3], shape[4])
end

function method.loss(model, batch, c)
    local labels = batch.labels
    for _ = 2, c.repeats do labels = m.concat(labels, batch.labels, { axis = 1 }) end
    local y = mixing.labels(m.onehot(labels, { classes = model.config.classes }), batch.plan)
    local logits = model(mixing.images(batch.images, batch.plan))
    return (m.cross_entropy(logits, y, { smoothing = c.smoothing }))
end

method.values = { "acc", "loss" }

function method.evaluate(model, loader, _, classes)
    local report = evaluate.classifier(model, loader, classes)
    return { acc = report.acc, loss = report.loss }, report.n
end

return method

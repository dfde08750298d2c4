-- method = "localmim": local multi-scale reconstruction (method.md 3.1).
local localmim = require "mimic.localmim"
local ranges = require "mimic.ranges"
local task = require "mimic.task"
local train = require "mimic.train"

local method = {}

--- Every key and its default (ViT/README.md for ViT-B).
method.defaults = task.merge(train.defaults, task.optim_defaults, {
    method = "localmim",
    data = task.data_defaults,
    augment = task.merge(task.augment_defaults, { scale = { 0.2, 1 }, filter = "bicubic" }),
    model = localmim.defaults,
    mask = 0.75,            -- share of removed patches
    epochs = 1600, warmup = 40, batch = 64, -- the short recipe has 100 and 10
    opt = "adamw", betas = { 0.9, 0.95 }, weight_decay = 0.05, exempt = "mae", min_lr = 1e-6,
    blr = 2e-4, per = 256,  -- lr = blr * batch * accumulate / per; the published batch is 2048
    lr = false,             -- absolute rate instead of blr
})

function method.check(c, model)
    ranges.check_mask(model, c.mask)
end

function method.model(c, seed)
    return localmim.new(c.model, seed)
end

function method.loss(model, batch, c)
    return (model(batch.images, model:noise(batch.images.shape[1]), c.mask))
end

return method

-- method = "simmim": SimMIM (method.md 3.1, 6.9).
local ranges = require "mimic.ranges"
local reconstruction = require "mimic.reconstruction"
local simmim = require "mimic.simmim"
local task = require "mimic.task"
local train = require "mimic.train"

local method = {}

--- Every key and its default (the published configuration for ViT-B).
method.defaults = task.merge(train.defaults, task.optim_defaults, {
    method = "simmim",
    data = task.data_defaults,
    augment = task.merge(task.augment_defaults, { scale = { 0.67, 1 } }),
    model = simmim.defaults,
    mask = 0.6,             -- share of masked cells, rounded up
    mask_patch = 32,        -- side of a cell in pixels
    epochs = 800, warmup = 10, batch = 64,
    schedule = "step", milestones = { 700 }, gamma = 0.1,
    opt = "adamw", betas = { 0.9, 0.999 }, weight_decay = 0.05, exempt = "timm", clip = 5,
    blr = 1e-4, per = 512,  -- lr = blr * batch * accumulate / per; the published batch is 2048
    lr = false,             -- absolute rate instead of blr
    pictures = 8,           -- reconstructions kept at the end; 0 = none
    picture_epochs = false, -- and every so many epochs; false = about ten times, with checkpoints
})

function method.check(c, model)
    ranges.try(simmim.cells, model, c.mask_patch)
end

function method.model(c, seed)
    return simmim.new(c.model, seed)
end

function method.loss(model, batch, c)
    return (model(batch.images, model:mask(batch.images.shape[1], c.mask_patch, c.mask)))
end

function method.picture(model, batch, c)
    return reconstruction.jpeg(batch, c.pictures, function(images)
        return model:visualise(images, model:mask(images.shape[1], c.mask_patch, c.mask), c.augment)
    end)
end

return method

-- method = "mae": masked reconstruction of pictures (method.md Eq. 2, 2.9).
local mae = require "mimic.mae"
local ranges = require "mimic.ranges"
local reconstruction = require "mimic.reconstruction"
local task = require "mimic.task"
local train = require "mimic.train"

local method = {}

--- Every key and its default (MAE's published recipe; epochs of its ablations).
method.defaults = task.merge(train.defaults, task.optim_defaults, {
    method = "mae",
    data = task.data_defaults,
    augment = task.merge(task.augment_defaults, { scale = { 0.2, 1 }, filter = "bicubic" }),
    model = mae.defaults,
    mask = 0.75,            -- share of removed patches
    norm_pix = true,        -- targets normalised per patch
    loss = { on = "masked" }, -- masked | all patches
    epochs = 800, warmup = 40, batch = 64,
    opt = "adamw", betas = { 0.9, 0.95 }, weight_decay = 0.05, exempt = "mae", min_lr = 0,
    blr = 1.5e-4, per = 256, -- lr = blr * batch * accumulate / per; the published batch is 4096
    lr = false,             -- absolute rate instead of blr
    pictures = 8,           -- reconstructions kept at the end; 0 = none
    picture_epochs = false, -- and every so many epochs; false = about ten times, with checkpoints
})

function method.check(c, model)
    ranges.check_mask(model, c.mask)
end

function method.model(c, seed)
    return mae.new(c.model, seed)
end

function method.loss(model, batch, c)
    return (model(batch.images, model:noise(batch.images.shape[1]),
        { mask = c.mask, norm_pix = c.norm_pix, on = c.loss.on }))
end

function method.picture(model, batch, c)
    return reconstruction.jpeg(batch, c.pictures, function(images)
        return model:visualise(images, model:noise(images.shape[1]),
            { mask = c.mask, norm_pix = c.norm_pix, mean = c.augment.mean, std = c.augment.std })
    end)
end

return method

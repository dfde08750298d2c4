-- method = "moco": MoCo v3 (method.md 3.1).
local moco = require "mimic.moco"
local schedule = require "mimic.schedule"
local task = require "mimic.task"
local train = require "mimic.train"

local method = {}

--- Every key and its default (CONFIG.md and main_moco.py for ViT-B).
method.defaults = task.merge(train.defaults, task.optim_defaults, {
    method = "moco",
    data = task.data_defaults,
    augment = task.merge(task.augment_defaults, {
        scale = { 0.08, 1 }, jitter = { 0.4, 0.4, 0.2, 0.1 }, jitter_p = 0.8, grey_p = 0.2,
        blur_p = 1,
    }),
    second = { blur_p = 0.1, solarize_p = 0.2 }, -- what differs in the second view
    model = moco.defaults,
    tau = 0.2,
    momentum_encoder = 0.99, -- at the start; goes to 1 along a half cosine
    epochs = 300, warmup = 40, batch = 64,
    opt = "adamw", betas = { 0.9, 0.999 }, weight_decay = 0.1, exempt = "none", min_lr = 0,
    blr = 1.5e-4, per = 256, -- lr = blr * batch * accumulate / per; the published batch is 4096
    lr = false,             -- absolute rate instead of blr
})

function method.model(c, seed)
    return moco.new(c.model, seed)
end

function method.views(c)
    return 2, c.batch
end

-- The momentum encoder moves once per update, before it makes keys.
function method.prepare(model, _, c, at)
    if at.pending > 0 then return end
    model:move(schedule.moco_momentum(c.momentum_encoder, c.epochs)(at.fraction))
end

method.terms = { "nearest_key_is_right" }

function method.loss(model, batch, c)
    local loss, hits = model(batch.images, c.tau)
    return loss, { nearest_key_is_right = hits }
end

return method

-- Task "pretrain": masked reconstruction of unlabelled pictures (method.md 2.9).
local m = require "mimic"
local mae = require "mimic.mae"
local task = require "mimic.task"
local train = require "mimic.train"

local pretrain = {}

--- Every key of the task and its default (MAE's published recipe; epochs of its ablations).
pretrain.defaults = task.merge(train.defaults, task.optim_defaults, {
    data = task.data_defaults,
    augment = task.merge(task.augment_defaults, { scale = { 0.2, 1 }, filter = "bicubic" }),
    model = mae.defaults,
    mask = 0.75,            -- share of removed patches
    norm_pix = true,        -- targets normalised per patch
    loss = { on = "masked" }, -- masked | all patches
    epochs = 800, warmup = 40, batch = 64,
    opt = "adamw", betas = { 0.9, 0.95 }, weight_decay = 0.05, exempt = "mae", min_lr = 0,
    blr = 1.5e-4,           -- lr = blr * batch * accumulate / 256
    lr = false,             -- absolute rate instead of blr
    pictures = 8,           -- reconstructions kept at the end; 0 = none
    picture_epochs = 0,     -- and every so many epochs
})

-- Input, masked input and output of the first pictures, one JPEG: a picture per row.
local function reconstruction(model, batch, c)
    local scope <close> = m.scope() -- luacheck: ignore
    local n = math.min(c.pictures, batch.images.shape[1])
    local images = batch.images:slice{ axis = 1, start = 1, stop = n }:contiguous()
    m.set_step(0)
    local noise = model:noise(n)
    local input, masked, output = model:visualise(images, noise,
        { mask = c.mask, norm_pix = c.norm_pix, mean = c.augment.mean, std = c.augment.std })
    local rows = m.concat(input, masked, output, { axis = 3 }) -- [n,S,3S,3]
    local side = c.model.img
    return m.image.from(rows:reshape{ n * side, 3 * side, 3 }):jpeg(90)
end

--- Mean loss over a data set with the same masks every time.
local function evaluate(model, loader, c)
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
            local loss = model(batch.images, model:noise(batch.n),
                { mask = c.mask, norm_pix = c.norm_pix, on = c.loss.on })
            sum, n = sum + loss:item() * batch.n, n + batch.n
        end
    end)
    return sum / n, n
end

--- Pre-trains as run.config says; the final checkpoint holds MAE's parameters under the reference's names.
function pretrain.run(run)
    local c = run.config
    local data = task.open(c.data, "train", false)
    if not data then error("data.train is not set: the pictures to pre-train on", 0) end
    local val = task.open(c.data, "val", false)
    local model = mae.new(c.model, run.seed)
    local optimizer = task.optimizer(model, c)
    local loader = task.training_loader(c.data, data, c, run.seed, 1)
    local eval = { batch = c.batch, resize_short = 0, filter = c.augment.filter }
    local shown = task.evaluation_loader(c.data, val or data, c, eval)
    local lr = c.lr or c.blr * c.batch * c.accumulate / 256
    local opts = { mask = c.mask, norm_pix = c.norm_pix, on = c.loss.on }
    local name = c.data.name or task.data_name(c.data.val or c.data.train)

    local function picture(at)
        local scope <close> = m.scope() -- luacheck: ignore
        local next_batch, state = shown:epoch(0)
        local jpeg = reconstruction(model, next_batch(state), c)
        run:artifact("reconstruction", "image/jpeg", jpeg, at.update)
    end

    local at = train.loop(run, {
        model = model, optimizer = optimizer, schedule = task.schedule(c, lr), loader = loader, config = c,
        phase = "pt",
        step = function(batch)
            return (model(batch.images, model:noise(batch.images.shape[1]), opts))
        end,
        epoch_end = function(at)
            local last = at.epoch == at.epochs
            if c.pictures > 0 and (last or c.picture_epochs > 0 and at.epoch % c.picture_epochs == 0) then
                picture(at)
            end
            if not val then return {} end
            local loss, n = evaluate(model, shown, c)
            run:log(at.update, { ["val/loss"] = loss })
            if last then run:result(name, "val", "loss", loss, n, at.update) end
            return { value = loss, goal = "min" }
        end,
    })
    return at
end

return setmetatable(pretrain, { __call = function(_, run) return pretrain.run(run) end })

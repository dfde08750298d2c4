-- opt_*: trajectories of the optimisers with layer decay. schedules: learning rates in double.
local m = require "mimic"

local check = {}

check["opt"] = function(g)
    local list = {}
    for _, stored in ipairs(g.names) do
        local name = stored:match("^w0%.(.+)$")
        if name then list[#list + 1] = { name = name, tensor = g:f32(stored):requires_grad_(true) } end
    end
    local betas = g:list("meta.betas_eps")
    local adamw = g.file:metadata().note:find("AdamW") ~= nil
    local optimizer = m.optim.new(list, {
        kind = adamw and "adamw" or "adam", betas = { betas[1], betas[2] }, eps = betas[3],
        weight_decay = g:scalar("meta.weight_decay"), layer_decay = g:scalar("meta.layer_decay"),
        exempt = "timm",
    })
    for _, group in ipairs(optimizer.groups) do
        g:relative("scale." .. group.name, group.lr_scale, 1e-12)
        g:relative("wd." .. group.name, group.weight_decay, 1e-12)
    end
    for step, lr in ipairs(g:list("in.lrs")) do
        for _, p in ipairs(list) do p.tensor.grad:copy_(g:f32(("g%d.%s"):format(step - 1, p.name))) end
        optimizer:step(lr)
        for _, p in ipairs(list) do
            local name = ("w%d.%s"):format(step, p.name)
            local largest = 1
            for _, v in ipairs(g:list(name)) do largest = math.max(largest, math.abs(v)) end
            g:absolute(name, p.tensor, 1e-6 * largest)
        end
    end
end

check["schedules"] = function(g)
    local function values(f, epochs)
        local out = {}
        for i, e in ipairs(epochs) do out[i] = f(e) end
        return out
    end
    for _, name in ipairs(g.names) do
        local tag = name:match("^meta%.(.+)$")
        if tag then
            local c, epochs = g:list(name), g:list(("in.%s.epoch"):format(tag))
            if tag == "moco" then
                g:relative("out.moco.m", values(m.schedule.moco_momentum(c[1], c[2]), epochs), 1e-12)
            elseif tag == "timm" then
                local f = m.schedule.deit {
                    lr = c[1], warmup_lr = c[2], min_lr = c[3], warmup = c[4], epochs = c[5],
                }
                g:relative("out.timm.lr", values(f, epochs), 1e-12)
            else
                local f = m.schedule.cosine { lr = c[1], min_lr = c[2], warmup = c[3], epochs = c[4] }
                g:relative(("out.%s.lr"):format(tag), values(f, epochs), 1e-12)
            end
        end
    end
end

return check

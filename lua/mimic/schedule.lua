-- Learning-rate schedules: functions of the fractional epoch (method.md 2.8, 3.1).
-- Rule: the arithmetic is in the order of the reference code, so that values agree to the last bit.
local schedule = {}

-- Linear warm-up from 0 in front of f(epoch).
local function warmed(c, f)
    return function(epoch)
        if epoch < (c.warmup or 0) then return c.lr * epoch / c.warmup end
        return f(epoch)
    end
end

--- Warm-up, then a half-cycle cosine to min_lr (mae util/lr_sched.py).
---@param c {lr: number, min_lr: number?, warmup: number?, epochs: number}
---@return fun(epoch: number): number
function schedule.cosine(c)
    local min, warmup = c.min_lr or 0, c.warmup or 0
    return warmed(c, function(epoch)
        return min + (c.lr - min) * 0.5 *
            (1 + math.cos(math.pi * (epoch - warmup) / (c.epochs - warmup)))
    end)
end

--- Warm-up, then constant.
function schedule.constant(c)
    return warmed(c, function() return c.lr end)
end

--- Warm-up, then lr * gamma^epoch, changed at whole epochs.
---@param c {lr: number, gamma: number?, warmup: number?}
function schedule.exponential(c)
    local gamma = c.gamma or 0.9
    return warmed(c, function(epoch) return c.lr * gamma ^ math.floor(epoch) end)
end

--- Warm-up, then times gamma at each milestone (SimMIM: 0.1 at epoch 700).
---@param c {lr: number, gamma: number?, milestones: number[], warmup: number?}
function schedule.step(c)
    local gamma, milestones = c.gamma or 0.1, c.milestones or {}
    return warmed(c, function(epoch)
        local lr = c.lr
        for _, at in ipairs(milestones) do
            if epoch >= at then lr = lr * gamma end
        end
        return lr
    end)
end

--- timm's cosine as DeiT uses it: per epoch, warm-up from warmup_lr, the cosine not shifted by the warm-up.
---@param c {lr: number, warmup_lr: number?, min_lr: number?, warmup: number?, epochs: number}
function schedule.deit(c)
    local min, warmup, start = c.min_lr or 1e-5, c.warmup or 0, c.warmup_lr or 1e-6
    return function(epoch)
        epoch = math.floor(epoch)
        if epoch < warmup then return start + epoch * ((c.lr - start) / warmup) end
        if epoch >= c.epochs then return min end
        return min + 0.5 * (c.lr - min) * (1 + math.cos(math.pi * epoch / c.epochs))
    end
end

local kinds = {
    cosine = schedule.cosine, constant = schedule.constant, exponential = schedule.exponential,
    step = schedule.step, deit = schedule.deit,
}

--- The schedule c.schedule names.
---@param c table schedule, lr, min_lr, warmup, epochs, gamma, milestones, warmup_lr
function schedule.new(c)
    local make = kinds[c.schedule]
    if not make then
        error(("schedule '%s': cosine, constant, exponential, step or deit"):format(tostring(c.schedule)), 0)
    end
    return make(c)
end

--- Momentum of MoCo v3's second encoder: m0 -> 1 along a half cosine.
---@param m0 number
---@param epochs number
function schedule.moco_momentum(m0, epochs)
    return function(epoch)
        return 1 - 0.5 * (1 + math.cos(math.pi * epoch / epochs)) * (1 - m0)
    end
end

return schedule

-- The resumable training loop that every task uses.
-- Rule: a step's numbers depend on (seed, step) only and everything else that matters is in the checkpoint,
-- so a run that was interrupted ends in the same bits as one that was not.
local m = require "mimic"
local profile = require "mimic.profile"
local progress = require "mimic.progress"
local replay = require "mimic.replay"
local weights = require "mimic.weights"

local train = {}

--- Keys every task shares, with their defaults.
train.defaults = {
    device = "cpu",            -- cpu | cuda
    epochs = 50, batch = 64, accumulate = 1,
    precision = "f32",         -- f32 | bf16 (f32 masters and losses)
    graph = true,              -- cuda: replay a recorded step, checked to give the same bits; cpu: nothing
    log_every = 10,            -- updates between two logged values
    checkpoint_epochs = 1,     -- epochs between two checkpoints
    checkpoint_seconds = 600,  -- and at most this long inside an epoch; 0 = off
}

---@class train.Spec
---@field model nn.Module
---@field optimizer optim.Optimizer
---@field schedule fun(epoch: number): number
---@field loader any m.data.loader
---@field config table train.defaults' keys
---@field phase string for the progress line
---@field prepare (fun(batch: table, at: train.At))? before each step: what the host computes for it, as tensors in
---  the batch; and what is no part of forward and backward
---@field step fun(batch: table, at: train.At): any, table? scalar loss, and tensors or numbers to log
---@field epoch_end (fun(at: train.At): table|false|nil)? called in evaluation mode; returns {value, goal, acc}, or
---  false where this epoch was not evaluated
---@field save (fun(): table)? the task's own state: plain values, exact as JSON
---@field load (fun(state: table))?

---@class train.At
---@field epoch integer epochs finished
---@field epochs integer
---@field position integer batches of this epoch finished
---@field update integer optimiser updates finished
---@field step integer batches finished since the start
---@field fraction number epoch with its fraction
---@field pending integer batches gathered since the last update

-- Sums are kept exact through JSON.
local function pack(x) return ("%a"):format(x) end

---@class train.Loop
local Loop = {}
Loop.__index = Loop

local function integer(x) return math.tointeger(x) or error("checkpoint: a count is no integer", 0) end

function Loop:restore()
    local last = self.run:resume()
    if not last then return end
    local meta = last.meta
    local file = m.safetensors.open(last.path)
    local ok, err = pcall(function()
        weights.copy(self.spec.model, file, last.path,
            { drop = function(name) return name:find("^optimizer%.") ~= nil end })
        self.spec.optimizer:restore(file, integer(meta.update))
    end)
    file:close()
    if not ok then error(err, 0) end
    -- bf16 copies of tensors that are not trained were made of the initial values.
    self.spec.model:compute(self.spec.config.precision, self.spec.optimizer)
    local at = self.at
    at.epoch, at.position, at.update = integer(meta.epoch), integer(meta.position), integer(meta.update)
    self.loss_sum, self.loss_count = tonumber(meta.loss_sum), integer(meta.loss_count)
    if self.spec.load then self.spec.load(meta.task or {}) end
    self.saved = at.update
    self.saved_epoch = at.epoch
end

-- What a checkpoint holds.
function Loop:tensors()
    local tensors = weights.list(self.spec.model)
    for _, pair in ipairs(self.spec.optimizer:state()) do tensors[#tensors + 1] = pair end
    return tensors
end

function Loop:save(value, goal, final)
    self:settle()
    local spec, at = self.spec, self.at
    local tensors = self:tensors()
    local meta = {
        epoch = at.epoch, position = at.position, update = at.update,
        loss_sum = pack(self.loss_sum), loss_count = self.loss_count,
        task = spec.save and spec.save() or nil,
    }
    self.run:checkpoint(at.update, tensors, meta,
        { value = value, goal = goal, final = final, inside = at.position > 0 })
    self.saved, self.saved_epoch = at.update, at.epoch
    self.saved_at = m.sys.clock()
end

-- Takes note of the loss of the batch before: on a GPU it arrives while the next batch is under way, so that
-- the host is always ahead. There a loss that is no number is seen one update late.
function Loop:settle()
    local due = self.due
    if not due then return end
    self.due = nil
    local value = due.loss:value()
    if value ~= value or value == math.huge or value == -math.huge then self:refuse(value, due) end
    self.loss_sum, self.loss_count = self.loss_sum + value, self.loss_count + 1
    self.value = value
end

-- A loss that is no number ends the run with all that is needed to look into it.
function Loop:refuse(value, due)
    local list = due.index
    local shown = table.concat(list, " ", 1, math.min(#list, 16))
    value = value ~= value and "nan" or value -- not "-nan"
    error(("loss is %s at step %d (epoch %d, batch %d, update %d), lr %g, samples %s%s; the last "
        .. "checkpoint is of update %s. m.check_nan(true) names the first operator that gives no number.")
        :format(tostring(value), due.step, due.epoch, due.position, due.update, due.lr, shown,
            #list > 16 and " ..." or "", tostring(self.saved or "none")), 0)
end

-- One batch: forward and backward; the update when its group of batches is complete.
function Loop:batch(batch, lr, last_of_epoch, scope)
    local spec, at, c = self.spec, self.at, self.spec.config
    m.set_step(at.step)
    at.pending = self.pending
    if spec.prepare then
        spec.prepare(batch, at)
        m.set_step(at.step)
    end
    local recorder = not profile.wanted and self.recorder
    local loss, parts
    if recorder then loss, parts = recorder:step(batch, at, scope) else loss, parts = spec.step(batch, at) end
    local late = loss.device ~= "cpu"
    if late then self:settle() end
    self.due = {
        loss = loss:later(), index = batch.index:tolist(), lr = lr,
        step = at.step, epoch = at.epoch, position = at.position, update = at.update,
    }
    if not late then self:settle() end
    if not recorder then loss:backward() end
    self.pending = self.pending + 1
    if self.pending < c.accumulate and not last_of_epoch then return end
    local log = (at.update + 1) % c.log_every == 0
    local norm = spec.optimizer:step(lr, 1 / self.pending, log)
    self.pending = 0
    at.update = at.update + 1
    if log then
        self:settle()
        self:log(self.value, parts, lr, norm)
    end
end

function Loop:log(value, parts, lr, norm)
    local values = { ["train/loss"] = value, ["train/lr"] = lr, ["train/grad_norm"] = norm }
    for name, part in pairs(parts or {}) do
        values["train/" .. name] = type(part) == "userdata" and part:item() or part
    end
    self.run:log(self.at.update, values)
end

function Loop:show(epoch, samples, seconds)
    local at, batches = self.at, self.batches
    self.run:progress {
        phase = self.spec.phase, epoch = epoch, epochs = at.epochs,
        loss = self.value,
        acc = self.acc, rate = seconds > 0 and samples / seconds or nil,
        done = (at.epoch * batches + at.position) / (at.epochs * batches),
    }
end

-- Ctrl-C is answered between updates only, so that no gradient is half gathered.
function Loop:pause_if_asked()
    if not self.run:interrupted() then return end
    if self.saved ~= self.at.update or self.saved_epoch ~= self.at.epoch then self:save() end
    self.run:stop()
end

function Loop:epoch()
    local spec, at, c = self.spec, self.at, self.spec.config
    spec.model:train()
    local next_batch, state, control
    if at.position < self.batches then
        next_batch, state, control = spec.loader:epoch(at.epoch, at.position)
    end
    local started, samples = m.sys.clock(), 0
    while at.position < self.batches do
        local scope <close> = m.scope() -- luacheck: ignore
        if profile.wanted then profile.at(self.done, spec.phase) end
        local asked = m.sys.clock()
        local batch = next_batch(state, control)
        m.profile_add("wait for data", m.sys.clock() - asked)
        if not batch then error("the loader ended its epoch early", 0) end
        control = batch
        at.step = at.epoch * self.batches + at.position
        at.fraction = at.epoch + at.position / self.batches
        self:batch(batch, spec.schedule(at.fraction), at.position + 1 == self.batches, scope)
        at.position = at.position + 1
        self.done = self.done + 1
        samples = samples + batch.n
        self:show(at.epoch + 1, samples, m.sys.clock() - started)
        if self.pending == 0 then
            self:pause_if_asked()
            local waited = m.sys.clock() - self.saved_at
            if c.checkpoint_seconds > 0 and waited > c.checkpoint_seconds and at.position < self.batches then
                self:save()
            end
        end
    end
    self:finish_epoch(samples, m.sys.clock() - started)
end

function Loop:finish_epoch(samples, seconds)
    self:settle()
    local spec, at, c = self.spec, self.at, self.spec.config
    self.run:log(at.update, { ["train/epoch_loss"] = self.loss_sum / math.max(self.loss_count, 1) })
    local damaged = spec.loader.damaged
    if damaged > 0 then
        self.run:log(at.update, { ["sys/damaged"] = damaged })
        if at.epoch + 1 >= at.epochs then
            progress.complain("%s: damaged pictures were skipped %d time%s", self.run:label(), damaged,
                damaged == 1 and "" or "s")
        end
    end
    local kept = spec.loader.kept or 0 -- bytes of pictures on the GPU
    if kept > 0 then self.run:log(at.update, { ["sys/kept_mib"] = kept / 2 ^ 20 }) end
    if samples > 0 and seconds > 0 then
        self.run:log(at.update, { ["sys/images_per_second"] = samples / seconds })
    end
    at.epoch, at.position = at.epoch + 1, 0
    at.fraction, at.step = at.epoch, at.epoch * self.batches
    self.loss_sum, self.loss_count = 0.0, 0
    spec.model:eval()
    local report = spec.epoch_end and spec.epoch_end(at)
    local evaluated = report ~= false
    report = report or {}
    self.acc = report.acc or self.acc
    self:show(at.epoch, samples, seconds)
    local final = at.epoch >= at.epochs
    local saved = final or at.epoch % c.checkpoint_epochs == 0
    if saved then self:save(report.value, report.goal, final) end
    if evaluated and self.run:evaluated(at.epoch, final) then
        if not saved then self:save(report.value, report.goal) end
        self.run:pause()
    end
    if not final then self:pause_if_asked() end
end

--- Trains until the last epoch, from the run's last good checkpoint if there is one.
---@param run table the run object given to a task
---@param spec train.Spec
---@return train.At
function train.loop(run, spec)
    local c = spec.config
    local batches = spec.loader.batches
    if batches < 1 then
        error(("the training set has fewer pictures than one batch (%d)"):format(c.batch), 0)
    end
    local loop = setmetatable({
        run = run, spec = spec, batches = batches, pending = 0, loss_sum = 0.0, loss_count = 0,
        saved_at = m.sys.clock(), done = 0, -- done: steps of this process
        at = { epoch = 0, epochs = c.epochs, position = 0, update = 0, step = 0, fraction = 0 },
    }, Loop)
    m.seed(run.seed)
    local recorder <close> = c.graph and replay.new(spec) or nil
    loop.recorder = recorder
    loop:restore()
    if loop.at.epoch < c.epochs then run:preflight(loop:tensors()) end
    while loop.at.epoch < c.epochs do loop:epoch() end
    spec.model:eval()
    return loop.at
end

return train

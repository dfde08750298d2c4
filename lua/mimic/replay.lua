-- graph = true: a training step is recorded once and then done again by one call, which keeps a GPU busy where
-- single launches would not. Rules: a replay is believed only after it gave the bits of the step itself; when a value
-- changes that the step took from its script (mimic.watch says which are seen) it is recorded anew, and other
-- staleness shows at the latest when an epoch's first step is compared; whatever cannot be recorded, or does not
-- repeat, costs a message and the run goes on without.
local m = require "mimic"
local progress = require "mimic.progress"
local watch = require "mimic.watch"
local weights = require "mimic.weights"

local replay = {}

local warm <const> = 2       -- steps in the arena before the recording: memory is there, choices are made
local tries <const> = 3      -- recordings that may fail for want of memory
local trusted <const> = 100  -- replays after which an epoch's first step is compared again
local worth <const> = 10     -- replays that a recording should be good for; one that is not counts as hasty
local hasty <const> = 2      -- of them one after another, and it is given up

---@class replay.Replay
---@field state "warm"|"record"|"check"|"replay"|"off"
local Replay = {}
Replay.__index = Replay

--- A recorder for the steps of a training loop; nil where the device records none.
---@param spec train.Spec
---@return replay.Replay?
function replay.new(spec)
    if m.device() == "cpu" then return nil end
    local ok, core = pcall(m.graph)
    if not ok then return nil end
    return setmetatable({ spec = spec, core = core, state = "warm", seen = 0, failed = 0, used = 0,
        replays = 0, hasty = 0 }, Replay)
end

-- Batches and parts hold no other objects.
local function is_tensor(v) return type(v) == "userdata" end

-- Calls f(table, key, tensor, path) for every tensor on the device in a batch and the tables in it.
local function each(batch, f, path)
    local keys = {}
    for key in pairs(batch) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(keys) do
        local v, name = batch[key], path and path .. "." .. tostring(key) or tostring(key)
        if is_tensor(v) then
            if v.device ~= "cpu" then f(batch, key, v, name) end
        elseif type(v) == "table" then
            each(v, f, name)
        end
    end
end

local function signature(batch)
    local out = {}
    each(batch, function(_, _, t, path)
        out[#out + 1] = ("%s %s %s"):format(path, t.dtype, table.concat(t.shape, ","))
    end)
    return table.concat(out, ";")
end

-- The batch's tensors at addresses that stay: copied into those of the first batch, which take their places.
function Replay:settle(batch, scope)
    self.inputs = self.inputs or {}
    each(batch, function(t, key, tensor, path)
        local own = self.inputs[path]
        if not own then
            own = m.zeros(tensor.shape, tensor.dtype)
            scope:keep(own)
            self.inputs[path] = own
        end
        own:copy_(tensor)
        t[key] = own
    end)
end

-- The step as it is: forward and backward.
local function plain(spec, batch, at)
    local loss, parts = spec.step(batch, at)
    loss:backward()
    return loss, parts
end

-- f() between begin and finish; an error ends the recording and is passed on.
local function within(core, record, f)
    local guard <close> = setmetatable({}, { __close = function() core:finish(false) end }) -- luacheck: ignore
    core:begin(record)
    local loss, parts = f()
    core:finish(true)
    return loss, parts
end

function Replay:eager(batch, at)
    m.set_step(at.step)
    return within(self.core, false, function() return plain(self.spec, batch, at) end)
end

function Replay:off(why, ...)
    self:close()
    progress.complain("graph: %s; training goes on without (graph = false says nothing)", why:format(...))
end

-- Records the step without doing it. Want of memory may come from garbage that lies differently this time.
function Replay:record(batch, at, scope)
    m.set_step(at.step)
    local inner <close> = m.scope() -- luacheck: ignore
    self.watch, self.replays = watch.new(), 0
    local ok, loss, parts = pcall(within, self.core, true, function()
        local loss, parts = plain(self.spec, self.watch:lend("batch", batch), self.watch:lend("at", at))
        scope:keep(loss)
        for _, part in pairs(parts or {}) do
            if is_tensor(part) then scope:keep(part) end
        end
        return loss, parts
    end)
    if ok then
        self.loss, self.parts, self.state = loss, parts, "check"
        return
    end
    self.failed = self.failed + 1
    local last = m.last_error()
    if last and last.status == "ENOMEM" and self.failed < tries then return end
    self:off("the step cannot be recorded: %s", (tostring(loss):gsub("^[^\n]-:%d+: ", "")))
end

-- What a step leaves behind, by name: bytes of tensors as hashes.
function Replay:results(loss, parts)
    local out = { { "the loss", loss:tobytes() } }
    for name, part in pairs(parts or {}) do
        out[#out + 1] = { "'" .. tostring(name) .. "'", is_tensor(part) and part:tobytes() or tostring(part) }
    end
    for _, p in ipairs(weights.list(self.spec.model)) do
        local t = p[2]
        if t.requires_grad and t.grad then
            out[#out + 1] = { "the gradient of " .. p[1], m.sha256(t.grad:tobytes()) }
        elseif not t.requires_grad then
            out[#out + 1] = { p[1], m.sha256(t:tobytes()) }
        end
    end
    table.sort(out, function(a, b) return a[1] < b[1] end)
    return out
end

-- The step by replay and as it is, from the same state. What the step itself leaves stays.
---@return string? differs name of what they left that is not the same
---@return any loss, table? parts
function Replay:same(batch, at)
    local spec, kept = self.spec, {}
    for _, p in ipairs(weights.list(spec.model)) do
        if not p[2].requires_grad then
            local copy = m.zeros(p[2].shape, p[2].dtype)
            copy:copy_(p[2])
            kept[#kept + 1] = { p[2], copy }
        end
    end
    m.set_step(at.step)
    self.core:replay()
    local got = self:results(self.loss, self.parts)
    for _, pair in ipairs(kept) do pair[1]:copy_(pair[2]) end
    spec.optimizer:zero_grad()
    local loss, parts = self:eager(batch, at)
    local want = self:results(loss, parts)
    local differs
    for i = 1, math.max(#got, #want) do
        local a, b = got[i] or {}, want[i] or {}
        if a[1] ~= b[1] or a[2] ~= b[2] then
            differs = differs or b[1] or a[1]
        end
    end
    return differs, loss, parts
end

-- The recording is stale: the next steps are done as ever, then there is a new one.
function Replay:renew(what)
    self.hasty = self.replays < worth and self.hasty + 1 or 0
    if self.hasty >= hasty then
        self:off("'%s', which the step uses, changes too often for a recording", what)
        return
    end
    self.state, self.seen, self.loss, self.parts = "warm", 0, nil, nil
end

--- One batch, forward and backward; gradients are added up as ever.
---@param batch table
---@param at train.At
---@param scope any the scope of this batch
---@return any loss, table? parts
function Replay:step(batch, at, scope)
    if self.state == "off" then return plain(self.spec, batch, at) end
    local key = signature(batch)
    self.key = self.key or key
    if key ~= self.key then -- another shape: a last, smaller batch, or the first of many after one
        if self.state ~= "warm" then return plain(self.spec, batch, at) end
        self.key, self.seen, self.inputs = key, 0, nil
    end
    self:settle(batch, scope)
    if self.state ~= "warm" then
        local what = self.watch:changed(batch, at)
        if what then self:renew(what) end
        if self.state == "off" then return plain(self.spec, batch, at) end
    end
    if self.state == "warm" then
        self.seen = self.seen + 1
        if self.seen > warm then self:record(batch, at, scope) end
        if self.state == "off" then
            m.set_step(at.step)
            return plain(self.spec, batch, at)
        end
        return self:eager(batch, at)
    end
    local again = self.used >= trusted and at.position == 0
    if self.state == "check" or again then
        if at.pending > 0 then
            if self.state == "check" then return self:eager(batch, at) end
        else
            local differs, loss, parts = self:same(batch, at)
            if differs then
                self:off("a replay of the recorded step does not give its bits (%s differs)", differs)
            else
                self.state, self.used = "replay", 0
                self.watch:take(self.spec)
            end
            return loss, parts
        end
    end
    m.set_step(at.step)
    self.core:replay()
    self.used, self.replays = self.used + 1, self.replays + 1
    return self.loss, self.parts
end

function Replay:close()
    self.state, self.loss, self.parts, self.inputs = "off", nil, nil, nil
    self.core:close()
end
Replay.__close = Replay.close

return replay

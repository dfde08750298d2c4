-- A run: the handle a script gets from exp:run, and the object a task records through while it is
-- executed. Rule: a row about a file is written after the file is durable, so any crash leaves a
-- database whose last good checkpoint can be continued from.
local m = require "mimic"
local cjson = require "cjson"
local config = require "mimic.config"
local keep = require "mimic.keep"
local progress = require "mimic.progress"
local results = require "mimic.results"
local room = require "mimic.room"

local Run = {}
Run.__index = Run
Run.__name = "mimic.run"

local element_bytes = { f32 = 4, bf16 = 2, f64 = 8, i32 = 4, u8 = 1 }

-- What run:stop() raises; the experiment tells it from an error by identity.
local Stop = setmetatable({}, { __tostring = function() return "interrupted: the run can be resumed" end })
Run.Stop = Stop
-- What run:pause() raises: a search has judged the run and let it rest at its last checkpoint.
Run.Pause = setmetatable({}, { __tostring = function() return "paused" end })
-- Raised when the worker's trial was cancelled, or taken by another worker that held it for dead.
Run.Taken = setmetatable({}, { __tostring = function() return "the trial was taken from this worker" end })

---@param store table|nil results database
---@param row table row of the run, or a planned one without id
---@param cfg table resolved configuration
---@param parent table|nil run
---@param rules table|nil which checkpoints stay, of mimic.keep
function Run.new(store, row, cfg, parent, rules)
    return setmetatable({
        store = store, id = row.id, uid = row.uid, kind = row.kind, name = row.name, seed = row.seed,
        state = row.state, config = cfg, parent = parent, heard = 0, step = 0,
        keep = rules or keep.resolve(),
        latest = {},   -- last logged value of each series
        listener = nil, -- of a search: called after each evaluation, true to pause
        lease = nil,    -- of a worker: "held", "cancelled", or "lost" once the trial is not its own any more
        cancelled = nil, sweep = nil, -- by the lease; uid of the sweep whose trial it is
    }, Run)
end

function Run:__tostring()
    return ("run %s %s (%s, seed %s, %s)"):format(self.id or "-", self.name, self.kind, self.seed, self.state)
end

function Run:label()
    return ("%s seed %d"):format(self.name, self.seed)
end

-- A task's tensor results are read here, so that it may log what an op returned.
local function number(v)
    if type(v) == "userdata" then return v:item() end
    return v
end

---Records values of named series at a step. Never waits for the disk.
---@param step integer
---@param values table<string, number>
function Run:log(step, values)
    for name, v in pairs(values) do
        local x = number(v)
        self.store.db:log(self.id, name, step, x)
        self.latest[name] = x
    end
    self.step = math.max(self.step, step)
    local now = m.sys.clock()
    if now - self.heard > 10 then
        self.heard = now
        self.store:heartbeat(self.id, step)
    end
end

---What the progress line shows: phase, epoch, epochs, loss, acc, rate, done (0..1).
function Run:progress(state) -- luacheck: no self
    progress.show(state)
end

---Ctrl-C since the start, or the run's sweep was cancelled. The task finishes its step, checkpoints, and calls
---run:stop(); a second Ctrl-C stops at once.
---@return boolean
function Run:interrupted()
    local lease = self.lease and self.lease() or "held"
    if lease == "lost" then error(Run.Taken, 0) end
    if lease == "cancelled" then
        self.cancelled = true
        return true
    end
    local n = m.interrupted()
    if n > 1 then error(Stop, 0) end
    return n > 0
end

function Run:stop()
    error(self.cancelled and Run.Taken or Stop, 0)
end

---An evaluation is done and its values are logged. True: a search wants the run to pause here; then the task
---saves a checkpoint of this moment and calls run:pause(). A `final` evaluation never pauses.
---@param epoch integer
---@param final boolean?
---@return boolean
function Run:evaluated(epoch, final)
    if not self.listener then return false end
    return self.listener(epoch, self.latest, final or false) and not final or false
end

function Run:pause() -- luacheck: no self
    error(Run.Pause, 0)
end

local function size_of(tensors)
    local bytes = 0
    for _, pair in ipairs(tensors) do
        local t = pair[2]
        bytes = bytes + t.numel * (element_bytes[t.dtype] or 4)
    end
    return bytes
end

-- Whether a checkpoint was made inside an epoch; one whose file cannot be read is not worth asking.
local function is_inside(self, c)
    local ok, file = pcall(m.safetensors.open, self.store:file(c.path))
    if not ok then return false end
    local inside = file:meta("inside")
    file:close()
    return inside ~= nil
end

-- Lets checkpoints go by the run's rules; of those made inside an epoch the newest alone stays, and only until a
-- later one is whole.
local function retain(self, goal)
    local drop, marks = keep.choose(self.keep, self.store:checkpoints(self.id), goal, function(c)
        return is_inside(self, c)
    end)
    for _, c in ipairs(marks) do self.store:mark_checkpoint(self.id, c.step, c.keep) end
    self.store:drop_checkpoints(self.id, drop)
end

---Raises when there is no room for the checkpoints that this run will keep, before it has done any work.
---@param tensors {[1]: string, [2]: any}[] of a checkpoint
function Run:preflight(tensors)
    local n = self.keep.last + (self.keep.best and 1 or 0) + 1 -- the new one is written before an old one goes
    local have = #self.store:checkpoints(self.id)
    local more = math.max(n - have, 1)
    room.need(self.store.dir, size_of(tensors) * more, more == 1 and "a checkpoint" or more .. " checkpoints")
end

---Saves tensors and a table of plain values, from which run:resume() of a later attempt continues.
---@param step integer
---@param tensors {[1]: string, [2]: any}[]
---@param meta table deterministic: the file's hash is the run's fingerprint
---@param opts {final: boolean?, value: number?, goal: string?, inside: boolean?}|nil inside: of an epoch
---@return string path
function Run:checkpoint(step, tensors, meta, opts)
    opts = opts or {}
    local store = self.store
    local relative = ("%s/step-%d.safetensors"):format(results.run_dir(self.uid), step)
    local path = store:file(relative)
    room.need(store.dir, size_of(tensors), "the checkpoint of step " .. step)
    store.db:flush()
    local metadata = { mimic = config.json(meta or {}), step = tostring(step),
        inside = opts.inside and "an epoch" or nil }
    local sha, bytes = m.safetensors.save(path, tensors, metadata)
    local value, goal = opts.value and number(opts.value), opts.goal
    if type(self.keep.best) == "string" then -- judged by a series at the step of the checkpoint
        local row = store.db:first([[SELECT k.value FROM series s JOIN metric k ON k.series = s.id
          WHERE s.run = ? AND s.name = ? AND k.step = ?]], self.id, self.keep.best, step)
        value, goal = row and row.value, keep.goal(self.keep.best)
    end
    store:add_checkpoint(self.id, {
        step = step, path = relative, sha = sha, bytes = bytes, value = value,
        keep = opts.final and "pin" or "last",
    })
    self.saved = step
    progress.saved()
    retain(self, goal)
    if store.after_checkpoint then store.after_checkpoint() end
    return path
end

-- Why a checkpoint's file cannot be used, or nil when it is whole.
local function fault(path, c)
    local f = io.open(path, "rb")
    if not f then return "is missing" end
    local size = f:seek("end")
    f:close()
    if size ~= c.bytes then return ("has %d bytes instead of %d"):format(size, c.bytes) end
    if m.sha256_file(path) ~= c.sha then return "does not match its recorded hash" end
end

---Finds the last checkpoint whose file is whole, forgets newer broken ones, and takes back all that was
---recorded after it. Called before the task starts.
---@return integer|nil step
function Run:prepare()
    local store = self.store
    local broken = {}
    self.last = nil
    for _, c in ipairs(store:checkpoints(self.id)) do
        local path = store:file(c.path)
        local why = fault(path, c)
        if not why then
            local f = m.safetensors.open(path)
            local meta = f:meta("mimic")
            f:close()
            self.last = { path = path, step = c.step, meta = meta and cjson.decode(meta) or {} }
            break
        end
        progress.complain("%s: %s %s; falling back to an earlier checkpoint", self:label(), path, why)
        store:event(self.id, 4, "checkpoint", ("%s %s"):format(c.path, why))
        broken[#broken + 1] = c
    end
    store:drop_checkpoints(self.id, broken)
    self.saved = self.last and self.last.step
    store:rewind(self.id, self.saved)
    return self.saved
end

---The checkpoint to continue from: {path, step, meta}, or nil at the start of a run.
function Run:resume()
    return self.last
end

---With a value: records it (accuracies in percent). Without: the recorded value, n and step; NaN for a
---run that is not done, nil for a result that a finished run does not have.
---@param dataset string
---@param split string
---@param metric string
---@param value number|nil
---@param n integer|nil
---@param step integer|nil
function Run:result(dataset, split, metric, value, n, step)
    if value ~= nil then
        self.store:add_result(self.id, dataset, split, metric, number(value), n, step)
        return
    end
    if self.state ~= "done" and self.state ~= "running" then return 0 / 0 end
    return self.store:result(self.id, dataset, split, metric)
end

---Text of a result, as a group of runs over seeds gives it: "88.92".
---@return string
function Run:summary(dataset, split, metric)
    local v = self:result(dataset, split, metric)
    return v and v == v and ("%.2f"):format(v) or "-"
end

---Counts by true and predicted class, both numbered from 1.
function Run:confusion(dataset, split, counts)
    self.store:add_confusion(self.id, dataset, split, counts)
end

---Keeps bytes (a picture, a text) with the run. The names of classes, a JSON list named "classes", appear in
---the report.
function Run:artifact(name, kind, bytes, step)
    self.store:add_artifact(self.id, name, kind, bytes, step)
end

---Path of the final checkpoint.
---@return string
function Run:weights()
    if self.state == "planned" then return "" end
    local list = self.store:checkpoints(self.id)
    local c = list[1]
    for _, x in ipairs(list) do
        if x.keep == "pin" then c = x; break end
    end
    if not c then error(("%s: the run has no checkpoint"):format(self:label()), 0) end
    local path = self.store:file(c.path)
    local why = fault(path, c)
    if why then error(("%s: %s %s"):format(self:label(), path, why), 0) end
    return path
end

---Recorded values of a series: list of {step, value}.
function Run:curve(name)
    return (self.store.db:rows([[SELECT k.step, k.value FROM metric k JOIN series s ON s.id = k.series
      WHERE s.run = ? AND s.name = ? ORDER BY k.step]], self.id, name))
end

return Run

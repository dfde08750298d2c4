-- Executing one claimed trial: its parameters become a configuration, its run is executed (or found done), and
-- the metric of the run is the trial's value. A define-by-run trial is a function of `t`, which draws parameters
-- as it asks for them and watches its run epoch by epoch.
local m = require "mimic"
local asha = require "mimic.sweep.asha"
local draw = require "mimic.sweep.draw"
local execute = require "mimic.execute"
local experiment = require "mimic.experiment"
local queue = require "mimic.sweep.queue"
local Run = require "mimic.run"
local space = require "mimic.sweep.space"
local suggest = require "mimic.suggest"

local trial = {}

---Value of a metric of a run: the last value of a series (val/acc), or a result as DATASET/SPLIT/METRIC or
---METRIC. NaN is a value; a metric that the run does not have is an error.
---@param store table
---@param run integer
---@param metric string
---@return number
function trial.value(store, run, metric)
    store.db:flush()
    local s = store.db:first("SELECT last FROM series WHERE run = ? AND name = ? AND n > 0", run, metric)
    if s then return s.last or 0 / 0 end
    local r = store.db:first([[SELECT value FROM result WHERE run = ?1 AND (metric = ?2
        OR dataset || '/' || split || '/' || metric = ?2 OR dataset || ' ' || split || ' ' || metric = ?2)
      ORDER BY split <> 'val', split <> 'test', dataset LIMIT 1]], run, metric)
    if r then return r.value or 0 / 0 end
    local known = {}
    for x in store.db:each([[SELECT name FROM series WHERE run = ?1 AND name NOT GLOB 'sys/*' UNION
        SELECT dataset || '/' || split || '/' || metric FROM result WHERE run = ?1]], run) do
        known[#known + 1] = x.name
    end
    error(("the run recorded no metric '%s'%s; it has %s"):format(metric, suggest.hint(metric, known),
        #known > 0 and table.concat(known, ", ") or "none"), 0)
end

-- A series of evaluations (val/acc, test/loss) that the first evaluation does not give is refused there, not after the
-- training: val/acc without data.val, a slip of the pen.
local function check_metric(metric, values)
    if values[metric] ~= nil or not (metric:find "^val/[^/]+$" or metric:find "^test/[^/]+$") then return end
    local known = {}
    for name in pairs(values) do
        if name:find "^val/" or name:find "^test/" then known[#known + 1] = name end
    end
    if #known == 0 then return end -- nothing was evaluated yet
    table.sort(known)
    error(("the run records no metric '%s'%s; it has %s"):format(metric, suggest.hint(metric, known),
        table.concat(known, ", ")), 0)
end

-- Judges a trial of the first seed at the rungs that `epoch` has reached, by the value of that moment; true: pause.
local function judge(store, d, row, epoch, value)
    if not d.pruner or row.seed ~= d.seeds[1] then return false end
    while true do
        local at = asha.epoch(d.pruner, row.rung or 0)
        if not at or epoch < at then return false end
        if value == nil then
            error(("the pruner needs a value of '%s' at every evaluation; the run recorded none"):format(d.metric), 0)
        end
        local on = queue.judge(store, d, row, value)
        if on == nil then error(Run.Taken, 0) end
        if not on then return true end
    end
end

-- Attaches a run to the trial that executes it.
local function adopt(store, d, row, run, listener)
    if not queue.attach(store, row, run.id) then error(Run.Taken, 0) end
    run.sweep = d.uid
    run.lease = queue.watch(store, row)
    run.listener = listener or function(epoch, values, final)
        run.heard_of = true
        check_metric(d.metric, values)
        if final or not d.pruner then return false end
        local value = values[d.metric]
        if value == nil then -- a result: the best so far
            local ok, recorded = pcall(trial.value, store, run.id, d.metric)
            value = ok and recorded or nil
        end
        local pause = judge(store, d, row, epoch, value)
        if pause then run.reason = ("paused at epoch %d"):format(epoch) end
        return pause
    end or nil
end

-- How a run that has come to its end ends the trial.
local function outcome(store, d, run)
    if run.state == "pruned" then return { state = "paused" } end
    if run.state == "skipped" then return { state = "failed", error = "its parent run did not succeed" } end
    if run.state ~= "done" then
        return { state = "failed", error = store:run(run.id).error or "the run failed" }
    end
    if d.pruner and not d.trial and run.executed and not run.heard_of then
        error(("the pruner was never asked: the task '%s' does not call run:evaluated(epoch, final) after its "
            .. "evaluations"):format(run.kind), 0)
    end
    return { state = "done", value = trial.value(store, run.id, d.metric), run = run }
end

-- --- define by run

-- Values of the last evaluation: v.acc finds val/acc before test/acc; v["train/loss"] is itself.
local function view(values)
    return setmetatable({}, { __index = function(_, k)
        return values[k] or values["val/" .. k] or values["test/" .. k] or values["train/" .. k]
    end })
end

-- A run of a define-by-run trial. It begins when it is asked for something: epochs() watches it, everything
-- else waits for its end.
local Watched = { is_run = true }

function Watched.__index(w, key)
    if Watched[key] then return Watched[key] end
    local run = Watched.complete(w)
    local v = run[key]
    if type(v) ~= "function" then return v end
    return function(_, ...) return v(run, ...) end
end

local function step(w, verdict)
    local ok, epoch, values = coroutine.resume(w.thread, verdict)
    if not ok then error(epoch, 0) end
    if coroutine.status(w.thread) == "dead" then
        rawset(w, "ended", epoch)
        return nil
    end
    return epoch, values
end

local function begin(w)
    if rawget(w, "thread") then return end
    rawset(w, "thread", coroutine.create(function()
        local spec = {}
        for k, v in pairs(w.spec) do spec[k] = v end
        spec.hook = function(run)
            adopt(w.t.store, w.t.sweep, w.t.row, run, function(epoch, values)
                return coroutine.yield(epoch, view(values))
            end)
        end
        spec.name = spec.name or w.t:label()
        return experiment.one(w.t.sweep.exp, spec, w.t.seed)
    end))
end

---Iterates over the evaluations of the run: epoch, values.
function Watched:epochs()
    begin(self)
    return function()
        if rawget(self, "ended") then return nil end
        return step(self, false)
    end
end

---The run at its end: done, or paused when the trial was pruned.
function Watched:complete()
    begin(self)
    while not rawget(self, "ended") do step(self, self.t.stopped ~= nil) end
    return rawget(self, "ended")
end

---@class sweep.Trial
---@field number integer
---@field seed integer
local T = {}
T.__index = T

local function suggest_value(t, name, domain)
    if type(name) ~= "string" then error("a parameter has a name: t:log('tau', 0.02, 1)", 3) end
    local stored = t.stored[name]
    local value = stored ~= nil and domain:restore(stored) or nil
    if value == nil then value = t.at:suggest(name, domain) end
    t.at.params[name] = value
    if stored == nil then
        t.stored[name] = value
        t.sweep:learn(t.store, name, domain)
        if not queue.set_params(t.store, t.row, t.at.params) then error(Run.Taken, 0) end
    end
    return value
end

function T:choice(name, values) return suggest_value(self, name, space.choice(values)) end
function T:range(name, lo, hi, by) return suggest_value(self, name, space.range(lo, hi, by)) end
function T:int(name, lo, hi) return suggest_value(self, name, space.int(lo, hi)) end
function T:uniform(name, lo, hi) return suggest_value(self, name, space.uniform(lo, hi)) end
function T:log(name, lo, hi) return suggest_value(self, name, space.log(lo, hi)) end

function T:label()
    return self.sweep.name .. " " .. space.label(self.at.params)
end

---A run of this trial, with its seed; spec as for exp:run.
function T:run(spec)
    local w = setmetatable({ t = self, spec = spec }, Watched)
    self.watched[#self.watched + 1] = w
    return w
end

---Whether to stop the run here: the pruner's judgement; a value that is no number always stops.
---@param epoch integer
---@param value number
---@return boolean
function T:prune(epoch, value)
    if self.stopped then return true end
    if judge(self.store, self.sweep, self.row, epoch, value) then
        self.stopped = "paused"
    elseif value ~= value then
        self.stopped = "nan"
    end
    return self.stopped ~= nil
end

local function define_by_run(store, d, row)
    d:recall_space(store)
    local history = d:history(store, row.finished or "")
    local t = setmetatable({
        store = store, sweep = d, row = row, number = row.number, seed = row.seed, watched = {},
        stored = d:params(row.params), at = draw.new(d, d:point_of(row.number), history),
    }, T)
    local ok, value = xpcall(d.trial, function(e)
        if e == Run.Stop or e == Run.Taken or execute.is_busy(e) then return e end
        return (m.fault(e, 2))
    end, t)
    if not ok and not t.stopped then t.stopped = "error" end
    local last
    for _, w in ipairs(t.watched) do -- runs that the function did not wait for
        local thread = rawget(w, "thread")
        local alive = thread and coroutine.status(thread) ~= "dead"
        if ok or alive then last = w:complete() end
    end
    if not ok then error(value, 0) end
    if t.stopped == "paused" then return { state = "paused" } end
    if t.stopped == "nan" then return { state = "pruned", error = "nan" } end
    if last and last.state ~= "done" then return outcome(store, d, last) end
    if type(value) == "number" then return { state = "done", value = value, run = last } end
    if not last then error("the trial returned no number and made no run", 0) end
    return outcome(store, d, last)
end

-- --- other kinds

local function of_space(store, d, row)
    local params = d:params(row.params)
    local parent = d.parent
    local patch, name
    if d.rows then
        local r = d.rows[params.row]
        patch, parent, name = r.patch, r.parent, params.row
    else
        patch, name = space.nest(params), d.name .. " " .. space.label(params)
    end
    local run = experiment.one(d.exp, {
        kind = d.kind, name = name, config = d.base:with(patch), parent = parent,
        hook = function(run)
            adopt(store, d, row, run)
            if d.ref then store:answer(run.id, d.ref, name) end -- failed ones stand in the table too
        end,
    }, row.seed)
    return outcome(store, d, run)
end

-- The whole script with this point's values; its last run stands for it.
local function of_script(store, d, row)
    local last
    experiment.hook = function(run)
        adopt(store, d, row, run)
        last = run
    end
    local ok, err = pcall(d.execute, d:params(row.params), row.seed)
    experiment.hook = false
    if not ok then error(err, 0) end
    if not last then error("the script makes no run", 0) end
    return outcome(store, d, last)
end

---Executes a claimed trial.
---@param store table
---@param d sweep.Sweep
---@param row table
---@return {state: "done"|"failed"|"pruned"|"paused", value: number?, error: string?, run: table?} paused: the
---queue knows it already
function trial.execute(store, d, row)
    if d.trial then return define_by_run(store, d, row) end
    if d.execute then return of_script(store, d, row) end
    return of_space(store, d, row)
end

return trial

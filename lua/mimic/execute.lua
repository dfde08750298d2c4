-- One run from its lock to its end: done, failed, interrupted, cancelled, paused by a pruner, or stopped for want of
-- room, each recorded and said with the command that goes on.
local m = require "mimic"
local command_line = require "mimic.command_line"
local config = require "mimic.config"
local progress = require "mimic.progress"
local results = require "mimic.results"
local room = require "mimic.room"
local Run = require "mimic.run"

local execute = {}
local complain = progress.complain

-- Raised when another process executes the run.
local Busy = {}
Busy.__index = Busy
function Busy:__tostring() return self.message end

---@param e any
function execute.is_busy(e)
    return getmetatable(e) == Busy
end

local function continue_command(run, failed)
    if failed and run.sweep then return command_line.retry(run.sweep) end
    return command_line.again() or command_line.of("resume", run.uid)
end

local function busy(...)
    error(setmetatable({ message = string.format(...) }, Busy), 0)
end

-- The lock of a run, held until the process ends or lets go: what tells a live run from a crashed one.
local function lock(store, row)
    m.sys.mkdirs(store:file(results.run_dir(row.uid)))
    local handle = m.sys.flock(store:file(results.run_dir(row.uid)) .. "/lock", true)
    local w = store:worker_of(row.id)
    if not handle then
        local who = w and (", pid %d on %s"):format(w.pid, w.host) or ""
        busy("run %d (%s) is being executed by another process%s; wait for it, or stop it first", row.id,
            row.name, who)
    end
    local silent = (m.sys.time() - (row.heartbeat or 0)) / 1000
    if row.state == "running" and w and w.host ~= m.sys.hostname() and silent < 60 then
        handle:close()
        busy("run %d (%s) was alive %.0f s ago in pid %d on %s; wait for it, or stop it first", row.id, row.name,
            silent, w.pid, w.host)
    end
    return handle
end

-- A run that found the disk full stops like one that was interrupted: what was saved stays, and it goes on from
-- there once there is room.
local function stop_for_room(store, run, err)
    progress.finish()
    run.state = "interrupted"
    err = tostring(err):match("^[^\n]*")
    pcall(store.finish, store, run.id, "interrupted", err) -- when not even this fits, the next start finds out
    complain("%s: stopped, %s", run:label(), err)
    local kept = run.saved and "all up to step " .. run.saved .. " is saved" or "nothing saved yet, begins anew"
    complain("%s: %s; make room (`mimic gc`), then continue with\n  %s", run:label(), kept, continue_command(run))
    error(Run.Stop, 0)
end

local function once(store, run, task, env)
    local held <close> = lock(store, store:run(run.id)) -- luacheck: ignore held
    local row = store:run(run.id)
    if row.state == "done" then -- by another process, meanwhile
        run.state = "done"
        return
    end
    store:start(row, env)
    run.state, run.executed = "running", true
    local from = run:prepare()
    if row.started then
        local where = from and "step " .. from or "the start"
        complain("%s: continuing from %s (was %s)", run:label(), where, row.state)
    end
    m.seed(run.seed)
    math.randomseed(run.seed)
    local before = config.json(run.config)
    m.reset_peak()
    m.interrupted() -- asked once, Ctrl-C waits for the task to finish its step
    local trace -- for the database; the screen gets the message and the script's own lines
    local ok, err = xpcall(task.run, function(e)
        if e == Run.Stop or e == Run.Pause or e == Run.Taken then return e end
        e, trace = m.fault(e, 2)
        return e
    end, run)
    progress.finish()
    if ok and config.json(run.config) ~= before then
        ok, err = false, "the task changed its configuration while it ran"
    end
    if ok then
        ok, err = pcall(function()
            run:log(run.step, { ["sys/peak_bytes"] = m.memory().peak })
            store:finish(run.id, "done")
        end)
        if ok then
            run.state = "done"
            return
        end
    end
    if err == Run.Pause then
        store:finish(run.id, "pruned", run.reason)
        run.state = "pruned"
        return
    end
    if room.is_full(err) then stop_for_room(store, run, err) end
    local stopped = err == Run.Stop or err == Run.Taken or m.interrupted() > 0
    run.state = run.cancelled and "cancelled" or stopped and "interrupted" or "failed"
    local saved, why = pcall(store.finish, store, run.id, run.state, not stopped and (trace or err) or nil)
    if not saved then complain("%s: its end could not be recorded: %s", run:label(), why) end
    local kept = run.saved and "saved at step " .. run.saved or "nothing saved yet, begins anew"
    if run.cancelled then
        complain("%s: its sweep was cancelled; %s; continue with\n  %s", run:label(), kept,
            command_line.of("sweep", "resume", run.sweep))
    elseif err ~= Run.Taken then -- else another worker has it, as its caller says
        if not stopped then complain("%s failed: %s", run:label(), err) end
        complain("%s: %s; continue with\n  %s", run:label(), kept, continue_command(run, not stopped))
    end
    if stopped then error(err == Run.Taken and err or Run.Stop, 0) end
end

---Executes a run; afterwards run.state tells how it ended. Raises Run.Stop for an interruption, and a Busy when
---another process has the run, but with `wait`, as for a worker that needs a parent first, waits for its end.
---@param store table
---@param run table handle
---@param task table of experiment.task
---@param env integer row of the environment
---@param wait boolean?
function execute.run(store, run, task, env, wait)
    while true do
        local ok, err = pcall(once, store, run, task, env)
        if ok then return end
        if not (wait and execute.is_busy(err)) then error(err, 0) end
        if m.interrupted() > 0 then error(Run.Stop, 0) end
        m.sys.sleep(0.2)
    end
end

return execute

-- A worker: claims trials of one sweep and executes them until there is nothing left to claim. Any number of
-- processes do this on one results file at the same time.
local m = require "mimic"
local execute = require "mimic.execute"
local experiment = require "mimic.experiment"
local queue = require "mimic.sweep.queue"
local Run = require "mimic.run"
local trial = require "mimic.sweep.trial"

local worker = {}

-- The next trial, or nil and why not: "wait" (others are running), "done", or the sweep's state.
local function claim(store, d, id)
    local shard = experiment.options.shard
    return store.db:tx(function()
        local state = store.db:first("SELECT state FROM sweep WHERE id = ?", d.id).state
        if state == "paused" or state == "cancelled" then return nil, state end
        queue.reap(store, d.id)
        if d.max_failures and queue.counts(store, d.id).failed >= d.max_failures then
            store.db:exec("UPDATE sweep SET state = 'paused' WHERE id = ?", d.id)
            return nil, "paused"
        end
        if not queue.waiting(store, d.id) then d:advance(store) end
        local row = queue.take(store, d.id, id, shard)
        if not row and d.pruner and queue.take_best_on(store, d) then row = queue.take(store, d.id, id, shard) end
        if row then return row end
        if shard then return nil, "done" end -- with its own part; the sweep is not
        if queue.counts(store, d.id).running > 0 then return nil, "wait" end
        store.db:exec("UPDATE sweep SET state = 'done' WHERE id = ?", d.id)
        return nil, "done"
    end)
end

local function with_traceback(e)
    if e == Run.Stop or e == Run.Taken or execute.is_busy(e) then return e end
    return (m.fault(e, 2))
end

-- Executes a claimed trial and writes its end, unless another worker has it now.
local function work(store, d, row)
    store.db:hold(row.id, row.token, queue.lease_ms)
    local ok, out = xpcall(trial.execute, with_traceback, store, d, row)
    store.db:let_go()
    if not ok and out == Run.Stop then
        queue.release(store, row)
        error(Run.Stop, 0)
    elseif not ok and execute.is_busy(out) then -- its run is under way elsewhere: later
        queue.release(store, row)
        m.sys.sleep(0.2)
        return
    elseif not ok and out == Run.Taken then
        if store.db:first("SELECT state FROM trial WHERE id = ?", row.id).state ~= "cancelled" then
            experiment.complain("%s, trial %d: another worker has taken it", d.name, row.number)
        end
        return
    elseif not ok then
        experiment.complain("%s, trial %d failed: %s", d.name, row.number, out)
        out = { state = "failed", error = out }
    end
    if out.state == "paused" then return end
    if not queue.finish(store, row, out) then
        experiment.complain("%s, trial %d: finished late, another worker has it", d.name, row.number)
    end
    if store.after_checkpoint then store.after_checkpoint() end
end

---Works until nothing is left.
---@param d sweep.Sweep
---@return string why "done", "paused" or "cancelled"
function worker.loop(d)
    local store = experiment.store()
    local id, pause = store:worker(), 0.02
    while true do
        if m.interrupted() > 0 then error(Run.Stop, 0) end
        local row, why = claim(store, d, id)
        if row then
            pause = 0.02
            work(store, d, row)
        elseif why == "wait" then
            m.sys.sleep(pause)
            pause = math.min(1, pause * 1.5)
        else
            return why
        end
    end
end

return worker

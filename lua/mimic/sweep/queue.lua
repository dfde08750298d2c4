-- The queue of trials in the results file: workers claim, hold, judge and finish trials here, each step in one
-- transaction under the file lock. A claim gives a token; whoever writes a trial's end must show it, so a worker
-- that was taken for dead and replaced cannot overwrite its successor. All SQL that changes trials is here.
local m = require "mimic"
local cjson = require "cjson"
local config = require "mimic.config"
local asha = require "mimic.sweep.asha"
local results = require "mimic.results"

local queue = {}

queue.lease_ms = tonumber(os.getenv("MIMIC_LEASE_MS") or "") or 60000 -- the variable is for tests

-- "1-3,5,6@2": trials 1, 2, 3 and 5 done, 6 paused at rung 2.
---@param list {number: integer, rung: integer?}[] in order of the numbers
---@return string
function queue.pack(list)
    local out, i = {}, 1
    while i <= #list do
        local first = list[i]
        local last = i
        if not first.rung then
            while list[last + 1] and not list[last + 1].rung
                and list[last + 1].number == list[last].number + 1 do
                last = last + 1
            end
        end
        local text = tostring(first.number)
        if first.rung then text = text .. "@" .. first.rung end
        if last > i then text = text .. "-" .. list[last].number end
        out[#out + 1] = text
        i = last + 1
    end
    return table.concat(out, ",")
end

---@param text string
---@return table<integer, integer|boolean> number -> rung, or true for one that is done
function queue.unpack(text)
    local out = {}
    for part in text:gmatch("[^,]+") do
        local a, b = part:match("^(%d+)%-(%d+)$")
        local n, rung = part:match("^(%d+)@(%d+)$")
        if a then
            for i = math.tointeger(tonumber(a)), math.tointeger(tonumber(b)) do out[i] = true end
        elseif n then
            out[math.tointeger(tonumber(n))] = math.tointeger(tonumber(rung))
        else
            out[math.tointeger(tonumber(part))] = true
        end
    end
    return out
end

---Adds a trial; one that is there already (same parameters and seed) stays.
---@param t {number: integer, params: table, seed: integer, hash: string, finished: string?, max_attempt: integer}
function queue.add(store, sweep, t)
    store.db:exec([[INSERT INTO trial(sweep, number, config_hash, seed, params, max_attempt, finished)
      VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING]], sweep, t.number, m.db.hex(t.hash), t.seed,
        config.json(t.params), t.max_attempt, t.finished)
end

-- A claim is dead when its process is gone; where that cannot be seen, when its lease is over and nobody
-- holds the lock of its run (a process that was stopped for long still does).
local function is_dead(store, t, now)
    local here = t.host == m.sys.hostname()
    if here and t.boot ~= m.sys.boot_id() then return true end
    if here and not m.sys.alive(t.pid) then return true end
    if t.lease and t.lease >= now then return false end
    if not t.uid then return true end
    local tried, held = pcall(m.sys.flock, store:file(results.run_dir(t.uid)) .. "/lock", true)
    if tried and held then held:close() end
    return not tried or held ~= nil
end

---Takes the trials of dead workers back: waiting again, or failed after their last attempt. In a
---transaction.
---@return integer how many
function queue.reap(store, sweep)
    local db, n, now = store.db, 0, m.sys.time()
    for t in db:each([[SELECT t.id, t.number, t.lease, t.attempt, t.max_attempt, w.host, w.pid, w.boot, r.uid,
          r.id AS run, lower(hex(t.token)) AS token
        FROM trial t LEFT JOIN worker w ON w.id = t.worker LEFT JOIN run r ON r.id = t.run
        WHERE t.sweep = ? AND t.state = 'running']], sweep) do
        if is_dead(store, t, now) then
            local again = t.attempt < t.max_attempt
            local why = ("lost: its worker (process %s on %s) is gone, attempt %d of %d"):format(
                t.pid, t.host, t.attempt, t.max_attempt)
            db:exec([[UPDATE trial SET state = ?, token = NULL, lease = NULL, error = ?
              WHERE id = ? AND token = ?]], again and "waiting" or "failed", why, t.id, m.db.hex(t.token))
            if t.run then
                db:exec("UPDATE run SET state = 'lost' WHERE id = ? AND state = 'running'", t.run)
            end
            db:exec("INSERT INTO event(t, run, trial, worker, level, code, msg) VALUES(?, ?, ?, ?, 4, 'lost', ?)",
                now, t.run, t.id, store.worker_id, why)
            n = n + 1
        end
    end
    return n
end

local CLAIM = [[UPDATE trial SET state = 'running', worker = ?1, attempt = attempt + 1, lease = ?2,
    token = randomblob(8), error = NULL
  WHERE id = (SELECT id FROM trial WHERE sweep = ?3 AND state = 'waiting' AND (number - 1) % ?4 = ?5
    ORDER BY priority DESC, number LIMIT 1)
  RETURNING id, number, params, seed, attempt, max_attempt, rung, rungs, finished, run,
    lower(hex(token)) AS token]]

---Takes the next waiting trial. In a transaction.
---@param shard {index: integer, count: integer}|nil take only every count-th trial
---@return table|nil row
function queue.take(store, sweep, worker, shard)
    return store.db:first(CLAIM, worker, m.sys.time() + queue.lease_ms, sweep, shard and shard.count or 1,
        shard and shard.index or 0)
end

local counts_sql = [[SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting,
  count(*) FILTER (WHERE state = 'running') AS running, count(*) FILTER (WHERE state = 'done') AS done,
  count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'pruned') AS pruned,
  count(*) FILTER (WHERE state = 'cancelled') AS cancelled, count(*) AS total, max(number) AS last
  FROM trial WHERE sweep = ?]]

---@return {waiting: integer, running: integer, done: integer, failed: integer, pruned: integer, total: integer}
function queue.counts(store, sweep)
    return store.db:first(counts_sql, sweep)
end

function queue.waiting(store, sweep)
    return store.db:first("SELECT 1 AS x FROM trial WHERE sweep = ? AND state = 'waiting' LIMIT 1", sweep) ~= nil
end

---Notes the run of a claimed trial: false when the trial belongs to another worker now.
function queue.attach(store, row, run)
    return store.db:exec("UPDATE trial SET run = ? WHERE id = ? AND token = ?", run, row.id,
        m.db.hex(row.token)) == 1
end

local ask_every = 0.2 -- seconds

---A function that tells whether a claimed trial is still its worker's: "held", "cancelled" (the sweep was) or
---"lost" (another worker has it). It looks into the file, but not at every step.
---@return fun(): "held"|"cancelled"|"lost"
function queue.watch(store, row)
    local asked, answer = 0, "held"
    return function()
        local now = m.sys.clock()
        if answer == "held" and (now - asked > ask_every or not store.db:held()) then
            asked = now
            local t = store.db:first("SELECT state, token = ?2 AS mine FROM trial WHERE id = ?1", row.id,
                m.db.hex(row.token))
            answer = t and t.mine == 1 and "held" or t and t.state == "cancelled" and "cancelled" or "lost"
        end
        return answer
    end
end

---Notes the parameters that a define-by-run trial has drawn.
function queue.set_params(store, row, params)
    return store.db:exec("UPDATE trial SET params = ? WHERE id = ? AND token = ?", config.json(params), row.id,
        m.db.hex(row.token)) == 1
end

---Writes the end of a trial, durably. False: the worker was replaced, and nothing is changed.
---@param row table claimed
---@param out {state: string, value: number?, error: string?}
---@return boolean
function queue.finish(store, row, out)
    return store.db:tx(function()
        local n = store.db:exec([[UPDATE trial SET state = ?, value = ?, error = ?, token = NULL, lease = NULL
          WHERE id = ? AND token = ?]], out.state, out.value, out.error, row.id, m.db.hex(row.token))
        return n == 1
    end, true)
end

---Gives a trial back as if it had not been claimed: an interruption is no failed attempt.
function queue.release(store, row)
    return store.db:exec([[UPDATE trial SET state = 'waiting', attempt = attempt - 1, token = NULL, lease = NULL
      WHERE id = ? AND token = ?]], row.id, m.db.hex(row.token)) == 1
end

-- Trials of the first seed that reached a rung, with their values there (NaN: null in the list).
local function reached(store, sweep, rung)
    local out = {}
    for t in store.db:each([[SELECT id, number, state, rung, json_extract(rungs, '$[' || ?2 || ']') AS value,
        json_array_length(rungs) AS n FROM trial WHERE sweep = ?1 AND json_array_length(rungs) > ?2]],
        sweep, rung) do
        t.value = t.value or 0 / 0
        out[#out + 1] = t
    end
    return out
end

---A trial has reached its rung with a value: it goes on (true) or pauses as pruned (false). Nil when the worker
---was replaced.
---@param d table sweep: id, goal, pruner
---@param row table claimed trial; its rung and rungs are brought up to date
---@param value number
---@return boolean|nil
function queue.judge(store, d, row, value)
    store.db:flush()
    return store.db:tx(function()
        local rung = row.rung or 0
        local list = cjson.decode(row.rungs or "[]")
        while #list > rung do table.remove(list) end
        list[rung + 1] = value == value and value or cjson.null
        local words = {}
        for i, v in ipairs(list) do words[i] = v == cjson.null and "null" or config.json(v) end
        row.rungs = "[" .. table.concat(words, ",") .. "]"
        local mine = store.db:exec("UPDATE trial SET rungs = ?, rung = ? WHERE id = ? AND token = ?", row.rungs,
            rung, row.id, m.db.hex(row.token))
        if mine ~= 1 then return nil end
        local me = { number = row.number, value = value }
        if asha.goes_on(reached(store, d.id, rung), me, d.goal, d.pruner.eta) then
            row.rung = rung + 1
            store.db:exec("UPDATE trial SET rung = ? WHERE id = ?", row.rung, row.id)
            return true
        end
        local why = value == value and ("paused at rung %d with %g"):format(rung, value) or "nan"
        store.db:exec("UPDATE trial SET state = 'pruned', token = NULL, lease = NULL, error = ? WHERE id = ?", why,
            row.id)
        -- The run with it: a worker that is killed now leaves no run that seems to go on.
        store.db:exec([[UPDATE run SET state = 'pruned', ended = ?, error = ? WHERE state = 'running'
          AND id = (SELECT run FROM trial WHERE id = ?)]], m.sys.time(), why, row.id)
        return false
    end, true)
end

---Puts paused trials that now are among the best of their rung back into the queue, highest rung first. In a
---transaction.
function queue.promote(store, d)
    local top = store.db:first("SELECT max(rung) AS n FROM trial WHERE sweep = ? AND state = 'pruned'", d.id).n
    for rung = top or -1, 0, -1 do
        local list = reached(store, d.id, rung)
        for _, t in ipairs(list) do
            if t.state == "pruned" and t.rung == rung and asha.goes_on(list, t, d.goal, d.pruner.eta) then
                store.db:exec([[UPDATE trial SET state = 'waiting', rung = ?1 + 1, priority = ?1 + 1, attempt = 0,
                  error = NULL WHERE id = ?2]], rung, t.id)
            end
        end
    end
end

---When nothing waits or runs any more and no trial has come to its end, the best paused one goes on. In a transaction.
---@return boolean whether one does
function queue.take_best_on(store, d)
    local c = queue.counts(store, d.id)
    if c.done + c.running + c.waiting > 0 then return false end
    local top = store.db:first("SELECT max(rung) AS n FROM trial WHERE sweep = ? AND state = 'pruned'", d.id).n
    for rung = top or -1, 0, -1 do
        local list, best = reached(store, d.id, rung), nil
        for _, t in ipairs(list) do
            local better = not best or d.goal == "max" and t.value > best.value
                or d.goal == "min" and t.value < best.value
            if t.state == "pruned" and t.rung == rung and t.value == t.value and better then best = t end
        end
        if best then
            store.db:exec("UPDATE trial SET state = 'waiting', rung = ? + 1, attempt = 0, error = NULL WHERE id = ?",
                rung, best.id)
            return true
        end
    end
    return false
end

---Failed trials back into the queue: all, or the lost ones only. Their attempts count anew.
---@param lost_only boolean?
---@return integer
function queue.retry(store, sweep, lost_only)
    return store.db:exec("UPDATE trial SET state = 'waiting', attempt = 0, priority = 1000 WHERE sweep = ? "
        .. "AND state = 'failed'" .. (lost_only and " AND error GLOB 'lost:*'" or ""), sweep)
end

---@param state "open"|"paused"|"done"|"cancelled"
function queue.set_state(store, sweep, state)
    store.db:tx(function()
        store.db:exec("UPDATE sweep SET state = ? WHERE id = ?", state, sweep)
        if state == "cancelled" then -- running ones lose their token: their workers see it and stop
            store.db:exec([[UPDATE trial SET state = 'cancelled', token = NULL, lease = NULL
              WHERE sweep = ? AND state IN ('waiting', 'running')]], sweep)
        elseif state == "open" then
            store.db:exec("UPDATE trial SET state = 'waiting' WHERE sweep = ? AND state = 'cancelled'", sweep)
        end
    end, true)
end

return queue

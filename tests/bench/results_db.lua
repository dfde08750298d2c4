-- The measurements of results_db on mimic's side: mimic results_db.lua DIR TASK [ARGUMENTS], one JSON line.
local m = require "mimic"
local queue = require "mimic.sweep.queue"
local results = require "mimic.results"

local dir, task = arg[1], arg[2]
local json = require("cjson").encode

local function number(i, default) return math.tointeger(tonumber(arg[i] or default)) end

local function make_run(store, name, seed)
    return store:create(nil, {
        experiment = store:experiment "bench", kind = "bench", name = name, hash = m.sha256(name), seed = seed,
        sources = "", files = {}, argv = "{}", config = { lr = 0.1, tau = seed / 10 }, json = store.db:put_blob "{}",
    }).id
end

local tasks = {}

-- Rows a second, bytes a row: `runs` runs of `series` curves with `steps` points each, flushed at the end.
function tasks.write()
    local runs, series, steps = number(3, 10), number(4, 20), number(5, 1000)
    local store = results.open(dir .. "/mimic.db", true)
    local ids, names = {}, {}
    for i = 1, runs do ids[i] = make_run(store, "run " .. i, i) end
    for i = 1, series do names[i] = "train/metric_" .. i end
    local began = m.sys.clock()
    for r = 1, runs do
        for step = 1, steps do
            for s = 1, series do store.db:log(ids[r], names[s], step, step * 0.001 + s) end
        end
    end
    local called = m.sys.clock() - began
    store.db:flush()
    local seconds = m.sys.clock() - began
    for i = 1, runs do
        store:add_result(ids[i], "set", "test", "acc", i / 10, 100, steps)
        store:finish(ids[i], "done")
    end
    store:close()
    local f = assert(io.open(dir .. "/mimic.db"))
    print(json { rows = runs * series * steps, seconds = seconds, called = called, bytes = f:seek "end" })
end

-- What one call of log takes, with the clock's own two calls, in microseconds.
function tasks.latency()
    local n = number(3, 200000)
    local store = results.open(dir .. "/latency.db", true)
    local id = make_run(store, "latency", 0)
    local took, clock, log, db = {}, m.sys.clock, store.db.log, store.db
    for i = 1, n do
        local t = clock()
        log(db, id, "train/loss", i, i * 0.5)
        took[i] = (clock() - t) * 1e6
    end
    store:close()
    table.sort(took)
    print(json { p50 = took[n // 2], p99 = took[n * 99 // 100], p999 = took[n * 999 // 1000], max = took[n] })
end

-- A sweep of n trials that wait.
function tasks.enqueue()
    local n = number(3, 1000)
    local store = results.open(dir .. "/queue.db", true)
    store.db:exec([[INSERT INTO sweep(uid, name, sampler, space, metric, goal, seed, created)
      VALUES(lower(hex(randomblob(6))), 'bench', 'grid', '{}', 'acc', 'max', 0, 0)]])
    local sweep = store.db:last_id()
    store.db:tx(function()
        for i = 1, n do
            queue.add(store, sweep, { number = i, params = { x = i, tau = 0.1, lr = 0.01, kind = "a" }, seed = 0,
                hash = m.sha256(tostring(i)), max_attempt = 3 })
        end
    end)
    store:close()
    print(json { sweep = sweep })
end

-- Claims and finishes (durably) trials until none is left.
function tasks.work()
    local sweep = number(3)
    local store = results.open(dir .. "/queue.db", true)
    local worker, n = store:worker(), 0
    while true do
        local row = store.db:tx(function()
            queue.reap(store, sweep)
            return queue.take(store, sweep, worker)
        end)
        if not row then break end
        assert(queue.finish(store, row, { state = "done", value = n * 0.1 }))
        n = n + 1
    end
    store:close()
    print(json { trials = n })
end

-- The list of all runs with their metrics' last values, and one point in many of a curve of every run.
function tasks.read()
    local store = results.open(dir .. "/mimic.db", false)
    local function time(sql)
        local best, n = math.huge, 0
        for _ = 1, 3 do
            local t = m.sys.clock()
            n = #store.db:rows(sql)
            best = math.min(best, m.sys.clock() - t)
        end
        return { seconds = best, rows = n }
    end
    print(json {
        list = time "SELECT r.id, r.name, r.state, s.name AS metric, s.last FROM run r JOIN series s ON s.run = r.id",
        runs = time "SELECT * FROM run_list",
        curves = time [[SELECT s.run, k.step / 20 AS bucket, min(k.value), avg(k.value), max(k.value) FROM series s
          JOIN metric k ON k.series = s.id WHERE s.name = 'train/metric_1' GROUP BY 1, 2]],
        curve = time "SELECT step, value FROM curve WHERE run = 7 AND name = 'train/metric_3'",
    })
end

tasks[task]()

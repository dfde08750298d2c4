-- Sweeps in one process: what is declared, drawn, run, paused, promoted, retried; with a task of a few numbers.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/../cli/?.lua;" .. package.path
local m = require "mimic"
local lu = require "luaunit"
local config = require "mimic.config"
local draw = require "mimic.sweep.draw"
local experiment = require "mimic.experiment"
local queue = require "mimic.sweep.queue"
local shell = require "shell"
local find = require "mimic.sweep.find"

require("mimic.progress").quiet(true)

local dir
local counts = 0 -- steps executed since the last look
local plan = {}  -- what the task does at a step

experiment.task("toy", {
    defaults = { steps = 9, x = 0.0, y = 0.0, kind = "a", sub = { z = 1 } },
    run = function(run)
        local c, at, last = run.config, 0, run:resume()
        if last then at = math.tointeger(last.meta.at) end
        while at < c.steps do
            at = at + 1
            counts = counts + 1
            local v = -(c.x - 0.3) ^ 2 - c.y ^ 2 + 0.01 * at + 0.1 * run.seed
            if plan.nan and c.x > 0.5 then v = 0 / 0 end
            run:log(at, { ["val/acc"] = v })
            if plan[at] then plan[at](run) end
            local pause = run:evaluated(at, at == c.steps)
            if pause or at == c.steps then
                run:checkpoint(at, { { "x", m.tensor { at + 0.0 } } }, { at = at }, { final = at == c.steps })
            end
            if pause then run:pause() end
        end
        run:result("toyset", "test", "acc", -(c.x - 0.3) ^ 2, 8, at)
    end,
})

-- Says what it records: a series at every step, one result at every step and one at the end.
experiment.task("told", {
    defaults = { steps = 4, x = 0.0, late = false },
    metrics = function(c)
        return { series = { "val/acc", "sys/" }, at_end = c.late,
            results = { { "toyset", "test", "best" }, { "toyset", "test", "recall/" } } }
    end,
    run = function(run)
        local c, at = run.config, run:resume() and math.tointeger(run:resume().meta.at) or 0
        while at < c.steps do
            at = at + 1
            counts = counts + 1
            run:log(at, { ["val/acc"] = c.x })
            run:result("toyset", "test", "best", c.x * at, 8, at)
            local pause = run:evaluated(at, at == c.steps)
            run:checkpoint(at, { { "x", m.tensor { at + 0.0 } } }, { at = at }, { final = at == c.steps })
            if pause then run:pause() end
        end
        run:result("toyset", "test", "recall/happy", c.x, 8, at)
    end,
})

local stdout, stderr = io.stdout, io.stderr
local out = {}

local function quietly(f, ...)
    local sink = { write = function(_, ...) out[#out + 1] = table.concat { ... } end, flush = function() end }
    io.stdout, io.stderr = sink, sink -- luacheck: ignore
    local r = table.pack(pcall(f, ...))
    io.stdout, io.stderr = stdout, stderr -- luacheck: ignore
    if not r[1] then error(r[2], 0) end
    return table.unpack(r, 2, r.n)
end

local function open()
    experiment.close()
    local o = experiment.options
    o.db, o.failed, o.done = dir .. "/r.db", {}, {}
    o.max_failures, o.retry = nil, nil
    o.script = { path = "toy.lua", text = "-- toy", words = {} }
    counts, out = 0, {}
end

local base = m.config { steps = 9 }

local function declare(spec)
    local s = { name = "s", kind = "toy", base = base, metric = "val/acc" }
    for k, v in pairs(spec) do s[k] = v or nil end
    return quietly(function() return m.experiment("test"):sweep(s) end)
end

local function rows(sql, ...)
    experiment.flush()
    return (experiment.store().db:rows(sql, ...))
end

local TestSweep = {}

function TestSweep.setUp()
    dir = shell.folder()
    plan = {}
    open()
end

function TestSweep.tearDown()
    experiment.close()
    shell.remove(dir)
end

function TestSweep.test_grid_over_seeds()
    local sw = declare { space = { x = { 0, 0.3, 1 }, sub = { z = m.range(1, 2) } }, seeds = { 0, 1 } }
    local points = sw:points()
    lu.assertEquals(#points, 6)
    lu.assertEquals(points[1].params, { x = 0.3, ["sub.z"] = 1 })
    lu.assertAlmostEquals(points[1].mean, 0.14, 1e-12)
    lu.assertAlmostEquals(points[1].sd, 0.1 / math.sqrt(2), 1e-12)
    lu.assertEquals(points[1].n, 2)
    lu.assertEquals(sw:runs(points[1]):summary("toyset", "test", "acc"), "0.00 ± 0.00 (n=2)")
    lu.assertEquals(counts, 12 * 9)
    lu.assertEquals(rows("SELECT state, done, trials FROM sweep_list")[1], { state = "done", done = 12, trials = 12 })
    lu.assertEquals(#rows("SELECT DISTINCT config_hash FROM run"), 6) -- seeds share one
    open()
    lu.assertEquals(declare({ space = { x = { 0, 0.3, 1 }, sub = { z = m.range(1, 2) } }, seeds = { 0, 1 } }).id, sw.id)
    lu.assertEquals(counts, 0) -- done before
    open()
    lu.assertNotEquals(declare({ space = { x = { 0, 0.3 } }, seeds = { 0 } }).id, sw.id)
    lu.assertEquals(counts, 0) -- another sweep of configurations that have their runs
end

function TestSweep.test_trials_is_a_total()
    for _, sampler in ipairs { "random", "tpe" } do
        open()
        local spec = { name = sampler, space = { x = m.uniform(0, 1) }, sampler = sampler, trials = 12 }
        declare(spec)
        lu.assertEquals(counts, 12 * 9)
        spec.trials = 15
        local sw = declare(spec)
        lu.assertEquals(counts, 15 * 9)
        lu.assertEquals(#sw:points(), 15)
        spec.trials = 5
        lu.assertEquals(#declare(spec):points(), 15)
    end
end

-- Every row's parameters come again from the sweep's seed, the row's number and the results it says were known.
function TestSweep.test_a_search_can_be_replayed_from_its_rows()
    local sw = declare { space = { x = m.uniform(0, 1), kind = { "a", "b" } }, sampler = "tpe", trials = 25,
        seeds = { 0, 1 } }
    local seen = 0
    for _, t in ipairs(rows("SELECT number, params, finished FROM trial ORDER BY number")) do
        local history, known = sw:history(experiment.store(), t.finished)
        lu.assertEquals(known, t.finished)
        local params = draw.point(sw, sw:point_of(t.number), history, function() return false end)
        lu.assertEquals(config.json(params), t.params)
        seen = math.max(seen, #history)
    end
    lu.assertEquals(seen, 24)
end

function TestSweep.test_define_by_run_asks_only_for_what_it_needs()
    local sw = declare {
        kind = false, base = false, trials = 20, sampler = "random",
        trial = function(t)
            local c = base:with { kind = t:choice("kind", { "a", "b" }) }
            if c.kind == "b" then c = c:with { x = t:uniform("x", 0, 1) } end
            local run = t:run { kind = "toy", config = c }
            return (run:result("toyset", "test", "acc"))
        end,
    }
    local with_x, runs = 0, {}
    for _, t in ipairs(rows("SELECT params, run, value FROM trial")) do
        local p = sw:params(t.params)
        lu.assertEquals(p.kind == "b", p.x ~= nil)
        with_x = with_x + (p.x and 1 or 0)
        if p.kind == "a" then runs[t.run] = true end
    end
    lu.assertTrue(with_x > 4 and with_x < 16)
    local n = 0
    for _ in pairs(runs) do n = n + 1 end
    lu.assertEquals(n, 1) -- twenty times the same configuration is one run
    lu.assertEquals(counts, (with_x + 1) * 9)
end

function TestSweep.test_epochs_are_watched_and_nan_stops()
    plan.nan = true
    local epochs = 0
    declare {
        kind = false, base = false, trials = 8, sampler = "sobol",
        trial = function(t)
            local run = t:run { kind = "toy", config = base:with { x = t:uniform("x", 0, 1) } }
            for epoch, val in run:epochs() do
                epochs = epochs + 1
                lu.assertEquals(val.acc == val["val/acc"] or val.acc ~= val.acc, true)
                if t:prune(epoch, val.acc) then break end
            end
        end,
    }
    local pruned = rows("SELECT count(*) AS n FROM trial WHERE state = 'pruned' AND error = 'nan'")[1].n
    lu.assertEquals(pruned, 4)
    lu.assertEquals(epochs, 4 * 9 + 4)
    lu.assertEquals(rows("SELECT count(*) AS n FROM run WHERE state = 'pruned'")[1].n, 4)
    lu.assertEquals(rows("SELECT count(value) AS n FROM trial WHERE state = 'done'")[1].n, 4)
end

function TestSweep.test_asha_pauses_and_promotes_from_checkpoints()
    local spec = { space = { x = m.uniform(0, 1) }, sampler = "random", trials = 27, seeds = { 0, 1 },
        pruner = m.asha { min = 1, max = 9, eta = 3 } }
    local sw = declare(spec)
    local states = rows("SELECT state, count(*) AS n FROM trial WHERE seed = 0 GROUP BY 1 ORDER BY 1")
    lu.assertEquals(states[2].state, "pruned")
    lu.assertTrue(states[2].n >= 18)
    lu.assertEquals(rows("SELECT count(*) AS n FROM trial WHERE seed = 1")[1].n, states[1].n) -- of survivors only
    -- A promoted run goes on from where it paused: every step was done once.
    lu.assertEquals(counts, rows("SELECT sum(step) AS n FROM run")[1].n)
    lu.assertTrue(rows("SELECT max(attempt) AS n FROM run")[1].n > 1)
    local best = sw:best()
    lu.assertTrue(math.abs(best.params.x - 0.3) < 0.2, best.params.x)
    local curve = sw:runs(best)[1]:curve("val/acc")
    lu.assertEquals(#curve, 9)
    for i, p in ipairs(curve) do
        lu.assertEquals(p.step, i)
        lu.assertAlmostEquals(p.value, -(best.params.x - 0.3) ^ 2 + 0.01 * i, 1e-12)
    end
    lu.assertEquals(rows("SELECT count(*) AS n FROM run WHERE state NOT IN ('done', 'pruned')")[1].n, 0)
    for _, t in ipairs(rows("SELECT rungs, run FROM trial WHERE seed = 0")) do -- judged once at 1, 3, ... epochs
        for k, v in ipairs(require("cjson").decode(t.rungs)) do
            local at = rows("SELECT value FROM curve WHERE run = ? AND step = ? AND name = 'val/acc'", t.run,
                math.floor(3 ^ (k - 1)))
            lu.assertAlmostEquals(v, at[1].value, 1e-12)
        end
    end
end

-- Of two trials the pruner lets none past its first rung: the better one goes on when nothing else is left.
function TestSweep.test_asha_with_few_trials_still_has_a_best()
    for goal, x in pairs { max = { best = 0.2, other = 0.9 }, min = { best = 0.8, other = 0.25 } } do
        local sw = declare { space = { x = { x.other, x.best } }, seeds = { 0, 1 }, goal = goal, name = goal,
            pruner = m.asha { min = 1, max = 9, eta = 3 } }
        lu.assertEquals(rows([[SELECT t.seed, t.state, json_extract(t.params, '$.x') AS x FROM trial t
          JOIN sweep s ON s.id = t.sweep WHERE s.name = ? ORDER BY t.state, t.seed]], goal), {
            { seed = 0, state = "done", x = x.best }, { seed = 1, state = "done", x = x.best },
            { seed = 0, state = "pruned", x = x.other } })
        lu.assertEquals(sw:best().n, 2)
    end
end

-- A judgement writes the trial, and its run with it; one of a worker that was replaced writes nothing.
function TestSweep.test_the_judgement_that_pauses_a_trial()
    local sw = declare { space = { x = { 0, 1, 2 } } }
    local store = experiment.store()
    local d = { id = rows("SELECT id FROM sweep")[1].id, goal = "max", pruner = m.asha { min = 1, max = 9, eta = 2 } }
    store.db:exec "UPDATE trial SET state = 'waiting', rungs = NULL, rung = NULL"
    store.db:exec "UPDATE run SET state = 'running', ended = NULL"
    local worker = store:worker()
    local function claim()
        return store.db:tx(function() return queue.take(store, d.id, worker) end)
    end
    local function of(t)
        return rows([[SELECT t.state, t.rung, t.rungs, t.error, t.token IS NULL AS free, r.state AS run,
          r.error AS why, r.ended IS NOT NULL AS ended FROM trial t JOIN run r ON r.id = t.run
          WHERE t.id = ?]], t.id)[1]
    end
    local first, second, third = claim(), claim(), claim()
    lu.assertIs(queue.judge(store, d, first, 0.5), false) -- the best 1/2 of one are none
    lu.assertEquals(of(first), { state = "pruned", rung = 0, rungs = "[0.5]", error = "paused at rung 0 with 0.5",
        free = 1, run = "pruned", why = "paused at rung 0 with 0.5", ended = 1 })
    lu.assertIs(queue.judge(store, d, first, 0.9), nil) -- it has no token any more
    lu.assertEquals(of(first).rungs, "[0.5]")
    lu.assertIs(queue.judge(store, d, second, 0.7), true)
    lu.assertEquals(of(second), { state = "running", rung = 1, rungs = "[0.7]", free = 0, run = "running", ended = 0 })
    lu.assertIs(queue.judge(store, d, third, 0 / 0), false)
    lu.assertEquals(of(third), { state = "pruned", rung = 0, rungs = "[null]", error = "nan", free = 1, run = "pruned",
        why = "nan", ended = 1 })
    lu.assertEquals(sw.id, d.id)
end

function TestSweep.test_ablation_rows_are_patches()
    local parent = quietly(function() return m.experiment("test"):run { kind = "toy", name = "pre", config = base } end)
    local ab = quietly(function()
        return m.experiment("test"):ablation { ref = "table4", kind = "toy", base = base, parent = parent,
            seeds = { 0, 1 },
            rows = { { "full", {} }, { "deep", { sub = { z = 5 } } }, { "alone", { parent = false } } } }
    end)
    lu.assertEquals(ab:runs("deep"):summary("toyset", "test", "acc"), "-0.09 ± 0.00 (n=2)")
    local filed = rows([[SELECT p.row, r.parent, q.txt FROM paper_run p JOIN run r ON r.id = p.run
      JOIN param q ON q.run = r.id AND q.key = 'sub.z' WHERE p.ref = 'table4' ORDER BY 1, r.seed]])
    lu.assertEquals(filed, { { row = "alone", txt = "1" }, { row = "alone", txt = "1" },
        { row = "deep", parent = parent.id, txt = "5" }, { row = "deep", parent = parent.id, txt = "5" },
        { row = "full", parent = parent.id, txt = "1" }, { row = "full", parent = parent.id, txt = "1" } })
end

function TestSweep.test_a_failed_trial_stays_failed_until_it_is_retried()
    plan[3] = function(run)
        if run.config.x == 1 then error("boom") end
    end
    local spec = { space = { x = { 0, 1, 2 } } }
    local sw = declare(spec)
    lu.assertEquals(rows("SELECT state, run IS NOT NULL AS has FROM trial ORDER BY number"), {
        { state = "done", has = 1 }, { state = "failed", has = 1 }, { state = "done", has = 1 } })
    lu.assertStrContains(rows("SELECT error FROM trial WHERE number = 2")[1].error, "boom")
    lu.assertEquals(#experiment.options.failed, 1)
    plan = {}
    open()
    declare(spec)
    lu.assertEquals(counts, 0)
    open()
    experiment.options.retry = true -- --lf
    declare(spec)
    lu.assertEquals(counts, 9) -- its run has no checkpoint
    lu.assertEquals(sw:points()[3].state, "done")
end

function TestSweep.test_max_failures_pauses_the_sweep()
    plan[2] = function() error("boom") end
    experiment.options.max_failures = 2
    declare { space = { x = { 0, 1, 2, 3, 4 } } }
    lu.assertEquals(rows("SELECT state, failed, waiting FROM sweep_list")[1],
        { state = "paused", failed = 2, waiting = 3 })
end

function TestSweep.test_a_missing_metric_names_what_there_is()
    declare { space = { x = { 0 } }, metric = "val/ac" }
    lu.assertStrContains(rows("SELECT error FROM trial")[1].error, "did you mean val/acc?")
    lu.assertEquals(counts, 1) -- told at the first evaluation, not after the training
    open()
    lu.assertAlmostEquals(declare({ name = "r", space = { x = { 0 } }, metric = "toyset/test/acc" }):best().mean, -0.09,
        1e-12)
end

local function claim(store, d, worker)
    return store.db:tx(function() return queue.take(store, d.id, worker) end)
end

-- A sweep whose trials wait, without running them.
local function waiting()
    experiment.options.enqueue = true
    local ok, err = pcall(declare, { space = { x = { 0, 1 } }, max_attempts = 2 })
    experiment.options.enqueue = nil
    lu.assertFalse(ok)
    lu.assertEquals(err, experiment.Finished)
    local store = experiment.store()
    return store, { id = rows("SELECT id FROM sweep")[1].id }
end

function TestSweep.test_a_late_result_is_refused_by_its_token()
    local store, d = waiting()
    local first = claim(store, d, store:worker())
    lu.assertEquals(#first.token, 16)
    store.db:exec("UPDATE trial SET state = 'waiting', token = NULL WHERE id = ?", first.id)
    local second = claim(store, d, store:worker())
    lu.assertEquals(second.id, first.id)
    lu.assertEquals(second.attempt, 2)
    lu.assertFalse(queue.finish(store, first, { state = "done", value = 1 }))
    lu.assertFalse(queue.attach(store, first, 1))
    lu.assertFalse(queue.release(store, first))
    lu.assertTrue(queue.finish(store, second, { state = "done", value = 2 }))
    lu.assertEquals(rows("SELECT value FROM trial WHERE id = ?", first.id)[1].value, 2)
    lu.assertFalse(queue.finish(store, second, { state = "failed" }))
end

function TestSweep.test_trials_of_dead_workers_are_taken_back()
    local store, d = waiting()
    local function worker(host, pid, boot)
        store.db:exec("INSERT INTO worker(host, pid, boot, started, seen) VALUES(?, ?, ?, 1, 1)", host, pid, boot)
        return store.db:last_id()
    end
    local dead = m.sys.spawn { "/bin/true" }
    m.sys.wait(dead, true)
    local here, boot = m.sys.hostname(), m.sys.boot_id()
    local cases = { -- worker, lease from now, is it taken back
        { worker(here, m.sys.pid(), boot), 60000, false }, { worker(here, dead, boot), 60000, true },
        { worker(here, m.sys.pid(), "before"), 60000, true }, { worker("elsewhere", 1, "x"), 60000, false },
        { worker("elsewhere", 1, "x"), -1, true }, { worker(here, m.sys.pid(), boot), -1, true },
    }
    for i, c in ipairs(cases) do
        local t = claim(store, d, c[1])
        store.db:exec("UPDATE trial SET lease = ? WHERE id = ?", m.sys.time() + c[2], t.id)
        lu.assertEquals(store.db:tx(function() return queue.reap(store, d.id) end), c[3] and 1 or 0, "case " .. i)
        store.db:exec("UPDATE trial SET state = 'waiting', token = NULL, attempt = 0")
    end
    for attempt = 1, 2 do -- two attempts are allowed
        local t = claim(store, d, cases[2][1])
        lu.assertEquals(t.attempt, attempt)
        store.db:tx(function() return queue.reap(store, d.id) end)
    end
    local t = rows("SELECT state, error FROM trial WHERE number = 1")[1]
    lu.assertEquals(t.state, "failed")
    lu.assertStrContains(t.error, "lost: its worker")
    lu.assertEquals(queue.retry(store, d.id, true), 1)
end

-- The writer thread renews, while the trial computes; not once another worker has the trial.
function TestSweep.test_the_lease_is_renewed_and_its_loss_seen()
    local store, d = waiting()
    local t = claim(store, d, store:worker())
    store.db:hold(t.id, t.token, 80)
    local function lease() return rows("SELECT lease FROM trial WHERE id = ?", t.id)[1].lease end
    local function within_seconds(f)
        for _ = 1, 500 do
            if f() then return true end
            m.sys.sleep(0.02)
        end
        return false
    end
    for _ = 1, 3 do
        local before = lease()
        lu.assertTrue(within_seconds(function() return lease() ~= before end))
    end
    lu.assertTrue(store.db:held())
    store.db:exec("UPDATE trial SET token = randomblob(8) WHERE id = ?", t.id)
    lu.assertTrue(within_seconds(function() return not store.db:held() end))
    local before = lease()
    m.sys.sleep(0.1)
    lu.assertEquals(lease(), before)
    lu.assertFalse(store.db:let_go())
end

function TestSweep.test_sets_of_finished_trials()
    local list = {}
    for _, n in ipairs { 1, 2, 3, 5, 6, 7, 10 } do list[#list + 1] = { number = n } end
    list[5].rung = 2
    lu.assertEquals(queue.pack(list), "1-3,5,6@2,7,10")
    lu.assertEquals(queue.unpack "1-3,5,6@2,7,10", { true, true, true, [5] = true, [6] = 2, [7] = true, [10] = true })
    lu.assertEquals(queue.unpack "", {})
end

function TestSweep.test_wrong_declarations_are_refused()
    for text, spec in pairs {
        ["did you mean space"] = { spcae = {} }, ["did you mean sobol"] = { space = { x = { 1 } }, sampler = "sobl" },
        ["needs trials"] = { space = { x = m.uniform(0, 1) }, sampler = "random" },
        ["no end of values"] = { space = { x = m.uniform(0, 1) } }, ["space.x"] = { space = { x = 3 } },
        ["is there twice"] = { space = { x = { 1 } }, seeds = { 1, 1 } }, ["needs a name"] = { name = "" },
        ["kind, base and space"] = { kind = false }, ['"min" or "max"'] = { space = { x = { 1 } }, goal = "up" },
    } do
        lu.assertErrorMsgContains(text, declare, spec)
    end
    for text, spec in pairs { -- wrong types, by the field's name
        ["trials = many"] = { space = { x = { 1 } }, trials = "many" },
        ["seed = 1.5"] = { space = { x = { 1 } }, seed = 1.5 },
        ["max_attempts = 0"] = { space = { x = { 1 } }, max_attempts = 0 },
        ["parent: a run"] = { space = { x = { 1 } }, parent = "mae" },
        ["base: a conf"] = { base = 3, space = { x = { 1 } } },
        ["seeds is a list of whole numbers, such as [0,1,2], not {}"] = { space = { x = { 1 } }, seeds = {} },
    } do
        config.refused = false
        lu.assertErrorMsgContains(text, declare, spec)
        lu.assertStrContains(tostring(config.refused), text) -- a usage error: exit code 2
    end
    lu.assertErrorMsgContains("eta above 1", m.asha, { eta = 1 })
    lu.assertErrorMsgContains("min is a number", m.asha, { min = "x" })
end

-- The task says what a run records: a metric that it does not is refused when the sweep is declared.
function TestSweep.test_a_metric_that_no_run_has_is_refused_before_the_first()
    local function told(spec)
        spec.kind, spec.base, spec.space = "told", spec.base or m.config { steps = 4 }, { x = { 4, 3, 2, 1 } }
        return declare(spec)
    end
    local asha = m.asha { min = 1, max = 4, eta = 2 }
    for metric, text in pairs {
        ["val/acd"] = "s, x=4: the run records no metric 'val/acd' (did you mean val/acc?)", ["recall/"] = "recall/...",
        ["toyset/val/best"] = "(or in full, toyset/test/best)",
        ["loss"] = "its series are val/acc, sys/...; its results",
    } do
        config.refused = false
        lu.assertErrorMsgContains(text, told, { metric = metric })
        lu.assertStrContains(config.refused, text)
    end
    lu.assertErrorMsgContains("recorded at the end of the run; a series is val/acc", told,
        { metric = "best", pruner = asha, base = m.config { late = true } })
    lu.assertErrorMsgContains("keep.best: the run records no series 'val/acd' (did you mean val/acc?)", function()
        m.experiment "e":run { kind = "told", config = {}, keep = { best = "val/acd" } }
    end)
    lu.assertEquals(counts, 0)
    for i, metric in ipairs { "val/acc", "best", "toyset/test/best", "toyset test best", "recall/happy",
        "sys/peak_bytes" } do
        local sw = told { name = "s" .. i, metric = metric }
        lu.assertEquals(sw:points()[4].state, "done", metric)
    end
    -- a pruner judges by a result as by a series
    for i, metric in ipairs { "best", "toyset/test/best" } do
        local sw = told { name = "p" .. i, metric = metric, pruner = asha, base = m.config { steps = 4 + i } }
        lu.assertEquals(sw:best().params.x, 4)
        lu.assertEquals(sw:best().mean, 4.0 * (4 + i))
        lu.assertTrue(#rows("SELECT 1 FROM trial WHERE state = 'pruned' AND sweep = ?", sw.id) > 0)
    end
end

-- A task that never says when it has evaluated cannot be judged: its trials fail with that word.
function TestSweep.test_a_pruner_that_is_never_asked()
    experiment.task("mute", { defaults = { x = 0.0 }, run = function(run)
        run:log(1, { ["val/acc"] = run.config.x })
        run:checkpoint(1, { { "x", m.tensor { 1.0 } } }, {}, { final = true })
    end })
    declare { kind = "mute", base = m.config {}, space = { x = { 1.0, 2.0 } },
        pruner = m.asha { min = 1, max = 4, eta = 2 } }
    for _, t in ipairs(rows "SELECT state, error FROM trial") do
        lu.assertEquals(t.state, "failed")
        lu.assertStrContains(t.error, "the task 'mute' does not call run:evaluated(epoch, final)")
    end
end

-- What a trial's task would refuse ends the declaration: nothing is queued, nothing runs.
function TestSweep.test_every_trial_is_checked_before_the_first_runs()
    for text, spec in pairs {
        ["s, xx=1: unknown key 'xx' for toy (did you mean x?)"] = { space = { xx = { 1 } } },
        ["s, x=a: x: expected a number, got a string"] = { space = { x = { 0, "a" } } },
        ["s, sub.z=false"] = { space = { sub = { z = { 1, true } } } },
        ["seeds = { 0, 1, 2 } is an axis"] = { space = { seed = { 1, 2 } } },
        ["unknown key 'epochs' for toy"] = { space = { epochs = { 1, 2 } } }, -- known, but to other tasks alone
        ["unknown key 'stepz'"] = { base = m.config { steps = 9 }:with { stepz = 1 }, space = { x = { 1 } } },
        ["did you mean toy"] = { kind = "tyo", space = { x = { 1 } } },
        ["kind: expected a string"] = { space = { kind = m.uniform(0, 1) }, sampler = "tpe", trials = 5 },
    } do
        if text:find "sub.z" then text = "sub.z: expected a number, got a boolean" end
        lu.assertErrorMsgContains(text, declare, spec)
    end
    local ablation = { ref = "own", kind = "toy", base = base,
        rows = { { "full", {} }, { "bad", { sbu = { z = 1 } } } } }
    lu.assertErrorMsgContains("own, row 'bad': unknown key 'sbu' for toy", quietly, function()
        return m.experiment("test"):ablation(ablation)
    end)
    lu.assertEquals(#rows "SELECT id FROM trial", 0)
    lu.assertEquals(counts, 0)
end

-- While a script is planned its sweeps have no results, yet it can go on from their best point.
function TestSweep.test_best_of_a_planned_sweep()
    experiment.options.dry_run, experiment.options.collect = true, {}
    local ok, s, rows_ = pcall(function()
        return declare { space = { x = m.log(0.1, 0.4), sub = { z = { 1, 2 } } }, sampler = "random", trials = 3 },
            quietly(function()
                return m.experiment("test"):ablation { kind = "toy", base = base, rows = { { "a", { x = 1 } } } }
            end)
    end)
    experiment.options.dry_run, experiment.options.collect = false, nil
    lu.assertTrue(ok, s)
    local best = s:best()
    lu.assertTrue(best.params.x > 0.1 and best.params.x < 0.4)
    lu.assertEquals(best.patch, { x = best.params.x, sub = { z = best.params["sub.z"] } })
    lu.assertEquals(rows_:best().patch, { x = 1 })
    lu.assertEquals({ #s:points(), s:summary() }, { 0, "s: planned" })
    local real = declare { space = { x = { 0.3, 1 } } }
    lu.assertEquals(real:best().patch, { x = 0.3 })
end

-- The bill of a dry run holds every trial: points times seeds, each at what its own configuration costs.
function TestSweep.test_the_cost_of_a_planned_sweep()
    local flops = require "mimic.flops"
    flops.expect("of the plan", 64, 10)
    local o = experiment.options
    local small = m.config { method = "mae", batch = 16, data = { train = "of the plan" } }
    local function bill(spec)
        o.dry_run, o.collect, o.cost = true, {}, nil
        local spec_ = { name = "s", kind = "pretrain", base = small, metric = "train/loss" }
        for k, v in pairs(spec) do spec_[k] = v end
        local ok, err = pcall(quietly, function()
            local e = m.experiment "test"
            if spec.rows then spec_.name, spec_.space = nil, nil return e:ablation(spec_) end
            return e:sweep(spec_)
        end)
        local total = 0
        for _, c in ipairs(o.cost or {}) do total = total + c.flops end
        o.dry_run, o.collect, o.cost = false, nil, nil
        lu.assertTrue(ok, err)
        return total
    end
    local one = flops.run("pretrain", experiment.resolve("pretrain", small:with { epochs = 1 }))
    lu.assertTrue(one > 0)
    local function is(spec, times) lu.assertAlmostEquals(bill(spec) / one, times, 1e-6) end
    is({ space = { epochs = { 1, 2, 5 } }, seeds = { 0, 1 } }, 2 * (1 + 2 + 5))
    is({ rows = { { "a", { epochs = 1 } }, { "b", { epochs = 4 } } }, seeds = { 0, 1, 2 } }, 3 * (1 + 4))
    is({ space = { epochs = { 2, 4 } }, sampler = "tpe", trials = 10 }, 10 * 3) -- the mean of what it may try
end

-- In the view, and so in `mimic sweep ls` and the header, as in the script; also where trials draw as they go.
function TestSweep.test_best_is_a_mean_over_seeds()
    local s = quietly(function()
        return m.experiment("test"):sweep { name = "d", trials = 3, sampler = "random", metric = "val/acc",
            seeds = { 0, 1 }, trial = function(t) return t:uniform("x", 0, 1) + 10 * t.seed end }
    end)
    lu.assertEquals(rows "SELECT trials, n FROM sweep_stat", { { trials = 2, n = 2 }, { trials = 2, n = 2 },
        { trials = 2, n = 2 } })
    local best = s:best()
    lu.assertAlmostEquals(best.mean, best.params.x + 5, 1e-9)
    lu.assertAlmostEquals(rows("SELECT best FROM sweep_list")[1].best, best.mean, 1e-9)
end

function TestSweep.test_sweeps_of_one_name()
    local first = declare { space = { x = { 0 } } }
    local second = declare { space = { x = { 1 } } }
    local db = experiment.store().db
    local function found(text)
        out = {}
        return quietly(find.one, db, text).uid, table.concat(out)
    end
    lu.assertEquals({ found(first.uid) }, { first.uid, "" })
    lu.assertEquals({ found(first.uid:sub(1, 6)) }, { first.uid, "" })
    local uid, said = found "s"
    lu.assertEquals(uid, second.uid)
    lu.assertStrContains(said, "2 sweeps are named s: the newest one, " .. second.uid)
    queue.set_state(experiment.store(), first.id, "open")
    uid, said = found "s"
    lu.assertEquals(uid, first.uid)
    lu.assertStrContains(said, "the open one")
    lu.assertErrorMsgContains("did you mean s?", find.one, db, "ss")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSweep", TestSweep } })

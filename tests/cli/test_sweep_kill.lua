-- Eight workers on one results file, killed with -9 at random moments and replaced, then left to finish: no trial
-- is done twice, none is lost, the file is whole, and every curve, result and weight equals that of a sweep
-- that nobody disturbed. About 10 kills; MIMIC_LONG=1: at least 100.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local kills_wanted = os.getenv("MIMIC_LONG") == "1" and 100 or 10
local dir

-- A task of tiny steps whose numbers depend on all steps before: a lost or repeated step changes the curve.
local script = [[
local m = require "mimic"
m.experiment.task("walk", { defaults = { steps = 40, r = 3.7 }, run = function(run)
    local x, at, last = m.tensor({ 0.1 + 0.01 * run.seed }, "f64"), 0, run:resume()
    if last then
        local f = m.safetensors.open(last.path)
        x, at = f:load("x"), math.tointeger(last.meta.at)
        f:close()
    end
    local v = x:item()
    while at < run.config.steps do
        at = at + 1
        v = run.config.r * v * (1 - v)
        run:log(at, { ["train/x"] = v, ["val/acc"] = 100 * v })
        m.sys.sleep(0.004)
        local last_step = at == run.config.steps
        if at % 7 == 0 or last_step then
            run:checkpoint(at, { { "x", m.tensor({ v }, "f64") } }, { at = at }, { final = last_step })
        end
        if run:interrupted() then run:stop() end
    end
    run:result("walk", "test", "acc", 100 * v, 1, at)
end })
m.experiment("kill"):sweep { name = "walks", kind = "walk", base = m.config { steps = 40 },
    space = { r = m.range(3.5, 3.95, 0.05) }, seeds = { 0, 1, 2 }, metric = "val/acc", max_attempts = 100000 }
]]

local function open(db)
    return m.db.open(dir .. "/" .. db, { write = false })
end

-- What must be equal: everything but times, speeds and numbers of rows.
local function record(db)
    local file <close> = open(db)
    local function rows(sql) return (file:rows(sql)) end
    return {
        rows [[SELECT r.name AS run, r.seed, c.name, c.step, c.value FROM curve c JOIN run r ON r.id = c.run
          WHERE c.name NOT LIKE 'sys/%' ORDER BY 1, 2, 3, 4]],
        rows [[SELECT r.name AS run, r.seed, s.name, s.n, s.last, s.lo, s.lo_step, s.hi, s.hi_step FROM series s
          JOIN run r ON r.id = s.run WHERE s.name NOT LIKE 'sys/%' ORDER BY 1, 2, 3]],
        rows [[SELECT r.name AS run, r.seed, x.value, x.step FROM result x JOIN run r ON r.id = x.run
          ORDER BY 1, 2]],
        rows [[SELECT r.name AS run, r.seed, hex(c.sha256) AS sha FROM checkpoint c JOIN run r ON r.id = c.run
          WHERE c.keep = 'pin' ORDER BY 1, 2]],
        rows "SELECT number, params, seed, state, value FROM trial ORDER BY number",
        rows "SELECT name, seed, state, step FROM run ORDER BY 1, 2",
    }
end

local function count(db, sql)
    local file <close> = open(db)
    return file:first(sql).n
end

local function start(db)
    return m.sys.spawn { shell.mimic, "worker", "--sweep", "walks", "--quiet", "--db", db }
end

local TestSweepKill = {}

function TestSweepKill.setUp()
    dir = shell.folder()
    shell.write(dir .. "/walk.lua", script)
end

function TestSweepKill.tearDown()
    shell.remove(dir)
end

-- One sweep under fire; returns how many workers were killed while a trial was theirs.
local function storm(db, rng)
    local path = dir .. "/" .. db
    lu.assertEquals((shell.run(dir, "sweep walk.lua --enqueue --db " .. db)), 0)
    local workers, hits, running = {}, 0, 8
    for i = 1, 8 do workers[i] = start(path) end
    while running > 0 do
        m.sys.sleep(0.05 + 0.1 * rng:uniform())
        local victim = 1 + rng:below(8)
        local busy = workers[victim] and count(db, ([[SELECT count(*) AS n FROM trial t JOIN worker w
          ON w.id = t.worker WHERE t.state = 'running' AND w.pid = %d]]):format(workers[victim])) or 0
        if busy > 0 then
            m.sys.kill(workers[victim], "KILL")
            lu.assertEquals(m.sys.wait(workers[victim], true), 137)
            workers[victim] = start(path)
            hits = hits + 1
        end
        running = 0
        for i, pid in pairs(workers) do
            local code = m.sys.wait(pid)
            if code then
                lu.assertEquals(code, 0)
                workers[i] = nil
            else
                running = running + 1
            end
        end
    end
    return hits
end

function TestSweepKill.test_eight_workers_under_kill_9()
    local code, out, err = shell.run(dir, "sweep walk.lua --quiet --db whole.db")
    lu.assertEquals(code, 0, out .. err)
    local whole = record "whole.db"
    lu.assertEquals(#whole[5], 30)
    local rng = m.rng(m.sys.pid(), 1, m.sys.time() & 0xffff)
    local kills, round = 0, 0
    while kills < kills_wanted and round < 100 do
        round = round + 1
        local db = ("cut%d.db"):format(round)
        kills = kills + storm(db, rng)
        lu.assertEquals(record(db), whole, "round " .. round)
        lu.assertEquals(count(db, "SELECT count(DISTINCT run) AS n FROM trial"), 30)
        lu.assertEquals(count(db, "SELECT count(*) AS n FROM run"), 30)
        lu.assertEquals(count(db, "SELECT count(*) AS n FROM event WHERE code = 'done'"), 30)
        lu.assertEquals(count(db, "SELECT count(*) AS n FROM sweep WHERE state = 'done'"), 1)
        lu.assertEquals(count(db, "SELECT integrity_check = 'ok' AS n FROM pragma_integrity_check"), 1)
        lu.assertEquals(count(db, "SELECT count(*) AS n FROM pragma_foreign_key_check"), 0)
    end
    print(("%d kills of workers that had a trial, in %d sweeps"):format(kills, round))
    lu.assertTrue(kills >= kills_wanted)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSweepKill", TestSweepKill } })

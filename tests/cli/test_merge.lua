-- mimic merge, and the tasks of a job array as Slurm would start them: shards come together, merging again changes
-- nothing, of two versions of a run the one that is further wins. test_slurm.lua does it with a real Slurm.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local dir

local script = [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { steps = 4, x = 0.0 }, run = function(run)
    local c, at, last = run.config, 0, run:resume()
    if last then at = math.tointeger(last.meta.at) end
    while at < c.steps do
        at = at + 1
        run:log(at, { ["val/acc"] = c.x + at + run.seed })
        if at == 2 or at == c.steps then
            run:checkpoint(at, { { "x", m.tensor { at + 0.0 } } }, { at = at }, { final = at == c.steps })
        end
        if c.x > 2 and at == 3 and os.getenv "BREAK" then error("broken here") end
    end
    run:artifact("big", "text", ("%g "):format(c.x):rep(50000)) -- larger than a row holds: a file
    run:result("toyset", "test", "acc", c.x, 8, at)
end })
m.experiment("toys"):sweep { name = "grid", kind = "toy", base = m.config { steps = 4 }, metric = "val/acc",
    space = { x = m.range(0, 3) }, seeds = { 0, 1 } }
]]

local TestMerge = {}

function TestMerge.setUp()
    dir = shell.folder()
    shell.write(dir .. "/grid.lua", script)
end

function TestMerge.tearDown()
    shell.remove(dir)
end

local function ok(words, before)
    local code, out, err = shell.run(dir, words, before)
    lu.assertEquals(code, 0, words .. "\n" .. out .. err)
    return out, err
end

local function rows(db, sql)
    local file <close> = m.db.open(dir .. "/" .. db, { write = false })
    return (file:rows(sql))
end

-- Everything that merging carries, by names instead of numbers of rows.
local function record(db)
    return {
        rows(db, "SELECT name, seed, state, step, attempt, error IS NULL AS fine FROM run ORDER BY 1, 2"),
        rows(db, [[SELECT r.name AS run, r.seed, c.name, c.step, c.value FROM curve c JOIN run r ON r.id = c.run
          WHERE c.name NOT LIKE 'sys/%' ORDER BY 1, 2, 3, 4]]),
        rows(db, "SELECT name, seed, value, n FROM leaderboard ORDER BY 1, 2"),
        rows(db, [[SELECT r.name AS run, r.seed, p.key, p.txt FROM param p JOIN run r ON r.id = p.run
          ORDER BY 1, 2, 3]]),
        rows(db, [[SELECT r.name AS run, r.seed, a.name, hex(a.sha256) AS sha FROM artifact a
          JOIN run r ON r.id = a.run ORDER BY 1, 2, 3]]),
        rows(db, [[SELECT r.name AS run, r.seed, c.step, c.keep FROM checkpoint c JOIN run r ON r.id = c.run
          WHERE c.deleted IS NULL ORDER BY 1, 2, 3]]),
        rows(db, [[SELECT t.number, t.state, t.value, r.name FROM trial t LEFT JOIN run r ON r.id = t.run
          ORDER BY 1]]),
        rows(db, "SELECT name, state FROM sweep"),
        rows(db, "SELECT run, code, count(*) AS n FROM event GROUP BY 1, 2 ORDER BY 1, 2"),
        rows(db, "SELECT count(*) AS n FROM worker"),
    }
end

local function freeze()
    local uid = rows("results/mimic.db", "SELECT uid FROM sweep")[1].uid
    m.sys.mkdirs(dir .. "/results/runs/shards")
    local file <close> = m.db.open(dir .. "/results/mimic.db", { write = true })
    file:copy(("%s/results/runs/shards/%s.base.db"):format(dir, uid))
    return uid
end

local function task(uid, index, count, more)
    local env = ("SLURM_ARRAY_TASK_MIN=4 SLURM_ARRAY_TASK_MAX=%d SLURM_ARRAY_TASK_COUNT=%d SLURM_ARRAY_TASK_ID=%d "
        .. "TMPDIR='%s' %s"):format(4 + 2 * (count - 1), count, 4 + 2 * index, dir, more or "")
    return shell.run(dir, ("worker --shard -q --sweep %s --db '%s/results/mimic.db'"):format(uid, dir), env)
end

function TestMerge.test_shards_come_together_as_one_file_would_be()
    ok "sweep grid.lua -q --db whole/mimic.db"
    local whole = record "whole/mimic.db"
    ok "sweep grid.lua --enqueue"
    local uid = freeze()
    for index = 0, 2 do lu.assertEquals((task(uid, index, 3)), 0) end
    lu.assertNil(os.execute(("ls '%s'/mimic-* >/dev/null 2>&1"):format(dir))) -- local copies are gone
    local shards = ("results/runs/shards/%s-%%d.db"):format(uid)
    local parts = 0
    for index = 0, 2 do
        parts = parts + rows(shards:format(index), "SELECT count(*) AS n FROM trial WHERE state = 'done'")[1].n
    end
    lu.assertEquals(parts, 8) -- each trial in one shard
    local out = ok("merge " .. shards:format(0) .. " " .. shards:format(1))
    lu.assertStrContains(out, "3 runs added, 0 renewed, 0 known")
    lu.assertEquals(rows("results/mimic.db", "SELECT state FROM sweep")[1].state, "open")
    ok("merge " .. shards:format(2))
    local merged = record "results/mimic.db"
    for i = 1, 8 do lu.assertEquals(merged[i], whole[i]) end
    lu.assertStrContains(ok("merge " .. shards:format(0)), "0 runs added, 0 renewed, 3 known")
    lu.assertEquals(record "results/mimic.db", merged) -- again: nothing changes
    for _, check in ipairs { "integrity_check", "foreign_key_check" } do
        local list = rows("results/mimic.db", "SELECT * FROM pragma_" .. check)
        lu.assertEquals(#list == 0 or list[1].integrity_check == "ok", true)
    end
    lu.assertStrContains(ok "sweep grid.lua -q", "grid: 8 done of 8 trials") -- nothing is left to run
    -- into an empty file of another place, large blobs too
    ok(("--db other/x.db merge results/mimic.db"))
    local other = record "other/x.db"
    for i = 1, 8 do lu.assertEquals(other[i], whole[i]) end
    local file <close> = m.db.open(dir .. "/other/x.db", { write = false })
    local sha = file:first("SELECT lower(hex(sha256)) AS sha FROM artifact WHERE name = 'big'").sha
    lu.assertTrue(#file:get_blob(sha) > 64 * 1024)
    -- Checkpoints stay where they are: doctor says so, and that is no damage.
    local health = ok "--db other/x.db doctor"
    lu.assertStrContains(health, "16 checkpoints of merged runs are not here")
    lu.assertStrContains(health, "all is well")
end

function TestMerge.test_a_task_that_failed_and_was_started_again_is_renewed()
    ok "sweep grid.lua --enqueue"
    local uid = freeze()
    lu.assertEquals((task(uid, 0, 1, "BREAK=1")), 1)
    local shard = ("results/runs/shards/%s-0.db"):format(uid)
    lu.assertStrContains(ok("merge " .. shard), "8 runs added")
    lu.assertEquals(#rows("results/mimic.db", "SELECT id FROM trial WHERE state = 'failed'"), 2)
    os.execute(("cp '%s/%s' '%s/old.db'"):format(dir, shard, dir))
    do
        local file <close> = m.db.open(dir .. "/" .. shard, { write = true })
        file:exec "UPDATE trial SET state = 'waiting' WHERE state = 'failed'"
        file:exec "UPDATE sweep SET state = 'open'"
    end
    lu.assertEquals((task(uid, 0, 1)), 0) -- from the shard, not from the beginning
    lu.assertStrContains(ok("merge " .. shard), "0 runs added, 2 renewed, 6 known")
    lu.assertStrContains(ok "merge old.db", "0 runs added, 0 renewed, 8 known") -- the older does not win
    lu.assertEquals(#rows("results/mimic.db", "SELECT id FROM trial WHERE state = 'done'"), 8)
    lu.assertEquals(rows("results/mimic.db", "SELECT max(attempt) AS n FROM run")[1].n, 2)
    lu.assertEquals(rows("results/mimic.db", "SELECT count(*) AS n FROM curve WHERE name = 'val/acc'")[1].n, 32)
end

function TestMerge.test_what_cannot_be_merged_is_refused()
    ok "sweep grid.lua -q"
    shell.write(dir .. "/no.db", "this is no database, but long enough to be looked at closely as one")
    lu.assertEquals((shell.run(dir, "merge no.db")), 3)
    lu.assertEquals((shell.run(dir, "merge nosuch.db")), 2)
    lu.assertEquals(#rows("results/mimic.db", "SELECT id FROM run"), 8)
    local code, _, err = shell.run(dir, "worker --shard --sweep aaaa")
    lu.assertEquals(code, 2)
    lu.assertStrContains(err, "--shard is for tasks of a Slurm job array")
    shell.write(dir .. "/tpe.lua", (script:gsub("space = { x = m.range%(0, 3%) }",
        "space = { x = m.uniform(0, 3) }, sampler = 'tpe', trials = 4"):gsub('m%.experiment%("toys"%):sweep',
        'm.experiment("toys"):run { kind = "toy", name = "parent", config = m.config {} }\n%0')))
    code, _, err = shell.run(dir, "sweep tpe.lua --slurm")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "tasks do not see each other's results")
    lu.assertEquals(#rows("results/mimic.db", "SELECT id FROM sweep WHERE sampler = 'tpe'"), 0)
    lu.assertEquals(#rows("results/mimic.db", "SELECT id FROM run WHERE name = 'parent'"), 0) -- refused before it ran
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestMerge", TestMerge } })

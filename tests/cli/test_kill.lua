-- A run that is killed at a random moment and started again ends in the same curves, results and weights,
-- bit for bit, as one that was not. A few kills here; MIMIC_LONG=1: ten in each stage.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local long = os.getenv("MIMIC_LONG") == "1"
local dir

-- Both stages, small enough for a few seconds, with checkpoints inside epochs.
local script = [[
local m = require "mimic"
local vit = { preset = false, img = 32, patch = 4, dim = 48, depth = 2, heads = 2, drop_path = 0.1,
    decoder = { dim = 32, depth = 1, heads = 2 } }
local base = m.config {
    stage = "both",
    pretrain = {
        model = vit, epochs = 3, warmup = 1, batch = 16, lr = 1e-3, log_every = 1, checkpoint_seconds = 0.05,
        data = { train = "synth/general/train", val = "synth/general/val" },
    },
    finetune = {
        model = vit, epochs = 3, warmup = 1, batch = 8, lr = 1e-3, log_every = 1, checkpoint_seconds = 0.05,
        data = {
            train = { path = "synth/faces", split = "train" },
            test = { path = "synth/faces", split = "test" },
        },
    },
}
local exp = m.experiment "kill"
local parent
if base.stage ~= "finetune" then
    parent = exp:run { kind = "pretrain", name = "mae", config = base.pretrain }
end
if base.stage ~= "pretrain" then
    exp:run { kind = "finetune", name = "mimic", config = base.finetune, parent = parent }
end
]]

local function rows(db, sql)
    local file <close> = m.db.open(dir .. "/" .. db, { write = false })
    return (file:rows(sql))
end

-- What must be equal: everything but times and speeds.
local function record(db)
    return {
        rows(db, [[SELECT r.name AS run, c.name, c.step, c.value FROM curve c JOIN run r ON r.id = c.run
          WHERE c.name NOT LIKE 'sys/%' ORDER BY 1, 2, 3]]),
        rows(db, [[SELECT r.name AS run, s.name, s.n, s.last, s.lo, s.lo_step, s.hi, s.hi_step FROM series s
          JOIN run r ON r.id = s.run WHERE s.name NOT LIKE 'sys/%' AND s.n > 0 ORDER BY 1, 2]]),
        rows(db, [[SELECT r.name AS run, x.dataset, x.split, x.metric, x.value, x.n, x.step FROM result x
          JOIN run r ON r.id = x.run ORDER BY 1, 2, 3, 4]]),
        rows(db, [[SELECT r.name AS run, x.truth, x.pred, x.n FROM confusion x JOIN run r ON r.id = x.run
          ORDER BY 1, 2, 3]]),
        rows(db, [[SELECT r.name AS run, a.name, a.step, hex(a.sha256) AS sha FROM artifact a
          JOIN run r ON r.id = a.run ORDER BY 1, 2, 3]]),
        rows(db, [[SELECT r.name AS run, c.step, c.keep, hex(c.sha256) AS sha FROM checkpoint c
          JOIN run r ON r.id = c.run WHERE c.deleted IS NULL ORDER BY 1, 2]]),
        rows(db, "SELECT name, state, step FROM run ORDER BY 1"),
    }
end

local function start(db, words, before)
    return shell.run(dir, ("run kill.lua --quiet --db %s %s"):format(db, words), before)
end

local function reference(words)
    local began = m.sys.clock()
    local code, out, err = start("whole.db", words)
    lu.assertEquals(code, 0, out .. err)
    return record("whole.db"), m.sys.clock() - began
end

local function fresh()
    os.execute(("cd '%s' && rm -rf cut.db* runs"):format(dir))
end

local TestKill = {}

-- In the foreground `timeout` outlives what it kills and waits for its end; else the run may still hold its
-- lock.
local killed <const> = "timeout --foreground -s KILL "

function TestKill.setUp()
    dir = shell.folder()
    shell.write(dir .. "/kill.lua", script)
    m.data.synth { dir = dir .. "/synth", seed = 3, size = 32, general_train = 160, general_val = 16,
        faces_train = 80,
        faces_test = 24 }
end

function TestKill.tearDown()
    shell.remove(dir)
end

function TestKill.test_a_killed_run_is_listed_as_lost()
    start("cut.db", "stage=pretrain pretrain.epochs=100000", killed .. "2.5")
    lu.assertStrContains(select(2, shell.run(dir, "ls --db cut.db")), "lost")
    lu.assertStrContains(select(2, shell.run(dir, "show mae --db cut.db")), "lost")
end

-- Kills at a random moment, once or several times, then lets it finish: `times` times, and further until a
-- kill has met a run at work (on a fast machine many fall before its start or after its end).
local function kill_and_compare(words, times, kills)
    local whole, seconds = reference(words)
    local rng = m.rng(m.sys.pid(), 1, m.sys.time() & 0xffff)
    local resumed, i = 0, 0
    repeat
        i = i + 1
        fresh()
        local moments = {}
        for k = 1, kills do
            moments[k] = ("%.3f"):format((0.1 + 0.8 * rng:uniform()) * seconds)
            start("cut.db", words, killed .. moments[k])
        end
        local code, out, err = start("cut.db", words)
        local what = ("kill %d at %s s of %.2f s"):format(i, table.concat(moments, ", "), seconds)
        lu.assertEquals(code, 0, what .. "\n" .. out .. err)
        lu.assertEquals(record("cut.db"), whole, what)
        resumed = resumed + rows("cut.db", "SELECT max(attempt) AS n FROM run")[1].n - 1
    until i >= 100 or i >= times and resumed > 0
    lu.assertTrue(resumed > 0, "no kill met a run that was being executed")
end

function TestKill.test_killed_runs_end_in_the_same_bits()
    if long then
        kill_and_compare("stage=pretrain", 10, 1)
        fresh()
        os.execute(("rm -rf '%s'/whole.db*"):format(dir))
        kill_and_compare("stage=finetune", 10, 1)
    else
        kill_and_compare("", 2, 2)
    end
end

function TestKill.test_ctrl_c_saves_and_tells_how_to_go_on()
    local whole, seconds = reference("stage=finetune")
    local code, _, err
    for try = 0, 20 do -- 130: the signal came before the run had begun; wait longer
        fresh()
        local wait = math.max(seconds * 0.6, 0.3) + 0.1 * try
        local stop = ("timeout --preserve-status -s INT %.2f"):format(wait)
        code, _, err = start("cut.db", "stage=finetune", stop)
        if code ~= 130 then break end
    end
    if code ~= 0 then -- else it was done before the signal came
        lu.assertEquals(code, 75, err)
        lu.assertStrContains(err, "saved at step")
        lu.assertStrContains(err, "/mimic run kill.lua --quiet --db cut.db stage=finetune")
        lu.assertEquals(rows("cut.db", "SELECT state FROM run")[1].state, "interrupted")
        lu.assertEquals((shell.run(dir, "resume mimic --quiet --db cut.db")), 0)
    end
    lu.assertEquals(record("cut.db"), whole)
end

-- The second signal does not wait for the end of the step; what was saved is there, and no more is lost.
function TestKill.test_a_second_ctrl_c_stops_at_once()
    shell.write(dir .. "/slow.lua", [[
        local m = require "mimic"
        m.experiment.task("slow", { defaults = { seconds = 60 }, run = function(run)
            local last = run:resume()
            for step = (last and last.step or 0) + 1, 3 do
                run:log(step, { loss = 1 / step })
                if step == 3 and not last then
                    io.stdout:write("ready\n"):flush()
                    local x, till = m.ones { 64, 64 }, m.sys.clock() + run.config.seconds
                    while m.sys.clock() < till do x:matmul(x):free() end -- one long step
                end
                run:checkpoint(step, { { "x", m.tensor { step + 0.0 } } }, {}, { final = step == 3 })
                if run:interrupted() then run:stop() end
            end
            run:result("none", "test", "acc", 50, 2, 3)
        end })
        m.experiment "slow":run { kind = "slow" }]])
    local began = m.sys.clock()
    local pipe = io.popen(([[cd '%s'; '%s' run slow.lua --quiet --db cut.db > out.txt 2> err.txt & p=$!
        cd '%s'; i=0; until grep -qs ready out.txt || [ $i = 200 ]; do sleep 0.05; i=$((i+1)); done
        kill -INT $p; sleep 0.3; kill -INT $p; wait $p; echo $?]]):format(dir, shell.mimic, dir))
    local code = pipe:read("n")
    pipe:close()
    local seconds, err = m.sys.clock() - began, shell.read(dir .. "/err.txt")
    lu.assertEquals(code, 130, err)
    lu.assertTrue(seconds < 30, ("stopped after %.1f s"):format(seconds))
    lu.assertStrContains(err, "saved at step 2; continue with")
    lu.assertEquals(rows("cut.db", "SELECT state FROM run"), { { state = "interrupted" } })
    lu.assertEquals(#rows("cut.db", "SELECT step FROM metric"), 3) -- the step's own value too
    lu.assertEquals((shell.run(dir, "run slow.lua --quiet --db cut.db")), 0)
    lu.assertEquals(rows("cut.db", "SELECT step, value FROM curve WHERE name = 'loss' ORDER BY step"),
        { { step = 1, value = 1.0 }, { step = 2, value = 1 / 2 }, { step = 3, value = 1 / 3 } })
    lu.assertEquals(rows("cut.db", "SELECT state, attempt FROM run"), { { state = "done", attempt = 2 } })
end

-- The same in the middle of training: the bits are those of an undisturbed run.
function TestKill.test_two_ctrl_c_in_training_lose_nothing()
    local whole, seconds = reference("stage=finetune")
    fresh()
    local twice = "timeout --preserve-status -s INT -k 0.02 " -- then KILL, if it is not gone by then
    start("cut.db", "stage=finetune", twice .. ("%.2f"):format(seconds * 0.6))
    local code, out, err = start("cut.db", "stage=finetune")
    lu.assertEquals(code, 0, out .. err)
    lu.assertEquals(record("cut.db"), whole)
end

function TestKill.test_a_live_run_is_refused()
    os.execute(("cd '%s' && '%s' run kill.lua --quiet --db cut.db >/dev/null 2>&1 & sleep 0.5"):format(dir,
        shell.mimic))
    local code, _, err = start("cut.db", "")
    if code ~= 0 then -- else the other was already done
        lu.assertStrContains(err, "being executed by another process")
        lu.assertEquals(code, 1)
    end
    for _ = 1, 300 do -- the other ends
        if (start("cut.db", "")) == 0 then break end
        os.execute("sleep 0.2")
    end
    lu.assertEquals(#rows("cut.db", "SELECT id FROM run WHERE state = 'done'"), 2)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestKill", TestKill } })

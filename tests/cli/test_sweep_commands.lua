-- mimic sweep and mimic worker: worker processes, -m over whole scripts, interruption, failures, stored scripts.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local cjson = require "cjson"
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local dir

local task = [[
local m = require "mimic"
local help = require "help_module"
m.experiment.task("toy", { defaults = { steps = 5, x = 0.0, c = "a", sleep = 0.0, fail = false }, run = function(run)
    local c, at, last = run.config, 0, run:resume()
    if last then at = math.tointeger(last.meta.at) end
    while at < c.steps do
        at = at + 1
        run:log(at, { ["val/acc"] = help.score(c.x) + run.seed })
        m.sys.sleep(c.sleep)
        if c.fail and c.x == c.fail then error("told to fail") end
        local stop = run:interrupted()
        if stop or at == c.steps then
            run:checkpoint(at, { { "x", m.tensor { at + 0.0 } } }, { at = at }, { final = at == c.steps })
        end
        if stop then run:stop() end
    end
    run:artifact("gpu", "text", os.getenv "CUDA_VISIBLE_DEVICES" or "none")
    run:result("toyset", "test", "acc", help.score(c.x), 8, at)
end })
]]
local declared = task .. [[
local base = m.config { steps = 5, seeds = { 0, 1 } }
local sw = m.experiment("toys"):sweep { name = "grid", kind = "toy", base = base, metric = "val/acc",
    space = { x = m.range(0, 0.5, 0.1) }, seeds = base.seeds }
print("best", sw:best() and sw:best().params.x)
]]
local plain = task .. [[
local base = m.config { seeds = { 0, 1 }, toy = { steps = 5 } }
m.experiment "p":run { kind = "toy", name = "r", config = base.toy, seeds = base.seeds }
]]

local TestSweepCommands = {}

function TestSweepCommands.setUp()
    dir = shell.folder()
    shell.write(dir .. "/grid.lua", declared)
    shell.write(dir .. "/plain.lua", plain)
    shell.write(dir .. "/help_module.lua", "return { score = function(x) return -(x - 0.3) ^ 2 end }")
end

function TestSweepCommands.tearDown()
    shell.remove(dir)
end

local run, ok, json, refused = shell.commands(function() return dir end)

local function trials(name)
    return json("sweep show " .. name .. " --json")
end

local function states(name)
    local n = {}
    for _, t in ipairs(trials(name)) do n[t.state] = (n[t.state] or 0) + 1 end
    return n
end

function TestSweepCommands.test_workers_share_a_sweep()
    local out = ok "sweep grid.lua +sleep=0.05 --workers 3 --quiet"
    lu.assertStrContains(out, "grid: 12 done of 12 trials; best val/acc 0.5 ± 0.71 (n=2) with x=0.3")
    lu.assertStrContains(out, "best\t0.3")
    local _, n = out:gsub("best\t", "")
    lu.assertEquals(n, 1) -- only the command prints, not its workers
    lu.assertTrue(#cjson.decode((ok "query --json 'SELECT DISTINCT worker FROM trial'")) > 1)
    lu.assertEquals(ok "sweep grid.lua +sleep=0.05 --quiet", out:match("grid: .*")) -- done: nothing is run again
    lu.assertStrContains(ok "sweep ls", "grid")
    lu.assertStrContains(ok "sweep show grid", "x=0.3")
    lu.assertStrContains(ok "query 'SELECT x, avg(y) FROM sweep_point GROUP BY x'", "0.3")
end

function TestSweepCommands.test_a_script_is_searched_by_the_command_line()
    local out = ok "sweep plain.lua -m toy.x=0,0.3,1 toy.c=a,b seed=0..1 toy.steps=3 --metric val/acc --workers 2 -q"
    lu.assertStrContains(out, "plain: 12 done of 12 trials; best val/acc 0.5 ± 0.71 (n=2) with toy.c=a toy.x=0.3")
    ok "sweep plain.lua -m 'toy.x=uniform(0,1)' --sampler tpe --trials 14 --name t --seed 4 -q"
    ok "sweep plain.lua -m 'toy.x=uniform(0,1)' --sampler tpe --trials 16 --name t --seed 4 -q"
    lu.assertEquals(states "t", { done = 16 })
    for words, text in pairs {
        ["sweep plain.lua -m toy.y=1,2"] = "did you mean toy.c", ["sweep plain.lua -m toy.x=1"] = "several values",
        ["sweep plain.lua -m 'toy.x=uniform(0,1)'"] = "no end of values",
        ["sweep plain.lua -m toy.x=1,2 --sampler spe"] = "did you mean tpe",
        ["sweep grid.lua -m steps=1,2"] = "this one searches by itself ('grid')",
        ["sweep plain.lua toy.x=1,2"] = "mimic sweep FILE.lua -m toy.x=1,2",
        ["sweep grid.lua --trials 3"] = "goes with -m", ["sweep nosuch.lua"] = "no script",
        ["sweep lss"] = "did you mean ls",
        ["sweep show plan"] = "did you mean plain", ["worker --sweep gird"] = "no sweep",
        ["sweep grid.lua -- x"] = "--slurm",
        ["sweep plain.lua -m toy.x=a,b"] = "-m toy.x=a: ", ["sweep grid.lua --gpus 0,0"] = "0 is there twice",
        ["sweep grid.lua --gpus x,?"] = "numbers such as", ["sweep grid.lua --workers 0"] = "1 or more",
    } do
        local code, _, err = run(words)
        lu.assertEquals(code, 2, words .. ": " .. err)
        lu.assertStrContains(err, text)
    end
end

function TestSweepCommands.test_workers_run_the_stored_text()
    ok "sweep grid.lua --enqueue"
    lu.assertEquals(states "grid", { waiting = 12 })
    shell.write(dir .. "/grid.lua", "error 'changed'")
    os.remove(dir .. "/help_module.lua")
    ok "worker --quiet"
    lu.assertEquals(states "grid", { done = 12 })
    lu.assertStrContains(select(2, ok "worker"), "no sweep is open")
    lu.assertStrContains(ok "show 1 --script", "help_module")
end

function TestSweepCommands.test_each_gpu_gets_a_worker()
    ok "sweep grid.lua +sleep=0.1 --enqueue"
    ok "worker --gpus 0,3"
    local seen = {}
    local file <close> = m.db.open(dir .. "/results/mimic.db", { write = false })
    for r in file:each "SELECT DISTINCT b.data AS gpu FROM artifact a JOIN blob b USING(sha256) WHERE a.name = 'gpu'" do
        seen[r.gpu] = true
    end
    lu.assertEquals(seen, { ["0"] = true, ["3"] = true })
    lu.assertEquals(states "grid", { done = 12 })
end

function TestSweepCommands.test_ctrl_c_gives_trials_back_and_the_same_command_goes_on()
    local words = "sweep grid.lua +sleep=0.1 steps=10 --workers 2 --quiet"
    local code, _, err = shell.interrupt(dir, words, function()
        local file <close> = m.db.open(dir .. "/results/mimic.db", { write = false })
        return file:first [[SELECT 1 AS x FROM trial t JOIN series s ON s.run = t.run
            WHERE t.state = 'running' AND s.n > 0]]
    end)
    lu.assertEquals(code, 75, err)
    lu.assertStrContains(err, "saved at step")
    local n = states "grid"
    lu.assertEquals(n.running, nil)
    lu.assertTrue(n.waiting > 0 and (n.waiting + (n.done or 0)) == 12)
    for _, t in ipairs(trials "grid") do lu.assertTrue(t.attempt <= 1) end
    ok(words)
    lu.assertEquals(states "grid", { done = 12 })
end

function TestSweepCommands.test_ctrl_c_while_the_last_records_are_written()
    local code, _, err = run([[-e 'local m = require "mimic"
        require "mimic.experiment".close = function() error "interrupted" end
        m.interrupted = function() return 2 end
        os.exit(require "mimic.cli".main { "help" })']])
    lu.assertEquals(code, 130)
    lu.assertEquals(err, "mimic: stopped\n")
end

function TestSweepCommands.test_failures_stop_and_are_retried()
    shell.write(dir .. "/plain.lua", (plain:gsub("c.fail and c.x == c.fail", "c.x > 2 and io.open('broken')")))
    shell.write(dir .. "/broken", "")
    local words = "sweep plain.lua -m toy.x=0,3,4,5 seed=0,1 --quiet"
    local code, _, err = run(words .. " --fail-fast")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "told to fail")
    lu.assertEquals(states "plain", { done = 2, failed = 1, waiting = 5 })
    lu.assertStrContains(err, "sweep plain is paused")
    lu.assertEquals((run(words .. " --max-failures 3 --workers 2")), 1)
    lu.assertTrue(states("plain").failed >= 3)
    lu.assertEquals((run(words)), 1)
    lu.assertEquals(states "plain", { done = 2, failed = 6 })
    os.remove(dir .. "/broken")
    lu.assertEquals((run(words)), 1) -- failed stays failed
    lu.assertStrContains(ok "sweep resume plain --failed", "6 trials are tried again")
    ok "worker --sweep plain -q"
    lu.assertEquals(states "plain", { done = 8 })
end

-- Options before the command hold, also where words behind -- go to sbatch.
function TestSweepCommands.test_global_options_before_a_slurm_sweep()
    assert(require "lfs".mkdir(dir .. "/bin"))
    shell.write(dir .. "/bin/sbatch", "#!/bin/sh\necho \"$@\" >../words.txt\necho 7\n")
    os.execute(("chmod +x '%s/bin/sbatch'"):format(dir))
    local code, out, err = shell.run(dir, "-C bin --db ../other/o.db sweep ../plain.lua -m toy.x=0,1 --slurm -- -p gpu",
        "PATH='" .. dir .. "/bin':$PATH")
    lu.assertEquals(code, 0, err)
    lu.assertStrContains(out, "job 7 with 2 trials; when it is done: " .. shell.mimic
        .. " -C bin --db ../other/o.db merge ")
    lu.assertStrContains(shell.read(dir .. "/words.txt"), "--array=0-1 -p gpu /")
    lu.assertStrContains(ok "--db other/o.db sweep ls", "plain")
    lu.assertEquals((run "ls"), 3) -- nothing at the usual place
end

-- What is done stays done: verbs and --slurm say so.
function TestSweepCommands.test_a_sweep_that_is_done_stays_so()
    ok "sweep grid.lua -q"
    for _, verb in ipairs { "pause", "cancel", "resume", "resume --failed", "resume --lost" } do
        refused("sweep " .. verb:gsub("^%a+", "%0 grid"), "is done: there is nothing to " .. verb:match "%a+")
    end
    local code, _, err = run "sweep grid.lua --slurm"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "sweep grid has no trial that waits; `")
    lu.assertStrContains(ok "sweep ls --csv", ",grid,done,")
    -- By another metric than the one that was searched for.
    lu.assertStrContains(ok "table grid --metric acc", "Sweep grid: acc (highest is best)")
    refused("table grid --metric ac", "no run of sweep grid has a result 'ac' (did you mean acc?)")
end

-- Waits until a worker has the given trial and its run has begun.
local function begun(number)
    for _ = 1, 200 do
        local file <close> = m.db.open(dir .. "/results/mimic.db", { write = false })
        if file:first([[SELECT 1 AS x FROM trial t JOIN run r ON r.id = t.run
          WHERE t.state = 'running' AND t.number = ? AND r.state = 'running']], number) then return end
        m.sys.sleep(0.05)
    end
    error("no worker took trial " .. number)
end

function TestSweepCommands.test_pause_and_cancel_reach_running_workers()
    ok "sweep plain.lua -m toy.x=0,1,2,3,4,5 toy.sleep=0.5 toy.steps=4 --name slow --enqueue"
    local mimic = { shell.mimic, "worker", "--quiet", "--db", dir .. "/results/mimic.db" }
    local pid = m.sys.spawn(mimic, { "MIMIC_LEASE_MS=400" })
    begun(1)
    ok "sweep pause slow"
    lu.assertEquals(m.sys.wait(pid, true), 0)
    local n = states "slow"
    lu.assertEquals({ n.done, n.waiting }, { 1, 5 })
    ok "sweep resume slow"
    pid = m.sys.spawn(mimic)
    begun(2)
    lu.assertStrContains(ok "sweep cancel slow", "sweep resume ")
    m.sys.wait(pid, true)
    lu.assertEquals(states "slow", { done = 1, cancelled = 5 })
    local stopped = cjson.decode((ok "ls --json --sort id"))[2] -- saved at its next step
    lu.assertEquals(stopped.state, "cancelled")
    lu.assertTrue(stopped.step >= 1 and stopped.step < 4, stopped.step)
    lu.assertStrContains(select(2, ok "worker --sweep slow"), "is cancelled; `")
    ok "sweep resume slow"
    ok "worker -q"
    lu.assertEquals(states "slow", { done = 6 })
    lu.assertStrContains(ok "show 2", "attempt 2") -- and went on from there
    lu.assertEquals(#cjson.decode((ok "ls --json")), 6)
    lu.assertStrContains(select(2, ok "worker --sweep slow"), "is done; `")
end

-- A row whose runs failed is a row of the table that says so.
function TestSweepCommands.test_failed_rows_stand_in_tables()
    shell.write(dir .. "/rows.lua", (task:gsub("c.x == c.fail", "c.x >= c.fail + run.seed")) .. [[
m.experiment "toys":ablation { ref = "parts", kind = "toy", base = m.config { fail = 1 }, seeds = { 0, 1 },
    rows = { { "full", { x = 0.3 } }, { "all fail", { x = 2 } }, { "one fails", { x = 1 } } } }
]])
    lu.assertEquals((run "sweep rows.lua -q"), 1)
    for _, name in ipairs { "parts", "toys" } do
        local out = ok("table " .. name)
        lu.assertStrMatches(out, ".*\nall fail +toyset[test ]* +failed %(2%)\n.*")
        lu.assertStrMatches(out, ".*\none fails +toyset[test ]* +%-0%.49 +1 +1.*")
    end
    lu.assertStrMatches(ok "table parts --latex", ".*all fail & failed %(2%) .*one fails & %-0%.49 %(1, 1 failed%).*")
    lu.assertStrContains(ok "table parts --json", '"failed":2')
    lu.assertStrContains(ok("table " .. json "sweep ls --json"[1].uid), "failed (2)") -- as a sweep
end

-- The command that a message gives does go on: with the results file, the folder and the device that were given.
function TestSweepCommands.test_words_that_are_refused()
    ok "sweep grid.lua"
    for words, text in pairs {
        ["sweep grid.lua --max-failures 0"] = "--max-failures 0: 1 or more",
        ["sweep grid.lua --gpus ''"] = "--gpus names none",
        ["sweep grid.lua --enqueue --workers 2"] = "--enqueue and --workers do not go together",
        ["sweep grid.lua --slurm --enqueue"] = "--slurm and --enqueue do not go together",
        ["sweep ls grid"] = "mimic sweep ls takes no 'grid'",
        ["sweep show grid more"] = "mimic sweep show takes no 'more'",
        ["sweep plain.lua -m toy.x=1,1"] = "1,1: choice names 1 twice",
    } do
        refused(words, text)
    end
    lu.assertEquals(json "sweep ls --json"[1].state, "done")
end

-- A trial that fails after its run was done is one that failed, and not one of each.
function TestSweepCommands.test_failed_trials_count_once()
    shell.write(dir .. "/late.lua", (declared:gsub('metric = "val/acc"', 'metric = "toyset/test/ac"'):gsub(
        "m.range%b()", "{ 0, 1 }"):gsub("seeds = { 0, 1 }", "seeds = { 0 }")))
    local code, _, err = run "sweep late.lua -q"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "mimic: 2 of 2 runs failed:")
end

function TestSweepCommands.test_names_of_failed_runs_are_escaped()
    shell.write(dir .. "/esc.lua", task .. [[
m.experiment "e":run { kind = "toy", name = "\27[31m", config = m.config { fail = 0.0 } }]])
    local code, _, err = run "run esc.lua -q"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "1 of 1 runs failed:\n  \\x1b[31m seed 0")
    lu.assertNil(err:find("\27", 1, true))
end

function TestSweepCommands.test_a_pruner_that_lets_no_trial_through_is_named()
    shell.write(dir .. "/asha.lua", task .. [[
m.experiment "a":sweep { name = "a", kind = "toy", base = m.config {}, metric = "val/acc", space = { x = { 0, 1 } },
    pruner = m.asha { min = 1, max = 5, eta = 2 } }]])
    local _, _, err = run "sweep asha.lua --dry-run"
    lu.assertStrContains(err, "sweep a: of 2 trials the pruner lets none run to its end at epoch 5, which takes 8;")
end

function TestSweepCommands.test_commands_that_continue()
    local lib = dir .. "/t"
    assert(require "lfs".mkdir(lib))
    for _, name in ipairs { "grid.lua", "help_module.lua" } do
        shell.write(lib .. "/" .. name, shell.read(dir .. "/" .. name))
    end
    local words = "-C t sweep grid.lua --db 'o p.db' --device cpu +fail=0.3 '+c=a b' -q"
    local function given(text) return text:match("continue with\n  ([^\n]*)") end
    for _, more in ipairs { "", " --workers 2" } do
        shell.remove(lib .. "/o p.db")
        local code, _, err = run(words .. more)
        lu.assertEquals(code, 1)
        lu.assertEquals(given(err), shell.mimic .. " " .. words .. more .. " --lf")
    end
    local again = given(select(3, run(words .. " --lf")))
    lu.assertEquals(again, shell.mimic .. " " .. words .. " --lf")
    lu.assertEquals(given(select(3, run("-C t run grid.lua --db r.db +fail=0.3"))),
        shell.mimic .. " -C t sweep grid.lua --db r.db +fail=0.3 --lf")
    ok "-C t sweep grid.lua --db w.db +fail=0.3 --enqueue --device cpu"
    local _, _, err = run "-C t --db w.db worker -q"
    lu.assertStrMatches(given(err),
        ".*/mimic %-C t %-%-db /.*/t/w.db sweep resume %x+ %-%-failed && .* worker %-%-sweep %x+")
    lu.assertStrContains(ok "-C t --db w.db show 1", "--db w.db sweep grid.lua +fail=0.3 --device cpu\n")
    ok "sweep plain.lua -m toy.x=0,1 'toy.c=\"it is\"' -q"
    local shown = ok("show 1"):match("  command%s+([^\n]*)")
    lu.assertEquals(shown, shell.mimic .. [[ run plain.lua 'toy.c="it is"' toy.x=0]])
    local done = select(2, os.execute(("cd '%s' && %s >again.txt"):format(dir, shown)))
    lu.assertEquals(done, "exit")
    lu.assertEquals(#cjson.decode((ok "ls --json")), 4) -- the same runs: found done
end

function TestSweepCommands.test_the_example_experiment()
    local out = ok(("sweep '%s/experiments/sweep_tau_lambda.lua' size=smoke --workers 2 -q"):format(shell.source))
    lu.assertStrContains(out, "tau-lambda: 8 done of 8 trials")
    lu.assertStrMatches(out:match("0.5    0.1[^\n]*"), "0.5    0.1     %d+.%d+ ± %d+.%d+ %(n=2%)")
    lu.assertStrContains(ok "query 'SELECT name, n FROM seed_stat'", "mscl.tau=0.5")
    lu.assertStrContains(shell.read(dir .. "/results/tau_lambda.html"), "<svg")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSweepCommands", TestSweepCommands } })

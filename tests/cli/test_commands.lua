-- The commands: exit codes, help that teaches, output forms, suggestions.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local shell = require "shell"

local dir

-- A script with a task of its own: fast, and fails or stops when told to.
local toy = [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { steps = 4, fail = false, name = "x" }, run = function(run)
    for i = 1, run.config.steps do
        run:log(i, { ["train/loss"] = 1 / i, ["val/acc"] = 10 * i })
        run:progress { phase = "toy", epoch = i, epochs = run.config.steps, loss = 1 / i }
        if run.config.fail and i == 3 then error("told to fail") end
        run:checkpoint(i, { { "x", m.tensor { i + 0.0 } } }, {}, { final = i == run.config.steps })
    end
    run:result("toyset", "test", "acc", 12.5, 8, run.config.steps)
end })
local base = m.config { seeds = { 0 }, toy = { steps = 4 } }
local runs = m.experiment "toys":run {
    kind = "toy", name = base.toy.name or "first", seeds = base.seeds, config = base.toy,
}
print("mean " .. runs:summary("toyset", "test", "acc"))
]]

local TestCommands = {}

function TestCommands.setUp()
    dir = shell.folder()
    shell.write(dir .. "/toy.lua", toy)
end

function TestCommands.tearDown()
    shell.remove(dir)
end

local run, ok, json, refused = shell.commands(function() return dir end)

function TestCommands.test_every_command_has_help_with_an_example()
    local list = ok "":match("Commands:\n(.-)\n\n")
    for name in ("\n" .. list):gmatch("\n  (%l+)") do
        local out = ok(name .. " --help")
        lu.assertStrContains(out, "Usage: mimic " .. name)
        lu.assertStrContains(out, "  mimic " .. name)
        lu.assertEquals(ok("help " .. name), out)
    end
    for _, sub in ipairs { "synth", "check", "info" } do
        lu.assertStrContains(ok("data " .. sub .. " --help"), "Example:")
    end
    lu.assertStrContains(ok "help op layernorm", "eps")
    lu.assertStrContains(ok "--version", "mimic ")
end

function TestCommands.test_usage_errors()
    for words, text in pairs {
        ["rnu"] = "did you mean run?", ["quer"] = "did you mean query?", ["run"] = "missing argument",
        ["--bogus"] = "no option '--bogus'", ["--versoin"] = "did you mean --version?",
        ["--db"] = "needs a file", ["-e"] = "needs Lua code", ["-q"] = "no command",
        ["run nosuch.lua"] = "no script nosuch.lua",
        ["run toy.lua toy.stesp=3"] = "did you mean toy.steps",
        ["run toy.lua seeds=3"] = "seeds is a list of whole numbers, such as [0,1,2], not 3",
        ["run toy.lua steps"] = "key=value",
        ["ls --bogus"] = "unknown option", ["help op layernrom"] = "did you mean layernorm",
        ["bench --only vit-x"] = "did you mean vit-", ["-C nosuch ls"] = "-C nosuch",
    } do
        refused(words, text)
    end
end

function TestCommands.test_database_errors()
    local code, _, err = run "ls"
    lu.assertEquals(code, 3)
    lu.assertStrContains(err, "results/mimic.db")
    shell.write(dir .. "/bad.db", "this is no database at all, but long enough to be looked at")
    lu.assertEquals((run "--db bad.db ls"), 3)
    lu.assertEquals((run "run toy.lua --db bad.db"), 3)
end

function TestCommands.test_output_that_cannot_be_written()
    for _, words in ipairs { "--version", "-e 'print(1)'" } do
        local _, _, code = os.execute(("'%s' %s >/dev/full 2>'%s/err'"):format(shell.mimic, words, dir))
        lu.assertEquals(code, 1)
        local err <close> = assert(io.open(dir .. "/err"))
        lu.assertStrMatches(err:read "a", "mimic: standard output: .*; what was printed is not whole\n")
    end
end

function TestCommands.test_run_prints_golden_lines_and_is_not_repeated()
    local out, err = ok "run toy.lua seeds=[0,1]"
    local golden = "toyset test acc 12.50 (n=8) step 4 sha "
    local _, n = out:gsub(golden:gsub("%p", "%%%0"), "")
    lu.assertEquals(n, 2)
    lu.assertStrContains(out, "mean 12.50 ± 0.00 (n=2)")
    lu.assertNil(err:find("\r", 1, true)) -- no terminal: whole lines, one an epoch
    lu.assertStrContains(err, "mimic  toy 4/4  loss 0.250")
    local again, quiet = ok "run toy.lua seeds=[0,1]"
    lu.assertEquals(again, out)
    lu.assertEquals(quiet, "")
    lu.assertEquals(#json "query --json 'SELECT id FROM run'", 2)
    local _, silent = ok "run toy.lua seeds=[5] --quiet"
    lu.assertEquals(silent, "")
end

function TestCommands.test_dry_run()
    local out = ok "run toy.lua seeds=[0,1] --dry-run"
    lu.assertStrContains(out, "2 runs")
    lu.assertEquals((run "ls"), 3)
end

function TestCommands.test_config_explains_where_values_come_from()
    shell.write(dir .. "/where.lua", [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { steps = 4, size = { w = 1, h = 2 }, name = "x" }, run = print })
local size = {
    w = 5, -- comment: { w = 6
}
local base = m.config {
    seeds = { 0 },
    toy = { steps = 4, size = size },
}
local other = base.toy:with {
    name = "second",
    size = { h = 7 } }
m.experiment "toys":run { kind = "toy", name = "one", config = other }
]])
    local out = ok "config where.lua toy.steps=9 --explain"
    for _, line in ipairs { "toy.size.w = 5    # where.lua:4", "seeds      = [0]  # where.lua:7",
        "toy.steps  = 9    # override toy.steps=9" } do
        lu.assertStrContains(out, line)
    end
    local whole = ok "config where.lua toy.steps=9 --run one --explain"
    for key, place in pairs { name = "where.lua:11", ["size.h"] = "where.lua:12", ["size.w"] = "where.lua:4",
        steps = "override toy.steps=9", seed = "default of toy" } do
        lu.assertStrContains(whole:match("\n" .. key:gsub("%.", "%%.") .. "%s+=[^\n]*"), "# " .. place)
    end
    lu.assertNotStrContains(ok "config where.lua", "where.lua:")
    lu.assertStrContains(select(3, run "config where.lua --run on"), "did you mean one")
    lu.assertEquals((run "ls"), 3) -- nothing was run
end

function TestCommands.test_a_failed_run_is_summed_up_and_shown()
    local code, _, err = run "run toy.lua toy.fail=true"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "first seed 0 failed: toy.lua:6: told to fail\n  called from toy.lua:12")
    lu.assertNotStrContains(err, "traceback") -- that is in the database
    lu.assertStrContains(err, "saved at step 2; continue with")
    lu.assertStrContains(err, "mimic run toy.lua toy.fail=true")
    lu.assertStrContains(err, "1 of 1 runs failed")
    lu.assertStrContains(ok "show 1", "toy.lua:6: told to fail\n    stack traceback:")
    lu.assertStrContains(ok "ls --state failed", "failed")
    shell.write(dir .. "/plain.lua", (toy:gsub("fail = false", "fail = true")))
    lu.assertEquals((run "plain.lua"), 1)
    lu.assertEquals((run "toy.lua"), 0)
    lu.assertEquals((run "resume 1"), 1) -- fails again at the same place
    lu.assertStrContains(ok "show 1", "attempt 2")
end

function TestCommands.test_lists_and_curves()
    ok "run toy.lua"
    ok "run toy.lua toy.steps=6 toy.name=second"
    local rows = json("ls --json --sort steps")
    lu.assertEquals(#rows, 2)
    lu.assertEquals(rows[1].name, "first")
    lu.assertEquals(rows[2].value, 12.5)
    lu.assertEquals(#json([[ls --json --where "steps > 4 AND state = 'done'"]]), 1)
    lu.assertStrContains(select(3, run "ls --sort stpes"), "did you mean step")
    lu.assertStrContains(ok "ls --csv", "id,name,kind")
    lu.assertStrContains(ok "ls --box", "│")
    lu.assertStrContains(ok "ls --md", "| ---")
    lu.assertStrContains(ok "show second", "experiment toys")
    lu.assertStrContains(ok "show 1 --script", "told to fail")
    lu.assertStrContains(ok "log 1", "train/loss")
    lu.assertStrContains(ok "log 1 train/loss --csv", "train/loss,3,0.3333333333333333")
    local plot = ok "log 1 train/loss --plot"
    lu.assertStrContains(plot, "┤")
    lu.assertStrContains(plot, "train/loss 0.25")
    lu.assertStrContains(select(3, run "log 1 train/los"), "did you mean train/loss")
end

function TestCommands.test_values_without_effect_are_said()
    shell.write(dir .. "/own.lua", toy:match "^(.-)local base" .. [[
local base = m.config { size = m.one_of { "small", "smoke" }, unused = 1, toy = { steps = 2 } }
print(m.experiment "own":run { kind = "toy", name = "one", config = base.toy:with { steps = 4 } }:summary("toyset",
    "test", "acc"), base.size)
]])
    local out, err = ok "run own.lua -q"
    lu.assertEquals({ out:match "([%d.]+\tsmall)\n$", err }, { "12.50\tsmall", "" })
    err = select(2, ok "run own.lua unused=2 toy.steps=3 size=smoke -q")
    lu.assertStrMatches(err, "mimic: toy%.steps=3 does not hold where the script sets steps = 4 over it "
        .. "%(own.lua:%d+%)\nmimic: unused=2 had no effect: nothing in the script has looked at it\n")
    for words, text in pairs { ["size=smok"] = "did you mean smoke", ["seeds=[7]"] = "unknown key 'seeds'" } do
        refused("run own.lua " .. words, text)
    end
    refused("sweep own.lua -m toy.steps=3,4", "-m toy.steps: it has no effect")
end

function TestCommands.test_query_forms()
    ok "run toy.lua"
    lu.assertEquals(ok "query --csv 'SELECT 1 AS a, NULL AS b, 0.1 AS c'", "a,b,c\n1,,0.1\n")
    lu.assertEquals(json("query --json 'SELECT 1 AS a, 0.1 AS c'"), { { a = 1, c = 0.1 } })
    lu.assertStrContains(ok "query 'SELECT name, n FROM seed_stat'", "first")
    lu.assertStrContains(ok "query --schema", "CREATE TABLE run")
    local code, _, err = run "query 'DELETE FROM run'"
    lu.assertEquals(code, 2)
    lu.assertNotEquals(err, "")
    lu.assertEquals(#json "query --json 'SELECT id FROM run'", 1)
    lu.assertEquals((run "query 'SELEC 1'"), 2)
    local two, out, why = run "query 'SELECT 1; SELECT 2'"
    lu.assertEquals({ two, out }, { 2, "" })
    lu.assertStrContains(why, "rows come from one statement, and here a second one begins: SELECT 2")
    lu.assertStrContains(ok "query 'SELECT 1 AS one; -- and no more'", "one")
end

function TestCommands.test_report()
    ok "run toy.lua seeds=[0,1,2]"
    lu.assertStrContains(ok "report -o sub/r.html", "sub/r.html")
    local html = shell.read(dir .. "/sub/r.html")
    lu.assertStrContains(html, "12.50 ± 0.00")
    lu.assertStrContains(html, "<svg")
end

function TestCommands.test_resume_uses_the_stored_script()
    shell.write(dir .. "/flag.lua", "return true")
    local script = toy:gsub("run%.config%.fail", "(flag and run.config.fail)")
    script = "local flag = require 'flag'\n" .. script
    shell.write(dir .. "/toy.lua", script)
    lu.assertEquals((run "run toy.lua toy.fail=true"), 1)
    shell.write(dir .. "/toy.lua", "error 'changed'")
    os.remove(dir .. "/flag.lua")
    local code, _, err = run "resume first"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "continuing from step 2")
    lu.assertStrContains(err, "told to fail")
end

-- Without its packs the experiment refuses before its first run, and names the missing file.
function TestCommands.test_ferplus48_without_its_packs()
    local code, _, err = run(("run '%s/experiments/ferplus48.lua' -q data.root=nowhere"):format(shell.source))
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "nowhere/tiny64_train.tar is not there: data.root=DIR names the folder of the packs")
    lu.assertEquals(json "query --json 'SELECT count(*) AS n FROM run'"[1].n, 0)
end

function TestCommands.test_other_folder_and_database()
    ok "-C . run toy.lua --db other/x.db"
    lu.assertStrContains(ok "ls --db other/x.db", "first")
end

function TestCommands.test_data_check_of_damaged_pictures()
    local synth = "data synth s -q --size 32 --general-train 4 --general-val 2 --faces-train 8 --faces-test 4"
    lu.assertStrContains(ok(synth), "wrote 18 pictures")
    lu.assertStrContains(ok(synth), "already")
    local out = ok "data check s"
    local _, lines = out:gsub("[^\n]+%.[jpegJPEG]+ 32 32 [%d.]+ [%d.]+ [%d.]+\n", "")
    lu.assertEquals(lines, 18)
    local first = out:match("^%S+")
    local bytes = shell.read(dir .. "/" .. first)
    shell.write(dir .. "/cut.jpg", bytes:sub(1, #bytes // 3))
    shell.write(dir .. "/empty.jpg", "")
    local code, bad = run(("data check cut.jpg empty.jpg nosuch.jpg %s"):format(first))
    lu.assertEquals(code, 1)
    local _, n = bad:gsub("[^\n]+\n", "")
    lu.assertEquals(n, 4)
    for _, name in ipairs { "cut", "empty", "nosuch" } do lu.assertStrContains(bad, name .. ".jpg: ") end
    os.execute(("cd '%s' && tar -cf pack.tar --format=ustar s/general && cp pack.tar short.tar"):format(dir))
    os.execute(("truncate -s -9000 '%s/short.tar'"):format(dir))
    lu.assertStrContains(ok "data check pack.tar", "pack.tar:s/general/")
    lu.assertEquals((run "data check short.tar"), 1)
    local info = ok "data info s/faces"
    lu.assertStrContains(info, "format rafdb")
    lu.assertStrMatches(info:match("\nall[^\n]*"), "\nall%s+8%s+4")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestCommands", TestCommands } })

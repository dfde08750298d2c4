-- Every command once, as a user types it, with its exit code; the README's table of commands against what the
-- program knows.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local script = [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { steps = 4, tau = 0.1 }, run = function(run)
    for i = 1, run.config.steps do
        run:log(i, { ["train/loss"] = run.config.tau / i, ["val/acc"] = 10 * i })
        run:checkpoint(i, { { "x", m.tensor { i + 0.0 } } }, {}, { final = i == run.config.steps })
    end
    run:result("rafdb", "test", "acc", 88 + 10 * run.config.tau + run.seed / 10, 8, run.config.steps)
end })
local base = m.config { seeds = { 0, 1 }, toy = { steps = 4, tau = 0.1 } }
local exp = m.experiment "toys"
for _, tau in ipairs { 0.1, 0.2 } do
    exp:run { kind = "toy", name = "tau " .. tau, seeds = base.seeds, config = base.toy:with { tau = tau },
        answers = { ref = "table2", row = tau == 0.1 and "MIM, CE" or "MIM, CE + MSCL" } }
end
]]

-- In order: command, exit code, what standard output or error must hold.
local suite = {
    { "ls", 3, "no results database" },
    { "tag 1 good", 3, "no results database" }, -- and none is made
    { "gc", 3, "no results database" },
    { "run toy.lua --dry-run", 0, "4 runs" },
    { "config toy.lua toy.tau=0.3", 0, "tau" },
    { "run toy.lua", 0, "rafdb test acc 89.00 (n=8) step 4 sha " },
    { "run toy.lua nokey=1", 2, "nokey" },
    { "run nosuch.lua", 2, "nosuch.lua" },
    { "resume 1", 0, "is done" },
    { [[ls --where "tau<0.2 AND state='done'" --sort -acc]], 0, "tau 0.1" },
    { "ls --csv", 0, "id,name,kind,seed,state,step,result,value,seconds,started" },
    { "ls --sort nosuch", 2, "no column" },
    { "show 1", 0, "table2: MIM, CE" },
    { "show nosuch", 2, "no run" },
    { "diff 1 3", 0, "tau" },
    { "diff 1", 2, "missing argument" },
    { "log 1", 0, "train/loss" },
    { "log 1 train/loss --csv", 0, "train/loss,1,0.1" },
    { "log 1 val/acc --plot", 0, "val/acc 40" },
    { "top --count 1", 0, "nothing is running" },
    { "query 'SELECT name, mean, sd, n FROM seed_stat'", 0, "tau 0.2" },
    { "query --box 'SELECT * FROM leaderboard'", 0, "┌" },
    { "query --md 'SELECT * FROM run_list'", 0, "| --" },
    { "query --json 'SELECT * FROM curve'", 0, '"name":"train/loss"' },
    { "query --schema", 0, "CREATE VIEW sweep_stat" },
    { "query 'DROP TABLE run'", 2, "reading only" },
    { "table", 0, "table2" },
    { "table table2", 0, "89.05" },
    { "table table2 --latex", 0, "\\toprule" },
    { "table table2 --md", 0, "| MIM, CE |" },
    { "table table2 --csv", 0, "ours,sd,n" },
    { "table table2 --html --ci 99", 0, "99 %" },
    { "table nosuch", 2, "mimic table" },
    { "paper tabel2", 2, "did you mean table2" },
    { "report -o r.html", 0, "wrote r.html" },
    { "report --experiment nosuch", 2, "nosuch" },
    { "tag 1 good", 0, "" },
    { "tag 1", 0, "good" },
    { "note 1 'a remark'", 0, "" },
    { "note 1", 0, "a remark" },
    { "export 1 -o out --weights", 0, "wrote out" },
    { "rm 4", 0, "removed 4" },
    { "undelete 4", 0, "brought back 4" },
    { "rm 4", 0, "" },
    { "gc --dry-run", 0, "would erase run 4" },
    { "gc", 0, "erased run 4" },
    { "doctor --deep", 0, "all is well" },
    { "data info nosuch", 1, "nosuch" },
    { "weights show nosuch.pth", 1, "nosuch.pth" },
    { "devices", 0, "cpu" },
    { "bench --only nosuch", 2, "nosuch" },
    { "help table", 0, "Usage: mimic table" },
    { "help op layernorm", 0, "eps" },
    { "-e 'print(6 * 7)'", 0, "42" },
    { "nosuch", 2, "`mimic help` lists them" },
    { "--version", 0, m.version },
}

local TestSuite = {}

function TestSuite.test_every_command()
    local dir = shell.folder()
    shell.write(dir .. "/toy.lua", script)
    local used = {}
    for _, case in ipairs(suite) do
        local code, out, err = shell.run(dir, case[1])
        lu.assertEquals(code, case[2], case[1] .. "\n" .. out .. err)
        lu.assertStrContains(out .. err, case[3], false, case[1])
        used[case[1]:match("^%S+")] = true
    end
    local _, overview = shell.run(dir, "help")
    for name in ("\n" .. overview:match("Commands:\n(.-)\n\n")):gmatch("\n  (%l+)") do
        if not ({ sweep = 1, worker = 1, merge = 1 })[name] then lu.assertTrue(used[name], "not run here: " .. name) end
    end
    shell.remove(dir)
end

function TestSuite.test_the_readme_lists_the_commands()
    local dir = shell.folder()
    local _, overview = shell.run(dir, "help")
    local known = {}
    for name in ("\n" .. overview:match("Commands:\n(.-)\n\n")):gmatch("\n  (%l+)") do known[#known + 1] = name end
    local readme = shell.read(shell.source .. "/README.md")
    local listed = {}
    for line in readme:match("\n## Commands\n(.-)\n## "):gmatch("[^\n]+") do
        local cell = line:match("^| (.-) |") or ""
        for name in cell:gmatch("`mimic (%l+)") do listed[name] = true end
    end
    for _, name in ipairs(known) do lu.assertTrue(listed[name], "README's table lacks mimic " .. name) end
    for name in pairs(listed) do
        local found = false
        for _, k in ipairs(known) do found = found or k == name end
        lu.assertTrue(found, "README lists mimic " .. name .. ", which is no command")
    end
    for name in pairs(listed) do -- options that the table shows are options of the command
        local _, help = shell.run(dir, name .. " --help")
        for cell in readme:gmatch("`mimic " .. name .. "([^`]*)`") do
            local part = cell:match("^ (%l+)")
            if part then help = help .. select(2, shell.run(dir, name .. " " .. part .. " --help")) end
            for option in cell:gmatch("%-%-[%l-]+") do
                lu.assertStrContains(help, option, false, ("mimic %s %s in the README"):format(name, option))
            end
        end
    end
    shell.remove(dir)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSuite", TestSuite } })

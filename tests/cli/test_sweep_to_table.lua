-- From experiments/sweep_tau_lambda.lua to a LaTeX table and a report, by the commands of the README alone.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lfs = require "lfs"
local lu = require "luaunit"
local shell = require "shell"

local TestSweepToTable = {}

function TestSweepToTable.test_all_the_way()
    local experiment = shell.source .. "/experiments/sweep_tau_lambda.lua"
    if not lfs.attributes(experiment) then lu.skip "there is no experiments/sweep_tau_lambda.lua yet" end
    local dir = shell.folder()
    local function ok(words)
        local code, out, err = shell.run(dir, words)
        lu.assertEquals(code, 0, words .. "\n" .. out .. err)
        return out, err
    end
    ok(("sweep '%s' size=smoke --workers 2 -q"):format(experiment))
    lu.assertStrMatches(ok "table", ".*tau%-lambda%s+sweep%s+8.*")
    local latex = ok "table tau-lambda --latex"
    local rows = latex:match("\\midrule\n(.-)\\bottomrule")
    local _, n = rows:gsub("mscl%.tau=[%d.]+ mscl%.weight=[%d.]+ & [^\n]*%(2%) \\\\\n", "")
    lu.assertEquals(n, 4, latex)
    lu.assertStrContains(ok "ls --sweep tau-lambda --where 'tau < 0.2 AND weight = 1' --json", '"tau":0.07')
    ok "report -o r.html"
    local html = shell.read(dir .. "/r.html")
    for _, text in ipairs { "mscl.tau × mscl.weight", "Best so far", "input, masked input, output", "F1 of each" } do
        lu.assertTrue(html:find(text, 1, true) ~= nil, "the report lacks: " .. text)
    end
    -- The smoke scale of the paper beside it draws pictures of its own.
    local table4 = shell.source .. "/experiments/table4.lua"
    lu.assertStrContains(ok(("run '%s' scale=smoke -q"):format(table4)), "table4")
    shell.remove(dir)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSweepToTable", TestSweepToTable } })

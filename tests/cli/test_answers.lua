-- mimic table on runs filed under the rows of a table: a cell is one configuration, whatever else was filed there;
-- results on validation data alone are shown too.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local cjson = require "cjson"
local lu = require "luaunit"
local shell = require "shell"

local script = [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { x = 0.0, set = "faces", split = "test", metric = "acc" }, run = function(run)
    local c = run.config
    run:result(c.set, c.split, c.metric, c.x + run.seed, 8, 1)
end })
local c = m.config { x = 50.0, ref = "parts", seeds = { 0, 1, 2 }, split = "test", metric = "acc" }
m.experiment "toys":run { kind = "toy", name = "r", seeds = c.seeds, answers = { ref = c.ref, row = "full" },
    config = { x = c.x, split = c.split, metric = c.metric } }
]]

local TestAnswers = {}
local dir
local _, ok, json = shell.commands(function() return dir end)

function TestAnswers.setUp()
    dir = shell.folder()
    shell.write(dir .. "/toy.lua", script)
end

function TestAnswers.tearDown() shell.remove(dir) end

local function cell(words)
    local rows = json("table " .. words .. " --json")
    lu.assertEquals(#rows, 1)
    return { rows[1].ours, rows[1].n }
end

function TestAnswers.test_a_cell_is_one_configuration()
    ok "run toy.lua"
    lu.assertEquals(cell "parts", { 51, 3 })
    ok "run toy.lua x=10 seeds=[0]" -- a quick trial changes nothing
    lu.assertEquals(cell "parts", { 51, 3 })
    local words = "of several configurations filed under 'full' the one with most seeds counts"
    lu.assertStrContains(ok "table parts", words)
    ok "run toy.lua x=20"
    lu.assertEquals(cell "parts", { 21, 3 }) -- of equals the newest
    ok "report -o r.html -q"
    lu.assertStrContains(shell.read(dir .. "/r.html"), words:gsub("'", "&#39;"))
    ok "run toy.lua ref=other x=20 seeds=[0,1]"
    lu.assertNotStrContains(ok "table other", words)
end

function TestAnswers.test_the_paper_beside_it()
    local own = [[INSERT INTO paper(ref, row, col, dataset, split, metric, value)
        VALUES('parts', 'full', 'acc', 'faces', 'test', 'acc', 60)]]
    ok "run toy.lua"
    ok "run toy.lua x=10 seeds=[3]"
    local m = require "mimic"
    local db <close> = m.db.open(dir .. "/results/mimic.db", { write = true })
    db:exec(own)
    lu.assertEquals(json "query --json \"SELECT ours, n, delta FROM paper_vs_ours WHERE ref = 'parts'\"",
        { { ours = 51, n = 3, delta = -9 } })
    lu.assertEquals(cell "parts", { 51, 3 })
end

function TestAnswers.test_results_that_are_no_accuracies_and_no_test_data()
    ok "run toy.lua ref=fig7 split=val metric=knn20"
    local text = ok "table fig7"
    lu.assertStrContains(text, "faces knn20 (val)")
    lu.assertNotStrContains(text, "no run has been filed")
    lu.assertEquals(#json "table fig7 --metric knn20 --json", 1)
    local rows = cjson.encode(json "table fig7 --json")
    lu.assertStrContains(rows, '"split":"val"')
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestAnswers", TestAnswers } })

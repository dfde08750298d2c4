-- The paper at smoke scale, end to end: every script runs, shares its runs with the others, files them
-- under the paper's rows, can be planned without data and resumed from what is stored.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local m = require "mimic"
local lu = require "luaunit"
local shell = require "shell"

local scripts = shell.source .. "/experiments"
local dir = shell.folder()
local refs = { "table1", "table2", "table3", "table4", "table5", "fig5", "fig6", "fig7", "mscl_readings" }

local function ok(words)
    local code, out, err = shell.run(dir, words)
    lu.assertEquals(code, 0, words .. "\n" .. out .. err)
    return out
end

local function sql(text, write)
    local db = m.db.open(dir .. "/results/mimic.db", { write = write or false })
    local rows
    if write then db:exec(text) else rows = db:rows(text) end
    db:close()
    return rows
end

local TestPaper = {}

function TestPaper.test_1_plans_need_no_data()
    for _, ref in ipairs(refs) do
        local out = ok(("run %s/%s.lua --dry-run scale=smoke"):format(scripts, ref))
        lu.assertStrContains(out, "seed 0")
        lu.assertStrMatches(out, ".*\n%d+ runs, [%d.e+]+ FLOP: .* %(measured now%)\n")
    end
    for _, scale in ipairs { "paper", "small" } do
        local out = ok(("paper --scripts %s --scale %s"):format(scripts, scale))
        for _, ref in ipairs(refs) do lu.assertStrContains(out, "(" .. ref .. ")") end
        lu.assertStrContains(out, "To run, each shared run once: ")
        lu.assertStrContains(out, "\nNothing was run, this is a list. To run it: ")
        lu.assertStrContains(out, ("mimic paper --scale %s --run --scripts %s\n"):format(scale, scripts))
    end
    -- The cost of MIMIC on RAF-DB, method.md 4.5: 2.58e17 with the test set's forward passes on top.
    lu.assertStrContains(ok(("run %s/table3.lua --dry-run sets=[rafdb]"):format(scripts)),
        "2.6e+17 FLOP  after mae")
    local out = ok(("paper --scripts %s table1 --csv"):format(scripts))
    lu.assertStrContains(out, "MIMIC ViT-L/16,ferplus,acc,91.14,,")
    lu.assertStrContains(out, "APVIT,affectnet,acc,63.92,,")
    -- Figure 6 with other values of one axis and without the rest.
    local axes = ("run %s/fig6.lua --dry-run scale=smoke grid.d=[] grid.B=[] grid.alpha=[] "):format(scripts)
    local code, planned, said = shell.run(dir, axes .. "grid.tau=[0.2,0.3]")
    lu.assertEquals({ code, said }, { 0, "" }) -- [] has its effect
    lu.assertStrContains(planned, "\n3 runs, ")
    local _, _, err = shell.run(dir, axes .. "grid.tau=0.2")
    lu.assertStrContains(err, "grid.tau takes a list: grid.tau=[0.2]")
    lu.assertNil(io.open(dir .. "/results/mimic.db"))
end

function TestPaper.test_2_everything_runs()
    local out = ok(("paper --quiet --scale smoke --run --scripts %s"):format(scripts))
    lu.assertStrContains(out, "Everything is run.")
    lu.assertStrMatches(out, ".*\nMIM, CE %+ MSCL +faces +acc +%(89.02%) +[%d.]+ %(n=1%)\n.*")
    lu.assertEquals(sql "SELECT count(*) AS n FROM run WHERE state <> 'done'"[1].n, 0)
    -- One MAE, one run of the default fine-tuning for all nine.
    lu.assertEquals(sql "SELECT count(*) AS n FROM run WHERE name = 'mae'"[1].n, 1)
    lu.assertEquals(sql [[SELECT count(DISTINCT ref) AS n FROM paper_run p JOIN run r ON r.id = p.run
        WHERE r.name = 'faces mimic, mae']][1].n, 8)
    lu.assertEquals(sql "SELECT count(DISTINCT ref) AS n FROM paper_run"[1].n, #refs)
    -- Figure 7 has four maps, a point for each test picture.
    local maps = sql [[SELECT b.data FROM artifact a JOIN blob b ON b.sha256 = a.sha256 WHERE a.kind = 'tsne']]
    lu.assertEquals(#maps, 4)
    local map = require("cjson").decode(maps[1].data)
    lu.assertEquals({ #map.x, #map.y, #map.label, #map.classes }, { 14, 14, 14, 7 })
    -- What results/paper_small.csv is made with: every seed of every row that was filed with an accuracy.
    local csv = ok(("query --csv - < '%s/results/paper_small.sql'"):format(shell.source))
    lu.assertEquals(csv:match "^[^\n]*", "ref,row,data,seed,acc,acc_last")
    local _, lines = csv:gsub("\n", "")
    lu.assertEquals(lines - 1, sql [[SELECT count(*) AS n FROM paper_run p JOIN run r ON r.id = p.run
        WHERE r.kind = 'finetune']][1].n)
    -- Again: nothing is left to do, and the numbers are there.
    local before = sql "SELECT count(*) AS n FROM run"[1].n
    ok(("run %s/table2.lua scale=smoke --quiet"):format(scripts))
    lu.assertEquals(sql "SELECT count(*) AS n FROM run"[1].n, before)
end

function TestPaper.test_3_stored_runs_resume()
    for _, name in ipairs { "faces mimic, mae", "features of faces mimic, mae" } do
        local id = sql(("SELECT id FROM run WHERE name = '%s'"):format(name))[1].id
        local results = ("SELECT metric, value FROM result WHERE run = %d ORDER BY 1"):format(id)
        local before = sql(results)
        sql(("UPDATE run SET state = 'interrupted' WHERE id = %d"):format(id), true)
        sql(("DELETE FROM result WHERE run = %d"):format(id), true)
        sql(("UPDATE checkpoint SET deleted = 1 WHERE run = %d"):format(id), true)
        ok("resume " .. id .. " --quiet")
        lu.assertEquals(sql(("SELECT state FROM run WHERE id = %d"):format(id))[1].state, "done")
        lu.assertEquals(sql(results), before)
    end
end

function TestPaper.test_4_mistakes_are_explained()
    local function fails(words, text)
        local code, _, err = shell.run(dir, words)
        lu.assertTrue(code ~= 0, words)
        lu.assertStrContains(err, text)
    end
    fails("paper tabel2 --scripts " .. scripts, "did you mean table2")
    fails("paper --scripts nowhere", "nowhere/table1.lua")
    fails(("run %s/table2.lua"):format(scripts), "data.root=DIR")
    -- Every pack that a script reads is looked for before anything is trained, and no other.
    local function missing(words)
        local code, _, err = shell.run(dir, ("run %s/%s scale=small data.root=packs"):format(scripts, words))
        lu.assertEquals(code, 1, words .. err)
        local names = {}
        for name in err:gmatch "packs/([%w_]+)%.tar is not there" do names[#names + 1] = name end
        return table.concat(names, " ")
    end
    lu.assertEquals(missing "table2.lua",
        "tiny64_train ferplus48_train ferplus48_test lfwemo100_train lfwemo100_test")
    lu.assertEquals(missing "table5.lua sets=[ferplus48]", "tiny64_train lfw64_rest ferplus48_train ferplus48_test")
    lu.assertEquals(missing "fig7.lua", "tiny64_train ferplus48_train ferplus48_test ferplus48_valid")
    -- Folders are looked for by split: a supervised pre-training is evaluated on imagenet/val.
    os.execute(("mkdir -p '%s/sets' && cp -r '%s/data/smoke/general' '%s/sets/imagenet'"):format(dir, dir, dir))
    local function lacks() return select(3, shell.run(dir, ("run %s/table2.lua data.root=sets"):format(scripts))) end
    lu.assertNotStrContains(lacks(), "imagenet")
    os.execute(("rm -r '%s/sets/imagenet/val'"):format(dir))
    lu.assertStrContains(lacks(), "general: sets/imagenet/val is not there\n")
    fails(("run %s/table4.lua scale=smoke finetune.init_from=x.pth"):format(scripts), "table4 pre-trains what it")
    fails(("run %s/table4.lua scale=smoke finetune.mix.mode=pair finetune.mix.partner=randperm"):format(scripts),
        "mix.mode = pair needs mix.partner = flip")
    local count = "SELECT count(*) AS n FROM run"
    local before = sql(count)[1].n
    shell.write(dir .. "/undeclared.lua", [[
        local t = require "mimic".paper "table9"
        t:pretrain("mae", { data = "celebrities" })]])
    fails("run undeclared.lua scale=smoke", 'undeclared.lua:2: m.paper "table9" reads celebrities: say so')
    lu.assertEquals(sql(count)[1].n, before)
    fails(("run %s/fig7.lua scale=smoke seeds=[7] pretrain.model.preset=base"):format(scripts),
        "or false, got 'base'\n") -- false is a value, not a misspelt word
    fails(("run %s/table2.lua scale=smal"):format(scripts), "did you mean small")
    fails(("run %s/table2.lua scale=smoke sets=[ferplus]"):format(scripts), "none of them belongs")
end

local code = lu.LuaUnit.new():runSuiteByInstances { { "TestPaper", TestPaper } }
shell.remove(dir)
os.exit(code)

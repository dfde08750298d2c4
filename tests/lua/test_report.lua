-- The report: every part is there, every picture has a text, the markup is whole, nothing is loaded from elsewhere;
-- its work stays bounded with hundreds of runs.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/../cli/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local experiment = require "mimic.experiment"
local report = require "mimic.report"
local sweeps = require "mimic.report.sweeps"
local synthetic = require "synthetic"

local dir

local function fill(o)
    experiment.options.db = dir .. "/r.db"
    local db = m.db.open(dir .. "/r.db", { write = true })
    synthetic.fill(db, o)
    db:exec([[INSERT INTO run(uid, experiment, kind, name, config_hash, seed, state, created, error, note)
      VALUES('f', 1, 'finetune', 'broken', x'00', 0, 'failed', 1, 'it <broke>', '')]])
    db:exec "INSERT INTO tag VALUES(1, 'best', 'yes')"
    db:close()
end

local function written(spec)
    spec = spec or {}
    spec.out = dir .. "/r.html"
    report.write(spec)
    return assert(m.sys.read_file(dir .. "/r.html"))
end

-- luaunit's own comparison of texts takes minutes to report a page that lacks something.
local function has(html, text)
    lu.assertTrue(html:find(text, 1, true) ~= nil, "the page lacks: " .. text)
end

local TestReport = {}

function TestReport.setUp()
    dir = os.tmpname()
    os.remove(dir)
    m.sys.mkdirs(dir)
end

function TestReport.tearDown()
    experiment.close()
    os.execute("rm -rf " .. dir)
end

local void = { meta = true, img = true, br = true, ["!DOCTYPE"] = true }

-- Every element is closed in order, and nothing but style text holds a bare <.
local function assert_whole(html)
    local stack = {}
    local body = html:gsub("<style>.-</style>", "")
    for close, name, rest in body:gmatch("<(/?)([%a!][%w]*)([^<>]*)>") do
        if close == "/" then
            lu.assertEquals(name, table.remove(stack), "closing tag")
        elseif not void[name] and not rest:match("/$") then
            stack[#stack + 1] = name
        end
    end
    lu.assertEquals(stack, {})
    lu.assertEquals(select(2, body:gsub("<", "")), select(2, body:gsub("<[/%a!][^<>]*>", "")))
end

local function assert_described(html)
    for tag in html:gmatch("<img[^>]*>") do lu.assertStrMatches(tag, '.* alt="[^"]+".*') end
    for tag in html:gmatch("<svg[^>]*>") do
        lu.assertTrue(tag:find('role="img" aria%-label="[^"]+"') ~= nil or tag:find 'aria%-hidden="true"' ~= nil, tag)
    end
end

-- What a pruner paused is counted, without alarm; what failed is red.
function TestReport.test_paused_runs_are_no_trouble()
    fill { configurations = 2, seeds = 1, metrics = 1, steps = 2 }
    local db = m.db.open(dir .. "/r.db", { write = true })
    db:exec "UPDATE run SET state = 'pruned', error = 'paused at epoch 1' WHERE id = 1"
    db:exec "UPDATE run SET state = 'pruned' WHERE name = 'broken'"
    db:close()
    local html = written()
    has(html, '<p class="note">2 runs were paused by a pruner and in no figure below.</p>')
    lu.assertNil(html:find('<p class="bad">', 1, true))
    lu.assertNil(html:find("not complete", 1, true))
    experiment.close()
    db = m.db.open(dir .. "/r.db", { write = true })
    db:exec "UPDATE run SET state = 'failed' WHERE name = 'broken'"
    db:close()
    html = written()
    has(html, '<p class="bad"><strong>1 run is not complete')
    has(html, '<p class="note">1 run was paused by a pruner')
end

function TestReport.test_all_parts()
    fill { configurations = 6, seeds = 3, metrics = 4, steps = 30, sweep = true, paper = true, pictures = true }
    local html = written()
    for _, text in ipairs {
        "18 done, 1 failed", "it &lt;broke&gt;", "made up, 2 cores", "90.45 ± 0.15 [90.30, 90.60]", -- header, results
        "Table II", "87.33 i", "+1.66", "88.83 to 89.14", "\\toprule", "row,on,dataset", -- the paper's table
        'class="band', "Line: mean over seeds; band: lowest to highest.", -- curves
        "mscl.tau × mscl.weight", "Heat map of test/acc", "Parallel coordinates", "Importance", "Best so far",
        "A dot for each trial", -- sweep
        "each row: input, masked input, output", "step 10", "step 30", "t-SNE map of 100 features",
        "F1 of each class", "Worst confusions", "images per second", "made up", -- pictures, classes, speed
        "configuration ", "SQL behind this", "best=yes", "@media print", "prefers-color-scheme", -- provenance, style
    } do has(html, text) end
    assert_whole(html)
    assert_described(html)
    lu.assertNil(html:match('src="[^d]') or html:match('href="[^#]') or html:match("url%(") or html:match("<script"))
    lu.assertNil(html:find("http-equiv", 1, true))
    has(written { refresh = 5 }, 'http-equiv="refresh" content="5"')
end

function TestReport.test_a_choice_of_runs_tables_and_sweeps()
    fill { configurations = 3, seeds = 1, metrics = 2, steps = 5, sweep = true, paper = true }
    local html = written { runs = { 1 }, tables = { "table3" }, sweeps = {}, title = "only <one>" }
    has(html, "only &lt;one&gt;")
    has(html, "Table III")
    for _, text in ipairs { "Table II:", "Parallel coordinates", "tau 0.10" } do
        lu.assertNil(html:find(text, 1, true), text)
    end
    has(written { runs = { 1 } }, "tau-lambda") -- the sweep it belongs to
    -- A newer sweep of the same name leaves the table of the older one alone.
    local db = m.db.open(dir .. "/r.db", { write = true })
    db:exec([[INSERT INTO sweep(uid, name, sampler, space, metric, goal, seed, created)
      VALUES('t', 'tau-lambda', 'grid', '{}', 'test/newer', 'max', 0, 1)]])
    db:exec([[INSERT INTO trial(sweep, number, config_hash, seed, params, state, value)
      VALUES(?, 1, ?, 0, '{}', 'done', 1)]], db:last_id(), m.db.hex(m.sha256 "t"))
    db:close()
    html = written {}
    has(html, "Sweep tau-lambda: test/acc (highest is best)")
    has(html, "Sweep tau-lambda: test/newer (highest is best)")
    lu.assertErrorMsgContains("did you mean table2", report.write, { tables = { "tabel2" }, out = dir .. "/x" })
    lu.assertErrorMsgContains("did you mean sweeps", report.write, { sweps = {}, out = dir .. "/x" })
    lu.assertErrorMsgContains("no sweep 'x'", report.write, { sweeps = { "x" }, out = dir .. "/x" })
end

function TestReport.test_hundreds_of_runs_stay_readable()
    fill { configurations = 40, seeds = 1, metrics = 30, steps = 3, sweep = true, paper = true, pictures = true }
    local html = written()
    has(html, "The best 12 of 40 configurations are drawn")
    has(html, "more metrics are in the view leaderboard")
    has(html, "The best 15 of 40 points; all are in the CSV.")
    lu.assertTrue(#html < 1500000)
    assert_whole(html)
end

function TestReport.test_importance()
    local trials = {}
    for i = 1, 64 do
        trials[i] = { params = { a = i % 4, b = i // 4 % 4 }, value = (i % 4) * 10 + (i * 7 % 5) / 10 }
    end
    local function parameter(key, values) return { key = key, values = values, numeric = false } end
    local a = sweeps.importance(trials, parameter("a", { 0, 1, 2, 3 }))
    local b = sweeps.importance(trials, parameter("b", { 0, 1, 2, 3 }))
    lu.assertTrue(a > 0.98 and a <= 1)
    lu.assertTrue(b < 0.02 and b >= 0)
    lu.assertEquals(sweeps.importance({}, parameter("a", { 0, 1 })), 0)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestReport", TestReport } })

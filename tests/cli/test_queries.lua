-- Commands that look at results and look after them: ls, show, diff, log, top, table, tag, note, rm, undelete, gc,
-- export, doctor; hostile names and values in all of them.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local cjson = require "cjson"
local lfs = require "lfs"
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"
local synthetic = require "synthetic"

local dir

local TestQueries = {}

function TestQueries.setUp()
    dir = shell.folder()
    assert(lfs.mkdir(dir .. "/results"))
end

function TestQueries.tearDown()
    shell.remove(dir)
end

local run, ok, json, refused = shell.commands(function() return dir end)

local function write(f)
    local db = m.db.open(dir .. "/results/mimic.db", { write = true })
    local out = f(db)
    db:close()
    return out
end

local function fill(o)
    return write(function(db)
        return synthetic.fill(db, { configurations = o.configurations or 4, seeds = o.seeds or 3,
            metrics = o.metrics or 3, steps = o.steps or 5, sweep = true, paper = true, pictures = o.pictures })
    end)
end

local function ids(words)
    local out = {}
    for i, r in ipairs(json("ls --json " .. words)) do out[i] = math.tointeger(r.id) end
    return out
end

function TestQueries.test_ls_knows_parameters_results_series_and_tags()
    fill { configurations = 3, seeds = 2 }
    lu.assertEquals(ids "", { 6, 5, 4, 3, 2, 1 })
    lu.assertEquals(ids [[--where "tau < 0.12 AND seed = 1" --sort id]], { 2, 4 })
    lu.assertEquals(ids [[--where '"mscl.tau" = 0.1' --sort -seed]], { 4, 3 })
    lu.assertEquals(ids [[--where "name LIKE 'tau 0.10%' AND epochs BETWEEN 1 AND 10" --sort id]], { 3, 4 })
    lu.assertEquals(ids [[--where "\"rafdb test m2\" = 2.03 OR \"val/acc\" IS NULL"]], { 3 })
    local sorted = json "ls --json --sort -acc -n 3"
    lu.assertTrue(sorted[1].acc >= sorted[2].acc and sorted[2].acc >= sorted[3].acc)
    lu.assertEquals(#ids "--sweep tau-lambda", 6)
    lu.assertEquals(#ids "--experiment 'made up' --state done", 6)
    ok "tag 3 best why=looks"
    lu.assertEquals(ids "--tag best", { 3 })
    lu.assertEquals(ids [[--where "tag.why = 'looks'"]], { 3 })
    lu.assertStrContains(ok [[ls --where "tau < 0.1"]], "tau ")
    refused([[ls --where "tua < 0.1"]], "did you mean tau")
    refused("ls --sort acd", "did you mean acc")
    refused("ls --sweep tau-lamda", "did you mean tau-lambda")
    refused("ls --state don", "--state don: there is none (did you mean done?)")
    refused("ls --experiment nosuch", "--experiment nosuch: there is none; there are ")
    refused("ls --tag nosuch", "--tag nosuch: there is none")
    refused("top --count 0", "a whole number from 1 on expected, got '0'")
    refused([[ls --where "tau <"]], [[--where tau <: it is no condition in SQL (near ")": syntax error); for example]])
    write(function(db) db:exec "INSERT INTO param VALUES(1, 'supcon.tau', 0.3, '0.3')" end)
    refused([[ls --where "tau < 1"]], "mscl.tau or supcon.tau")
end

function TestQueries.test_columns_of_one_name_stay_apart()
    fill { configurations = 1, seeds = 1 }
    local sql = [["SELECT 1 AS a, 2 AS a, NULL AS b, 4 AS a_2"]]
    lu.assertEquals(ok("query --csv " .. sql), "a,a,b,a_2\n1,2,,4\n")
    lu.assertEquals(json("query --json " .. sql)[1], { a = 1, a_3 = 2, b = cjson.null, a_2 = 4 })
    lu.assertStrMatches(ok("query " .. sql), "a  a  b  a_2\n1  2%s+4\n")
    lu.assertEquals(json "query --json 'SELECT 1 AS a WHERE 0'", {})
    refused("query ''", "SQL is empty")
end

function TestQueries.test_ctrl_c_ends_a_long_query()
    fill { configurations = 1, seeds = 1 }
    local endless = [[query "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"]]
    local code, _, err = shell.interrupt(dir, endless)
    lu.assertEquals({ code, err }, { 130, "mimic: stopped\n" })
end

function TestQueries.test_table_forms()
    fill {}
    lu.assertStrMatches(ok "table", ".*table2%s+paper%s+12.*")
    local text = ok "table table2"
    for _, s in ipairs { "87.33 i", "88.99", "88.83 to 89.14", "+1.66 !", "base", "0.25" } do
        lu.assertStrContains(text, s)
    end
    local latex = ok "table table2 --latex"
    lu.assertStrContains(latex, "88.99 $\\pm$ 0.15 (3) & $+$1.66 &")
    lu.assertStrContains(latex, "\\textbf{90.45 $\\pm$ 0.15} (3)")
    local columns -- every row of the tabular has as many cells
    for line in latex:match("\\midrule\n(.-)\\bottomrule"):gmatch("[^\n]+") do
        local _, n = line:gsub(" & ", "")
        columns = columns or n
        lu.assertEquals(n, columns, line)
    end
    -- Whatever the font encoding: \textquotedbl would need T1.
    lu.assertEquals(require "mimic.tabulate_text".latex_escape [[a_"b" & \c]],
        [[a\_\char34{}b\char34{} \& \textbackslash{}c]])
    lu.assertStrContains(ok "table table2 --md --ci 90", "90 % interval")
    local rows = json "table table2 --json"
    lu.assertAlmostEquals(rows[1].delta, 88.98769230769 - 87.33, 1e-9)
    lu.assertEquals(rows[1].mark, "inferred")
    lu.assertStrContains(ok "table table2 --csv", '"MIM, CE",RAF-DB,rafdb,test,acc,88.14,inferred,')
    lu.assertStrContains(ok "table table2 --html", '<th scope="row">MIM, CE</th>')
    lu.assertStrMatches(ok "table tau-lambda", ".*\nmscl.tau=0.1 mscl.weight=0.1%s+test/acc%s+90.45 <.*")
    lu.assertStrContains(ok "table 'made up' --metric m2", "tau 0.05 lambda 0.1")
    lu.assertStrContains(ok "table table1", "62.34 q")
    refused("table tabel2", "did you mean table2")
    refused("table table2 --base 'MIM, C'", "did you mean MIM, CE")
    refused("table table2 --ci 100", "between 0 and 100")
end

function TestQueries.test_diff()
    fill { configurations = 2, seeds = 1 }
    write(function(db)
        db:exec("UPDATE run SET script = ? WHERE id = 2", m.db.hex(db:put_blob "-- changed\n"))
        db:exec [[UPDATE metric SET value = NULL
          WHERE series = (SELECT id FROM series WHERE run = 1 AND name = 'val/acc')]]
        db:exec [[UPDATE metric SET value = NULL WHERE step < 4
          AND series = (SELECT id FROM series WHERE run = 2 AND name = 'val/acc')]]
    end)
    local out = ok "diff 1 2"
    lu.assertStrMatches(out, ".*mscl.tau%s+0.05%s+0.1\n.*")
    lu.assertNil(out:find("epochs", 1, true)) -- the same in both
    lu.assertStrContains(out, "  --- made up")
    lu.assertStrContains(out, "  +-- changed")
    lu.assertStrMatches(out, ".*val/acc%s+4%s+nan%s+1.02%s+5\n.*") -- NaN equals NaN
    lu.assertStrContains(out, "environment: the same")
    local same = ok "diff 1 1"
    lu.assertStrContains(same, "configuration: the same")
    lu.assertStrMatches(same, ".*val/acc%s+equal.*")
end

-- A name made of hexadecimal digits is a name, whatever the random uids of other runs begin with.
function TestQueries.test_a_run_by_a_name_that_begins_a_uid()
    fill { configurations = 1, seeds = 2 }
    write(function(db)
        db:exec "UPDATE run SET uid = 'ce' || substr(uid, 3) WHERE id = 1"
        db:exec "UPDATE run SET uid = 'd0' || substr(uid, 3), name = 'ce' WHERE id = 2"
    end)
    ok "note ce 'of the name'"
    lu.assertEquals(json("query --json 'SELECT id FROM run WHERE length(note) > 0'"), { { id = 2 } })
    ok "note d0 'of the uid'"
    lu.assertStrContains(ok "note 2", "of the uid")
    refused("note '*' x", "no run '*'")
    write(function(db)
        db:exec "UPDATE run SET deleted = 1, uid = '2' || substr(uid, 2) WHERE id = 1"
        db:exec "UPDATE run SET deleted = 1 WHERE id = 2"
    end)
    refused("undelete '*'", "no removed run")
    lu.assertStrContains(ok "undelete 2", "brought back 2") -- the number, though the uid of 1 begins so
end

function TestQueries.test_tags_and_notes()
    fill { configurations = 1, seeds = 1 }
    ok "tag 1 a=1 b"
    ok "tag 1 a=2 --remove b"
    lu.assertEquals(json "tag 1 --json", { { key = "a", value = "2" } })
    ok "note 1 'seen twice'"
    lu.assertEquals(ok "note 1", "seen twice\n")
    local shown = ok "show 1"
    lu.assertStrContains(shown, "a=2")
    lu.assertStrContains(shown, "seen twice")
    lu.assertStrContains(shown, "table2: supervised, CE")
    refused("tag 1 sources=x", "program's own")
    for _, words in ipairs { "tag 1 ''", "tag 1 =x", "tag 1 ' '" } do refused(words, "a tag has a name") end
    refused("tag 1 --remove aa", "did you mean a")
end

function TestQueries.test_remove_undelete_collect()
    fill { configurations = 2, seeds = 2, pictures = true }
    local folder = dir .. "/results/runs/" .. ("%012x"):format(1)
    os.execute("mkdir -p '" .. folder .. "'")
    shell.write(folder .. "/step-5.safetensors", "weights")
    local others = { "notes/mine.txt", "aaaaaaaaaaaa/step-5.safetensors" } -- of nobody, of another results file
    for _, path in ipairs(others) do
        assert(lfs.mkdir(dir .. "/results/runs/" .. path:match "^[^/]+"))
        shell.write(dir .. "/results/runs/" .. path, "mine")
    end
    write(function(db)
        db:exec "UPDATE run SET parent = 1 WHERE id = 2"
        db:exec [[INSERT INTO checkpoint VALUES(1, 5, 'runs/000000000001/step-5.safetensors', zeroblob(32), 7, NULL,
          NULL, 'pin')]]
    end)
    refused("rm 1", "--children removes both")
    lu.assertStrContains(ok "rm 1 --children", "removed 2")
    refused("rm 1", "removed already")
    lu.assertEquals(ids "", { 4, 3 })
    lu.assertEquals(ids "--deleted", { 2, 1 })
    ok "undelete 2" -- and what it starts from
    lu.assertEquals(#ids "", 4)
    ok "rm 1 --children"
    lu.assertStrContains(ok "gc --older 1d", "erased 0 runs")
    write(function(db) db:exec "UPDATE run SET deleted = 1 WHERE id = 1" end) -- long ago, but its child is there
    lu.assertStrContains(ok "gc --older 1d", "erased 0 runs")
    local before = json [[query --json "SELECT count(*) AS n FROM metric"]][1].n
    local plan = ok "gc --dry-run"
    lu.assertStrContains(plan, "would erase run 1 ")
    lu.assertStrContains(plan, "step-5.safetensors")
    lu.assertEquals(#ids "--deleted", 2)
    lu.assertNotNil(lfs.attributes(folder))
    ok "gc"
    lu.assertEquals(#ids "--deleted", 0)
    lu.assertNil(lfs.attributes(folder))
    for _, path in ipairs(others) do lu.assertEquals(shell.read(dir .. "/results/runs/" .. path), "mine") end
    lu.assertEquals(json [[query --json "SELECT count(*) AS n FROM metric"]][1].n, before // 2)
    refused("undelete 1", "no removed run")
    lu.assertStrContains(ok "doctor --deep", "all is well")
    lu.assertStrContains(ok "gc --dry-run", "would erase 0 runs, 0 files (0.0 MiB), 0 contents")
end

function TestQueries.test_doctor_finds_damage()
    fill { configurations = 1, seeds = 1 }
    lu.assertStrContains(ok "doctor", "all is well")
    write(function(db)
        db:exec "INSERT INTO checkpoint VALUES(1, 5, 'runs/x/step-5.safetensors', zeroblob(32), 7, NULL, NULL, 'pin')"
        db:exec "UPDATE series SET hi = 99 WHERE name = 'val/acc'"
    end)
    local code, out = run "doctor"
    lu.assertEquals(code, 3)
    lu.assertStrContains(out, "step-5.safetensors is missing")
    lu.assertStrContains(out, "summary of series val/acc")
    lu.assertStrContains(out, "2 findings")
end

function TestQueries.test_a_damaged_file()
    fill { configurations = 2, seeds = 2 }
    local whole = shell.read(dir .. "/results/mimic.db")
    local cut = whole:sub(1, 8192) .. ("\x7f"):rep(16384) .. whole:sub(8192 + 16384 + 1)
    for name, bytes in pairs { ["it's.db"] = cut, ["head.db"] = ("x"):rep(100) .. whole:sub(101) } do
        shell.write(dir .. "/" .. name, bytes)
        local code, out, err = run('doctor --db "' .. name .. '"')
        lu.assertEquals(code, 3)
        lu.assertStrContains(out .. err, "sqlite3 " .. (name:find "'" and [['it'\''s.db']] or name)
            .. " .recover | sqlite3 saved.db; mimic --db saved.db doctor")
    end
end

function TestQueries.test_a_file_is_not_merged_into_itself()
    fill { configurations = 1, seeds = 1 }
    os.execute(("ln -s mimic.db '%s/results/other.db'"):format(dir))
    for _, path in ipairs { "results/mimic.db", "./results/../results/mimic.db", "results/other.db" } do
        refused("merge " .. path, "is the results file that it would be merged into")
    end
end

-- A byte that is no UTF-8 is shown as itself, and what stands around it stays; BLOBs are hexadecimal.
function TestQueries.test_bytes_that_are_no_text()
    fill { configurations = 1, seeds = 1 }
    write(function(db) db:exec("UPDATE run SET name = ? WHERE id = 1", "na\xefve \xff") end)
    for _, words in ipairs { "ls", "show 1", "query 'SELECT name FROM run'", "query --csv 'SELECT name FROM run'",
        "table 'made up' --latex" } do
        local shown = words:find "latex" and [[na\textbackslash{}xefve \textbackslash{}xff]] or [[na\xefve \xff]]
        lu.assertStrContains(ok(words), shown)
    end
    lu.assertEquals(json("query --json 'SELECT name FROM run'")[1].name, [[na\xefve \xff]])
    lu.assertEquals(ok [[query --csv "SELECT x'00ff41' AS b"]], "b\n00ff41\n")
end

function TestQueries.test_export()
    fill { configurations = 1, seeds = 1, pictures = true }
    write(function(db)
        db:exec("INSERT INTO artifact VALUES(1, '../../../evil', -1, 'source', ?)", m.db.hex(db:put_blob "x"))
    end)
    local said = ok "export 1 -o out"
    lu.assertStrContains(said, "wrote out in " .. dir .. ": artifacts/, ")
    lu.assertStrContains(said, "metrics.csv, run.json, script.lua, sources/\n")
    local record = cjson.decode(shell.read(dir .. "/out/run.json"))
    lu.assertEquals(record.run.name, "tau 0.05 lambda 0.1")
    lu.assertEquals(record.answers[1].row, "supervised, CE")
    lu.assertStrContains(shell.read(dir .. "/out/metrics.csv"), "val/acc,5,")
    lu.assertEquals(shell.read(dir .. "/out/script.lua"), "-- made up\n")
    lu.assertEquals(shell.read(dir .. "/out/artifacts/reconstruction-5.jpg"):sub(1, 2), "\xff\xd8")
    lu.assertEquals(shell.read(dir .. "/out/sources/__.._.._evil.lua"), "x")
    refused("export 1 -o out", "not empty")
    lu.assertEquals((run "export 1 -o out2 --weights"), 1) -- it has no checkpoint
    lu.assertNil(io.open(dir .. "/out2")) -- nor is there half a folder
end

function TestQueries.test_top_off_a_terminal()
    fill { configurations = 1, seeds = 2 }
    lu.assertStrContains(ok "top", "nothing is running")
    write(function(db)
        db:exec "UPDATE run SET state = 'running', ended = NULL WHERE id = 2"
    end)
    local out = ok "top --count 2 --interval 0.1"
    local _, n = out:gsub("tau%-lambda  2/2 done", "")
    lu.assertEquals(n, 2)
    lu.assertStrContains(out, "tau 0.05 lambda 0.1")
    lu.assertNil(out:find("[\r\27]"))
end

local hostile = { [[q'";--]], "line\nbreak\ttab", "<script>alert(1)</script>", "\27[31mred\7\8",
    "\u{202e}olleh", "100% _ ^ ~ \\", "$(touch pwned)`touch pwned`", ("x"):rep(1 << 20), "日本語 ±", "\u{9b}2J" }

-- Names and values that could break out of SQL, a shell, a terminal, HTML or LaTeX.
function TestQueries.test_hostile_names_and_values()
    write(function(db)
        db:exec "INSERT INTO experiment(name) VALUES('e')"
        for i, text in ipairs(hostile) do
            local id = synthetic.insert_run(db, { number = i, experiment = 1, kind = text, name = text, config = "c",
                seed = i, steps = 1, at = 1700000000000, script = db:put_blob(text), state = "done", error = text })
            db:exec("UPDATE run SET note = ? WHERE id = ?", text, id)
            db:exec("INSERT INTO param(run, key, txt) VALUES(?, ?, ?)", id, text, text)
            db:exec("INSERT INTO tag VALUES(?, ?, ?)", id, text, text)
            db:exec("INSERT INTO result VALUES(?, ?, 'test', 'acc', 50, 1, 1)", id, text)
            db:exec("INSERT INTO paper_run VALUES(?, ?, ?)", text, text, id)
            db:log(id, text, 1, 0.5)
        end
    end)
    local stored = json [[query --json "SELECT r.name, r.note, r.error, p.key, p.txt, t.key AS tag, x.dataset,
      s.name AS series FROM run r JOIN param p ON p.run = r.id JOIN tag t ON t.run = r.id JOIN result x ON x.run = r.id
      JOIN series s ON s.run = r.id ORDER BY r.id"]]
    lu.assertEquals(#stored, #hostile)
    for i, row in ipairs(stored) do
        for key, value in pairs(row) do lu.assertTrue(value == hostile[i], key .. " of " .. i) end
    end
    local seen = {}
    for i, words in ipairs { "ls", "table e", "table", "query 'SELECT * FROM run_list'",
        "query --box 'SELECT * FROM tag'", "query --md 'SELECT * FROM tag'", "table e --latex", "table e --md",
        "table e --html", "top" } do seen[i] = ok(words) end
    for _, i in ipairs { 2, 4, 5, 8, 10 } do
        seen[#seen + 1] = ok(("show %d"):format(i))
        seen[#seen + 1] = ok(("log %d --plot"):format(i))
        if i == 4 or i == 10 then
            for _, words in ipairs { "log %d", "tag %d", "note %d", "diff 1 %d", "export %d" } do
                seen[#seen + 1] = ok(words:format(i))
            end
        end
    end
    local _, missing = select(2, run "show nosuch"), select(3, run "log 4 nosuch") -- names in messages
    seen[#seen + 1] = missing
    for i, text in ipairs(seen) do
        lu.assertNil(text:find("[%z\1-\8\11-\31\127]"), "control character in output " .. i)
        lu.assertNil(text:find("\xc2[\x80-\x9f]"), "C1 control character in output " .. i)
        lu.assertNil(text:find("\u{202e}", 1, true), "direction mark in output " .. i)
    end
    lu.assertNotStrContains(seen[9], "<script>")
    lu.assertStrContains(seen[9], "&lt;script&gt;")
    lu.assertStrContains(seen[7], [[100\% \_ \textasciicircum{} \textasciitilde{} \textbackslash{}]])
    lu.assertStrContains(seen[8], "&lt;script&gt;")
    ok [[report -o r.html]]
    local html = shell.read(dir .. "/r.html")
    lu.assertNotStrContains(html, "<script>alert")
    lu.assertNil(html:find("[%z\1-\8\11\12\14-\31]"))
    for _, text in ipairs { seen[7], seen[8], seen[9], html:match '<div class="legend">.-</div>' } do
        lu.assertTrue(#text < 1 << 17, #text) -- of a name of 1 MB its beginning
        lu.assertNotStrContains(text, ("x"):rep(200))
    end
    lu.assertNil(lfs.attributes(dir .. "/pwned"))
    for i, text in ipairs(hostile) do -- by the command line
        if #text < 1000 and not text:find("[\n]") then
            local quoted = "'" .. text:gsub("'", "'\\''") .. "'"
            ok(("note %d %s"):format(i, quoted))
            ok(("tag 1 k=%s"):format(quoted))
            lu.assertEquals(json "tag 1 --json"[1].key, "k")
            lu.assertEquals(json [[query --json "SELECT value FROM tag WHERE run = 1 AND key = 'k'"]][1].value, text)
        end
    end
    lu.assertNil(lfs.attributes(dir .. "/pwned"))
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestQueries", TestQueries } })

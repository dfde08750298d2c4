-- Measures what a researcher waits for: the list of 300 runs with 20 results each (SQL alone, and the command's
-- rows), the paper's table, and the report. Usage: mimic tests/bench/report.lua [CONFIGURATIONS [SEEDS [METRICS
-- [STEPS]]]]; the figures to beat are 10 ms for the list and 5 s for the report of 300 runs.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/../cli/?.lua;" .. package.path
local m = require "mimic"
local experiment = require "mimic.experiment"
local synthetic = require "synthetic"
local tabulate = require "mimic.tabulate"

local configurations, seeds = tonumber(arg[1] or 100), tonumber(arg[2] or 3)
local metrics, steps = tonumber(arg[3] or 20), tonumber(arg[4] or 200)
local dir = os.tmpname()
os.remove(dir)
m.sys.mkdirs(dir)
local path = dir .. "/bench.db"

-- The least time of n calls, in milliseconds, and the last answer.
local function least(n, f)
    local best, out = math.huge, nil
    for _ = 1, n do
        local began = m.sys.clock()
        out = f()
        best = math.min(best, m.sys.clock() - began)
    end
    return best * 1e3, out
end

local ok, why = pcall(function()
    local db = m.db.open(path, { write = true })
    local fill_ms = least(1, function()
        synthetic.fill(db, { configurations = configurations, seeds = seeds, metrics = metrics, steps = steps,
            sweep = true, paper = true, pictures = true })
    end)
    db:close()
    db = m.db.open(path)
    local points = db:first("SELECT count(*) AS n FROM metric").n
    print(("%d runs, %d results and %d series each, %d points; made in %.1f s"):format(configurations * seeds, metrics,
        metrics, points, fill_ms / 1e3))
    local list = require("mimic.cli.ls").LIST .. " WHERE r.deleted IS NULL ORDER BY r.id DESC"
    local list_ms, rows = least(5, function() return (db:rows(list)) end)
    assert(#rows == configurations * seeds and rows[1].value, "the list is not whole")
    print(("list of runs with their main result        %8.1f ms"):format(list_ms))
    local all = [[SELECT r.id, r.name, r.seed, r.state, count(*) AS n, json_group_object(x.metric, x.value) AS results
      FROM run r JOIN result x ON x.run = r.id WHERE r.deleted IS NULL GROUP BY r.id]]
    local all_ms, values = least(5, function() return (db:rows(all)) end)
    assert(#values == configurations * seeds and values[1].n == metrics, "results are missing")
    print(("list of runs with all their results        %8.1f ms"):format(all_ms))
    print(("seed_stat of all configurations            %8.1f ms"):format((least(3, function()
        return (db:rows "SELECT * FROM seed_stat WHERE metric = 'acc'")
    end))))
    print(("table2 with intervals and comparisons      %8.1f ms"):format((least(3, function()
        return tabulate.collect(db, "table2")
    end))))
    db:close()
    experiment.options.db = path
    local report_ms = least(1, function() return require("mimic.report").write { out = dir .. "/report.html" } end)
    local html = assert(m.sys.read_file(dir .. "/report.html"))
    assert(html:find("Parallel coordinates", 1, true) and html:find("MIM, CE", 1, true), "the report is not whole")
    print(("report                                     %8.1f ms, %.1f MiB"):format(report_ms, #html / 2 ^ 20))
end)
experiment.close()
os.execute("rm -rf '" .. dir .. "'")
if not ok then error(why, 0) end

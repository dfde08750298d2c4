-- mimic paper: every row and point of the paper beside ours, and what is still to run.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local command_line = require "mimic.command_line"
local experiment = require "mimic.experiment"
local flops = require "mimic.flops"
local format = require "mimic.format"
local results = require "mimic.results"
local run_command = require "mimic.cli.run"
local stats = require "mimic.stats"

local command = {
    summary = "the paper's tables and figures beside ours, and what is still to run",
    description = [[
Lists every row of the paper's tables and every point of its figures: the paper's value,
ours with the number of seeds and an interval, and the runs that are missing with their
cost in FLOPs and in time at this machine's measured rate. It runs nothing: with --run it
first makes the missing runs, table by table, all of the paper's when no table is named;
runs that several tables share are made once. At scale small and smoke the data
are others than the paper's: its value stands in brackets, for the direction only.]],
    examples = [[
  mimic paper                                         what the whole paper costs here
  mimic paper --scale smoke --run                     runs all of it end to end, in seconds
  mimic paper table2 --scale small data.root=DIR      one table on packs of small pictures
  mimic paper table2 --scale small data.root=DIR seeds=[0,1,2] --run]],
}

local refs = { "table1", "table2", "table3", "table4", "table5", "fig5", "fig6", "fig7", "mscl_readings" }

function command.configure(p)
    p:argument("what"):argname("REF|key=value"):args("*")
        :description("table1 ... fig7, mscl_readings (all without one); values as for mimic run")
    p:option("--scale"):argname("SCALE"):description("paper, small or smoke"):default("paper")
        :choices { "paper", "small", "smoke" }
    p:option("--scripts"):argname("DIR"):description("folder of the scripts"):default("experiments")
    p:flag("--run"):description("make the missing runs first; without it nothing is run")
    format.options(p)
end

-- Words of the command line: names of tables, and overrides.
local function split(args)
    local wanted, words = {}, { "scale=" .. args.scale }
    for _, word in ipairs(args.what) do
        if word:find("=", 1, true) then
            words[#words + 1] = word
        else
            local known = false
            for _, ref in ipairs(refs) do known = known or ref == word end
            if not known then
                cli.fail(cli.USAGE, "no table or figure '%s'%s; there are %s", word,
                    require("mimic.suggest").hint(word, refs), table.concat(refs, ", "))
            end
            wanted[#wanted + 1] = word
        end
    end
    return #wanted > 0 and wanted or refs, words
end

local function script(args, ref, words)
    local path = ("%s/%s.lua"):format(args.scripts, ref)
    if lfs.attributes(path, "mode") ~= "file" then
        cli.fail(cli.USAGE, "no script %s: --scripts DIR names the folder of experiments", path)
    end
    return { path = path, text = assert(m.sys.read_file(path)), words = words }
end

-- What a script would run: the entries it files, from a dry run.
local function planned(args, ref, words)
    local options, paper = experiment.options, require "mimic.paper"
    local before = { options.dry_run, options.collect }
    options.dry_run, options.collect = true, {}
    paper.plan = {}
    local code = run_command.execute(script(args, ref, words))
    local plan = paper.plan
    options.dry_run, options.collect, paper.plan = before[1], before[2], false
    if code ~= cli.DONE then cli.fail(code, "%s could not be planned", ref) end
    return plan
end

-- The results database, or an empty one in memory's stead, for the paper's numbers.
local function open(args)
    if lfs.attributes(args.db, "mode") == "file" then return cli.results(args) end
    local path = os.tmpname()
    os.remove(path)
    return results.open(path, true), path
end

local function close(store, temporary)
    store:close()
    for _, suffix in ipairs { "", "-wal", "-shm", ".lock" } do
        if temporary then os.remove(temporary .. suffix) end
    end
end

local function done(store, run)
    return store.db:first([[SELECT id FROM run WHERE config_hash = ? AND seed = ? AND state = 'done'
        AND deleted IS NULL ORDER BY id DESC]], m.db.hex(run.hash), run.seed)
end

-- Runs of a plan that are not done, parents included, each once.
local function missing(store, runs, seen)
    local out = {}
    local function visit(run)
        if not run or seen[run.hash .. run.seed] then return end
        seen[run.hash .. run.seed] = true
        if done(store, run) then return end
        visit(run.parent)
        out[#out + 1] = run
    end
    for _, run in ipairs(runs) do visit(run) end
    return out
end

local function ours(store, entry, metric)
    local values = {}
    for _, run in ipairs(entry.runs) do
        local row = done(store, run)
        local x = row and store.db:first([[SELECT value FROM result WHERE run = ? AND dataset = ?
            AND split = ? AND metric = ?]], row.id, entry.set.name, entry.split, metric)
        if x and x.value then values[#values + 1] = x.value end
    end
    if #values == 0 then return "" end
    local sum = 0
    for _, v in ipairs(values) do sum = sum + v end
    local lo, hi = stats.interval(values)
    return ("%.2f (n=%d)%s"):format(sum / #values, #values, lo and (" [%.2f, %.2f]"):format(lo, hi) or "")
end

-- The paper's value; in brackets when its data were others than ours.
local function printed(store, ref, entry)
    local cell = store.db:first("SELECT value FROM paper WHERE ref = ? AND row = ? AND dataset = ?", ref,
        entry.row, entry.set.stands_for)
    if not cell or not cell.value then return "" end
    return (entry.set.name == entry.set.stands_for and "%.2f" or "(%.2f)"):format(cell.value)
end

-- Rows of the paper that are another work's numbers.
local function quoted(store, ref, rows)
    for cell in store.db:each([[SELECT row, dataset, metric, value FROM paper WHERE ref = ?
        AND mark = 'quoted' ORDER BY pos]], ref) do
        rows[#rows + 1] = { row = cell.row, data = cell.dataset, metric = cell.metric,
            paper = ("%.2f"):format(cell.value), ours = "", ["to run"] = "quoted by the paper, not run" }
    end
end

local function cost(runs, rate)
    if #runs == 0 then return "" end
    local total = 0
    for _, run in ipairs(runs) do total = total + (run.flops or 0) end
    return ("%d run%s, %.1e FLOP, %s"):format(#runs, #runs == 1 and "" or "s", total,
        flops.time(total / rate))
end

-- The command that makes what this one lists.
local function line_of(args)
    local words = { "paper", "--scale", args.scale, "--run" }
    if args.scripts ~= "experiments" then table.move({ "--scripts", args.scripts }, 1, 2, #words + 1, words) end
    return command_line.of(table.unpack(table.move(args.what, 1, #args.what, #words + 1, words)))
end

local function list(args, wanted, words)
    local plans, every = {}, {}
    for _, ref in ipairs(wanted) do
        plans[ref] = planned(args, ref, words)
        for _, entry in ipairs(plans[ref]) do
            for _, run in ipairs(entry.runs) do every[#every + 1] = run end
        end
    end
    local store, temporary = open(args)
    local all = missing(store, every, {})
    local bill, rate = flops.bill(all)
    for _, ref in ipairs(wanted) do
        local title = store.db:first("SELECT title FROM paper_table WHERE ref = ?", ref)
        local rows, columns = {}, { "row", "data", "metric", "paper", "ours", "to run" }
        for _, entry in ipairs(plans[ref]) do
            local metric = entry.metrics[1]
            rows[#rows + 1] = { row = entry.row, data = entry.set.name, metric = metric,
                paper = printed(store, ref, entry),
                ours = ours(store, entry, metric), ["to run"] = cost(missing(store, entry.runs, {}), rate) }
        end
        quoted(store, ref, rows)
        local form = format.chosen(args)
        if form == "plain" then print(("%s  (%s)"):format(title and title.title or "Our own", ref)) end
        print(format.format(form, rows, columns))
        if form == "plain" then print() end
    end
    close(store, temporary)
    if format.chosen(args) ~= "plain" then return end
    if #all == 0 then
        print("Everything is run.")
    else
        print(("To run, each shared run once: %d runs%s."):format(#all, bill))
        if not args.run then print("Nothing was run, this is a list. To run it: " .. line_of(args)) end
    end
end

function command.run(args)
    local wanted, words = split(args)
    if args.run then
        for _, ref in ipairs(wanted) do
            local code = run_command.execute(script(args, ref, words))
            if code ~= cli.DONE then return code end
        end
        experiment.close()
    end
    list(args, wanted, words)
    return cli.DONE
end

return command

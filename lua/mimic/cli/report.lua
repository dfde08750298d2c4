-- mimic report: one HTML file about the runs of a database.
local m = require "mimic"
local cli = require "mimic.cli"

local command = {
    summary = "write one HTML file: tables, curves, sweeps, pictures, provenance",
    description = [[
Writes a report that opens without a network: results over seeds, the paper's tables with
ours beside them (LaTeX and CSV to copy), curves, sweeps (heat map, slices, importance),
reconstructions, t-SNE maps, confusion matrices, speed and memory, and where every figure
comes from. With --watch it is written again while runs are going on, and an open browser
reloads it.]],
    examples = [[
  mimic report
  mimic report -o night.html --experiment quickstart
  mimic report --table table2 --table table3
  mimic report --watch]],
}

function command.configure(p)
    p:option("-o --out"):argname("FILE"):description("the file to write"):default("results/report.html")
    p:option("--experiment"):argname("NAME"):description("only runs of this experiment")
    p:option("--title"):argname("TEXT"):description("heading")
    p:option("--table"):argname("NAME"):count("*"):description("a table to show; default: those runs answer")
    p:option("--sweep"):argname("NAME"):count("*"):description("a sweep to show; default: those of the runs")
    p:option("--watch"):argname("SECONDS"):args("?")
        :description("write again every so many seconds (10) until nothing runs")
        :convert(function(s)
            local v = tonumber(s)
            if v and v > 0 then return v end
            return nil, "--watch takes seconds, got '" .. s .. "'"
        end)
    p:argument("runs"):argname("RUN"):args("*"):description("only these runs")
end

function command.run(args)
    local store = cli.results(args)
    local ids
    if #args.runs > 0 then
        ids = {}
        for i, text in ipairs(args.runs) do ids[i] = cli.guard(cli.USAGE, store.find, store, text).id end
    end
    store:close()
    local spec = { out = args.out, runs = ids, experiment = args.experiment, title = args.title,
        tables = #args.table > 0 and args.table or nil, sweeps = #args.sweep > 0 and args.sweep or nil }
    local write = require("mimic.report").write
    if not args.watch then
        print("wrote " .. cli.guard(cli.USAGE, write, spec))
        return cli.DONE
    end
    local interval = args.watch[1] or 10
    m.interrupted() -- from here Ctrl-C is asked for
    repeat
        spec.refresh = interval
        local path, running = cli.guard(cli.USAGE, write, spec)
        if running == 0 or m.interrupted() > 0 then break end
        print(("wrote %s, %d running"):format(path, running))
        io.flush()
        local until_then = m.sys.clock() + interval
        while m.sys.clock() < until_then and m.interrupted() == 0 do m.sys.sleep(0.1) end
    until m.interrupted() > 0
    spec.refresh = nil -- the last one stays as it is
    print("wrote " .. cli.guard(cli.USAGE, write, spec))
    return cli.DONE
end

return command

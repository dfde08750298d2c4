-- mimic report: one HTML file about the runs of a database.
local cli = require "mimic.cli"

local command = {
    summary = "write one HTML file: tables, curves, pictures, provenance",
    description = [[
Writes a report that opens without a network: results over seeds, curves, reconstructions,
confusion matrices, speed and memory, and where every figure comes from.]],
    examples = [[
  mimic report
  mimic report -o night.html --experiment quickstart]],
}

function command.configure(p)
    p:option("-o --out"):argname("FILE"):description("the file to write"):default("results/report.html")
    p:option("--experiment"):argname("NAME"):description("only runs of this experiment")
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
    local path = cli.guard(cli.USAGE, require("mimic.report").write, { out = args.out, runs = ids,
        experiment = args.experiment })
    print("wrote " .. path)
    return cli.DONE
end

return command

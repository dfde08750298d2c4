-- mimic log: recorded series of a run, as numbers or as a curve in the terminal.
local cli = require "mimic.cli"
local plot = require "mimic.plot"
local tables = require "mimic.format"

local command = {
    summary = "a run's series: list, numbers, or a curve in the terminal",
    description = [[
Without names: the series of a run with their last, lowest and highest values. With names:
the numbers, or with --plot a curve.]],
    examples = [[
  mimic log 12
  mimic log 12 train/loss --csv
  mimic log 12 train/loss val/loss --plot]],
}

function command.configure(p)
    p:argument("run"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
    p:argument("series"):argname("SERIES"):args("*"):description("names of series, for example train/loss")
    p:flag("--plot"):description("draw the curves")
    p:option("--height"):argname("ROWS"):description("height of the plot"):convert(cli.integer):default("16")
    tables.options(p)
end

local function chosen_series(store, run, names)
    local known = {}
    for r in store.db:each("SELECT name FROM series WHERE run = ? AND n > 0 ORDER BY name", run) do
        known[#known + 1] = r.name
    end
    for _, name in ipairs(names) do
        local found = false
        for _, k in ipairs(known) do found = found or k == name end
        if not found then
            cli.fail(cli.USAGE, "the run has no series '%s'%s; it has %s", name,
                require("mimic.suggest").hint(name, known),
                #known > 0 and table.concat(known, ", ") or "none")
        end
    end
    return known
end

function command.run(args)
    local store = cli.results(args)
    local run = cli.guard(cli.USAGE, store.find, store, args.run)
    local known = chosen_series(store, run.id, args.series)
    if #args.series == 0 and not args.plot then
        local rows = store.db:rows([[SELECT name, n, last, last_step, lo, lo_step, hi, hi_step, bad_n FROM
          series WHERE run = ? AND n > 0
          ORDER BY name]], run.id)
        print(tables.format(tables.chosen(args), rows, { "name", "n", "last", "last_step", "lo", "lo_step",
            "hi", "hi_step", "bad_n" }))
        return cli.DONE
    end
    local names = #args.series > 0 and args.series or { known[1] }
    local lines = {}
    for i, name in ipairs(names) do
        lines[i] = { name = args.plot and tables.safe(name) or name,
            points = store.db:rows([[SELECT k.step, k.value FROM metric k JOIN series s ON s.id = k.series
          WHERE s.run = ? AND s.name = ? ORDER BY k.step]], run.id, name) }
    end
    if args.plot then
        print(("%s seed %d"):format(tables.safe(run.name), run.seed))
        print(plot.terminal(lines, tables.columns(), args.height))
        return cli.DONE
    end
    local rows = {}
    for _, line in ipairs(lines) do
        for _, p in ipairs(line.points) do
            rows[#rows + 1] = { series = line.name, step = p.step, value = p.value }
        end
    end
    print(tables.format(tables.chosen(args), rows, { "series", "step", "value" }))
    return cli.DONE
end

return command

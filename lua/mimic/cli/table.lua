-- mimic table: results as a paper prints them.
local cli = require "mimic.cli"
local format = require "mimic.format"
local tabulate = require "mimic.tabulate"
local text = require "mimic.tabulate_text"

local command = {
    summary = "a table of results beside the paper's: terminal, LaTeX, Markdown, CSV, HTML",
    description = [[
Prints a table of the paper (table1 to table5, fig5) or of an ablation with our runs beside
the published numbers: mean, standard deviation, n, bootstrap interval over seeds, the
difference, and the significance against the base row (paired by seed). A run is filed
under a row by answers = { ref = "table2", row = "MIM, CE" } in exp:run, or by exp:ablation
{ ref = ... }. NAME may also be a sweep (its points, best first) or an experiment (its
configurations). Without NAME: what there is.]],
    examples = [[
  mimic table
  mimic table table2
  mimic table table2 --latex > table2.tex
  mimic table tau-lambda --md
  mimic table quickstart --metric acc_last --csv]],
}

function command.configure(p)
    p:argument("name"):argname("NAME"):args("?")
        :description("a table of the paper or an ablation, a sweep, an experiment")
    p:option("--ci"):argname("PERCENT"):description("level of the interval (95); shown in LaTeX and Markdown too")
        :convert(function(s)
            local v = tonumber(s)
            if v and v > 0 and v < 100 then return v end
            return nil, "--ci takes a percentage between 0 and 100, got '" .. s .. "'"
        end)
    p:option("--metric"):argname("NAME"):description("metric of results without a published "
        .. "number, of an experiment (acc), of a sweep (what it searched for)")
    p:option("--base"):argname("ROW"):description("row that the others are compared with")
    p:mutex(p:flag("--box"):description("draw a box"), p:flag("--latex"):description("LaTeX, booktabs"),
        p:flag("--csv"):description("comma-separated, exact numbers"), p:flag("--html"):description("HTML"),
        p:flag("--json"):description("list of objects, exact numbers"), p:flag("--md"):description("Markdown"))
end

local function form_of(args)
    for _, form in ipairs { "latex", "html" } do
        if args[form] then return form end
    end
    return format.chosen(args)
end

function command.run(args)
    local store = cli.results(args)
    local form = form_of(args)
    if not args.name then
        local rows = tabulate.list(store.db)
        if form == "latex" or form == "html" then cli.fail(cli.USAGE, "--%s needs the NAME of a table", form) end
        print(format.format(form, rows, { "name", "kind", "runs", "title" }))
        return cli.DONE
    end
    local t = cli.guard(cli.USAGE, tabulate.collect, store.db, args.name,
        { level = args.ci, metric = args.metric, base = args.base })
    print(text.render(form, t, args.ci ~= nil))
    return cli.DONE
end

return command

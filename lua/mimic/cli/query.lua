-- mimic query: SQL over the results file, read-only.
local m = require "mimic"
local cli = require "mimic.cli"
local tables = require "mimic.format"

local command = {
    summary = "SQL over the results, read-only",
    description = [[
Runs one SQL statement on the results database, which cannot change it. Views:
  run_list     runs as a person reads them        leaderboard    results of finished runs
  seed_stat    mean, sd, n over seeds             curve          points by run and name
  class_score  recall, precision, F1 per class    paper_vs_ours  published numbers and ours
  sweep_list, sweep_stat, sweep_point: progress; points over seeds; parameters
`mimic query --schema` prints all tables and views with their explanations; any SQLite
program (sqlite3, Datasette) reads the same file.]],
    examples = [[
  mimic query "SELECT name, mean, sd, n FROM seed_stat WHERE metric = 'acc' ORDER BY mean DESC"
  mimic query --csv "SELECT step, value FROM curve WHERE run = 3 AND name = 'val/acc'"
  mimic query --box "SELECT row, col, paper, ours, n, delta FROM paper_vs_ours WHERE n > 0"
  mimic query --schema]],
}

function command.configure(p)
    p:argument("sql"):argname("SQL"):args("?"):description("the statement; from standard input when it is -")
    p:flag("--schema"):description("print the schema")
    tables.options(p)
end

function command.run(args)
    if args.schema then
        io.write(m.sys.script_source("results/schema.sql"))
        return cli.DONE
    end
    if not args.sql then cli.fail(cli.USAGE, "no SQL given; `mimic query --help` has examples") end
    local store = cli.results(args)
    local sql = args.sql == "-" and io.read("a") or args.sql
    if not sql:find "%S" then cli.fail(cli.USAGE, "the SQL is empty; `mimic query --help` has examples") end
    local rows, columns = cli.guard(cli.USAGE, store.db.lists, store.db, sql)
    local form = tables.chosen(args)
    if #columns > 0 or form == "json" then print(tables.format(form, rows, columns, true)) end
    return cli.DONE
end

return command

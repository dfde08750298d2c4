-- mimic query: SQL over the results file, read-only.
local m = require "mimic"
local cli = require "mimic.cli"
local tables = require "mimic.format"

local command = {
    summary = "SQL over the results, read-only",
    description = [[
Runs one SQL statement on the results database, which cannot change it. Views: leaderboard
(one row per finished run and result), seed_stat (mean, sd and n over seeds). `mimic query
--schema` prints all tables.]],
    examples = [[
  mimic query "SELECT name, mean, sd, n FROM seed_stat WHERE metric = 'acc' ORDER BY mean DESC"
  mimic query --csv "SELECT s.name, k.step, k.value FROM metric k JOIN series s ON s.id = k.series WHERE
    s.run = 3"
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
    local rows, columns = cli.guard(cli.USAGE, function() return store.db:rows(sql) end)
    if #columns > 0 then print(tables.format(tables.chosen(args), rows, columns)) end
    return cli.DONE
end

return command

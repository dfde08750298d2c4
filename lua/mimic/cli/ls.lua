-- mimic ls: the list of runs.
local m = require "mimic"
local cli = require "mimic.cli"
local columns = require "mimic.columns"
local find = require "mimic.sweep.find"
local format = require "mimic.format"
local suggest = require "mimic.suggest"

local command = {
    summary = "list runs, their state and main result",
    description = [[
Lists runs, newest first. --where takes SQL over the columns of a run (id, name, kind,
seed, state, step, ...), its parameters (lr, mscl.tau, or tau where one key ends so), its
results (acc, or "faces test acc"), the last values of its series ("val/loss") and its
tags (tag.KEY); names with other characters than letters, digits, _ and . stand in double
quotes. --sort takes one such name, with a minus for descending order. What was asked for
is shown.]],
    examples = [[
  mimic ls
  mimic ls --where "tau < 0.2 AND state = 'done'" --sort -acc
  mimic ls --sweep tau-lambda --sort -acc
  mimic ls --deleted
  mimic ls --json]],
}

function command.configure(p)
    p:option("--where"):argname("SQL"):description("only runs for which this holds")
    p:option("--state"):argname("STATE"):description("done, running, failed, interrupted, ...")
    p:option("--sweep"):argname("NAME"):description("only runs of this sweep")
    p:option("--experiment"):argname("NAME"):description("only runs of this experiment")
    p:option("--tag"):argname("KEY"):description("only runs with this tag")
    p:option("--sort"):argname("NAME"):description("order by a column, parameter or result; -NAME descending")
    p:option("-n --limit"):argname("N"):description("at most N runs"):convert(cli.integer)
    p:flag("--deleted"):description("runs removed by mimic rm, which gc will erase")
    format.options(p)
end

-- "--sort -acc" as one word: the parser takes what begins with a minus for an option.
function command.words(words)
    local out = {}
    for _, w in ipairs(words) do
        if out[#out] == "--sort" then out[#out] = "--sort=" .. w else out[#out + 1] = w end
    end
    return out
end

---All that a list of runs shows, in one statement: the lists of 300 runs with 20 results each take milliseconds.
command.LIST = [[SELECT r.id, r.uid, r.name, r.kind, r.seed, r.state, r.step, r.created, r.started, r.ended,
    r.heartbeat, h.dataset || ' ' || h.split || ' ' || h.metric AS result, h.metric AS metric, h.value
  FROM run r LEFT JOIN result h ON h.run = r.id AND (h.dataset, h.split, h.metric) = (
    SELECT x.dataset, x.split, x.metric FROM result x WHERE x.run = r.id
    ORDER BY x.metric <> 'acc', x.split <> 'test', x.split <> 'val', x.metric <> 'loss', x.dataset, x.metric LIMIT 1)]]

-- Names that an option may have.
local known = {
    experiment = "SELECT name FROM experiment ORDER BY id DESC",
    tag = "SELECT DISTINCT key AS name FROM tag ORDER BY key",
    state = [[SELECT value AS name FROM json_each('["queued","running","done","failed","pruned","interrupted","lost",
      "cancelled"]')]],
}

-- The statement for the options, the values it binds, and the names that are shown beside the usual columns.
local function statement(store, args)
    local where, values, shown = { args.deleted and "r.deleted IS NOT NULL" or "r.deleted IS NULL" }, {}, {}
    local function bind(sql, value)
        values[#values + 1] = value
        where[#where + 1] = sql:format("?" .. #values)
    end
    local names = columns.new(store.db)
    for option, sql in pairs(known) do
        local list, there = {}, {}
        for r in store.db:each(sql) do
            list[#list + 1] = r.name
            there[r.name] = true
        end
        if args[option] and not there[args[option]] then
            error(("--%s %s: there is none%s; %s"):format(option, args[option], suggest.hint(args[option], list),
                #list == 0 and "no run has one" or "there are " .. table.concat(list, ", ", 1, math.min(#list, 20))), 0)
        end
    end
    if args.state then bind("r.state = %s", args.state) end
    if args.experiment then bind("r.experiment = (SELECT id FROM experiment WHERE name = %s)", args.experiment) end
    if args.tag then bind("EXISTS (SELECT 1 FROM tag t WHERE t.run = r.id AND t.key = %s)", args.tag) end
    if args.sweep then
        bind("r.id IN (SELECT run FROM trial WHERE sweep = %s)", find.one(store.db, args.sweep).id)
    end
    if args.where then where[#where + 1] = "(" .. names:condition(args.where, shown) .. "\n)" end
    local order = "r.id DESC"
    if args.sort then
        local key = args.sort:gsub("^%-", ""):gsub('^"(.*)"$', "%1")
        order = names:expression(key, "--sort") .. (args.sort:sub(1, 1) == "-" and " DESC" or "") .. ", r.id DESC"
        columns.show(key, shown)
    end
    local sql = command.LIST
    for i, name in ipairs(shown) do -- as columns of their own
        sql = sql:gsub("\n  FROM run r LEFT", function(rest)
            return (", %s AS shown_%d"):format(names:expression(name), i) .. rest
        end, 1)
    end
    return ("%s WHERE %s ORDER BY %s%s"):format(sql, table.concat(where, " AND "), order,
        args.limit and " LIMIT " .. args.limit or ""), values, shown
end

function command.run(args)
    local store = cli.results(args)
    local sql, values, shown = cli.guard(cli.USAGE, statement, store, args)
    local ok, rows = pcall(store.db.rows, store.db, sql, table.unpack(values))
    if not ok then
        cli.stop_if_asked()
        local why = cli.message(rows)
        cli.fail(cli.USAGE, "%s", args.where and ("--where %s: it is no condition in SQL (%s); for example "
            .. "\"tau < 0.2 AND state = 'done'\""):format(args.where, why:match ": ([^\n]-): at "
            or why:match ": (.*): in " or why) or why)
    end
    local form = format.chosen(args)
    local exact = form == "csv" or form == "json"
    for _, r in ipairs(rows) do
        r.state = store:state(r)
        if r.result and not exact then
            r.value = r.value and (r.metric == "acc" and "%.2f" or "%.4g"):format(r.value) or "nan"
        end
        local last = r.state == "running" and m.sys.time() or r.ended or r.heartbeat
        if r.started and last then r.seconds = (last - r.started) / 1000 end
        r.time = format.duration(r.seconds)
        r.begun = format.when(r.started)
        for i, name in ipairs(shown) do r[name] = r["shown_" .. i] end
    end
    local list = { "id", "name", "kind", "seed", "state", "step" }
    for _, name in ipairs(shown) do list[#list + 1] = name end
    for _, name in ipairs(exact and { "result", "value", "seconds", "started" }
        or { "result", "value", "time", "begun" }) do list[#list + 1] = name end
    if #rows == 0 and not exact then
        io.stderr:write("no runs\n")
        return cli.DONE
    end
    print(format.format(form, rows, list))
    return cli.DONE
end

return command

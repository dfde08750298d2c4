-- mimic ls: the list of runs.
local m = require "mimic"
local cli = require "mimic.cli"
local tables = require "mimic.format"

local command = {
    summary = "list runs, their state and main result",
    description = [[
Lists runs, newest first. --where takes SQL over the columns of a run (id, name, kind,
seed, state, step), over the names of its parameters and over the names of its results;
--sort takes one of these names, with a minus for descending order.]],
    examples = [[
  mimic ls
  mimic ls --where "tau < 0.2 AND state = 'done'" --sort -acc
  mimic ls --json]],
}

function command.configure(p)
    p:option("--where"):argname("SQL"):description("only runs for which this holds")
    p:option("--state"):argname("STATE"):description("done, running, failed, interrupted, ...")
    p:option("--sort"):argname("KEY"):description("order by a column, parameter or result; -KEY descending")
    p:option("-n --limit"):argname("N"):description("at most N runs"):convert(cli.integer)
    tables.options(p)
end

local own = { id = 1, uid = 1, name = 1, kind = 1, seed = 1, state = 1, step = 1, attempt = 1, created = 1,
    started = 1, ended = 1,
    note = 1, parent = 1 }

-- A name as SQL over run r: its own column, a parameter, or a result.
local function translate(store, name)
    if own[name] then return "r." .. name end
    local quoted = "'" .. name:gsub("'", "''") .. "'"
    if store.db:first("SELECT 1 AS x FROM param WHERE key = ? LIMIT 1", name) then
        return "(SELECT coalesce(p.num, p.txt) FROM param p WHERE p.run = r.id AND p.key = " .. quoted .. ")"
    end
    if store.db:first("SELECT 1 AS x FROM result WHERE metric = ? LIMIT 1", name) then
        return ([[(SELECT x.value FROM result x WHERE x.run = r.id AND x.metric = %s
          ORDER BY x.split <> 'test', x.split <> 'val', x.dataset LIMIT 1)]]):format(quoted)
    end
end

local function known_names(store)
    local names = {}
    for k in pairs(own) do names[#names + 1] = k end
    for r in store.db:each("SELECT DISTINCT key AS k FROM param UNION SELECT DISTINCT metric FROM result") do
        names[#names + 1] = r.k
    end
    return names
end

-- Replaces the names in a condition, leaving quoted text and SQL's own words.
local function condition(store, text)
    local out, at = {}, 1
    while at <= #text do
        local quoted = text:match("^'[^']*'", at)
        local word = not quoted and text:match("^[%a_][%w_.]*", at)
        local piece = quoted or word or text:sub(at, at)
        out[#out + 1] = word and translate(store, word) or piece
        at = at + #piece
    end
    return table.concat(out)
end

local LIST = [[SELECT r.id, r.uid, r.name, r.kind, r.seed, r.state, r.step, r.created, r.started, r.ended,
  r.heartbeat
  FROM run r WHERE r.deleted IS NULL]]

function command.run(args)
    local store = cli.results(args)
    local sql = LIST
    if args.state then sql = sql .. " AND r.state = ?1" end
    if args.where then sql = sql .. " AND (" .. condition(store, args.where) .. ")" end
    local order = "r.id DESC"
    if args.sort then
        local key = args.sort:gsub("^%-", "")
        local by = translate(store, key)
        if not by then
            cli.fail(cli.USAGE, "--sort %s: no such column, parameter or result%s", key,
                require("mimic.suggest").hint(key, known_names(store)))
        end
        order = by .. (args.sort:sub(1, 1) == "-" and " DESC" or "")
    end
    sql = sql .. " ORDER BY " .. order .. (args.limit and " LIMIT " .. args.limit or "")
    local rows = cli.guard(cli.USAGE, function()
        if args.state then return (store.db:rows(sql, args.state)) end
        return (store.db:rows(sql))
    end)
    for _, r in ipairs(rows) do
        r.state = store:state(r)
        local h = store:headline(r.id)
        if h then
            r.result = ("%s %s %s"):format(h.dataset, h.split, h.metric)
            r.value = h.value
            if tables.chosen(args) == "plain" or args.box or args.md then
                r.value = h.value and (h.metric == "acc" and "%.2f" or "%.4g"):format(h.value) or "nan"
            end
        end
        local last = r.state == "running" and m.sys.time() or r.ended or r.heartbeat
        if r.started and last then r.seconds = (last - r.started) / 1000 end
        r.time = tables.duration(r.seconds)
        r.begun = tables.when(r.started)
    end
    local columns = { "id", "name", "kind", "seed", "state", "step", "result", "value", "time", "begun" }
    if args.csv or args.json then columns[9], columns[10] = "seconds", "started" end
    if #rows == 0 and not (args.csv or args.json) then
        io.stderr:write("no runs\n")
        return cli.DONE
    end
    print(tables.format(tables.chosen(args), rows, columns))
    return cli.DONE
end

return command

-- mimic diff: what differs between two runs.
local cjson = require "cjson"
local cli = require "mimic.cli"
local format = require "mimic.format"

local command = {
    summary = "what differs between two runs",
    description = [[
Compares two runs: configuration, script and required files, environment, final numbers,
and for each series the first step where the curves part. Times and speeds (sys/...) are
left out.]],
    examples = [[
  mimic diff 12 13
  mimic diff "mae + ce" "mae + ce + mscl"]],
}

function command.configure(p)
    p:argument("a"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
    p:argument("b"):argname("RUN"):description("the run it is compared with")
end

local IDENTITY = [[SELECT r.kind, r.name, r.seed, r.state, r.git, lower(hex(r.script)) AS script, r.argv,
    lower(hex(r.diff)) AS diff, lower(hex(r.config_hash)) AS config, r.env, e.name AS experiment,
    (SELECT p.name || ' seed ' || p.seed || ' (' || p.id || ')' FROM run p WHERE p.id = r.parent) AS parent
  FROM run r JOIN experiment e ON e.id = r.experiment WHERE r.id = ?]]

local PARAMS = [[SELECT key, max(a) AS a, max(b) AS b FROM (
    SELECT key, txt AS a, NULL AS b FROM param WHERE run = ?1 UNION ALL
    SELECT key, NULL, txt FROM param WHERE run = ?2)
  GROUP BY key HAVING max(a) IS NOT max(b) ORDER BY key]]

local NUMBERS = [[SELECT dataset, split, metric, max(a) AS a, max(b) AS b FROM (
    SELECT dataset, split, metric, value AS a, NULL AS b FROM result WHERE run = ?1 UNION ALL
    SELECT dataset, split, metric, NULL, value FROM result WHERE run = ?2)
  GROUP BY dataset, split, metric HAVING max(a) IS NOT max(b) ORDER BY metric <> 'acc', dataset, split, metric]]

-- Steps that both have, and where the values differ; NaN equals NaN.
local CURVES = [[SELECT s.name, count(*) AS steps, min(x.step) FILTER (WHERE x.value IS NOT y.value) AS parts
  FROM series s JOIN series t ON t.name = s.name AND t.run = ?2
    JOIN metric x ON x.series = s.id JOIN metric y ON y.series = t.id AND y.step = x.step
  WHERE s.run = ?1 AND s.name NOT LIKE 'sys/%' GROUP BY s.name ORDER BY parts IS NULL, parts, s.name]]

local VALUES = [[SELECT s.run, k.value FROM series s JOIN metric k ON k.series = s.id
  WHERE s.run IN (?1, ?2) AND s.name = ?3 AND k.step = ?4]]

local ONLY = [[SELECT name FROM series WHERE run = ?1 AND n > 0 AND name NOT LIKE 'sys/%'
  AND name NOT IN (SELECT name FROM series WHERE run = ?2 AND n > 0) ORDER BY name]]

local SOURCES = [[SELECT name, max(a) AS a, max(b) AS b FROM (
    SELECT name, lower(hex(sha256)) AS a, NULL AS b FROM artifact WHERE run = ?1 AND kind = 'source' UNION ALL
    SELECT name, NULL, lower(hex(sha256)) FROM artifact WHERE run = ?2 AND kind = 'source')
  GROUP BY name HAVING max(a) IS NOT max(b) ORDER BY name]]

local function title(text, same)
    print(("\n%s%s"):format(text, same and ": the same" or ""))
end

local function listing(name, rows, list)
    title(name, #rows == 0)
    if #rows == 0 then return end
    print((("\n" .. format.format("plain", rows, list)):gsub("\n", "\n  "):sub(2)))
end

local function write_temporary(text)
    local path = os.tmpname()
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
    return path
end

-- Unified difference by diff(1), which every Debian has.
local function text_difference(a, b)
    local x, y = write_temporary(a), write_temporary(b)
    local p = io.popen(("diff -U2 --label a --label b '%s' '%s'"):format(x, y))
    local out = p and p:read("a") or ""
    if p then p:close() end
    os.remove(x)
    os.remove(y)
    return (out:gsub("^%-%-%- a\n%+%+%+ b\n", ""))
end

local function show_text(name, store, a, b)
    title(name, a == b)
    if a == b then return end
    if not (a and b) then return print("  only in " .. (a and "the first" or "the second")) end
    local out = text_difference(store.db:get_blob(a), store.db:get_blob(b))
    print("  " .. (format.safe(out, true):gsub("\n$", ""):gsub("\n", "\n  ")))
end

local function environment(store, a, b)
    local function read(id)
        local row = id and store.db:first("SELECT json FROM env WHERE id = ?", id)
        return row and cjson.decode(row.json) or {}
    end
    local x, y, rows = read(a), read(b), {}
    for k in pairs(x) do
        if y[k] ~= x[k] then rows[#rows + 1] = { key = k, a = format.text(x[k]), b = format.text(y[k]) } end
    end
    for k in pairs(y) do
        if x[k] == nil then rows[#rows + 1] = { key = k, a = "", b = format.text(y[k]) } end
    end
    table.sort(rows, function(p, q) return p.key < q.key end)
    return rows
end

local function curves(store, a, b)
    local rows = store.db:rows(CURVES, a.id, b.id)
    for _, r in ipairs(rows) do
        if r.parts then
            for v in store.db:each(VALUES, a.id, b.id, r.name, r.parts) do
                r[v.run == a.id and "a" or "b"] = v.value or "nan"
            end
        else
            r.parts = "equal"
        end
        r.first, r.series = r.parts, r.name
    end
    return rows
end

function command.run(args)
    local store = cli.results(args)
    local a = cli.guard(cli.USAGE, store.find, store, args.a)
    local b = cli.guard(cli.USAGE, store.find, store, args.b)
    local x, y = store.db:first(IDENTITY, a.id), store.db:first(IDENTITY, b.id)
    local function named(r)
        return ("run %d %s seed %d (%s)"):format(r.id, format.cut(format.safe(r.name)), r.seed, store:state(r))
    end
    print(("a: %s\nb: %s"):format(named(a), a.id == b.id and "the same run" or named(b)))
    local rows = {}
    for _, key in ipairs { "experiment", "kind", "name", "seed", "parent", "git", "argv" } do
        if x[key] ~= y[key] then
            rows[#rows + 1] = { field = key, a = format.text(x[key]), b = format.text(y[key]) }
        end
    end
    listing("run", rows, { "field", "a", "b" })
    listing("configuration", store.db:rows(PARAMS, a.id, b.id), { "key", "a", "b" })
    show_text("script", store, x.script, y.script)
    for _, f in ipairs(store.db:rows(SOURCES, a.id, b.id)) do
        show_text("file " .. format.safe(f.name), store, f.a, f.b)
    end
    show_text("uncommitted changes", store, x.diff, y.diff)
    listing("environment", environment(store, x.env, y.env), { "key", "a", "b" })
    local numbers = store.db:rows(NUMBERS, a.id, b.id)
    for _, r in ipairs(numbers) do r["b - a"] = r.a and r.b and r.b - r.a or nil end
    listing("final numbers", numbers, { "dataset", "split", "metric", "a", "b", "b - a" })
    local parts = curves(store, a, b)
    if #parts > 0 then
        title("curves: the first step where they part")
        print((("\n" .. format.format("plain", parts, { "series", "first", "a", "b", "steps" }))
            :gsub("\n", "\n  "):sub(2)))
    end
    for name, pair in pairs { ["only in a"] = { a.id, b.id }, ["only in b"] = { b.id, a.id } } do
        local list = {}
        for r in store.db:each(ONLY, pair[1], pair[2]) do list[#list + 1] = format.safe(r.name) end
        if #list > 0 then print(("  %s: %s"):format(name, table.concat(list, ", "))) end
    end
    return cli.DONE
end

return command

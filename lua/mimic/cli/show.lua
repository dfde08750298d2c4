-- mimic show: all about one run.
local cjson = require "cjson"
local m = require "mimic"
local cli = require "mimic.cli"
local command_line = require "mimic.command_line"
local tables = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "everything about one run",
    description = [[
Shows a run: state, results, parameters, series, checkpoints, environment, events and,
with --script, the script text it ran.]],
    examples = [[
  mimic show 12
  mimic show mimic --params
  mimic show 12 --script > as-it-ran.lua]],
}

function command.configure(p)
    p:argument("run"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
    p:flag("--params"):description("only the parameters")
    p:flag("--script"):description("only the text of the script")
end

local function section(title, rows, columns)
    if #rows == 0 then return end
    print("\n" .. title)
    print((("\n" .. tables.format("plain", rows, columns)):gsub("\n", "\n  "):sub(2)))
end

-- What made the run, to be typed in its folder. A trial of exp:sweep is one of many; one of `mimic sweep -m` is what
-- its script does with the point's values.
local function command_of(db, id, argv)
    local in_sweep = db:first([[SELECT 1 AS x FROM trial t JOIN sweep s ON s.id = t.sweep
      WHERE t.run = ? AND json_extract(s.spec, '$.multirun') = 0]], id)
    local words = { in_sweep and "sweep" or "run", argv.script, table.unpack(argv.words) }
    if argv.device then table.move({ "--device", argv.device }, 1, 2, #words + 1, words) end
    return command_line.of(table.unpack(words))
end

function command.run(args)
    local store = cli.results(args)
    local db = store.db
    local r = cli.guard(cli.USAGE, store.find, store, args.run)
    local extra = db:first([[SELECT lower(hex(script)) AS script, argv, git, env, error, attempt, note
      FROM run WHERE id = ?]], r.id)
    if args.script then
        io.write(store.db:get_blob(extra.script))
        return cli.DONE
    end
    local params = db:rows("SELECT key, txt AS value FROM param WHERE run = ? ORDER BY key", r.id)
    if args.params then
        print(tables.format("plain", params, { "key", "value" }))
        return cli.DONE
    end
    r.state = store:state(r)
    local last = r.state == "running" and m.sys.time() or r.ended or r.heartbeat
    print(("run %d  %s  (%s, seed %d, experiment %s)"):format(r.id, tables.safe(r.name), tables.safe(r.kind),
        r.seed, tables.safe(r.experiment_name)))
    local function line(key, value)
        if value and value ~= "" then print(("  %-12s %s"):format(key, tables.safe(value))) end
    end
    line("uid", r.uid)
    line("state", r.state .. (extra.attempt > 1 and (" (attempt %d)"):format(extra.attempt) or ""))
    line("deleted", r.deleted and tables.when(r.deleted) .. ", `mimic undelete` brings it back")
    line("note", extra.note)
    local tags = {}
    for i, t in ipairs(upkeep.tags(store, r.id)) do
        tags[i] = t.value ~= "" and t.key .. "=" .. t.value or t.key
    end
    line("tags", table.concat(tags, "  "))
    for a in db:each("SELECT ref, row FROM paper_run WHERE run = ? ORDER BY ref, row", r.id) do
        line("answers", a.ref .. ": " .. a.row)
    end
    line("step", tostring(r.step))
    line("begun", tables.when(r.started))
    line("took", r.started and last and tables.duration((last - r.started) / 1000))
    if r.parent then
        local p = store:run(r.parent)
        line("parent", ("%d %s seed %d"):format(p.id, p.name, p.seed))
    end
    for c in db:each("SELECT id, name, seed FROM run WHERE parent = ? AND deleted IS NULL ORDER BY id", r.id) do
        line("child", ("%d %s seed %d"):format(c.id, c.name, c.seed))
    end
    line("golden", store:golden(r.id))
    line("git", extra.git)
    if extra.argv then
        line("command", command_of(db, r.id, cjson.decode(extra.argv)))
    end
    if extra.error then
        print("  error")
        print("    " .. tables.safe(extra.error, true):gsub("\n", "\n    "))
    end
    section("results", db:rows([[SELECT dataset, split, metric, value, n, step FROM result WHERE run = ?
      ORDER BY 1, 2, 3]], r.id),
        { "dataset", "split", "metric", "value", "n", "step" })
    section("series", db:rows([[SELECT name, n, last, last_step, lo, lo_step, hi, hi_step, bad_n FROM series
      WHERE run = ? AND n > 0
      ORDER BY name]], r.id), { "name", "n", "last", "last_step", "lo", "lo_step", "hi", "hi_step", "bad_n" })
    section("checkpoints",
        db:rows([[SELECT step, keep, value, bytes, substr(lower(hex(sha256)), 1, 12) AS sha, path FROM
          checkpoint
      WHERE run = ? AND deleted IS NULL ORDER BY step]], r.id), { "step", "keep", "value", "bytes", "sha",
        "path" })
    section("artifacts", db:rows([[SELECT a.name, a.step, a.kind, b.bytes FROM artifact a
      JOIN blob b ON b.sha256 = a.sha256 WHERE a.run = ? ORDER BY a.name, a.step]], r.id),
        { "name", "step", "kind", "bytes" })
    section("parameters", params, { "key", "value" })
    local env = extra.env and db:first("SELECT json FROM env WHERE id = ?", extra.env)
    if env then
        local rows = {}
        for k, v in pairs(cjson.decode(env.json)) do rows[#rows + 1] = { key = k, value = v } end
        table.sort(rows, function(a, b) return a.key < b.key end)
        for _, row in ipairs(rows) do row.value = tables.text(row.value) end
        section("environment", rows, { "key", "value" })
    end
    local events = db:rows("SELECT t, code, msg FROM event WHERE run = ? ORDER BY id", r.id)
    for _, e in ipairs(events) do
        e.when = tables.when(e.t)
        e.msg = e.msg:match("^[^\n]*")
    end
    section("events", events, { "when", "code", "msg" })
    return cli.DONE
end

return command

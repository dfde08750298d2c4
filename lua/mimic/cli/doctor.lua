-- mimic doctor: is the results file whole, and everything it speaks of there?
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local command_line = require "mimic.command_line"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "check the results file, its checkpoints and contents, and the machine",
    description = [[
Checks the results file: its pages and references, summaries of curves against their points,
checkpoints and contents against their recorded sizes (with --deep against their hashes),
runs whose process is gone, room on the disk. Says what to do about each finding. Changes
nothing. Exit code 3 when something recorded is damaged or missing.]],
    examples = [[
  mimic doctor
  mimic doctor --deep]],
}

function command.configure(p)
    p:flag("--deep"):description("read every checkpoint and content and check its hash")
end

local bad

local function report(state, text, ...)
    if state == "BAD" then bad = bad + 1 end
    print(("%-4s  %s"):format(state, format.safe(text:format(...))))
end

local rescue -- the commands that save what can be read of a damaged file

local SUMMARY = [[SELECT s.run, s.name FROM series s LEFT JOIN (
    SELECT series, count(*) AS n, max(step) AS last_step, min(value) AS lo, max(value) AS hi,
      count(*) - count(value) AS bad_n FROM metric GROUP BY series) k ON k.series = s.id
  WHERE s.n <> coalesce(k.n, 0) OR s.last_step IS NOT k.last_step OR s.lo IS NOT k.lo OR s.hi IS NOT k.hi
    OR s.bad_n <> coalesce(k.bad_n, 0) LIMIT 20]]

local function pages(db)
    local rows = db:rows "PRAGMA integrity_check"
    local text = rows[1] and rows[1].integrity_check or "no answer"
    if text == "ok" then
        report("ok", "pages of the file are whole")
    else
        report("BAD", "integrity_check: %s; keep the file, and take a copy back or see what can be saved:", text)
        report("", "%s", rescue)
    end
    local loose = db:rows "PRAGMA foreign_key_check"
    if #loose > 0 then
        report("BAD", "%d rows refer to rows that are not there, first in table %s", #loose, loose[1].table)
    else
        report("ok", "references between rows")
    end
    local wrong = db:rows(SUMMARY)
    for _, r in ipairs(wrong) do
        report("BAD", "run %d: the summary of series %s does not fit its points", r.run, r.name)
    end
    if #wrong == 0 then report("ok", "summaries of curves fit their points") end
end

local function checkpoints(store, deep)
    local n, wrong, elsewhere = 0, 0, 0
    for c in store.db:each([[SELECT c.run, c.step, c.path, c.bytes, lower(hex(c.sha256)) AS sha,
        EXISTS(SELECT 1 FROM event e WHERE e.run = c.run AND e.code = 'merged') AS merged FROM checkpoint c
      JOIN run r ON r.id = c.run WHERE c.deleted IS NULL AND r.deleted IS NULL ORDER BY c.run, c.step]]) do
        n = n + 1
        local path = store:file(c.path)
        local size = lfs.attributes(path, "size")
        local why
        if not size and c.merged == 1 then
            elsewhere = elsewhere + 1
        elseif not size then
            why = "is missing"
        elseif size ~= c.bytes then why = ("has %d bytes instead of %d"):format(size, c.bytes)
        elseif deep and m.sha256_file(path) ~= c.sha then why = "does not match its recorded hash" end
        if why then
            wrong = wrong + 1
            report("BAD", "run %d step %d: %s %s; `mimic resume` falls back to an earlier one", c.run, c.step,
                c.path, why)
        end
    end
    if elsewhere > 0 then
        report("note", "%d checkpoints of merged runs are not here: mimic merge does not copy them", elsewhere)
    end
    if wrong == 0 then
        report("ok", "%d checkpoints are there%s", n - elsewhere, deep and ", with their hashes" or "")
    end
end

local function contents(store, deep)
    local n, wrong = 0, 0
    for b in store.db:each "SELECT lower(hex(sha256)) AS sha, bytes, path FROM blob" do
        n = n + 1
        local why
        if b.path and lfs.attributes(store.path .. ".files/" .. b.path, "size") ~= b.bytes then
            why = "is missing or has another size"
        elseif deep then
            local ok, text = pcall(store.db.get_blob, store.db, b.sha)
            if not ok then why = text end
        end
        if why then
            wrong = wrong + 1
            report("BAD", "content %s %s", b.sha:sub(1, 12), why)
        end
    end
    if wrong == 0 then report("ok", "%d contents are there%s", n, deep and ", with their hashes" or "") end
end

local function runs(store)
    local lost = 0
    for r in store.db:each [[SELECT id, uid, name, seed, state FROM run WHERE state = 'running' AND deleted IS NULL]] do
        if store:state(r) == "lost" then
            lost = lost + 1
            report("note", "run %d %s seed %d: its process is gone; `mimic resume %d` continues it", r.id, r.name,
                r.seed, r.id)
        end
    end
    if lost == 0 then report("ok", "no run has lost its process") end
    local plan = upkeep.plan(store)
    local bytes = 0
    for _, f in ipairs(plan.files) do bytes = bytes + f.bytes end
    for _, b in ipairs(plan.blobs) do bytes = bytes + b.bytes end
    if #plan.runs + #plan.files + #plan.blobs > 0 then
        report("note", "%d removed runs, %d stray files and %d contents hold %.1f MiB; `mimic gc` frees them",
            #plan.runs, #plan.files, #plan.blobs, bytes / 2 ^ 20)
    end
end

local function room(store)
    local free = m.sys.free_bytes(store.dir)
    local largest = store.db:first("SELECT max(bytes) AS n FROM checkpoint").n or 0
    if free and free < 3 * largest + 64 * 2 ^ 20 then
        report("note", "%s has %.0f MiB free; a checkpoint takes up to %.0f MiB; `mimic gc`, or keep = { last = 1 }",
            store.dir, free / 2 ^ 20, largest / 2 ^ 20)
    elseif free then
        report("ok", "%.1f GiB free in %s", free / 2 ^ 30, store.dir)
    end
end

local function examine(args)
    bad = 0
    local store = cli.results(args)
    local v = store.db:first "PRAGMA user_version"
    report("ok", "%s, schema version %d, SQLite %s, mimic %s", store.path, v.user_version,
        store.db:first("SELECT sqlite_version() AS v").v, m.version)
    cli.guard(cli.DATABASE, pages, store.db)
    checkpoints(store, args.deep)
    contents(store, args.deep)
    runs(store)
    room(store)
    print(bad == 0 and "all is well" or ("%d finding%s of damage"):format(bad, bad == 1 and "" or "s"))
    return bad == 0 and cli.DONE or cli.DATABASE
end

function command.run(args)
    rescue = ("sqlite3 %s .recover | sqlite3 saved.db; mimic --db saved.db doctor"):format(command_line.quote(args.db))
    local ok, code = pcall(examine, args)
    if ok then return code end
    local why = tostring(code)
    if why:find("malformed", 1, true) or why:find("is not a SQLite database", 1, true) then
        cli.fail(cli.DATABASE, "%s\nThe file is damaged. Keep it, and take a copy back or see what can be saved:\n  %s",
            why, rescue)
    end
    error(code, 0)
end

return command

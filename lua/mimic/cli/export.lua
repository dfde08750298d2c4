-- mimic export: a run as a folder of plain files.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local config = require "mimic.config"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "a run as a folder of plain files: JSON, CSV, script, pictures, weights",
    description = [[
Writes what a run recorded: run.json (all of its row, parameters, results, tags, events,
environment), metrics.csv, confusion.csv, script.lua, sources/, artifacts/, and with
--weights its final checkpoint. Without -o the folder is export-UID in the current folder.
It must be new or empty: nothing is overwritten. What was written is printed.]],
    examples = [[
  mimic export 12
  mimic export 12 -o for-the-paper/run12 --weights]],
}

function command.configure(p)
    p:argument("run"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
    p:option("-o --out"):argname("DIR"):description("the folder to write (default: export-UID, here)")
    p:flag("--weights"):description("also the final checkpoint, a safetensors file")
end

-- A stored name as a file name: nothing in it can lead elsewhere.
local function file_name(name)
    local s = name:gsub("[^%w._=+-]", "_"):gsub("^%.+", "_")
    return s == "" and "_" or s:sub(1, 120)
end

local suffixes = { ["image/jpeg"] = ".jpg", ["image/png"] = ".png", svg = ".svg", json = ".json", text = ".txt",
    config = "" }

local function artifacts(store, run, out)
    local used = {}
    for a in store.db:each([[SELECT name, step, kind, lower(hex(sha256)) AS sha FROM artifact WHERE run = ?
      ORDER BY name, step]], run.id) do
        local folder = a.kind == "source" and "sources" or "artifacts"
        local name = file_name(a.name)
        if a.kind == "source" then name = name .. ".lua" end
        local step = a.step >= 0 and ("-%d"):format(a.step) or ""
        local path = ("%s/%s%s%s"):format(folder, name, step, suffixes[a.kind] or "")
        while used[path] do path = path .. "_" end
        used[path] = true
        m.sys.mkdirs(out .. "/" .. folder)
        m.sys.write_file_atomic(out .. "/" .. path, store.db:get_blob(a.sha))
    end
end

local function whole(store, run)
    local db = store.db
    local row = db:first([[SELECT r.id, r.uid, e.name AS experiment, r.kind, r.name, r.seed, r.state, r.attempt, r.step,
        r.git, r.argv, r.created, r.started, r.ended, r.error, r.note, lower(hex(r.config_hash)) AS config_hash,
        lower(hex(r.script)) AS script_sha256, p.uid AS parent
      FROM run r JOIN experiment e ON e.id = r.experiment LEFT JOIN run p ON p.id = r.parent WHERE r.id = ?]], run.id)
    local env = db:first("SELECT json FROM env WHERE id = ?", run.env)
    local cjson = require "cjson"
    return config.json {
        mimic = m.version, run = row, environment = env and cjson.decode(env.json) or {},
        config = cjson.decode(store:config_json(run.id)),
        params = db:rows("SELECT key, num, txt FROM param WHERE run = ? ORDER BY key", run.id),
        results = db:rows("SELECT dataset, split, metric, value, n, step FROM result WHERE run = ? ORDER BY 1, 2, 3",
            run.id),
        series = db:rows([[SELECT name, n, last, last_step, lo, lo_step, hi, hi_step, bad_n FROM series
          WHERE run = ? ORDER BY name]], run.id),
        checkpoints = db:rows([[SELECT step, path, lower(hex(sha256)) AS sha256, bytes, value, keep FROM checkpoint
          WHERE run = ? AND deleted IS NULL ORDER BY step]], run.id),
        tags = upkeep.tags(store, run.id),
        answers = db:rows("SELECT ref, row FROM paper_run WHERE run = ? ORDER BY ref, row", run.id),
        events = db:rows("SELECT t, level, code, msg FROM event WHERE run = ? ORDER BY id", run.id),
    }
end

local function copy(from, to)
    local source = assert(io.open(from, "rb"))
    local target = assert(io.open(to, "wb"))
    while true do
        local bytes = source:read(1 << 20)
        if not bytes then break end
        assert(target:write(bytes))
    end
    source:close()
    assert(target:close())
end

-- The checkpoint to export: a pinned one, else the newest.
local function final_checkpoint(store, run)
    local list = store:checkpoints(run.id)
    for _, c in ipairs(list) do
        if c.keep == "pin" then return c end
    end
    return list[1] or error(("run %d has no checkpoint; export it without --weights"):format(run.id), 0)
end

local function write(store, run, out, checkpoint)
    local db = store.db
    m.sys.mkdirs(out)
    m.sys.write_file_atomic(out .. "/run.json", whole(store, run) .. "\n")
    local points = db:rows([[SELECT s.name AS series, k.step, k.t, k.value FROM series s
      JOIN metric k ON k.series = s.id WHERE s.run = ? ORDER BY s.name, k.step]], run.id)
    m.sys.write_file_atomic(out .. "/metrics.csv", format.format("csv", points, { "series", "step", "t", "value" }) ..
        "\n")
    local counts = db:rows([[SELECT dataset, split, truth, pred, n FROM confusion WHERE run = ?
      ORDER BY 1, 2, 3, 4]], run.id)
    if #counts > 0 then
        m.sys.write_file_atomic(out .. "/confusion.csv", format.format("csv", counts,
            { "dataset", "split", "truth", "pred", "n" }) .. "\n")
    end
    local script = db:first("SELECT lower(hex(script)) AS sha FROM run WHERE id = ?", run.id).sha
    if script and script ~= "" then m.sys.write_file_atomic(out .. "/script.lua", db:get_blob(script)) end
    artifacts(store, run, out)
    local c = checkpoint
    if not c then return end
    copy(store:file(c.path), ("%s/step-%d.safetensors"):format(out, c.step))
    local sha = m.sha256_file(("%s/step-%d.safetensors"):format(out, c.step))
    if sha ~= c.sha then error(("%s does not match its recorded hash"):format(c.path), 0) end
end

-- The names in a folder, sorted; folders end in a slash.
local function names(folder)
    local list = {}
    for name in lfs.dir(folder) do
        if name ~= "." and name ~= ".." then
            local slash = lfs.attributes(folder .. "/" .. name, "mode") == "directory" and "/" or ""
            list[#list + 1] = name .. slash
        end
    end
    table.sort(list)
    return list
end

function command.run(args)
    local store = cli.results(args)
    local run = cli.guard(cli.USAGE, store.find, store, args.run)
    local out = args.out or "export-" .. run.uid
    if lfs.attributes(out) then
        if lfs.attributes(out, "mode") ~= "directory" then cli.fail(cli.USAGE, "%s is no folder", out) end
        if #names(out) > 0 then cli.fail(cli.USAGE, "%s is not empty; name a new folder by -o", out) end
    end
    -- Looked for before anything is written: what is refused leaves no folder behind.
    local checkpoint = args.weights and cli.guard(cli.FAILED, final_checkpoint, store, run)
    cli.guard(cli.FAILED, write, store, run, out, checkpoint)
    local here = out:sub(1, 1) == "/" and "" or " in " .. lfs.currentdir()
    print(("wrote %s%s: %s"):format(out, here, table.concat(names(out), ", ")))
    return cli.DONE
end

return command

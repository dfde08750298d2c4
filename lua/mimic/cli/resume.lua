-- mimic resume: continues a run from the script text, required files and overrides stored with it.
local cjson = require "cjson"
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local experiment = require "mimic.experiment"
local format = require "mimic.format"
local run_command = require "mimic.cli.run"

local command = {
    summary = "continue an interrupted, failed or crashed run",
    description = [[
Continues a run from its last good checkpoint, by the script text that was stored when the
run was made: changes of the file since then do not matter. Metrics after the checkpoint
are written again; curves and weights come out as if nothing had happened. Runs of the
same script that come after it are carried out too.]],
    examples = [[
  mimic ls --state interrupted
  mimic resume 12
  mimic resume 3fa9]],
}

function command.configure(p)
    p:argument("run"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
end

local function preload(store, id)
    local files = {}
    local rows = store.db:rows([[SELECT name, lower(hex(sha256)) AS sha FROM artifact WHERE run = ? AND kind
      = 'source'
      ORDER BY name]], id)
    for i, f in ipairs(rows) do
        local text = store.db:get_blob(f.sha)
        files[i] = { name = f.name, text = text }
        package.preload[f.name] = function(...) return assert(load(text, "@" .. f.name, "t"))(...) end
    end
    return files
end

function command.run(args)
    local store = cli.results(args)
    local row = cli.guard(cli.USAGE, store.find, store, args.run)
    if row.state == "done" then
        print(format.safe(("run %d %s is done: %s"):format(row.id, row.name, store:golden(row.id) or "")))
        return cli.DONE
    end
    local script = store.db:first("SELECT lower(hex(script)) AS sha, argv FROM run WHERE id = ?", row.id)
    local argv = cjson.decode(script.argv)
    local words = {}
    for i, w in ipairs(argv.words) do words[i] = w end
    local files = preload(store, row.id)
    local text = store.db:get_blob(script.sha)
    store:close()
    experiment.options.db = m.sys.realpath(args.db)
    experiment.options.device = argv.device
    if not args.C and lfs.attributes(argv.cwd, "mode") == "directory" then lfs.chdir(argv.cwd) end
    return run_command.execute { path = argv.script, text = text, words = words, files = files }
end

return command

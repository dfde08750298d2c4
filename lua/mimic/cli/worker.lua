-- mimic worker: takes trials of sweeps from the results file and executes them by the stored script.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local experiment = require "mimic.experiment"
local multirun = require "mimic.sweep.multirun"
local pool = require "mimic.sweep.pool"
local run_command = require "mimic.cli.run"
local space = require "mimic.sweep.space"
local sweep = require "mimic.sweep"

local command = {
    summary = "take trials of open sweeps and execute them",
    description = [[
Takes trials of the open sweeps, or of one, until none is left. Any number of workers may
run on one results file, started and stopped at any time. A worker executes the script
text that was stored when the sweep was made. Ctrl-C once: finish the step, checkpoint,
give the trial back. Twice: stop now; the trial is taken back as lost.]],
    examples = [[
  mimic worker
  mimic worker --sweep tau-lambda
  mimic worker --gpus all          one worker process for each GPU
  mimic worker --gpus 0,2]],
}

function command.configure(p)
    p:option("--sweep"):argname("NAME"):description("name or beginning of the uid; default: all open ones")
    p:option("--gpus"):argname("LIST"):description("all, or numbers: a worker process for each")
    p:flag("--shard"):description("work on a database of its own, as a task of a Slurm array")
end

---Rows of the open sweeps of this name or uid.
---@param store table
---@param name string|nil
function command.open(store, name)
    if not name then return (store.db:rows "SELECT * FROM sweep WHERE state = 'open' ORDER BY id") end
    local row = sweep.find(store, name)
    return row.state == "open" and { row } or {}
end

local loaded = {} -- names of files that the last script required

local function preload(files)
    for _, name in ipairs(loaded) do package.loaded[name], package.preload[name] = nil, nil end
    loaded = {}
    for _, f in ipairs(files) do
        package.preload[f.name] = function(...) return assert(load(f.text, "@" .. f.name, "t"))(...) end
        loaded[#loaded + 1] = f.name
    end
end

---Executes the stored script of a sweep as its worker.
---@param store table
---@param row table of the table sweep
---@return integer exit code
function command.work(store, row)
    local script, spec = sweep.script_of(store, row)
    local opts = experiment.options
    opts.worker = row.uid
    opts.continue_with = "mimic worker --sweep " .. row.name
    preload(script.files)
    _G.print = function() end -- the script's own output is the business of who declared the sweep
    if lfs.attributes(spec.cwd, "mode") == "directory" then lfs.chdir(spec.cwd) end
    if not spec.multirun then return run_command.execute(script) end
    local domains = {}
    for key, plain in pairs(require("cjson").decode(row.space)) do domains[key] = space.from(plain) end
    return run_command.execute(script, function()
        multirun.run(script, { name = row.name, space = domains, words = spec.words, sampler = row.sampler,
            trials = math.tointeger(spec.trials), metric = row.metric, goal = row.goal, seed = row.seed,
            seeds = spec.seeds, experiment = spec.experiment })
    end)
end

-- A process for each GPU.
local function per_gpu(args)
    local gpus = cli.guard(cli.USAGE, pool.gpu_list, args.gpus)
    local children, worst = {}, cli.DONE
    for i, gpu in ipairs(gpus) do
        local words = { m.sys.realpath("/proc/self/exe"), "worker", "--db", args.db, "--quiet" }
        if args.sweep then
            words[#words + 1] = "--sweep"
            words[#words + 1] = args.sweep
        end
        children[i] = m.sys.spawn(words, { "CUDA_VISIBLE_DEVICES=" .. gpu })
    end
    local told = 0
    while next(children) do
        if m.interrupted() > told then
            told = m.interrupted()
            for _, pid in pairs(children) do m.sys.kill(pid, "INT") end
        end
        for i, pid in pairs(children) do
            local code = m.sys.wait(pid)
            if code then
                children[i] = nil
                worst = math.max(worst, code)
            end
        end
        m.sys.sleep(0.05)
    end
    return worst
end

function command.run(args)
    if args.shard then
        if not args.sweep then cli.fail(cli.USAGE, "--shard needs --sweep UID") end
        return cli.guard(cli.FAILED, require("mimic.sweep.slurm").task, args.db, args.sweep, command.work)
    end
    local store = cli.results(args, true)
    args.db = m.sys.realpath(args.db) -- the script may have been started in another folder
    experiment.options.db = args.db
    if args.gpus then
        store:close()
        return per_gpu(args)
    end
    local seen, worst = {}, cli.DONE
    while true do
        local row
        for _, r in ipairs(cli.guard(cli.USAGE, command.open, store, args.sweep)) do
            if not seen[r.uid] then row = row or r end
        end
        if not row then break end
        seen[row.uid] = true
        local code = command.work(store, row)
        worst = math.max(worst, code)
        if code == cli.INTERRUPTED or code == cli.STOPPED then break end
    end
    store:close()
    if next(seen) == nil then io.stderr:write("mimic: no sweep is open here; `mimic sweep ls` lists them\n") end
    return worst
end

return command

-- mimic worker: takes trials of sweeps from the results file and executes them by the stored script.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local command_line = require "mimic.command_line"
local experiment = require "mimic.experiment"
local find = require "mimic.sweep.find"
local multirun = require "mimic.sweep.multirun"
local pool = require "mimic.sweep.pool"
local progress = require "mimic.progress"
local run_command = require "mimic.cli.run"
local space = require "mimic.sweep.space"
local sweep = require "mimic.sweep"
local usual_db = require("mimic.results").default_path

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
    p:option("--device"):argname("NAME"):description("compute there; default: as the sweep was declared")
    p:option("--continue-with"):argname("COMMAND"):hidden(true) -- of whoever starts workers, for their messages
    p:option("--retry-with"):argname("COMMAND"):hidden(true)
    p:flag("--shard"):description("work on a database of its own, as a task of a Slurm array")
end

---Rows of the open sweeps of this name or uid.
---@param store table
---@param name string|nil
function command.open(store, name)
    if not name then return (store.db:rows "SELECT * FROM sweep WHERE state = 'open' ORDER BY id") end
    local row = find.one(store.db, name)
    return row.state == "open" and { row } or {}, row
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
    opts.device = opts.device or spec.device or nil
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
        local words = pool.worker_words()
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

-- Why there is nothing to do for a sweep that was asked for.
local function not_open(row)
    if row.state == "done" then
        return ("sweep %s (%s) is done; `%s` shows its trials"):format(row.name, row.uid,
            command_line.of("sweep", "show", row.uid))
    end
    return ("sweep %s (%s) is %s; `%s` opens it again"):format(row.name, row.uid, row.state,
        command_line.of("sweep", "resume", row.uid))
end

function command.run(args)
    if args.shard then
        local slurm = require "mimic.sweep.slurm"
        if not args.sweep then cli.fail(cli.USAGE, "--shard needs --sweep UID") end
        if not slurm.is_task() then
            cli.fail(cli.USAGE, "--shard is for tasks of a Slurm job array (`mimic sweep FILE.lua --slurm` makes one)")
        end
        return cli.guard(cli.FAILED, slurm.task, args.db, args.sweep, command.work)
    end
    local store = cli.results(args, true)
    local opts = experiment.options
    opts.device, opts.continue_with, opts.retry_with = args.device, args.continue_with, args.retry_with
    if args.continue_with then progress.share() end
    opts.usual_db = args.db == usual_db and m.sys.realpath(args.db) or nil
    args.db = m.sys.realpath(args.db) -- the script may have been started in another folder
    opts.db = args.db
    if args.gpus then
        store:close()
        return per_gpu(args)
    end
    local seen, worst, said = {}, cli.DONE, nil
    while true do
        local row
        local list, asked = cli.guard(cli.USAGE, command.open, store, args.sweep)
        if asked and #list == 0 and next(seen) == nil then said = not_open(asked) end
        for _, r in ipairs(list) do
            if not seen[r.uid] then row = row or r end
        end
        if not row then break end
        seen[row.uid] = true
        local code = command.work(store, row)
        worst = math.max(worst, code)
        if code == cli.INTERRUPTED or code == cli.STOPPED then break end
    end
    store:close()
    if next(seen) == nil then
        progress.complain("%s", said or "no sweep is open here; `mimic sweep ls` lists them")
    end
    return worst
end

return command

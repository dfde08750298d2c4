-- mimic sweep: runs a script whose points are shared out among workers, and looks after sweeps.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local command_line = require "mimic.command_line"
local experiment = require "mimic.experiment"
local find = require "mimic.sweep.find"
local multirun = require "mimic.sweep.multirun"
local pool = require "mimic.sweep.pool"
local queue = require "mimic.sweep.queue"
local space = require "mimic.sweep.space"
local run_command = require "mimic.cli.run"
local suggest = require "mimic.suggest"
local syntax = require "mimic.override.syntax"
local format = require "mimic.format"

local command = {
    hands_on = true, -- words behind --
    summary = "search over configurations, by any number of workers",
    description = [[
mimic sweep FILE.lua runs a script that declares sweeps (exp:sweep, exp:ablation), their
trials executed by --workers processes. With -m any script becomes a sweep: keys with
several values are its space, and the script is run once for each point. The same command
goes on with the same sweep: --trials is a total.
Several values: a,b,c  0..4  range(lo,hi,step), ends included  choice(a,b)
and for --sampler random, sobol or tpe also int(lo,hi)  uniform(lo,hi)  log(lo,hi).
--slurm goes through the script first as in a dry run, to refuse early.
mimic sweep ls | show NAME | pause NAME | resume NAME [--failed | --lost] | cancel NAME:
a NAME is a sweep's name or the beginning of its uid; `best` is a mean over seeds.]],
    examples = [[
  mimic sweep experiments/sweep_tau_lambda.lua --workers 2
  mimic sweep fer.lua -m mscl.tau=0.05,0.1,0.2 'mscl.weight=range(0.1,0.9,0.2)' seed=0..2
  mimic sweep fer.lua -m 'lr=log(1e-5,1e-2)' --sampler tpe --trials 50 --workers 4
  mimic sweep fer.lua --gpus all
  mimic sweep fer.lua --enqueue && mimic worker        workers of your own
  mimic sweep fer.lua --slurm -- --partition=gpu --gres=gpu:1 --array=0-15%4
  mimic sweep resume tau-lambda --failed]],
}

function command.configure(p)
    p:argument("what"):argname("FILE.lua|VERB"):description("a script, or ls, show, pause, resume, cancel")
    p:argument("words"):argname("key=value|NAME"):args("*"):description("overrides, or the name of a sweep")
    p:flag("-m --multirun"):description("run the whole script for every combination of values")
    p:option("--name"):argname("NAME"):description("name of the -m sweep; default: the script's")
    p:option("--sampler"):argname("NAME"):description("grid, random, sobol or tpe (with -m)")
    p:option("--trials"):argname("N"):description("number of points in all (with -m)"):convert(cli.integer)
    p:option("--metric"):argname("NAME"):description("what is searched for, such as val/acc (with -m)")
    p:option("--goal"):argname("GOAL"):description("max or min (with -m)")
    p:option("--seed"):argname("N"):description("seed of the search (with -m)"):convert(cli.integer)
    p:option("--workers"):argname("N"):description("worker processes on this machine"):convert(cli.integer)
    p:option("--gpus"):argname("LIST"):description("all, or numbers such as 0,2: shared out among the workers")
    p:option("--device"):argname("NAME"):description("compute there: cpu or cuda (see mimic devices)")
    p:flag("--slurm"):description("submit a job array; words behind -- go to sbatch")
    p:flag("--enqueue"):description("queue the trials and end: workers take them (mimic worker)")
    p:flag("--fail-fast"):description("stop at the first trial that fails")
    p:option("--max-failures"):argname("N"):convert(cli.integer)
        :description("stop when N trials have failed in all; what then runs ends first")
    p:flag("--lf"):description("run the trials that failed last time again, first")
    p:flag("--failed"):description("resume: the failed trials too")
    p:flag("--lost"):description("resume: the trials whose workers died too")
    p:flag("--dry-run"):description("show what would be done")
    format.options(p)
end

local verbs = {}

local function named(args, store)
    local name = args.words[1]
    if not name then cli.fail(cli.USAGE, "mimic sweep %s NAME; `mimic sweep ls` lists the names", args.what) end
    return cli.guard(cli.USAGE, find.one, store.db, name)
end

function verbs.ls(args)
    local store = cli.results(args)
    local rows, columns = store.db:rows [[SELECT s.uid, l.id, l.name, l.state, l.sampler, l.metric, l.goal, l.trials,
      l.done, l.running, l.waiting, l.failed, l.pruned, l.best FROM sweep_list l JOIN sweep s ON s.id = l.id
      ORDER BY l.id DESC]]
    if #rows == 0 and not (args.csv or args.json) then
        io.stderr:write("no sweeps\n")
        return cli.DONE
    end
    print(format.format(format.chosen(args), rows, columns))
    return cli.DONE
end

function verbs.show(args)
    local store = cli.results(args)
    local row = named(args, store)
    local rows = store.db:rows([[SELECT t.number, t.params, t.seed, t.state, t.attempt, t.rung, t.value, t.run,
        t.error FROM trial t WHERE t.sweep = ?
        ORDER BY t.state <> 'done', CASE ? WHEN 'max' THEN -t.value ELSE t.value END,
        t.number]], row.id, row.goal)
    local plain = not (args.csv or args.json)
    if plain then
        print(format.safe(("sweep %s (%s)  %s  %s  %s %s  seed %d"):format(row.name, row.uid, row.state, row.sampler,
            row.goal, row.metric, row.seed)))
        print(format.safe("space " .. row.space .. (row.pruner and "  pruner " .. row.pruner or "")))
        for _, r in ipairs(rows) do
            r.params = space.label(require("cjson").decode(r.params))
            r.error = r.error and r.error:match("^[^\n]*")
            r.value = r.value and ("%.6g"):format(r.value)
        end
    end
    print(format.format(format.chosen(args), rows,
        { "number", "params", "seed", "state", "attempt", "rung", "value", "run", "error" }))
    return cli.DONE
end

-- Sets the state; `say` has the name, and the command that goes on or works on it.
local function change(args, state, say, ...)
    local store = cli.results(args, true)
    local row = named(args, store)
    local n = state == "open" and (args.failed or args.lost) and queue.retry(store, row.id, not args.failed) or 0
    if row.state == "done" and n == 0 then -- it stays so
        store:close()
        cli.fail(cli.USAGE, "sweep %s (%s) is done: there is nothing to %s%s", row.name, row.uid, args.what,
            state == "open" and not args.failed and " (--failed: the trials that failed)" or "")
    end
    queue.set_state(store, row.id, state)
    local words = { ... }
    words[#words + 1] = row.uid
    print(format.safe((say:gsub("%%(%l)", { s = row.name, n = n, c = command_line.of(table.unpack(words)) }))))
    store:close()
    return cli.DONE
end

function verbs.pause(args)
    return change(args, "paused", "%s is paused: its workers end after their trials; `%c` goes on", "sweep", "resume")
end

function verbs.cancel(args)
    return change(args, "cancelled",
        "%s is cancelled: what waits is dropped, what runs is saved and stops; `%c` goes on", "sweep", "resume")
end

function verbs.resume(args)
    return change(args, "open", "%s is open, %n trials are tried again; `%c` works on it", "worker", "--sweep")
end

local function options(args)
    local opts = experiment.options
    for _, key in ipairs { "slurm", "enqueue" } do
        for _, other in ipairs { "workers", "gpus", "enqueue" } do
            if args[key] and args[other] and key ~= other then
                cli.fail(cli.USAGE, "--%s and --%s do not go together", key, other)
            end
        end
    end
    opts.enqueue = args.enqueue
    opts.dry_run, opts.retry, opts.device = args.dry_run, args.lf, args.device
    if args.workers and args.workers < 1 then cli.fail(cli.USAGE, "--workers %d: 1 or more", args.workers) end
    if args.max_failures and args.max_failures < 1 then
        cli.fail(cli.USAGE, "--max-failures %d: 1 or more", args.max_failures)
    end
    opts.max_failures = args.fail_fast and 1 or args.max_failures
    local gpus = args.gpus and cli.guard(cli.USAGE, pool.gpu_list, args.gpus)
    if args.workers or gpus then opts.pool = { workers = args.workers or #gpus, gpus = gpus } end
    if args.slurm then
        opts.slurm = args.after or {}
    elseif args.after then
        cli.fail(cli.USAGE, "words behind -- are for --slurm")
    end
end

-- A script goes up to its first sweep as in a dry run: what a job array cannot carry out is refused before the sweep's
-- parents run. Any other fault is for the true run to tell, and so are warnings.
local function refuse_early(script)
    local opts, progress = experiment.options, require "mimic.progress"
    local before, say, complain = { opts.dry_run, opts.collect, opts.planned }, print, progress.complain
    opts.dry_run, opts.collect, opts.only_checks = true, {}, true
    _G.print, progress.complain = function() end, function() end
    local ok, err = pcall(run_command.execute, script)
    _G.print, progress.complain = say, complain
    opts.dry_run, opts.collect, opts.planned = table.unpack(before, 1, 3)
    opts.only_checks, opts.cost = false, nil
    cli.stop_if_asked()
    if not ok and tostring(err):find("--slurm: ", 1, true) then error(err, 0) end
end

local function run_script(args)
    local text, why = m.sys.read_file(args.what)
    if not text then cli.fail(cli.USAGE, "%s", why) end
    options(args)
    if not args.multirun then
        for _, key in ipairs { "name", "sampler", "trials", "metric", "goal", "seed" } do
            if args[key] then
                cli.fail(cli.USAGE, "--%s goes with -m; without it the script's exp:sweep says it", key)
            end
        end
        local script = { path = args.what, text = text, words = args.words }
        if args.slurm then refuse_early(script) end
        return run_command.execute(script)
    end
    local words, domains = cli.guard(cli.USAGE, syntax.multi, args.words)
    local script = { path = args.what, text = text, words = words }
    local name = args.name or args.what:match("([^/]+)%.lua$")
    return run_command.execute(script, function()
        multirun.run(script, { name = name, space = domains, words = words, sampler = args.sampler,
            trials = args.trials, metric = args.metric, goal = args.goal, seed = args.seed })
    end)
end

function command.run(args)
    if verbs[args.what] then
        local extra = args.words[args.what == "ls" and 1 or 2]
        if extra then cli.fail(cli.USAGE, "mimic sweep %s takes no '%s'", args.what, extra) end
        return verbs[args.what](args)
    end
    if lfs.attributes(args.what, "mode") == "file" then return run_script(args) end
    if args.what:find("%.lua$") then cli.fail(cli.USAGE, "no script %s", args.what) end
    local known = {}
    for v in pairs(verbs) do known[#known + 1] = v end
    cli.fail(cli.USAGE, "'%s' is neither a script nor a verb%s: ls, show, pause, resume, cancel", args.what,
        suggest.hint(args.what, known))
end

return command

-- m.experiment: a script's runs, executed once each. A run is identified by task, configuration, seed,
-- script text, required files and parent. Done before: returned. Begun before: continued from its last
-- good checkpoint. Running in a live process: refused.
local m = require "mimic"
local config = require "mimic.config"
local environment = require "mimic.environment"
local execute = require "mimic.execute"
local format = require "mimic.format"
local group = require "mimic.group"
local keep = require "mimic.keep"
local metrics = require "mimic.metrics"
local override = require "mimic.override"
local progress = require "mimic.progress"
local results = require "mimic.results"
local Run = require "mimic.run"

local experiment = {}
local Experiment = {}
Experiment.__index = Experiment

-- Set by `mimic run` and `mimic resume`; a plain `mimic FILE.lua` uses what stands here.
experiment.hook = false -- called with every run before it is executed: by a search over whole scripts
experiment.options = {
    db = results.default_path, -- relative to the working folder
    shard = nil,               -- {index, count}: the part of a sweep's trials that is this process's
    worker = nil,              -- uid of the sweep whose trials this process takes
    typed = nil, typed_at = nil, -- the words of the command, and which of them is its name
    continue_with = nil, retry_with = nil, -- a worker process: the commands of whoever started it
    usual_db = nil,            -- the usual results file under another name, after a change of folder
    pool = nil,                -- {workers, gpus}: a sweep's trials are for worker processes
    script = nil,              -- {path, text, words, files?}: what identifies the runs
    force = false, dry_run = false, fail_fast = false,
    within = false,            -- the script is run by a search over whole scripts
    unfinished = false,        -- a sweep of this process was paused or cancelled before its trials were done
    only_checks = false,       -- a script ends where it has declared its first sweep
    device = nil,              -- over every configuration's own
    failed = {}, planned = 0,
    done = {},                 -- by number of the run: those that came to their end
    collect = nil,             -- a list: runs of a dry run go there instead of to the screen
}

local complain = progress.complain

local kinds = { "pretrain", "finetune", "embed" }
local tasks = {} -- kind -> {defaults, run}
local shared -- results database of this process
local shared_path
local environment_row, source_of -- filled once per process

---Makes a kind of run of the user's own.
---@param kind string
---@param task {defaults: table, run: fun(run: table), defaults_of: (fun(given: table): table)?, check: function?,
---metrics: (fun(cfg: table): metrics.Known)?}
--- defaults_of gives the defaults that hold for a configuration; `defaults` then knows every key;
--- check(cfg, defaults) raises for values that cannot be, before anything runs; metrics(cfg) says what a run will
--- record, so that a sweep's wrong metric is refused before it
function experiment.task(kind, task)
    if type(task) ~= "table" or type(task.run) ~= "function" or type(task.defaults) ~= "table" then
        config.refuse("m.experiment.task(kind, {defaults = {...}, run = function(run) ... end})")
    end
    if not tasks[kind] then kinds[#kinds + 1] = kind end
    tasks[kind] = task
end

local function task_of(kind)
    if not tasks[kind] then
        local known = false
        for _, k in ipairs(kinds) do known = known or k == kind end
        if not known then
            local hint = require("mimic.suggest").hint(tostring(kind), kinds)
            config.refuse("no task '%s'%s; the tasks are %s", kind, hint, table.concat(kinds, ", "))
        end
        tasks[kind] = require("mimic." .. kind)
    end
    return tasks[kind]
end

---Defaults of every task, for checking keys.
---@return table[]
function experiment.task_defaults()
    local out = {}
    for i, kind in ipairs(kinds) do out[i] = task_of(kind).defaults end
    return out
end

---The results database of this process, opened for writing at the first use.
function experiment.store()
    local path = experiment.options.db
    if not shared or shared_path ~= path then
        shared, shared_path = results.open(path, true), path
        environment_row = nil
    end
    return shared
end

-- Raised when a worker has done what it was started for: the rest of the script is not its business.
experiment.Finished = setmetatable({}, { __tostring = function() return "the worker is done" end })

---Makes an open database the one of this process.
---@param store table
---@param path string
function experiment.use(store, path)
    experiment.close()
    experiment.options.db, shared, shared_path = path, store, path
end

---Commits all metrics of this process, so that a reader sees them.
function experiment.flush()
    if shared then shared.db:flush() end
end

---Closes the database (all metrics are on the disk afterwards).
function experiment.close()
    if shared then shared:close() end
    shared, shared_path, environment_row = nil, nil, nil
end

local function script()
    local s = experiment.options.script
    if not s then
        local path = arg and arg[0] or "=stdin"
        s = { path = path, text = m.sys.read_file(path) or path, words = {} }
        experiment.options.script = s
    end
    return s
end

-- Script, required files and git state as blobs: what a run's row refers to.
local function sources(store)
    local s = script()
    local files, list = {}, {}
    for i, f in ipairs(s.files or environment.required_files()) do
        files[i] = { name = f.name, sha = store.db:put_blob(f.text or assert(m.sys.read_file(f.path))) }
        list[i] = f.name .. " " .. files[i].sha
    end
    if not source_of then
        local git = environment.git(environment.dirname(s.path)) or {}
        source_of = { git = git.commit and git.commit .. (git.dirty and "+dirty" or ""), diff = git.diff }
    end
    return {
        script = store.db:put_blob(s.text), files = files, sources = m.sha256(table.concat(list, "\n")),
        git = source_of.git,
        diff = source_of.diff and source_of.diff ~= "" and store.db:put_blob(source_of.diff) or nil,
        argv = config.json { script = s.path, words = s.words, cwd = environment.cwd(),
            device = experiment.options.device },
    }
end

-- Seeds are not part of it: runs that differ by seed only, also in their parents, share one hash. Nor is
-- `graph`, which gives the same bits.
local function config_hash(kind, cfg, parent)
    local seedless = config.plain(cfg)
    seedless.seed, seedless.graph = nil, nil
    if seedless.device == "cpu" then seedless.device = nil end -- what was done before there was a choice
    if type(seedless.data) == "table" then seedless.data.device = nil end -- changes no number
    return m.sha256(config.json { kind = kind, config = seedless, parent = parent and parent.hash or "" })
end

local function say(...)
    progress.clear()
    io.stdout:write(format.safe(string.format(...), true), "\n")
    io.stdout:flush()
end

local function announce(store, run)
    local golden = store:golden(run.id)
    if golden then say("%s", golden) end
end

-- Files the run under a row of a table: `mimic table REF` sets it beside the others and the paper's number.
local function file_under(store, run, answers)
    for _, a in ipairs(answers[1] and answers or { answers }) do
        store:answer(run.id, a.ref, a.row)
    end
end

-- answers = { ref = "table2", row = "MIM, CE" }, or a list of such.
local function check_answers(answers)
    for _, a in ipairs(type(answers) == "table" and (answers[1] and answers or { answers }) or { false }) do
        if type(a) ~= "table" or type(a.ref) ~= "string" or type(a.row) ~= "string" then
            config.refuse("answers: { ref = \"table2\", row = \"MIM, CE\" } or a list of such expected")
        end
    end
end

local first_device = m.device() -- MIMIC_DEVICE's, or the host program's

-- Tensors are made there from now on.
local function use_device(name)
    if name ~= m.device() then environment_row = nil end
    local ok, why = pcall(m.device, name)
    if not ok then config.refuse("device = '%s': %s", tostring(name), (why:gsub("^.-:%d+: ", ""))) end
end

---The whole configuration of a run of a kind; refuses what its task does not know or take.
---@param kind string
---@param given table
---@return table cfg, table defaults
function experiment.resolve(kind, given)
    local task, others = task_of(kind), {}
    for _, k in ipairs(kinds) do
        if k ~= kind or task.defaults_of then others[#others + 1] = task_of(k).defaults end
    end
    local defaults = task.defaults_of and task.defaults_of(given) or task.defaults
    local cfg = config.resolve(given, defaults, others, kind)
    if task.check then task.check(cfg, defaults) end
    return cfg, defaults
end

---Refuses a metric that a run of this configuration will not have.
---@param kind string
---@param cfg table resolved
---@param metric string
---@param judged boolean? by a pruner, at every evaluation
function experiment.check_metric(kind, cfg, metric, judged)
    local task = task_of(kind)
    metrics.check(task.metrics and task.metrics(cfg), metric, judged)
end

---Refuses what no run can start from.
---@param parent any
function experiment.check_parent(parent)
    local meta = type(parent) == "table" and getmetatable(parent)
    if not parent or meta == Run or meta == group.Group or meta and meta.is_run then return end
    config.refuse("parent: a run, or the runs over seeds, that exp:run gave expected, not %s", type(parent) == "table"
        and (parent.points and "a sweep: sweep:runs(sweep:best()) are the runs of its best point" or "another table")
        or ("a %s"):format(type(parent)))
end

local function one(self, spec, seed)
    override.check "before its first run"
    local task = task_of(spec.kind)
    local opts = experiment.options
    local parent = spec.parent or nil
    experiment.check_parent(parent)
    if type(parent) == "table" and getmetatable(parent) ~= Run then -- several seeds: the run of this one
        local found = parent[1]
        for _, p in ipairs(parent) do
            if p.seed == seed then found = p end
        end
        parent = found
    end
    local given = spec.config or {}
    if parent and type(given) == "table" and given.init_from then
        config.refuse("init_from beside a parent (%s): a run starts from one of them", parent.name)
    end
    if type(given) ~= "table" then config.refuse("config: a configuration expected, not a %s", type(given)) end
    local cfg = experiment.resolve(spec.kind, given)
    if seed then cfg.seed = seed end
    if cfg.device then
        cfg.device = opts.device or given.device or first_device
        if not opts.dry_run then use_device(cfg.device) end
    end
    if math.type(cfg.seed) ~= "integer" or cfg.seed < 0 then
        config.refuse("seed: expected a whole number >= 0")
    end
    if spec.rules and type(spec.rules.best) == "string" and task.metrics then
        local ok, why = pcall(metrics.check_series, task.metrics(cfg), spec.rules.best)
        if not ok then config.refuse("keep.best: %s", why) end
    end
    local name = spec.name or spec.kind
    local planned = { kind = spec.kind, name = name, seed = cfg.seed, state = "planned" }
    if parent and parent.state ~= "done" and not opts.dry_run then
        complain("%s seed %d: left out, its parent %s is %s", name, cfg.seed, parent.name, parent.state)
        planned.state = "skipped"
        return Run.new(nil, planned, cfg, parent)
    end
    local hash = config_hash(spec.kind, cfg, parent)
    if opts.dry_run then
        opts.planned = opts.planned + 1
        local after = parent and "  after " .. parent.name or ""
        local run = Run.new(nil, planned, cfg, parent)
        run.hash = hash
        run.flops = require("mimic.flops").run(spec.kind, cfg)
        opts.cost = opts.cost or {}
        opts.cost[#opts.cost + 1] = run
        if opts.collect then
            opts.collect[#opts.collect + 1] = { run = run, given = spec.config or {} }
        else
            local cost = run.flops and ("%.1e FLOP"):format(run.flops) or ""
            say("%-10s %-20s seed %d  %s  %12s%s", spec.kind, name, cfg.seed, hash:sub(1, 8), cost, after)
        end
        return run
    end

    local store = experiment.store()
    local src = sources(store)
    environment_row = environment_row or store:environment(environment.collect(store.db))
    local identity = {
        hash = hash, seed = cfg.seed, experiment = store:experiment(self.name),
        script = src.script, sources = src.sources, parent = parent and parent.id,
    }
    local anew = opts.force and not self.forced[hash .. cfg.seed]
    local row = not anew and store:same(identity) or nil
    if not row then
        local json = config.json(cfg)
        row = store:create(not anew and identity or nil, {
            experiment = identity.experiment, parent = identity.parent, kind = spec.kind, name = name,
            hash = hash, seed = cfg.seed, config = cfg, json = store.db:put_blob(json),
            script = src.script, sources = src.sources, files = src.files, argv = src.argv,
            diff = src.diff, git = src.git, env = environment_row,
        })
        self.forced[hash .. cfg.seed] = true
    end
    local run = Run.new(store, row, cfg, parent, spec.rules)
    run.hash = hash
    if spec.answers then file_under(store, run, spec.answers) end
    local hook = spec.hook or experiment.hook
    if hook then hook(run) end
    if row.state ~= "done" then
        execute.run(store, run, task, environment_row, opts.worker and not hook)
        if run.state == "failed" then
            opts.failed[#opts.failed + 1] = run
            if opts.fail_fast then error(("%s failed"):format(run:label()), 0) end
            return run
        end
    end
    opts.done[run.id] = true
    if hook or not opts.worker then announce(store, run) end -- a worker speaks of its trials only
    return run
end

experiment.one, experiment.sources, experiment.say, experiment.complain = one, sources, say, complain

---The handle of a recorded run.
---@param id integer
function experiment.handle(id)
    local store = experiment.store()
    local row = store:run(id)
    local run = Run.new(store, row, require("cjson").decode(store:config_json(id)), nil)
    run.hash = row.hash:lower()
    return run
end

---Executes a run, or returns it when it is done already.
---@param spec table kind, name, config, parent, seeds; answers: {ref, row} of a table; keep: {last, best, pin}
---@return table run handle; with `seeds` the group of the handles: a list with :result and :summary over
---seeds
function Experiment:run(spec)
    for k in pairs(spec) do
        if not ({ kind = 1, name = 1, config = 1, parent = 1, seeds = 1, answers = 1, keep = 1 })[k] then
            local known = { "kind", "name", "config", "parent", "seeds", "answers", "keep" }
            local hint = require("mimic.suggest").hint(tostring(k), known)
            config.refuse("exp:run has no field '%s'%s", tostring(k), hint)
        end
    end
    local ok, rules = pcall(keep.resolve, spec.keep)
    if not ok then config.refuse("%s", rules) end
    if spec.answers then check_answers(spec.answers) end
    spec = setmetatable({ rules = rules }, { __index = spec })
    if not spec.seeds then return one(self, spec) end
    local list = type(spec.seeds) == "table" and #spec.seeds or 0
    for i = 1, list do
        if not math.tointeger(spec.seeds[i]) then list = 0 break end
    end
    if list == 0 then
        config.refuse("seeds is a list of whole numbers, such as [0,1,2], not %s", config.json(spec.seeds))
    end
    local out = group.of {}
    for i = 1, #spec.seeds do out[i] = one(self, spec, spec.seeds[i]) end
    return out
end

---Searches a space: see mimic.sweep.
---@param spec table
---@return sweep.Sweep
function Experiment:sweep(spec)
    return require("mimic.sweep").declare(self, spec)
end

---The rows of a table of the paper, each a patch of one base.
---@param spec {ref: string, kind: string, base: table, rows: table, parent: table?, seeds: integer[]?}
---@return sweep.Sweep
function Experiment:ablation(spec)
    return require("mimic.sweep").ablation(self, spec)
end

---@param name string
---@return table
function experiment.new(name)
    if type(name) ~= "string" or name == "" then config.refuse('m.experiment takes a name: m.experiment "fer"') end
    return setmetatable({ name = name, forced = {} }, Experiment)
end

return setmetatable(experiment, { __call = function(_, name) return experiment.new(name) end })

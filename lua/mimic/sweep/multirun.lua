-- `mimic sweep FILE.lua -m key=a,b`: the whole script once for every point, its m.config changed by the point's
-- values as by words of the command line.
local config = require "mimic.config"
local experiment = require "mimic.experiment"
local override = require "mimic.override"
local space = require "mimic.sweep.space"
local sweep = require "mimic.sweep"

local multirun = {}

local function word(key, value)
    return key .. "=" .. config.json(value)
end

-- A seed axis is the sweep's seeds, not a parameter.
local function take_seeds(domains)
    local d = domains.seed
    local list = d and d:list()
    if not list or next(domains, next(domains)) == nil then return nil end -- alone it is the parameter
    domains.seed = nil
    return list
end

---Declares and carries out the sweep of a script.
---@param script {path: string, text: string, words: string[]}
---@param of {name: string, space: table, words: string[], sampler: string?, trials: integer?, metric: string?,
---goal: string?, seed: integer?, seeds: integer[]?}
function multirun.run(script, of)
    local domains = {}
    for k, v in pairs(of.space) do domains[k] = v end
    if next(domains) == nil then config.refuse("-m: no key has several values, such as tau=0.05,0.1,0.2") end
    local seeds = of.seeds or take_seeds(domains)
    local opts = experiment.options
    local function execute(params, seed)
        local words = { table.unpack(of.words) }
        for _, key in ipairs(config.sorted_keys(params)) do words[#words + 1] = word(key, params[key]) end
        if seeds then words[#words + 1] = word("seed", seed) end
        override.set(words)
        script.words = words
        local chunk = assert(load(script.text, "@" .. script.path, "t"))
        opts.within = true
        local ok, err = pcall(chunk, table.unpack(words))
        opts.within = false
        if not ok then error(err, 0) end
        override.check()
    end
    -- Plans the script with a point's values: refuses wrong ones before anything is queued, loads the files to store.
    local function try(params)
        local dry, collect, say = opts.dry_run, opts.collect, print
        opts.dry_run, opts.collect = true, {}
        _G.print = function() end
        local ok, err = pcall(execute, params, seeds and seeds[1])
        local lost = ok and override.without_effect(params)
        local last = ok and opts.collect[#opts.collect] -- its last run stands for a point
        if last then ok, err = pcall(experiment.check_metric, last.run.kind, last.run.config, of.metric or "acc") end
        _G.print, opts.dry_run, opts.collect, opts.planned = say, dry, collect, 0
        script.words = of.words
        if not ok then config.refuse("-m %s: %s", space.label(params), err) end
        if lost then config.refuse("-m %s: it has no effect, the script sets over it or never looks at it", lost) end
    end
    return sweep.multirun(experiment(of.name), {
        name = of.name, space = domains, words = of.words, seeds = seeds, sampler = of.sampler, trials = of.trials,
        metric = of.metric, goal = of.goal, seed = of.seed, execute = execute, try = try,
    })
end

return multirun

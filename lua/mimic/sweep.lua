-- exp:sweep and exp:ablation: a search as rows of the results file. Declaring one makes its sweep row and, where
-- points do not depend on results, its trials; workers take it from there (sweep/worker.lua). The same
-- declaration made again goes on with the same sweep: `trials` is a total.
local m = require "mimic"
local cjson = require "cjson"
local asha = require "mimic.sweep.asha"
local command_line = require "mimic.command_line"
local config = require "mimic.config"
local check = require "mimic.sweep.check"
local define = require "mimic.sweep.define"
local draw = require "mimic.sweep.draw"
local outcome = require "mimic.sweep.outcome"
local override = require "mimic.override"
local progress = require "mimic.progress"
local queue = require "mimic.sweep.queue"
local space = require "mimic.sweep.space"

local sweep = {}

---@class sweep.Sweep
---@field id integer?
---@field uid string
---@field name string
local Sweep = {}
Sweep.__index = Sweep
for name, method in pairs(outcome) do Sweep[name] = method end

---The parameters of a row of `trial` as the domains' own values.
---@param json string
---@return table<string, any>
function Sweep:params(json)
    local out = cjson.decode(json)
    for k, v in pairs(out) do
        local domain = self.domains[k]
        local own = domain and domain:restore(v)
        if own ~= nil then out[k] = own end
    end
    return out
end

local function parent_hash(parent)
    if not parent then return "" end
    return parent.hash or parent[1] and parent[1].hash or ""
end

-- What makes it this search and no other. The number of trials may grow.
local function identity(d, src)
    local domains, rows, base = {}, {}, d.base and config.copy(d.base) or nil
    for _, p in ipairs(d.space) do domains[p.key] = p.domain:plain() end
    for i, name in ipairs(d.row_names or {}) do
        rows[i] = { name, d.rows[name].patch, parent_hash(d.rows[name].parent) }
    end
    if base then base.seed = nil end
    d.space_json = config.json(domains)
    return m.sha256(config.json {
        name = d.name, experiment = d.exp.name, kind = d.kind, base = base, space = domains, sampler = d.sampler,
        seeds = d.seeds, metric = d.metric, goal = d.goal, pruner = d.pruner, seed = d.seed, rows = rows,
        ref = d.ref, parent = parent_hash(d.parent), script = src.script, sources = src.sources, multirun = d.words,
    })
end

-- Everything a worker needs beside the columns.
local function spec_json(d, src, opts)
    local files = {}
    for i, f in ipairs(src.files) do files[i] = { name = f.name, sha = f.sha } end
    local argv = cjson.decode(src.argv)
    return config.json {
        experiment = d.exp.name, trials = d.trials, seeds = d.seeds, words = argv.words, path = argv.script,
        cwd = argv.cwd, files = files, max_attempts = d.max_attempts, max_failures = opts.max_failures or false,
        ref = d.ref, multirun = d.words and true or false, device = opts.device,
    }
end

local function hash_of(d, params, number)
    if d.trial then return m.sha256("trial " .. number) end
    return m.sha256(config.json(params))
end

---Number of the trial of a point (from 1) with the i-th seed.
function Sweep:number(point, i)
    return (point - 1) * #self.seeds + i
end

function Sweep:point_of(number)
    return (number - 1) // #self.seeds + 1
end

-- The trials of a point; with a pruner only the first seed is tried at once.
local function add_point(store, d, point, params, finished)
    for i, seed in ipairs(d.seeds) do
        if i > 1 and d.pruner then break end
        local number = d:number(point, i)
        queue.add(store, d.id, { number = number, params = params, seed = seed, hash = hash_of(d, params, number),
            finished = finished, max_attempt = d.max_attempts })
    end
end

local function taken_by(store, d)
    return function(json)
        return store.db:first("SELECT 1 AS x FROM trial WHERE sweep = ? AND config_hash = ? LIMIT 1", d.id,
            m.db.hex(m.sha256(json))) ~= nil
    end
end

---Whether a point's draw looks at results.
function Sweep:adaptive()
    return self.sampler == "tpe"
end

-- Makes the row, or finds it and brings its total up to date; adds the trials that need no results.
local function record(store, d, src, opts)
    store.db:tx(function()
        local db = store.db
        local spec = spec_json(d, src, opts)
        local row = db:first("SELECT id, state FROM sweep WHERE uid = ?", d.uid)
        if row then
            d.id = row.id
            if not opts.worker then
                db:exec("UPDATE sweep SET spec = ?, state = CASE WHEN state = 'cancelled' THEN state ELSE 'open' END"
                    .. " WHERE id = ?", spec, d.id)
            end
        else
            db:exec([[INSERT INTO sweep(uid, name, sampler, pruner, space, metric, goal, seed, script, created, spec)
              VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]], d.uid, d.name, d.sampler,
                d.pruner and config.json { asha = d.pruner } or nil, d.space_json, d.metric, d.goal, d.seed,
                m.db.hex(src.script), m.sys.time(), spec)
            d.id = db:last_id()
        end
        if d:adaptive() or opts.worker then return end
        local last = db:first("SELECT coalesce(max(number), 0) AS n FROM trial WHERE sweep = ?", d.id).n
        for point = last == 0 and 1 or d:point_of(last) + 1, d.trials do
            local params = d.trial and {} or draw.point(d, point, {}, taken_by(store, d))
            if not params then break end
            add_point(store, d, point, params, nil)
        end
    end, true)
end

---Takes the domains that define-by-run trials have asked for so far from the sweep's row.
function Sweep:recall_space(store)
    local row = store.db:first("SELECT space FROM sweep WHERE id = ?", self.id)
    self.domains, self.space = {}, {}
    for key, plain in pairs(cjson.decode(row.space)) do
        self.domains[key] = space.from(plain)
        self.space[#self.space + 1] = { key = key, domain = self.domains[key] }
    end
    table.sort(self.space, function(a, b) return a.key < b.key end)
end

---Adds the domain of a parameter to the sweep's row, when it is new.
function Sweep:learn(store, key, domain)
    if self.domains[key] then return end
    store.db:tx(function()
        self:recall_space(store)
        if self.domains[key] then return end
        local all = { [key] = domain:plain() }
        for _, p in ipairs(self.space) do all[p.key] = p.domain:plain() end
        store.db:exec("UPDATE sweep SET space = ? WHERE id = ?", config.json(all), self.id)
    end)
    self:recall_space(store)
end

---What is known of the points: from the trials that are finished now, or from those that `finished` (a row's
---column) says were known then.
---@param store table
---@param finished string|nil
---@return draw.Known[] history
---@return string finished
function Sweep:history(store, finished)
    local known = finished and queue.unpack(finished)
    local list, points, order = {}, {}, {}
    for t in store.db:each([[SELECT number, state, value, rung, rungs, params FROM trial WHERE sweep = ?
        AND (state IN ('done', 'pruned') OR rungs IS NOT NULL) ORDER BY number]], self.id) do
        local rung = known and known[t.number] or not known and (t.state == "pruned" and (t.rung or 0) or
            t.state == "done")
        if rung then
            local p = self:point_of(t.number)
            local k = points[p]
            if not k then
                k = { params = self.decoded[p] or self:params(t.params), values = {} }
                self.decoded[p] = k.params
                points[p] = k
                order[#order + 1] = k
            end
            if rung == true then
                k.values[#k.values + 1] = t.value or 0 / 0
            else
                k.rung = rung
                local v = cjson.decode(t.rungs or "[]")[rung + 1]
                k.values[#k.values + 1] = type(v) == "number" and v or 0 / 0
            end
            list[#list + 1] = { number = t.number, rung = rung ~= true and rung or nil }
        end
    end
    for _, k in ipairs(order) do
        local sum = 0.0
        for _, v in ipairs(k.values) do sum = sum + v end
        local mean = sum / #k.values
        k.value = mean == mean and mean or nil
    end
    return order, finished or queue.pack(list)
end

---Adds what can be tried next: promoted trials, further seeds of points that were not pruned, new points. In a
---transaction; called when no trial waits.
---@param store table
function Sweep:advance(store)
    if self.pruner then
        queue.promote(store, self)
        if #self.seeds > 1 then
            for t in store.db:each([[SELECT number, params, finished FROM trial t WHERE sweep = ?1 AND state = 'done'
                AND seed = ?2 AND NOT EXISTS (SELECT 1 FROM trial o WHERE o.sweep = ?1 AND o.number = t.number + 1)]],
                self.id, self.seeds[1]) do
                for i = 2, #self.seeds do
                    local params = self:params(t.params)
                    local number = self:number(self:point_of(t.number), i)
                    queue.add(store, self.id, { number = number, params = params, seed = self.seeds[i],
                        hash = hash_of(self, params, number), finished = t.finished,
                        max_attempt = self.max_attempts })
                end
            end
        end
        if queue.waiting(store, self.id) then return end
    end
    if not self:adaptive() then return end
    local last = store.db:first("SELECT coalesce(max(number), 0) AS n FROM trial WHERE sweep = ?", self.id).n
    local point = last == 0 and 1 or self:point_of(last) + 1
    if point > self.trials then return end
    local history, finished = self:history(store)
    local params = self.trial and {} or draw.point(self, point, history, taken_by(store, self))
    if params then add_point(store, self, point, params, finished) end
end

-- Runs or hands over the trials of a declared sweep.
local function carry_out(d)
    local experiment = require "mimic.experiment"
    local opts = experiment.options
    if opts.worker then
        if opts.worker ~= d.uid then return end
        require("mimic.sweep.worker").loop(d)
        error(experiment.Finished, 0)
    end
    if opts.slurm then
        require("mimic.sweep.slurm").submit(d, opts.slurm)
        error(experiment.Finished, 0)
    end
    if opts.enqueue then
        experiment.say("%s (%s): queued; `%s` works on it", d.name, d.uid, command_line.of("worker", "--sweep", d.uid))
        error(experiment.Finished, 0)
    end
    if opts.retry then queue.retry(experiment.store(), d.id) end
    progress.note("sweep %s (%s)", d.name, d.uid)
    local why
    if opts.pool then
        why = require("mimic.sweep.pool").run(d, opts.pool)
    else
        why = require("mimic.sweep.worker").loop(d)
    end
    experiment.say("%s", d:summary())
    d:note_ends(opts)
    if why == "cancelled" or why == "paused" then
        opts.unfinished = true
        experiment.complain("sweep %s is %s: `%s` goes on", d.name, why, command_line.of("sweep", "resume", d.uid))
    end
end

-- With few trials and many rungs the pruner lets none through by itself: that is said before the first one runs.
local function warn_of_pruner(d)
    local last = d.pruner and (d.pruner.max or math.huge)
    local epochs = d.base and math.tointeger(d.base.epochs)
    if last and epochs then last = math.min(last, epochs) end
    if not last or last == math.huge then return end
    local least = asha.least(d.pruner, last)
    if d.trials >= least then return end
    require("mimic.progress").complain("sweep %s: of %d trials the pruner lets none run to its end at epoch %d, which "
        .. "takes %d; the best of those that pause goes on at last. Give more trials, or a larger min in m.asha",
        d.name, d.trials, last, least)
end

-- What the trials of a planned sweep cost together, added to the bill of the dry run: each point that will be tried,
-- or, where results decide which these are, the mean of points that have every value; a pruner can only make it less.
-- Plans of whole scripts stand in the bill from `tried` on. Nil where nobody knows: of define-by-run.
local function plan_cost(d, opts, tried)
    local experiment, flops = require "mimic.experiment", require "mimic.flops"
    opts.cost = opts.cost or {}
    local points = 0
    local function plan(patch)
        points = points + 1
        local c = experiment.resolve(d.kind, d.base:with(patch))
        opts.cost[#opts.cost + 1] = { kind = d.kind, config = c, flops = flops.run(d.kind, c) }
    end
    if d.rows then
        for _, name in ipairs(d.row_names) do plan(d.rows[name].patch) end
    elseif d.execute then
        points = d.points_tried
    elseif not d.trial then
        check.points(d, function(params) plan(space.nest(params)) end)
    end
    local total
    for i = tried + 1, #opts.cost do
        local c = opts.cost[i]
        if c.flops then
            c.flops = c.flops * #d.seeds * d.trials / points
            total = (total or 0) + c.flops
        end
    end
    return total
end

local function declare(define_it, exp, given)
    local experiment = require "mimic.experiment"
    local opts = experiment.options
    if opts.within then
        config.refuse("-m runs a whole script for each of its points, but this one searches by itself ('%s'): put the "
            .. "key in that search's own space, or run `mimic sweep FILE.lua KEY=VALUE` once for each value",
            tostring(given and (given.name or given.ref) or "exp:sweep"))
    end
    local tried = #(opts.cost or {})
    local ok, d = pcall(define_it, exp, given)
    if ok then setmetatable(d, Sweep) end
    if ok and not opts.worker then ok, d = pcall(check.trials, d) end
    if not ok then
        if d == config.refused then error(d, 0) end
        config.refuse("%s", d)
    end
    if opts.slurm then require("mimic.sweep.slurm").check(d) end -- before its row is written
    if opts.only_checks then error(experiment.Finished, 0) end
    if not opts.worker then warn_of_pruner(d) end
    if opts.dry_run then
        d.planned = true
        opts.planned = opts.planned + d.trials * #d.seeds
        local cost = plan_cost(d, opts, tried)
        if not opts.collect then
            experiment.say("sweep %-16s %s, %d points x %d seeds, %s%s", d.name, d.sampler, d.trials, #d.seeds,
                d.metric, cost and (", %.1e FLOP"):format(cost) or "")
        end
        return d
    end
    local store = experiment.store()
    local src = experiment.sources(store)
    d.uid = identity(d, src):sub(1, 12)
    if opts.force and not opts.worker then d.uid = m.sys.random_hex(6) end
    record(store, d, src, opts)
    d.max_failures = cjson.decode(store.db:first("SELECT spec FROM sweep WHERE id = ?", d.id).spec).max_failures
    carry_out(d)
    return d
end

---@param exp table experiment
---@param spec table
---@return sweep.Sweep
function sweep.declare(exp, spec)
    override.check "before its first sweep"
    return declare(define.search, exp, spec)
end

---@param exp table experiment
---@param spec table
---@return sweep.Sweep
function sweep.ablation(exp, spec)
    override.check "before its first sweep"
    return declare(define.rows, exp, spec)
end

---A search over whole scripts: `mimic sweep FILE.lua -m`. `execute` runs the script with a point's values.
---@param exp table
---@param of {name: string, space: table<string, space.Domain>, words: string[], seeds: integer[]?, sampler: string?,
---trials: integer?, metric: string?, goal: string?, seed: integer?, execute: fun(params: table, seed: integer?),
---try: fun(params: table)}
function sweep.multirun(exp, of)
    return declare(function()
        local d = define.search(exp, { name = of.name, kind = "script", base = {}, space = of.space, seeds = of.seeds,
            sampler = of.sampler, trials = of.trials, metric = of.metric, goal = of.goal, seed = of.seed })
        d.kind, d.base, d.words, d.execute, d.try = nil, nil, of.words, of.execute, of.try
        return d
    end)
end

---The folder a sweep's stored script was run in, its words and files.
---@param row table of the table sweep
function sweep.script_of(store, row)
    local spec = cjson.decode(row.spec)
    local files = {}
    for i, f in ipairs(spec.files) do files[i] = { name = f.name, text = store.db:get_blob(f.sha) } end
    local text = store.db:get_blob(store.db:first("SELECT lower(hex(script)) AS sha FROM sweep WHERE id = ?",
        row.id).sha)
    return { path = spec.path, text = text, words = spec.words, files = files }, spec
end

return sweep

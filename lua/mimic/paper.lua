-- m.paper: the runs of the paper's tables and figures, at three scales: `paper` (ViT-B/L at 224 pixels, the
-- real sets), `small` (a small ViT on packs of 48 and 64 pixels) and `smoke` (drawn pictures, seconds).
-- Rule: a run is stored under a text that defines it alone, so that every script that needs it shares it,
-- and `mimic resume` can continue it.
local m = require "mimic"
local cjson = require "cjson"
local config = require "mimic.config"
local experiment = require "mimic.experiment"
local flops = require "mimic.flops"
local scales = require "mimic.paper.scales"
local suggest = require "mimic.suggest"

local paper = {
    plan = false, -- a list: what scripts file in a dry run goes there
}

---@class paper.Paper
---@field ref string table or figure
---@field scale string
---@field sets table[] data sets of faces: name, train, test, val?, stands_for, finetune?
---@field seeds integer[]
---@field grid table axis -> values, for Fig. 6
local Paper = {}
Paper.__index = Paper

-- JSON has one kind of number: whole ones come back as integers.
local function integers(t)
    for k, v in pairs(t) do
        if type(v) == "table" then integers(v) else t[k] = math.tointeger(v) or v end
    end
    return t
end

local function decode(text)
    return integers(cjson.decode(text))
end

local executed = {} -- by database, specification and seed: {run, group}

-- Executes one run of a specification {kind, name, config, parent} with a seed, parents first.
local function execute(spec, seed)
    local options = experiment.options
    local text = config.json(spec)
    local key = table.concat({ options.db, tostring(options.dry_run), text, seed }, "\0")
    if executed[key] then return table.unpack(executed[key]) end
    local parent = spec.parent and execute(spec.parent, seed)
    local outer = options.script
    local from = outer and (outer.caller or outer) or { path = "paper.lua", words = {} }
    options.script = {
        path = from.path, words = { "seed=" .. seed }, files = {}, caller = from,
        text = ('require("mimic").paper.replay(%q)\n'):format(text),
    }
    local ok, group = pcall(function()
        return m.experiment "paper":run { kind = spec.kind, name = spec.name, config = spec.config,
            parent = parent, seeds = { seed } }
    end)
    options.script = outer
    if not ok then error(group, 0) end
    executed[key] = { group[1], group }
    return group[1], group
end

--- What the stored text of a run calls: that run, with the seed on its command line.
---@param text string its specification
function paper.replay(text)
    execute(decode(text), m.config { seed = 0 }.seed)
end

-- The runs of a specification over seeds, as exp:run returns them.
local function run(spec, seeds)
    spec = decode(config.json(spec))
    local out
    for _, seed in ipairs(seeds) do
        local one, group = execute(spec, seed)
        out = out or setmetatable({ spec = spec }, getmetatable(group))
        out[#out + 1] = one
    end
    return out
end

-- Leaves of `patch` that `base` has not already, and how they read: {"tau=0.1"}.
local function differences(patch, base)
    local out, words = {}, {}
    for _, leaf in ipairs(config.flatten(patch)) do
        local node, known = out, base
        local parts = {}
        for part in leaf.key:gmatch("[^.]+") do parts[#parts + 1] = part end
        for _, part in ipairs(parts) do
            if type(known) == "table" then known = known[part] else known = nil end
        end
        if config.json(known) ~= config.json(leaf.value) then
            for i = 1, #parts - 1 do
                node[parts[i]] = node[parts[i]] or {}
                node = node[parts[i]]
            end
            node[parts[#parts]] = leaf.value
            words[#words + 1] = leaf.key .. "=" .. config.json(leaf.value)
        end
    end
    return out, words
end

-- A configuration over the defaults of its task: only what differs, so that equal runs are equal texts.
local function settle(kind, list, extra)
    local given = {}
    for _, t in ipairs(list) do config.merge(given, config.plain(t)) end
    local full = config.merge(config.plain(given), config.plain(extra))
    local defaults = m[kind].defaults_of and m[kind].defaults_of(full) or m[kind].defaults
    local base = config.merge(config.plain(defaults), given)
    local patch, words = differences(extra, base)
    return config.merge(given, patch), words
end

--- Pre-trains with a method: mae, moco, localmim, simmim or supervised.
---@param method string
---@param opts {model: string?, data: string?}? data: general (default) | celebrities; model: base | large
---@return table runs over the seeds
function Paper:pretrain(method, opts)
    opts = opts or {}
    local scale = self.settings
    local model, data = opts.model or "base", opts.data or "general"
    self:declared(data)
    if (scale.methods[method] or {}).data then self:declared(method) end
    if self.config.finetune.init_from then
        config.refuse("finetune.init_from: %s pre-trains what it fine-tunes; a file of weights needs a script of its "
            .. "own, exp:run { kind = \"finetune\", config = { init_from = FILE } } without a parent", self.ref)
    end
    local c, words = settle("pretrain", {
        scale.pretrain, scale.methods[method] or {}, { method = method, model = scale.models[model] },
        { data = scale.data[data] }, scale.pretrain_on[data] or {},
    }, self.config.pretrain)
    local name = { method }
    if model ~= "base" then name[#name + 1] = model end
    if data ~= "general" then name[#name + 1] = "on " .. data end
    local full = table.concat(name, " ") .. self.suffix(words)
    return run({ kind = "pretrain", name = full, config = c }, self.seeds)
end

--- Fine-tunes on every data set of the scale and files the runs under a row.
---@param row string? name of the row in the paper's table; nil: not filed
---@param parent table? runs of p:pretrain; nil: from scratch
---@param change table what differs from the recipe, with the preset
---@param opts {model: string?}?
---@return table<string, table> runs over the seeds, by data set
function Paper:finetune(row, parent, change, opts)
    opts = opts or {}
    local scale, out = self.settings, {}
    for _, set in ipairs(self.sets) do
        local c, words = settle("finetune", {
            scale.finetune, parent and {} or scale.scratch, { model = scale.models[opts.model or "base"] },
            opts.model == "large" and scale.finetune_large or {},
            { data = { name = set.name, train = set.train, test = set.test } }, set.finetune or {},
            change.preset == "linear-probe" and scale.probe or {}, { preset = change.preset or "mimic" },
        }, config.merge(config.plain(self.config.finetune), config.plain(change)))
        local name = ("%s %s%s, %s"):format(set.name, c.preset, self.suffix(words),
            parent and parent.spec.name or "from scratch")
        local runs = run({ kind = "finetune", name = name, config = c, parent = parent and parent.spec },
            self.seeds)
        out[set.name] = runs
        if row then self:file(row, set, runs) end
    end
    return out
end

--- Looks at the features of fine-tuned models (task embed) and files the runs under a row.
---@param row string
---@param tuned table<string, table> of p:finetune
function Paper:embed(row, tuned)
    self:declared "val"
    for _, set in ipairs(self.sets) do
        local parent = tuned[set.name]
        if parent then
            local split = set.val and "val" or "test"
            local runs = run({ kind = "embed", name = "features of " .. parent.spec.name,
                parent = parent.spec, config = config.merge(config.plain(self.settings.embed),
                    { split = split, data = { name = set.name, [split] = set[split] } }) }, self.seeds)
            self:file(row, set, runs, { split, "knn20", "silhouette" })
        end
    end
end

-- The sets of these names, or of the paper's sets that they stand for.
function Paper:chosen(names)
    local out = {}
    for _, set in ipairs(self.sets) do
        for _, name in ipairs(names) do
            if set.name == name or set.stands_for == name then out[#out + 1] = set break end
        end
    end
    return out
end

function Paper.suffix(words)
    return #words > 0 and " " .. table.concat(words, " ") or ""
end

-- Files runs under a row of the table, or plans to.
function Paper:file(row, set, runs, what)
    local entry = { ref = self.ref, row = row, set = set, runs = runs, split = what and what[1] or "test",
        metrics = what and { table.unpack(what, 2) } or { "acc", "acc_last" } }
    self.filed[#self.filed + 1] = entry
    if paper.plan then paper.plan[#paper.plan + 1] = entry end
    if experiment.options.dry_run then return end
    for _, one in ipairs(runs) do
        if one.id then experiment.store():answer(one.id, self.ref, row) end
    end
end

--- Prints what was filed: best and last epoch for each data set.
function Paper:report()
    if experiment.options.dry_run or #self.filed == 0 then return end
    local rows, columns = {}, { self.ref, "data", self.filed[1].metrics[1], self.filed[1].metrics[2] }
    for i, e in ipairs(self.filed) do
        rows[i] = { [self.ref] = e.row, data = e.set.name }
        for _, metric in ipairs(e.metrics) do
            rows[i][metric] = e.runs:summary(e.set.name, e.split, metric)
        end
    end
    print(require("mimic.format").format("plain", rows, columns))
end

--- Iterates over a list of pairs in order: for first, second in m.paper.pairs { {"a", 1}, {"b", 2} }.
---@param list table[]
function paper.pairs(list)
    local i = 0
    return function()
        i = i + 1
        if list[i] then return list[i][1], list[i][2] end
    end
end

-- What a script reads and that cannot be opened, each with the reason, before anything is trained. Of the folders for
-- pre-training only their being there is asked: to list a million pictures takes its time.
function Paper:unreadable()
    local out = {}
    local function look(name, spec)
        if type(spec) == "string" then spec = { path = spec } end
        local path, split = spec.path, spec.split
        local ok, why = m.sys.realpath(path), path .. " is not there"
        if ok and (name ~= "general" and name ~= "celebrities" or not m.data.detect(path):find "folders") then
            ok, why = pcall(m.data.open, { path = path, split = split, need_labels = name ~= "celebrities" })
        elseif ok and split then
            ok, why = m.sys.realpath(path .. "/" .. split), ("%s/%s is not there"):format(path, split)
        end
        local line = ("%s: %s"):format(name, tostring(why):match("^[^\n]*"))
        if not ok and not out[line] then out[#out + 1], out[line] = line, true end
    end
    for _, name in ipairs { "general", "celebrities" } do
        if self.reads[name] then look(name, self.settings.data[name].train) end
    end
    for method, own in pairs(self.settings.methods) do
        if self.reads[method] and own.data then look("general", own.data.val) end
    end
    for _, set in ipairs(self.sets) do
        look(set.name, set.train)
        look(set.name, set.test)
        if self.reads.val and set.val then look(set.name, set.val) end
    end
    return out
end

-- Refuses to read what m.paper was not told of and therefore did not look for.
function Paper:declared(what)
    if not self.reads[what] then
        error(('m.paper "%s" reads %s: say so, m.paper("%s", { reads = { "%s" } }), that it is looked for '
            .. "before anything is trained"):format(self.ref, what, self.ref, what), 3)
    end
end

--- The runs of a table or figure. Overrides: scale=paper|small|smoke, data.root=DIR, seeds=[0,1,2],
--- sets=[rafdb], pretrain.KEY, finetune.KEY, grid.tau=[0.05,0.2] (values of an axis of Fig. 6; [] leaves it out).
---@param ref string table1, fig5, ...
---@param opts {sets: string[]?, reads: string[]?}? sets: these alone; reads: beside general pictures and the
---  splits for training and testing: celebrities, val, and methods that read a split of their own (supervised)
---@return paper.Paper
function paper.new(ref, opts)
    opts = opts or {}
    local c = m.config {
        scale = "paper", seeds = false, sets = false, data = { root = false }, pretrain = {}, finetune = {},
        grid = { d = false, B = false, alpha = false, tau = false },
    }
    if not scales[c.scale] then
        local names = { "paper", "small", "smoke" }
        config.refuse("scale '%s'%s: paper, small or smoke", tostring(c.scale),
            suggest.hint(tostring(c.scale), names))
    end
    local settings = scales[c.scale](c.data.root or nil)
    local self = setmetatable({ ref = ref, scale = c.scale, settings = settings, config = c, filed = {},
        seeds = c.seeds and config.plain(c.seeds) or settings.seeds, sets = settings.sets,
        grid = settings.grid, reads = { general = true } }, Paper)
    for _, what in ipairs(opts.reads or {}) do self.reads[what] = true end
    if opts.sets then self.sets = self:chosen(opts.sets) end
    for axis, values in pairs(config.plain(c.grid)) do
        if values and type(values) ~= "table" then
            config.refuse("grid.%s takes a list: grid.%s=[%s]", axis, axis, tostring(values))
        end
        if values then settings.grid[axis] = values end
    end
    if c.sets then
        self.sets = self:chosen(c.sets)
        if #self.sets == 0 then config.refuse("sets: none of them belongs to %s at scale=%s", ref, c.scale) end
    end
    for _, known in ipairs(settings.expected) do flops.expect(table.unpack(known)) end
    if not experiment.options.dry_run then
        if settings.draw then settings.draw() end
        local missing = self:unreadable()
        if #missing > 0 then
            error(("%s reads data that cannot be read:\n  %s\ndata.root=DIR names the folder of the sets; sets=[%s] "
                .. "leaves sets of faces out; scale=small runs on packs of small pictures, scale=smoke on drawn ones, "
                .. "in seconds"):format(ref, table.concat(missing, "\n  "), self.sets[1].name), 0)
        end
    end
    return self
end

return setmetatable(paper, { __call = function(_, ref, opts) return paper.new(ref, opts) end })

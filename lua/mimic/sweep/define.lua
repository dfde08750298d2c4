-- What exp:sweep and exp:ablation may be given: checks of the fields, and the sweep that they make. Nothing is written.
local config = require "mimic.config"
local draw = require "mimic.sweep.draw"
local grid = require "mimic.sweep.grid"
local space = require "mimic.sweep.space"
local suggest = require "mimic.suggest"

local define = {}

local fields = {
    "name", "kind", "base", "parent", "space", "seeds", "metric", "goal", "sampler", "trials", "pruner", "trial",
    "seed", "max_attempts", "note",
}
local row_fields = { "ref", "name", "kind", "base", "parent", "seeds", "rows", "metric", "goal", "max_attempts" }

local function check_fields(spec, known, who)
    if type(spec) ~= "table" then error(who .. " takes a table: " .. who .. ' { name = "...", ... }', 0) end
    for k in pairs(spec) do
        local found = false
        for _, f in ipairs(known) do found = found or f == k end
        if not found then
            error(("%s has no field '%s'%s"):format(who, tostring(k), suggest.hint(tostring(k), known)), 0)
        end
    end
end

local function check_seeds(seeds)
    local list = config.plain(seeds)
    if type(list) ~= "table" or #list == 0 then
        error(("seeds is a list of whole numbers, such as [0,1,2], not %s"):format(config.json(list)), 0)
    end
    local seen = {}
    for i, s in ipairs(list) do
        list[i] = math.tointeger(s)
        if not list[i] or list[i] < 0 or seen[s] then
            error(("seeds: %s is no whole number from 0, or is there twice"):format(tostring(s)), 0)
        end
        seen[s] = true
    end
    return list
end

-- A whole number from `least`, or what it is when it is left out.
local function whole(spec, key, least, default)
    local v = spec[key]
    if v == nil then return default end
    local n = type(v) == "number" and math.tointeger(v)
    if not n or n < least then
        error(("%s = %s: a whole number from %d expected"):format(key, type(v) == "string" and v or config.json(v),
            least), 0)
    end
    return n
end

-- What both kinds share.
local function common(exp, spec)
    if spec.base ~= nil and type(spec.base) ~= "table" then error("base: a configuration expected", 0) end
    for key, kind in pairs { kind = "string", metric = "string", name = "string", ref = "string", trial = "function",
        pruner = "table", space = "table" } do
        if spec[key] ~= nil and type(spec[key]) ~= kind then
            error(("%s: a %s expected, not a %s"):format(key, kind, type(spec[key])), 0)
        end
    end
    require("mimic.experiment").check_parent(spec.parent)
    local d = {
        exp = exp, kind = spec.kind, parent = spec.parent or nil, trial = spec.trial, pruner = spec.pruner,
        seeds = check_seeds(spec.seeds or { spec.base and spec.base.seed or 0 }),
        metric = spec.metric or "acc", seed = whole(spec, "seed", 0, 0),
        max_attempts = whole(spec, "max_attempts", 1, 3), space = {}, domains = {}, decoded = {},
    }
    d.goal = spec.goal or (d.metric:find "loss" and "min" or "max")
    if d.goal ~= "min" and d.goal ~= "max" then
        error(('goal = "%s": "min" or "max"'):format(tostring(spec.goal)), 0)
    end
    d.base = spec.base and config.freeze(spec.base)
    return d
end

---exp:sweep{...}
---@return table fields of a sweep.Sweep
function define.search(exp, spec)
    check_fields(spec, fields, "exp:sweep")
    if type(spec.name) ~= "string" or spec.name == "" then error('exp:sweep needs a name = "..."', 0) end
    local d = common(exp, spec)
    d.name = spec.name
    if spec.trial then
        if spec.space or spec.kind or spec.base then
            error("exp:sweep: trial = function(t) draws and runs by itself; kind, base and space belong in it", 0)
        end
    elseif not spec.kind or not spec.base or not spec.space then
        error("exp:sweep needs kind, base and space, or trial = function(t) ... end", 0)
    else
        d.space = space.flatten(spec.space)
        if #d.space == 0 then error("exp:sweep: the space is empty", 0) end
        for _, p in ipairs(d.space) do d.domains[p.key] = p.domain end
    end
    d.sampler = spec.sampler or (spec.trial and "tpe" or "grid")
    local known = false
    for _, s in ipairs(draw.samplers) do known = known or s == d.sampler end
    if not known then
        error(("no sampler '%s'%s; there are %s"):format(tostring(d.sampler),
            suggest.hint(tostring(d.sampler), draw.samplers), table.concat(draw.samplers, ", ")), 0)
    end
    if d.sampler == "grid" then
        if spec.trial then error("a define-by-run trial has no grid: sampler = random, sobol or tpe", 0) end
        local size = grid.size(d.space)
        d.trials = math.min(whole(spec, "trials", 1, size), size)
    else
        d.trials = whole(spec, "trials", 1)
        if not d.trials then
            error(('sampler = "%s" needs trials = N, the number of points in all'):format(d.sampler), 0)
        end
    end
    return d
end

---exp:ablation{...}
---@return table fields of a sweep.Sweep
function define.rows(exp, spec)
    check_fields(spec, row_fields, "exp:ablation")
    if type(spec.rows) ~= "table" or type(spec.rows[1]) ~= "table" or not spec.kind or not spec.base then
        error('exp:ablation needs kind, base and rows = { { "full", {} }, { "no contrast", { lambda = 0 } } }', 0)
    end
    local d = common(exp, spec)
    d.ref, d.name = spec.ref, spec.name or spec.ref or "ablation"
    d.sampler, d.rows, d.row_names = "grid", {}, {}
    for i, r in ipairs(spec.rows) do
        local name, patch
        if type(r) == "table" then name, patch = r[1] or r.name, r[2] or r.patch or {} end
        if type(name) ~= "string" or type(patch) ~= "table" or d.rows[name] then
            error(("exp:ablation: row %d needs a name of its own: { \"no contrast\", { lambda = 0 } }"):format(i), 0)
        end
        local plain, parent = {}, d.parent
        for k, v in pairs(patch) do
            if k == "parent" then parent = v or nil else plain[k] = v end
        end
        require("mimic.experiment").check_parent(parent)
        d.rows[name] = { patch = config.plain(plain), parent = parent }
        d.row_names[i] = name
    end
    d.domains.row = space.choice(d.row_names)
    d.space = { { key = "row", domain = d.domains.row } }
    d.trials = #d.row_names
    return d
end

return define

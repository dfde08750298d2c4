-- The configurations of a sweep's trials, checked before the first one runs: a key, type or value that a task
-- refuses ends the declaration, not the trial that comes to it hours later.
local config = require "mimic.config"
local draw = require "mimic.sweep.draw"
local space = require "mimic.sweep.space"
local suggest = require "mimic.suggest"

local check = {}

local most_points <const> = 2000 -- that are checked one by one

-- Refuses a key that the task would not see: `config.resolve` leaves out what other tasks know.
local function check_keys(d, patch, defaults, where)
    for _, leaf in ipairs(config.flatten(patch)) do
        local path = {}
        for part in leaf.key:gmatch "[^.]+" do path[#path + 1] = math.tointeger(tonumber(part)) or part end
        if leaf.key == "seed" or leaf.key == "seeds" then
            config.refuse("%s: %s is no parameter; seeds = { 0, 1, 2 } is an axis of its own", where, leaf.key)
        elseif not config.known_path(defaults, path, 1, true) and config.json(leaf.value) ~= "{}" then
            config.refuse("%s: unknown key '%s' for %s%s", where, leaf.key, d.kind,
                suggest.hint(leaf.key, config.key_names(defaults)))
        end
    end
end

local function check_config(d, patch, where)
    local experiment = require "mimic.experiment"
    local ok, out, defaults = pcall(experiment.resolve, d.kind, d.base:with(patch))
    if not ok then config.refuse("%s: %s", where, out) end
    check_keys(d, patch, defaults, where)
    ok, out = pcall(experiment.check_metric, d.kind, out, d.metric, d.pruner ~= nil)
    if not ok then config.refuse("%s: %s", where, out) end
end

-- A value of each domain, with both ends of the continuous ones.
local function values_of(domain)
    return domain:size() <= 1000 and domain:list() or { domain.lo, domain.hi }
end

-- Every value of one parameter, the others in the middle.
local function along_axes(d, f)
    local middle = {}
    for _, p in ipairs(d.space) do middle[p.key] = p.domain:at(0.5) end
    for _, p in ipairs(d.space) do
        for _, v in ipairs(values_of(p.domain)) do
            local params = { [p.key] = v }
            for k, other in pairs(middle) do
                if k ~= p.key then params[k] = other end
            end
            f(params)
        end
    end
end

local function every_point(d, f)
    for n = 1, math.min(d.trials, most_points) do
        local params = draw.point(d, n, {}, function() return false end)
        if params then f(params) end
    end
end

---Calls f with the parameters of points that between them have every value: those that will be tried, where
---results do not decide.
---@param d sweep.Sweep
---@param f fun(params: table)
---@param most integer? points at most
function check.points(d, f, most)
    local drawn = d.sampler ~= "tpe" and d.trials <= (most or most_points)
    if drawn then every_point(d, f) else along_axes(d, f) end
end

---@param d sweep.Sweep
---@return sweep.Sweep d
function check.trials(d)
    if d.trial then return d end -- draws as it goes
    if d.execute then
        d.points_tried = 0
        check.points(d, function(params)
            d.points_tried = d.points_tried + 1
            d.try(params)
        end, 100)
        return d
    end
    if d.rows then
        for _, name in ipairs(d.row_names) do
            check_config(d, d.rows[name].patch, ("%s, row '%s'"):format(d.name, name))
        end
        return d
    end
    check.points(d, function(params)
        check_config(d, space.nest(params), ("%s, %s"):format(d.name, space.label(params)))
    end)
    return d
end

return check

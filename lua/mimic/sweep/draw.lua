-- Drawing the parameters of a sweep's points. Point n is a function of the sweep's seed, n, and the results that
-- were known when it was drawn (recorded with it), so a search by any number of workers can be replayed.
local m = require "mimic"
local config = require "mimic.config"
local grid = require "mimic.sweep.grid"

local draw = {}

draw.samplers = { "grid", "random", "sobol", "tpe" }

---@class draw.At the draw of one point
---@field seed integer of the sweep
---@field n integer number of the point, from 1
---@field attempt integer how often its values came out as those of an earlier point
---@field goal "min"|"max"
---@field history draw.Known[] what is known, in order of the points
---@field params table<string, any> suggested so far
---@field drawn integer how many
local At = {}
At.__index = At

---@class draw.Known
---@field params table<string, any>
---@field value number? nil: NaN, worse than any number
---@field rung integer? pruned there; nil: ran to its end

local streams = {}

-- 32 bits of a name, so that a parameter's numbers do not depend on the others.
local function stream(key)
    local s = streams[key]
    if not s then
        s = tonumber(m.sha256(key):sub(1, 8), 16)
        streams[key] = s
    end
    return s
end

---Random numbers of one parameter of this point.
function At:rng(key)
    return m.rng(self.seed, stream(key), self.n + (self.attempt << 32))
end

---The sweep's shift of a dimension: 32 bits.
function At:shift(dimension)
    return m.rng(self.seed, dimension, 0):u32()
end

---Value of a parameter; asked again, the same value.
---@param key string
---@param domain space.Domain
function At:suggest(key, domain)
    local value = self.params[key]
    if value == nil then
        value = self.sampler.suggest(self, key, domain)
        self.params[key] = value
        self.drawn = self.drawn + 1
    end
    return value
end

---@param of {sampler: string, seed: integer, goal: string, space: {key: string, domain: space.Domain}[]?}
---@param n integer
---@param history draw.Known[]
---@param attempt integer?
---@return draw.At
function draw.new(of, n, history, attempt)
    return setmetatable({
        sampler = require("mimic.sweep." .. of.sampler), seed = of.seed, goal = of.goal, n = n,
        history = history, attempt = attempt or 0, params = {}, drawn = 0, space = of.space or {},
    }, At)
end

---All parameters of point n of a space; nil when every point of it was drawn before.
---@param of {sampler: string, seed: integer, goal: string, space: {key: string, domain: space.Domain}[]}
---@param n integer
---@param history draw.Known[]
---@param taken fun(json: string): boolean whether these parameters were drawn before
---@return table<string, any>|nil
function draw.point(of, n, history, taken)
    if of.sampler == "grid" then
        if n > grid.size(of.space) then return nil end
        return grid.point(of.space, n)
    end
    for attempt = 0, 31 do
        local at = draw.new(of, n, history, attempt)
        for _, p in ipairs(of.space) do at:suggest(p.key, p.domain) end
        if not taken(config.json(at.params)) then return at.params end
    end
    local size = 1
    for _, p in ipairs(of.space) do size = size * p.domain:size() end
    for i = 1, size <= 1e6 and size or 0 do -- nearly all are taken: the first that is left
        local params = grid.point(of.space, i)
        if not taken(config.json(params)) then return params end
    end
    return nil
end

return draw

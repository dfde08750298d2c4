-- Asynchronous successive halving (Li et al., "A system for massively parallel hyperparameter tuning", MLSys
-- 2020). A trial is judged at the rungs min, min*eta, min*eta^2, ... below max: the best 1/eta of those that
-- reached a rung go on, the others pause there. A paused trial is promoted as soon as it is among them, and
-- continues from its checkpoint. Here is the arithmetic; queue.lua keeps the states.
local config = require "mimic.config"
local suggest = require "mimic.suggest"

local asha = {}

---@param t {min: integer, max: integer?, eta: number?}
function asha.new(t)
    if type(t) ~= "table" then config.refuse("m.asha takes a table: m.asha { min = 5, max = 100, eta = 3 }") end
    local known = { "min", "max", "eta" }
    for k, v in pairs(t) do
        if k ~= "min" and k ~= "max" and k ~= "eta" then
            config.refuse("m.asha has no field '%s'%s", tostring(k), suggest.hint(tostring(k), known))
        elseif type(v) ~= "number" then
            config.refuse("m.asha: %s is a number, not a %s", k, type(v))
        end
    end
    local p = { min = t.min or 1, max = t.max, eta = t.eta or 3 }
    if not (math.tointeger(p.min) and p.min >= 1) or p.eta <= 1 or p.max and p.max < p.min then
        config.refuse("m.asha { min = 5, max = 100, eta = 3 }: epochs from 1, min below max, eta above 1")
    end
    return p
end

---Epoch of a rung (from 0), or nil for a rung that lies beyond the end.
---@param p {min: integer, max: integer?, eta: number}
---@param rung integer
---@return integer|nil
function asha.epoch(p, rung)
    local e = math.floor(p.min * p.eta ^ rung + 0.5)
    if p.max and e >= p.max then return nil end
    return e
end

---How many trials it takes until the first one runs to its end at epoch `last`: with fewer, all pause.
---@param p {min: integer, max: integer?, eta: number}
---@param last integer
---@return integer
function asha.least(p, last)
    local rungs, n = 0, 1
    while (asha.epoch(p, rungs) or last) < last do rungs = rungs + 1 end
    for _ = 1, rungs do n = math.ceil(n * p.eta) end
    return n
end

---Whether a trial is among the best 1/eta of those that reached a rung. NaN never is; of equal ones the
---earlier comes first.
---@param reached {number: integer, value: number}[] all that reached the rung
---@param me {number: integer, value: number} one of them
---@param goal "min"|"max"
---@param eta number
function asha.goes_on(reached, me, goal, eta)
    local x = me.value
    if x ~= x then return false end
    local ahead = 0
    for _, o in ipairs(reached) do
        local v = o.value
        if goal == "max" and v > x or goal == "min" and v < x or v == x and o.number < me.number then
            ahead = ahead + 1
        end
    end
    return ahead < math.floor(#reached / eta)
end

return asha

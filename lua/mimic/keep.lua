-- Which checkpoints of a run stay: the last few, the best, pinned ones. The final one is always pinned.
local suggest = require "mimic.suggest"

local keep = {}

local fields = { "last", "best", "pin" }

keep.default = { last = 2, best = true }

---Checks `keep = { last = 2, best = "val/loss", pin = { 100 } }` of exp:run and fills in what is left out. `best`
---is true (by what the task says), false, or a series, judged at the steps of checkpoints: the lowest for a name
---with loss or error, else the highest.
---@param given table|nil
---@return {last: integer, best: boolean|string, pin: table<integer, boolean>}
function keep.resolve(given)
    local out = { last = keep.default.last, best = keep.default.best, pin = {} }
    if given == nil then return out end
    if type(given) ~= "table" then error("keep: a table such as { last = 2, best = \"val/loss\" } expected", 0) end
    for k, v in pairs(given) do
        if k == "last" then
            if math.type(v) ~= "integer" or v < 1 then error("keep.last: a whole number from 1 on expected", 0) end
            out.last = v
        elseif k == "best" then
            if type(v) ~= "boolean" and type(v) ~= "string" then
                error("keep.best: true, false or the name of a series expected", 0)
            end
            out.best = v
        elseif k == "pin" then
            for _, step in ipairs(type(v) == "table" and v or { v }) do
                if math.type(step) ~= "integer" then error("keep.pin: a list of steps expected", 0) end
                out.pin[step] = true
            end
        else
            error(("keep has no field '%s'%s"):format(tostring(k), suggest.hint(tostring(k), fields)), 0)
        end
    end
    return out
end

---Whether lower values of a series are better.
---@param name string
---@return "min"|"max"
function keep.goal(name)
    return (name:match("loss") or name:match("error")) and "min" or "max"
end

---Sorts checkpoints into those that stay and those that go.
---@param rules table of keep.resolve
---@param list {step: integer, value: number?, keep: string}[] newest first
---@param goal "min"|"max"|nil of the values
---@param passing fun(c: table): boolean whether a checkpoint goes as soon as there is a newer one
---@return table[] drop
---@return {step: integer, keep: string}[] marks that have changed
function keep.choose(rules, list, goal, passing)
    local best
    local sign = goal == "min" and -1 or 1
    for _, c in ipairs(list) do
        if rules.best and c.value and (not best or (c.value - best.value) * sign > 0) then best = c end
    end
    local drop, marks, counted = {}, {}, 0
    for i, c in ipairs(list) do
        local passes = i > 1 and passing(c)
        counted = counted + (passes and 0 or 1)
        local mark = (c.keep == "pin" or rules.pin[c.step]) and "pin" or c == best and "best"
            or not passes and counted <= rules.last and "last"
        if not mark then
            drop[#drop + 1] = c
        elseif mark ~= c.keep then
            marks[#marks + 1] = { step = c.step, keep = mark }
        end
    end
    return drop, marks
end

return keep

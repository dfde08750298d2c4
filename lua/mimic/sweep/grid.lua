-- All combinations of the values of a finite space; the last parameter changes fastest.
local grid = {}

---Number of combinations; an error names a parameter without an end of values.
---@param space {key: string, domain: space.Domain}[]
---@return integer
function grid.size(space)
    local n = 1
    for _, p in ipairs(space) do
        local size = p.domain:size()
        if size == math.huge then
            error(("%s = %s has no end of values for a grid: use m.choice or m.range, or another sampler")
                :format(p.key, tostring(p.domain)), 0)
        end
        n = n * size
        if n > 1e7 then error("the grid has more than ten million points", 0) end
    end
    return n
end

---Combination n, from 1.
---@param space {key: string, domain: space.Domain}[]
---@param n integer
---@return table<string, any>
function grid.point(space, n)
    local params, rest = {}, n - 1
    for i = #space, 1, -1 do
        local list = space[i].domain:list() or { space[i].domain.lo }
        params[space[i].key] = list[rest % #list + 1]
        rest = rest // #list
    end
    return params
end

return grid

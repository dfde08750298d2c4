-- "did you mean": the nearest of some names by edit distance. One place, so that every refused key,
-- command, operator or column suggests in the same way.
local suggest = {}

---Edit distance with transpositions of neighbours counted as one.
---@param a string
---@param b string
---@return integer
function suggest.distance(a, b)
    local before, above = {}, {}
    for j = 0, #b do above[j] = j end
    for i = 1, #a do
        local row = { [0] = i }
        local ca = a:byte(i)
        for j = 1, #b do
            local cb = b:byte(j)
            local cost = ca == cb and 0 or 1
            local best = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost)
            if i > 1 and j > 1 and ca == b:byte(j - 1) and a:byte(i - 1) == cb then
                best = math.min(best, before[j - 2] + 1)
            end
            row[j] = best
        end
        before, above = above, row
    end
    return above[#b]
end

---The known names nearest to `name`, best first: at most three, none if nothing is near. A name of a
---nested key also matches by its last part (`lr` finds `optim.lr`).
---@param name string
---@param known string[]
---@return string[]
function suggest.near(name, known)
    local found = {}
    local low, limit = name:lower(), math.max(1, math.min(3, #name // 2))
    local function distance(k) -- names of very different lengths are not near: no need to compare them
        return math.abs(#k - #low) <= limit and suggest.distance(low, k:lower()) or math.huge
    end
    local seen = {}
    for _, k in ipairs(known) do
        local d, tail = distance(k), k:match("[^.]+$")
        if tail and tail ~= k then d = math.min(d, distance(tail) + 0.5) end
        if d <= limit and not seen[k] then found[#found + 1] = { k, d } end
        seen[k] = true
    end
    table.sort(found, function(a, b)
        if a[2] ~= b[2] then return a[2] < b[2] end
        return a[1] < b[1]
    end)
    local out = {}
    for i = 1, math.min(3, #found) do out[i] = found[i][1] end
    return out
end

---" (did you mean a or b?)", or "" when nothing is near.
---@param name string
---@param known string[]
---@return string
function suggest.hint(name, known)
    local near = suggest.near(name, known)
    if #near == 0 then return "" end
    return (" (did you mean %s?)"):format(table.concat(near, " or "))
end

---Refuses options that nobody reads: misspelt ones.
---@param who string
---@param given table
---@param known table<string, any> its keys are the names
function suggest.check_options(who, given, known)
    for key in pairs(given) do
        if known[key] == nil then
            local names = {}
            for name in pairs(known) do names[#names + 1] = name end
            error(("%s has no option '%s'%s"):format(who, tostring(key), suggest.hint(tostring(key), names)), 0)
        end
    end
end

return suggest

-- The runs of one configuration over seeds: a list of handles with the statistics of their results.
local group = {}

local Group = {}
Group.__index = Group
group.Group = Group

---@param list table[] handles of runs
---@return table
function group.of(list)
    return setmetatable(list, Group)
end

---Mean and sample standard deviation of a result over the runs that have it: mean, sd (nil for one), n.
function Group:result(dataset, split, metric)
    local values, sum = {}, 0.0
    for _, run in ipairs(self) do
        local v = run:result(dataset, split, metric)
        if v and v == v then
            values[#values + 1] = v
            sum = sum + v
        end
    end
    local n = #values
    if n == 0 then return 0 / 0, nil, 0 end
    local mean, squares = sum / n, 0.0
    for _, v in ipairs(values) do squares = squares + (v - mean) ^ 2 end
    return mean, n > 1 and math.sqrt(squares / (n - 1)) or nil, n
end

---Text of a result over seeds: "88.92 ± 0.31 (n=3)", "88.92" for one.
---@return string
function Group:summary(dataset, split, metric)
    local mean, sd, n = self:result(dataset, split, metric)
    if n == 0 then return "-" end
    return ("%.2f"):format(mean) .. (sd and (" ± %.2f (n=%d)"):format(sd, n) or "")
end

return group

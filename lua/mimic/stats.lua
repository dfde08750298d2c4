-- Statistics over seeds: mean, sample deviation, bootstrap interval, paired comparison. Up to eight values
-- the bootstrap is exact (all multisets with their probabilities), above by draws from a fixed seed: the same
-- values give the same numbers everywhere.
local stats = {}

local exact_limit = 8
local draws = 10000

---@param values number[] without NaN
---@return {n: integer, mean: number?, sd: number?, lo: number?, hi: number?}
function stats.summary(values)
    local n, sum, lo, hi = #values, 0.0, nil, nil
    for _, v in ipairs(values) do
        sum = sum + v
        lo, hi = math.min(lo or v, v), math.max(hi or v, v)
    end
    if n == 0 then return { n = 0 } end
    local mean, squares = sum / n, 0.0
    for _, v in ipairs(values) do squares = squares + (v - mean) ^ 2 end
    return { n = n, mean = mean, sd = n > 1 and math.sqrt(squares / (n - 1)) or nil, lo = lo, hi = hi }
end

-- Every multiset of the values as {mean, probability}: value i is taken k_i times, in n! / (k_1! ... k_n!) of
-- the n^n equally likely samples.
local function enumerate(values)
    local n = #values
    local out = {}
    local function take(i, left, sum, ways)
        if i == n then
            for k = 1, left do ways = ways / k end
            out[#out + 1] = { (sum + left * values[n]) / n, ways }
            return
        end
        local w = ways
        for k = 0, left do
            if k > 0 then w = w / k end
            take(i + 1, left - k, sum + k * values[i], w)
        end
    end
    local ways = 1.0
    for k = 1, n do ways = ways * k / n end
    take(1, n, 0.0, ways)
    return out
end

local function sample(values)
    local n = #values
    local rng = require("mimic").rng(0x626f6f74)
    local out = {}
    for i = 1, draws do
        local sum = 0.0
        for _ = 1, n do sum = sum + values[rng:below(n) + 1] end
        out[i] = { sum / n, 1 / draws }
    end
    return out
end

-- Means of resamples with their probabilities.
local function resamples(values)
    return #values <= exact_limit and enumerate(values) or sample(values)
end

---Percentile bootstrap interval of the mean. With three values it reaches from the lowest to the highest:
---three seeds cannot say more.
---@param values number[]
---@param level number? percent, 95 by default
---@return number|nil lo, number|nil hi nil for fewer than two values
function stats.interval(values, level)
    if #values < 2 then return nil, nil end
    local tail = (1 - (level or 95) / 100) / 2 - 1e-9
    local list = resamples(values)
    table.sort(list, function(a, b) return a[1] < b[1] end)
    local function reach(from, to, step)
        local sum = 0.0
        for i = from, to, step do
            sum = sum + list[i][2]
            if sum >= tail then return list[i][1] end
        end
        return list[to][1]
    end
    return reach(1, #list, 1), reach(#list, 1, -1)
end

---Paired bootstrap test of "no difference": how often resampled differences, centred on zero, reach a mean as
---far from zero as the one seen. Never below 2 / 2^n, what the signs of n pairs can show at best.
---@param a table<integer, number> value by seed
---@param b table<integer, number>
---@return number|nil p two-sided; nil with fewer than two pairs
---@return integer pairs seeds that both have
---@return number|nil difference mean of a - b over the pairs
function stats.paired(a, b)
    local seeds, d = {}, {}
    for seed in pairs(a) do
        if b[seed] then seeds[#seeds + 1] = seed end
    end
    table.sort(seeds)
    for i, seed in ipairs(seeds) do d[i] = a[seed] - b[seed] end
    local n = #d
    if n == 0 then return nil, 0, nil end
    local mean = stats.summary(d).mean
    if n == 1 then return nil, 1, mean end
    local centred, scale = {}, math.abs(mean)
    for i, v in ipairs(d) do
        centred[i] = v - mean
        scale = math.max(scale, math.abs(v))
    end
    if mean == 0 then return 1.0, n, mean end
    local p = 0.0
    for _, r in ipairs(resamples(centred)) do
        if math.abs(r[1]) >= math.abs(mean) - 1e-9 * scale then p = p + r[2] end
    end
    return math.min(1.0, math.max(p, 2.0 / 2.0 ^ n)), n, mean
end

return stats

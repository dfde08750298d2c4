-- Statistics over seeds against their definitions by brute force.
local lu = require "luaunit"
local stats = require "mimic.stats"

local TestStats = {}

-- Means of all n^n samples with replacement, in order.
local function all_means(values)
    local n, out = #values, {}
    local function take(i, sum)
        if i > n then
            out[#out + 1] = sum / n
            return
        end
        for _, v in ipairs(values) do take(i + 1, sum + v) end
    end
    take(1, 0.0)
    table.sort(out)
    return out
end

local function brute_interval(values, level)
    local means = all_means(values)
    local k = math.max(1, math.ceil((1 - level / 100) / 2 * #means - 1e-9))
    return means[k], means[#means + 1 - k]
end

function TestStats.test_summary()
    lu.assertEquals(stats.summary {}, { n = 0 })
    lu.assertEquals(stats.summary { 5 }, { n = 1, mean = 5.0, lo = 5, hi = 5 })
    local s = stats.summary { 2, 4, 4, 4, 5, 5, 7, 9 }
    lu.assertEquals(s.mean, 5.0)
    lu.assertAlmostEquals(s.sd, math.sqrt(32 / 7), 1e-12)
    lu.assertEquals(stats.summary({ 1e9 + 1, 1e9 + 2, 1e9 + 3 }).sd, 1.0) -- no cancellation
end

function TestStats.test_interval_is_the_exact_bootstrap()
    for _, values in ipairs { { 1, 2, 4 }, { 3.5, -1, 0.25, 7 }, { 1, 1, 1 }, { 88.1, 88.9, 87.2, 90.4, 89 },
        { 1, 2, 2, 9, 4, 4 } } do
        for _, level in ipairs { 50, 80, 90, 95, 99 } do
            local lo, hi = stats.interval(values, level)
            local a, b = brute_interval(values, level)
            lu.assertAlmostEquals(lo, a, 1e-9)
            lu.assertAlmostEquals(hi, b, 1e-9)
        end
    end
    lu.assertEquals({ stats.interval { 1, 2, 4 } }, { 1.0, 4.0 }) -- three seeds: lowest to highest
    lu.assertEquals({ stats.interval { 7 } }, {})
end

function TestStats.test_interval_of_many_values_repeats_and_narrows()
    local few, many = {}, {}
    for i = 1, 10 do few[i] = i % 5 end
    for i = 1, 200 do many[i] = i % 5 end
    local lo, hi = stats.interval(few)
    lu.assertEquals({ stats.interval(few) }, { lo, hi })
    math.randomseed(7)
    local before = math.random()
    math.randomseed(7)
    local a, b = stats.interval(many)
    lu.assertEquals(math.random(), before) -- the script's own random numbers are left alone
    lu.assertTrue(lo < a and a < 2 and 2 < b and b < hi)
    lu.assertAlmostEquals(b - a, 2 * 1.96 * math.sqrt(2 / 200), 0.03) -- as the normal distribution says
end

function TestStats.test_paired_comparison()
    local a = { [0] = 1.0, [1] = 2.5, [2] = 3.0, [3] = 2.0, [9] = 100 }
    local b = { [0] = 0.5, [1] = 2.75, [2] = 2.0, [3] = 1.5, [7] = -100 }
    local p, n, mean = stats.paired(a, b)
    local d, centred = { 0.5, -0.25, 1.0, 0.5 }, {}
    lu.assertEquals(n, 4) -- seeds that both have
    lu.assertAlmostEquals(mean, 0.4375, 1e-12)
    for i, v in ipairs(d) do centred[i] = v - 0.4375 end
    local beyond, means = 0, all_means(centred)
    for _, v in ipairs(means) do
        if math.abs(v) >= 0.4375 - 1e-12 then beyond = beyond + 1 end
    end
    lu.assertAlmostEquals(p, math.max(beyond / #means, 2 / 2 ^ 4), 1e-12)
    lu.assertEquals((stats.paired({ 1, 2, 3 }, { 0, 1, 2 })), 0.25) -- never below what three pairs can show
    lu.assertEquals((stats.paired({ 1, 2 }, { 1, 2 })), 1.0)
    lu.assertEquals({ stats.paired({ 1 }, { 0 }) }, { nil, 1, 1.0 })
    lu.assertEquals({ stats.paired({ 1 }, {}) }, { nil, 0 })
    local x, y = {}, {}
    for i = 1, 12 do x[i], y[i] = i + 1 + i % 3 / 10, i end
    lu.assertTrue((stats.paired(x, y)) < 0.001)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestStats", TestStats } })

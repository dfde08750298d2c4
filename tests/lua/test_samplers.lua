-- Samplers and the arithmetic of ASHA: domains, coverage of Sobol' points, repeatable draws, and that TPE finds
-- what random search does not.
local m = require "mimic"
local lu = require "luaunit"
local asha = require "mimic.sweep.asha"
local config = require "mimic.config"
local draw = require "mimic.sweep.draw"
local grid = require "mimic.sweep.grid"
local sobol = require "mimic.sweep.sobol"
local space = require "mimic.sweep.space"

local TestSamplers = {}

function TestSamplers.test_domains()
    lu.assertEquals(m.range(0.1, 0.9, 0.2):list(), { 0.1, 0.3, 0.5, 0.7, 0.9 })
    lu.assertEquals(m.range(1, 4):list(), { 1, 2, 3, 4 })
    lu.assertEquals(m.int(2, 4):list(), { 2, 3, 4 })
    lu.assertNil(m.uniform(0, 1):list())
    lu.assertAlmostEquals(m.log(0.01, 1):at(0.5), 0.1, 1e-12)
    lu.assertEquals(m.choice({ "a", "b", "c" }):at(0.999999), "c")
    lu.assertEquals(m.int(0, 9):at(0.35), 3)
    lu.assertEquals(m.log(m.tensor { 1.0 }):item(), 0) -- of a tensor it is still the logarithm
    for _, d in ipairs { m.choice { 1, "x", { 2, 3 } }, m.range(0.1, 0.9, 0.2), m.int(1, 5), m.uniform(0, 2),
        m.log(1e-5, 1) } do
        local copy = space.from(require("cjson").decode(config.json(d:plain())))
        lu.assertEquals(config.json(copy:plain()), config.json(d:plain()))
    end
    lu.assertEquals(math.type(m.int(1, 5):restore(3.0)), "integer")
    lu.assertEquals(math.type(m.choice({ 1, 2 }):restore(2.0)), "integer")
    lu.assertEquals(math.type(m.uniform(0, 5):restore(3)), "float")
    lu.assertNil(m.choice({ 1, 2 }):restore(3))
    for text, f in pairs { ["smaller first"] = function() m.uniform(2, 1) end, ["above 0"] = function()
        m.log(0, 1)
    end, ["twice"] = function() m.choice { 1, 1 } end, ["list of values"] = function() m.choice {} end,
        ["whole numbers"] = function() m.int(0.5, 2) end } do
        lu.assertErrorMsgContains(text, f)
    end
end

function TestSamplers.test_grid_has_every_combination_once()
    local flat = space.flatten { a = m.choice { 1, 2 }, sub = { b = { "x", "y", "z" } }, c = m.int(0, 1) }
    lu.assertEquals(grid.size(flat), 12)
    local seen = {}
    for n = 1, 12 do seen[config.json(grid.point(flat, n))] = true end
    local n = 0
    for _ in pairs(seen) do n = n + 1 end
    lu.assertEquals(n, 12)
    lu.assertEquals(grid.point(flat, 1), { a = 1, c = 0, ["sub.b"] = "x" })
    lu.assertEquals(space.nest(grid.point(flat, 1)), { a = 1, c = 0, sub = { b = "x" } })
    lu.assertErrorMsgContains("no end of values", grid.size, space.flatten { lr = m.uniform(0, 1) })
end

-- Degree d polynomial over two elements, bits high to low, is primitive when x has order 2^d - 1 modulo it.
local function order_of_x(poly, degree)
    local x, n = 1, 0
    repeat
        x = x << 1
        if x >> degree & 1 == 1 then x = x ~ poly end
        n = n + 1
    until x == 1 or n > 1 << degree
    return n
end

function TestSamplers.test_the_table_of_sobol_is_sound()
    for _, row in ipairs(sobol.table) do
        local degree, inner, first = table.unpack(row)
        local poly = 1 << degree | inner << 1 | 1
        lu.assertEquals(order_of_x(poly, degree), (1 << degree) - 1)
        lu.assertEquals(#first, degree)
        for i, v in ipairs(first) do lu.assertTrue(v % 2 == 1 and v < 1 << i) end
    end
end

-- The first 2^k points of each dimension lie one in each interval of length 2^-k; of the first two dimensions, one in
-- each box of area 2^-k.
function TestSamplers.test_sobol_points_form_nets()
    local k, n = 8, 256
    for dimension = 1, sobol.dimensions do
        local seen = {}
        for i = 0, n - 1 do
            local cell = sobol.coordinate(i, dimension) >> (32 - k)
            lu.assertNil(seen[cell])
            seen[cell] = true
        end
    end
    for a = 0, k do
        local seen = {}
        for i = 0, n - 1 do
            local x, y = sobol.coordinate(i, 1), sobol.coordinate(i, 2)
            local cell = ((x >> (32 - a)) << (k - a)) | (y >> (32 - (k - a)))
            lu.assertNil(seen[cell])
            seen[cell] = true
        end
    end
end

local flat = space.flatten { x = m.uniform(-5, 10), y = m.log(1e-3, 1), z = m.choice { "a", "b", "c" },
    k = m.int(1, 8) }

local function loss(p)
    return (p.x - 3) ^ 2 / 25 + (math.log(p.y) + 2) ^ 2 / 4 + (p.z == "b" and 0 or 1) + math.abs(p.k - 5) / 4
end

local function search(sampler, seed, trials)
    local of, history, drawn = { sampler = sampler, seed = seed, goal = "min", space = flat }, {}, {}
    local best = math.huge
    for n = 1, trials do
        local params = draw.point(of, n, history, function(json) return drawn[json] end)
        drawn[config.json(params)] = true
        history[n] = { params = params, value = loss(params) }
        best = math.min(best, history[n].value)
    end
    return best, history
end

function TestSamplers.test_draws_are_functions_of_seed_number_and_history()
    for _, sampler in ipairs { "random", "sobol", "tpe" } do
        local _, first = search(sampler, 3, 25)
        local _, again = search(sampler, 3, 25)
        lu.assertEquals(again, first)
        lu.assertNotEquals(select(2, search(sampler, 4, 25)), first)
        local of = { sampler = sampler, seed = 3, goal = "min", space = flat }
        local known = table.move(first, 1, 19, 1, {})
        lu.assertEquals(draw.point(of, 20, known, function() return false end), first[20].params)
        for _, h in ipairs(first) do
            local p = h.params
            lu.assertTrue(p.x >= -5 and p.x <= 10 and p.y >= 1e-3 and p.y <= 1 and p.k >= 1 and p.k <= 8)
            lu.assertEquals(math.type(p.k), "integer")
        end
    end
end

function TestSamplers.test_tpe_beats_random_search()
    local sum = { random = 0, tpe = 0 }
    for seed = 1, 10 do
        for sampler in pairs(sum) do sum[sampler] = sum[sampler] + search(sampler, seed, 60) end
    end
    lu.assertTrue(sum.tpe < 0.5 * sum.random, ("tpe %g, random %g"):format(sum.tpe, sum.random))
end

function TestSamplers.test_tpe_takes_nan_and_pruned_points_for_bad()
    local of = { sampler = "tpe", seed = 1, goal = "max", space = space.flatten { x = m.uniform(0, 1) } }
    local history = {}
    for i = 1, 30 do -- high values are NaN, the middle was pruned with good values, low ones are worse but whole
        local x = i / 31
        history[i] = { params = { x = x }, value = x < 0.7 and x or nil, rung = x > 0.4 and x < 0.7 and 0 or nil }
    end
    local low = 0
    for n = 31, 60 do
        low = low + (draw.point(of, n, history, function() return false end).x < 0.5 and 1 or 0)
    end
    lu.assertTrue(low >= 20, low .. " of 30 near the best whole points")
end

function TestSamplers.test_a_finite_space_is_not_drawn_twice()
    local of = { sampler = "random", seed = 1, goal = "min", space = space.flatten { a = m.int(1, 3), b = { 1, 2 } } }
    local drawn, n = {}, 0
    for i = 1, 10 do
        local p = draw.point(of, i, {}, function(json) return drawn[json] end)
        if p then
            n = n + 1
            drawn[config.json(p)] = true
        end
    end
    lu.assertEquals(n, 6)
end

function TestSamplers.test_asha()
    local p = m.asha { min = 2, max = 20, eta = 3 }
    lu.assertEquals({ asha.epoch(p, 0), asha.epoch(p, 1), asha.epoch(p, 2), asha.epoch(p, 3) }, { 2, 6, 18 })
    local at = {}
    for i, v in ipairs { 5, 9, 0 / 0, 7, 9, 1 } do at[i] = { number = i, value = v } end
    local on = {}
    for i, t in ipairs(at) do on[i] = asha.goes_on(at, t, "max", 3) end
    lu.assertEquals(on, { false, true, false, false, true, false })
    lu.assertTrue(asha.goes_on(at, at[6], "min", 3))
    lu.assertFalse(asha.goes_on({ at[1], at[2] }, at[2], "max", 3)) -- too few to judge
    lu.assertErrorMsgContains("did you mean eta", m.asha, { etta = 2 })
    lu.assertEquals({ asha.least(p, 2), asha.least(p, 3), asha.least(p, 18), asha.least(p, 20) }, { 1, 3, 9, 27 })
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSamplers", TestSamplers } })

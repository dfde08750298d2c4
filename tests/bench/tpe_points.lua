-- Regrets of a sampler on the functions of tpe_vs_optuna: mimic tpe_points.lua SAMPLER BUDGET SEEDS.
-- One line per function and seed: name seed regret.
local m = require "mimic"
local draw = require "mimic.sweep.draw"

local sampler, budget, seeds = arg[1] or "tpe", tonumber(arg[2] or 100), tonumber(arg[3] or 30)
local A = { { 10, 3, 17, 3.5, 1.7, 8 }, { 0.05, 10, 17, 0.1, 8, 14 }, { 3, 3.5, 1.7, 10, 17, 8 },
    { 17, 8, 0.05, 10, 0.1, 14 } }
local P = { { 1312, 1696, 5569, 124, 8283, 5886 }, { 2329, 4135, 8307, 3736, 1004, 9991 },
    { 2348, 1451, 3522, 2883, 3047, 6650 }, { 4047, 8828, 8732, 5743, 1091, 381 } }
local C = { 1.0, 1.2, 3.0, 3.2 }

-- Each takes suggest(name, domain) and returns the value to be made small; `best` is its minimum.
local functions = {
    branin = { best = 0.397887357729739, f = function(suggest)
        local x, y = suggest("x", m.uniform(-5, 10)), suggest("y", m.uniform(0, 15))
        local b, c, t = 5.1 / (4 * math.pi ^ 2), 5 / math.pi, 1 / (8 * math.pi)
        return (y - b * x ^ 2 + c * x - 6) ^ 2 + 10 * (1 - t) * math.cos(x) + 10
    end },
    hartmann6 = { best = -3.32236801141551, f = function(suggest)
        local x, sum = {}, 0
        for i = 1, 6 do x[i] = suggest("x" .. i, m.uniform(0, 1)) end
        for k = 1, 4 do
            local inner = 0
            for i = 1, 6 do inner = inner + A[k][i] * (x[i] - 1e-4 * P[k][i]) ^ 2 end
            sum = sum - C[k] * math.exp(-inner)
        end
        return sum
    end },
    -- A space as of networks: a choice with branches of their own parameters, logarithms and whole numbers.
    mixed = { best = 0, f = function(suggest)
        local kind = suggest("kind", m.choice { "a", "b", "c" })
        local lr = math.log(suggest("lr", m.log(1e-5, 1)), 10)
        if kind == "a" then
            local depth, momentum = suggest("depth", m.int(1, 12)), suggest("momentum", m.uniform(0, 1))
            return (lr + 3) ^ 2 + 0.2 * math.abs(depth - 7) + 3 * (momentum - 0.9) ^ 2
        elseif kind == "b" then
            local tau = math.log(suggest("tau", m.log(0.01, 1)), 10)
            return 0.3 + (lr + 2) ^ 2 + 4 * (tau + 1.2) ^ 2
        end
        return 0.6 + 0.5 * (lr + 4) ^ 2 + (suggest("mode", m.choice { "p", "q", "r", "s" }) == "r" and 0 or 0.5)
    end },
}

for _, name in ipairs { "branin", "hartmann6", "mixed" } do
    local of = functions[name]
    for seed = 0, seeds - 1 do
        local history, best, known, seen = {}, math.huge, {}, {}
        for n = 1, budget do
            local at = draw.new({ sampler = sampler, seed = seed, goal = "min", space = known }, n, history)
            local value = of.f(function(key, domain)
                if not seen[key] then
                    seen[key] = true
                    known[#known + 1] = { key = key, domain = domain }
                end
                return at:suggest(key, domain)
            end)
            history[n] = { params = at.params, value = value }
            best = math.min(best, value)
        end
        print(name, seed, ("%.9g"):format(best - of.best))
    end
end

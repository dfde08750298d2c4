-- The tree-structured Parzen estimator (Bergstra, Bardenet, Bengio and Kegl, "Algorithms for hyper-parameter
-- optimization", NIPS 2011): densities of the best and of the other points, and of some candidates drawn from the
-- first the one with the largest ratio. What all points have is chosen together, one kernel per observation over
-- all parameters (Falkner, Klein and Hutter, "BOHB", ICML 2018); what only a branch has follows one by one, an
-- observation counting as much as its kernel covers the values already chosen. Bandwidths are the distance to
-- the neighbours, bounded below (Watanabe, "Tree-structured Parzen estimator", arXiv 2304.11127).
local config = require "mimic.config"
local sobol = require "mimic.sweep.sobol"

local tpe = {}

tpe.settings = {
    startup = 8,      -- points of a Sobol' sequence before it begins
    candidates = 64,
    share = 0.1,      -- of the points that count as the best, at most `best`
    best = 25,
}

local function better(goal)
    return function(a, b) -- finished before pruned, later pruned before earlier, NaN last, older first
        local ra, rb = a.rung or math.huge, b.rung or math.huge
        if (a.value == nil) ~= (b.value == nil) then return b.value == nil end
        if ra ~= rb then return ra > rb end
        if a.value ~= b.value then
            if goal == "max" then return a.value > b.value end
            return a.value < b.value
        end
        return a.order < b.order
    end
end

-- The observations of a draw in two sets, each with the log weight that the chosen values leave it.
local function split(at)
    local all = {}
    for i, h in ipairs(at.history) do
        all[i] = { params = h.params, value = h.value, rung = h.rung, order = i, log_weight = 0.0 }
    end
    local ranked = { table.unpack(all) }
    table.sort(ranked, better(at.goal))
    local n = math.min(math.ceil(tpe.settings.share * #all), tpe.settings.best)
    for i, o in ipairs(ranked) do o.best = i <= n end
    local sets = { best = { prior = 0.0 }, rest = { prior = 0.0 } }
    for _, o in ipairs(all) do -- in order of time
        local set = o.best and sets.best or sets.rest
        set[#set + 1] = o
    end
    for _, set in pairs(sets) do -- the 25 newest count whole, older ones less
        for i, o in ipairs(set) do
            local old = #set - 25
            o.log_weight = i <= old and math.log(old > 1 and 1 / #set + (1 - 1 / #set) * (i - 1) / (old - 1) or 1)
                or 0.0
        end
    end
    return sets
end

-- Error function within 1.5e-7 (Abramowitz and Stegun 7.1.26).
local function normal_cdf(x)
    local z = math.abs(x) / math.sqrt(2)
    local t = 1 / (1 + 0.3275911 * z)
    local poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    local erf = 1 - poly * math.exp(-z * z)
    return 0.5 * (1 + (x < 0 and -erf or erf))
end

-- A numeric domain as an interval [lo, hi]: values, logarithms, or positions in a list.
local function scale_of(domain)
    if domain.kind == "uniform" then
        return { lo = domain.lo, hi = domain.hi, to = function(v) return v end, from = function(x) return x end }
    elseif domain.kind == "log" then
        return { lo = math.log(domain.lo), hi = math.log(domain.hi), to = math.log, from = function(x)
            return math.max(domain.lo, math.min(domain.hi, math.exp(x)))
        end }
    elseif domain.kind == "int" then
        return { lo = domain.lo - 0.5, hi = domain.hi + 0.5, to = function(v) return v end, from = function(x)
            return math.max(domain.lo, math.min(domain.hi, math.floor(x + 0.5)))
        end }
    end
    local position = {}
    for i, v in ipairs(domain.values) do position[v] = i end
    return { lo = 0.5, hi = #domain.values + 0.5, to = function(v) return position[v] end, from = function(x)
        return domain.values[math.max(1, math.min(#domain.values, math.floor(x + 0.5)))]
    end }
end

local log_sqrt_2pi = 0.5 * math.log(2 * math.pi)

-- One truncated normal per observation that has the parameter, and the wide prior; `weight` as logarithms.
local function kernels(set, key, scale)
    local width = scale.hi - scale.lo
    local list = {}
    for _, o in ipairs(set) do
        local v = o.params[key]
        local x = v ~= nil and scale.to(v)
        if x then list[#list + 1] = { mu = x, of = o, log_weight = o.log_weight } end
    end
    table.sort(list, function(a, b)
        if a.mu ~= b.mu then return a.mu < b.mu end
        return a.of.order < b.of.order
    end)
    local n = #list
    local least = width / math.min(100, 2 + n)
    for i, k in ipairs(list) do -- the distance to the farther neighbour; at the ends, to the one there is
        local left = k.mu - (i > 1 and list[i - 1].mu or scale.lo)
        local right = (i < n and list[i + 1].mu or scale.hi) - k.mu
        if n > 1 and i == 1 then left = 0 elseif n > 1 and i == n then right = 0 end
        k.sigma = math.max(least, math.min(width, math.max(left, right)))
    end
    list[n + 1] = { mu = (scale.lo + scale.hi) / 2, sigma = width, prior = true, log_weight = set.prior }
    for _, k in ipairs(list) do
        local inside = normal_cdf((scale.hi - k.mu) / k.sigma) - normal_cdf((scale.lo - k.mu) / k.sigma)
        k.log_norm = -log_sqrt_2pi - math.log(k.sigma) - math.log(math.max(inside, 1e-12))
    end
    return list
end

local function log_kernel(k, x)
    local z = (x - k.mu) / k.sigma
    return k.log_norm - 0.5 * z * z
end

local function log_sum(terms, n)
    local top = -math.huge
    for i = 1, n do top = math.max(top, terms[i]) end
    local sum = 0.0
    for i = 1, n do sum = sum + math.exp(terms[i] - top) end
    return top + math.log(sum)
end

local terms = {}

-- Log density of the mixture, up to the sum of its weights, which no candidate changes.
local function log_mixture(list, x, log_density)
    for i, k in ipairs(list) do terms[i] = k.log_weight + log_density(k, x) end
    return log_sum(terms, #list)
end

-- Index drawn by weights given as logarithms.
local function pick(rng, list)
    local top = -math.huge
    for _, k in ipairs(list) do top = math.max(top, k.log_weight) end
    local sum = 0.0
    for _, k in ipairs(list) do sum = sum + math.exp(k.log_weight - top) end
    local left = rng:uniform() * sum
    for _, k in ipairs(list) do
        left = left - math.exp(k.log_weight - top)
        if left < 0 then return k end
    end
    return list[#list]
end

local function sample_number(rng, k, scale)
    for _ = 1, 64 do
        local x = k.mu + k.sigma * rng:normal()
        if x >= scale.lo and x <= scale.hi then return x end
    end
    return math.max(scale.lo, math.min(scale.hi, k.mu))
end

-- What the choice of x leaves of each observation, for the parameters to come.
local function condition(set, list, x, log_density)
    local prior
    for _, k in ipairs(list) do
        if k.prior then prior = log_density(k, x) end
    end
    set.prior = set.prior + prior
    local seen = {}
    for _, k in ipairs(list) do
        if k.of then
            seen[k.of] = true
            k.of.log_weight = k.of.log_weight + log_density(k, x)
        end
    end
    for _, o in ipairs(set) do
        if not seen[o] then o.log_weight = o.log_weight + prior end
    end
end

local function choose(rng, sets, best, rest, sample, log_density)
    local chosen, top
    for _ = 1, tpe.settings.candidates do
        local x = sample(rng, pick(rng, best))
        local score = log_mixture(best, x, log_density) - log_mixture(rest, x, log_density)
        if not top or score > top then chosen, top = x, score end
    end
    condition(sets.best, best, chosen, log_density)
    condition(sets.rest, rest, chosen, log_density)
    return chosen
end

-- A categorical kernel gives its observation's value one share more than the others.
local function categories(set, key, index)
    local list = {}
    for _, o in ipairs(set) do
        local v = o.params[key]
        local i = v ~= nil and index(v)
        if i then list[#list + 1] = { at = i, of = o, log_weight = o.log_weight } end
    end
    list[#list + 1] = { prior = true, log_weight = set.prior }
    for _, k in ipairs(list) do k.share = 1 / #list end
    return list
end

-- A parameter as the estimator sees it: kernels(set), sample(rng, kernel) -> x, log_density(kernel, x), value(x).
local function choice_axis(key, domain)
    local values, n = domain.values, #domain.values
    local position = {}
    for i, v in ipairs(values) do position[config.json(v)] = i end
    local function index(v) return position[config.json(v)] end
    return {
        kernels = function(set) return categories(set, key, index) end,
        sample = function(rng, k)
            if k.prior or rng:uniform() * (1 + n * k.share) >= 1 then return 1 + rng:below(n) end
            return k.at
        end,
        log_density = function(k, i)
            if k.prior then return -math.log(n) end
            return math.log(((k.at == i and 1 or 0) + k.share) / (1 + n * k.share))
        end,
        value = function(i) return values[i] end,
    }
end

local function number_axis(key, domain)
    local scale = scale_of(domain)
    local whole = domain.kind == "int" or domain.kind == "range"
    return {
        kernels = function(set) return kernels(set, key, scale) end,
        sample = function(rng, k)
            local x = sample_number(rng, k, scale)
            return whole and scale.to(scale.from(x)) or x
        end,
        log_density = log_kernel, value = scale.from,
    }
end

local function axis_of(key, domain)
    return domain.kind == "choice" and choice_axis(key, domain) or number_axis(key, domain)
end

-- Kernels of the common parameters by observation; the wide prior is of `set` itself.
local function table_of(set, axes)
    local by, all = {}, { { of = set, log_weight = set.prior } }
    for _, o in ipairs(set) do all[#all + 1] = { of = o, log_weight = o.log_weight } end
    for i, axis in ipairs(axes) do
        local list = axis.kernels(set)
        by[i] = { list = list, of = {} }
        for _, k in ipairs(list) do by[i].of[k.of or set] = k end
    end
    return by, all
end

local function log_joint(by, all, axes, x)
    for j, c in ipairs(all) do
        local sum = c.log_weight
        for i, axis in ipairs(axes) do sum = sum + axis.log_density(by[i].of[c.of], x[i]) end
        terms[j] = sum
    end
    return log_sum(terms, #all)
end

-- Chooses all parameters that every observation has together: a candidate is drawn around one observation.
local function choose_together(at)
    local axes = {}
    for _, p in ipairs(at.space) do
        local common = p.domain:size() > 1
        for _, h in ipairs(at.history) do common = common and h.params[p.key] ~= nil end
        if common then
            local axis = axis_of(p.key, p.domain)
            axis.key = p.key
            axes[#axes + 1] = axis
        end
    end
    at.together = {}
    if #axes < 2 then return end
    local rng = at:rng("")
    local best, best_all = table_of(at.sets.best, axes)
    local rest, rest_all = table_of(at.sets.rest, axes)
    local chosen, top
    for _ = 1, tpe.settings.candidates do
        local c, x = pick(rng, best_all), {}
        for i, axis in ipairs(axes) do x[i] = axis.sample(rng, best[i].of[c.of]) end
        local score = log_joint(best, best_all, axes, x) - log_joint(rest, rest_all, axes, x)
        if not top or score > top then chosen, top = x, score end
    end
    for i, axis in ipairs(axes) do
        condition(at.sets.best, best[i].list, chosen[i], axis.log_density)
        condition(at.sets.rest, rest[i].list, chosen[i], axis.log_density)
        at.together[axis.key] = axis.value(chosen[i])
    end
end

---@param at draw.At
---@param key string
---@param domain space.Domain
function tpe.suggest(at, key, domain)
    if #at.history < tpe.settings.startup or domain:size() == 1 then return sobol.suggest(at, key, domain) end
    if not at.sets then
        at.sets = split(at)
        choose_together(at)
    end
    local value = at.together[key]
    if value ~= nil and domain:restore(value) ~= nil then return value end
    local axis = axis_of(key, domain)
    return axis.value(choose(at:rng(key), at.sets, axis.kernels(at.sets.best), axis.kernels(at.sets.rest),
        axis.sample, axis.log_density))
end

return tpe

-- Random search (Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012).
local random = {}

---A value of one parameter for the point that is drawn.
---@param at draw.At
---@param key string
---@param domain space.Domain
function random.suggest(at, key, domain)
    return domain:at(at:rng(key):uniform())
end

return random

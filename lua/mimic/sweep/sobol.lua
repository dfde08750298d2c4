-- Sobol' points (Sobol', USSR Comput. Math. Math. Phys. 7, 1967): every parameter is covered evenly by any first
-- 2^k points, every pair nearly so. Primitive polynomials and initial direction numbers are those published by Joe
-- and Kuo, "Constructing Sobol sequences with better two-dimensional projections", SIAM J. Sci. Comput. 30,
-- 2008; tests/lua/test_samplers.lua checks that the polynomials are primitive and the points form nets. A shift
-- by the sweep's seed (exclusive or) makes sweeps differ.
local random = require "mimic.sweep.random"

local sobol = {}

-- Of dimension 2 on: degree, inner coefficients of the polynomial as bits, initial odd numbers.
sobol.table = {
    { 1, 0, { 1 } }, { 2, 1, { 1, 3 } }, { 3, 1, { 1, 3, 1 } }, { 3, 2, { 1, 1, 1 } },
    { 4, 1, { 1, 1, 3, 3 } }, { 4, 4, { 1, 3, 5, 13 } },
    { 5, 2, { 1, 1, 5, 5, 17 } }, { 5, 4, { 1, 1, 5, 5, 5 } }, { 5, 7, { 1, 1, 7, 11, 19 } },
    { 5, 11, { 1, 1, 5, 1, 1 } }, { 5, 13, { 1, 1, 1, 3, 11 } }, { 5, 14, { 1, 3, 5, 5, 31 } },
    { 6, 1, { 1, 3, 3, 9, 7, 49 } }, { 6, 13, { 1, 1, 1, 15, 21, 21 } }, { 6, 16, { 1, 3, 1, 13, 27, 49 } },
    { 6, 19, { 1, 1, 1, 15, 7, 5 } }, { 6, 22, { 1, 3, 1, 15, 13, 25 } }, { 6, 25, { 1, 1, 5, 5, 19, 61 } },
    { 7, 1, { 1, 3, 7, 11, 23, 15, 103 } }, { 7, 4, { 1, 3, 7, 13, 13, 15, 69 } },
}

local bits = 32
local directions = {} -- dimension -> 32 direction numbers

local function directions_of(dimension)
    local v = directions[dimension]
    if v then return v end
    v = {}
    if dimension == 1 then
        for i = 1, bits do v[i] = 1 << (bits - i) end
    else
        local degree, inner, first = table.unpack(sobol.table[dimension - 1])
        for i = 1, bits do
            if i <= degree then
                v[i] = first[i] << (bits - i)
            else
                local x = v[i - degree] ~ (v[i - degree] >> degree)
                for k = 1, degree - 1 do
                    if inner >> (degree - 1 - k) & 1 == 1 then x = x ~ v[i - k] end
                end
                v[i] = x
            end
        end
    end
    directions[dimension] = v
    return v
end

---Coordinate of point n (from 0) as an integer of 32 bits.
---@param n integer
---@param dimension integer from 1
function sobol.coordinate(n, dimension)
    local v, x, i = directions_of(dimension), 0, 1
    while n > 0 do
        if n & 1 == 1 then x = x ~ v[i] end
        n, i = n >> 1, i + 1
    end
    return x
end

sobol.dimensions = #sobol.table + 1

---@param at draw.At
---@param key string
---@param domain space.Domain
function sobol.suggest(at, key, domain)
    local dimension = at.drawn + 1
    if dimension > sobol.dimensions then return random.suggest(at, key, domain) end
    local x = sobol.coordinate(at.n - 1 + (at.attempt << 20), dimension) ~ at:shift(dimension)
    return domain:at((x + 0.5) / 2 ^ bits)
end

return sobol

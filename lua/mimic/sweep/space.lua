-- What a sweep searches: the domain of each parameter. m.choice, m.range, m.int, m.uniform and m.log make
-- one; a define-by-run trial asks for the same ones by t:choice, t:int, ...
local config = require "mimic.config"

local space = {}

---@class space.Domain
---@field kind "choice"|"range"|"int"|"uniform"|"log"
---@field values any[]? of choice and range, in order
---@field lo number?
---@field hi number?
local Domain = {}
Domain.__index = Domain
Domain.__name = "mimic.domain"

local function make(fields)
    return setmetatable(fields, Domain)
end

---@param v any
---@return boolean
function space.is_domain(v)
    return getmetatable(v) == Domain
end

local function bounds(who, lo, hi)
    local numbers = type(lo) == "number" and type(hi) == "number"
    if not numbers or lo ~= lo or hi ~= hi or lo > hi or lo == -math.huge or hi == math.huge then
        config.refuse("%s takes two numbers, the smaller first, not %s and %s", who, tostring(lo), tostring(hi))
    end
end

---One of some values, without order.
---@param values any[]
---@return space.Domain
function space.choice(values)
    if type(values) ~= "table" or #values == 0 then
        config.refuse("choice takes a list of values: choice { 0.05, 0.1, 0.2 }")
    end
    local list = config.plain(values)
    local seen = {}
    for i = 1, #list do
        local key = config.json(list[i])
        if seen[key] then config.refuse("choice names %s twice", key) end
        seen[key] = true
    end
    return make { kind = "choice", values = list }
end

-- 0.1 + 2 * 0.1 as a person writes it, 0.3.
local function tidy(x)
    if math.type(x) == "integer" then return x end
    return tonumber(("%.12g"):format(x)) + 0.0
end

---lo, lo + step, ... up to hi, ends included as in Lua's `for`.
---@param lo number
---@param hi number
---@param step number? 1 when left out
---@return space.Domain
function space.range(lo, hi, step)
    step = step or 1
    bounds("range", lo, hi)
    if type(step) ~= "number" or step <= 0 then config.refuse("range: the step is a number above 0") end
    local n = math.floor((hi - lo) / step + 1e-9)
    if n > 1e6 then config.refuse("range(%g, %g, %g) has %.0f values", lo, hi, step, n) end
    local values = {}
    for i = 0, n do values[i + 1] = tidy(lo + i * step) end
    return make { kind = "range", values = values, lo = lo, hi = hi, step = step }
end

---A whole number from lo to hi.
function space.int(lo, hi)
    bounds("int", lo, hi)
    if not (math.tointeger(lo) and math.tointeger(hi)) then config.refuse("int takes whole numbers") end
    return make { kind = "int", lo = math.tointeger(lo), hi = math.tointeger(hi) }
end

---A number between lo and hi, all equally likely.
function space.uniform(lo, hi)
    bounds("uniform", lo, hi)
    return make { kind = "uniform", lo = lo + 0.0, hi = hi + 0.0 }
end

---A number between lo and hi whose logarithm is uniform.
function space.log(lo, hi)
    bounds("log", lo, hi)
    if lo <= 0 then config.refuse("log: both ends are above 0") end
    return make { kind = "log", lo = lo + 0.0, hi = hi + 0.0 }
end

---The domain of a table such as { choice = {...} } or { log = { 0.01, 1 } }: the reverse of `plain`.
---@param t table
---@return space.Domain
function space.from(t)
    local kind, args = next(t)
    if kind == "choice" then return space.choice(args) end
    return space[kind](table.unpack(args))
end

---@return table plain a table that JSON can hold
function Domain:plain()
    if self.kind == "choice" then return { choice = self.values } end
    if self.kind == "range" then return { range = { self.lo, self.hi, self.step } } end
    return { [self.kind] = { self.lo, self.hi } }
end

function Domain:__tostring()
    local kind, args = next(self:plain())
    local words = {}
    for i, v in ipairs(args) do words[i] = type(v) == "string" and v or config.json(v) end
    return ("%s(%s)"):format(kind, table.concat(words, ", "))
end

---All values in order, or nil for a domain with no end of them.
---@return any[]|nil
function Domain:list()
    if self.values then return self.values end
    if self.kind ~= "int" then return nil end
    local out = {}
    for v = self.lo, self.hi do out[#out + 1] = v end
    return out
end

---How many values there are; math.huge for a continuous domain.
function Domain:size()
    if self.values then return #self.values end
    if self.kind == "int" then return self.hi - self.lo + 1 end
    return self.lo == self.hi and 1 or math.huge
end

---The value at u of [0, 1): equal shares of it give equally likely values.
---@param u number
function Domain:at(u)
    if self.values then return self.values[math.min(math.floor(u * #self.values) + 1, #self.values)] end
    if self.kind == "int" then return math.min(self.lo + math.floor(u * (self.hi - self.lo + 1)), self.hi) end
    if self.kind == "uniform" then return self.lo + u * (self.hi - self.lo) end
    local x = math.exp(math.log(self.lo) + u * (math.log(self.hi) - math.log(self.lo)))
    return math.max(self.lo, math.min(self.hi, x))
end

---The domain's own value for one that came back from JSON (where 3 and 3.0 are one); nil when it is not in the
---domain.
function Domain:restore(v)
    local list = self.kind ~= "int" and self.values
    if list then
        local text = config.json(v)
        for _, x in ipairs(list) do
            if config.json(x) == text then return x end
        end
        return nil
    end
    if type(v) ~= "number" or v < self.lo or v > self.hi then return nil end
    if self.kind == "int" then return math.tointeger(v) end
    return v + 0.0
end

---Domains of a nested table by dotted key, in the order of the keys.
---@param t table
---@return {key: string, domain: space.Domain}[]
function space.flatten(t)
    local out = {}
    local function walk(node, prefix)
        for _, k in ipairs(config.sorted_keys(node)) do
            local v = node[k]
            local key = prefix .. tostring(k)
            if space.is_domain(v) then
                out[#out + 1] = { key = key, domain = v }
            elseif type(v) == "table" and #v > 0 then
                out[#out + 1] = { key = key, domain = space.choice(v) }
            elseif type(v) == "table" then
                walk(v, key .. ".")
            else
                config.refuse("space.%s: m.choice{...}, m.range(lo, hi, step), m.int, m.uniform or m.log expected, "
                    .. "not %s", key, tostring(v))
            end
        end
    end
    walk(t, "")
    table.sort(out, function(a, b) return a.key < b.key end)
    return out
end

---{ ["mscl.tau"] = 0.1 } as { mscl = { tau = 0.1 } }.
---@param params table<string, any>
---@return table
function space.nest(params)
    local out = {}
    for key, value in pairs(params) do
        local node, parts = out, {}
        for part in key:gmatch("[^.]+") do parts[#parts + 1] = part end
        for i = 1, #parts - 1 do
            if type(node[parts[i]]) ~= "table" then node[parts[i]] = {} end
            node = node[parts[i]]
        end
        node[parts[#parts]] = value
    end
    return out
end

---"tau=0.1 lambda=0.3"
---@param params table
function space.label(params)
    local words = {}
    for _, k in ipairs(config.sorted_keys(params)) do
        local v = params[k]
        words[#words + 1] = k .. "=" .. (type(v) == "number" and ("%.4g"):format(v) or type(v) == "string" and v
            or config.json(v))
    end
    return table.concat(words, " ")
end

return space

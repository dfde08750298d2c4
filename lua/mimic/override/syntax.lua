-- Words of the command line that change a configuration, in Hydra's syntax: key=value, +key=value (or ++), ~key.
-- Values: numbers, true, false, null, text, 'quoted', "quoted", [lists], {a: 1} maps, 0..4; a sweep (-m) also
-- takes several values a,b,c and domains: range(lo, hi, step), choice(a, b), int, uniform (interval), log.
local space = require "mimic.sweep.space"

local syntax = {}

local function fail(text, ...)
    error(("%s: " .. select(1, ...)):format(text, select(2, ...)), 0)
end

---@class override.Parser
---@field text string
---@field at integer
local Parser = {}
Parser.__index = Parser

function Parser:skip()
    self.at = self.text:match("^%s*()", self.at)
end

function Parser:peek()
    self:skip()
    return self.text:sub(self.at, self.at)
end

local escapes = { n = "\n", t = "\t", r = "\r" }

function Parser:quoted(mark)
    local out, i = {}, self.at + 1
    while true do
        local c = self.text:sub(i, i)
        if c == "" then fail(self.text, "the text that begins with %s has no end", mark) end
        if c == mark then break end
        if c == "\\" then
            i = i + 1
            c = self.text:sub(i, i)
            c = escapes[c] or c
        end
        out[#out + 1] = c
        i = i + 1
    end
    self.at = i + 1
    return table.concat(out)
end

local words = { ["true"] = true, ["false"] = false, ["null"] = false }

-- A bare word: a number where it is one, else text. null is false, which tasks take for "not set".
local function bare(s)
    if words[s] ~= nil then return words[s] end
    if s:find("^[%d.+-]") or s:find("^inf$") then
        local n = tonumber((s:gsub("^%+", "")))
        if n then return n end
        local low = s:lower()
        if low == "inf" or low == "+inf" then return math.huge end
        if low == "-inf" then return -math.huge end
    end
    return s
end

local function range_of(s)
    local lo, hi = s:match("^(-?%d+)%s*%.%.%s*(-?%d+)$")
    if not lo then return nil end
    lo, hi = math.tointeger(tonumber(lo)), math.tointeger(tonumber(hi))
    if hi < lo then fail(s, "the second number is the larger one") end
    if hi - lo > 1e6 then fail(s, "too many numbers") end
    local list = {}
    for i = lo, hi do list[#list + 1] = i end
    return list
end

-- Values up to the closing mark; 0..2 inside gives its numbers.
function Parser:items(close)
    local list = {}
    while self:peek() ~= close do
        if self:peek() == "" then
            fail(self.text, "the %s has no end, %s", close == "]" and "list" or "call", close)
        end
        local v, spread = self:value(",%" .. close)
        if spread then
            for _, x in ipairs(spread) do list[#list + 1] = x end
        else
            list[#list + 1] = v
        end
        local c = self:peek()
        if c == "," then
            self.at = self.at + 1
        elseif c ~= close and c ~= "" then
            fail(self.text, "%s expected at '%s'", close, self.text:sub(self.at))
        end
    end
    self.at = self.at + 1
    return list
end

function Parser:map()
    local out = {}
    while self:peek() ~= "}" do
        local key, after = self.text:match("^([%w_]+)%s*:()", self.at)
        if not key then fail(self.text, "a map is written {key: value, ...}") end
        self.at = after
        out[key] = self:value(",}")
        if self:peek() == "," then
            self.at = self.at + 1
        elseif self:peek() ~= "}" then
            fail(self.text, "the map has no end, }")
        end
    end
    self.at = self.at + 1
    return out
end

local domains = {
    range = space.range, int = space.int, uniform = space.uniform, interval = space.uniform, log = space.log,
    choice = function(...) return space.choice { ... } end,
}

-- One value, ended by one of the characters `stop`. Second result: the numbers of a bare a..b.
function Parser:value(stop)
    local c = self:peek()
    if c == '"' or c == "'" then
        local before = self.at
        local text = self:quoted(c)
        local ends = self.text:find("^%s*[" .. stop .. "]", self.at) or not self.text:find("%S", self.at)
        if ends then return text end
        self.at = before -- a quote inside a bare text
    end
    if c == "[" then
        self.at = self.at + 1
        return self:items("]")
    end
    if c == "{" then
        self.at = self.at + 1
        return self:map()
    end
    local name, open = self.text:match("^(%l+)%(()", self.at)
    if name and domains[name] then
        self.at = open
        local ok, domain = pcall(domains[name], table.unpack(self:items(")")))
        if not ok then fail(self.text, "%s", domain) end
        return domain
    end
    local s, after = self.text:match("^([^" .. stop .. "]*)()", self.at)
    self.at = after
    s = s:match("^%s*(.-)%s*$")
    return bare(s), range_of(s)
end

---The value behind `=`: `value`, or for several of them `domain`.
---@param text string
---@return any value, space.Domain|nil domain, integer[]|nil spread numbers of a bare a..b
function syntax.parse_value(text)
    if not text:find("%S") then return "" end
    local p = setmetatable({ text = text, at = 1 }, Parser)
    local values, spread = {}, nil
    while true do
        local v, list = p:value(",")
        spread = spread or list
        if list and #values > 0 then fail(text, "write [a..b] inside a list") end
        values[#values + 1] = v
        local c = p:peek()
        if c == "" then break end
        if c ~= "," then fail(text, "'%s' is left over", text:sub(p.at)) end
        p.at = p.at + 1
    end
    if #values > 1 then
        local ok, domain = pcall(space.choice, values)
        if not ok then fail(text, "%s", domain) end
        return nil, domain
    end
    if space.is_domain(values[1]) then return nil, values[1] end
    return values[1], nil, spread
end

---@class override.Word
---@field op "set"|"add"|"remove"
---@field text string the key
---@field path (string|integer)[]
---@field value any
---@field domain space.Domain|nil several values, for a sweep
---@field word string as given

---@param word string
---@return override.Word
function syntax.parse(word)
    local sign, key, value = word:match("^(%+?%+?)([%w_.]+)=(.*)$")
    local op = sign == "" and "set" or "add"
    if not key then
        key = word:match("^~([%w_.]+)$")
        op = "remove"
    end
    if not key then
        error(("'%s' is not an override: write key=value, for example epochs=3 or data.size=64")
            :format(word), 0)
    end
    local path = {}
    for part in key:gmatch("[^.]+") do path[#path + 1] = math.tointeger(tonumber(part)) or part end
    local o = { op = op, text = key, path = path, word = word }
    if op == "remove" then return o end
    local spread
    o.value, o.domain, spread = syntax.parse_value(value)
    if spread then o.value, o.spread = spread, true end
    return o
end

---Words of a command without a sweep: several values are refused.
---@param list string[]
---@return override.Word[]
function syntax.single(list)
    local out = {}
    for i, word in ipairs(list) do
        out[i] = syntax.parse(word)
        if out[i].domain then
            error(("%s: several values are for `mimic sweep FILE.lua -m %s`; one list is written %s=[a,b]")
                :format(word, word, out[i].text), 0)
        end
    end
    return out
end

---Words of a sweep: those with several values apart, as its space. A bare a..b counts as several values, but
---for `seeds`, which is a list.
---@param list string[]
---@return string[] words, table<string, space.Domain> space
function syntax.multi(list)
    local fixed, domains_of = {}, {}
    for _, word in ipairs(list) do
        local o = syntax.parse(word)
        if o.spread and o.text ~= "seeds" then o.domain = space.choice(o.value) end
        if o.domain then domains_of[o.text] = o.domain else fixed[#fixed + 1] = word end
    end
    return fixed, domains_of
end

return syntax

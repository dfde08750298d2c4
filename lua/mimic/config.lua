-- Configurations: nested tables that are merged, frozen, checked against a task's defaults, and written
-- as canonical JSON. A configuration never changes after m.config returned it.
local origin = require "mimic.origin"
local suggest = require "mimic.suggest"

local config = { refused = false }

local store = setmetatable({}, { __mode = "k" }) -- frozen proxy -> the table behind it
-- Of a frozen proxy, where anything is known: the origins of its leaves, and the words of the command line that set
-- them with their values, {word, value}, both by dotted key; `prefix` is the place of this proxy in them.
---@type table<table, {origins: table?, words: table?, prefix: string}>
local marks = setmetatable({}, { __mode = "k" })
local methods = {}
local frozen = {} -- metatable of every proxy
config.made = false -- a list here takes every configuration that m.config makes: `mimic config`
local common = { "seed", "seeds" } -- keys that every configuration may hold

---Ends the script with a message about what it, or its command line, asks for. The message is kept, so that
---the command can tell such a usage error from a fault.
---@param ... any as for string.format
function config.refuse(...)
    config.refused = string.format(...)
    error(config.refused, 0)
end
local refuse = config.refuse

-- A list is a table of the keys 1..n; an empty table is a map. Lists are values: replaced, not merged.
local function is_list(t)
    return type(t) == "table" and rawlen(t) > 0
end

local function is_map(t)
    return type(t) == "table" and not is_list(t)
end
config.is_map = is_map

local function raw(t)
    return store[t] or t
end

local OneOf = {} -- metatable of m.one_of: a value of a configuration that the command line may change to another

---A setting that is one of some values; the first is what it is unless the command line says another of them.
---@param values any[]
function config.one_of(values)
    if type(values) ~= "table" or #values == 0 then
        refuse('m.one_of takes a list of values, the usual one first: m.one_of { "small", "smoke" }')
    end
    return setmetatable({ values = values }, OneOf)
end

-- The words that set what lies below a proxy have had their effect: somebody looked.
local function note_reading(t, key)
    local mark = marks[t]
    for k, set in pairs(mark and mark.words or {}) do
        local below = key and k == mark.prefix .. key or not key and k:sub(1, #mark.prefix) == mark.prefix
        if below then set.word.read = true end
    end
end

local function copy(t, quietly)
    if getmetatable(t) == OneOf then return t.values[1] end
    if not quietly and marks[t] then note_reading(t) end
    t = raw(t)
    if type(t) ~= "table" then
        if type(t) == "function" or type(t) == "userdata" or type(t) == "thread" then
            refuse("a configuration holds numbers, strings, booleans and tables, not a %s", type(t))
        end
        return t
    end
    local out = {}
    for k, v in next, t do
        if math.type(k) == "float" or (type(k) ~= "string" and type(k) ~= "number") then
            refuse("a configuration's keys are names or 1..n, not %s", tostring(k))
        end
        out[k] = copy(v, quietly)
    end
    if is_list(out) then
        for k in pairs(out) do
            if math.type(k) ~= "integer" or k < 1 or k > #out then
                refuse("a configuration's table is a list or a map, not both (key %s)", tostring(k))
            end
        end
    end
    return out
end

---Plain deep copy without proxies, safe to hand to C functions and to change.
---@param t any
---@return any
function config.plain(t)
    return copy(t)
end

---The same for the library itself: it is no reading of the values by the script.
---@param t any
---@return any
function config.copy(t)
    return copy(t, true)
end

function frozen.__index(t, k)
    local v = store[t][k]
    if v == nil then return methods[k] end
    if marks[t] then note_reading(t, tostring(k)) end
    return v
end

function frozen.__newindex(_, k)
    error(("a configuration is frozen: use base:with{ %s = ... }"):format(tostring(k)), 2)
end

function frozen.__pairs(t)
    note_reading(t)
    return next, store[t], nil
end
function frozen.__len(t) return #store[t] end
function frozen.__tostring(t) return config.json(t) end
frozen.__name = "mimic.config"

-- Proxies of a plain tree that nobody else holds; what is known of them as for `marks`.
local function freeze(t, origins, words, prefix)
    local inside = {}
    for k, v in next, t do
        inside[k] = type(v) == "table" and freeze(v, origins, words, prefix .. tostring(k) .. ".") or v
    end
    local proxy = setmetatable({}, frozen)
    store[proxy] = inside
    if origins or words then marks[proxy] = { origins = origins, words = words, prefix = prefix } end
    return proxy
end

---Deep merge of plain tables: the later wins, lists and scalars are replaced whole.
---@param base table
---@param patch table
---@return table base changed in place
function config.merge(base, patch)
    for k, v in pairs(patch) do
        if is_map(v) and is_map(base[k]) then
            config.merge(base[k], v)
        else
            base[k] = v
        end
    end
    return base
end

-- The key of the patch that sets over a leaf of the base: its own, or one above it whose table gives way to a value.
local function set_over(replaced, key)
    while key do
        local over = replaced[key]
        if over ~= nil and not is_map(over) then return key, over end
        key = key:match "^(.*)%.[^.]+$"
    end
end

-- The words that hold in a copy with `patch` over it; one whose value the patch replaces has lost, which is said.
local function words_after(t, patch)
    local mark = marks[t]
    if not (mark and mark.words) then return nil end
    local replaced, out = {}, {}
    for _, leaf in ipairs(config.flatten(patch)) do replaced[leaf.key] = leaf.value end
    for key, set in pairs(mark.words) do
        if key:sub(1, #mark.prefix) == mark.prefix then
            local own = key:sub(#mark.prefix + 1)
            local at_key, over = set_over(replaced, own)
            if at_key and (at_key ~= own or config.json(over) ~= config.json(set.value)) then
                local at = debug.getinfo(3, "Sl") -- the script's line
                require("mimic.override").lost(set.word, at_key, over, ("%s:%d"):format(at.short_src, at.currentline))
            else
                out[own] = set
            end
        end
    end
    return next(out) and out
end

---A new frozen configuration: this one with the values of `patch` over it. Tables are merged key by key; a list or a
---value takes the place of what was there.
---@param patch table
---@return table
function methods:with(patch)
    local plain = config.plain(patch)
    local origins = origin.constructor("with", plain, 3)
    if origins then
        for _, leaf in ipairs(config.flatten(self)) do
            origins[leaf.key] = origins[leaf.key] or config.origin(self, leaf.key)
        end
    end
    return freeze(config.merge(config.copy(self), plain), origins, words_after(self, plain), "")
end

-- Numbers so that they come back the same: integers without a point, floats with the fewest digits.
local function json_number(x)
    if x ~= x then return "null" end
    if x == math.huge then return "1e999" end
    if x == -math.huge then return "-1e999" end
    if math.type(x) == "integer" or x == math.floor(x) and math.abs(x) < 2 ^ 53 then return ("%d"):format(x) end
    for digits = 15, 16 do
        local s = ("%." .. digits .. "g"):format(x)
        if tonumber(s) == x then return s end
    end
    return ("%.17g"):format(x)
end

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function json_string(s)
    return '"' .. s:gsub('[%c"\\\127]', function(c)
        return escapes[c] or ("\\u%04x"):format(c:byte())
    end) .. '"'
end

---Canonical JSON: sorted keys, no spaces, one spelling per number. Equal configurations give equal text.
---@param v any
---@return string
function config.json(v)
    v = raw(v)
    local kind = type(v)
    if kind == "number" then return json_number(v) end
    if kind == "string" then return json_string(v) end
    if kind == "boolean" then return tostring(v) end
    if kind ~= "table" then return "null" end
    local out = {}
    if is_list(v) then
        for i = 1, #v do out[i] = config.json(v[i]) end
        return "[" .. table.concat(out, ",") .. "]"
    end
    for _, k in ipairs(config.sorted_keys(v)) do
        out[#out + 1] = json_string(tostring(k)) .. ":" .. config.json(v[k])
    end
    return "{" .. table.concat(out, ",") .. "}"
end

---Keys of a table in byte order.
---@param t table
---@return any[]
function config.sorted_keys(t)
    local keys = {}
    for k in pairs(t) do keys[#keys + 1] = k end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    return keys
end

---Leaves as a sorted list of {key = "a.b", value = scalar or list}.
---@param t table
---@return table[]
function config.flatten(t)
    local out = {}
    local function walk(node, prefix)
        node = raw(node)
        for _, k in ipairs(config.sorted_keys(node)) do
            local v = raw(node[k])
            local key = prefix .. tostring(k)
            if is_map(v) and next(v) ~= nil then
                walk(v, key .. ".")
            else
                out[#out + 1] = { key = key, value = v }
            end
        end
    end
    walk(t, "")
    return out
end

---Dotted names of all leaves.
function config.key_names(t)
    local names = {}
    for i, leaf in ipairs(config.flatten(t)) do names[i] = leaf.key end
    return names
end

-- Whether the path, from its part `from` on, is a key of `defaults` or lies in free form; with `deep` also what lies
-- below an unset key, such as data.train.path.
function config.known_path(defaults, path, from, deep)
    local node = defaults
    for i = from, #path do
        node = node[path[i]]
        if node == nil then return false end
        if not is_map(node) then return i == #path or deep and node == false or false end
        if next(node) == nil then return true end
    end
    return true
end

-- The words whose keys the task has have had their effect; those that it leaves out have not.
local function note_known(given, defaults)
    local mark = marks[given]
    for key, set in pairs(mark and mark.words or {}) do
        if key:sub(1, #mark.prefix) == mark.prefix then
            local path = {}
            for part in key:sub(#mark.prefix + 1):gmatch("[^.]+") do path[#path + 1] = part end
            if path[1] == "seed" or config.known_path(defaults, path, 1, true) then set.word.read = true end
        end
    end
end

local function describe(v)
    if type(v) == "table" then return is_list(v) and "a list" or "a table" end
    return "a " .. type(v)
end

---The configuration of one run: defaults of its task with `given` over them. Unknown keys and values of
---another type are errors. Keys that only other tasks know are left out, so that a base shared by
---several tasks does not make one task's run depend on another's settings.
---@param given table
---@param defaults table nested defaults; `false` = unset, any type; `{}` = free form
---@param others table[] defaults of the other tasks
---@param where string names the task in messages
---@return table plain
function config.resolve(given, defaults, others, where)
    local plain = copy(given, marks[given] ~= nil)
    local out = config.plain(defaults)
    note_known(given, defaults)
    for _, k in ipairs(common) do
        if k == "seed" and out.seed == nil then out.seed = 0 end
        if k ~= "seed" then plain[k] = nil end
    end
    local function fill(dst, src, known, prefix)
        for _, k in ipairs(config.sorted_keys(src)) do
            local v, d = src[k], known[k]
            local key = prefix .. tostring(k)
            if d == nil then
                local path = {}
                for part in key:gmatch("[^.]+") do path[#path + 1] = part end
                local elsewhere = false
                for _, o in ipairs(others) do
                    elsewhere = elsewhere or config.known_path(o, path, 1)
                end
                if not elsewhere then
                    local hint = suggest.hint(key, config.key_names(defaults))
                    refuse("unknown key '%s' for %s%s", key, where, hint)
                end
            elseif is_map(d) then
                if not is_map(v) then
                    if d and next(d) == nil then dst[k] = v -- free form
                    else refuse("%s: expected a table, got %s", key, describe(v)) end
                elseif next(d) == nil then
                    dst[k] = v
                else
                    fill(dst[k], v, d, key .. ".")
                end
            else
                if d ~= false and v ~= false and type(d) ~= type(v) then
                    refuse("%s: expected %s, got %s", key, describe(d), describe(v))
                end
                dst[k] = v
            end
        end
    end
    local known = config.plain(defaults)
    known.seed = known.seed or 0
    fill(out, plain, known, "")
    return out
end

-- Values of every m.one_of in a table, by dotted key.
local function choices_of(t, prefix, out)
    for k, v in next, raw(t) do
        local key = prefix .. tostring(k)
        if getmetatable(v) == OneOf then
            out[key] = v.values
        elseif type(v) == "table" then
            choices_of(v, key .. ".", out)
        end
    end
    return out
end

local function check_choices(base, choices)
    for _, leaf in ipairs(next(choices) and config.flatten(base) or {}) do
        local names, fits = {}, not choices[leaf.key]
        for i, v in ipairs(choices[leaf.key] or {}) do
            names[i] = tostring(v)
            fits = fits or v == leaf.value
        end
        if not fits then
            refuse("%s = %s: one of %s expected%s", leaf.key, config.json(leaf.value), table.concat(names, ", "),
                suggest.hint(tostring(leaf.value), names))
        end
    end
end

---A frozen configuration from a table, with the command line's overrides over it.
---@param t table
---@return table
function config.new(t)
    if type(t) ~= "table" then refuse("m.config takes a table, not a %s", type(t)) end
    local base = config.plain(t)
    local origins = origin.constructor("config", base, 3)
    local words = require("mimic.override").apply(base, origins)
    check_choices(base, choices_of(t, "", {}))
    local proxy = freeze(base, origins, words, "")
    if config.made then config.made[#config.made + 1] = proxy end
    return proxy
end

---A frozen configuration without the command line's overrides; one that is frozen is itself.
---@param t table
---@return table
function config.freeze(t)
    if store[t] then return t end
    return freeze(config.plain(t), nil, nil, "")
end

---Where the value of a key was set ("file.lua:12", "override tau=0.2"); nil where nothing is known of it.
---@param t table a configuration
---@param key string dotted
---@return string|nil
function config.origin(t, key)
    local mark = marks[t]
    return mark and mark.origins and mark.origins[mark.prefix .. key]
end

return setmetatable(config, { __call = function(_, t) return config.new(t) end })

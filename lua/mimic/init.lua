-- Run once with the module table when it is opened: makes the Lua part of the library appear in it. m.nn is
-- `require "mimic.nn"` at its first use, and so for every module of lua/mimic. A field that is not there is
-- an error with the nearest name, in m, in m.nn and in the modules written in C.
local m = ...

local function refuse(t, label, name, more)
    if type(name) ~= "string" or name:find("^_") then return nil end -- as of other programs: __index
    local known = more or {}
    for key in next, t do
        if type(key) == "string" then known[#known + 1] = key end
    end
    error(("%s has no field '%s'%s"):format(label, name, require("mimic.suggest").hint(name, known)), 2)
end

local function strict(t, label)
    local meta = getmetatable(t) or {}
    if meta.__index then return end
    meta.__index = function(_, name) return refuse(t, label, name) end
    setmetatable(t, meta)
end

-- The domains of a sweep's parameters, and the settings that are one of some values. Of two numbers m.log makes a
-- domain; of a tensor it is the operator.
local domains = { choice = true, range = true, int = true, uniform = true, asha = true, one_of = true }
local log_of = m.log
function m.log(a, ...)
    if type(a) == "number" then return require("mimic.sweep.space").log(a, ...) end
    return log_of(a, ...)
end

local function load_lazily(_, name)
    if domains[name] then
        local f = name == "asha" and require("mimic.sweep.asha").new or name == "one_of"
            and require("mimic.config").one_of or require("mimic.sweep.space")[name]
        rawset(m, name, f)
        return f
    end
    local module = type(name) == "string" and "mimic." .. name
    if not module or not package.preload[module] then
        local modules = {}
        for key in pairs(package.preload) do
            local own = type(key) == "string" and key:match("^mimic%.([%w_]+)$")
            if own then modules[#modules + 1] = own end
        end
        return refuse(m, "mimic", name, modules)
    end
    local value = require(module)
    if name == "nn" then strict(value, "mimic.nn") end -- tasks and others have fields that may be absent
    rawset(m, name, value)
    return value
end

for _, name in ipairs { "sys", "db", "data", "image", "safetensors" } do
    strict(rawget(m, name), "mimic." .. name)
end
setmetatable(m, { __index = load_lazily, __name = "mimic" })

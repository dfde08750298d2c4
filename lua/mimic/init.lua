-- Run once with the module table when it is opened: makes the Lua part of the library appear in it. m.nn is
-- `require "mimic.nn"` at its first use, and so for every module of lua/mimic.
local m = ...

local function load_lazily(_, name)
    local module = type(name) == "string" and "mimic." .. name
    if not module or not package.preload[module] then return nil end
    local value = require(module)
    rawset(m, name, value)
    return value
end

setmetatable(m, { __index = load_lazily, __name = "mimic" })

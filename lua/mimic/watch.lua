-- What a step took from its script as plain values: a recorded step repeats them in every replay, so whoever replays
-- asks first whether they are still the same. Seen are
--   * the fields of `batch` and `at` that the step read while it was recorded (numbers, strings, booleans, what is
--     not there; tensors are the replay's own business),
--   * the upvalues of the step and of the functions of scripts that it reaches by them, and in the same way the
--     fields of plain tables (a global is a field of _ENV),
--   * the fields of the model's modules (training, rates, tensors put in place of others), which tensors want
--     gradients, and the seed of m.seed.
-- Not seen is what lies in objects with metatables of their own, or beyond `most` values.
local m = require "mimic"

local watch = {}

local most <const> = 4000 -- values looked at before each replay
local deep <const> = 8

-- Modules of Lua and of this library hold nothing of a script's.
local ours = { _G = false }
for name in ("string table math io os coroutine utf8 debug package lfs cjson argparse luaunit"):gmatch "%a+" do
    ours[name] = true
end

local function library()
    local out = {}
    for name, module in pairs(package.loaded) do
        if ours[name] or name:find "^mimic" then out[module] = true end
    end
    out[package.loaded] = true
    return out
end

local function is_ours(f)
    local info = debug.getinfo(f, "S")
    return info.what == "C" or info.source:find("^[=@]mimic[./]") ~= nil
end

---@class watch.Watch
local Watch = {}
Watch.__index = Watch

function watch.new()
    return setmetatable({ reads = {}, slots = {}, ups = {}, tensors = {}, count = 0 }, Watch)
end

local function is_plain(t) return type(t) == "table" and getmetatable(t) == nil end

-- The path of a table's field.
local function below(path, k)
    local out = table.move(path, 1, #path, 1, {})
    out[#out + 1] = k
    return out
end

--- A stand-in for a table that notes which plain values are read from it.
---@param root string "batch" or "at"
---@param t table
---@param path any[]? keys from the root to t
function Watch:lend(root, t, path)
    path = path or {}
    local noted = {}
    local function get(k)
        local v = t[k]
        local kind = type(v)
        if kind ~= "table" and kind ~= "userdata" and not noted[k] then
            noted[k] = true
            self.reads[#self.reads + 1] = { root = root, keys = below(path, k), value = v }
        elseif is_plain(v) then
            noted[k] = noted[k] or self:lend(root, v, below(path, k))
            return noted[k]
        end
        return v
    end
    return setmetatable({}, {
        __index = function(_, k) return get(k) end,
        __newindex = function(_, k, v) t[k] = v end,
        __len = function() return #t end,
        __pairs = function(p)
            return function(_, k)
                local key = next(t, k)
                if key ~= nil then return key, get(key) end
            end, p, nil
        end,
    })
end

-- Notes that owner[key], or the function's upvalue of that number, is v.
function Watch:note(list, owner, key, v, name)
    if self.count >= most or v ~= v then return end
    self.count = self.count + 1
    list[#list + 1] = { owner, key, v, name }
end

function Watch:scan(v, name, depth, seen, skip)
    if depth > deep or seen[v] or skip[v] then return end
    if type(v) == "function" then
        if depth > 0 and is_ours(v) then return end
        seen[v] = true
        for i = 1, 255 do
            local up, value = debug.getupvalue(v, i)
            if not up then break end
            if value ~= nil then
                if up ~= "_ENV" then self:note(self.ups, v, i, value, up) end
                self:scan(value, up ~= "_ENV" and up or "", depth + 1, seen, skip)
            end
        end
    elseif is_plain(v) then
        seen[v] = true
        for k, value in next, v do
            if type(k) == "string" or type(k) == "number" then
                local path = name == "" and tostring(k) or name .. "." .. tostring(k)
                if not skip[value] then self:note(self.slots, v, k, value, path) end
                self:scan(value, path, depth + 1, seen, skip)
            end
        end
    end
end

--- Notes what the step sees now.
---@param spec train.Spec
function Watch:take(spec)
    self.slots, self.ups, self.tensors, self.count = {}, {}, {}, 0
    self.seed = m.seed()
    self:note(self.slots, spec, "step", spec.step, "step")
    local model = spec.model
    for _, p in ipairs(model:named()) do
        self.tensors[#self.tensors + 1] = { p.tensor, p.tensor.requires_grad, p.name }
    end
    model:each(function(module)
        for k, v in next, module do
            self:note(self.slots, module, k, v, tostring(module.label) .. "." .. tostring(k))
        end
    end)
    self:scan(spec.step, "", 0, {}, library())
end

local function at_path(t, keys)
    for _, k in ipairs(keys) do
        if type(t) ~= "table" then return nil end
        t = t[k]
    end
    return t
end

--- The name of a value that is no longer what it was; nil when all are.
---@return string?
function Watch:changed(batch, at)
    for _, r in ipairs(self.reads) do
        if at_path(r.root == "at" and at or batch, r.keys) ~= r.value then
            return r.root .. "." .. table.concat(r.keys, ".")
        end
    end
    if self.seed and m.seed() ~= self.seed then return "the seed" end
    for _, s in ipairs(self.slots) do
        if s[1][s[2]] ~= s[3] then return s[4] end
    end
    local getupvalue <const> = debug.getupvalue
    for _, u in ipairs(self.ups) do
        local _, v = getupvalue(u[1], u[2])
        if v ~= u[3] then return u[4] end
    end
    for _, t in ipairs(self.tensors) do
        if t[1].requires_grad ~= t[2] then return t[3] .. ".requires_grad" end
    end
    return nil
end

return watch

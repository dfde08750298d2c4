-- Where the values of a configuration were written: file and line of every key of the table constructor that
-- a call of m.config or :with was given.
-- Found by reading the script's text from the line of the call; used by
-- `mimic config --explain` alone, which turns it on.
local origin = {}

local texts = nil -- path -> text of the scripts, while explaining

---Begins to note places; `path` is known by this text.
---@param path string
---@param text string
function origin.explain(path, text)
    texts = texts or {}
    texts[path] = text
end

-- Tokens {kind, text, line}: names, strings, numbers, single characters. Comments are left out.
local function tokens(text)
    local out, at, line = {}, 1, 1
    local function take(kind, piece)
        if kind then out[#out + 1] = { kind = kind, text = piece, line = line } end
        for _ in piece:gmatch("\n") do line = line + 1 end
        at = at + #piece
    end
    while at <= #text do
        local long = text:match("^%-*%[(=*)%[", at)
        local space = text:match("^%s+", at)
        local name = text:match("^[%a_][%w_]*", at)
        local quote = text:match("^[\"']", at)
        if space then
            take(nil, space)
        elseif long and (text:find("^%[", at) or text:find("^%-%-%[", at)) then
            local _, stop = text:find("]" .. long .. "]", at, true)
            take(text:find("^%[", at) and "string" or nil, text:sub(at, stop or #text))
        elseif text:find("^%-%-", at) then
            take(nil, text:match("^[^\n]*", at))
        elseif name then
            take("name", name)
        elseif quote then
            local stop = at + 1
            while stop <= #text and text:sub(stop, stop) ~= quote do
                stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
            end
            take("string", text:sub(at, stop))
        elseif text:find("^%.?%d", at) then
            take("number", text:match("^0[xX][%x.]+", at) or text:match("^[%d.]+[eE][+-]?%d+", at)
                or text:match("^[%d.]+", at))
        else
            take("mark", text:sub(at, at))
        end
    end
    return out
end

local opening = { ["{"] = true, ["("] = true, ["["] = true }
local closing = { ["}"] = true, [")"] = true, ["]"] = true }
local opens = { ["function"] = true, ["do"] = true, ["then"] = true, ["repeat"] = true }

-- Place of every key of the constructor whose { is token i, nested keys dotted. `tables` are the places of
-- the script's local tables, by name: `model = vit` has the lines of `local vit = {...}`.
local function constructor(list, i, tables)
    local out, depth, index = {}, 0, 0
    local at_start = false -- of a field
    while list[i] do
        local t = list[i]
        local after = list[i + 1]
        if t.text == "{" and t.kind == "mark" and depth == 0 then
            depth, at_start = 1, true
        elseif depth == 1 and at_start and t.text ~= "}" then
            local key, value
            if t.kind == "name" and after and after.text == "=" then
                key, value = t.text, i + 2
            elseif t.text == "[" and after and after.kind == "string" then
                key, value = after.text:sub(2, -2), i + 4
            else
                index = index + 1
                key, value = tostring(index), i
            end
            at_start = false
            local v = list[value]
            out[key] = t.line
            local inner = v and v.text == "{" and constructor(list, value, tables)
                or v and v.kind == "name" and tables[v.text]
            for k, line in pairs(inner or {}) do out[key .. "." .. k] = line end
            i = value - 1
        elseif opening[t.text] and t.kind == "mark" or opens[t.text] then
            depth = depth + 1
        elseif closing[t.text] and t.kind == "mark" or t.text == "end" then
            depth = depth - 1
            if depth == 0 then return out, i end
        elseif depth == 1 and (t.text == "," or t.text == ";") then
            at_start = true
        end
        i = i + 1
    end
    return out, i
end

local function local_tables(list)
    local tables = {}
    for i, t in ipairs(list) do
        if t.text == "local" and list[i + 3] and list[i + 2].text == "=" and list[i + 3].text == "{" then
            tables[list[i + 1].text] = constructor(list, i + 3, tables)
        end
    end
    return tables
end

local function fits(places, plain)
    for k in pairs(plain) do
        if not places[tostring(k)] then return false end
    end
    return true
end

local scanned = {}

-- Lines of the keys of `plain` in the first call of `word` from `line` on whose table has them all.
local function find(path, word, line, plain)
    local s = scanned[path]
    if not s then
        local list = tokens(texts[path])
        s = { list = list, tables = local_tables(list) }
        scanned[path] = s
    end
    for i, t in ipairs(s.list) do
        if t.text == word and t.line >= line then
            local open = s.list[i + 1] and s.list[i + 1].text == "(" and i + 2 or i + 1
            local first = s.list[open]
            local places
            if first and first.text == "{" then
                places = constructor(s.list, open, s.tables)
            elseif first and first.kind == "name" then
                places = s.tables[first.text]
            end
            if places and fits(places, plain) then return places end
        end
    end
    return {}
end

-- Every leaf of the table under its dotted key.
local function walk(t, prefix, f)
    for k, v in pairs(t) do
        local key = prefix .. tostring(k)
        if type(v) == "table" and next(v) ~= nil and #v == 0 then walk(v, key .. ".", f) else f(key) end
    end
end

---Dotted key -> "file:line" for the table given to a function named `word`, called at stack level `level`;
---nil unless places are being noted.
---@param word string
---@param plain table
---@param level integer
---@return table<string, string>|nil
function origin.constructor(word, plain, level)
    if not texts then return nil end
    local info = debug.getinfo(level, "Sl")
    while info and not texts[info.source:match("^@(.*)") or ""] do -- the call may come through __call
        level = level + 1
        info = debug.getinfo(level, "Sl")
    end
    if not info then return {} end
    local path = info.source:sub(2)
    local places, out = find(path, word, info.currentline, plain), {}
    walk(plain, "", function(key)
        local known = key -- the nearest key around it that has a line
        while known and not places[known] do known = known:match("^(.*)%.[^.]*$") end
        out[key] = ("%s:%d"):format(path, known and places[known] or info.currentline)
    end)
    return out
end

return origin

-- The overrides of a command (key=value words), applied to every m.config of the script that knows the key. One that
-- neither these nor a task know is refused, with the nearest one that exists, before the first run.
local config = require "mimic.config"
local suggest = require "mimic.suggest"
local syntax = require "mimic.override.syntax"

local override = {}

local overrides = {} ---@type override.Word[]

---Takes the words that every later m.config applies.
---@param words string[]
function override.set(words)
    local ok, list = pcall(syntax.single, words)
    if not ok then config.refuse("%s", list) end
    overrides = list
end

---Refuses words that no configuration of the script has taken.
---@param before string|nil "before its first run": when this is asked earlier than at the end of the script
function override.check(before)
    local unused = {}
    for _, o in ipairs(overrides) do
        if not o.used and o.refusal then config.refuse("%s", o.refusal) end
        if not o.used then unused[#unused + 1] = o.word end
    end
    if #unused == 0 then return end
    config.refuse("%s: the script has no m.config that takes it%s", table.concat(unused, ", "),
        before and " " .. before or "")
end

---Words that a configuration has taken, but whose values nothing has looked at.
---@return string[]
function override.unread()
    local out = {}
    for _, o in ipairs(overrides) do
        if o.used and not o.read and not o.was_lost and o.op ~= "remove" then out[#out + 1] = o.word end
    end
    return out
end

---The script sets over a word of the command line: said once.
---@param o override.Word
---@param key string as the script wrote it
---@param value any
---@param place string
function override.lost(o, key, value, place)
    if o.was_lost then return end
    o.was_lost = true
    if require("mimic.experiment").options.worker then return end
    require("mimic.progress").complain("%s does not hold where the script sets %s = %s over it (%s)", o.word, key,
        config.json(value), place)
end

---A key that is searched, but that the script never looks at or sets over.
---@param keys table<string, any> what is searched
---@return string|nil
function override.without_effect(keys)
    for _, o in ipairs(overrides) do
        if keys[o.text] ~= nil and o.used and not o.read then return o.text end
    end
end

-- A base that holds tables which are no key of any task (pretrain = {...}, finetune = {...}) is a set of
-- configurations: a task's key at its top would reach no run.
local function is_set_of_configs(base, tasks)
    for k, v in pairs(base) do
        if config.is_map(v) then
            local known = false
            for _, d in ipairs(tasks) do known = known or d[k] ~= nil end
            if not known then return true end
        end
    end
    return false
end

-- How many parts of the path exist in base.
local function depth_of(base, path)
    local node, depth = base, 0
    while depth < #path and type(node) == "table" and node[path[depth + 1]] ~= nil do
        depth = depth + 1
        node = node[path[depth]]
    end
    return depth
end

local function known(base, path, tasks)
    local depth = depth_of(base, path)
    if depth == #path then return true end
    for from = 1, math.min(depth + 1, #path) do
        if from > 1 or not is_set_of_configs(base, tasks) then
            for _, d in ipairs(tasks) do
                if config.known_path(d, path, from) then return true end
            end
        end
    end
    -- seed=3 is for a list of seeds, or for a run's own configuration
    return #path == 1 and path[1] == "seed" and (type(base.seeds) == "table" or not is_set_of_configs(base, tasks))
end

local function suggestions(base, tasks)
    local names = config.key_names(base)
    local prefixes = { "" }
    if is_set_of_configs(base, tasks) then
        prefixes = {}
        for k, v in pairs(base) do
            if config.is_map(v) then prefixes[#prefixes + 1] = k .. "." end
        end
    end
    for _, d in ipairs(tasks) do
        for _, n in ipairs(config.key_names(d)) do
            for _, prefix in ipairs(prefixes) do names[#names + 1] = prefix .. n end
        end
    end
    local seen, out = {}, {}
    for _, n in ipairs(names) do
        if not seen[n] then seen[n] = true; out[#out + 1] = n end
    end
    return out
end

local function remove(base, o)
    local node = base
    for i = 1, #o.path - 1 do node = node[o.path[i]] end
    node[o.path[#o.path]] = nil
end

local function set(base, o)
    local node, last = base, o.path[#o.path]
    for i = 1, #o.path - 1 do
        if type(node[o.path[i]]) ~= "table" then node[o.path[i]] = {} end
        node = node[o.path[i]]
    end
    -- seed=3 for a script that takes a list of seeds is that one seed.
    if o.text == "seed" and base.seed == nil and type(base.seeds) == "table" then
        base.seeds = { o.value }
    else
        node[last] = config.plain(o.value)
    end
end

-- Notes the override as the origin of all that it set.
local function note(origins, o)
    for key in pairs(origins) do
        if key == o.text or key:sub(1, #o.text + 1) == o.text .. "." then origins[key] = nil end
    end
    local leaves = config.is_map(o.value) and config.flatten(o.value) or {}
    if #leaves == 0 then origins[o.text] = "override " .. o.word end
    for _, leaf in ipairs(leaves) do origins[o.text .. "." .. leaf.key] = "override " .. o.word end
end

-- The leaves that a word has set, by dotted key; an empty list or map is one.
local function leaves_of(base, o)
    local text = o.text == "seed" and base.seed == nil and "seeds" or o.text
    if not config.is_map(o.value) or next(o.value) == nil then
        return { [text] = text == o.text and o.value or { o.value } }
    end
    local out = {}
    for _, leaf in ipairs(config.flatten(o.value)) do out[text .. "." .. leaf.key] = leaf.value end
    return out
end

-- Why a word is none for this configuration; another one of the script may know it.
local function why_not(base, o, tasks)
    if o.op == "remove" and depth_of(base, o.path) < #o.path then
        return ("%s: there is no such key to remove%s"):format(o.word, suggest.hint(o.text, config.key_names(base)))
    elseif o.op == "set" and not known(base, o.path, tasks) then
        return ("unknown key '%s'%s; +%s adds it"):format(o.text, suggest.hint(o.text, suggestions(base, tasks)),
            o.word)
    end
end

---Changes a plain configuration as the words say that are for it.
---@param base table
---@param origins table<string, string>|nil where each value was set
---@return table<string, {word: override.Word, value: any}>|nil by the keys that were set
function override.apply(base, origins)
    if #overrides == 0 then return end
    local words = {}
    local tasks = require("mimic.experiment").task_defaults()
    for _, o in ipairs(overrides) do
        local refusal = why_not(base, o, tasks)
        if refusal then
            o.refusal = o.refusal or refusal
        else
            if o.op == "remove" then
                remove(base, o)
            else
                set(base, o)
                for key, value in pairs(leaves_of(base, o)) do words[key] = { word = o, value = value } end
            end
            if origins then note(origins, o) end
            o.used = true
        end
    end
    return next(words) and words
end

return override

-- Commands as a person types them: what messages and `mimic show` give to continue or to repeat something. They
-- hold where this command was started: with its -C and --db.
local results = require "mimic.results"

local command_line = {}

---A word as a shell takes it.
---@param word string
---@return string
function command_line.quote(word)
    if word ~= "" and not word:find("[^%w=._/,:+@%%-]") then return word end
    return "'" .. word:gsub("'", "'\\''") .. "'"
end

---@param words string[]
---@return string
function command_line.join(words)
    local out = {}
    for i, w in ipairs(words) do out[i] = command_line.quote(w) end
    return table.concat(out, " ")
end

local function options()
    return require("mimic.experiment").options
end

---`mimic -C DIR --db FILE WORDS...`, with the program and the options that the command in progress was given.
---@param ... string
---@return string
function command_line.of(...)
    local opts = options()
    local words = { opts.program or "mimic" }
    if opts.chdir then table.move({ "-C", opts.chdir }, 1, 2, #words + 1, words) end
    if opts.db ~= results.default_path and opts.db ~= opts.usual_db then
        table.move({ "--db", opts.db }, 1, 2, #words + 1, words)
    end
    return command_line.join(table.move({ ... }, 1, select("#", ...), #words + 1, words))
end

local once = { ["--force"] = true, ["--profile"] = true, ["--lf"] = true, ["--enqueue"] = true }

-- The words that were typed, without those that do something once; `verb` in place of the command's name.
local function typed(opts, verb)
    local words = { opts.program or "mimic" }
    for i, w in ipairs(opts.typed) do
        if i == opts.typed_at then w = verb or w end
        if not once[w] then words[#words + 1] = w end
    end
    return words
end

---The command that goes on: the one that was typed.
---@return string|nil nil: nothing was typed, a script runs by itself
function command_line.again()
    local opts = options()
    if opts.continue_with or not opts.typed then return opts.continue_with end
    return command_line.join(typed(opts))
end

---The command that tries the failed trials of a sweep again.
---@param uid string
---@return string
function command_line.retry(uid)
    local opts = options()
    if opts.retry_with then return opts.retry_with end
    local verb = opts.typed and opts.typed[opts.typed_at]
    if verb == "run" or verb == "sweep" then
        local words = typed(opts, "sweep")
        words[#words + 1] = "--lf"
        return command_line.join(words)
    end
    return command_line.of("sweep", "resume", uid, "--failed") .. " && " .. command_line.of("worker", "--sweep", uid)
end

return command_line

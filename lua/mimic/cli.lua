-- The `mimic` command: global options, the sub-commands of mimic/cli/*.lua, and the exit codes
-- 0 done, 1 a run failed, 2 usage, 3 database, 75 interrupted but resumable, 130 stopped by Ctrl-C.
local argparse = require "argparse"
local lfs = require "lfs"
local m = require "mimic"
local suggest = require "mimic.suggest"

local cli = { DONE = 0, FAILED = 1, USAGE = 2, DATABASE = 3, INTERRUPTED = 75, STOPPED = 130 }

local commands = {
    "run", "sweep", "worker", "config", "resume", "ls", "show", "diff", "log", "top", "query", "table", "paper",
    "report", "tag", "note", "rm", "undelete", "gc", "export", "merge", "doctor", "data", "weights", "bench", "devices",
    "help",
}

local Exit = {} -- what cli.fail raises: {code, message}
Exit.__index = Exit
function Exit:__tostring() return self.message end

---Ends the command with a message and an exit code.
---@param code integer
---@param ... any as for string.format
function cli.fail(code, ...)
    error(setmetatable({ code = code, message = string.format(...) }, Exit), 0)
end

---Number of an option.
---@param text string
function cli.integer(text)
    return math.tointeger(tonumber(text)), "a whole number expected, got '" .. text .. "'"
end

---The same from 1 on.
function cli.whole(text)
    local n = math.tointeger(tonumber(text))
    return n and n >= 1 and n or nil, "a whole number from 1 on expected, got '" .. text .. "'"
end

---Ends the command when Ctrl-C is why something failed, whatever it was.
function cli.stop_if_asked()
    if m.interrupted() > 0 then cli.fail(cli.STOPPED, "stopped") end
end

---Opens the results database that there is; failures end the command with code 3.
---@param args table with the global option db
---@param write boolean|nil
---@return table
function cli.results(args, write)
    local open = require("mimic.results").open
    local ok, store = pcall(open, args.db, false) -- one that is missing is not made here
    if ok and write then
        store:close()
        ok, store = pcall(open, args.db, true)
    end
    if not ok then
        cli.stop_if_asked()
        cli.fail(cli.DATABASE, "%s", cli.message(store))
    end
    return store
end

---An error's text without the place in the library that raised it.
---@param e any
---@return string
function cli.message(e)
    return (tostring(e):gsub("^mimic/[%w_/]+%.lua:%d+: ", ""))
end

-- A full disk is no wrong usage: 3 where the results file has no room, else 1.
local function code_of(message, otherwise)
    if not require("mimic.room").is_full(message) then return otherwise end
    return message:find("database or disk is full", 1, true) and cli.DATABASE or cli.FAILED
end

---Calls f and turns an error of it into the exit code.
function cli.guard(code, f, ...)
    local out = table.pack(pcall(f, ...))
    if out[1] then return table.unpack(out, 2, out.n) end
    if getmetatable(out[2]) == Exit then error(out[2], 0) end
    cli.stop_if_asked()
    local message = cli.message(out[2])
    cli.fail(code_of(message, code), "%s", message)
end

local function module_of(name)
    return require("mimic.cli." .. name)
end

local function globals(p)
    p:option("-C"):argname("DIR"):description("work in DIR, as if started there")
    p:option("--db"):argname("FILE"):description("results database")
        :default(require("mimic.results").default_path)
    p:flag("-q --quiet"):description("no progress line")
    p:flag("-h --help"):description("this text")
end

---Finishes the parsers of a command's sub-commands; the result is its `help`: that of the one named in the words,
---or nil.
---@param subs table<string, table> parsers by name
---@return fun(words: string[]): string|nil
function cli.help_of(subs)
    for _, sub in pairs(subs) do
        sub:add_help(false)
        sub:help_max_width(100)
    end
    return function(words)
        for _, w in ipairs(words) do
            if subs[w] then return subs[w]:get_help() end
        end
    end
end

---@param name string
---@return table parser, table command
function cli.parser(name)
    local command = module_of(name)
    local p = argparse("mimic " .. name, command.description, "Examples:\n" .. command.examples)
    p:add_help(false)
    p:help_max_width(100)
    command.configure(p)
    globals(p)
    return p, command
end

---The first screen: what there is and how to begin.
---@return string
function cli.overview()
    local out = {
        "mimic " .. m.version .. ": experiments in Lua, results in one SQLite file",
        "",
        "Usage: mimic COMMAND [OPTIONS]      mimic FILE.lua [ARGS]      mimic -e CODE      mimic -i",
        "",
        "Commands:",
    }
    for _, name in ipairs(commands) do
        out[#out + 1] = ("  %-9s %s"):format(name, module_of(name).summary)
    end
    for _, line in ipairs {
        "",
        "Begin with:",
        "  mimic run experiments/quickstart.lua           trains, records, prints a table, writes a report",
        "  mimic run experiments/quickstart.lua seeds=[0,1,2]",
        "  mimic ls                                       what ran",
        "  mimic log RUN train/loss --plot                a curve in the terminal",
        "",
        "Every command: `mimic COMMAND --help`. Global options: -C DIR, --db FILE, --quiet.",
    } do
        out[#out + 1] = line
    end
    return table.concat(out, "\n")
end

---The command of this name, or the end with a suggestion.
function cli.command_of(word)
    for _, name in ipairs(commands) do
        if name == word then return name end
    end
    cli.fail(cli.USAGE, "no command '%s'%s; `mimic help` lists them", word, suggest.hint(word, commands))
end

local valued = { ["-C"] = "a folder", ["--db"] = "a file", ["-e"] = "Lua code" }
local bare = { ["-q"] = true, ["--quiet"] = true, ["-h"] = true, ["--help"] = true, ["-V"] = true,
    ["--version"] = true }

local function check_option(word, value)
    local name = word:match("^(%-%-%w+)=") or word
    if valued[name] then
        if name == word and not value then cli.fail(cli.USAGE, "%s needs %s", word, valued[word]) end
    elseif not bare[word] then
        local known = { "-C", "--db", "-e", "-i", "--quiet", "--help", "--version" }
        cli.fail(cli.USAGE, "no option '%s'%s; `mimic --help` lists them", word, suggest.hint(word, known))
    end
end

-- Words before the command are global options: they are moved right behind it, where the parser knows them,
-- and before a `--`.
local function split(words)
    local i, front = 1, {}
    while i <= #words and words[i]:sub(1, 1) == "-" do
        front[#front + 1] = words[i]
        check_option(words[i], words[i + 1])
        if valued[words[i]] then
            i = i + 1
            front[#front + 1] = words[i]
        end
        i = i + 1
    end
    require("mimic.experiment").options.typed_at = i
    return words[i], table.move(words, i + 1, #words, #front + 1, front)
end

local function dispatch(words)
    local word, rest = split(words)
    require("mimic.experiment").options.typed = words
    local wants_help = false
    for _, w in ipairs(rest) do
        if w == "--" then break end
        wants_help = wants_help or w == "-h" or w == "--help"
    end
    if not word then
        for _, w in ipairs(rest) do
            if w == "--version" or w == "-V" then print("mimic " .. m.version) return cli.DONE end
        end
        if #words > 0 and not wants_help then cli.fail(cli.USAGE, "no command; `mimic --help` lists them") end
        print(cli.overview())
        return cli.DONE
    end
    local p, command = cli.parser(cli.command_of(word))
    local after -- words behind -- for a command that hands them on
    for i, w in ipairs(rest) do
        if command.hands_on and w == "--" then
            after = { table.unpack(rest, i + 1) }
            rest = { table.unpack(rest, 1, i - 1) }
            break
        end
    end
    if wants_help then
        print(command.help and command.help(rest) or p:get_help())
        return cli.DONE
    end
    local ok, args = p:pparse(command.words and command.words(rest) or rest)
    if not ok then cli.fail(cli.USAGE, "%s\n%s\n`mimic %s --help` explains", args, p:get_usage(), word) end
    args.after = after
    require("mimic.progress").quiet(args.quiet or false)
    if args.C then
        local there, why = lfs.chdir(args.C)
        if not there then cli.fail(cli.USAGE, "-C %s: %s", args.C, why) end
        require("mimic.experiment").options.chdir = args.C
    end
    require("mimic.experiment").options.db = args.db
    return command.run(args) or cli.DONE
end

---Runs a command line.
---@param words string[] arguments after the program's name
---@return integer exit code
function cli.main(words)
    local program = words[0]
    if program and program:find("/", 1, true) then require("mimic.experiment").options.program = program end
    local ok, code = xpcall(dispatch, function(e)
        if getmetatable(e) == Exit then return e end
        return (m.fault(e, 2))
    end, words)
    local closed, why = pcall(function()
        require("mimic.query").close()
        require("mimic.experiment").close()
    end)
    if ok and code == cli.INTERRUPTED and not closed and require("mimic.room").is_full(why) then
        io.stderr:write("mimic: ", tostring(why):match("^[^\n]*"), "; they are recorded again when the run goes on\n")
    elseif ok and not closed and m.interrupted() > 0 then -- Ctrl-C while the last records were written
        ok, code = false, setmetatable({ code = cli.STOPPED, message = "stopped" }, Exit)
    elseif ok and not closed then
        ok, code = false, setmetatable({ code = cli.DATABASE, message = tostring(why) }, Exit)
    end
    io.stdout:flush()
    if ok then return code end
    require("mimic.progress").clear()
    if getmetatable(code) ~= Exit and m.interrupted() > 0 then
        code = setmetatable({ code = cli.STOPPED, message = "stopped" }, Exit)
    end
    io.stderr:write("mimic: ", require("mimic.format").safe(code, true), "\n")
    return getmetatable(code) == Exit and code.code or code_of(tostring(code), cli.FAILED)
end

return cli

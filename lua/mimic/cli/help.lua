-- mimic help: commands, operators.
local m = require "mimic"
local cli = require "mimic.cli"
local suggest = require "mimic.suggest"

local command = {
    summary = "help about a command or an operator",
    description = [[
Without words: the commands. `help COMMAND` is `COMMAND --help`. `help op NAME` explains
an operator of the engine, `help op` lists them.]],
    examples = [[
  mimic help run
  mimic help op
  mimic help op layernorm]],
}

function command.configure(p)
    p:argument("topic"):argname("TOPIC"):args("*"):description("a command, or: op [NAME]")
end

local function operators()
    local names = {}
    for _, name in ipairs(m.ops()) do
        if not m.op(name).internal then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

local function default_text(a)
    if a.default == nil or a.default == "" then return "" end
    return " = " .. tostring(a.default)
end

local function explain(name)
    local ok, op = pcall(m.op, name)
    if not ok or not op then
        cli.fail(cli.USAGE, "no operator '%s'%s; `mimic help op` lists them", name, suggest.hint(name,
            operators()))
    end
    print(op.doc)
    if op.attrs and #op.attrs > 0 then
        print("\nattributes")
        for _, a in ipairs(op.attrs) do
            local choices = a.choices
            if type(choices) == "table" then choices = table.concat(choices, "|") end
            print(("  %-14s %-6s%s%s"):format(a.name, a.kind, default_text(a), choices and choices ~= ""
                and "   " .. choices or ""))
        end
    end
    if op.cases and op.cases ~= "" then
        print("\nshapes, as tested")
        for case in op.cases:gmatch("[^;]+") do print("  " .. case:match("^%s*(.-)%s*$")) end
    end
end

function command.run(args)
    local topic, name = args.topic[1], args.topic[2]
    if not topic then
        print(cli.overview())
    elseif topic == "op" and name then
        explain(name)
    elseif topic == "op" then
        local tables = require "mimic.format"
        local rows = {}
        for i, n in ipairs(operators()) do
            local doc = m.op(n).doc or ""
            rows[i] = { operator = n, form = doc:match("^[^\n]*") }
        end
        print(tables.format("plain", rows, { "operator", "form" }))
    else
        print((cli.parser(cli.command_of(topic))):get_help())
    end
    return cli.DONE
end

return command

-- mimic tag: labels of runs.
local cli = require "mimic.cli"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "label runs: add, list, remove tags",
    description = [[
Adds tags KEY or KEY=VALUE to a run, or removes them. Without tags: lists those of the run.
`mimic ls --tag KEY` lists the runs that have one, --where and --sort know it as tag.KEY.]],
    examples = [[
  mimic tag 12 best
  mimic tag 12 paper=table2 machine=lab
  mimic tag 12 --remove best
  mimic tag 12]],
}

function command.configure(p)
    p:argument("run"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
    p:argument("tags"):argname("KEY[=VALUE]"):args("*"):description("tags to add")
    p:option("--remove"):argname("KEY"):count("*"):description("a tag to take away; may be repeated")
    format.options(p)
end

function command.run(args)
    local change = #args.tags > 0 or #args.remove > 0
    local store = cli.results(args, change)
    local run = cli.guard(cli.USAGE, store.find, store, args.run)
    for _, tag in ipairs(args.tags) do
        local key, value = tag:match("^([^=]*)=(.*)$")
        cli.guard(cli.USAGE, upkeep.add_tag, store, run.id, key or tag, value or "")
    end
    for _, key in ipairs(args.remove) do
        if not cli.guard(cli.USAGE, upkeep.remove_tag, store, run.id, key) then
            local names = {}
            for i, t in ipairs(upkeep.tags(store, run.id)) do names[i] = t.key end
            cli.fail(cli.USAGE, "run %d has no tag '%s'%s", run.id, key, require("mimic.suggest").hint(key, names))
        end
    end
    if not change then print(format.format(format.chosen(args), upkeep.tags(store, run.id), { "key", "value" })) end
    return cli.DONE
end

return command

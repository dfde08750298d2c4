-- mimic rm: hides runs, to be erased by gc.
local cli = require "mimic.cli"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "remove runs; undelete brings them back until gc",
    description = [[
Removes runs from lists, tables and reports. Nothing is erased: `mimic undelete` brings
them back until `mimic gc` frees their room. A run that is being executed is refused, and
so is one that others start from, unless --children removes those too.]],
    examples = [[
  mimic rm 12 13
  mimic rm mae --children
  mimic ls --deleted
  mimic undelete 12]],
}

function command.configure(p)
    p:argument("runs"):argname("RUN"):args("+"):description("number, name (the newest), or beginning of the uid")
    p:flag("--children"):description("also the runs that start from them")
end

function command.run(args)
    local store = cli.results(args, true)
    local list = {}
    for i, text in ipairs(args.runs) do list[i] = cli.guard(cli.USAGE, store.find, store, text) end
    local removed = cli.guard(cli.USAGE, upkeep.remove, store, list, args.children)
    for _, r in ipairs(removed) do print(("removed %d %s seed %d"):format(r.id, format.safe(r.name), r.seed)) end
    return cli.DONE
end

return command

-- mimic undelete: takes back mimic rm.
local cli = require "mimic.cli"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "bring back runs removed by rm",
    description = [[
Brings back runs that `mimic rm` removed and `mimic gc` has not erased yet, with all that
they recorded.]],
    examples = [[
  mimic ls --deleted
  mimic undelete 12 13]],
}

function command.configure(p)
    p:argument("runs"):argname("RUN"):args("+"):description("number or beginning of the uid")
end

function command.run(args)
    local store = cli.results(args, true)
    for _, text in ipairs(args.runs) do
        local r = cli.guard(cli.USAGE, upkeep.undelete, store, text)
        print(("brought back %d %s seed %d"):format(r.id, format.safe(r.name), r.seed))
    end
    return cli.DONE
end

return command

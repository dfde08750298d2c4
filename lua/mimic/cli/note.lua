-- mimic note: a remark on a run.
local cli = require "mimic.cli"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "write or read a remark on a run",
    description = [[
Sets the note of a run, shown by `mimic show` and in the report; an empty text takes it
away. Without text: prints it.]],
    examples = [[
  mimic note 12 "diverged after the warm-up, see 14"
  mimic note 12
  mimic note 12 ""]],
}

function command.configure(p)
    p:argument("run"):argname("RUN"):description("number, name (the newest), or beginning of the uid")
    p:argument("text"):argname("TEXT"):args("?"):description("the note; from standard input when it is -")
end

function command.run(args)
    local store = cli.results(args, args.text ~= nil)
    local run = cli.guard(cli.USAGE, store.find, store, args.run)
    if not args.text then
        print(format.safe(run.note, true))
        return cli.DONE
    end
    upkeep.set_note(store, run.id, args.text == "-" and io.read("a"):gsub("\n$", "") or args.text)
    return cli.DONE
end

return command

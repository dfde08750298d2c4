-- mimic gc: frees the room of removed runs and of what nothing refers to.
local m = require "mimic"
local cli = require "mimic.cli"
local format = require "mimic.format"
local upkeep = require "mimic.upkeep"

local command = {
    summary = "erase removed runs and files that nothing refers to",
    description = [[
Erases for good: runs that `mimic rm` removed, with their metrics, checkpoints and contents;
checkpoints that retention gave up; files and contents that no run refers to. A run that
is being executed keeps its files, and contents wait until nothing runs. --dry-run says
what would go.]],
    examples = [[
  mimic gc --dry-run
  mimic gc
  mimic gc --older 30d          only runs removed more than 30 days ago]],
}

local units = { m = 60e3, h = 3600e3, d = 86400e3 }

function command.configure(p)
    p:flag("--dry-run"):description("say what would be erased, erase nothing")
    p:option("--older"):argname("AGE"):description("only runs removed longer ago: 90m, 12h, 30d")
        :convert(function(s)
            local n, unit = s:match("^(%d+)([mhd])$")
            if not n then return nil, "--older takes 90m, 12h or 30d, got '" .. s .. "'" end
            return math.floor(n * units[unit])
        end)
end

local function mib(bytes)
    return ("%.1f MiB"):format(bytes / 2 ^ 20)
end

function command.run(args)
    local store = cli.results(args, not args.dry_run)
    local plan = upkeep.plan(store, args.older and m.sys.time() - args.older)
    local files, blobs = 0, 0
    for _, f in ipairs(plan.files) do files = files + f.bytes end
    for _, b in ipairs(plan.blobs) do blobs = blobs + b.bytes end
    local would = args.dry_run and "would erase" or "erased"
    for _, r in ipairs(plan.runs) do
        print(("%s run %d %s seed %d"):format(would, r.id, format.safe(r.name), r.seed))
    end
    if args.dry_run then
        for _, f in ipairs(plan.files) do print(("%s %s (%s)"):format(would, format.safe(f.path), mib(f.bytes))) end
    else
        cli.guard(cli.DATABASE, upkeep.collect, store, plan)
    end
    print(("%s %d runs, %d files (%s), %d contents (%s)"):format(would, #plan.runs, #plan.files, mib(files),
        #plan.blobs, mib(blobs)))
    if plan.live then
        print(("run %d (%s) is being executed: contents are looked at when nothing runs"):format(plan.live.id,
            format.safe(plan.live.name)))
    end
    return cli.DONE
end

return command

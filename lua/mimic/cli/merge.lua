-- mimic merge: brings results files of other machines or Slurm tasks into this one.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local merge = require "mimic.sweep.merge"

local command = {
    summary = "bring other results files into this one",
    description = [[
Merges results files (shards of a Slurm job array, files of other machines) into --db: runs
and sweeps are known by their uid. Of a run that both have, the one with the larger attempt
and step wins. Merging the same file again changes nothing. Checkpoint files lie beside the
results file under runs/ and are not copied; the tasks of a job array write them there.]],
    examples = [[
  mimic merge results/runs/shards/3fa9c01b22de-*.db
  mimic --db all.db merge laptop.db server.db]],
}

function command.configure(p)
    p:argument("shards"):argname("FILE"):args("+"):description("results files")
end

function command.run(args)
    for _, path in ipairs(args.shards) do
        if lfs.attributes(path, "mode") ~= "file" then cli.fail(cli.USAGE, "no results file %s", path) end
        if m.sys.realpath(path) == m.sys.realpath(args.db) then
            cli.fail(cli.USAGE, "%s is the results file that it would be merged into (--db: another)", path)
        end
    end
    local store = cli.guard(cli.DATABASE, require("mimic.results").open, args.db, true)
    for _, path in ipairs(args.shards) do
        local n = cli.guard(cli.DATABASE, merge.shard, store, path)
        print(("%s: %d runs added, %d renewed, %d known"):format(path, n.added, n.renewed, n.kept))
    end
    store:close()
    return cli.DONE
end

return command

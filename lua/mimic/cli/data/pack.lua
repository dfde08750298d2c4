-- mimic data pack: a data set as files of decoded pictures, which load without decoding.
local m = require "mimic"
local cli = require "mimic.cli"
local info = require "mimic.cli.data.info"
local progress = require "mimic.progress"
local tables = require "mimic.format"

local pack = {}

function pack.configure(p)
    p:argument("source"):argname("SRC"):description("a data set, as for mimic data info")
    p:argument("out"):argname("OUT"):description("writes OUT_train.pixels, ... or OUT.pixels without splits")
    p:option("--split"):argname("SPLIT"):description("only this split")
    p:option("--size"):argname("N"):description("side in pixels (bilinear); without it all must have one size")
        :convert(cli.integer)
    p:option("--label-column"):argname("NAME"):description("column of a pack's .csv that holds the label")
    p:option("--mode"):argname("MODE"):description("label rule, as for mimic data info")
    p:flag("--skip-damaged"):description("leave damaged pictures out instead of stopping")
end

local function open(args)
    local spec = { path = args.source, mode = args.mode, label_column = args.label_column }
    if not args.split then
        local found, problem = info.splits(spec)
        if problem then cli.fail(cli.FAILED, "%s", problem) end
        return found
    end
    spec.split = args.split
    return { { args.split, cli.guard(cli.FAILED, m.data.open, spec) } }
end

function pack.run(args)
    local stem = args.out:gsub("%.pixels$", "")
    for _, entry in ipairs(open(args)) do
        local split, d = entry[1], entry[2]
        local path = split == "all" and stem .. ".pixels" or ("%s_%s.pixels"):format(stem, split)
        local began = m.sys.clock()
        local damaged = cli.guard(cli.FAILED, d.pack, d, path, {
            size = args.size, skip_damaged = args.skip_damaged or false,
            progress = function(done, total)
                if m.interrupted() > 0 then error("stopped; nothing was written to " .. path, 0) end
                progress.show { phase = "pack", note = ("%d/%d pictures"):format(done, total), done = done / total }
            end,
        })
        progress.finish()
        local bytes = require("lfs").attributes(path, "size")
        print(("%s: %d pictures, %.1f MiB, in %s%s"):format(path, #d - damaged, bytes / 2 ^ 20,
            tables.duration(m.sys.clock() - began),
            damaged > 0 and (", %d damaged left out"):format(damaged) or ""))
    end
    return cli.DONE
end

return pack

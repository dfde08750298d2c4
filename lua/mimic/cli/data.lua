-- mimic data: make a synthetic data set, check pictures, describe a data set, decode it in advance.
local m = require "mimic"
local cli = require "mimic.cli"
local check = require "mimic.cli.data.check"
local info = require "mimic.cli.data.info"
local layouts = require "mimic.layouts"
local pack = require "mimic.cli.data.pack"
local tables = require "mimic.format"

local command = {
    summary = "make synthetic data, check pictures, describe a data set, decode it in advance",
    description = [[
Works on data sets, which it recognises: folders of pictures by class (ImageNet, MS-Celeb-1M),
RAF-DB, FERPlus (fer2013.csv with fer2013new.csv, or its folders), AffectNet (both releases),
RecordIO (train.rec), list files, packs (NAME.tar with NAME.csv), decoded pictures (.pixels).]],
    examples = [[
  mimic data synth data/drawn --seed 0
  mimic data synth data/small --layout ferplus
  mimic data check photos/ broken.jpg pack.tar
  mimic data info data/small --mode majority
  mimic data pack data/small data/small48]],
}

-- What each way of `synth` takes: option, default, meaning.
local drawn = {
    { "size", 64, "pixels of a side" },
    { "general-train", 4000, "general pictures for pre-training" },
    { "general-val", 200, "general pictures held out" },
    { "faces-train", 1200, "faces for fine-tuning" },
    { "faces-test", 400, "faces held out" },
}
local in_layout = {
    { "train", 120, "with --layout: pictures for training" },
    { "test", 40, "with --layout: pictures of each other split" },
}

local function integers(p, list)
    for _, o in ipairs(list) do
        p:option("--" .. o[1]):argname("N"):description(("%s (default: %d)"):format(o[3], o[2])):convert(cli.integer)
    end
end

-- The values of one way; an option of the other is refused.
local function chosen(args, list, other, why)
    local values = {}
    for _, o in ipairs(other) do
        if args[o[1]:gsub("-", "_")] then cli.fail(cli.USAGE, "--%s has no effect %s", o[1], why) end
    end
    for _, o in ipairs(list) do
        local key = o[1]:gsub("-", "_")
        values[key] = args[key] or o[2]
    end
    return values
end

function command.configure(p)
    p:require_command(true)
    p:command_target("action")
    local s = p:command("synth",
        "Writes general pictures (ImageNet folders) and faces (RAF-DB layout), JPEG, from a seed.",
        "Example:\n  mimic data synth data/drawn --seed 0 --size 48 --faces-train 2000")
    s:argument("dir"):argname("DIR"):description("folder to write")
    s:option("--seed"):argname("N"):description("equal seeds give equal files"):convert(cli.integer):default "0"
    s:option("--layout"):argname("NAME"):description("instead: one small set in the exact form of "
        .. table.concat(layouts.names, ", "))
    integers(s, in_layout)
    integers(s, drawn)
    local c = p:command("check", [[
Reads every picture as training would, one at a time. Prints a line for each: path, width,
height and the mean of red, green and blue (0..255), or the path and what is wrong.
Data sets with annotations (RAF-DB, FERPlus, AffectNet, RecordIO, packs, list files) are read
by them: a picture that they name and that is not there is named with the list and its line.
Folders are walked for all other pictures. Exit code 1 if anything failed, or nothing was there.]],
        "Example:\n  mimic data check photos/ broken.jpg pack.tar | awk '$2 < 48'")
    check.configure(c)
    local i = p:command("info", [[
What a data set is, its splits, how many pictures each class has, and how that differs from
the published set.]],
        "Example:\n  mimic data info data/ferplus --mode majority")
    info.configure(i)
    local k = p:command("pack", [[
Writes a data set's pictures decoded, in one size, with their labels: OUT_train.pixels and so
on. Training reads them as a data set of that name, without decoding, and with the same
numbers as from SRC when augment.pre_resize is the size.]],
        "Example:\n  mimic data pack data/affectnet data/affectnet224 --size 224")
    pack.configure(k)
    command.help = cli.help_of { synth = s, check = c, info = i, pack = k }
end

local function synth(args)
    local began = m.sys.clock()
    if args.layout then
        local spec = chosen(args, in_layout, drawn, "with --layout: its pictures have the set's own sizes and splits")
        spec.layout, spec.dir, spec.seed = args.layout, args.dir, args.seed
        cli.guard(cli.USAGE, layouts.write, spec)
        print(("wrote a set in the form of %s under %s in %s"):format(args.layout, args.dir,
            tables.duration(m.sys.clock() - began)))
        return cli.DONE
    end
    local spec = chosen(args, drawn, in_layout, "without --layout")
    spec.dir, spec.seed = args.dir, args.seed
    local written = require("mimic.synth").ensure(spec)
    if not written then
        print(("%s holds these pictures already"):format(args.dir))
        return cli.DONE
    end
    local n = spec.general_train + spec.general_val + spec.faces_train + spec.faces_test
    print(("wrote %d pictures under %s in %s"):format(n, args.dir, tables.duration(m.sys.clock() - began)))
    return cli.DONE
end

function command.run(args)
    if args.action == "synth" then return synth(args) end
    return ({ check = check, info = info, pack = pack })[args.action].run(args)
end

return command

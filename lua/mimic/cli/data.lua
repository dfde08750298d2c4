-- mimic data: make a synthetic data set, check pictures, describe a data set, decode it in advance.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
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

local function integer(p, flag, default, text)
    p:option(flag):argname("N"):description(text):convert(cli.integer):default(tostring(default))
end

function command.configure(p)
    p:require_command(true)
    p:command_target("action")
    local s = p:command("synth",
        "Writes general pictures (ImageNet folders) and faces (RAF-DB layout), JPEG, from a seed.",
        "Example:\n  mimic data synth data/drawn --seed 0 --size 48 --faces-train 2000")
    s:argument("dir"):argname("DIR"):description("folder to write")
    integer(s, "--seed", 0, "equal seeds give equal files")
    s:option("--layout"):argname("NAME"):description("instead: one small set in the exact form of "
        .. table.concat(layouts.names, ", "))
    integer(s, "--train", 120, "with --layout: pictures for training")
    integer(s, "--test", 40, "with --layout: pictures of each other split")
    integer(s, "--size", 64, "pixels of a side")
    integer(s, "--general-train", 4000, "general pictures for pre-training")
    integer(s, "--general-val", 200, "general pictures held out")
    integer(s, "--faces-train", 1200, "faces for fine-tuning")
    integer(s, "--faces-test", 400, "faces held out")
    local c = p:command("check", [[
Reads every picture as training would, one at a time. Prints a line for each: path, width,
height and the mean of red, green and blue (0..255), or the path and what is wrong.
Folders are walked, packs (.tar) and list files are read member by member. Exit code 1 if
any picture failed.]],
        "Example:\n  mimic data check photos/ broken.jpg pack.tar | awk '$2 < 48'")
    c:argument("paths"):argname("PATH"):args("+")
        :description("pictures, folders, packs (.tar), list files (.txt, .tsv)")
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
        cli.guard(cli.USAGE, layouts.write, {
            layout = args.layout, dir = args.dir, train = args.train, test = args.test, seed = args.seed,
        })
        print(("wrote a set in the form of %s under %s in %s"):format(args.layout, args.dir,
            tables.duration(m.sys.clock() - began)))
        return cli.DONE
    end
    local written = require("mimic.synth").ensure {
        dir = args.dir, seed = args.seed, size = args.size,
        general_train = args.general_train, general_val = args.general_val,
        faces_train = args.faces_train, faces_test = args.faces_test,
    }
    if not written then
        print(("%s holds these pictures already"):format(args.dir))
        return cli.DONE
    end
    local n = args.general_train + args.general_val + args.faces_train + args.faces_test
    print(("wrote %d pictures under %s in %s"):format(n, args.dir, tables.duration(m.sys.clock() - began)))
    return cli.DONE
end

local pictures = {}
for kind in ("jpg jpeg jpe png bmp gif ppm pgm webp tif tiff"):gmatch("%a+") do pictures[kind] = true end

local function suffix(path)
    return (path:match("%.([^./]+)$") or ""):lower()
end

-- What is wrong with a file, without its name and the place in the library that noticed.
local function reason(name, why)
    why = tostring(why):gsub("^[^\n]-%.lua:%d+: ", ""):match("^[^\n]*")
    why = why:match("^cannot obtain information from file '.-': (.*)$") or why
    if why:sub(1, #name + 1) == name .. ":" then why = why:sub(#name + 2):gsub("^ ", "") end
    return why
end

local total, failed

local function one(name, read, ...)
    if m.interrupted() > 0 then cli.fail(cli.STOPPED, "stopped after %d pictures", total) end
    total = total + 1
    local ok, result = pcall(read, ...)
    if not ok then
        failed = failed + 1
        io.stdout:write(name, ": ", reason(name, result), "\n")
        return
    end
    local img <close> = result -- its pixels go at once, not when the collector comes
    local r, g, b = img:mean()
    io.stdout:write(("%s %d %d %.3f %.3f %.3f\n"):format(name, img.width, img.height, r, g, b))
end

local function complain(name, why)
    total, failed = total + 1, failed + 1
    io.stdout:write(name, ": ", reason(name, why), "\n")
end

local function check_set(path)
    local ok, d = pcall(m.data.open, { path = path })
    if not ok then return complain(path, d) end
    for i = 0, #d - 1 do one(d:name(i), d.read, d, i) end
end

-- A tar without the .csv of a pack: every regular member is read as a picture, one at a time.
local function check_tar(path)
    local f, why = io.open(path, "rb")
    if not f then return complain(path, why) end
    while true do
        local header = f:read(512)
        if not header or header:match("^\0*$") then break end
        local name = header:sub(1, 100):match("^[^\0]*")
        local size = tonumber(header:sub(125, 136):match("[0-7]+") or "", 8)
        if #header < 512 or not size or header:sub(258, 262) ~= "ustar" then
            complain(path, "not a tar member header at byte " .. f:seek() - #header)
            break
        end
        local kind = header:sub(157, 157)
        local bytes = size > 0 and f:read(size) or ""
        if #(bytes or "") < size then
            complain(path .. ":" .. name, "the archive ends inside this member")
            break
        end
        f:seek("cur", -size % 512)
        if kind == "0" or kind == "\0" then one(path .. ":" .. name, m.image.decode, bytes, name) end
    end
    f:close()
end

-- A single file that holds a data set, by its name.
local function readable_set(name)
    return ({ tar = true, rec = true, pixels = true })[suffix(name)] or name == "fer2013.csv"
end

local function check(path, depth)
    local mode, why = lfs.attributes(path, "mode")
    if not mode then return complain(path, why) end
    if mode == "directory" then
        local names = {}
        for name in lfs.dir(path) do
            if name ~= "." and name ~= ".." then names[#names + 1] = name end
        end
        table.sort(names)
        for _, name in ipairs(names) do
            local inner = path:gsub("/+$", "") .. "/" .. name
            if lfs.attributes(inner, "mode") == "directory" then
                local real = m.sys.realpath(inner) or inner
                local around = (m.sys.realpath(path) or path) .. "/"
                local circle = around:sub(1, #real + 1) == real .. "/" -- a link to a folder around us
                if not circle then check(inner, depth + 1) end
            elseif pictures[suffix(name)] then
                one(inner, m.image.read, inner)
            elseif readable_set(name) then
                check(inner, depth + 1)
            end
        end
    elseif suffix(path) == "tar" then
        if lfs.attributes((path:gsub("tar$", "csv")), "mode") then check_set(path) else check_tar(path) end
    elseif suffix(path) == "csv" and lfs.attributes((path:gsub("csv$", "tar")), "mode") then
        check_set((path:gsub("csv$", "tar")))
    elseif readable_set(path:match("([^/]*)$")) then
        check_set(path)
    elseif ({ txt = true, tsv = true, csv = true, lst = true })[suffix(path)] then
        check_set(path)
    else
        one(path, m.image.read, path)
    end
end

function command.run(args)
    if args.action == "synth" then return synth(args) end
    if args.action == "info" then return info.run(args) end
    if args.action == "pack" then return pack.run(args) end
    total, failed = 0, 0
    io.stdout:setvbuf("full")
    for _, path in ipairs(args.paths) do check(path, 0) end
    io.stdout:flush()
    io.stderr:write(("%d picture%s, %d failed\n"):format(total, total == 1 and "" or "s", failed))
    return failed > 0 and cli.FAILED or cli.DONE
end

return command

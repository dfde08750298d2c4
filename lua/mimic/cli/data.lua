-- mimic data: make a synthetic data set, check pictures, describe a data set.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local tables = require "mimic.format"

local command = {
    summary = "make synthetic data, check pictures, describe a data set",
    description = [[
Works on data sets: a folder of pictures by class, an RAF-DB folder, a list file, or a
pack (NAME.tar with NAME.csv).]],
    examples = [[
  mimic data synth data/synth --seed 0
  mimic data check photos/ broken.jpg pack.tar
  mimic data info data/synth/faces]],
}

local subs = {} -- name -> parser of the sub-command, for its help

local function integer(p, flag, default, text)
    p:option(flag):argname("N"):description(text):convert(cli.integer):default(tostring(default))
end

function command.configure(p)
    p:require_command(true)
    p:command_target("action")
    local s = p:command("synth",
        "Writes general pictures (ImageNet folders) and faces (RAF-DB layout), JPEG, from a seed.",
        "Example:\n  mimic data synth data/synth --seed 0 --size 48 --faces-train 2000")
    s:argument("dir"):argname("DIR"):description("folder to write")
    integer(s, "--seed", 0, "equal seeds give equal files")
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
    local i = p:command("info", "Format of a data set, its splits, and how many pictures each class has.",
        "Example:\n  mimic data info data/synth/faces")
    i:argument("path"):argname("PATH"):description("folder, pack or list file")
    i:option("--label-column"):argname("NAME"):description("column of a pack's .csv that holds the label")
    tables.options(i)
    for _, sub in ipairs { s, c, i } do
        sub:add_help(false)
        sub:help_max_width(100)
    end
    subs = { synth = s, check = c, info = i }
end

---Help of the sub-command named in the words, or nil.
function command.help(words)
    for _, w in ipairs(words) do
        if subs[w] then return subs[w]:get_help() end
    end
end

local function synth(args)
    local began = m.sys.clock()
    local written = require("mimic.synth").ensure {
        dir = args.dir, seed = args.seed, size = args.size, general_train = args.general_train,
            general_val = args.general_val,
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
            elseif suffix(name) == "tar" then
                check(inner, depth + 1)
            end
        end
    elseif suffix(path) == "tar" then
        if lfs.attributes((path:gsub("tar$", "csv")), "mode") then check_set(path) else check_tar(path) end
    elseif suffix(path) == "csv" and lfs.attributes((path:gsub("csv$", "tar")), "mode") then
        check_set((path:gsub("csv$", "tar")))
    elseif ({ txt = true, tsv = true, csv = true, lst = true })[suffix(path)] then
        check_set(path)
    else
        one(path, m.image.read, path)
    end
end

local function info(args)
    local rows, classes, order = {}, {}, {}
    local format, hash
    local columns = { "class" }
    local problems = {}
    for _, split in ipairs { "train", "val", "test", "all" } do
        local ok, d = pcall(m.data.open, { path = args.path, split = split ~= "all" and split or nil,
            label_column = args.label_column })
        if not ok then
            problems[#problems + 1] = tostring(d):match("^[^\n]*")
        elseif #d > 0 and not (split == "all" and #columns > 1) and d:hash() ~= hash then
            format, hash = d.format, d:hash()
            columns[#columns + 1] = split
            local counts = d:counts()
            for k = 0, d.classes - 1 do
                local name = d:class_name(k)
                local key = name ~= "" and ("%d %s"):format(k, name) or tostring(k)
                if not classes[key] then
                    classes[key] = { class = key }
                    order[#order + 1] = classes[key]
                end
                classes[key][split] = counts[k + 1]
            end
            rows[split] = #d
        end
    end
    if not format then
        cli.fail(cli.FAILED, "%s", problems[#problems] or "no pictures under " .. args.path)
    end
    local sum = { class = "all" }
    for split, n in pairs(rows) do sum[split] = n end
    order[#order + 1] = sum
    if tables.chosen(args) == "plain" then
        print(("%s: format %s, %d classes"):format(args.path, format, #order - 1))
    end
    print(tables.format(tables.chosen(args), order, columns))
    return cli.DONE
end

function command.run(args)
    if args.action == "synth" then return synth(args) end
    if args.action == "info" then return info(args) end
    total, failed = 0, 0
    io.stdout:setvbuf("full")
    for _, path in ipairs(args.paths) do check(path, 0) end
    io.stdout:flush()
    io.stderr:write(("%d picture%s, %d failed\n"):format(total, total == 1 and "" or "s", failed))
    return failed > 0 and cli.FAILED or cli.DONE
end

return command

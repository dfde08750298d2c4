-- mimic data check: reads every picture there is, by the annotations of the data sets among them.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local info = require "mimic.cli.data.info"
local tables = require "mimic.format"

local check = {}

function check.configure(p)
    p:argument("paths"):argname("PATH"):args("+")
        :description("pictures, folders, packs (.tar), list files (.txt, .tsv)")
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
local seen -- files that were read by their annotations: not again when their folder is walked

local function complain(name, why)
    failed = failed + 1
    io.stdout:write(tables.safe(name), ": ", tables.safe(reason(name, why)), "\n")
end

local function one(name, read, ...)
    if m.interrupted() > 0 then cli.fail(cli.STOPPED, "stopped after %d pictures", total) end
    total = total + 1
    local ok, result = pcall(read, ...)
    if not ok then return complain(name, result) end
    local img <close> = result -- its pixels go at once, not when the collector comes
    local r, g, b = img:mean()
    io.stdout:write(("%s %d %d %.3f %.3f %.3f\n"):format(tables.safe(name), img.width, img.height, r, g, b))
end

local function check_set(path)
    local found, problem = info.splits { path = path }
    if problem then complain(path, problem) end
    for _, entry in ipairs(found) do
        local d = entry[2]
        for i = 0, #d - 1 do
            local name = d:name(i)
            seen[name] = true
            one(name, d.read, d, i)
        end
    end
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

-- A file of a recognised folder that its set has been read from.
local whole = { ferplus = "fer2013.csv", recordio = "train.rec" }

local check_path

local function check_folder(path)
    path = path:gsub("(.)/+$", "%1")
    local format = m.data.detect(path)
    if format and format ~= "folders" then
        check_set(path)
        if whole[format] then seen[path .. "/" .. whole[format]] = true end
    end
    local names = {}
    for name in lfs.dir(path) do
        if name ~= "." and name ~= ".." then names[#names + 1] = name end
    end
    table.sort(names)
    for _, name in ipairs(names) do
        local inner = path .. "/" .. name
        if lfs.attributes(inner, "mode") == "directory" then
            local real = m.sys.realpath(inner) or inner
            local around = (m.sys.realpath(path) or path) .. "/"
            local circle = around:sub(1, #real + 1) == real .. "/" -- a link to a folder around us
            if not circle then check_folder(inner) end
        elseif not seen[inner] and pictures[suffix(name)] then
            one(inner, m.image.read, inner)
        elseif not seen[inner] and readable_set(name) then
            check_path(inner)
        end
    end
end

function check_path(path)
    local mode, why = lfs.attributes(path, "mode")
    if not mode then return complain(path, why) end
    if mode == "directory" then
        check_folder(path)
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

function check.run(args)
    total, failed = 0, 0
    io.stdout:setvbuf("full")
    for _, path in ipairs(args.paths) do
        local before = total + failed
        seen = {}
        check_path(path)
        if total + failed == before then complain(path, "no picture, and no data set") end
    end
    io.stdout:flush()
    io.stderr:write(("%d picture%s, %d failed\n"):format(total, total == 1 and "" or "s", failed))
    return failed > 0 and cli.FAILED or cli.DONE
end

return check

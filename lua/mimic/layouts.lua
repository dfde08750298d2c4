-- m.layouts: small synthetic data sets in the exact folder and file formats of the published ones, for tests
-- and for trying out scripts. From a seed: equal settings give equal bytes.
local lfs = require "lfs"
local m = require "mimic"

local layouts = {}

-- Synthetic faces are drawn by RAF-DB's labels; what the other sets' classes are among them (contempt is drawn
-- as disgust).
local surprise, fear, disgust, happiness, sadness, anger, neutral = 0, 1, 2, 3, 4, 5, 6
local ferplus_faces = { neutral, happiness, surprise, sadness, anger, disgust, fear, disgust }
local affectnet_faces = { neutral, happiness, sadness, surprise, fear, disgust, anger, disgust }

local function write(path, bytes)
    local f, why = io.open(path, "wb")
    local ok = f and f:write(bytes)
    if f and not f:close() or not ok then error(("%s: %s"):format(path, why or "could not be written"), 0) end
end

local Set = {} -- what one layout is written from
Set.__index = Set

--- A picture, from (seed, index, label).
function Set:draw(kind, index, label, size)
    return m.image.synth(kind, self.seed, index, label, size)
end

--- Writes a file below the folder of the set.
function Set:put(path, bytes)
    local folder = path:match("^(.*)/")
    if folder and not self.folders[folder] then
        m.sys.mkdirs(self.dir .. "/" .. folder)
        self.folders[folder] = true
    end
    write(self.dir .. "/" .. path, bytes)
end

-- Label of picture i among `classes`: each in turn, the first ones more often.
local function label_of(i, classes)
    local k = i % (2 * classes)
    return k < classes and k or (k - classes) // 2
end

-- Training pictures, then held-out ones, under indices of their own.
local function each(set, f)
    for held, n in ipairs { set.train, set.test } do
        for i = 1, n do f(held == 2, i, (held - 1) * 1000000 + i) end
    end
end

local writers = {}

function writers.rafdb(set)
    local list = {}
    each(set, function(held, i, index)
        local label, name = label_of(i, 7), (held and "test_%04d" or "train_%05d"):format(i)
        set:put(("Image/aligned/%s_aligned.jpg"):format(name), set:draw("face", index, label, 100):jpeg())
        list[#list + 1] = ("%s.jpg %d\n"):format(name, label + 1)
    end)
    set:put("EmoLabel/list_patition_label.txt", table.concat(list))
end

writers["rafdb-mirror"] = function(set)
    local rows = { { "image,label\n" }, { "image,label\n" } }
    each(set, function(held, i, index)
        local label, split = label_of(i, 7), held and "test" or "train"
        local name = (held and "test_%04d_aligned.jpg" or "train_%05d_aligned.jpg"):format(i)
        set:put(("DATASET/%s/%d/%s"):format(split, label + 1, name), set:draw("face", index, label, 100):jpeg())
        table.insert(rows[held and 2 or 1], ("%s,%d\n"):format(name, label + 1))
    end)
    set:put("train_labels.csv", table.concat(rows[1]))
    set:put("test_labels.csv", table.concat(rows[2]))
end

-- Ten votes around a class (1-based): most for it, few in every 11th picture; every 23rd is no face.
local function votes_of(rng, class, i)
    local votes = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
    if i % 23 == 0 then
        votes[10] = 10
        return votes
    end
    local sure = i % 11 == 0 and 0.2 or 0.75
    for _ = 1, 10 do
        local k = rng:uniform() < sure and class or 1 + rng:below(9)
        votes[k] = votes[k] + 1
    end
    return votes
end

-- The rows of FERPlus: three splits, names whose numbers drift from the row and now and then repeat.
local function ferplus_rows(set)
    local rows, rng = {}, m.rng(set.seed, 1, 0)
    local splits = { { "Training", set.train }, { "PublicTest", set.test }, { "PrivateTest", set.test } }
    for s, split in ipairs(splits) do
        for i = 1, split[2] do
            local class = label_of(i, 8) + 1
            local votes = votes_of(rng, class, i)
            local number = #rows + #rows // 40 - (i % 31 == 0 and 1 or 0)
            rows[#rows + 1] = {
                usage = split[1], split = s, votes = votes,
                name = votes[10] < 10 and ("fer%07d.png"):format(number) or "",
                image = set:draw("face", s * 1000000 + i, ferplus_faces[class], 48),
            }
        end
    end
    return rows
end

function writers.ferplus(set)
    local pixels = { "emotion,pixels,Usage\n" }
    local votes = { "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n" }
    for _, row in ipairs(ferplus_rows(set)) do
        local values = {}
        row.image:augment("grey", 0, 0, {})
        for _, line in ipairs(row.image:tensor():tolist()) do
            for _, pixel in ipairs(line) do values[#values + 1] = pixel[1] end
        end
        pixels[#pixels + 1] = ("0,%s,%s\n"):format(table.concat(values, " "), row.usage)
        votes[#votes + 1] = ("%s,%s,%s\n"):format(row.usage, row.name, table.concat(row.votes, ","))
    end
    set:put("fer2013.csv", table.concat(pixels))
    set:put("fer2013new.csv", table.concat(votes))
end

writers["ferplus-folders"] = function(set)
    local folders, lists = { "FER2013Train", "FER2013Valid", "FER2013Test" }, { {}, {}, {} }
    for i, row in ipairs(ferplus_rows(set)) do
        if row.name ~= "" then
            local name = ("fer%07d.png"):format(i)
            set:put(folders[row.split] .. "/" .. name, row.image:png(true))
            table.insert(lists[row.split],
                ('%s,"(0, 0, 48, 48)",%s\n'):format(name, table.concat(row.votes, ",")))
        end
    end
    for s, folder in ipairs(folders) do set:put(folder .. "/label.csv", table.concat(lists[s])) end
end

-- The manual release: pictures of 96 pixels, the box of the face in the list.
function writers.affectnet(set)
    local header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,"
        .. "expression,valence,arousal\n"
    local lists = { { header }, {} } -- validation.csv has no header in some copies
    local rng = m.rng(set.seed, 2, 0)
    each(set, function(held, i, index)
        local label = i % 17 == 0 and 8 + i % 3 or label_of(i, 8)
        local path = ("%d/%032x.jpg"):format(i % 5 + 1, index)
        set:put("Manually_Annotated_Images/" .. path,
            set:draw("face", index, affectnet_faces[label + 1] or neutral, 96):jpeg())
        local x, y, v = rng:below(17), rng:below(17), label > 7 and -2 or rng:uniform()
        table.insert(lists[held and 2 or 1], ("%s,%d,%d,80,80,%d;%d,%d,%.3f,%.3f\n"):format(path, x, y,
            x + 20, y + 30, label, v, v))
    end)
    set:put("training.csv", table.concat(lists[1]))
    set:put("validation.csv", table.concat(lists[2]))
end

-- A 0-d array that holds a text, as np.save(str(class)) leaves it.
local function npy(text)
    local dict = ("{'descr': '<U%d', 'fortran_order': False, 'shape': (), }"):format(#text)
    dict = dict .. (" "):rep(64 - (10 + #dict + 1) % 64) .. "\n"
    local codes = text:gsub(".", function(c) return c .. "\0\0\0" end)
    return "\x93NUMPY\1\0" .. string.pack("<I2", #dict) .. dict .. codes
end

-- The later release: aligned crops, one .npy for each annotation.
writers["affectnet-npy"] = function(set)
    each(set, function(held, i, index)
        local folder, label = held and "val_set" or "train_set", label_of(i, 8)
        set:put(("%s/images/%d.jpg"):format(folder, i),
            set:draw("face", index, affectnet_faces[label + 1], 224):jpeg())
        set:put(("%s/annotations/%d_exp.npy"):format(folder, i), npy(tostring(label)))
    end)
end

-- ImageNet's folders; the 7th training picture is a PNG under its JPEG name, as one is in the real set.
function writers.imagenet(set)
    local classes = 12
    each(set, function(held, i, index)
        local label = i % classes
        local wnid = ("n%08d"):format(1440764 + label * 1000)
        local img = set:draw("general", index, label, 96)
        img = img:resize{ out_w = 60 + index % 41, out_h = 60 + index % 29 }
        local name = held and ("val/%s/ILSVRC2012_val_%08d.JPEG"):format(wnid, i)
            or ("train/%s/%s_%d.JPEG"):format(wnid, wnid, i)
        set:put(name, not held and i == 7 and img:png() or img:jpeg())
    end)
end

function writers.ms1m(set)
    each(set, function(held, i, index)
        if held then return end
        set:put(("m.%06x/%d.jpg"):format(i // 4, i), set:draw("face", index, label_of(i, 7), 112):jpeg())
    end)
end

-- insightface's RecordIO: record 0, the pictures, one record for each identity.
writers["ms1m-rec"] = function(set)
    local rec, index, at = {}, {}, 0
    local function add(key, flag, label, labels, data)
        local body = string.pack("<I4fI8I8", flag, label, key, 0) .. labels .. data
        local record = string.pack("<I4I4", 0xced7230a, #body) .. body .. ("\0"):rep(-#body % 4)
        rec[#rec + 1] = record
        index[#index + 1] = ("%d\t%d\n"):format(key, at)
        at = at + #record
    end
    local n, each_identity = set.train, 4
    local identities = (n + each_identity - 1) // each_identity
    add(0, 2, 0, string.pack("<ff", n + 1, n + 1 + identities), "")
    for i = 1, n do
        add(i, 0, (i - 1) // each_identity, "", set:draw("face", i, label_of(i, 7), 112):jpeg())
    end
    for k = 0, identities - 1 do
        local from = 1 + k * each_identity
        add(n + 1 + k, 2, k, string.pack("<ff", from, math.min(from + each_identity, n + 1)), "")
    end
    set:put("train.rec", table.concat(rec))
    set:put("train.idx", table.concat(index))
    set:put("property", ("%d,112,112"):format(identities))
end

--- Names of the layouts, sorted.
---@type string[]
layouts.names = {}
for name in pairs(writers) do layouts.names[#layouts.names + 1] = name end
table.sort(layouts.names)

---Writes a small set of a layout into an empty (or new) folder.
---@param spec {layout: string, dir: string, train: integer?, test: integer?, seed: integer?}
function layouts.write(spec)
    local writer = writers[spec.layout]
    if not writer then
        error(("layout '%s': %s"):format(tostring(spec.layout), table.concat(layouts.names, ", ")), 0)
    end
    local set = setmetatable({
        dir = spec.dir:gsub("(.)/+$", "%1"), train = spec.train or 120, test = spec.test or 40,
        seed = spec.seed or 0, folders = {},
    }, Set)
    for _, key in ipairs { "train", "test" } do
        if set[key] < 0 or set[key] > 99999 then error(("%s = %d pictures"):format(key, set[key]), 0) end
    end
    if lfs.attributes(set.dir, "mode") then
        for name in lfs.dir(set.dir) do
            if name ~= "." and name ~= ".." then
                error(("%s is not empty: choose another folder or remove it"):format(set.dir), 0)
            end
        end
    end
    m.sys.mkdirs(set.dir)
    local scope <close> = m.scope() -- luacheck: ignore
    writer(set)
end

return layouts

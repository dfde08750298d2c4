-- The published sizes of the data sets (method.md 5), to tell how a copy differs from them.
local published = {}

local rafdb = {
    train = { 1290, 281, 717, 4772, 1982, 705, 2524 },
    test = { 329, 74, 160, 1185, 478, 162, 680 },
}

-- Per label mode; for the soft ones the class is the largest share.
local ferplus = {
    maxvote = {
        train = { 10388, 7539, 3588, 3549, 2478, 194, 656, 167 },
        val = { 1347, 899, 459, 418, 320, 36, 75, 25 },
        test = { 1278, 929, 446, 448, 326, 23, 94, 29 },
    },
    majority = {
        train = { 8740, 7287, 3149, 3014, 2100, 119, 532, 119 },
        val = { 1182, 865, 415, 351, 287, 24, 62, 13 },
        test = { 1090, 893, 396, 384, 273, 18, 83, 16 },
    },
    crossentropy = {
        train = { 10122, 7503, 3524, 3430, 2407, 169, 641, 160 }, val = 3505, test = 3505,
    },
    multi_target = { train = 27671, val = 3472, test = 3472 },
}
ferplus.probability = ferplus.crossentropy

local affectnet = {
    train = { 74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750 },
    val = { 500, 500, 500, 500, 500, 500, 500, 500 },
}

-- Cleaned forms of MS-Celeb-1M by their numbers of pictures and people.
local ms1m = {
    { "MS1MV3 (MS1M-RetinaFace)", 5179510, 93431 }, { "MS1MV2 (faces_emore)", 5822653, 85742 },
}

---@class published.Set
---@field name string
---@field counts table<string, integer[]|integer>? per split: of each class, or in all
---@field classes integer?
---@field notes string[] what is always to be said of it

local function first(list, n) return { table.unpack(list, 1, n) } end

local function all_named(d, pattern)
    for k = 0, d.classes - 1 do
        if not d:class_name(k):find(pattern) then return false end
    end
    return d.classes > 0
end

-- MS-Celeb-1M in one of its forms, else under `name` with the sizes of those there are.
local function celebrities(d, name)
    for _, known in ipairs(ms1m) do
        if #d == known[2] then return { name = known[1], classes = known[3], notes = {} } end
    end
    return { name = name, notes = { ("%d pictures: MS1MV3 has 5,179,510, MS1MV2 has 5,822,653"):format(#d) } }
end

---What a data set is, by its format and class names; nil when it is nobody's but the user's.
---@param d any an open data set
---@return published.Set?
function published.identify(d)
    if d.format == "rafdb" then return { name = "RAF-DB (basic)", counts = rafdb, notes = {} } end
    if d.format == "ferplus" then
        local notes = { "accuracies of different label modes do not compare: name the mode with the figure" }
        if d:name(0):find "^fer2013%.csv:" then
            notes[2] = "pixels and votes are joined row by row and only their Usage is compared: rows that changed "
                .. "places within a split are not noticed"
        end
        return { name = ("FERPlus, labels by %s"):format(d.mode), counts = ferplus[d.mode], notes = notes }
    end
    if d.format == "affectnet" then
        local n = d.classes
        return { name = "AffectNet-" .. n, notes = {},
            counts = { train = first(affectnet.train, n), val = first(affectnet.val, n) } }
    end
    if d.format == "recordio" then return celebrities(d, "faces in RecordIO") end
    if d.format == "folders" and all_named(d, "^m%.%w+$") then -- folders by Freebase id
        return celebrities(d, "MS-Celeb-1M, or a part of it")
    end
    if d.format == "folders" and all_named(d, "^n%d%d%d%d%d%d%d%d$") then
        return { name = d.classes == 1000 and "ImageNet-1K" or "folders by WordNet id", classes = 1000,
            counts = { train = 1281167, val = 50000 }, notes = {} }
    end
    return nil
end

---Lines about how a split differs from its published counts; none when it does not, or when it is not known.
---@param set published.Set
---@param split string
---@param counts integer[] pictures of each class
---@param names string[]
---@return string?
function published.difference(set, split, counts, names)
    local expected = set.counts and set.counts[split]
    if not expected then return nil end
    local n, all, off = 0, 0, {}
    for k, count in ipairs(counts) do
        n = n + count
        if type(expected) == "table" and count ~= expected[k] then
            off[#off + 1] = ("%s %d (%d)"):format(names[k], count, expected[k])
        end
    end
    if type(expected) == "number" then
        all = expected
    else
        for _, count in ipairs(expected) do all = all + count end
    end
    if n == all and #off == 0 then return nil end
    local text = ("%s: %d labelled pictures, published %d"):format(split, n, all)
    return #off > 0 and text .. "; classes that differ: " .. table.concat(off, ", ") or text
end

return published

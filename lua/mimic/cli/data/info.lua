-- mimic data info: what a data set is, its splits and classes, and how it differs from what was published.
local m = require "mimic"
local cli = require "mimic.cli"
local published = require "mimic.published"
local tables = require "mimic.format"

local info = {}

local MANY = 100 -- classes beyond which only extremes are shown

function info.configure(p)
    p:argument("path"):argname("PATH"):description("folder, pack, .pixels, .rec, fer2013.csv or list file")
    p:option("--label-column"):argname("NAME"):description("column of a pack's .csv that holds the label")
    p:option("--mode"):argname("MODE"):description(
        "label rule: maxvote, majority, crossentropy, probability, multi_target (FERPlus), 7, 8 (AffectNet)")
    p:option("--format"):argname("FORMAT"):description("how to read PATH, when it is not recognised")
    tables.options(p)
end

---The splits that a data set has, in order, each once: a list of {split, dataset}. A set without splits is "all".
---@param spec table m.data.open's options
---@return {[1]: string, [2]: any}[] splits, string? problem why one of them, or the set, cannot be read
function info.splits(spec)
    local found, hash = {}, nil
    for _, split in ipairs { "train", "val", "valid", "test", "all" } do
        if split == "all" and #found > 0 then break end
        local ok, d = pcall(m.data.open, {
            path = spec.path, mode = spec.mode, label_column = spec.label_column, format = spec.format,
            need_labels = spec.need_labels, split = split ~= "all" and split or nil, optional = true,
        })
        if not ok then return found, tostring(d):match("^[^\n]*") end
        if d and d:hash() ~= hash then
            hash = d:hash()
            found[#found + 1] = { split, d }
        end
    end
    return found
end

local function names_of(d)
    local names = {}
    for k = 0, d.classes - 1 do
        local name = d:class_name(k)
        names[k + 1] = name ~= "" and ("%d %s"):format(k, name) or tostring(k)
    end
    return names
end

-- One row for each class, or smallest and largest class when there are many.
local function rows_of(found, short)
    local rows, by_name = {}, {}
    local function cell(name, split, value)
        if not by_name[name] then
            by_name[name] = { class = name }
            rows[#rows + 1] = by_name[name]
        end
        by_name[name][split] = value
    end
    for _, entry in ipairs(found) do
        local split, d = entry[1], entry[2]
        local counts, names, labelled = d:counts(), names_of(d), 0
        for _, n in ipairs(counts) do labelled = labelled + n end
        if short then
            local least, most = math.huge, 0
            for _, n in ipairs(counts) do least, most = math.min(least, n), math.max(most, n) end
            cell("classes", split, d.classes)
            cell("pictures of the smallest", split, least)
            cell("pictures of the largest", split, most)
        else
            for k, name in ipairs(names) do cell(name, split, counts[k]) end
        end
        if labelled < #d then cell("without a label", split, #d - labelled) end
    end
    for _, entry in ipairs(found) do cell("all", entry[1], #entry[2]) end
    return rows
end

function info.run(args)
    local found, problem = info.splits(args)
    if problem then cli.fail(cli.FAILED, "%s", problem) end
    local columns, first = { "class" }, found[1][2]
    for _, entry in ipairs(found) do columns[#columns + 1] = entry[1] end
    local plain = tables.chosen(args) == "plain"
    local set = published.identify(first)
    if plain then
        print(("%s: %s, format %s%s, %d classes"):format(args.path, set and set.name or "a data set of its own",
            first.format, first.mode ~= "" and ", mode " .. first.mode or "", first.classes))
    end
    print(tables.format(tables.chosen(args), rows_of(found, plain and first.classes > MANY), columns))
    if not set then return cli.DONE end
    local function say(kind, text) (plain and io.stdout or io.stderr):write(kind, ": ", text, "\n") end
    for _, note in ipairs(set.notes) do say("note", note) end
    if set.classes and first.classes ~= set.classes then
        say("warning", ("%d classes, published %d"):format(first.classes, set.classes))
    end
    for _, entry in ipairs(found) do
        local text = published.difference(set, entry[1], entry[2]:counts(), names_of(entry[2]))
        if text then say("warning", text) end
    end
    return cli.DONE
end

return info

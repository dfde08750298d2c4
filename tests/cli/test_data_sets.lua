-- Data sets in their published forms: written small, read, described, decoded in advance, trained on.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local layouts = require "mimic.layouts"

local TestDataSets = {}
local dir

function TestDataSets.setUp() dir = shell.folder() end

function TestDataSets.tearDown() shell.remove(dir) end

local function ok(words)
    local code, out, err = shell.run(dir, words)
    lu.assertEquals(code, 0, words .. "\n" .. out .. err)
    return out, err
end

local function write(layout, train, test)
    layouts.write { layout = layout, dir = dir .. "/" .. layout, train = train or 30, test = test or 10, seed = 1 }
    return dir .. "/" .. layout
end

local function sum(list)
    local n = 0
    for _, v in ipairs(list) do n = n + v end
    return n
end

-- What every layout must be read as: format, classes, split -> labelled pictures.
local expected = {
    ["rafdb"] = { "rafdb", 7, train = 30, test = 10 },
    ["rafdb-mirror"] = { "rafdb", 7, train = 30, test = 10 },
    ["ferplus"] = { "ferplus", 8, train = 29, val = 10, test = 10 }, -- one picture of 23 is no face
    ["ferplus-folders"] = { "ferplus", 8, train = 29, val = 10, test = 10 },
    ["affectnet"] = { "affectnet", 7, train = 27, val = 9 }, -- contempt and "none" have no label
    ["affectnet-npy"] = { "affectnet", 7, train = 28, val = 9 },
    ["imagenet"] = { "folders", 12, train = 30, val = 10 },
    ["ms1m"] = { "folders", 8, all = 30 },
    ["ms1m-rec"] = { "recordio", 8, all = 30 },
}

function TestDataSets.test_every_layout_is_recognised_and_read()
    local names = {}
    for name, want in pairs(expected) do
        names[#names + 1] = name
        local path = write(name)
        for split, n in pairs(want) do
            if type(split) == "string" then
                local d = m.data.open { path = path, split = split ~= "all" and split or nil, need_labels = true }
                lu.assertEquals({ name, split, d.format, d.classes, #d }, { name, split, want[1], want[2], n })
                lu.assertEquals(sum(d:counts()), n)
                for i = 0, #d - 1 do
                    local img <close> = d:read(i)
                    lu.assertTrue(img.width >= 48 and img.height >= 48)
                end
            end
        end
    end
    table.sort(names)
    lu.assertEquals(layouts.names, names)
    lu.assertErrorMsgContains("is not empty", layouts.write, { layout = "ms1m", dir = dir .. "/ms1m" })
    lu.assertErrorMsgContains("layout 'mnist': affectnet", layouts.write, { layout = "mnist", dir = dir .. "/x" })
end

-- Both forms of FERPlus hold the same pictures and votes.
function TestDataSets.test_ferplus_forms_agree()
    local pair, folders = write("ferplus", 40), write("ferplus-folders", 40)
    for _, mode in ipairs { "maxvote", "majority", "crossentropy", "multi_target" } do
        for _, split in ipairs { "train", "val", "test" } do
            local a = m.data.open { path = pair, split = split, mode = mode, need_labels = true }
            local b = m.data.open { path = folders, split = split, mode = mode, need_labels = true }
            lu.assertEquals(#a, #b)
            for i = 0, #a - 1 do
                lu.assertEquals({ a:label(i), a:soft(i) or false }, { b:label(i), b:soft(i) or false })
                if i % 9 == 0 then
                    lu.assertEquals(a:read(i):tensor():tolist(), b:read(i):tensor():tolist())
                end
            end
        end
    end
end

function TestDataSets.test_info_names_and_warns()
    ok "data synth fer --layout ferplus --train 30 --test 10"
    local out = ok "data info fer --mode majority"
    lu.assertStrContains(out, "fer: FERPlus, labels by majority, format ferplus, mode majority, 8 classes")
    lu.assertStrContains(out, "published 25060; classes that differ: 0 neutral")
    lu.assertStrContains(out, "without a label")
    lu.assertStrContains(out, "rows that changed places within a split are not noticed")
    ok "data synth raf --layout rafdb --train 30 --test 10"
    lu.assertStrContains(ok "data info raf", "warning: test: 10 labelled pictures, published 3068")
    ok "data synth --layout ms1m celebrities"
    lu.assertStrContains(ok "data info celebrities", "MS-Celeb-1M, or a part of it")
    out = ok "data info raf --csv"
    lu.assertEquals(out:match("^[^\n]*"), "class,train,test")
    local code, _, err = shell.run(dir, "data info fer --mode best")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, 'no mode "best"; it has: maxvote, majority, crossentropy')
    code, _, err = shell.run(dir, "data synth x --layout mnist")
    lu.assertEquals(code, 2)
    lu.assertStrContains(err, "layout 'mnist'")
end

function TestDataSets.test_pack_keeps_splits_labels_and_pixels()
    write("affectnet", 30, 10)
    local out = ok "data pack affectnet an --size 32 --mode 8"
    lu.assertStrContains(out, "an_train.pixels: 30 pictures")
    lu.assertStrContains(out, "an_val.pixels: 10 pictures")
    for _, split in ipairs { "train", "val" } do
        local a = m.data.open { path = dir .. "/affectnet", split = split, mode = "8" }
        local b = m.data.open { path = dir .. "/an", split = split }
        lu.assertEquals({ b.format, b.mode, #b, b.classes }, { "pixels", "8", #a, 8 })
        for i = 0, #a - 1 do
            lu.assertEquals(b:label(i), a:label(i))
            lu.assertEquals(b:class_name(i % 8), a:class_name(i % 8))
            local resized = a:read(i):resize{ out_w = 32, out_h = 32 }
            lu.assertEquals(b:read(i):tensor():tolist(), resized:tensor():tolist())
        end
    end
    lu.assertStrContains(ok "data check an_val.pixels", "32 32")
    local code, _, err = shell.run(dir, "data pack affectnet an.pixels --split test")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "train and val")
end

-- A split that a set has not is left out; one that it has and that cannot be read is an error.
function TestDataSets.test_a_split_that_cannot_be_read_is_an_error()
    local function refused(words, text)
        local code, _, err = shell.run(dir, words)
        lu.assertEquals(code, 1, words)
        lu.assertStrContains(err, text)
    end
    local an = write("affectnet", 30, 10)
    shell.write(an .. "/validation.csv", "1/a.jpg,0,0,12,10\n")
    refused("data info affectnet", "affectnet/validation.csv:1: 5 fields instead of 9")
    refused("data pack affectnet an --size 32", "affectnet/validation.csv:1: 5 fields instead of 9")
    lu.assertNil(io.open(dir .. "/an_train.pixels"))
    os.remove(an .. "/validation.csv")
    lu.assertStrMatches(ok "data info affectnet --csv":match("^[^\n]*"), "class,train")
    local fer = write("ferplus-folders", 30, 10)
    os.remove(fer .. "/FER2013Test/label.csv")
    refused("data info ferplus-folders", "FER2013Test/label.csv: No such file")
    ok "data synth packs -q --size 32 --general-train 4 --general-val 2 --faces-train 8 --faces-test 4"
    os.execute(("cd '%s/packs' && tar -cf p_train.tar --format=ustar general/train && cp p_train.tar p_test.tar")
        :format(dir))
    local names = {}
    for name in io.popen(("tar -tf '%s/packs/p_train.tar'"):format(dir)):lines() do
        if name:find "%.JPEG$" then names[#names + 1] = name .. ",0\n" end
    end
    shell.write(dir .. "/packs/p_train.csv", "path,label\n" .. table.concat(names))
    lu.assertStrContains(ok "data info packs/p_train.tar", "format pack")
    refused("data info packs/p", "p_test.csv: No such file")
    refused("data info nothing", "no data set at nothing")
end

-- The pictures that the annotations name are read, with their boxes; what lies beside them too, once.
function TestDataSets.test_check_reads_annotations()
    local function check(words)
        local code, out, err = shell.run(dir, "data check " .. words)
        local _, n = out:gsub("\n", "")
        return code, n, out, err
    end
    for layout, n in pairs { rafdb = 40, ["rafdb-mirror"] = 40, ["ferplus-folders"] = 49, ferplus = 49,
        affectnet = 40, ["affectnet-npy"] = 40, ["ms1m-rec"] = 30 } do
        write(layout, 30, 10)
        local code, lines, out, err = check(layout .. "/")
        lu.assertEquals({ code, lines }, { 0, n }, out .. err)
    end
    local _, _, sizes = check "affectnet"
    lu.assertStrContains(sizes, ".jpg 80 80 ") -- the box of the face, not the picture
    os.remove(dir .. "/affectnet/validation.csv")
    os.execute(("cp '%s'/ferplus-folders/FER2013Test/fer0000041.png '%s/affectnet/else\27[31m.png'"):format(dir, dir))
    local code, lines, out = check "affectnet"
    lu.assertEquals({ code, lines }, { 0, 41 }) -- pictures that no list names are read as they are
    lu.assertStrContains(out, "affectnet/else\\x1b[31m.png 48 48 ")

    local victim = "rafdb/Image/aligned/train_00003_aligned.jpg"
    os.remove(dir .. "/" .. victim)
    code, lines, out = check "rafdb"
    lu.assertEquals({ code, lines }, { 1, 40 })
    lu.assertStrContains(out, victim
        .. ": No such file or directory (named in rafdb/EmoLabel/list_patition_label.txt:3)\n")
    shell.write(dir .. "/rafdb/EmoLabel/list_patition_label.txt", "train_00001.jpg 9\n")
    code, _, out = check "rafdb"
    lu.assertEquals(code, 1)
    lu.assertStrContains(out, 'list_patition_label.txt:1: label "9" is not 1 to 7\n')
    lu.assertStrContains(out, "train_00001_aligned.jpg 100 100 ")

    require("lfs").mkdir(dir .. "/empty")
    code, lines, out = check "empty"
    lu.assertEquals({ code, lines, out }, { 1, 1, "empty: no picture, and no data set\n" })
end

function TestDataSets.test_synth_refuses_what_has_no_effect()
    for words, text in pairs {
        ["--layout rafdb --size 32"] = "--size has no effect with --layout",
        ["--layout rafdb --faces-train 5"] = "--faces-train has no effect with --layout",
        ["--train 5"] = "--train has no effect without --layout",
    } do
        local code, _, err = shell.run(dir, "data synth new " .. words)
        lu.assertEquals(code, 2, words)
        lu.assertStrContains(err, text)
    end
    lu.assertNil(io.open(dir .. "/new"))
end

-- Fine-tuning takes soft labels from the batch, and draws them in mode "probability".
function TestDataSets.test_soft_labels_train()
    write("ferplus", 24, 8)
    shell.write(dir .. "/soft.lua", [[
local m = require "mimic"
for _, mode in ipairs { "crossentropy", "probability" } do
    local r = m.experiment "soft":run { kind = "finetune", name = mode, seeds = { 0 }, config = m.config {
        preset = "mimic", epochs = 2, batch = 8, mix = { mode = "elem" },
        model = { preset = false, img = 48, patch = 16, dim = 16, depth = 1, heads = 2, drop_path = 0 },
        data = { train = { path = "ferplus", split = "train" }, test = { path = "ferplus", split = "test" },
            mode = mode } } }
    print(mode, r:summary("ferplus", "test", "acc"))
end
]])
    local out = ok "run soft.lua"
    lu.assertStrContains(out, "crossentropy")
    lu.assertStrContains(out, "probability")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances {
    { "TestDataSets", TestDataSets },
})

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

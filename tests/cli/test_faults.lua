-- What goes wrong in practice: each fault gives one clear message with its place, no trace, the right exit
-- code, and leaves what was recorded whole. Also training from every form of labelled data.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lfs = require "lfs"
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local dir

local script = [[
local m = require "mimic"
local base = m.config { seeds = { 0 }, limit = 0, ft = {
    data = { train = { path = "synth/faces", split = "train" }, test = { path = "synth/faces", split = "test" },
        name = "faces" },
    init_from = false, lr = 1e-3, epochs = 1, warmup = 0, log_every = 1, batch = 8, layer_decay = 1,
    model = { preset = false, img = 32, patch = 8, dim = 32, depth = 2, heads = 2 },
} }
m.memory_limit(base.limit)
local run = m.experiment "faults":run { kind = "finetune", name = "t", config = base.ft }
print(run:result("faces", "test", "acc"))
]]

local TestFaults = {}

function TestFaults.setUp()
    dir = shell.folder()
    shell.write(dir .. "/ft.lua", script)
    m.data.synth { dir = dir .. "/synth", seed = 3, size = 32, general_train = 4, general_val = 2,
        faces_train = 70, faces_test = 28 }
end

function TestFaults.tearDown()
    shell.remove(dir)
end

local function train(words, before)
    return shell.run(dir, "run ft.lua --quiet " .. words, before)
end

-- The run fails with this message behind its name and the script's line.
local function fails(words, text, code)
    local got, _, err = train(words)
    lu.assertEquals(got, code or 1, words .. ": " .. err)
    lu.assertStrContains(err, text)
    lu.assertNotStrContains(err, "traceback")
    lu.assertNil(err:match("mimic/[%w_/]+%.lua:%d+"), err) -- places of the library, which its user cannot mend
    return err
end

local function pictures()
    local list = {}
    for line in io.lines(dir .. "/synth/faces/EmoLabel/list_patition_label.txt") do
        local split, name, label = line:match("^(%l+)(_%d+)%.jpg (%d)$")
        list[#list + 1] = { split = split, name = split .. name .. "_aligned.jpg", label = label - 1 }
    end
    return list
end

local folder <const> = "synth/faces/Image/aligned/"

-- Writes train.txt and test.txt; label(picture) is what stands behind the tab.
local function lists(label)
    local text = { train = {}, test = {} }
    for _, p in ipairs(pictures()) do
        table.insert(text[p.split], folder .. p.name .. "\t" .. label(p) .. "\n")
    end
    for split, lines in pairs(text) do shell.write(dir .. "/" .. split .. ".txt", table.concat(lines)) end
end

local function golden(words)
    local code, out, err = train(words)
    lu.assertEquals(code, 0, out .. err)
    return out:match("^[^\n]*")
end

-- The same pictures and labels in four forms make the same run, to the bit.
function TestFaults.test_forms_of_labelled_data()
    local reference = golden ""
    lu.assertStrMatches(reference, "faces test acc [%d.]+ %(n=28%) step 8 sha %x+")
    lists(function(p) return p.label end)
    lu.assertEquals(golden "ft.data.train=train.txt ft.data.test=test.txt", reference)
    lists(function(p)
        local row = {}
        for k = 0, 6 do row[k + 1] = k == p.label and "0.7" or "0.05" end
        return table.concat(row, ",")
    end)
    lu.assertEquals(golden "ft.data.train=train.txt ft.data.test=test.txt seeds=[0] ft.log_every=1", reference)
    for _, split in ipairs { "train", "test" } do
        os.execute(("mkdir -p '%s/second/DATASET/%s'"):format(dir, split))
        local rows = { "image,label\n" }
        for _, p in ipairs(pictures()) do
            if p.split == split then
                local to = ("second/DATASET/%s/%d"):format(split, p.label + 1)
                lfs.mkdir(dir .. "/" .. to)
                assert(os.rename(dir .. "/" .. folder .. p.name, dir .. "/" .. to .. "/" .. p.name))
                rows[#rows + 1] = ("%s,%d\n"):format(p.name, p.label + 1)
            end
        end
        shell.write(("%s/second/%s_labels.csv"):format(dir, split), table.concat(rows))
    end
    lu.assertEquals(golden "ft.data.train.path=second ft.data.test.path=second", reference)
end

function TestFaults.test_labels()
    lists(function(p) return p.name:find("_0*2_") and -1 or p.label end)
    fails("ft.data.train=train.txt", 'ft.lua:9: train.txt:2: "' .. folder)
    lists(function(p) return p.name:find("_0*2_") and "joy" or p.label end)
    fails("ft.data.train=train.txt", 'train.txt:2: label "joy" is neither a number')
    lists(function(p) return p.name:find("test_0*2_") and 9 or p.label end)
    fails("ft.data.test=test.txt", "data.test has 10 classes, but data.train 7")
    local _, _, err = shell.run(dir, "-e 'local m = require [[mimic]]"
        .. "m.cross_entropy(m.zeros { 2, 3 }, m.tensor({ 1, 3 }, [[i32]]))'")
    lu.assertStrContains(err, "(command line):1: cross_entropy: label 3 at row 1 is not in 0..2")
end

function TestFaults.test_damaged_and_missing_pictures()
    local path = folder .. "train_00003_aligned.jpg"
    local whole = shell.read(dir .. "/" .. path)
    shell.write(dir .. "/" .. path, whole:sub(1, 300))
    fails("", "ft.lua:9: " .. path .. ": damaged JPEG: Premature end of JPEG file")
    local code, _, err = train "ft.data.skip_damaged=true"
    lu.assertEquals(code, 0, err)
    lu.assertStrContains(err, "damaged pictures were skipped 1 time\n")
    os.remove(dir .. "/" .. path)
    fails("", path .. ": No such file or directory")
end

function TestFaults.test_weights_that_are_cut_or_lie()
    lu.assertEquals((train ""), 0)
    local pipe = io.popen(("ls '%s'/results/runs/*/*.safetensors"):format(dir))
    local whole = shell.read(pipe:read("l"))
    pipe:close()
    shell.write(dir .. "/cut.safetensors", whole:sub(1, 2000))
    fails("ft.init_from=cut.safetensors", "cut.safetensors: not a safetensors file, or cut off")
    shell.write(dir .. "/lie.safetensors", (whole:gsub("%[32,32%]", "[32,99]", 1)))
    fails("ft.init_from=lie.safetensors", "lie.safetensors: tensor 'blocks.0.attn.proj.weight': data")
    fails("ft.init_from=none.safetensors", "none.safetensors: cannot open: No such file")
end

function TestFaults.test_numbers_and_memory()
    local err = fails("ft.lr=1e30", "ft.lua:9: loss is nan at step 1 (epoch 0, batch 1, update 1)")
    lu.assertStrContains(err, "samples ")
    err = fails("limit=3000000", "out of memory (over the memory limit)")
    lu.assertStrMatches(err:match("vit%.[^\n]*"), "vit%.blocks%.%d.*MiB requested.*the largest:")
    lu.assertStrContains(err, "ft.lua:9) f32 [")
end

-- Errors of a hand-written loop name the line, and what follows works.
function TestFaults.test_a_script_goes_on_after_an_error()
    shell.write(dir .. "/loop.lua", [[
local m = require "mimic"
local net = m.vit.new({ preset = false, img = 32, patch = 8, dim = 32, depth = 2, heads = 2, classes = 3 }, 1)
local function try(f)
    local ok, err = pcall(f)
    print(ok, (tostring(err):match("^[^\n]*")))
end
local kept, loss
try(function() net.blocks["1"].mlp.fc1(m.zeros { 2, 31 }) end)
try(function() net(m.zeros { 2, 3, 32, 30 }) end)
try(function() m.step(function() kept = m.zeros { 4 } + 1 end) return kept + 1 end)
try(function() loss = net(m.ones { 2, 3, 32, 32 }):sum() loss:backward() loss:backward() end)
try(function() m.memory_limit(m.memory().live + 1000) return m.zeros { 1000000 } end)
m.memory_limit(0)
try(function() m.step(function() net(m.ones { 2, 3, 32, 32 }):sum():backward() end) end)
print(m.last_error().status, net.head.weight.grad.shape[1])
]])
    local code, out, err = shell.run(dir, "loop.lua")
    lu.assertEquals(code, 0, err)
    local lines = {}
    for line in out:gmatch("[^\n]+") do lines[#lines + 1] = line end
    for i, text in ipairs {
        "loop.lua:8: fc1: linear: x has 31 features, the weight takes 32",
        "loop.lua:9: vit.patch_embed: patchify: height and width must be multiples of patch: img [2,3,32,30]",
        "loop.lua:10: ", "loop.lua:11: ", "loop.lua:12: ", "true\tnil", "ENOMEM\t3",
    } do
        lu.assertStrContains(lines[i], text)
    end
    lu.assertStrContains(lines[3], "(scale, loop.lua:10) was freed when its scope closed")
    lu.assertStrContains(lines[4], "backward")
    lu.assertStrContains(lines[5], "out of memory")
end

function TestFaults.test_files_that_cannot_be_written()
    lu.assertEquals((train ""), 0)
    shell.write(dir .. "/file", "")
    fails("--db file/mimic.db", "cannot make the folder file: Not a directory", 3)
    fails("--db /proc/none/mimic.db", "cannot make the folder /proc/none", 3)
    shell.write(dir .. "/new.db", shell.read(dir .. "/results/mimic.db"))
    local new <close> = m.db.open(dir .. "/new.db", { write = true })
    lu.assertEquals(#new:rows "SELECT id FROM run", 1)
    new:close()
    os.execute(("sqlite3 '%s/new.db' 'PRAGMA user_version = 99'"):format(dir))
    fails("--db new.db", "new.db: was written by a newer mimic", 3)
    lu.assertStrContains(select(2, shell.run(dir, "ls --db new.db")), "faces test acc") -- reading goes
end

-- A limit on the size of files and, where one can be mounted, a disk that is full or read-only: what was
-- saved stays, and the run goes on when there is room.
function TestFaults.test_full_disk()
    local code, _, err = train("--db cut/mimic.db", "bash -c 'ulimit -f 300; exec \"$@\"' -")
    lu.assertEquals(code, 3, err)
    lu.assertStrContains(err, "disk I/O error")
    lu.assertEquals((train "--db cut/mimic.db"), 0)
    lfs.mkdir(dir .. "/disk")
    if not os.execute(("mount -t tmpfs -o size=300k none '%s/disk' 2>/dev/null"):format(dir)) then return end
    local ok, why = pcall(function()
        fails("--db disk/mimic.db", "disk/mimic.db: database or disk is full; make room", 75)
        os.execute(("mount -o remount,size=60m,ro '%s/disk'"):format(dir))
        fails("--db disk/new/mimic.db", "disk/new: Read-only file system", 3)
        os.execute(("mount -o remount,size=11m,rw '%s/disk'; rm -rf '%s'/disk/*"):format(dir, dir))
        fails("--db disk/mimic.db ft.model.dim=128 ft.epochs=3", "no room for 4 checkpoints", 75)
        os.execute(("mount -o remount,size=90m '%s/disk'"):format(dir))
        code, _, err = train "--db disk/mimic.db ft.model.dim=128 ft.epochs=3"
        lu.assertEquals(code, 0, err)
    end)
    os.execute(("umount '%s/disk'"):format(dir))
    lu.assertTrue(ok, why)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestFaults", TestFaults } })

-- Whole trainings on the CUDA device against the CPU: MAE pre-training, then MIMIC fine-tuning from it (views,
-- mixing, MSCL, evaluation, checkpoints), through `mimic run --device cuda`. Curves, results and weights agree, a
-- second run gives equal bytes, wherever its pictures are made; nothing is left on the device (the emulator counts
-- at the end).
local lu = require "luaunit"

package.path = os.getenv("MIMIC_SOURCE") .. "/tests/cli/?.lua;" .. package.path
local shell = require "shell"

shell.wants_gpu()

local script = [[
local m = require "mimic"
local exp = m.experiment "device"
local model = { preset = false, img = 16, patch = 4, dim = 32, depth = 2, heads = 2 }
local pre = exp:run { kind = "pretrain", name = "mae", config = m.config {
    data = { train = { path = "s/general", split = "train" }, val = { path = "s/general", split = "val" },
        device = os.getenv "PLACE" },
    model = m.config(model):with { decoder = { dim = 32, depth = 1, heads = 2 } },
    epochs = 2, batch = 8, log_every = 1, precision = "PRECISION" } }
exp:run { kind = "finetune", name = "mimic", parent = pre, config = m.config {
    data = { train = { path = "s/faces", split = "train" }, test = { path = "s/faces", split = "test" },
        device = os.getenv "PLACE" },
    model = m.config(model):with { drop_path = 0.1 }, mscl = { weight = 0.5 },
    augment = { jitter = { 0.4, 0.4, 0.4, 0.1 }, jitter_p = 0.8, grey_p = 0.2, blur_p = 0.3, erase_p = 0.5 },
    epochs = 2, batch = 8, warmup = 0, log_every = 1, precision = "PRECISION", eval = { batch = 7 } } }
]]

local dir

-- Trains into a results file of that name; every point of its curves.
-- place: where pictures are made.
local function train(db, precision, device, place)
    shell.write(dir .. "/x.lua", (script:gsub("PRECISION", precision)))
    local words = ("--db %s.db run x.lua --device %s"):format(db, device)
    local code, _, err = shell.run(dir, words, "MIMIC_THREADS=1 PLACE=" .. (place or "auto"))
    if code ~= 0 then lu.fail(err) end
    local _, csv = shell.run(dir, ("--db %s.db query --csv \"SELECT run, name, step, value FROM curve "
        .. "WHERE name NOT LIKE 'sys/%%%%' ORDER BY run, name, step\""):format(db))
    local curves = {}
    for run, name, step, value in csv:gmatch("(%d+),([^,\n]+),(%d+),([^,\n]+)\n") do
        curves[#curves + 1] = { key = ("%s %s %s"):format(run, name, step), value = tonumber(value) }
    end
    lu.assertTrue(#curves > 20)
    return curves
end

local function agree(got, want, tolerance)
    lu.assertEquals(#got, #want)
    local worst, where = 0, nil
    for i, point in ipairs(want) do
        lu.assertEquals(got[i].key, point.key)
        local d = math.abs(got[i].value - point.value) / (math.abs(point.value) + 1e-3)
        if d > worst then worst, where = d, point.key end
    end
    if worst > tolerance then
        lu.fail(("%s is off by %.3g, more than %g"):format(where, worst, tolerance))
    end
end

local TestTraining = {}

function TestTraining:setUp()
    dir = shell.folder()
    local code = shell.run(dir, "data synth s --size 24 --general-train 24 --general-val 8 --faces-train 32"
        .. " --faces-test 16")
    lu.assertEquals(code, 0)
end

function TestTraining:tearDown() shell.remove(dir) end

function TestTraining:test_f32()
    local want = train("cpu", "f32", "cpu")
    local got = train("gpu", "f32", "cuda")
    agree(got, want, 2e-3) -- two epochs: rounding grows with the steps
    agree(train("off", "f32", "cuda", "off"), got, 0) -- pictures by the CPU
    agree(train("keep", "f32", "cuda", "keep"), got, 0)
    local function kept(db)
        local _, out = shell.run(dir, ("--db %s.db query --csv \"SELECT count(*) n FROM series WHERE name = "
            .. "'sys/kept_mib'\""):format(db))
        return out
    end
    lu.assertEquals({ kept "off", kept "keep" }, { "n\n0\n", "n\n2\n" })
    local code, _, err = shell.run(dir, "--db keep.db run x.lua --device cuda", "PLACE=off")
    lu.assertEquals({ code, err }, { 0, "" }) -- nothing runs: these are the runs that are done
end

function TestTraining:test_bf16()
    agree(train("gpu16", "bf16", "cuda"), train("cpu16", "bf16", "cpu"), 0.05)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestTraining", TestTraining } }, true)

-- Choosing a device from Lua and from the command line, and what is made there: emulated and, with ctest -L gpu, real.
local m = require "mimic"
local lu = require "luaunit"
local lfs = require "lfs"

package.path = os.getenv("MIMIC_SOURCE") .. "/tests/cli/?.lua;" .. package.path
local shell = require "shell"

shell.wants_gpu()

local TestDevice = {}

function TestDevice:tearDown() m.device("cpu") end

function TestDevice:test_tensors_are_made_on_the_current_device()
    lu.assertEquals(m.device(), "cpu")
    local a = m.tensor { { 1, 2 }, { 3, 4 } }
    lu.assertEquals(m.device("cuda"), "cuda")
    local b, big = m.tensor { { 1, 2 }, { 3, 4 } }, m.full({ 30, 50 }, 0.5)
    lu.assertEquals({ a.device, b.device, big.device }, { "cpu", "cuda", "cuda" })
    lu.assertEquals((b * b + b):tolist(), { { 2, 6 }, { 12, 20 } })
    lu.assertEquals(b:get(2, 1), 3)
    lu.assertEquals(big:get(30, 50), 0.5)
    lu.assertEquals(b:to("cpu"):tolist(), a:tolist())
    lu.assertEquals(b:to("cpu").device, "cpu")
    lu.assertErrorMsgContains("add: a is on cuda, b on cpu", function() return b + a end)
    lu.assertErrorMsgContains("no f64 on cuda", m.zeros, { 2 }, "f64")
    lu.assertErrorMsgContains("device 'tpu' is none; there are cpu and cuda", m.device, "tpu")
    lu.assertEquals(m.device(), "cuda")
    m.sync()
end

function TestDevice:test_gradients_and_files()
    m.device("cuda")
    local w = m.tensor({ 1, -2, 3 }):requires_grad_()
    local loss = (w * w):sum_to {}
    loss:backward()
    lu.assertEquals(w.grad.device, "cuda")
    lu.assertEquals(w.grad:tolist(), { 2, -4, 6 })
    local path = os.tmpname()
    m.safetensors.save(path, { { "w", w } })
    m.device("cpu")
    local file = m.safetensors.open(path)
    lu.assertEquals(file:load("w"):tolist(), { 1, -2, 3 })
    m.device("cuda")
    lu.assertEquals(file:load("w").device, "cuda")
    lu.assertEquals(file:load("w"):tolist(), { 1, -2, 3 })
    file:close()
    os.remove(path)
end

-- Parts of a tensor made whole: elements of 1 to 16 bytes, as addresses, rows and strides allow.
function TestDevice:test_parts_made_whole()
    for _, dtype in ipairs { "f32", "bf16", "u8" } do
        for _, part in ipairs { { 2, 2, 6 }, { 3, 9, 24 }, { 3, 1, 20 }, { 3, 3, 24 }, { 3, 2, 20 }, { 3, 17, 17 } } do
            local function whole(device)
                m.device(device)
                local list = {}
                for i = 1, 3 * 7 * 24 do list[i] = i % 251 end
                local x = m.tensor(list):reshape { 3, 7, 24 }:cast { dtype = dtype }
                return x:slice { axis = part[1], start = part[2], stop = part[3] }:contiguous()
                    :cast { dtype = "f32" }:tolist()
            end
            lu.assertEquals(whole "cuda", whole "cpu")
        end
    end
end

function TestDevice:test_loaders_say_where_pictures_are_made()
    local dir = shell.folder()
    m.data.synth { dir = dir, seed = 1, faces_train = 8, size = 16 }
    m.device("cuda")
    local set = m.data.open { path = dir .. "/faces", split = "train" }
    local kept <close> = m.data.loader(set, { batch = 4, device = "keep", transform = { size = 8 } })
    lu.assertEquals({ kept.about, kept.kept }, { "device, 0.0 MiB of pictures kept there", 8 * 16 * 16 * 3 })
    local off <close> = m.data.loader(set, { batch = 4, device = "off", transform = { size = 8 } })
    lu.assertEquals({ off.about, off.kept }, { "host", 0 })
    lu.assertErrorMsgContains('(did you mean "keep"?)', m.data.loader, set,
        { batch = 4, device = "kep", transform = { size = 8 } })
    shell.remove(dir)
end

function TestDevice:test_run_on_a_device()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
        local m = require "mimic"
        m.experiment.task("sum", { defaults = { device = "cpu", n = 3 }, run = function(run)
            local t = m.full({ run.config.n }, 2)
            print("on", t.device, t:sum_to({}):item())
        end })
        m.experiment("devices"):run { kind = "sum", config = m.config { n = 5 } }]])
    local code, out, err = shell.run(dir, "run x.lua --device cuda")
    lu.assertEquals({ code, err }, { 0, "" })
    lu.assertStrContains(out, "on\tcuda\t10.0")
    code, out = shell.run(dir, "run x.lua")
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "on\tcpu\t10.0") -- another run: its numbers may differ
    code, out = shell.run(dir, "run x.lua --device cuda")
    lu.assertEquals({ code, out }, { 0, "" }) -- done
    code, out, err = shell.run(dir, "run x.lua device=cuda", "MIMIC_CUDA=/nowhere.so")
    lu.assertEquals({ code, out }, { 2, "" })
    lu.assertStrContains(err, "device = 'cuda': cuda: /nowhere.so cannot be opened")
    lu.assertTrue(lfs.attributes(dir .. "/results/mimic.db", "mode") == "file")
    shell.remove(dir)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestDevice", TestDevice } }, true)

-- Steps of whole trainings once they are in their stride, by the emulator's counts: the host waits for the loss of the
-- step before and for the copy of a batch that frees its buffer, never for the newest work; nothing is allocated, and
-- nothing copied from memory that the device cannot read by itself.
-- MAE and MIMIC, with and without recorded steps, pictures made on the device, sent or kept there.
local lu = require "luaunit"

package.path = os.getenv("MIMIC_SOURCE") .. "/tests/cli/?.lua;" .. package.path
local shell = require "shell"

local script = [[
local m = require "mimic"
local counts = package.loadlib(os.getenv "EMU_COUNTS", "luaopen_emu_counts")()
local replay = require "mimic.replay"
local exp = m.experiment "steady"
local new, recorder = replay.new, { state = "none" }
replay.new = function(spec)
    recorder = new(spec)
    return recorder
end
local set_step, last = m.set_step, nil
local many = table.pack(string.byte(("x"):rep(70000), 1, -1))
m.set_step = function(step) -- at the begin of every step
    if step ~= last and m.device() == "cuda" then
        local c = counts()
        print(("%d %d %d %d %d %s"):format(step, c.waits, c.idle, c.allocations, c.pageable, recorder.state))
    end
    last = step
    set_step(step)
    PLANTED
end
local model = { preset = false, img = 16, patch = 4, dim = 16, depth = 1, heads = 2 }
local shared = m.config { epochs = 2, batch = 4, log_every = 1000, graph = GRAPH, checkpoint_epochs = 100 }
local data = function(set)
    return { train = { path = "s/" .. set, split = "train" }, device = "PLACE" }
end
if "mae" == "METHOD" then
    exp:run { kind = "pretrain", config = shared:with { data = data "general", pictures = 0,
        model = m.config(model):with { decoder = { dim = 16, depth = 1, heads = 2 } } } }
else
    exp:run { kind = "finetune", config = shared:with { data = data "faces", mscl = { weight = 0.5 }, clip = 1,
        precision = "bf16", model = m.config(model):with { drop_path = 0.1 } } }
end
]]

local TestSteady = {}
local dir

function TestSteady:setUp()
    dir = shell.folder()
    lu.assertEquals((shell.run(dir, "data synth s --size 24 --general-train 32 --general-val 8 --faces-train 32"
        .. " --faces-test 8")), 0)
end

function TestSteady:tearDown() shell.remove(dir) end

-- What each step of the last epoch but its first and its last one adds to the counts.
local function added(method, graph, place, planted)
    shell.write(dir .. "/x.lua", (script:gsub("%u%u%u%u+", { METHOD = method, GRAPH = tostring(graph),
        PLACE = place, PLANTED = planted or "" })))
    local code, out, err = shell.run(dir, "--db x.db run x.lua --device cuda", "rm -f x.db; MIMIC_THREADS=1")
    lu.assertEquals(code, 0, err)
    lu.assertNotStrContains(err, "graph:")
    local before, list = nil, {}
    for step, waits, idle, allocations, pageable, state in out:gmatch "(%d+) (%d+) (%d+) (%d+) (%d+) (%a+)\n" do
        local now = { tonumber(step), tonumber(waits), tonumber(idle), tonumber(allocations), tonumber(pageable) }
        if now[1] > 9 and now[1] < 16 then
            lu.assertEquals(now[1], before[1] + 1)
            list[#list + 1] = { waits = now[2] - before[2], idle = now[3] - before[3],
                allocations = now[4] - before[4], pageable = now[5] - before[5] }
            lu.assertEquals(state, graph and "replay" or "none")
        end
        before = now
    end
    lu.assertEquals(#list, 6)
    return list
end

local function stride(method)
    for _, graph in ipairs { false, true } do
        for _, place in ipairs { "auto", "off", "keep" } do
            for _, step in ipairs(added(method, graph, place)) do
                lu.assertEquals(step, { waits = 2, idle = 0, allocations = 0, pageable = 0 }, place)
            end
        end
    end
end

function TestSteady:test_mae() stride "mae" end

function TestSteady:test_mimic() stride "mimic" end

-- The counts do see what must not be.
function TestSteady:test_planted()
    for _, step in ipairs(added("mae", false, "auto", "m.sync()")) do
        lu.assertEquals(step, { waits = 3, idle = 1, allocations = 0, pageable = 0 })
    end
    for _, step in ipairs(added("mae", false, "auto", "m.zeros { 9999 * (step + 1) }")) do
        lu.assertEquals(step, { waits = 2, idle = 0, allocations = 1, pageable = 0 })
    end
    for _, step in ipairs(added("mae", false, "auto", "m.tensor(many)")) do
        lu.assertEquals(step, { waits = 2, idle = 0, allocations = 0, pageable = 1 })
    end
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSteady", TestSteady } }, true)

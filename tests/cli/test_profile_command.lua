-- `mimic run --profile`: an account of real training steps, a trace, and what is said when nothing was trained.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local cjson = require "cjson"
local shell = require "shell"

local TestProfileCommand = {}

local script = [[
local m = require "mimic"
m.experiment "p":run { kind = "finetune", name = "p", config = m.config {
    preset = "mimic", epochs = 1, warmup = 0, batch = 8, lr = 1e-3,
    model = { preset = false, img = 32, patch = 8, dim = 24, depth = 2, heads = 2, drop_path = 0 },
    data = { train = { path = "raf", split = "train" }, test = { path = "raf", split = "test" }, name = "raf" } } }
]]

function TestProfileCommand.test_account_and_trace()
    local dir = shell.folder()
    require("mimic.layouts").write { layout = "rafdb", dir = dir .. "/raf", train = 72, test = 8 }
    shell.write(dir .. "/p.lua", script)
    local code, out, err = shell.run(dir, "run p.lua --profile-trace t.json")
    lu.assertEquals(code, 0, out .. err)
    for _, part in ipairs { "profile of ft: 5 steps", "linear", "patchify", "attention_bwd", "of floor %",
        "trace: t.json", "raf test acc" } do
        lu.assertTrue(out:find(part, 1, true) ~= nil, part .. " in\n" .. out)
    end
    local events = cjson.decode(shell.read(dir .. "/t.json")).traceEvents
    local seen = {}
    for _, e in ipairs(events) do seen[e.name] = (seen[e.name] or 0) + 1 end
    lu.assertEquals(seen.optimizer, 5)
    lu.assertEquals(seen["wait for data"], 5)
    code, out, err = shell.run(dir, "run p.lua --profile")
    lu.assertEquals(code, 0, out .. err)
    lu.assertStrContains(err, "nothing was profiled")
    shell.remove(dir)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestProfileCommand", TestProfileCommand } })

-- A loop without scopes does not grow without bound: the binding collects garbage by tensor bytes.
local lu = require "luaunit"
local m = require "mimic"

local TestPressure = {}

local MIB <const> = 1 << 20

function TestPressure:test_a_loop_without_scopes()
    collectgarbage()
    local ballast = {} -- a large Lua heap makes the collector slow to start a cycle
    for i = 1, 100000 do ballast[i] = { i } end
    m.reset_peak()
    local start = m.memory().live
    for _ = 1, 300 do m.zeros { 4 * MIB // 4 } end -- 1.2 GiB in all
    lu.assertTrue(m.memory().peak - start < 300 * MIB, m.memory().peak)
    lu.assertEquals(#ballast, 100000)
end

function TestPressure:test_what_is_held_stays()
    local held = {}
    for i = 1, 20 do
        held[i] = m.full({ 4 * MIB // 4 }, i)
        for _ = 1, 5 do m.zeros { 4 * MIB // 4 } end
    end
    for i = 1, 20 do lu.assertEquals(held[i]:get(1), i) end
end

function TestPressure:test_a_tape_without_scopes()
    collectgarbage()
    m.reset_peak()
    local start = m.memory().live
    local w = m.ones({ MIB }):requires_grad_()
    for _ = 1, 60 do
        local loss = (w * w):sum()
        loss:backward()
        lu.assertEquals(w.grad:get(1) % 2, 0)
    end
    lu.assertTrue(m.memory().peak - start < 400 * MIB, m.memory().peak)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestPressure", TestPressure } }, true)

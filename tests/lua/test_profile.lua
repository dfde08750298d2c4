-- The profiler: what it counts, that it changes no number, its account, its trace.
local m = require "mimic"
local cjson = require "cjson"
local lu = require "luaunit"
local profile = require "mimic.profile"

local TestProfile = {}

local function by_name(events, name)
    local out = {}
    for _, e in ipairs(events) do
        if e.name == name then out[#out + 1] = e end
    end
    return out
end

-- One linear layer with GELU: its loss as exact text.
local function step()
    return m.step(function()
        m.seed(1)
        m.set_step(0)
        local x = m.rand_normal { 6, 8 }
        local w = m.rand_normal { 4, 8 }:requires_grad_(true)
        local loss = m.linear(x, w, nil, { act = "gelu" }):sum()
        loss:backward()
        return ("%a"):format(loss:item())
    end)
end

function TestProfile:test_events_count_bytes_and_flops_and_change_nothing()
    local plain = step()
    m.profile_start()
    local watched = step()
    local events, dropped = m.profile_stop()
    lu.assertEquals(watched, plain)
    lu.assertEquals(dropped, 0)
    local forward = by_name(events, "linear")
    lu.assertEquals(#forward, 1)
    lu.assertEquals(forward[1].flops, 2 * 6 * 8 * 4)
    -- x, w, y and the value before the activation
    lu.assertEquals(forward[1].bytes, 4 * (6 * 8 + 4 * 8 + 6 * 4 + 6 * 4))
    lu.assertEquals(forward[1].what, "f32 [6,8] [4,8]")
    lu.assertFalse(forward[1].backward)
    lu.assertStrContains(forward[1].place, "test_profile.lua:")
    local weight = by_name(events, "matmul")
    lu.assertEquals(#weight, 1) -- x needs no gradient
    lu.assertTrue(weight[1].backward)
    lu.assertEquals(weight[1].flops, 2 * 6 * 8 * 4)
    lu.assertEquals(#by_name(events, "accumulate"), 1)
    local last = 0
    for _, e in ipairs(events) do
        lu.assertTrue(e.seconds >= 0 and e.start >= last - 1)
        last = e.start
    end
    step()
    lu.assertEquals(#m.profile_stop(), #events) -- off: nothing more was written down
end

function TestProfile:test_what_has_no_room_is_counted()
    m.profile_start(2)
    step()
    local events, dropped = m.profile_stop()
    lu.assertEquals(#events, 2)
    lu.assertTrue(dropped > 2)
    lu.assertErrorMsgContains("profile: 1 to 2^28 events", m.profile_start, 0)
end

function TestProfile:test_account_explains_all_of_the_time()
    local events = {
        { name = "linear", what = "f32 [2,2]", backward = false, seconds = 0.2, bytes = 4e8, flops = 2e9 },
        { name = "linear", what = "f32 [2,2]", backward = false, seconds = 0.2, bytes = 4e8, flops = 2e9 },
        { name = "add", what = "bf16 [2,2]", backward = true, seconds = 0.1, bytes = 5e8, flops = 0 },
    }
    local rows = profile.account(events, 1, 2, { bytes = 1e10, f32 = 2e10, bf16 = 4e10 })
    lu.assertEquals(#rows, 3)
    lu.assertEquals(rows[1].kernel, "(script, dispatch)")
    lu.assertAlmostEquals(rows[1]["%"], 50, 1e-9)
    lu.assertEquals(rows[2].kernel, "linear")
    lu.assertAlmostEquals(rows[2]["ms/step"], 200, 1e-9)
    lu.assertEquals(rows[2]["calls/step"], 1)
    lu.assertAlmostEquals(rows[2]["GFLOP/s"], 10, 1e-9)
    lu.assertAlmostEquals(rows[2]["of floor %"], 50, 1e-9) -- products: 4e9 / 2e10 = 0.2 s of 0.4
    lu.assertAlmostEquals(rows[3]["of floor %"], 50, 1e-9) -- bytes: 5e8 / 1e10 = 0.05 s of 0.1
    lu.assertEquals(rows[3].phase, "backward")
end

function TestProfile:test_trace_is_what_chrome_reads()
    m.profile_start()
    step()
    m.profile_add("wait for data", 0.001)
    local events = m.profile_stop()
    local path = os.tmpname()
    profile.write_trace(path, events)
    local f <close> = assert(io.open(path))
    local trace = cjson.decode(f:read("a")).traceEvents
    os.remove(path)
    lu.assertEquals(#trace, #events + 2)
    lu.assertEquals(trace[#events].name, "wait for data")
    lu.assertAlmostEquals(trace[#events].dur, 1000, 1e-3)
    lu.assertEquals(trace[1].ph, "X")
    lu.assertErrorMsgContains("/nonexistent/x", profile.write_trace, "/nonexistent/x", events)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestProfile", TestProfile } })

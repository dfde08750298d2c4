-- Tensors as Lua objects: values in and out, properties, arithmetic, life, gradients.
local lu = require "luaunit"
local m = require "mimic"

local TestTensor = {}

function TestTensor:test_values_in_and_out()
    local t = m.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    lu.assertEquals(t.shape, { 2, 3 })
    lu.assertEquals(t.rank, 2)
    lu.assertEquals(t.dtype, "f32")
    lu.assertEquals(t.numel, 6)
    lu.assertEquals(#t, 2)
    lu.assertEquals(t:tolist(), { { 1, 2, 3 }, { 4, 5, 6 } })
    lu.assertEquals(t:get(2, 1), 4)
    lu.assertEquals(t:get(-1, -1), 6)
    lu.assertTrue(t.alive)
    lu.assertEquals(m.tensor(2.5):item(), 2.5)
    lu.assertEquals(m.tensor(7, "i32"):item(), 7)
    lu.assertEquals(math.type(m.tensor(7, "i32"):item()), "integer")
    lu.assertEquals(m.tensor({ true, false }, "u8"):tolist(), { 1, 0 })
    lu.assertEquals(m.tensor({}).shape, { 0 })
    lu.assertEquals(m.tensor({ 1.5, -2 }, "bf16"):tolist(), { 1.5, -2 })
end

function TestTensor:test_constants()
    lu.assertEquals(m.zeros { 2, 2 }:tolist(), { { 0, 0 }, { 0, 0 } })
    lu.assertEquals(m.ones({ 3 }, "i32"):tolist(), { 1, 1, 1 })
    lu.assertEquals(m.full({ 2 }, 0.5, "f64"):tolist(), { 0.5, 0.5 })
    lu.assertEquals(m.full({}, 3):item(), 3)
    local large = m.full({ 7, 331 }, 1.25, "bf16")
    lu.assertEquals(large:get(1, 1), 1.25)
    lu.assertEquals(large:get(7, 331), 1.25)
    lu.assertEquals(large:cast { dtype = "f32" }:sum():item(), 7 * 331 * 1.25)
end

function TestTensor:test_bytes()
    local bytes = string.pack("<fff", 1, 2, 3)
    local t = m.frombytes(bytes, { 3 }, "f32")
    lu.assertEquals(t:tolist(), { 1, 2, 3 })
    lu.assertEquals(t:tobytes(), bytes)
    lu.assertEquals(m.tensor({ { 1, 2 }, { 3, 4 } }, "u8"):transpose():tobytes(), "\1\3\2\4")
    lu.assertErrorMsgContains("11 bytes given, 12 needed", m.frombytes, bytes:sub(1, 11), { 3 }, "f32")
end

function TestTensor:test_wrong_values()
    lu.assertErrorMsgContains("equally long", m.tensor, { { 1, 2 }, { 3 } })
    lu.assertErrorMsgContains("equally long", m.tensor, { { 1 }, 2 })
    lu.assertErrorMsgContains("numbers, not a table", m.tensor, { 1, { 2 } })
    lu.assertErrorMsgContains("numbers, not a string", m.tensor, { "1" })
    lu.assertErrorMsgContains("256 is no u8", m.tensor, { 256 }, "u8")
    lu.assertErrorMsgContains("0.5 is no i32", m.tensor, { 0.5 }, "i32")
    lu.assertErrorMsgContains("nan is no i32", function() return m.tensor({ 0 / 0 }, "i32") end)
    lu.assertErrorMsgContains('unknown dtype "f23" (did you mean "f32"?)', m.zeros, { 1 }, "f23")
    lu.assertErrorMsgContains("at most 6 axes", m.zeros, { 1, 1, 1, 1, 1, 1, 1 })
    lu.assertErrorMsgContains("entry 2 of the shape", m.zeros, { 1, -1 })
    lu.assertErrorMsgContains("2 elements, not 1", function() return m.zeros { 2 }:item() end)
    lu.assertErrorMsgContains("outside 1..2", function() return m.zeros { 2 }:get(3) end)
    lu.assertErrorMsgContains("positions given", function() return m.zeros { 2 }:get(1, 1) end)
end

function TestTensor:test_arithmetic()
    local a, b = m.tensor { 1, 2 }, m.tensor { 3, 5 }
    lu.assertEquals((a + b):tolist(), { 4, 7 })
    lu.assertEquals((a - b):tolist(), { -2, -3 })
    lu.assertEquals((a * b):tolist(), { 3, 10 })
    lu.assertEquals((b / a):tolist(), { 3, 2.5 })
    lu.assertEquals((-a):tolist(), { -1, -2 })
    lu.assertEquals((a + 1):tolist(), { 2, 3 })
    lu.assertEquals((1 + a):tolist(), { 2, 3 })
    lu.assertEquals((a - 1):tolist(), { 0, 1 })
    lu.assertEquals((1 - a):tolist(), { 0, -1 })
    lu.assertEquals((2 * a):tolist(), { 2, 4 })
    lu.assertEquals((a / 2):tolist(), { 0.5, 1 })
    lu.assertEquals((1 / a):tolist(), { 1, 0.5 })
    lu.assertErrorMsgContains("operator +: argument 2: a tensor expected, got table",
        function() return a + {} end)
end

function TestTensor:test_text_names_the_tensor()
    local t = m.tensor { 1, 2 }
    local text = tostring(t)
    lu.assertStrContains(text, "#" .. t.id)
    lu.assertStrContains(text, "f32 [2]")
    lu.assertStrContains(text, "= 1 2")
    lu.assertNotStrContains(tostring(m.zeros { 100 }), "=")
end

function TestTensor:test_equality_is_identity()
    local p = m.tensor { 1 }:requires_grad_()
    lu.assertTrue(p.grad == p.grad)
    lu.assertFalse(p == p.grad)
end

function TestTensor:test_gradient()
    local w = m.tensor({ 2, 3 }):requires_grad_()
    lu.assertTrue(w.requires_grad)
    lu.assertEquals(w.grad:tolist(), { 0, 0 })
    local x = m.tensor { 5, 7 }
    local loss = (w * x * w):sum()
    loss:backward()
    lu.assertEquals(w.grad:tolist(), { 20, 42 })
    lu.assertNil(x.grad)
    lu.assertErrorMsgContains("backward", function() loss:backward() end)
    lu.assertEquals(m.last_error().status, "ESTATE")
    lu.assertFalse(w:detach().requires_grad)
    w:requires_grad_(false)
    lu.assertFalse(w.requires_grad)
end

function TestTensor:test_no_grad_and_grad_enabled()
    local w = m.tensor({ 2 }):requires_grad_()
    local y, n = m.no_grad(function(k)
        lu.assertFalse(m.grad_enabled())
        return w * w, k
    end, 5)
    lu.assertTrue(m.grad_enabled())
    lu.assertFalse(y.requires_grad)
    lu.assertEquals(n, 5)
    lu.assertFalse(pcall(m.no_grad, error, "x"))
    lu.assertTrue(m.grad_enabled())
    lu.assertTrue(m.grad_enabled(false))
    lu.assertFalse(m.grad_enabled(true))
end

function TestTensor:test_copy_converts()
    local t = m.zeros({ 2 }, "f64")
    lu.assertEquals(t:copy_(m.tensor { 1, 2 }), t)
    lu.assertEquals(t:tolist(), { 1, 2 })
    lu.assertError(function() t:copy_(m.zeros { 3 }) end)
end

function TestTensor:test_free_gives_the_bytes_back()
    local t = m.zeros { 1 << 20 }
    local live = m.memory().live
    t:free()
    lu.assertFalse(t.alive)
    lu.assertTrue(m.memory().live <= live - (4 << 20))
    lu.assertErrorMsgContains("freed", function() return t + 1 end)
    lu.assertErrorMsgContains("freed", function() return t:tolist() end)
    lu.assertEquals(t.shape, { 1 << 20 })
    lu.assertStrContains(tostring(t), "freed")
end

function TestTensor:test_unknown_members_are_errors_with_the_nearest_name()
    local t = m.zeros { 1 }
    for text, f in pairs {
        ['no field or method "shpae" (did you mean "shape"?)'] = function() return t.shpae end,
        ['"reul" (did you mean "relu"?)'] = function() return t:reul() end,
        ['no field or method "nothing"'] = function() return t.nothing end,
        ["no index [1]"] = function() return t[1] end,
        ["no field 'zero' (did you mean zeros"] = function() return m.zero { 2 } end,
        ["no field 'ViT' (did you mean vit?)"] = function() return m.ViT end,
        ["mimic.nn has no field 'Linera' (did you mean Linear?)"] = function() return m.nn.Linera end,
        ["mimic.data has no field 'opne' (did you mean open?)"] = function() return m.data.opne end,
        ['mimic.rng has no field or method "unifrom" (did you mean "uniform"?)'] = function()
            return m.rng(1):unifrom()
        end,
    } do
        local ok, message = pcall(f)
        lu.assertFalse(ok)
        lu.assertStrContains(message, text)
        lu.assertStrContains(message, "test_binding_tensor.lua:")
    end
    lu.assertNil(m.__index) -- what other programs look for
end

function TestTensor:test_foreign_objects_are_refused()
    lu.assertErrorMsgContains("mimic.tensor expected", m.zeros({ 1 }).item, io.stdout)
    lu.assertErrorMsgContains("mimic.tensor expected", m.zeros({ 1 }).item, m.rng(1, 2, 3))
    lu.assertEquals(getmetatable(m.zeros { 1 }), "protected")
end

local TestContext = {}

function TestContext:test_settings()
    lu.assertEquals(m.seed(77), 77)
    lu.assertEquals(m.seed(), 77)
    lu.assertTrue(m.threads() >= 1)
    local before = m.threads()
    lu.assertEquals(m.threads(2), 2)
    m.threads(before)
    lu.assertEquals(type(m.isa()), "string")
    lu.assertStrMatches(m.version, "%d+%.%d+%.%d+")
    lu.assertEquals(m.interrupted(), 0)
    lu.assertEquals(m.memory_limit(), 0)
    m.check_nan(false)
    m.trim()
    lu.assertEquals(m.memory().cached, 0)
    m.reset_peak()
    lu.assertEquals(m.memory().peak, m.memory().live)
end

function TestContext:test_numbers_follow_seed_and_step()
    m.seed(5)
    m.set_step(3)
    local a = m.rand_uniform { 4 }:tolist()
    local b = m.rand_uniform { 4 }:tolist()
    lu.assertNotEquals(a, b)
    m.set_step(3)
    lu.assertEquals(m.rand_uniform { 4 }:tolist(), a)
    m.seed(6)
    m.set_step(3)
    lu.assertNotEquals(m.rand_uniform { 4 }:tolist(), a)
end

function TestContext:test_generator()
    local r, s = m.rng(1, 2, 3), m.rng(1, 2, 3)
    for _ = 1, 9 do
        lu.assertEquals(r:u32(), s:u32())
    end
    local u = r:uniform()
    lu.assertTrue(u >= 0 and u < 1)
    lu.assertEquals(math.type(r:normal()), "float")
    lu.assertTrue(r:below(3) < 3)
    local beta = r:beta(2, 2)
    lu.assertTrue(beta > 0 and beta < 1)
    local seen = {}
    for _, i in ipairs(r:shuffle(10)) do seen[i] = true end
    for i = 0, 9 do lu.assertTrue(seen[i]) end
    lu.assertEquals(r:shuffle(0), {})
    lu.assertError(r.below, r, 0)
end

function TestContext:test_memory_limit_is_an_error_with_a_report()
    m.memory_limit(m.memory().live + (8 << 20))
    lu.assertErrorMsgContains("memory", m.zeros, { 64 << 20 })
    lu.assertEquals(m.last_error().status, "ENOMEM")
    m.memory_limit(0)
    lu.assertEquals(m.zeros({ 1 }):item(), 0)
end

function TestContext:test_garbage_is_collected_before_out_of_memory()
    collectgarbage()
    collectgarbage "stop"
    m.memory_limit(m.memory().live + (24 << 20))
    for _ = 1, 8 do -- 16 MiB each: only one fits
        lu.assertEquals(m.zeros({ 4 << 20 }):get(1), 0)
    end
    m.memory_limit(0)
    collectgarbage "restart"
end

function TestContext:test_every_failing_allocation_leaves_a_working_context()
    collectgarbage()
    for n = 1, 40 do
        m.fail_alloc(n, true)
        local ok, message = pcall(function()
            local w = m.ones({ 4, 4 }):requires_grad_()
            local loss = (w:matmul(w)):sum()
            loss:backward()
            return w.grad:get(1, 1)
        end)
        m.fail_alloc(0)
        if ok then
            lu.assertEquals(message, 8)
            lu.assertTrue(n > 1)
            break
        end
        lu.assertEquals(type(message), "string")
        lu.assertNotEquals(n, 40)
    end
    lu.assertEquals((m.ones { 2 } + 1):tolist(), { 2, 2 })
end

local suites = { { "TestTensor", TestTensor }, { "TestContext", TestContext } }
os.exit(lu.LuaUnit.new():runSuiteByInstances(suites), true)

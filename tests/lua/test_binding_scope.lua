-- Scopes: what dies with them, what is kept, errors, coroutines, garbage.
local lu = require "luaunit"
local m = require "mimic"

-- A scope's tensor after the scope closed.
local function dead()
    local _ <close> = m.scope()
    return m.zeros { 8 }
end

local TestScope = {}

function TestScope:test_tensors_die_with_their_scope()
    local t = dead()
    lu.assertFalse(t.alive)
    local ok, text = pcall(function() return t:relu() end)
    lu.assertFalse(ok)
    lu.assertStrContains(text, "tensor #" .. t.id)
    lu.assertStrContains(text, "test_binding_scope.lua")
    lu.assertStrContains(text, "was freed when its scope closed; use s:keep(t)")
end

function TestScope:test_keep()
    local a, b, c
    do
        local s <close> = m.scope()
        a, b = s:keep(m.ones { 2 }, m.ones { 3 })
        c = s:keep(m.ones { 4 })
    end
    lu.assertEquals({ a.shape, b.shape, c.shape }, { { 2 }, { 3 }, { 4 } })
    lu.assertEquals(a:tolist(), { 1, 1 })
    local s = m.scope()
    s:close()
    s:close()
    lu.assertErrorMsgContains("the scope is closed", s.keep, s, a)
end

function TestScope:test_keep_moves_one_scope_outward()
    local t
    do
        local _ <close> = m.scope()
        do
            local inner <close> = m.scope()
            t = inner:keep(m.ones { 2 })
        end
        lu.assertTrue(t.alive)
    end
    lu.assertFalse(t.alive)
end

function TestScope:test_step_keeps_its_results()
    local inside
    local loss, n, text, nothing, other = m.step(function(x, y)
        inside = m.ones { 5 }
        return inside:sum(), x + y, "text", nil, m.zeros { 2 }
    end, 3, 4)
    lu.assertEquals(loss:item(), 5)
    lu.assertEquals({ n, text, nothing }, { 7, "text", nil })
    lu.assertEquals(other:tolist(), { 0, 0 })
    lu.assertFalse(inside.alive)
    lu.assertEquals(select("#", m.step(function() end)), 0)
end

function TestScope:test_errors_close_the_scope_and_keep_the_traceback()
    local inside
    local function deep()
        inside = m.ones { 3 }
        error "of the script"
    end
    local ok, trace = xpcall(m.step, debug.traceback, function() deep() end)
    lu.assertFalse(ok)
    lu.assertStrContains(trace, "of the script")
    lu.assertStrContains(trace, "in upvalue 'deep'")
    lu.assertFalse(inside.alive)
    lu.assertFalse(dead().alive)
    local t = m.ones { 1 }
    lu.assertTrue(t.alive) -- outside of scopes again
end

function TestScope:test_memory_comes_back()
    collectgarbage()
    local live = m.memory().live
    for _ = 1, 20 do
        m.step(function()
            local x = m.zeros { 1 << 18 }
            for _ = 1, 10 do x = x + 1 end
        end)
    end
    lu.assertEquals(m.memory().live, live)
end

function TestScope:test_training_step()
    local w = m.ones({ 3 }):requires_grad_()
    local opt = m.optimizer { kind = "sgd", beta1 = 0, params = { { tensor = w } } }
    for _ = 1, 3 do
        local loss = m.step(function()
            local l = (w * w):sum()
            l:backward()
            opt:step(0.1)
            return l
        end)
        lu.assertTrue(loss.alive)
    end
    for _, v in ipairs(w:tolist()) do lu.assertAlmostEquals(v, 0.512, 1e-6) end
end

function TestScope:test_yield_inside_a_step()
    local co = coroutine.wrap(function()
        return m.step(function()
            local x = m.ones { 2 }
            coroutine.yield "in the middle"
            return x + 1
        end)
    end)
    lu.assertEquals(co(), "in the middle")
    lu.assertEquals(co():tolist(), { 2, 2 })
end

function TestScope:test_abandoned_coroutine()
    collectgarbage()
    local live = m.memory().live
    local inside
    do
        local co = coroutine.wrap(function()
            local _ <close> = m.scope()
            inside = m.zeros { 1 << 20 }
            coroutine.yield()
        end)
        co()
    end
    lu.assertTrue(inside.alive)
    collectgarbage()
    collectgarbage()
    lu.assertFalse(inside.alive)
    lu.assertEquals(m.memory().live, live)
    lu.assertTrue(m.ones({ 1 }).alive)
    local outside = m.ones { 1 }
    dead()
    lu.assertTrue(outside.alive)
end

function TestScope:test_an_abandoned_scope_does_not_close_newer_ones()
    local inside
    do
        local co = coroutine.wrap(function()
            local _ <close> = m.scope()
            inside = m.zeros { 16 }
            coroutine.yield()
        end)
        co()
    end
    do
        local _ <close> = m.scope()
        local x = m.ones { 2 }
        collectgarbage()
        collectgarbage()
        lu.assertTrue(x.alive)
        lu.assertEquals((x + 1):tolist(), { 2, 2 })
    end
    lu.assertFalse(inside.alive)
    lu.assertTrue(m.ones({ 1 }).alive)
end

function TestScope:test_forgotten_scope()
    local t
    do
        m.scope()
        t = m.zeros { 16 }
    end
    collectgarbage()
    collectgarbage()
    lu.assertFalse(t.alive)
end

local TestOptimizer = {}

function TestOptimizer:test_steps_and_state()
    local w = m.tensor({ { 1, 2 }, { 3, 4 } }):requires_grad_()
    local p = { tensor = w, lr_scale = 0.5, weight_decay = 0.1 }
    local o = m.optimizer { kind = "adamw", params = { p } }
    lu.assertEquals(o:count(), 0)
    w.grad:copy_(m.ones { 2, 2 })
    lu.assertNil(o:step(0.1))
    lu.assertEquals(o:count(), 1)
    lu.assertEquals(w.grad:tolist(), { { 0, 0 }, { 0, 0 } })
    w.grad:copy_(m.ones { 2, 2 })
    lu.assertAlmostEquals(o:step(0.1, 1, true), 2, 1e-6)
    lu.assertEquals(o:state(1).numel, o:state(2).numel)
    lu.assertNil(o:state(3))
    lu.assertNil(o:state(0))
    lu.assertEquals(o:shadow(1):tolist(), w:tolist())
    lu.assertErrorMsgContains("outside 1..1", o.shadow, o, 2)
    lu.assertEquals(o:count(9), 9)
    o:zero_grad()
    o:sync()
end

function TestOptimizer:test_bf16_shadow_takes_the_gradient()
    local w = m.tensor({ { 1, 2 }, { 3, 4 } }):requires_grad_()
    local o = m.optimizer { kind = "sgd", beta1 = 0, bf16 = true, params = { { tensor = w } } }
    local shadow = o:shadow(1)
    lu.assertEquals(shadow.dtype, "bf16")
    shadow:cast({ dtype = "f32" }):sum():backward()
    o:step(1)
    lu.assertEquals(w:tolist(), { { 0, 1 }, { 2, 3 } })
    lu.assertEquals(o:shadow(1):tolist(), { { 0, 1 }, { 2, 3 } })
end

function TestOptimizer:test_wrong_options()
    local w = m.ones({ 1 }):requires_grad_()
    lu.assertErrorMsgContains('unknown option "beta" (did you mean "beta1"?)', m.optimizer,
        { beta = 1, params = { { tensor = w } } })
    lu.assertErrorMsgContains('unknown kind "adan" (did you mean "adam"?)', m.optimizer,
        { kind = "adan", params = { { tensor = w } } })
    lu.assertErrorMsgContains("params[1].tensor: a tensor expected", m.optimizer, { params = { {} } })
    lu.assertErrorMsgContains("params", m.optimizer, {})
end

local suites = { { "TestScope", TestScope }, { "TestOptimizer", TestOptimizer } }
os.exit(lu.LuaUnit.new():runSuiteByInstances(suites), true)

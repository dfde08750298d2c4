-- What a training step holds: outputs that are made again for the gradient instead of kept, handles that let go.
local m = require "mimic"
local lu = require "luaunit"

local TestMemory = {}

local function leaf(shape, stream, dtype)
    local attrs = { seed = 1, stream = stream, step = 0, std = 1, table.unpack(shape) }
    local t = m.rand_normal(attrs)
    return (dtype == "bf16" and t:cast { dtype = dtype } or t):requires_grad_(true)
end

-- Operators whose outputs are made again: f(x, w, b, vector) -> output [6,5,16].
local cheap = {
    layernorm = function(x, _, _, v) return m.layernorm(x, v, v) end,
    add_layernorm = function(x, _, _, v) return select(2, m.add_layernorm(x, x, v, v)) end,
    both_of_add_layernorm = function(x, _, _, v)
        local sum, y = m.add_layernorm(x, x, v, v)
        return sum * y
    end,
    sum_of_add_layernorm = function(x, _, _, v) return (m.add_layernorm(x, x, v, v)) end,
    gelu = function(x, w, b) return m.linear(x, w, b, { act = "gelu" }) end,
    gelu_tanh = function(x, w, b) return m.linear(x, w, b, { act = "gelu_tanh" }) end,
    relu = function(x, w, b) return m.linear(x, w, b, { act = "relu" }) end,
    unfused = function(x) return m.gelu(x) end,
    -- a second one in a row is kept: nothing is made again from something made again
    chain = function(x, _, _, v) return m.layernorm(m.gelu(m.gelu(x)), v, v) end,
}

-- Gradients of x, w, b, v and of the two weights that read the output: straight, or after a copy, which is kept.
local function gradients(f, dtype, copied)
    local in_ <const> = { leaf({ 6, 5, 16 }, 1, dtype), leaf({ 16, 16 }, 2, dtype), leaf({ 16 }, 3), leaf({ 16 }, 4),
        leaf({ 3, 16 }, 5, dtype), leaf({ 7, 16 }, 6, dtype) }
    local out = {}
    m.step(function()
        local y = f(in_[1], in_[2], in_[3], in_[4])
        if copied then y = y:scale {} end
        local a, b = m.linear(y, in_[5]), m.linear(y, in_[6])
        local loss = m.sum((a * a):cast { dtype = "f32" }) + m.sum((b * b):cast { dtype = "f32" })
        m.release(y, a, b)
        loss:backward()
    end)
    for i, t in ipairs(in_) do out[i] = t.grad:tobytes() end
    return out
end

function TestMemory:test_what_is_made_again_has_the_same_bits()
    for name, f in pairs(cheap) do
        for _, dtype in ipairs { "f32", "bf16" } do
            local again, kept = gradients(f, dtype, false), gradients(f, dtype, true)
            for i = 1, #kept do
                lu.assertTrue(again[i] == kept[i], ("%s %s: gradient %d"):format(name, dtype, i))
            end
        end
    end
end

function TestMemory:test_a_block_holds_ten_values_a_token()
    local dim, batch = 64, 8
    local images = m.rand_normal { batch, 3, 32, 32 }
    local function held(depth)
        local net = m.vit.new({ preset = false, img = 32, patch = 4, dim = dim, depth = depth, heads = 2,
            classes = 4 }, 1):train()
        collectgarbage()
        local scope <close> = m.scope() -- luacheck: ignore scope
        collectgarbage "stop"
        local before = m.memory().live
        local logits <close> = net(images) -- luacheck: ignore logits
        local after = m.memory().live - before
        collectgarbage "restart"
        return after
    end
    local value = batch * 65 * dim * 4
    -- residual stream 2, qkv 3, attention's output 1, before the activation 4, and the statistics
    local values = (held(5) - held(3)) / 2 / value
    lu.assertTrue(values > 9.9 and values < 10.5, "values: " .. values)
end

function TestMemory:test_evaluation_holds_one_block()
    local net = m.vit.new({ preset = false, img = 32, patch = 4, dim = 64, depth = 8, heads = 2,
        classes = 4 }, 1):eval()
    local images = m.rand_normal { 8, 3, 32, 32 }
    collectgarbage()
    local scope <close> = m.scope() -- luacheck: ignore scope
    collectgarbage "stop"
    m.reset_peak()
    local before = m.memory().live
    m.no_grad(function() return net(images) end)
    local peak = (m.memory().peak - before) / (8 * 65 * 64 * 4)
    collectgarbage "restart"
    lu.assertTrue(peak < 14, "values: " .. peak)
end

function TestMemory:test_released_handles()
    local scope <close> = m.scope() -- luacheck: ignore scope
    local x = m.rand_normal { 1000 }
    local view = x:reshape { 10, 100 }
    local sum = view:sum():item()
    m.release(x, nil)
    lu.assertEquals(view:sum():item(), sum) -- the bytes stay for those who use them
    lu.assertErrorMsgContains("released", m.sum, x)
    lu.assertErrorMsgContains("released", function() return x.shape end)
    lu.assertStrContains(tostring(x), "released")
    x:release() -- once more is no harm
    local live = m.memory().live
    do
        local y <close> = view:exp() -- luacheck: ignore y
        lu.assertTrue(m.memory().live > live)
    end
    lu.assertEquals(m.memory().live, live)
    lu.assertErrorMsgContains("tensor", m.release, 3)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestMemory", TestMemory } })

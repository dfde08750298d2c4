-- Recorded steps (m.graph, mimic.replay) on the CUDA device: replays give the bits of the step itself, with
-- random numbers, faults and data of their own step; what cannot be recorded or does not repeat is found out.
local m = require "mimic"
local lu = require "luaunit"
local optim = require "mimic.optim"
local progress = require "mimic.progress"
local replay = require "mimic.replay"

package.path = os.getenv("MIMIC_SOURCE") .. "/tests/cli/?.lua;" .. package.path
local shell = require "shell"

shell.wants_gpu()

local TestReplay = {}
local said, complain

function TestReplay:setUp()
    m.device("cuda")
    m.seed(3)
    said, complain = {}, progress.complain
    progress.complain = function(...) said[#said + 1] = string.format(...) end
end

function TestReplay:tearDown()
    progress.complain = complain
    m.device("cpu")
end

local function model()
    local net = m.nn.Linear(6, 4)
    net:initialise(1)
    return net
end

-- Mean cross entropy of a linear layer behind dropout; `more` may do something else in every step.
local function spec_of(net, more)
    local o = optim.new(net, { kind = "adamw" })
    return { model = net, optimizer = o, step = function(batch, at)
        local x = m.dropout(batch.x, { p = 0.25 })
        local loss = m.cross_entropy(net(x), batch.labels)
        if more then loss = more(loss, batch, at) or loss end
        return loss, { ce = loss }
    end }
end

local function batch_of(step, n)
    local x = m.rand_normal { n or 5, 6, seed = 7, stream = 1, step = step }
    local labels = {}
    for i = 1, n or 5 do labels[i] = (i * step) % 4 end
    return { x = x, labels = m.tensor(labels, "i32") }
end

-- Where Lua keeps what the recorder cannot see.
local hidden = setmetatable({ step = 0 }, { __metatable = "an object" })

-- Losses, gradients and weights of `steps` updates as text, with or without recording; sizes[step] = batch;
-- change(step, net, spec, batch, at) is called before each.
local function train(steps, recorded, more, sizes, change)
    local net = model()
    net:train()
    local spec = spec_of(net, more)
    local recorder <close> = recorded and replay.new(spec) or nil
    local out, states = {}, {}
    for step = 0, steps - 1 do
        local scope <close> = m.scope() -- luacheck: ignore
        local at = { step = step, pending = 0, position = step % 4, epoch = step // 4 }
        local batch = batch_of(step, sizes and sizes[step])
        m.set_step(step)
        hidden.step = step
        if change then change(step, net, spec, batch, at) end
        local loss
        if recorder then loss = recorder:step(batch, at, scope) else
            loss = spec.step(batch, at)
            loss:backward()
        end
        local later = loss:later()
        out[#out + 1] = ("%a"):format(later:value()) .. m.sha256(net.weight.grad:tobytes())
        states[#states + 1] = recorder and recorder.state
        spec.optimizer:step(0.01 * (step + 1))
    end
    out[#out + 1] = m.sha256(net.weight:tobytes()) .. m.sha256(net.bias:tobytes())
    return out, states
end

function TestReplay:test_the_bits_of_the_step_itself()
    local want = train(12, false)
    local got, states = train(12, true)
    lu.assertEquals(states, { "warm", "warm", "check", "replay", "replay", "replay", "replay", "replay", "replay",
        "replay", "replay", "replay" })
    lu.assertEquals(got, want)
    lu.assertEquals(said, {})
end

function TestReplay:test_another_shape_is_done_as_ever()
    local sizes = { [5] = 3, [6] = 2, [9] = 3 }
    local got, states = train(12, true, nil, sizes)
    lu.assertEquals(got, (train(12, false, nil, sizes)))
    lu.assertEquals(states[12], "replay")
    -- A run that goes on with an epoch's last batch: the shape of those after it is recorded.
    sizes = { [0] = 3 }
    got, states = train(12, true, nil, sizes)
    lu.assertEquals(got, (train(12, false, nil, sizes)))
    lu.assertEquals(states[12], "replay")
    lu.assertEquals(said, {})
end

-- Tensors made between replays live in other memory than the recorded step.
function TestReplay:test_nobody_elses_memory_is_written()
    local net = model()
    local spec = spec_of(net)
    local recorder <close> = replay.new(spec)
    local kept = {}
    for step = 0, 9 do
        local scope <close> = m.scope() -- luacheck: ignore
        recorder:step(batch_of(step), { step = step, pending = 0, position = 1 }, scope)
        for _, n in ipairs { 1, 4, 20, 24, 30, 200 } do
            local t = m.full({ n }, step)
            scope:keep(t)
            kept[#kept + 1] = { t, step }
        end
        spec.optimizer:step(0.01)
    end
    lu.assertEquals(recorder.state, "replay")
    for _, pair in ipairs(kept) do
        for _, v in ipairs(pair[1]:tolist()) do lu.assertEquals(v, pair[2]) end
    end
end

-- What the step must not do, planted: each is found out, said, and the numbers are those without recording.
function TestReplay:test_planted()
    local waits = function(loss) return loss * (1 + 0 * loss:item()) end
    local numbers = function(loss, _, at) return loss * (1 + at.step) end
    local unseen = function(loss) return loss * (1 + hidden.step) end
    local tables = function(loss) return loss * m.tensor { 1 + hidden.step }:sum_to {} end
    local seen = 0
    local grows = function(loss)
        seen = seen + 1
        return loss + m.zeros { seen * 3000 }:sum_to {}
    end
    for _, planted in ipairs {
        { waits, "the step cannot be recorded: .*the host reads a value while a step is recorded" },
        { numbers, "'at.step', which the step uses, changes too often for a recording" },
        { unseen, "a replay of the recorded step does not give its bits %(.* differs%)" },
        { tables, "a replay of the recorded step does not give its bits %(.* differs%)" },
        { grows, "the step cannot be recorded: .*more than the steps before the recording took" },
    } do
        said, seen = {}, 0
        local got, states = train(9, true, planted[1])
        lu.assertEquals(#said, 1)
        lu.assertStrMatches(said[1], "graph: " .. planted[2] .. ".*; training goes on without .*")
        lu.assertEquals(states[9], "off")
        seen = 0
        lu.assertEquals(got, (train(9, false, planted[1])))
    end
end

-- What a script changes between two replays holds from that step on: the step is recorded anew.
function TestReplay:test_changes_hold_at_once()
    local tau, list = 2, { deep = { tau = 2 } }
    local function helper(loss) return loss * tau end
    local function double(loss) return loss * 2 end
    local function once(f) -- at step 12: there are replays
        return function(step, ...) if step == 12 then f(...) end end
    end
    for name, case in pairs {
        ["an upvalue"] = { function(loss) return loss * tau end, once(function() tau = 3 end) },
        ["an upvalue of a function"] = { function(loss) return helper(loss) end, once(function() tau = 3 end) },
        ["a field"] = { function(loss) return loss * list.deep.tau end, once(function() list.deep.tau = 3 end) },
        ["another table"] = { function(loss) return loss * list.deep.tau end,
            once(function() list = { deep = { tau = 3 } } end) },
        ["a global"] = { function(loss) return loss * rawget(_G, "TAU") end,
            once(function() rawset(_G, "TAU", 3) end) },
        ["a field of the model"] = { double, function(step, net) net.rate = step < 12 and 2 or 3 end },
        ["requires_grad"] = { double, once(function(net) net.bias:requires_grad_(false) end) },
        ["training"] = { double, once(function(net) net:eval() end) },
        ["a frozen flag"] = { function(loss) return loss * (list.frozen and 1 or 2) end,
            once(function() list.frozen = true end) },
        ["another step"] = { double, once(function(_, spec)
            local step = spec.step
            spec.step = function(batch, at)
                local loss = step(batch, at)
                return loss * 3
            end
        end) },
        ["the seed"] = { double, once(function() m.seed(4) end) },
        ["a number in the batch"] = { function(loss, batch) return loss * batch.more.tau end,
            function(step, _, _, batch) batch.more = { tau = step < 12 and 2 or 3 } end },
        ["a number that comes"] = { function(loss, batch) return loss * (batch.tau or 2) end,
            function(step, _, _, batch) batch.tau = step >= 12 and 3 or nil end },
        ["the epoch"] = { function(loss, _, at) return loss * (at.late and 3 or 2) end,
            function(step, _, _, _, at) at.late = step >= 12 end },
    } do
        local function run(recorded)
            tau, list = 2, { deep = { tau = 2 }, frozen = false }
            rawset(_G, "TAU", 2)
            m.seed(3)
            return train(20, recorded, case[1], nil, case[2])
        end
        local got, states = run(true)
        lu.assertEquals(said, {}, name)
        lu.assertEquals(got, (run(false)), name)
        lu.assertEquals({ states[12], states[13], states[14], states[15], states[16] },
            { "replay", "warm", "warm", "check", "replay" }, name)
        lu.assertEquals(states[20], "replay")
    end
    lu.assertEquals(said, {})
end

-- Several times is too often only where recordings are good for nothing.
function TestReplay:test_changes_too_often()
    local tau = 1
    local function step(loss) return loss * tau end
    local function run(recorded, every)
        tau = 1
        return train(60, recorded, step, nil, function(n) tau = 1 + n // every end)
    end
    local got, states = run(true, 15)
    lu.assertEquals(got, (run(false, 15)))
    lu.assertEquals(states[60], "replay")
    lu.assertEquals(said, {})
    got, states = run(true, 6)
    lu.assertEquals(got, (run(false, 6)))
    lu.assertEquals(states[60], "off")
    lu.assertStrMatches(said[1], "graph: 'tau', which the step uses, changes too often for a recording; .*")
end

function TestReplay:test_faults_of_a_replay_name_the_operator()
    local net = model()
    local spec = spec_of(net)
    local recorder <close> = replay.new(spec)
    local function step(n, labels)
        local scope <close> = m.scope() -- luacheck: ignore
        local batch = batch_of(n)
        if labels then batch.labels = m.tensor(labels, "i32") end
        local loss = recorder:step(batch, { step = n, pending = 0, position = 1 }, scope)
        spec.optimizer:zero_grad()
        return loss:later():value()
    end
    for n = 0, 5 do step(n) end
    lu.assertEquals(recorder.state, "replay")
    for _ = 1, 300 do m.onehot(m.tensor({ 1 }, "i32"), { classes = 2 }) end -- other operators that may report
    lu.assertErrorMsgContains("cross_entropy: label at 2 is not in 0..3", step, 6, { 0, 1, 4, 1, 1 })
    lu.assertTrue(step(7) > 0)
end

-- More of them in one recording than keep their names.
function TestReplay:test_faults_of_many_operators()
    local net = model()
    local spec = spec_of(net, function(loss, batch)
        for _ = 1, 300 do loss = loss + m.onehot(batch.one, { classes = 2 }):sum_to {} * 0 end
        return loss
    end)
    local recorder <close> = replay.new(spec)
    local function step(n, labels)
        local scope <close> = m.scope() -- luacheck: ignore
        local batch = { x = batch_of(n).x, labels = m.tensor(labels, "i32"), one = m.tensor({ 1 }, "i32") }
        local loss = recorder:step(batch, { step = n, pending = 0, position = 1 }, scope)
        spec.optimizer:zero_grad()
        return loss:later():value()
    end
    for n = 0, 3 do step(n, { 0, 1, 2, 3, 0 }) end
    lu.assertEquals(recorder.state, "replay")
    lu.assertErrorMsgContains("operators of recorded steps that look at labels and indices found a wrong one at 2",
        step, 4, { 0, 1, 4, 1, 1 })
    lu.assertTrue(step(5, { 0, 1, 2, 3, 0 }) > 0)
end

-- BatchNorm's running statistics change within the step: a comparison leaves them as one step does.
function TestReplay:test_buffers_of_moco()
    local moco = require "mimic.moco"
    local function run(recorded)
        local net = moco.new({ preset = false, img = 8, patch = 4, dim = 8, depth = 1, heads = 2, mlp_dim = 8,
            out_dim = 4 }, 5)
        net:train()
        local spec = { model = net, optimizer = optim.new(net, { kind = "lars" }), step = function(batch)
            local loss, hits = net(batch.images, 0.2)
            return loss, { hits = hits }
        end }
        local recorder <close> = recorded and replay.new(spec) or nil
        for step = 0, 5 do
            local scope <close> = m.scope() -- luacheck: ignore
            local batch = { images = m.rand_normal { 8, 3, 8, 8, seed = 1, stream = 1, step = step } }
            m.set_step(step)
            net:move(0.9)
            m.set_step(step)
            if recorder then recorder:step(batch, { step = step, pending = 0, position = 1 }, scope) else
                spec.step(batch):backward()
            end
            spec.optimizer:step(0.1)
        end
        if recorder then lu.assertEquals(recorder.state, "replay") end
        local out = {}
        for i, p in ipairs(net:named()) do out[i] = p.name .. m.sha256(p.tensor:tobytes()) end
        return out
    end
    lu.assertEquals(run(true), run(false))
    lu.assertEquals(said, {})
end

function TestReplay:test_rules_of_the_recorder()
    local g <close> = m.graph()
    lu.assertErrorMsgContains("graph: there is one already", m.graph)
    lu.assertErrorMsgContains("graph: no step was recorded", g.replay, g)
    local x = m.ones { 3 }
    g:begin(true)
    lu.assertErrorMsgContains("graph: a step is open already", g.begin, g, true)
    local y = x * 2
    lu.assertErrorMsgContains("the host reads a value while a step is recorded", y.tolist, y)
    lu.assertErrorMsgContains("did what cannot be recorded", g.finish, g, true)
    g:begin(false)
    lu.assertEquals((x * 2):tolist(), { 2, 2, 2 })
    g:finish()
    collectgarbage()
    g:begin(true)
    y = x * 2
    g:finish(true)
    g:replay()
    lu.assertEquals(y:tolist(), { 2, 2, 2 })
    x:copy_(m.tensor { 5, 6, 7 })
    g:replay()
    lu.assertEquals(y:tolist(), { 10, 12, 14 })
    g:close()
    lu.assertErrorMsgContains("this graph is closed", g.replay, g)
    m.device("cpu")
    lu.assertErrorMsgContains("records no steps", m.graph)
end

-- Whole runs, resumed ones too, leave the same checkpoints with and without.
function TestReplay:test_runs()
    local dir = shell.folder()
    lu.assertEquals((shell.run(dir, "data synth s --size 24 --general-train 24 --general-val 8 --faces-train 32"
        .. " --faces-test 16")), 0)
    local script = [[
local m = require "mimic"
local exp = m.experiment "replays"
local model = { preset = false, img = 16, patch = 4, dim = 16, depth = 1, heads = 2 }
local pre = exp:run { kind = "pretrain", name = "mae", config = m.config {
    data = { train = { path = "s/general", split = "train" } },
    model = m.config(model):with { decoder = { dim = 16, depth = 1, heads = 2 } },
    epochs = 3, batch = 4, accumulate = 2, log_every = 1, pictures = 0, checkpoint_seconds = 0 } }
exp:run { kind = "finetune", name = "mimic", parent = pre, config = m.config {
    data = { train = { path = "s/faces", split = "train" }, test = { path = "s/faces", split = "test" } },
    model = m.config(model):with { drop_path = 0.1 }, mscl = { weight = 0.5 }, clip = 1,
    epochs = 2, batch = 4, warmup = 0, log_every = 3, precision = "bf16", eval = { batch = 7 } } }
]]
    local function weights(db, graph)
        shell.write(dir .. "/x.lua", (script:gsub("epochs", "graph = " .. graph .. ", epochs")))
        local code, _, err = shell.run(dir, ("--db %s.db run x.lua --device cuda"):format(db),
            "MIMIC_THREADS=1")
        lu.assertEquals(code, 0, err)
        lu.assertNotStrContains(err, "graph:")
        local _, out = shell.run(dir, ("--db %s.db query --csv \"SELECT run, step, hex(sha256) FROM checkpoint "
            .. "ORDER BY run, step\""):format(db))
        return out
    end
    local eager = weights("eager", "false")
    lu.assertStrContains(eager, "\n1,")
    lu.assertStrContains(eager, "\n2,")
    lu.assertEquals(weights("graph", "true"), eager)
    shell.remove(dir)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestReplay", TestReplay } }, true)

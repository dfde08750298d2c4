-- m.bench: training steps, matrix products and element-wise kernels against floors measured in the same
-- process. Rule: random inputs, the median of several timings, and both figures of every ratio printed.
local m = require "mimic"
local tables = require "mimic.format"

local bench = {}

-- The sizes of performance.md section 2.
local models = {
    { name = "vit-ti", img = 224, patch = 16, dim = 192, depth = 12, heads = 3, batch = 16, quick = false },
    { name = "vit-s", img = 224, patch = 16, dim = 384, depth = 12, heads = 6, batch = 16 },
    { name = "vit-b", img = 224, patch = 16, dim = 768, depth = 12, heads = 12, batch = 16 },
    { name = "mae-b", img = 224, patch = 16, dim = 768, depth = 12, heads = 12, batch = 16, mae = true,
        decoder = { dim = 512, depth = 8, heads = 16 } },
    { name = "vit-l", img = 224, patch = 16, dim = 1024, depth = 24, heads = 16, batch = 16, large = true },
    { name = "mae-l", img = 224, patch = 16, dim = 1024, depth = 24, heads = 16, batch = 16, mae = true,
        decoder = { dim = 512, depth = 8, heads = 16 }, large = true }, -- large: only when named
    { name = "tiny", img = 32, patch = 4, dim = 192, depth = 6, heads = 3, batch = 64, quick = true },
}

---Names that --only takes.
---@return string[]
function bench.names()
    local out = { "models", "gemm", "kernels" }
    for _, s in ipairs(models) do out[#out + 1] = s.name end
    return out
end

---@param name string
---@return boolean
function bench.known(name)
    for _, n in ipairs(bench.names()) do
        if n == name then return true end
    end
    return false
end

-- Forward and backward FLOPs of T tokens through depth blocks of width dim.
local function blocks(T, dim, depth)
    return 6 * depth * (12 * dim * dim * T + 2 * T * T * dim)
end

---FLOPs of one training step for one picture: 2 per multiply-add, forward + backward, no recomputation
---(performance.md section 1). The patch embedding needs no gradient of its input.
function bench.flops(s)
    local patches = (s.img // s.patch) ^ 2
    local pixels = 3 * s.patch * s.patch
    local embed = 4 * patches * s.dim * pixels
    if not s.mae then return blocks(patches + 1, s.dim, s.depth) + embed + 6 * s.dim * 1000 end
    local kept, d = patches // 4 + 1, s.decoder
    return blocks(kept, s.dim, s.depth) + embed + blocks(patches + 1, d.dim, d.depth)
        + 6 * (kept * s.dim * d.dim + (patches + 1) * d.dim * pixels)
end

-- Median and shortest seconds of f, repeated for about `budget` seconds and at least `least` times after a
-- warm-up.
local function time(f, budget, least)
    f()
    m.sync()
    local took = {}
    local began = m.sys.clock()
    repeat
        local t = m.sys.clock()
        f()
        m.sync() -- a device's time is its own
        took[#took + 1] = m.sys.clock() - t
    until #took >= least and m.sys.clock() - began > budget
    table.sort(took)
    return took[(#took + 1) // 2], took[1]
end

-- Many calls in one timing, for kernels of microseconds.
local function time_many(f, budget)
    local once = time(f, 0, 3)
    local n = math.max(1, math.floor(0.02 / math.max(once, 1e-7)))
    local usual, shortest = time(function()
        for _ = 1, n do f() end
    end, budget, 3)
    return usual / n, shortest / n
end

local function random(shape, dtype, std)
    local t = m.rand_normal { std = std or 1, table.unpack(shape) }
    return dtype == "f32" and t or t:cast { dtype = dtype }
end

---Highest rate of a matrix product whose operands stay in cache: the peak that shares refer to.
---@param dtype "f32"|"bf16"
---@return number FLOP/s
function bench.peak(dtype)
    local best = 0
    for _, s in ipairs { { 384, 256, 256 }, { 384, 512, 512 }, { 768, 768, 768 }, { 1536, 768, 768 } } do
        local scope <close> = m.scope() -- luacheck: ignore scope
        local M, N, K = s[1], s[2], s[3]
        local x, w = random({ M, K }, dtype), random({ N, K }, dtype)
        local _, shortest = time_many(function()
            local inner <close> = m.scope() -- luacheck: ignore inner
            m.linear(x, w)
        end, 0.3)
        best = math.max(best, 2 * M * N * K / shortest)
    end
    return best
end

---The highest rate at which this process was seen to move bytes between memory and all its threads, on
---arrays of `bytes` together: reading them, copying one to the other, scaling one into a new one. The same
---size as a kernel's data, so that a cache that holds them serves both.
---@param bytes integer
---@return number bytes per second, read and written
function bench.bandwidth(bytes)
    local scope <close> = m.scope() -- luacheck: ignore scope
    local n = bytes // 8
    local from, to = m.rand_uniform { n }, m.zeros { n }
    local best = 0
    for _, f in ipairs {
        function() m.sum(from) m.sum(to) end,
        function() to:copy_(from) end,
        function() m.scale(from, { alpha = 2 }) end,
    } do
        local _, shortest = time(function()
            local inner <close> = m.scope() -- luacheck: ignore inner
            f()
        end, 0.2, 5)
        best = math.max(best, 8 * n / shortest)
    end
    return best
end

-- A training step of a reference model on random pictures, ready to be called, and its recorder on a GPU, by
-- which it is then done as the training loop does it: steps that record it are over.
local function step_of(s, dtype)
    local optim = require "mimic.optim"
    local net
    if s.mae then
        net = require("mimic.mae").new({ preset = false, img = s.img, patch = s.patch, dim = s.dim,
            depth = s.depth, heads = s.heads, decoder = s.decoder }, 0)
    else
        net = require("mimic.vit").new({ preset = false, img = s.img, patch = s.patch, dim = s.dim,
            depth = s.depth, heads = s.heads, classes = 1000, drop_path = 0 }, 0)
    end
    local o = optim.new(net, { kind = "adamw", weight_decay = 0.05, bf16 = dtype == "bf16" })
    net:compute(dtype, o)
    net:train()
    local images = m.rand_normal { s.batch, 3, s.img, s.img }
    local list = {}
    for i = 1, s.batch do list[i] = i * 37 % 1000 end
    local labels = m.tensor(list, "i32")
    local spec = { model = net, optimizer = o, step = function(batch)
        if s.mae then
            return (net(batch.images, net:noise(s.batch), { mask = 0.75, norm_pix = true, on = "masked" }))
        end
        return m.cross_entropy(net(batch.images), batch.labels)
    end }
    local recorder = require("mimic.replay").new(spec)
    local n = 0
    local function step()
        local scope <close> = m.scope() -- luacheck: ignore scope
        local batch = { images = images, labels = labels }
        local loss
        m.set_step(n)
        if recorder then
            loss = recorder:step(batch, { step = n, pending = 0, position = 1 }, scope)
        else
            loss = spec.step(batch)
            loss:backward()
        end
        n = n + 1
        o:step(1e-4)
        return loss:item()
    end
    while recorder and recorder.state ~= "replay" and recorder.state ~= "off" do step() end
    return step, recorder
end

---Seconds of each of n training steps of a reference model, the first one included (on a GPU the first replay of
---the recorded step): what tests/bench/vs_torch sets beside PyTorch's.
---@param name string vit-ti, vit-s, vit-b, mae-b or tiny
---@param dtype "f32"|"bf16"
---@param n integer
---@param batch integer? other than the model's own
---@return number[] seconds
---@return number flops of one step
function bench.steps(name, dtype, n, batch)
    for _, s in ipairs(models) do
        if s.name == name then
            m.seed(0)
            s = setmetatable({ batch = batch or s.batch }, { __index = s })
            local step, recorder <close> = step_of(s, dtype) -- luacheck: ignore recorder
            local took = {}
            for i = 1, n do
                local t = m.sys.clock()
                step()
                took[i] = m.sys.clock() - t
            end
            return took, bench.flops(s) * s.batch
        end
    end
    error(("no model '%s'"):format(name), 2)
end

local function measure_model(s, dtype, floor, quick)
    collectgarbage()
    m.trim()
    m.reset_peak()
    local scope <close> = m.scope() -- luacheck: ignore scope
    local step, recorder <close> = step_of(s, dtype) -- luacheck: ignore recorder
    local seconds = time(step, quick and 1 or 3, quick and 3 or 5)
    local work = bench.flops(s) * s.batch
    return {
        model = s.name, dtype = dtype, batch = s.batch, ["s/step"] = seconds, ["img/s"] = s.batch / seconds,
        ["GFLOP/s"] = work / seconds / 1e9, ["of peak %"] = 100 * work / seconds / floor[dtype],
        ["peak MiB"] = m.memory().peak / 2 ^ 20,
    }
end

local gemms = { -- rows, inputs, outputs, what
    { 3152, 768, 2304, "ViT-B qkv" }, { 3152, 768, 768, "ViT-B proj" }, { 3152, 768, 3072, "ViT-B fc1" },
    { 3152, 3072, 768, "ViT-B fc2" }, { 3152, 192, 768, "ViT-Ti fc1" }, { 4160, 192, 768, "tiny fc1" },
    { 64, 768, 1000, "head" },
}

local function measure_gemm(g, dtype, floor, quick)
    local scope <close> = m.scope() -- luacheck: ignore scope
    local M, K, N, what = g[1], g[2], g[3], g[4]
    local x, w, dy = random({ M, K }, dtype), random({ N, K }, dtype), random({ M, N }, dtype)
    local work = 2 * M * N * K
    local row = { shape = ("[%d,%d] x [%d,%d]"):format(M, K, K, N), what = what, dtype = dtype }
    for _, form in ipairs {
        { "forward", function() m.linear(x, w) end }, { "dX", function() m.matmul(dy, w) end },
        { "dW", function() m.matmul(dy, x, { ta = true }) end },
    } do
        local seconds = time_many(function()
            local inner <close> = m.scope() -- luacheck: ignore inner
            form[2]()
        end, quick and 0.1 or 0.4)
        row[form[1] .. " GFLOP/s"] = work / seconds / 1e9
        row[form[1] .. " %"] = 100 * work / seconds / floor[dtype]
    end
    return row
end

-- Name, bytes read and written, FLOPs and call. The floor is the bytes at the bandwidth for that many, or the
-- FLOPs at peak when that is longer.
local function kernels(dtype)
    local size = dtype == "bf16" and 2 or 4
    local x, r = random({ 25216, 768 }, dtype), random({ 25216, 768 }, dtype)
    local w, b = random({ 768 }, "f32"), random({ 768 }, "f32")
    local scores = random({ 512, 197, 197 }, dtype)
    local qkv = random({ 32, 197, 2304 }, dtype)
    local whole = x.numel * size
    return {
        { "add", 3 * whole, 0, function() m.add(x, r) end },
        { "gelu", 2 * whole, 0, function() m.gelu(x) end },
        { "layernorm", 2 * whole, 0, function() m.layernorm(x, w, b) end },
        { "add_layernorm", 4 * whole, 0, function() m.add_layernorm(x, r, w, b) end },
        { "softmax", 2 * scores.numel * size, 0, function() m.softmax(scores) end },
        { "attention", qkv.numel * size * 4 // 3, 4 * 32 * 197 * 197 * 768,
            function() m.attention(qkv, { heads = 12 }) end },
    }
end

local function measure_kernels(dtype, floor, quick)
    local scope <close> = m.scope() -- luacheck: ignore scope
    local rows = {}
    for i, k in ipairs(kernels(dtype)) do
        local name, bytes, work, f = table.unpack(k)
        local before = bench.bandwidth(bytes) -- before and after: the machine's speed may drift
        local seconds = time_many(function()
            local inner <close> = m.scope() -- luacheck: ignore inner
            f()
        end, quick and 0.1 or 0.3)
        local least = math.max(bytes / math.max(before, bench.bandwidth(bytes)), work / floor[dtype])
        rows[i] = { kernel = name, dtype = dtype, ["ms"] = seconds * 1e3, ["floor ms"] = least * 1e3,
            ["of floor %"] = 100 * least / seconds }
    end
    return rows
end

local function digits(rows, columns)
    for _, row in ipairs(rows) do
        for _, c in ipairs(columns) do
            if math.type(row[c]) == "float" then row[c] = tonumber(("%.4g"):format(row[c])) end
        end
    end
    return rows
end

---Measures and prints.
---@param opts {quick: boolean?, only: string?, dtype: string?, form: string?}
---@return table all rows, by part
function bench.run(opts)
    local form = opts.form or "plain"
    local dtypes = (opts.dtype or "both") == "both" and { "f32", "bf16" } or { opts.dtype }
    local function wanted(part, name)
        return not opts.only or opts.only == part or opts.only == name
    end
    local out = { models = {}, gemm = {}, kernels = {} }
    m.seed(0)
    return m.no_grad(function()
        local floor, memory = {}, bench.bandwidth(1 << 29)
        for _, dtype in ipairs(dtypes) do floor[dtype] = bench.peak(dtype) end
        if form == "plain" then
            local parts = { ("%s, %s, %d threads"):format(m.sys.cpu(), m.isa(), m.threads()) }
            for _, dtype in ipairs(dtypes) do
                parts[#parts + 1] = ("%s peak %.0f GFLOP/s"):format(dtype, floor[dtype] / 1e9)
            end
            parts[#parts + 1] = ("memory %.1f GB/s"):format(memory / 1e9)
            print(table.concat(parts, "; ") .. "\n")
        end
        local function show(rows, columns)
            if #rows == 0 then return end
            print(tables.format(form, digits(rows, columns), columns))
            print()
        end
        for _, s in ipairs(models) do
            local named = opts.only == s.name
            if wanted("models", s.name) and (named or not s.large and (s.quick or not opts.quick)) then
                for _, dtype in ipairs(dtypes) do
                    m.grad_enabled(true)
                    table.insert(out.models, measure_model(s, dtype, floor, opts.quick))
                    m.grad_enabled(false)
                end
            end
        end
        show(out.models, { "model", "dtype", "batch", "s/step", "img/s", "GFLOP/s", "of peak %", "peak MiB" })
        if wanted("gemm") then
            for _, g in ipairs(gemms) do
                for _, dtype in ipairs(dtypes) do
                    table.insert(out.gemm, measure_gemm(g, dtype, floor, opts.quick))
                end
            end
            show(out.gemm, { "what", "shape", "dtype", "forward GFLOP/s", "forward %", "dX GFLOP/s", "dX %",
                "dW GFLOP/s", "dW %" })
        end
        if wanted("kernels") then
            for _, dtype in ipairs(dtypes) do
                table.move(measure_kernels(dtype, floor, opts.quick), 1, 6, #out.kernels + 1, out.kernels)
            end
            show(out.kernels, { "kernel", "dtype", "ms", "floor ms", "of floor %" })
        end
        return out
    end)
end

return setmetatable(bench, { __call = function(_, opts) return bench.run(opts or {}) end })

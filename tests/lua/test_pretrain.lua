-- The pre-training methods: every one trains on pictures, gives equal bits after an interruption, and its
-- checkpoint fine-tunes; losses without a golden file against plain double arithmetic.
local m = require "mimic"
local lu = require "luaunit"
local experiment = require "mimic.experiment"
local moco = require "mimic.moco"
local progress = require "mimic.progress"
local simmim = require "mimic.simmim"

progress.quiet(true)
local folder = os.tmpname()
os.remove(folder)
m.sys.mkdirs(folder)
m.data.synth { dir = folder .. "/set", seed = 3, size = 24, general_train = 26, general_val = 10,
    faces_train = 20, faces_test = 10 }

local tiny <const> = { preset = false, img = 16, patch = 4, dim = 16, depth = 2, heads = 2 }

-- Differences from a recipe that make it small.
local small = {
    mae = { model = { decoder = { dim = 16, depth = 1, heads = 2 } }, pictures = 0 },
    moco = { model = { mlp_dim = 24, out_dim = 8 } },
    localmim = { model = { decoder = { dim = 16, depth = 1, heads = 2 } } },
    simmim = { mask_patch = 8, milestones = { 2 } },
    supervised = { repeats = 2, batch = 8, epochs = 6 },
}

local function configuration(method, more)
    local c = { method = method, model = tiny, epochs = 3, warmup = 1, batch = 4, log_every = 1,
        checkpoint_epochs = 1,
        data = { train = folder .. "/set/general/train", val = folder .. "/set/general/val",
            name = "general" } }
    local out = m.task.merge(c)
    m.task.merge_into(out, small[method])
    m.task.merge_into(out, more or {})
    return out
end

local function quietly(f, ...)
    local out, err = io.stdout, io.stderr
    local text = {}
    local sink = { flush = function() end }
    function sink.write(_, ...) text[#text + 1] = table.concat { ... } end
    io.stdout, io.stderr = sink, sink -- luacheck: ignore
    local r = table.pack(pcall(f, ...))
    io.stdout, io.stderr = out, err -- luacheck: ignore
    return r, table.concat(text)
end

local opened = 0
local function open()
    experiment.close()
    opened = opened + 1
    local o = experiment.options
    o.db, o.failed, o.done = ("%s/%d.db"):format(folder, opened), {}, {}
    o.script = { path = "test.lua", text = "-- test", words = {} }
end

local function run(kind, config, parent)
    local r, text = quietly(function()
        return m.experiment("test"):run { kind = kind, name = kind, config = config, parent = parent }
    end)
    if not r[1] then error(r[2], 0) end
    if r[2].state ~= "done" then error(text, 0) end
    return r[2]
end

local function bits(r)
    experiment.flush()
    return (experiment.store().db:rows("SELECT step, hex(sha256) AS sha FROM checkpoint WHERE run = ? "
        .. "AND deleted IS NULL ORDER BY step", r.id))
end

-- Runs with Ctrl-C after `after` updates, then again to the end.
local function interrupted(config, after)
    local asked, real = 0, m.interrupted
    m.interrupted = function() -- luacheck: ignore
        asked = asked + 1
        return asked > after and 1 or 0
    end
    local r = quietly(function()
        return m.experiment("test"):run { kind = "pretrain", name = "pretrain", config = config }
    end)
    m.interrupted = real -- luacheck: ignore
    lu.assertFalse(r[1])
    lu.assertStrContains(tostring(r[2]), "interrupted")
    return run("pretrain", config)
end

local TestMethods = {}

local function check(method, more)
    local config = configuration(method, more)
    open()
    local whole = run("pretrain", config)
    local curve = whole:curve("train/loss")
    for _, point in ipairs(curve) do lu.assertTrue(point.value == point.value and point.value > 0) end
    local value = whole:result("general", "val", "loss")
    lu.assertTrue(value == value and value > 0)
    local want = bits(whole)
    lu.assertTrue(#want >= 2)
    open()
    local resumed = interrupted(config, 4)
    lu.assertEquals(bits(resumed)[#want], want[#want])
    lu.assertEquals(resumed:result("general", "val", "loss"), value)
    return resumed
end

local function finetune(parent, more)
    return run("finetune", m.task.merge({
        preset = "ce", model = tiny, epochs = 1, batch = 4, views = 1, warmup = 0,
        data = { train = { path = folder .. "/set/faces", split = "train" }, name = "faces" },
    }, more or {}), parent)
end

-- What fine-tuning took over and what it started anew.
local function transferred(r)
    local row = experiment.store().db:rows([[SELECT b.data FROM artifact a JOIN blob b ON b.sha256 = a.sha256
        WHERE a.run = ? AND a.name = 'transfer']], r.id)[1]
    return require("cjson").decode(row.data)
end

for _, method in ipairs(m.pretrain.methods) do
    TestMethods["test_" .. method] = function()
        local pre = check(method)
        local fine = finetune(pre)
        local report = transferred(fine)
        table.sort(report.missing)
        lu.assertEquals(report.missing, { "fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight" })
        lu.assertEquals(report.loaded, 4 + 12 * 2) -- trunk and blocks
    end
end

function TestMethods.test_bf16_resumes_too()
    check("moco", { precision = "bf16", batch = 8, accumulate = 2 })
end

function TestMethods.test_activations_computed_again_give_the_same_bits()
    for _, method in ipairs { "moco", "localmim", "simmim" } do
        open()
        local kept = bits(run("pretrain", configuration(method, { epochs = 1, warmup = 0 })))
        open()
        local again = configuration(method, { epochs = 1, warmup = 0, model = { checkpoint = true } })
        local model = require("mimic.pretrain." .. method).model(again, 0)
        lu.assertTrue((model.base_encoder or model).blocks.checkpoint)
        lu.assertEquals(bits(run("pretrain", again)), kept)
    end
end

function TestMethods.test_defaults_are_the_recipe()
    local c = m.pretrain.defaults_of { method = "moco" }
    lu.assertEquals({ c.weight_decay, c.exempt, c.tau, c.second.solarize_p }, { 0.1, "none", 0.2, 0.2 })
    lu.assertEquals(m.task.rate(m.task.merge(c, { batch = 4096 })), 2.4e-3)
    lu.assertEquals(m.task.rate(m.task.merge(m.pretrain.defaults_of { method = "supervised" },
        { batch = 512, accumulate = 2 })), 1e-3)
    lu.assertErrorMsgContains("mae, moco", m.pretrain.defaults_of, { method = "mako" })
end

local TestMoCo = {}

local moco_tiny <const> = { preset = false, img = 16, patch = 4, dim = 16, depth = 1, heads = 2,
    mlp_dim = 24, out_dim = 8 }

function TestMoCo.test_momentum_moves_parameters_only()
    local model = moco.new(moco_tiny, 5)
    local base, copy = model.base_encoder:named(), model.momentum_encoder:named()
    lu.assertEquals(#base, #copy)
    for i, p in ipairs(base) do
        lu.assertEquals(copy[i].tensor:tolist(), p.tensor:tolist())
        lu.assertFalse(copy[i].tensor.requires_grad)
        if not p.buffer then
            lu.assertEquals(p.tensor.requires_grad, not p.name:find("^patch_embed"))
            p.tensor:copy_(p.tensor:detach() * 3 + 1)
        end
    end
    local before = {}
    for i, p in ipairs(copy) do before[i] = p.tensor:reshape{ -1 }:tolist() end
    model:move(0.75)
    for i, p in ipairs(copy) do
        local now, from = p.tensor:reshape{ -1 }:tolist(), base[i].tensor:reshape{ -1 }:tolist()
        for k, v in ipairs(before[i]) do
            local want = p.buffer and v or 0.75 * v + 0.25 * from[k]
            lu.assertAlmostEquals(now[k], want, 1e-6)
        end
    end
end

-- InfoNCE over both views written out, with queries and keys as the model makes them.
function TestMoCo.test_loss_is_info_nce_over_both_views()
    local model = moco.new(moco_tiny, 5)
    m.seed(1)
    local images = m.rand_normal { 6, 3, 16, 16 }
    local tau = 0.2
    local loss, hits = model(images, tau)
    local function rows(r)
        local list = m.no_grad(function() return r:l2norm():tolist() end)
        return list
    end
    local function half(t, k) return t:slice{ axis = 1, start = 3 * k + 1, stop = 3 * k + 3 }:contiguous() end
    local q, k = {}, {}
    for v = 0, 1 do
        local x = half(images, v)
        q[v] = rows(model.predictor(model.base_encoder.head(model.base_encoder:features(x))))
        k[v] = rows(model.momentum_encoder.head(model.momentum_encoder:features(x)))
    end
    local want, right = 0, 0
    for v = 0, 1 do
        for i = 1, 3 do
            local sum, own, best = 0, 0, -math.huge
            for j = 1, 3 do
                local s = 0
                for d = 1, 8 do s = s + q[v][i][d] * k[1 - v][j][d] end
                if j == i then own = s / tau end
                best = math.max(best, s / tau)
                sum = sum + math.exp(s / tau)
            end
            if v == 0 and best == own then right = right + 1 end
            want = want + 2 * tau * (math.log(sum) - own) / 3
        end
    end
    lu.assertAlmostEquals(loss:item(), want, 1e-5 * want)
    lu.assertAlmostEquals(hits:item(), right / 3, 1e-6)
    loss:backward()
    local function moved(t)
        local g = t.grad
        return g and (g * g):sum():item() > 0 or false
    end
    for _, p in ipairs(model.momentum_encoder:parameters()) do lu.assertFalse(moved(p.tensor)) end
    lu.assertFalse(moved(model.base_encoder.patch_embed.proj.weight))
    lu.assertTrue(moved(model.base_encoder.cls_token))
end

-- The reference's ViT-L: frozen random numbers are added to the gradients, others at each scale.
function TestMethods.test_localmim_with_biased_gradients()
    local localmim = require "mimic.localmim"
    local settings = { preset = false, img = 16, patch = 4, dim = 24, depth = 2, heads = 2, bins = 18,
        decoder = { dim = 16, depth = 1, heads = 2 } }
    local plain = localmim.new(settings, 1)
    settings.hog_bias = true
    local model = localmim.new(settings, 1)
    lu.assertEquals(#model:named(), #plain:named() + 4)
    local frozen = {}
    for _, p in ipairs(model:parameters()) do
        if not p.tensor.requires_grad then frozen[#frozen + 1] = p.name end
    end
    lu.assertEquals(frozen, { "hog_enc.0.conv.bias", "hog_enc.1.conv.bias", "hog_enc.2.conv.bias",
        "hog_enc.3.conv.bias" })
    local images = m.rand_normal { 2, 3, 16, 16, seed = 1, stream = 1, step = 1 }
    local gx, gy = table.unpack(model.hog_enc["1"].conv.bias:tolist())
    lu.assertTrue(gx ~= 0 and math.abs(gx) <= 1 / 3 and gy ~= 0 and math.abs(gy) <= 1 / 3)
    -- At the second scale: cells of two pixels, by those numbers.
    local want = m.hog(images, { pool = 2, bins = 18, gx = gx, gy = gy }):l2norm():reshape { 2, 64, 54 }:tolist()
    local got = model:targets(images)[2]:tolist()
    for k = 1, 54 do lu.assertAlmostEquals(got[1][5][k], want[1][5][k], 1e-6) end
    lu.assertNotEquals(got, plain:targets(images)[2]:tolist())
end

local TestSimMIM = {}

function TestSimMIM.test_mask_covers_whole_cells()
    local model = simmim.new(tiny, 1)
    m.seed(2)
    for step = 0, 3 do
        m.set_step(step)
        local rows = model:mask(5, 8, 0.6):tolist() -- 4 cells of 2 x 2 patches, 3 are masked
        for _, row in ipairs(rows) do
            local sum = 0
            for y = 0, 3 do
                for x = 0, 3 do
                    local v = row[y * 4 + x + 1]
                    sum = sum + v
                    lu.assertEquals(v, row[(y // 2 * 2) * 4 + (x // 2 * 2) + 1])
                end
            end
            lu.assertEquals(sum, 12)
        end
    end
    lu.assertErrorMsgContains("mask_patch = 6", model.mask, model, 1, 6, 0.6)
end

-- Where nothing is masked the output is the input, and removed pixels are the mean colour.
function TestSimMIM.test_pictures()
    local model = simmim.new(tiny, 1)
    m.seed(2)
    local images = m.rand_normal { 2, 3, 16, 16, std = 0.5 }
    local mask = model:mask(2, 8, 0.5)
    local input, masked, output = model:visualise(images, mask, { mean = { 0.5, 0.5, 0.5 }, std = { 0.2, 0.2, 0.2 } })
    lu.assertEquals({ input.shape, input.dtype }, { { 2, 16, 16, 3 }, "u8" })
    local a, b, c, w = input:tolist(), masked:tolist(), output:tolist(), mask:tolist()
    local changed = 0
    for y = 1, 16 do
        for x = 1, 16 do
            local removed = w[1][(y - 1) // 4 * 4 + (x - 1) // 4 + 1] == 1
            lu.assertEquals(b[1][y][x], removed and { 128, 128, 128 } or a[1][y][x])
            if removed then changed = changed + (c[1][y][x][1] ~= a[1][y][x][1] and 1 or 0)
            else lu.assertEquals(c[1][y][x], a[1][y][x]) end
        end
    end
    lu.assertTrue(changed > 32)
end

function TestSimMIM.test_loss_is_l1_on_masked_pixels()
    local model = simmim.new(tiny, 1)
    m.seed(2)
    local images = m.rand_normal { 2, 3, 16, 16 }
    local mask = model:mask(2, 8, 0.5)
    local loss, pred = model(images, mask)
    local p, x, w = pred:tolist(), images:tolist(), mask:tolist()
    local sum, pixels = 0, 0
    for b = 1, 2 do
        for y = 0, 15 do
            for col = 0, 15 do
                local patch = y // 4 * 4 + col // 4 + 1
                pixels = pixels + w[b][patch]
                for c = 0, 2 do
                    local v = p[b][patch][c * 16 + y % 4 * 4 + col % 4 + 1]
                    sum = sum + w[b][patch] * math.abs(v - x[b][c + 1][y + 1][col + 1])
                end
            end
        end
    end
    local want = sum / (pixels + 1e-5) / 3
    lu.assertAlmostEquals(loss:item(), want, 1e-5 * want)
    -- A masked patch's own pixels do not reach the encoder.
    local shut = m.expand(mask:reshape{ 2, 16, 1 }, { 2, 16, 48 }):contiguous()
    local hidden = m.unpatchify(shut, { patch = 4, channels = 3 })
    local _, other = model(images * (1 - hidden) + hidden * 7, mask)
    lu.assertEquals(other:tolist(), p)
    loss:backward()
    for _, parameter in ipairs(model:parameters()) do
        local g = parameter.tensor.grad
        lu.assertTrue((g * g):sum():item() > 0, parameter.name)
    end
end

local TestSupervised = {}

-- Mixup, CutMix, smoothing and repeated views against the same loss in plain numbers.
function TestSupervised.test_loss_is_soft_cross_entropy_of_mixed_views()
    local method = require "mimic.pretrain.supervised"
    local c = configuration("supervised")
    local full = m.task.merge(method.defaults)
    m.task.merge_into(full, c)
    full.model.drop_path = 0
    local model = method.model(full, 3, 5)
    m.seed(1)
    local images = m.rand_normal { 8, 3, 16, 16 }
    local labels = m.tensor({ 0, 3, 4, 1 }, "i32")
    local kinds = {}
    for step = 0, 7 do
        local batch = { images = images, labels = labels }
        method.prepare(model, batch, full, { step = step }, 9)
        local loss = method.loss(model, batch, full)
        local plan = m.mixing.draw(8, full.mix, m.rng(9, m.nn.stream("mix"), step), 16, 16)
        local logits = model(m.mixing.images(images, plan)):tolist()
        local y, lam = { 0, 3, 4, 1, 0, 3, 4, 1 }, plan.draws.lam
        kinds[plan.draws.cutmix[1]] = true
        local want = 0
        for i, row in ipairs(logits) do
            local z = 0
            for _, s in ipairs(row) do z = z + math.exp(s) end
            for k, s in ipairs(row) do
                local own, other = y[i] == k - 1 and lam[i] or 0, y[9 - i] == k - 1 and 1 - lam[i] or 0
                local target = 0.9 * (own + other) + 0.1 / 5
                want = want + target * (math.log(z) - s) / 8
            end
        end
        lu.assertAlmostEquals(loss:item(), want, 1e-5 * want)
    end
    lu.assertEquals(kinds, { [true] = true, [false] = true })
    lu.assertErrorMsgContains("repeats = 3 must divide", method.check, { repeats = 3, batch = 8, epochs = 9 })
end

local code = lu.LuaUnit.new():runSuiteByInstances {
    { "TestMethods", TestMethods }, { "TestMoCo", TestMoCo }, { "TestSimMIM", TestSimMIM },
    { "TestSupervised", TestSupervised },
}
experiment.close()
os.execute("rm -rf " .. folder)
os.exit(code)

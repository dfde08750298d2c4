-- The switches of fine-tuning (method.md section 2): each changes what it says, and nothing that it does not.
local m = require "mimic"
local lu = require "luaunit"
local config = require "mimic.config"
local finetune = require "mimic.finetune"

local labels <const> = { 0, 1, 2, 0, 0, 1, 2, 0 } -- four pictures, two views each
local classes <const> = 3

local function configured(more)
    local given = m.task.merge({
        data = { train = "faces" },
        model = { preset = false, img = 16, patch = 8, dim = 16, depth = 2, heads = 2, drop_path = 0 },
        proj = { dim = 8 },
    })
    m.task.merge_into(given, more or {})
    local defaults = finetune.defaults_of(given)
    local c = config.resolve(given, defaults, {}, "finetune")
    finetune.check(c, defaults)
    return c
end

-- Loss, terms and parts of one step with the same views and weights.
local function step(more)
    local c = configured(more)
    local model = finetune.model(c, classes, 3)
    local views = m.rand_normal { 8, 3, 16, 16, seed = 1, stream = 1, step = 0 }
    local plan = m.mixing.draw(8, c.mix, m.rng(0, 1, 2), 16, 16)
    local loss, terms, parts = finetune.loss(model, views, m.tensor(labels, "i32"), plan, c)
    return { loss = loss:item(), ce = terms.ce:item(), contrast = terms.contrast and terms.contrast:item(),
        parts = parts, plan = plan, model = model, views = views, c = c }
end

local function count(mask)
    return mask:cast{ dtype = "f32" }:sum():item()
end

local TestSwitches = {}

function TestSwitches.test_total_is_ce_plus_weight_times_contrast()
    for _, weight in ipairs { 0.1, 0.5 } do
        local s = step { mscl = { weight = weight } }
        lu.assertAlmostEquals(s.loss, s.ce + weight * s.contrast, 1e-5)
    end
    lu.assertNil(step { mscl = { weight = 0 } }.contrast)
end

function TestSwitches.test_what_ce_is_taken_on()
    local clean, mixed, both = step { ce = { on = "clean" } }, step { ce = { on = "mixed" } },
        step { ce = { on = "both" } }
    lu.assertAlmostEquals(both.ce, (clean.ce + mixed.ce) / 2, 1e-5)
    lu.assertNotEquals(clean.ce, mixed.ce)
    lu.assertEquals(clean.contrast, mixed.contrast)
    -- alg encodes the clean views only when CE wants them.
    lu.assertNil(step { preset = "mimic-alg" }.parts.logits)
    local s = step { preset = "mimic-alg", ce = { on = "clean" } }
    lu.assertNil(s.parts.logits_mixed)
    lu.assertAlmostEquals(s.ce, clean.ce, 1e-5)
end

function TestSwitches.test_label_smoothing()
    local s = step { ce = { smoothing = 0.1 } }
    local want = 0
    for i, row in ipairs(s.parts.logits:tolist()) do
        local z = 0
        for _, v in ipairs(row) do z = z + math.exp(v) end
        for k, v in ipairs(row) do
            local target = 0.1 / classes + (labels[i] == k - 1 and 0.9 or 0)
            want = want + target * (math.log(z) - v) / 8
        end
    end
    lu.assertAlmostEquals(s.ce, want, 1e-5)
end

function TestSwitches.test_presets_are_the_rows_of_the_paper()
    local function of(preset) return finetune.switches(configured { preset = preset }) end
    lu.assertEquals(of "ce", { loss = "none", variant = "eq", on = "clean" })
    lu.assertEquals(of "scl", { loss = "scl", variant = "eq", on = "clean" })
    lu.assertEquals(of "mimic", { loss = "mscl", variant = "eq", on = "clean" })
    lu.assertEquals(of "mimic-alg", { loss = "mscl", variant = "alg", on = "mixed" })
    local c = configured { preset = "mimic" }
    lu.assertEquals({ c.mix.mode, c.mix.partner, c.mscl.dist, c.mscl.exclude_self, c.mscl.candidates,
        c.mscl.reduction, c.mscl.empty, c.mscl.visual_gate, c.views, c.lr, c.weight_decay, c.layer_decay },
        { "batch", "flip", "tv", true, "mixed", "mean", "zero", "none", 2, 1e-4, 5e-4, 0.65 })
end

function TestSwitches.test_reduction_and_temperature()
    local base = step()
    lu.assertAlmostEquals(step { mscl = { reduction = "sum" } }.contrast / 8, base.contrast, 1e-5)
    local scaled = step { mscl = { tau = 0.2, base_temperature = 0.07 } }
    local plain = step { mscl = { tau = 0.2 } }
    lu.assertAlmostEquals(scaled.contrast, plain.contrast * 0.2 / 0.07, 1e-5)
    lu.assertNotEquals(plain.contrast, base.contrast)
end

function TestSwitches.test_anchors_without_positives()
    -- Only candidates of exactly the anchor's label are positive: some anchors have none.
    local zero, skip = step { mscl = { t = 0 } }, step { mscl = { t = 0, empty = "skip" } }
    local with = 0
    for _, row in ipairs(zero.parts.pos:tolist()) do
        for _, v in ipairs(row) do
            if v == 1 then
                with = with + 1
                break
            end
        end
    end
    lu.assertTrue(with > 0 and with < 8)
    lu.assertAlmostEquals(skip.contrast * with / 8, zero.contrast, 1e-5)
end

function TestSwitches.test_who_is_a_candidate()
    local base = step()
    lu.assertEquals(count(base.parts.cand), 8 * 6) -- flip: two of eight hold the anchor
    lu.assertEquals(count(step { mscl = { exclude_self = false } }.parts.cand), 8 * 8)
    lu.assertEquals(count(step { mscl = { candidates = "mixed+clean" } }.parts.cand), 8 * (6 + 7))
    lu.assertEquals(count(step { preset = "mimic-alg" }.parts.cand), 8 * 7)
    lu.assertEquals(count(step { preset = "scl" }.parts.cand), 8 * 7)
    lu.assertErrorMsgContains("mixed+clean needs", step, { preset = "mimic-alg",
        mscl = { candidates = "mixed+clean" } })
end

function TestSwitches.test_threshold_moves_the_positives()
    local last = -1
    for _, t in ipairs { 0, 0.3, 0.5, 0.8, 1 } do
        local n = count(step { mix = { cutmix = 0, mode = "elem" }, mscl = { t = t } }.parts.pos)
        lu.assertTrue(n >= last)
        last = n
    end
    lu.assertEquals(last, 8 * 6) -- a distance of 1 is the largest there is
end

function TestSwitches.test_visual_gate_reads_the_features()
    local free = step { mscl = { t = 0.9 } }
    local gated = step { mscl = { t = 0.9, visual_gate = "cosine", visual_min = 1 } }
    local negative = step { mscl = { t = 0.9, visual_gate = "cosine", visual_min = 1,
        visual_fail = "negative" } }
    lu.assertTrue(count(gated.parts.pos) < count(free.parts.pos))
    lu.assertEquals(gated.parts.pos:tolist(), negative.parts.pos:tolist())
    lu.assertTrue(count(gated.parts.cand) < count(negative.parts.cand))
    lu.assertErrorMsgContains("visual_fail", step, { mscl = { visual_gate = "cosine", visual_fail = "x" } })
end

function TestSwitches.test_mixing()
    local batch, elem, pair = step(), step { mix = { mode = "elem" } }, step { mix = { mode = "pair" } }
    local function distinct(s)
        local seen, n = {}, 0
        for _, v in ipairs(s.plan.draws.lam) do
            if not seen[v] then seen[v], n = true, n + 1 end
        end
        return n
    end
    lu.assertEquals({ distinct(batch), distinct(elem), distinct(pair) }, { 1, 8, 4 })
    lu.assertNotEquals(batch.contrast, elem.contrast)
    local random = step { mix = { partner = "randperm" } }
    lu.assertNotEquals(random.plan.draws.partner, batch.plan.draws.partner)
    lu.assertNotEquals(random.contrast, batch.contrast)
    local off = step { mix = { prob = 0 } }
    lu.assertEquals(off.parts.mixed:tolist(), off.views:tolist())
    -- Without mixing MSCL is SCL with the other views as candidates.
    lu.assertEquals(off.parts.label_mix:tolist(), m.onehot(m.tensor(labels, "i32"),
        { classes = classes }):tolist())
end

function TestSwitches.test_projection_heads()
    local xavier = step { proj = { init = "xavier" } }
    lu.assertEquals(xavier.model.proj_head["0"].bias:tolist()[1], 0)
    lu.assertNotEquals(step().model.proj_head["0"].bias:tolist()[1], 0)
    -- none: the contrast is taken on r itself.
    local none = step { proj = { kind = "none" } }
    local r = none.model:features(none.views):l2norm():tolist()
    for i, row in ipairs(none.parts.z_anchor:tolist()) do
        for k, v in ipairs(row) do lu.assertAlmostEquals(v, r[i][k], 1e-5) end
    end
end

function TestSwitches.test_pooling()
    local seen = {}
    for _, model in ipairs { { pool = "gap" }, { pool = "cls" }, { gap = { include_cls = true } },
        { gap = { norm = "before" } } } do
        local s = step { model = model }
        lu.assertEquals(s.model.norm ~= nil, model.pool == "cls")
        lu.assertEquals(s.model.fc_norm ~= nil, model.pool ~= "cls")
        lu.assertNil(seen[s.contrast])
        seen[s.contrast] = true
    end
end

function TestSwitches.test_faces_are_resized_before_the_crop()
    local folder = os.tmpname()
    os.remove(folder)
    m.data.synth { dir = folder, seed = 1, faces_train = 8, size = 40 }
    local set = m.data.open { path = folder .. "/faces", split = "train" }
    local function images(pre_resize)
        local c = configured { augment = { pre_resize = pre_resize }, batch = 4 }
        local next_batch, state = m.task.training_loader(c.data, set, c, 5, 1):epoch(0)
        return m.sha256(config.json(next_batch(state).images:tolist()))
    end
    lu.assertEquals(configured().augment.pre_resize, false)
    lu.assertTrue(images(false) == images(16))
    lu.assertFalse(images(false) == images(0))
    os.execute("rm -rf " .. folder)
end

function TestSwitches.test_linear_probe_is_maes_recipe()
    local c = configured { preset = "linear-probe" }
    lu.assertEquals({ c.freeze, c.opt, c.weight_decay, c.epochs, c.warmup, c.head.std, c.head.batchnorm },
        { "encoder", "lars", 0, 90, 10, 0.01, true })
    lu.assertAlmostEquals(m.task.rate(m.task.merge(c, { batch = 512 })), 0.2, 1e-12)
    lu.assertEquals(m.task.rate(configured { preset = "linear-probe", lr = 0.3 }), 0.3)
    local s = step { preset = "linear-probe" }
    lu.assertNil(s.contrast)
    -- The classifier sees features without gain and offset: their mean over the batch is 0.
    local x = s.model.head["0"](s.model:features(s.views))
    for _, v in ipairs(x:mean{ axis = 1 }:tolist()) do lu.assertAlmostEquals(v, 0, 1e-5) end
    for _, v in ipairs((x * x):mean{ axis = 1 }:tolist()) do lu.assertAlmostEquals(v, 1, 1e-2) end
    local trained = {}
    for i, p in ipairs(s.model.head:parameters()) do trained[i] = p.name end
    lu.assertEquals(trained, { "1.weight", "1.bias" })
    lu.assertErrorMsgContains("linear-probe", step, { preset = "probe" })
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestSwitches", TestSwitches } })

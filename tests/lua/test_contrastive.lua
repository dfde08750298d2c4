-- Contrastive losses: identities between them, every switch.
local m = require "mimic"
local lu = require "luaunit"
local contrastive = require "mimic.contrastive"

local TestContrastive = {}

local function with(more)
    return m.task.merge(contrastive.defaults, more)
end

local labels <const> = { 0, 1, 2, 0, 0, 1, 2, 0 }

-- z of clean and mixed views, one-hot labels, flip partners.
local function batch()
    local y = m.onehot(m.tensor(labels, "i32"), { classes = 3 })
    local clean = { z = m.rand_normal { 8, 5, seed = 1, stream = 1, step = 0 }:l2norm(), labels = y }
    clean.features = clean.z
    local mixed = { z = m.rand_normal { 8, 5, seed = 1, stream = 2, step = 0 }:l2norm(), labels = y }
    mixed.features = mixed.z
    return clean, mixed, m.tensor({ 7, 6, 5, 4, 3, 2, 1, 0 }, "i32")
end

-- The same loss by the formula, in Lua numbers.
local function reference(za, zc, pos, cand, tau)
    za, zc, pos, cand = za:tolist(), zc:tolist(), pos:tolist(), cand:tolist()
    local total = 0
    for i, a in ipairs(za) do
        local s, norm, count, sum = {}, 0, 0, 0
        for j, c in ipairs(zc) do
            s[j] = 0
            for k = 1, #a do s[j] = s[j] + a[k] * c[k] end
            s[j] = s[j] / tau
            if cand[i][j] == 1 then norm = norm + math.exp(s[j]) end
        end
        for j in ipairs(zc) do
            if pos[i][j] == 1 then count, sum = count + 1, sum + s[j] - math.log(norm) end
        end
        total = total - sum / math.max(count, 1)
    end
    return total / #za
end

function TestContrastive:test_mscl_with_lambda_one_is_scl()
    local clean = batch()
    local scl = contrastive.scl(clean.z, m.tensor(labels, "i32"), 3, with { tau = 0.2 }):item()
    -- Candidate j is view j itself: partner j, so that only the anchor is left out.
    local own = m.tensor({ 0, 1, 2, 3, 4, 5, 6, 7 }, "i32")
    local eq = contrastive.mscl_eq(clean, clean, own, with { tau = 0.2 }):item()
    local alg = contrastive.mscl_alg(clean, with { tau = 0.2 }):item()
    lu.assertEquals(eq, scl)
    lu.assertEquals(alg, scl)
end

function TestContrastive:test_against_the_formula()
    local clean, mixed, partner = batch()
    local loss, parts = contrastive.mscl_eq(clean, mixed, partner, with { tau = 0.3 })
    lu.assertAlmostEquals(loss:item(), reference(clean.z, mixed.z, parts.pos, parts.cand, 0.3), 1e-5)
end

function TestContrastive:test_infonce_is_scl_with_picture_numbers()
    local clean = batch()
    local pictures = m.tensor({ 0, 1, 2, 3, 0, 1, 2, 3 }, "i32")
    lu.assertEquals(contrastive.infonce(clean.z):item(), contrastive.scl(clean.z, pictures, 4):item())
end

function TestContrastive:test_large_temperature_tends_to_log_of_candidates()
    local clean = batch()
    local loss = contrastive.scl(clean.z, m.tensor(labels, "i32"), 3, with { tau = 1e4 }):item()
    lu.assertAlmostEquals(loss, math.log(7), 1e-3)
end

function TestContrastive:test_exclude_self()
    local clean, mixed, partner = batch()
    local _, without = contrastive.mscl_eq(clean, mixed, partner, with {})
    lu.assertEquals(without.cand:cast{ dtype = "f32" }:sum():item(), 8 * 6)
    local _, all = contrastive.mscl_eq(clean, mixed, partner, with { exclude_self = false })
    lu.assertEquals(all.cand:cast{ dtype = "f32" }:sum():item(), 64)
end

function TestContrastive:test_candidates_with_clean_never_hold_the_anchor()
    local clean, mixed, partner = batch()
    local _, parts = contrastive.mscl_eq(clean, mixed, partner,
        with { candidates = "mixed+clean", exclude_self = false })
    for i, row in ipairs(parts.cand:tolist()) do
        lu.assertEquals(#row, 16)
        for j = 1, 8 do lu.assertEquals(row[8 + j], i == j and 0 or 1) end
    end
end

function TestContrastive:test_reduction_empty_base_temperature()
    local clean = batch()
    local y = m.tensor({ 0, 1, 2, 3, 4, 5, 6, 6 }, "i32") -- two anchors have a positive
    local function loss(more) return contrastive.scl(clean.z, y, 7, with(more)):item() end
    local mean = loss {}
    lu.assertAlmostEquals(loss { reduction = "sum" }, 8 * mean, 1e-4)
    lu.assertAlmostEquals(loss { empty = "skip" }, 4 * mean, 1e-4)
    lu.assertAlmostEquals(loss { tau = 0.14, base_temperature = 0.07 }, 2 * loss { tau = 0.14 }, 1e-5)
end

function TestContrastive:test_distances_order_the_positives()
    local clean, mixed, partner = batch()
    mixed.labels = m.mixing.labels(clean.labels, { lam = m.full({ 8 }, 0.6), partner = partner })
    local count = {}
    for _, dist in ipairs { "tv", "linf", "l2", "l1" } do
        local _, parts = contrastive.mscl_eq(clean, mixed, partner, with { dist = dist })
        count[dist] = parts.pos:cast{ dtype = "f32" }:sum():item()
    end
    lu.assertEquals(count.tv, count.linf)
    lu.assertTrue(count.tv > count.l2 and count.l2 >= count.l1)
end

function TestContrastive:test_visual_gate()
    local clean, mixed, partner = batch()
    mixed.labels = m.mixing.labels(clean.labels, { lam = m.full({ 8 }, 0.6), partner = partner })
    local function parts(more) return select(2, contrastive.mscl_eq(clean, mixed, partner, with(more))) end
    local function sum(t) return t:cast{ dtype = "f32" }:sum():item() end
    local free, none = parts {}, parts { visual_gate = "cosine", visual_min = -2 }
    lu.assertEquals(none.pos:tolist(), free.pos:tolist())
    local ignored = parts { visual_gate = "cosine", visual_min = 2 }
    local negative = parts { visual_gate = "cosine", visual_min = 2, visual_fail = "negative" }
    -- Only case 1 is left: candidates with exactly the anchor's label.
    local same = select(2, contrastive.mscl_eq(clean, mixed, partner, with { t = 0 }))
    lu.assertEquals(ignored.pos:tolist(), same.pos:tolist())
    lu.assertEquals(negative.pos:tolist(), same.pos:tolist())
    lu.assertEquals(negative.cand:tolist(), free.cand:tolist())
    lu.assertEquals(sum(free.cand) - sum(ignored.cand), sum(free.pos) - sum(same.pos))
end

function TestContrastive:test_wrong_switches_are_refused()
    local clean, mixed, partner = batch()
    lu.assertErrorMsgContains("candidates", contrastive.mscl_eq, clean, mixed, partner,
        with { candidates = "x" })
    lu.assertErrorMsgContains("visual_gate", contrastive.mscl_eq, clean, mixed, partner,
        with { visual_gate = "x" })
end

local TestLoss = {}

local function task_config(more)
    local base = {
        model = m.task.merge(m.finetune.defaults.model,
            { preset = false, img = 16, patch = 8, dim = 16, depth = 1, heads = 2, drop_path = 0 }),
        proj = { kind = "dense", dim = 8, init = "torch" },
    }
    return m.task.merge(m.finetune.defaults, base, more)
end

local function total(more)
    local c = task_config(more)
    local model = m.finetune.model(c, 3, 0)
    local views = m.rand_normal { 8, 3, 16, 16, seed = 1, stream = 1, step = 0 }
    local plan = m.mixing.draw(8, c.mix, m.rng(0, 1, 2), 16, 16)
    local loss, terms, parts = m.finetune.loss(model, views, m.tensor(labels, "i32"), plan, c)
    return loss:item(), terms, parts, model
end

function TestLoss:test_presets()
    local ce, terms, parts, model = total { preset = "ce" }
    lu.assertNil(terms.contrast)
    lu.assertNil(parts.mixed)
    lu.assertNil(model.proj_head)
    lu.assertAlmostEquals(ce, math.log(3), 1e-2)
    local scl
    scl, terms, parts = total { preset = "scl" }
    lu.assertNil(parts.mixed)
    lu.assertAlmostEquals(scl, terms.ce:item() + 0.1 * terms.contrast:item(), 1e-5)
    parts = select(3, total { preset = "mimic" })
    lu.assertNotNil(parts.z_anchor)
    lu.assertNil(parts.logits_mixed)
    terms, parts = select(2, total { preset = "mimic-alg" })
    lu.assertNil(parts.z_anchor)
    lu.assertNotNil(parts.logits_mixed)
    lu.assertNotNil(terms.contrast)
end

function TestLoss:test_switches_beside_a_preset()
    local both, terms, parts = total { preset = "mimic", ce = { on = "both", smoothing = 0 } }
    lu.assertNotNil(parts.logits)
    lu.assertNotNil(parts.logits_mixed)
    lu.assertAlmostEquals(both, terms.ce:item() + 0.1 * terms.contrast:item(), 1e-5)
end

function TestLoss:test_projections()
    for _, kind in ipairs { "none", "linear", "dense" } do
        local _, _, parts, model = total { proj = { kind = kind, dim = 8, init = "torch" } }
        lu.assertEquals(parts.z_mixed.shape, { 8, kind == "none" and 16 or 8 })
        local list = {}
        for _, p in ipairs(model.proj_head:parameters()) do list[#list + 1] = p.name end
        lu.assertEquals(list, ({
            none = {}, linear = { "weight", "bias" }, dense = { "0.weight", "0.bias", "2.weight", "2.bias" },
        })[kind])
    end
end

os.exit(lu.LuaUnit.new():runSuiteByInstances {
    { "TestContrastive", TestContrastive }, { "TestLoss", TestLoss },
})

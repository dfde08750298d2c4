-- Modules, models, optimiser groups, mixing: names, counts, initial values, modes, errors.
local m = require "mimic"
local lu = require "luaunit"

local TestNn = {}

local tiny <const> = { preset = false, img = 16, patch = 4, dim = 24, depth = 3, heads = 2 }

local function with(t, more)
    return m.task.merge(t, more)
end

local function names(module)
    local out = {}
    for i, p in ipairs(module:parameters()) do out[i] = p.name end
    return out
end

function TestNn:test_initial_values_depend_on_seed_and_name_only()
    local a = m.nn.Linear(4, 3)
    a:initialise(7)
    local pair = m.nn.Sequential { { "x", m.nn.Linear(9, 2) }, { "weight", m.nn.Identity() } }
    pair:initialise(7)
    local b = m.nn.Linear(4, 3)
    b:initialise(7)
    lu.assertEquals(a.weight:tolist(), b.weight:tolist())
    b:initialise(8)
    lu.assertNotEquals(a.weight:tolist(), b.weight:tolist())
end

function TestNn:test_initial_ranges()
    local big = m.vit.new(with(tiny, { init = "mae", dim = 48, classes = 5 }), 1)
    local bound = math.sqrt(6 / (4 * 48)) -- qkv drawn as one matrix
    local seen = 0
    for _, row in ipairs(big.blocks["0"].attn.qkv.weight:tolist()) do
        for _, v in ipairs(row) do
            lu.assertTrue(math.abs(v) <= bound)
            seen = math.max(seen, math.abs(v))
        end
    end
    lu.assertTrue(seen > 0.95 * bound)
    for _, v in ipairs(big.blocks["0"].attn.qkv.bias:tolist()) do lu.assertEquals(v, 0) end
    local spread = 0
    for _, v in ipairs(big.patch_embed.proj.bias:tolist()) do spread = math.max(spread, math.abs(v)) end
    lu.assertTrue(spread > 0 and spread <= 1 / math.sqrt(48)) -- 3 * 4 * 4 = 48
    local head = 0
    for _, row in ipairs(big.head.weight:tolist()) do
        for _, v in ipairs(row) do head = math.max(head, math.abs(v)) end
    end
    lu.assertTrue(head > 0 and head < 1e-4)
end

-- Loss, gradients by name and peak memory of one training step.
local function training_step(model, loss_of)
    local out = { grads = {} }
    m.reset_peak()
    m.step(function()
        m.set_step(5)
        local loss = loss_of(model)
        out.loss = loss:item()
        loss:backward()
    end)
    out.peak = m.memory().peak
    for _, p in ipairs(model:parameters()) do
        if p.tensor.grad then out.grads[p.name] = p.tensor.grad:tolist() end
    end
    return out
end

function TestNn:test_checkpointed_blocks_give_the_same_bits_in_less_memory()
    local vit = with(tiny, { depth = 6, drop_path = 0.3, classes = 4 })
    local mae = with(tiny, { depth = 6, decoder = { dim = 16, depth = 4, heads = 2 } })
    local images = m.rand_normal { 32, 3, 16, 16 }
    local labels = {}
    for i = 1, 32 do labels[i] = i % 4 end
    labels = m.tensor(labels, "i32")
    local cases = {
        { m.vit.new, vit, function(net) return m.cross_entropy(net(images), labels) end },
        { m.mae.new, mae, function(net)
            return (net(images, net:noise(32), { mask = 0.75, norm_pix = true, on = "masked" }))
        end },
    }
    for _, case in ipairs(cases) do
        local new, settings, loss_of = table.unpack(case)
        local plain = training_step(new(settings, 1):train(), loss_of)
        collectgarbage()
        local saving = training_step(new(with(settings, { checkpoint = true }), 1):train(), loss_of)
        collectgarbage()
        lu.assertEquals(saving.loss, plain.loss)
        lu.assertEquals(saving.grads, plain.grads)
        lu.assertTrue(saving.peak < 0.65 * plain.peak, saving.peak .. " of " .. plain.peak)
    end
end

function TestNn:test_shape_error_names_the_module()
    local model = m.vit.new(with(tiny, { classes = 4 }), 0)
    model.blocks["2"].attn.qkv.weight = m.zeros { 72, 25 }
    lu.assertErrorMsgContains("vit.blocks.2.attn.qkv: ", model, m.zeros { 1, 3, 16, 16 })
end

function TestNn:test_heads_must_divide_the_width()
    lu.assertErrorMsgContains("5 heads", m.vit.new, with(tiny, { heads = 5 }))
    lu.assertErrorMsgContains("patch 5", m.vit.new, with(tiny, { patch = 5 }))
end

function TestNn:test_batchnorm_running_statistics()
    local bn = m.nn.BatchNorm1d(1, { affine = false })
    bn(m.tensor { { 1 }, { 3 } })
    lu.assertAlmostEquals(bn.running_mean:tolist()[1], 0.2, 1e-6)
    lu.assertAlmostEquals(bn.running_var:tolist()[1], 0.9 + 0.1 * 2, 1e-6) -- unbiased variance 2
    bn:eval()
    local y = bn(m.tensor { { 0.2 } }):item()
    lu.assertAlmostEquals(y, 0, 1e-6)
end

local TestModels = {}

function TestModels:test_parameter_counts_of_the_paper()
    -- method.md 4.1 for one small shape, by its formula, and ViT-Ti as printed.
    local d, depth, tokens, classes = 24, 3, 17, 5
    local formula = depth * (12 * d * d + 13 * d) + 48 * d + d + d + tokens * d + 2 * d + classes * (d + 1)
    for _, pool in ipairs { "gap", "cls" } do
        lu.assertEquals(m.vit.new(with(tiny, { classes = 5, pool = pool })):count(), formula)
    end
    lu.assertEquals(m.vit.new({ preset = "vit_ti16", classes = 7 }):count(), 5525767)
end

function TestModels:test_names_are_timm_s()
    local list = names(m.vit.new(with(tiny, { classes = 2, depth = 1 })))
    lu.assertEquals(list, {
        "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
        "blocks.0.norm1.weight", "blocks.0.norm1.bias",
        "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias",
        "blocks.0.attn.proj.weight", "blocks.0.attn.proj.bias",
        "blocks.0.norm2.weight", "blocks.0.norm2.bias",
        "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.bias",
        "blocks.0.mlp.fc2.weight", "blocks.0.mlp.fc2.bias",
        "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias",
    })
end

function TestModels:test_without_class_token()
    local model = m.vit.new(with(tiny, { cls_token = false, classes = 3 }), 0)
    lu.assertEquals(model.pos_embed.shape, { 1, 16, 24 })
    lu.assertEquals(model(m.zeros { 2, 3, 16, 16 }).shape, { 2, 3 })
    lu.assertErrorMsgContains("cls_token", m.vit.new, with(tiny, { cls_token = false, pool = "cls" }))
end

function TestModels:test_mae_without_class_token()
    local small = with(tiny, { decoder = { dim = 16, depth = 1, heads = 2 }, cls_token = false })
    local model = m.mae.new(small, 0)
    local images = m.rand_normal { 2, 3, 16, 16, seed = 1, stream = 1, step = 1 }
    local noise = m.rand_uniform { 2, 16, seed = 1, stream = 2, step = 1 }
    local latent, mask = model:encode(images, noise, 0.75)
    lu.assertEquals(latent.shape, { 2, 4, 24 })
    lu.assertEquals(mask:sum():item(), 24)
    local loss, pred = model(images, noise, { mask = 0.75, norm_pix = true, on = "masked" })
    lu.assertEquals(pred.shape, { 2, 16, 48 })
    loss:backward()
    for _, p in ipairs(model:parameters()) do
        lu.assertNotNil(p.tensor.grad, p.name)
        lu.assertTrue(p.name ~= "cls_token")
    end
    -- One row of positions less than with it, in encoder and decoder.
    lu.assertEquals({ model.pos_embed.shape[2], model.decoder_pos_embed.shape[2] }, { 16, 16 })
    local flops = require "mimic.flops"
    lu.assertTrue(flops.mae(small, 0.75).macs < flops.mae(with(small, { cls_token = true }), 0.75).macs)
end

function TestModels:test_gap_switches_change_the_feature()
    local images = m.rand_normal { 2, 3, 16, 16, seed = 1, stream = 1, step = 1 }
    local seen = {}
    for _, gap in ipairs {
        { include_cls = false, norm = "after" }, { include_cls = true, norm = "after" },
        { include_cls = false, norm = "before" },
    } do
        local r = m.vit.new(with(tiny, { gap = gap, dim = 24 }), 3):features(images)
        lu.assertEquals(r.shape, { 2, 24 })
        seen[#seen + 1] = r:tolist()[1][1]
    end
    lu.assertNotEquals(seen[1], seen[2])
    lu.assertNotEquals(seen[1], seen[3])
end

function TestModels:test_drop_path_only_in_training()
    local model = m.vit.new(with(tiny, { drop_path = 0.5 }), 0)
    lu.assertEquals(model.blocks["0"].drop_path, 0)
    lu.assertEquals(model.blocks["1"].drop_path, 0.25)
    lu.assertEquals(model.blocks["2"].drop_path, 0.5)
    local images = m.rand_normal { 8, 3, 16, 16, seed = 1, stream = 1, step = 1 }
    model:eval()
    local a, b = model:features(images):tolist(), model:features(images):tolist()
    lu.assertEquals(a, b)
    model:train()
    m.set_step(1)
    local c = model:features(images):tolist()
    lu.assertNotEquals(a, c)
    m.set_step(1)
    lu.assertEquals(model:features(images):tolist(), c)
end

function TestModels:test_initial_cross_entropy_is_log_k()
    local model = m.vit.new(with(tiny, { classes = 7 }), 5)
    local logits = model(m.rand_normal { 6, 3, 16, 16, seed = 2, stream = 1, step = 0 })
    local loss = m.cross_entropy(logits, m.tensor({ 0, 1, 2, 3, 4, 5 }, "i32")):item()
    lu.assertAlmostEquals(loss, math.log(7), 2e-3)
end

function TestModels:test_mae_masks_and_initial_loss()
    local model = m.mae.new(with(tiny, { decoder = { dim = 16, depth = 1, heads = 2 } }), 0)
    local images = m.rand_normal { 4, 3, 16, 16, seed = 2, stream = 1, step = 0 }
    m.set_step(3)
    local noise = model:noise(4)
    lu.assertEquals(noise.shape, { 4, 16 })
    local latent, mask, restore = model:encode(images, noise, 0.75)
    lu.assertEquals(latent.shape, { 4, 5, 24 })
    lu.assertEquals(mask:sum():item(), 48)
    local rows = restore:tolist()
    for b, row in ipairs(mask:tolist()) do
        for l, removed in ipairs(row) do lu.assertEquals(removed, rows[b][l] >= 4 and 1 or 0) end
    end
    local loss = model(images, noise, { mask = 0.75, norm_pix = true }):item()
    lu.assertTrue(loss > 0.8 and loss < 4, loss)
    local all = model(images, noise, { mask = 0.75, norm_pix = true, on = "all" }):item()
    lu.assertNotEquals(all, loss)
end

function TestModels:test_mae_pictures()
    local model = m.mae.new(with(tiny, { decoder = { dim = 16, depth = 1, heads = 2 } }), 0)
    local mean, std = { 0.5, 0.4, 0.3 }, { 0.2, 0.25, 0.3 }
    local images = m.zeros { 2, 3, 16, 16 } -- the mean colour
    local input, masked, output = model:visualise(images, model:noise(2),
        { mask = 0.75, norm_pix = false, mean = mean, std = std })
    lu.assertEquals(input.shape, { 2, 16, 16, 3 })
    lu.assertEquals(input.dtype, "u8")
    lu.assertEquals(input:tolist()[1][1][1], { 128, 102, 77 }) -- rounded to the nearest
    lu.assertEquals(masked.shape, output.shape)
end

local TestOptim = {}

function TestOptim:test_layer_ids()
    local id = m.optim.layer_id
    for name, expected in pairs {
        cls_token = 0, pos_embed = 0, ["patch_embed.proj.bias"] = 0, ["blocks.0.norm1.weight"] = 1,
        ["blocks.11.mlp.fc1.weight"] = 12, ["norm.weight"] = 13, ["fc_norm.bias"] = 13, ["head.weight"] = 13,
        ["proj_head.0.weight"] = 13,
    } do
        lu.assertEquals(id(name, 12), expected, name)
    end
end

function TestOptim:test_groups()
    local model = m.vit.new(with(tiny, { classes = 2 }))
    local by_name = {}
    for _, g in ipairs(m.optim.groups(model:parameters(), { weight_decay = 0.1, layer_decay = 0.5 })) do
        by_name[g.name] = g
    end
    lu.assertEquals(by_name.cls_token.weight_decay, 0)
    lu.assertEquals(by_name["head.bias"].weight_decay, 0)
    lu.assertEquals(by_name["head.weight"].weight_decay, 0.1)
    lu.assertEquals(by_name["head.weight"].lr_scale, 1)
    lu.assertEquals(by_name.pos_embed.lr_scale, 0.5 ^ 4)
    local decays = {}
    for _, g in ipairs(m.optim.groups(model:parameters(), { weight_decay = 0.1, exempt = "mae" })) do
        decays[g.name] = g.weight_decay
    end
    lu.assertEquals(decays.cls_token, 0.1)
    lu.assertEquals(decays["head.bias"], 0)
end

function TestOptim:test_frozen_parameters_stay()
    local model = m.vit.new(with(tiny, { classes = 2 }), 0):freeze("^blocks%.")
    local before = model.blocks["0"].mlp.fc1.weight:tolist()
    local optimizer = m.optim.new(model, { kind = "adamw", weight_decay = 0.5 })
    lu.assertNil(optimizer.index["blocks.0.mlp.fc1.weight"])
    local loss = m.cross_entropy(model(m.ones { 2, 3, 16, 16 }), m.tensor({ 0, 1 }, "i32"))
    loss:backward()
    optimizer:step(0.1)
    lu.assertEquals(model.blocks["0"].mlp.fc1.weight:tolist(), before)
end

local function descend(dtype)
    m.seed(0)
    local model = m.vit.new(with(tiny, { classes = 2 }), 0)
    local optimizer = m.optim.new(model, { kind = "adamw", bf16 = dtype == "bf16" })
    model:compute(dtype, optimizer)
    local images = m.rand_normal { 8, 3, 16, 16, seed = 2, stream = 1, step = 0 }
    local labels = m.tensor({ 0, 1, 0, 1, 0, 1, 0, 1 }, "i32")
    local first, last
    for step = 1, 12 do
        m.set_step(step)
        local scope <close> = m.scope() -- luacheck: ignore
        local loss = m.cross_entropy(model(images), labels)
        last = loss:item()
        first = first or last
        loss:backward()
        optimizer:step(1e-3)
    end
    return first, last
end

function TestOptim:test_training_lowers_the_loss_in_both_precisions()
    local first, last = descend "f32"
    lu.assertTrue(last < 0.9 * first, ("f32 %g -> %g"):format(first, last))
    local first16, last16 = descend "bf16"
    lu.assertAlmostEquals(first16, first, 0.02 * first)
    lu.assertAlmostEquals(last16, last, 0.1 * first)
end

local TestMixing = {}

function TestMixing:test_box_is_clipped_and_lam_corrected()
    local yl, yh, xl, xh, lam = m.mixing.box(0.35647, 24, 24, 5, 5) -- side int(24 * 0.802) = 19
    lu.assertEquals({ yl, yh, xl, xh }, { 0, 14, 0, 14 })
    lu.assertAlmostEquals(lam, 1 - 14 * 14 / 576, 1e-15)
end

function TestMixing:test_modes()
    local c = with(m.mixing.defaults, {})
    local plan = m.mixing.draw(6, c, m.rng(1, 2, 3), 16, 16)
    lu.assertEquals(plan.draws.partner, { 5, 4, 3, 2, 1, 0 })
    for i = 2, 6 do
        lu.assertEquals(plan.draws.lam[i], plan.draws.lam[1])
        lu.assertEquals(plan.draws.box[i], plan.draws.box[1])
    end
    lu.assertEquals(m.mixing.draw(6, c, m.rng(1, 2, 3), 16, 16).draws.lam, plan.draws.lam)
    c.mode = "elem"
    local elem = m.mixing.draw(6, c, m.rng(1, 2, 3), 16, 16).draws
    lu.assertNotEquals(elem.lam[1], elem.lam[2])
    c.mode = "pair"
    local pair = m.mixing.draw(6, c, m.rng(1, 2, 3), 16, 16).draws
    for i = 1, 3 do lu.assertEquals(pair.lam[i], pair.lam[7 - i]) end
    c.partner = "randperm"
    lu.assertErrorMsgContains("pair", m.mixing.draw, 6, c, m.rng(1, 2, 3), 16, 16)
    c.mode = "batch"
    local seen = {}
    for _, p in ipairs(m.mixing.draw(6, c, m.rng(1, 2, 3), 16, 16).draws.partner) do seen[p] = true end
    for p = 0, 5 do lu.assertTrue(seen[p]) end
end

function TestMixing:test_switches_off()
    local c = with(m.mixing.defaults, { prob = 0 })
    local plan = m.mixing.draw(3, c, m.rng(1, 2, 3), 8, 8)
    lu.assertEquals(plan.draws.lam, { 1, 1, 1 })
    local x = m.rand_normal { 3, 3, 8, 8, seed = 2, stream = 1, step = 0 }
    lu.assertEquals(m.mixing.images(x, plan):tolist(), x:tolist())
    c = with(m.mixing.defaults, { cutmix = 0, mode = "elem" })
    for _, cut in ipairs(m.mixing.draw(20, c, m.rng(1, 2, 3), 8, 8).draws.cutmix) do lu.assertFalse(cut) end
    c = with(m.mixing.defaults, { mixup = 0, mode = "elem" })
    for _, cut in ipairs(m.mixing.draw(20, c, m.rng(1, 2, 3), 8, 8).draws.cutmix) do lu.assertTrue(cut) end
end

os.exit(lu.LuaUnit.new():runSuiteByInstances {
    { "TestNn", TestNn }, { "TestModels", TestModels }, { "TestOptim", TestOptim },
    { "TestMixing", TestMixing },
})

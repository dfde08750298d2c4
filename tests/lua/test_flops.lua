-- Costs against method.md 4.5 (GFLOPs per picture at 224 pixels).
local m = require "mimic"
local lu = require "luaunit"
local flops = require "mimic.flops"

local TestFlops = {}

local function giga(x) return tonumber(("%.3f"):format(x / 1e9)) end

function TestFlops.test_encoders()
    local want = { vit_s16 = { 9.197, 27.475 },
        vit_b16 = { 35.126, 105.147 }, vit_l16 = { 123.107, 369.014 } }
    for preset, pair in pairs(want) do
        local count = flops.vit({ preset = preset }, 0)
        lu.assertAlmostEquals(2 * count.macs / 1e9, pair[1], 1.1e-3)
        lu.assertAlmostEquals(flops.train(count) / 1e9, pair[2], 1.1e-3)
    end
    lu.assertEquals(giga(2 * flops.vit({ preset = "vit_ti16" }, 7).macs), 2.507)
end

-- The table counts the patch embedding of all 196 patches, as the reference computes it; here only the kept
-- 49 are embedded (its second pair of numbers for MAE).
function TestFlops.test_pretraining()
    local base = { preset = "vit_b16", decoder = { dim = 512, depth = 8, heads = 16 } }
    local mae = flops.mae(base, 0.75)
    lu.assertEquals({ giga(2 * mae.macs), giga(flops.train(mae)) }, { 19.389, 58.109 })
    local left_out = 147 * 768 * 768
    local local_mim = flops.localmim({ preset = "vit_b16", bins = 9,
        decoder = { dim = 256, depth = 1, heads = 8 } }, 0.75)
    lu.assertAlmostEquals(2 * (local_mim.macs + left_out) / 1e9, 10.47, 5e-3)
    lu.assertAlmostEquals((flops.train(local_mim) + 4 * left_out) / 1e9, 31.17, 5e-3)
    lu.assertAlmostEquals(flops.moco { preset = "vit_b16", mlp_dim = 4096, out_dim = 256 } / 1e9, 280.4, 0.1)
end

function TestFlops.test_finetuning_counts_passes()
    local function per_picture(preset, proj)
        local c = m.task.merge(m.finetune.defaults_of { preset = preset })
        c.proj.kind = proj or "none"
        return flops.picture("finetune", c, 0) / flops.train(flops.vit(c.model, 0))
    end
    lu.assertEquals({ per_picture "ce", per_picture "scl", per_picture "mimic", per_picture "mimic-alg" },
        { 2, 2, 4, 2 })
    lu.assertTrue(per_picture("mimic", "dense") > 4)
    lu.assertTrue(per_picture "linear-probe" < 0.4) -- forward only
end

function TestFlops.test_a_run_counts_whole_batches()
    local c = m.pretrain.defaults_of { method = "supervised" }
    c.data = m.task.merge(c.data, { train = "nowhere" })
    c.batch, c.repeats, c.epochs = 30, 3, 6
    lu.assertNil(flops.run("pretrain", c))
    flops.expect("nowhere", 45, 10)
    -- 45 pictures, 10 a batch, each three times: 4 batches of 30 in each of two passes.
    lu.assertAlmostEquals(flops.run("pretrain", c) / flops.train(flops.vit(c.model, 10)), 2 * 4 * 30, 1e-6)
    lu.assertEquals(flops.time(7200), "2.0 h")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestFlops", TestFlops } })

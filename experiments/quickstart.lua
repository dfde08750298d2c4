-- The method in three minutes on two cores: a small Vision Transformer learns to fill in masked pictures,
-- then
-- learns facial expressions from labelled faces, once with cross-entropy and once with the mix-supervised
-- contrastive loss beside it; and from random weights for comparison.
--   mimic run experiments/quickstart.lua seeds=[0,1,2]
local m = require "mimic"
local exp = m.experiment "quickstart"

local vit = { preset = false, img = 32, patch = 4, dim = 96, depth = 4, heads = 3, drop_path = 0,
    decoder = { dim = 64, depth = 2, heads = 4 } } -- the decoder is for pre-training only
local base = m.config {
    seeds = { 0 },
    synth = { dir = "data/synth", seed = 0, size = 48, general_train = 3000, general_val = 200,
        faces_train = 1200,
        faces_test = 400 },
    pretrain = {
        model = vit, epochs = 12, warmup = 2, batch = 64, lr = 1.5e-3, mask = 0.75,
        checkpoint_epochs = 4, data = { cache = 64 }, precision = "bf16",
    },
    finetune = {
        model = vit, epochs = 10, warmup = 1, batch = 32, lr = 1e-3, layer_decay = 0.75,
        checkpoint_epochs = 5, data = { cache = 64 }, precision = "bf16",
    },
    report = "results/report.html",
}

-- General pictures in ImageNet folders, faces as RAF-DB comes.
m.synth(base.synth)
local general = { train = base.synth.dir .. "/general/train", val = base.synth.dir .. "/general/val",
    name = "general" }
local faces = {
    train = { path = base.synth.dir .. "/faces", split = "train" },
    test = { path = base.synth.dir .. "/faces", split = "test" }, name = "faces",
}
local tuning = base.finetune:with { data = faces }

-- 1. Masked image modelling: three quarters of the patches are removed and reconstructed.
local mae = exp:run { kind = "pretrain", name = "mae", seeds = base.seeds,
    config = base.pretrain:with { data = general } }

-- 2. Fine-tuning with L = CE + 0.1 MSCL, against CE alone and against no pre-training.
local rows = {
    { "scratch + ce", exp:run { kind = "finetune", name = "scratch + ce", seeds = base.seeds,
        config = tuning:with { preset = "ce", layer_decay = 1 } } },
    { "mae + ce", exp:run { kind = "finetune", name = "mae + ce", seeds = base.seeds, parent = mae,
        config = tuning:with { preset = "ce" } } },
    { "mae + ce + mscl", exp:run { kind = "finetune", name = "mae + ce + mscl", seeds = base.seeds,
        parent = mae,
        config = tuning:with { preset = "mimic" } } },
}

-- 3. What came out.
print(("%-18s %-16s %s"):format("", "accuracy", "last epoch"))
for _, row in ipairs(rows) do
    print(("%-18s %-16s %s"):format(row[1], row[2]:summary("faces", "test", "acc"), row[2]:summary("faces",
        "test", "acc_last")))
end
local runs = { mae }
for _, row in ipairs(rows) do runs[#runs + 1] = row[2] end
print("report: " .. m.report { out = base.report, title = "MIMIC quickstart", runs = runs })

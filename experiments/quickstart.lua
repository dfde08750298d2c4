-- The method in three minutes on two cores. A small Vision Transformer learns to fill in masked pictures,
-- then facial expressions from labelled faces: with cross-entropy alone, and with the mix-supervised
-- contrastive loss beside it; from random weights for comparison.
--   mimic run experiments/quickstart.lua seeds=[0,1,2]
local m = require "mimic"
local exp = m.experiment "quickstart"

local vit = {
    preset = false, img = 48, patch = 8, dim = 128, depth = 2, heads = 4, drop_path = 0,
    decoder = { dim = 64, depth = 1, heads = 4 }, -- for pre-training only
}
local base = m.config {
    seeds = { 0 },
    synth = {
        dir = "data/synth", seed = 0, size = 48, general_train = 3000, general_val = 200, faces_train = 3000,
        faces_test = 500,
    },
    pretrain = {
        model = vit, mask = 0.75, epochs = 15, warmup = 2, batch = 64, lr = 1.5e-3,
        augment = { scale = { 0.4, 1 } }, precision = "bf16", checkpoint_epochs = 5,
        data = { cache = 64 },
    },
    finetune = {
        model = vit, epochs = 10, warmup = 1, batch = 16, lr = 5e-4, layer_decay = 0.75, weight_decay = 0,
        head = { std = 0.02 }, augment = { crop = false }, precision = "bf16", checkpoint_epochs = 2,
        data = { cache = 64 },
    },
    report = "results/report.html",
}

-- General pictures in ImageNet folders, faces as RAF-DB comes.
m.synth(base.synth)
local dir = base.synth.dir
local pretraining = base.pretrain:with {
    data = { train = dir .. "/general/train", val = dir .. "/general/val", name = "general" },
}
local tuning = base.finetune:with {
    data = {
        name = "faces", train = { path = dir .. "/faces", split = "train" },
        test = { path = dir .. "/faces", split = "test" },
    },
}

-- 1. Masked image modelling: three quarters of the patches are removed and reconstructed.
local mae = exp:run { kind = "pretrain", name = "mae", seeds = base.seeds, config = pretraining }

-- 2. Fine-tuning with L = CE + 0.1 MSCL; with CE alone; with CE alone and no pre-training (then all layers
-- learn at the full rate).
local function tune(name, preset, parent)
    return exp:run {
        kind = "finetune", name = name, seeds = base.seeds, parent = parent,
        config = tuning:with { preset = preset, layer_decay = parent and tuning.layer_decay or 1 },
    }
end
local rows = {
    tune("scratch + ce", "ce"), tune("mae + ce", "ce", mae), tune("mae + ce + mscl", "mimic", mae),
}

-- 3. What came out.
print(("%-18s %-18s %s"):format("accuracy", "best epoch", "last epoch"))
for _, runs in ipairs(rows) do
    print(("%-18s %-18s %s"):format(runs[1].name, runs:summary("faces", "test", "acc"),
        runs:summary("faces", "test", "acc_last")))
end
print("report: " .. m.report { out = base.report, title = "MIMIC quickstart", runs = { mae, rows } })

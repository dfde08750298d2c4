-- MIMIC at 48 pixels: masked pre-training on general pictures, fine-tuning on FERPlus faces. The recipe is
-- fixed; the comparable figure is the test accuracy after the last epoch (the best epoch stands beside it).
--   mimic run experiments/ferplus48.lua data.root=packs seeds=[0,1,2]
-- The folder holds tiny64_train, ferplus48_train and ferplus48_test, each a .tar with its .csv.
local m = require "mimic"
local exp = m.experiment "ferplus48"

local vit = { preset = false, img = 48, patch = 6, dim = 128, depth = 6, heads = 4, drop_path = 0,
    cls_token = false,
    decoder = { dim = 64, depth = 2, heads = 4 } } -- the decoder is for pre-training only
-- Without pre-training the encoder starts as pre-training does: Xavier weights, fixed sine-cosine positions.
local tuned = { init = "mae", pos = "sincos" }
for key, value in pairs(vit) do tuned[key] = value end
local base = m.config {
    seeds = { 0 },
    data = { root = "data/packs" },
    dtype = "bf16",
    rows = { "scratch-ce", "mae-ce", "mae-scl", "mae-mimic" },
    pretrain = {
        model = vit, mask = 0.75, norm_pix = true, epochs = 60, warmup = 6, batch = 256,
        opt = "adamw", betas = { 0.9, 0.95 }, lr = 1e-3, weight_decay = 0.05,
        augment = { scale = { 0.2, 1 } }, data = { cache = 256 }, checkpoint_epochs = 5,
    },
    finetune = {
        model = tuned, proj = { kind = "dense", dim = 128 }, mscl = { weight = 0.1, tau = 0.07 },
        epochs = 20, warmup = 2, batch = 64,
        opt = "adam", lr = 1e-3, min_lr = 0, layer_decay = 0.75, weight_decay = 5e-4,
        augment = { scale = { 0.67, 1 } }, data = { cache = 256, label_column = "label" },
    },
    report = "results/ferplus48.html",
}

local root = base.data.root
for _, pack in ipairs { "tiny64_train", "ferplus48_train", "ferplus48_test" } do
    local path = root .. "/" .. pack .. ".tar"
    if not m.sys.realpath(path) then error(path .. " is not there: data.root=DIR names the folder of the packs", 0) end
end
local pretraining = base.pretrain:with {
    precision = base.dtype, data = { train = root .. "/tiny64_train.tar" },
}
local tuning = base.finetune:with {
    precision = base.dtype,
    data = { train = root .. "/ferplus48_train.tar", test = root .. "/ferplus48_test.tar" },
}

local wanted = {}
for _, name in ipairs(base.rows) do wanted[name] = true end

local mae
if wanted["mae-ce"] or wanted["mae-scl"] or wanted["mae-mimic"] then
    mae = exp:run { kind = "pretrain", name = "mae", seeds = base.seeds, config = pretraining }
end
local recipes = {
    { "scratch-ce", tuning:with { preset = "ce", lr = 5e-4, layer_decay = 1 } },
    { "mae-ce", tuning:with { preset = "ce" }, mae },
    { "mae-scl", tuning:with { preset = "scl" }, mae },
    { "mae-mimic", tuning:with { preset = "mimic" }, mae },
}

local runs, lines = { mae }, {}
for _, r in ipairs(recipes) do
    if wanted[r[1]] then
        local group = exp:run { kind = "finetune", name = r[1], seeds = base.seeds, config = r[2],
            parent = r[3] }
        runs[#runs + 1] = group
        lines[#lines + 1] = ("%-12s %-16s %s"):format(r[1], group:summary("ferplus48", "test", "acc_last"),
            group:summary("ferplus48", "test", "acc"))
    end
end
print(("%-12s %-16s %s"):format("", "last epoch", "best epoch"))
print(table.concat(lines, "\n"))
print("report: " .. m.report { out = base.report, title = "MIMIC on FERPlus, 48 pixels", runs = runs })

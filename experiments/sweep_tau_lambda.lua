-- The method's two knobs (Fig. 6 of the paper): temperature tau and weight lambda of the mix-supervised contrastive
-- loss in L = CE + lambda MSCL, as a grid over three seeds, on pictures that are drawn first.
--   mimic sweep experiments/sweep_tau_lambda.lua --workers 2
--   mimic sweep experiments/sweep_tau_lambda.lua size=smoke          seconds: to see that all is in place
--   mimic sweep show tau-lambda
local m = require "mimic"
local exp = m.experiment "tau-lambda"

local vit = { preset = false, img = 48, patch = 8, dim = 128, depth = 2, heads = 4, drop_path = 0,
    decoder = { dim = 64, depth = 1, heads = 4 } }
local base = m.config {
    size = m.one_of { "small", "smoke" },
    seeds = { 0, 1, 2 }, tau = { 0.01, 0.03, 0.07, 0.1, 0.5 }, lambda = { 0.01, 0.05, 0.1, 0.5, 1 },
    synth = { dir = "data/synth", seed = 0, size = 48, general_train = 3000, general_val = 200, faces_train = 3000,
        faces_test = 500 },
    pretrain = { model = vit, epochs = 15, warmup = 2, batch = 64, lr = 1.5e-3, augment = { scale = { 0.4, 1 } },
        checkpoint_epochs = 5 },
    finetune = { preset = "mimic", model = vit, epochs = 10, warmup = 1, batch = 16, lr = 5e-4, layer_decay = 0.75,
        weight_decay = 0, head = { std = 0.02 }, augment = { crop = false } },
    report = "results/tau_lambda.html",
}
if base.size == "smoke" then
    local few = { epochs = 1, warmup = 0, batch = 8, model = { img = 32, dim = 32, depth = 1 } }
    base = base:with { seeds = { 0, 1 }, tau = { 0.07, 0.5 }, lambda = { 0.1, 1 }, pretrain = few, finetune = few,
        synth = { dir = "data/sweep_smoke", size = 32, general_train = 24, general_val = 8,
            faces_train = 24, faces_test = 16 } }
end

m.synth(base.synth)
local dir = base.synth.dir

-- 1. Masked image modelling, once per seed.
local mae = exp:run { kind = "pretrain", name = "mae", seeds = base.seeds, config = base.pretrain:with {
    data = { train = dir .. "/general/train", val = dir .. "/general/val", name = "general" } } }

-- 2. Fine-tuning at every point of the grid, from the pre-trained weights of the same seed.
local sweep = exp:sweep {
    name = "tau-lambda", kind = "finetune", parent = mae, seeds = base.seeds, metric = "faces/test/acc_last",
    base = base.finetune:with { data = { name = "faces", train = { path = dir .. "/faces", split = "train" },
        test = { path = dir .. "/faces", split = "test" } } },
    space = { mscl = { tau = m.choice(base.tau), weight = m.choice(base.lambda) } },
}

-- 3. What came out: accuracy after the last epoch, mean over the seeds, best first.
print("tau    lambda  accuracy")
for _, p in ipairs(sweep:points()) do
    local acc = sweep:runs(p):summary("faces", "test", "acc_last")
    print(("%-6g %-7g %s"):format(p.params["mscl.tau"], p.params["mscl.weight"], acc))
end
print("report: " .. m.report { out = base.report, title = "tau and lambda", runs = { mae } })

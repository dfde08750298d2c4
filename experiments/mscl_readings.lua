-- Our own ablation: the paper leaves open what the mix-supervised contrastive loss contrasts. "eq" reads
-- Eq. 11-13 by the letter (un-mixed anchors, mixed candidates), "alg" reads Algorithm 1 (only mixed views
-- are encoded); the other rows change one switch of "eq". The paper has no numbers for any of this.
--   mimic run experiments/mscl_readings.lua data.root=DIR  (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local readings = m.paper "mscl_readings"

local rows = {
    { "eq", { preset = "mimic" } },
    { "alg", { preset = "mimic-alg" } },
    { "eq, CE on clean and mixed", { ce = { on = "both" } } },
    { "one lambda per view", { mix = { mode = "elem" } } },
    { "random partner", { mix = { partner = "randperm" } } },
    { "Mixup only", { mix = { cutmix = 0 } } },
    { "CutMix only", { mix = { mixup = 0 } } },
    { "candidates with the anchor", { mscl = { exclude_self = false } } },
    { "clean candidates too", { mscl = { candidates = "mixed+clean" } } },
    { "distance l1", { mscl = { dist = "l1" } } },
    { "distance l2", { mscl = { dist = "l2" } } },
    { "positives must look alike", { mscl = { visual_gate = "cosine" } } },
    { "anchors without positives left out", { mscl = { empty = "skip" } } },
}
local mae = readings:pretrain "mae"
for row, change in m.paper.pairs(rows) do readings:finetune(row, mae, change) end
readings:report()

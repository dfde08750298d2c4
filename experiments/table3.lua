-- Table III: the projection head between features and contrastive loss. The paper finds dense (linear -
-- ReLU - linear) best on all three sets, and a linear head worse than none: RAF-DB 87.68 none, 87.18
-- linear, 89.02 dense.
--   mimic run experiments/table3.lua data.root=DIR         (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local table3 = m.paper "table3"

local mae = table3:pretrain "mae"
for _, kind in ipairs { "none", "linear", "dense" } do
    table3:finetune(kind, mae, { preset = "mimic", proj = { kind = kind } })
end
table3:report()

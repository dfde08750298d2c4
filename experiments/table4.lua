-- Table IV: what the classifier and the projection read. The paper finds the mean of the patch tokens
-- better than the class token by 2.64 points on RAF-DB, 1.66 on FERPlus, 1.68 on AffectNet, from the same
-- pre-training.
--   mimic run experiments/table4.lua data.root=DIR         (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local table4 = m.paper "table4"

local mae = table4:pretrain "mae"
for row, pool in m.paper.pairs { { "class token", "cls" }, { "global average pooling", "gap" } } do
    table4:finetune(row, mae, { preset = "mimic", model = { pool = pool } })
end
table4:report()

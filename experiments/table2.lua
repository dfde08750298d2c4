-- Table II: what the pre-training and what the loss are worth. The paper finds that masked image modelling
-- beats supervised pre-training under every loss, and MSCL beats SCL beats CE under both: RAF-DB 87.33
-- (supervised, CE) to 89.02 (MIM, CE + MSCL), FERPlus 87.91 to 89.74, AffectNet 60.05 to 65.35.
--   mimic run experiments/table2.lua data.root=DIR         (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local table2 = m.paper("table2", { reads = { "supervised" } })

for pretraining, method in m.paper.pairs { { "supervised", "supervised" }, { "MIM", "mae" } } do
    local parent = table2:pretrain(method)
    for loss, preset in m.paper.pairs { { "CE", "ce" }, { "CE + SCL", "scl" }, { "CE + MSCL", "mimic" } } do
        table2:finetune(pretraining .. ", " .. loss, parent, { preset = preset })
    end
end
table2:report()

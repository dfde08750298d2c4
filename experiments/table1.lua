-- Table I: MIMIC beside the state of the art. The paper finds for ViT-B/16 89.02 % on RAF-DB, 89.74 % on
-- FERPlus, 65.35 % on AffectNet, and for ViT-L/16 91.26, 91.14 and 65.62 %; on RAF-DB the ViT-B row is
-- below EAC and APVIT. The other methods' rows are quoted in the paper's table and not run.
--   mimic run experiments/table1.lua data.root=DIR         (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local table1 = m.paper "table1"

for row, model in m.paper.pairs { { "MIMIC ViT-B/16", "base" }, { "MIMIC ViT-L/16", "large" } } do
    table1:finetune(row, table1:pretrain("mae", { model = model }), { preset = "mimic" }, { model = model })
end
table1:report()

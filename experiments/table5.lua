-- Table V: what MAE is pre-trained on. The paper finds general pictures (ImageNet-1K) better than faces
-- (MS-Celeb-1M): 89.02 against 86.18 on RAF-DB, 89.74 against 87.35 on FERPlus, 65.35 against 61.62 on
-- AffectNet. Its epochs on faces are not given; here both see as many updates.
--   mimic run experiments/table5.lua data.root=DIR         (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local table5 = m.paper("table5", { reads = { "celebrities" } })

local rows = { { "MAE on MS-Celeb-1M", "celebrities" }, { "MAE on ImageNet-1K", "general" } }
for row, data in m.paper.pairs(rows) do
    table5:finetune(row, table5:pretrain("mae", { data = data }), { preset = "mimic" })
end
table5:report()

-- Figure 5: five ways to the same classifier. The paper's bars (without numbers) say: MoCo v3, MAE and
-- LocalMIM beat supervised pre-training on RAF-DB and AffectNet; on FERPlus MoCo v3 and LocalMIM do not;
-- MIMIC is highest everywhere. All but MIMIC are fine-tuned with CE. MoCo v3 contrasts within 512 pictures
-- here, within 4,096 as published.
--   mimic run experiments/fig5.lua data.root=DIR           (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local fig5 = m.paper("fig5", { reads = { "supervised" } })

local bars = {
    { "supervised", "supervised" }, { "MoCo v3", "moco" }, { "MAE", "mae" }, { "LocalMIM", "localmim" },
}
for row, method in m.paper.pairs(bars) do
    fig5:finetune(row, fig5:pretrain(method), { preset = "ce" })
end
fig5:finetune("MIMIC", fig5:pretrain "mae", { preset = "mimic" })
fig5:report()

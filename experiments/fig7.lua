-- Figure 7: t-SNE maps of the features of the FERPlus validation pictures under four models. The paper
-- shows, in pictures alone, classes that are best separated for MIMIC; here silhouette and 20-nearest-
-- neighbour accuracy say it in numbers. (a) a classifier on the frozen MAE encoder, (b) no pre-training,
-- (c) supervised pre-training, (d) MIMIC.
--   mimic run experiments/fig7.lua data.root=DIR           (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local fig7 = m.paper("fig7", { sets = { "ferplus", "faces" }, reads = { "val", "supervised" } })

local mae = fig7:pretrain "mae"
local models = {
    { "linear probe", mae, "linear-probe" }, { "from scratch", nil, "mimic" },
    { "supervised", fig7:pretrain "supervised", "mimic" }, { "MIMIC", mae, "mimic" },
}
for i = 1, 4 do
    local row, parent, preset = models[i][1], models[i][2], models[i][3]
    fig7:embed(row, fig7:finetune(nil, parent, { preset = preset }))
end
fig7:report()

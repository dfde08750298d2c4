-- Figure 6: one factor at a time around the defaults, on RAF-DB and FERPlus. The paper's curves (without
-- numbers) have their best at d = 128 (RAF-DB) and 512 (FERPlus), B = 64, alpha = 0.1, tau = 0.07. The
-- learning rate stays as it is when B changes. Other values, or an axis left out: grid.tau=[0.05,0.2] grid.d=[]
--   mimic run experiments/fig6.lua data.root=DIR           (scale=small: packs; scale=smoke: seconds)
local m = require "mimic"
local fig6 = m.paper("fig6", { sets = { "rafdb", "ferplus" } })

local axes = {
    { "d", function(v) return { proj = { dim = v } } end },
    { "B", function(v) return { batch = v } end },
    { "alpha", function(v) return { mscl = { weight = v } } end },
    { "tau", function(v) return { mscl = { tau = v } } end },
}
local mae = fig6:pretrain "mae"
for axis, change in m.paper.pairs(axes) do
    for _, value in ipairs(fig6.grid[axis]) do
        fig6:finetune(("%s = %g"):format(axis, value), mae, change(value))
    end
end
fig6:report()

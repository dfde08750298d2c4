-- The golden vectors on the CUDA device: forward passes, gradients and whole training steps of the reference
-- implementations against the CUDA backend, one process for each file.
local lfs = require "lfs"
local lu = require "luaunit"

local source = os.getenv "MIMIC_SOURCE"
package.path = source .. "/tests/cli/?.lua;" .. package.path
local shell = require "shell"

shell.wants_gpu()

local TestGolden = {}

for file in lfs.dir(source .. "/tests/golden") do
    local stem = file:match "^(.*)%.safetensors$"
    if stem then
        TestGolden["test_" .. stem] = function()
            local folder = source .. "/tests/golden/"
            local code, out, err = shell.run(".", ("%srun.lua %s%s"):format(folder, folder, file),
                "MIMIC_DEVICE=cuda MIMIC_THREADS=1")
            lu.assertEquals(code, 0, out .. err)
            lu.assertStrContains(out, ", 0 failed")
        end
    end
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestGolden", TestGolden } }, true)

-- The compile gate: reads what ptxas said of every kernel of the CUDA module (engine/backend/cuda/record.sh keeps
-- it) and fails on spills and on more registers than the kernel's budget.
--     mimic registers.lua BUILD-FOLDER
local lfs = require "lfs"

local default = 64 -- registers of a thread: eight blocks of 128 threads on a multiprocessor
local budgets = { -- part of a kernel's name -> registers, for those that are worth more
    mma_forward = 160, -- 16 rows of a head, their scores and their sums in registers
    mma_backward = 224, -- 128 for 13 warps; for wide heads one block of 224 threads: 255 would fit
    norm_bwd_rows = 172, -- two rows and their sums of columns
    softmax_bwd_rows = 100, l2norm_bwd_rows = 100, mse_rows = 92, mse_bwd_rows = 92, -- two rows
    ce_rows = 84, ce_bwd_rows = 84,
    augment_viewsILb0 = 80, augment_viewsILb1 = 128, -- plain, with RandAugment: three, two blocks of 256
}

local function walk(dir, found)
    for name in lfs.dir(dir) do
        local path = dir .. "/" .. name
        if name:match("%.ptxas$") then
            found[#found + 1] = path
        elseif name:sub(1, 1) ~= "." and lfs.attributes(path, "mode") == "directory" then
            walk(path, found)
        end
    end
    return found
end

local function budget(kernel)
    for part, registers in pairs(budgets) do
        if kernel:find(part, 1, true) then return registers end
    end
    return default
end

--- Complaints about one log, and the number of kernels in it.
---@param text string
---@return string[] complaints, integer kernels
local function check(text)
    local kernel, arch
    local bad, n = {}, 0
    for line in text:gmatch("[^\n]+") do
        local name, target = line:match("Compiling entry function '([^']+)' for '([^']+)'")
        if name then
            kernel, arch, n = name, target, n + 1
        end
        local stores, loads = line:match("(%d+) bytes spill stores, (%d+) bytes spill loads")
        if stores and kernel and (stores ~= "0" or loads ~= "0") then
            bad[#bad + 1] = ("%s (%s): spills: %s"):format(kernel, arch, line:match("^%s*(.*)"))
        end
        local used = tonumber(line:match("Used (%d+) registers"))
        if used and kernel and used > budget(kernel) then
            bad[#bad + 1] = ("%s (%s): %d registers, budget %d"):format(kernel, arch, used, budget(kernel))
        end
    end
    return bad, n
end

-- The gate itself: a log with a spill and one register too many is refused.
local planted = "ptxas info    : Compiling entry function 'k' for 'sm_90a'\n"
    .. "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
    .. "ptxas info    : Used 65 registers, used 0 barriers\n"
assert(#check(planted) == 2, "the gate does not see a planted spill")

local logs, kernels, complaints = walk(arg[1], {}), 0, {}
for _, path in ipairs(logs) do
    local f <close> = assert(io.open(path)) -- luacheck: ignore
    local bad, n = check(f:read("a"))
    kernels = kernels + n
    table.move(bad, 1, #bad, #complaints + 1, complaints)
end
assert(kernels > 0, "no kernel in " .. arg[1])
print(("%d kernels in %d files"):format(kernels, #logs))
for _, line in ipairs(complaints) do print(line) end
os.exit(#complaints == 0)

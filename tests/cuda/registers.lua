-- The compile gate: reads what ptxas said of every kernel of the CUDA module (engine/backend/cuda/record.sh keeps
-- it) and fails on spills, on more registers than the kernel's budget, and on a source whose log is missing.
--     mimic registers.lua BUILD-FOLDER SOURCE-FOLDER
local lfs = require "lfs"

-- Registers of a thread. A multiprocessor has 65,536 of them, handed out in eights.
local default = 64 -- eight blocks of 128 threads
local budgets = { -- a kernel's name, or its name and first template argument -> those that are worth more
    mma_forward = 144, -- 16 rows of a head, their scores and their sums in registers; two blocks of 224 threads
    ["mma_forward<80>"] = 168, -- one such block, as shared memory has it; three of 128 threads
    mma_backward = 224, -- 128 for 13 warps; for wide heads one block of 224 threads: 255 would fit
    norm_bwd_rows = 172, -- two rows and their sums of columns
    softmax_bwd_rows = 100, l2norm_bwd_rows = 100, mse_rows = 92, mse_bwd_rows = 92, -- two rows
    ce_rows = 84, ce_bwd_rows = 84,
    ["augment_views<0>"] = 80, ["augment_views<1>"] = 128, -- plain, with RandAugment: three, two blocks of 256
}

local function walk(dir, pattern, found)
    for name in lfs.dir(dir) do
        local path = dir .. "/" .. name
        if name:match(pattern) then
            found[#found + 1] = path
        elseif name:sub(1, 1) ~= "." and lfs.attributes(path, "mode") == "directory" then
            walk(path, pattern, found)
        end
    end
    return found
end

--- The budget of a kernel by the name that the compiler gave it: _Z, length, name, I and its template arguments.
local function budget(symbol)
    local length, rest = symbol:match("^_Z(%d+)(.*)")
    local name = length and rest:sub(1, tonumber(length)) or symbol
    local argument = length and rest:sub(tonumber(length) + 1):match("^IL%a(%d+)E")
    return argument and budgets[("%s<%s>"):format(name, argument)] or budgets[name] or default
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

--- Complaints about sources whose kernels no log names.
---@param logs table<string, integer> kernels in the log of a source, by the source's name
---@param sources table<string, string> texts by name
local function missing(logs, sources)
    local bad = {}
    for name, text in pairs(sources) do
        if not logs[name] or (logs[name] == 0 and text:find("__global__", 1, true)) then
            bad[#bad + 1] = name .. ": no log of ptxas names its kernels: build the CUDA module anew"
        end
    end
    table.sort(bad)
    return bad
end

local function read(path)
    local f <close> = assert(io.open(path)) -- luacheck: ignore
    return f:read("a")
end

-- The gate itself: a log with a spill and one register too many is refused, a kernel has the budget of its own
-- name alone, and a source without a log is missed.
local planted = "ptxas info    : Compiling entry function 'k' for 'sm_90a'\n"
    .. "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
    .. "ptxas info    : Used 65 registers, used 0 barriers\n"
assert(#check(planted) == 2, "the gate does not see a planted spill")
for symbol, registers in pairs {
    _Z15l2norm_bwd_rowsIf4formILi1ELi0ELi256EEEvPKT_S4_PKfPS2_llf = 100, _Z13norm_bwd_rowsIfEvPKT_ = 172,
    _Z11mma_forwardILi64EEvPK13__nv_bfloat16PS0_Pf5place = 144,
    _Z11mma_forwardILi80EEvPK13__nv_bfloat16PS0_Pf5place = 168,
    _Z13augment_viewsILb0EEvPKhS1_miPfPh6layout = 80, _Z13augment_viewsILb1EEvPKhS1_miPfPh6layout = 128,
    _Z11anchor_rowsPfPKhS1_S_Pil = default, _Z7mma_for = default,
} do
    assert(budget(symbol) == registers, symbol)
end
assert(#missing({ ["a.cu"] = 3, ["b.cu"] = 0 }, { ["a.cu"] = "__global__", ["b.cu"] = "int b;" }) == 0)
assert(#missing({ ["b.cu"] = 0 }, { ["a.cu"] = "__global__", ["b.cu"] = "__global__" }) == 2, "a log is not missed")

local logs, sources, kernels, complaints = {}, {}, 0, {}
for _, path in ipairs(walk(arg[1], "%.ptxas$", {})) do
    local bad, n = check(read(path))
    kernels = kernels + n
    logs[path:match("([^/]*)%.o%.ptxas$") or path] = n
    table.move(bad, 1, #bad, #complaints + 1, complaints)
end
local paths = walk(arg[2], "%.cu$", {})
assert(#paths > 0, "no .cu file in " .. arg[2])
for _, path in ipairs(paths) do sources[path:match("[^/]*$")] = read(path) end
local lost = missing(logs, sources)
table.move(lost, 1, #lost, #complaints + 1, complaints)
print(("%d kernels in %d files"):format(kernels, #paths))
for _, line in ipairs(complaints) do print(line) end
os.exit(#complaints == 0)

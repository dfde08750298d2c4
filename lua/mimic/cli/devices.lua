-- mimic devices: what there is to compute on.
local m = require "mimic"
local cli = require "mimic.cli"

local command = {
    summary = "what there is to compute on",
    description = [[
Lists the processor as the engine sees it (model, cores, threads in use, instruction set,
memory) and the GPU, or in one line why there is none to use.

Where a run computes is its key device; on a GPU, where its pictures are augmented is
data.device: auto (on the GPU; a set that fits into a quarter of the free memory stays
there), off (on the CPU), stream (on the GPU, sent with each batch), keep (on the GPU,
kept there or refused). The numbers are the same.]],
    examples = [[
  mimic devices
  MIMIC_CUDA=/opt/mimic/libmimic_cuda.so mimic devices
  MIMIC_THREADS=1 MIMIC_ISA=avx2 mimic devices]],
}

function command.configure() end

function command.run()
    local env = require("mimic.environment").hardware()
    print("cpu")
    for _, row in ipairs {
        { "model", env.cpu }, { "cores", env.cores }, { "threads", env.threads }, { "kernels", env.isa },
        { "memory", env.memory_mib and ("%.1f GiB"):format(env.memory_mib / 1024) },
    } do
        print(("  %-8s %s"):format(row[1], tostring(row[2] or "unknown")))
    end
    for _, d in ipairs(m.devices()) do
        if d.name ~= "cpu" then print(d.about and d.name .. "\n  " .. d.about or d.missing) end
    end
    return cli.DONE
end

return command

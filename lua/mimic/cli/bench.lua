-- mimic bench: how fast this machine trains, against what it could do.
local cli = require "mimic.cli"
local tables = require "mimic.format"

local command = {
    summary = "how fast this machine trains, against its measured peak",
    description = [[
Measures training steps (forward, backward, AdamW) of the reference models in f32 and
bf16, matrix products and element-wise kernels. The floors are measured in the same run:
peak by a matrix product that stays in cache, bandwidth as the fastest of reading, copying
and scaling arrays of the kernel's own size with all threads.]],
    examples = [[
  mimic bench --quick
  mimic bench --only vit-s
  mimic bench --only gemm --json]],
}

function command.configure(p)
    p:flag("--quick"):description("small models and short measurements only")
    p:option("--only"):argname("NAME")
        :description("a model (vit-ti, vit-s, vit-b, mae-b, tiny) or a part (models, gemm, kernels)")
    p:option("--dtype"):argname("TYPE"):description("f32, bf16 or both")
        :choices({ "f32", "bf16", "both" }):default("both")
    tables.options(p)
end

function command.run(args)
    local bench = require "mimic.bench"
    if args.only and not bench.known(args.only) then
        local hint = require("mimic.suggest").hint(args.only, bench.names())
        cli.fail(cli.USAGE, "no measurement '%s'%s", args.only, hint)
    end
    bench.run { quick = args.quick, only = args.only, dtype = args.dtype, form = tables.chosen(args) }
    return cli.DONE
end

return command

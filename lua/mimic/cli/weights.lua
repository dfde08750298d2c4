-- mimic weights: what a weight file holds, and its conversion for other programs.
local cli = require "mimic.cli"
local tables = require "mimic.format"
local weights = require "mimic.weights"

local command = {
    summary = "show a weight file (.safetensors, .pth), convert it for timm",
    description = [[
Reads safetensors and PyTorch checkpoints (.pth, .pt: both layouts of torch.save) of MAE, timm,
DeiT, MoCo v3 and LocalMIM, and this program's own. Nothing in a file is executed: a class or
pickle opcode beyond tensors and plain data is refused by name. Fine-tuning takes such a file
with init_from = "FILE".]],
    examples = [[
  mimic weights show mae_pretrain_vit_base.pth
  mimic weights convert results/runs/3/final.safetensors vit.safetensors]],
}

function command.configure(p)
    p:require_command(true)
    p:command_target("action")
    local s = p:command("show", "Names, types and shapes of the tensors, plain values, and the model they make.",
        "Example:\n  mimic weights show mae_pretrain_vit_base.pth")
    s:argument("file"):argname("FILE"):description(".safetensors or .pth")
    s:flag("--tensors"):description("every tensor, not only groups of them")
    tables.options(s)
    local c = p:command("convert", [[
Writes the encoder with its head as safetensors under timm's names, which timm loads strictly:
decoder, projection heads, second encoders and optimiser state are left out.]],
        "Example:\n  mimic weights convert moco_v3.pth.tar vit.safetensors")
    c:argument("input"):argname("IN"):description(".safetensors or .pth")
    c:argument("output"):argname("OUT"):description("file to write, .safetensors")
    c:flag("--all"):description("every tensor under the name it has")
    command.help = cli.help_of { show = s, convert = c }
end

local function count(shape)
    local n = 1
    for _, size in ipairs(shape) do n = n * size end
    return n
end

-- blocks.0.attn.qkv.weight -> blocks.*; optimizer.state.3.exp_avg -> optimizer.*
local function group_of(name)
    return (name:gsub("%.%d+%..*$", ".*"))
end

local function rows_of(file, each)
    local rows, groups = {}, {}
    for _, name in ipairs(file:names()) do
        local dtype, shape = file:info(name)
        local key = each and name or group_of(name)
        local row = groups[key]
        if not row then
            row = { name = key, tensors = 0, values = 0, dtype = dtype, shape = "[" .. table.concat(shape, ",") .. "]" }
            groups[key] = row
            rows[#rows + 1] = row
        end
        if row.dtype ~= dtype then row.dtype = "mixed" end
        if row.tensors > 0 then row.shape = "" end
        row.tensors, row.values = row.tensors + 1, row.values + count(shape)
    end
    return rows
end

-- "a ViT of 12 blocks, width 768, patch 16, 14 x 14 positions, head of 1000 classes, under model."
local function model_text(file)
    local prefix = weights.prefix(file)
    if not prefix then return nil end
    local function shape(name) return select(2, file:info(prefix .. name)) end
    local patch, pos, head, depth = shape "patch_embed.proj.weight", shape "pos_embed", shape "head.weight", 0
    while shape(("blocks.%d.attn.qkv.weight"):format(depth)) do depth = depth + 1 end
    local text = ("a ViT of %d blocks, width %d, patch %d"):format(depth, patch[1], patch[3] or 0)
    if pos and pos[2] then
        local side = math.floor(math.sqrt(pos[2]))
        text = text .. (", %d x %d positions (%d pixels)"):format(side, side, side * (patch[3] or 0))
    end
    if head then text = text .. (", head of %d classes"):format(head[1]) end
    return prefix ~= "" and ('%s, under "%s"'):format(text, prefix) or text
end

local function show(args)
    local file = cli.guard(cli.FAILED, weights.open, args.file)
    local rows, total = rows_of(file, args.tensors), 0
    for _, row in ipairs(rows) do total = total + row.values end
    local plain = tables.chosen(args) == "plain"
    if plain then
        print(("%s: %d tensors, %s values"):format(args.file, #file:names(),
            require("mimic.progress").thousands(total)))
        print(model_text(file) or "no ViT that this program knows")
        local meta = file:metadata()
        local keys = {}
        for key in pairs(meta) do keys[#keys + 1] = key end
        table.sort(keys)
        for _, key in ipairs(keys) do
            local value = tables.safe(meta[key])
            print(("%s = %s"):format(tables.safe(key), #value > 200 and value:sub(1, 200) .. "..." or value))
        end
    end
    local columns = args.tensors and { "name", "dtype", "shape" } or { "name", "tensors", "dtype", "shape", "values" }
    print(tables.format(tables.chosen(args), rows, columns))
    file:close()
    return cli.DONE
end

local function convert(args)
    local n, left, sha = cli.guard(cli.FAILED, weights.convert, args.input, args.output, { all = args.all })
    print(("%s: %d tensors, sha256 %s"):format(args.output, n, sha))
    if #left > 0 then
        print(("left out (%d): %s%s"):format(#left, table.concat(left, ", ", 1, math.min(#left, 8)),
            #left > 8 and ", ..." or ""))
    end
    return cli.DONE
end

function command.run(args)
    return args.action == "show" and show(args) or convert(args)
end

return command

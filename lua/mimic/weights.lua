-- Weights in files: strict safetensors under timm/MAE names, and PyTorch's .pth files for reading.
-- Rule: a file and a module fit name by name and shape by shape, or the message lists all that does not.
local m = require "mimic"
local posembed = require "mimic.posembed"

local weights = {}

---@param module nn.Module
---@return {[1]: string, [2]: any}[] parameters and buffers, masters
function weights.list(module)
    local out = {}
    for i, p in ipairs(module:named()) do out[i] = { p.name, p.tensor } end
    return out
end

--- Writes a module's parameters and buffers.
---@param path string
---@param module nn.Module
---@param meta table<string, string>?
---@return string sha256
function weights.save(path, module, meta)
    return (m.safetensors.save(path, weights.list(module), meta or {}))
end

local function shape_text(shape)
    return "[" .. table.concat(shape, ",") .. "]"
end

local function equal(a, b)
    if #a ~= #b then return false end
    for i = 1, #a do
        if a[i] ~= b[i] then return false end
    end
    return true
end

---@class weights.Report
---@field loaded string[]
---@field missing string[] in the module, not in the file
---@field unexpected string[] in the file, not in the module
---@field mismatched string[] "name file [..] module [..]"
---@field dropped string[] left out by `drop`
---@field resized string[] fitted by `fit`

---@class weights.Options
---@field prefix string? only names with it, which is cut off
---@field drop (fun(name: string): boolean)? names of the file to leave out
---@field fit (fun(name: string, tensor: any, shape: integer[]): any|nil)? makes another shape fit
---@field strict boolean? false: missing, unexpected and mismatched are reported, not refused

local function list_text(title, names)
    if #names == 0 then return "" end
    local shown = table.concat(names, ", ", 1, math.min(#names, 12))
    return ("\n  %s (%d): %s%s"):format(title, #names, shown, #names > 12 and ", ..." or "")
end

--- Copies a file's tensors into a module. Nothing is copied when it is refused.
---@param module nn.Module
---@param file any an open safetensors file
---@param where string names the file in messages
---@param opts weights.Options?
---@return weights.Report
function weights.copy(module, file, where, opts)
    opts = opts or {}
    local scope <close> = m.scope() -- luacheck: ignore
    local report = { loaded = {}, missing = {}, unexpected = {}, mismatched = {}, dropped = {}, resized = {} }
    local targets, plan = {}, {}
    for _, p in ipairs(module:named()) do targets[p.name] = p end
    local prefix = opts.prefix or ""
    local in_file = {}
    for _, stored in ipairs(file:names()) do
        if stored:sub(1, #prefix) == prefix then
            local name = stored:sub(#prefix + 1)
            in_file[name] = true
            local target = targets[name]
            local _, shape = file:info(stored)
            if opts.drop and opts.drop(name) then
                report.dropped[#report.dropped + 1] = name
            elseif not target then
                report.unexpected[#report.unexpected + 1] = name
            elseif equal(shape, target.tensor.shape) then
                plan[#plan + 1] = { target.tensor, file:load(stored) }
                report.loaded[#report.loaded + 1] = name
            else
                local fitted = opts.fit and opts.fit(name, file:load(stored), target.tensor.shape)
                if fitted then
                    plan[#plan + 1] = { target.tensor, fitted }
                    report.resized[#report.resized + 1] = name
                else
                    report.mismatched[#report.mismatched + 1] = ("%s file %s module %s"):format(name,
                        shape_text(shape), shape_text(target.tensor.shape))
                end
            end
        end
    end
    for _, p in ipairs(module:named()) do
        if not in_file[p.name] or opts.drop and opts.drop(p.name) then
            report.missing[#report.missing + 1] = p.name
        end
    end
    if opts.strict ~= false and #report.missing + #report.unexpected + #report.mismatched > 0 then
        error(("%s: its tensors do not fit the model:%s%s%s"):format(where,
            list_text("missing in the file", report.missing),
            list_text("unknown to the model", report.unexpected),
            list_text("of another shape", report.mismatched)), 0)
    end
    for _, pair in ipairs(plan) do pair[1]:copy_(pair[2]) end
    return report
end

--- Loads a file into a module of the same names and shapes. Optimiser state in the file is left out.
---@param module nn.Module
---@param path string
---@param opts weights.Options?
---@return weights.Report
function weights.load(module, path, opts)
    opts = opts or {}
    local file = m.safetensors.open(path)
    local drop = opts.drop
    local all = {
        prefix = opts.prefix, fit = opts.fit, strict = opts.strict,
        drop = function(name) return name:find("^optimizer%.") ~= nil or drop and drop(name) or false end,
    }
    local ok, report = pcall(weights.copy, module, file, path, all)
    file:close()
    if not ok then error(report, 0) end
    return report
end

local function starts_with_any(name, prefixes)
    for _, prefix in ipairs(prefixes) do
        if name:sub(1, #prefix) == prefix then return true end
    end
    return false
end

--- Names that may be absent when an encoder is taken over: what fine-tuning starts anew.
local new_in_finetuning = { "head.", "fc_norm.", "proj_head." }
--- What a pre-training file holds beside the encoder; the encoder's `norm` is unused with pool = gap.
local left_behind = {
    "decoder", "mask_token", "norm.", "head.", "fc_norm.", "proj_head.", "optimizer.", "hog_enc.",
    "dist_token", "head_dist.",
}

--- Opens a weight file of either kind; the first bytes decide, not the name.
---@param path string
---@return any file with names, info, load, meta, metadata, close
function weights.open(path)
    local f = io.open(path, "rb")
    local head = f and f:read(9) or ""
    if f then f:close() end
    local zip_or_pickle = head:sub(1, 4) == "PK\3\4" or head:byte(1) == 0x80
    if zip_or_pickle and head:sub(9, 9) ~= "{" then return m.pth.open(path) end
    return m.safetensors.open(path)
end

-- Where published checkpoints keep the encoder: MAE, DeiT, LocalMIM under `model`; MoCo v3 under `state_dict`
-- with two encoders, of which the trained one is taken; timm's files have bare names.
local places = {
    "", "base_encoder.", "model.", "state_dict.module.base_encoder.", "state_dict.base_encoder.", "state_dict.module.",
    "state_dict.", "module.base_encoder.", "module.", "model.base_encoder.", "model.module.", "model_state_dict.",
    "encoder.", "model.encoder.",
}

--- What the names of the encoder begin with in a file; nil when it holds no ViT.
---@param file any of weights.open
---@return string?
function weights.prefix(file)
    for _, prefix in ipairs(places) do
        if file:info(prefix .. "patch_embed.proj.weight") then return prefix end
    end
    return nil
end

--- Takes the encoder of a pre-training (or earlier fine-tuning) file: decoder* and mask_token are dropped,
--- head.*, fc_norm.* and proj_head.* are taken where they fit and else keep their initial values, the
--- position embedding is interpolated to the model's grid.
---@param model vit.ViT
---@param path string
---@return weights.Report missing = the parameters that start anew
function weights.transfer(model, path)
    local shapes = {}
    for _, p in ipairs(model:named()) do shapes[p.name] = p.tensor.shape end
    local grid = model.config.img // model.config.patch
    local file = weights.open(path)
    local prefix = weights.prefix(file)
    if not prefix then
        local some = table.concat(file:names(), ", ", 1, math.min(6, #file:names()))
        file:close()
        error(("%s: no Vision Transformer in it (no patch_embed.proj.weight); it holds %s, ..."):format(path, some), 0)
    end
    local function drop(name)
        if prefix:find("base_encoder", 1, true) and name:sub(1, 5) == "head." then return true end -- the projector
        if name:sub(1, 7) == "decoder" or name == "mask_token" then return true end
        local wanted = shapes[name]
        if not wanted then
            return starts_with_any(name, left_behind) or name == "cls_token" and not model.cls_token
        end
        if not starts_with_any(name, new_in_finetuning) then return false end
        local _, shape = file:info(prefix .. name)
        return not shape or not equal(shape, wanted)
    end
    local function fit(name, tensor, wanted)
        if name ~= "pos_embed" or tensor.shape[3] ~= wanted[3] then return nil end
        if tensor.dtype ~= "f32" then tensor = tensor:cast{ dtype = "f32" } end
        return posembed.interpolate(tensor, grid, model.config.cls_token)
    end
    local ok, report = pcall(weights.copy, model, file, path,
        { prefix = prefix, drop = drop, fit = fit, strict = false })
    file:close()
    if not ok then error(report, 0) end
    local refused = {}
    for _, name in ipairs(report.missing) do
        local may = starts_with_any(name, new_in_finetuning) or name == "norm.weight" or name == "norm.bias"
        if not may then refused[#refused + 1] = name end
    end
    if #refused + #report.unexpected + #report.mismatched > 0 then
        error(("%s: its encoder does not fit the model:%s%s%s"):format(path,
            list_text("missing in the file", refused),
            list_text("unknown to the model", report.unexpected),
            list_text("of another shape", report.mismatched)), 0)
    end
    return report
end

-- The names of timm's VisionTransformer.
local timm_names = {
    "^cls_token$", "^pos_embed$", "^patch_embed%.proj%.%a+$", "^blocks%.%d+%.norm[12]%.%a+$",
    "^blocks%.%d+%.attn%.qkv%.%a+$", "^blocks%.%d+%.attn%.proj%.%a+$", "^blocks%.%d+%.mlp%.fc[12]%.%a+$",
    "^norm%.%a+$", "^fc_norm%.%a+$", "^head%.%a+$",
}

--- What of a file is a ViT as timm has it: the encoder with its head, without decoder, projection head and
--- optimiser; names without the file's prefix.
---@param file any of weights.open
---@return {stored: string, name: string}[] kept, string[] left
function weights.timm(file)
    local kept, left, prefix = {}, {}, weights.prefix(file)
    local projector = prefix and prefix:find("base_encoder", 1, true)
    for _, stored in ipairs(file:names()) do
        local name = prefix and stored:sub(1, #prefix) == prefix and stored:sub(#prefix + 1)
        local known = false
        for _, pattern in ipairs(name and timm_names or {}) do known = known or name:find(pattern) ~= nil end
        if known and not (projector and name:find("^head%.")) then
            kept[#kept + 1] = { stored = stored, name = name }
        else
            left[#left + 1] = stored
        end
    end
    return kept, left
end

--- Writes the ViT of a weight file as safetensors that timm loads strictly.
---@param from string .safetensors or .pth
---@param to string
---@param opts {all: boolean?}? all: every tensor under its stored name instead
---@return integer tensors, string[] left names left out, string sha256
function weights.convert(from, to, opts)
    local file = weights.open(from)
    local scope <close> = m.scope() -- luacheck: ignore
    local kept, left = weights.timm(file)
    if opts and opts.all then
        kept, left = {}, {}
        for i, name in ipairs(file:names()) do kept[i] = { stored = name, name = name } end
    end
    if #kept == 0 then
        file:close()
        error(("%s: no Vision Transformer in it; --all converts what there is"):format(from), 0)
    end
    local list = {}
    for i, entry in ipairs(kept) do list[i] = { entry.name, file:load(entry.stored) } end
    local sha = m.safetensors.save(to, list, { format = "pt" })
    file:close()
    return #list, left, sha
end

return weights

-- Optimisers over a module: which parameters decay, layer-wise learning rates, state for checkpoints.
-- Rule: the groups are those of mae util/lr_decay.py and timm's no_weight_decay (method.md 2.8).
local m = require "mimic"
local suggest = require "mimic.suggest"

local optim = {}

--- Layer id of a parameter: 0 embeddings, i + 1 block i, depth + 1 the rest (norms and heads).
---@param name string
---@param depth integer
---@return integer
function optim.layer_id(name, depth)
    if name == "cls_token" or name == "pos_embed" or name:find("^patch_embed%.") then return 0 end
    local block = name:match("^blocks%.(%d+)%.")
    return block and math.tointeger(block) + 1 or depth + 1
end

local no_decay = {}
--- timm, fine-tuning, SimMIM: 1-D parameters, tokens and the position embedding.
function no_decay.timm(name, rank)
    return rank <= 1 or name == "cls_token" or name == "pos_embed" or name == "mask_token"
end
--- MAE pre-training: 1-D parameters and biases; the tokens do decay.
function no_decay.mae(name, rank)
    return rank <= 1 or name:find("%.bias$") ~= nil
end
--- MoCo v3: one group.
function no_decay.none()
    return false
end

local function depth_of(list)
    local depth = 0
    for _, p in ipairs(list) do
        local block = p.name:match("^blocks%.(%d+)%.")
        if block then depth = math.max(depth, math.tointeger(block) + 1) end
    end
    return depth
end

---@class optim.Options
---@field kind "adam"|"adamw"|"sgd"|"lars"|nil
---@field betas number[]?
---@field eps number?
---@field momentum number? SGD and LARS
---@field weight_decay number?
---@field exempt "timm"|"mae"|"none"|nil what does not decay
---@field layer_decay number? 1 = the same rate everywhere
---@field clip number? largest global gradient norm, 0 = off
---@field bf16 boolean? keep bf16 copies for Module:compute("bf16", ...)

local known <const> = {
    kind = true, betas = true, eps = true, momentum = true, weight_decay = true, exempt = true,
    layer_decay = true, clip = true, bf16 = true,
}

--- Learning-rate scale and weight decay of each parameter; frozen ones are left out.
---@param list nn.Parameter[]|{name: string, tensor: any}[]
---@param opts optim.Options
---@return {name: string, tensor: any, lr_scale: number, weight_decay: number}[]
function optim.groups(list, opts)
    local exempt = no_decay[opts.exempt or "timm"]
    if not exempt then error(("exempt '%s': timm, mae or none"):format(tostring(opts.exempt)), 0) end
    local depth, decay = depth_of(list), opts.layer_decay or 1
    local out = {}
    for _, p in ipairs(list) do
        if p.tensor.requires_grad then
            out[#out + 1] = {
                name = p.name, tensor = p.tensor,
                lr_scale = decay ^ (depth + 1 - optim.layer_id(p.name, depth)),
                weight_decay = exempt(p.name, p.tensor.rank) and 0 or opts.weight_decay or 0,
            }
        end
    end
    return out
end

---@class optim.Optimizer
local Optimizer = {}
Optimizer.__index = Optimizer

--- An optimiser of a module's trained parameters. Their bytes move into one arena.
---@param module nn.Module|table a module, or a list {name, tensor}
---@param opts optim.Options
---@return optim.Optimizer
function optim.new(module, opts)
    suggest.check_options("m.optim.new", opts, known)
    local groups = optim.groups(module.parameters and module:parameters() or module, opts)
    if #groups == 0 then error("optimizer: every parameter is frozen", 0) end
    local betas = opts.betas or { 0.9, 0.999 }
    local momentum = opts.kind == "sgd" or opts.kind == "lars"
    local params, index = {}, {}
    for i, g in ipairs(groups) do
        params[i] = { tensor = g.tensor, lr_scale = g.lr_scale, weight_decay = g.weight_decay }
        index[g.name] = i
    end
    local core = m.optimizer {
        kind = opts.kind or "adam", beta1 = momentum and (opts.momentum or 0.9) or betas[1],
        beta2 = betas[2], eps = opts.eps or 1e-8, clip = opts.clip or 0,
        bf16 = opts.bf16 or false, params = params,
    }
    return setmetatable({ core = core, groups = groups, index = index }, Optimizer)
end

--- One update; gradients are multiplied by `scale` (1 / accumulated batches) and zeroed.
---@param lr number
---@param scale number?
---@param want_norm boolean?
---@return number? norm global gradient norm before clipping, when wanted
function Optimizer:step(lr, scale, want_norm)
    return self.core:step(lr, scale or 1, want_norm or false)
end

function Optimizer:zero_grad()
    self.core:zero_grad()
end

--- The bf16 copy of a trained parameter, or nil when it is not trained here.
function Optimizer:shadow(name)
    local i = self.index[name]
    return i and self.core:shadow(i)
end

--- After parameters were written from outside.
function Optimizer:sync()
    self.core:sync()
end

local moments = { "optimizer.m", "optimizer.v" }

--- State as named tensors for a checkpoint. The count of updates goes into its metadata.
---@return {[1]: string, [2]: any}[]
function Optimizer:state()
    local out = {}
    for k, name in ipairs(moments) do
        local tensor = self.core:state(k)
        if tensor then out[#out + 1] = { name, tensor } end
    end
    return out
end

--- Takes state back from an open safetensors file.
---@param file any
---@param count integer updates done
function Optimizer:restore(file, count)
    local scope <close> = m.scope() -- luacheck: ignore
    for k, name in ipairs(moments) do
        local tensor = self.core:state(k)
        if tensor then tensor:copy_(file:load(name)) end
    end
    self.core:count(count)
    self.core:sync()
end

--- Updates done.
---@return integer
function Optimizer:count()
    return self.core:count()
end

return optim

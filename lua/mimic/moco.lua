-- MoCo v3 (facebookresearch/moco-v3 moco/builder.py, vits.py; method.md 3.1): an encoder with projector and
-- predictor learns to find, among the batch, the key that a slowly following copy makes of the other view.
-- Rule: names are the reference's (base_encoder.*, momentum_encoder.*, predictor.*); the copy moves before it
-- makes keys; patch embeddings stay at their random start.
local m = require "mimic"
local nn = require "mimic.nn"
local vit = require "mimic.vit"
local contrastive = require "mimic.contrastive"

local moco = {}

--- Every key of the model and its default, encoder keys as vit.defaults.
moco.defaults = {
    preset = "vit_b16", img = 224, patch = false, dim = false, depth = false, heads = false,
    mlp_ratio = 4, channels = 3, gelu = "erf", checkpoint = false,
    mlp_dim = 4096, out_dim = 256, -- hidden and last width of projector and predictor
}

--- Linear - BatchNorm - ReLU, repeated; the last BatchNorm without gain and bias and no ReLU behind it.
---@param layers integer
---@param dim integer
---@param hidden integer
---@param out integer
---@return nn.Sequential
function moco.mlp(layers, dim, hidden, out)
    local list = {}
    local function add(module) list[#list + 1] = { tostring(#list), module } end
    for l = 1, layers do
        local last = l == layers
        local width = last and out or hidden
        add(nn.Linear(l == 1 and dim or hidden, width, { bias = false }))
        add(nn.BatchNorm1d(width, { affine = not last }))
        if not last then add(nn.ReLU()) end
    end
    return nn.Sequential(list):precise()
end

--- Symmetric half of the loss: 2 tau CE(q k^T / tau, diagonal) of rows that are normalised here.
---@param q any [B,d]
---@param k any [B,d] without gradient
---@param tau number
---@return any loss, any logits
function moco.ctr(q, k, tau)
    q, k = contrastive.normalise(q), contrastive.normalise(k)
    local logits = m.matmul(q, k, { tb = true }) * (1 / tau)
    return m.cross_entropy(logits, contrastive.identity(q.shape[1])) * (2 * tau), logits
end

local function encoder(c)
    local model = vit.new {
        preset = c.preset, img = c.img, patch = c.patch, dim = c.dim, depth = c.depth, heads = c.heads,
        mlp_ratio = c.mlp_ratio, channels = c.channels, gelu = c.gelu, checkpoint = c.checkpoint,
        pool = "cls", pos = "sincos", init = "moco",
    }
    model:child("head", moco.mlp(3, model.config.dim, c.mlp_dim, c.out_dim))
    return model
end

---@class moco.MoCo: nn.Module
local MoCo = nn.class "moco"
moco.MoCo = MoCo

function MoCo:init(c)
    self:child("base_encoder", encoder(c))
    self:child("momentum_encoder", encoder(c))
    self:child("predictor", moco.mlp(2, c.out_dim, c.mlp_dim, c.out_dim))
    self.config = self.base_encoder.config
end

-- Pairs (parameter of the base, parameter of its copy).
local function pairs_of(self)
    local base, copy = self.base_encoder:parameters(), self.momentum_encoder:parameters()
    local at = 0
    return function()
        at = at + 1
        return base[at], copy[at]
    end
end

-- Sets a parameter of the copy, and its bf16 shadow if it computes in bf16.
local function set(p, value)
    p.tensor:copy_(value)
    local used = p.module[p.key]
    if used ~= p.tensor then used:copy_(p.tensor) end
end

--- Starts the copy as the base is, and freezes it and the base's patch embedding.
function MoCo:follow()
    for base, copy in pairs_of(self) do set(copy, base.tensor:detach()) end
    self.momentum_encoder:freeze()
    self.base_encoder:freeze("^patch_embed%.")
    return self
end

--- Moves the copy: theta_m = momentum theta_m + (1 - momentum) theta_b; its BatchNorm statistics are its own.
---@param momentum number
function MoCo:move(momentum)
    m.no_grad(function()
        for base, copy in pairs_of(self) do
            local scope <close> = m.scope() -- luacheck: ignore
            set(copy, copy.tensor * momentum + base.tensor:detach() * (1 - momentum))
        end
    end)
end

-- Heads of the two halves of features r [2B,D], one after the other: BatchNorm sees one view at a time.
local function halves(r, head)
    local n = r.shape[1]
    return head(r:slice{ axis = 1, start = 1, stop = n // 2 }:contiguous()),
        head(r:slice{ axis = 1, start = n // 2 + 1, stop = n }:contiguous())
end

--- images [2B,3,H,W], all first views, then all second views -> loss, share of queries whose nearest key is
--- the right one.
---@param images any
---@param tau number
---@return any loss, any hits f32 []
function MoCo:forward(images, tau)
    local q1, q2 = halves(self.base_encoder:features(images), function(r)
        return self.predictor(self.base_encoder.head(r))
    end)
    local k1, k2 = m.no_grad(function()
        return halves(self.momentum_encoder:features(images), self.momentum_encoder.head)
    end)
    local first, logits = moco.ctr(q1, k2:detach(), tau)
    local second = moco.ctr(q2, k1:detach(), tau)
    -- Counted where the logits are: nobody waits for a step.
    local n = logits.shape[1]
    local nearest = m.onehot(m.argmax(logits), { classes = n })
    local right = m.onehot(contrastive.identity(n), { classes = n })
    return first + second, (nearest * right):sum_to {} * (1 / n)
end

--- A MoCo with every parameter at its initial value when `seed` is given, else zeros.
---@param c table keys of moco.defaults
---@param seed integer?
---@return moco.MoCo
function moco.new(c, seed)
    local full = {}
    for key, default in pairs(moco.defaults) do
        if c[key] == nil then full[key] = default else full[key] = c[key] end
    end
    local model = MoCo(full)
    if seed then model:initialise(seed) end
    return model:follow()
end

return moco

-- Vision Transformer under timm/MAE names (method.md 4): any image, patch, width, depth and heads.
local m = require "mimic"
local nn = require "mimic.nn"
local posembed = require "mimic.posembed"
local heads = require "mimic.heads"
local suggest = require "mimic.suggest"

local vit = {}

--- Sizes of method.md 4.1; MoCo v3's ViT-S has 12 heads.
vit.presets = {
    vit_ti16 = { patch = 16, dim = 192, depth = 12, heads = 3 },
    vit_s16 = { patch = 16, dim = 384, depth = 12, heads = 6 },
    vit_s16_moco = { patch = 16, dim = 384, depth = 12, heads = 12 },
    vit_b16 = { patch = 16, dim = 768, depth = 12, heads = 12 },
    vit_l16 = { patch = 16, dim = 1024, depth = 24, heads = 16 },
}

--- Every key of a model and its default; false = as the preset says.
vit.defaults = {
    preset = "vit_b16", img = 224, patch = false, dim = false, depth = false, heads = false,
    mlp_ratio = 4, channels = 3, gelu = "erf",
    pool = "gap",                  -- gap | cls
    gap = { include_cls = false, norm = "after" }, -- norm: after | before the mean
    cls_token = true,
    pos = "learned",               -- learned | sincos (fixed)
    init = "timm",                 -- mae | timm | moco
    drop_path = 0,
    checkpoint = false,            -- true: a block's activations are computed again in backward (same bits)
}

--- Fills a model table: defaults, then the preset where patch, dim, depth or heads is false or absent.
---@param c table
---@return table
function vit.resolve(c)
    local out = {}
    for key, default in pairs(vit.defaults) do
        if c[key] == nil then out[key] = default else out[key] = c[key] end
    end
    local preset = vit.presets[out.preset]
    if out.preset and not preset then
        error(("model.preset '%s': vit_ti16, vit_s16, vit_s16_moco, vit_b16 or vit_l16"):format(
            tostring(out.preset)), 0)
    end
    for _, key in ipairs { "patch", "dim", "depth", "heads" } do
        out[key] = out[key] or (preset and preset[key])
        if not out[key] then error(("model.%s is missing and there is no preset"):format(key), 0) end
    end
    return out
end

---@class vit.ViT: nn.Module
local ViT = nn.class "vit"
vit.ViT = ViT

-- The class token, position embedding, patch embedding and blocks that ViT and MAE share.
---@param c table resolved
function vit.trunk(self, c)
    local std = c.init == "moco" and 1e-6 or 0.02
    if c.cls_token then self:parameter("cls_token", { 1, 1, c.dim }, nn.init.normal(std)) end
    local grid = c.img // c.patch
    if c.pos == "learned" then
        local tokens = grid * grid + (c.cls_token and 1 or 0)
        self:parameter("pos_embed", { 1, tokens, c.dim }, nn.init.normal(0.02))
    else
        local order = c.init == "moco" and "moco" or "mae"
        self:buffer("pos_embed", posembed.sincos(c.dim, grid, { cls = c.cls_token, order = order }))
    end
    self:child("patch_embed", nn.PatchEmbed(c))
    self:child("blocks", nn.Blocks(c))
end

--- Classes = 0 or nil: no head, forward returns the features.
---@param c table vit.defaults' keys, classes, head (heads.classifier options)
function ViT:init(c)
    self.config = c
    vit.trunk(self, c)
    if c.pool ~= "gap" and c.pool ~= "cls" then error("model.pool: gap or cls", 0) end
    if c.pool == "cls" and not c.cls_token then error("model.pool = cls needs model.cls_token", 0) end
    self:child(c.pool == "gap" and "fc_norm" or "norm", nn.LayerNorm(c.dim))
    if c.classes and c.classes > 0 then
        self:child("head", heads.classifier(c.dim, c.classes, c.head))
    end
end

--- images [N,C,H,W] -> [N,T,D], class token first.
function ViT:tokens(images)
    local x <close> = self.patch_embed(images)
    if not self.cls_token then return x + self.pos_embed end
    local all <close> = m.concat(m.expand(self.cls_token, { x.shape[1], 1, x.shape[3] }), x, { axis = 2 })
    return all + self.pos_embed
end

local function to_f32(x)
    return x.dtype == "f32" and x or x:cast{ dtype = "f32" }
end

--- The representation r of method.md: images [N,C,H,W] -> [N,D] f32, after pooling and its norm.
function ViT:features(images)
    return self:within(self.pooled, images)
end

function ViT:pooled(images)
    local tokens <close> = self:tokens(images)
    local x, branch <close> = self.blocks(tokens)
    local c = self.config
    if c.pool == "cls" then
        local _, y = self.norm(x, branch)
        return to_f32(y:slice{ axis = 2, start = 1, stop = 1 }:reshape{ -1, c.dim })
    end
    local before = c.gap.norm == "before"
    local all <close> = before and select(2, self.fc_norm(x, branch)) or x + branch
    m.release(x)
    local patches <close> = all:slice{ axis = 2, start = c.cls_token and not c.gap.include_cls and 2 or 1, stop = 0 }
    local wide <close> = patches.dtype == "bf16" and to_f32(patches)
    local y = m.mean(wide or patches, { axis = 2 })
    return before and y or self.fc_norm(y)
end

--- images -> logits f32 [N,K], or features without a head.
function ViT:forward(images)
    local r = self:pooled(images)
    return self.head and self:logits(r) or r
end

--- Class scores of features r [N,D], f32 [N,K].
function ViT:logits(r)
    return self.head(r)
end

local known = { classes = true, head = true }
for key in pairs(vit.defaults) do known[key] = true end

--- A ViT with every parameter at its initial value when `seed` is given, else zeros.
---@param c table keys of vit.defaults, classes, head
---@param seed integer?
---@return vit.ViT
function vit.new(c, seed)
    suggest.check_options("m.vit.new", c, known)
    local resolved = vit.resolve(c)
    resolved.classes, resolved.head = c.classes, c.head
    local model = ViT(resolved)
    return seed and model:initialise(seed) or model
end

return vit

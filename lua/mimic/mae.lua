-- Masked autoencoder (facebookresearch/mae models_mae.py; method.md Eq. 2, 4.2).
-- Rule: only visible patches are embedded; names and shapes are the reference's.
local m = require "mimic"
local nn = require "mimic.nn"
local reconstruction = require "mimic.reconstruction"
local suggest = require "mimic.suggest"
local vit = require "mimic.vit"
local posembed = require "mimic.posembed"

local mae = {}

--- Every key of a MAE and its default, encoder keys as vit.defaults.
mae.defaults = {
    preset = "vit_b16", img = 224, patch = false, dim = false, depth = false, heads = false,
    mlp_ratio = 4, channels = 3, gelu = "erf", init = "mae", checkpoint = false,
    cls_token = true,              -- as published; false: patches alone
    decoder = { dim = 512, depth = 8, heads = 16 },
}

---@class mae.MAE: nn.Module
local MAE = nn.class "mae"
mae.MAE = MAE

---@param c table resolved: encoder keys, decoder {dim, depth, heads}
function MAE:init(c)
    self.config = c
    vit.trunk(self, c)
    self:child("norm", nn.LayerNorm(c.dim))
    local d = c.decoder
    self.grid = c.img // c.patch
    self:child("decoder_embed", nn.Linear(c.dim, d.dim, { init = c.init }))
    self:parameter("mask_token", { 1, 1, d.dim }, nn.init.normal(0.02))
    self:buffer("decoder_pos_embed", posembed.sincos(d.dim, self.grid, { cls = c.cls_token }))
    self:child("decoder_blocks", nn.Blocks {
        dim = d.dim, depth = d.depth, heads = d.heads, mlp_ratio = c.mlp_ratio, gelu = c.gelu,
        init = c.init, checkpoint = c.checkpoint,
    })
    self:child("decoder_norm", nn.LayerNorm(d.dim))
    self:child("decoder_pred", nn.Linear(d.dim, c.patch * c.patch * c.channels, { init = c.init }))
end

--- Random masking from noise f32 [B,Np] without ties: the patches with the smallest noise stay.
---@param noise any
---@param ratio number share of removed patches
---@return any keep i32 [B,M] in shuffled order
---@return any restore i32 [B,Np], place of each patch in shuffled order
---@return any mask f32 [B,Np], 1 = removed
function mae.masking(noise, ratio)
    local batch, patches = noise.shape[1], noise.shape[2]
    local kept = math.floor(patches * (1 - ratio))
    if kept < 1 then error(("mask ratio %g leaves no patch of %d"):format(ratio, patches), 0) end
    local shuffle = m.argsort(noise)
    local restore = m.argsort(shuffle)
    local keep = shuffle:slice{ axis = 2, start = 1, stop = kept }:contiguous()
    local mask = m.zeros { batch, kept }
    if kept < patches then
        mask = m.concat(mask, m.ones { batch, patches - kept }, { axis = 2 })
    end
    return keep, restore, m.gather_rows(mask, restore)
end

--- The visible tokens of an encoder of vit.trunk, its class token, if it has one, first.
---@param images any [B,C,H,W]
---@param noise any f32 [B,Np]
---@return any x [B,(1+)M,D], any mask f32 [B,Np], any restore i32 [B,Np]
function mae.visible(self, images, noise, ratio)
    local keep, restore, mask = mae.masking(noise, ratio)
    local batch, kept = keep.shape[1], keep.shape[2]
    local dim = self.config.dim
    local pos = self.pos_embed:reshape{ -1, dim }
    local patch_pos = self.cls_token and pos:slice{ axis = 1, start = 2, stop = 0 } or pos
    local visible_pos <close> = m.gather_rows(patch_pos, keep:reshape{ -1 })
    local patches <close> = self.patch_embed(images, keep)
    local placed = patches + visible_pos:reshape{ batch, kept, dim }
    if not self.cls_token then return placed, mask, restore end
    local x <close> = placed
    local cls = self.cls_token + pos:slice{ axis = 1, start = 1, stop = 1 }:reshape{ 1, 1, dim }
    return m.concat(m.expand(cls, { batch, 1, dim }), x, { axis = 2 }), mask, restore
end

--- Puts a decoder's tokens in order, mask tokens where patches were removed.
---@param x any [B,(1+)M,Dd]
---@param mask_token any [1,1,Dd]
---@param restore any i32 [B,Np]
---@param cls any true or a tensor: x begins with a class token
---@return any [B,(1+)Np,Dd]
function mae.complete(x, mask_token, restore, cls)
    local batch, kept, dim = x.shape[1], x.shape[2] - (cls and 1 or 0), x.shape[3]
    local removed = restore.shape[2] - kept
    local visible <close> = cls and x:slice{ axis = 2, start = 2, stop = 0 }
    local all <close> = removed > 0
        and m.concat(visible or x, m.expand(mask_token, { batch, removed, dim }), { axis = 2 })
    local ordered = m.gather_rows(all or visible or x, restore)
    if not cls then return ordered end
    local patches <close> = ordered
    return m.concat(x:slice{ axis = 2, start = 1, stop = 1 }, patches, { axis = 2 })
end

--- images [B,C,H,W], noise [B,Np] -> latent [B,(1+)M,D] after the norm, mask [B,Np], restore [B,Np].
function MAE:encode(images, noise, ratio)
    local x, mask, restore = mae.visible(self, images, noise, ratio)
    local tokens <close> = x
    local stream, branch <close> = self.blocks(tokens)
    local _, latent = self.norm(stream, branch)
    return latent, mask, restore
end

--- latent [B,(1+)M,D], restore [B,Np] -> predicted patches [B,Np,p*p*C].
function MAE:decode(latent, restore)
    local visible <close> = self.decoder_embed(latent)
    local all <close> = mae.complete(visible, self.mask_token, restore, self.cls_token)
    local tokens <close> = all + self.decoder_pos_embed
    local stream, branch <close> = self.decoder_blocks(tokens)
    local _, y <close> = self.decoder_norm(stream, branch)
    local pred = self.decoder_pred(y)
    return self.cls_token and pred:slice{ axis = 2, start = 2, stop = 0 } or pred
end

--- The pixels a prediction is compared with, f32 [B,Np,p*p*C], vector index (py*p + px)*C + c.
function MAE:target(images)
    return m.patchify(images, { patch = self.config.patch, order = "mae" })
end

--- images, noise -> loss, prediction f32, mask.
---@param opts {mask: number, norm_pix: boolean, on: "masked"|"all"}
function MAE:forward(images, noise, opts)
    local latent, mask, restore = self:encode(images, noise, opts.mask)
    local pred = self:decode(latent, restore)
    if pred.dtype == "bf16" then pred = pred:cast{ dtype = "f32" } end
    local target <close> = self:target(images)
    local loss = m.masked_mse(pred, target, mask, { norm = opts.norm_pix, on = opts.on or "masked" })
    return loss, pred, mask
end

--- One uniform number per patch, from the random numbers of the current step.
function MAE:noise(batch)
    return m.rand_uniform { batch, self.grid * self.grid }
end

-- Turns per-patch normalised predictions back into pixels with the target's own statistics.
local function denormalise(pred, target)
    local n = target.shape[3]
    local mean = target:mean{ axis = 3, keep = true }
    local centred = target - mean
    local var = (centred * centred):mean{ axis = 3, keep = true } * (n / (n - 1))
    return pred * var:scale{ beta = 1e-6 }:sqrt() + mean
end

--- Pictures of what the model sees and makes of it (reconstruction.lua).
---@param images any normalised [B,3,H,W]
---@param noise any [B,Np]
---@param opts {mask: number, norm_pix: boolean, mean: number[], std: number[]}
---@return any input, any masked, any output
function MAE:visualise(images, noise, opts)
    return m.no_grad(function()
        local _, pred, mask = self(images, noise, opts)
        local target = self:target(images)
        if opts.norm_pix then pred = denormalise(pred, target) end
        return reconstruction.rows(target, pred, mask, { patch = self.config.patch, order = "mae" }, opts)
    end)
end

--- A MAE with every parameter at its initial value when `seed` is given, else zeros.
---@param c table keys of mae.defaults
---@param seed integer?
---@return mae.MAE
function mae.new(c, seed)
    suggest.check_options("m.mae.new", c, mae.defaults)
    local encoder = {}
    for key, default in pairs(mae.defaults) do
        if c[key] == nil then encoder[key] = default else encoder[key] = c[key] end
    end
    encoder = vit.resolve(encoder)
    encoder.decoder = c.decoder or mae.defaults.decoder
    encoder.pos, encoder.drop_path = "sincos", 0 -- models_mae.py
    local model = MAE(encoder)
    return seed and model:initialise(seed) or model
end

return mae

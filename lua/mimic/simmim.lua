-- SimMIM (microsoft/SimMIM models/simmim.py, data/data_simmim.py; method.md 6.9): mask tokens enter the
-- encoder in place of masked patches, one linear layer predicts the pixels, L1 loss on masked ones.
-- Rule: the encoder is the ViT of vit.lua with its learned position embedding (the published one has a shared
-- relative position bias), so that its checkpoints fine-tune as those of the other methods.
local m = require "mimic"
local nn = require "mimic.nn"
local reconstruction = require "mimic.reconstruction"
local vit = require "mimic.vit"

local simmim = {}

--- Every key of the model and its default, encoder keys as vit.defaults.
simmim.defaults = {
    preset = "vit_b16", img = 224, patch = false, dim = false, depth = false, heads = false,
    mlp_ratio = 4, channels = 3, gelu = "erf", init = "timm", checkpoint = false,
}

---@class simmim.SimMIM: nn.Module
local SimMIM = nn.class "simmim"
simmim.SimMIM = SimMIM

-- The 1x1 convolution in front of the pixel shuffle, weight [p*p*C,D,1,1].
local Pixels = nn.class "decoder"
function Pixels:init(dim, out)
    self:parameter("weight", { out, dim, 1, 1 }, nn.init.fan_in(dim))
    self:parameter("bias", { out }, nn.init.fan_in(dim))
    self.shape = { out, dim }
end
function Pixels:forward(x)
    return m.linear(x, self.weight:reshape(self.shape), self.bias)
end

function SimMIM:init(c)
    self.config = c
    self.grid = c.img // c.patch
    vit.trunk(self, c)
    self:child("norm", nn.LayerNorm(c.dim))
    self:parameter("mask_token", { 1, 1, c.dim }, nn.init.normal(0.02))
    self:child("decoder", nn.Sequential { { "0", Pixels(c.dim, c.patch * c.patch * c.channels) } })
end

--- Number of the cells of `side` pixels that a mask is made of.
---@param c table resolved model
---@param side integer pixels, a multiple of the patch
---@return integer
function simmim.cells(c, side)
    if side % c.patch ~= 0 or c.img % side ~= 0 then
        error(("mask_patch = %d: a multiple of the patch %d that divides the image side %d expected"):format(
            side, c.patch, c.img), 0)
    end
    return (c.img // side) * (c.img // side)
end

--- A random mask f32 [B,Np], 1 = masked: ceil(ratio * cells) square cells of `side` pixels per picture.
---@param batch integer
---@param side integer pixels, a multiple of the patch
---@param ratio number
function SimMIM:mask(batch, side, ratio)
    local c = self.config
    local cells, repeats = simmim.cells(c, side), side // c.patch
    local masked = math.ceil(cells * ratio)
    if masked < 1 then error(("mask = %g masks nothing"):format(ratio), 0) end
    local row = m.ones { batch, masked }
    if masked < cells then row = m.concat(row, m.zeros { batch, cells - masked }, { axis = 2 }) end
    local rank = m.argsort(m.argsort(m.rand_uniform { batch, cells }))
    local g = c.img // side
    local mask = m.gather_rows(row, rank):reshape{ batch, g, 1, g, 1 }
    return m.expand(mask, { batch, g, repeats, g, repeats }):contiguous():reshape{ batch, -1 }
end

--- images [B,C,H,W], mask [B,Np] -> loss, predicted pixels f32 [B,Np,C*p*p] in the order (c, py, px).
function SimMIM:forward(images, mask)
    local c = self.config
    local batch, patches = mask.shape[1], mask.shape[2]
    local masked = mask:reshape{ batch, patches, 1 }
    local w = self:activation(masked)
    local x = self.patch_embed(images) * (1 - w) + self.mask_token * w
    if self.cls_token then
        x = m.concat(m.expand(self.cls_token, { batch, 1, c.dim }), x, { axis = 2 })
    end
    local stream, branch = self.blocks(x + self.pos_embed)
    local _, y = self.norm(stream, branch)
    if self.cls_token then y = y:slice{ axis = 2, start = 2, stop = 0 } end
    local pred = self.decoder(y:contiguous())
    if pred.dtype == "bf16" then pred = pred:cast{ dtype = "f32" } end
    local d = pred - m.patchify(images, { patch = c.patch, order = "conv" })
    local error_sum = ((d:relu() + (d * -1):relu()) * masked):sum()
    local pixels = mask:sum() * (c.patch * c.patch)
    return error_sum / (pixels:scale{ beta = 1e-5 }) * (1 / c.channels), pred
end

--- Pictures of what the model sees and makes of it (reconstruction.lua).
---@param images any normalised [B,3,H,W]
---@param mask any [B,Np]
---@param opts {mean: number[], std: number[]}
---@return any input, any masked, any output
function SimMIM:visualise(images, mask, opts)
    return m.no_grad(function()
        local attrs = { patch = self.config.patch, order = "conv" }
        local _, pred = self(images, mask)
        return reconstruction.rows(m.patchify(images, attrs), pred, mask, attrs, opts)
    end)
end

--- A SimMIM with every parameter at its initial value when `seed` is given, else zeros.
---@param c table keys of simmim.defaults
---@param seed integer?
---@return simmim.SimMIM
function simmim.new(c, seed)
    local full = {}
    for key, default in pairs(simmim.defaults) do
        if c[key] == nil then full[key] = default else full[key] = c[key] end
    end
    local model = SimMIM(vit.resolve(full))
    return seed and model:initialise(seed) or model
end

return simmim

-- LocalMIM (Haoqing-Wang/LocalMIM ViT/models_mim.py; method.md 3.1): four blocks of the encoder each
-- reconstruct histograms of oriented gradients at their own scale.
-- Rule: names and shapes are the reference's; maps are kept as tokens [B,h*w,C], so that a 1x1 convolution is
-- a Linear and a 2x2 transposed convolution a matrix product and a rearrangement.
local m = require "mimic"
local mae = require "mimic.mae"
local nn = require "mimic.nn"
local posembed = require "mimic.posembed"
local vit = require "mimic.vit"

local localmim = {}

--- Every key of the model and its default, encoder keys as vit.defaults.
localmim.defaults = {
    preset = "vit_b16", img = 224, patch = false, dim = false, depth = false, heads = false,
    mlp_ratio = 4, channels = 3, gelu = "erf", init = "mae", checkpoint = false,
    taps = false, -- four blocks, from 0; false: 1, 3, depth-3, depth-1 (spread evenly below depth 5)
    decoder = { dim = 256, depth = 1, heads = 8 },
    bins = 9,
    hog_bias = false, -- true: as the reference's ViT-L (bins = 18), fixed random numbers are added to the gradients
}

-- Cells per patch side that the four decoders predict.
local scales <const> = { 4, 2, 1, 0.5 }

--- Transposed convolution with kernel and stride 2 on tokens [B,h*w,in], h = w -> [B,4*h*w,out].
---@class localmim.Up: nn.Module
local Up = nn.class "up"
function Up:init(from, to)
    -- As in MAE, on [in, out*2*2]; the bias keeps the convolution's default (fan-in of [in,out,2,2]).
    self:parameter("weight", { from, to, 2, 2 }, nn.init.xavier(to * 4, from))
    self:parameter("bias", { to }, nn.init.fan_in(to * 4))
    self.from, self.to = from, to
end
function Up:forward(x)
    local batch, side = x.shape[1], math.tointeger(math.sqrt(x.shape[2]))
    local to = self.to
    -- [B,h,w,(out,2,2)] -> [B,h,2,w,2,out]
    local y = m.matmul(x, self.weight:reshape{ self.from, to * 4 })
    y = y:reshape{ batch, side, side, to, 2, 2 }:permute{ 1, 2, 5, 3, 6, 4 }:contiguous()
    return y:reshape{ batch, 4 * side * side, to } + self:activation(self.bias)
end

--- 1x1 convolution on tokens, weight [out,in,1,1].
---@class localmim.Point: nn.Module
local Point = nn.class "point"
function Point:init(from, to)
    self:parameter("weight", { to, from, 1, 1 }, nn.init.xavier(from, to))
    self:parameter("bias", { to }, nn.init.fan_in(from))
    self.from, self.to = from, to
end
function Point:forward(x)
    return m.linear(x, self.weight:reshape{ self.to, self.from }, self.bias)
end

--- Mean of 2x2 neighbours of tokens [B,h*w,C] -> [B,h*w/4,C].
---@class localmim.Pool: nn.Module
local Pool = nn.class "pool"
function Pool.init() end
function Pool:forward(x) -- luacheck: ignore self
    local batch, side, dim = x.shape[1], math.tointeger(math.sqrt(x.shape[2])), x.shape[3]
    local half = side // 2
    local y = x:reshape{ batch, half, 2, half, 2, dim }:permute{ 1, 2, 4, 3, 5, 6 }:contiguous()
    return y:reshape{ batch, half * half, 4, dim }:mean{ axis = 3 }
end

-- What follows a decoder's block, by scale, under the reference's keys.
local function prediction(scale, dim, out)
    if scale == 4 then
        return nn.Sequential {
            { "0", Up(dim, dim // 2) }, { "1", nn.LayerNorm(dim // 2) }, { "2", nn.GELU() },
            { "3", Up(dim // 2, dim // 4) }, { "4", Point(dim // 4, out) },
        }
    end
    if scale == 2 then return nn.Sequential { { "0", Up(dim, dim // 2) }, { "1", Point(dim // 2, out) } } end
    if scale == 1 then return nn.Sequential { { "0", Point(dim, out) } } end
    return nn.Sequential { { "0", Pool() }, { "1", Point(dim, out) } }
end

---@class localmim.Decoder: nn.Module
local Decoder = nn.class "decoder"
function Decoder:init(c, scale)
    local d = c.decoder
    self:child("embed", nn.Linear(c.dim, d.dim, { init = "mae" }))
    self:parameter("mask_token", { 1, 1, d.dim }, nn.init.normal(0.02))
    self:buffer("pos_embed", posembed.sincos(d.dim, c.img // c.patch))
    self:child("blocks", nn.Blocks {
        dim = d.dim, depth = d.depth, heads = d.heads, mlp_ratio = c.mlp_ratio, gelu = c.gelu, init = "mae",
    })
    self:child("norm", nn.LayerNorm(d.dim))
    self:child("pred", prediction(scale, d.dim, c.channels * c.bins))
end
function Decoder:forward(latent, restore)
    local x = mae.complete(self.embed(latent), self.mask_token, restore, true) + self.pos_embed
    local stream, branch = self.blocks(x)
    local _, y = self.norm(stream, branch)
    return self.pred(y:slice{ axis = 2, start = 2, stop = 0 }:contiguous())
end

-- The Sobel kernels, which the reference keeps as frozen weights; the operator `hog` has them built in. biased: with
-- the default bias of a convolution, frozen too.
local Sobel = nn.class "conv"
function Sobel:init(biased)
    local flat <const> = m.tensor { 1, 0, -1, 2, 0, -2, 1, 0, -1, 1, 2, 1, 0, 0, 0, -1, -2, -1 }
    self:buffer("weight", flat:reshape{ 2, 1, 3, 3 }:contiguous())
    if biased then
        self:parameter("bias", { 2 }, nn.init.fan_in(9))
        self:freeze()
    end
end

---@class localmim.LocalMIM: nn.Module
local LocalMIM = nn.class "localmim"
localmim.LocalMIM = LocalMIM

local function taps_of(c)
    local taps = c.taps
    if not taps and c.depth >= 5 then taps = { 1, 3, c.depth - 3, c.depth - 1 } end
    if not taps then
        taps = {}
        for k = 1, 4 do taps[k] = (c.depth * k + 3) // 4 - 1 end
    end
    if #taps ~= 4 then error("model.taps: four blocks expected", 0) end
    for k, block in ipairs(taps) do
        if block < 0 or block >= c.depth then
            error(("model.taps: block %d of %d (they count from 0)"):format(block, c.depth), 0)
        end
        if k > 1 and block < taps[k - 1] then error("model.taps: in ascending order", 0) end
    end
    return taps
end

---@param c table resolved: encoder keys, taps, decoder, bins
function LocalMIM:init(c)
    self.config = c
    self.grid = c.img // c.patch
    if c.patch % 4 ~= 0 or self.grid % 2 ~= 0 then
        error(("localmim needs a patch that 4 divides and an even grid, not patch %d, grid %d"):format(
            c.patch, self.grid), 0)
    end
    if c.decoder.dim % 4 ~= 0 then error("model.decoder.dim: a multiple of 4 expected", 0) end
    vit.trunk(self, c)
    self.taps = taps_of(c)
    local norms, decoders, kernels = {}, {}, {}
    for k, scale in ipairs(scales) do
        local key = tostring(k - 1)
        norms[k] = { key, nn.LayerNorm(c.dim) }
        decoders[k] = { key, Decoder(c, scale) }
        kernels[k] = { key, nn.Sequential { { "conv", Sobel(c.hog_bias) } } }
    end
    self:child("norm", nn.Sequential(norms))
    self:child("decoder", nn.Sequential(decoders))
    self:child("hog_enc", nn.Sequential(kernels))
end

--- images, noise -> the four normalised taps [B,1+M,D], mask [B,Np], restore [B,Np].
function LocalMIM:encode(images, noise, ratio)
    local x, mask, restore = mae.visible(self, images, noise, ratio)
    local out, branch = {}, nil
    for block = 0, self.taps[4] do
        x, branch = self.blocks:step(block, x, branch)
        for k, tap in ipairs(self.taps) do
            if tap == block then
                local norm = self.norm[tostring(k - 1)]
                if branch then x, out[k] = norm(x, branch) else out[k] = norm(x) end
                branch = nil
            end
        end
    end
    return out, mask, restore
end

-- Mean of 2x2 cells of [B,h,w,...].
local function coarser(cells)
    local s = cells.shape
    local rest = { table.unpack(s, 4) }
    local n = 1
    for _, k in ipairs(rest) do n = n * k end
    local y = cells:reshape{ s[1], s[2] // 2, 2, s[3] // 2, 2, n }:mean{ axis = 5 }:mean{ axis = 3 }
    return y:reshape{ s[1], s[2] // 2, s[3] // 2, table.unpack(rest) }
end

-- What is added to the gradients at each scale, {gx, gy}; read from the device once, before a step is recorded there.
function LocalMIM:offsets()
    if not self.read_offsets then
        self.read_offsets = {}
        for k = 1, 4 do
            local conv = self.hog_enc[tostring(k - 1)].conv
            self.read_offsets[k] = conv.bias and conv.bias:tolist()
        end
    end
    return self.read_offsets
end

--- Histograms of oriented gradients at the four scales, [B,cells,C*bins], each of length 1 per channel.
function LocalMIM:targets(images)
    local bins = self.config.bins
    return m.no_grad(function()
        local offsets, cells = self:offsets(), nil
        local out = {}
        for k = 1, 4 do
            if offsets[k] then
                cells = m.hog(images, { pool = self.config.patch // 4, bins = bins, gx = offsets[k][1],
                    gy = offsets[k][2] })
                for _ = 2, k do cells = coarser(cells) end
            elseif k == 1 then
                cells = m.hog(images, { pool = self.config.patch // 4, bins = bins })
            else
                cells = coarser(cells)
            end
            local s = cells.shape
            out[k] = cells:l2norm():reshape{ s[1], s[2] * s[3], s[4] * bins }
        end
        return out
    end)
end

--- The mask at the four scales, f32 [B,cells]: repeated for finer ones, averaged for the coarser one.
function LocalMIM:masks(mask)
    local batch, grid = mask.shape[1], self.grid
    local out = {}
    for k, scale in ipairs(scales) do
        if scale >= 1 then
            local r = math.tointeger(scale)
            local y = m.expand(mask:reshape{ batch, grid, 1, grid, 1 }, { batch, grid, r, grid, r })
            out[k] = y:contiguous():reshape{ batch, -1 }
        else
            out[k] = coarser(mask:reshape{ batch, grid, grid, 1 }):reshape{ batch, -1 }
        end
    end
    return out
end

--- images [B,C,H,W], noise [B,Np] -> loss: the sum over scales of the masked mean squared error.
---@param ratio number share of removed patches
---@return any loss, table parts {pred, target, mask, restore} lists over scales
function LocalMIM:forward(images, noise, ratio)
    local latents, mask, restore = self:encode(images, noise, ratio)
    local parts = { pred = {}, target = self:targets(images), mask = self:masks(mask), restore = restore,
        removed = mask }
    local loss
    for k = 1, 4 do
        local pred = self.decoder[tostring(k - 1)](latents[k], restore)
        if pred.dtype == "bf16" then pred = pred:cast{ dtype = "f32" } end
        parts.pred[k] = pred
        local e = m.masked_mse(pred, parts.target[k], parts.mask[k])
        loss = loss and loss + e or e
    end
    return loss, parts
end

LocalMIM.noise = mae.MAE.noise

--- A LocalMIM with every parameter at its initial value when `seed` is given, else zeros.
---@param c table keys of localmim.defaults
---@param seed integer?
---@return localmim.LocalMIM
function localmim.new(c, seed)
    local full = {}
    for key, default in pairs(localmim.defaults) do
        if c[key] == nil then full[key] = default else full[key] = c[key] end
    end
    local resolved = vit.resolve(full)
    for _, key in ipairs { "taps", "decoder", "bins", "hog_bias" } do resolved[key] = full[key] end
    resolved.pos, resolved.cls_token, resolved.drop_path = "sincos", true, 0
    local model = LocalMIM(resolved)
    return seed and model:initialise(seed) or model
end

return localmim

-- Pictures of what a masked model sees and makes of it: the input, the input with removed patches grey, the
-- prediction with visible patches pasted in.
local m = require "mimic"

local reconstruction = {}

-- Normalised pixels [B,C,H,W] -> u8 [B,H,W,C]; the cast cuts off and holds the range 0..255.
local function to_bytes(x, mean, std)
    local function channel(values) return m.tensor(values):reshape{ 1, 3, 1, 1 } end
    local v = (x * channel(std) + channel(mean)):scale{ alpha = 255, beta = 0.5 }
    return v:permute{ 1, 3, 4, 2 }:contiguous():cast{ dtype = "u8" }
end

--- Three rows of u8 [B,H,W,3].
---@param target any normalised pixels f32 [B,Np,p*p*3]
---@param pred any predicted ones, the same
---@param mask any f32 [B,Np], 1 = removed
---@param attrs {patch: integer, order: string} of unpatchify
---@param opts {mean: number[], std: number[]}
---@return any input, any masked, any output
function reconstruction.rows(target, pred, mask, attrs, opts)
    local removed = mask:reshape{ mask.shape[1], mask.shape[2], 1 }
    local visible = target * (1 - removed)
    local function picture(patches)
        return to_bytes(m.unpatchify(patches, attrs), opts.mean, opts.std)
    end
    return picture(target), picture(visible), picture(visible + pred * removed)
end

--- The rows of the first pictures of a batch as a JPEG: one picture below the other.
---@param batch table
---@param n integer pictures at most
---@param rows_of fun(images: any): any, any, any rows of those pictures
---@return string
function reconstruction.jpeg(batch, n, rows_of)
    n = math.min(n, batch.images.shape[1])
    m.set_step(0)
    local input, masked, output = rows_of(batch.images:slice{ axis = 1, start = 1, stop = n }:contiguous())
    local rows = m.concat(input, masked, output, { axis = 3 }) -- [n,S,3S,3]
    local side = input.shape[2]
    return m.image.from(rows:reshape{ n * side, 3 * side, 3 }):jpeg(90)
end

return reconstruction

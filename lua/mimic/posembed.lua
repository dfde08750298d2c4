-- Position embeddings: the fixed 2-D sine-cosine table and the change of grid of a trained one.
-- Rule: the column comes first in each vector (MAE); a MoCo v3 table has the row first.
local m = require "mimic"

local posembed = {}

--- Fixed table of method.md 4.3, computed in double.
---@param dim integer divisible by 4
---@param grid integer patches per side
---@param opts {cls: boolean?, order: "mae"|"moco"|nil}? cls: a zero row for the class token (default)
---@return any tensor f32 [1,T,dim]
function posembed.sincos(dim, grid, opts)
    opts = opts or {}
    if dim % 4 ~= 0 then error(("sin-cos position embedding: %d is no multiple of 4"):format(dim), 0) end
    local quarter = dim // 4
    local omega = {}
    for k = 1, quarter do omega[k] = 10000.0 ^ (-(k - 1) / quarter) end
    local values = {}
    local function half(position)
        for k = 1, quarter do values[#values + 1] = math.sin(position * omega[k]) end
        for k = 1, quarter do values[#values + 1] = math.cos(position * omega[k]) end
    end
    local rows = grid * grid
    if opts.cls ~= false then
        rows = rows + 1
        for _ = 1, dim do values[#values + 1] = 0.0 end
    end
    for y = 0, grid - 1 do
        for x = 0, grid - 1 do
            if opts.order == "moco" then
                half(y)
                half(x)
            else
                half(x)
                half(y)
            end
        end
    end
    local flat <const> = m.tensor(values)
    return flat:reshape{ 1, rows, dim }:contiguous()
end

-- Keys' cubic with a = -0.75 as torch's interpolate has it.
local function cubic(t)
    local a <const> = -0.75
    t = math.abs(t)
    if t <= 1 then return ((a + 2) * t - (a + 3)) * t * t + 1 end
    if t < 2 then return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a end
    return 0
end

--- Matrix [to,from] of one axis: bicubic, align_corners = false, no antialiasing, edges repeated.
local function resampling(from, to)
    local rows = {}
    for o = 1, to do
        local row = {}
        for i = 1, from do row[i] = 0.0 end
        local source = (o - 0.5) * from / to - 0.5
        local base = math.floor(source)
        for i = base - 1, base + 2 do
            local at = math.min(math.max(i, 0), from - 1) + 1
            row[at] = row[at] + cubic(source - i)
        end
        rows[o] = row
    end
    return m.tensor(rows)
end

--- Bicubic change of a square grid of vectors [g*g,D] -> [to*to,D].
---@param grid_vectors any f32 [g*g,D]
---@param from integer
---@param to integer
function posembed.resample(grid_vectors, from, to)
    local dim = grid_vectors.shape[2]
    local matrix = resampling(from, to)
    local rows = m.matmul(matrix, grid_vectors:reshape{ from, from * dim })
    return m.matmul(matrix, rows:reshape{ to, from, dim }):reshape{ to * to, dim }
end

--- Fits a position embedding [1,T,D] to another grid; the class row, if any, stays as it is.
---@param pos any f32 [1,T,D]
---@param to integer patches per side wanted
---@param cls boolean whether a class row is wanted
---@return any tensor f32 [1,T',D]
function posembed.interpolate(pos, to, cls)
    local tokens, dim = pos.shape[2], pos.shape[3]
    local from = math.floor(math.sqrt(tokens) + 0.5)
    local has_cls = from * from ~= tokens
    if has_cls then from = math.floor(math.sqrt(tokens - 1) + 0.5) end
    if from * from ~= tokens - (has_cls and 1 or 0) then
        error(("position embedding with %d rows is no square grid"):format(tokens), 0)
    end
    local vectors = pos:reshape{ tokens, dim }
    local patches = has_cls and vectors:slice{ axis = 1, start = 2, stop = 0 }:contiguous() or vectors
    if from ~= to then patches = posembed.resample(patches, from, to) end
    if cls then
        local row = has_cls and vectors:slice{ axis = 1, start = 1, stop = 1 } or m.zeros { 1, dim }
        patches = m.concat(row, patches, { axis = 1 })
    end
    return patches:reshape{ 1, -1, dim }:contiguous()
end

return posembed

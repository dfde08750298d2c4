-- Transformer parts: patch embedding, attention, MLP, pre-norm block, stack of blocks.
-- Rules: residual additions wait until the next LayerNorm, which adds and normalises in one pass; what a
-- module has made and used up it lets go (<close>, m.release), so that its bytes last as long as a gradient
-- or a result needs them, not until Lua collects the handle.
local m = require "mimic"

--- Adds the classes to the nn table.
return function(nn)
    -- The convolution of timm's PatchEmbed: holds [D,C,p,p], computed as a Linear on patches.
    local Conv = nn.class "proj"
    function Conv:init(dim, channels, patch, scheme)
        local fan_in = channels * patch * patch
        local weight, bias = nn.init.fan_in(fan_in), nn.init.fan_in(fan_in)
        if scheme ~= "timm" then weight = nn.init.xavier(fan_in, dim) end
        if scheme == "moco" then bias = nn.init.zeros() end
        self:parameter("weight", { dim, channels, patch, patch }, weight)
        self:parameter("bias", { dim }, bias)
        self.dim = dim
    end
    function Conv:forward(patches)
        return m.linear(patches, self.weight:reshape{ self.dim, -1 }, self.bias)
    end

    ---@class nn.PatchEmbed: nn.Module
    nn.PatchEmbed = nn.class "patch_embed"
    ---@param c {img: integer, patch: integer, dim: integer, channels: integer?, init: string}
    function nn.PatchEmbed:init(c)
        if c.img % c.patch ~= 0 then
            error(("patch %d does not divide the image side %d"):format(c.patch, c.img), 0)
        end
        self.grid = c.img // c.patch
        self.attrs = { patch = c.patch, order = "conv" }
        self:child("proj", Conv(c.dim, c.channels or 3, c.patch, c.init))
    end
    --- images [B,C,H,W] -> tokens [B,Np,D]; with keep i32 [B,M] only those patches, in that order.
    function nn.PatchEmbed:forward(images, keep)
        local all <close> = m.patchify(images, self.attrs)
        local kept <close> = keep and m.gather_rows(all, keep)
        local patches <close> = self:activation(kept or all)
        return self.proj(patches)
    end

    ---@class nn.Attention: nn.Module
    nn.Attention = nn.class "attn"
    function nn.Attention:init(dim, heads, scheme)
        if dim % heads ~= 0 then
            error(("%d heads do not divide the width %d"):format(heads, dim), 0)
        end
        -- MoCo v3 draws q, k and v as three matrices, MAE as one.
        local weight = scheme == "moco" and nn.init.xavier(dim, dim) or nil
        self:child("qkv", nn.Linear(dim, 3 * dim, { init = scheme, weight = weight }))
        self:child("proj", nn.Linear(dim, dim, { init = scheme }))
        self.heads = { heads = heads }
    end
    function nn.Attention:forward(x)
        local qkv <close> = self.qkv(x)
        local mixed <close> = m.attention(qkv, self.heads)
        return self.proj(mixed)
    end

    ---@class nn.Mlp: nn.Module
    nn.Mlp = nn.class "mlp"
    function nn.Mlp:init(dim, hidden, scheme, gelu)
        local act = gelu == "tanh" and "gelu_tanh" or "gelu"
        self:child("fc1", nn.Linear(dim, hidden, { init = scheme, act = act }))
        self:child("fc2", nn.Linear(hidden, dim, { init = scheme }))
    end
    function nn.Mlp:forward(x)
        local hidden <close> = self.fc1(x)
        return self.fc2(hidden)
    end

    ---@class nn.Block: nn.Module
    nn.Block = nn.class "block"
    ---@param c {dim: integer, heads: integer, mlp_ratio: number?, drop_path: number?, gelu: string?,
    --- init: string?}
    function nn.Block:init(c)
        local scheme = c.init or "timm"
        self:child("norm1", nn.LayerNorm(c.dim))
        self:child("attn", nn.Attention(c.dim, c.heads, scheme))
        self:child("norm2", nn.LayerNorm(c.dim))
        self:child("mlp", nn.Mlp(c.dim, math.floor(c.dim * (c.mlp_ratio or 4)), scheme, c.gelu))
        self.drop_path = c.drop_path or 0
    end
    -- Stochastic depth of a residual branch, per sample. Takes the branch over.
    function nn.Block:drop(branch)
        if not self.training or self.drop_path == 0 then return branch end
        local whole <close> = branch
        return m.drop_path(whole, { p = self.drop_path })
    end
    -- x + branch and the norm of it; without a branch no sum is made.
    local function add_norm(norm, x, branch)
        if branch then return norm(x, branch) end
        return nil, norm(x)
    end
    --- Takes the residual stream and the branch not yet added to it (nil at the start), which it lets go
    --- once added; returns the same pair after this block.
    function nn.Block:forward(x, branch)
        local sum <close>, y = add_norm(self.norm1, x, branch)
        m.release(branch)
        local mixed = self:drop(self.attn(y))
        m.release(y)
        local out, z <close> = self.norm2(sum or x, mixed)
        m.release(mixed)
        return out, self:drop(self.mlp(z))
    end

    --- Blocks "0".."depth-1"; drop path grows linearly from 0 to c.drop_path.
    ---@class nn.Blocks: nn.Module
    nn.Blocks = nn.class "blocks"
    ---@param c table as nn.Block, with depth and checkpoint (keep only the blocks' inputs for backward)
    function nn.Blocks:init(c)
        self.depth, self.checkpoint = c.depth, c.checkpoint
        for i = 0, c.depth - 1 do
            local rate = c.depth > 1 and (c.drop_path or 0) * i / (c.depth - 1) or 0
            self:child(tostring(i), nn.Block {
                dim = c.dim, heads = c.heads, mlp_ratio = c.mlp_ratio, gelu = c.gelu,
                init = c.init, drop_path = rate,
            })
        end
    end
    --- Block i, from 0, on a residual stream and its pending branch.
    function nn.Blocks:step(i, x, branch)
        local block = self[tostring(i)]
        if self.checkpoint then return m.checkpoint(block, x, branch) end
        return block(x, branch)
    end
    --- Returns residual stream and pending branch: x + branch is the stack's output.
    function nn.Blocks:forward(x)
        local branch
        for i = 0, self.depth - 1 do
            local sum, new = self:step(i, x, branch)
            if i > 0 then x:release() end -- x of block 0 is the caller's
            x, branch = sum, new
        end
        return x, branch
    end
end

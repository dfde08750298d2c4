-- Transformer parts: patch embedding, attention, MLP, pre-norm block, stack of blocks.
-- Rule: residual additions wait until the next LayerNorm, which adds and normalises in one pass.
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
        local patches = m.patchify(images, self.attrs)
        if keep then patches = m.gather_rows(patches, keep) end
        return self.proj(self:activation(patches))
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
        return self.proj(m.attention(self.qkv(x), self.heads))
    end

    ---@class nn.Mlp: nn.Module
    nn.Mlp = nn.class "mlp"
    function nn.Mlp:init(dim, hidden, scheme, gelu)
        local act = gelu == "tanh" and "gelu_tanh" or "gelu"
        self:child("fc1", nn.Linear(dim, hidden, { init = scheme, act = act }))
        self:child("fc2", nn.Linear(hidden, dim, { init = scheme }))
    end
    function nn.Mlp:forward(x)
        return self.fc2(self.fc1(x))
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
    -- Stochastic depth of a residual branch, per sample.
    function nn.Block:drop(branch)
        if not self.training or self.drop_path == 0 then return branch end
        return m.drop_path(branch, { p = self.drop_path })
    end
    --- Takes the residual stream and the branch not yet added to it (nil at the start); returns the
    --- same pair after this block.
    function nn.Block:forward(x, branch)
        local y
        if branch then x, y = self.norm1(x, branch) else y = self.norm1(x) end
        x, y = self.norm2(x, self:drop(self.attn(y)))
        return x, self:drop(self.mlp(y))
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
        for i = 0, self.depth - 1 do x, branch = self:step(i, x, branch) end
        return x, branch
    end
end

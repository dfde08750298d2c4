-- mae_*, vit_*, block: forward and all gradients of the models.
local m = require "mimic"

local check = {}
local rel <const> = 1e-4
local loss_rel <const> = 1e-5

check["mae"] = function(g)
    local c = g:integers("meta.cfg") -- img, patch, dim, depth, heads, dec_dim, dec_depth, dec_heads, norm_pix
    local ratio = g:scalar("meta.mask_ratio")
    local model = m.mae.new {
        preset = false, img = c[1], patch = c[2], dim = c[3], depth = c[4], heads = c[5],
        decoder = { dim = c[6], depth = c[7], heads = c[8] },
    }
    g:weights(model)
    local images, noise = g:tensor("in.imgs"), g:tensor("in.noise")
    local norm = c[9] == 1
    local latent, mask, restore = model:encode(images, noise, ratio)
    g:scaled("out.latent", latent, rel)
    g:exact("out.mask", mask)
    g:exact("out.ids_restore", restore)
    local loss, pred = model(images, noise, { mask = ratio, norm_pix = norm, on = "masked" })
    g:scaled("out.pred", pred, rel)
    local target = model:target(images)
    if norm then
        local mean = target:mean{ axis = 3, keep = true }
        local d = target - mean
        local n = target.shape[3]
        local var = (d * d):sum{ axis = 3, keep = true } * (1 / (n - 1))
        target = d / var:scale{ beta = 1e-6 }:sqrt()
    end
    g:scaled("out.target", target, rel)
    g:relative("out.loss", loss, loss_rel)
    loss:backward()
    g:gradients(model, rel)
    g:bf16(model, "out.loss", function()
        return (model(images, noise, { mask = ratio, norm_pix = norm, on = "masked" }))
    end)
end

check["vit"] = function(g)
    local c = g:integers("meta.cfg") -- img, patch, dim, depth, heads, classes, gap
    local model = m.vit.new {
        preset = false, img = c[1], patch = c[2], dim = c[3], depth = c[4], heads = c[5], classes = c[6],
        pool = c[7] == 1 and "gap" or "cls",
    }
    g:weights(model)
    local images = g:tensor("in.imgs"):requires_grad_(true)
    local r = model:features(images)
    g:scaled("out.feat", r, rel)
    local logits = model:logits(r)
    g:scaled("out.logits", logits, rel)
    local loss = m.cross_entropy(logits, g:tensor("in.labels"))
    g:relative("out.loss", loss, loss_rel)
    loss:backward()
    g:gradients(model, rel)
    g:scaled("grad.in.imgs", images.grad, rel)
    g:bf16(model, "out.loss", function() return m.cross_entropy(model(images), g:tensor("in.labels")) end)
end

check["block"] = function(g)
    local x = g:tensor("in.x"):requires_grad_(true)
    local block = m.nn.Block { dim = x.shape[3], heads = g:integers("meta.heads")[1] }
    g:weights(block)
    local norm1 = block.norm1(x)
    g:scaled("out.norm1", norm1, rel)
    local attn = block.attn(norm1)
    g:scaled("out.attn", attn, rel)
    local resid1, norm2 = block.norm2(x, attn)
    g:scaled("out.resid1", resid1, rel)
    g:scaled("out.norm2", norm2, rel)
    local stream, branch = block(x)
    local y = stream + branch
    g:scaled("out.y", y, rel)
    local objective = (y * g:tensor("in.grad_out")):sum()
    objective:backward()
    g:gradients(block, rel)
    g:scaled("grad.in.x", x.grad, rel)

    local points = g:tensor("in.gelu_x"):requires_grad_(true)
    local gelu = m.gelu(points)
    g:scaled("out.gelu", gelu, rel)
    gelu:sum():backward()
    g:scaled("grad.gelu", points.grad, rel)
end

return check

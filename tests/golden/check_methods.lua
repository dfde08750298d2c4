-- moco_heads, localmim: losses of the other pre-training methods.
local m = require "mimic"
local localmim = require "mimic.localmim"
local moco = require "mimic.moco"

local check = {}

local Heads = m.nn.class "heads"
function Heads:init(dim, hidden, out)
    self:child("projector", moco.mlp(3, dim, hidden, out))
    self:child("predictor", moco.mlp(2, out, hidden, out))
end
function Heads:forward(x) return self.predictor(self.projector(x)) end

check["moco_heads"] = function(g)
    local feat1, feat2 = g:tensor("in.feat1"):requires_grad_(true), g:tensor("in.feat2"):requires_grad_(true)
    local hidden = g:tensor("w.projector.0.weight").shape[1]
    local out = g:tensor("in.k1").shape[2]
    local model = Heads(feat1.shape[2], hidden, out)
    for _, p in ipairs(model:parameters()) do p.tensor:copy_(g:tensor("w." .. p.name)) end
    local q1 = model(feat1)
    local q2 = model(feat2)
    g:scaled("out.q1", q1, 1e-4)
    g:scaled("out.q2", q2, 1e-4)
    for _, p in ipairs(model:named()) do
        if p.buffer then g:absolute("out." .. p.name, p.tensor, 1e-5) end
    end
    local tau = g:scalar("meta.T")
    local loss = moco.ctr(q1, g:tensor("in.k2"), tau) + moco.ctr(q2, g:tensor("in.k1"), tau)
    g:relative("out.loss", loss, 1e-5)
    loss:backward()
    g:gradients(model, 5e-4)
    g:scaled("grad.in.feat1", feat1.grad, 5e-4)
    g:scaled("grad.in.feat2", feat2.grad, 5e-4)
end

check["localmim"] = function(g)
    local c = g:integers("meta.cfg") -- img, patch, dim, depth, heads, dec_dim, dec_depth, dec_heads, bins
    local model = localmim.new {
        preset = false, img = c[1], patch = c[2], dim = c[3], depth = c[4], heads = c[5],
        decoder = { dim = c[6], depth = c[7], heads = c[8] }, bins = c[9],
    }
    for k, tap in ipairs(g:integers("meta.layers")) do
        g:report("meta.layers", model.taps[k] == tap, "another block is tapped")
    end
    g:weights(model)
    local images, noise = g:tensor("in.imgs"), g:tensor("in.noise")
    local loss, parts = model(images, noise, 0.75)
    g:exact("out.mask", parts.removed)
    g:exact("out.ids_restore", parts.restore)
    for k = 1, 4 do
        g:absolute(("out.hog%d"):format(k - 1), parts.target[k], 1e-4)
        g:scaled(("out.pred%d"):format(k - 1), parts.pred[k], 1e-4)
        g:absolute(("out.mask%d"):format(k - 1), parts.mask[k], 1e-6)
    end
    g:relative("out.loss", loss, 1e-5)
    loss:backward()
    g:gradients(model, 1e-4)
    g:bf16(model, "out.loss", function() return (model(images, noise, 0.75)) end)
end

return check

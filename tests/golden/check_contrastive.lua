-- supcon, mscl_*: the contrastive losses, their masks and gradients.
local m = require "mimic"
local contrastive = require "mimic.contrastive"

local check = {}
local loss_rel <const> = 1e-5
local grad_rel <const> = 2e-4

-- A fresh leaf with the values of a tensor.
local function leaf(t)
    return (t * 1):detach():requires_grad_(true)
end

-- Loss of z [B,V,d] in the view order of the method: all first views, then all second views.
local function supcon(z, labels, c, simclr)
    local b, v, d = z.shape[1], z.shape[2], z.shape[3]
    local flat = z:permute{ 2, 1, 3 }:contiguous():reshape{ v * b, d }
    if simclr then return (contrastive.infonce(flat, c, v)) end
    local repeated = labels
    for _ = 2, v do repeated = m.concat(repeated, labels, { axis = 1 }) end
    local classes = 0
    for _, y in ipairs(labels:tolist()) do classes = math.max(classes, y + 1) end
    return (contrastive.scl(flat, repeated, classes, c))
end

check["supcon"] = function(g)
    local h, labels, taus = g:tensor("in.h"), g:tensor("in.labels"), g:list("in.taus")
    local function case(tag, tau, base, simclr, source)
        local c = { tau = tau, base_temperature = base }
        local x = leaf(source)
        local loss = supcon(contrastive.normalise(x), labels, c, simclr)
        g:relative("out." .. tag .. ".loss", loss, loss_rel)
        loss:backward()
        g:scaled("grad." .. tag .. ".h", x.grad, grad_rel)
        if not g.has["grad." .. tag .. ".z"] then return end
        local z = leaf(contrastive.normalise(source))
        supcon(z, labels, c, simclr):backward()
        g:scaled("grad." .. tag .. ".z", z.grad, grad_rel)
    end
    for k, tau in ipairs(taus) do
        case(("eq.%d"):format(k - 1), tau, nil, false, h)
        case(("bt007.%d"):format(k - 1), tau, 0.07, false, h)
        case(("simclr.%d"):format(k - 1), tau, nil, true, h)
    end
    case("oneview", taus[1], nil, false, h:slice{ axis = 2, start = 1, stop = 1 }:contiguous())
end

-- Loss of each anchor alone.
local function per_anchor(za, zc, parts, tau)
    local out = {}
    for i = 1, za.shape[1] do
        local row = { axis = 1, start = i, stop = i }
        out[i] = m.contrastive(za:slice(row):contiguous(), zc, parts.pos:slice(row):contiguous(),
            parts.cand:slice(row):contiguous(), { tau = tau, reduction = "sum" }):item()
    end
    return out
end

check["mscl"] = function(g)
    local labels, lam = g:tensor("in.labels"), g:f32("in.lam")
    local taus, t = g:list("in.taus"), g:scalar("meta.t")
    local partner = g:tensor("in.pair_b")
    local label_mix = g:tensor("out.label_mix")
    local classes = label_mix.shape[2]
    local y = m.onehot(labels, { classes = classes })
    local mixed_labels = m.mixing.labels(y, { lam = lam, partner = partner })
    g:absolute("out.label_mix", mixed_labels, 1e-6)
    for _, name in ipairs(g.names) do
        local tag = name:match("^out%.(.+)%.loss$")
        if tag then
            local variant, dist, last = tag:match("^(%w+)%.(%w+)%.([%w_]+)$")
            local index = last:match("^tau(%d+)$")
            local c = m.task.merge(contrastive.defaults, {
                dist = dist, t = t, tau = taus[(index or 0) + 1],
                reduction = last == "sum" and "sum" or "mean",
                exclude_self = last ~= "incl_self",
                candidates = last == "plus_clean" and "mixed+clean" or "mixed",
            })
            local h_anchor, h_cand = leaf(g:tensor("in.h_anchor")), leaf(g:tensor("in.h_cand"))
            local za, zc = contrastive.normalise(h_anchor), contrastive.normalise(h_cand)
            local mixed = { z = zc, labels = mixed_labels }
            local loss, parts
            if variant == "alg" then
                loss, parts = contrastive.mscl_alg(mixed, c)
            else
                loss, parts = contrastive.mscl_eq({ z = za, labels = y }, mixed, partner, c)
            end
            g:relative(name, loss, loss_rel)
            g:exact(("out.%s.pos"):format(tag), parts.pos)
            local cand, each = ("out.%s.cand"):format(tag), ("out.%s.per_anchor"):format(tag)
            if g.has[cand] then g:exact(cand, parts.cand) end
            if g.has[each] then
                local anchors = variant == "alg" and zc or za
                g:scaled(each, per_anchor(anchors:detach(), zc:detach(), parts, c.tau), loss_rel)
            end
            loss:backward()
            if variant == "alg" then
                g:scaled(("grad.%s.h_anchor"):format(tag), h_cand.grad, grad_rel)
            else
                g:scaled(("grad.%s.h_anchor"):format(tag), h_anchor.grad, grad_rel)
                g:scaled(("grad.%s.h_cand"):format(tag), h_cand.grad, grad_rel)
            end
        end
    end
end

return check

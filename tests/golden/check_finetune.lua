-- step_*: the whole fine-tuning loss, from given views, draws and weights.
local m = require "mimic"

local check = {}
local rel <const> = 1e-4

check["step"] = function(g)
    -- img, patch, dim, depth, heads, classes, gap, B, proj_dim, cutmix
    local c = g:integers("meta.cfg")
    local hyper = g:list("meta.hyper") -- weight, tau, t
    local variant = g.has["out.z_anchor"] and "eq" or "alg"
    local config = {
        preset = variant == "eq" and "mimic" or "mimic-alg",
        model = {
            preset = false, img = c[1], patch = c[2], dim = c[3], depth = c[4], heads = c[5],
            pool = c[7] == 1 and "gap" or "cls", drop_path = 0,
        },
        proj = { kind = "dense", dim = c[9] },
        mscl = { weight = hyper[1], tau = hyper[2], t = hyper[3] },
    }
    local defaults = m.finetune.defaults
    config = m.task.merge(defaults, config, { mscl = m.task.merge(defaults.mscl, config.mscl) })
    local model = m.finetune.model(config, c[6])
    g:weights(model)

    local views, labels = g:tensor("in.views"), g:tensor("in.labels")
    local n = views.shape[1]
    local lam, centre = g:scalar("in.lam_drawn"), g:integers("in.cutmix_center")
    local draws = { lam = {}, cutmix = {}, cy = {}, cx = {}, partner = {} }
    for i = 1, n do
        draws.lam[i], draws.cutmix[i] = lam, c[10] == 1
        draws.cy[i], draws.cx[i], draws.partner[i] = centre[1], centre[2], n - i
    end
    local plan = m.mixing.plan(draws, views.shape[3], views.shape[4])
    g:exact("out.cutmix_box", plan.draws.box[1])
    g:relative("out.lam", plan.draws.lam[1], 1e-12)

    local loss, terms, parts = m.finetune.loss(model, views, labels, plan, config)
    g:scaled("out.mixed", parts.mixed, rel)
    g:scaled("out.label_mix", parts.label_mix, rel)
    g:scaled("out.logits", parts.logits or parts.logits_mixed, rel)
    g:scaled("out.z_mixed", parts.z_mixed, rel)
    if parts.z_anchor then g:scaled("out.z_anchor", parts.z_anchor, rel) end
    g:exact("out.pos", parts.pos)
    g:relative("out.loss_ce", terms.ce, 1e-5)
    g:relative("out.loss_mscl", terms.contrast, 1e-5)
    g:relative("out.loss", loss, 1e-5)
    loss:backward()
    g:gradients(model, rel)
    g:bf16(model, "out.loss", function() return (m.finetune.loss(model, views, labels, plan, config)) end)
end

return check

-- Heads on the features r: the classifier and the projection of Table III. They compute in f32.
local nn = require "mimic.nn"

local heads = {}

heads.kinds = { "none", "linear", "dense" }

--- Linear classifier, weight ~ N(0, std), bias 0. batchnorm: the non-affine one of MAE's linear probe
--- in front of it (names head.0.*, head.1.*).
---@param dim integer
---@param classes integer
---@param opts {std: number?, batchnorm: boolean?}?
function heads.classifier(dim, classes, opts)
    opts = opts or {}
    local linear = nn.Linear(dim, classes, { weight = nn.init.normal(opts.std or 2e-5) })
    if not opts.batchnorm then return linear:precise() end
    local norm = nn.BatchNorm1d(dim, { affine = false, eps = 1e-6 })
    return nn.Sequential { { "0", norm }, { "1", linear } }:precise()
end

--- Projection r [n,D] -> h [n,d], not yet normalised. dense: Linear - ReLU - Linear with hidden width D
--- (proj_head.0, proj_head.2); linear: one Linear; none: h = r.
---@param dim integer
---@param opts {kind: "none"|"linear"|"dense"|nil, dim: integer?, init: "torch"|"xavier"|nil}
function heads.projection(dim, opts)
    local scheme = opts.init == "xavier" and "mae" or "torch"
    local out = opts.dim or 128
    local kind = opts.kind or "dense"
    if kind == "none" then return nn.Identity() end
    if kind == "linear" then return nn.Linear(dim, out, { init = scheme }):precise() end
    if kind ~= "dense" then error(("proj.kind '%s': none, linear or dense"):format(kind), 0) end
    return nn.Sequential {
        { "0", nn.Linear(dim, dim, { init = scheme, act = "relu" }) },
        { "2", nn.Linear(dim, out, { init = scheme }) },
    }:precise()
end

return heads

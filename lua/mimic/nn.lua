-- Modules: tables with parameters under timm/MAE names, a forward method and children.
-- Rule: an initial value depends on (seed, parameter name) only, never on the order of construction.
local m = require "mimic"
local suggest = require "mimic.suggest"

local nn = {}

---@class nn.Parameter
---@field name string full dotted name, "blocks.3.attn.qkv.weight"
---@field tensor any the f32 master, a leaf
---@field module nn.Module owner
---@field key string field of the owner that forward reads (the master, or its bf16 shadow)
---@field rule table? how it starts, see nn.init
---@field buffer boolean? saved with the parameters, never trained

---@class nn.Module
---@field label string own part of the name, shown in error messages
---@field training boolean
---@field dtype string "f32" or "bf16": what activations are
local Module = {}
Module.__index = Module
nn.Module = Module

local function leave(depth, ...)
    m.pop_name(depth)
    return ...
end

-- Runs forward with the module's label on the name stack of messages.
local function call(self, ...)
    return leave(m.push_name(self.label), self:forward(...))
end

--- Runs method(self, ...) with the module's label on the name stack, as a call of the module does.
function Module:within(method, ...)
    return leave(m.push_name(self.label), method(self, ...))
end

--- A new class. `init(self, ...)` builds, `forward(self, ...)` computes.
---@param label string shown in messages until a parent names the module
---@return table class callable: class(...) makes a module
function nn.class(label)
    local class = setmetatable({}, {
        __index = Module,
        __call = function(class, ...)
            local self = setmetatable({
                label = label, training = true, dtype = "f32", items = {},
            }, class)
            self:init(...)
            return self
        end,
    })
    class.__index = class
    class.__call = call
    return class
end

--- Registers a trained tensor (zeros until `initialise`). Make modules outside any scope.
---@param key string
---@param shape integer[]
---@param rule table one of nn.init
function Module:parameter(key, shape, rule)
    local tensor = m.zeros(shape):requires_grad_(true)
    self[key] = tensor
    self.items[#self.items + 1] = { key = key, tensor = tensor, rule = rule }
end

--- Registers a tensor that is saved but not trained.
function Module:buffer(key, tensor)
    self[key] = tensor
    self.items[#self.items + 1] = { key = key, tensor = tensor, buffer = true }
end

--- Registers a module under `key`; names of its parameters start with it.
function Module:child(key, module)
    module.label = key
    self[key] = module
    self.items[#self.items + 1] = { key = key, child = module }
end

local function collect(module, prefix, out)
    for _, item in ipairs(module.items) do
        local name = prefix .. item.key
        if item.child then
            collect(item.child, name .. ".", out)
        else
            out[#out + 1] = {
                name = name, tensor = item.tensor, module = module, key = item.key,
                rule = item.rule, buffer = item.buffer,
            }
        end
    end
    return out
end

--- Parameters and buffers in the order of construction.
---@return nn.Parameter[]
function Module:named()
    return collect(self, "", {})
end

---@return nn.Parameter[]
function Module:parameters()
    local out = {}
    for _, p in ipairs(self:named()) do
        if not p.buffer then out[#out + 1] = p end
    end
    return out
end

--- Calls f(module) for this module and all below it.
function Module:each(f)
    f(self)
    for _, item in ipairs(self.items) do
        if item.child then item.child:each(f) end
    end
end

--- Training mode (drop path, batch statistics) on or off.
---@param on boolean?
function Module:train(on)
    self:each(function(module) module.training = on ~= false end)
    return self
end

function Module:eval()
    return self:train(false)
end

--- Excludes parameters from training: all of them, or those whose name matches a pattern.
---@param pattern string?
function Module:freeze(pattern)
    for _, p in ipairs(self:parameters()) do
        if not pattern or p.name:find(pattern) then p.tensor:requires_grad_(false) end
    end
    return self
end

---@return integer
function Module:count()
    local n = 0
    for _, p in ipairs(self:parameters()) do n = n + p.tensor.numel end
    return n
end

--- Keeps this module and all below it in f32 whatever `compute` says: heads, whose cost is nothing and
--- whose rounding a small temperature magnifies.
function Module:precise()
    self:each(function(module) module.always_f32 = true end)
    return self
end

--- Chooses the dtype of activations and of tensors of rank >= 2. For bf16 trained tensors are the
--- optimiser's shadows, whose gradient is the master's; the rest is copied once. LayerNorm gains and
--- biases stay f32.
---@param dtype "f32"|"bf16"
---@param optimizer table? optim.new{bf16 = true}, needed when something is trained
function Module:compute(dtype, optimizer)
    assert(dtype == "f32" or dtype == "bf16", "compute: dtype is f32 or bf16")
    self:each(function(module) module.dtype = module.always_f32 and "f32" or dtype end)
    for _, p in ipairs(self:named()) do
        local tensor = p.tensor
        if p.module.dtype == "bf16" and tensor.rank >= 2 then
            tensor = optimizer and optimizer:shadow(p.name) or tensor:cast{ dtype = "bf16" }
        end
        p.module[p.key] = tensor
    end
    return self
end

--- Casts an activation to the dtype of this module.
function Module:activation(x)
    return x.dtype == self.dtype and x or x:cast{ dtype = self.dtype }
end

--- 31-bit FNV-1a of a name: the random stream of a parameter or a purpose. Its second highest bit is
--- set, which keeps it apart from the small stream numbers of operators.
---@param name string
---@return integer
function nn.stream(name)
    local h = 0x811c9dc5
    for i = 1, #name do
        h = ((h ~ name:byte(i)) * 0x01000193) & 0xffffffff
    end
    return h & 0x3fffffff | 0x40000000
end

-- Initial values (method.md 4.4). Each is a rule {kind, a}.
nn.init = {
    zeros = function() return { "constant", 0 } end,
    ones = function() return { "constant", 1 } end,
    --- "trunc normal std, cut at +-2 absolute" of timm is this: 2 is many standard deviations.
    normal = function(std) return { "normal", std } end,
    uniform = function(bound) return { "uniform", bound } end,
    xavier = function(fan_in, fan_out) return { "uniform", math.sqrt(6 / (fan_in + fan_out)) } end,
    --- PyTorch's default of Linear and Conv, weight and bias.
    fan_in = function(fan_in) return { "uniform", 1 / math.sqrt(fan_in) } end,
}

-- attrs: shape, seed, stream, step.
local fill = {}
function fill.constant(attrs, value)
    return m.full({ table.unpack(attrs) }, value)
end
function fill.normal(attrs, std)
    attrs.std = std
    return m.rand_normal(attrs)
end
function fill.uniform(attrs, bound)
    attrs.lo, attrs.hi = -bound, bound
    return m.rand_uniform(attrs)
end

--- Gives every parameter its initial value.
---@param seed integer
function Module:initialise(seed)
    for _, p in ipairs(self:parameters()) do
        local scope <close> = m.scope() -- luacheck: ignore
        local attrs = p.tensor.shape
        attrs.seed, attrs.stream, attrs.step = seed, nn.stream(p.name), 0
        p.tensor:copy_(fill[p.rule[1]](attrs, p.rule[2]))
    end
    return self
end

--- Weight and bias rules of a Linear [out,in] under a scheme of method.md 4.4.
---@param scheme "mae"|"timm"|"moco"|"torch"
local function linear_rules(scheme, fan_in, fan_out)
    if scheme == "timm" then return nn.init.normal(0.02), nn.init.zeros() end
    if scheme == "torch" then return nn.init.fan_in(fan_in), nn.init.fan_in(fan_in) end
    assert(scheme == "mae" or scheme == "moco", "init: mae, timm, moco or torch")
    return nn.init.xavier(fan_in, fan_out), nn.init.zeros()
end

---@class nn.Linear: nn.Module
nn.Linear = nn.class "linear"
---@param fan_in integer
---@param fan_out integer
---@param opts {bias: boolean?, act: string?, init: string?, weight: table?}?
--- init is a scheme, weight a rule for the weight alone, with zero bias
function nn.Linear:init(fan_in, fan_out, opts)
    opts = opts or {}
    suggest.check_options("nn.Linear", opts, { bias = true, act = true, init = true, weight = true })
    local weight, bias = linear_rules(opts.init or "torch", fan_in, fan_out)
    self:parameter("weight", { fan_out, fan_in }, opts.weight or weight)
    if opts.bias ~= false then
        self:parameter("bias", { fan_out }, opts.weight and nn.init.zeros() or bias)
    end
    self.act = { act = opts.act or "none" }
end
function nn.Linear:forward(x)
    return m.linear(x, self.weight, self.bias, self.act)
end

---@class nn.LayerNorm: nn.Module
nn.LayerNorm = nn.class "norm"
function nn.LayerNorm:init(dim, eps)
    self:parameter("weight", { dim }, nn.init.ones())
    self:parameter("bias", { dim }, nn.init.zeros())
    self.eps = { eps = eps or 1e-6 }
end
--- norm(x), or with a branch x + branch and its norm in one pass.
---@return any sum_or_y, any? y
function nn.LayerNorm:forward(x, branch)
    if branch then return m.add_layernorm(x, branch, self.weight, self.bias, self.eps) end
    return m.layernorm(x, self.weight, self.bias, self.eps)
end

---@class nn.Identity: nn.Module
nn.Identity = nn.class "identity"
function nn.Identity.init() end
function nn.Identity:forward(x) -- luacheck: ignore self
    return x
end

---@class nn.ReLU: nn.Module
nn.ReLU = nn.class "relu"
function nn.ReLU.init() end
function nn.ReLU:forward(x) -- luacheck: ignore self
    return x:relu()
end

---@class nn.GELU: nn.Module
nn.GELU = nn.class "gelu"
function nn.GELU.init() end
function nn.GELU:forward(x) -- luacheck: ignore self
    return x:gelu()
end

--- Modules under given keys, one after the other: nn.Sequential{ {"0", a}, {"2", b} }.
---@class nn.Sequential: nn.Module
nn.Sequential = nn.class "sequential"
function nn.Sequential:init(list)
    self.order = {}
    for i, entry in ipairs(list) do
        self:child(entry[1], entry[2])
        self.order[i] = entry[2]
    end
end
function nn.Sequential:forward(x)
    for i, module in ipairs(self.order) do
        local y = module(x)
        if i > 1 and y ~= x then x:release() end
        x = y
    end
    return x
end

--- Batch norm of [N,C] with running statistics (momentum 0.1, running variance unbiased as PyTorch's).
---@class nn.BatchNorm1d: nn.Module
nn.BatchNorm1d = nn.class "batchnorm"
---@param opts {affine: boolean?, eps: number?, momentum: number?}?
function nn.BatchNorm1d:init(dim, opts)
    opts = opts or {}
    suggest.check_options("nn.BatchNorm1d", opts, { affine = true, eps = true, momentum = true })
    self.eps, self.momentum = opts.eps or 1e-5, opts.momentum or 0.1
    if opts.affine ~= false then
        self:parameter("weight", { dim }, nn.init.ones())
        self:parameter("bias", { dim }, nn.init.zeros())
    end
    self:buffer("running_mean", m.zeros { dim })
    self:buffer("running_var", m.ones { dim })
end
function nn.BatchNorm1d:forward(x)
    x = x.dtype == "f32" and x or x:cast{ dtype = "f32" }
    if not self.training then
        local y = (x - self.running_mean) / (self.running_var:scale{ beta = self.eps }):sqrt()
        return self.weight and y * self.weight + self.bias or y
    end
    local y, mean, var = m.batchnorm(x, self.weight, self.bias, { eps = self.eps })
    local n, keep = x.shape[1], 1 - self.momentum
    m.no_grad(function()
        local rate = self.momentum
        local unbiased = var:detach() * (n / math.max(n - 1, 1))
        self.running_mean:copy_(self.running_mean * keep + mean:detach() * rate)
        self.running_var:copy_(self.running_var * keep + unbiased * rate)
    end)
    return y
end

-- The transformer's classes live in a file of their own and join the table here.
require "mimic.nn.transformer"(nn)

return nn

-- A golden file and the comparisons with it: one line per tensor that is out of tolerance.
local m = require "mimic"

---@class Golden
local Golden = {}
Golden.__index = Golden

function Golden.open(path)
    local self = setmetatable({ file = m.safetensors.open(path), compared = 0, failed = 0, seen = {} }, Golden)
    self.has = {}
    self.names = self.file:names()
    for _, name in ipairs(self.names) do self.has[name] = true end
    return self
end

-- A tensor of the file in the host's memory: a GPU takes no f64.
local function on_host(self, name)
    local device = m.device()
    m.device "cpu"
    local t = self.file:load(name)
    m.device(device)
    return t
end

--- A tensor of the file as stored, on the device unless it is f64.
function Golden:tensor(name)
    return self.file:info(name) == "F64" and on_host(self, name) or self.file:load(name)
end

--- The same as f32 (F64 in the file is narrowed).
function Golden:f32(name)
    local t = on_host(self, name)
    return (t.dtype == "f32" and t or t:cast{ dtype = "f32" }):to(m.device())
end

local function flatten(value, out)
    if type(value) ~= "table" then
        out[#out + 1] = value
    else
        for _, v in ipairs(value) do flatten(v, out) end
    end
    return out
end

--- Flat list of the numbers of a tensor, nested list or number.
function Golden.numbers(value)
    if type(value) == "userdata" then value = value:tolist() end
    return flatten(value, {})
end

--- Flat list of a tensor of the file, in its own precision.
function Golden:list(name)
    return Golden.numbers(on_host(self, name))
end

--- First number of a tensor of the file.
function Golden:scalar(name)
    return self:list(name)[1]
end

-- Integers of a tensor such as meta.cfg.
function Golden:integers(name)
    local out = {}
    for i, v in ipairs(self:list(name)) do out[i] = math.tointeger(v) end
    return out
end

--- Numbers drawn for a case, which its checker takes as arguments: flat list, or nil when the file has none.
function Golden:drawn(name)
    self.seen[name] = true
    return self.has[name] and self:list(name) or nil
end

function Golden:report(name, ok, text)
    self.compared = self.compared + 1
    self.seen[name] = true
    if ok then return end
    self.failed = self.failed + 1
    print(("FAIL %s: %s"):format(name, text))
end

local function largest(list)
    local max = 0
    for _, v in ipairs(list) do max = math.max(max, math.abs(v)) end
    return max
end

--- Compares numbers: |got - reference| <= limit(reference list).
local function compare(self, name, got, reference, limit)
    if #got ~= #reference then
        return self:report(name, false, ("%d values instead of %d"):format(#got, #reference))
    end
    local worst, at = 0, 1
    for i, r in ipairs(reference) do
        local e = math.abs(got[i] - r)
        if e > worst or e ~= e then worst, at = e, i end -- a NaN stays
    end
    local ok = worst <= limit
    self:report(name, ok, ("error %.3g at %d (%.9g instead of %.9g), tolerance %.3g"):format(
        worst, at, got[at], reference[at], limit))
end

--- Largest error at most rel * max|reference|.
function Golden:scaled(name, got, rel)
    local reference = self:list(name)
    compare(self, name, Golden.numbers(got), reference, rel * largest(reference))
end

--- Largest error at most `limit`.
function Golden:absolute(name, got, limit)
    compare(self, name, Golden.numbers(got), self:list(name), limit)
end

--- Every value within rel of its reference.
function Golden:relative(name, got, rel)
    local reference, list = self:list(name), Golden.numbers(got)
    if #list ~= #reference then
        return self:report(name, false, ("%d values instead of %d"):format(#list, #reference))
    end
    local worst, at = 0, 1
    for i, r in ipairs(reference) do
        local e = math.abs(list[i] - r) / math.max(math.abs(r), 1e-300)
        if list[i] == r then e = 0 end
        if e > worst or e ~= e then worst, at = e, i end
    end
    self:report(name, worst <= rel, ("relative error %.3g at %d (%.17g instead of %.17g), tolerance %.3g")
        :format(worst, at, list[at], reference[at], rel))
end

--- All values equal.
function Golden:exact(name, got)
    compare(self, name, Golden.numbers(got), self:list(name), 0)
end

--- Bytes of pictures: all equal, or off by one in at most one percent.
function Golden:bytes(name, got, period)
    local reference, list = self:list(name), Golden.numbers(got)
    if #list ~= #reference then
        return self:report(name, false, ("%d values instead of %d"):format(#list, #reference))
    end
    local off, worst = 0, 0
    for i, r in ipairs(reference) do
        local e = math.abs(list[i] - r)
        if period then e = math.min(e, period - e) end
        if e > 0 then off = off + 1 end
        worst = math.max(worst, e)
    end
    self:report(name, worst == 0 or worst <= 1 and off <= #reference / 100,
        ("%d of %d values differ, by up to %d"):format(off, #reference, worst))
end

--- Copies "w.*" into a module; every name of both sides must fit.
function Golden:weights(module)
    local file = self.file
    local view = {
        names = function() return file:names() end,
        info = function(_, name) return file:info(name) end,
        load = function(_, name) return file:load(name) end,
    }
    m.weights.copy(module, view, "golden", { prefix = "w." })
end

--- Compares the gradient of every parameter of a module with "grad.*".
function Golden:gradients(module, rel)
    local seen = {}
    for _, p in ipairs(module:parameters()) do
        local name = "grad." .. p.name
        seen[name] = true
        if not self.has[name] then
            self:report(name, false, "is not in the file")
        elseif not p.tensor.grad then
            self:report(name, false, "no gradient reached the parameter")
        else
            self:scaled(name, p.tensor.grad, rel)
        end
    end
    for _, name in ipairs(self.names) do
        local other = name:find("^grad%.in%.") or name:find("^grad%.gelu")
        if name:find("^grad%.") and not other and not seen[name] then
            self:report(name, false, "no such parameter in the model")
        end
    end
end

local function cosine(a, b)
    local ab, aa, bb = 0, 0, 0
    for i, x in ipairs(a) do
        ab, aa, bb = ab + x * b[i], aa + x * x, bb + b[i] * b[i]
    end
    return aa == bb and aa == 0 and 1 or ab / math.sqrt(aa * bb)
end

--- The same model in bf16: the loss within 2e-2, the gradient of each parameter in the same direction
--- (cosine at least 0.999).
---@param module nn.Module with the file's weights, whose gradients are no longer needed
---@param name string the loss in the file
---@param run fun(): any makes the loss
function Golden:bf16(module, name, run)
    local optimizer = m.optim.new(module, { kind = "adamw", bf16 = true })
    optimizer:zero_grad()
    module:compute("bf16", optimizer)
    local loss = run()
    self:relative(name, loss, 2e-2)
    loss:backward()
    for _, p in ipairs(module:parameters()) do
        local reference = self:list("grad." .. p.name)
        local c = cosine(Golden.numbers(p.tensor.grad), reference)
        self:report("bf16 grad." .. p.name, c >= 0.999, ("cosine %.6f, at least 0.999 wanted"):format(c))
    end
end

-- References that no checker compares, and why.
local elsewhere <const> = {
    ["^out%.geom%."] = "compared by c.test_crop_golden",
    ["^out%.float_aa%."] = "not covered: mimic resizes pictures in bytes, as out.pil has it",
    ["^out%.rgb_to_hsv$"] = "not covered by itself: a part of out.hue",
}

-- Every reference of the file was compared, or it is said which was not.
local function check_coverage(self)
    local left = {}
    for _, name in ipairs(self.names) do
        if (name:find "^out%." or name:find "^grad%." or name:find "^w[1-9]") and not self.seen[name] then
            local why
            for pattern, reason in pairs(elsewhere) do why = why or name:find(pattern) and reason end
            if why then left[why] = (left[why] or 0) + 1 else self:report(name, false, "was not compared") end
        end
    end
    for why, n in pairs(left) do print(("%d tensors %s"):format(n, why)) end
end

function Golden:finish(stem)
    if self.compared == 0 then self:report(stem, false, "nothing was compared") end
    check_coverage(self)
    print(("%s: %d tensors compared, %d failed"):format(stem, self.compared, self.failed))
    return self.failed == 0
end

return Golden

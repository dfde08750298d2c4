-- What the settings of the tasks may be, one line a key, checked before anything runs. A rule is written as
-- it is shown: "0 < x < 1", "whole x >= 1", "3 of x >= 0" (a list), "some of x >= 0" (of any length), or the
-- words it may be, "mae | timm", or "true or false". A setting whose default is false may be false: unset.
local config = require "mimic.config"
local suggest = require "mimic.suggest"

local ranges = {}

local probability <const> = "0 <= x <= 1"
local fraction <const> = "0 <= x < 1"
local part <const> = "0 < x < 1"
local positive <const> = "x > 0"
local from_zero <const> = "x >= 0"
local count <const> = "whole x >= 1"
local counted <const> = "whole x >= 0"
local filter <const> = "bilinear | bicubic"
local flag <const> = "true or false"

--- Rules of the keys of `pretrain` (every method), `finetune` and `embed`; a key means the same in all.
ranges.rules = {
    -- the loop
    device = "cpu | cuda",
    epochs = count, batch = "whole 1 <= x <= 1048576", accumulate = count, precision = "f32 | bf16",
    log_every = count, checkpoint_epochs = count, checkpoint_seconds = from_zero,
    -- optimiser and schedule
    opt = "adam | adamw | sgd | lars", lr = from_zero, blr = from_zero, per = positive,
    betas = "2 of 0 <= x < 1", eps = positive, momentum = fraction, weight_decay = from_zero,
    exempt = "timm | mae | none", layer_decay = "0 < x <= 1", clip = from_zero,
    schedule = "cosine | constant | exponential | step | deit", warmup = from_zero, min_lr = from_zero,
    warmup_lr = from_zero, gamma = positive, milestones = "some of x >= 0",
    -- data and augmentation
    ["data.format"] = "auto | folders | rafdb | ferplus | affectnet | list | pack | pixels | recordio",
    ["data.workers"] = "whole 1 <= x <= 256", ["data.ahead"] = "whole 1 <= x <= 64",
    ["data.cache"] = from_zero, ["data.device"] = "auto | off | stream | keep",
    ["data.skip_damaged"] = flag, ["data.balanced"] = flag,
    ["augment.pre_resize"] = "whole 0 <= x <= 8192", ["augment.scale"] = "2 of 0 < x <= 1",
    ["augment.ratio"] = "2 of x > 0", ["augment.filter"] = filter, ["augment.flip"] = probability,
    ["augment.jitter"] = "4 of 0 <= x <= 10", ["augment.jitter_p"] = probability,
    ["augment.grey_p"] = probability, ["augment.blur_p"] = probability,
    ["augment.blur_sigma"] = "2 of 0 <= x <= 100", ["augment.solarize_p"] = probability,
    ["augment.randaugment.n"] = "whole 0 <= x <= 100", ["augment.randaugment.m"] = "0 <= x <= 10",
    ["augment.randaugment.std"] = "0 <= x <= 10", ["augment.erase_p"] = probability,
    ["augment.mean"] = "3 of -1000000 <= x <= 1000000", ["augment.std"] = "3 of x > 0",
    ["second.blur_p"] = probability, ["second.solarize_p"] = probability,
    ["eval.batch"] = count, ["eval.resize_short"] = counted, ["eval.filter"] = filter, ["eval.every"] = count,
    ["mix.mixup"] = from_zero, ["mix.cutmix"] = from_zero, ["mix.switch"] = probability,
    ["mix.prob"] = probability, ["mix.mode"] = "batch | elem | pair", ["mix.partner"] = "flip | randperm",
    views = "whole 1 <= x <= 2", repeats = "whole 1 <= x <= 16",
    -- models and heads
    ["model.preset"] = "vit_ti16 | vit_s16 | vit_s16_moco | vit_b16 | vit_l16 | false",
    ["model.img"] = "whole 1 <= x <= 8192", ["model.patch"] = count, ["model.dim"] = count,
    ["model.depth"] = count, ["model.heads"] = count, ["model.mlp_ratio"] = positive,
    ["model.channels"] = count, ["model.gelu"] = "erf | tanh", ["model.pool"] = "gap | cls",
    ["model.gap.norm"] = "after | before", ["model.pos"] = "learned | sincos",
    ["model.init"] = "mae | timm | moco", ["model.drop_path"] = fraction,
    ["model.decoder.dim"] = count, ["model.decoder.depth"] = count, ["model.decoder.heads"] = count,
    ["model.bins"] = count, ["model.taps"] = "4 of whole x >= 0", ["model.mlp_dim"] = count,
    ["model.out_dim"] = count,
    ["model.checkpoint"] = flag, ["model.gap.include_cls"] = flag, ["head.batchnorm"] = flag,
    ["head.std"] = from_zero, ["proj.kind"] = "none | linear | dense", ["proj.dim"] = count,
    ["proj.init"] = "torch | xavier", freeze = "none | patch_embed | encoder",
    -- methods and losses
    method = "mae | moco | localmim | simmim | supervised", mask = part, mask_patch = count,
    ["loss.on"] = "masked | all", pictures = counted, picture_epochs = counted, smoothing = fraction,
    tau = positive, momentum_encoder = probability,
    preset = "ce | scl | mimic | mimic-alg | linear-probe", ["ce.on"] = "auto | clean | mixed | both",
    ["ce.smoothing"] = fraction, ["mscl.loss"] = "auto | none | scl | mscl",
    ["mscl.variant"] = "auto | eq | alg",
    ["mscl.weight"] = from_zero, ["mscl.tau"] = positive, ["mscl.base_temperature"] = positive,
    ["mscl.reduction"] = "mean | sum", ["mscl.empty"] = "zero | skip", ["mscl.dist"] = "tv | linf | l1 | l2",
    ["mscl.t"] = from_zero, ["mscl.candidates"] = "mixed | mixed+clean",
    ["mscl.visual_gate"] = "none | cosine", ["mscl.visual_min"] = "-1 <= x <= 1",
    ["mscl.visual_fail"] = "ignored | negative",
    -- looking at features
    k = count, metric = "cosine | euclidean", ["tsne.perplexity"] = "x >= 1", ["tsne.theta"] = "0 <= x <= 0.7",
    ["tsne.iterations"] = count, ["tsne.eta"] = positive,
}

local compare = {
    ["<"] = function(a, b) return a < b end, ["<="] = function(a, b) return a <= b end,
    [">"] = function(a, b) return a > b end, [">="] = function(a, b) return a >= b end,
}

-- Whether x keeps a rule about one number.
local function number_keeps(rule, x)
    if type(x) ~= "number" or x ~= x or x == math.huge or x == -math.huge then return false end
    local rest, whole = rule:gsub("^whole ", "")
    if whole > 0 and not math.tointeger(x) then return false end
    local low, below = rest:match("^(%S+) (<=?) x")
    local above, high = rest:match("x ([<>]=?) (%S+)$")
    return (not low or compare[below](tonumber(low), x)) and (not above or compare[above](x, tonumber(high)))
end

--- Whether a value keeps a rule.
---@param rule string
---@param value any
---@return boolean
function ranges.keeps(rule, value)
    if rule == flag then return type(value) == "boolean" end
    local n, each = rule:match("^(%w+) of (.*)$")
    if n then
        if type(value) ~= "table" or n ~= "some" and #value ~= tonumber(n) then return false end
        for _, x in ipairs(value) do
            if not number_keeps(each, x) then return false end
        end
        return true
    end
    if rule:find("[<>]") then return number_keeps(rule, value) end
    for word in rule:gmatch("[^%s|]+") do
        if word == tostring(value) and (type(value) == "string" or value == false) then return true end
    end
    return false
end

-- The rule as an expectation: "a whole number x >= 1", "3 numbers, each x >= 0", "mae or timm".
local function expectation(rule)
    local n, each = rule:match("^(%w+) of (.*)$")
    if n then return ("a list of %s numbers, each %s"):format(n, each) end
    if rule:find("[<>]") then return (rule:gsub("^whole ", "a whole number ")) end
    return (rule:gsub(" | ([^|]*)$", " or %1"):gsub(" |", ","))
end

local function show(value)
    return type(value) == "string" and ("'%s'"):format(value) or config.json(value)
end

local set_keys <const> = { "path", "split", "mode", "format", "label_column" }

-- Refuses what is no set, and an unknown key, of data.train, data.val or data.test.
local function check_sets(data)
    for _, split in ipairs { "train", "val", "test" } do
        local set = data[split]
        if set and type(set) ~= "string" and not (config.is_map(set) and set.path) then
            config.refuse('data.%s: expected a path, or { path = "DIR", split = "train" }, got %s', split, show(set))
        end
        for key in pairs(config.is_map(data[split]) and data[split] or {}) do
            local known = false
            for _, k in ipairs(set_keys) do known = known or k == key end
            if not known then
                config.refuse("unknown key 'data.%s.%s'%s; a set has %s", split, key,
                    suggest.hint(tostring(key), set_keys), table.concat(set_keys, ", "))
            end
        end
    end
end

--- Refuses a configuration with a value outside of its rule.
---@param cfg table resolved
---@param defaults table of the task
function ranges.check(cfg, defaults)
    local unset = {}
    for _, leaf in ipairs(config.flatten(defaults)) do unset[leaf.key] = leaf.value == false end
    for _, leaf in ipairs(config.flatten(cfg)) do
        local rule, value = ranges.rules[leaf.key], leaf.value
        if rule and not (value == false and unset[leaf.key]) and not ranges.keeps(rule, value) then
            local words, hint = {}, ""
            if type(value) == "string" and not rule:find("[<>]") then
                for word in rule:gmatch("[^%s|]+") do
                    if word ~= "false" then words[#words + 1] = word end -- the value, no word
                end
                hint = suggest.hint(value, words)
            end
            config.refuse("%s: expected %s, got %s%s", leaf.key, expectation(rule), show(value), hint)
        end
    end
    check_sets(cfg.data)
    for _, key in ipairs { "scale", "ratio", "blur_sigma" } do
        local pair = cfg.augment and cfg.augment[key] -- the task embed has none
        if pair and pair[1] > pair[2] then
            config.refuse("augment.%s: expected {least, most}, got %s", key, show(pair))
        end
    end
end

--- Calls f with arguments; an error of it refuses the configuration.
function ranges.try(f, ...)
    local ok, value = pcall(f, ...)
    if not ok then config.refuse("%s", value) end
    return value
end

local function divides(a, b, key, other)
    if b % a ~= 0 then config.refuse("%s = %d does not divide %s = %d", key, a, other, b) end
end

--- Refuses sizes of a model that do not go together.
---@param model table resolved by vit.resolve, with the decoder's if it has one
function ranges.check_sizes(model)
    divides(model.patch, model.img, "model.patch", "model.img")
    divides(model.heads, model.dim, "model.heads", "model.dim")
    local d = model.decoder
    if d then divides(d.heads, d.dim, "model.decoder.heads", "model.decoder.dim") end
end

--- Refuses a share of masked patches that masks none or all of a model's.
---@param model table resolved
---@param mask number
function ranges.check_mask(model, mask)
    local patches = (model.img // model.patch) ^ 2 // 1 | 0
    local kept = math.floor(patches * (1 - mask))
    if kept < 1 or kept == patches then
        config.refuse("mask: %g masks %d of %d patches", mask, patches - kept, patches)
    end
end

return ranges

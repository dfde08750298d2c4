-- Configurations: merging, freezing, checking, overrides, canonical JSON.
local m = require "mimic"
local lu = require "luaunit"
local lfs = require "lfs"
local config = require "mimic.config"
local experiment = require "mimic.experiment"
local override = require "mimic.override"
local ranges = require "mimic.ranges"
local suggest = require "mimic.suggest"
local syntax = require "mimic.override.syntax"

local TestConfig = {}

function TestConfig.setUp()
    override.set {}
end
TestConfig.tearDown = TestConfig.setUp

function TestConfig.test_with_is_deep_and_leaves_the_base()
    local base = m.config { a = 1, list = { 1, 2, 3 }, sub = { x = 1, y = 2 } }
    local other = base:with { list = { 9 }, sub = { y = 5 } }
    lu.assertEquals(config.plain(other), { a = 1, list = { 9 }, sub = { x = 1, y = 5 } })
    lu.assertEquals(config.plain(base), { a = 1, list = { 1, 2, 3 }, sub = { x = 1, y = 2 } })
    lu.assertEquals(config.plain(base.sub:with { x = 3 }), { x = 3, y = 2 })
end

function TestConfig.test_frozen_and_a_copy()
    local source = { sub = { x = 1 } }
    local base = m.config(source)
    source.sub.x = 2
    lu.assertEquals(base.sub.x, 1)
    lu.assertErrorMsgContains("frozen", function() base.a = 1 end)
    lu.assertErrorMsgContains("frozen", function() base.sub.x = 1 end)
    lu.assertErrorMsgContains("not a function", m.config, { f = print })
    lu.assertErrorMsgContains("both", m.config, { 1, 2, x = 3 })
end

function TestConfig.test_a_frozen_list_reads_as_a_list()
    local base = m.config { list = { 4, 5 } }
    lu.assertEquals(#base.list, 2)
    local seen = {}
    for i, v in ipairs(base.list) do seen[i] = v end
    for k, v in pairs(base) do seen[k] = v end
    lu.assertEquals(seen[2], 5)
    lu.assertEquals(seen.list[1], 4)
end

function TestConfig.test_canonical_json()
    lu.assertEquals(config.json { b = 1.0, a = { true, "x\n\"" }, c = 1 / 3, d = 0.1, e = {} },
        '{"a":[true,"x\\n\\""],"b":1,"c":0.3333333333333333,"d":0.1,"e":{}}')
    for _, x in ipairs { 0.1, 1 / 3, 1e-300, 123456789.125, -5e22, 2 ^ 53 + 0.0 } do
        lu.assertEquals(tonumber(config.json(x)), x)
    end
    for _, x in ipairs { 2 ^ 53 | 0, (1 << 53) + 1, math.maxinteger, math.mininteger } do -- whole, beyond a double's
        lu.assertEquals(config.json(x), ("%d"):format(x))
    end
end

function TestConfig.test_settings_that_are_one_of_some_values()
    local function size() return m.config { run = { size = m.one_of { "small", "smoke", 3 } } }.run.size end
    lu.assertEquals(size(), "small")
    override.set { "run.size=smoke" }
    lu.assertEquals(size(), "smoke")
    override.set { "run.size=3" }
    lu.assertEquals(size(), 3)
    override.set { "run.size=smok" }
    lu.assertErrorMsgContains('run.size = "smok": one of small, smoke, 3 expected (did you mean smoke?)', size)
    lu.assertErrorMsgContains("m.one_of takes a list", m.one_of, "small")
end

-- What progress.complain says while f runs.
local function said(f)
    local progress, out = require "mimic.progress", {}
    local complain = progress.complain
    progress.complain = function(...) out[#out + 1] = string.format(...) end
    local ok, err = pcall(f)
    progress.complain = complain
    if not ok then error(err, 0) end
    return out
end

function TestConfig.test_overrides_without_effect_are_said()
    local defaults = { epochs = 1, lr = 0.1, sub = { size = 2 } }
    override.set { "a.epochs=3", "a.lr=0.5", "a.sub.size=4", "own=7", "list=[1,2]" }
    local base, lost
    lost = said(function()
        base = m.config { a = { epochs = 2, sub = { size = 2 } }, b = 1, own = 1, list = { 0 } }
        local c = base.a:with { epochs = 3, lr = 0.7, sub = { more = 1 } } -- the same value is no loss
        c:with { lr = 0.8 }
    end)
    lu.assertEquals(#lost, 1) -- once, by the first line
    lu.assertStrMatches(lost[1],
        "a%.lr=0%.5 does not hold where the script sets lr = 0%.7 over it %(.*test_config.lua:%d+%)")
    lu.assertEquals(override.unread(), { "a.epochs=3", "a.sub.size=4", "own=7", "list=[1,2]" })
    lu.assertEquals(config.resolve(base.a:with { lr = 1 }, defaults, {}, "t").epochs, 3)
    lu.assertEquals(override.unread(), { "own=7", "list=[1,2]" })
    lu.assertEquals(base.own + #base.list, 9)
    lu.assertEquals(override.unread(), {})
    override.set { "a.epochs=3", "own=8" }
    base = m.config { a = { epochs = 2 }, own = 1 }
    config.resolve(base.a, { lr = 0.1 }, { { epochs = 1 } }, "t") -- known to another task alone
    lu.assertEquals(override.unread(), { "a.epochs=3", "own=8" })
    config.plain(base) -- a script that takes all of it has looked
    lu.assertEquals(override.unread(), {})
    override.set { "data.train.path=b" } -- below a key that is unset by default
    base = m.config { data = { train = { path = "a" } } }
    config.resolve(base, { data = { train = false } }, {}, "t")
    lu.assertEquals(override.unread(), {})
end

-- A value in the place of a whole table takes its keys away, and with them what the command line said of them; a table
-- over a table, an empty one too, takes none away.
function TestConfig.test_overrides_below_a_replaced_table_are_said()
    override.set { "data.train.path=b", "sub.size=4", "decoder.depth=2" }
    local base
    local lost = said(function()
        base = m.config { data = { train = { path = "a" } }, sub = { size = 2 }, decoder = { depth = 1 } }
        base:with { data = { train = "c" }, sub = {}, decoder = { dim = 3 } }
    end)
    lu.assertEquals(#lost, 1)
    lu.assertStrContains(lost[1], 'data.train.path=b does not hold where the script sets data.train = "c" over it (')
    override.set { "decoder.depth=2" }
    lost = said(function()
        base = m.config { decoder = { depth = 1 } }
        lu.assertEquals(base:with({ decoder = false }).decoder, false)
    end)
    lu.assertStrContains(lost[1], "decoder.depth=2 does not hold where the script sets decoder = false over it (")
end

-- Refused at the script's first run, when no configuration before it has taken the word.
local function nobody_takes(text, base)
    m.config(base)
    lu.assertErrorMsgContains(text, override.check)
end

-- One of several configurations may know the key; `own.c` none does.
function TestConfig.test_words_for_one_of_several_configurations()
    override.set { "own.b=5", "~own.a" }
    m.config { own = { a = 1 } }
    lu.assertErrorMsgContains("unknown key 'own.b' (did you mean own.a or", override.check)
    lu.assertEquals(config.plain(m.config { own = { b = 2 } }), { own = { b = 5 } })
    override.check()
    override.set { "own.c=5" }
    m.config { own = { a = 1 } }
    m.config { own = { b = 1 } }
    lu.assertErrorMsgContains("unknown key 'own.c'", override.check)
    lu.assertErrorMsgContains("unknown key 'own.c'", function()
        m.experiment "e":run { kind = "finetune", config = {} }
    end)
    override.set { "own.d=5" }
    lu.assertErrorMsgContains("no m.config that takes it before its first sweep", function()
        m.experiment "e":sweep {}
    end)
end

function TestConfig.test_seeds_that_the_script_has_not()
    override.set { "seeds=[7]" }
    lu.assertEquals(m.config({ seeds = { 1 } }).seeds[1], 7)
    override.set { "seeds=[7]" }
    nobody_takes("unknown key 'seeds'; +seeds=[7] adds it", { finetune = { epochs = 1 } })
    override.set { "seed=7" }
    lu.assertEquals(m.config({ seeds = { 1 } }).seeds[1], 7)
    lu.assertEquals(m.config({ epochs = 1 }).seed, 7)
    override.set { "seed=7" }
    nobody_takes("unknown key 'seed'", { my_runs = { epochs = 1 } })
    override.set { "++note=x" }
    lu.assertEquals(m.config({}).note, "x")
end

function TestConfig.test_flags_are_booleans()
    lu.assertTrue(ranges.keeps(ranges.rules["model.checkpoint"], true))
    lu.assertFalse(ranges.keeps(ranges.rules["model.checkpoint"], "true"))
    override.set { "model.checkpoint=yes" }
    local c = m.config { model = { preset = "vit_ti16" } }
    lu.assertErrorMsgContains("model.checkpoint: expected true or false, got 'yes'", experiment.resolve, "finetune", c)
end

local defaults = { epochs = 1, lr = 0.1, path = false, free = {}, sub = { size = 2, names = { "a" } } }

function TestConfig.test_resolve_fills_checks_and_suggests()
    lu.assertEquals(config.resolve({ sub = { size = 3 }, path = "x", free = { k = 1 } }, defaults, {}, "t"),
        { epochs = 1, lr = 0.1, path = "x", free = { k = 1 }, sub = { size = 3, names = { "a" } }, seed = 0 })
    local function refused(given, ...)
        local ok, err = pcall(config.resolve, given, defaults, {}, "task t")
        lu.assertFalse(ok)
        for _, text in ipairs { ... } do lu.assertStrContains(err, text) end
    end
    refused({ epoch = 3 }, "unknown key 'epoch' for task t", "did you mean epochs")
    refused({ sub = { sise = 3 } }, "unknown key 'sub.sise'", "sub.size")
    refused({ epochs = "3" }, "epochs: expected a number, got a string")
    refused({ sub = 3 }, "sub: expected a table, got a number")
    refused({ lr = { 1 } }, "lr: expected a number, got a list")
end

-- Every number and word that a task takes has a rule, and every default keeps it.
function TestConfig.test_every_setting_has_a_range()
    local free = { -- names of files, columns, data sets and runs
        ["data.train"] = 1, ["data.val"] = 1, ["data.test"] = 1, ["data.name"] = 1,
        ["data.label_column"] = 1, init_from = 1,
    }
    local tables = { m.finetune.defaults }
    for i, method in ipairs(m.pretrain.methods) do
        tables[i + 1] = m.pretrain.defaults_of { method = method }
    end
    for _, t in ipairs(tables) do
        for _, leaf in ipairs(config.flatten(t)) do
            local rule = ranges.rules[leaf.key]
            local switch = type(leaf.value) == "boolean" -- also what is unset
            lu.assertTrue(rule ~= nil or switch or free[leaf.key] ~= nil, leaf.key .. " has no rule")
            if rule and leaf.value ~= false then
                lu.assertTrue(ranges.keeps(rule, leaf.value), leaf.key .. ": " .. rule)
            end
        end
    end
end

function TestConfig.test_rules_of_ranges()
    for rule, cases in pairs {
        ["0 < x < 1"] = { [0.5] = true, [0] = false, [1] = false, ["0.5"] = false, [0 / 1] = false },
        ["0 <= x <= 1"] = { [0] = true, [1] = true, [-1e-9] = false, [1.1] = false, [1 / 0] = false },
        ["x > 0"] = { [1e-9] = true, [0] = false, [true] = false },
        ["whole x >= 1"] = { [1] = true, [3.0] = true, [0] = false, [1.5] = false },
        ["-1 <= x <= 1"] = { [-1] = true, [-2] = false },
        ["mae | timm"] = { mae = true, timm = true, ["mae "] = false, ["|"] = false, [1] = false },
    } do
        for value, kept in pairs(cases) do
            lu.assertEquals(ranges.keeps(rule, value), kept, rule .. " of " .. tostring(value))
        end
    end
    lu.assertFalse(ranges.keeps("x > 0", 0 / 0))
    lu.assertTrue(ranges.keeps("2 of 0 <= x < 1", { 0, 0.9 }))
    lu.assertFalse(ranges.keeps("2 of 0 <= x < 1", { 0, 1 }))
    lu.assertFalse(ranges.keeps("2 of 0 <= x < 1", { 0 }))
    lu.assertFalse(ranges.keeps("2 of 0 <= x < 1", 0))
    lu.assertTrue(ranges.keeps("some of x >= 0", { 1, 2, 3 }))
end

-- Nothing is opened, made or run: the data do not even exist.
function TestConfig.test_values_out_of_range_are_usage_errors_before_anything_runs()
    local exp, db = m.experiment "ranges", os.tmpname()
    experiment.options.db = db .. ".none/mimic.db"
    for kind, cases in pairs {
        pretrain = {
            { { mask = 1.5 }, "mask: expected 0 < x < 1, got 1.5" },
            { { mask = 0.999 }, "mask: 0.999 masks 196 of 196 patches" },
            { {}, "data.train is not set: the pictures to pre-train on" },
            { { warmup = -1 }, "warmup: expected x >= 0, got -1" },
            { { data = { cache = -5 } }, "data.cache: expected x >= 0, got -5" },
            { { lr = "fast" }, "lr: expected x >= 0, got 'fast'" },
            { { method = "simmin" }, "method 'simmin' (did you mean simmim?)" },
            { { method = "simmim", mask_patch = 30 }, "mask_patch = 30: a multiple of the patch" },
            { { method = "supervised", repeats = 5 }, "repeats = 5 must divide batch = 64" },
            { { model = { decoder = { heads = 7 } } },
                "model.decoder.heads = 7 does not divide model.decoder.dim = 512" },
        },
        finetune = {
            { { epochs = 0 }, "epochs: expected a whole number x >= 1, got 0" },
            { { batch = 2.5 }, "batch: expected a whole number 1 <= x <= 1048576, got 2.5" },
            { { betas = { 0.9, 1 } }, "betas: expected a list of 2 numbers, each 0 <= x < 1, got [0.9,1]" },
            { { betas = { 0.9 } }, "betas: expected a list of 2 numbers" },
            { { mscl = { tau = 0 } }, "mscl.tau: expected x > 0, got 0" },
            { { mscl = { weight = -0.1 } }, "mscl.weight: expected x >= 0, got -0.1" },
            { { model = { drop_path = 1 } }, "model.drop_path: expected 0 <= x < 1, got 1" },
            { { augment = { flip = 2 } }, "augment.flip: expected 0 <= x <= 1, got 2" },
            { { augment = { scale = { 1, 0.5 } } }, "augment.scale: expected {least, most}, got [1,0.5]" },
            { { opt = "adma" }, "opt: expected adam, adamw, sgd or lars, got 'adma' (did you mean adam" },
            { { preset = "mimc" }, "preset: expected ce, scl, mimic, mimic-alg or linear-probe, got 'mimc' (did you" },
            { { ce = { on = true and "dirty" } }, "ce.on: expected auto, clean, mixed or both, got 'dirty'" },
            { { model = { preset = false } }, "model.patch is missing and there is no preset" },
            { { model = { img = 50 } }, "model.patch = 16 does not divide model.img = 50" },
            { { model = { heads = 5 } }, "model.heads = 5 does not divide model.dim = 768" },
            { { model = { pool = "cls", cls_token = false } }, "model.pool = cls needs model.cls_token" },
            { {}, "data.train is not set: the labelled pictures to train on" },
            { { data = { train = { path = "x", splitt = "train" } } },
                "unknown key 'data.train.splitt' (did you mean split?); a set has path, split, mode, format" },
            { { data = { train = 3 } }, 'data.train: expected a path, or { path = "DIR", split = "train" }, got 3' },
        },
    } do
        for _, case in ipairs(cases) do
            config.refused = false
            local ok, err = pcall(exp.run, exp, { kind = kind, config = case[1] })
            lu.assertFalse(ok)
            lu.assertStrContains(err, case[2])
            lu.assertEquals(config.refused, err) -- what makes it a usage error, exit code 2
        end
    end
    lu.assertNil(lfs.attributes(db .. ".none"))
    experiment.options.db = "results/mimic.db"
    os.remove(db)
end

function TestConfig.test_keys_of_other_tasks_are_left_out()
    local got = config.resolve({ tau = 1, lr = 2, seeds = { 1 } }, defaults, { { tau = 0 } }, "t")
    lu.assertNil(got.tau)
    lu.assertNil(got.seeds)
    lu.assertEquals(got.lr, 2)
end

function TestConfig.test_values_of_overrides()
    local cases = {
        ["3"] = 3, ["1e-3"] = 1e-3, ["true"] = true, ["false"] = false, ["a b"] = "a b", ['"3"'] = "3",
        ["[1,2]"] = { 1, 2 }, ["[a, [1, 2]]"] = { "a", { 1, 2 } }, ["[0..3]"] = { 0, 1, 2, 3 }, ["[]"] = {},
    }
    for text, value in pairs(cases) do lu.assertEquals((syntax.parse_value(text)), value, text) end
end

function TestConfig.test_syntax_of_override_values()
    local cases = {
        ["'a, b'"] = "a, b", ['"a\\"b\\n"'] = 'a"b\n', ["null"] = false,
        ["1e3"] = 1000.0, ["0x10"] = 16, ["-3"] = -3, ["a=b"] = "a=b",
        ["/data/x(1).tar"] = "/data/x(1).tar", ["it's"] = "it's", [""] = "",
        ["{a: 1, b: [x, {c: 'y'}]}"] = { a = 1, b = { "x", { c = "y" } } }, ["0..3"] = { 0, 1, 2, 3 },
        ["[0..1, 5]"] = { 0, 1, 5 }, ["['a,b', c]"] = { "a,b", "c" }, ["1-2"] = "1-2", ["4..x"] = "4..x",
    }
    for text, value in pairs(cases) do
        local list = { syntax.parse_value(text) }
        lu.assertEquals(list[3] or list[1], value, text)
    end
    lu.assertEquals(math.type((syntax.parse_value "3")), "integer")
    for text, why in pairs { ["[1,2"] = "no end", ["{a}"] = "key: value", ["5..2"] = "larger",
        ["'a"] = "no end", ["range(2,1)"] = "smaller first", ["[1]]"] = "left over",
        ["log(0,1)"] = "above 0" } do
        lu.assertErrorMsgContains(why, syntax.parse, "k=" .. text)
    end
end

function TestConfig.test_several_values_make_a_space()
    local words, domains = syntax.multi { "tau=0.05,0.1", "lambda=range(0.1,0.9,0.2)", "seed=0..2",
        "seeds=0..1", "opt=choice(adam,sgd)", "lr=log(1e-4,1)", "batch=8", "list=[1,2]" }
    lu.assertEquals(words, { "seeds=0..1", "batch=8", "list=[1,2]" })
    lu.assertEquals(domains.tau:list(), { 0.05, 0.1 })
    lu.assertEquals(domains.lambda:list(), { 0.1, 0.3, 0.5, 0.7, 0.9 })
    lu.assertEquals(domains.seed:list(), { 0, 1, 2 })
    lu.assertEquals(domains.opt:list(), { "adam", "sgd" })
    lu.assertEquals(domains.lr:plain(), { log = { 1e-4, 1.0 } })
    lu.assertErrorMsgContains("mimic sweep FILE.lua -m tau=1,2", override.set, { "tau=1,2" })
end

function TestConfig.test_adding_and_removing_keys()
    override.set { "+mine.note=x", "~batch" }
    lu.assertEquals(config.plain(m.config { batch = 4, epochs = 2 }), { epochs = 2, mine = { note = "x" } })
    override.set { "~batchs" }
    nobody_takes("did you mean batch", { batch = 4 })
    override.set { "seed=7" }
    lu.assertEquals(m.config({ seeds = { 0, 1 } }).seeds[1], 7)
end

function TestConfig.test_overrides_reach_the_base()
    override.set { "finetune.batch=8", "seeds=[1,2]", "pretrain.model.dim=48" }
    local base = m.config { seeds = { 0 }, pretrain = { epochs = 1 }, finetune = { batch = 4 } }
    lu.assertEquals(config.plain(base),
        { seeds = { 1, 2 }, pretrain = { epochs = 1, model = { dim = 48 } }, finetune = { batch = 8 } })
    override.check()
end

function TestConfig.test_unknown_overrides_are_refused()
    override.set { "finetune.bathc=8" }
    nobody_takes("did you mean finetune.batch", { finetune = { batch = 4 } })
    override.set { "batch=8" } -- the base is a set of configurations: this key reaches none of them
    nobody_takes("finetune.batch", { finetune = { batch = 4 } })
    override.set { "batch=8" }
    lu.assertEquals(m.config({ epochs = 4 }).batch, 8)
    lu.assertErrorMsgContains("key=value", override.set, { "batch" })
end

function TestConfig.test_defaults_of_the_tasks_are_configurations()
    for _, d in ipairs(experiment.task_defaults()) do
        lu.assertStrContains(config.json(m.config(d)), '"batch"')
    end
end

function TestConfig.test_suggestions()
    local known = { "epochs", "batch", "optim.lr", "weight_decay" }
    lu.assertEquals(suggest.near("epoch", known), { "epochs" })
    lu.assertEquals(suggest.near("bacth", known), { "batch" })
    lu.assertEquals(suggest.near("tua", { "tau", "tau" }), { "tau" }) -- a sweep and an experiment of one name
    lu.assertEquals(suggest.near("xyzzy", known), {})
    lu.assertEquals(suggest.hint("epoch", known), " (did you mean epochs?)")
    lu.assertEquals(suggest.distance("kitten", "sitting"), 3)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestConfig", TestConfig } })

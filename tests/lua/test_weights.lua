-- Weights in files, position embeddings, transfer to fine-tuning, and exact resume of the training loop.
local m = require "mimic"
local lu = require "luaunit"

local TestWeights = {}

local folder = os.tmpname()
os.remove(folder)
m.sys.mkdirs(folder)

local tiny <const> = { preset = false, img = 16, patch = 4, dim = 24, depth = 2, heads = 2 }

local function with(t, more)
    return m.task.merge(t, more)
end

local function values(module)
    local out = {}
    for _, p in ipairs(module:named()) do out[p.name] = p.tensor:tolist() end
    return out
end

function TestWeights:test_round_trip()
    local path = folder .. "/a.safetensors"
    local a = m.vit.new(with(tiny, { classes = 3 }), 1)
    m.weights.save(path, a, { note = "x" })
    local b = m.vit.new(with(tiny, { classes = 3 }), 2)
    local report = m.weights.load(b, path)
    lu.assertEquals(values(b), values(a))
    lu.assertEquals(#report.missing + #report.unexpected + #report.mismatched, 0)
end

function TestWeights:test_refusal_lists_everything_and_changes_nothing()
    local path = folder .. "/b.safetensors"
    m.weights.save(path, m.vit.new(with(tiny, { classes = 3, pool = "cls" }), 1))
    local b = m.vit.new(with(tiny, { classes = 4 }), 2)
    local before = values(b)
    local ok, err = pcall(m.weights.load, b, path)
    lu.assertFalse(ok)
    lu.assertStrContains(err, path)
    lu.assertStrContains(err, "fc_norm.weight")
    lu.assertStrContains(err, "norm.weight")
    lu.assertStrContains(err, "head.weight file [3,24] module [4,24]")
    lu.assertEquals(values(b), before)
end

local TestTransfer = {}

local function pretrained(more)
    local path = folder .. "/mae.safetensors"
    local mae = m.mae.new(with(tiny, with({ decoder = { dim = 16, depth = 1, heads = 2 } }, more or {})), 4)
    m.weights.save(path, mae)
    return path, mae
end

function TestTransfer:test_mae_to_vit()
    local path, mae = pretrained()
    local model = m.vit.new(with(tiny, { classes = 3 }), 9)
    local fresh = model.head.weight:tolist()
    local report = m.weights.transfer(model, path)
    lu.assertItemsEquals(report.missing, { "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias" })
    lu.assertEquals(model.blocks["1"].mlp.fc2.weight:tolist(), mae.blocks["1"].mlp.fc2.weight:tolist())
    lu.assertEquals(model.pos_embed:tolist(), mae.pos_embed:tolist())
    lu.assertEquals(model.head.weight:tolist(), fresh)
    for _, v in ipairs(model.fc_norm.weight:tolist()) do lu.assertEquals(v, 1) end
    lu.assertTrue(model.pos_embed.requires_grad) -- frozen before, trained now
end

function TestTransfer:test_class_token_model_takes_the_norm()
    local path, mae = pretrained()
    mae.norm.weight:copy_(m.full({ 24 }, 2))
    m.weights.save(path, mae)
    local model = m.vit.new(with(tiny, { classes = 3, pool = "cls" }), 9)
    m.weights.transfer(model, path)
    lu.assertEquals(model.norm.weight:tolist()[1], 2)
end

function TestTransfer:test_other_grid_is_interpolated()
    local path, mae = pretrained()
    local model = m.vit.new(with(tiny, { classes = 3, img = 32 }), 9)
    local report = m.weights.transfer(model, path)
    lu.assertEquals(report.resized, { "pos_embed" })
    lu.assertEquals(model.pos_embed.shape, { 1, 65, 24 })
    lu.assertEquals(model.pos_embed:tolist()[1][1], mae.pos_embed:tolist()[1][1]) -- the class row
end

function TestTransfer:test_without_class_token()
    local path, mae = pretrained()
    local model = m.vit.new(with(tiny, { classes = 3, cls_token = false }), 9)
    m.weights.transfer(model, path)
    lu.assertEquals(model.pos_embed:tolist()[1][1], mae.pos_embed:tolist()[1][2])
end

function TestTransfer:test_other_width_is_refused()
    local path = pretrained()
    lu.assertErrorMsgContains("of another shape", m.weights.transfer,
        m.vit.new(with(tiny, { classes = 3, dim = 32 }), 9), path)
    lu.assertErrorMsgContains("missing in the file", m.weights.transfer,
        m.vit.new(with(tiny, { classes = 3, depth = 3 }), 9), path)
end

function TestTransfer:test_sincos_has_column_first_and_zero_class_row()
    local rows = m.posembed.sincos(8, 3):tolist()[1]
    lu.assertEquals(rows[1], { 0, 0, 0, 0, 0, 0, 0, 0 })
    local second = rows[3] -- row 0, column 1
    lu.assertAlmostEquals(second[1], math.sin(1), 1e-7)
    lu.assertAlmostEquals(second[5], 0, 1e-7)
    lu.assertErrorMsgContains("multiple of 4", m.posembed.sincos, 6, 3)
end

local TestResume = {}

-- A run object that keeps its checkpoints in files, and is interrupted after given updates.
local function fake_run(name, config, stop_at)
    local run = { config = config, seed = 11, logged = {}, results = {}, artifacts = {}, count = 0 }
    function run:log(step, list)
        for key, v in pairs(list) do
            if not key:find("^sys/") then self.logged[key .. "@" .. step] = v end
        end
    end
    function run:progress() end
    function run:preflight() end
    function run:checkpoint(step, tensors, meta, opts)
        local path = ("%s/%s-%d.safetensors"):format(folder, name, step)
        m.safetensors.save(path, tensors, {})
        local json = require "mimic.config".json(meta)
        self.last = { path = path, step = step, meta = require "cjson".decode(json) }
        self.final = opts.final and path or self.final
        return path
    end
    function run:resume() return self.last end
    function run:result(_, split, metric, value) self.results[split .. "/" .. metric] = value end
    function run:confusion(_, split, counts) self.results[split .. "/confusion"] = counts end
    function run:artifact(key, _, bytes) self.artifacts[key] = bytes end
    function run:evaluated() return false end -- luacheck: no self
    function run:interrupted()
        self.count = self.count + 1
        return stop_at and stop_at[self.count] or false
    end
    function run:stop() error("stopped", 0) end
    return run
end

local function bytes(path)
    local f = assert(io.open(path, "rb"))
    local text = f:read "a"
    f:close()
    return text
end

-- The same task once straight and once with interruptions: equal files, curves and results.
local function straight_and_interrupted(kind, config, stop_at, parent)
    local task = m[kind]
    local straight = fake_run(kind .. "-a", config)
    straight.parent = parent
    task.run(straight)
    local broken = fake_run(kind .. "-b", config, stop_at)
    broken.parent = parent
    local stops = 0
    while true do
        local ok, err = pcall(task.run, broken)
        if ok then break end
        lu.assertEquals(err, "stopped")
        stops = stops + 1
    end
    local wanted = 0
    for _ in pairs(stop_at) do wanted = wanted + 1 end
    lu.assertEquals(stops, wanted)
    lu.assertEquals(m.sha256(bytes(broken.final)), m.sha256(bytes(straight.final)))
    lu.assertEquals(broken.logged, straight.logged)
    lu.assertEquals(broken.results, straight.results)
    return straight
end

local data = folder .. "/data"
m.data.synth {
    dir = data, seed = 1, general_train = 24, general_val = 6, faces_train = 28, faces_test = 14, size = 20,
}
local faces <const> = {
    train = { path = data .. "/faces", split = "train" }, test = { path = data .. "/faces", split = "test" },
}

local function config_of(kind, more)
    local base = {
        epochs = 3, batch = 4, warmup = 1, log_every = 1,
        model = with(m[kind].defaults.model, tiny),
    }
    return with(m[kind].defaults, with(base, more))
end

function TestResume:test_pretraining_and_finetuning_from_it()
    local general = with(m.task.data_defaults, { train = data .. "/general/train" })
    local pre = straight_and_interrupted("pretrain",
        config_of("pretrain", { data = general, accumulate = 2,
            model = with(with(m.mae.defaults, tiny), { decoder = { dim = 16, depth = 1, heads = 2 } }) }),
        { [2] = true, [5] = true })
    lu.assertStrContains(pre.artifacts.reconstruction, "JFIF")
    local parent = { weights = function() return pre.final end }
    for _, preset in ipairs { "ce", "mimic", "mimic-alg" } do
        local ft = straight_and_interrupted("finetune",
            config_of("finetune", { preset = preset, data = with(m.task.data_defaults, faces) }),
            { [3] = true, [7] = true, [15] = true }, parent)
        lu.assertEquals(ft.results["test/confusion"] ~= nil, true)
        lu.assertTrue(ft.results["test/acc"] >= ft.results["test/acc_last"])
    end
end

function TestResume:test_bf16_resumes_exactly()
    straight_and_interrupted("finetune",
        config_of("finetune", { precision = "bf16", epochs = 2, data = with(m.task.data_defaults, faces) }),
        { [4] = true })
end

-- bf16 copies of a frozen encoder are made of what the checkpoint holds, not of the initial values.
function TestResume:test_frozen_bf16_encoder_resumes_exactly()
    local path = folder .. "/frozen.safetensors"
    m.weights.save(path, m.mae.new(with(tiny, { decoder = { dim = 16, depth = 1, heads = 2 } }), 4))
    local defaults = m.finetune.defaults_of { preset = "linear-probe" }
    straight_and_interrupted("finetune", with(defaults, {
        epochs = 2, batch = 4, warmup = 1, log_every = 1, precision = "bf16",
        model = with(defaults.model, tiny), data = with(m.task.data_defaults, faces),
    }), { [4] = true }, { weights = function() return path end })
end

function TestResume:test_not_a_number_names_the_step()
    local c = config_of("finetune", { data = with(m.task.data_defaults, faces), lr = 1e30, warmup = 0,
        clip = 0, min_lr = 1e30, weight_decay = 0 })
    local ok, err = pcall(m.finetune.run, fake_run("nan", c))
    lu.assertFalse(ok)
    lu.assertStrContains(err, "loss is")
    lu.assertStrContains(err, "samples")
    lu.assertStrContains(err, "lr 1e+30")
end

function TestResume:test_linear_probe_leaves_the_encoder_alone()
    local c = config_of("finetune", { data = with(m.task.data_defaults, faces), preset = "ce",
        freeze = "encoder", opt = "lars", head = { std = 0.01, batchnorm = true }, lr = 0.1, epochs = 1,
        weight_decay = 0 })
    local run = fake_run("probe", c)
    m.finetune.run(run)
    local start = m.finetune.model(c, 7, run.seed)
    local trained = m.finetune.model(c, 7)
    m.weights.load(trained, run.final)
    lu.assertEquals(trained.blocks["0"].mlp.fc1.weight:tolist(), start.blocks["0"].mlp.fc1.weight:tolist())
    lu.assertNotEquals(trained.head["1"].weight:tolist(), start.head["1"].weight:tolist())
    lu.assertNotEquals(trained.head["0"].running_var:tolist(), start.head["0"].running_var:tolist())
end

local code = lu.LuaUnit.new():runSuiteByInstances {
    { "TestWeights", TestWeights }, { "TestTransfer", TestTransfer }, { "TestResume", TestResume },
}
os.execute("rm -r '" .. folder .. "'")
os.exit(code)

-- Weight files of other programs: .pth beside safetensors, prefixes, what is left out, mimic weights.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local pth = require "pth"
local shell = require "shell"

local TestWeightFiles = {}
local dir

function TestWeightFiles.setUp() dir = shell.folder() end

function TestWeightFiles.tearDown() shell.remove(dir) end

local tiny <const> = { preset = false, img = 16, patch = 4, dim = 24, depth = 2, heads = 2 }

local function model(seed, more)
    return m.vit.new(m.task.merge(tiny, { classes = 3, pool = "cls" }, more or {}), seed)
end

local function ok(words)
    local code, out, err = shell.run(dir, words)
    lu.assertEquals(code, 0, words .. "\n" .. out .. err)
    return out, err
end

-- Names and values of a model, and a changed list of them.
local function listed(net, change)
    local out = {}
    for i, pair in ipairs(m.weights.list(net)) do out[i] = { change and change(pair[1]) or pair[1], pair[2] } end
    return out
end

local function values(net)
    local out = {}
    for _, p in ipairs(net:named()) do out[p.name] = p.tensor:tolist() end
    return out
end

function TestWeightFiles.test_places_of_published_checkpoints()
    local from = model(1)
    local cases = {
        { nil, "" }, { "model", "" }, { "state_dict", "module.base_encoder." }, { "state_dict", "module." },
        { "model_state_dict", "" },
    }
    for i, case in ipairs(cases) do
        local path = ("%s/%d.pth"):format(dir, i)
        local list = listed(from, function(name) return case[2] .. name end)
        if case[2] == "module.base_encoder." then -- MoCo v3: the head is a projector, the second encoder stays
            for k = #list, 1, -1 do
                if list[k][1]:find("%.head%.") then table.remove(list, k) end
            end
            list[#list + 1] = { case[2] .. "head.0.weight", m.zeros { 5, 24 } }
            list[#list + 1] = { "module.momentum_encoder.cls_token", m.zeros { 1, 1, 24 } }
        end
        pth.write(path, case[1], list)
        local to = model(2)
        local fresh = to.head.weight:tolist()
        local report = m.weights.transfer(to, path)
        local got, want = values(to), values(from)
        if case[2] == "module.base_encoder." then
            lu.assertEquals(report.missing, { "head.weight", "head.bias" })
            lu.assertEquals(got["head.weight"], fresh)
            got["head.weight"], want["head.weight"] = nil, nil
        else
            lu.assertEquals(report.missing, {})
        end
        lu.assertEquals(got, want)
    end
end

-- A MAE file: decoder left, head of other classes new, positions of another grid interpolated.
function TestWeightFiles.test_mae_checkpoint_into_another_size()
    local mae = m.mae.new(m.task.merge(tiny, { decoder = { dim = 16, depth = 1, heads = 2 } }), 4)
    pth.write(dir .. "/mae.pth", "model", listed(mae))
    m.weights.save(dir .. "/mae.safetensors", mae)
    local a = model(5, { img = 24, pool = "gap", classes = 7 })
    local b = model(5, { img = 24, pool = "gap", classes = 7 })
    local report = m.weights.transfer(a, dir .. "/mae.pth")
    m.weights.transfer(b, dir .. "/mae.safetensors")
    lu.assertEquals(values(a), values(b))
    lu.assertEquals(report.resized, { "pos_embed" })
    lu.assertEquals(report.missing, { "fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias" })
end

function TestWeightFiles.test_errors()
    pth.write(dir .. "/other.pth", "model", { { "conv1.weight", m.zeros { 2, 2 } } })
    lu.assertErrorMsgContains("other.pth: no Vision Transformer in it (no patch_embed.proj.weight); it holds "
        .. "model.conv1.weight", m.weights.transfer, model(1), dir .. "/other.pth")
    pth.write(dir .. "/half.pth", "model", listed(model(1, { depth = 1 })))
    lu.assertErrorMsgContains("missing in the file (12): blocks.1.norm1.weight", m.weights.transfer, model(1),
        dir .. "/half.pth")
    shell.write(dir .. "/cut.pth", shell.read(dir .. "/half.pth"):sub(1, 2000))
    lu.assertErrorMsgContains("cut.pth: damaged zip archive: the file is cut off", m.weights.transfer, model(1),
        dir .. "/cut.pth")
    shell.write(dir .. "/text.pth", "no weights at all, but text")
    local code, _, err = shell.run(dir, "weights show text.pth")
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "text.pth")
end

function TestWeightFiles.test_show_and_convert()
    local from = model(1, { pool = "gap" })
    local list = listed(from)
    list[#list + 1] = { "proj_head.0.weight", m.zeros { 24, 24 } }
    list[#list + 1] = { "decoder_pred.bias", m.zeros { 4 } }
    pth.write(dir .. "/x.pth", "model", list)
    local out = ok "weights show x.pth"
    lu.assertStrContains(out, 'a ViT of 2 blocks, width 24, patch 4, 4 x 4 positions (16 pixels), head of 3 classes, '
        .. 'under "model."')
    lu.assertStrContains(out, "epoch = 12")
    lu.assertStrContains(ok "weights show x.pth --tensors", "model.blocks.1.mlp.fc2.weight    F32    [24,96]")
    out = ok "weights convert x.pth y.safetensors"
    lu.assertStrContains(out, "left out (2): model.proj_head.0.weight, model.decoder_pred.bias")
    local to = model(9, { pool = "gap" })
    m.weights.load(to, dir .. "/y.safetensors") -- strict: exactly these names
    lu.assertEquals(values(to), values(from))
    lu.assertStrContains(ok "weights show y.safetensors", "a ViT of 2 blocks")
    ok "weights convert x.pth all.safetensors --all"
    lu.assertEquals(#m.safetensors.open(dir .. "/all.safetensors"):names(), #list)
end

function TestWeightFiles.test_fine_tuning_starts_from_a_pth_file()
    require("mimic.layouts").write { layout = "rafdb", dir = dir .. "/raf", train = 24, test = 8 }
    pth.write(dir .. "/start.pth", "model", listed(model(3, { pool = "gap", img = 32, patch = 8 })))
    shell.write(dir .. "/ft.lua", [[
local m = require "mimic"
local r = m.experiment "ft":run { kind = "finetune", name = "pth", seeds = { 0 }, config = m.config {
    preset = "ce", epochs = 1, batch = 8, init_from = "start.pth", lr = 1e-9,
    model = { preset = false, img = 32, patch = 8, dim = 24, depth = 2, heads = 2, drop_path = 0 },
    data = { train = { path = "raf", split = "train" }, test = { path = "raf", split = "test" }, name = "raf" } } }
print(r:summary("raf", "test", "acc"))
]])
    ok "run ft.lua"
    local listing = io.popen("ls '" .. dir .. "'/results/runs/*/*.safetensors")
    local saved = m.weights.open(listing:read("l"))
    listing:close()
    local old = m.weights.open(dir .. "/start.pth")
    local a, b = saved:load("blocks.1.attn.qkv.weight"):tolist(), old:load("model.blocks.1.attn.qkv.weight"):tolist()
    lu.assertAlmostEquals(a[5][7], b[5][7], 1e-6) -- hardly moved from where it started
    saved:close()
    old:close()
end

os.exit(lu.LuaUnit.new():runSuiteByInstances {
    { "TestWeightFiles", TestWeightFiles },
})

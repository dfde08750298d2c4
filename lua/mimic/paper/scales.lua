-- The three scales of m.paper: data, models, recipes and axes. Each is a function of the data's root folder.
local m = require "mimic"

local scales = {}

---@class paper.Scale
---@field seeds integer[]
---@field sets table[] faces: name, stands_for (the paper's set), train, test, val?, finetune?
---@field data table<string, table> of pre-training: general, celebrities
---@field models table<string, table> base, large
---@field pretrain table what all methods share
---@field methods table<string, table> what each changes
---@field pretrain_on table<string, table> what a data set changes
---@field finetune table
---@field finetune_large table?
---@field scratch table without pre-training
---@field probe table
---@field embed table
---@field grid table<string, number[]> axes of Fig. 6
---@field draw fun()? makes it
---@field expected table[] {spec, pictures, classes}, for plans made without the data

local function splits(path, ...)
    local out = {}
    for _, split in ipairs { ... } do out[#out + 1] = { path = path, split = split } end
    return table.unpack(out)
end

--- The paper: ViT-B/16 and ViT-L/16 at 224 pixels, the published recipes, the sets as published. The root
--- holds imagenet, ms1m, rafdb, ferplus and affectnet.
function scales.paper(root)
    root = root or "data"
    local faces = { name = "rafdb", stands_for = "rafdb" }
    faces.train, faces.test = splits(root .. "/rafdb", "train", "test")
    local ferplus = { name = "ferplus", stands_for = "ferplus", finetune = { proj = { dim = 512 } } }
    ferplus.train, ferplus.val, ferplus.test = splits(root .. "/ferplus", "train", "val", "test")
    local affectnet = { name = "affectnet", stands_for = "affectnet",
        finetune = { epochs = 10, warmup = 1, data = { balanced = true } } }
    affectnet.train, affectnet.test = splits(root .. "/affectnet", "train", "val")
    local general, general_val = splits(root .. "/imagenet", "train", "val")
    local celebrities = { path = root .. "/ms1m" }
    local decoder = { dim = 512, depth = 8, heads = 16 }
    return {
        seeds = { 0 },
        sets = { faces, ferplus, affectnet },
        data = { general = { train = general, name = "imagenet", workers = 12 },
            celebrities = { train = celebrities, name = "ms1m", workers = 12 } },
        models = { base = { preset = "vit_b16" }, large = { preset = "vit_l16" } },
        finetune_large = { model = { drop_path = 0.2 } },
        pretrain = { precision = "bf16", checkpoint_epochs = 5 },
        methods = { -- total batch = batch x accumulate; MoCo v3 contrasts within `batch` (published: 4096)
            mae = { batch = 256, accumulate = 16, model = { decoder = decoder } },
            supervised = { batch = 255, accumulate = 4, data = { val = general_val } },
            moco = { batch = 512, accumulate = 8, model = { checkpoint = true } },
            localmim = { batch = 256, accumulate = 8 },
        },
        -- As many updates as on ImageNet-1K.
        pretrain_on = { celebrities = { epochs = 198, warmup = 10 } },
        finetune = { precision = "bf16", data = { workers = 12 } },
        scratch = { layer_decay = 1 },
        probe = { batch = 256, accumulate = 64 }, -- 16384 in all, as MAE has it; FERPlus has 28559 pictures
        embed = {},
        grid = { d = { 64, 128, 256, 512, 1024 }, B = { 16, 32, 64, 128, 256 },
            alpha = { 0.01, 0.05, 0.1, 0.5, 1 }, tau = { 0.01, 0.03, 0.07, 0.1, 0.5 } },
        expected = {
            { general, 1281167, 1000 }, { general_val, 50000, 1000 }, { celebrities, 5179510, 0 },
            { faces.train, 12271, 7 }, { faces.test, 3068, 7 }, { ferplus.train, 28559, 8 },
            { ferplus.test, 3573, 8 }, { affectnet.train, 283901, 7 }, { affectnet.test, 3500, 7 },
        },
    }
end

-- A pack in the root or in its folders core and extra.
local function pack(root, name)
    for _, folder in ipairs { "", "core/", "extra/" } do
        local path = ("%s/%s%s.tar"):format(root, folder, name)
        if m.sys.realpath(path) then return path end
    end
    return ("%s/%s.tar"):format(root, name)
end

--- A ViT of 1.2 million parameters at 64 pixels on the packs tiny64, ferplus48 and lfw64.
function scales.small(root)
    root = root or "data/packs"
    local faces = {
        name = "ferplus48", stands_for = "ferplus", train = pack(root, "ferplus48_train"),
        val = pack(root, "ferplus48_valid"), test = pack(root, "ferplus48_test"),
    }
    local colour = {
        name = "lfwemo100", stands_for = "rafdb", train = pack(root, "lfwemo100_train"),
        test = pack(root, "lfwemo100_test"),
    }
    local general, celebrities = pack(root, "tiny64_train"), pack(root, "lfw64_rest")
    local encoder = { preset = false, img = 64, patch = 8, dim = 128, depth = 6, heads = 4 }
    local large = { preset = false, img = 64, patch = 8, dim = 192, depth = 9, heads = 6 }
    return {
        seeds = { 0, 1, 2 },
        sets = { faces, colour },
        data = { general = { train = general, name = "tiny64", cache = 256 },
            celebrities = { train = celebrities, name = "lfw64", cache = 256 } },
        models = { base = encoder, large = large },
        pretrain = {
            epochs = 60, warmup = 6, batch = 256, lr = 1e-3, checkpoint_epochs = 5,
        },
        methods = {
            mae = { model = { decoder = { dim = 64, depth = 2, heads = 4 } } },
            localmim = { model = { decoder = { dim = 64, depth = 1, heads = 4 } } },
            moco = { model = { mlp_dim = 512, out_dim = 128 } },
            supervised = { repeats = 1 },
            simmim = { mask_patch = 16, milestones = { 52 } },
        },
        pretrain_on = { celebrities = { epochs = 76, warmup = 8 } }, -- as many updates
        finetune = {
            epochs = 20, warmup = 2, min_lr = 0, lr = 1e-3, layer_decay = 0.75,
            model = { drop_path = 0 }, data = { cache = 256 },
        },
        scratch = { lr = 5e-4, layer_decay = 1 },
        probe = { epochs = 30, warmup = 3, batch = 256, lr = false },
        embed = { data = { cache = 64 } },
        grid = { d = { 32, 64, 128, 256, 512 }, B = { 16, 32, 64, 128, 256 },
            alpha = { 0.01, 0.05, 0.1, 0.5, 1 }, tau = { 0.01, 0.03, 0.07, 0.1, 0.5 } },
        expected = { { general, 8000, 200 }, { celebrities, 6305, 0 }, { faces.train, 6000, 8 },
            { faces.test, 3152, 8 }, { colour.train, 2201, 8 }, { colour.test, 655, 8 } },
    }
end

--- A ViT of a few thousand parameters on drawn pictures of 16 pixels: every step of a script in seconds.
function scales.smoke(root)
    root = root or "data/smoke"
    local faces = { name = "faces", stands_for = "rafdb" }
    faces.train, faces.test = splits(root .. "/faces", "train", "test")
    local general, celebrities = splits(root .. "/general", "train", "val")
    local encoder = { preset = false, img = 16, patch = 4, dim = 16, depth = 1, heads = 2 }
    local large = { preset = false, img = 16, patch = 4, dim = 32, depth = 1, heads = 2 }
    return {
        seeds = { 0 },
        sets = { faces },
        data = { general = { train = general, name = "general" },
            celebrities = { train = celebrities, name = "general-val" } },
        models = { base = encoder, large = large },
        pretrain = { epochs = 1, warmup = 0, batch = 8, lr = 1e-3 },
        methods = {
            mae = { model = { decoder = { dim = 16, depth = 1, heads = 2 } } },
            localmim = { model = { decoder = { dim = 16, depth = 1, heads = 2 } } },
            moco = { model = { mlp_dim = 16, out_dim = 8 } },
            supervised = { repeats = 1 },
            simmim = { mask_patch = 8 },
        },
        pretrain_on = {},
        finetune = {
            epochs = 1, warmup = 0, batch = 8, lr = 1e-3, model = { drop_path = 0 }, proj = { dim = 8 },
        },
        scratch = { layer_decay = 1 },
        probe = { epochs = 1, warmup = 0, batch = 8 },
        embed = { tsne = { iterations = 50 } },
        grid = { d = { 8, 16 }, B = { 4, 8 }, alpha = { 0.1, 0.5 }, tau = { 0.07, 0.5 } },
        draw = function()
            m.synth { dir = root, size = 24, general_train = 24, general_val = 16, faces_train = 24,
                faces_test = 14 }
        end,
        expected = {
            { general, 24, 12 }, { celebrities, 16, 12 }, { faces.train, 24, 7 }, { faces.test, 14, 7 },
        },
    }
end

return scales

-- pos_embed, resize, augops: position embeddings and picture operations.
local m = require "mimic"

local check = {}

check["pos_embed"] = function(g)
    for _, name in ipairs(g.names) do
        local order, dim, grid = name:match("^out%.(%w+)%.d(%d+)g(%d+)$")
        if order then
            local table_of = m.posembed.sincos(math.tointeger(dim), math.tointeger(grid), { order = order })
            g:absolute(name, table_of, 1e-6)
        end
    end
end

-- (u8 / 255 - mean) / std in [3,H,W] order.
local function normalised(img)
    local mean, std = { 0.485, 0.456, 0.406 }, { 0.229, 0.224, 0.225 }
    local rows = img:tensor():tolist()
    local out = {}
    for c = 1, 3 do
        for _, row in ipairs(rows) do
            for _, pixel in ipairs(row) do out[#out + 1] = (pixel[c] / 255 - mean[c]) / std[c] end
        end
    end
    return out
end

check["resize"] = function(g)
    local img = m.image.from(g:tensor("in.img"))
    local k = 0
    while g.has["meta.size" .. k] do
        local size = g:integers("meta.size" .. k) -- height, width
        for _, filter in ipairs { "bilinear", "bicubic" } do
            local out = img:resize{ out_w = size[2], out_h = size[1], filter = filter }
            g:bytes(("out.pil.%s.%d"):format(filter, k), out:tensor())
        end
        k = k + 1
    end
    local side = g:integers("meta.rrc.out")[1]
    for i, box in ipairs(g:tensor("in.rrc.boxes_top_left_h_w_flip"):tolist()) do
        for _, filter in ipairs { "bilinear", "bicubic" } do
            local out = img:resize{
                left = box[2], top = box[1], w = box[4], h = box[3],
                out_w = side, out_h = side, filter = filter,
            }
            if box[5] == 1 then out:flip() end
            g:bytes(("out.rrc.%s.%d.u8"):format(filter, i - 1), out:tensor())
            local norm = ("out.rrc.%s.%d.norm"):format(filter, i - 1)
            if g.has[norm] then g:absolute(norm, normalised(out), 0.02) end
        end
    end
    local pos = g:tensor("in.pos") -- [D,g,g]
    local dim, grid = pos.shape[1], pos.shape[2]
    local vectors = pos:permute{ 2, 3, 1 }:contiguous():reshape{ grid * grid, dim }
    for _, name in ipairs(g.names) do
        local to = math.tointeger(name:match("^out%.pos%.(%d+)$"))
        if to then
            local out = m.posembed.resample(vectors, grid, to):reshape{ to, to, dim }
            g:absolute(name, out:permute{ 3, 1, 2 }:contiguous(), 1e-5)
        end
    end
end

check["augops"] = function(g)
    local a, fill = g:list("meta.args"), g:integers("meta.fill")
    local cases = {
        autocontrast = { "autocontrast" }, equalize = { "equalize" }, invert = { "invert" },
        rotate_bicubic = { "rotate", a[1] }, rotate_bilinear = { "rotate", a[1], filter = "bilinear" },
        shear_x = { "shear_x", a[2] }, shear_y = { "shear_y", a[3] },
        translate_x = { "translate_x", a[4] }, translate_y = { "translate_y", a[5] },
        color = { "color", a[6] }, contrast = { "contrast", a[6] }, brightness = { "brightness", a[6] },
        sharpness = { "sharpness", a[6] }, color2 = { "color", a[7] }, contrast2 = { "contrast", a[7] },
        brightness2 = { "brightness", a[7] }, sharpness2 = { "sharpness", a[7] },
        posterize = { "posterize", a[8] }, solarize = { "solarize", a[9] },
        solarize_add = { "solarize_add", a[10], 128 }, hue = { "hue", a[11], period = 256 },
        gray = { "grey" }, gauss_blur = { "blur", a[12] }, gauss_blur2 = { "blur", a[13] },
    }
    for _, name in ipairs(g.names) do
        local tag = name:match("^out%.([%w_]+)$")
        local case = tag and cases[tag]
        if case then
            local img = m.image.from(g:tensor("in.img"))
            img:augment(case[1], case[2] or 0, case[3] or 0,
                { filter = case.filter or "bicubic", fill = fill })
            g:bytes(name, img:tensor(), case.period)
        end
    end
end

return check

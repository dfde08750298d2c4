-- Pictures, data sets and loaders as Lua sees them.
local lu = require "luaunit"
local m = require "mimic"

local folder = os.tmpname()
os.remove(folder)

local TestImage = {}

local function picture()
    return m.image.from(m.tensor({
        { { 0, 10, 20 }, { 30, 40, 50 } },
        { { 60, 70, 80 }, { 90, 100, 110 } },
        { { 1, 2, 3 }, { 4, 5, 6 } },
    }, "u8"))
end

function TestImage:test_properties()
    local img = picture()
    lu.assertEquals({ img.width, img.height }, { 2, 3 })
    lu.assertEquals(tostring(img), "image 2 x 3")
    local r, g, b = img:mean()
    lu.assertAlmostEquals(r, 185 / 6, 1e-9)
    lu.assertAlmostEquals(g, 227 / 6, 1e-9)
    lu.assertAlmostEquals(b, 269 / 6, 1e-9)
    lu.assertEquals(img:tensor().shape, { 3, 2, 3 })
    lu.assertErrorMsgContains('did you mean "height"', function() return img.hieght end)
    lu.assertStrContains(m.image.jpeg_version, "libjpeg")
end

function TestImage:test_operators()
    local img = picture()
    lu.assertEquals(img:flip():tensor():tolist()[1], { { 30, 40, 50 }, { 0, 10, 20 } })
    lu.assertEquals(img:augment("invert"):tensor():get(1, 1, 1), 225)
    local part = picture():resize { left = 1, top = 1, w = 1, h = 1, out_w = 3, out_h = 2 }
    lu.assertEquals({ part.width, part.height }, { 3, 2 })
    lu.assertEquals(part:tensor():get(2, 3, 3), 110)
    lu.assertErrorMsgContains('unknown operator "invrt" (did you mean "invert"?)', img.augment, img, "invrt")
    lu.assertErrorMsgContains('unknown filter "nearest"', img.resize, img, { filter = "nearest" })
    lu.assertError(img.resize, img, { left = 5 })
    img:augment("rotate", 10, 0, { filter = "bicubic", fill = { 1, 2, 3 } })
    lu.assertErrorMsgContains("u8 [H,W,3] expected", m.image.from, m.zeros { 2, 2, 3 })
end

function TestImage:test_jpeg()
    local bytes = m.image.synth("face", 1, 2, 3, 64):jpeg(90)
    local img = m.image.decode(bytes, "face.jpg")
    lu.assertEquals({ img.width, img.height }, { 64, 64 })
    local name = os.tmpname()
    m.sys.write_file_atomic(name, bytes)
    lu.assertEquals(m.image.read(name):tensor():tobytes(), img:tensor():tobytes())
    os.remove(name)
    lu.assertErrorMsgContains("face.jpg", m.image.decode, "no picture", "face.jpg")
    lu.assertErrorMsgContains(name, m.image.read, name)
    lu.assertErrorMsgContains('unknown kind "cat"', m.image.synth, "cat", 1, 2, 3, 64)
end

function TestImage:test_transform()
    local img = m.image.synth("general", 1, 2, 3, 48)
    local spec = { size = 32, crop = true, scale = { 0.2, 1 }, filter = "bicubic", flip = 0.5,
        randaugment = { n = 2, m = 9, std = 0.5 }, erase_p = 0.25 }
    local a = m.image.transform(img, spec, m.rng(1, 2, 3))
    lu.assertEquals(a.shape, { 3, 32, 32 })
    lu.assertEquals(a:tobytes(), m.image.transform(img, spec, m.rng(1, 2, 3)):tobytes())
    lu.assertNotEquals(a:tobytes(), m.image.transform(img, spec, m.rng(1, 2, 4)):tobytes())
    lu.assertErrorMsgContains('unknown option "filp" (did you mean "flip"?)', m.image.transform, img,
        { size = 8, filp = 1 })
    lu.assertError(m.image.transform, img, {})
    local default <const> = { m.image.crop_box(m.rng(1, 1, 1), 100, 50, { 0.2, 1 }) } -- the ratio may be left out
    lu.assertEquals(default, { m.image.crop_box(m.rng(1, 1, 1), 100, 50, { 0.2, 1 }, { 3 / 4, 4 / 3 }) })
    local left, top, w, h = m.image.crop_box(m.rng(1, 1, 1), 100, 50, { 0.2, 1 }, { 0.75, 1.3333 })
    lu.assertTrue(left >= 0 and top >= 0 and left + w <= 100 and top + h <= 50 and w > 0 and h > 0)
end

local TestData = {}

function TestData:setUp()
    if self.made then return end
    self.made = true
    local calls, last = 0, nil
    m.data.synth { dir = folder, seed = 3, general_train = 24, general_val = 12,
        faces_train = 21, faces_test = 14, size = 32, progress = function(done, total)
            calls = calls + 1
            last = done == total
        end }
    lu.assertTrue(calls > 0 and last)
end

local function faces(split)
    return m.data.open { path = folder .. "/faces", split = split, need_labels = true }
end

function TestData:test_data_set()
    local d = faces "train"
    lu.assertEquals(#d, 21)
    lu.assertEquals(d.classes, 7)
    lu.assertEquals(d.format, "rafdb")
    lu.assertEquals(d.dropped, 0)
    local sum = 0
    for _, n in ipairs(d:counts()) do sum = sum + n end
    lu.assertEquals(sum, 21)
    lu.assertTrue(d:label(0) >= 0)
    lu.assertEquals(d:read(0).width, 32)
    lu.assertStrContains(d:name(0), ".jpg")
    lu.assertEquals(type(d:class_name(0)), "string")
    lu.assertEquals(#d:hash(), 64)
    lu.assertErrorMsgContains("sample 21 is outside 0..20", d.read, d, 21)
    lu.assertErrorMsgContains("class 7 is outside", d.class_name, d, 7)
    lu.assertErrorMsgContains('unknown option "pth" (did you mean "path"?)', m.data.open, { pth = "x" })
    lu.assertErrorMsgContains("/nothing", m.data.open, { path = folder .. "/nothing" })
end

function TestData:test_epochs()
    local l = m.data.loader(faces "train", { batch = 4, shuffle = true, seed = 5, workers = 2, views = 2,
        transform = { size = 16, crop = true, scale = { 0.5, 1 }, flip = 0.5 } })
    lu.assertEquals(l.batches, 6)
    lu.assertEquals(l.damaged, 0)
    local seen, sizes, third = {}, {}, nil
    for batch in l:epoch(1) do
        sizes[#sizes + 1] = batch.n
        lu.assertEquals(batch.images.shape, { 2 * batch.n, 3, 16, 16 })
        for i, k in ipairs(batch.index:tolist()) do
            seen[k] = (seen[k] or 0) + 1
            lu.assertEquals(batch.labels:get(i), faces("train"):label(k))
        end
        if #sizes == 3 then third = batch.images:tobytes() end
    end
    lu.assertEquals(sizes, { 4, 4, 4, 4, 4, 1 })
    for k = 0, 20 do lu.assertEquals(seen[k], 1) end
    lu.assertEquals(l:epoch(1, 2)().images:tobytes(), third) -- resumed: the same batch
    local old = l:epoch(2)
    l:epoch(3)
    lu.assertErrorMsgContains("this epoch's iterator is over", old)
    l:close()
    lu.assertErrorMsgContains("closed", l.epoch, l, 1)
end

function TestData:test_batches_in_steps()
    local l = m.data.loader(faces "test", { batch = 7, transform = { size = 8 } })
    local rows, inside = 0, nil
    for batch in l:epoch(0) do rows = rows + batch.n end
    m.step(function()
        for batch in l:epoch(0) do inside = batch.images end
    end)
    lu.assertEquals(rows, 14)
    lu.assertFalse(inside.alive)
end

function TestData:test_a_loader_keeps_its_data_set()
    local l = m.data.loader(faces "test", { batch = 14, transform = { size = 8 } })
    collectgarbage()
    collectgarbage()
    for batch in l:epoch(0) do lu.assertEquals(batch.n, 14) end
end

function TestData:test_wrong_options()
    local d = faces "test"
    lu.assertErrorMsgContains("transform", m.data.loader, d, { batch = 2 })
    lu.assertErrorMsgContains('(did you mean "workers"?)', m.data.loader, d,
        { worker = 2, transform = { size = 8 } })
    lu.assertErrorMsgContains("option batch: an integer expected, got string", m.data.loader, d,
        { batch = "2", transform = { size = 8 } })
    lu.assertError(m.data.loader, d, { batch = 0, transform = { size = 8 } })
    local calls = 0 -- an error, as of Ctrl-C, ends the drawing at once
    lu.assertErrorMsgContains("of the script", m.data.synth, { dir = folder .. "/x", general_train = 200,
        size = 8, progress = function()
            calls = calls + 1
            error "of the script"
        end })
    lu.assertEquals(calls, 1)
end

local code = lu.LuaUnit.new():runSuiteByInstances { { "TestImage", TestImage }, { "TestData", TestData } }
os.execute("rm -rf " .. folder)
os.exit(code, true)

-- Pictures a second that a loader delivers, by where views are made (data.device): floats of the CPU, bytes sent
-- to the GPU, pictures kept there. Nothing is trained; every batch is waited for. Two views of each picture, crop,
-- flip and colour jitter at 224 pixels, from a .pixels file of drawn faces.
--     build/mimic tests/bench/pictures.lua [DEVICE = cuda] [PICTURES = 4096] [SIZE = 224] [WORKERS = threads]
local m = require "mimic"

local device = arg[1] or "cuda"
local pictures, size = tonumber(arg[2]) or 4096, tonumber(arg[3]) or 224
local workers <const> = tonumber(arg[4]) or m.threads()
local batch <const>, views <const> = math.min(256, pictures), 2

local dir = os.tmpname()
os.remove(dir)
m.data.synth { dir = dir, seed = 1, faces_train = pictures, size = size }
local set = m.data.open { path = dir .. "/faces", split = "train" }
set:pack(dir .. "/packed.pixels", { size = size })
set = m.data.open { path = dir .. "/packed.pixels" }

m.device(device)
for _, d in ipairs(m.devices()) do
    if d.name == device then print(d.about or d.name) end
end
print(("%d pictures of %d pixels, %d views, batch %d, %d loader threads"):format(pictures, size, views, batch, workers))

local function epoch(loader, e)
    local started, n = m.sys.clock(), 0
    local next_batch, state, control = loader:epoch(e)
    while true do
        local scope <close> = m.scope() -- luacheck: ignore
        control = next_batch(state, control)
        if not control then break end
        n = n + control.n * views
    end
    m.sync()
    return n / (m.sys.clock() - started)
end

for _, place in ipairs(device == "cpu" and { "off" } or { "off", "stream", "keep" }) do
    local loader <close> = m.data.loader(set, {
        batch = batch, views = views, shuffle = true, workers = workers, ahead = 4, seed = 1, device = place,
        transform = { size = size, crop = true, scale = { 0.2, 1 }, flip = 0.5, jitter = { 0.4, 0.4, 0.4, 0.1 },
            jitter_p = 0.8, grey_p = 0.2 },
    })
    local first = epoch(loader, 0) -- files come into the page cache, kept pictures to the device
    local rates = {}
    for e = 1, 3 do rates[e] = epoch(loader, e) end
    table.sort(rates)
    print(("%-7s %9.0f img/s, first epoch %9.0f   (%s)"):format(place, rates[2], first, loader.about))
end
os.execute(("rm -rf '%s'"):format(dir))

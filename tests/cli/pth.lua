-- Writes .pth files as torch.save does (zip of a pickle and raw storages), f32 only, for the suites.
local pth = {}

local function text(s) return "X" .. string.pack("<s4", s) end

local function class(module, name) return "c" .. module .. "\n" .. name .. "\n" end

local function int(v) return "J" .. string.pack("<i4", v) end

local function ints(list)
    local out = {}
    for i, v in ipairs(list) do out[i] = int(v) end
    return "(" .. table.concat(out) .. "t"
end

-- A tensor of storage `key`.
local function tensor(key, shape)
    local n, strides = 1, {}
    for i = #shape, 1, -1 do
        strides[i] = n
        n = n * shape[i]
    end
    return class("torch._utils", "_rebuild_tensor_v2") .. "((" .. text "storage" .. class("torch", "FloatStorage")
        .. text(key) .. text "cpu" .. int(n) .. "tQ" .. int(0) .. ints(shape) .. ints(strides) .. "\x89"
        .. class("collections", "OrderedDict") .. ")RtR"
end

local function flatten(t, out)
    if type(t) ~= "table" then
        out[#out + 1] = string.pack("<f", t)
    else
        for _, v in ipairs(t) do flatten(v, out) end
    end
    return out
end

local function zip(path, entries)
    local parts, directory, at = {}, {}, 0
    for _, e in ipairs(entries) do
        local fields = string.pack("<I2I2I2I4I4I4I4I2I2", 20, 0, 0, 0, 0, #e[2], #e[2], #e[1], 0)
        local header = "PK\3\4" .. fields .. e[1]
        directory[#directory + 1] = "PK\1\2" .. string.pack("<I2", 20) .. fields
            .. string.pack("<I2I2I2I4I4", 0, 0, 0, 0, at) .. e[1]
        parts[#parts + 1] = header .. e[2]
        at = at + #header + #e[2]
    end
    local all = table.concat(directory)
    parts[#parts + 1] = all .. "PK\5\6" .. string.pack("<I2I2I2I2I4I4I2", 0, 0, #entries, #entries, #all, at, 0)
    local f = assert(io.open(path, "wb"))
    f:write(table.concat(parts))
    f:close()
end

--- {key = {"name" = tensor...}} becomes a checkpoint with the state dict under `key` (nil: bare).
---@param path string
---@param key string?
---@param list {[1]: string, [2]: any}[] names and tensors
function pth.write(path, key, list)
    local entries, out = { { "archive/data.pkl", "" } }, {}
    for i, pair in ipairs(list) do
        local storage = tostring(i - 1)
        out[#out + 1] = text(pair[1]) .. tensor(storage, pair[2].shape)
        entries[#entries + 1] = { "archive/data/" .. storage, table.concat(flatten(pair[2]:tolist(), {})) }
    end
    local state = class("collections", "OrderedDict") .. ")R(" .. table.concat(out) .. "u"
    if key then state = "}(" .. text(key) .. state .. text "epoch" .. int(12) .. "u" end
    entries[1][2] = "\x80\x02" .. state .. "."
    entries[#entries + 1] = { "archive/version", "3\n" }
    zip(path, entries)
end

return pth

-- m.synth: the synthetic data set, written once. A stamp of the parameters is written last, so that a
-- folder that was cut short, or made with other parameters, is written again.
local m = require "mimic"
local config = require "mimic.config"
local progress = require "mimic.progress"

local synth = {}

synth.defaults = {
    dir = "data/synth", seed = 0, size = 64, general_train = 4000, general_val = 200, faces_train = 1200,
    faces_test = 400,
}

---Writes the pictures when they are not there yet.
---@param spec table keys of synth.defaults
---@return boolean written
function synth.ensure(spec)
    local full = config.resolve(spec, synth.defaults, {}, "m.synth")
    if require("mimic.experiment").options.dry_run then return false end
    local stamp = full.dir .. "/synth.json"
    local dir = full.dir
    full.dir, full.version = nil, m.version
    local text = config.json(full) .. "\n"
    if m.sys.read_file(stamp) == text then return false end
    full.dir, full.version = dir, nil
    m.sys.mkdirs(dir)
    os.remove(stamp)
    full.progress = function(done, total)
        progress.show { phase = "synth", note = ("%d/%d pictures"):format(done, total), done = done / total }
    end
    m.data.synth(full)
    progress.finish()
    m.sys.write_file_atomic(stamp, text)
    return true
end

return setmetatable(synth, { __call = function(_, spec) return synth.ensure(spec) end })

-- Runs commands for the suites of this folder: exit code, standard output, standard error.
local cjson = require "cjson"
local lfs = require "lfs"
local lu = require "luaunit"
local m = require "mimic"

local shell = {}

shell.mimic = os.getenv("MIMIC") or arg[-1] or "mimic"
shell.source = os.getenv("MIMIC_SOURCE") or lfs.currentdir()

---A new empty folder.
---@return string
function shell.folder()
    local dir = os.tmpname()
    os.remove(dir)
    assert(lfs.mkdir(dir))
    return dir
end

local function slurp(path)
    local f = assert(io.open(path, "rb"))
    local text = f:read("a")
    f:close()
    return text
end
shell.read = slurp

---@param path string
---@param text string
function shell.write(path, text)
    local f = assert(io.open(path, "wb"))
    f:write(text)
    f:close()
end

---Runs `mimic WORDS` in dir. `before` goes in front of the command (timeout, environment).
---@param dir string
---@param words string
---@param before string|nil
---@return integer code, string out, string err
function shell.run(dir, words, before)
    local command = ("cd '%s' && %s '%s' %s >out.txt 2>err.txt"):format(dir, before or "", shell.mimic, words)
    local _, how, code = os.execute(command)
    if how == "signal" then code = 128 + code end
    return code, slurp(dir .. "/out.txt"), slurp(dir .. "/err.txt")
end

---What a suite calls: run(words, before), ok(words), which demands exit code 0, and json(words), which decodes
---what is printed.
---@param folder fun(): string where commands are run
function shell.commands(folder)
    local function run(words, before)
        return shell.run(folder(), words, before)
    end
    local function ok(words)
        local code, out, err = run(words)
        lu.assertEquals(code, 0, words .. "\n" .. out .. err)
        return out, err
    end
    local function json(words)
        return cjson.decode((ok(words)))
    end
    return run, ok, json
end

---With MIMIC_GPU_TEST set, a suite for the CUDA device runs on a real one; where there is none it ends here, as
---skipped.
function shell.wants_gpu()
    if not os.getenv("MIMIC_GPU_TEST") then return end
    local ok, why = pcall(m.device, "cuda")
    if not ok then
        print("skipped: " .. tostring(why):gsub("^[^\n]-:%d+: ", ""))
        os.exit(77)
    end
    m.device("cpu")
end

function shell.remove(dir)
    os.execute("rm -rf '" .. dir .. "'")
end

return shell

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
    local file = os.tmpname()
    local dir = file .. ".d" -- the file stays until the folder is there: the name is this process's alone
    assert(lfs.mkdir(dir))
    os.remove(file)
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

-- Whether a process is the command and has its results file open: it then answers Ctrl-C as a command does. Before,
-- the system's own action ends it, or the loading of its libraries is what is interrupted.
local function has_opened(pid)
    if not tostring(lfs.symlinkattributes(("/proc/%d/exe"):format(pid), "target")):find("mimic", 1, true) then
        return false
    end
    local ok, names, state = pcall(lfs.dir, ("/proc/%d/fd"):format(pid))
    for fd in ok and names or function() end, state do
        local target = lfs.symlinkattributes(("/proc/%d/fd/%s"):format(pid, fd), "target")
        if target and target:find "%.db$" then return true end
    end
    return false
end

---Runs `mimic WORDS` in dir and sends it Ctrl-C as soon as it works on its results file, however long a loaded
---machine takes to start it, or as soon as `ready` says so. One that has not ended a minute later is killed.
---@param dir string
---@param words string
---@param ready (fun(): any)? may raise: not yet
---@return integer code, string out, string err
function shell.interrupt(dir, words, ready)
    local pid = m.sys.spawn { "/bin/sh", "-c", ("cd '%s' && exec '%s' %s >out.txt 2>err.txt"):format(dir, shell.mimic,
        words) }
    local function has_begun()
        if not ready then return has_opened(pid) end
        local ok, yes = pcall(ready)
        return ok and yes
    end
    local code
    for waited = 0, 60, 0.01 do
        code = m.sys.wait(pid)
        if code or has_begun() then break end
        if waited >= 59.9 then error(words .. ": did not begin within a minute") end
        m.sys.sleep(0.01)
    end
    if not code then m.sys.kill(pid, "INT") end
    for _ = 1, 6000 do
        code = code or m.sys.wait(pid)
        if code then break end
        m.sys.sleep(0.01)
    end
    if not code then m.sys.kill(pid, "KILL") end
    return code or m.sys.wait(pid, true), slurp(dir .. "/out.txt"), slurp(dir .. "/err.txt")
end

---What a suite calls: run(words, before), ok(words), which demands exit code 0, json(words), which decodes what is
---printed, and refused(words, text), which demands that usage is refused with this text.
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
    local function refused(words, text)
        local code, _, err = run(words)
        lu.assertEquals(code, 2, words .. ": " .. err)
        lu.assertStrContains(err, text)
    end
    return run, ok, json, refused
end

---With MIMIC_GPU_TEST set, a suite for the CUDA device runs on a real one; where there is none it ends here, as
---skipped.
function shell.wants_gpu()
    if not os.getenv("MIMIC_GPU_TEST") then return end
    local ok, why = pcall(m.device, "cuda")
    if not ok then
        local text = tostring(why):gsub("^[^\n]-:%d+: ", "")
        local must = os.getenv "MIMIC_GPU_TEST" == "must" or (os.getenv "CUDA_VISIBLE_DEVICES" ~= ""
            and os.execute "ls /dev/nvidia[0-9]* /dev/dxg 2>/dev/null | grep -q .")
        print((must and "failed: " or "skipped: ") .. text)
        os.exit(must and 1 or 77)
    end
    m.device("cpu")
end

function shell.remove(dir)
    os.execute("rm -rf '" .. dir .. "'")
end

return shell

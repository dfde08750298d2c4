-- What can be the matter with a device, planted in the emulated one: modules that do not fit, failing kernels, little
-- memory, long waits, files that cannot be written.
local m = require "mimic"
local lu = require "luaunit"
local lfs = require "lfs"

package.path = os.getenv("MIMIC_SOURCE") .. "/tests/cli/?.lua;" .. package.path
local shell = require "shell"

local TestEmulatedDevice = {}

function TestEmulatedDevice:test_devices_command()
    local dir = shell.folder()
    local code, out = shell.run(dir, "devices")
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "cuda\n  emulated device")
    code, out = shell.run(dir, "devices", "MIMIC_CUDA=/nowhere.so")
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "cuda: /nowhere.so cannot be opened: /nowhere.so: cannot open shared object file")
    out = select(2, shell.run(dir, "devices", "MIMIC_CUDA=" .. os.getenv "OLD_MODULE"))
    lu.assertStrContains(out, "libold_module.so does not fit: its interface is number 1, this program's ")
    code, out = shell.run(dir, "devices", "NO_MODULE=1 MIMIC_CUDA=" .. os.getenv "OLD_MODULE")
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "libold_module.so gives no module")
    out = select(2, shell.run(dir, "devices", "MIMIC_CUDA=")) -- as if unset
    lu.assertNotStrContains(out, "is no module of mimic")
    local err
    code, out, err = shell.run(dir, "-e 'print(1)'", "MIMIC_CUDA=/nowhere.so MIMIC_DEVICE=cuda")
    lu.assertEquals({ code, out }, { 2, "" })
    lu.assertStrContains(err, "cuda: /nowhere.so cannot be opened")
    code, out = shell.run(dir, "-e 'print(require(\"mimic\").zeros({1}).device)'", "MIMIC_DEVICE=cuda")
    lu.assertEquals({ code, out }, { 0, "cuda\n" })
    shell.remove(dir)
end

-- cuBLAS of a Python environment is found without a word from the user.
function TestEmulatedDevice:test_cublas_of_python_environments()
    local dir = shell.folder()
    local function says(env)
        local code, out, err = shell.run(dir, "devices", ("MIMIC_CUDA=%s HOME=%s/home %s"):format(
            os.getenv "NEEDS_CUBLASLT", dir, env))
        lu.assertEquals({ code, err }, { 0, "" }) -- what else may be the matter
        return out
    end
    local found, missing = "is no module of mimic", "libcublasLt.so.99: cannot open shared object file"
    lu.assertStrContains(says "", missing)
    for folder, env in pairs {
        ["home/.local/lib/python3.11/site-packages/nvidia/cublas/lib"] = "",
        ["venv/lib/python3.12/site-packages/nvidia/cu13/lib"] = "VIRTUAL_ENV=" .. dir .. "/venv",
        ["conda/lib"] = "CONDA_PREFIX=" .. dir .. "/conda",
        ["conda2/lib/python3.13/site-packages/nvidia/cublas/lib"] = "CONDA_PREFIX=" .. dir .. "/conda2",
    } do
        local full = dir .. "/" .. folder
        lu.assertTrue(os.execute(("mkdir -p %s && cp %s %s/libcublasLt.so.99"):format(full,
            os.getenv "STRAY_CUBLASLT", full)))
        lu.assertStrContains(says(env), found)
        os.remove(full .. "/libcublasLt.so.99")
    end
    lu.assertStrContains(says "", missing)
    shell.remove(dir)
end

-- An error of a kernel shows in a later call: its message tells what was under way.
function TestEmulatedDevice:test_failures_name_what_was_under_way()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
local m = require "mimic"
local x = m.tensor { 1, 2 }
print(x:exp():sum_to({}):item())
local y = x:gelu()
y = y:softmax()
print(y:tolist()[1])
]])
    local function run(env) return shell.run(dir, "x.lua", "MIMIC_DEVICE=cuda " .. env) end
    local code, _, err = run "MIMIC_EMU_BREAK=4"
    lu.assertEquals(code, 1)
    lu.assertStrContains(err, "cuda: copy from the device: a failure planted by MIMIC_EMU_BREAK; in one of the 2 "
        .. "operators since the last wait: gelu (x.lua:4), softmax (x.lua:5); MIMIC_SYNC=1 names it exactly")
    _, _, err = run "MIMIC_EMU_BREAK=4 MIMIC_SYNC=1"
    lu.assertStrContains(err, "x.lua:4: cuda: gelu: a failure planted")
    lu.assertNotStrContains(err, "MIMIC_SYNC=1")
    lu.assertEquals((run "MIMIC_EMU_BREAK=500"), 0)
    shell.remove(dir)
end

-- So are gradients added up and the optimiser's step, which are no operators of the script.
function TestEmulatedDevice:test_failures_of_a_step()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
local m = require "mimic"
local w = m.tensor({ 1, 2 }):requires_grad_()
local o = m.optimizer { kind = "adamw", params = { { tensor = w } } }
local x = w:exp()
x:sum_to({}):backward()
o:step(0.1)
print(w:tolist()[1])
]])
    local function run(env) return shell.run(dir, "x.lua", "MIMIC_DEVICE=cuda " .. env) end
    local seen, lines = {}, {}
    for kernel = 1, 20 do
        local code, _, err = run("MIMIC_SYNC=1 MIMIC_EMU_BREAK=" .. kernel)
        if code == 0 then break end
        local name = err:match "cuda: ([^:]*): a failure planted"
        lu.assertNotNil(name, err)
        seen[#seen + 1], lines[name] = name, err
    end
    lu.assertStrContains(table.concat(seen, ", "), "sum of gradients, optimizer step")
    lu.assertEquals(seen[#seen], "optimizer step") -- and what reads the result is not blamed
    lu.assertStrContains(lines["optimizer step"], "x.lua:6: ")
    local _, _, err = run("MIMIC_EMU_BREAK=" .. #seen)
    lu.assertStrContains(err, "optimizer step (x.lua:6); MIMIC_SYNC=1 names it exactly")
    shell.remove(dir)
end

-- A broken device has no more memory to give, but that is not what is wrong with it.
function TestEmulatedDevice:test_memory_of_a_broken_device()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
local m = require "mimic"
local x = m.tensor { 1, 2 }
print(pcall(x.tolist, x:exp()))
print(pcall(m.zeros, { 99999 }))
]])
    local code, out = shell.run(dir, "x.lua", "MIMIC_DEVICE=cuda MIMIC_EMU_BREAK=1")
    lu.assertEquals(code, 0)
    lu.assertStrMatches(out, "false.*planted.*\nfalse\t[^\n]*cuda: memory: a failure planted by MIMIC_EMU_BREAK.*")
    lu.assertNotStrContains(out, "out of memory")
    shell.remove(dir)
end

-- What is the matter with the file of chosen algorithms is said, once.
function TestEmulatedDevice:test_warnings_of_the_file_of_algorithms()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
local m = require "mimic"
for n = 1, 3 do m.ones({ n, 2 }):matmul(m.ones { 2, 2 }) end
]])
    local function says(env)
        local code, out, err = shell.run(dir, "x.lua", "env -u HOME -u XDG_CACHE_HOME " .. env .. " MIMIC_DEVICE=cuda")
        lu.assertEquals({ code, out }, { 0, "" })
        return err
    end
    lu.assertEquals(says "MIMIC_GEMM_CACHE=", "")
    lu.assertEquals(says "MIMIC_GEMM_CACHE=gemm.txt", "")
    lu.assertEquals(says "-u MIMIC_GEMM_CACHE", "mimic: cuda: chosen product algorithms are not kept: XDG_CACHE_HOME "
        .. "and HOME are unset, and MIMIC_GEMM_CACHE names no file\n")
    lu.assertEquals(says "MIMIC_GEMM_CACHE=x.lua", "mimic: cuda: chosen product algorithms (x.lua): is not a file of "
        .. "chosen algorithms; it is left alone\n")
    lu.assertEquals(says "-u MIMIC_GEMM_CACHE HOME=x.lua", "mimic: cuda: chosen product algorithms "
        .. "(x.lua/.cache/mimic/gemm.txt): Not a directory\n")
    lu.assertStrContains(says("MIMIC_GEMM_CACHE=" .. ("a"):rep(5000)), "the name of their file is too long")
    shell.remove(dir)
end

-- Out of memory is told by the call that met it, and by no later one.
function TestEmulatedDevice:test_little_memory()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
local m = require "mimic"
local function fails(f, ...)
    local ok, why = pcall(f, ...)
    assert(not ok)
    print((tostring(why):gsub("\n.*", "")))
end
local x = m.ones { 2, 2 }
local held = m.ones { 29, 1024, 256 }
fails(x.matmul, x, x) -- wants memory for the library
print(x:exp():get(1, 1) > 2.7)
fails(m.zeros, { 1024, 1024, 2 })
held:release()
print(x:matmul(x):get(1, 1))
fails(m.zeros, { 1024, 1024, 8 })
]])
    local env = "MIMIC_DEVICE=cuda MIMIC_EMU_MEMORY="
    local code, out, err = shell.run(dir, "x.lua", env .. (32 << 20))
    lu.assertEquals({ code, err }, { 0, "" })
    lu.assertStrMatches(out, ".*cuda: workspace of products: out of memory: 4.0 MiB requested; beside the tensors "
        .. "0.0 MiB for products, 0.0 MiB for batches; 3.0 of the device's 32.0 MiB are free\ntrue\n"
        .. ".*out of memory on the device %(the system gives no more%): 8.0 MiB requested, 29.0 MiB live in 2 "
        .. "tensors.*\n2.0\n.*: 32.0 MiB requested.*; beside the tensors 4.0 MiB for products, 0.0 MiB for batches; "
        .. "%d+%.%d of the device's 32.0 MiB are free; the largest:\n")
    code, out = shell.run(dir, "devices", "MIMIC_EMU_MEMORY=8")
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "cuda: the device cannot be used: out of memory")
    shell.remove(dir)
end

-- A wait for the device that takes long does not hold up the end of the program.
function TestEmulatedDevice:test_a_long_wait_ends_with_the_signal()
    local dir = shell.folder()
    shell.write(dir .. "/x.lua", [[
local m = require "mimic"
io.open("began", "w"):close()
local x = m.zeros { 2000, 2000 }
for _ = 1, 20 do x:matmul(x) end
m.sync()
print "never"
]])
    local pid = m.sys.spawn({ "/bin/sh", "-c", ("cd %s && exec %s x.lua >out 2>err"):format(dir, os.getenv "MIMIC") },
        { "MIMIC_DEVICE=cuda" })
    local started = m.sys.clock()
    while not lfs.attributes(dir .. "/began") and m.sys.clock() - started < 20 do m.sys.sleep(0.05) end
    m.sys.sleep(0.5)
    m.sys.kill(pid, "TERM")
    local code
    repeat
        m.sys.sleep(0.05)
        code = m.sys.wait(pid)
    until code or m.sys.clock() - started > 30
    if not code then m.sys.kill(pid, "KILL") end
    lu.assertEquals(code, 130)
    local function text(name)
        local f <close> = assert(io.open(dir .. "/" .. name))
        return f:read("a")
    end
    lu.assertEquals({ text "out", text "err" }, { "", "mimic: interrupted\n" })
    shell.remove(dir)
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestEmulatedDevice", TestEmulatedDevice } }, true)

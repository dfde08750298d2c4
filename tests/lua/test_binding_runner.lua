-- The `mimic` command itself and `require "mimic"` of a stock lua5.4.
local lu = require "luaunit"
local m = require "mimic"

local mimic = os.getenv "MIMIC" or "build/mimic"
local module = os.getenv "MIMIC_MODULE" or "build/lua/mimic.so"

local script = os.tmpname() .. ".lua"

local function run(command)
    local p = assert(io.popen("{ " .. command .. "\n} 2>&1"))
    local text = p:read "a"
    local _, how, code = p:close()
    return text, how == "signal" and -code or code
end

-- Runs `source` as a file.
local function run_script(source, args, before)
    m.sys.write_file_atomic(script, source)
    return run(("%s %s %s %s"):format(before or "", mimic, script, args or ""))
end

local TestRunner = {}

function TestRunner:tearDown()
    os.remove(script)
end

function TestRunner:test_file_and_arguments()
    local text, code = run_script("print(arg[0], arg[1], arg[2], #arg, ...)", "one 'two 2'")
    lu.assertEquals(text, script .. "\tone\ttwo 2\t2\tone\ttwo 2\n")
    lu.assertEquals(code, 0)
    lu.assertEquals({ run_script "os.exit(7)" }, { "", 7 })
    local source = 'local m = require "mimic"; print(m.ones{2}:sum():item()); os.exit(3, true)'
    lu.assertEquals({ run_script(source) }, { "2.0\n", 3 })
end

function TestRunner:test_errors_show_the_lines_of_the_script()
    local text, code = run_script [[
        local m = require "mimic" local function f()
            m.zeros { 2 }:matmul(m.zeros { 3 })
        end
        f()]]
    lu.assertStrContains(text, "mimic: " .. script .. ":2: matmul: ")
    lu.assertStrContains(text, "\n  called from " .. script .. ":4\n")
    lu.assertNotStrContains(text, "traceback")
    lu.assertEquals(code, 1)
    text, code = run_script [[
        local m = require "mimic"
        local net = m.nn.Sequential { { "0", m.nn.Linear(4, 8) } }
        net(m.zeros { 2, 5 })]]
    lu.assertEquals({ text, code }, { "mimic: " .. script .. ":3: sequential.0: linear: x has 5 features, " ..
        "the weight takes 4: x [2,5], weight [8,4], bias [8]\n", 1 })
    text = run_script "local m = require 'mimic'; m.nn.Linear(2, 2):foward(m.zeros { 1, 2 })"
    lu.assertStrContains(text, "call a nil value (method 'foward') (did you mean \"forward\"?)")
    for call, text_of in pairs {
        ["vit.new { dpeth = 2 }"] = "m.vit.new has no option 'dpeth' (did you mean depth?)",
        ["nn.Linear(2, 2, { bais = false })"] = "nn.Linear has no option 'bais' (did you mean bias?)",
        ["optim.new(m.nn.Linear(2, 2), { knid = 'sgd' })"] =
            "m.optim.new has no option 'knid' (did you mean kind?)",
    } do
        text = run_script("local m = require 'mimic'; m." .. call)
        lu.assertStrContains(text, "mimic: " .. script .. ":1: " .. text_of)
    end
    text = run_script("require('mimic').vit.new { img = {} }") -- trips the library: its place is shown
    lu.assertStrContains(text, "mimic: " .. script .. ":1: mimic/vit.lua:")
    lu.assertStrContains(text, "stack traceback:")
    text = run_script("error 'x'", "", "MIMIC_TRACE=1")
    lu.assertStrContains(text, "stack traceback:")
    text, code = run_script "x ="
    lu.assertStrContains(text, script .. ":1: unexpected symbol")
    lu.assertEquals(code, 1)
    text, code = run(mimic .. " nothing.lua")
    lu.assertStrContains(text, "cannot open nothing.lua")
    lu.assertEquals(code, 1)
    text = run_script "error(setmetatable({}, { __tostring = function() return 'an object' end }))"
    lu.assertStrContains(text, "mimic: an object")
end

function TestRunner:test_code_and_prompt()
    lu.assertEquals({ run(mimic .. " -e 'print(require[[mimic]].version, ...)' a b") },
        { m.version .. "\ta\tb\n", 0 })
    local lines = "1 + 1\\nx = 3\\nif x then\\nprint(x)\\nend\\nerror[[e]]\\nm.version\\n"
    local text, code = run(("printf '%s' | %s -i"):format(lines, mimic))
    lu.assertStrContains(text, "> 2\n")
    lu.assertStrContains(text, "3\n")
    lu.assertStrContains(text, "mimic: stdin:1: e")
    lu.assertStrContains(text, m.version)
    lu.assertEquals(code, 0)
    lu.assertEquals({ run("echo 'print(1)' | " .. mimic .. " -") }, { "1\n", 0 })
end

function TestRunner:test_paths_do_not_depend_on_the_environment()
    local source = 'for _, n in ipairs{"argparse", "cjson", "lfs", "luaunit"} do require(n) end print "found"'
    local text, code = run_script(source, "", "LUA_PATH=/nothing LUA_CPATH=/nothing")
    lu.assertEquals({ text, code }, { "found\n", 0 })
end

function TestRunner:test_library_modules_come_from_the_binary()
    local text = run_script('print(require("mimic.vit") == require("mimic").vit)', "", "cd / &&")
    lu.assertEquals(text, "true\n")
end

function TestRunner:test_interrupts()
    local polling = [[
        local m = require "mimic"
        m.interrupted()
        io.popen("kill -INT " .. m.sys.pid()):close()
        print(m.interrupted())
        io.popen("kill -TERM " .. m.sys.pid()):close()
        print "not reached"
        print "not reached"]]
    local text, code = run_script(polling)
    lu.assertStrContains(text, "1\n")
    lu.assertStrContains(text, "interrupted")
    lu.assertNotStrContains(text, "not reached")
    lu.assertEquals(code, 130)
    text, code = run_script [[
        local m = require "mimic"
        local guard <close> = setmetatable({}, { __close = function() print "closed" end })
        io.popen("kill -INT " .. m.sys.pid()):close()
        while true do end]]
    lu.assertStrContains(text, "closed")
    lu.assertStrContains(text, "interrupted")
    lu.assertEquals(code, 130)
end

local TestStock = {}

-- Runs code in a stock lua5.4 that finds the module.
local function stock(code)
    m.sys.write_file_atomic(script, code)
    return run(("LUA_CPATH='%s;;' lua5.4 %s"):format(module:gsub("mimic%.so$", "?.so"), script))
end

function TestStock:tearDown()
    os.remove(script)
end

function TestStock:test_require()
    local text, code = stock [[
        local m = require "mimic"
        assert(m == require "mimic")
        local w = m.ones({ 3 }):requires_grad_()
        local loss = m.step(function()
            local l = (w * w):sum()
            l:backward()
            return l
        end)
        print(loss:item(), w.grad:get(1), m.interrupted(), m.nn ~= nil)]]
    lu.assertEquals({ text, code }, { "3.0\t2.0\t0\ttrue\n", 0 })
end

function TestStock:test_errors_are_strings()
    local text, code = stock 'local m = require "mimic"\nm.zeros{2}:matmul(m.zeros{3})'
    lu.assertStrContains(text, script .. ":2: matmul: ")
    lu.assertEquals(code, 1)
end

function TestStock:test_late_finalizers_find_a_closed_module()
    local text, code = stock [[
        late = setmetatable({}, { __gc = function()
            local ok, e = pcall(T.tolist, T)
            print(ok, tostring(e):match "mimic is closed" or e)
        end })
        m = require "mimic"
        T = m.ones { 2 }]]
    lu.assertEquals({ text, code }, { "false\tmimic is closed\n", 0 })
end

local TestInstall = {}

-- A host program outside of the tree builds against an installed copy.
function TestInstall:test_host_builds_against_the_installed_files()
    local prefix = os.tmpname()
    os.remove(prefix)
    local build = mimic:match "^(.*)/[^/]*$"
    local text, code = run(("cmake --install %s --prefix %s"):format(build, prefix))
    lu.assertEquals(code, 0, text)
    local pc = run(("find %s -name mimic.pc"):format(prefix)):match "[^\n]+"
    m.sys.write_file_atomic(script:gsub("lua$", "c"), [[
#include <mimic.h>
#include <stdio.h>
int main(void) {
    mimic_ctx *ctx = NULL;
    mimic_tensor *t = NULL;
    const int64_t shape[] = {2, 3};
    if (mimic_open(NULL, &ctx) || mimic_tensor_new(ctx, MIMIC_F32, 2, shape, &t))
        return 1;
    printf("%lld %s\n", (long long)mimic_tensor_count(t), MIMIC_VERSION);
    mimic_tensor_release(t);
    mimic_close(ctx);
    return 0;
}
]])
    local host = script:gsub("lua$", "c")
    local build_it = "export PKG_CONFIG_PATH=%s && " ..
        "cc -o %s.out %s $(pkg-config --cflags --libs mimic) && %s.out"
    text, code = run(build_it:format(pc:match "^(.*)/", host, host, host))
    os.remove(host)
    os.remove(host .. ".out")
    local call = "cd / && %s/bin/mimic -e 'print(require[[mimic]].vit ~= nil)'"
    local out, installed = run(call:format(prefix))
    os.execute("rm -r " .. prefix)
    lu.assertEquals({ text, code }, { "6 " .. m.version .. "\n", 0 })
    lu.assertEquals({ out, installed }, { "true\n", 0 })
end

local suites = { { "TestRunner", TestRunner } }
-- Code with sanitizers does not load into programs without them.
local plain = not run(("ldd %s"):format(mimic)):find "lib%a+san"
if plain and run "command -v lua5.4" ~= "" then suites[#suites + 1] = { "TestStock", TestStock } end
if plain and run "command -v pkg-config" ~= "" then suites[#suites + 1] = { "TestInstall", TestInstall } end
os.exit(lu.LuaUnit.new():runSuiteByInstances(suites), true)

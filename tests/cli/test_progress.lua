-- Progress lines: off a terminal whole lines, on a terminal (a pty by script(1)) a header and a bar redrawn in
-- place; NO_COLOR, COLUMNS, --quiet; the live views top and report --watch.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local shell = require "shell"

local script = [[
local m = require "mimic"
local progress = require "mimic.progress"
m.experiment.task("toy", { defaults = { steps = 3 }, run = function(run)
    for i = 1, run.config.steps do
        for eta = 7500, 7400, -100 do -- the time left alone is no new line
            progress.header { name = "tau\27[31m-lambda", done = i - 1, total = 3, running = 1, failed = i // 3,
                why = "NaN", pruned = 2, best = 89.25, eta = eta }
        end
        run:progress { phase = "ft", epoch = i, epochs = run.config.steps, loss = 1 / i, rate = 1842.3,
            done = i / run.config.steps }
        run:checkpoint(i, { { "x", m.tensor { i + 0.0 } } }, {}, { final = i == run.config.steps })
        run:progress { phase = "ft", epoch = i, epochs = run.config.steps, loss = 1 / i, done = 1 }
        m.sys.sleep(m.sys.isatty(2) and 0.15 or 0)
    end
    progress.header(nil)
end })
m.experiment "toys":run { kind = "toy", name = "first", config = {} }
]]

local dir

local TestProgress = {}

function TestProgress.setUp()
    dir = shell.folder()
    shell.write(dir .. "/toy.lua", script)
end

function TestProgress.tearDown()
    shell.remove(dir)
end

-- What a terminal of `columns` gets from a command.
local function terminal(words, environment)
    local command = "cd '%s' && %s TERM=xterm script -qec \"'%s' %s\" typescript >/dev/null 2>&1 </dev/null"
    command = command:format(dir, environment, shell.mimic, words)
    lu.assertTrue(os.execute(command), words)
    return (shell.read(dir .. "/typescript"))
end

function TestProgress.test_off_a_terminal()
    local code, out, err = shell.run(dir, "run toy.lua")
    lu.assertEquals(code, 0, out .. err)
    lu.assertNil(err:find("[\r\27]"))
    lu.assertStrContains(err, "tau\\x1b[31m-lambda  0/3 done  1 running  2 pruned  best 89.25  ETA 2h05\n")
    lu.assertStrContains(err, "2/3 done  1 running  1 failed (NaN)  2 pruned")
    local _, headers = err:gsub("/3 done", "")
    lu.assertEquals(headers, 3)
    local _, lines = err:gsub("mimic  ft %d/3  loss [%d.]+", "")
    lu.assertEquals(lines, 3)
    local _, _, quiet = shell.run(dir, "run toy.lua --quiet --force")
    lu.assertEquals(quiet, "")
end

function TestProgress.test_on_a_terminal()
    local shown = terminal("run toy.lua", "COLUMNS=200")
    lu.assertStrContains(shown, "\27[36mmimic\27[0m  ft 1/3")
    lu.assertStrContains(shown, "ckpt now")
    lu.assertStrContains(shown, "\r\27[K\27[A\27[K") -- header and bar are taken away together
    lu.assertNil(shown:find("\27[31m", 1, true)) -- the name's own colour
    local plain = terminal("run toy.lua --force", "NO_COLOR=1 COLUMNS=40")
    lu.assertNil(plain:find("\27%[%d+m"))
    for line in plain:gsub("\27%[%a", ""):gmatch("[^\r\n]+") do
        if line:find("mimic  ft") or line:find("/3 done") then lu.assertTrue(utf8.len(line) < 40, line) end
    end
    lu.assertNil(terminal("run toy.lua --force --quiet", "COLUMNS=80"):find("\27", 1, true))
end

-- Lines of worker processes do not end up behind the header that the command draws.
function TestProgress.test_lines_of_workers_stand_alone()
    shell.write(dir .. "/sweep.lua", [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { x = 0 }, run = function(run)
    m.sys.sleep(0.6)
    run:log(1, { ["val/acc"] = run.config.x })
    run:result("toyset", "test", "acc", run.config.x, 8, 1)
end })
m.experiment "toys":sweep { name = "s", kind = "toy", base = m.config {}, metric = "val/acc",
    space = { x = { 1, 2, 3, 4 } } }
]])
    local shown = terminal("sweep sweep.lua --workers 2", "COLUMNS=100")
    local seen = 0
    for line in shown:gmatch "[^\n]+" do
        local golden = line:find("toyset test acc", 1, true)
        if golden then
            seen = seen + 1
            lu.assertTrue(line:sub(1, golden - 1):find "\27%[K$" ~= nil, (line:gsub("\27", "<ESC>")))
        end
    end
    lu.assertEquals(seen, 4)
    lu.assertStrContains(shown, "/4 done")
end

function TestProgress.test_top_and_watch_end()
    lu.assertEquals((shell.run(dir, "run toy.lua -q")), 0)
    local shown = terminal("top --count 2 --interval 0.1", "COLUMNS=60")
    local _, views = shown:gsub("\27%[H", "")
    lu.assertEquals(views, 2)
    lu.assertStrContains(shown, "nothing is running")
    local code, out = shell.run(dir, "report --watch -o w.html") -- ends by itself when nothing runs
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "wrote w.html")
    lu.assertNil(shell.read(dir .. "/w.html"):find("http-equiv", 1, true))
end

function TestProgress.test_watch_refreshes_while_a_run_goes_on()
    shell.write(dir .. "/slow.lua", (script:gsub("or 0%)", "or 0.7)")))
    local code, out = shell.run(dir, "report --watch 0.3 -o w.html", ([[{ '%s' run slow.lua -q & }
        for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1
        '%s' query "SELECT 1 FROM run WHERE state = 'running'" 2>/dev/null | grep -q 1 && break; done;]]):format(
            shell.mimic, shell.mimic))
    lu.assertEquals(code, 0)
    lu.assertStrContains(out, "1 running")
    lu.assertStrMatches(out, ".*\nwrote w.html\n$")
    lu.assertNil(shell.read(dir .. "/w.html"):find("http-equiv", 1, true))
    lu.assertStrContains(shell.read(dir .. "/w.html"), "1: 1 done")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestProgress", TestProgress } })

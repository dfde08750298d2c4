-- A disk that fills while a run is going on: it stops at its last checkpoint with exit code 75, nothing
-- recorded before is lost, and with room it goes on to the curve of an undisturbed run. The small
-- disk is a tmpfs, which needs root.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lfs = require "lfs"
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

-- Checkpoints of 1 MiB; `rows` metrics are logged at step 4 when the file "flood" is there.
local script = [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { steps = 14 }, run = function(run)
    local x, at = m.tensor({ 0.0 }), 0
    local last = run:resume()
    if last then
        local f = m.safetensors.open(last.path)
        x = f:load("x")
        f:close()
        at = math.tointeger(last.meta.at)
    end
    local ballast = m.zeros{ 1 << 18 }
    while at < run.config.steps do
        at = at + 1
        x = x + at
        run:log(at, { ["train/x"] = x:item() })
        local flood = at == 4 and io.open("flood")
        for i = 1, flood and 800000 or 0 do run:log(i, { ["flood/" .. i % 7] = i }) end
        if flood then flood:close() end
        run:checkpoint(at, { { "x", x }, { "ballast", ballast } }, { at = at }, { final = at == run.config.steps })
    end
    run:result("toyset", "test", "acc", x:item(), 1, at)
end })
m.experiment "full":run { kind = "toy", name = "toy", keep = { last = 50, best = false } }
]]

local home, dir -- dir: the small disk, below home

local function mount(size)
    return os.execute(("mount -t tmpfs -o size=%s tmpfs '%s' 2>/dev/null"):format(size, dir))
end

local TestRoom = {}

function TestRoom.setUp()
    home = shell.folder()
    dir = home .. "/disk"
    assert(lfs.mkdir(dir))
end

function TestRoom.tearDown()
    os.execute(("umount '%s' 2>/dev/null"):format(dir))
    shell.remove(home)
end

local function curve(path)
    local db = m.db.open(path)
    local rows = db:rows "SELECT step, value FROM curve WHERE name = 'train/x' ORDER BY step"
    local state = db:first("SELECT state, attempt FROM run")
    local whole = db:first("PRAGMA integrity_check").integrity_check
    db:close()
    return rows, state, whole
end

local function undisturbed()
    local calm = shell.folder()
    shell.write(calm .. "/full.lua", script)
    lu.assertEquals((shell.run(calm, "run full.lua -q")), 0)
    local rows = curve(calm .. "/results/mimic.db")
    shell.remove(calm)
    return rows
end

-- `limit` goes before the command that is to fail; `more` makes room.
local function fills_then_goes_on(flood, limit, more)
    shell.write(dir .. "/full.lua", script)
    if flood then shell.write(dir .. "/flood", "") end
    local code, _, err = shell.run(home, "-C disk run full.lua -q", limit)
    lu.assertEquals(code, 75, err)
    lu.assertStrContains(err, "is saved; make room")
    lu.assertStrContains(err, "run full.lua")
    local saved = tonumber(err:match("all up to step (%d+) is saved"))
    lu.assertTrue(saved >= 2 and saved < 14)
    local rows, state, whole = curve(dir .. "/results/mimic.db")
    lu.assertEquals(whole, "ok")
    lu.assertTrue(#rows >= saved)
    lu.assertNotEquals(state.state, "failed")
    for name in lfs.dir(dir .. "/results/runs") do -- no half file
        if #name == 12 then
            for file in lfs.dir(dir .. "/results/runs/" .. name) do lu.assertNil(file:match("%.tmp$")) end
        end
    end
    if more then assert(os.execute(more)) end
    os.remove(dir .. "/flood")
    local again, out, why = shell.run(home, "-C disk run full.lua -q")
    lu.assertEquals(again, 0, why)
    lu.assertStrContains(why, "continuing from step " .. saved)
    lu.assertStrContains(out, "toyset test acc 105.00")
    rows, state = curve(dir .. "/results/mimic.db")
    lu.assertEquals(rows, undisturbed())
    lu.assertEquals(state, { state = "done", attempt = 2 })
    return err
end

local function on_small_disk(size, flood)
    if not mount(size) then lu.skip("no tmpfs can be mounted here (needs root)") end
    return fills_then_goes_on(flood, nil, ("mount -o remount,size=200m '%s'"):format(dir))
end

function TestRoom.test_no_room_for_a_checkpoint()
    lu.assertStrContains(on_small_disk("16m", false), "no room for the checkpoint of step")
end

-- Worker processes stop for want of room as the command by itself would.
function TestRoom.test_no_room_for_workers()
    if not mount "12m" then lu.skip("no tmpfs can be mounted here (needs root)") end
    shell.write(dir .. "/full.lua", (script:gsub(':run {.*$', [[:sweep { name = "s", kind = "toy", metric = "train/x",
        base = m.config { steps = 14 }, space = { steps = { 14, 15 } } }]])))
    local code, _, err = shell.run(home, "-C disk sweep full.lua -q --workers 2")
    lu.assertEquals(code, 75, err)
    lu.assertStrContains(err, "make room")
    lu.assertStrContains(err, "sweep full.lua -q --workers 2")
    assert(os.execute(("mount -o remount,size=200m '%s'"):format(dir)))
    lu.assertEquals((shell.run(home, "-C disk sweep full.lua -q --workers 2")), 0)
end

-- Commands that write say 3 where the results file has no room, 1 where a file of theirs has none; nothing is lost.
function TestRoom.test_no_room_for_other_commands()
    if not mount "30m" then lu.skip("no tmpfs can be mounted here (needs root)") end
    shell.write(dir .. "/full.lua", (script:gsub("1 << 18", "1")))
    lu.assertEquals((shell.run(home, "-C disk run full.lua -q")), 0)
    os.execute(("dd if=/dev/zero of='%s/fill' bs=4k 2>/dev/null"):format(dir))
    shell.write(home .. "/full.lua", (script:gsub("1 << 18", "1")))
    lu.assertEquals((shell.run(home, "run full.lua -q")), 0)
    for words, expected in pairs { ["-C disk tag 1 a"] = 3, ["-C disk note 1 a"] = 3, ["export 1 -o disk/x"] = 1,
        ["report -o disk/x.html"] = 1 } do
        local code, _, err = shell.run(home, words)
        lu.assertEquals(code, expected, words .. ": " .. err)
    end
    os.remove(dir .. "/fill")
    lu.assertEquals(#curve(dir .. "/results/mimic.db"), 14)
end

-- Reading makes nothing: on a disk without a byte left the results are there, also those that wait in the -wal file of
-- a process that was killed.
function TestRoom.test_reading_without_room()
    if not mount "30m" then lu.skip("no tmpfs can be mounted here (needs root)") end
    shell.write(dir .. "/full.lua", (script:gsub("1 << 18", "1")))
    lu.assertEquals((shell.run(home, "-C disk run full.lua -q")), 0)
    local function fill()
        os.execute(("dd if=/dev/zero of='%s/fill' bs=4k 2>/dev/null"):format(dir))
    end
    local function reads(name)
        for _, words in ipairs { "ls", "show 1", "log 1 train/x", "query 'SELECT name FROM run_list'" } do
            local code, out, err = shell.run(home, "-C disk " .. words)
            lu.assertEquals(code, 0, words .. ": " .. err)
            lu.assertStrContains(out, words:find "log" and "105" or name)
        end
    end
    fill()
    reads "toy"
    os.remove(dir .. "/fill")
    shell.write(home .. "/kill.lua", [[
local m = require "mimic"
local db = m.db.open("disk/results/mimic.db", { write = true })
db:exec("UPDATE run SET name = ?", "renamed")
m.sys.kill(m.sys.pid(), "KILL")]])
    lu.assertEquals((shell.run(home, "kill.lua")), 137)
    local results = dir .. "/results/mimic.db"
    assert(os.remove(results .. "-shm")) -- as after the machine was switched off
    fill()
    reads "renamed"
    lu.assertTrue(lfs.attributes(results .. "-wal", "size") > 0) -- still there for who can write
    os.remove(dir .. "/fill")
    reads "renamed"
    lu.assertEquals(#curve(results), 14)
end

function TestRoom.test_no_room_for_metrics()
    lu.assertStrContains(on_small_disk("20m", true), "disk is full")
end

function TestRoom.test_a_file_at_its_limit()
    lu.assertStrContains(fills_then_goes_on(true, "ulimit -f 16000 &&"), "File too large")
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestRoom", TestRoom } })

-- A sweep as a job array of a real Slurm: one node on the loopback interface, started here. A task that gets the
-- signal before its time is over saves, goes back into the queue and continues. Skipped, and said so, where Slurm
-- and munge are not installed or cannot start.
package.path = (arg[0]:match("^(.*)/") or ".") .. "/?.lua;" .. package.path
local lu = require "luaunit"
local m = require "mimic"
local shell = require "shell"

local function skip(why)
    print("skipped: " .. why)
    os.exit(77)
end

for _, program in ipairs { "munged", "slurmctld", "slurmd", "sbatch" } do
    if not os.execute("PATH=$PATH:/usr/sbin command -v " .. program .. " >/dev/null") then
        skip(program .. " is not installed (apt-get install slurmd slurmctld slurm-client munge)")
    end
end

local dir, servers = shell.folder(), {}
local cluster = dir .. "/cluster"

local function output(command)
    local p = assert(io.popen(("SLURM_CONF='%s/slurm.conf' timeout 20 %s 2>&1"):format(cluster, command)))
    local text = p:read("a")
    return p:close() and text or nil, text
end

local function start(words)
    servers[#servers + 1] = m.sys.spawn({ "/bin/sh", "-c", ("exec %s >>'%s/servers.log' 2>&1"):format(words, cluster) },
        { "SLURM_CONF=" .. cluster .. "/slurm.conf", "PATH=" .. os.getenv "PATH" .. ":/usr/sbin" })
end

local function start_cluster()
    local port = 20000 + m.sys.pid() % 20000
    local host = m.sys.hostname():match("^[^.]+")
    m.sys.mkdirs(cluster .. "/state")
    m.sys.mkdirs(cluster .. "/spool")
    shell.write(cluster .. "/key", m.sys.random_hex(128))
    os.execute(("chmod 700 '%s' && chmod 600 '%s/key'"):format(cluster, cluster))
    shell.write(cluster .. "/cgroup.conf", "CgroupMountpoint=/sys/fs/cgroup\n")
    local conf = [[
ClusterName=test
SlurmctldHost=HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=DIR/munge.sock
StateSaveLocation=DIR/state
SlurmdSpoolDir=DIR/spool
SlurmctldPidFile=DIR/ctld.pid
SlurmdPidFile=DIR/slurmd.pid
SlurmctldLogFile=DIR/ctld.log
SlurmdLogFile=DIR/slurmd.log
SlurmctldPort=PORT1
SlurmdPort=PORT2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
KillWait=5
ReturnToService=2
MpiDefault=none
NodeName=HOST NodeAddr=127.0.0.1 CPUs=1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
]]
    conf = conf:gsub("HOST", host):gsub("DIR", cluster):gsub("PORT1", port):gsub("PORT2", port + 1)
    shell.write(cluster .. "/slurm.conf", conf)
    start(("munged --foreground --force --socket='%s/munge.sock' --key-file='%s/key' --pid-file='%s/munge.pid' "
        .. "--log-file='%s/munge.log' --seed-file='%s/munge.seed'"):format(cluster, cluster, cluster, cluster, cluster))
    m.sys.sleep(0.5)
    start(("slurmctld -D -f '%s/slurm.conf'"):format(cluster))
    start(("slurmd -D -f '%s/slurm.conf'"):format(cluster))
    for _ = 1, 60 do
        m.sys.sleep(0.5)
        if (output "sinfo -h -o %t" or ""):find("idle") then return true end
    end
    return false
end

local function stop_cluster()
    output "scancel --user=root --full"
    for i = #servers, 1, -1 do
        m.sys.kill(servers[i], "TERM")
        for _ = 1, 50 do
            if m.sys.wait(servers[i]) then break end
            m.sys.sleep(0.1)
        end
        m.sys.kill(servers[i], "KILL")
    end
    shell.remove(dir)
end

local script = [[
local m = require "mimic"
m.experiment.task("toy", { defaults = { steps = 30, x = 0.0 }, run = function(run)
    local c, at, last = run.config, 0, run:resume()
    if last then at = math.tointeger(last.meta.at) end
    while at < c.steps do
        at = at + 1
        run:log(at, { ["val/acc"] = c.x + at + run.seed })
        m.sys.sleep(0.25)
        if at % 4 == 0 or at == c.steps or run:interrupted() then
            run:checkpoint(at, { { "x", m.tensor { at + 0.0 } } }, { at = at }, { final = at == c.steps })
        end
        if run:interrupted() then run:stop() end
    end
    run:result("toyset", "test", "acc", c.x, 8, at)
end })
m.experiment("toys"):sweep { name = "grid", kind = "toy", base = m.config { steps = 30 }, metric = "val/acc",
    space = { x = m.range(0, 1) }, seeds = { 0 } }
]]

local function rows(db, sql)
    local file <close> = m.db.open(dir .. "/" .. db, { write = false })
    return (file:rows(sql))
end

local TestSlurm = {}

function TestSlurm.test_a_sweep_as_a_job_array()
    shell.write(dir .. "/grid.lua", script)
    local code, out, err = shell.run(dir, "sweep grid.lua -q --slurm -- --time=10",
        ("SLURM_CONF='%s/slurm.conf'"):format(cluster))
    lu.assertEquals(code, 0, out .. err)
    local job = out:match("job (%d+) with 2 trials")
    lu.assertNotNil(job, out)
    local shards = "results/runs/shards/"
    local uid = rows("results/mimic.db", "SELECT uid FROM sweep")[1].uid
    local log = ("%s/%s%s-0.log"):format(dir, shards, uid)
    local first = shards .. uid .. "-0.db"
    local function steps()
        local file = io.open(dir .. "/" .. first)
        if not file then return 0 end
        file:close()
        return rows(first, "SELECT coalesce(max(step), 0) AS n FROM run")[1].n
    end
    for _ = 1, 150 do -- until the first task is in the middle of its run
        if steps() >= 2 then break end
        m.sys.sleep(0.2)
    end
    local sent, why = output(("scancel --signal=USR1 --batch %s_0"):format(job))
    lu.assertNotNil(sent, why)
    for _ = 1, 100 do
        m.sys.sleep(0.2)
        if (output(("squeue -h -o %%t --job=%s_0"):format(job)) or ""):find("PD") then break end
    end
    lu.assertStrContains(shell.read(log), "saved at step")
    local step = steps()
    lu.assertTrue(step >= 2 and step < 30, step)
    -- Slurm lets a requeued job wait for two minutes, unless it is told otherwise.
    for _ = 1, 300 do
        output(("scontrol update JobId=%s_0 StartTime=now"):format(job))
        local left = output(("squeue -h -o %%i --job=%s"):format(job))
        if not left or not left:find("%d") then break end
        m.sys.sleep(0.3)
    end
    lu.assertStrContains(shell.read(log), ("continuing from step %d"):format(step))
    lu.assertEquals((shell.run(dir, ("merge %s%s-0.db %s%s-1.db"):format(shards, uid, shards, uid))), 0)
    lu.assertEquals(rows("results/mimic.db", "SELECT state, done, trials FROM sweep_list"),
        { { state = "done", done = 2, trials = 2 } })
    local values = {}
    for i, r in ipairs(rows("results/mimic.db", [[SELECT value FROM curve c JOIN run r ON r.id = c.run
        WHERE c.name = 'val/acc' ORDER BY r.name, c.step]])) do
        values[i] = r.value
    end
    local wanted = {}
    for x = 0, 1 do
        for at = 1, 30 do wanted[#wanted + 1] = x + at + 0.0 end
    end
    lu.assertEquals(values, wanted)
    lu.assertEquals(rows("results/mimic.db", "SELECT max(attempt) AS n FROM run")[1].n, 2)
end

local ok, up = pcall(start_cluster)
if not ok or not up then
    local text = ok and (m.sys.read_file(cluster .. "/servers.log") or "") or tostring(up)
    stop_cluster()
    skip("Slurm did not start here: " .. text:sub(-300))
end
local code = lu.LuaUnit.new():runSuiteByInstances { { "TestSlurm", TestSlurm } }
stop_cluster()
os.exit(code)

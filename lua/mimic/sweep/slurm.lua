-- Sweeps on a Slurm cluster. The command freezes the results file (runs/shards/UID.base.db), and submits one job
-- array. Task k of N takes the trials k+1, k+1+N, ... on a database of its own on the node's disk (a network disk
-- cannot hold a write-ahead log), copies it to runs/shards/UID-k.db at every checkpoint, and puts itself back
-- into the queue when its time is nearly over. `mimic merge` brings the shards together.
local lfs = require "lfs"
local m = require "mimic"
local command_line = require "mimic.command_line"
local environment = require "mimic.environment"
local experiment = require "mimic.experiment"
local queue = require "mimic.sweep.queue"
local results = require "mimic.results"

local slurm = {}

local max_tasks = 200

local function quote(s)
    return "'" .. s:gsub("'", "'\\''") .. "'"
end

-- Copies a database that nobody writes to now, whole or not at all.
local function copy_file(from, to)
    if not os.execute(("cp -- %s %s && mv -- %s %s"):format(quote(from), quote(to .. ".part"), quote(to .. ".part"),
        quote(to))) then
        error(("cannot copy %s to %s"):format(from, to), 0)
    end
end

-- A copy of an open database as it is at this moment.
local function snapshot(store, to)
    os.remove(to .. ".part")
    store.db:copy(to .. ".part")
    assert(os.rename(to .. ".part", to))
end

local function folder_of(dir)
    return dir .. "/runs/shards"
end

local function output_of(command)
    local p = assert(io.popen(command .. " 2>&1"))
    local text = p:read("a")
    return p:close() ~= nil, text
end

local function has_option(words, long, short)
    for _, w in ipairs(words) do
        if w:find("^%-%-" .. long) or short and w:find("^%-" .. short) then return true end
    end
    return false
end

---Refuses a sweep that a job array cannot carry out.
---@param d sweep.Sweep
function slurm.check(d)
    if d:adaptive() or d.pruner then
        error(("--slurm: tasks do not see each other's results, which %s needs; use grid, random or sobol, or "
            .. "`mimic worker` on one machine"):format(d.pruner and "a pruner" or "the sampler " .. d.sampler), 0)
    end
end

---Freezes the sweep and submits its job array.
---@param d sweep.Sweep
---@param words string[] for sbatch
function slurm.submit(d, words)
    local store = experiment.store()
    local counts = queue.counts(store, d.id)
    local waiting = counts.waiting
    if waiting == 0 then
        if counts.running + counts.cancelled == 0 then queue.set_state(store, d.id, "done") end
        error(("sweep %s has no trial that waits; `%s` shows them"):format(d.name, command_line.of("sweep", "show",
            d.uid)), 0)
    end
    local dir = m.sys.realpath(store.dir)
    local shards = folder_of(dir)
    m.sys.mkdirs(shards)
    snapshot(store, ("%s/%s.base.db"):format(shards, d.uid))
    local script = ("%s/%s.sh"):format(shards, d.uid)
    m.sys.write_file_atomic(script, ("#!/bin/sh\n# Sweep %s: a task of a job array, made by mimic sweep --slurm.\n"
        .. "exec %s worker --shard --sweep %s --quiet --db %s\n"):format(d.name:gsub("%c", " "),
            quote(m.sys.realpath("/proc/self/exe")), d.uid, quote(dir .. "/" .. store.path:match("[^/]+$"))))
    local command = { "sbatch", "--parsable", "--requeue", "--open-mode=append", "--signal=B:USR1@120",
        "--job-name=" .. quote("mimic-" .. d.uid), "--output=" .. quote(shards .. "/" .. d.uid .. "-%a.log") }
    if not has_option(words, "array", "a") then
        command[#command + 1] = ("--array=0-%d"):format(math.min(waiting, max_tasks) - 1)
    end
    for _, w in ipairs(words) do command[#command + 1] = quote(w) end
    command[#command + 1] = quote(script)
    local ok, text = output_of(table.concat(command, " "))
    if not ok then error(("sbatch refused the job: %s"):format(text:match("^%s*(.-)%s*$")), 0) end
    experiment.say("%s: job %s with %d trials; when it is done: %s %s-*.db", d.name, text:match("%d+"), waiting,
        command_line.of("merge"), command_line.quote(shards .. "/" .. d.uid))
end

---Whether this process is a task of a job array.
function slurm.is_task()
    return os.getenv "SLURM_ARRAY_TASK_COUNT" ~= nil
end

local function number_of(name)
    local text = os.getenv(name)
    local n = text and math.tointeger(tonumber(text))
    if not n then error(("--shard: %s is not set: this is for tasks of a Slurm job array"):format(name), 0) end
    return n
end

-- Brings back into play what an earlier, killed run of this task had begun.
local function reopen(store)
    store.db:exec("UPDATE trial SET state = 'waiting', token = NULL, lease = NULL WHERE state = 'running'")
    store.db:exec("UPDATE run SET heartbeat = NULL WHERE state = 'running'")
end

-- After Slurm's warning: the task goes back into the queue and continues later, perhaps elsewhere.
local function requeue()
    local job = os.getenv("SLURM_ARRAY_JOB_ID")
    if not job then return end
    local ok, text = output_of(("scontrol requeue %s_%s"):format(job, os.getenv("SLURM_ARRAY_TASK_ID")))
    if not ok then experiment.complain("scontrol requeue: %s", text) end
end

---A task of the job array: works on its shard.
---@param db string path of the results file the sweep was declared in
---@param uid string
---@param work fun(store: table, row: table): integer executes the stored script of a sweep
---@return integer exit code
function slurm.task(db, uid, work)
    local count = number_of "SLURM_ARRAY_TASK_COUNT"
    local step = count > 1 and (number_of "SLURM_ARRAY_TASK_MAX" - number_of "SLURM_ARRAY_TASK_MIN") // (count - 1) or 1
    local index = (number_of "SLURM_ARRAY_TASK_ID" - number_of "SLURM_ARRAY_TASK_MIN") // step
    local dir = environment.dirname(m.sys.realpath(db) or db)
    local kept = ("%s/%s-%d.db"):format(folder_of(dir), uid, index)
    local base = ("%s/%s.base.db"):format(folder_of(dir), uid)
    local from = lfs.attributes(kept, "mode") == "file" and kept or base
    if lfs.attributes(from, "mode") ~= "file" then error(from .. ": there is no such frozen sweep", 0) end

    local place = os.getenv("SLURM_TMPDIR") or os.getenv("TMPDIR") or "/tmp"
    local path = ("%s/mimic-%s-%d-%d.db"):format(place, uid, index, m.sys.pid())
    copy_file(from, path)
    m.sys.mkdirs(db .. ".files") -- large blobs are files by content: all shards share them
    lfs.link(db .. ".files", path .. ".files", true)

    local store = results.open(path, true, dir)
    experiment.use(store, path)
    reopen(store)
    local function keep() snapshot(store, kept) end
    store.after_checkpoint = keep
    experiment.options.shard = { index = index, count = count }
    local row = store.db:first("SELECT * FROM sweep WHERE uid = ?", uid)
    local code = work(store, row)
    keep()
    experiment.close()
    for _, tail in ipairs { "", "-wal", "-shm", ".lock", ".files" } do os.remove(path .. tail) end
    if code == 75 then requeue() end
    return code
end

return slurm

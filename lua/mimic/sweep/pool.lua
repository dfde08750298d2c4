-- Worker processes on this machine: starts them, shows the sweep's progress, passes Ctrl-C on, replaces those that
-- were killed, and waits for all. The workers need it not: they go on from the results file by themselves.
local m = require "mimic"
local command_line = require "mimic.command_line"
local experiment = require "mimic.experiment"
local progress = require "mimic.progress"
local queue = require "mimic.sweep.queue"
local Run = require "mimic.run"

local pool = {}

---Numbers of the GPUs that "all" means: those CUDA_VISIBLE_DEVICES leaves, or all that the driver shows.
---@return string[]
function pool.gpus()
    local out = {}
    local visible = os.getenv("CUDA_VISIBLE_DEVICES")
    if visible then
        for id in visible:gmatch("[^,%s]+") do out[#out + 1] = id end
        return out
    end
    local lfs = require "lfs"
    local dir = "/proc/driver/nvidia/gpus"
    if lfs.attributes(dir, "mode") ~= "directory" then return out end
    for name in lfs.dir(dir) do
        if name:sub(1, 1) ~= "." then out[#out + 1] = tostring(#out) end
    end
    return out
end

---"all" or "0,2" as a list; an error when there is none.
---@param text string
---@return string[]
function pool.gpu_list(text)
    local out, seen = {}, {}
    if text == "all" then
        out = pool.gpus()
        if #out == 0 then error("--gpus all: this machine shows no NVIDIA GPU", 0) end
        return out
    end
    for id in text:gmatch("[^,]+") do
        if not id:find("^%w[%w-]*$") then error(("--gpus %s: all, or numbers such as 0,2"):format(text), 0) end
        if seen[id] then error(("--gpus %s: %s is there twice"):format(text, id), 0) end
        out[#out + 1], seen[id] = id, true
    end
    if #out == 0 then error("--gpus names none: all, or numbers such as 0,2", 0) end
    return out
end

---Words of a worker process that says the commands of this one where something is to be continued.
---@param uid string|nil of the sweep it works on
---@return string[]
function pool.worker_words(uid)
    local words = { m.sys.realpath("/proc/self/exe"), "worker", "--quiet", "--db", experiment.options.db,
        "--continue-with", command_line.again() }
    if uid then
        table.move({ "--sweep", uid, "--retry-with", command_line.retry(uid) }, 1, 4, #words + 1, words)
    end
    if experiment.options.device then
        table.move({ "--device", experiment.options.device }, 1, 2, #words + 1, words)
    end
    return words
end

local function start(d, i, gpus)
    local words = pool.worker_words(d.uid)
    local env
    if gpus then env = { "CUDA_VISIBLE_DEVICES=" .. gpus[(i - 1) % #gpus + 1] } end
    return { pid = m.sys.spawn(words, env), slot = i }
end

local function state_of(store, d)
    return store.db:first("SELECT state FROM sweep WHERE id = ?", d.id).state
end

-- The header of the sweep; `from` remembers when and where this process began to count, for the time left.
local function show(store, d, from)
    local c = queue.counts(store, d.id)
    local total = math.max(d.trials * (d.pruner and 1 or #d.seeds), c.total)
    local ended = c.done + c.failed + c.pruned
    if not from.at then from.at, from.ended = m.sys.clock(), ended end
    local new = ended - from.ended
    progress.header { name = d.name, done = c.done, total = total, running = c.running, failed = c.failed,
        pruned = c.pruned, best = store.db:first("SELECT best FROM sweep_list WHERE id = ?", d.id).best,
        eta = new > 0 and ended < total and (m.sys.clock() - from.at) * (total - ended) / new or nil }
end

local function signal(children, name)
    for _, c in pairs(children) do m.sys.kill(c.pid, name) end
end

-- Looks after the children until all have ended.
local function supervise(store, d, of, children)
    local told, shown, restarts, from = 0, 0, 0, {}
    while next(children) do
        local asked = m.interrupted()
        if asked > told then
            told = asked
            signal(children, "INT")
        end
        for i, c in pairs(children) do
            local code = m.sys.wait(c.pid)
            if code then
                children[i] = nil
                if code == 75 then of.stopped = true end
                local killed = code >= 128 and code ~= 130
                if killed and told == 0 and restarts < 3 * of.workers and state_of(store, d) == "open" then
                    restarts = restarts + 1
                    experiment.complain("worker %d (process %d) was killed; another takes its place", i, c.pid)
                    children[i] = start(d, i, of.gpus)
                end
            end
        end
        if m.sys.clock() - shown > 0.5 then
            shown = m.sys.clock()
            show(store, d, from)
        end
        m.sys.sleep(0.05)
    end
    show(store, d, from)
    progress.header(nil)
    progress.finish()
    if told > 0 or of.stopped and state_of(store, d) == "open" then error(Run.Stop, 0) end -- also by a full disk
end

---Runs the trials of a sweep by worker processes.
---@param d sweep.Sweep
---@param of {workers: integer, gpus: string[]?}
---@return string why as worker.loop
function pool.run(d, of)
    local store = experiment.store()
    store.db:flush()
    m.interrupted() -- asked once, the first Ctrl-C is ours to pass on
    local children = {}
    for i = 1, of.workers do children[i] = start(d, i, of.gpus) end
    local ok, err = pcall(supervise, store, d, of, children)
    if not ok then
        signal(children, "INT")
        error(err, 0)
    end
    local state = state_of(store, d)
    if state == "open" then
        error(("the workers of sweep %s ended before it was done; go on with\n  %s"):format(d.name,
            command_line.again()), 0)
    end
    return state
end

return pool

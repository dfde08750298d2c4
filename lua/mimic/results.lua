-- The results database as the experiment library sees it: finding, making and changing rows of runs,
-- their parameters, results and checkpoints. SQL that writes is here; that of tags, removal, collection in upkeep.lua.
local m = require "mimic"
local config = require "mimic.config"
local environment = require "mimic.environment"

local results = {}
results.__index = results

results.default_path = "results/mimic.db"
results.after_checkpoint = false -- called when a checkpoint is recorded: copies the shard of a Slurm task

local function exists(path)
    local f = io.open(path, "rb")
    if f then f:close() end
    return f ~= nil
end

---Opens a results file; a missing one is made only for writing.
---@param path string
---@param write boolean
---@param files string|nil folder of the runs' files, when it is not that of the results file
---@return table
function results.open(path, write, files)
    local dir = environment.dirname(path)
    if write then
        m.sys.mkdirs(dir)
    elseif not exists(path) then
        error(("no results database %s yet: `mimic run FILE.lua` makes it (--db: another)"):format(path), 0)
    end
    local self = setmetatable({ path = path, dir = files or dir }, results)
    self.db = m.db.open(path, { write = write })
    return self
end

function results:close()
    self.db:close()
end

---Path of a run's file (stored relative to the database) as this process can open it.
---@param relative string
---@return string
function results:file(relative)
    if relative:sub(1, 1) == "/" then return relative end
    return self.dir .. "/" .. relative
end

---Folder of the files of a run, relative to the database.
function results.run_dir(uid)
    return "runs/" .. uid
end

local RUN = [[SELECT r.*, e.name AS experiment_name, hex(r.config_hash) AS hash FROM run r
  JOIN experiment e ON e.id = r.experiment ]]

---@param id integer
---@return table|nil row of the run
function results:run(id)
    return self.db:first(RUN .. "WHERE r.id = ?", id)
end

---A run by number, by name (the newest of that name), or by the beginning of its uid.
---@param text string
---@return table row; an error names what exists when nothing or too much fits
function results:find(text)
    local id = math.tointeger(tonumber(text))
    local row = id and self:run(id)
    if row then return row end
    row = self.db:first(RUN .. "WHERE r.name = ? AND r.deleted IS NULL ORDER BY r.id DESC LIMIT 1", text)
    if row then return row end
    local rows = text:find "^%x+$" and self.db:rows(RUN .. "WHERE r.uid GLOB ? AND r.deleted IS NULL",
        text:lower() .. "*") or {}
    if #rows == 1 then return rows[1] end
    if #rows > 1 then error(("'%s' fits %d runs; give more of the identifier"):format(text, #rows), 0) end
    local names = {}
    for r in self.db:each("SELECT DISTINCT name FROM run WHERE deleted IS NULL") do
        names[#names + 1] = r.name
    end
    error(("no run '%s' in %s%s; `mimic ls` lists them"):format(text, self.path,
        require("mimic.suggest").hint(text, names)), 0)
end

---@param name string
---@return integer
function results:experiment(name)
    self.db:exec("INSERT INTO experiment(name) VALUES(?) ON CONFLICT(name) DO NOTHING", name)
    return self.db:first("SELECT id FROM experiment WHERE name = ?", name).id
end

-- Runs of one identity, the most useful first: done, then the one to continue.
local SAME = [[SELECT r.id, r.state FROM run r JOIN tag t ON t.run = r.id AND t.key = 'sources'
  WHERE r.config_hash = ?1 AND r.seed = ?2 AND r.experiment = ?3 AND r.script IS ?4
    AND r.parent IS ?5 AND t.value = ?6 AND r.deleted IS NULL
    AND r.state IN ('done','running','failed','lost','interrupted','cancelled','pruned','queued')
  ORDER BY r.state <> 'done', r.step DESC, r.id DESC LIMIT 1]]

---The run of the same configuration, seed, script, required files and parent, if there is one.
---@param id table {hash, seed, experiment, script, parent, sources}
---@return table|nil row
function results:same(id)
    local row = self.db:first(SAME, m.db.hex(id.hash), id.seed, id.experiment, m.db.hex(id.script),
        id.parent, id.sources)
    return row and self:run(row.id)
end

local function parameter(value)
    if type(value) == "number" then return value, config.json(value) end
    if type(value) == "boolean" then return value and 1 or 0, tostring(value) end
    if type(value) == "string" then return nil, value end
    return nil, config.json(value)
end

---The run of this identity, or a new one, state queued, with its parameters and sources: one transaction, so
---that two processes make one run.
---@param identity table as for results:same; nil: always a new run
---@param spec table
---@return table row
function results:create(identity, spec)
    local db = self.db
    local id
    db:tx(function()
        local row = identity and self:same(identity)
        if row then
            id = row.id
            return
        end
        db:exec([[INSERT INTO run(uid, experiment, parent, kind, name, config_hash, seed, state, script, diff,
            git, env, argv, created)
          VALUES(?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)]],
            m.sys.random_hex(6), spec.experiment, spec.parent, spec.kind, spec.name, m.db.hex(spec.hash),
            spec.seed, m.db.hex(spec.script), m.db.hex(spec.diff), spec.git, spec.env, spec.argv,
            m.sys.time())
        id = db:last_id()
        for _, leaf in ipairs(config.flatten(spec.config)) do
            local num, txt = parameter(leaf.value)
            db:exec("INSERT INTO param(run, key, num, txt) VALUES(?, ?, ?, ?)", id, leaf.key, num, txt)
        end
        db:exec("INSERT INTO tag(run, key, value) VALUES(?, 'sources', ?)", id, spec.sources)
        for _, file in ipairs(spec.files) do
            db:exec("INSERT INTO artifact(run, name, step, kind, sha256) VALUES(?, ?, -1, 'source', ?)", id,
                file.name, m.db.hex(file.sha))
        end
        db:exec([[INSERT INTO artifact(run, name, step, kind, sha256)
          VALUES(?, 'config.json', -1, 'config', ?)]], id, m.db.hex(spec.json))
    end)
    return self:run(id)
end

---Row of the environment, made when new.
---@param env table
---@return integer
function results:environment(env)
    local json = config.json(env)
    local sha = m.sha256(json)
    self.db:exec("INSERT INTO env(sha256, json) VALUES(?, ?) ON CONFLICT(sha256) DO NOTHING",
        m.db.hex(sha), json)
    return self.db:first("SELECT id FROM env WHERE sha256 = ?", m.db.hex(sha)).id
end

---This process as a worker row, once per open database.
---@return integer
function results:worker()
    if not self.worker_id then
        self.db:exec("INSERT INTO worker(host, pid, boot, started, seen) VALUES(?, ?, ?, ?, ?)",
            m.sys.hostname(), m.sys.pid(), m.sys.boot_id(), m.sys.time(), m.sys.time())
        self.worker_id = self.db:last_id()
    end
    return self.worker_id
end

---The worker that executed a run last: {host, pid, boot}, or nil.
---@param id integer
---@return table|nil
function results:worker_of(id)
    return self.db:first([[SELECT w.host, w.pid, w.boot FROM event e JOIN worker w ON w.id = e.worker
      WHERE e.run = ? AND e.code = 'start' ORDER BY e.id DESC LIMIT 1]], id)
end

---State of a run as a person should see it: a run whose process is gone is "lost", not "running". The lock
---tells; where it cannot be tried (a read-only disk) the process identifier does.
---@param row table
---@return string
function results:state(row)
    local w = row.state == "running" and self:worker_of(row.id)
    if not w or w.host ~= m.sys.hostname() then return row.state end
    local tried, held = pcall(m.sys.flock, self:file(results.run_dir(row.uid)) .. "/lock", true)
    if tried and held then held:close() end
    local gone = tried and held
    if not tried then gone = w.boot ~= m.sys.boot_id() or not m.sys.alive(w.pid) end
    return gone and "lost" or "running"
end

-- Levels as in syslog: 3 error, 4 warning, 6 information.
function results:event(run, level, code, message)
    self.db:exec("INSERT INTO event(t, run, worker, level, code, msg) VALUES(?, ?, ?, ?, ?, ?)",
        m.sys.time(), run, self.worker_id, level, code, message)
end

---A run is about to be executed: state running, a new attempt when it ran before.
---@param row table
---@param env integer
function results:start(row, env)
    self:worker()
    self.db:tx(function()
        local now = m.sys.time()
        self.db:exec([[UPDATE run SET state = 'running', attempt = attempt + (started IS NOT NULL),
          started = coalesce(started, ?), heartbeat = ?, ended = NULL, error = NULL, env = ? WHERE id = ?]],
            now, now, env, row.id)
        self:event(row.id, 6, "start", ("pid %d on %s"):format(m.sys.pid(), m.sys.hostname()))
    end)
end

---@param id integer
---@param state string done, failed or interrupted
---@param message string|nil why it ended otherwise than done
function results:finish(id, state, message)
    self.db:flush()
    self.db:tx(function()
        local now = m.sys.time()
        self.db:exec("UPDATE run SET state = ?, ended = ?, heartbeat = ?, error = ? WHERE id = ?",
            state, now, now, message, id)
        if state == "done" then
            self.db:exec([[UPDATE run SET step = max(step, coalesce((SELECT max(last_step) FROM series
              WHERE run = ?1), 0)) WHERE id = ?1]], id)
        end
        self:event(id, state == "failed" and 3 or 6, state, message or "")
    end, true)
end

function results:heartbeat(id, step)
    self.db:exec("UPDATE run SET heartbeat = ?, step = max(step, ?) WHERE id = ?", m.sys.time(), step, id)
end

---Checkpoints whose files should exist, newest first.
---@param id integer
---@return table[]
function results:checkpoints(id)
    return (self.db:rows([[SELECT step, path, lower(hex(sha256)) AS sha, bytes, value, keep FROM checkpoint
      WHERE run = ? AND deleted IS NULL ORDER BY step DESC]], id))
end

---Records a file that is already durable. Durable itself when this returns.
function results:add_checkpoint(id, c)
    self.db:tx(function()
        self.db:exec([[INSERT INTO checkpoint(run, step, path, sha256, bytes, value, keep)
          VALUES(?, ?, ?, ?, ?, ?, ?)
          ON CONFLICT(run, step) DO UPDATE SET path = excluded.path, sha256 = excluded.sha256,
          bytes = excluded.bytes, value = excluded.value, keep = excluded.keep, deleted = NULL]],
            id, c.step, c.path, m.db.hex(c.sha), c.bytes, c.value, c.keep)
        self.db:exec("UPDATE run SET step = ?, heartbeat = ? WHERE id = ?", c.step, m.sys.time(), id)
    end, true)
end

---Forgets checkpoints (rows first, then files: a crash between leaves a file, never a row without one).
function results:drop_checkpoints(id, list)
    if #list == 0 then return end
    self.db:tx(function()
        for _, c in ipairs(list) do
            self.db:exec("UPDATE checkpoint SET deleted = ?, keep = 'none' WHERE run = ? AND step = ?",
                m.sys.time(), id, c.step)
        end
    end)
    for _, c in ipairs(list) do os.remove(self:file(c.path)) end
end

function results:mark_checkpoint(id, step, keep)
    self.db:exec("UPDATE checkpoint SET keep = ? WHERE run = ? AND step = ?", keep, id, step)
end

---Takes back everything a run recorded after `step` (0 and no checkpoint: everything), so that the
---steps done again write the curve of an uninterrupted run.
---@param id integer
---@param step integer|nil
function results:rewind(id, step)
    local db = self.db
    step = step or -1
    db:rewind(id, step)
    db:tx(function()
        db:exec("DELETE FROM artifact WHERE run = ? AND step > ?", id, step)
        db:exec([[DELETE FROM confusion WHERE run = ?1 AND (dataset, split) IN
          (SELECT dataset, split FROM result WHERE run = ?1 AND coalesce(step, ?2 + 1) > ?2)]], id, step)
        db:exec("DELETE FROM result WHERE run = ? AND coalesce(step, ? + 1) > ?", id, step, step)
        db:exec("UPDATE run SET step = max(?, 0) WHERE id = ?", step, id)
    end, true)
end

function results:add_result(id, dataset, split, metric, value, n, step)
    self.db:exec([[INSERT INTO result(run, dataset, split, metric, value, n, step) VALUES(?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT(run, dataset, split, metric)
      DO UPDATE SET value = excluded.value, n = excluded.n, step = excluded.step]],
        id, dataset, split, metric, value, n, step)
end

---@param counts integer[][] counts[truth][prediction], classes numbered from 1 here, from 0 in the file
function results:add_confusion(id, dataset, split, counts)
    self.db:tx(function()
        self.db:exec("DELETE FROM confusion WHERE run = ? AND dataset = ? AND split = ?", id, dataset, split)
        for i, row in ipairs(counts) do
            for j, n in ipairs(row) do
                self.db:exec("INSERT INTO confusion VALUES(?, ?, ?, ?, ?, ?)", id, dataset, split,
                    i - 1, j - 1, math.floor(n))
            end
        end
    end)
end

function results:add_artifact(id, name, kind, bytes, step)
    local sha = self.db:put_blob(bytes)
    self.db:exec([[INSERT INTO artifact(run, name, step, kind, sha256) VALUES(?, ?, ?, ?, ?)
      ON CONFLICT(run, name, step) DO UPDATE SET kind = excluded.kind, sha256 = excluded.sha256]],
        id, name, step or -1, kind, m.db.hex(sha))
end

---Files a run under a row of a table, of the paper's or of one's own.
function results:answer(id, ref, row)
    self.db:exec("INSERT INTO paper_run(ref, row, run) VALUES(?, ?, ?) ON CONFLICT DO NOTHING", ref, row, id)
end

---@return number|nil value, integer|nil n, integer|nil step
function results:result(id, dataset, split, metric)
    local r = self.db:first([[SELECT value, n, step FROM result
      WHERE run = ? AND dataset = ? AND split = ? AND metric = ?]], id, dataset, split, metric)
    if r then return r.value, r.n, r.step end
end

---The result that stands for a run in lists and the golden line: accuracy on test data before all else.
---@param id integer
---@return table|nil
function results:headline(id)
    return self.db:first([[SELECT dataset, split, metric, value, n, step FROM result WHERE run = ?
      ORDER BY metric <> 'acc', split <> 'test', split <> 'val', metric <> 'loss', dataset, metric LIMIT 1]],
        id)
end

---The text of a golden line: `rafdb test acc 88.92 (n=3068) step 19200 sha 3f1c...`.
---@param id integer
---@return string|nil
function results:golden(id)
    local r = self:headline(id)
    if not r then return nil end
    local c = self:checkpoints(id)[1]
    local value = r.value and (r.metric == "acc" and "%.2f" or "%.6g"):format(r.value) or "nan"
    return ("%s %s %s %s%s step %d%s"):format(r.dataset, r.split, r.metric, value,
        r.n and (" (n=%d)"):format(r.n) or "", c and c.step or r.step or 0,
        c and " sha " .. c.sha:sub(1, 12) or "")
end

---The configuration of a run as it was stored.
---@param id integer
---@return string json
function results:config_json(id)
    local a = self.db:first([[SELECT lower(hex(sha256)) AS sha FROM artifact
      WHERE run = ? AND name = 'config.json' AND kind = 'config']], id)
    return a and self.db:get_blob(a.sha) or "{}"
end

return results

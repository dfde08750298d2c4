-- Bringing results files together: runs by uid, sweeps by uid, trials by number. Of a run that both files have,
-- the one with the larger (attempt, step), then the later end, wins whole. Merging again changes nothing.
local lfs = require "lfs"
local m = require "mimic"

local merge = {}

local RUNS = [[SELECT s.id, s.uid, s.attempt, s.step, coalesce(s.ended, s.heartbeat, 0) AS t, o.id AS own,
    o.attempt AS own_attempt, o.step AS own_step, coalesce(o.ended, o.heartbeat, 0) AS own_t
  FROM shard.run s LEFT JOIN main.run o ON o.uid = s.uid ORDER BY s.id]]

local function is_newer(r)
    if r.attempt ~= r.own_attempt then return r.attempt > r.own_attempt end
    if r.step ~= r.own_step then return r.step > r.own_step end
    return r.t > r.own_t
end

local INSERT = [[INSERT INTO main.run(uid, experiment, kind, name, config_hash, seed, state, created)
  SELECT s.uid, e.id, s.kind, s.name, s.config_hash, s.seed, s.state, s.created FROM shard.run s
    JOIN shard.experiment x ON x.id = s.experiment JOIN main.experiment e ON e.name = x.name WHERE s.id = ?]]

local UPDATE = [[UPDATE main.run SET (parent, state, attempt, step, heartbeat, script, diff, git, env, argv, started,
    ended, error) = (SELECT (SELECT p.id FROM shard.run q JOIN main.run p ON p.uid = q.uid WHERE q.id = s.parent),
      s.state, s.attempt, s.step, s.heartbeat, s.script, s.diff, s.git,
      (SELECT o.id FROM shard.env n JOIN main.env o ON o.sha256 = n.sha256 WHERE n.id = s.env), s.argv, s.started,
      s.ended, s.error FROM shard.run s WHERE s.id = ?1) WHERE id = ?2]]

-- What a run owns: removed and written anew. ?1 is the shard's run, ?2 ours.
local clear = { "param", "series", "result", "confusion", "checkpoint", "artifact" }
local copies = {
    "INSERT INTO main.param SELECT ?2, key, num, txt FROM shard.param WHERE run = ?1",
    [[INSERT INTO main.series(run, name, n, last, last_step, lo, lo_step, hi, hi_step, bad_n, bad_step)
      SELECT ?2, name, n, last, last_step, lo, lo_step, hi, hi_step, bad_n, bad_step FROM shard.series WHERE run = ?1]],
    [[INSERT INTO main.metric SELECT n.id, k.step, k.t, k.value FROM shard.series o JOIN shard.metric k
      ON k.series = o.id JOIN main.series n ON n.run = ?2 AND n.name = o.name WHERE o.run = ?1]],
    "INSERT INTO main.result SELECT ?2, dataset, split, metric, value, n, step FROM shard.result WHERE run = ?1",
    "INSERT INTO main.confusion SELECT ?2, dataset, split, truth, pred, n FROM shard.confusion WHERE run = ?1",
    [[INSERT INTO main.checkpoint(run, step, path, sha256, bytes, value, deleted, keep)
      SELECT ?2, step, path, sha256, bytes, value, deleted, keep FROM shard.checkpoint WHERE run = ?1]],
    "INSERT INTO main.artifact SELECT ?2, name, step, kind, sha256 FROM shard.artifact WHERE run = ?1",
    "INSERT OR IGNORE INTO main.tag SELECT ?2, key, value FROM shard.tag WHERE run = ?1",
    "INSERT OR IGNORE INTO main.paper_run SELECT ref, row, ?2 FROM shard.paper_run WHERE run = ?1",
    "DELETE FROM main.event WHERE run = ?2 AND ?1 IS NOT NULL",
    [[INSERT INTO main.event(t, run, worker, level, code, msg) SELECT e.t, ?2, (SELECT o.id FROM shard.worker w
      JOIN main.worker o ON (o.host, o.pid, o.boot, o.started) = (w.host, w.pid, w.boot, w.started)
      WHERE w.id = e.worker), e.level, e.code, e.msg FROM shard.event e WHERE e.run = ?1]],
}

local function copy_run(db, from, own)
    for _, name in ipairs(clear) do db:exec("DELETE FROM main." .. name .. " WHERE run = ?", own) end
    for _, sql in ipairs(copies) do db:exec(sql, from, own) end
end

-- Rows that runs refer to.
local shared = {
    "INSERT OR IGNORE INTO main.blob SELECT * FROM shard.blob",
    "INSERT OR IGNORE INTO main.env(sha256, json) SELECT sha256, json FROM shard.env",
    "INSERT OR IGNORE INTO main.experiment(name, note) SELECT name, note FROM shard.experiment",
    [[INSERT INTO main.worker(host, pid, boot, gpu, started, seen) SELECT host, pid, boot, gpu, started, seen
      FROM shard.worker w WHERE NOT EXISTS (SELECT 1 FROM main.worker o
      WHERE (o.host, o.pid, o.boot, o.started) = (w.host, w.pid, w.boot, w.started))]],
    [[INSERT OR IGNORE INTO main.sweep(uid, name, sampler, pruner, space, metric, goal, seed, script, created, state,
      spec) SELECT uid, name, sampler, pruner, space, metric, goal, seed, script, created, state, spec
      FROM shard.sweep]],
}

-- Trials that are new, or whose end we did not know.
local trials = {
    [[INSERT OR IGNORE INTO main.trial(sweep, number, config_hash, seed, params, state, priority, attempt, max_attempt,
        rung, value, finished, rungs, error, run)
      SELECT o.id, t.number, t.config_hash, t.seed, t.params,
        CASE t.state WHEN 'running' THEN 'waiting' ELSE t.state END,
        t.priority, t.attempt, t.max_attempt, t.rung, t.value, t.finished, t.rungs, t.error,
        (SELECT x.id FROM shard.run r JOIN main.run x ON x.uid = r.uid WHERE r.id = t.run)
      FROM shard.trial t JOIN shard.sweep s ON s.id = t.sweep JOIN main.sweep o ON o.uid = s.uid]],
    [[UPDATE main.trial AS own SET state = t.state, attempt = t.attempt, value = t.value, error = t.error,
        rung = t.rung, rungs = t.rungs, params = t.params, token = NULL, lease = NULL,
        run = (SELECT x.id FROM shard.run r JOIN main.run x ON x.uid = r.uid WHERE r.id = t.run)
      FROM shard.trial t, shard.sweep s, main.sweep o
      WHERE s.id = t.sweep AND o.uid = s.uid AND own.sweep = o.id AND own.number = t.number
        AND t.state IN ('done', 'failed', 'pruned') AND own.state <> 'done'
        AND (own.state IN ('waiting', 'running', 'cancelled') OR t.attempt > own.attempt OR t.state = 'done')]],
    [[UPDATE main.sweep SET state = 'done' WHERE state = 'open' AND uid IN (SELECT uid FROM shard.sweep) AND NOT EXISTS
        (SELECT 1 FROM main.trial t WHERE t.sweep = main.sweep.id AND t.state IN ('waiting', 'running'))]],
}

-- Large blobs lie beside their database: copied by content.
local function copy_blob_files(store, path)
    for b in store.db:each "SELECT path FROM shard.blob WHERE path IS NOT NULL" do
        local to = store.path .. ".files/" .. b.path
        if lfs.attributes(to, "mode") ~= "file" then
            local bytes = m.sys.read_file(path .. ".files/" .. b.path)
            if bytes then
                m.sys.mkdirs(to:match("^(.*)/"))
                m.sys.write_file_atomic(to, bytes)
            end
        end
    end
end

---Merges one results file into an open one.
---@param store table open for writing
---@param path string
---@return {added: integer, renewed: integer, kept: integer}
function merge.shard(store, path)
    do -- refuses what is no results file, in words
        local other <close> = m.db.open(path, { write = false })
        local own, its = store.db:first("SELECT * FROM pragma_user_version").user_version,
            other:first("SELECT * FROM pragma_user_version").user_version
        if own ~= its then
            error(("%s: is of version %d, %s of version %d; open the older one for writing first (mimic worker --db "
                .. "FILE), which brings it up to date"):format(path, its, store.path, own), 0)
        end
    end
    local n = { added = 0, renewed = 0, kept = 0 }
    store.db:exec("ATTACH ? AS shard", path)
    local ok, err = pcall(function()
        copy_blob_files(store, path)
        store.db:tx(function()
            local db = store.db
            for _, sql in ipairs(shared) do db:exec(sql) end
            for _, r in ipairs((db:rows(RUNS))) do
                local take = not r.own or is_newer(r)
                if not r.own then
                    db:exec(INSERT, r.id)
                    r.own = db:last_id()
                    n.added = n.added + 1
                elseif take then
                    n.renewed = n.renewed + 1
                else
                    n.kept = n.kept + 1
                end
                if take then
                    db:exec(UPDATE, r.id, r.own)
                    copy_run(db, r.id, r.own)
                    store:event(r.own, 6, "merged", "from " .. path)
                end
            end
            for _, sql in ipairs(trials) do db:exec(sql) end
        end, true)
    end)
    store.db:exec("DETACH shard")
    if not ok then error(("%s: %s"):format(path, tostring(err)), 0) end
    return n
end

return merge

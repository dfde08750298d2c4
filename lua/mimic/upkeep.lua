-- Looking after a results file: tags, notes, removal and its undoing, and the collection of what nothing refers
-- to any more. Rows go before files: a crash between leaves a file, which the next collection finds.
local lfs = require "lfs"
local m = require "mimic"

local upkeep = {}

local reserved = { sources = true } -- part of a run's identity

---@param store table results database opened for writing
function upkeep.add_tag(store, run, key, value)
    if not key:find "%S" then error("a tag has a name: KEY or KEY=VALUE", 0) end
    if reserved[key] then error(("tag '%s' is the program's own"):format(key), 0) end
    store.db:exec([[INSERT INTO tag(run, key, value) VALUES(?, ?, ?)
      ON CONFLICT(run, key) DO UPDATE SET value = excluded.value]], run, key, value)
end

---@return boolean whether the run had it
function upkeep.remove_tag(store, run, key)
    if reserved[key] then error(("tag '%s' is the program's own"):format(key), 0) end
    return store.db:exec("DELETE FROM tag WHERE run = ? AND key = ?", run, key) > 0
end

---@return {key: string, value: string}[]
function upkeep.tags(store, run)
    return (store.db:rows("SELECT key, value FROM tag WHERE run = ? AND key <> 'sources' ORDER BY key", run))
end

function upkeep.set_note(store, run, text)
    store.db:exec("UPDATE run SET note = ? WHERE id = ?", text, run)
end

local function children_of(store, id)
    return (store.db:rows("SELECT id, uid, name, seed, state FROM run WHERE parent = ? AND deleted IS NULL", id))
end

---Hides runs. All or none.
---@param store table
---@param list table[] rows of runs
---@param with_children boolean|nil
---@return table[] the rows that were removed
function upkeep.remove(store, list, with_children)
    local chosen, order = {}, {}
    local function add(row)
        if chosen[row.id] then return end
        if row.deleted then error(("run %d is removed already"):format(row.id), 0) end
        if store:state(row) == "running" then
            error(("run %d (%s) is being executed; stop it first"):format(row.id, row.name), 0)
        end
        chosen[row.id] = true
        order[#order + 1] = row
        if not with_children then return end
        for _, child in ipairs(children_of(store, row.id)) do add(child) end
    end
    for _, row in ipairs(list) do add(row) end
    for _, row in ipairs(order) do
        for _, child in ipairs(children_of(store, row.id)) do
            if not chosen[child.id] then
                error(("run %d (%s) is what run %d (%s) starts from; --children removes both"):format(row.id, row.name,
                    child.id, child.name), 0)
            end
        end
    end
    store.db:tx(function()
        for _, row in ipairs(order) do
            store.db:exec("UPDATE run SET deleted = ? WHERE id = ?", m.sys.time(), row.id)
            store:event(row.id, 6, "removed", "")
        end
    end)
    return order
end

---Brings a removed run back, and what it starts from.
---@param text string number or beginning of the uid
---@return table row
function upkeep.undelete(store, text)
    local removed = "SELECT id, name, seed, parent FROM run WHERE deleted IS NOT NULL AND "
    local rows = store.db:rows(removed .. "id = ?", math.tointeger(tonumber(text)))
    if #rows == 0 and text:find "^%x+$" then
        rows = store.db:rows(removed .. "uid GLOB ?", text:lower() .. "*")
    end
    if #rows == 0 then error(("no removed run '%s'; `mimic ls --deleted` lists them"):format(text), 0) end
    if #rows > 1 then error(("'%s' fits %d removed runs; give more of the identifier"):format(text, #rows), 0) end
    store.db:exec([[WITH RECURSIVE up(id) AS (SELECT ?1 UNION SELECT r.parent FROM run r JOIN up ON r.id = up.id
        WHERE r.parent IS NOT NULL)
      UPDATE run SET deleted = NULL WHERE id IN (SELECT id FROM up)]], rows[1].id)
    store:event(rows[1].id, 6, "undeleted", "")
    return rows[1]
end

-- --- collection

local function size_of(path)
    return lfs.attributes(path, "size") or 0
end

local function names_in(dir)
    local out = {}
    if lfs.attributes(dir, "mode") ~= "directory" then return out end
    for name in lfs.dir(dir) do
        if name ~= "." and name ~= ".." then out[#out + 1] = name end
    end
    table.sort(out)
    return out
end

-- Removed runs old enough, without those that a run which stays starts from.
local function doomed_runs(store, before)
    local rows = store.db:rows("SELECT id, uid, name, seed, state FROM run WHERE deleted < ? ORDER BY id", before)
    local set = {}
    for _, r in ipairs(rows) do set[r.id] = store:state(r) ~= "running" or nil end
    repeat
        local changed = false
        for r in store.db:each("SELECT id, parent FROM run WHERE parent IS NOT NULL") do
            if set[r.parent] and not set[r.id] then set[r.parent], changed = nil, true end
        end
    until not changed
    local out = {}
    for _, r in ipairs(rows) do
        if set[r.id] then out[#out + 1] = r end
    end
    return out
end

local BLOBS = [[SELECT lower(hex(b.sha256)) AS sha, b.bytes, b.path FROM blob b
  WHERE NOT EXISTS (SELECT 1 FROM run r WHERE b.sha256 IN (r.script, r.diff)
      AND r.id NOT IN (SELECT value FROM json_each(?1)))
    AND NOT EXISTS (SELECT 1 FROM artifact a WHERE a.sha256 = b.sha256
      AND a.run NOT IN (SELECT value FROM json_each(?1)))
    AND NOT EXISTS (SELECT 1 FROM sweep s WHERE s.script = b.sha256)]]

local function live_run(store)
    for r in store.db:each("SELECT id, uid, state, name FROM run WHERE state = 'running'") do
        if store:state(r) == "running" then return r end
    end
end

-- Files of this database's run folders that no row speaks of. Folders of other runs are left alone (another
-- results file may lie in the same place), and so is that of a run that is being executed.
local function stray_files(store, doomed, out)
    local base = store:file("runs")
    local gone = {}
    for _, r in ipairs(doomed) do gone[r.uid] = true end
    for _, uid in ipairs(names_in(base)) do
        local row = store.db:first("SELECT id, uid, state FROM run WHERE uid = ?", uid)
        if row and store:state(row) ~= "running" then
            local keep = {}
            if not gone[uid] then
                keep.lock = true
                for c in store.db:each("SELECT path FROM checkpoint WHERE run = ? AND deleted IS NULL", row.id) do
                    keep[c.path:match("[^/]+$")] = true
                end
            end
            local all = true
            for _, name in ipairs(names_in(base .. "/" .. uid)) do
                if keep[name] then
                    all = false
                else
                    local path = base .. "/" .. uid .. "/" .. name
                    out.files[#out.files + 1] = { path = path, bytes = size_of(path) }
                end
            end
            if all and gone[uid] then out.folders[#out.folders + 1] = base .. "/" .. uid end
        end
    end
end

-- Contents kept as files that no row of blob names.
local function stray_contents(store, out)
    local base = store.path .. ".files"
    for _, dir in ipairs(names_in(base)) do
        for _, name in ipairs(names_in(base .. "/" .. dir)) do
            local below = dir .. "/" .. name
            if not store.db:first("SELECT 1 AS x FROM blob WHERE path = ?", below) then
                out.files[#out.files + 1] = { path = base .. "/" .. below, bytes = size_of(base .. "/" .. below) }
            end
        end
    end
end

---@class upkeep.Plan
---@field runs table[] rows to erase
---@field blobs {sha: string, bytes: integer, path: string?}[]
---@field files {path: string, bytes: integer}[]
---@field folders string[]
---@field live table? a run that is being executed: contents are left alone until it ends

---What a collection would free.
---@param store table
---@param before integer|nil runs removed before this time in ms; nil: all
---@return upkeep.Plan
function upkeep.plan(store, before)
    local plan = { runs = doomed_runs(store, before or math.maxinteger), blobs = {}, files = {}, folders = {} }
    plan.live = live_run(store)
    stray_files(store, plan.runs, plan)
    if not plan.live then
        local ids = {}
        for i, r in ipairs(plan.runs) do ids[i] = r.id end
        plan.blobs = store.db:rows(BLOBS, "[" .. table.concat(ids, ",") .. "]")
        stray_contents(store, plan)
    end
    return plan
end

---Erases what the plan names.
---@param store table opened for writing
---@param plan upkeep.Plan
function upkeep.collect(store, plan)
    local db = store.db
    db:tx(function()
        for _, r in ipairs(plan.runs) do
            db:exec("UPDATE trial SET run = NULL WHERE run = ?", r.id)
            db:exec("UPDATE run SET parent = NULL WHERE parent = ?", r.id)
        end
        for _, r in ipairs(plan.runs) do db:exec("DELETE FROM run WHERE id = ?", r.id) end
        for _, b in ipairs(plan.blobs) do db:exec("DELETE FROM blob WHERE sha256 = ?", m.db.hex(b.sha)) end
    end, true)
    for _, b in ipairs(plan.blobs) do
        if b.path then os.remove(store.path .. ".files/" .. b.path) end
    end
    for _, f in ipairs(plan.files) do os.remove(f.path) end
    for _, dir in ipairs(plan.folders) do lfs.rmdir(dir) end
end

return upkeep

-- m.report: one HTML file about runs, complete in itself: no network, no other file. Every figure names the
-- SQL it came from. Results are over seeds; of runs repeated with one configuration and seed the newest
-- counts.
local cjson = require "cjson"
local m = require "mimic"
local classes = require "mimic.report.classes"
local curves = require "mimic.report.curves"
local format = require "mimic.format"
local page = require "mimic.report.page"
local pictures = require "mimic.report.pictures"
local provenance = require "mimic.report.provenance"
local results = require "mimic.results"
local results_part = require "mimic.report.results"
local suggest = require "mimic.suggest"
local sweeps = require "mimic.report.sweeps"

local report = {}

local CHOSEN = [[SELECT r.id, r.uid, r.name, r.kind, r.seed, r.state, r.step, r.attempt, r.created,
    r.started, r.ended, r.heartbeat, r.error, r.git, r.env, r.argv, r.parent, lower(hex(r.config_hash)) AS hash,
    lower(hex(coalesce(r.script, ''))) AS script, e.name AS experiment,
    (SELECT x.value FROM result x WHERE x.run = r.id AND x.metric = 'acc'
      ORDER BY x.split <> 'test', x.split <> 'val', x.dataset LIMIT 1) AS score
  FROM run r JOIN experiment e ON e.id = r.experiment
  WHERE r.deleted IS NULL AND (?1 IS NULL OR e.name = ?1)
    AND (?2 IS NULL OR r.id IN (SELECT value FROM json_each(?2)))
  ORDER BY r.id]]

-- Groups of runs that differ by seed only, in the order in which they were made.
local function group(runs)
    local groups, by_key, newest = {}, {}, {}
    for _, r in ipairs(runs) do
        if r.state == "done" then newest[r.name .. r.hash .. r.seed] = r end
    end
    for _, r in ipairs(runs) do
        if newest[r.name .. r.hash .. r.seed] == r then
            local key = r.kind .. r.name .. r.hash
            if not by_key[key] then
                by_key[key] = { name = r.name, kind = r.kind, hash = r.hash, runs = {}, place = #groups + 1 }
                groups[#groups + 1] = by_key[key]
            end
            table.insert(by_key[key].runs, r)
        end
    end
    local names = {}
    for _, g in ipairs(groups) do names[g.name] = (names[g.name] or 0) + 1 end
    for _, g in ipairs(groups) do
        local name = format.cut(g.name)
        g.label = names[g.name] > 1 and ("%s (%s)"):format(name, g.hash:sub(1, 6)) or name
        local ids, sum, n = {}, 0.0, 0
        for i, r in ipairs(g.runs) do
            ids[i] = r.id
            if r.score then sum, n = sum + r.score, n + 1 end
        end
        g.score = n > 0 and sum / n or nil
        g.ids = "[" .. table.concat(ids, ",") .. "]"
    end
    return groups
end

-- Runs that are not complete, and in red that this is so. Those that a pruner paused are no trouble: it is what they
-- were left at, and they are only counted.
local function trouble(runs)
    local rows, paused = {}, 0
    for _, r in ipairs(runs) do
        if r.state == "pruned" then
            paused = paused + 1
        elseif r.state ~= "done" then
            rows[#rows + 1] = {
                id = r.id, name = r.name, seed = r.seed, state = r.state, step = r.step,
                error = r.error and r.error:match("^[^\n]*"):sub(1, 300) or "",
            }
        end
    end
    local note = paused == 0 and "" or ('<p class="note">%d %s paused by a pruner and in no figure below.</p>'):format(
        paused, paused == 1 and "run was" or "runs were")
    if #rows == 0 then return note end
    local text = '<p class="bad"><strong>%d %s not complete and in no figure below.</strong></p>'
    local list = page.table(rows, {
        { key = "id", number = true }, { key = "name" }, { key = "seed", number = true }, { key = "state" },
        { key = "step", number = true }, { key = "error" },
    }, "Runs that are not complete")
    return text:format(#rows, #rows == 1 and "run is" or "runs are") ..
        (#rows > 12 and page.details("which", list) or list) .. note
end

local function hardware_of(store, envs)
    local out = {}
    for i, id in ipairs(envs) do
        local e = cjson.decode(store.db:first("SELECT json FROM env WHERE id = ?", id).json)
        local function whole(v) return v and ("%d"):format(v) or "?" end
        out[i] = ("%s, %s cores, %s threads, %s (%s)"):format(e.cpu or "?", whole(e.cores), whole(e.threads),
            e.isa or "?", e.host or "?") .. (e.gpu and ", " .. format.text(e.gpu) or "")
    end
    return table.concat(out, "; ")
end

local function header(store, runs, groups)
    local experiments, commits, envs = {}, {}, {}
    local first, last, counts, states = nil, nil, {}, {}
    local function once(list, v)
        for _, x in ipairs(list) do
            if x == v then return end
        end
        list[#list + 1] = v
    end
    for _, r in ipairs(runs) do
        once(experiments, r.experiment)
        once(commits, provenance.commit(r.git))
        once(envs, r.env)
        first = math.min(first or r.created, r.created)
        last = math.max(last or 0, r.ended or r.heartbeat or r.created)
        if not counts[r.state] then states[#states + 1] = r.state end
        counts[r.state] = (counts[r.state] or 0) + 1
    end
    for i, state in ipairs(states) do states[i] = counts[state] .. " " .. state end
    local dirty = table.concat(commits, " "):match("dirty")
    return page.facts {
        { "experiment", table.concat(experiments, ", ") },
        { "runs", ("%d: %s; %d configurations"):format(#runs, table.concat(states, ", "), #groups) },
        { "when", first and format.when(first) .. " to " .. format.when(last) },
        { "code", #commits > 0 and table.concat(commits, ", ") .. (dirty and " (with uncommitted changes)" or "")
            or "no git tree" },
        { "hardware", hardware_of(store, envs) },
        { "database", store.path },
    } .. trouble(runs)
end

local function identifiers(list)
    if not list then return nil end
    local ids = {}
    local function add(r)
        if type(r) == "table" and r.id == nil and r[1] ~= nil then
            for _, x in ipairs(r) do add(x) end
        else
            local id = type(r) == "table" and r.id or r
            if math.type(id) == "integer" then
                ids[#ids + 1] = id
                if type(r) == "table" and r.parent then add(r.parent) end
            end
        end
    end
    for _, r in ipairs(list) do add(r) end
    return "[" .. table.concat(ids, ",") .. "]"
end

-- Sweeps to show as a JSON list of their numbers: those asked for (handles, numbers or names), else those that
-- the runs or their children belong to; all when all runs are shown.
local function sweeps_of(store, wanted, runs, all)
    local ids = {}
    for _, s in ipairs(wanted or {}) do
        local key = type(s) == "table" and (s.sweep or s.id or s.name) or s
        local row = store.db:first("SELECT id FROM sweep WHERE id = ?1 OR name = ?1 ORDER BY id DESC LIMIT 1", key)
        if not row then error(("report: no sweep '%s'"):format(tostring(key)), 0) end
        ids[#ids + 1] = row.id
    end
    if wanted then return "[" .. table.concat(ids, ",") .. "]" end
    if all then return nil end
    for r in store.db:each([[SELECT DISTINCT t.sweep FROM trial t JOIN run r ON r.id = t.run, json_each(?1) j
      WHERE r.id = j.value OR r.parent = j.value ORDER BY t.sweep]], runs) do ids[#ids + 1] = r.sweep end
    return "[" .. table.concat(ids, ",") .. "]"
end

local fields = { "out", "runs", "experiment", "title", "tables", "sweeps", "refresh" }

local function check(spec)
    for k in pairs(spec) do
        local known = false
        for _, f in ipairs(fields) do known = known or f == k end
        if not known then
            error(("m.report has no field '%s'%s"):format(tostring(k), suggest.hint(tostring(k), fields)), 3)
        end
    end
end

local function sections_of(store, spec, runs, groups)
    local ids = identifiers(runs)
    local sections = {}
    local function add(id, name, body)
        if body and body ~= "" then sections[#sections + 1] = { id = id, title = name, body = body } end
    end
    add("results", "Results", results_part.results(store, groups))
    add("tables", "Tables", results_part.tables(store, ids, spec.tables))
    add("curves", "Curves", curves.section(store, groups))
    add("sweeps", "Sweeps", sweeps.section(store, sweeps_of(store, spec.sweeps, ids,
        not spec.runs and not spec.experiment)))
    add("pictures", "Reconstructions", pictures.section(store, groups))
    add("maps", "Features", pictures.maps(store, groups))
    add("confusion", "Confusion matrices", classes.section(store, groups))
    add("speed", "Speed and memory", provenance.speed(store, groups))
    add("provenance", "Provenance", provenance.section(store, runs, CHOSEN))
    return sections
end

---Writes the report.
---@param spec table|nil out, title; runs, experiment (which runs), tables, sweeps (names), refresh (seconds)
---@return string path
---@return integer running runs that are being executed
function report.write(spec)
    spec = spec or {}
    check(spec)
    local experiment = require "mimic.experiment"
    local path = spec.out or "results/report.html"
    if experiment.options.dry_run then return "not written in a dry run", 0 end
    experiment.flush()
    local store = results.open(experiment.options.db, false)
    local runs = store.db:rows(CHOSEN, spec.experiment, identifiers(spec.runs))
    local running = 0
    for _, r in ipairs(runs) do
        r.state = store:state(r)
        if r.state == "running" then running = running + 1 end
    end
    local groups = group(runs)
    if #runs == 0 and spec.experiment then
        local names = {}
        for row in store.db:each("SELECT name FROM experiment") do names[#names + 1] = row.name end
        store:close()
        error(("no runs of an experiment '%s'%s"):format(spec.experiment, suggest.hint(spec.experiment, names)), 0)
    end
    local title = spec.title or (runs[1] and runs[1].experiment or "mimic") .. ": results"
    local html = page.html(title, header(store, runs, groups), sections_of(store, spec, runs, groups),
        ('<p class="soft">mimic %s, %s. One file; nothing is loaded from elsewhere.</p>'):format(
            page.escape(m.version), os.date("%Y-%m-%d %H:%M")), spec.refresh)
    store:close()
    m.sys.mkdirs(path:match("^(.*)/[^/]*$") or ".")
    m.sys.write_file_atomic(path, html)
    return path, running
end

return setmetatable(report, { __call = function(_, spec) return (report.write(spec)) end })

-- Where the numbers come from: speed and memory, runs with their golden lines, configurations, scripts,
-- machines.
local cjson = require "cjson"
local config = require "mimic.config"
local format = require "mimic.format"
local page = require "mimic.report.page"

local provenance = {}

local SPEED = [[SELECT s.name, avg(k.value) AS mean, max(k.value) AS high FROM series s JOIN metric k ON k.series = s.id
  WHERE s.run = ?1 AND (s.name LIKE 'sys/%' OR s.name = 'train/rate') GROUP BY s.name ORDER BY s.name]]

---@return string HTML
function provenance.speed(store, groups)
    local rows, names = {}, {}
    local columns = { { key = "run" }, { key = "seed", number = true }, { key = "took", number = true } }
    for _, g in ipairs(groups) do
        for _, r in ipairs(g.runs) do
            local took = r.started and r.ended and format.duration((r.ended - r.started) / 1000)
            local row = { run = g.label, seed = r.seed, took = took }
            for s in store.db:each(SPEED, r.id) do
                if not names[s.name] then
                    names[s.name] = true
                    local title = s.name:gsub("^%w+/", ""):gsub("_", " ")
                    columns[#columns + 1] = { key = s.name, title = title, number = true }
                end
                local bytes = s.name:match("bytes") ~= nil
                row[s.name] = bytes and ("%.1f MiB"):format((s.high or 0) / 2 ^ 20) or ("%.4g"):format(s.mean or 0)
            end
            rows[#rows + 1] = row
        end
    end
    if #rows == 0 then return "" end
    local note = '<p class="note">Mean over the epochs; memory: highest. Time from first start to end.</p>'
    local body = page.table(rows, columns, "Speed and memory of each run") .. note
    return (#rows > 24 and page.details(("%d runs"):format(#rows), body) or body) .. page.source(SPEED)
end

---First digits of the commit and whether the tree was dirty.
---@param git string|nil
function provenance.commit(git)
    return git and git:sub(1, 12) .. (git:match("%+dirty") or "")
end

-- A configuration or environment, one key a line.
local function pretty(json)
    local out = {}
    for i, leaf in ipairs(config.flatten(cjson.decode(json))) do
        out[i] = format.cut(leaf.key) .. " = " .. format.cut(config.json(leaf.value), 2000)
    end
    return table.concat(out, "\n")
end

local ALSO = [[SELECT (SELECT group_concat(key || CASE value WHEN '' THEN '' ELSE '=' || value END, ', ') FROM tag
    WHERE run = r.id AND key <> 'sources') AS tags, r.note FROM run r WHERE r.id = ?1]]

---@param chosen string the SQL that chose the runs
---@return string HTML
function provenance.section(store, runs, chosen)
    local out, scripts, envs, golden, order = {}, {}, {}, {}, {}
    local rows = {}
    for i, r in ipairs(runs) do
        local argv = r.argv and cjson.decode(r.argv) or {}
        local also = store.db:first(ALSO, r.id)
        rows[i] = {
            id = r.id, uid = r.uid, name = r.name, seed = r.seed, state = r.state, attempt = r.attempt,
            parent = r.parent, begun = format.when(r.started), git = provenance.commit(r.git),
            config = r.hash:sub(1, 8), script = r.script:sub(1, 8), tags = also.tags, note = also.note,
        }
        if r.script ~= "" and not scripts[r.script] then
            scripts[r.script] = argv.script or "script"
            order[#order + 1] = r.script
        end
        if r.env then envs[r.env] = true end
        local line = store:golden(r.id)
        if line then golden[#golden + 1] = ("run %d %s seed %d: %s"):format(r.id, format.cut(r.name), r.seed, line) end
    end
    local body = page.table(rows, {
        { key = "id", number = true }, { key = "uid" }, { key = "name" }, { key = "seed", number = true },
        { key = "state" }, { key = "attempt", number = true }, { key = "parent", number = true }, { key = "begun" },
        { key = "git" }, { key = "config" }, { key = "script" }, { key = "tags" }, { key = "note" },
    }, "Runs") .. page.pre(table.concat(golden, "\n"))
    out[1] = #runs > 24 and page.details(("%d runs with their golden lines"):format(#runs), body) or body
    local shown, configurations = {}, {}
    for _, r in ipairs(runs) do
        if not shown[r.hash] then
            shown[r.hash] = true
            local title = ("configuration %s: %s"):format(r.hash:sub(1, 8), format.cut(r.name))
            configurations[#configurations + 1] = page.details(title, page.pre(pretty(store:config_json(r.id))))
        end
    end
    local all = table.concat(configurations)
    out[2] = #configurations > 24 and page.details(("%d configurations"):format(#configurations), all) or all
    for _, sha in ipairs(order) do
        out[#out + 1] = page.details(("script %s: %s"):format(sha:sub(1, 8), scripts[sha]),
            page.pre(store.db:get_blob(sha)))
    end
    local ids = {}
    for id in pairs(envs) do ids[#ids + 1] = id end
    table.sort(ids)
    for _, id in ipairs(ids) do
        local env = store.db:first("SELECT json FROM env WHERE id = ?", id)
        out[#out + 1] = page.details(("environment %d"):format(id), page.pre(pretty(env.json)))
    end
    return table.concat(out) .. page.source(chosen)
end

return provenance

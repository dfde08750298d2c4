-- m.report: one HTML file about runs, complete in itself: no network, no other file. Every figure names the
-- SQL it came from. Results are over seeds; of runs repeated with one configuration and seed the newest
-- counts.
local cjson = require "cjson"
local m = require "mimic"
local page = require "mimic.report.page"
local plot = require "mimic.plot"
local results = require "mimic.results"
local tables = require "mimic.format"

local report = {}
local escape = page.escape

local CHOSEN = [[SELECT r.id, r.uid, r.name, r.kind, r.seed, r.state, r.step, r.attempt, r.created,
  r.started, r.ended, r.heartbeat,
    r.error, r.git, r.env, r.argv, r.parent, lower(hex(r.config_hash)) AS hash, lower(hex(r.script)) AS
      script, e.name AS experiment
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
                by_key[key] = { name = r.name, kind = r.kind, hash = r.hash, runs = {} }
                groups[#groups + 1] = by_key[key]
            end
            table.insert(by_key[key].runs, r)
        end
    end
    local names = {}
    for _, g in ipairs(groups) do names[g.name] = (names[g.name] or 0) + 1 end
    for _, g in ipairs(groups) do
        g.label = names[g.name] > 1 and ("%s (%s)"):format(g.name, g.hash:sub(1, 6)) or g.name
        local ids = {}
        for i, r in ipairs(g.runs) do ids[i] = r.id end
        g.ids = "[" .. table.concat(ids, ",") .. "]"
    end
    return groups
end

local RESULTS = [[SELECT x.dataset, x.split, x.metric, count(x.value) AS n, avg(x.value) AS mean,
    sqrt(max(0, sum(x.value * x.value) - count(x.value) * avg(x.value) * avg(x.value)) /
      nullif(count(x.value) - 1, 0)) AS sd,
    max(x.n) AS samples
  FROM result x WHERE x.run IN (SELECT value FROM json_each(?1))
    AND x.metric NOT LIKE '%/%' AND x.metric <> 'best_epoch'
  GROUP BY x.dataset, x.split, x.metric ORDER BY x.metric <> 'acc', x.split <> 'test', x.dataset, x.metric]]

local function value_text(metric, v)
    if not v then return "nan" end
    return (metric:match("acc") and "%.2f" or "%.4g"):format(v)
end

local function results_section(store, groups)
    local rows, columns, seen, best = {}, {}, {}, {}
    for _, g in ipairs(groups) do
        local row = { name = g.label, kind = g.kind, seeds = #g.runs, best = {} }
        local hits = 0
        for r in store.db:each(RESULTS, g.ids) do -- classes are in the confusion matrices
            local key = ("%s %s %s"):format(r.dataset, r.split, r.metric)
            if not seen[key] then
                seen[key] = { key = key, title = key, number = true, metric = r.metric }
                columns[#columns + 1] = seen[key]
            end
            local spread = r.n > 1 and " ± " .. value_text(r.metric, r.sd or 0) or ""
            row[key] = value_text(r.metric, r.mean) .. spread
            if r.mean then
                local score = r.metric:match("loss") and -r.mean or r.mean
                local b = best[key]
                if not b or score > b.score then
                    best[key] = { score = score, rows = { row } }
                elseif score == b.score then
                    b.rows[#b.rows + 1] = row
                end
            end
            hits = hits + 1
        end
        if hits > 0 then rows[#rows + 1] = row end
    end
    if #rows == 0 then return "<p>No run has recorded a result yet.</p>" end
    local count = {}
    for _, row in ipairs(rows) do
        for _, c in ipairs(columns) do count[c.key] = (count[c.key] or 0) + (row[c.key] and 1 or 0) end
    end
    for key, b in pairs(best) do -- nothing stands out when all are equal
        for _, row in ipairs(#b.rows < count[key] and b.rows or {}) do row.best[key] = true end
    end
    table.insert(columns, 1, { key = "name", title = "run" })
    table.insert(columns, 2, { key = "kind", title = "task" })
    table.insert(columns, 3, { key = "seeds", title = "seeds", number = true })
    return page.table(rows, columns) ..
        '<p class="note">Mean ± sample standard deviation over seeds; accuracies in percent; bold: best ' ..
        "mean of the column.</p>" ..
        page.source(RESULTS)
end

local CURVE = [[SELECT k.step, avg(k.value) AS value, min(k.value) AS lo, max(k.value) AS hi
  FROM metric k JOIN series s ON s.id = k.series
  WHERE s.name = ?1 AND s.run IN (SELECT value FROM json_each(?2)) GROUP BY k.step ORDER BY k.step]]

local NAMES = [[SELECT s.name, count(*) AS runs FROM series s
  WHERE s.run IN (SELECT value FROM json_each(?1)) AND s.n > 0 GROUP BY s.name ORDER BY s.name]]

-- Curves worth a place on the page; the others go behind a line that opens them.
local function is_main(name)
    return name:match("^val/") or name:match("^test/") or name == "train/loss" or name == "train/epoch_loss"
end

local function figure(store, name, groups)
    local lines, seeds = {}, 1
    for _, g in ipairs(groups) do
        local points = store.db:rows(CURVE, name, g.ids)
        if #points > 0 then
            seeds = math.max(seeds, #g.runs)
            lines[#lines + 1] = { name = g.label, points = plot.thin(points, 240) }
        end
    end
    if #lines == 0 then return "" end
    local names = {}
    for i, l in ipairs(lines) do
        local p = l.points[#l.points]
        names[i] = p.value and ("%s ends at %s"):format(l.name, plot.label(p.value)) or l.name
    end
    local alt = ("%s over steps: %s"):format(name, table.concat(names, "; "))
    return ("<figure><h3>%s</h3>%s<figcaption>%s</figcaption></figure>\n"):format(escape(name),
        plot.svg { title = name, x = "step", lines = lines, alt = alt },
        seeds > 1 and "Line: mean over seeds; band: lowest to highest." or "One seed per line.")
end

-- Figures of one task: a step means the same in all of them. At most six lines each.
local function curves_section(store, groups)
    local kinds, order = {}, {}
    for _, g in ipairs(groups) do
        if not kinds[g.kind] then
            kinds[g.kind] = {}
            order[#order + 1] = g.kind
        end
        table.insert(kinds[g.kind], g)
    end
    local out = {}
    for _, kind in ipairs(order) do
        local list = kinds[kind]
        local ids = {}
        for _, g in ipairs(list) do ids[#ids + 1] = g.ids:sub(2, -2) end
        local main, more = {}, {}
        for r in store.db:each(NAMES, "[" .. table.concat(ids, ",") .. "]") do
            for from = 1, #list, 6 do
                local part = table.move(list, from, math.min(from + 5, #list), 1, {})
                table.insert(is_main(r.name) and main or more, figure(store, r.name, part))
            end
        end
        if #main + #more > 0 then
            out[#out + 1] = ("<h3>%s</h3>"):format(escape(kind))
            out[#out + 1] = '<div class="grid-of">' .. table.concat(main) .. "</div>"
            if #more > 0 then
                local figures = '<div class="grid-of">' .. table.concat(more) .. "</div>"
                out[#out + 1] = page.details("more series", figures)
            end
        end
    end
    return table.concat(out) .. page.source(CURVE)
end

local PICTURES = [[SELECT a.run, a.name, a.step, lower(hex(a.sha256)) AS sha FROM artifact a
  WHERE a.run = ?1 AND a.kind LIKE '%jpeg%'
    AND a.step = (SELECT max(step) FROM artifact b WHERE b.run = a.run AND b.name = a.name)
  ORDER BY a.name]]

local function pictures_section(store, groups)
    local out = {}
    for _, g in ipairs(groups) do
        local r = g.runs[1]
        for a in store.db:each(PICTURES, r.id) do
            local what = a.name == "reconstruction" and "each row: input, masked input, output" or a.name
            local alt = ("%s of run %s at step %d: %s"):format(a.name, g.label, a.step, what)
            local title = escape(g.label)
            out[#out + 1] = ('<figure><h3>%s</h3><img class="pixels" alt="%s" '):format(title, escape(alt))
            out[#out + 1] = ('src="data:image/jpeg;base64,%s">'):format(page.base64(store.db:get_blob(a.sha)))
            out[#out + 1] = ("<figcaption>%s, seed %d, step %d: %s.</figcaption></figure>"):format(
                escape(a.name), r.seed, a.step, escape(what))
        end
    end
    if #out == 0 then return nil end
    return '<div class="grid-of">' .. table.concat(out, "\n") .. "</div>" .. page.source(PICTURES)
end

local CONFUSION = [[SELECT c.dataset, c.split, c.truth, c.pred, sum(c.n) AS n FROM confusion c
  WHERE c.run IN (SELECT value FROM json_each(?1)) GROUP BY c.dataset, c.split, c.truth, c.pred]]

local CLASSES = [[SELECT lower(hex(sha256)) AS sha FROM artifact WHERE run = ?1 AND name = 'classes']]

local function class_names(store, run, n)
    local row = store.db:first(CLASSES, run)
    local names = row and cjson.decode(store.db:get_blob(row.sha)) or {}
    for k = 1, n do
        if not names[k] or names[k] == "" then names[k] = tostring(k - 1) end
    end
    return names
end

local function matrix_html(counts, n, names)
    local sum, column, right, total = {}, {}, 0, 0
    for i = 1, n do
        sum[i], column[i] = 0, column[i] or 0
        for j = 1, n do
            local v = counts[i][j] or 0
            sum[i], column[j], total = sum[i] + v, (column[j] or 0) + v, total + v
            if i == j then right = right + v end
        end
    end
    local out = {
        '<div class="scroll"><table class="heat"><thead><tr><th scope="col">true \\ predicted</th>',
    }
    for j = 1, n + 3 do
        local title = names[j] and j <= n and names[j] or ({ "precision", "recall", "F1" })[j - n]
        out[#out + 1] = ('<th scope="col" class="n">%s</th>'):format(escape(title))
    end
    out[#out + 1] = "</tr></thead><tbody>\n"
    local f1_sum, f1_n = 0, 0
    for i = 1, n do
        out[#out + 1] = ('<tr><th scope="row">%s</th>'):format(escape(names[i]))
        for j = 1, n do
            local v = counts[i][j] or 0
            local share = sum[i] > 0 and v / sum[i] or 0
            local class = i == j and " right" or ""
            out[#out + 1] = ('<td class="cell%s" style="--share:%.2f">%d</td>'):format(class, share * 0.75, v)
        end
        local hit = counts[i][i] or 0
        local p = column[i] > 0 and hit / column[i] or nil
        local r = sum[i] > 0 and hit / sum[i] or nil
        local f1 = sum[i] + column[i] > 0 and 2 * hit / (sum[i] + column[i]) or nil
        if sum[i] > 0 then f1_sum, f1_n = f1_sum + (f1 or 0), f1_n + 1 end
        for _, x in ipairs { p or false, r or false, f1 or false } do
            out[#out + 1] = ('<td class="n">%s</td>'):format(x and ("%.1f"):format(100 * x) or "–")
        end
        out[#out + 1] = "</tr>\n"
    end
    out[#out + 1] = "</tbody></table></div>"
    return table.concat(out), 100 * right / math.max(total, 1), 100 * f1_sum / math.max(f1_n, 1), total
end

local function confusion_section(store, groups)
    local out = {}
    for _, g in ipairs(groups) do
        local sets, order = {}, {}
        for r in store.db:each(CONFUSION, g.ids) do
            local key = r.dataset .. " " .. r.split
            if not sets[key] then
                sets[key] = { n = 0, counts = {} }
                order[#order + 1] = key
            end
            local s = sets[key]
            s.n = math.max(s.n, r.truth + 1, r.pred + 1)
            s.counts[r.truth + 1] = s.counts[r.truth + 1] or {}
            s.counts[r.truth + 1][r.pred + 1] = r.n
        end
        for _, key in ipairs(order) do
            local s = sets[key]
            for i = 1, s.n do s.counts[i] = s.counts[i] or {} end
            local html, acc, f1, total = matrix_html(s.counts, s.n, class_names(store, g.runs[1].id, s.n))
            local seeds = #g.runs > 1 and (" of %d seeds together"):format(#g.runs) or ""
            out[#out + 1] = ("<h3>%s on %s</h3>%s"):format(escape(g.label), escape(key), html)
            local note = '<p class="note">%d predictions%s: accuracy %.2f, mean F1 %.2f (percent).</p>'
            out[#out + 1] = note:format(total, seeds, acc, f1)
        end
    end
    if #out == 0 then return nil end
    return table.concat(out, "\n") .. page.source(CONFUSION)
end

local SPEED = [[SELECT s.name, avg(k.value) AS mean, max(k.value) AS high, count(*) AS n FROM metric k JOIN
  series s ON s.id = k.series
  WHERE s.run = ?1 AND (s.name LIKE 'sys/%' OR s.name = 'train/rate') GROUP BY s.name ORDER BY s.name]]

local function speed_section(store, groups)
    local rows, names = {}, {}
    local columns = { { key = "run" }, { key = "seed", number = true }, { key = "took", number = true } }
    for _, g in ipairs(groups) do
        for _, r in ipairs(g.runs) do
            local row = { run = g.label, seed = r.seed, took = tables.duration((r.ended - r.started) / 1000) }
            for s in store.db:each(SPEED, r.id) do
                if not names[s.name] then
                    names[s.name] = true
                    local title = s.name:gsub("^%w+/", ""):gsub("_", " ")
                    columns[#columns + 1] = { key = s.name, title = title, number = true }
                end
                local bytes = s.name:match("bytes") ~= nil
                row[s.name] = bytes and ("%.1f MiB"):format(s.high / 2 ^ 20) or ("%.4g"):format(s.mean or 0)
            end
            rows[#rows + 1] = row
        end
    end
    local note = '<p class="note">Mean over the epochs; memory: highest. Time from first start to end.</p>'
    return page.table(rows, columns) .. note .. page.source(SPEED)
end


-- First digits of the commit and whether the tree was dirty.
local function commit_text(git)
    return git and git:sub(1, 12) .. (git:match("%+dirty") or "")
end

local function provenance_section(store, runs)
    local out, scripts, envs, golden = {}, {}, {}, {}
    local rows = {}
    for i, r in ipairs(runs) do
        local argv = r.argv and cjson.decode(r.argv) or {}
        rows[i] = {
            id = r.id, uid = r.uid, name = r.name, seed = r.seed, state = r.state, attempt = r.attempt,
            parent = r.parent, begun = tables.when(r.started), git = commit_text(r.git),
            config = r.hash:sub(1, 8),
            script = ("%s %s"):format((argv.script or ""):match("[^/]*$"), r.script:sub(1, 8)),
        }
        scripts[r.script] = scripts[r.script] or argv.script or "script"
        local line = store:golden(r.id)
        if line then golden[#golden + 1] = ("%s seed %d: %s"):format(r.name, r.seed, line) end
        if r.env then envs[r.env] = true end
    end
    out[1] = page.table(rows, {
        { key = "id", number = true }, { key = "name" }, { key = "seed", number = true }, { key = "state" },
        { key = "attempt", number = true }, { key = "parent", number = true }, { key = "begun" },
        { key = "git" }, { key = "config" }, { key = "script" },
    }) .. page.pre(table.concat(golden, "\n"))
    local shown = {}
    for _, r in ipairs(runs) do
        if not shown[r.hash] then
            shown[r.hash] = true
            local text = store:config_json(r.id)
            out[#out + 1] = page.details(("configuration %s: %s"):format(r.hash:sub(1, 8), r.name),
                page.pre(report.pretty(text)))
        end
    end
    for sha, name in pairs(scripts) do
        out[#out + 1] = page.details(("script %s: %s"):format(sha:sub(1, 8), name),
            page.pre(store.db:get_blob(sha)))
    end
    for id in pairs(envs) do
        local env = store.db:first("SELECT json FROM env WHERE id = ?", id)
        out[#out + 1] = page.details(("environment %d"):format(id), page.pre(report.pretty(env.json)))
    end
    return table.concat(out) .. page.source(CHOSEN)
end

---JSON over several lines: one per key, lists of plain values on one.
---@param text string canonical JSON
---@return string
function report.pretty(text)
    local config = require "mimic.config"
    local out = {}
    for i, leaf in ipairs(config.flatten(cjson.decode(text))) do
        out[i] = leaf.key .. " = " .. config.json(leaf.value)
    end
    return table.concat(out, "\n")
end

local function trouble(runs)
    local rows = {}
    for _, r in ipairs(runs) do
        if r.state ~= "done" then
            rows[#rows + 1] = {
                id = r.id, name = r.name, seed = r.seed, state = r.state, step = r.step,
                error = r.error and r.error:match("^[^\n]*") or "",
            }
        end
    end
    if #rows == 0 then return "" end
    local text = '<p class="bad"><strong>%d %s not complete and in no figure below.</strong></p>'
    return text:format(#rows, #rows == 1 and "run is" or "runs are") .. page.table(rows, {
        { key = "id", number = true }, { key = "name" }, { key = "seed", number = true }, { key = "state" },
        { key = "step", number = true }, { key = "error" },
    })
end

local function header(store, runs, groups)
    local experiments, commits, envs = {}, {}, {}
    local first, last, done = nil, nil, 0
    local function once(list, v)
        for _, x in ipairs(list) do
            if x == v then return end
        end
        list[#list + 1] = v
    end
    for _, r in ipairs(runs) do
        once(experiments, r.experiment)
        once(commits, commit_text(r.git))
        once(envs, r.env)
        first = math.min(first or r.created, r.created)
        last = math.max(last or 0, r.ended or r.heartbeat or r.created)
        done = done + (r.state == "done" and 1 or 0)
    end
    local hardware = {}
    for i, id in ipairs(envs) do
        local e = cjson.decode(store.db:first("SELECT json FROM env WHERE id = ?", id).json)
        local text = "%s, %.0f cores, %.0f threads, %s (%s)"
        hardware[i] = text:format(e.cpu, e.cores, e.threads, e.isa, e.host)
    end
    return page.facts {
        { "experiment", table.concat(experiments, ", ") },
        { "runs", ("%d, %d done; %d configurations"):format(#runs, done, #groups) },
        { "when", first and tables.when(first) .. " to " .. tables.when(last) },
        { "code", #commits > 0 and table.concat(commits, ", ") or "no git tree" },
        { "hardware", table.concat(hardware, "; ") },
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

---Writes the report.
---@param spec {out: string?, runs: table?, experiment: string?, title: string?}
---@return string path
function report.write(spec)
    spec = spec or {}
    local experiment = require "mimic.experiment"
    local path = spec.out or "results/report.html"
    if experiment.options.dry_run then return "not written in a dry run" end
    experiment.flush()
    local store = results.open(experiment.options.db, false)
    local runs = store.db:rows(CHOSEN, spec.experiment, identifiers(spec.runs))
    local groups = group(runs)
    if #runs == 0 and spec.experiment then
        local names = {}
        for row in store.db:each("SELECT name FROM experiment") do names[#names + 1] = row.name end
        store:close()
        error(("no runs of an experiment '%s'%s"):format(spec.experiment,
            require("mimic.suggest").hint(spec.experiment, names)), 0)
    end
    local title = spec.title or (runs[1] and runs[1].experiment or "mimic") .. ": results"
    local sections = {}
    local function section(id, name, body)
        if body and body ~= "" then sections[#sections + 1] = { id = id, title = name, body = body } end
    end
    section("results", "Results", results_section(store, groups))
    section("curves", "Curves", curves_section(store, groups))
    section("pictures", "Reconstructions", pictures_section(store, groups))
    section("confusion", "Confusion matrices", confusion_section(store, groups))
    section("speed", "Speed and memory", speed_section(store, groups))
    section("provenance", "Provenance", provenance_section(store, runs))
    local html = page.html(title, header(store, runs, groups), sections,
        ('<p class="soft">mimic %s, %s. One file; nothing is loaded from elsewhere.</p>'):format(
            escape(m.version), os.date("%Y-%m-%d %H:%M")))
    store:close()
    m.sys.mkdirs(path:match("^(.*)/[^/]*$") or ".")
    m.sys.write_file_atomic(path, html)
    return path
end

return setmetatable(report, { __call = function(_, spec) return report.write(spec) end })

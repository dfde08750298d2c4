-- Results over seeds and the paper's tables in the report.
local page = require "mimic.report.page"
local stats = require "mimic.stats"
local tabulate = require "mimic.tabulate"
local text = require "mimic.tabulate_text"

local section = {}

local RESULTS = [[SELECT x.run, r.seed, x.dataset, x.split, x.metric, x.value
  FROM result x JOIN run r ON r.id = x.run WHERE x.run IN (SELECT value FROM json_each(?1))
    AND x.metric NOT LIKE '%/%' AND x.metric <> 'best_epoch'
  ORDER BY x.metric <> 'acc', x.split <> 'test', x.dataset, x.metric, r.seed]]

local most_columns = 8

-- Values by column of one group; columns are made when first seen.
local function collect(store, g, columns, seen)
    local cells = {}
    for r in store.db:each(RESULTS, g.ids) do -- results of single classes are in the confusion matrices
        local key = ("%s %s %s"):format(r.dataset, r.split, r.metric)
        if not seen[key] then
            seen[key] = { key = key, title = key, number = true, metric = r.metric, runs = 0 }
            columns[#columns + 1] = seen[key]
        end
        cells[key] = cells[key] or {}
        if r.value then table.insert(cells[key], r.value) end
        seen[key].runs = seen[key].runs + 1
    end
    return cells
end

local function shown(column, s, lo, hi)
    if not s.mean then return "nan" end
    local out = text.number(column, s.mean)
    if s.n > 1 then
        out = ("%s ± %s"):format(out, text.number(column, s.sd))
        if lo then out = ("%s [%s, %s]"):format(out, text.number(column, lo), text.number(column, hi)) end
    end
    return out
end

---The configurations with their results: mean, deviation, interval; best in bold.
---@return string HTML
function section.results(store, groups)
    local rows, columns, seen, best = {}, {}, {}, {}
    for _, g in ipairs(groups) do
        local row = { name = g.label, kind = g.kind, seeds = #g.runs, best = {} }
        local any = false
        for key, values in pairs(collect(store, g, columns, seen)) do
            local column = seen[key]
            local s = stats.summary(values)
            local lo, hi = stats.interval(values)
            row[key] = shown(column, s, lo, hi)
            any = true
            if s.mean then
                local score = column.metric:match("loss") and -s.mean or s.mean
                local b = best[key]
                if not b or score > b.score then best[key] = { score = score, rows = { row } }
                elseif score == b.score then b.rows[#b.rows + 1] = row end
            end
        end
        if any then rows[#rows + 1] = row end
    end
    if #rows == 0 then return "<p>No run has recorded a result yet.</p>" end
    local count = {}
    for _, row in ipairs(rows) do
        for _, c in ipairs(columns) do count[c.key] = (count[c.key] or 0) + (row[c.key] and 1 or 0) end
    end
    for key, b in pairs(best) do -- nothing stands out when all are equal
        for _, row in ipairs(#b.rows < count[key] and b.rows or {}) do row.best[key] = true end
    end
    local left_out = #columns - most_columns
    for i = #columns, most_columns + 1, -1 do columns[i] = nil end
    table.insert(columns, 1, { key = "name", title = "run" })
    table.insert(columns, 2, { key = "kind", title = "task" })
    table.insert(columns, 3, { key = "seeds", title = "seeds", number = true })
    local more = left_out > 0 and (" %d more metrics are in the view leaderboard."):format(left_out) or ""
    return page.table(rows, columns, "Results over seeds") ..
        '<p class="note">Mean ± sample standard deviation over seeds [95 % bootstrap interval]; accuracies in ' ..
        "percent; bold: best mean of the column." .. more .. "</p>" .. page.source(RESULTS)
end

local FILED = [[SELECT DISTINCT p.ref FROM paper_run p WHERE p.run IN (SELECT value FROM json_each(?1)) ORDER BY p.ref]]

---Tables of the paper and of ablations, each with its numbers, LaTeX and CSV to copy.
---@param runs string JSON list of the runs
---@param names string[]|nil tables to show; nil: those that a run answers
---@return string|nil HTML
function section.tables(store, runs, names)
    if not names then
        names = {}
        for r in store.db:each(FILED, runs) do names[#names + 1] = r.ref end
    end
    local out = {}
    for _, name in ipairs(names) do
        local t = tabulate.collect(store.db, name)
        out[#out + 1] = text.html(t) ..
            page.details("LaTeX", page.pre(text.render("latex", t, true))) ..
            page.details("CSV", page.pre(text.render("csv", t))) .. page.source(t.sql)
    end
    if #out == 0 then return nil end
    return table.concat(out, "\n")
end

return section

-- Results arranged as a table: a table of the paper or of an ablation (rows that runs were filed under), a
-- sweep (its points), or an experiment (its configurations). Every cell has our values by seed with mean,
-- deviation, interval and the comparison with the base row, and the published number where there is one.
local cjson = require "cjson"
local find = require "mimic.sweep.find"
local stats = require "mimic.stats"
local suggest = require "mimic.suggest"

local tabulate = {}

---@class tabulate.Cell
---@field paper number?
---@field mark string? printed, inferred, quoted
---@field note string?
---@field values table<integer, number> by seed
---@field n integer
---@field mean number?
---@field sd number?
---@field lo number? interval
---@field hi number?
---@field delta number? ours - paper
---@field apart boolean? the interval excludes the paper's value
---@field p number? of the paired comparison with the base row
---@field pairs integer?
---@field best boolean? the best mean of its column
---@field failed integer? seeds whose run failed and that have no value
---@field configurations integer? of several filed under the row, of which one counts: how many

---@class tabulate.Table
---@field name string
---@field title string
---@field note string
---@field level number
---@field filed boolean? a table of the paper, or an ablation: runs filed under its rows
---@field columns {key: string, title: string, dataset: string?, split: string?, metric: string}[]
---@field rows {name: string, cells: table<string, tabulate.Cell>}[]
---@field base string? name of the row compared with
---@field sql string where the numbers come from

local function cell_of(row, key)
    row.cells[key] = row.cells[key] or { values = {} }
    return row.cells[key]
end

-- Adds a row by name, in order of first mention.
local function row_of(t, name)
    t.by_name = t.by_name or {}
    if not t.by_name[name] then
        t.by_name[name] = { name = name, cells = {} }
        t.rows[#t.rows + 1] = t.by_name[name]
    end
    return t.by_name[name]
end

local function column_of(t, key, column)
    t.by_key = t.by_key or {}
    if not t.by_key[key] then
        column.key = key
        t.by_key[key] = column
        t.columns[#t.columns + 1] = column
    end
    return t.by_key[key]
end

local PAPER = "SELECT * FROM paper WHERE ref = ?1 ORDER BY pos, row, col"

-- In the order in which they were first run.
local ANSWERED = [[SELECT pr.row FROM paper_run pr JOIN run r ON r.id = pr.run
  WHERE pr.ref = ?1 AND r.state IN ('done', 'failed') AND r.deleted IS NULL GROUP BY pr.row ORDER BY min(r.id)]]

-- Rows whose runs failed are rows all the same: of each seed the newest run counts, one that is done first.
local FAILED = [[SELECT row, count(*) AS n FROM (
    SELECT pr.row, r.state,
      row_number() OVER (PARTITION BY pr.row, r.seed ORDER BY r.state <> 'done', r.id DESC) AS newest
    FROM paper_run pr JOIN run r ON r.id = pr.run WHERE pr.ref = ?1 AND r.deleted IS NULL)
  WHERE newest = 1 AND state = 'failed' GROUP BY row]]

local ANSWERS = [[SELECT pr.row, r.id, r.seed, lower(hex(r.config_hash)) AS hash, x.dataset, x.split, x.metric, x.value
  FROM paper_run pr JOIN run r ON r.id = pr.run JOIN result x ON x.run = r.id
  WHERE pr.ref = ?1 AND r.state = 'done' AND r.deleted IS NULL ORDER BY r.id]]

-- Results that the paper has no number for get a column of their own: a metric, or all where nobody asked for one and
-- no run has accuracies (maps of features), on test data, or on validation data where there are no others.
local function own_columns(answers, opts)
    local has, tested = false, {}
    for _, r in ipairs(answers) do
        has = has or r.metric == opts.metric
        tested[r.dataset .. r.metric] = tested[r.dataset .. r.metric] or r.split == "test"
    end
    local every = not has and not opts.asked
    return function(r)
        local split = tested[r.dataset .. r.metric] and "test" or "val"
        if r.split ~= split or not (every or r.metric == opts.metric) then return nil end
        local title = every and ("%s %s"):format(r.dataset, r.metric) or r.dataset
        return { title = split == "val" and title .. " (val)" or title, dataset = r.dataset, split = split,
            metric = r.metric }
    end
end

local function file_answer(cell, r)
    cell.by_hash = cell.by_hash or {}
    local of = cell.by_hash[r.hash] or { values = {}, n = 0 }
    cell.by_hash[r.hash] = of
    if of.values[r.seed] == nil then of.n = of.n + 1 end
    of.values[r.seed], of.newest = r.value, r.id -- a later run replaces an earlier one
end

-- A cell is one configuration: the one with most seeds, the newest of equals, as in the view paper_vs_ours.
local function choose_configuration(cell)
    local best, n = nil, 0
    for _, of in pairs(cell.by_hash or {}) do
        n = n + 1
        if not best or of.n > best.n or of.n == best.n and of.newest > best.newest then best = of end
    end
    if best then cell.values = best.values end
    if n > 1 then cell.configurations = n end
    cell.by_hash = nil
end

local function from_paper(db, name, opts)
    local head = db:first("SELECT title, base, note FROM paper_table WHERE ref = ?", name)
    local published = db:rows(PAPER, name)
    local known = db:first("SELECT 1 AS x FROM paper_run WHERE ref = ? LIMIT 1", name)
    if not head and #published == 0 and not known then return nil end
    local t = { name = name, title = head and head.title or name, note = head and head.note or "",
        base = head and head.base or nil, columns = {}, rows = {}, sql = ANSWERS, filed = true }
    local places = {} -- dataset, split, metric -> columns of the paper
    local order = {}
    for _, p in ipairs(published) do
        row_of(t, p.row)
        order[#order + 1] = p
    end
    table.sort(order, function(a, b)
        if a.pos % 10 ~= b.pos % 10 then return a.pos % 10 < b.pos % 10 end
        return a.pos < b.pos
    end)
    for _, p in ipairs(order) do
        column_of(t, p.col, { title = p.col, dataset = p.dataset, split = p.split, metric = p.metric })
        local cell = cell_of(row_of(t, p.row), p.col)
        cell.paper, cell.mark, cell.note = p.value, p.mark, p.note ~= "" and p.note or nil
        places[("%s\n%s\n%s"):format(p.dataset, p.split, p.metric)] = p.col
    end
    for r in db:each(ANSWERED, name) do row_of(t, r.row) end
    local answers = db:rows(ANSWERS, name)
    local own = own_columns(answers, opts)
    for _, r in ipairs(answers) do
        local row = row_of(t, r.row)
        local col = places[("%s\n%s\n%s"):format(r.dataset, r.split, r.metric)]
        local column = not col and own(r)
        if column then
            col = "ours " .. column.title
            column_of(t, col, column)
        end
        if col then file_answer(cell_of(row, col), r) end
    end
    for _, row in ipairs(t.rows) do
        for _, cell in pairs(row.cells) do choose_configuration(cell) end
    end
    for r in db:each(FAILED, name) do row_of(t, r.row).failed = r.n end
    return t
end

-- The trials of a sweep with their values, or with their runs' results on test data by another metric.
local SWEEP = [[SELECT t.params, t.seed, t.state, CASE WHEN ?2 IS NULL THEN t.value ELSE (SELECT x.value FROM result x
    WHERE x.run = t.run AND x.metric = ?2 ORDER BY x.split <> 'test', x.dataset LIMIT 1) END AS value
  FROM trial t WHERE t.sweep = ?1 ORDER BY t.number]]

local METRICS = [[SELECT DISTINCT x.metric AS name FROM trial t JOIN result x ON x.run = t.run WHERE t.sweep = ?
  ORDER BY 1]]

---Text of a point: tau=0.1 mscl.weight=0.3.
---@param params string JSON
---@return string
function tabulate.point(params)
    local keys, out = {}, {}
    local values = cjson.decode(params)
    for k in pairs(values) do keys[#keys + 1] = k end
    table.sort(keys)
    for i, k in ipairs(keys) do
        local v = values[k]
        if type(v) == "number" then v = ("%.6g"):format(v) end
        out[i] = k .. "=" .. (type(v) == "table" and cjson.encode(v) or tostring(v))
    end
    return #out > 0 and table.concat(out, " ") or "(no parameters)"
end

-- Refuses a metric that no run of a sweep has.
local function check_metric(db, sweep, metric)
    local names = {}
    for r in db:each(METRICS, sweep.id) do
        if r.name == metric then return end
        names[#names + 1] = r.name
    end
    error(("no run of sweep %s has a result '%s'%s; there are %s, and %s, which it searched for"):format(sweep.name,
        metric, suggest.hint(metric, names), table.concat(names, ", "), sweep.metric), 0)
end

-- By the metric that was searched for, or by another one.
local function from_sweep(db, sweep, metric)
    if not sweep then return nil end
    local other = metric and metric ~= sweep.metric and metric or nil
    if other then check_metric(db, sweep, other) end
    local goal = other and (other:find "loss" and "min" or "max") or sweep.goal
    local t = { name = sweep.name, title = ("Sweep %s: %s (%s is best)"):format(sweep.name, other or sweep.metric,
        goal == "max" and "highest" or "lowest"), note = "", columns = {}, rows = {}, sql = SWEEP, goal = goal,
        ranked = true }
    column_of(t, "value", { title = other or sweep.metric, metric = other or sweep.metric })
    for r in db:each(SWEEP, sweep.id, other) do
        local cell = cell_of(row_of(t, tabulate.point(r.params)), "value")
        if r.state == "done" then cell.values[r.seed] = r.value end
        if r.state == "failed" then cell.failed = (cell.failed or 0) + 1 end
    end
    return t
end

local EXPERIMENT = [[SELECT r.kind, r.name, lower(hex(r.config_hash)) AS hash, r.seed, x.dataset, x.split,
    x.value
  FROM run r JOIN experiment e ON e.id = r.experiment JOIN result x ON x.run = r.id
  WHERE e.name = ?1 AND r.state = 'done' AND r.deleted IS NULL AND x.metric = ?2 ORDER BY r.id]]

local FAILED_RUNS = [[SELECT name, hash, count(*) AS n FROM (
    SELECT r.name, lower(hex(r.config_hash)) AS hash, r.state,
      row_number() OVER (PARTITION BY r.name, r.config_hash, r.seed ORDER BY r.state <> 'done', r.id DESC) AS newest
    FROM run r JOIN experiment e ON e.id = r.experiment WHERE e.name = ?1 AND r.deleted IS NULL)
  WHERE newest = 1 AND state = 'failed' GROUP BY name, hash]]

local function from_experiment(db, name, opts)
    if not db:first("SELECT 1 AS x FROM experiment WHERE name = ?", name) then return nil end
    local t = { name = name, title = ("Experiment %s: %s"):format(name, opts.metric), note = "", columns = {},
        rows = {}, sql = EXPERIMENT }
    local list, failed, names = db:rows(EXPERIMENT, name, opts.metric), db:rows(FAILED_RUNS, name), {}
    for _, rows in ipairs { list, failed } do
        for _, r in ipairs(rows) do
            names[r.name] = names[r.name] or {}
            names[r.name][r.hash] = true
        end
    end
    local function row_for(r)
        local several = next(names[r.name], next(names[r.name])) ~= nil
        return row_of(t, several and ("%s (%s)"):format(r.name, r.hash:sub(1, 6)) or r.name)
    end
    for _, r in ipairs(list) do
        local row = row_for(r)
        local key = r.dataset .. " " .. r.split
        column_of(t, key, { title = key, dataset = r.dataset, split = r.split, metric = opts.metric })
        cell_of(row, key).values[r.seed] = r.value
    end
    for _, r in ipairs(failed) do row_for(r).failed = r.n end
    return t
end

-- Refuses a metric that was asked for and has no column of a table of the paper.
local function check_column(t, metric)
    local names = {}
    for i, c in ipairs(t.columns) do
        if c.metric == metric then return end
        names[i] = c.metric
    end
    error(("no run filed under %s has '%s' on test or validation data%s"):format(t.name, metric,
        suggest.hint(metric, names)), 0)
end

-- Failed runs have no results: they stand in every column of their row.
local function spread_failures(t, metric)
    for _, row in ipairs(t.rows) do
        if row.failed and #t.columns == 0 then column_of(t, metric, { title = metric, metric = metric }) end
        for _, column in ipairs(row.failed and t.columns or {}) do cell_of(row, column.key).failed = row.failed end
    end
end

local function better(t, column, a, b)
    local least = t.goal == "min" or (not t.goal and column.metric:match("loss"))
    if least then return a < b end
    return a > b
end

local function by_seed(values)
    local seeds, out = {}, {}
    for seed in pairs(values) do seeds[#seeds + 1] = seed end
    table.sort(seeds)
    for i, seed in ipairs(seeds) do out[i] = values[seed] end
    return out
end

local function describe(t, level)
    for _, column in ipairs(t.columns) do
        local top, seen, least = nil, 0, nil
        for _, row in ipairs(t.rows) do
            local cell = row.cells[column.key]
            if cell then
                local list = by_seed(cell.values)
                local s = stats.summary(list)
                cell.n, cell.mean, cell.sd = s.n, s.mean, s.sd
                cell.lo, cell.hi = stats.interval(list, level)
                if cell.mean and cell.paper then
                    cell.delta = cell.mean - cell.paper
                    cell.apart = cell.lo ~= nil and (cell.paper < cell.lo or cell.paper > cell.hi)
                end
                if cell.mean then
                    seen = seen + 1
                    if not top or better(t, column, cell.mean, top) then top = cell.mean end
                    if not least or better(t, column, least, cell.mean) then least = cell.mean end
                end
            end
        end
        for _, row in ipairs(t.rows) do -- nothing stands out when all are equal
            local cell = row.cells[column.key]
            if cell and seen > 1 and top ~= least and cell.mean == top then cell.best = true end
        end
    end
end

local function rank(t)
    local column = t.columns[1]
    table.sort(t.rows, function(a, b)
        local x, y = a.cells[column.key].mean, b.cells[column.key].mean
        if x and y and x ~= y then return better(t, column, x, y) end
        if (x == nil) ~= (y == nil) then return x ~= nil end
        return a.name < b.name
    end)
end

-- The row all others are compared with: the one asked for, the table's own, else the first that has runs.
local function choose_base(t, wanted)
    local names = {}
    for i, row in ipairs(t.rows) do names[i] = row.name end
    if wanted then
        for _, name in ipairs(names) do
            if name == wanted then return name end
        end
        error(("%s has no row '%s'%s; its rows are: %s"):format(t.name, wanted, suggest.hint(wanted, names),
            table.concat(names, "; ")), 0)
    end
    local function answered(row)
        for _, cell in pairs(row.cells) do
            if cell.mean then return true end
        end
    end
    for _, row in ipairs(t.rows) do
        if row.name == t.base and answered(row) then return row.name end
    end
    for _, row in ipairs(t.rows) do
        if answered(row) then return row.name end
    end
end

local function compare(t)
    local base
    for _, row in ipairs(t.rows) do
        if row.name == t.base then base = row end
    end
    for _, row in ipairs(base and t.rows or {}) do
        for key, cell in pairs(row.cells) do
            local other = base.cells[key]
            if row ~= base and cell.mean and other and other.mean then
                cell.p, cell.pairs, cell.gain = stats.paired(cell.values, other.values)
            end
        end
    end
end

---The names `mimic table` knows: {name, kind, title, runs}.
---@param db table
---@return table[]
function tabulate.list(db)
    return (db:rows [[
      SELECT ref AS name, CASE WHEN max(own) = 0 THEN 'paper' ELSE 'ablation' END AS kind,
        max(title) AS title,
        (SELECT count(DISTINCT r.id) FROM paper_run p JOIN run r ON r.id = p.run
          WHERE p.ref = a.ref AND r.state = 'done' AND r.deleted IS NULL) AS runs
      FROM (SELECT ref, title, 0 AS own FROM paper_table UNION ALL SELECT DISTINCT ref, '', 0 FROM paper
        UNION ALL SELECT DISTINCT ref, '', 1 FROM paper_run
          WHERE ref NOT IN (SELECT ref FROM paper_table UNION SELECT ref FROM paper)) a GROUP BY ref
      UNION ALL SELECT name, 'sweep', metric, (SELECT count(*) FROM trial t WHERE t.sweep = max(s.id)
        AND t.state = 'done') FROM sweep s GROUP BY name
      UNION ALL SELECT name, 'experiment', note, (SELECT count(*) FROM run r WHERE r.experiment = e.id
        AND r.state = 'done' AND r.deleted IS NULL) FROM experiment e]])
end

---@param db table database opened for reading
---@param name string a table of the paper or of an ablation, a sweep, or an experiment, in this order
---@param opts {level: number?, metric: string?, base: string?}|nil
---@return tabulate.Table
function tabulate.collect(db, name, opts)
    opts = opts or {}
    local o = { metric = opts.metric or "acc", asked = opts.metric ~= nil }
    local level = opts.level or 95
    local t = opts.sweep and from_sweep(db, opts.sweep) or from_paper(db, name, o)
        or from_sweep(db, find.any(db, name), opts.metric)
        or from_experiment(db, name, o)
    if not t then
        local names = {}
        for i, x in ipairs(tabulate.list(db)) do names[i] = x.name end
        error(("no table, sweep or experiment '%s'%s; `mimic table` lists them"):format(name,
            suggest.hint(name, names)), 0)
    end
    if opts.metric and t.filed then check_column(t, opts.metric) end
    t.level = level
    spread_failures(t, o.metric)
    describe(t, level)
    if t.ranked then rank(t) end
    t.base = choose_base(t, opts.base)
    compare(t)
    return t
end

return tabulate

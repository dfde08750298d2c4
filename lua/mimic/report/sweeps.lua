-- Sweeps in the report: heat map of two parameters, slices, parallel coordinates, importance, best so far, the
-- points with their statistics.
local cjson = require "cjson"
local chart = require "mimic.chart"
local page = require "mimic.report.page"
local plot = require "mimic.plot"
local progress = require "mimic.progress"
local tabulate = require "mimic.tabulate"
local text = require "mimic.tabulate_text"

local sweeps = {}

local LIST = [[SELECT l.*, s.pruner, s.seed, s.space FROM sweep_list l JOIN sweep s ON s.id = l.id
  WHERE ?1 IS NULL OR l.id IN (SELECT value FROM json_each(?1)) ORDER BY l.id]]

local TRIALS = [[SELECT number, config_hash, seed, params, state, value FROM trial WHERE sweep = ?1 ORDER BY number]]

-- Parameters that vary, with their values in order.
local function parameters(trials)
    local by_key, keys = {}, {}
    for _, t in ipairs(trials) do
        for k, v in pairs(t.params) do
            if type(v) == "table" then v = cjson.encode(v) elseif type(v) ~= "number" then v = tostring(v) end
            t.params[k] = v
            if not by_key[k] then
                by_key[k] = { key = k, seen = {}, values = {}, numeric = true }
                keys[#keys + 1] = k
            end
            local p = by_key[k]
            if not p.seen[v] then
                p.seen[v] = true
                p.values[#p.values + 1] = v
                p.numeric = p.numeric and type(v) == "number"
            end
        end
    end
    table.sort(keys)
    local out = {}
    for _, k in ipairs(keys) do
        local p = by_key[k]
        if #p.values > 1 then
            table.sort(p.values, function(a, b)
                if p.numeric then return a < b end
                return tostring(a) < tostring(b)
            end)
            out[#out + 1] = p
        end
    end
    return out
end

-- Places of a parameter: its values, or at most eight ranges with equal shares of them.
local function places(p)
    local names, index = {}, {}
    if #p.values <= 10 then
        for i, v in ipairs(p.values) do
            names[i] = type(v) == "number" and ("%.4g"):format(v) or v
            index[v] = i
        end
        return names, index
    end
    local n = 8
    for i, v in ipairs(p.values) do index[v] = math.min(n, (i - 1) * n // #p.values + 1) end
    for b = 1, n do
        local first, last
        for _, v in ipairs(p.values) do
            if index[v] == b then first, last = first or v, v end
        end
        names[b] = p.numeric and ("%.2g–%.2g"):format(first, last) or tostring(first) .. "…"
    end
    return names, index
end

---Share of the variance of the results that one parameter explains by itself: omega squared of a one-way
---analysis over its places, which is not flattered by many places.
---@param trials {params: table, value: number?}[]
---@param p table a parameter
---@return number 0..1
function sweeps.importance(trials, p)
    local _, index = places(p)
    local sum, n, groups, k = 0.0, 0, {}, 0
    for _, t in ipairs(trials) do
        local place = t.value and index[t.params[p.key]]
        if place then
            if not groups[place] then groups[place], k = { 0.0, 0 }, k + 1 end
            local g = groups[place]
            g[1], g[2] = g[1] + t.value, g[2] + 1
            sum, n = sum + t.value, n + 1
        end
    end
    if n <= k or k < 2 then return 0 end
    local mean, total, between = sum / n, 0.0, 0.0
    for _, t in ipairs(trials) do
        if t.value and index[t.params[p.key]] then total = total + (t.value - mean) ^ 2 end
    end
    for _, g in pairs(groups) do between = between + g[2] * (g[1] / g[2] - mean) ^ 2 end
    local within = (total - between) / (n - k)
    if total + within <= 0 then return 0 end
    return math.max(0, (between - (k - 1) * within) / (total + within))
end

local function figure(title, body, caption)
    return ("<figure><h3>%s</h3>%s<figcaption>%s</figcaption></figure>\n"):format(page.escape(title), body,
        page.escape(caption))
end

local function heatmap(sweep, trials, p, q)
    local x, xi = places(p)
    local y, yi = places(q)
    local cells = {}
    for _, t in ipairs(trials) do
        local i, j = xi[t.params[p.key]], yi[t.params[q.key]]
        if i and j and t.value then
            local c = cells[i .. "," .. j] or { 0.0, 0 }
            c[1], c[2] = c[1] + t.value, c[2] + 1
            cells[i .. "," .. j] = c
        end
    end
    local best
    local function cell(i, j)
        local c = cells[i .. "," .. j]
        if not c then return nil end
        local v = c[1] / c[2]
        return sweep.goal == "min" and -v or v, text.number({ metric = sweep.metric }, v)
    end
    for j in ipairs(y) do
        for i in ipairs(x) do
            local v, shown = cell(i, j)
            if v and (not best or v > best.v) then best = { v = v, shown = shown, x = x[i], y = y[j] } end
        end
    end
    if not best then return "" end
    local title = ("%s × %s"):format(p.key, q.key)
    local alt = ("Heat map of %s over %s and %s: best %s at %s = %s, %s = %s"):format(sweep.metric, p.key, q.key,
        best.shown, p.key, best.x, q.key, best.y)
    return figure(title, chart.heatmap { x = x, y = y, xlabel = p.key, ylabel = q.key, cell = cell, alt = alt },
        ("Mean %s of the finished trials; the best cell is framed: %s."):format(sweep.metric, best.shown))
end

local function slices(sweep, trials, params)
    local out = {}
    for _, p in ipairs(params) do
        local points = {}
        for _, t in ipairs(trials) do
            local x = t.params[p.key]
            if x ~= nil and t.value then points[#points + 1] = { x = x, y = t.value } end
        end
        if #points > 0 then
            local alt = ("%s against %s, %d trials"):format(sweep.metric, p.key, #points)
            out[#out + 1] = figure(p.key, chart.slice { points = points, xlabel = p.key, ylabel = sweep.metric,
                alt = alt }, "A dot for each trial; the line joins the means.")
        end
    end
    return table.concat(out)
end

-- A value's place on an axis in 0..1, and the axis' marks.
local function axis_of(p)
    local names, index = places(p)
    local ticks, at = {}, {}
    if p.numeric and #p.values > 10 then
        local lo, hi = p.values[1], p.values[#p.values]
        for _, v in ipairs(p.values) do at[v] = (v - lo) / math.max(hi - lo, 1e-300) end
        ticks = { { 0, plot.label(lo) }, { 1, plot.label(hi) } }
    else
        for v, i in pairs(index) do at[v] = #names > 1 and (i - 1) / (#names - 1) or 0.5 end
        for i, name in ipairs(names) do ticks[i] = { #names > 1 and (i - 1) / (#names - 1) or 0.5, name } end
    end
    return { name = p.key, ticks = ticks }, at
end

local function parallel(sweep, trials, params)
    local lo, hi, n = nil, nil, 0
    local values = {}
    for _, t in ipairs(trials) do
        if t.value then
            lo, hi, n = math.min(lo or t.value, t.value), math.max(hi or t.value, t.value), n + 1
            values[n] = t.value
        end
    end
    if n < 2 or hi == lo or #params < 2 then return "" end
    table.sort(values, function(a, b)
        if sweep.goal == "min" then return a < b end
        return a > b
    end)
    local threshold = values[math.max(1, n // 10)]
    local axes, at = {}, {}
    for i, p in ipairs(params) do axes[i], at[i] = axis_of(p) end
    axes[#axes + 1] = { name = sweep.metric, ticks = { { 0, plot.label(lo) }, { 1, plot.label(hi) } } }
    local lines = {}
    for _, t in ipairs(trials) do
        local line = { values = {}, title = tabulate.point(cjson.encode(t.params)) .. ": " .. plot.label(t.value or 0) }
        for i, p in ipairs(params) do line.values[i] = at[i][t.params[p.key]] end
        if t.value and #line.values == #params then -- a conditional parameter may be absent
            line.values[#params + 1] = (t.value - lo) / (hi - lo)
            line.best = sweep.goal == "min" and t.value <= threshold or sweep.goal == "max" and t.value >= threshold
            lines[#lines + 1] = line
        end
    end
    local alt = ("Parallel coordinates of %d trials; the best end at %s = %s"):format(#lines, sweep.metric,
        plot.label(values[1]))
    return figure("Parallel coordinates", chart.parallel { axes = axes, lines = lines, alt = alt },
        "A line for each trial; the best tenth is thick.")
end

local function best_so_far(sweep, trials)
    local points, best = {}, nil
    for _, t in ipairs(trials) do
        if t.value then
            if not best or (sweep.goal == "min" and t.value < best) or (sweep.goal == "max" and t.value > best) then
                best = t.value
            end
            points[#points + 1] = { step = t.number, value = best }
        end
    end
    if #points < 2 then return "" end
    local alt = ("Best %s so far over trials: ends at %s"):format(sweep.metric, plot.label(best))
    return figure("Best so far", plot.svg { title = "best so far", x = "trial", alt = alt,
        lines = { { name = "best " .. sweep.metric, points = plot.thin(points, 240) } } },
        "In the order of trial numbers; several seeds of a point count singly.")
end

local function importance(trials, params)
    local bars, alt = {}, {}
    for _, p in ipairs(params) do bars[#bars + 1] = { p.key, sweeps.importance(trials, p) } end
    table.sort(bars, function(a, b)
        if a[2] ~= b[2] then return a[2] > b[2] end
        return a[1] < b[1]
    end)
    for i, b in ipairs(bars) do
        b[3] = ("%.0f %%"):format(100 * b[2])
        alt[i] = b[1] .. " " .. b[3]
    end
    if #bars == 0 then return "", bars end
    return figure("Importance", chart.bars { bars = bars, alt = "Importance: " .. table.concat(alt, ", ") },
        "Share of the variance of the results that a parameter explains by itself (omega squared)."), bars
end

-- The pairs of parameters worth a heat map: tau and lambda (or weight) first, then the most important.
local function pairs_of(params, bars)
    local by_key, ranked = {}, {}
    for _, p in ipairs(params) do by_key[p.key] = p end
    local function add(p)
        for _, q in ipairs(ranked) do
            if q == p then return end
        end
        ranked[#ranked + 1] = p
    end
    for _, wanted in ipairs { "tau$", "lambda$", "weight$" } do
        for _, p in ipairs(params) do
            if p.key:match(wanted) then add(p) end
        end
    end
    for _, b in ipairs(bars) do add(by_key[b[1]]) end
    local out = {}
    for i = 1, math.min(#ranked, 3) do
        for j = i + 1, math.min(#ranked, 3) do out[#out + 1] = { ranked[i], ranked[j] } end
    end
    return out
end

local function one(store, sweep)
    local trials = store.db:rows(TRIALS, sweep.id)
    for _, t in ipairs(trials) do
        t.params = cjson.decode(t.params)
        if t.state ~= "done" then t.value = nil end
    end
    local params = parameters(trials)
    local bars_html, bars = importance(trials, params)
    local out = { ("<h3>%s</h3><p>%s</p><p class=\"soft\">%s, %s of %s, sampler %s%s, seed %d</p>"):format(
        page.escape(sweep.name), page.escape(progress.header_text { name = "trials", done = sweep.done,
            total = sweep.trials, running = sweep.running, failed = sweep.failed, pruned = sweep.pruned,
            best = sweep.best }), page.escape(sweep.state), sweep.goal == "max" and "highest" or "lowest",
        page.escape(sweep.metric), page.escape(sweep.sampler),
        sweep.pruner and ", pruner " .. page.escape(sweep.pruner) or "", sweep.seed), '<div class="grid-of">' }
    for _, pair in ipairs(pairs_of(params, bars)) do out[#out + 1] = heatmap(sweep, trials, pair[1], pair[2]) end
    out[#out + 1] = bars_html .. best_so_far(sweep, trials) .. parallel(sweep, trials, params)
    out[#out + 1] = slices(sweep, trials, params) .. "</div>"
    local ok, t = pcall(tabulate.collect, store.db, sweep.name, { sweep = sweep })
    if ok and #t.rows > 0 then
        local all = #t.rows
        local best = setmetatable({ rows = table.move(t.rows, 1, math.min(15, all), 1, {}) }, { __index = t })
        out[#out + 1] = text.html(best)
        if all > 15 then
            out[#out + 1] = ('<p class="note">The best 15 of %d points; all are in the CSV.</p>'):format(all)
        end
        out[#out + 1] = page.details("LaTeX", page.pre(text.render("latex", best)))
        out[#out + 1] = page.details("CSV of all points", page.pre(text.render("csv", t)))
    end
    return table.concat(out, "\n")
end

---@param store table
---@param ids string|nil JSON list of sweeps; nil: all
---@return string|nil HTML
function sweeps.section(store, ids)
    local out = {}
    for sweep in store.db:each(LIST, ids) do
        if sweep.trials > 0 then out[#out + 1] = one(store, sweep) end
    end
    if #out == 0 then return nil end
    return table.concat(out, "\n") .. page.source(TRIALS)
end

return sweeps

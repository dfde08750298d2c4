-- Curves in the report: mean line and band from the lowest to the highest seed.
local page = require "mimic.report.page"
local plot = require "mimic.plot"

local curves = {}

-- A curve in at most ?3 places: first the mean of each run within a place, then over runs.
local CURVE = [[WITH s AS (SELECT id FROM series WHERE name = ?1 AND run IN (SELECT value FROM json_each(?2))),
  span AS (SELECT min(step) AS a, max(step) - min(step) + 1 AS w FROM metric WHERE series IN (SELECT id FROM s)),
  one AS (SELECT k.series, (k.step - span.a) * ?3 / span.w AS place, max(k.step) AS step, avg(k.value) AS value
    FROM span, s CROSS JOIN metric k ON k.series = s.id GROUP BY k.series, place)
  SELECT max(step) AS step, avg(value) AS value, min(value) AS lo, max(value) AS hi FROM one GROUP BY place
  ORDER BY step]]

local NAMES = [[SELECT s.name, count(*) AS runs FROM series s
  WHERE s.run IN (SELECT value FROM json_each(?1)) AND s.n > 0 GROUP BY s.name ORDER BY s.name]]

local places = 240
local most_lines, most_groups, most_series = 6, 12, 12

-- Curves worth a place on the page; the others go behind a line that opens them.
local function is_main(name)
    return name:match("^val/") or name:match("^test/") or name == "train/loss" or name == "train/epoch_loss"
end

local function figure(store, name, groups)
    local lines, seeds = {}, 1
    for _, g in ipairs(groups) do
        local points = store.db:rows(CURVE, name, g.ids, places)
        if #points > 0 then
            seeds = math.max(seeds, #g.runs)
            if #g.runs == 1 then -- one seed has no band
                for _, p in ipairs(points) do p.lo, p.hi = nil, nil end
            end
            lines[#lines + 1] = { name = g.label, points = points }
        end
    end
    if #lines == 0 then return "" end
    local names = {}
    for i, l in ipairs(lines) do
        local p = l.points[#l.points]
        names[i] = p.value and ("%s ends at %s"):format(l.name, plot.label(p.value)) or l.name
    end
    local alt = ("%s over steps: %s"):format(name, table.concat(names, "; "))
    return ("<figure><h3>%s</h3>%s<figcaption>%s</figcaption></figure>\n"):format(page.escape(name),
        plot.svg { title = name, x = "step", lines = lines, alt = alt },
        seeds > 1 and "Line: mean over seeds; band: lowest to highest." or "One seed per line.")
end

-- Of many configurations the best by their main result are drawn.
local function chosen(list)
    if #list <= most_groups then return list, nil end
    local ranked = table.move(list, 1, #list, 1, {})
    table.sort(ranked, function(a, b)
        if (a.score or -math.huge) ~= (b.score or -math.huge) then
            return (a.score or -math.huge) > (b.score or -math.huge)
        end
        return a.place < b.place
    end)
    return table.move(ranked, 1, most_groups, 1, {}),
        ('<p class="note">The best %d of %d configurations are drawn; `mimic log RUN --plot` shows any.</p>'):format(
            most_groups, #list)
end

---Figures of one task: a step means the same in all of them. At most six lines each.
---@return string|nil HTML
function curves.section(store, groups)
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
        local list, note = chosen(kinds[kind])
        local ids = {}
        for _, g in ipairs(list) do ids[#ids + 1] = g.ids:sub(2, -2) end
        local main, more, skipped = {}, {}, 0
        for r in store.db:each(NAMES, "[" .. table.concat(ids, ",") .. "]") do
            local into = is_main(r.name) and main or more
            if into == more and #more >= most_series then
                skipped = skipped + 1
            else
                for from = 1, #list, most_lines do
                    local part = table.move(list, from, math.min(from + most_lines - 1, #list), 1, {})
                    table.insert(into, figure(store, r.name, part))
                end
            end
        end
        if #main + #more > 0 then
            out[#out + 1] = ("<h3>%s</h3>%s"):format(page.escape(kind), note or "")
            out[#out + 1] = '<div class="grid-of">' .. table.concat(main) .. "</div>"
            if #more > 0 then
                local figures = '<div class="grid-of">' .. table.concat(more) .. "</div>"
                if skipped > 0 then
                    figures = figures .. ('<p class="note">%d more series are in the database.</p>'):format(skipped)
                end
                out[#out + 1] = page.details("more series", figures)
            end
        end
    end
    if #out == 0 then return nil end
    return table.concat(out) .. page.source(CURVE)
end

return curves

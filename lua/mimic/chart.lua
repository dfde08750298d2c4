-- Charts of the report beside its curves, as inline SVG: heat map, scatter, slices, parallel coordinates, bars.
-- Everything that colour says is said by a number, a shape or a place too. Colours are the classes of the page's
-- style sheet.
local format = require "mimic.format"
local plot = require "mimic.plot"

local chart = {}

local function escape(s)
    return plot.escape(format.cut(tostring(s)))
end

local function finite(v)
    return v and v == v and v ~= math.huge and v ~= -math.huge
end

local function open(w, h, alt)
    return ('<svg viewBox="0 0 %d %d" role="img" aria-label="%s">'):format(w, h, escape(alt))
end

local function label(x, y, anchor, text, class)
    return ('<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>'):format(x, y, anchor,
        class and (' class="%s"'):format(class) or "", escape(text))
end

local function short(text, n)
    text = tostring(text)
    if (utf8.len(text) or #text) <= n then return text end
    return text:sub(1, (utf8.offset(text, n) or n) - 1) .. "…"
end

---A grid of numbers, darker where the value is higher. Cells without a value stay empty.
---@param spec table x and y (names of the places), xlabel, ylabel, alt, cell(i, j) -> number, text or nil
---@return string
function chart.heatmap(spec)
    local left, top, cw, ch = 92, 8, math.max(56, math.min(96, 540 // math.max(#spec.x, 1))), 34
    local w, h = left + cw * #spec.x + 8, top + ch * #spec.y + 44
    local lo, hi
    for j = 1, #spec.y do
        for i = 1, #spec.x do
            local v = spec.cell(i, j)
            if finite(v) then lo, hi = math.min(lo or v, v), math.max(hi or v, v) end
        end
    end
    local out = { open(w, h, spec.alt) }
    for j = 1, #spec.y do
        local y = top + (#spec.y - j) * ch -- small values at the bottom
        out[#out + 1] = label(left - 6, y + ch / 2 + 4, "end", short(spec.y[j], 12))
        for i = 1, #spec.x do
            local v, text = spec.cell(i, j)
            local share = finite(v) and (hi > lo and (v - lo) / (hi - lo) or 0.5) or 0
            out[#out + 1] = ('<rect class="cell%s" x="%d" y="%d" width="%d" height="%d" style="--share:%.2f"/>'):format(
                v == hi and finite(v) and " top" or "", left + (i - 1) * cw + 1, y + 1, cw - 2, ch - 2, share * 0.7)
            if text then out[#out + 1] = label(left + (i - 0.5) * cw, y + ch / 2 + 4, "middle", text, "number") end
        end
    end
    for i = 1, #spec.x do
        out[#out + 1] = label(left + (i - 0.5) * cw, top + #spec.y * ch + 16, "middle", short(spec.x[i], 12))
    end
    out[#out + 1] = label(left + #spec.x * cw / 2, h - 6, "middle", spec.xlabel)
    out[#out + 1] = ('<text transform="translate(12 %d) rotate(-90)" text-anchor="middle">%s</text>'):format(
        top + #spec.y * ch // 2, escape(spec.ylabel))
    return table.concat(out) .. "</svg>"
end

-- A mark of one of eight shapes around a place.
local function mark(k, x, y, r)
    local class = ("mark c%d"):format((k - 1) % 8 + 1)
    local shapes = {
        "M%.1f %.1fm-R 0a R R 0 1 0 D 0a R R 0 1 0 -D 0Z",       -- disc
        "M%.1f %.1fm-R -R h D v D h -D Z",                       -- square
        "M%.1f %.1fm0 -R l R D h -D Z",                          -- triangle
        "M%.1f %.1fm0 -D l R D l -R D l -R -D Z",                -- diamond
        "M%.1f %.1fm-R R l D -D m-D 0 l D D",                    -- cross
        "M%.1f %.1fm-R 0 h D m-R -R v D",                        -- plus
        "M%.1f %.1fm0 R l R -D h -D Z",                          -- triangle down
        "M%.1f %.1fm-R -R h D v D h -D Z m R 0 v D",             -- window
    }
    local sizes = { R = ("%.1f"):format(r), D = ("%.1f"):format(2 * r) }
    local d = shapes[(k - 1) % 8 + 1]:format(x, y):gsub("[RD]", sizes)
    return ('<path class="%s" d="%s"/>'):format(class, d)
end

---Points of classes in a plane, without axes: what t-SNE gives.
---@param spec {points: {[1]: number, [2]: number, [3]: integer}[], classes: string[], alt: string}
---@return string
function chart.scatter(spec)
    local size, margin = 520, 14
    local x0, x1, y0, y1
    for _, p in ipairs(spec.points) do
        x0, x1 = math.min(x0 or p[1], p[1]), math.max(x1 or p[1], p[1])
        y0, y1 = math.min(y0 or p[2], p[2]), math.max(y1 or p[2], p[2])
    end
    if not x0 then return "<p>No points.</p>" end
    local scale = (size - 2 * margin) / math.max(x1 - x0, y1 - y0, 1e-12)
    local out, used = { open(size, size, spec.alt) }, {}
    for _, p in ipairs(spec.points) do
        used[p[3]] = true
        out[#out + 1] = mark(p[3], margin + (p[1] - x0) * scale, margin + (p[2] - y0) * scale, 2.6)
    end
    out[#out + 1] = "</svg><div class=\"legend\">"
    for k, name in ipairs(spec.classes) do
        if used[k] then
            out[#out + 1] = ('<span><svg class="key" viewBox="0 0 12 12" aria-hidden="true">%s</svg>%s</span>'):format(
                mark(k, 6, 6, 3.5), escape(name))
        end
    end
    return table.concat(out) .. "</div>"
end

---Results against one parameter: a dot for each trial, a line through the means. Text values are places in order.
---@param spec {points: {x: number|string, y: number}[], xlabel: string, ylabel: string, alt: string}
---@return string
function chart.slice(spec)
    local W, H, left, right, top, bottom = 640, 300, 56, 12, 12, 40
    local numeric, places, order = true, {}, {}
    for _, p in ipairs(spec.points) do
        if type(p.x) ~= "number" then numeric = false end
    end
    for _, p in ipairs(spec.points) do
        if not places[p.x] then places[p.x], order[#order + 1] = true, p.x end
    end
    table.sort(order, function(a, b)
        if numeric then return a < b end
        return tostring(a) < tostring(b)
    end)
    for i, x in ipairs(order) do places[x] = i end
    local function at(x) return numeric and x or places[x] end
    local lines = { { points = {} } }
    for _, p in ipairs(spec.points) do table.insert(lines[1].points, { step = at(p.x), value = p.y }) end
    local x0, x1, y0, y1 = plot.range(lines)
    if not x0 then return "<p>No finite values.</p>" end
    local log = numeric and x0 > 0 and x1 / x0 >= 20
    local function fx(x) return log and math.log(x) or x end
    local a, b = fx(x0), fx(x1)
    local pad_x, pad_y = (b - a) * 0.05, (y1 - y0) * 0.06
    a, b, y0, y1 = a - pad_x, b + pad_x, y0 - pad_y, y1 + pad_y
    local function sx(x) return left + (fx(x) - a) / (b - a) * (W - left - right) end
    local function sy(y) return top + (y1 - y) / (y1 - y0) * (H - top - bottom) end
    local out = { open(W, H, spec.alt) }
    for _, y in ipairs(plot.ticks(y0, y1, 5)) do
        out[#out + 1] = ('<path class="grid" d="M%d %.1fH%d"/>'):format(left, sy(y), W - right)
        out[#out + 1] = label(left - 6, sy(y) + 4, "end", plot.label(y))
    end
    local step = math.max(1, math.ceil(#order / 7))
    for i = 1, #order, step do
        local x = order[i]
        out[#out + 1] = label(sx(at(x)), H - bottom + 16, "middle",
            short(type(x) == "number" and plot.label(x) or tostring(x), 10))
    end
    out[#out + 1] = ('<path class="axis" d="M%d %dV%dH%d"/>'):format(left, top, H - bottom, W - right)
    out[#out + 1] = label((left + W - right) / 2, H - 6, "middle", spec.xlabel .. (log and " (log)" or ""))
    local mean, path = {}, {}
    for _, p in ipairs(spec.points) do
        if finite(p.y) then
            local m = mean[p.x] or { 0, 0 }
            m[1], m[2] = m[1] + p.y, m[2] + 1
            mean[p.x] = m
        end
    end
    for _, x in ipairs(order) do
        local m = mean[x]
        if m then path[#path + 1] = ("%s%.1f %.1f"):format(#path == 0 and "M" or "L", sx(at(x)), sy(m[1] / m[2])) end
    end
    if #order <= 12 then out[#out + 1] = ('<path class="line c2" d="%s"/>'):format(table.concat(path)) end
    for _, p in ipairs(spec.points) do
        if finite(p.y) then
            out[#out + 1] = ('<circle class="dot c1" cx="%.1f" cy="%.1f" r="3" opacity=".7"/>'):format(sx(at(p.x)),
                sy(p.y))
        end
    end
    return table.concat(out) .. "</svg>"
end

---Parallel coordinates: an axis for each parameter and one for the result, a line for each point; the best tenth
---is thick and dark, the others thin.
---@param spec table axes {name, ticks {place, text}}, lines {values, best, title}, alt; places are in 0..1
---@return string
function chart.parallel(spec)
    local W, H, left, top, bottom = 760, 300, 60, 34, 18
    local n = #spec.axes
    local function ax(i) return left + (i - 1) / math.max(n - 1, 1) * (W - 2 * left) end
    local function ay(v) return H - bottom - v * (H - top - bottom) end
    local out = { open(W, H, spec.alt) }
    for pass = 1, 2 do
        for _, line in ipairs(spec.lines) do
            if line.best == (pass == 2) then
                local path = {}
                for i, v in ipairs(line.values) do
                    path[i] = ("%s%.1f %.1f"):format(i == 1 and "M" or "L", ax(i), ay(v))
                end
                out[#out + 1] = ('<path class="%s" d="%s"><title>%s</title></path>'):format(
                    line.best and "line c2" or "line thin", table.concat(path), escape(line.title))
            end
        end
    end
    for i, axis in ipairs(spec.axes) do
        out[#out + 1] = ('<path class="axis" d="M%.1f %dV%d"/>'):format(ax(i), top, H - bottom)
        out[#out + 1] = label(ax(i), 14, i == 1 and n > 1 and "start" or i == n and n > 1 and "end" or "middle",
            short(axis.name, 18), "strong")
        for _, t in ipairs(axis.ticks) do
            local last = i == n and n > 1
            out[#out + 1] = label(ax(i) + (last and 5 or -5), ay(t[1]) + 4, last and "start" or "end", short(t[2], 9),
                "halo")
        end
    end
    return table.concat(out) .. "</svg>"
end

---Bars with their numbers.
---@param spec {bars: {[1]: string, [2]: number, [3]: string}[], alt: string} value in 0..1
---@return string
function chart.bars(spec)
    local W, left, row = 480, 150, 26
    local H = row * #spec.bars + 6
    local out = { open(W, H, spec.alt) }
    for i, b in ipairs(spec.bars) do
        local y = (i - 1) * row + 3
        local width = math.max(0, math.min(1, b[2])) * (W - left - 70)
        out[#out + 1] = label(left - 8, y + 16, "end", short(b[1], 22))
        out[#out + 1] = ('<rect class="bar" x="%d" y="%d" width="%.1f" height="%d"/>'):format(left, y + 3, width,
            row - 8)
        out[#out + 1] = label(left + width + 6, y + 16, "start", b[3])
    end
    return table.concat(out) .. "</svg>"
end

return chart

-- Curves: in the terminal with Braille dots, and as inline SVG for the report. Both take lines
-- {name, points = {{step, value}, ...}}; values that are not finite make gaps.
local format = require "mimic.format"

local plot = {}

---Round steps that cover lo..hi, about n of them.
---@param lo number
---@param hi number
---@param n integer
---@return number[]
function plot.ticks(lo, hi, n)
    local span = hi - lo
    if span ~= span or span <= 0 then return { lo } end
    local raw = span / n
    local size = 10.0 ^ math.floor(math.log(raw, 10))
    for _, f in ipairs { 1, 2, 2.5, 5, 10 } do
        if f * size >= raw then
            size = f * size
            break
        end
    end
    local out = {}
    for i = math.ceil(lo / size - 1e-9), math.floor(hi / size + 1e-9) do out[#out + 1] = i * size end
    return out
end

---Short text of a number on an axis.
---@param x number
---@return string
function plot.label(x)
    if x == 0 then return "0" end
    local a = math.abs(x)
    if a >= 1e6 then return ("%.3gM"):format(x / 1e6) end
    if a >= 1e4 then return ("%.3gk"):format(x / 1e3) end
    if a < 1e-3 then return ("%.1e"):format(x) end
    return ("%.4g"):format(x)
end

local function finite(v)
    return v and v == v and v ~= math.huge and v ~= -math.huge
end

---Ranges of all finite points.
---@return number|nil x0, number x1, number y0, number y1
function plot.range(lines)
    local x0, x1, y0, y1
    for _, line in ipairs(lines) do
        for _, p in ipairs(line.points) do
            for _, v in ipairs { p.lo or p.value or false, p.hi or p.value or false } do
                if finite(v) then
                    x0, x1 = math.min(x0 or p.step, p.step), math.max(x1 or p.step, p.step)
                    y0, y1 = math.min(y0 or v, v), math.max(y1 or v, v)
                end
            end
        end
    end
    if not x0 then return nil end
    if x0 == x1 then x0, x1 = x0 - 1, x1 + 1 end
    if y0 == y1 then
        local d = math.max(math.abs(y0) * 0.05, 1e-6)
        y0, y1 = y0 - d, y1 + d
    end
    return x0, x1, y0, y1
end

-- Bit of a Braille cell by column 0..1 and row 0..3.
local dots = { [0] = { [0] = 0x01, 0x02, 0x04, 0x40 }, { [0] = 0x08, 0x10, 0x20, 0x80 } }

-- Sets the dots of a straight piece.
local function stroke(grid, w, h, ax, ay, bx, by)
    local n = math.max(math.abs(bx - ax), math.abs(by - ay), 1)
    for i = 0, n do
        local x = math.floor(ax + (bx - ax) * i / n + 0.5)
        local y = math.floor(ay + (by - ay) * i / n + 0.5)
        if x >= 0 and x < w and y >= 0 and y < h then
            local cell = (y // 4) * (w // 2) + x // 2
            grid[cell] = (grid[cell] or 0) | dots[x % 2][y % 4]
        end
    end
end

local marks = { "\27[36m", "\27[33m", "\27[35m", "\27[32m" }

---A plot of `width` columns and `height` rows of dots, with axes and a legend.
---@param lines {name: string, points: {step: number, value: number}[]}[]
---@param width integer
---@param height integer
---@return string
function plot.terminal(lines, width, height)
    local x0, x1, y0, y1 = plot.range(lines)
    if not x0 then return "(no finite values)" end
    local colour = #lines > 1 and not os.getenv("NO_COLOR") and require("mimic").sys.isatty(1)
    local margin = 9
    local columns = math.max(width - margin - 1, 16)
    local w, h = columns * 2, math.max(height, 4) * 4
    local cells, owner = {}, {}
    for k, line in ipairs(lines) do
        local grid = {}
        local px, py
        for _, p in ipairs(line.points) do
            if finite(p.value) then
                local x = (p.step - x0) / (x1 - x0) * (w - 1)
                local y = (y1 - p.value) / (y1 - y0) * (h - 1)
                stroke(grid, w, h, px or x, py or y, x, y)
                px, py = x, y
            else
                px, py = nil, nil
            end
        end
        for cell, bits in pairs(grid) do
            cells[cell] = (cells[cell] or 0) | bits
            owner[cell] = k
        end
    end
    local out = {}
    local rows = h // 4
    for r = 0, rows - 1 do
        local label = ""
        if r == 0 then label = plot.label(y1) elseif r == rows - 1 then label = plot.label(y0)
        elseif r == rows // 2 then label = plot.label(y1 + (y0 - y1) * (r + 0.5) / rows) end
        local parts = { (" "):rep(margin - 1 - #label), label, label ~= "" and "┤" or "│" }
        for c = 0, columns - 1 do
            local cell = r * columns + c
            local char = utf8.char(0x2800 + (cells[cell] or 0))
            if colour and owner[cell] then
                char = marks[(owner[cell] - 1) % #marks + 1] .. char .. "\27[0m"
            end
            parts[#parts + 1] = char
        end
        out[#out + 1] = table.concat(parts)
    end
    out[#out + 1] = (" "):rep(margin - 1) .. "└" .. ("─"):rep(columns)
    local left, right = plot.label(x0), plot.label(x1)
    out[#out + 1] = (" "):rep(margin) .. left .. (" "):rep(math.max(columns - #left - #right, 1)) .. right
    local legend = {}
    for k, line in ipairs(lines) do
        local last
        for _, p in ipairs(line.points) do
            if finite(p.value) then last = p.value end
        end
        local text = line.name .. (last and " " .. plot.label(last) or "")
        legend[k] = colour and marks[(k - 1) % #marks + 1] .. "━ \27[0m" .. text or text
    end
    out[#out + 1] = (" "):rep(margin) .. table.concat(legend, "   ")
    return table.concat(out, "\n")
end

---Text for HTML and SVG; control characters and marks that turn the direction of writing are replaced.
---@param s any
---@return string
function plot.escape(s)
    return (tostring(s):gsub('[&<>"\']', { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;",
        ["'"] = "&#39;" })
        :gsub("[%z\1-\8\11\12\14-\31\127]", "\u{fffd}"):gsub("\xc2[\x80-\x9f]", "\u{fffd}")
        :gsub("\xe2\x80[\x8e\x8f\xaa-\xae]", "\u{fffd}"):gsub("\xe2\x81[\xa6-\xa9]", "\u{fffd}"))
end

-- Dash pattern beside the colour: lines stay apart without colour.
local dashes = { "", "7 4", "2 3", "9 3 2 3", "12 3", "4 2" }

---A point list thinned to at most n buckets of {step, value, lo, hi}.
---@param points table[]
---@param n integer
---@return table[]
function plot.thin(points, n)
    if #points <= n then return points end
    local out = {}
    for b = 0, n - 1 do
        local from, to = b * #points // n + 1, (b + 1) * #points // n
        local sum, count, lo, hi = 0, 0, nil, nil
        for i = from, to do
            local p = points[i]
            if finite(p.value) then
                sum, count = sum + p.value, count + 1
                lo, hi = math.min(lo or p.value, p.lo or p.value), math.max(hi or p.value, p.hi or p.value)
            end
        end
        out[#out + 1] = { step = points[(from + to) // 2].step, value = count > 0 and sum / count or nil,
            lo = lo, hi = hi }
    end
    return out
end

local function path_of(points, sx, sy)
    local out, pen = {}, "M"
    for _, p in ipairs(points) do
        if finite(p.value) then
            out[#out + 1] = ("%s%.1f %.1f"):format(pen, sx(p.step), sy(p.value))
            pen = "L"
        else
            pen = "M"
        end
    end
    return table.concat(out)
end

local function band_of(points, sx, sy)
    local upper, lower = {}, {}
    for _, p in ipairs(points) do
        if finite(p.lo) and finite(p.hi) then
            upper[#upper + 1] = ("%.1f %.1f"):format(sx(p.step), sy(p.hi))
            table.insert(lower, 1, ("%.1f %.1f"):format(sx(p.step), sy(p.lo)))
        end
    end
    if #upper < 2 then return nil end
    return "M" .. table.concat(upper, "L") .. "L" .. table.concat(lower, "L") .. "Z"
end

---An SVG figure: lines with bands where points have lo and hi, axes, a legend. Colours are the classes
---c1..c6 of the page's style sheet.
---@param spec {title: string, x: string, y: string, lines: table[], alt: string}
---@return string
function plot.svg(spec)
    local W, H, left, right, top, bottom = 640, 300, 56, 12, 12, 40
    local x0, x1, y0, y1 = plot.range(spec.lines)
    if not x0 then return "<p>No finite values.</p>" end
    local pad = (y1 - y0) * 0.04
    y0, y1 = y0 - pad, y1 + pad
    local function sx(x) return left + (x - x0) / (x1 - x0) * (W - left - right) end
    local function sy(y) return top + (y1 - y) / (y1 - y0) * (H - top - bottom) end
    local out = {
        ('<svg viewBox="0 0 %d %d" role="img" aria-label="%s">'):format(W, H, plot.escape(spec.alt
            or spec.title)),
    }
    for _, y in ipairs(plot.ticks(y0, y1, 5)) do
        out[#out + 1] = ('<path class="grid" d="M%d %.1fH%d"/>'):format(left, sy(y), W - right)
        out[#out + 1] = ('<text x="%d" y="%.1f" text-anchor="end">%s</text>'):format(left - 6, sy(y) + 4,
            plot.escape(plot.label(y)))
    end
    for _, x in ipairs(plot.ticks(x0, x1, 6)) do
        out[#out + 1] = ('<text x="%.1f" y="%d" text-anchor="middle">%s</text>'):format(sx(x),
            H - bottom + 16, plot.escape(plot.label(x)))
    end
    out[#out + 1] = ('<path class="axis" d="M%d %dV%dH%d"/>'):format(left, top, H - bottom, W - right)
    out[#out + 1] = ('<text x="%.1f" y="%d" text-anchor="middle">%s</text>'):format((left + W - right) / 2,
        H - 6, plot.escape(spec.x or "step"))
    for k, line in ipairs(spec.lines) do
        local class = (k - 1) % 6 + 1
        local band = band_of(line.points, sx, sy)
        if band then out[#out + 1] = ('<path class="band c%d" d="%s"/>'):format(class, band) end
    end
    for k, line in ipairs(spec.lines) do
        local class = (k - 1) % 6 + 1
        local dash = dashes[class] ~= "" and (' stroke-dasharray="%s"'):format(dashes[class]) or ""
        out[#out + 1] = ('<path class="line c%d"%s d="%s"><title>%s</title></path>'):format(class, dash,
            path_of(line.points, sx, sy), plot.escape(format.cut(line.name)))
        local finite_points = 0
        for _, p in ipairs(line.points) do
            if finite(p.value) then finite_points = finite_points + 1 end
        end
        if finite_points <= 12 then
            for _, p in ipairs(line.points) do
                if finite(p.value) then
                    out[#out + 1] = ('<circle class="dot c%d" cx="%.1f" cy="%.1f" r="2.5"/>'):format(class,
                        sx(p.step), sy(p.value))
                end
            end
        end
    end
    out[#out + 1] = "</svg>"
    local legend = {}
    for k, line in ipairs(spec.lines) do
        local class = (k - 1) % 6 + 1
        local dash = dashes[class] ~= "" and (' stroke-dasharray="%s"'):format(dashes[class]) or ""
        local key = '<svg class="key dash" viewBox="0 0 28 8" aria-hidden="true">' ..
            '<path class="line c%d"%s d="M0 4H28"/></svg>'
        legend[k] = ("<span>%s%s</span>"):format(key:format(class, dash), plot.escape(format.cut(line.name)))
    end
    return table.concat(out) .. '<div class="legend">' .. table.concat(legend) .. "</div>"
end

return plot

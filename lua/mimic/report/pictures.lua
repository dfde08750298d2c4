-- Pictures in the report: reconstructions at each checkpoint, maps of features (t-SNE).
local cjson = require "cjson"
local chart = require "mimic.chart"
local classes = require "mimic.report.classes"
local page = require "mimic.report.page"

local pictures = {}

local PICTURES = [[SELECT a.name, a.step, lower(hex(a.sha256)) AS sha FROM artifact a
  WHERE a.run = ?1 AND a.kind LIKE '%jpeg%' AND a.name NOT LIKE 'mistaken/%' ORDER BY a.name, a.step]]

local most_steps, most_groups = 6, 12

-- At most six of a list: the first, the last, and some between at equal distances.
local function spread(list)
    if #list <= most_steps then return list end
    local out = {}
    for i = 0, most_steps - 1 do out[i + 1] = list[1 + i * (#list - 1) // (most_steps - 1)] end
    return out
end

local function image(store, a, alt)
    return ('<img class="pixels" alt="%s" src="data:image/jpeg;base64,%s">'):format(page.escape(alt),
        page.base64(store.db:get_blob(a.sha)))
end

---@return string|nil HTML
function pictures.section(store, groups)
    local out, shown = {}, 0
    for _, g in ipairs(groups) do
        local r = g.runs[1]
        local by_name, names = {}, {}
        for _, a in ipairs(shown < most_groups and store.db:rows(PICTURES, r.id) or {}) do
            if not by_name[a.name] then
                by_name[a.name] = {}
                names[#names + 1] = a.name
            end
            table.insert(by_name[a.name], a)
        end
        if #names > 0 then shown = shown + 1 end
        for _, name in ipairs(names) do
            local list = spread(by_name[name])
            local what = name == "reconstruction" and "each row: input, masked input, output" or name
            out[#out + 1] = ('<h3>%s, seed %d: %s</h3><div class="grid-of narrow">'):format(page.escape(g.label),
                r.seed, page.escape(what))
            for _, a in ipairs(list) do
                local at = a.step >= 0 and "step " .. a.step or "of the run"
                out[#out + 1] = ("<figure>%s<figcaption>%s</figcaption></figure>"):format(
                    image(store, a, ("%s of run %s at %s: %s"):format(name, g.label, at, what)), page.escape(at))
            end
            out[#out + 1] = "</div>"
            if #list < #by_name[name] then
                out[#out + 1] = ('<p class="note">%d of %d checkpoints.</p>'):format(#list, #by_name[name])
            end
        end
    end
    if #out == 0 then return nil end
    return table.concat(out, "\n") .. page.source(PICTURES)
end

local MAPS = [[SELECT a.name, a.step, lower(hex(a.sha256)) AS sha FROM artifact a
  WHERE a.run = ?1 AND a.kind = 'tsne' ORDER BY a.name, a.step DESC]]

-- The map as a list of {x, y, class}, classes from 1. The artifact is JSON: {"x":[...], "y":[...], "label":[...]},
-- labels from 0, with "classes" (names) and "note" if wanted.
local function points_of(map)
    local out, n = {}, 0
    for i, x in ipairs(map.x) do
        out[i] = { x, map.y[i], math.tointeger(map.label and map.label[i] or 0) + 1 }
        n = math.max(n, out[i][3])
    end
    return out, n
end

---@return string|nil HTML
function pictures.maps(store, groups)
    local out, seen = {}, 0
    for _, g in ipairs(groups) do
        for _, r in ipairs(g.runs) do
            local last
            for a in store.db:each(MAPS, r.id) do
                if a.name ~= last and seen < most_groups then
                    last, seen = a.name, seen + 1
                    local map = cjson.decode(store.db:get_blob(a.sha))
                    local points, n = points_of(map)
                    local names = type(map.classes) == "table" and map.classes or classes.names(store, r.id, n)
                    local alt = ("t-SNE map of %d features of run %s, seed %d, in %d classes"):format(#points, g.label,
                        r.seed, n)
                    local figure = "<figure><h3>%s, seed %d: %s</h3>%s<figcaption>%d features%s</figcaption></figure>"
                    out[#out + 1] = figure:format(page.escape(g.label), r.seed, page.escape(a.name),
                            chart.scatter { points = points, classes = names, alt = alt }, #points,
                            map.note and "; " .. page.escape(map.note) or "")
                end
            end
        end
    end
    if #out == 0 then return nil end
    return '<div class="grid-of">' .. table.concat(out, "\n") .. "</div>" .. page.source(MAPS)
end

return pictures

-- Classes in the report: confusion matrix, F1 of each class, the worst confusions with their pictures.
local cjson = require "cjson"
local chart = require "mimic.chart"
local evaluate = require "mimic.evaluate"
local page = require "mimic.report.page"

local classes = {}

local CONFUSION = [[SELECT c.dataset, c.split, c.truth, c.pred, sum(c.n) AS n FROM confusion c
  WHERE c.run IN (SELECT value FROM json_each(?1)) GROUP BY c.dataset, c.split, c.truth, c.pred]]

local NAMES = [[SELECT lower(hex(sha256)) AS sha FROM artifact WHERE run = ?1 AND name = 'classes']]

local MISTAKEN = [[SELECT name, step, lower(hex(sha256)) AS sha FROM artifact
  WHERE run IN (SELECT value FROM json_each(?1)) AND name = ?2 AND kind LIKE '%jpeg%' ORDER BY step DESC, run LIMIT 1]]

local most_groups = 12

---Names of n classes of a run; a class without one gets its number.
---@return string[]
function classes.names(store, run, n)
    local row = store.db:first(NAMES, run)
    local names = row and cjson.decode(store.db:get_blob(row.sha)) or {}
    for k = 1, n do
        if not names[k] or names[k] == "" then names[k] = tostring(k - 1) end
    end
    return names
end

-- Scores of each class and of all, in percent.
local function scores(counts, n)
    local sum, column, right, total = {}, {}, 0, 0
    for i = 1, n do
        sum[i] = 0
        for j = 1, n do
            local v = counts[i][j] or 0
            sum[i], column[j], total = sum[i] + v, (column[j] or 0) + v, total + v
            if i == j then right = right + v end
        end
    end
    local out = { total = total, acc = 100 * right / math.max(total, 1), sum = sum }
    local f1_sum, f1_n = 0, 0
    for i = 1, n do
        local hit = counts[i][i] or 0
        out[i] = {
            precision = column[i] > 0 and 100 * hit / column[i] or nil,
            recall = sum[i] > 0 and 100 * hit / sum[i] or nil,
            f1 = sum[i] + column[i] > 0 and 200 * hit / (sum[i] + column[i]) or nil,
        }
        if sum[i] > 0 then f1_sum, f1_n = f1_sum + (out[i].f1 or 0), f1_n + 1 end
    end
    out.f1 = f1_sum / math.max(f1_n, 1)
    return out
end

local function matrix(counts, n, names, s)
    local out = { '<div class="scroll"><table class="heat"><thead><tr><th scope="col">true \\ predicted</th>' }
    for j = 1, n + 3 do
        local title = j <= n and names[j] or ({ "precision", "recall", "F1" })[j - n]
        out[#out + 1] = ('<th scope="col" class="n">%s</th>'):format(page.escape(title))
    end
    out[#out + 1] = "</tr></thead><tbody>\n"
    for i = 1, n do
        out[#out + 1] = ('<tr><th scope="row">%s</th>'):format(page.escape(names[i]))
        for j = 1, n do
            local v = counts[i][j] or 0
            local share = s.sum[i] > 0 and v / s.sum[i] or 0
            out[#out + 1] = ('<td class="cell%s" style="--share:%.2f">%d</td>'):format(i == j and " right" or "",
                share * 0.75, v)
        end
        for _, x in ipairs { s[i].precision or false, s[i].recall or false, s[i].f1 or false } do
            out[#out + 1] = ('<td class="n">%s</td>'):format(x and ("%.1f"):format(x) or "–")
        end
        out[#out + 1] = "</tr>\n"
    end
    out[#out + 1] = "</tbody></table></div>"
    return table.concat(out)
end

local function f1_figure(label, names, n, s)
    local bars, alt = {}, {}
    for i = 1, n do
        local f1 = s[i].f1 or 0
        bars[i] = { names[i], f1 / 100, ("%.1f"):format(f1) }
        alt[i] = ("%s %.1f"):format(names[i], f1)
    end
    return ("<figure><h3>F1 of each class</h3>%s</figure>"):format(chart.bars { bars = bars,
        alt = ("F1 of each class of %s: %s"):format(label, table.concat(alt, ", ")) })
end

-- The three pairs of classes most often taken for each other, by share of the true class.
local function worst(store, g, set, names)
    local out = {}
    for k, c in ipairs(evaluate.worst(set.counts, 3)) do
        local text = ("%s taken for %s: %d, %.1f %% of the class"):format(names[c.truth + 1], names[c.pred + 1], c.n,
            100 * c.share)
        local a = store.db:first(MISTAKEN, g.ids, ("mistaken/%s/%s/%d/%d"):format(set.dataset, set.split, c.truth,
            c.pred))
        local img = a and ('<img class="strip" alt="%s" src="data:image/jpeg;base64,%s">'):format(
            page.escape("Pictures: " .. text), page.base64(store.db:get_blob(a.sha))) or ""
        out[k] = ("<li>%s%s</li>"):format(page.escape(text), img)
    end
    if #out == 0 then return "" end
    return "<figure><h3>Worst confusions</h3><ol class=\"worst\">" .. table.concat(out, "\n") .. "</ol></figure>"
end

local function sets_of(store, ids)
    local sets, order = {}, {}
    for r in store.db:each(CONFUSION, ids) do
        local key = r.dataset .. " " .. r.split
        if not sets[key] then
            sets[key] = { n = 0, counts = {}, dataset = r.dataset, split = r.split, key = key }
            order[#order + 1] = sets[key]
        end
        local s = sets[key]
        s.n = math.max(s.n, r.truth + 1, r.pred + 1)
        s.counts[r.truth + 1] = s.counts[r.truth + 1] or {}
        s.counts[r.truth + 1][r.pred + 1] = r.n
    end
    for _, s in ipairs(order) do
        for i = 1, s.n do
            s.counts[i] = s.counts[i] or {}
            for j = 1, s.n do s.counts[i][j] = s.counts[i][j] or 0 end
        end
    end
    return order
end

---@return string|nil HTML
function classes.section(store, groups)
    local out, shown, left_out = {}, 0, 0
    for _, g in ipairs(groups) do
        local sets = shown < most_groups and sets_of(store, g.ids) or {}
        if shown >= most_groups then left_out = left_out + 1 end
        if #sets > 0 then shown = shown + 1 end
        for _, set in ipairs(sets) do
            local names = classes.names(store, g.runs[1].id, set.n)
            local s = scores(set.counts, set.n)
            local seeds = #g.runs > 1 and (" of %d seeds together"):format(#g.runs) or ""
            out[#out + 1] = ("<h3>%s on %s</h3>%s"):format(page.escape(g.label), page.escape(set.key),
                matrix(set.counts, set.n, names, s))
            out[#out + 1] = ('<p class="note">%d predictions%s: accuracy %.2f, mean F1 %.2f (percent).</p>'):format(
                s.total, seeds, s.acc, s.f1)
            out[#out + 1] = '<div class="grid-of">' .. f1_figure(g.label, names, set.n, s) ..
                worst(store, g, set, names) .. "</div>"
        end
    end
    if #out == 0 then return nil end
    if left_out > 0 then
        out[#out + 1] = ('<p class="note">%d more configurations are in the view class_score.</p>'):format(left_out)
    end
    return table.concat(out, "\n") .. page.source(CONFUSION)
end

return classes

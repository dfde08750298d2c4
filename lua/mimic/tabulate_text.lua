-- A table of mimic.tabulate as text: lines for the terminal, LaTeX, Markdown, CSV, JSON, HTML. The long form
-- has a line per cell with all that is known; the wide form a row per row, as papers print it.
local format = require "mimic.format"
local plot = require "mimic.plot"

local text = {}

-- What a person reads of a name: without what a terminal takes for a command, and not a page of it.
local function short(s)
    return format.cut(format.safe(s))
end

local function is_percent(column)
    return column.metric:match("acc") ~= nil or column.metric:match("recall") ~= nil
        or column.metric:match("f1") ~= nil
end

---A value of a column with the digits of its metric.
---@param column table
---@param v number|nil
---@return string "" for nil
function text.number(column, v)
    if v == nil then return "" end
    return (is_percent(column) and "%.2f" or "%.4g"):format(v)
end

local function signed(column, v)
    if v == nil then return "" end
    return (v >= 0 and "+" or "-") .. text.number(column, math.abs(v))
end
text.signed = signed

local function interval(column, cell)
    if not cell.lo then return "" end
    return ("%s to %s"):format(text.number(column, cell.lo), text.number(column, cell.hi))
end
text.interval = interval

-- "failed (2)": how many runs of a cell's seeds failed.
local function failures(cell)
    return cell.failed and ("failed (%d)"):format(cell.failed) or ""
end

local marks = { inferred = "i", quoted = "q" }

---The published value with the letter of its source: i inferred, q quoted; nothing when printed.
local function published(column, cell)
    if not cell.paper then return "" end
    return text.number(column, cell.paper) .. (marks[cell.mark] and " " .. marks[cell.mark] or "")
end

---What the letters and stars mean, and how it was computed.
---@param t tabulate.Table
---@return string[]
function text.notes(t)
    local has, out, several = {}, {}, {}
    for _, row in ipairs(t.rows) do
        local mixed = false
        for _, cell in pairs(row.cells) do
            mixed = mixed or cell.configurations ~= nil
            if cell.mark and cell.paper then has[cell.mark] = true end
            if cell.n and cell.n > 0 then has.ours = true end
            if cell.p then has.p = true end
            if cell.paper then has.paper = true end
        end
        if mixed then several[#several + 1] = ("'%s'"):format(short(row.name)) end
    end
    if t.note ~= "" then out[#out + 1] = t.note end
    if has.inferred then out[#out + 1] = "i: the row or value is inferred from the paper's text" end
    if has.quoted then out[#out + 1] = "q: quoted by the paper from another work" end
    if has.ours then
        out[#out + 1] = ("ours: mean ± sample standard deviation over n seeds; interval: %g %% bootstrap of the mean")
            :format(t.level)
    end
    if #several > 0 then
        out[#out + 1] = ("of several configurations filed under %s the one with most seeds counts, the newest of "
            .. "equals (`mimic diff RUN RUN` tells them apart)"):format(table.concat(several, ", "))
    end
    if has.paper and has.ours then out[#out + 1] = "delta: ours - paper" end
    if has.p then
        out[#out + 1] = ("p: paired bootstrap over common seeds against '%s', never below 2/2^n; * p < 0.05")
            :format(short(t.base))
    end
    if not has.ours then out[#out + 1] = "no run has been filed under a row yet: answers = { ref, row } in exp:run" end
    return out
end

-- --- long form

local long_columns = { "row", "on", "paper", "ours", "sd", "n", "failed", "interval", "delta", "p" }

local function long(t, exact)
    local rows = {}
    for _, row in ipairs(t.rows) do
        for _, column in ipairs(t.columns) do
            local c = row.cells[column.key]
            if c and exact then
                rows[#rows + 1] = { row = row.name, on = column.title, dataset = column.dataset, split = column.split,
                    metric = column.metric, paper = c.paper, mark = c.paper and c.mark, ours = c.mean, sd = c.sd,
                    n = c.n, low = c.lo, high = c.hi, delta = c.delta, p = c.p, pairs = c.pairs, gain = c.gain,
                    failed = c.failed }
            elseif c and (c.paper or c.n > 0 or c.failed) then
                rows[#rows + 1] = { row = row.name, on = column.title, paper = published(column, c),
                    failed = c.n > 0 and c.failed or nil,
                    ours = c.n == 0 and failures(c) or text.number(column, c.mean) .. (c.best and " <" or ""),
                    sd = text.number(column, c.sd),
                    n = c.n > 0 and c.n or nil, interval = interval(column, c),
                    delta = signed(column, c.delta) .. (c.apart and " !" or ""),
                    p = c.p and ("%.3g%s"):format(c.p, c.p < 0.05 and " *" or "")
                        or row.name == t.base and c.n > 0 and "base" or "" }
            end
        end
    end
    return rows
end

local exact_columns = { "row", "on", "dataset", "split", "metric", "paper", "mark", "ours", "sd", "n", "low", "high",
    "delta", "p", "pairs", "gain", "failed" }

-- Columns that say something.
local function used(rows, columns)
    local out = {}
    for _, name in ipairs(columns) do
        for _, row in ipairs(rows) do
            if row[name] ~= nil and row[name] ~= "" then
                out[#out + 1] = name
                break
            end
        end
    end
    return out
end

local function readable(t, form)
    local rows = long(t)
    local out = { short(t.title), "" }
    for _, row in ipairs(rows) do -- a row's name once
        local name = row.row
        if name == out.last then row.row = "" end
        out.last = name
    end
    out[#out + 1] = #rows > 0 and format.format(form, rows, used(rows, long_columns)) or "(nothing yet)"
    out[#out + 1] = ""
    for _, note in ipairs(text.notes(t)) do out[#out + 1] = format.safe(note) end
    local signs = {}
    for _, row in ipairs(rows) do
        if row.ours:match("<$") then signs.best = true end
        if row.delta:match("!$") then signs.apart = true end
    end
    if signs.best then out[#out + 1] = "<: best mean of its column" end
    if signs.apart then out[#out + 1] = "!: the interval excludes the paper's value" end
    return table.concat(out, "\n")
end

-- --- wide form

-- What the columns of the wide form hold: for each column of the table the parts that any row has.
local function parts_of(t, with_interval)
    local out = {}
    for _, column in ipairs(t.columns) do
        local has = {}
        for _, row in ipairs(t.rows) do
            local c = row.cells[column.key]
            if c then
                has.paper = has.paper or c.paper ~= nil
                has.ours = has.ours or c.n > 0 or c.failed ~= nil
                has.interval = has.interval or c.lo ~= nil
                has.delta = has.delta or c.delta ~= nil
            end
        end
        local list = {}
        if has.paper then list[#list + 1] = "paper" end
        if has.ours or not has.paper then list[#list + 1] = "ours" end
        if has.interval and with_interval then list[#list + 1] = "interval" end
        if has.delta then list[#list + 1] = "delta" end
        out[#out + 1] = { column = column, parts = list }
    end
    return out
end

local headings = { paper = "paper", ours = "ours (n)", delta = "delta" }

-- Text of one part of a cell; pm is how ± is written.
local function part_text(part, column, c, pm)
    if not c then return "" end
    if part == "paper" then return published(column, c) end
    if part == "interval" then return interval(column, c) end
    if part == "delta" then return signed(column, c.delta) end
    if c.n == 0 then return failures(c) end
    local sd = c.sd and (" %s %s"):format(pm, text.number(column, c.sd)) or ""
    return ("%s%s (%d%s)%s"):format(text.number(column, c.mean), sd, c.n, c.failed and (", %d failed"):format(c.failed)
        or "", c.p and c.p < 0.05 and " *" or "")
end

---Text for LaTeX: what TeX would read as a command is printed.
---@param s any
---@return string
function text.latex_escape(s)
    s = format.safe(s)
    s = s:gsub("[\\{}$&#%%_^~<>|\"]", { ["\\"] = "\\textbackslash{}", ["{"] = "\\{", ["}"] = "\\}", ["$"] = "\\$",
        ["&"] = "\\&", ["#"] = "\\#", ["%"] = "\\%", ["_"] = "\\_", ["^"] = "\\textasciicircum{}",
        ["~"] = "\\textasciitilde{}", ["<"] = "\\textless{}", [">"] = "\\textgreater{}", ["|"] = "\\textbar{}",
        ['"'] = "\\char34{}" })
    return (s:gsub("±", "$\\pm$"):gsub("λ", "$\\lambda$"):gsub("τ", "$\\tau$"):gsub("−", "$-$"))
end

-- In LaTeX a star and a minus are set in mathematics, the best mean is bold.
local function latex_part(part, column, c)
    local s = text.latex_escape(part_text(part, column, c, "±"))
    if part == "paper" then return (s:gsub(" ([iq])$", "\\textsuperscript{%1}")) end
    if part == "delta" then return (s:gsub("^[+-]", "$%0$")) end
    s = s:gsub(" %*$", "$^{*}$")
    if part == "ours" and c and c.best then
        local value, rest = s:match("^([^(]-)( %(.*)$")
        s = ("\\textbf{%s}%s"):format(value, rest)
    end
    return s
end

local function latex(t, with_interval)
    local groups = parts_of(t, with_interval)
    local out = { "% " .. short(t.title) .. "; \\usepackage{booktabs,textcomp}" }
    for _, note in ipairs(text.notes(t)) do out[#out + 1] = "% " .. format.safe(note) end
    local spec, top, rules, heads, at = { "l" }, { "" }, {}, { "" }, 2
    for _, g in ipairs(groups) do
        spec[#spec + 1] = ("r"):rep(#g.parts)
        top[#top + 1] = ("\\multicolumn{%d}{c}{%s}"):format(#g.parts, text.latex_escape(short(g.column.title)))
        rules[#rules + 1] = ("\\cmidrule(lr){%d-%d}"):format(at, at + #g.parts - 1)
        for _, part in ipairs(g.parts) do
            heads[#heads + 1] = part == "delta" and "$\\Delta$" or part == "interval" and ("%g\\,\\%%"):format(t.level)
                or headings[part]
        end
        at = at + #g.parts
    end
    out[#out + 1] = ("\\begin{tabular}{%s}"):format(table.concat(spec))
    out[#out + 1] = "\\toprule"
    out[#out + 1] = table.concat(top, " & ") .. " \\\\"
    out[#out + 1] = table.concat(rules)
    out[#out + 1] = table.concat(heads, " & ") .. " \\\\"
    out[#out + 1] = "\\midrule"
    for _, row in ipairs(t.rows) do
        local cells = { text.latex_escape(short(row.name)) }
        for _, g in ipairs(groups) do
            for _, part in ipairs(g.parts) do
                cells[#cells + 1] = latex_part(part, g.column, row.cells[g.column.key])
            end
        end
        out[#out + 1] = table.concat(cells, " & ") .. " \\\\"
    end
    out[#out + 1] = "\\bottomrule"
    out[#out + 1] = "\\end{tabular}"
    return table.concat(out, "\n")
end

local function heading(t, column, part)
    local title = part == "interval" and ("%g %% interval"):format(t.level) or headings[part]
    return column.title .. " " .. title
end

local function markdown(t, with_interval)
    local escape = format.markdown_escape
    local groups = parts_of(t, with_interval)
    local out, head, rule = {}, { "" }, { "---" }
    for _, g in ipairs(groups) do
        for _, part in ipairs(g.parts) do
            head[#head + 1] = escape(short(heading(t, g.column, part)))
            rule[#rule + 1] = "---:"
        end
    end
    local function line(cells) out[#out + 1] = "| " .. table.concat(cells, " | ") .. " |" end
    line(head)
    line(rule)
    for _, row in ipairs(t.rows) do
        local cells = { escape(short(row.name)) }
        for _, g in ipairs(groups) do
            for _, part in ipairs(g.parts) do
                local c = row.cells[g.column.key]
                local s = escape(part_text(part, g.column, c, "±"))
                if part == "ours" and c and c.best then s = "**" .. s .. "**" end
                cells[#cells + 1] = s
            end
        end
        line(cells)
    end
    out[#out + 1] = ""
    for _, note in ipairs(text.notes(t)) do out[#out + 1] = "* " .. escape(format.safe(note)) end
    return table.concat(out, "\n")
end

---HTML of the wide form with intervals: a delta is coloured only where the interval excludes the paper's value,
---and then also carries a mark.
---@param t tabulate.Table
---@return string
function text.html(t)
    local escape = plot.escape
    local groups = parts_of(t, true)
    local out = { '<div class="scroll"><table>\n<caption class="soft">', escape(short(t.title)),
        "</caption>\n<thead><tr>", '<th scope="col" rowspan="2"></th>' }
    for _, g in ipairs(groups) do
        out[#out + 1] = ('<th scope="colgroup" class="n" colspan="%d">%s</th>'):format(#g.parts,
            escape(short(g.column.title)))
    end
    out[#out + 1] = "</tr><tr>"
    for _, g in ipairs(groups) do
        for _, part in ipairs(g.parts) do
            local title = part == "interval" and ("%g %%"):format(t.level) or part == "delta" and "Δ" or headings[part]
            out[#out + 1] = ('<th scope="col" class="n">%s</th>'):format(escape(title))
        end
    end
    out[#out + 1] = "</tr></thead>\n<tbody>\n"
    for _, row in ipairs(t.rows) do
        out[#out + 1] = ('<tr><th scope="row">%s</th>'):format(escape(short(row.name)))
        for _, g in ipairs(groups) do
            local c = row.cells[g.column.key]
            for _, part in ipairs(g.parts) do
                local class = "n"
                if part == "ours" and c and c.best then class = "n best" end
                local s = escape(part_text(part, g.column, c, "±"))
                if part == "delta" and c and c.apart then
                    class = c.delta > 0 and "n up" or "n down"
                    s = s .. ' <span title="the interval excludes the paper\'s value">' ..
                        (c.delta > 0 and "▲" or "▼") .. "</span>"
                end
                if part == "paper" and c and c.note then
                    s = ('<span title="%s">%s</span>'):format(escape(c.note), s)
                end
                out[#out + 1] = ('<td class="%s">%s</td>'):format(class, s)
            end
        end
        out[#out + 1] = "</tr>\n"
    end
    out[#out + 1] = "</tbody></table></div>\n"
    for _, note in ipairs(text.notes(t)) do
        out[#out + 1] = '<p class="note">' .. escape(note) .. "</p>\n"
    end
    return table.concat(out)
end

---@param form string plain, box, latex, md, csv, json, html
---@param t tabulate.Table
---@param with_interval boolean|nil intervals in LaTeX and Markdown too
---@return string
function text.render(form, t, with_interval)
    if form == "latex" then return latex(t, with_interval) end
    if form == "md" then return markdown(t, with_interval) end
    if form == "html" then return text.html(t) end
    if form == "csv" or form == "json" then return format.format(form, long(t, true), exact_columns) end
    return readable(t, form)
end

return text

-- Rows as text: aligned plain columns, a box, CSV, JSON or Markdown.
local config = require "mimic.config"
local m = require "mimic"

local tables = {}

local function escaped(c)
    return (c:gsub(".", function(b) return ("\\x%02x"):format(b:byte()) end))
end

---A text with the bytes that are no UTF-8 as \xNN.
---@param s string
---@return string
function tables.mend(s)
    local out, at = {}, 1
    while true do
        local n, bad = utf8.len(s, at)
        if n then break end
        out[#out + 1] = s:sub(at, bad - 1) .. escaped(s:sub(bad, bad))
        at = bad + 1
    end
    return at == 1 and s or table.concat(out) .. s:sub(at)
end

---Text that is safe in a terminal: control characters (they move the cursor, colour, retitle) and marks
---that turn the direction of writing are shown as \xNN, and so are bytes that are no UTF-8. With
---`lines`, line ends and tabs stay.
---@param s any
---@param lines boolean|nil
---@return string
function tables.safe(s, lines)
    s = tostring(s)
    s = tables.mend(s)
    s = s:gsub("[%z\1-\31\127]", function(c)
        if c == "\n" or c == "\t" then return lines and c or " " end
        return escaped(c)
    end)
    return (s:gsub("\xc2[\x80-\x9f]", escaped):gsub("\xe2\x80[\x8e\x8f\xaa-\xae]", escaped)
        :gsub("\xe2\x81[\xa6-\xa9]", escaped))
end

local function text(v)
    if v == nil then return "" end
    if math.type(v) == "float" then
        if v == math.floor(v) and math.abs(v) < 1e15 then return ("%d"):format(v) end
        return ("%.6g"):format(v)
    end
    return tables.safe(v)
end
tables.text = text

local function exact(v)
    if type(v) == "number" then
        if v ~= v then return "" end
        return (config.json(v):gsub("^1e999$", "inf"):gsub("^%-1e999$", "-inf"))
    end
    return v == nil and "" or tostring(v)
end

local longest = 120 -- characters of a cell that is read by a person

---A text cut to what a person reads in a cell.
---@param s string
---@param most integer? characters
---@return string
local function cut(s, most)
    most = most or longest
    if #s <= most or (utf8.len(s) or #s) <= most then return s end
    return s:sub(1, (utf8.offset(s, most) or most + 1) - 1) .. "…"
end

tables.cut = cut

local function width(s)
    return utf8.len(s) or #s
end

local function pad(s, w, right)
    local fill = (" "):rep(w - width(s))
    return right and fill .. s or s .. fill
end

-- Cells, widths, and which columns hold only numbers (those are set flush right).
local function layout(rows, columns, keys)
    local cells, widths, numeric = {}, {}, {}
    for j, name in ipairs(columns) do
        widths[j], numeric[j] = width(cut(text(name))), #rows > 0
    end
    for i, row in ipairs(rows) do
        cells[i] = {}
        for j in ipairs(columns) do
            local v = row[keys[j]]
            cells[i][j] = cut(text(v))
            widths[j] = math.max(widths[j], width(cells[i][j]))
            if v ~= nil and type(v) ~= "number" then numeric[j] = false end
        end
    end
    return cells, widths, numeric
end

local function titles(columns)
    local out = {}
    for j, name in ipairs(columns) do out[j] = cut(text(name)) end
    return out
end

local function plain(rows, columns, keys)
    local cells, widths, numeric = layout(rows, columns, keys)
    local out = {}
    local function line(values)
        local parts = {}
        for j, v in ipairs(values) do parts[j] = pad(v, widths[j], numeric[j]) end
        out[#out + 1] = (table.concat(parts, "  "):gsub("%s+$", ""))
    end
    line(titles(columns))
    for _, c in ipairs(cells) do line(c) end
    return table.concat(out, "\n")
end

local function box(rows, columns, keys)
    local cells, widths, numeric = layout(rows, columns, keys)
    local function rule(left, middle, right)
        local parts = {}
        for j, w in ipairs(widths) do parts[j] = ("─"):rep(w + 2) end
        return left .. table.concat(parts, middle) .. right
    end
    local function line(values)
        local parts = {}
        for j, v in ipairs(values) do parts[j] = " " .. pad(v, widths[j], numeric[j]) .. " " end
        return "│" .. table.concat(parts, "│") .. "│"
    end
    local out = { rule("┌", "┬", "┐"), line(titles(columns)), rule("├", "┼", "┤") }
    for _, c in ipairs(cells) do out[#out + 1] = line(c) end
    out[#out + 1] = rule("└", "┴", "┘")
    return table.concat(out, "\n")
end

---A cell of a Markdown table: bars and what begins HTML are taken literally.
---@param s string
---@return string
function tables.markdown_escape(s)
    return (s:gsub("[\\|`*_%[%]]", "\\%0"):gsub("[<>&]", { ["<"] = "&lt;", [">"] = "&gt;", ["&"] = "&amp;" }))
end

local function markdown(rows, columns, keys)
    local cells, _, numeric = layout(rows, columns, keys)
    local out, rule = {}, {}
    for j in ipairs(columns) do rule[j] = numeric[j] and "---:" or "---" end
    local function line(values)
        local parts = {}
        for j, v in ipairs(values) do parts[j] = tables.markdown_escape(v) end
        out[#out + 1] = "| " .. table.concat(parts, " | ") .. " |"
    end
    line(titles(columns))
    line(rule)
    for _, c in ipairs(cells) do line(c) end
    return table.concat(out, "\n")
end

local function csv(rows, columns, keys)
    local out = {}
    local function line(values)
        local parts = {}
        for j, v in ipairs(values) do
            v = tables.mend(v)
            parts[j] = v:find('[",\r\n]') and '"' .. v:gsub('"', '""') .. '"' or v
        end
        out[#out + 1] = table.concat(parts, ",")
    end
    line(columns)
    for _, row in ipairs(rows) do
        local values = {}
        for j in ipairs(columns) do values[j] = exact(row[keys[j]]) end
        line(values)
    end
    return table.concat(out, "\n")
end

-- Names for the fields of an object: the second "n" is "n_2".
local function unique(columns)
    local out, given, taken = {}, {}, {}
    for _, name in ipairs(columns) do given[name] = true end
    for j, name in ipairs(columns) do
        local own, k = name, 1
        while taken[own] or own ~= name and given[own] do
            k = k + 1
            own = name .. "_" .. k
        end
        taken[own] = true
        out[j] = own
    end
    return out
end

local function json(rows, columns, keys)
    local out, names = {}, unique(columns)
    for i, row in ipairs(rows) do
        local parts = {}
        for j, name in ipairs(names) do
            local v = row[keys[j]]
            if type(v) == "string" then v = tables.mend(v) end
            parts[j] = config.json(name) .. ":" .. config.json(v)
        end
        out[i] = "{" .. table.concat(parts, ",") .. "}"
    end
    return "[" .. table.concat(out, ",\n ") .. "]"
end

local forms = { plain = plain, box = box, csv = csv, json = json, md = markdown }

---@param form string plain, box, csv, json or md
---@param rows table[] by column name, or lists by its place with `by_place`
---@param columns string[]
---@param by_place boolean|nil
---@return string
function tables.format(form, rows, columns, by_place)
    local keys = columns
    if by_place then
        keys = {}
        for j in ipairs(columns) do keys[j] = j end
    end
    return forms[form](rows, columns, keys)
end

---Adds --box --csv --json --md to a parser.
function tables.options(p)
    p:mutex(p:flag("--box"):description("draw a box"),
        p:flag("--csv"):description("comma-separated, exact numbers"),
        p:flag("--json"):description("list of objects, exact numbers"),
            p:flag("--md"):description("Markdown"))
end

---The form asked for by args; plain without.
function tables.chosen(args)
    for _, form in ipairs { "box", "csv", "json", "md" } do
        if args[form] then return form end
    end
    return "plain"
end

---Date and time of unix milliseconds.
---@param ms integer|nil
function tables.when(ms)
    return ms and os.date("%Y-%m-%d %H:%M", ms // 1000) or ""
end

---Seconds as 12 s, 3:05 or 2:10:07.
---@param s number|nil
function tables.duration(s)
    if not s then return "" end
    if s < 60 then return ("%.1f s"):format(s) end
    s = math.floor(s + 0.5)
    if s < 3600 then return ("%d:%02d"):format(s // 60, s % 60) end
    return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

---Width of the terminal.
---@return integer
function tables.columns()
    return tonumber(os.getenv("COLUMNS")) or m.sys.columns() or 80
end

return tables

-- The frame of the report: style sheet, page, tables, pictures. All text passes through escape().
local format = require "mimic.format"
local plot = require "mimic.plot"

local page = {}

page.escape = plot.escape

local style = [[
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5b6570;--line:#d9dee3;--panel:#f6f8fa;
--link:#0a58ca;
--c1:#0072b2;--c2:#d55e00;--c3:#008a67;--c4:#b0579a;--c5:#8a6d00;--c6:#4a4f55;--c7:#7a3b00;--c8:#3d3d9e;
--heat:0,114,178;--bad:#b42318;--up:#0b6b3a}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#9aa4ae;--line:#30363d;
--panel:#1c2126;
--link:#6cb0ff;--c1:#58b4f0;--c2:#ff9a4d;--c3:#3ecf9f;--c4:#e39ad0;--c5:#e0c24c;--c6:#b8c0c8;--c7:#d9a066;
--c8:#a9a9ff;--heat:88,180,240;--bad:#ff8f85;--up:#5fd39a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
sans-serif}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem;padding-bottom:.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .25rem}
h2{font-size:1.3rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:1.02rem;margin:1.25rem 0 .5rem}
p{margin:.4rem 0}.soft,figcaption,.note{color:var(--soft);font-size:.9rem}.bad{color:var(--bad)}
a{color:var(--link)}nav{font-size:.9rem;margin-top:.75rem;display:flex;flex-wrap:wrap;gap:.25rem 1rem}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}
th,td{padding:.35rem .7rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{border-bottom:2px solid var(--line);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}td.best{font-weight:700}
dl.facts{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.25rem;margin:.75rem 0;
font-size:.93rem}
dl.facts dt{color:var(--soft)}dl.facts dd{margin:0;overflow-wrap:anywhere}
.grid-of{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1.25rem}
figure{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.9rem;
min-width:0}
figure h3{margin-top:0}figure svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:12px}svg .grid{stroke:var(--line);stroke-width:1;fill:none}
svg .axis{stroke:var(--soft);stroke-width:1;fill:none}svg .line{fill:none;stroke-width:2;
stroke-linejoin:round}
svg .band{stroke:none;opacity:.18}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.87rem;margin-top:.4rem}
.legend span{display:inline-flex;align-items:center;gap:.4rem}figure .legend svg.key{flex:none}
figure .legend svg.key.dash{width:28px;height:8px}
.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}.line.c4{stroke:var(--c4)}
.line.c5{stroke:var(--c5)}.line.c6{stroke:var(--c6)}
.band.c1,.dot.c1{fill:var(--c1)}.band.c2,.dot.c2{fill:var(--c2)}.band.c3,.dot.c3{fill:var(--c3)}
.band.c4,.dot.c4{fill:var(--c4)}.band.c5,.dot.c5{fill:var(--c5)}.band.c6,.dot.c6{fill:var(--c6)}
.band.c7,.dot.c7{fill:var(--c7)}.band.c8,.dot.c8{fill:var(--c8)}
.line.c7{stroke:var(--c7)}.line.c8{stroke:var(--c8)}.line.thin{stroke:var(--soft);stroke-width:1;opacity:.35}
svg .mark{fill:none;stroke-width:1.4}.mark.c1{stroke:var(--c1);fill:var(--c1)}.mark.c2{stroke:var(--c2)}
.mark.c3{stroke:var(--c3);fill:var(--c3)}.mark.c4{stroke:var(--c4)}.mark.c5{stroke:var(--c5)}
.mark.c6{stroke:var(--c6)}.mark.c7{stroke:var(--c7);fill:var(--c7)}.mark.c8{stroke:var(--c8)}
svg rect.cell{fill:rgba(var(--heat),var(--share,0));stroke:var(--line)}svg rect.cell.top{stroke:var(--fg);
stroke-width:2}svg rect.bar{fill:var(--c1);opacity:.75}svg text.number,svg text.strong{fill:var(--fg)}
svg text.strong{font-weight:600}svg text.halo{paint-order:stroke;stroke:var(--panel);stroke-width:3px}
td.up{color:var(--up)}td.down{color:var(--bad)}
.grid-of.narrow{grid-template-columns:repeat(auto-fill,minmax(min(15rem,100%),1fr))}
img.strip{display:block;max-width:100%;height:auto;margin:.3rem 0;image-rendering:pixelated}
ol.worst{margin:.2rem 0;padding-left:1.4rem}caption{text-align:left;padding:.2rem 0}
th[colspan]{text-align:center!important}
figure .legend svg.key{width:12px;height:12px}tbody th{font-weight:400}
tbody td:first-child:not(.n),tbody th{min-width:min(16rem,32vw)}
table.heat td:first-child,table.heat th{min-width:0}
img.pixels{width:100%;max-width:30rem;image-rendering:pixelated;display:block;border-radius:4px}
table.heat{font-size:.85rem}table.heat td,table.heat th{padding:.25rem .45rem}
table.heat td.cell{text-align:right;min-width:2.6rem;background:rgba(var(--heat),var(--share,0))}
table.heat td.cell.right{outline:1px solid var(--soft);outline-offset:-1px}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--link)}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.75rem;overflow-x:auto;
font-size:.82rem;
line-height:1.4;margin:.5rem 0}code{font-size:.9em}
footer{padding-top:2rem;padding-bottom:3rem}
@media (max-width:40rem){body{font-size:15px}h1{font-size:1.5rem}dl.facts{grid-template-columns:1fr}
dl.facts dd{margin-bottom:.4rem}
th,td{padding:.3rem .45rem}}
@media print{@page{margin:14mm}:root{color-scheme:light;--bg:#fff;--fg:#000;--soft:#333;--line:#bbb;--panel:#fff;
--c1:#0072b2;--c2:#d55e00;--c3:#008a67;--c4:#b0579a;--c5:#8a6d00;--c6:#4a4f55;--c7:#7a3b00;--c8:#3d3d9e;
--heat:0,114,178;--bad:#b42318;--up:#0b6b3a}
nav,summary{display:none}figure,table,pre{break-inside:avoid}h2,h3{break-after:avoid}
th,td{white-space:normal!important;padding:.15rem .4rem;font-size:8pt}.scroll{overflow:visible}
.grid-of{grid-template-columns:repeat(2,minmax(0,1fr))}img.pixels{max-width:9cm;max-height:21cm;
object-fit:contain;object-position:left}
body{font-size:10pt}main,header,footer{max-width:none;padding:0 1px}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
]]

---A whole page.
---@param title string
---@param head string HTML of the header
---@param sections {id: string, title: string, body: string}[]
---@param foot string HTML
---@param refresh number|nil seconds after which a browser loads it again
---@return string
function page.html(title, head, sections, foot, refresh)
    local links, bodies = {}, {}
    for i, s in ipairs(sections) do
        links[i] = ('<a href="#%s">%s</a>'):format(s.id, page.escape(s.title))
        bodies[i] = ('<section id="%s"><h2>%s</h2>\n%s</section>'):format(s.id, page.escape(s.title), s.body)
    end
    return table.concat {
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        refresh and ('<meta http-equiv="refresh" content="%d">'):format(math.max(1, math.floor(refresh))) or "",
        "<title>", page.escape(title), "</title>\n<style>\n", style, "</style></head>\n<body><header><h1>",
        page.escape(title), "</h1>\n", head, "<nav>", table.concat(links, " "), "</nav></header>\n<main>\n",
        table.concat(bodies, "\n"), "\n</main>\n<footer>", foot, "</footer></body></html>\n",
    }
end

---A table. Columns: {key, title, number?, html?}; with html the cells are HTML already.
---@param rows table[]
---@param columns table[]
---@param caption string|nil for those who do not see the page
---@return string
function page.table(rows, columns, caption)
    local out = { '<div class="scroll"><table>' }
    if caption then out[#out + 1] = '<caption class="soft">' .. page.escape(caption) .. "</caption>" end
    out[#out + 1] = "<thead><tr>"
    for _, c in ipairs(columns) do
        out[#out + 1] = ('<th scope="col"%s>%s</th>'):format(c.number and ' class="n"' or "",
            page.escape(c.title or c.key))
    end
    out[#out + 1] = "</tr></thead><tbody>\n"
    for _, row in ipairs(rows) do
        out[#out + 1] = "<tr>"
        for _, c in ipairs(columns) do
            local v = row[c.key]
            local text = v == nil and "" or c.html and v or page.escape(type(v) == "string" and format.cut(v) or v)
            local class = (c.number and "n" or "") .. (row.best and row.best[c.key] and " best" or "")
            out[#out + 1] = ("<td%s>%s</td>"):format(class ~= "" and (' class="%s"'):format(class) or "",
                text)
        end
        out[#out + 1] = "</tr>\n"
    end
    out[#out + 1] = "</tbody></table></div>\n"
    return table.concat(out)
end

---Names and values.
---@param list {[1]: string, [2]: any}[]
---@return string
function page.facts(list)
    local out = {}
    for _, f in ipairs(list) do
        if f[2] ~= nil and f[2] ~= "" then
            out[#out + 1] = ("<dt>%s</dt><dd>%s</dd>"):format(page.escape(f[1]), page.escape(f[2]))
        end
    end
    return '<dl class="facts">' .. table.concat(out) .. "</dl>"
end

---Text behind a line that opens it.
function page.details(summary, inner)
    return ("<details><summary>%s</summary>%s</details>\n"):format(page.escape(summary), inner)
end

function page.pre(text)
    return "<pre>" .. page.escape(text) .. "</pre>"
end

---SQL that made a figure.
function page.source(sql)
    return page.details("SQL behind this", page.pre((sql:gsub("\n%s+", "\n  "))))
end

local alphabet = {}
for i = 0, 63 do
    alphabet[i] = ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):sub(i + 1, i + 1)
end

---@param bytes string
---@return string
function page.base64(bytes)
    local out = {}
    for i = 1, #bytes - 2, 3 do
        local a, b, c = bytes:byte(i, i + 2)
        local x = a << 16 | b << 8 | c
        out[#out + 1] = alphabet[x >> 18] .. alphabet[x >> 12 & 63] .. alphabet[x >> 6 & 63]
            .. alphabet[x & 63]
    end
    local rest = #bytes % 3
    if rest == 1 then
        local a = bytes:byte(-1)
        out[#out + 1] = alphabet[a >> 2] .. alphabet[a << 4 & 63] .. "=="
    elseif rest == 2 then
        local a, b = bytes:byte(-2, -1)
        out[#out + 1] = alphabet[a >> 2] .. alphabet[(a << 4 | b >> 4) & 63] .. alphabet[b << 2 & 63] .. "="
    end
    return table.concat(out)
end

return page

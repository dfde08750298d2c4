-- Progress on stderr: one bar for the run, above it a header for the sweep. On a terminal both are redrawn in
-- place; elsewhere a line per epoch, a header line when its counts change, and no carriage returns; nothing
-- with --quiet.
local m = require "mimic"

local progress = {}

local quiet = false
local terminal -- decided at the first line
local colour
local started, first_done -- of the phase, for the time left
local phase, drawn_at
local on_screen = 0 -- lines that stand on the terminal
local last -- of the epoch that is running, for output without a terminal
local header, header_said -- line of the sweep; its counts when last printed
local shared = false -- the terminal, with the process that draws there
local saved_at -- when the last checkpoint was written

---@param on boolean
function progress.quiet(on)
    quiet = on
end

local function clock_text(seconds)
    local s = math.floor(seconds + 0.5)
    return ("%02d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60)
end

---1842.3 -> "1,842"; small numbers keep a digit.
---@param x number
---@return string
function progress.thousands(x)
    if x < 10 then return ("%.1f"):format(x) end
    local s = ("%d"):format(math.floor(x + 0.5))
    while true do
        local t, n = s:gsub("^(%d+)(%d%d%d)", "%1,%2")
        s = t
        if n == 0 then return s end
    end
end

local function line(p, eta)
    local out = { "mimic" }
    local where = p.phase or "run"
    if p.epoch then where = where .. (" %d/%d"):format(p.epoch, p.epochs or p.epoch) end
    out[#out + 1] = where
    if p.note then out[#out + 1] = p.note end
    if p.loss then out[#out + 1] = ("loss %.3f"):format(p.loss) end
    if p.acc then out[#out + 1] = ("acc %.1f"):format(p.acc) end
    if p.rate then out[#out + 1] = progress.thousands(p.rate) .. " img/s" end
    if eta then out[#out + 1] = "ETA " .. clock_text(eta) end
    if saved_at and terminal then
        local minutes = (m.sys.clock() - saved_at) // 60
        out[#out + 1] = minutes < 1 and "ckpt now" or ("ckpt %dm ago"):format(minutes)
    end
    return table.concat(out, "  ")
end

---The line of a sweep: `tau-lambda  37/75 done  4 running  1 failed (NaN)  2 pruned  best 89.2  ETA 2h05`.
---@param h table name, done, total, running, failed, why, pruned, best (number or text), eta (seconds), paused
---@return string
function progress.header_text(h)
    local out = { h.name, ("%d/%d done"):format(h.done or 0, h.total or 0) }
    local function count(n, word)
        if n and n > 0 then out[#out + 1] = n .. " " .. word end
    end
    count(h.running, "running")
    count(h.failed, h.why and ("failed (%s)"):format(h.why) or "failed")
    count(h.pruned, "pruned")
    if h.best then
        out[#out + 1] = "best " .. (type(h.best) == "number" and ("%.4g"):format(h.best) or h.best)
    end
    if h.paused then out[#out + 1] = "paused" end
    if h.eta then
        local minutes = math.floor(h.eta / 60 + 0.5)
        out[#out + 1] = "ETA " .. (h.eta < 60 and ("%.0fs"):format(h.eta) or minutes < 60 and ("%dm"):format(minutes)
            or ("%dh%02d"):format(minutes // 60, minutes % 60))
    end
    return table.concat(out, "  ")
end

local function value(v)
    if type(v) == "userdata" then return v:item() end
    return v
end

---Another process draws on the same terminal: what this one says begins on a line of its own.
function progress.share()
    shared = true
end

local function look_for_terminal()
    if terminal ~= nil then return end
    terminal = m.sys.isatty(2)
    colour = terminal and not os.getenv("NO_COLOR") and os.getenv("TERM") ~= "dumb"
end

---Takes the lines away, so that other output stands alone.
function progress.clear()
    if shared then
        look_for_terminal()
        if terminal then io.stderr:write("\r\27[K") end
    end
    if on_screen == 0 then return end
    io.stderr:write("\r\27[K", ("\27[A\27[K"):rep(on_screen - 1))
    on_screen = 0
end

local function print_last()
    if last then io.stderr:write(last, "\n") end
    last = nil
end

---A line on standard error that the progress line does not overwrite.
---@param ... any as for string.format
function progress.complain(...)
    progress.clear()
    io.stderr:write("mimic: ", require("mimic.format").safe(string.format(...), true), "\n")
end

---The same for what need not be known: nothing with --quiet.
---@param ... any as for string.format
function progress.note(...)
    if not quiet then progress.complain(...) end
end

-- What fits on a line of the terminal.
local function fit(text)
    local width = math.max((tonumber(os.getenv("COLUMNS")) or m.sys.columns() or 80) - 1, 10)
    if (utf8.len(text) or #text) <= width then return text end
    return text:sub(1, (utf8.offset(text, width + 1) or width + 1) - 1)
end

-- Header and bar in place of what stands there.
local function draw(text)
    progress.clear()
    local lines = {}
    if header then lines[1] = colour and "\27[1m" .. fit(header) .. "\27[0m" or fit(header) end
    if text then
        text = fit(require("mimic.format").safe(text))
        lines[#lines + 1] = colour and text:gsub("^mimic", "\27[36mmimic\27[0m") or text
    end
    io.stderr:write(table.concat(lines, "\n"))
    io.stderr:flush()
    on_screen = #lines
end

---Sets the header of a sweep, nil takes it away: {name, done, total, running, failed, why, pruned, best, eta}.
---@param h table|nil as for header_text
function progress.header(h)
    if quiet then return end
    look_for_terminal()
    if not h then
        progress.clear()
        header, header_said = nil, nil
        return
    end
    header = require("mimic.format").safe(progress.header_text(h))
    if terminal then
        draw()
        return
    end
    local counts = table.concat({ h.name, h.done or 0, h.total or 0, h.failed or 0, h.pruned or 0 }, " ")
    if counts ~= header_said then
        print_last()
        io.stderr:write(header, "\n")
    end
    header_said = counts
end

---A checkpoint was written: the bar says how long ago.
function progress.saved()
    saved_at = m.sys.clock()
end

---Ends the line of a run.
function progress.finish()
    if quiet then return end
    progress.clear()
    print_last()
    phase, saved_at = nil, nil
end

---@param p table phase, epoch, epochs, note, loss, acc, rate, done (0..1)
function progress.show(p)
    if quiet then return end
    look_for_terminal()
    local now = m.sys.clock()
    local key = tostring(p.phase)
    if phase ~= key then
        print_last()
        phase, started, first_done, drawn_at = key, now, p.done or 0, 0
    end
    local eta
    if p.done and p.done > first_done then
        eta = (now - started) * (1 - p.done) / (p.done - first_done)
    end
    if terminal and now - drawn_at < 0.1 and (p.done or 0) < 1 then return end
    drawn_at = now
    local text = line({
        phase = p.phase, note = p.note, epoch = p.epoch, epochs = p.epochs, loss = value(p.loss),
        acc = value(p.acc), rate = p.rate,
    }, eta)
    if not terminal then
        if last and progress.epoch ~= p.epoch then print_last() end
        progress.epoch = p.epoch
        last = require("mimic.format").safe(text)
        return
    end
    draw(text)
end

return progress

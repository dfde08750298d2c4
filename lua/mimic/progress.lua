-- The progress line on stderr. On a terminal one line that is redrawn; elsewhere one line per epoch and
-- no carriage returns; nothing with --quiet.
local m = require "mimic"

local progress = {}

local quiet = false
local terminal -- decided at the first line
local colour
local started, first_done -- of the phase, for the time left
local phase, drawn_at, on_screen
local last -- of the epoch that is running, for output without a terminal

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
        local text = minutes < 60 and ("%dm"):format(minutes) or ("%dh%02d"):format(minutes // 60, minutes % 60)
        out[#out + 1] = "ETA " .. text
    end
    return table.concat(out, "  ")
end

local function value(v)
    if type(v) == "userdata" then return v:item() end
    return v
end

---Takes the line away, so that other output stands alone. A line without a terminal is completed.
function progress.clear()
    if on_screen then
        io.stderr:write("\r\27[K")
        on_screen = false
    end
end

local function print_last()
    if last then io.stderr:write(last, "\n") end
    last = nil
end

---A line on standard error that the progress line does not overwrite.
---@param ... any as for string.format
function progress.complain(...)
    progress.clear()
    io.stderr:write("mimic: ", string.format(...), "\n")
end

---Ends the line of a run.
function progress.finish()
    if quiet then return end
    progress.clear()
    print_last()
    phase = nil
end

---@param p table phase, epoch, epochs, note, loss, acc, rate, done (0..1)
function progress.show(p)
    if quiet then return end
    if terminal == nil then
        terminal = m.sys.isatty(2)
        colour = terminal and not os.getenv("NO_COLOR") and os.getenv("TERM") ~= "dumb"
    end
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
        last = text
        return
    end
    local width = m.sys.columns()
    width = tonumber(os.getenv("COLUMNS")) or width or 80
    text = text:sub(1, math.max(width - 1, 10))
    if colour then text = text:gsub("^mimic", "\27[36mmimic\27[0m") end
    io.stderr:write("\r", text, "\27[K")
    io.stderr:flush()
    on_screen = true
end

return progress

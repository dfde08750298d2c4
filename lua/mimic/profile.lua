-- The profiler: an account of some training steps by kernel, against the floors of this machine, and a
-- trace for chrome://tracing or ui.perfetto.dev. Rule: what no kernel explains is shown as its own row.
local m = require "mimic"
local cjson = require "cjson"
local format = require "mimic.format"

local profile = {}

--- Set by `mimic run --profile`: {trace: string|nil}. The training loop takes it at its first steps.
profile.wanted = nil

local skipped <const> = 2 -- steps left out: the first ones touch all memory for the first time
local measured <const> = 5
local memory <const> = 1 << 28 -- bytes that no cache holds

--- Bytes and FLOP/s that a kernel's share refers to, measured now (about two seconds).
---@return {bytes: number, f32: number, bf16: number}
local function floors()
    local bench = require "mimic.bench"
    return m.no_grad(function()
        return { bytes = bench.bandwidth(memory), f32 = bench.peak "f32", bf16 = bench.peak "bf16" }
    end)
end

--- Kernels by name, phase, dtype and shapes, the longest first.
---@param events table[] of m.profile_stop
---@param wall number seconds of all steps
---@param steps integer
---@param floor table as `floors` gives it
---@return table[] rows
function profile.account(events, wall, steps, floor)
    local by_key, rows, known = {}, {}, 0.0
    for _, e in ipairs(events) do
        local key = ("%s|%s|%s"):format(e.name, e.what, e.backward)
        local row = by_key[key]
        if not row then
            row = { kernel = e.name, on = e.what, phase = e.backward and "backward" or "forward", calls = 0,
                seconds = 0.0, bytes = 0.0, flops = 0.0 }
            by_key[key], rows[#rows + 1] = row, row
        end
        row.calls, row.seconds = row.calls + 1, row.seconds + e.seconds
        row.bytes, row.flops = row.bytes + e.bytes, row.flops + e.flops
        known = known + e.seconds
    end
    rows[#rows + 1] = { kernel = "(script, dispatch)", on = "", phase = "", seconds = wall - known, bytes = 0.0,
        flops = 0.0 }
    table.sort(rows, function(a, b)
        if a.seconds ~= b.seconds then return a.seconds > b.seconds end
        return a.kernel .. a.on .. a.phase < b.kernel .. b.on .. b.phase
    end)
    for _, row in ipairs(rows) do
        local peak = floor[row.on:match("^%w+") or "f32"] or floor.f32
        local least = math.max(row.bytes / floor.bytes, row.flops / peak)
        row["ms/step"] = row.seconds * 1e3 / steps
        row["%"] = 100 * row.seconds / wall
        row["calls/step"] = row.calls and row.calls / steps or nil
        row["GB/s"] = row.bytes > 0 and row.bytes / row.seconds / 1e9 or nil
        row["GFLOP/s"] = row.flops > 0 and row.flops / row.seconds / 1e9 or nil
        row["of floor %"] = least > 0 and 100 * least / row.seconds or nil
    end
    return rows
end

--- Writes events in Chrome's trace format (microseconds; forward and backward as two threads).
---@param path string
---@param events table[]
function profile.write_trace(path, events)
    local out = {}
    for i, e in ipairs(events) do
        out[i] = { ph = "X", pid = 1, tid = e.backward and 2 or 1, name = e.name, ts = e.start * 1e6,
            dur = e.seconds * 1e6,
            args = { on = e.what, line = e.place, bytes = e.bytes, flops = e.flops } }
    end
    for tid, name in ipairs { "forward", "backward" } do
        out[#out + 1] = { ph = "M", pid = 1, tid = tid, name = "thread_name", args = { name = name } }
    end
    local f, why = io.open(path, "w")
    if not f then error(("profile: %s"):format(why), 0) end
    local ok, wrong = f:write(cjson.encode { traceEvents = out, displayTimeUnit = "ms" }, "\n")
    f:close()
    if not ok then error(("profile: %s: %s"):format(path, wrong), 0) end
end

local function digits(rows, columns)
    for _, row in ipairs(rows) do
        for _, c in ipairs(columns) do
            if math.type(row[c]) == "float" then row[c] = tonumber(("%.3g"):format(row[c])) end
        end
    end
end

--- What to say when a command ends and no run was long enough.
---@return string|nil
function profile.missed()
    if profile.wanted then
        return ("nothing was profiled: no run of this command trained %d steps (one that is done is not run again; "
            .. "--force repeats it)"):format(skipped + measured)
    end
end

local function report(wanted, wall, phase)
    local events, dropped = m.profile_stop()
    local floor = floors()
    local rows = profile.account(events, wall, measured, floor)
    local columns = { "kernel", "on", "phase", "calls/step", "ms/step", "%", "GB/s", "GFLOP/s", "of floor %" }
    digits(rows, columns)
    local shown = table.move(rows, 1, math.min(#rows, 25), 1, {})
    print(("\nprofile of %s: %d steps after the first %d, %.1f ms each; floors: memory %.1f GB/s, "
        .. "f32 %.0f and bf16 %.0f GFLOP/s"):format(phase, measured, skipped, wall * 1e3 / measured, floor.bytes / 1e9,
        floor.f32 / 1e9, floor.bf16 / 1e9))
    print(format.format("plain", shown, columns))
    if #rows > #shown then print(("and %d shorter rows"):format(#rows - #shown)) end
    if dropped > 0 then print(("%d events had no room"):format(dropped)) end
    print("A floor: bytes at the rate of memory, or products at peak if longer; what stays in cache may pass it.")
    if wanted.trace then
        profile.write_trace(wanted.trace, events)
        print("trace: " .. wanted.trace .. " (open in ui.perfetto.dev or chrome://tracing)")
    end
end

--- Called by the training loop before each of its steps, counted from 0 in this process.
---@param step integer
---@param phase string
function profile.at(step, phase)
    local wanted = profile.wanted
    if step == skipped then
        m.profile_start(1 << 18)
        wanted.began = m.sys.clock()
    elseif step == skipped + measured and wanted.began then
        profile.wanted = nil -- one account a command
        require("mimic.progress").clear()
        report(wanted, m.sys.clock() - wanted.began, phase)
    end
end

return profile

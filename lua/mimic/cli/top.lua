-- mimic top: what all workers are doing now.
local m = require "mimic"
local cli = require "mimic.cli"
local format = require "mimic.format"
local progress = require "mimic.progress"

local command = {
    summary = "a live view of sweeps and running runs",
    description = [[
Shows sweeps with their counts and every run that is being executed: where, how far, its
last loss and accuracy, pictures a second, and when it last gave a sign. On a terminal the
view is renewed until Ctrl-C; elsewhere it is printed once as plain lines, or --count
times.]],
    examples = [[
  mimic top
  mimic top --interval 5
  mimic top --count 1]],
}

function command.configure(p)
    p:option("--interval"):argname("SECONDS"):description("time between two views"):default("2")
        :convert(function(s)
            local v = tonumber(s)
            if v and v > 0 then return v end
            return nil, "--interval takes seconds, got '" .. s .. "'"
        end)
    p:option("--count"):argname("N"):description("number of views"):convert(cli.whole)
end

command.RUNS = [[SELECT r.id, r.uid, r.name, r.kind, r.seed, r.state, r.step, r.started, r.heartbeat, w.host, w.pid,
    (SELECT last FROM series WHERE run = r.id AND name = 'train/loss') AS loss,
    (SELECT coalesce(max(CASE name WHEN 'val/acc' THEN last END), max(last)) FROM series
      WHERE run = r.id AND name IN ('val/acc', 'test/acc')) AS acc,
    (SELECT last FROM series WHERE run = r.id AND name = 'sys/images_per_second') AS rate,
    (SELECT max(step) FROM checkpoint WHERE run = r.id AND deleted IS NULL) AS saved
  FROM run r LEFT JOIN event e ON e.id = (SELECT max(id) FROM event WHERE run = r.id AND code = 'start')
    LEFT JOIN worker w ON w.id = e.worker
  WHERE r.state = 'running' AND r.deleted IS NULL ORDER BY r.id]]

local RECENT = [[SELECT count(*) FILTER (WHERE state = 'done') AS done,
    count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'queued') AS queued,
    count(*) FILTER (WHERE state IN ('interrupted', 'lost')) AS stopped
  FROM run WHERE deleted IS NULL]]

local SWEEPS = "SELECT * FROM sweep_list WHERE state IN ('open', 'paused') OR running > 0 ORDER BY id"

local function ago(ms)
    return ms and format.duration(math.max(0, (m.sys.time() - ms) / 1000)) .. " ago" or ""
end

-- One view as a list of lines.
local function view(store)
    local db = store.db
    local counts = db:first(RECENT)
    local out = { ("%s  %s  %d done  %d failed  %d stopped  %d queued"):format(format.when(m.sys.time()), store.path,
        counts.done, counts.failed, counts.stopped, counts.queued) }
    for s in db:each(SWEEPS) do
        out[#out + 1] = progress.header_text { name = format.safe(s.name), done = s.done, total = s.trials,
            running = s.running, failed = s.failed, pruned = s.pruned, best = s.best, paused = s.state == "paused" }
    end
    local rows = db:rows(command.RUNS)
    for _, r in ipairs(rows) do
        r.state = store:state(r)
        r.where = r.host and ("%s:%d"):format(r.host, r.pid) or ""
        r.time = r.started and format.duration((m.sys.time() - r.started) / 1000) or ""
        r.sign = ago(r.heartbeat)
        r.loss = r.loss and ("%.4f"):format(r.loss)
        r.acc = r.acc and ("%.2f"):format(r.acc)
        r["img/s"] = r.rate and progress.thousands(r.rate)
        r.ckpt = r.saved and "step " .. r.saved or "none yet"
    end
    if #rows == 0 then
        out[#out + 1] = "nothing is running"
    else
        local list = { "id", "name", "kind", "seed", "state", "step", "loss", "acc", "img/s", "time", "ckpt", "sign",
            "where" }
        for line in format.format("plain", rows, list):gmatch("[^\n]+") do out[#out + 1] = line end
    end
    return out
end

local function fit(line, width)
    if (utf8.len(line) or #line) <= width then return line end
    return line:sub(1, utf8.offset(line, width + 1) - 1)
end

function command.run(args)
    local store = cli.results(args)
    local live = m.sys.isatty(1)
    local count = args.count or (live and math.huge or 1)
    local shown = 0
    if live then m.interrupted() end -- from here Ctrl-C is asked for
    while true do
        local lines = view(store)
        if live then
            local width = format.columns()
            for i, line in ipairs(lines) do lines[i] = fit(line, width) .. "\27[K" end
            io.write("\27[H", table.concat(lines, "\n"), "\n\27[J")
        else
            io.write(table.concat(lines, "\n"), "\n")
        end
        io.flush()
        shown = shown + 1
        if shown >= count then return cli.DONE end
        for _ = 1, math.ceil(args.interval / 0.1) do
            if m.interrupted() > 0 then return cli.DONE end
            m.sys.sleep(math.min(args.interval, 0.1))
        end
    end
end

return command

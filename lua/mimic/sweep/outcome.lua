-- What came of a sweep: its points with their means, the best one, their runs, a line to print. Methods of
-- sweep.Sweep, by the rows of its trials.
local draw = require "mimic.sweep.draw"
local group = require "mimic.group"
local queue = require "mimic.sweep.queue"
local space = require "mimic.sweep.space"

---@class sweep.Sweep
local outcome = {}

---Points with their mean over seeds, best first; those without a value last.
---@return {point: integer, params: table, patch: table, mean: number?, sd: number?, n: integer, state: string,
---runs: integer[]}[] patch: the parameters as a table for base:with
function outcome:points()
    if self.planned then return {} end
    local store = require("mimic.experiment").store()
    local points, list = {}, {}
    for t in store.db:each([[SELECT number, params, state, value, run FROM trial WHERE sweep = ? ORDER BY number]],
        self.id) do
        local n = self:point_of(t.number)
        local p = points[n]
        if not p then
            p = { point = n, params = self:params(t.params), values = {}, runs = {}, state = t.state }
            p.patch = self:patch(p.params)
            points[n] = p
            list[#list + 1] = p
        end
        if t.state == "done" and t.value then p.values[#p.values + 1] = t.value end
        p.runs[#p.runs + 1] = t.run
        if t.state ~= "done" then p.state = t.state end
    end
    for _, p in ipairs(list) do
        local sum, squares = 0.0, 0.0
        p.n = #p.values
        for _, v in ipairs(p.values) do sum = sum + v end
        p.mean = p.n > 0 and sum / p.n or nil
        for _, v in ipairs(p.values) do squares = squares + (v - p.mean) ^ 2 end
        p.sd = p.n > 1 and math.sqrt(squares / (p.n - 1)) or nil
    end
    table.sort(list, function(a, b)
        if (a.mean == nil) ~= (b.mean == nil) then return b.mean == nil end
        if a.mean ~= b.mean then
            if self.goal == "max" then return a.mean > b.mean end
            return a.mean < b.mean
        end
        return a.point < b.point
    end)
    return list
end

-- What a point changes of the base.
function outcome:patch(params)
    return self.rows and (self.rows[params.row] or {}).patch or space.nest(params)
end

---The point with the best mean over its seeds; nil when none has a value. Of a sweep that is only planned (--dry-run,
---mimic config) it is the first point, without a value, so that a script that goes on from it can be planned too.
function outcome:best()
    if self.planned then
        local params = self.trial and {} or draw.point(self, 1, {}, function() return false end) or {}
        return { point = 1, params = params, patch = self:patch(params), n = 0, state = "planned", runs = {} }
    end
    local first = self:points()[1]
    return first and first.mean and first or nil
end

---Handles of the runs of a row of an ablation, by its name, or of a point of points().
---@param which string|table
function outcome:runs(which)
    local experiment = require "mimic.experiment"
    local list = {}
    for _, p in ipairs(self:points()) do
        if p.params.row == which or type(which) == "table" and p.point == which.point then
            for i, id in ipairs(p.runs) do list[i] = experiment.handle(id) end
        end
    end
    return group.of(list)
end

---"tau-lambda: 15 trials done; best val/acc 89.20 ± 0.31 (n=3) with lambda=0.3 tau=0.1"
function outcome:summary()
    if self.planned then return self.name .. ": planned" end
    local c = queue.counts(require("mimic.experiment").store(), self.id)
    local words = {}
    for _, state in ipairs { "done", "pruned", "failed", "cancelled", "running", "waiting" } do
        if c[state] > 0 then words[#words + 1] = ("%d %s"):format(c[state], state) end
    end
    local text = ("%s: %s of %d trials"):format(self.name, table.concat(words, ", "), c.total)
    local best = self:best()
    if not best then return text end
    local sd = best.sd and (" ± %.2f (n=%d)"):format(best.sd, best.n) or ""
    return ("%s; best %s %.4g%s with %s"):format(text, self.metric, best.mean, sd, space.label(best.params))
end

-- Trials of worker processes too, for the summing up of the command.
function outcome:note_ends(opts)
    local store = require("mimic.experiment").store()
    local listed = {}
    for _, run in ipairs(opts.failed) do listed[run.id] = true end
    for t in store.db:each("SELECT run FROM trial WHERE sweep = ? AND state = 'done' AND run IS NOT NULL", self.id) do
        opts.done[t.run] = true
    end
    for t in store.db:each([[SELECT number, run, error FROM trial WHERE sweep = ? AND state = 'failed'
        ORDER BY number]], self.id) do
        if not listed[t.run or 0] then
            local label = ("%s, trial %d: %s"):format(self.name, t.number, (t.error or ""):match("^[^\n]*"))
            opts.failed[#opts.failed + 1] = { id = t.run or 0, label = function() return label end }
            if t.run then opts.done[t.run] = nil end -- its run came to its end, the trial failed with it: one, not two
        end
    end
end

return outcome

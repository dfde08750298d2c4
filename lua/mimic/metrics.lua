-- Which metrics a run will have, as its task says before anything runs: a name that it does not give is refused
-- then, not after the training.
local config = require "mimic.config"
local suggest = require "mimic.suggest"

local metrics = {}

---What a task's `metrics(cfg)` gives. A name that ends in / stands for all that begin with it.
---@class metrics.Known
---@field series string[] logged while the run goes on: val/acc, train/loss
---@field results {[1]: string, [2]: string, [3]: string}[] data set, split and metric of each result
---@field at_end boolean? results are recorded at the end of the run only

local function fits(name, known)
    if known:sub(-1) ~= "/" then return name == known end
    return #name > #known and name:sub(1, #known) == known
end

local function is_series(known, name)
    for _, s in ipairs(known.series) do
        if fits(name, s) then return true end
    end
    return false
end

local function is_result(known, name)
    for _, r in ipairs(known.results) do
        local split, metric = r[1] .. "/" .. r[2], r[3]
        if fits(name, metric) or fits(name, split .. "/" .. metric) then return true end
        if fits(name, r[1] .. " " .. r[2] .. " " .. metric) then return true end
    end
    return false
end

-- "acc, loss, recall/...", each once.
local function listed(names)
    local shown, seen = {}, {}
    for _, n in ipairs(names) do
        if not seen[n] then shown[#shown + 1] = n:sub(-1) == "/" and n .. "..." or n end
        seen[n] = true
    end
    return #shown > 0 and table.concat(shown, ", ") or "none"
end

---Refuses a series that a run will not have.
---@param known metrics.Known|nil nil: the task does not say
---@param name string
function metrics.check_series(known, name)
    if not known or is_series(known, name) then return end
    config.refuse("the run records no series '%s'%s; it has %s", name, suggest.hint(name, known.series),
        listed(known.series))
end

---Refuses a metric, a series or a result, that a run will not have.
---@param known metrics.Known|nil nil: the task does not say
---@param name string val/acc, acc, DATASET/SPLIT/acc
---@param judged boolean? a pruner looks at it after every evaluation
function metrics.check(known, name, judged)
    if not known or is_series(known, name) then return end
    if is_result(known, name) then
        if judged and known.at_end then
            config.refuse("the pruner needs a value at every evaluation, and '%s' is recorded at the end of the run; "
                .. "a series is %s", name, listed(known.series))
        end
        return
    end
    local names, full = {}, {}
    for i, r in ipairs(known.results) do names[i], full[i] = r[3], table.concat(r, "/") end
    local all = table.move(known.series, 1, #known.series, 1, {})
    for _, list in ipairs { names, full } do table.move(list, 1, #list, #all + 1, all) end
    config.refuse("the run records no metric '%s'%s; its series are %s; its results %s%s", name,
        suggest.hint(name, all), listed(known.series), listed(names),
        full[1] and (" (or in full, %s)"):format(full[1]) or "")
end

return metrics

-- m.query: SQL over the results, read-only. `for r in m.query "SELECT ..." :rows(value, ...) do` gives a
-- table by column name for each row; the documented views are leaderboard, seed_stat and those of
-- results/schema.sql.
local m = require "mimic"

local query = {}
local Query = {}
Query.__index = Query

local readers = {} -- path -> database opened for reading

local function reader()
    local experiment = require "mimic.experiment"
    experiment.flush()
    local path = experiment.options.db
    if not readers[path] then readers[path] = require("mimic.results").open(path, false).db end
    return readers[path]
end

---Iterator of rows, tables by column name.
---@param ... any values of the ? in the text
function Query:rows(...)
    return reader():each(self.sql, ...)
end

---All rows as a list, and the column names in order.
---@return table[], string[]
function Query:list(...)
    return reader():rows(self.sql, ...)
end

---The first row, or nil.
function Query:first(...)
    return reader():first(self.sql, ...)
end

---Closes the read-only databases.
function query.close()
    for _, db in pairs(readers) do db:close() end
    readers = {}
end

---The schema as text.
function query.schema()
    return m.sys.script_source("results/schema.sql")
end

return setmetatable(query, { __call = function(_, sql) return setmetatable({ sql = sql }, Query) end })

-- Names in conditions over runs as SQL: a run's own columns, parameters, results, last values of series, tags.
-- A name that nothing has is refused with the nearest that exists.
local suggest = require "mimic.suggest"

local columns = {}
local Names = {}
Names.__index = Names

local own = {}
for name in ("id uid name kind seed state step attempt created started ended note error git"):gmatch("%a+") do
    own[name] = "r." .. name
end
own.experiment = "(SELECT e.name FROM experiment e WHERE e.id = r.experiment)"
own.parent = "(SELECT p.name FROM run p WHERE p.id = r.parent)"
own.minutes = "((coalesce(r.ended, r.heartbeat) - r.started) / 60000.0)"

-- Words of SQL expressions, which stay as they are.
local words = {}
for word in ([[and or not in is null like glob between case when then else end escape exists select from where
    group by order limit distinct as asc desc collate nocase cast integer real text blob true false isnull notnull
    regexp match union all join on using having offset with]]):gmatch("%a+") do words[word] = true end

local shown_already = { id = 1, name = 1, kind = 1, seed = 1, state = 1, step = 1 }

---@param db table
function columns.new(db)
    return setmetatable({ db = db, known = {} }, Names)
end

local function quoted(s)
    return "'" .. s:gsub("'", "''") .. "'"
end

local function parameter(key)
    return ("(SELECT coalesce(p.num, p.txt) FROM param p WHERE p.run = r.id AND p.key = %s)"):format(quoted(key))
end

local result_of_metric = [[(SELECT x.value FROM result x WHERE x.run = r.id AND x.metric = %s
  ORDER BY x.split <> 'test', x.split <> 'val', x.dataset LIMIT 1)]]
local result_of_all = [[(SELECT x.value FROM result x WHERE x.run = r.id
  AND x.dataset || ' ' || x.split || ' ' || x.metric = %s)]]
local last_of_series = "(SELECT s.last FROM series s WHERE s.run = r.id AND s.name = %s)"
local value_of_tag = "(SELECT t.value FROM tag t WHERE t.run = r.id AND t.key = %s)"

-- The parameters whose key ends in .NAME.
function Names:ending(name)
    local list = {}
    for r in self.db:each([[SELECT DISTINCT key FROM param WHERE substr(key, -length(?1)) = ?1 ORDER BY key]],
        "." .. name) do list[#list + 1] = r.key end
    return list
end

function Names:find(name)
    if own[name] then return own[name] end
    local db = self.db
    if db:first("SELECT 1 AS x FROM param WHERE key = ? LIMIT 1", name) then return parameter(name) end
    if db:first("SELECT 1 AS x FROM result WHERE metric = ? LIMIT 1", name) then
        return result_of_metric:format(quoted(name))
    end
    if db:first("SELECT 1 AS x FROM result WHERE dataset || ' ' || split || ' ' || metric = ? LIMIT 1", name) then
        return result_of_all:format(quoted(name))
    end
    if db:first("SELECT 1 AS x FROM series WHERE name = ? LIMIT 1", name) then
        return last_of_series:format(quoted(name))
    end
    local tag = name:match("^tag%.(.+)$")
    if tag then return value_of_tag:format(quoted(tag)) end
    local list = self:ending(name)
    if #list == 1 then return parameter(list[1]) end
    if #list > 1 then
        error(("'%s' could be %s; write the whole key"):format(name, table.concat(list, " or ")), 0)
    end
end

---All names that a condition may use.
---@return string[]
function Names:all()
    local list = {}
    for k in pairs(own) do list[#list + 1] = k end
    for r in self.db:each([[SELECT DISTINCT key AS k FROM param UNION SELECT DISTINCT metric FROM result
      UNION SELECT DISTINCT name FROM series UNION SELECT DISTINCT 'tag.' || key FROM tag]]) do
        list[#list + 1] = r.k
        local tail = r.k:match("%.([^.]+)$")
        if tail then list[#list + 1] = tail end
    end
    return list
end

---SQL of a name over the run r; an error when nothing is called so.
---@param name string
---@param where string|nil for the message
---@return string
function Names:expression(name, where)
    local sql = self.known[name] or self:find(name)
    if not sql then
        error(("%s: no column, parameter, result or series '%s'%s"):format(where or "--where", name,
            suggest.hint(name, self:all())), 0)
    end
    self.known[name] = sql
    return sql
end

---Adds a name to those that a list shows, once.
function columns.show(name, shown)
    if shown_already[name] then return end
    for _, s in ipairs(shown) do
        if s == name then return end
    end
    shown[#shown + 1] = name
end

---A condition with its names replaced. Texts in quotes, numbers, functions and words of SQL stay.
---@param text string
---@param shown string[] takes the names found
---@return string
function Names:condition(text, shown)
    local out, at = {}, 1
    while at <= #text do
        local literal = text:match("^'[^']*'", at) or text:match("^%d[%w.]*", at)
        local name = not literal and (text:match('^"([^"]+)"', at) or text:match("^[%a_][%w_.]*", at))
        local piece = literal or name or text:sub(at, at)
        local length = #piece
        if name then
            if text:sub(at, at) == '"' then length = length + 2 end
            local call = text:match("^%s*%(", at + length)
            if not (text:sub(at, at) ~= '"' and (words[name:lower()] or call)) then
                piece = self:expression(name)
                columns.show(name, shown)
            end
        end
        out[#out + 1] = piece
        at = at + length
    end
    return table.concat(out)
end

return columns

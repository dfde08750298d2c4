-- A sweep by what a person calls it: its name, the beginning of its uid, or its number. Of several sweeps of one
-- name the open one is meant, else the newest, and that is said.
local progress = require "mimic.progress"
local suggest = require "mimic.suggest"

local find = {}

local NAMED = "SELECT * FROM sweep WHERE name = ? ORDER BY state <> 'open', id DESC"
local BY_UID = "SELECT * FROM sweep WHERE uid GLOB ?"

---@param db table
---@param text string
---@return table|nil row of the table sweep; nil when there is none
function find.any(db, text)
    local named = db:rows(NAMED, text)
    if #named > 1 then
        progress.complain("%d sweeps are named %s: the %s one, %s, is taken; `mimic sweep ls` lists their uids", #named,
            text, named[1].state == "open" and "open" or "newest", named[1].uid)
    end
    if named[1] then return named[1] end
    local by_uid = text:find "^%x+$" and db:rows(BY_UID, text:lower() .. "*") or {}
    if #by_uid > 1 then error(("'%s' fits %d sweeps; give more of the uid"):format(text, #by_uid), 0) end
    return by_uid[1] or db:first("SELECT * FROM sweep WHERE id = ?", math.tointeger(tonumber(text)))
end

---The same; an error names what is near when there is none.
---@param db table
---@param text string
---@return table row
function find.one(db, text)
    local row = find.any(db, text)
    if row then return row end
    local names = {}
    for r in db:each "SELECT DISTINCT name FROM sweep" do names[#names + 1] = r.name end
    error(("no sweep '%s'%s; `mimic sweep ls` lists them"):format(text, suggest.hint(text, names)), 0)
end

return find

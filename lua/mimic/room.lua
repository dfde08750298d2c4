-- Room on the disk: whether a failure is a full disk, and whether there is room for what a run is about to write.
-- A run that finds no room stops at its last checkpoint; nothing that was recorded before it is lost.
local m = require "mimic"

local room = {}

local spare = 8 * 2 ^ 20 -- for the database beside checkpoints

local signs = { "no room for", "database or disk is full", "No space left on device", "Disk quota exceeded",
    "File too large" }

---@param message any an error
---@return boolean
function room.is_full(message)
    message = tostring(message)
    for _, sign in ipairs(signs) do
        if message:find(sign, 1, true) then return true end
    end
    return false
end

---Raises when `bytes` and what the database needs are not free in `dir`.
---@param dir string
---@param bytes integer
---@param what string for the message: "the checkpoint of step 3"
function room.need(dir, bytes, what)
    local free = m.sys.free_bytes(dir)
    if free and free < bytes + spare then
        error(("no room for %s: it needs %.1f MiB (%.0f of them for the database), %s has %.1f MiB free"):format(what,
            (bytes + spare) / 2 ^ 20, spare / 2 ^ 20, dir, free / 2 ^ 20), 0)
    end
end

return room

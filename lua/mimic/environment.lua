-- What a run ran on and from: processor, versions, git state, script and required files. Collected once per
-- process;
-- holds nothing that changes between two runs on one machine, so that equal environments share one row.
local m = require "mimic"
local lfs = require "lfs"

local environment = {}

local function first_line(path)
    local f = io.open(path)
    if not f then return nil end
    local line = f:read("l")
    f:close()
    return line
end

local function cores()
    local n = 0
    local f = io.open("/proc/cpuinfo")
    if not f then return 1 end
    for line in f:lines() do
        if line:match("^processor%s*:") then n = n + 1 end
    end
    f:close()
    return math.max(n, 1)
end

local function memory_mib()
    local line = first_line("/proc/meminfo")
    return line and (tonumber(line:match("(%d+)")) or 0) // 1024 or nil
end

local function shell_quote(s)
    return "'" .. s:gsub("'", "'\\''") .. "'"
end

local function output_of(command)
    local p = io.popen(command .. " 2>/dev/null")
    if not p then return nil end
    local text = p:read("a")
    return p:close() and text or nil
end

---Commit, dirty flag and diff of the git tree that holds `dir`; nil outside one.
---@param dir string
---@return {commit: string, dirty: boolean, diff: string}|nil
function environment.git(dir)
    local git = "git -C " .. shell_quote(dir)
    local commit = output_of(git .. " rev-parse --verify -q HEAD")
    commit = commit and commit:match("%x+")
    if not commit then return nil end
    local diff = output_of(git .. " diff --no-color HEAD") or ""
    return { commit = commit, dirty = diff ~= "", diff = diff }
end

---What there is beside the processor: "cuda: NVIDIA ...", or nil.
local function gpu()
    for _, d in ipairs(m.devices()) do
        if d.name ~= "cpu" and d.about then return d.name .. ": " .. d.about end
    end
end

---@return table
function environment.hardware()
    return {
        device = m.device(), gpu = m.device() ~= "cpu" and gpu() or nil,
        cpu = m.sys.cpu(), cores = cores(), threads = m.threads(), isa = m.isa(),
        memory_mib = memory_mib(),
    }
end

---@param db table open database, for SQLite's version
---@return table
function environment.collect(db)
    local env = environment.hardware()
    env.mimic, env.lua, env.sqlite = m.version, _VERSION, db:first("SELECT sqlite_version() AS v").v
    env.jpeg = m.image.jpeg_version
    env.kernel, env.host = first_line("/proc/sys/kernel/osrelease"), m.sys.hostname()
    return env
end

---Files that the script has required, by module name: those of the user, not of the system's Lua.
---@return {name: string, path: string}[]
function environment.required_files()
    local out = {}
    for name in pairs(package.loaded) do
        local path = type(name) == "string" and package.searchpath(name, package.path)
        if path and not path:match("^/usr/") and not m.sys.script_source(name) then
            out[#out + 1] = { name = name, path = path }
        end
    end
    table.sort(out, function(a, b) return a.name < b.name end)
    return out
end

---Folder part of a path, "." when it has none.
---@param path string
---@return string
function environment.dirname(path)
    local dir = path:match("^(.*)/[^/]*$")
    if dir == nil then return "." end
    return dir == "" and "/" or dir
end

---@return string
function environment.cwd()
    return lfs.currentdir()
end

return environment

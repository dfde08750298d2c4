-- Files, database and system calls as Lua sees them.
local lu = require "luaunit"
local lfs = require "lfs"
local m = require "mimic"

local folder = os.tmpname()
os.remove(folder)
m.sys.mkdirs(folder)

local function path(name)
    return folder .. "/" .. name
end

local TestSafetensors = {}

function TestSafetensors:test_save_and_load()
    local a, b = m.tensor { { 1, 2 }, { 3, 4 } }, m.tensor({ 7, 8, 9 }, "i32")
    local list = { { "a", a }, { "b", b } }
    local sha, bytes = m.safetensors.save(path "x.safetensors", list, { note = "n", z = "1" })
    lu.assertEquals(sha, m.sha256_file(path "x.safetensors"))
    lu.assertEquals(bytes, lfs.attributes(path "x.safetensors", "size"))
    local f <close> = m.safetensors.open(path "x.safetensors")
    lu.assertItemsEquals(f:names(), { "a", "b" })
    local dtype, shape = f:info "b"
    lu.assertEquals({ dtype, shape }, { "I32", { 3 } })
    lu.assertNil(f:info "c")
    lu.assertEquals(f:load("a"):tolist(), a:tolist())
    lu.assertEquals(f:load("b"):tolist(), { 7, 8, 9 })
    lu.assertEquals(f:meta "note", "n")
    lu.assertNil(f:meta "other")
    lu.assertEquals(f:metadata(), { note = "n", z = "1" })
    lu.assertErrorMsgContains('no tensor "c"', f.load, f, "c")
    f:close()
    f:close()
    lu.assertErrorMsgContains("closed", f.names, f)
end

function TestSafetensors:test_same_values_same_file()
    local function save(name)
        local meta = {}
        for i = 1, 20 do meta["key" .. i] = tostring(i) end
        return (m.safetensors.save(path(name), { { "a", m.ones { 3 } } }, meta))
    end
    lu.assertEquals(save "1.safetensors", save "2.safetensors")
end

function TestSafetensors:test_failures()
    lu.assertErrorMsgContains("nothing.safetensors", m.safetensors.open, path "nothing.safetensors")
    lu.assertErrorMsgContains("no_folder", m.safetensors.save, path "no_folder/x", { { "a", m.ones { 1 } } })
    lu.assertErrorMsgContains("entry 1: {name, tensor} expected", m.safetensors.save, path "x", { { 1, 2 } })
    lu.assertErrorMsgContains("metadata", m.safetensors.save, path "x", { { "a", m.ones { 1 } } }, { a = 1 })
end

local TestDb = {}

function TestDb:setUp()
    os.remove(path "t.db")
    self.db = m.db.open(path "t.db", { write = true })
    self.db:exec "CREATE TABLE t(i INTEGER, r REAL, s TEXT, b BLOB)"
end

function TestDb:tearDown()
    self.db:close()
    for _, end_ in ipairs { "", "-wal", "-shm", ".lock" } do os.remove(path("t.db" .. end_)) end
end

function TestDb:test_values()
    local db = self.db
    lu.assertEquals(db.path, path "t.db")
    lu.assertEquals(db:exec("INSERT INTO t VALUES(?, ?, ?, ?)", 1, 2.5, "a\0b", m.db.blob "\0\1"), 1)
    lu.assertEquals(db:last_id(), 1)
    db:exec("INSERT INTO t VALUES(?, ?, ?, ?)", true, nil, nil, m.db.hex "00ff")
    local rows, names = db:rows "SELECT * FROM t ORDER BY rowid"
    lu.assertEquals(names, { "i", "r", "s", "b" })
    lu.assertEquals(rows, { { i = 1, r = 2.5, s = "a\0b", b = "\0\1" }, { i = 1, b = "\0\255" } })
    lu.assertEquals(math.type(rows[1].i), "integer")
    lu.assertEquals(db:first("SELECT r FROM t WHERE i = ? AND r = ?", 1, 2.5), { r = 2.5 })
    lu.assertNil(db:first "SELECT * FROM t WHERE 0")
    lu.assertEquals({ db:rows "SELECT * FROM t WHERE 0" }, { {}, {} })
    lu.assertNil(m.db.hex(nil))
    local n = 0
    for row in db:each "SELECT i FROM t" do
        n = n + row.i
        db:exec("UPDATE t SET r = ?", n)
    end
    lu.assertEquals(n, 2)
end

function TestDb:test_failures()
    local db = self.db
    lu.assertErrorMsgContains("no_table", db.exec, db, "SELECT * FROM no_table")
    lu.assertEquals(m.last_error().status, "EDB")
    lu.assertErrorMsgContains("value 1 of the statement", db.exec, db, "SELECT ?", {})
    lu.assertErrorMsgContains("no hexadecimal", m.db.hex, "0g")
    lu.assertErrorMsgContains("no hexadecimal", m.db.hex, "000")
    lu.assertErrorMsgContains('"writ" (did you mean "write"?)', m.db.open, "x.db", { writ = true })
    lu.assertErrorMsgContains("nothing.db", m.db.open, path "nothing.db")
    local other = m.db.open(path "t.db")
    lu.assertError(other.exec, other, "INSERT INTO t VALUES(1, 2, 3, 4)")
    other:close()
    other:close()
    lu.assertErrorMsgContains("closed", other.rows, other, "SELECT 1")
end

function TestDb:test_transactions()
    local db = self.db
    local function count() return db:first("SELECT count(*) n FROM t").n end
    lu.assertEquals({ db:tx(function()
        db:exec "INSERT INTO t(i) VALUES(1)"
        return 5, "x"
    end, true) }, { 5, "x" })
    lu.assertEquals(count(), 1)
    local ok, text = xpcall(db.tx, debug.traceback, db, function()
        db:exec "INSERT INTO t(i) VALUES(2)"
        error "of the script"
    end)
    lu.assertFalse(ok)
    lu.assertStrContains(text, "of the script")
    lu.assertStrContains(text, "test_binding_store.lua")
    lu.assertEquals(count(), 1)
    db:begin()
    db:exec "INSERT INTO t(i) VALUES(3)"
    db:rollback()
    db:begin(true)
    db:exec "INSERT INTO t(i) VALUES(4)"
    db:commit()
    lu.assertEquals(count(), 2)
    lu.assertError(db.commit, db)
end

function TestDb:test_blobs()
    local db = self.db
    for _, bytes in ipairs { "", "small", ("large"):rep(40000) } do
        local sha = db:put_blob(bytes)
        lu.assertEquals(sha, m.sha256(bytes))
        lu.assertEquals(db:get_blob(sha), bytes)
    end
    lu.assertErrorMsgContains("SHA-256", db.get_blob, db, "abc")
    lu.assertError(db.get_blob, db, m.sha256 "never stored")
end

local TestSys = {}

function TestSys:test_files()
    local name = path "a/b/c.txt"
    lu.assertTrue(m.sys.mkdirs(path "a/b"))
    lu.assertTrue(m.sys.mkdirs(path "a/b"))
    lu.assertTrue(m.sys.write_file_atomic(name, "one\0two"))
    lu.assertEquals(m.sys.read_file(name), "one\0two")
    lu.assertEquals(m.sys.realpath(path "a/../a/b/c.txt"), m.sys.realpath(name))
    local text, why = m.sys.read_file(path "nothing")
    lu.assertNil(text)
    lu.assertStrContains(why, path "nothing" .. ": No such file")
    lu.assertNil((m.sys.realpath(path "nothing")))
    lu.assertErrorMsgContains("cannot write", m.sys.write_file_atomic, path "no/file", "x")
    lu.assertErrorMsgContains("cannot make the folder", m.sys.mkdirs, name .. "/d")
    lu.assertErrorMsgContains("cannot make the folder", m.sys.mkdirs, name)
    lu.assertTrue(m.sys.free_bytes(folder) > 0)
    m.sys.write_file_atomic(name, "")
    lu.assertEquals(m.sys.read_file(name), "")
    assert(lfs.link("c.txt", path "a/b/link", true)) -- what a link leads to is replaced, a device written to
    m.sys.write_file_atomic(path "a/b/link", "by link")
    lu.assertEquals({ m.sys.read_file(name), lfs.symlinkattributes(path "a/b/link", "mode") }, { "by link", "link" })
    m.sys.write_file_atomic("/dev/null", "x")
    lu.assertEquals(lfs.attributes("/dev/null", "mode"), "char device")
end

function TestSys:test_machine()
    lu.assertTrue(m.sys.clock() <= m.sys.clock())
    lu.assertTrue(math.abs(m.sys.time() / 1000 - os.time()) < 5)
    lu.assertTrue(m.sys.alive(m.sys.pid()))
    lu.assertFalse(m.sys.alive(0))
    lu.assertTrue(#m.sys.hostname() > 0)
    lu.assertStrMatches(m.sys.boot_id(), "[%x-]+")
    lu.assertTrue(#m.sys.cpu() > 0)
    lu.assertTrue(m.sys.rss() > 1 << 20)
    lu.assertEquals(#m.sys.random_hex(6), 12)
    lu.assertNotEquals(m.sys.random_hex(8), m.sys.random_hex(8))
    lu.assertEquals(type(m.sys.isatty(0)), "boolean")
    lu.assertNil(m.sys.script_source "nothing")
    lu.assertStrContains(m.sys.script_source "mimic.init", "load_lazily")
    lu.assertStrContains(m.sys.script_source "results/schema.sql", "CREATE")
    m.sys.setenv("MIMIC_TEST_VALUE", "x")
    lu.assertEquals(os.getenv "MIMIC_TEST_VALUE", "x")
    m.sys.setenv("MIMIC_TEST_VALUE", nil)
    lu.assertNil(os.getenv "MIMIC_TEST_VALUE")
end

function TestSys:test_lock()
    local a = m.sys.flock(path "lock")
    lu.assertNil(m.sys.flock(path "lock", true))
    a:close()
    a:close()
    local b <close> = m.sys.flock(path "lock", true)
    lu.assertNotNil(b)
end

function TestSys:test_sha256()
    lu.assertEquals(m.sha256 "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    lu.assertErrorMsgContains("nothing", m.sha256_file, path "nothing")
end

local code = lu.LuaUnit.new():runSuiteByInstances {
    { "TestSafetensors", TestSafetensors }, { "TestDb", TestDb }, { "TestSys", TestSys },
}
os.execute("rm -r " .. folder)
os.exit(code, true)

-- Runs: identity, resume from checkpoints, rewinding, retention, failures; with a task of a few numbers
-- that counts its steps, so that every rule is tested without a network.
local lfs = require "lfs"
local m = require "mimic"
local lu = require "luaunit"
local config = require "mimic.config"
local experiment = require "mimic.experiment"
local progress = require "mimic.progress"

progress.quiet(true)

local dir
local counts -- steps executed by the task since the last look
local plan   -- what the task should do at a step

experiment.task("count", {
    defaults = { steps = 6, every = 2, scale = 1.0 },
    run = function(run)
        local c = run.config
        local x = m.tensor({ 0.0 })
        local at = 0
        local last = run:resume()
        if last then
            local f = m.safetensors.open(last.path)
            x = f:load("x")
            f:close()
            at = math.tointeger(last.meta.at)
        end
        while at < c.steps do
            at = at + 1
            counts = counts + 1
            x = x + c.scale * at
            run:log(at, { ["train/x"] = x:item() })
            if at % c.every == 0 then
                run:checkpoint(at, { { "x", x } }, { at = at }, { value = -math.abs(at - 4),
                    final = at == c.steps })
                run:result("toy", "test", "acc", x:item(), 10, at)
                run:confusion("toy", "test", { { at, 1 }, { 0, 2 } })
                run:artifact("note", "text", "at " .. at, at)
            end
            if plan[at] then plan[at](run) end
        end
    end,
})

local function shell(command)
    assert(os.execute(command))
end

local function open(words)
    experiment.close()
    local o = experiment.options
    o.db, o.failed, o.done, o.force, o.dry_run = dir .. "/r.db", {}, {}, words == "force", words == "dry"
    o.script = { path = "toy.lua", text = "-- toy", words = {} }
    counts = 0
end

local out = {} -- what was printed
local stdout_write, stderr_write = io.stdout, io.stderr

local function quietly(f, ...)
    local sink = { write = function(_, ...) out[#out + 1] = table.concat { ... } end, flush = function() end }
    io.stdout, io.stderr = sink, sink -- luacheck: ignore
    local r = table.pack(pcall(f, ...))
    io.stdout, io.stderr = stdout_write, stderr_write -- luacheck: ignore
    if not r[1] then error(r[2], 0) end
    return table.unpack(r, 2, r.n)
end

local function run(cfg, more)
    local spec = { kind = "count", name = "toy", config = cfg or {} }
    for k, v in pairs(more or {}) do spec[k] = v end
    return quietly(function() return m.experiment("test"):run(spec) end)
end

local function rows(sql, ...)
    experiment.flush()
    return (experiment.store().db:rows(sql, ...))
end

local function record(id) -- all that a run recorded, without times
    return {
        rows([[SELECT name, step, value FROM curve WHERE run = ? AND name NOT LIKE 'sys/%'
          ORDER BY 1, 2]], id),
        rows([[SELECT name, n, last, last_step, lo, lo_step, hi, hi_step, bad_n FROM series WHERE run = ?
          AND name NOT LIKE 'sys/%' ORDER BY 1]], id),
        rows("SELECT dataset, split, metric, value, n, step FROM result WHERE run = ? ORDER BY 1, 2, 3", id),
        rows("SELECT dataset, split, truth, pred, n FROM confusion WHERE run = ? ORDER BY 1, 2, 3, 4", id),
        rows("SELECT name, step, kind, hex(sha256) AS sha FROM artifact WHERE run = ? ORDER BY 1, 2", id),
        rows([[SELECT step, hex(sha256) AS sha, bytes, value, keep FROM checkpoint
          WHERE run = ? AND deleted IS NULL ORDER BY 1]], id),
        rows("SELECT state, step, error FROM run WHERE id = ?", id),
    }
end

local TestRuns = {}

function TestRuns.setUp()
    dir = os.tmpname()
    os.remove(dir)
    assert(lfs.mkdir(dir))
    plan, out = {}, {}
    open()
end

function TestRuns.tearDown()
    experiment.close()
    shell("rm -rf " .. dir)
end

function TestRuns.test_a_run_is_recorded()
    local r = run { scale = 2 }
    lu.assertEquals(r.state, "done")
    lu.assertEquals(r:result("toy", "test", "acc"), 42)
    lu.assertEquals(#r:curve("train/x"), 6)
    lu.assertStrMatches(table.concat(out), "toy test acc 42.00 %(n=10%) step 6 sha %x+\n")
    lu.assertEquals(rows("SELECT key, num, txt FROM param WHERE run = ? AND key = 'scale'", r.id)[1],
        { key = "scale", num = 2.0, txt = "2" })
    lu.assertStrContains(r:weights(), "step-6.safetensors")
    local env = rows("SELECT json FROM env")[1].json
    lu.assertStrContains(env, '"cpu":')
    lu.assertStrContains(env, '"sqlite":')
end

function TestRuns.test_done_runs_are_returned()
    local first = run()
    open()
    local again = run()
    lu.assertEquals(again.id, first.id)
    lu.assertEquals(counts, 0)
    open()
    lu.assertNotEquals(run({ scale = 3 }).id, first.id)
    lu.assertNotEquals(run({ seed = 1 }).id, first.id)
    open("force")
    lu.assertNotEquals(run().id, first.id)
    lu.assertEquals(counts, 6)
    open()
    experiment.options.script.text = "-- changed"
    lu.assertNotEquals(run().id, first.id)
end

function TestRuns.test_dry_run_touches_nothing()
    open("dry")
    local r = run()
    lu.assertEquals(r.state, "planned")
    lu.assertNotEquals(r:result("toy", "test", "acc"), r:result("toy", "test", "acc")) -- NaN
    lu.assertNil(lfs.attributes(dir .. "/r.db"))
end

function TestRuns.test_seeds_make_a_group()
    local group = run({}, { seeds = { 0, 1, 2 } })
    lu.assertEquals(#group, 3)
    lu.assertEquals(group:summary("toy", "test", "acc"), "21.00 ± 0.00 (n=3)")
    lu.assertEquals(rows("SELECT count(DISTINCT config_hash) AS n FROM run")[1].n, 1)
    local child = run({ scale = 2 }, { seeds = { 2, 1 }, parent = group })
    lu.assertEquals(child[1].parent.seed, 2)
    lu.assertEquals(child[2].parent.seed, 1)
end

function TestRuns.test_failure_then_resume_equals_uninterrupted()
    plan[5] = function() error("boom") end
    local broken = run()
    lu.assertEquals(broken.state, "failed")
    lu.assertEquals(#experiment.options.failed, 1)
    lu.assertStrContains(table.concat(out), "saved at step 4")
    lu.assertStrContains(rows("SELECT error FROM run")[1].error, "boom")
    plan = {}
    open()
    local resumed = run()
    lu.assertEquals(resumed.id, broken.id)
    lu.assertEquals(counts, 2) -- steps 5 and 6 only
    lu.assertEquals(rows("SELECT attempt FROM run")[1].attempt, 2)
    open("force")
    local whole = run()
    lu.assertEquals(counts, 6)
    lu.assertEquals(record(resumed.id), record(whole.id))
end

function TestRuns.test_interrupt_is_resumable()
    plan[3] = function(r)
        r:checkpoint(3, { { "x", m.tensor({ 6.0 }) } }, { at = 3 })
        r:stop()
    end
    lu.assertError(function() run() end)
    lu.assertEquals(rows("SELECT state FROM run")[1].state, "interrupted")
    plan = {}
    open()
    local resumed = run()
    lu.assertEquals(counts, 3)
    lu.assertEquals(resumed:result("toy", "test", "acc"), 21)
end

function TestRuns.test_damaged_checkpoints_fall_back()
    local damages = { "truncate -s 20 %s", "rm %s",
        "printf x | dd of=%s bs=1 seek=70 conv=notrunc status=none" }
    for seed, damage in ipairs(damages) do
        plan[5] = function() error("boom") end
        open()
        local broken = run { seed = seed }
        shell(damage:format(broken.store:file("runs/" .. broken.uid .. "/step-4.safetensors")))
        plan, out = {}, {}
        open()
        local resumed = run { seed = seed }
        lu.assertEquals(resumed.id, broken.id)
        lu.assertEquals(counts, 4, damage) -- from step 2
        lu.assertStrContains(table.concat(out), "falling back")
        open("force")
        lu.assertEquals(record(resumed.id), record(run({ seed = seed }).id), damage)
    end
end

function TestRuns.test_without_a_checkpoint_it_begins_anew()
    plan[1] = function() error("boom") end
    local broken = run()
    lu.assertEquals(#broken:curve("train/x"), 1)
    plan = {}
    open()
    lu.assertEquals(run().state, "done")
    lu.assertEquals(counts, 6)
end

function TestRuns.test_checkpoints_inside_an_epoch_stay_until_a_later_one_is_whole()
    m.experiment.task("epochs", { defaults = { stop = 0 }, run = function(r)
        local last = r:resume()
        for step = (last and last.step or 0) + 1, 9 do
            r:log(step, { loss = step })
            r:checkpoint(step, { { "x", m.tensor { step + 0.0 } } }, {},
                { inside = step % 3 ~= 0, final = step == 9 })
            if step == r.config.stop and not last then r:stop() end
        end
    end })
    local function kept(id)
        return rows("SELECT step, keep FROM checkpoint WHERE run = ? AND deleted IS NULL ORDER BY step", id)
    end
    local exp = m.experiment "inside"
    local function try(stop)
        return pcall(exp.run, exp, { kind = "epochs", config = { stop = stop } })
    end
    local ends = { { step = 6, keep = "last" }, { step = 9, keep = "pin" } }
    local _, whole = try(0)
    lu.assertEquals(kept(whole.id), ends)
    lu.assertFalse((try(8))) -- stopped inside the last epoch
    lu.assertEquals(kept(whole.id + 1), { { step = 6, keep = "last" }, { step = 8, keep = "last" } })
    lu.assertTrue((try(8)))
    lu.assertEquals(kept(whole.id + 1), ends)
    lu.assertEquals(kept(whole.id), ends)
end

function TestRuns.test_retention_keeps_two_best_and_final()
    local r = run { steps = 12, every = 1 }
    local list = rows("SELECT step, keep FROM checkpoint WHERE run = ? AND deleted IS NULL ORDER BY step",
        r.id)
    lu.assertEquals(list, { { step = 4, keep = "best" }, { step = 11, keep = "last" }, { step = 12,
        keep = "pin" } })
    local files = 0
    for name in lfs.dir(r.store:file("runs/" .. r.uid)) do
        if name:match("safetensors$") then files = files + 1 end
    end
    lu.assertEquals(files, 3)
end

function TestRuns.test_retention_by_rules()
    local function kept(id)
        local list = {}
        for i, c in ipairs(rows([[SELECT step, keep FROM checkpoint WHERE run = ? AND deleted IS NULL
          ORDER BY step]], id)) do list[i] = c.step .. " " .. c.keep end
        return list
    end
    local function with(seed, rules)
        return kept(run({ steps = 12, every = 1, seed = seed }, { keep = rules }).id)
    end
    lu.assertEquals(with(0, { last = 1 }), { "4 best", "12 pin" })
    lu.assertEquals(with(1, { last = 3, best = false }), { "10 last", "11 last", "12 pin" })
    lu.assertEquals(with(2, { last = 1, best = "train/x" }), { "12 pin" }) -- the highest is the last
    plan[3] = function(r) r:log(4, { ["val/loss"] = -1 }) end
    plan[5] = function(r) r:log(6, { ["val/loss"] = 1 }) end
    lu.assertEquals(with(3, { last = 1, best = "val/loss", pin = { 2 } }), { "2 pin", "4 best", "12 pin" })
    lu.assertErrorMsgContains("did you mean last", run, {}, { keep = { lsat = 1 } })
    lu.assertErrorMsgContains("keep.last", run, {}, { keep = { last = 0 } })
end

function TestRuns.test_answers_file_a_run_under_rows()
    local filed = { { ref = "table2", row = "MIM, CE" }, { ref = "mine", row = "a" } }
    local r = run({}, { answers = filed, seeds = { 0, 1 } })
    lu.assertEquals(#rows "SELECT * FROM paper_run", 4)
    open()
    run({}, { answers = { ref = "mine", row = "b" }, seeds = { 0 } }) -- done already: filed all the same
    lu.assertEquals(rows([[SELECT ref, row FROM paper_run WHERE run = ? ORDER BY ref, row]], r[1].id),
        { { ref = "mine", row = "a" }, { ref = "mine", row = "b" }, filed[1] })
    lu.assertErrorMsgContains("answers", run, {}, { answers = { ref = "table2" } })
end

function TestRuns.test_a_live_run_is_refused()
    local refused
    plan[2] = function(r)
        plan = {}
        local held = m.sys.flock(r.store:file("runs/" .. r.uid) .. "/lock", true)
        refused = held == nil
        if held then held:close() end
    end
    run()
    lu.assertTrue(refused)
end

function TestRuns.test_a_parent_that_failed_leaves_children_out()
    plan[1] = function() error("boom") end
    local parent = run()
    plan = {}
    local child = run({}, { parent = parent, name = "child" })
    lu.assertEquals(child.state, "skipped")
    lu.assertEquals(rows("SELECT count(*) AS n FROM run")[1].n, 1)
end

function TestRuns.test_a_task_may_not_change_its_configuration()
    plan[1] = function(r) r.config.scale = 7 end
    lu.assertEquals(run().state, "failed")
end

function TestRuns.test_no_room_is_said_before_writing()
    local free = m.sys.free_bytes
    m.sys.free_bytes = function() return 100 end
    local stopped = pcall(run)
    m.sys.free_bytes = free
    lu.assertFalse(stopped)
    lu.assertEquals(rows("SELECT state FROM run")[1].state, "interrupted")
    lu.assertStrContains(table.concat(out), "no room for the checkpoint of step 2")
    lu.assertStrContains(rows("SELECT error FROM run")[1].error, "no room")
    open()
    lu.assertEquals(run().state, "done")
end

function TestRuns.test_room_for_all_checkpoints_is_asked_before_the_work()
    local free = m.sys.free_bytes
    local tensors = { { "x", m.zeros { 1 << 20 } } } -- 4 MiB
    local function asked(mib, rules)
        plan[1] = function(r)
            m.sys.free_bytes = function() return mib << 20 end
            local ok, why = pcall(r.preflight, r, tensors)
            m.sys.free_bytes = free
            error(ok and "enough" or why, 0)
        end
        open("force")
        pcall(run, {}, { keep = rules })
        return rows("SELECT error FROM run ORDER BY id DESC")[1].error
    end
    lu.assertStrContains(asked(24), "enough") -- two, the best, the new one, and 8 MiB for the database
    lu.assertStrContains(asked(23), "no room for 4 checkpoints: it needs 24.0 MiB")
    lu.assertStrContains(asked(23, { last = 1, best = false }), "enough")
    lu.assertStrContains(asked(40, { last = 20 }), "no room for 22 checkpoints")
end

function TestRuns.test_nan_is_kept_apart()
    plan[2] = function(r) r:log(2, { ["train/bad"] = 0 / 0 }) end
    local r = run()
    lu.assertEquals(rows("SELECT bad_n, bad_step FROM series WHERE run = ? AND name = 'train/bad'", r.id)[1],
        { bad_n = 1, bad_step = 2 })
end

function TestRuns.test_unknown_words_are_refused()
    lu.assertErrorMsgContains("did you mean scale", run, { scael = 1 })
    lu.assertErrorMsgContains("did you mean config", run, {}, { confg = {} })
    lu.assertErrorMsgContains("no task 'cuont' (did you mean count?)", run, {}, { kind = "cuont" })
end

function TestRuns.test_query_reads()
    run()
    local seen = {}
    local q = m.query "SELECT name, value FROM leaderboard WHERE dataset = ?"
    for r in q:rows "toy" do seen[#seen + 1] = r end
    lu.assertEquals(seen, { { name = "toy", value = 21.0 } })
    lu.assertErrorMsgContains("", function() m.query("DELETE FROM run"):list() end)
    require("mimic.query").close()
end

function TestRuns.test_report_is_complete_and_escaped()
    run({}, { name = "<b>&toy", seeds = { 0, 1 } })
    plan[1] = function() error("no <i>luck</i>") end
    run({ scale = 9 }, { name = "bad" })
    local path = m.report { out = dir .. "/report.html", title = "A & <B>" }
    local html = assert(m.sys.read_file(path))
    for _, text in ipairs { "A &amp; &lt;B&gt;", "&lt;b&gt;&amp;toy", "no &lt;i&gt;luck", "21.00 ± 0.00",
        "<svg", "toy test acc",
        "prefers-color-scheme", "aria-label", "SQL behind this", "1 run is not complete" } do
        lu.assertStrContains(html, text)
    end
    lu.assertNotStrContains(html, "<b>&toy")
    lu.assertNil(html:match('src="http') or html:match('href="http') or html:match("url%("))
end

function TestRuns.test_canonical_hash_is_stable()
    lu.assertEquals(config.json(config.plain { steps = 6, every = 2, scale = 1.0 }),
        '{"every":2,"scale":1,"steps":6}')
end

os.exit(lu.LuaUnit.new():runSuiteByInstances { { "TestRuns", TestRuns } })

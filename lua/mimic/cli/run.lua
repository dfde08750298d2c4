-- mimic run: executes an experiment script with overrides of its configuration.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local config = require "mimic.config"
local environment = require "mimic.environment"
local experiment = require "mimic.experiment"
local format = require "mimic.format"
local override = require "mimic.override"
local progress = require "mimic.progress"
local room = require "mimic.room"
local Run = require "mimic.run"

local command = {
    summary = "run an experiment script; what is done is returned, what was cut short goes on",
    description = [[
Runs the experiments of a Lua script. Words key=value change the script's configuration
(m.config): numbers, true/false, text, lists [a,b] and ranges [0..4]; an unknown key is
refused. A run whose configuration, seed, script and parent are already done in the
database is returned, not run again; one that was interrupted or crashed continues from
its last checkpoint and gives exactly the numbers of an uninterrupted run. So the command
that continues is the command itself.]],
    examples = [[
  mimic run experiments/quickstart.lua
  mimic run experiments/quickstart.lua seeds=[0,1,2] finetune.epochs=20
  mimic run experiments/quickstart.lua --dry-run        lists the runs and does nothing
  mimic run experiments/quickstart.lua --device cuda    on the GPU; device=cuda in a configuration too
  mimic run experiments/quickstart.lua --force          runs again what is done
  mimic run experiments/quickstart.lua --profile        where the time of a step goes]],
}

function command.configure(p)
    p:argument("file"):argname("FILE.lua"):description("the experiment script")
    p:argument("overrides"):argname("key=value"):args("*")
        :description("values over the script's configuration")
    p:flag("--force"):description("run again what is done")
    p:flag("--dry-run"):description("list the runs, run nothing")
    p:option("--device"):argname("NAME"):description("compute there: cpu or cuda (see mimic devices)")
    p:flag("--fail-fast"):description("stop at the first run that fails")
    p:flag("--profile"):description("print where the time of five early training steps goes, then train on")
    p:option("--profile-trace"):argname("FILE")
        :description("the same, and write the steps as a trace (Chrome's JSON) for ui.perfetto.dev")
end

local function refused(message)
    return config.refused and message:find(config.refused, 1, true)
end

-- A full disk before a run has begun, or between two: what is done is kept, and the same command goes on.
local function stop_for_room(err)
    if not room.is_full(err) then return end
    local text = cli.message(err):match("^[^\n]*"):gsub(": in %u+ .*$", "")
    cli.fail(cli.INTERRUPTED, "%s; make room (`mimic gc`), then give the same command again", text)
end

---Executes a script's text under the rules above.
---@param script {path: string, text: string, words: string[], files: table?}
---@param call (fun(chunk: function))? calls the loaded script; left out: once, with its words
---@return integer exit code
function command.execute(script, call)
    local opts = experiment.options
    opts.script = script
    cli.guard(cli.USAGE, override.set, script.words)
    cli.guard(cli.DATABASE, function()
        if opts.dry_run then return end
        local ok, why = pcall(experiment.store)
        if not ok then
            stop_for_room(why)
            error(why, 0)
        end
    end)
    local dir = environment.dirname(script.path)
    package.path = ("%s/?.lua;%s/?/init.lua;%s"):format(dir, dir, package.path)
    _G.arg = { [0] = script.path, table.unpack(script.words) }
    local chunk, why = load(script.text, "@" .. script.path, "t")
    if not chunk then cli.fail(cli.USAGE, "%s", why) end
    local ok, err = xpcall(call or chunk, function(e)
        return (e == Run.Stop or e == experiment.Finished) and e or (m.fault(e, 2))
    end, table.unpack(call and { chunk } or script.words))
    progress.finish()
    local finished = not ok and err == experiment.Finished
    ok = ok or finished
    if not ok and err == Run.Stop then
        return m.interrupted() > 1 and cli.STOPPED or cli.INTERRUPTED
    end
    if not ok then
        cli.stop_if_asked()
        if refused(err) then cli.fail(cli.USAGE, "%s", err) end
        stop_for_room(err)
        cli.fail(cli.FAILED, "%s", err)
    end
    if not (finished or call) then cli.guard(cli.USAGE, override.check) end
    for _, word in ipairs(not (opts.dry_run or finished or call) and override.unread() or {}) do
        progress.complain("%s had no effect: nothing in the script has looked at it", word)
    end
    if opts.dry_run and not opts.collect then
        print(("%d run%s%s"):format(opts.planned, opts.planned == 1 and "" or "s",
            require("mimic.flops").bill(opts.cost or {})))
    end
    if #opts.failed > 0 then
        local all = #opts.failed
        for _ in pairs(opts.done) do all = all + 1 end
        io.stderr:write(("mimic: %d of %d runs failed:\n"):format(#opts.failed, all))
        for _, run in ipairs(opts.failed) do
            local hint = run.id > 0 and ("    mimic show %d"):format(run.id) or ""
            io.stderr:write(("  %s%s\n"):format(format.safe(run:label()), hint))
        end
        return cli.FAILED
    end
    return opts.unfinished and cli.INTERRUPTED or cli.DONE
end

function command.run(args)
    if lfs.attributes(args.file, "mode") ~= "file" then cli.fail(cli.USAGE, "no script %s", args.file) end
    local text, why = m.sys.read_file(args.file)
    if not text then cli.fail(cli.USAGE, "%s", why) end
    local opts = experiment.options
    opts.force, opts.dry_run, opts.fail_fast = args.force, args.dry_run, args.fail_fast
    opts.device = args.device
    if args.profile or args.profile_trace then
        require("mimic.profile").wanted = { trace = args.profile_trace }
    end
    local code = command.execute { path = args.file, text = text, words = args.overrides }
    local missed = require("mimic.profile").missed()
    if missed then io.stderr:write("mimic: ", missed, "\n") end
    return code
end

return command

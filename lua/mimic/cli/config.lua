-- mimic config: what a script is configured to do, and where each value comes from.
local lfs = require "lfs"
local m = require "mimic"
local cli = require "mimic.cli"
local config = require "mimic.config"
local experiment = require "mimic.experiment"
local format = require "mimic.format"
local origin = require "mimic.origin"
local run_command = require "mimic.cli.run"

local command = {
    summary = "every value of a script's configuration and where it was set",
    description = [[
Prints the configurations (m.config) of a script with the words key=value applied, without
running anything. --explain adds the file and line, or the override, that set each value.
--run NAME prints the whole configuration of a run of the script, defaults included.]],
    examples = [[
  mimic config experiments/quickstart.lua finetune.epochs=20 --explain
  mimic config experiments/quickstart.lua --run mae --explain
  mimic config experiments/quickstart.lua +note='a key of my own' ~report
Overrides (Hydra's syntax):
  lr=1e-3  data.size=64  opt=adam  name='a b'  flag=true  val=null (not set)
  seeds=[0,1,2]  seeds=0..4  model={dim: 64, depth: 2}  +key=value adds  ~key removes]],
}

function command.configure(p)
    p:argument("file"):argname("FILE.lua"):description("the experiment script")
    p:argument("overrides"):argname("key=value"):args("*")
        :description("values over the script's configuration")
    p:flag("--explain"):description("the place that set each value")
    p:option("--run"):argname("NAME"):description("the whole configuration of a planned run")
end

local function show(title, leaves, explain)
    print("# " .. title)
    local key_width, value_width, lines = 0, 0, {}
    for i, leaf in ipairs(leaves) do
        local value = config.json(leaf.value)
        lines[i] = { leaf.key, value, leaf.origin or "" }
        key_width = math.max(key_width, #leaf.key)
        value_width = math.max(value_width, math.min(#value, 40))
    end
    for _, l in ipairs(lines) do
        if explain then
            print(("%-" .. key_width .. "s = %-" .. value_width .. "s  # %s"):format(l[1], l[2], l[3]))
        else
            print(("%-" .. key_width .. "s = %s"):format(l[1], l[2]))
        end
    end
end

local function leaves_of(cfg)
    local out = config.flatten(cfg)
    for _, leaf in ipairs(out) do leaf.origin = config.origin(cfg, leaf.key) end
    return out
end

-- A resolved configuration: what the script did not give is the task's default.
local function leaves_of_run(planned)
    local out = config.flatten(planned.run.config)
    for _, leaf in ipairs(out) do
        leaf.origin = config.origin(planned.given, leaf.key)
        if not leaf.origin then
            local node = planned.given
            for part in leaf.key:gmatch("[^.]+") do
                if type(node) == "table" then node = node[part] else node = nil end -- a value may be false
            end
            leaf.origin = node ~= nil and "the script's call of exp:run" or "default of " .. planned.run.kind
        end
    end
    return out
end

local function show_run(planned, name, explain)
    local names = {}
    for _, p in ipairs(planned) do
        names[#names + 1] = p.run.name
        if p.run.name == name then
            show(("run %s, seed %d"):format(name, p.run.seed), leaves_of_run(p), explain)
            return
        end
    end
    cli.fail(cli.USAGE, "--run %s: the script plans no such run%s", name,
        require("mimic.suggest").hint(name, names))
end

function command.run(args)
    if lfs.attributes(args.file, "mode") ~= "file" then cli.fail(cli.USAGE, "no script %s", args.file) end
    local text, why = m.sys.read_file(args.file)
    if not text then cli.fail(cli.USAGE, "%s", why) end
    local opts = experiment.options
    opts.dry_run, opts.collect = true, {}
    config.made = {}
    origin.explain(args.file, text)
    local say = print
    _G.print = function() end -- what the script prints of results that are not there
    local code = run_command.execute { path = args.file, text = text, words = args.overrides }
    _G.print = say
    if args.run then
        show_run(opts.collect, args.run, args.explain)
        return code
    end
    if #config.made == 0 then cli.fail(cli.FAILED, "%s calls no m.config", args.file) end
    local names, seen = {}, {}
    for _, p in ipairs(opts.collect) do
        local name = format.safe(p.run.name)
        if not seen[name] then names[#names + 1], seen[name] = name, true end
    end
    for i, cfg in ipairs(config.made) do
        show(("m.config %d of %d in %s"):format(i, #config.made, args.file), leaves_of(cfg), args.explain)
    end
    if #names > 0 then
        print("# the whole configuration of a run, what the script sets on top included: --run NAME, one of "
            .. table.concat(names, ", "))
    end
    return code
end

return command

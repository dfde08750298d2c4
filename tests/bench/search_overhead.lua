-- What a sweep costs on top of its work when every run gives ten results a second: four trials of a task that waits
-- 0.1 s before each of fifty evaluations. To beat: 1 % (Ray Tune: 69 %).
--     build/mimic tests/bench/search_overhead.lua [SAMPLER = random]
local experiment = require "mimic.experiment"
local m = require "mimic"

local sampler = arg[1] or "random"
local dir = os.tmpname()
os.remove(dir)
m.sys.mkdirs(dir)
experiment.options.db = dir .. "/bench.db"

local work = 0.0
m.experiment.task("wait", { defaults = { x = 0.0 }, run = function(run)
    for i = 1, 50 do
        local began = m.sys.clock()
        m.sys.sleep(0.1)
        work = work + m.sys.clock() - began
        run:log(i, { ["val/acc"] = run.config.x + i })
        run:evaluated(i, i == 50)
        run:interrupted()
    end
end })
local began = m.sys.clock()
m.experiment("overhead"):sweep { name = "overhead", kind = "wait", base = m.config { x = 0.0 }, metric = "val/acc",
    space = { x = m.uniform(0, 1) }, sampler = sampler, trials = 4 }
local all = m.sys.clock() - began
print(("%s: 200 results in %.3f s, %.3f s of work: %.2f %% on top"):format(sampler, all, work,
    100 * (all - work) / work))
experiment.close()
os.execute("rm -rf '" .. dir .. "'")

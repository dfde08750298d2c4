-- Results files made up for tests and measurements: runs with parameters, curves, results, confusion counts,
-- pictures, a sweep, rows of the paper's tables. Every number follows from its place.
local m = require "mimic"

local synthetic = {}

local function insert_run(db, o)
    db:exec([[INSERT INTO run(uid, experiment, parent, kind, name, config_hash, seed, state, step, script, env,
        created, started, ended, heartbeat, error)
      VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]], ("%012x"):format(o.number), o.experiment, o.parent,
        o.kind, o.name, m.db.hex(m.sha256(o.config)), o.seed, o.state or "done", o.steps, m.db.hex(o.script), o.env,
        o.at, o.at, o.at + 60000, o.at + 60000, o.error)
    return db:last_id()
end
synthetic.insert_run = insert_run

-- A picture of one colour, as JPEG.
local function jpeg(size, level)
    local values = {}
    for i = 1, size * size * 3 do values[i] = (level * 37 + i * 5) % 256 end
    return m.image.from(m.tensor(values, "u8"):reshape{ size, size, 3 }):jpeg(80)
end
synthetic.jpeg = jpeg

---Fills a results database.
---@param db table opened for writing
---@param o table configurations, seeds, metrics, steps, classes; sweep, pictures, paper: whether to make them
function synthetic.fill(db, o)
    db:exec("INSERT INTO experiment(name) VALUES('made up')")
    local experiment = db:last_id()
    local script = db:put_blob("-- made up\n")
    db:exec([[INSERT INTO env(sha256, json) VALUES(?, ?)]], m.db.hex(m.sha256 "env"),
        '{"cpu":"made up","cores":2,"threads":2,"isa":"avx2","host":"nowhere"}')
    local env, n, classes = db:last_id(), 0, o.classes or 7
    local sweep
    db:tx(function()
        if o.sweep then
            db:exec([[INSERT INTO sweep(uid, name, sampler, space, metric, goal, seed, created)
              VALUES('s', 'tau-lambda', 'grid', '{}', 'test/acc', 'max', 0, 0)]])
            sweep = db:last_id()
        end
        local trial = 0
        for c = 1, o.configurations do
            local tau, lambda = 0.05 * ((c - 1) % 5 + 1), 0.1 * ((c - 1) // 5 + 1)
            for seed = 0, o.seeds - 1 do
                n = n + 1
                local run = insert_run(db, { number = n, experiment = experiment, kind = "finetune",
                    name = ("tau %.2f lambda %.1f"):format(tau, lambda), config = "c" .. c, seed = seed, env = env,
                    steps = o.steps, script = script, at = 1700000000000 + n * 60000 })
                local acc = 90 - 40 * (tau - 0.1) ^ 2 * 10 - 8 * (lambda - 0.3) ^ 2 + (n * 7919 % 13) / 13
                for key, v in pairs { ["mscl.tau"] = tau, ["mscl.weight"] = lambda, epochs = 10, seed = seed } do
                    db:exec("INSERT INTO param(run, key, num, txt) VALUES(?, ?, ?, ?)", run, key, v, ("%g"):format(v))
                end
                db:exec("INSERT INTO result VALUES(?, 'rafdb', 'test', 'acc', ?, 3068, ?)", run, acc, o.steps)
                for k = 2, o.metrics do
                    db:exec("INSERT INTO result VALUES(?, 'rafdb', 'test', ?, ?, 3068, ?)", run, "m" .. k, k + n / 100,
                        o.steps)
                end
                for i = 0, classes - 1 do
                    for j = 0, classes - 1 do
                        db:exec("INSERT INTO confusion VALUES(?, 'rafdb', 'test', ?, ?, ?)", run, i, j,
                            i == j and 80 or (i * 3 + j * 5 + n) % 4)
                    end
                end
                if o.pictures then synthetic.pictures(db, run, classes, o.steps) end
                if sweep then
                    db:exec([[INSERT INTO trial(sweep, number, config_hash, seed, params, state, run, value)
                      VALUES(?, ?, ?, ?, ?, 'done', ?, ?)]], sweep, trial, m.db.hex(m.sha256("c" .. c)), seed,
                        ('{"mscl.tau":%g,"mscl.weight":%g}'):format(tau, lambda), run, acc)
                    trial = trial + 1
                end
                if o.paper and c <= 6 then
                    local rows = { "supervised, CE", "supervised, CE + SCL", "supervised, CE + MSCL", "MIM, CE",
                        "MIM, CE + SCL", "MIM, CE + MSCL" }
                    db:exec("INSERT INTO paper_run(ref, row, run) VALUES('table2', ?, ?)", rows[c], run)
                end
            end
        end
    end)
    for run = 1, n do
        for k = 1, o.metrics do
            local name = ({ "train/loss", "val/acc", "train/epoch_loss", "sys/images_per_second" })[k] or "extra/" .. k
            for step = 1, o.steps do db:log(run, name, step, (k + run % 7) / step + 0.01 * k) end
        end
    end
    db:flush()
    return n
end

---Reconstructions, class names, a worst confusion with thumbnails, a t-SNE map of a run.
function synthetic.pictures(db, run, classes, steps)
    local function artifact(name, kind, bytes, step)
        db:exec("INSERT INTO artifact(run, name, step, kind, sha256) VALUES(?, ?, ?, ?, ?)", run, name, step or -1,
            kind, m.db.hex(db:put_blob(bytes)))
    end
    local names, x, y, label = {}, {}, {}, {}
    for k = 1, classes do names[k] = '"class ' .. k .. '"' end
    artifact("classes", "json", "[" .. table.concat(names, ",") .. "]")
    for i = 1, 100 do
        x[i], y[i] = ("%.3f"):format(math.cos(i) * (1 + i % classes)), ("%.3f"):format(math.sin(i) * (1 + i % classes))
        label[i] = i % classes
    end
    artifact("features", "tsne", ('{"x":[%s],"y":[%s],"label":[%s]}'):format(table.concat(x, ","), table.concat(y, ","),
        table.concat(label, ",")))
    for i = 1, 3 do artifact("reconstruction", "image/jpeg", jpeg(24, run * 3 + i), i * steps // 3) end
    artifact("mistaken/rafdb/test/0/1", "image/jpeg", jpeg(16, run), steps)
end

return synthetic

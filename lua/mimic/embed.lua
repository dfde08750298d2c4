-- Task "embed": what the features of a fine-tuned parent look like. Takes its encoder, computes the
-- features r of a split, and records their t-SNE map, silhouette and k-nearest-neighbour accuracy
-- (method.md 3.6, Fig. 7).
local m = require "mimic"
local config = require "mimic.config"
local finetune = require "mimic.finetune"
local ranges = require "mimic.ranges"
local task = require "mimic.task"
local weights = require "mimic.weights"

local embed = {}

--- Every key of the task and its default.
embed.defaults = {
    data = task.data_defaults,
    split = "val",
    batch = 128,
    k = 20,            -- neighbours that vote; every picture is left out of its own vote
    metric = "cosine", -- of silhouette and neighbours: cosine | euclidean
    tsne = { perplexity = 30, theta = 0.5, iterations = 1000, eta = 200 },
}

-- Features and labels of all pictures: r f32 [n,D], y i32 [n].
local function features(model, loader)
    local r, y = {}, {}
    m.no_grad(function()
        local next_batch, state, control = loader:epoch(0)
        while true do
            local scope <close> = m.scope() -- luacheck: ignore
            local batch = next_batch(state, control)
            if not batch then break end
            control = batch
            for _, row in ipairs(model:features(batch.images):tolist()) do r[#r + 1] = row end
            for _, label in ipairs(batch.labels:tolist()) do y[#y + 1] = label end
        end
    end)
    return m.tensor(r), m.tensor(y, "i32"), y
end

-- Classes that a file's classifier tells apart; the split need not hold all of them.
local function classes_of(path)
    local file = m.safetensors.open(path)
    local classes
    for _, name in ipairs(file:names()) do
        if name == "head.weight" or name == "head.1.weight" then
            local _, shape = file:info(name)
            classes = shape[1]
        end
    end
    file:close()
    return classes or error(path .. ": no classifier in it", 0)
end

local function set_name(c)
    return c.data.name or task.data_name(c.data[c.split])
end

embed.check = ranges.check

--- What a run of a configuration will record.
---@param c table embed.defaults' keys
---@return metrics.Known|nil nil when the split is not given, which ends the run
function embed.metrics(c)
    if not c.data[c.split] then return nil end
    local name = set_name(c)
    return { series = { "sys/" }, at_end = true, results = { { name, c.split, "silhouette" },
        { name, c.split, ("knn%d"):format(c.k) }, { name, c.split, "tsne_kl" } } }
end

function embed.run(run)
    local c, parent = run.config, run.parent
    if not parent or parent.kind ~= "finetune" then
        error("embed needs a parent that was fine-tuned: its encoder is looked at", 0)
    end
    local data = task.open(c.data, c.split, true)
    if not data then error(("data.%s is not set: the labelled pictures to look at"):format(c.split), 0) end
    local from = parent.config
    local path = parent:weights()
    local model = finetune.model(from, classes_of(path))
    weights.load(model, path)
    model:compute("f32"):eval()
    local loader = task.evaluation_loader(c.data, data, from, task.merge(from.eval, { batch = c.batch }))
    local r, y, labels = features(model, loader)
    local name = set_name(c)
    local n = #labels
    local apart = m.silhouette(r, y, { metric = c.metric })
    local near = 100 * m.knn_accuracy(r, y, { k = math.min(c.k, n - 1), metric = c.metric })
    local t = c.tsne
    local map, kl = m.tsne(r, { perplexity = math.min(t.perplexity, (n - 1) / 3), theta = t.theta,
        iterations = t.iterations, eta = t.eta, seed = run.seed })
    run:result(name, c.split, "silhouette", apart, n)
    run:result(name, c.split, ("knn%d"):format(c.k), near, n)
    run:result(name, c.split, "tsne_kl", kl, n)
    local shown = { x = {}, y = {}, label = labels, classes = {},
        note = ("silhouette %.3f, %d-NN %.2f %%"):format(apart, c.k, near) }
    for i, point in ipairs(map:tolist()) do shown.x[i], shown.y[i] = point[1], point[2] end
    for k = 1, data.classes do shown.classes[k] = data:class_name(k - 1) end
    run:artifact("map", "tsne", config.json(shown))
end

return setmetatable(embed, { __call = function(_, run) return embed.run(run) end })

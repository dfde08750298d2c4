-- m.tsne, m.silhouette, m.knn_accuracy as scripts call them.
local lu = require "luaunit"
local m = require "mimic"

local TestAnalysis = {}

local function clusters(n)
    local rng, rows, labels = m.rng(1, 1, 1), {}, {}
    for i = 1, n do
        local c = i % 3
        local row = { rng:normal(), rng:normal(), rng:normal() }
        row[c + 1] = row[c + 1] + 9
        rows[i] = row
        labels[i] = c
    end
    return m.tensor(rows), m.tensor(labels, "i32")
end

function TestAnalysis:test_map_keeps_clusters_apart()
    local x, labels = clusters(120)
    local seen = {}
    local y, kl = m.tsne(x, { perplexity = 12, iterations = 400, seed = 7, progress = function(t, v)
        seen[#seen + 1] = t
        lu.assertTrue(v > 0)
    end })
    lu.assertEquals(seen, { 50, 100, 150, 200, 250, 300, 350, 400 })
    lu.assertEquals(y.shape, { 120, 2 })
    lu.assertTrue(kl > 0 and kl < 1)
    lu.assertTrue(m.silhouette(y, labels) > 0.5)
    lu.assertTrue(m.knn_accuracy(y, labels) > 0.95)
    lu.assertTrue(m.knn_accuracy(x, labels, { k = 5, metric = "cosine" }) > 0.9)
    local again = m.tsne(x, { perplexity = 12, iterations = 400, seed = 7 })
    lu.assertEquals(y:tolist(), again:tolist())
end

function TestAnalysis:test_errors()
    local x, labels = clusters(30)
    lu.assertErrorMsgContains('unknown option "perplexty" (did you mean "perplexity"?)', m.tsne, x,
        { perplexty = 3 })
    lu.assertErrorMsgContains("perplexity 30 of 30 points", m.tsne, x)
    lu.assertErrorMsgContains("eta = 0 makes no descent", m.tsne, x, { perplexity = 5, eta = 0 })
    local settings = require "mimic.task".merge(m.embed.defaults, { tsne = { eta = 0 } })
    lu.assertErrorMsgContains("tsne.eta: expected x > 0, got 0", m.embed.check, settings, m.embed.defaults)
    lu.assertErrorMsgContains("stop here", m.tsne, x,
        { perplexity = 5, progress = function() error("stop here") end })
    lu.assertErrorMsgContains('unknown metric "cosin"', m.silhouette, x, labels, { metric = "cosin" })
    lu.assertErrorMsgContains("a reference needs both", m.knn_accuracy, x, labels, { k = 2, reference = x })
end

os.exit(lu.LuaUnit.new():runSuiteByInstances {
    { "TestAnalysis", TestAnalysis },
})

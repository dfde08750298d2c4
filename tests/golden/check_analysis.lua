-- tsne: affinities, gradient and some iterations of exact t-SNE.
local m = require "mimic"

local check = {}

check["tsne"] = function(g)
    local perplexity, iterations = table.unpack(g:list("meta.perp_iters"))
    local x = g:tensor("in.X")
    local p, beta = m.tsne_affinities(x, perplexity)
    g:relative("out.beta", beta, 1e-4)
    local reference, values = g:list("out.P"), g.numbers(p)
    for i, r in ipairs(reference) do -- the diagonal is 0 but for the reference's floor
        if values[i] == 0 and r < 1e-12 then values[i] = r end
    end
    g:relative("out.P", values, 1e-4)

    local gradient, kl = m.tsne_gradient(g:tensor("out.P"), g:tensor("in.Y_eval"))
    g:scaled("out.grad_eval", gradient, 1e-6)
    g:relative("out.kl_eval", { kl }, 1e-6)
    g:absolute("out.Y_after",
        (m.tsne(x, { perplexity = perplexity, theta = 0, iterations = math.tointeger(iterations),
            init = g:tensor("in.Y_init") })), 1e-3)
end

return check

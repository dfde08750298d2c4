-- Evaluation of a classifier: accuracy, loss, per-class recall, confusion counts.
local m = require "mimic"

local evaluate = {}

---@class evaluate.Report
---@field correct integer
---@field n integer
---@field acc number percent
---@field loss number mean cross-entropy
---@field confusion integer[][] [truth][prediction], classes from 1
---@field mistaken {truth: integer, pred: integer, index: integer[]}[] first pictures of the worst confusions

local shown, pictures, side = 3, 6, 48 -- confusions, pictures of each, pixels of a picture

-- Counts of one batch into the confusion matrix; the first pictures of each confusion are remembered.
local function count(confusion, mistaken, batch, predicted)
    local index = batch.index:tolist()
    for i, t in ipairs(batch.labels:tolist()) do
        local p = predicted[i]
        confusion[t + 1][p + 1] = confusion[t + 1][p + 1] + 1
        if p ~= t then
            local key = t * #confusion + p
            local list = mistaken[key] or {}
            mistaken[key] = list
            if #list < pictures then list[#list + 1] = index[i] end
        end
    end
end

--- The confusions with the largest shares of their true class, worst first.
---@param confusion integer[][]
---@param n integer
---@return {truth: integer, pred: integer, n: integer, share: number}[] classes from 0
function evaluate.worst(confusion, n)
    local list = {}
    for i, row in ipairs(confusion) do
        local sum = 0
        for _, k in ipairs(row) do sum = sum + k end
        for j, k in ipairs(row) do
            if i ~= j and k > 0 then list[#list + 1] = { truth = i - 1, pred = j - 1, n = k, share = k / sum } end
        end
    end
    table.sort(list, function(a, b)
        if a.share ~= b.share then return a.share > b.share end
        if a.truth ~= b.truth then return a.truth < b.truth end
        return a.pred < b.pred
    end)
    return table.move(list, 1, math.min(n, #list), 1, {})
end

--- Pictures of a data set side by side, as JPEG.
---@param dataset any
---@param index integer[] places in the data set, from 0
---@return string
function evaluate.strip(dataset, index)
    local scope <close> = m.scope() -- luacheck: ignore
    local row
    for _, i in ipairs(index) do
        local picture <close> = dataset:read(i)
        local small = picture:resize{ out_w = side, out_h = side }:tensor()
        row = row and m.concat(row, small, { axis = 2 }) or small
    end
    return m.image.from(row):jpeg(85)
end

--- Runs the model, in evaluation mode and without gradients, over a loader's pictures.
---@param model vit.ViT
---@param loader any
---@param classes integer
---@return evaluate.Report
function evaluate.classifier(model, loader, classes)
    local confusion = {}
    for i = 1, classes do
        confusion[i] = {}
        for j = 1, classes do confusion[i][j] = 0 end
    end
    local loss, n, mistaken = 0.0, 0, {}
    model:eval()
    m.no_grad(function()
        local next_batch, state, control = loader:epoch(0)
        while true do
            local scope <close> = m.scope() -- luacheck: ignore
            local batch = next_batch(state, control)
            if not batch then break end
            control = batch
            local logits = model(batch.images)
            loss = loss + m.cross_entropy(logits, batch.labels):item() * batch.n
            n = n + batch.n
            count(confusion, mistaken, batch, m.argmax(logits):tolist())
        end
    end)
    local correct = 0
    for i = 1, classes do correct = correct + confusion[i][i] end
    local worst = {}
    for k, c in ipairs(evaluate.worst(confusion, shown)) do
        worst[k] = { truth = c.truth, pred = c.pred, index = mistaken[c.truth * classes + c.pred] }
    end
    return { correct = correct, n = n, acc = 100 * correct / n, loss = loss / n, confusion = confusion,
        mistaken = worst }
end

--- Recall of each class in percent (false for a class without pictures) and their mean.
---@param confusion integer[][]
---@return (number|false)[] recall, number mean
function evaluate.recall(confusion)
    local recall, sum, present = {}, 0.0, 0
    for i, row in ipairs(confusion) do
        local n = 0
        for _, k in ipairs(row) do n = n + k end
        recall[i] = n > 0 and 100 * row[i] / n
        if n > 0 then sum, present = sum + recall[i], present + 1 end
    end
    return recall, sum / math.max(present, 1)
end

return evaluate

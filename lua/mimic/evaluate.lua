-- Evaluation of a classifier: accuracy, loss, per-class recall, confusion counts.
local m = require "mimic"

local evaluate = {}

---@class evaluate.Report
---@field correct integer
---@field n integer
---@field acc number percent
---@field loss number mean cross-entropy
---@field confusion integer[][] [truth][prediction], classes from 1

-- Counts of one batch into the confusion matrix.
local function count(confusion, truth, predicted)
    for i, t in ipairs(truth) do
        local row = confusion[t + 1]
        row[predicted[i] + 1] = row[predicted[i] + 1] + 1
    end
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
    local loss, n = 0.0, 0
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
            count(confusion, batch.labels:tolist(), m.argmax(logits):tolist())
        end
    end)
    local correct = 0
    for i = 1, classes do correct = correct + confusion[i][i] end
    return { correct = correct, n = n, acc = 100 * correct / n, loss = loss / n, confusion = confusion }
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

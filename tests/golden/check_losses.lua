-- softce: cross-entropy with hard, smoothed and mixed labels. mixing: Mixup and CutMix of a batch.
local m = require "mimic"

local check = {}

check["softce"] = function(g)
    local labels, lam = g:tensor("in.labels"), g:f32("in.lam")
    local n = labels.shape[1]
    local partner = {}
    for i = 1, n do partner[i] = n - i end
    local plan = { lam = lam, partner = m.tensor(partner, "i32") }
    for k, smoothing in ipairs { 0, 0.1 } do
        local tag = "s" .. k - 1
        local function case(name, target, attrs)
            local logits = g:tensor("in.logits"):requires_grad_(true)
            local loss = m.cross_entropy(logits, target, attrs)
            g:relative(("out.%s.%s.loss"):format(name, tag), loss, 1e-6)
            loss:backward()
            g:absolute(("grad.%s.%s"):format(name, tag), logits.grad, 1e-6)
        end
        local y = m.onehot(labels, { classes = g:tensor("in.logits").shape[2], smoothing = smoothing })
        g:absolute(("in.target.%s"):format(tag), m.mixing.labels(y, plan), 1e-6)
        case("hard", labels, { smoothing = smoothing })
        case("soft", g:f32(("in.target.%s"):format(tag)), {})
        local plain = m.onehot(labels, { classes = y.shape[2] })
        case("soft", m.mixing.labels(plain, plan), { smoothing = smoothing })
    end
end

check["mixing"] = function(g)
    local images, labels = g:tensor("in.imgs"), g:tensor("in.labels")
    local n, side = images.shape[1], images.shape[3] * images.shape[4]
    local k = 0
    while g.has[("out.%d.imgs"):format(k)] do
        local tag = ("out.%d."):format(k)
        local lams = g:drawn(tag .. "lam")
        local stored = tag .. "boxes_yl_yh_xl_xh_lam"
        local boxes = g:drawn(stored) and g:tensor(stored):tolist() or {}
        local cutmix = g:drawn(tag .. "is_cutmix")
        local lam, box, partner, used = {}, {}, {}, 0
        for i = 1, n do
            lam[i], box[i], partner[i] = lams[#lams == 1 and 1 or i], { 0, 0, 0, 0 }, n - i
            local row
            if cutmix then
                if cutmix[i] == 1 then
                    used = used + 1
                    row = boxes[used]
                end
            else
                row = boxes[1]
            end
            if row then
                for j = 1, 4 do box[i][j] = math.tointeger(row[j]) end
                local area = (row[2] - row[1]) * (row[4] - row[3])
                g:report(tag .. "lam of the box", math.abs(1 - area / side - lam[i]) <= 1e-6, "differs")
            end
        end
        local plan = { lam = m.tensor(lam), box = m.tensor(box, "i32"), partner = m.tensor(partner, "i32") }
        g:absolute(tag .. "imgs", m.mixing.images(images, plan), 1e-6)
        -- A row holds at most two classes, so its smallest entry is the smoothing's share of one class.
        local classes = g:tensor(tag .. "target").shape[2]
        local smoothing = classes * math.min(table.unpack(g:tensor(tag .. "target"):tolist()[1]))
        local y = m.onehot(labels, { classes = classes, smoothing = smoothing })
        g:absolute(tag .. "target", m.mixing.labels(y, plan), 1e-6)
        k = k + 1
    end
end

return check

-- mimic tests/golden/run.lua FILE: checks our implementation against one golden file.
-- The checker is chosen by the beginning of the file's name; sizes and seeds come from the file.
-- Exit code: 0 equal within the tolerance, 1 not, 77 no checker for this kind of file yet.
local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;" .. package.path
local Golden = require "golden"

local checkers = {
    { "^mae_", "models" }, { "^vit_", "models" }, { "^block", "models" }, { "^step_", "finetune" },
    { "^supcon", "contrastive" }, { "^mscl_", "contrastive" }, { "^softce", "losses" },
    { "^mixing", "losses" }, { "^opt_", "optim" }, { "^schedules", "optim" }, { "^pos_embed", "pictures" },
    { "^resize", "pictures" }, { "^augops", "pictures" },
    { "^tsne", "analysis" },
    { "^moco_heads", "methods" }, { "^localmim", "methods" },
}

local path = arg[1]
if not path then
    io.stderr:write("usage: mimic tests/golden/run.lua FILE.safetensors\n")
    os.exit(2)
end
local stem = path:match("([^/]+)%.safetensors$") or path
for _, entry in ipairs(checkers) do
    local prefix, name = entry[1], entry[2]
    if stem:find(prefix) then
        local golden = Golden.open(path)
        local check = require("check_" .. name)[prefix:sub(2):gsub("_$", "")]
        check(golden)
        os.exit(golden:finish(stem) and 0 or 1, true)
    end
end
print(stem .. ": not yet covered")
os.exit(77)

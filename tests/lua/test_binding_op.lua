-- The operator table as functions and methods: attributes, messages, places, names.
local lu = require "luaunit"
local m = require "mimic"

-- Text of the error that f(...) raises.
local function failure(f, ...)
    local ok, text = pcall(f, ...)
    lu.assertFalse(ok)
    lu.assertEquals(type(text), "string")
    return text
end

local TestAttributes = {}

function TestAttributes:test_list_attribute_is_the_array_part()
    local x = m.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    lu.assertEquals(x:reshape({ 3, -1 }).shape, { 3, 2 })
    lu.assertEquals(x:permute({ 2, 1 }):tolist(), { { 1, 4 }, { 2, 5 }, { 3, 6 } })
    lu.assertEquals(m.expand(m.tensor { { 1 }, { 2 } }, { 2, 3 }):tolist(), { { 1, 1, 1 }, { 2, 2, 2 } })
    local proxy = setmetatable({}, { __len = function() return 1 end, __index = function() return 6 end })
    lu.assertEquals(x:reshape(proxy).shape, { 6 })
    lu.assertEquals(m.rand_uniform({ 2, 3, lo = 1, hi = 2 }).shape, { 2, 3 })
end

function TestAttributes:test_positions_count_from_one()
    local x = m.tensor { { 1, 2, 3, 4 }, { 5, 6, 7, 8 } }
    lu.assertEquals(x:slice({ axis = 2, start = 2, stop = 3 }):tolist(), { { 2, 3 }, { 6, 7 } })
    lu.assertEquals(x:slice({ axis = 2, start = 3 }):tolist(), { { 3, 4 }, { 7, 8 } })
    lu.assertEquals(x:slice({ axis = 2, start = 3, stop = 0 }):tolist(), { { 3, 4 }, { 7, 8 } })
    lu.assertEquals(x:slice({ axis = -1, start = 3, stop = -1 }):tolist(), { { 3, 4 }, { 7, 8 } })
    lu.assertEquals(x:slice({ axis = 1, start = 2, stop = 2 }):tolist(), { { 5, 6, 7, 8 } })
    lu.assertEquals(x:sum():item(), 36)
    lu.assertEquals(x:sum({ axis = 1 }):tolist(), { 6, 8, 10, 12 })
    lu.assertEquals(x:sum({ axis = 2, keep = true }):tolist(), { { 10 }, { 26 } })
    lu.assertEquals(x:mean({ axis = -1 }):tolist(), { 2.5, 6.5 })
    lu.assertEquals(m.concat(x, x, { axis = 2 }).shape, { 2, 8 })
    lu.assertStrContains(failure(x.sum, x, { axis = 0 }), "axes count from 1")
    lu.assertStrContains(failure(x.slice, x, { axis = 1, start = 0 }), "positions count from 1")
    lu.assertStrContains(failure(x.sum, x, { axis = 3 }), "axis")
end

function TestAttributes:test_enums_are_words()
    local x = m.tensor { 1.5 }
    lu.assertEquals(x:cast({ dtype = "i32" }):item(), 1)
    lu.assertStrContains(failure(x.gelu, x, { form = "tan" }), 'form "tan" (did you mean "tanh"?)')
    lu.assertStrContains(failure(x.gelu, x, { form = 1 }), "attribute form: a string expected, got number")
end

function TestAttributes:test_wrong_attributes_name_the_right_ones()
    local x = m.ones { 2, 2 }
    local text = failure(m.layernorm, x, m.ones { 2 }, m.zeros { 2 }, { epsilon = 1 })
    lu.assertStrContains(text, 'layernorm: unknown attribute "epsilon" (did you mean "eps"?); it has: eps')
    lu.assertEquals(m.last_error().status, "EINVAL")
    lu.assertStrContains(failure(x.relu, x, { a = 1 }), 'relu: unknown attribute "a"; it has none')
    lu.assertStrContains(failure(x.relu, x, { 1 }), "takes no list")
    lu.assertStrContains(failure(x.sum, x, { keep = 1 }), "keep: true or false expected, got number")
    lu.assertStrContains(failure(x.scale, x, { alpha = "2" }), "alpha: a number expected, got string")
    lu.assertStrContains(failure(x.sum, x, { axis = 1.5 }), "attribute axis: an integer expected")
    lu.assertStrContains(failure(x.reshape, x, { 1, "a" }), "an integer expected, got string")
    lu.assertStrContains(failure(m.onehot, m.zeros({ 2 }, "i32")), "onehot: attribute classes must be given")
    lu.assertStrContains(failure(x.reshape, x, { 1, 1, 1, 1, 1, 1, 4 }), "more than 6")
end

function TestAttributes:test_inputs()
    local x = m.ones { 2, 2 }
    lu.assertStrContains(failure(m.add, x), "add: argument 2 is missing: add(")
    lu.assertStrContains(failure(m.relu, x, x), "relu: takes at most 1 tensors")
    lu.assertStrContains(failure(m.add, x, 3), "add: argument 2: a tensor expected, got number")
    lu.assertStrContains(failure(m.add, 3, x), "add: argument 1: a tensor expected")
    lu.assertEquals(m.linear(x, x, nil):tolist(), { { 2, 2 }, { 2, 2 } })
    lu.assertEquals(m.linear(x, x, false, { act = "relu" }):tolist(), { { 2, 2 }, { 2, 2 } })
    lu.assertEquals(m.linear(x, x):tolist(), { { 2, 2 }, { 2, 2 } })
end

function TestAttributes:test_several_outputs()
    local y, mean, var = m.batchnorm(m.tensor { { 1, 2 }, { 3, 6 } })
    lu.assertEquals(mean:tolist(), { 2, 4 })
    lu.assertEquals(var:tolist(), { 1, 4 })
    lu.assertEquals(y.shape, { 2, 2 })
end

local TestMessages = {}

function TestMessages:test_position_and_shapes()
    local a, b = m.zeros { 2, 3 }, m.zeros { 4, 5 }
    local text = failure(function() return a:matmul(b) end)
    lu.assertStrMatches(text, "^[^:]*test_binding_op.lua:%d+: matmul: .*%[2,3%].*%[4,5%].*")
    lu.assertEquals(m.last_error().message, (text:gsub("^[^:]*:%d+: ", "")))
end

function TestMessages:test_names_stand_in_front()
    local a, b = m.zeros { 2, 3 }, m.zeros { 4, 5 }
    local text = failure(m.named, "vit", function()
        local depth = m.push_name "blocks.3"
        a:matmul(b)
        m.pop_name(depth)
    end)
    lu.assertStrContains(text, "vit.blocks.3: matmul: ")
    lu.assertStrMatches(failure(function() return a:matmul(b) end), ".*:%d+: matmul: .*")
end

function TestMessages:test_failed_calls_leave_no_names()
    local a, b = m.zeros { 2, 3 }, m.zeros { 4, 5 }
    failure(function()
        m.push_name "stale"
        a:matmul(b)
    end)
    lu.assertNotStrContains(failure(a.matmul, a, b), "stale")
    failure(function()
        m.push_name "stale"
        error "of the script"
    end)
    local text = failure(m.step, function() return a:matmul(b) end)
    lu.assertNotStrContains(text, "stale")
    m.named("outer", function()
        pcall(m.named, "inner", error, "x")
        local depth = m.push_name "here"
        lu.assertStrContains(failure(function() return a:matmul(b) end), "outer.here: matmul")
        m.pop_name(depth) -- the failure has cut the names back: no harm
        lu.assertStrContains(failure(function() return a:matmul(b) end), "outer: matmul")
    end)
    m.pop_name()
    lu.assertStrMatches(failure(function() return a:matmul(b) end), ".*:%d+: matmul: .*")
end

function TestMessages:test_tensors_know_their_line()
    local line = debug.getinfo(1, "l").currentline + 1
    local t = m.zeros { 2 } + 1
    lu.assertStrContains(tostring(t), "test_binding_op.lua:" .. line)
    t:free()
    local text = failure(function() return t:relu() end)
    lu.assertStrContains(text, "test_binding_op.lua:" .. line)
    lu.assertStrContains(text, "freed")
end

-- Whatever was called before: the same line of other files, lines of one file far apart, and all of it again.
function TestMessages:test_each_line_of_each_file_is_its_own()
    local files = { "b", "a.lua", "a:3", "a" }
    for _ = 1, 2 do
        for _, file in ipairs(files) do
            for _, line in ipairs { 1, 7, 65, 129, 71 } do
                local f = assert(load(("\n"):rep(line - 1) .. "return ...", "@" .. file))
                local t = assert(load(("\n"):rep(line - 1) .. "return (...) + 1", "@" .. file))(f(m.zeros { 1 }))
                lu.assertStrContains(tostring(t), (", %s:%d) "):format(file, line))
            end
        end
    end
end

function TestMessages:test_lines_of_the_library_are_skipped()
    local f = load("local m, x = ... ; return m.relu(x)", "=mimic/nn.lua")
    local line = debug.getinfo(1, "l").currentline + 1
    local y = f(m, m.zeros { 2 })
    lu.assertStrContains(tostring(y), "test_binding_op.lua:" .. line)
end

function TestMessages:test_nan_is_found_where_it_is_made()
    m.check_nan(true)
    local x = m.tensor { -1 }
    local text = failure(function() return x:sqrt() end)
    m.check_nan(false)
    lu.assertStrContains(text, "sqrt")
    lu.assertEquals(m.last_error().status, "ENUMERIC")
end

local TestTable = {}

function TestTable:test_every_operator_is_offered()
    lu.assertTrue(#m.ops() > 50)
    for _, name in ipairs(m.ops()) do
        local info = m.op(name)
        lu.assertEquals(info.name, name)
        lu.assertTrue(#info.doc > 0)
        lu.assertEquals(type(info.cases), "string")
        if info.internal then
            lu.assertNil(rawget(m, name))
        else
            lu.assertEquals(type(m[name]), "function", name)
            lu.assertEquals(type(m.zeros({ 1 })[name]), "function", name)
        end
    end
end

function TestTable:test_info()
    local info = m.op "layernorm"
    lu.assertEquals(info.attrs, { { name = "eps", kind = "number", default = 1e-6 } })
    lu.assertEquals(#info.inputs, 3)
    lu.assertEquals(info.inputs[1], "x")
    lu.assertEquals(m.op("gelu").attrs[1],
        { name = "form", kind = "enum", default = "erf", choices = "erf|tanh" })
    lu.assertEquals(m.op("slice").attrs[1].kind, "axis")
    lu.assertErrorMsgContains('"layernrom" (did you mean "layernorm"?)', m.op, "layernrom")
end

-- Makes the input that a word of `cases` describes, of the dtype and values it needs.
local function input(word)
    if word == "-" then return nil end
    local shape, dtype = word:match "%[([%d,]*)%]", word:match ":(%w+)" or "f32"
    local dims, n = {}, 1
    for d in shape:gmatch "%d+" do
        dims[#dims + 1] = math.tointeger(d)
        n = n * dims[#dims]
    end
    local bound, last = word:match "=index%((%d+)%)", dims[#dims]
    if bound or word:find "=perm" then
        local list = {}
        for i = 0, n - 1 do list[i + 1] = string.pack("<i4", i % math.tointeger(bound or last)) end
        return m.frombytes(table.concat(list), dims, "i32")
    end
    if word:find "=bool" then return m.ones(dims, "u8") end
    local v = tonumber(word:match "=([%d%.%-e]+)")
    if dtype == "i32" or dtype == "u8" then return m.full(dims, v or 1, dtype) end
    if v then return m.full(dims, v, dtype) end
    local t = m.rand_uniform { shape = dims, lo = 0.1, hi = 1.1 }
    return dtype == "f32" and t or t:cast { dtype = dtype }
end

-- The Lua value of an attribute that a case writes as C does: choices by number, positions from 0.
local function value(attr, text)
    local kind = attr.kind
    if kind == "number" then return tonumber(text) end
    if kind == "enum" then
        local words = {}
        for word in attr.choices:gmatch "[^|]+" do words[#words + 1] = word end
        return tonumber(text) and words[tonumber(text) + 1] or text
    end
    if kind == "boolean" then return text == "true" or text == "1" end
    local v = math.tointeger(text)
    if kind == "axis" or kind == "index" then return v and v >= 0 and v + 1 or v end
    return v
end

-- Every case of every operator goes through the binding; numbers are checked in tests/ops.
function TestTable:test_every_case_is_callable()
    local calls = 0
    for _, name in ipairs(m.ops()) do
        local info = m.op(name)
        for case in (info.internal and "" or info.cases):gmatch "[^;]+" do
            local _ <close> = m.scope()
            local kinds, args, attrs, n, wild = {}, {}, {}, 0, false
            for _, a in ipairs(info.attrs) do kinds[a.name] = a end
            for word in case:gmatch "%S+" do
                local key, text = word:match "^([%a_][%w_]*)=(.+)$"
                if key and kinds[key] then
                    local kind = kinds[key].kind
                    if kind == "list" or kind == "axes" then
                        local list = {}
                        for d in text:gmatch "%-?%d+" do
                            local v = math.tointeger(d)
                            list[#list + 1] = kind == "axes" and v >= 0 and v + 1 or v
                        end
                        attrs[key] = list
                    else
                        attrs[key] = value(kinds[key], text)
                    end
                elseif word == "-" or word:find "%[" then
                    n = n + 1
                    args[n] = input(word)
                else
                    wild = true
                end
            end
            if not wild then
                n = n + 1
                args[n] = attrs
                local out = table.pack(pcall(m[name], table.unpack(args, 1, n)))
                lu.assertTrue(out[1], name .. ": " .. case .. ": " .. tostring(out[2]))
                lu.assertEquals(out.n - 1, info.outputs)
                for i = 2, out.n do lu.assertTrue(out[i].alive) end
                calls = calls + 1
            end
        end
    end
    lu.assertTrue(calls > 60)
end

local suites = {
    { "TestAttributes", TestAttributes }, { "TestMessages", TestMessages }, { "TestTable", TestTable },
}
os.exit(lu.LuaUnit.new():runSuiteByInstances(suites), true)

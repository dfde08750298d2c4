-- Learning-rate schedules: values worked out by hand.
local m = require "mimic"
local lu = require "luaunit"

local TestSchedule = {}

function TestSchedule:test_cosine_warms_up_and_ends_at_min()
    local f = m.schedule.cosine { lr = 1, min_lr = 0.1, warmup = 5, epochs = 25 }
    lu.assertEquals(f(0), 0)
    lu.assertAlmostEquals(f(2.5), 0.5, 1e-15)
    lu.assertAlmostEquals(f(5), 1, 1e-15)
    lu.assertAlmostEquals(f(15), 0.55, 1e-15)
    lu.assertAlmostEquals(f(25), 0.1, 1e-15)
end

function TestSchedule:test_constant_exponential_step()
    local constant = m.schedule.constant { lr = 3, warmup = 2 }
    lu.assertEquals(constant(1), 1.5)
    lu.assertEquals(constant(100), 3)
    local exponential = m.schedule.exponential { lr = 2, gamma = 0.5 }
    lu.assertEquals(exponential(1.9), 1)
    lu.assertEquals(exponential(3), 0.25)
    local step = m.schedule.step { lr = 1, gamma = 0.1, milestones = { 4, 8 } }
    lu.assertEquals(step(3.99), 1)
    lu.assertAlmostEquals(step(4), 0.1, 1e-15)
    lu.assertAlmostEquals(step(9), 0.01, 1e-15)
end

function TestSchedule:test_deit_is_not_shifted_by_warmup()
    local f = m.schedule.deit { lr = 1e-3, warmup_lr = 1e-6, min_lr = 1e-5, warmup = 5, epochs = 300 }
    lu.assertEquals(f(0), 1e-6)
    lu.assertAlmostEquals(f(150), 1e-5 + 0.5 * (1e-3 - 1e-5), 1e-15)
    lu.assertEquals(f(150.7), f(150))
    lu.assertEquals(f(310), 1e-5)
end

function TestSchedule:test_moco_momentum_grows_to_one()
    local f = m.schedule.moco_momentum(0.99, 300)
    lu.assertAlmostEquals(f(0), 0.99, 1e-15)
    lu.assertAlmostEquals(f(300), 1, 1e-15)
end

function TestSchedule:test_unknown_name_lists_the_valid_ones()
    lu.assertErrorMsgContains("cosine, constant", m.schedule.new, { schedule = "linear", lr = 1 })
end

os.exit(lu.LuaUnit.new():runSuiteByInstances {
    { "TestSchedule", TestSchedule },
})

/* How a C program hosts mimic: one context, tensors and operators from C, a Lua state that shares
 * the context, a script file, and a result read back from the database. Also the order in which
 * hosts may close things. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <mimic.h>

static char folder[] = "/tmp/mimic-embed-XXXXXX";

static const char *path_of(const char *name) {
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Every call returns a status; mimic_message tells what went wrong. */
static void check(mimic_ctx *ctx, mimic_status status) {
    if (status != MIMIC_OK)
        print_error("%s: %s\n", mimic_status_name(status), mimic_message(ctx));
    assert_int_equal(status, MIMIC_OK);
}

static mimic_ctx *open_context(void) {
    mimic_ctx *ctx = NULL;
    mimic_config cfg = {.seed = 1, .threads = 2};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    return ctx;
}

/* --- 1. tensors and operators from C ------------------------------------------------ */

static void tensors_from_c(void **state) {
    (void)state;
    mimic_ctx *ctx = open_context();
    const float values[] = {1, 2, 3, 4, 5, 6};
    const int64_t shape[] = {2, 3};
    mimic_tensor *w = NULL, *product = NULL, *loss = NULL; /* w [2,3] */
    check(ctx, mimic_tensor_from(ctx, MIMIC_F32, 2, shape, values, &w));
    check(ctx, mimic_tensor_set_requires_grad(ctx, w, true));

    mimic_scope *scope = NULL; /* what is made from here on dies with the scope */
    check(ctx, mimic_scope_open(ctx, &scope));
    check(ctx,
          mimic_op_apply(ctx, mimic_op_find("mul"), (mimic_tensor *[]){w, w}, 2, NULL, &product));
    check(ctx, mimic_op_apply(ctx, mimic_op_find("sum"), &product, 1, NULL, &loss));
    check(ctx, mimic_backward(ctx, loss));
    float total = 0, grad[6];
    check(ctx, mimic_tensor_read(ctx, loss, MIMIC_F32, &total, 1));
    mimic_scope_close(scope);
    mimic_scope_release(scope);
    assert_true(total == 91);
    assert_false(mimic_tensor_alive(product));
    mimic_tensor_release(product);
    mimic_tensor_release(loss);

    check(ctx, mimic_tensor_read(ctx, mimic_tensor_grad(w), MIMIC_F32, grad, 6));
    for (int i = 0; i < 6; i++)
        assert_true(grad[i] == 2 * values[i]);

    /* a failure leaves a message and a context that goes on */
    mimic_tensor *none = NULL;
    assert_int_equal(
        mimic_op_apply(ctx, mimic_op_find("matmul"), (mimic_tensor *[]){w, w}, 2, NULL, &none),
        MIMIC_EINVAL);
    assert_null(none);
    assert_non_null(strstr(mimic_message(ctx), "matmul"));
    mimic_tensor_release(w);
    mimic_close(ctx);
}

/* --- 2. a Lua state that shares the context ----------------------------------------- */

static void shared_state(void **state) {
    (void)state;
    mimic_ctx *ctx = open_context();
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    assert_int_equal(mimic_lua_push(L, ctx),
                     1); /* the module table; require "mimic" finds it too */
    lua_setglobal(L, "m");
    if (luaL_dostring(L, "assert(m == require 'mimic')\n"
                         "m.seed(42)\n"
                         "t = m.ones { 2, 2 }\n"
                         "return t:sum():item()"))
        fail_msg("%s", lua_tostring(L, -1));
    assert_true(lua_tonumber(L, -1) == 4);
    assert_int_equal(mimic_get_seed(ctx), 42);
    mimic_lua_push(L, ctx); /* again: the same table */
    lua_getglobal(L, "m");
    assert_true(lua_rawequal(L, -1, -2));

    assert_int_equal(luaL_dostring(L, "m.named('net', function() t:matmul(m.zeros { 3 }) end)"), 1);
    assert_non_null(strstr(lua_tostring(L, -1), "net: matmul"));
    assert_int_equal(mimic_last_status(ctx), MIMIC_EINVAL);
    assert_int_equal(mimic_name_depth(ctx), 0);
    lua_close(L);
    mimic_memory memory;
    mimic_memory_stats(ctx, &memory);
    assert_int_equal(memory.live, 0); /* the state's tensors went with it */
    mimic_close(ctx);
}

/* --- 3. a script file, and what it recorded ----------------------------------------- */

static bool take_number(void *user, int columns, const char *const *names,
                        const mimic_value *values) {
    assert_int_equal(columns, 1);
    assert_string_equal(names[0], "value");
    *(double *)user = values[0].r;
    return false;
}

static void script_and_database(void **state) {
    (void)state;
    mimic_ctx *ctx = open_context();
    write_file(path_of("host.lua"),
               "local m = require 'mimic'\n"
               "local db = m.db.open(arg[1], { write = true })\n"
               "db:exec 'CREATE TABLE mine(value REAL)'\n"
               "db:exec('INSERT INTO mine VALUES(?)', m.full({ 4 }, 2.5):sum():item())\n"
               "db:close()\n");
    const char *argv[] = {path_of("host.db")};
    check(ctx, mimic_run_file(ctx, path_of("host.lua"), 1, argv));

    mimic_db *db = NULL;
    double value = 0;
    check(ctx, mimic_db_open(ctx, path_of("host.db"), false, &db));
    check(ctx, mimic_db_exec(db, "SELECT value FROM mine", NULL, 0, take_number, &value));
    check(ctx, mimic_db_close(db));
    assert_true(value == 10);
    mimic_close(ctx);
}

static void script_failures(void **state) {
    (void)state;
    mimic_ctx *ctx = open_context();
    assert_int_equal(mimic_run_file(ctx, path_of("absent.lua"), 0, NULL), MIMIC_EIO);
    assert_non_null(strstr(mimic_message(ctx), "absent.lua"));
    write_file(path_of("syntax.lua"), "x =");
    assert_int_equal(mimic_run_file(ctx, path_of("syntax.lua"), 0, NULL), MIMIC_EINVAL);
    assert_non_null(strstr(mimic_message(ctx), "syntax.lua:1:"));
    write_file(path_of("fails.lua"), "local m = require 'mimic'\n"
                                     "local s = m.scope()\n"
                                     "m.grad_enabled(false)\n"
                                     "m.push_name 'left behind'\n"
                                     "error 'on purpose: 100%'");
    assert_int_equal(mimic_run_file(ctx, path_of("fails.lua"), 0, NULL), MIMIC_EINVAL);
    assert_non_null(strstr(mimic_message(ctx), "fails.lua:5: on purpose: 100%"));
    assert_null(strchr(mimic_message(ctx), '\n'));
    assert_int_equal(mimic_name_depth(ctx), 0);
    assert_int_equal(mimic_scope_depth(ctx), 0);
    assert_true(mimic_grad_enabled(ctx));
    mimic_close(ctx);
}

/* --- 4. lives ----------------------------------------------------------------------- */

static void two_contexts_are_independent(void **state) {
    (void)state;
    mimic_ctx *a = open_context(), *b = open_context();
    mimic_tensor *t = NULL;
    check(a, mimic_tensor_new(a, MIMIC_F32, 0, NULL, &t));
    mimic_fail(b, MIMIC_EINVAL, "only here");
    assert_string_equal(mimic_message(a), "");
    mimic_close(a);
    assert_false(mimic_tensor_alive(t)); /* a handle outlives its context, empty */
    mimic_tensor_release(t);
    mimic_close(b);
}

static void no_allocation_is_left(void **state) {
    (void)state;
    mimic_ctx *ctx = open_context();
    write_file(path_of("leak.lua"),
               "local m = require 'mimic'\n"
               "local w = m.ones({ 8, 8 }):requires_grad_()\n"
               "local o = m.optimizer { params = { { tensor = w } } }\n"
               "for i = 1, 3 do m.step(function()\n"
               "  local l = w:matmul(w):sum() l:backward() o:step(0.1) end) end\n"
               "pcall(w.matmul, w, m.zeros { 3 })\n"
               "coroutine.wrap(function() m.step(coroutine.yield) end)()\n");
    check(ctx, mimic_run_file(ctx, path_of("leak.lua"), 0, NULL)); /* interns, pools */
    int64_t live = mimic_alloc_live(ctx);
    check(ctx, mimic_run_file(ctx, path_of("leak.lua"), 0, NULL));
    assert_int_equal(mimic_alloc_live(ctx), live);
    mimic_close(ctx);
}

/* An allocator for Lua that refuses everything after `left` calls. */
static void *failing_alloc(void *user, void *p, size_t old_size, size_t size) {
    int *left = user;
    (void)old_size;
    if (size == 0) {
        free(p);
        return NULL;
    }
    if (size > old_size || !p) {
        if (*left == 0)
            return NULL;
        --*left;
    }
    return realloc(p, size);
}

static int open_and_run(lua_State *L) {
    static const char script[] =
        "local w = m.ones({ 4, 4 }):requires_grad_()\n"
        "local o = m.optimizer { params = { { tensor = w } } }\n"
        "m.step(function() local l = w:matmul(w):sum() l:backward() o:step(0.1) return l end)\n"
        "local img = m.image.decode(m.image.synth('face', 1, 2, 3, 32):jpeg(90))\n"
        "m.image.transform(img, { size = 8, flip = 0.5 })\n"
        "m.safetensors.save(file, { { 'w', w } }, { a = 'b' })\n"
        "local f <close> = m.safetensors.open(file)\n"
        "w:copy_(f:load 'w')\n"
        "local db <close> = m.db.open(data, { write = true })\n"
        "db:tx(function() return db:rows('SELECT 1 AS one, ? AS two', m.db.hex 'ff') end)\n"
        "assert(#m.ops() > 0 and not pcall(w.matmul, w) and m.sys.read_file(file))\n";
    mimic_lua_push(L, lua_touserdata(L, 1));
    lua_setglobal(L, "m");
    lua_pushstring(L, path_of("small.safetensors"));
    lua_setglobal(L, "file");
    lua_pushstring(L, path_of("small.db"));
    lua_setglobal(L, "data");
    if (luaL_loadstring(L, script) != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 0);
    lua_pushboolean(L, 1);
    return 1;
}

/* Whichever allocation of Lua fails: nothing of the engine is lost, no scope stays open. Without
 * the collector, whose finalizers Lua itself loses when it has no memory to call them; closing the
 * state calls them all. */
static void lua_without_memory(void **state) {
    (void)state;
    mimic_ctx *ctx = open_context();
    int64_t live = -1;
    bool done = false;
    for (int n = 0; !done; n++) { /* the first time all goes well */
        int left = -1;
        lua_State *L = lua_newstate(failing_alloc, &left);
        assert_non_null(L);
        luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
        lua_gc(L, LUA_GCSTOP);
        left = n == 0 ? -1 : n;
        lua_pop(L, 1);
        lua_pushcfunction(L, open_and_run);
        lua_pushlightuserdata(L, ctx);
        int rc = lua_pcall(L, 1, 1, 0);
        if (n == 0 && rc != LUA_OK)
            fail_msg("%s", lua_tostring(L, -1));
        done = n > 0 && rc == LUA_OK;
        left = -1;
        lua_close(L);
        if (n == 0)
            live = mimic_alloc_live(ctx);
        else if (mimic_alloc_live(ctx) > live || mimic_scope_depth(ctx) || mimic_name_depth(ctx))
            fail_msg("allocation %d of Lua failed: %d blocks more alive, scope depth %d", n,
                     (int)(mimic_alloc_live(ctx) - live), mimic_scope_depth(ctx));
    }
    mimic_close(ctx);
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    char command[300];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tensors_from_c),
                                       cmocka_unit_test(shared_state),
                                       cmocka_unit_test(script_and_database),
                                       cmocka_unit_test(script_failures),
                                       cmocka_unit_test(two_contexts_are_independent),
                                       cmocka_unit_test(no_allocation_is_left),
                                       cmocka_unit_test(lua_without_memory)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

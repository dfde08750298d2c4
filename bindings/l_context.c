/* Calls on the context: seed, threads, memory, last error, and the counter-based generator m.rng.
 */
#include "l_mimic.h"

#include <stdlib.h>

uint64_t mimicl_seed_arg(lua_State *L, int arg) {
    return (uint64_t)luaL_checkinteger(L, arg);
}

/* Getters with an optional new value return the value in effect after the call, but grad_enabled
 * the one before it, to be given back. */
static int grad_enabled(lua_State *L) {
    mimicl *b = mimicl_self(L);
    lua_pushboolean(L, mimic_grad_enabled(b->ctx));
    if (!lua_isnoneornil(L, 1))
        mimic_set_grad_enabled(b->ctx, lua_toboolean(L, 1));
    return 1;
}

static int seed(lua_State *L) {
    mimicl *b = mimicl_self(L);
    if (!lua_isnoneornil(L, 1))
        mimic_seed(b->ctx, mimicl_seed_arg(L, 1));
    lua_pushinteger(L, (lua_Integer)mimic_get_seed(b->ctx));
    return 1;
}

static int set_step(lua_State *L) {
    mimicl *b = mimicl_self(L);
    if (!lua_isnoneornil(L, 1))
        mimic_set_step(b->ctx, (uint64_t)luaL_checkinteger(L, 1));
    lua_pushinteger(L, (lua_Integer)mimic_get_step(b->ctx));
    return 1;
}

static int threads(lua_State *L) {
    mimicl *b = mimicl_self(L);
    if (!lua_isnoneornil(L, 1))
        mimicl_ok(L, b, mimic_set_threads(b->ctx, (int)luaL_checkinteger(L, 1)));
    lua_pushinteger(L, mimic_threads(b->ctx));
    return 1;
}

static void set_size(lua_State *L, const char *key, size_t v) {
    lua_pushinteger(L, (lua_Integer)v);
    lua_setfield(L, -2, key);
}

static int memory(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_memory m;
    mimic_memory_stats(b->ctx, &m);
    lua_createtable(L, 0, 5);
    set_size(L, "live", m.live);
    set_size(L, "cached", m.cached);
    set_size(L, "peak", m.peak);
    set_size(L, "limit", m.limit);
    set_size(L, "tensors", (size_t)m.tensors);
    return 1;
}

static int memory_limit(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_memory m;
    if (!lua_isnoneornil(L, 1)) {
        lua_Integer bytes = luaL_checkinteger(L, 1);
        luaL_argcheck(L, bytes >= 0, 1, "a number of bytes, or 0 for no limit, expected");
        mimic_set_memory_limit(b->ctx, (size_t)bytes);
    }
    mimic_memory_stats(b->ctx, &m);
    lua_pushinteger(L, (lua_Integer)m.limit);
    return 1;
}

static int reset_peak(lua_State *L) {
    mimic_reset_peak(mimicl_self(L)->ctx);
    return 0;
}

static int trim(lua_State *L) {
    mimic_trim(mimicl_self(L)->ctx);
    return 0;
}

static int isa(lua_State *L) {
    lua_pushstring(L, mimic_isa(mimicl_self(L)->ctx));
    return 1;
}

/* m.device([name]) -> where tensors are made from now on */
static int device(lua_State *L) {
    mimicl *b = mimicl_self(L);
    if (!lua_isnoneornil(L, 1))
        mimicl_ok(L, b, mimic_set_device(b->ctx, luaL_checkstring(L, 1)));
    lua_pushstring(L, mimic_get_device(b->ctx));
    return 1;
}

/* m.devices() -> list of {name, about} or {name, missing = why} */
static int devices(lua_State *L) {
    mimicl *b = mimicl_self(L);
    lua_createtable(L, mimic_device_count(), 0);
    for (int i = 0; i < mimic_device_count(); i++) {
        char text[512];
        bool there = !mimic_device_about(b->ctx, mimic_device_at(i), text, sizeof text);
        lua_createtable(L, 0, 2);
        lua_pushstring(L, mimic_device_at(i));
        lua_setfield(L, -2, "name");
        lua_pushstring(L, there ? text : mimic_message(b->ctx));
        lua_setfield(L, -2, there ? "about" : "missing");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* Waits until the device has done everything. */
static int sync(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_sync(b->ctx));
    return 0;
}

static int check_nan(lua_State *L) {
    mimicl *b = mimicl_self(L);
    luaL_checktype(L, 1, LUA_TBOOLEAN);
    mimic_check_nan(b->ctx, lua_toboolean(L, 1));
    return 0;
}

static int last_error(lua_State *L) {
    mimicl *b = mimicl_self(L);
    if (mimic_last_status(b->ctx) == MIMIC_OK)
        return 0;
    lua_createtable(L, 0, 2);
    lua_pushstring(L, mimic_status_name(mimic_last_status(b->ctx)));
    lua_setfield(L, -2, "status");
    lua_pushstring(L, mimic_message(b->ctx));
    lua_setfield(L, -2, "message");
    return 1;
}

static int fail_alloc(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_fail_alloc(b->ctx, luaL_checkinteger(L, 1), lua_toboolean(L, 2));
    return 0;
}

static int alloc_live(lua_State *L) {
    lua_pushinteger(L, mimic_alloc_live(mimicl_self(L)->ctx));
    return 1;
}

static int alloc_count(lua_State *L) {
    lua_pushinteger(L, mimic_alloc_count(mimicl_self(L)->ctx));
    return 1;
}

/* The runner replaces it with a count of Ctrl-C. */
static int interrupted(lua_State *L) {
    lua_pushinteger(L, 0);
    return 1;
}

/* --- random numbers ----------------------------------------------------------------- */

mimic_rng *mimicl_rng(lua_State *L, int arg) {
    return mimicl_check(L, arg, MIMICL_RNG);
}

static int rng_new(lua_State *L) {
    uint64_t key = mimicl_seed_arg(L, 1);
    lua_Integer stream = luaL_optinteger(L, 2, 0), step = luaL_optinteger(L, 3, 0);
    luaL_argcheck(L, stream >= 0 && stream <= UINT32_MAX, 2, "0 to 2^32-1 expected");
    mimic_rng *r = mimicl_new(L, MIMICL_RNG, sizeof *r, 0);
    mimic_rng_init(r, key, (uint32_t)stream, (uint64_t)step);
    return 1;
}

static int rng_u32(lua_State *L) {
    lua_pushinteger(L, mimic_rng_u32(mimicl_rng(L, 1)));
    return 1;
}

static int rng_uniform(lua_State *L) {
    lua_pushnumber(L, mimic_rng_uniform(mimicl_rng(L, 1)));
    return 1;
}

static int rng_normal(lua_State *L) {
    lua_pushnumber(L, mimic_rng_normal(mimicl_rng(L, 1)));
    return 1;
}

static int rng_below(lua_State *L) {
    mimic_rng *r = mimicl_rng(L, 1);
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_argcheck(L, n >= 1 && n <= UINT32_MAX, 2, "1 to 2^32-1 expected");
    lua_pushinteger(L, mimic_rng_below(r, (uint32_t)n));
    return 1;
}

static int rng_beta(lua_State *L) {
    mimic_rng *r = mimicl_rng(L, 1);
    double a = luaL_checknumber(L, 2), c = luaL_checknumber(L, 3);
    luaL_argcheck(L, a > 0, 2, "a positive number expected");
    luaL_argcheck(L, c > 0, 3, "a positive number expected");
    lua_pushnumber(L, mimic_rng_beta(r, a, c));
    return 1;
}

/* r:shuffle(n) -> list of 0..n-1 in random order (0-based: indices for tensors) */
static int rng_shuffle(lua_State *L) {
    mimic_rng *r = mimicl_rng(L, 1);
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_argcheck(L, n >= 0 && n <= INT32_MAX, 2, "0 to 2^31-1 expected");
    int32_t *out = mimicl_buffer(L, (size_t)n, sizeof *out);
    uint64_t *scratch = mimicl_buffer(L, (size_t)n, sizeof *scratch);
    mimic_rng_shuffle(r, out, scratch, (int32_t)n);
    lua_createtable(L, (int)n, 0);
    for (lua_Integer i = 0; i < n; i++) {
        lua_pushinteger(L, out[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

void mimicl_open_context(lua_State *L, int b) {
    static const luaL_Reg rng_methods[] = {
        {"u32", rng_u32},     {"uniform", rng_uniform}, {"normal", rng_normal},
        {"below", rng_below}, {"beta", rng_beta},       {"shuffle", rng_shuffle},
        {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg functions[] = {{"grad_enabled", grad_enabled},
                                         {"seed", seed},
                                         {"set_step", set_step},
                                         {"threads", threads},
                                         {"memory", memory},
                                         {"memory_limit", memory_limit},
                                         {"reset_peak", reset_peak},
                                         {"trim", trim},
                                         {"isa", isa},
                                         {"device", device},
                                         {"devices", devices},
                                         {"sync", sync},
                                         {"check_nan", check_nan},
                                         {"last_error", last_error},
                                         {"fault", mimicl_fault},
                                         {"fail_alloc", fail_alloc},
                                         {"alloc_live", alloc_live},
                                         {"alloc_count", alloc_count},
                                         {"interrupted", interrupted},
                                         {"rng", rng_new},
                                         {NULL, NULL}};
    mimicl_class(L, b, MIMICL_RNG, "mimic.rng", rng_methods, none);
    mimicl_functions(L, b, functions);
}

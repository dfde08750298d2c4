/* The profiler in Lua: start, add, stop. lua/mimic/profile.lua makes tables and traces of it. */
#include "l_mimic.h"

/* m.profile_start([max_events=65536]) */
static int profile_start(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_profile_start(b->ctx, luaL_optinteger(L, 1, 65536)));
    return 0;
}

/* m.profile_add(name, seconds): an event that ends now; nothing while no profile is on */
static int profile_add(lua_State *L) {
    mimic_profile_add(mimicl_self(L)->ctx, luaL_checkstring(L, 1), luaL_checknumber(L, 2));
    return 0;
}

static void push_event(lua_State *L, const mimic_profile_event *e) {
    lua_createtable(L, 0, 8);
    lua_pushstring(L, e->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, e->what);
    lua_setfield(L, -2, "what");
    if (e->place) {
        lua_pushstring(L, e->place);
        lua_setfield(L, -2, "place");
    }
    lua_pushnumber(L, (double)e->start * 1e-9);
    lua_setfield(L, -2, "start");
    lua_pushnumber(L, (double)e->ns * 1e-9);
    lua_setfield(L, -2, "seconds");
    lua_pushnumber(L, e->bytes);
    lua_setfield(L, -2, "bytes");
    lua_pushnumber(L, e->flops);
    lua_setfield(L, -2, "flops");
    lua_pushboolean(L, e->backward);
    lua_setfield(L, -2, "backward");
}

/* m.profile_stop() -> events {name, what, place, start, seconds, bytes, flops, backward}, dropped
 */
static int profile_stop(lua_State *L) {
    mimicl *b = mimicl_self(L);
    int64_t dropped, n = mimic_profile_count(b->ctx, &dropped);
    mimic_profile_stop(b->ctx);
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        push_event(L, mimic_profile_at(b->ctx, i));
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushinteger(L, dropped);
    return 2;
}

void mimicl_open_profile(lua_State *L, int b) {
    static const luaL_Reg functions[] = {{"profile_start", profile_start},
                                         {"profile_add", profile_add},
                                         {"profile_stop", profile_stop},
                                         {NULL, NULL}};
    mimicl_functions(L, b, functions);
}

/* mimic_run_file: a script in a Lua state of its own, for C hosts. Everything that may raise runs
 * inside a protected call. */
#include "l_mimic.h"

#include <string.h>

typedef struct script_call {
    mimic_ctx *ctx;
    const char *path;
    int argc;
    const char *const *argv;
    mimic_status status;
} script_call;

static int run_protected(lua_State *L) {
    script_call *c = lua_touserdata(L, 1);
    mimicl_open_libraries(L);
    mimicl_push(L, c->ctx, false);
    lua_pop(L, 1);
    lua_createtable(L, c->argc, 1);
    lua_pushstring(L, c->path);
    lua_rawseti(L, -2, 0);
    for (int i = 0; i < c->argc; i++) {
        lua_pushstring(L, c->argv[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setglobal(L, "arg");
    int rc = luaL_loadfilex(L, c->path, NULL);
    if (rc != LUA_OK) {
        c->status = rc == LUA_ERRFILE ? MIMIC_EIO : MIMIC_EINVAL;
        return lua_error(L);
    }
    for (int i = 0; i < c->argc; i++) {
        luaL_checkstack(L, 1, "too many arguments");
        lua_pushstring(L, c->argv[i]);
    }
    if (mimicl_call(L, c->argc, 0) != LUA_OK) {
        c->status = MIMIC_EINVAL;
        return lua_error(L);
    }
    return 0;
}

mimic_status mimic_run_file(mimic_ctx *ctx, const char *path, int argc, const char *const *argv) {
    int depth = mimic_name_depth(ctx);
    bool grad = mimic_grad_enabled(ctx);
    script_call call = {ctx, path, argc, argv, MIMIC_EINVAL};
    lua_State *L = luaL_newstate();
    if (!L)
        return mimic_fail(ctx, MIMIC_ENOMEM, "%s: no memory for a Lua state", path);
    lua_pushcfunction(L, run_protected);
    lua_pushlightuserdata(L, &call);
    mimic_status status = MIMIC_OK;
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        const char *text = lua_tostring(L, -1);
        status = call.status;
        mimic_set_name_depth(ctx, depth); /* the text has its names already */
        mimic_fail(ctx, status, "%s", text ? text : "the script failed without a message");
    }
    lua_close(L);
    if (mimic_name_depth(ctx) > depth)
        mimic_set_name_depth(ctx, depth);
    mimic_set_grad_enabled(ctx, grad);
    return status;
}

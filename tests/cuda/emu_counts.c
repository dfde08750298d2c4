/* Lua module of the tests: what the emulated device, opened before, has counted. */
#include <dlfcn.h>
#include <stdlib.h>

#include <lauxlib.h>

/* counts() -> {NAME = count} */
static int counts(lua_State *L) {
    static const char *const names[] = {"emu_waits", "emu_idle", "emu_allocations", "emu_pageable"};
    void *lib = dlopen(getenv("MIMIC_CUDA"), RTLD_NOW | RTLD_NOLOAD);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const int *n = lib ? dlsym(lib, names[i]) : NULL;
        if (!n)
            return luaL_error(L, "no emulated device is open (%s)", names[i]);
        lua_pushinteger(L, *n);
        lua_setfield(L, -2, names[i] + 4);
    }
    dlclose(lib);
    return 1;
}

__attribute__((visibility("default"))) int luaopen_emu_counts(lua_State *L);
int luaopen_emu_counts(lua_State *L) {
    lua_pushcfunction(L, counts);
    return 1;
}

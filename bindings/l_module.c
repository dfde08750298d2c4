/* The module table, its binding userdata, classes of objects, and the one place that turns a failed
 * status into a Lua error. */
#include "l_mimic.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "embedded.h"

enum { WARNING = 2 }; /* of mimic_config.log */

static const char module_key, binding_key; /* their addresses are names in the registry */

mimicl *mimicl_self(lua_State *L) {
    mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    if (!b->ctx)
        luaL_error(L, "mimic is closed");
    return b;
}

void *mimicl_new(lua_State *L, int kind, size_t size, int values) {
    void *p = lua_newuserdatauv(L, size, values);
    memset(p, 0, size);
    lua_getiuservalue(L, lua_upvalueindex(1), kind);
    lua_setmetatable(L, -2);
    return p;
}

void *mimicl_test(lua_State *L, int arg, int kind) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    void *p = lua_touserdata(L, arg);
    if (!p || !lua_getmetatable(L, arg))
        return NULL;
    bool same = lua_topointer(L, -1) == b->meta[kind];
    lua_pop(L, 1);
    return same ? p : NULL;
}

void *mimicl_check(lua_State *L, int arg, int kind) {
    void *p = mimicl_test(L, arg, kind);
    if (!p) {
        const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
        luaL_typeerror(L, arg, b->class_name[kind]);
    }
    return p;
}

void mimicl_functions(lua_State *L, int b, const luaL_Reg *functions) {
    lua_pushvalue(L, b);
    luaL_setfuncs(L, functions, 1);
}

bool mimicl_method(lua_State *L) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL)
        return true;
    lua_pop(L, 1);
    return false;
}

/* __index of classes that have methods alone. */
static int method_index(lua_State *L) {
    return mimicl_method(L) ? 1 : mimicl_no_field(L, "");
}

void mimicl_class(lua_State *L, int b, int kind, const char *name, const luaL_Reg *methods,
                  const luaL_Reg *meta) {
    mimicl *self = lua_touserdata(L, b);
    int top = lua_gettop(L);
    lua_createtable(L, 0, 8); /* metatable: top+1 */
    lua_newtable(L);          /* methods: top+2 */
    mimicl_functions(L, b, methods);
    lua_pushvalue(L, b);
    lua_pushvalue(L, top + 2);
    lua_pushcclosure(L, method_index, 2);
    lua_setfield(L, top + 1, "__index");
    for (; meta->name; meta++) {
        lua_pushvalue(L, b);
        lua_pushvalue(L, top + 2);
        lua_pushcclosure(L, meta->func, 2);
        lua_setfield(L, top + 1, meta->name);
    }
    lua_pushstring(L, name);
    lua_setfield(L, top + 1, "__name");
    lua_pushliteral(L, "protected");
    lua_setfield(L, top + 1, "__metatable");
    self->class_name[kind] = name;
    self->meta[kind] = lua_topointer(L, top + 1);
    lua_pushvalue(L, top + 1);
    lua_setiuservalue(L, b, kind);
    lua_settop(L, top);
}

int mimicl_raise(lua_State *L, mimicl *b) {
    mimicl_where(L);
    lua_pushstring(L, mimic_message(b->ctx));
    if (mimic_name_depth(b->ctx) > b->base_depth) /* the calls that pushed are being unwound */
        mimic_set_name_depth(b->ctx, b->base_depth);
    lua_concat(L, 2);
    return lua_error(L);
}

int mimicl_error(lua_State *L, mimic_status status, const char *fmt, ...) {
    mimicl *b = mimicl_self(L);
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mimic_fail(b->ctx, status, "%s", text);
    return mimicl_raise(L, b);
}

void *mimicl_buffer(lua_State *L, size_t count, size_t size) {
    if (size && count > PTRDIFF_MAX / size)
        luaL_error(L, "a buffer of %I elements is too large", (lua_Integer)count);
    return lua_newuserdatauv(L, count * size + 1, 0);
}

static int bytes_gc(lua_State *L) {
    void **slot = lua_touserdata(L, 1);
    free(*slot);
    *slot = NULL;
    return 0;
}

void **mimicl_malloced(lua_State *L) {
    return mimicl_new(L, MIMICL_BYTES, sizeof(void *), 0);
}

/* Appends `more` to package[field] unless it is there. */
static void add_path(lua_State *L, const char *field, const char *more) {
    lua_getglobal(L, "package");
    const char *have = (lua_getfield(L, -1, field), lua_tostring(L, -1));
    if (have && !strstr(have, more)) {
        lua_pushfstring(L, "%s;%s", have, more);
        lua_setfield(L, -3, field);
    }
    lua_pop(L, 2);
}

/* The folder of the running program, or "": a bundle keeps its libraries beside it. */
static void program_folder(char *out, size_t size) {
    char path[PATH_MAX];
    const char *name = (const char *)getauxval(AT_EXECFN); /* needs no /proc */
    char *slash = name && realpath(name, path) ? strrchr(path, '/') : NULL;
    if (slash)
        *slash = 0;
    snprintf(out, size, "%s", slash ? path : "");
}

void mimicl_open_libraries(lua_State *L) {
    char folder[PATH_MAX], more[PATH_MAX + 64];
    lua_pushboolean(L, 1); /* LUA_PATH and LUA_CPATH are not read: as `lua -E` */
    lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    luaL_openlibs(L);
    program_folder(folder, sizeof folder);
    snprintf(more, sizeof more, "%s/../share/lua/5.4/?.lua", folder);
    add_path(L, "path", more);
    snprintf(more, sizeof more, "%s/../lib/lua/5.4/?.so", folder);
    add_path(L, "cpath", more);
    add_path(L, "path", MIMIC_LUA_PATH);
    add_path(L, "cpath", MIMIC_LUA_CPATH);
}

/* Compiles an embedded module; leaves the chunk, or raises. */
static void load_embedded(lua_State *L, const mimic_embedded *e) {
    char chunk[128] = "="; /* a name no file on the disk has */
    size_t n = strlen(e->name);
    n = n < sizeof chunk - 6 ? n : sizeof chunk - 6;
    for (size_t i = 0; i < n; i++)
        chunk[i + 1] = e->name[i] == '.' ? '/' : e->name[i];
    memcpy(chunk + n + 1, ".lua", 5);
    if (luaL_loadbufferx(L, e->text, e->size, chunk, "t") != LUA_OK)
        lua_error(L);
}

static int embedded_module(lua_State *L) {
    load_embedded(L, lua_touserdata(L, lua_upvalueindex(1)));
    lua_pushvalue(L, 1);
    lua_pushliteral(L, ":embedded:");
    lua_call(L, 2, 1);
    return 1;
}

void mimicl_preload(lua_State *L) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (const mimic_embedded *e = mimic_embedded_files; e->name; e++) {
        if (strncmp(e->name, "mimic.", 6) != 0)
            continue;
        lua_pushlightuserdata(L, (void *)e);
        lua_pushcclosure(L, embedded_module, 1);
        lua_setfield(L, -2, e->name);
    }
    lua_pop(L, 1);
}

/* Runs lua/mimic/init.lua with the module table on top. */
static void run_init(lua_State *L) {
    for (const mimic_embedded *e = mimic_embedded_files; e->name; e++) {
        if (strcmp(e->name, "mimic.init") != 0)
            continue;
        load_embedded(L, e);
        lua_pushvalue(L, -2);
        lua_call(L, 1, 0);
    }
}

static int binding_gc(lua_State *L) {
    mimicl *b = lua_touserdata(L, 1);
    if (b->ctx)
        mimicl_close_orphans(L, b, true);
    if (b->own)
        mimic_close(b->ctx);
    b->ctx = NULL;
    return 0;
}

static const luaL_Reg binding_meta[] = {{"__gc", binding_gc}, {NULL, NULL}};
static const luaL_Reg no_functions[] = {{NULL, NULL}};
static const luaL_Reg bytes_meta[] = {{"__gc", bytes_gc}, {"__close", bytes_gc}, {NULL, NULL}};

/* Leaves an empty binding without a context on the stack. */
static mimicl *new_binding(lua_State *L) {
    mimicl *b = lua_newuserdatauv(L, sizeof *b, MIMICL_KINDS);
    memset(b, 0, sizeof *b);
    lua_newtable(L);
    luaL_setfuncs(L, binding_meta, 0);
    lua_setmetatable(L, -2);
    return b;
}

/* Builds the module around the binding on top, which stays below it. */
static void build_module(lua_State *L, mimicl *b, mimic_ctx *ctx) {
    int at = lua_gettop(L);
    b->base_depth = mimic_name_depth(ctx);
    lua_newtable(L);
    mimicl_class(L, at, MIMICL_BYTES, "mimic.bytes", no_functions, bytes_meta);
    mimicl_open_tensor(L, at);
    mimicl_open_values(L, at);
    mimicl_open_op(L, at);
    mimicl_open_scope(L, at);
    mimicl_open_context(L, at);
    mimicl_open_optim(L, at);
    mimicl_open_profile(L, at);
    mimicl_open_graph(L, at);
    mimicl_open_image(L, at);
    mimicl_open_data(L, at);
    mimicl_open_analysis(L, at);
    mimicl_open_safetensors(L, at);
    mimicl_open_db(L, at);
    mimicl_open_sys(L, at);
    mimicl_open_process(L, at);
    lua_pushliteral(L, MIMIC_VERSION);
    lua_setfield(L, -2, "version");

    lua_pushvalue(L, at);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &binding_key);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &module_key);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE); /* init.lua's modules require it */
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "mimic");
    lua_pop(L, 1);
    mimicl_preload(L);
    run_init(L);
}

/* Pushes the registered module when its binding has this context (any, when NULL). */
static bool push_existing(lua_State *L, const mimic_ctx *ctx) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &binding_key);
    const mimicl *b = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!b || !b->ctx || (ctx && b->ctx != ctx))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &module_key);
    return true;
}

int mimicl_push(lua_State *L, mimic_ctx *ctx, bool own) {
    luaL_checkstack(L, 20, "mimic");
    if (push_existing(L, ctx))
        return 1;
    mimicl *b = new_binding(L);
    b->ctx = ctx;
    b->own = own;
    build_module(L, b, ctx);
    lua_remove(L, -2);
    return 1;
}

int mimic_lua_push(lua_State *L, mimic_ctx *ctx) {
    return mimicl_push(L, ctx, false);
}

/* The engine's log of a context of our own: warnings go to the user at once (on a terminal in place
 * of the progress line), a failure to open is raised by whoever opens. */
static void hear(void *binding, int level, const char *text) {
    mimicl *b = binding;
    snprintf(b->logged, sizeof b->logged, "%s", text);
    if (level == WARNING)
        fprintf(stderr, "%smimic: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", text);
}

int luaopen_mimic(lua_State *L) {
    if (push_existing(L, NULL))
        return 1;
    mimicl *b = new_binding(L); /* first, so that an error below closes the context */
    mimic_config cfg = {.log = hear, .user = b};
    mimic_status status = mimic_open(&cfg, &b->ctx);
    if (status != MIMIC_OK)
        return luaL_error(L, "%s", b->logged[0] ? b->logged : mimic_status_name(status));
    b->own = true;
    build_module(L, b, b->ctx);
    return 1;
}

/* Tensors as Lua objects: arguments, properties, life, gradient state. Values in and out:
 * l_values.c; arithmetic and operators: l_op.c. */
#include "l_mimic.h"

#include <stdio.h>
#include <string.h>

typedef struct tensor_box {
    mimic_tensor *t; /* NULL until filled */
} tensor_box;

mimic_tensor **mimicl_new_tensor(lua_State *L) {
    tensor_box *box = mimicl_new(L, MIMICL_TENSOR, sizeof *box, 0);
    return &box->t;
}

mimic_tensor *mimicl_tensor(lua_State *L, int arg) {
    tensor_box *box = mimicl_check(L, arg, MIMICL_TENSOR);
    if (!box->t)
        luaL_argerror(L, arg, "no tensor here: its call failed, or it was released");
    return box->t;
}

mimic_tensor *mimicl_operand(lua_State *L, int arg, const char *who) {
    const tensor_box *box = mimicl_test(L, arg, MIMICL_TENSOR);
    if (!box)
        mimicl_error(L, MIMIC_EINVAL, "%s: argument %d: a tensor expected, got %s", who, arg,
                     luaL_typename(L, arg));
    if (!box->t)
        luaL_argerror(L, arg, "no tensor here: its call failed, or it was released");
    return box->t;
}

void mimicl_push_borrowed(lua_State *L, mimic_tensor *t) {
    if (!t) {
        lua_pushnil(L);
        return;
    }
    mimic_tensor **slot = mimicl_new_tensor(L);
    mimic_tensor_retain(t);
    *slot = t;
}

int mimicl_shape(lua_State *L, int arg, int64_t shape[MIMIC_MAX_RANK]) {
    luaL_checktype(L, arg, LUA_TTABLE);
    lua_Integer n = luaL_len(L, arg);
    if (n > MIMIC_MAX_RANK)
        mimicl_error(L, MIMIC_EINVAL, "a shape has at most %d axes, this one has %lld",
                     MIMIC_MAX_RANK, (long long)n);
    for (int i = 0; i < n; i++) {
        int whole;
        lua_geti(L, arg, i + 1);
        shape[i] = lua_tointegerx(L, -1, &whole);
        if (!whole || shape[i] < 0)
            mimicl_error(L, MIMIC_EINVAL, "entry %d of the shape is %s, not a whole number >= 0",
                         i + 1, luaL_tolstring(L, -1, NULL));
        lua_pop(L, 1);
    }
    return (int)n;
}

mimic_dtype mimicl_dtype(lua_State *L, int arg, mimic_dtype def) {
    mimic_dtype d = def;
    const char *name = luaL_optstring(L, arg, NULL);
    if (name && !mimic_dtype_parse(name, &d))
        mimicl_unknown(L, "tensor", "dtype", name, "f32|bf16|f64|i32|u8");
    return d;
}

/* --- place and garbage -------------------------------------------------------------- */

/* Whether `place` is "FILE:LINE" of that file; its line is known to be right. */
static bool of_file(const char *place, const char *file) {
    size_t n = strlen(file);
    return strncmp(place, file, n) == 0 && place[n] == ':' && !strchr(place + n + 1, ':');
}

/* The innermost line of the script that is not in the embedded library. */
static void set_place(lua_State *L, mimicl *b) {
    lua_Debug ar;
    int level = 1;
    if (!mimicl_script_line(L, &level, &ar))
        return;
    unsigned slot = (unsigned)ar.currentline % MIMICL_PLACES;
    const char *known = b->places[slot].place;
    if (!known || b->places[slot].line != ar.currentline || !of_file(known, ar.short_src)) {
        char place[LUA_IDSIZE + 16];
        snprintf(place, sizeof place, "%s:%d", ar.short_src, ar.currentline);
        known = mimic_intern_place(b->ctx, place);
        b->places[slot].line = ar.currentline;
        b->places[slot].place = known;
    }
    mimic_set_interned_place(b->ctx, known);
}

enum {
    PRESSURE = 256 << 20
}; /* bytes made outside scopes before a full collection is worth its time */

static void collect(lua_State *L, mimicl *b) {
    mimic_memory m;
    lua_gc(L, LUA_GCCOLLECT);
    mimic_memory_stats(b->ctx, &m);
    b->survived = m.live;
}

/* Collects garbage when too much tensor memory was made outside scopes since the last time. */
static void relieve(lua_State *L, mimicl *b) {
    if (mimic_scope_depth(b->ctx) > 0)
        return; /* the scope bounds what is alive */
    mimic_memory m;
    mimic_memory_stats(b->ctx, &m);
    if (m.live > b->survived + PRESSURE && m.live - b->survived > b->survived / 5 * 2)
        collect(L, b);
    else if (m.live < b->survived)
        b->survived = m.live;
}

void mimicl_enter(lua_State *L, mimicl *b) {
    set_place(L, b);
    relieve(L, b);
}

bool mimicl_retry(lua_State *L, mimicl *b, mimic_status status) {
    if (status != MIMIC_ENOMEM)
        return false;
    mimic_memory before, after;
    mimic_memory_stats(b->ctx, &before);
    collect(L, b);
    mimic_memory_stats(b->ctx, &after);
    return after.live < before.live;
}

/* --- properties --------------------------------------------------------------------- */

static void push_shape(lua_State *L, const mimic_tensor *t) {
    int rank = mimic_tensor_rank(t);
    const int64_t *shape = mimic_tensor_shape(t);
    lua_createtable(L, rank, 0);
    for (int i = 0; i < rank; i++) {
        lua_pushinteger(L, shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static const char *const properties[] = {"shape", "rank",  "dtype",         "id",     "numel",
                                         "grad",  "alive", "requires_grad", "device", NULL};

static int tensor_index(lua_State *L) {
    tensor_box *box = lua_touserdata(L, 1);
    lua_pushvalue(L, 2);
    int type = lua_rawget(L, lua_upvalueindex(2));
    if (type == LUA_TNIL)
        return mimicl_no_field(L, "");
    if (type != LUA_TNUMBER)
        return 1; /* a method */
    if (!box->t)
        return luaL_error(L, "no tensor here: its call failed, or it was released");
    const mimic_tensor *t = box->t;
    switch (lua_tointeger(L, -1)) { /* position in `properties` */
    case 0:
        push_shape(L, t);
        break;
    case 1:
        lua_pushinteger(L, mimic_tensor_rank(t));
        break;
    case 2:
        lua_pushstring(L, mimic_dtype_name(mimic_tensor_dtype(t)));
        break;
    case 3:
        lua_pushinteger(L, mimic_tensor_id(t));
        break;
    case 4:
        lua_pushinteger(L, mimic_tensor_count(t));
        break;
    case 5:
        mimicl_push_borrowed(L, mimic_tensor_grad(t));
        break;
    case 6:
        lua_pushboolean(L, mimic_tensor_alive(t));
        break;
    case 7:
        lua_pushboolean(L, mimic_tensor_requires_grad(t));
        break;
    default:
        lua_pushstring(L, mimic_tensor_device(t));
        break;
    }
    return 1;
}

static int length(lua_State *L) {
    mimic_tensor *t = mimicl_tensor(L, 1);
    lua_pushinteger(L, mimic_tensor_rank(t) ? mimic_tensor_shape(t)[0] : 0);
    return 1;
}

static int equal(lua_State *L) {
    const tensor_box *x = mimicl_test(L, 1, MIMICL_TENSOR), *y = mimicl_test(L, 2, MIMICL_TENSOR);
    lua_pushboolean(L, x && y && x->t == y->t);
    return 1;
}

static int to_string(lua_State *L) {
    mimicl *b = mimicl_self(L);
    tensor_box *box = lua_touserdata(L, 1);
    if (!box->t) {
        lua_pushliteral(L, "tensor (none: its call failed, or it was released)");
        return 1;
    }
    char text[256];
    mimic_tensor_describe(box->t, text, sizeof text);
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    luaL_addstring(&out, text);
    int64_t count = mimic_tensor_count(box->t);
    double v[16];
    if (!mimic_tensor_alive(box->t))
        luaL_addstring(&out, " (freed)");
    else if (count <= 16 && mimic_tensor_read(b->ctx, box->t, MIMIC_F64, v, count) == MIMIC_OK) {
        for (int64_t i = 0; i < count; i++) {
            snprintf(text, sizeof text, "%s%.6g", i ? " " : " = ", v[i]);
            luaL_addstring(&out, text);
        }
    }
    luaL_pushresult(&out);
    return 1;
}

/* --- life and gradient state -------------------------------------------------------- */

static int gc(lua_State *L) {
    tensor_box *box = lua_touserdata(L, 1);
    mimic_tensor_release(box->t);
    box->t = NULL;
    return 0;
}

/* m.release(t, ...): these handles let go; nil is skipped */
static int release(lua_State *L) {
    for (int i = 1, n = lua_gettop(L); i <= n; i++) {
        if (lua_isnoneornil(L, i))
            continue;
        tensor_box *box = mimicl_check(L, i, MIMICL_TENSOR);
        mimic_tensor_release(box->t);
        box->t = NULL;
    }
    return 0;
}

static int free_bytes(lua_State *L) {
    mimic_tensor_free(mimicl_tensor(L, 1));
    return 0;
}

static int copy_from(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_tensor_copy(b->ctx, mimicl_tensor(L, 1), mimicl_tensor(L, 2)));
    lua_settop(L, 1);
    return 1;
}

static int set_requires_grad(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    bool on = lua_isnoneornil(L, 2) || lua_toboolean(L, 2);
    mimicl_enter(L, b);
    mimic_status status = mimic_tensor_set_requires_grad(b->ctx, t, on);
    if (mimicl_retry(L, b, status))
        status = mimic_tensor_set_requires_grad(b->ctx, t, on);
    mimicl_ok(L, b, status);
    lua_settop(L, 1);
    return 1;
}

static int detach(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    mimic_tensor **slot = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimicl_ok(L, b, mimic_tensor_detach(b->ctx, t, slot));
    return 1;
}

/* t:later() -> object whose value() waits for this one element alone */
static int later(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    mimic_later **slot = mimicl_new(L, MIMICL_LATER, sizeof *slot, 0);
    mimicl_ok(L, b, mimic_tensor_later(b->ctx, t, slot));
    return 1;
}

static int later_value(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_later **slot = mimicl_check(L, 1, MIMICL_LATER);
    double v = 0;
    if (!*slot)
        mimicl_error(L, MIMIC_ESTATE, "later: there is no value: its call failed");
    mimicl_ok(L, b, mimic_later_value(*slot, &v));
    lua_pushnumber(L, v);
    return 1;
}

static int later_gc(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    mimic_later **slot = lua_touserdata(L, 1);
    if (b->ctx)
        mimic_later_free(*slot);
    *slot = NULL;
    return 0;
}

/* t:to(device) -> a copy there */
static int to_device(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    const char *device = luaL_checkstring(L, 2);
    mimic_tensor **slot = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimicl_ok(L, b, mimic_tensor_to(b->ctx, t, device, slot));
    return 1;
}

static int backward(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    relieve(L, b); /* places in its messages are those of the operators */
    mimicl_ok(L, b, mimic_backward(b->ctx, t));
    return 0;
}

void mimicl_push_tensor_methods(lua_State *L, int b) {
    lua_getiuservalue(L, b, MIMICL_TENSOR);
    lua_getfield(L, -1, "__index");
    lua_getupvalue(L, -1, 2);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

void mimicl_open_tensor(lua_State *L, int b) {
    static const luaL_Reg methods[] = {{"free", free_bytes}, {"release", release},
                                       {"copy_", copy_from}, {"requires_grad_", set_requires_grad},
                                       {"detach", detach},   {"to", to_device},
                                       {"later", later},     {"backward", backward},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__index", tensor_index},
                                    {"__len", length},
                                    {"__eq", equal},
                                    {"__tostring", to_string},
                                    {"__gc", gc},
                                    {"__close", gc},
                                    {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"backward", backward}, {"release", release}, {NULL, NULL}};
    static const luaL_Reg later_methods[] = {{"value", later_value}, {NULL, NULL}};
    static const luaL_Reg later_meta[] = {{"__gc", later_gc}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_LATER, "mimic.later", later_methods, later_meta);
    mimicl_class(L, b, MIMICL_TENSOR, "mimic.tensor", methods, meta);
    mimicl_push_tensor_methods(L, b);
    for (int i = 0; properties[i]; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, properties[i]);
    }
    lua_pop(L, 1);
    mimicl_functions(L, b, functions);
}

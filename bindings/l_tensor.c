/* Tensors as Lua objects: properties, values in and out, life. Arithmetic and operators: l_op.c. */
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

/* A new zero tensor on the stack. */
static mimic_tensor *make(lua_State *L, mimicl *b, mimic_dtype dtype, int rank,
                          const int64_t *shape) {
    mimic_tensor **slot = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimic_status status = mimic_tensor_new(b->ctx, dtype, rank, shape, slot);
    if (mimicl_retry(L, b, status))
        status = mimic_tensor_new(b->ctx, dtype, rank, shape, slot);
    mimicl_ok(L, b, status);
    return *slot;
}

/* --- making ------------------------------------------------------------------------- */

static bool is_integer(mimic_dtype dtype) {
    return dtype == MIMIC_I32 || dtype == MIMIC_U8;
}

/* The number on top, checked against dtype's range. */
static double value(lua_State *L, mimic_dtype dtype) {
    if (lua_isboolean(L, -1))
        return lua_toboolean(L, -1);
    if (lua_type(L, -1) != LUA_TNUMBER)
        mimicl_error(L, MIMIC_EINVAL, "a tensor holds numbers, not a %s", luaL_typename(L, -1));
    double v = lua_tonumber(L, -1);
    double low = dtype == MIMIC_U8 ? 0 : -2147483648.0;
    double high = dtype == MIMIC_U8 ? 255 : 2147483647.0;
    if (is_integer(dtype) && (!(v >= low && v <= high) || v != (double)(int64_t)v))
        mimicl_error(L, MIMIC_EINVAL, "%.17g is no %s", v, mimic_dtype_name(dtype));
    return v;
}

/* Writes the nested list on top into out, row-major, checking that it is a box of `shape`. */
static void fill(lua_State *L, int axis, int rank, const int64_t *shape, mimic_dtype dtype,
                 double **out) {
    if (axis == rank) {
        *(*out)++ = value(L, dtype);
        return;
    }
    if (!lua_istable(L, -1) || luaL_len(L, -1) != shape[axis])
        mimicl_error(L, MIMIC_EINVAL,
                     "m.tensor: nested lists must be equally long: a list of %lld expected at "
                     "depth %d, got %s of %lld",
                     (long long)shape[axis], axis + 1, luaL_typename(L, -1),
                     lua_istable(L, -1) ? (long long)luaL_len(L, -1) : 1LL);
    for (int64_t i = 1; i <= shape[axis]; i++) {
        lua_geti(L, -1, i);
        fill(L, axis + 1, rank, shape, dtype, out);
        lua_pop(L, 1);
    }
}

static int new_from_list(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_dtype dtype = mimicl_dtype(L, 2, MIMIC_F32);
    int64_t shape[MIMIC_MAX_RANK], count = 1;
    int rank = 0;
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    while (lua_istable(L, -1)) { /* the first entries tell the shape */
        if (rank == MIMIC_MAX_RANK)
            mimicl_error(L, MIMIC_EINVAL, "m.tensor: more than %d levels of lists", MIMIC_MAX_RANK);
        shape[rank] = luaL_len(L, -1);
        count *= shape[rank];
        rank++;
        if (shape[rank - 1] == 0)
            break;
        lua_geti(L, -1, 1);
    }
    lua_settop(L, 1);
    double *buf = mimicl_buffer(L, (size_t)count, sizeof *buf), *p = buf;
    lua_pushvalue(L, 1);
    fill(L, 0, rank, shape, dtype, &p);
    mimic_tensor *t = make(L, b, dtype, rank, shape);
    mimicl_ok(L, b, mimic_tensor_write(b->ctx, t, MIMIC_F64, buf, count));
    return 1;
}

/* A tensor full of v on the current device, which is not the CPU: a single element comes from
 * the host and is spread there, so that nobody waits. */
static int spread(lua_State *L, mimicl *b, double v, mimic_dtype dtype, int rank,
                  const int64_t *shape) {
    mimic_attrs attrs = {.list_n = rank};
    memcpy(attrs.list, shape, (size_t)rank * sizeof *shape);
    mimic_tensor *one = make(L, b, dtype, 0, NULL);
    mimicl_ok(L, b, mimic_tensor_write(b->ctx, one, MIMIC_F64, &v, 1));
    mimic_tensor **view = mimicl_new_tensor(L), **full = mimicl_new_tensor(L);
    const mimic_op *expand = mimic_op_find("expand"), *dense = mimic_op_find("contiguous");
    mimicl_ok(L, b, mimic_op_apply(b->ctx, expand, &one, 1, &attrs, view));
    mimicl_ok(L, b, mimic_op_apply(b->ctx, dense, view, 1, NULL, full));
    return 1;
}

static int fill_constant(lua_State *L, double v, int dtype_arg) {
    mimicl *b = mimicl_self(L);
    int64_t shape[MIMIC_MAX_RANK];
    int rank = mimicl_shape(L, 1, shape);
    mimic_dtype dtype = mimicl_dtype(L, dtype_arg, MIMIC_F32);
    lua_pushnumber(L, v);
    value(L, dtype);
    enum { CHUNK = 512 };
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= shape[i];
    if (v != 0 && count > CHUNK && strcmp(mimic_get_device(b->ctx), "cpu") != 0)
        return spread(L, b, v, dtype, rank, shape);
    mimic_tensor *t = make(L, b, dtype, rank, shape);
    int at = lua_gettop(L);
    if (v == 0)
        return 1;
    size_t size = mimic_dtype_size(dtype);
    if (count <= CHUNK) {
        double few[CHUNK];
        for (int64_t i = 0; i < count; i++)
            few[i] = v;
        mimicl_ok(L, b, mimic_tensor_write(b->ctx, t, MIMIC_F64, few, count));
        return 1;
    }
    /* one converted element, then doubled over the whole tensor */
    mimic_tensor *one = make(L, b, dtype, 0, NULL);
    mimicl_ok(L, b, mimic_tensor_write(b->ctx, one, MIMIC_F64, &v, 1));
    char *data = mimic_tensor_data(t);
    mimicl_ok(L, b, mimic_tensor_read(b->ctx, one, dtype, data, 1));
    for (size_t done = size, all = size * (size_t)count; done < all;) {
        size_t n = done < all - done ? done : all - done;
        memcpy(data + done, data, n);
        done += n;
    }
    lua_pushvalue(L, at);
    return 1;
}

static int zeros(lua_State *L) {
    return fill_constant(L, 0, 2);
}

static int ones(lua_State *L) {
    return fill_constant(L, 1, 2);
}

static int full(lua_State *L) {
    return fill_constant(L, luaL_checknumber(L, 2), 3);
}

static int from_bytes(lua_State *L) {
    mimicl *b = mimicl_self(L);
    size_t size;
    int64_t shape[MIMIC_MAX_RANK];
    const char *bytes = luaL_checklstring(L, 1, &size);
    int rank = mimicl_shape(L, 2, shape);
    mimic_dtype dtype = mimicl_dtype(L, 3, MIMIC_F32);
    mimic_tensor *t = make(L, b, dtype, rank, shape);
    size_t want = (size_t)mimic_tensor_count(t) * mimic_dtype_size(dtype);
    if (size != want)
        mimicl_error(L, MIMIC_EINVAL, "m.frombytes: %zu bytes given, %zu needed", size, want);
    mimicl_ok(L, b, mimic_tensor_write(b->ctx, t, dtype, bytes, mimic_tensor_count(t)));
    return 1;
}

/* --- reading ------------------------------------------------------------------------ */

/* All elements as doubles, in a buffer on the stack. */
static const double *read_all(lua_State *L, mimicl *b, const mimic_tensor *t) {
    int64_t count = mimic_tensor_count(t);
    double *buf = mimicl_buffer(L, (size_t)count, sizeof *buf);
    mimicl_ok(L, b, mimic_tensor_read(b->ctx, t, MIMIC_F64, buf, count));
    return buf;
}

static void push_value(lua_State *L, mimic_dtype dtype, double v) {
    if (is_integer(dtype))
        lua_pushinteger(L, (lua_Integer)v);
    else
        lua_pushnumber(L, v);
}

static const double *push_list(lua_State *L, const mimic_tensor *t, int axis, const double *p) {
    if (axis == mimic_tensor_rank(t)) {
        push_value(L, mimic_tensor_dtype(t), *p);
        return p + 1;
    }
    int64_t n = mimic_tensor_shape(t)[axis];
    luaL_checkstack(L, 4, "tolist");
    lua_createtable(L, n < INT32_MAX ? (int)n : 0, 0);
    for (int64_t i = 1; i <= n; i++) {
        p = push_list(L, t, axis + 1, p);
        lua_rawseti(L, -2, i);
    }
    return p;
}

static int to_list(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    push_list(L, t, 0, read_all(L, b, t));
    return 1;
}

static int item(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    double v = 0;
    if (mimic_tensor_count(t) != 1)
        mimicl_error(L, MIMIC_EINVAL,
                     "item: the tensor has %lld elements, not 1; use tolist or get",
                     (long long)mimic_tensor_count(t));
    mimicl_ok(L, b, mimic_tensor_read(b->ctx, t, MIMIC_F64, &v, 1));
    push_value(L, mimic_tensor_dtype(t), v);
    return 1;
}

static int get(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    int rank = mimic_tensor_rank(t);
    const int64_t *shape = mimic_tensor_shape(t);
    if (lua_gettop(L) - 1 != rank)
        mimicl_error(L, MIMIC_EINVAL, "get: %d positions given for %d axes", lua_gettop(L) - 1,
                     rank);
    int64_t at = 0;
    for (int i = 0; i < rank; i++) {
        int64_t k = luaL_checkinteger(L, i + 2);
        k = k < 0 ? k + shape[i] : k - 1;
        if (k < 0 || k >= shape[i])
            mimicl_error(L, MIMIC_EINVAL, "get: position %lld of axis %d is outside 1..%lld",
                         (long long)lua_tointeger(L, i + 2), i + 1, (long long)shape[i]);
        at = at * shape[i] + k;
    }
    mimic_dtype dtype = mimic_tensor_dtype(t);
    const void *data = mimic_tensor_alive(t) ? mimic_tensor_data(t) : NULL;
    if (data && dtype == MIMIC_F32)
        lua_pushnumber(L, ((const float *)data)[at]);
    else if (data && dtype == MIMIC_I32)
        lua_pushinteger(L, ((const int32_t *)data)[at]);
    else if (data && dtype == MIMIC_U8)
        lua_pushinteger(L, ((const uint8_t *)data)[at]);
    else
        push_value(L, dtype, read_all(L, b, t)[at]);
    return 1;
}

static int to_bytes(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_tensor *t = mimicl_tensor(L, 1);
    mimic_dtype dtype = mimic_tensor_dtype(t);
    size_t size = (size_t)mimic_tensor_count(t) * mimic_dtype_size(dtype);
    luaL_Buffer out;
    char *p = luaL_buffinitsize(L, &out, size);
    mimicl_ok(L, b, mimic_tensor_read(b->ctx, t, dtype, p, mimic_tensor_count(t)));
    luaL_pushresultsize(&out, size);
    return 1;
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

void mimicl_open_tensor(lua_State *L, int b) {
    static const luaL_Reg methods[] = {{"tolist", to_list},  {"item", item},
                                       {"get", get},         {"tobytes", to_bytes},
                                       {"free", free_bytes}, {"release", release},
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
        {"tensor", new_from_list}, {"zeros", zeros},       {"ones", ones},       {"full", full},
        {"frombytes", from_bytes}, {"backward", backward}, {"release", release}, {NULL, NULL}};
    static const luaL_Reg later_methods[] = {{"value", later_value}, {NULL, NULL}};
    static const luaL_Reg later_meta[] = {{"__gc", later_gc}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_LATER, "mimic.later", later_methods, later_meta);
    mimicl_class(L, b, MIMICL_TENSOR, "mimic.tensor", methods, meta);
    lua_getiuservalue(L, b, MIMICL_TENSOR);
    lua_getfield(L, -1, "__index");
    lua_getupvalue(L, -1, 2);
    for (int i = 0; properties[i]; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, properties[i]);
    }
    lua_pop(L, 3);
    mimicl_functions(L, b, functions);
}

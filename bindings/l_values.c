/* Values of tensors in and out of Lua: lists, single numbers, bytes. */
#include "l_mimic.h"

#include <string.h>

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

void mimicl_open_values(lua_State *L, int b) {
    static const luaL_Reg methods[] = {
        {"tolist", to_list}, {"item", item}, {"get", get}, {"tobytes", to_bytes}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"tensor", new_from_list}, {"zeros", zeros}, {"ones", ones}, {"full", full},
        {"frombytes", from_bytes}, {NULL, NULL}};
    mimicl_push_tensor_methods(L, b);
    mimicl_functions(L, b, methods);
    lua_pop(L, 1);
    mimicl_functions(L, b, functions);
}

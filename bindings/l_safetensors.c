/* m.safetensors: checkpoint files, m.pth: those of PyTorch; m.sha256. */
#include "l_mimic.h"

#include <stdlib.h>
#include <string.h>

typedef struct file_box {
    mimic_safetensors *f; /* NULL once closed */
} file_box;

void mimicl_push_hex(lua_State *L, const uint8_t *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    luaL_Buffer out;
    char *p = luaL_buffinitsize(L, &out, 2 * n);
    for (size_t i = 0; i < n; i++) {
        p[2 * i] = digits[bytes[i] >> 4];
        p[2 * i + 1] = digits[bytes[i] & 15];
    }
    luaL_pushresultsize(&out, 2 * n);
}

static mimic_safetensors *self(lua_State *L) {
    file_box *box = mimicl_check(L, 1, MIMICL_SAFETENSORS);
    if (!box->f)
        mimicl_error(L, MIMIC_ESTATE, "the safetensors file is closed");
    return box->f;
}

static int file_open(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const char *path = luaL_checkstring(L, 1);
    file_box *box = mimicl_new(L, MIMICL_SAFETENSORS, sizeof *box, 0);
    mimicl_ok(L, b, mimic_safetensors_open(b->ctx, path, &box->f));
    return 1;
}

/* m.pth.open(path): PyTorch's checkpoints, the same object */
static int pth_open(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const char *path = luaL_checkstring(L, 1);
    file_box *box = mimicl_new(L, MIMICL_SAFETENSORS, sizeof *box, 0);
    mimicl_ok(L, b, mimic_pth_open(b->ctx, path, &box->f));
    return 1;
}

static int file_gc(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    file_box *box = lua_touserdata(L, 1);
    if (b->ctx)
        mimic_safetensors_close(box->f);
    box->f = NULL;
    return 0;
}

static int file_close(lua_State *L) {
    mimicl_check(L, 1, MIMICL_SAFETENSORS);
    return file_gc(L);
}

static int file_names(lua_State *L) {
    const mimic_safetensors *f = self(L);
    int n = mimic_safetensors_count(f);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushstring(L, mimic_safetensors_name(f, i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* Position of the tensor named by arg 2, or -1. */
static int find(lua_State *L, const mimic_safetensors *f) {
    return mimic_safetensors_find(f, luaL_checkstring(L, 2));
}

/* f:info(name) -> dtype as in the file, shape; nothing when there is no such tensor */
static int file_info(lua_State *L) {
    const mimic_safetensors *f = self(L);
    int i = find(L, f), rank;
    const char *dtype;
    const int64_t *shape;
    if (i < 0)
        return 0;
    mimic_safetensors_info(f, i, &dtype, &rank, &shape);
    lua_pushstring(L, dtype);
    lua_createtable(L, rank, 0);
    for (int k = 0; k < rank; k++) {
        lua_pushinteger(L, shape[k]);
        lua_rawseti(L, -2, k + 1);
    }
    return 2;
}

static int file_load(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_safetensors *f = self(L);
    int i = find(L, f);
    if (i < 0)
        mimicl_error(L, MIMIC_EINVAL, "the file has no tensor \"%.200s\"", lua_tostring(L, 2));
    mimic_tensor **slot = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimic_status status = mimic_safetensors_load(f, i, slot);
    if (mimicl_retry(L, b, status))
        status = mimic_safetensors_load(f, i, slot);
    mimicl_ok(L, b, status);
    return 1;
}

static int file_meta(lua_State *L) {
    const mimic_safetensors *f = self(L);
    lua_pushstring(L, mimic_safetensors_meta(f, luaL_checkstring(L, 2))); /* NULL pushes nil */
    return 1;
}

static int file_metadata(lua_State *L) {
    const mimic_safetensors *f = self(L);
    int n = mimic_safetensors_meta_count(f);
    lua_createtable(L, 0, n);
    for (int i = 0; i < n; i++) {
        const char *key = mimic_safetensors_meta_key(f, i);
        lua_pushstring(L, mimic_safetensors_meta(f, key));
        lua_setfield(L, -2, key);
    }
    return 1;
}

static int by_key(const void *x, const void *y) {
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* The metadata table at t as sorted pairs (the same table gives the same file), in a buffer on the
 * stack. The texts stay owned by the table. */
static const char *const *read_meta(lua_State *L, int t, int *n) {
    int count = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1))
        count++;
    const char **pairs = mimicl_buffer(L, 2 * (size_t)count, sizeof *pairs);
    int k = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            mimicl_error(L, MIMIC_EINVAL,
                         "m.safetensors.save: metadata: strings by name expected, "
                         "got a %s under a %s",
                         luaL_typename(L, -1), luaL_typename(L, -2));
        pairs[2 * k] = lua_tostring(L, -2);
        pairs[2 * k + 1] = lua_tostring(L, -1);
        k++;
    }
    qsort(pairs, (size_t)count, 2 * sizeof *pairs, by_key);
    *n = count;
    return pairs;
}

/* m.safetensors.save(path, {{name, tensor}, ...} [, {key = string}]) -> sha256 hex, bytes */
static int file_save(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const char *path = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    int n = (int)luaL_len(L, 2), n_meta = 0;
    const char **names = mimicl_buffer(L, (size_t)n, sizeof *names);
    mimic_tensor **tensors = mimicl_buffer(L, (size_t)n, sizeof *tensors);
    for (int i = 0; i < n; i++) {
        if (lua_geti(L, 2, i + 1) != LUA_TTABLE)
            mimicl_error(L, MIMIC_EINVAL,
                         "m.safetensors.save: entry %d: {name, tensor} expected, "
                         "got %s",
                         i + 1, luaL_typename(L, -1));
        lua_geti(L, -1, 1);
        lua_geti(L, -2, 2);
        if (lua_type(L, -2) != LUA_TSTRING || !mimicl_test(L, -1, MIMICL_TENSOR))
            mimicl_error(L, MIMIC_EINVAL,
                         "m.safetensors.save: entry %d: {name, tensor} expected, "
                         "got {%s, %s}",
                         i + 1, luaL_typename(L, -2), luaL_typename(L, -1));
        names[i] = lua_tostring(L, -2);
        tensors[i] = mimicl_tensor(L, -1);
        lua_pop(L, 3);
    }
    const char *const *meta = NULL;
    if (!lua_isnil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        meta = read_meta(L, 3, &n_meta);
    }
    uint8_t sha[32];
    int64_t bytes = 0;
    mimicl_ok(L, b,
              mimic_safetensors_save(b->ctx, path, names, tensors, n, meta, n_meta, sha, &bytes));
    mimicl_push_hex(L, sha, sizeof sha);
    lua_pushinteger(L, bytes);
    return 2;
}

static int sha256(lua_State *L) {
    size_t size;
    uint8_t sha[32];
    const char *bytes = luaL_checklstring(L, 1, &size);
    mimic_sha256(bytes, size, sha);
    mimicl_push_hex(L, sha, sizeof sha);
    return 1;
}

static int sha256_file(lua_State *L) {
    mimicl *b = mimicl_self(L);
    uint8_t sha[32];
    mimicl_ok(L, b, mimic_sha256_file(b->ctx, luaL_checkstring(L, 1), sha));
    mimicl_push_hex(L, sha, sizeof sha);
    return 1;
}

void mimicl_open_safetensors(lua_State *L, int b) {
    static const luaL_Reg methods[] = {
        {"names", file_names}, {"info", file_info},         {"load", file_load},
        {"meta", file_meta},   {"metadata", file_metadata}, {"close", file_close},
        {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", file_gc}, {"__close", file_gc}, {NULL, NULL}};
    static const luaL_Reg files[] = {{"open", file_open}, {"save", file_save}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"sha256", sha256}, {"sha256_file", sha256_file}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_SAFETENSORS, "mimic.safetensors", methods, meta);
    mimicl_functions(L, b, functions);
    lua_newtable(L);
    mimicl_functions(L, b, files);
    lua_setfield(L, -2, "safetensors");
    static const luaL_Reg pth[] = {{"open", pth_open}, {NULL, NULL}};
    lua_newtable(L);
    mimicl_functions(L, b, pth);
    lua_setfield(L, -2, "pth");
}

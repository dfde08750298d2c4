/* m.data: data sets, loaders and their epochs, the synthetic sets. Samples, epochs and batches
 * count from 0, as in files. A loader keeps its data set alive. */
#include "l_mimic.h"

#include <string.h>

typedef struct data_box {
    mimic_dataset *d;
} data_box;

typedef struct loader_box { /* user value 1: the data set */
    mimic_loader *l;
    int64_t run; /* epochs started: an older iterator must not go on */
} loader_box;

static mimic_dataset *dataset(lua_State *L, int arg) {
    data_box *box = mimicl_check(L, arg, MIMICL_DATASET);
    if (!box->d)
        mimicl_error(L, MIMIC_ESTATE, "the data set is closed");
    return box->d;
}

/* m.data.open{path=, ...} -> data set; nil for an `optional` split that there is not */
static int data_open(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_options(L, 1, "m.data.open", "path|format|split|optional|label_column|need_labels|mode");
    mimic_dataset_config cfg = {
        .path = mimicl_text(L, 1, "path", NULL),
        .format = mimicl_text(L, 1, "format", NULL),
        .split = mimicl_text(L, 1, "split", NULL),
        .optional = mimicl_boolean(L, 1, "optional", false),
        .label_column = mimicl_text(L, 1, "label_column", NULL),
        .need_labels = mimicl_boolean(L, 1, "need_labels", false),
        .mode = mimicl_text(L, 1, "mode", NULL),
    };
    if (!cfg.path)
        mimicl_error(L, MIMIC_EINVAL, "m.data.open: path must be given");
    data_box *box = mimicl_new(L, MIMICL_DATASET, sizeof *box, 0);
    mimicl_ok(L, b, mimic_dataset_open(b->ctx, &cfg, &box->d));
    if (!box->d)
        lua_pushnil(L);
    return 1;
}

/* m.data.detect(path) -> name of the format that lies there, or nil */
static int data_detect(lua_State *L) {
    lua_pushstring(L, mimic_dataset_detect(luaL_checkstring(L, 1)));
    return 1;
}

static int data_gc(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    data_box *box = lua_touserdata(L, 1);
    if (b->ctx)
        mimic_dataset_free(box->d);
    box->d = NULL;
    return 0;
}

/* The 0-based sample number at arg 2. */
static int64_t sample(lua_State *L, const mimic_dataset *d) {
    int64_t i = luaL_checkinteger(L, 2);
    if (i < 0 || i >= mimic_dataset_size(d))
        mimicl_error(L, MIMIC_EINVAL, "sample %lld is outside 0..%lld", (long long)i,
                     (long long)mimic_dataset_size(d) - 1);
    return i;
}

static int data_class_name(lua_State *L) {
    const mimic_dataset *d = dataset(L, 1);
    lua_Integer k = luaL_checkinteger(L, 2);
    if (k < 0 || k >= mimic_dataset_classes(d))
        mimicl_error(L, MIMIC_EINVAL, "class %lld is outside 0..%d", (long long)k,
                     mimic_dataset_classes(d) - 1);
    lua_pushstring(L, mimic_dataset_class_name(d, (int)k));
    return 1;
}

static int data_label(lua_State *L) {
    const mimic_dataset *d = dataset(L, 1);
    lua_pushinteger(L, mimic_dataset_label(d, sample(L, d)));
    return 1;
}

/* d:soft(i) -> list of probabilities, or nil when the set has hard labels only */
static int data_soft(lua_State *L) {
    const mimic_dataset *d = dataset(L, 1);
    const float *p = mimic_dataset_soft(d, sample(L, d));
    if (!p)
        return 0;
    int n = mimic_dataset_classes(d);
    lua_createtable(L, n, 0);
    for (int k = 0; k < n; k++) {
        lua_pushnumber(L, (lua_Number)p[k]);
        lua_rawseti(L, -2, k + 1);
    }
    return 1;
}

static int data_name(lua_State *L) {
    const mimic_dataset *d = dataset(L, 1);
    lua_pushstring(L, mimic_dataset_sample_name(d, sample(L, d)));
    return 1;
}

static int data_read(lua_State *L) {
    const mimic_dataset *d = dataset(L, 1);
    int64_t i = sample(L, d);
    mimic_err err = {""};
    mimic_image *img = mimicl_new_image(L);
    mimicl_check_err(L, mimic_dataset_read(d, i, img, &err), &err);
    return 1;
}

/* d:counts() -> list; entry k+1 is class k's */
static int data_counts(lua_State *L) {
    const mimic_dataset *d = dataset(L, 1);
    int n = mimic_dataset_classes(d);
    int64_t *counts = mimicl_buffer(L, (size_t)n, sizeof *counts);
    memset(counts, 0, (size_t)n * sizeof *counts);
    mimic_dataset_counts(d, counts);
    lua_createtable(L, n, 0);
    for (int k = 0; k < n; k++) {
        lua_pushinteger(L, counts[k]);
        lua_rawseti(L, -2, k + 1);
    }
    return 1;
}

static int data_hash(lua_State *L) {
    uint8_t hash[32];
    mimic_dataset_hash(dataset(L, 1), hash);
    mimicl_push_hex(L, hash, sizeof hash);
    return 1;
}

typedef struct progress_call {
    lua_State *L;
    int options; /* where the table with the function stands */
    bool failed; /* the error value is on the stack */
} progress_call;

/* The engine is on the C stack: errors of the script's function wait until it has returned. */
static bool show_progress(void *user, int64_t done, int64_t total) {
    progress_call *c = user;
    lua_getfield(c->L, c->options, "progress");
    lua_pushinteger(c->L, done);
    lua_pushinteger(c->L, total);
    c->failed = lua_pcall(c->L, 2, 0, 0) != LUA_OK;
    return !c->failed;
}

/* d:pack(path [, {size, skip_damaged, progress}]) -> number of damaged pictures left out */
static int data_pack(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_dataset *d = dataset(L, 1);
    progress_call call = {.L = L, .options = 3};
    mimic_pixels_config cfg = {.path = luaL_checkstring(L, 2), .user = &call};
    int64_t damaged = 0;
    lua_settop(L, 3);
    if (lua_isnil(L, 3)) {
        lua_newtable(L);
        lua_replace(L, 3);
    }
    mimicl_options(L, 3, "d:pack", "size|skip_damaged|progress");
    cfg.size = mimicl_int(L, 3, "size", 0);
    cfg.skip_damaged = mimicl_boolean(L, 3, "skip_damaged", false);
    if (lua_getfield(L, 3, "progress") == LUA_TFUNCTION)
        cfg.progress = show_progress;
    lua_settop(L, 3);
    luaL_checkstack(L, 20, "pack");
    mimic_status status = mimic_pixels_write(b->ctx, d, &cfg, &damaged);
    if (call.failed)
        return lua_error(L);
    mimicl_ok(L, b, status);
    lua_pushinteger(L, damaged);
    return 1;
}

static int data_length(lua_State *L) {
    lua_pushinteger(L, mimic_dataset_size(dataset(L, 1)));
    return 1;
}

static int data_index(lua_State *L) {
    if (mimicl_method(L))
        return 1;
    const mimic_dataset *d = dataset(L, 1);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    const char *fields = "classes|format|dropped|mode";
    switch (mimicl_choice(fields, key, strlen(key))) {
    case 0:
        lua_pushinteger(L, mimic_dataset_classes(d));
        break;
    case 1:
        lua_pushstring(L, mimic_dataset_format(d));
        break;
    case 2:
        lua_pushinteger(L, mimic_dataset_dropped(d));
        break;
    case 3:
        lua_pushstring(L, mimic_dataset_mode(d));
        break;
    default:
        return mimicl_no_field(L, fields);
    }
    return 1;
}

/* --- loaders ------------------------------------------------------------------------ */

static mimic_loader *loader(lua_State *L, int arg) {
    loader_box *box = mimicl_check(L, arg, MIMICL_LOADER);
    if (!box->l)
        mimicl_error(L, MIMIC_ESTATE, "the loader is closed");
    return box->l;
}

static int loader_new(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_dataset *d = dataset(L, 1);
    mimicl_options(
        L, 2, "m.data.loader",
        "batch|views|shuffle|balanced|draw_labels|drop_last|workers|ahead|seed|skip_damaged|cache|"
        "device|transform|second");
    int64_t cache = mimicl_integer(L, 2, "cache", 0);
    static const char places[] = "auto|off|stream|keep"; /* enum mimic_data_device */
    const char *place = mimicl_text(L, 2, "device", "auto");
    int device = mimicl_choice(places, place, strlen(place));
    if (device < 0)
        mimicl_unknown(L, "m.data.loader", "device", place, places);
    mimic_loader_config cfg = {
        .batch = mimicl_int(L, 2, "batch", 1),
        .views = mimicl_int(L, 2, "views", 1),
        .shuffle = mimicl_boolean(L, 2, "shuffle", false),
        .balanced = mimicl_boolean(L, 2, "balanced", false),
        .draw_labels = mimicl_boolean(L, 2, "draw_labels", false),
        .drop_last = mimicl_boolean(L, 2, "drop_last", false),
        .workers = mimicl_int(L, 2, "workers", 0),
        .ahead = mimicl_int(L, 2, "ahead", 0),
        .seed = (uint64_t)mimicl_integer(L, 2, "seed", (int64_t)mimic_get_seed(b->ctx)),
        .skip_damaged = mimicl_boolean(L, 2, "skip_damaged", false),
        .device = (mimic_data_device)device,
        .cache_bytes = cache > 0 ? (size_t)cache : 0,
    };
    if (lua_getfield(L, 2, "transform") != LUA_TTABLE)
        mimicl_error(L, MIMIC_EINVAL, "m.data.loader: transform, a table with a size, is missing");
    mimicl_transform(L, -1, &cfg.transform);
    if (lua_getfield(L, 2, "second") != LUA_TNIL)
        mimicl_transform(L, -1, &cfg.second);
    loader_box *box = mimicl_new(L, MIMICL_LOADER, sizeof *box, 1);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    mimicl_ok(L, b, mimic_loader_new(b->ctx, d, &cfg, &box->l));
    return 1;
}

static int loader_gc(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    loader_box *box = lua_touserdata(L, 1);
    if (b->ctx)
        mimic_loader_free(box->l);
    box->l = NULL;
    return 0;
}

static int loader_close(lua_State *L) {
    mimicl_check(L, 1, MIMICL_LOADER);
    return loader_gc(L);
}

/* The iterator of l:epoch; upvalue 2: the loader, 3: which epoch it serves. */
static int loader_next(lua_State *L) {
    mimicl *b = mimicl_self(L);
    int at = lua_upvalueindex(2);
    mimic_loader *l = loader(L, at);
    const loader_box *box = lua_touserdata(L, at);
    if (box->run != lua_tointeger(L, lua_upvalueindex(3)))
        mimicl_error(L, MIMIC_ESTATE, "l:epoch was called again: this epoch's iterator is over");
    lua_createtable(L, 0, 5);
    int batch = lua_gettop(L);
    mimic_tensor **images = mimicl_new_tensor(L), **labels = mimicl_new_tensor(L);
    mimic_tensor **index = mimicl_new_tensor(L), **soft = mimicl_new_tensor(L);
    mimic_batch got = {0};
    mimicl_enter(L, b);
    mimic_status status = mimic_loader_next(l, &got);
    *images = got.images;
    *labels = got.labels;
    *index = got.index;
    *soft = got.soft;
    mimicl_ok(L, b, status);
    if (got.n == 0)
        return 0;
    if (!got.soft) {
        lua_pop(L, 1);
        lua_pushnil(L);
    }
    lua_setfield(L, batch, "soft");
    lua_setfield(L, batch, "index");
    lua_setfield(L, batch, "labels");
    lua_setfield(L, batch, "images");
    lua_pushinteger(L, got.n);
    lua_setfield(L, batch, "n");
    return 1;
}

/* l:epoch(e [, position]) -> iterator of {images, labels, soft or nil, index, n} */
static int loader_epoch(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_loader *l = loader(L, 1);
    loader_box *box = lua_touserdata(L, 1);
    mimicl_ok(L, b, mimic_loader_start(l, luaL_optinteger(L, 2, 0), luaL_optinteger(L, 3, 0)));
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_pushinteger(L, ++box->run);
    lua_pushcclosure(L, loader_next, 3);
    return 1;
}

static int loader_index(lua_State *L) {
    if (mimicl_method(L))
        return 1;
    const mimic_loader *l = loader(L, 1);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    const char *fields = "batches|damaged|kept|about";
    switch (mimicl_choice(fields, key, strlen(key))) {
    case 0:
        lua_pushinteger(L, mimic_loader_batches(l));
        break;
    case 1:
        lua_pushinteger(L, mimic_loader_damaged(l));
        break;
    case 2:
        lua_pushinteger(L, (lua_Integer)mimic_loader_kept(l));
        break;
    case 3: {
        char about[256];
        mimic_loader_about(l, about, sizeof about);
        lua_pushstring(L, about);
        break;
    }
    default:
        return mimicl_no_field(L, fields);
    }
    return 1;
}

/* --- synthetic sets ----------------------------------------------------------------- */

static int data_synth(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_options(L, 1, "m.data.synth",
                   "dir|seed|general_train|general_val|faces_train|faces_test|size|progress");
    progress_call call = {.L = L, .options = 1};
    mimic_synth_config cfg = {
        .dir = mimicl_text(L, 1, "dir", NULL),
        .seed = (uint64_t)mimicl_integer(L, 1, "seed", 0),
        .general_train = mimicl_int(L, 1, "general_train", 0),
        .general_val = mimicl_int(L, 1, "general_val", 0),
        .faces_train = mimicl_int(L, 1, "faces_train", 0),
        .faces_test = mimicl_int(L, 1, "faces_test", 0),
        .size = mimicl_int(L, 1, "size", 0),
        .user = &call,
    };
    if (!cfg.dir)
        mimicl_error(L, MIMIC_EINVAL, "m.data.synth: dir must be given");
    if (lua_getfield(L, 1, "progress") == LUA_TFUNCTION)
        cfg.progress = show_progress;
    lua_settop(L, 1);
    luaL_checkstack(L, 20, "synth");
    mimic_status status = mimic_synth_write(b->ctx, &cfg);
    if (call.failed)
        return lua_error(L);
    mimicl_ok(L, b, status);
    return 0;
}

void mimicl_open_data(lua_State *L, int b) {
    static const luaL_Reg methods[] = {{"class_name", data_class_name},
                                       {"label", data_label},
                                       {"soft", data_soft},
                                       {"name", data_name},
                                       {"read", data_read},
                                       {"counts", data_counts},
                                       {"hash", data_hash},
                                       {"pack", data_pack},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__index", data_index}, {"__len", data_length}, {"__gc", data_gc}, {NULL, NULL}};
    static const luaL_Reg loader_methods[] = {
        {"epoch", loader_epoch}, {"close", loader_close}, {NULL, NULL}};
    static const luaL_Reg loader_meta[] = {
        {"__index", loader_index}, {"__gc", loader_gc}, {"__close", loader_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", data_open},
                                         {"detect", data_detect},
                                         {"loader", loader_new},
                                         {"synth", data_synth},
                                         {NULL, NULL}};
    mimicl_class(L, b, MIMICL_DATASET, "mimic.dataset", methods, meta);
    mimicl_class(L, b, MIMICL_LOADER, "mimic.loader", loader_methods, loader_meta);
    lua_newtable(L);
    mimicl_functions(L, b, functions);
    lua_setfield(L, -2, "data");
}

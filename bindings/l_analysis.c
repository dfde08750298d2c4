/* m.tsne, m.tsne_affinities, m.tsne_gradient, m.silhouette, m.knn_accuracy. */
#include "l_mimic.h"

#include <string.h>

typedef struct tsne_call {
    lua_State *L;
    bool failed; /* the error value is on the stack */
} tsne_call;

/* The engine is on the C stack: errors of the script's function wait until it has returned. */
static bool tsne_progress(void *user, int iteration, double kl) {
    tsne_call *c = user;
    lua_getfield(c->L, 2, "progress");
    lua_pushinteger(c->L, iteration);
    lua_pushnumber(c->L, kl);
    c->failed = lua_pcall(c->L, 2, 0, 0) != LUA_OK;
    return !c->failed;
}

/* The tensor in field `key` of the table at t, or NULL. */
static mimic_tensor *tensor_field(lua_State *L, int t, const char *key) {
    bool there = lua_getfield(L, t, key) != LUA_TNIL;
    mimic_tensor *found = there ? mimicl_tensor(L, -1) : NULL;
    lua_pop(L, 1); /* the table keeps it */
    return found;
}

/* In C zero is the default; a script that writes it means zero, which makes no descent. */
static void refuse_zeros(lua_State *L) {
    static const char *const keys[] = {"perplexity", "iterations", "early", "exaggeration", "eta"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (lua_getfield(L, 2, keys[i]) == LUA_TNUMBER && lua_tonumber(L, -1) == 0)
            mimicl_error(L, MIMIC_EINVAL, "m.tsne: %s = 0 makes no descent", keys[i]);
        lua_pop(L, 1);
    }
}

/* m.tsne(x [, options]) -> y f64 [n,2], kl */
static int tsne(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_tensor *x = mimicl_operand(L, 1, "m.tsne");
    lua_settop(L, 2);
    if (lua_isnil(L, 2)) {
        lua_newtable(L);
        lua_replace(L, 2);
    }
    mimicl_options(
        L, 2, "m.tsne",
        "perplexity|theta|iterations|early|exaggeration|eta|momentum|seed|init|progress");
    tsne_call call = {.L = L};
    refuse_zeros(L);
    mimic_tsne_config cfg = {
        .perplexity = mimicl_number(L, 2, "perplexity", 0),
        .theta = mimicl_number(L, 2, "theta", 0.5),
        .iterations = mimicl_int(L, 2, "iterations", 0),
        .early = mimicl_int(L, 2, "early", 0),
        .exaggeration = mimicl_number(L, 2, "exaggeration", 0),
        .eta = mimicl_number(L, 2, "eta", 0),
        .seed = (uint64_t)mimicl_integer(L, 2, "seed", (int64_t)mimic_get_seed(b->ctx)),
        .init = tensor_field(L, 2, "init"),
        .user = &call,
    };
    mimicl_numbers(L, 2, "momentum", 2, cfg.momentum);
    int type = lua_getfield(L, 2, "progress");
    if (type != LUA_TNIL && type != LUA_TFUNCTION)
        mimicl_error(L, MIMIC_EINVAL, "m.tsne: progress: a function (iteration, kl) expected");
    if (type == LUA_TFUNCTION)
        cfg.progress = tsne_progress;
    lua_settop(L, 2);
    mimic_tensor **y = mimicl_new_tensor(L);
    double kl = 0;
    mimicl_enter(L, b);
    luaL_checkstack(L, 20, "tsne");
    mimic_status status = mimic_tsne(b->ctx, x, &cfg, y, &kl);
    if (call.failed)
        return lua_error(L);
    mimicl_ok(L, b, status);
    lua_pushnumber(L, kl);
    return 2;
}

/* m.tsne_affinities(x, perplexity) -> P f64 [n,n], beta f64 [n] */
static int affinities(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_tensor *x = mimicl_operand(L, 1, "m.tsne_affinities");
    double perplexity = luaL_optnumber(L, 2, 30);
    mimic_tensor **p = mimicl_new_tensor(L), **beta = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimicl_ok(L, b, mimic_tsne_affinities(b->ctx, x, perplexity, p, beta));
    return 2;
}

/* m.tsne_gradient(P, y [, theta]) -> gradient f64 [n,2] without the factor 4, kl */
static int gradient(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_tensor *p = mimicl_operand(L, 1, "m.tsne_gradient");
    const mimic_tensor *y = mimicl_operand(L, 2, "m.tsne_gradient");
    double theta = luaL_optnumber(L, 3, 0), kl = 0;
    mimic_tensor **out = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimicl_ok(L, b, mimic_tsne_gradient(b->ctx, p, y, theta, out, &kl));
    lua_pushnumber(L, kl);
    return 2;
}

static mimic_metric metric(lua_State *L, int t, const char *who) {
    const char *name = mimicl_text(L, t, "metric", "euclidean");
    int k = mimicl_choice("euclidean|cosine", name, strlen(name));
    if (k < 0)
        mimicl_unknown(L, who, "metric", name, "euclidean|cosine");
    return k == 1 ? MIMIC_COSINE : MIMIC_EUCLIDEAN;
}

/* Puts an empty table at arg 3 when there is none. */
static void options(lua_State *L, const char *who, const char *names) {
    lua_settop(L, 3);
    if (lua_isnil(L, 3)) {
        lua_newtable(L);
        lua_replace(L, 3);
    }
    mimicl_options(L, 3, who, names);
}

/* m.silhouette(x, labels [, {metric}]) -> mean silhouette, -1..1 */
static int silhouette(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_tensor *x = mimicl_operand(L, 1, "m.silhouette");
    const mimic_tensor *labels = mimicl_operand(L, 2, "m.silhouette");
    double value = 0;
    options(L, "m.silhouette", "metric");
    mimicl_ok(L, b, mimic_silhouette(b->ctx, x, labels, metric(L, 3, "m.silhouette"), &value));
    lua_pushnumber(L, value);
    return 1;
}

/* m.knn_accuracy(x, labels [, {k, metric, reference, reference_labels}]) -> share, 0..1 */
static int knn_accuracy(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_tensor *x = mimicl_operand(L, 1, "m.knn_accuracy");
    const mimic_tensor *labels = mimicl_operand(L, 2, "m.knn_accuracy");
    double value = 0;
    options(L, "m.knn_accuracy", "k|metric|reference|reference_labels");
    mimicl_ok(L, b,
              mimic_knn_accuracy(b->ctx, x, labels, tensor_field(L, 3, "reference"),
                                 tensor_field(L, 3, "reference_labels"), mimicl_int(L, 3, "k", 20),
                                 metric(L, 3, "m.knn_accuracy"), &value));
    lua_pushnumber(L, value);
    return 1;
}

void mimicl_open_analysis(lua_State *L, int b) {
    static const luaL_Reg functions[] = {{"tsne", tsne},
                                         {"tsne_affinities", affinities},
                                         {"tsne_gradient", gradient},
                                         {"silhouette", silhouette},
                                         {"knn_accuracy", knn_accuracy},
                                         {NULL, NULL}};
    mimicl_functions(L, b, functions);
}

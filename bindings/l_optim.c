/* m.optimizer: the arena optimiser as an object. It keeps the parameters, the script only the
 * object. */
#include "l_mimic.h"

#include <string.h>

typedef struct optim_box {
    mimic_optim *o;
    int n; /* parameters */
} optim_box;

static mimic_optim *self(lua_State *L) {
    optim_box *box = mimicl_check(L, 1, MIMICL_OPTIM);
    if (!box->o)
        mimicl_error(L, MIMIC_ESTATE, "this optimizer was never made: its call failed");
    return box->o;
}

/* The list at t into params, whose tensors stay owned by the list. */
static void read_params(lua_State *L, int t, mimic_param *params, int n) {
    for (int i = 0; i < n; i++) {
        if (lua_geti(L, t, i + 1) != LUA_TTABLE)
            mimicl_error(L, MIMIC_EINVAL,
                         "m.optimizer: params[%d]: a table {tensor=...} expected, "
                         "got %s",
                         i + 1, luaL_typename(L, -1));
        mimicl_options(L, -1, "m.optimizer: params", "tensor|lr_scale|weight_decay|name");
        params[i].lr_scale = mimicl_number(L, -1, "lr_scale", 1);
        params[i].weight_decay = mimicl_number(L, -1, "weight_decay", 0);
        lua_getfield(L, -1, "tensor");
        if (!mimicl_test(L, -1, MIMICL_TENSOR))
            mimicl_error(L, MIMIC_EINVAL,
                         "m.optimizer: params[%d].tensor: a tensor expected, got %s", i + 1,
                         luaL_typename(L, -1));
        params[i].tensor = mimicl_tensor(L, -1);
        lua_pop(L, 2);
    }
}

static int optim_new(lua_State *L) {
    mimicl *b = mimicl_self(L);
    static const char kinds[] = "adam|adamw|sgd|lars";
    mimicl_options(L, 1, "m.optimizer", "kind|beta1|beta2|eps|trust|clip|bf16|params");
    const char *kind = mimicl_text(L, 1, "kind", "adamw");
    int k = mimicl_choice(kinds, kind, strlen(kind));
    if (k < 0)
        mimicl_unknown(L, "m.optimizer", "kind", kind, kinds);
    mimic_optim_config cfg = {
        .kind = (mimic_optim_kind)k,
        .beta1 = mimicl_number(L, 1, "beta1", 0.9),
        .beta2 = mimicl_number(L, 1, "beta2", 0.999),
        .eps = mimicl_number(L, 1, "eps", 1e-8),
        .trust = mimicl_number(L, 1, "trust", 0.001),
        .clip = mimicl_number(L, 1, "clip", 0),
        .shadow_bf16 = mimicl_boolean(L, 1, "bf16", false),
    };
    if (lua_getfield(L, 1, "params") != LUA_TTABLE)
        mimicl_error(L, MIMIC_EINVAL, "m.optimizer: params, a list, is missing");
    int t = lua_gettop(L), n = (int)luaL_len(L, t);
    mimic_param *params = mimicl_buffer(L, (size_t)n, sizeof *params);
    read_params(L, t, params, n);
    optim_box *box = mimicl_new(L, MIMICL_OPTIM, sizeof *box, 0);
    mimicl_enter(L, b);
    mimic_status status = mimic_optim_new(b->ctx, &cfg, params, n, &box->o);
    if (mimicl_retry(L, b, status))
        status = mimic_optim_new(b->ctx, &cfg, params, n, &box->o);
    mimicl_ok(L, b, status);
    box->n = n;
    return 1;
}

static int optim_gc(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    optim_box *box = lua_touserdata(L, 1);
    if (b->ctx)
        mimic_optim_free(box->o);
    box->o = NULL;
    return 0;
}

/* o:step(lr [, grad_scale=1 [, want_norm=false]]) -> norm | nothing */
static int optim_step(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_optim *o = self(L);
    double lr = luaL_checknumber(L, 2), scale = luaL_optnumber(L, 3, 1), norm = 0;
    bool want = lua_toboolean(L, 4);
    mimicl_enter(L, b);
    mimicl_ok(L, b, mimic_optim_step(o, lr, scale, want ? &norm : NULL));
    if (!want)
        return 0;
    lua_pushnumber(L, norm);
    return 1;
}

static int optim_zero_grad(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_optim_zero_grad(self(L)));
    return 0;
}

static int optim_shadow(lua_State *L) {
    mimic_optim *o = self(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    int n = ((const optim_box *)lua_touserdata(L, 1))->n;
    if (i < 1 || i > n)
        mimicl_error(L, MIMIC_EINVAL, "o:shadow: parameter %lld is outside 1..%d", (long long)i, n);
    mimicl_push_borrowed(L, mimic_optim_shadow(o, (int)i - 1));
    return 1;
}

static int optim_sync(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_optim_sync(self(L)));
    return 0;
}

static int optim_state(lua_State *L) {
    mimic_optim *o = self(L);
    lua_Integer k = luaL_checkinteger(L, 2);
    mimicl_push_borrowed(L, k >= 1 && k <= 8 ? mimic_optim_state(o, (int)k - 1) : NULL);
    return 1;
}

static int optim_count(lua_State *L) {
    mimic_optim *o = self(L);
    if (!lua_isnoneornil(L, 2))
        mimic_optim_set_count(o, luaL_checkinteger(L, 2));
    lua_pushinteger(L, mimic_optim_count(o));
    return 1;
}

void mimicl_open_optim(lua_State *L, int b) {
    static const luaL_Reg methods[] = {
        {"step", optim_step}, {"zero_grad", optim_zero_grad}, {"shadow", optim_shadow},
        {"sync", optim_sync}, {"state", optim_state},         {"count", optim_count},
        {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", optim_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"optimizer", optim_new}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_OPTIM, "mimic.optimizer", methods, meta);
    mimicl_functions(L, b, functions);
}

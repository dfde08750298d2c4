/* Scopes and other stretches of a script that end whatever happens in them: step, no_grad, named.
 * Each is a to-be-closed object, so that errors keep their traceback and nothing stays open. */
#include "l_mimic.h"

#include <string.h>

/* An open scope. Lives apart from its box: a box collected below newer scopes leaves its node among
 * the binding's orphans until those have closed, because closing a scope closes all newer ones. */
struct mimicl_node {
    mimic_scope *scope;
    int depth;      /* number of scopes open with it */
    int name_depth; /* to restore */
    int base_depth;
    mimicl_node *next; /* among the orphans */
};

typedef struct scope_box {
    mimicl_node *node; /* NULL once closed */
} scope_box;

typedef struct guard {
    bool armed;
    bool grad;
    int name_depth, base_depth;
} guard;

static void node_free(lua_State *L, mimicl_node *n) {
    void *ud;
    lua_Alloc alloc = lua_getallocf(L, &ud);
    alloc(ud, n, sizeof *n, 0);
}

static void restore_names(mimicl *b, int name_depth, int base_depth) {
    if (mimic_name_depth(b->ctx) > name_depth)
        mimic_set_name_depth(b->ctx, name_depth);
    b->base_depth = base_depth;
}

/* Closes orphans that are innermost now, or `all`. */
void mimicl_close_orphans(lua_State *L, mimicl *b, bool all) {
    for (mimicl_node **p = &b->orphans; *p;) {
        mimicl_node *n = *p;
        if (!all && n->depth < mimic_scope_depth(b->ctx)) {
            p = &n->next;
            continue;
        }
        *p = n->next;
        if (n->base_depth < b->base_depth)
            restore_names(b, n->name_depth, n->base_depth);
        mimic_scope_close(n->scope);
        mimic_scope_release(n->scope);
        node_free(L, n);
        p = &b->orphans; /* another may be innermost now */
    }
}

typedef mimic_status opener(mimic_ctx *ctx, mimic_scope **out);

/* Opens a scope in a box on the stack. */
static scope_box *open_scope(lua_State *L, mimicl *b, opener *open) {
    void *ud;
    lua_Alloc alloc = lua_getallocf(L, &ud);
    scope_box *box = mimicl_new(L, MIMICL_SCOPE, sizeof *box, 0);
    mimicl_enter(L, b);
    mimicl_close_orphans(L, b, false);
    if (mimic_scope_depth(b->ctx) == 0 && mimic_name_depth(b->ctx) > b->base_depth)
        mimic_set_name_depth(b->ctx, b->base_depth); /* left by a failed call outside any scope */
    mimicl_node *n = alloc(ud, NULL, 0, sizeof *n);
    if (!n)
        luaL_error(L, "not enough memory");
    memset(n, 0, sizeof *n);
    mimic_status status = open(b->ctx, &n->scope);
    if (mimicl_retry(L, b, status))
        status = open(b->ctx, &n->scope);
    if (status != MIMIC_OK) {
        node_free(L, n);
        mimicl_raise(L, b);
    }
    n->depth = mimic_scope_depth(b->ctx);
    n->name_depth = mimic_name_depth(b->ctx);
    n->base_depth = b->base_depth;
    b->base_depth = n->name_depth;
    box->node = n;
    return box;
}

static void close_box(lua_State *L, mimicl *b, scope_box *box) {
    mimicl_node *n = box->node;
    if (!n)
        return;
    box->node = NULL;
    restore_names(b, n->name_depth, n->base_depth);
    mimic_scope_close(n->scope);
    mimic_scope_release(n->scope);
    node_free(L, n);
    mimicl_close_orphans(L, b, false);
}

static int scope_new(lua_State *L) {
    open_scope(L, mimicl_self(L), mimic_scope_open);
    return 1;
}

static int scope_close(lua_State *L) {
    mimicl *b = mimicl_self(L);
    close_box(L, b, mimicl_check(L, 1, MIMICL_SCOPE));
    return 0;
}

/* The box is garbage: its coroutine was abandoned, or the script forgot to close. */
static int scope_gc(lua_State *L) {
    mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    scope_box *box = lua_touserdata(L, 1);
    mimicl_node *n = box->node;
    if (!n)
        return 0;
    box->node = NULL;
    if (!b->ctx) { /* the context closed and with it the scope */
        node_free(L, n);
        return 0;
    }
    n->next = b->orphans;
    b->orphans = n;
    mimicl_close_orphans(L, b, false);
    return 0;
}

static int scope_keep(lua_State *L) {
    mimicl *b = mimicl_self(L);
    scope_box *box = mimicl_check(L, 1, MIMICL_SCOPE);
    if (!box->node)
        mimicl_error(L, MIMIC_ESTATE, "s:keep: the scope is closed");
    int top = lua_gettop(L);
    for (int i = 2; i <= top; i++)
        mimicl_ok(L, b, mimic_scope_keep(box->node->scope, mimicl_tensor(L, i)));
    return top - 1;
}

/* --- calls that are guarded --------------------------------------------------------- */

/* After f: the stack is [..., box at ctx, results...]. */
static int step_done(lua_State *L, int status, lua_KContext ctx) {
    mimicl *b = mimicl_self(L);
    scope_box *box = lua_touserdata(L, (int)ctx);
    int top = lua_gettop(L);
    (void)status;
    for (int i = (int)ctx + 1; i <= top && box->node; i++) {
        if (mimicl_test(L, i, MIMICL_TENSOR))
            mimicl_ok(L, b, mimic_scope_keep(box->node->scope, mimicl_tensor(L, i)));
    }
    lua_closeslot(L, (int)ctx);
    return top - (int)ctx;
}

static int call_in_scope(lua_State *L, opener *open) {
    luaL_checkany(L, 1);
    open_scope(L, mimicl_self(L), open);
    lua_insert(L, 1);
    lua_toclose(L, 1);
    lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, step_done);
    return step_done(L, LUA_OK, 1);
}

/* m.step(f, ...): f in a scope of its own; its results move outward */
static int step(lua_State *L) {
    return call_in_scope(L, mimic_scope_open);
}

/* m.checkpoint(f, ...): the same, and backward computes again what gradients inside f read */
static int checkpoint(lua_State *L) {
    return call_in_scope(L, mimic_checkpoint_open);
}

static int guard_close(lua_State *L) {
    mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    guard *g = lua_touserdata(L, 1);
    if (g->armed && b->ctx) {
        mimic_set_grad_enabled(b->ctx, g->grad);
        restore_names(b, g->name_depth, g->base_depth);
    }
    g->armed = false;
    return 0;
}

static int guarded_done(lua_State *L, int status, lua_KContext ctx) {
    (void)status;
    lua_closeslot(L, (int)ctx);
    return lua_gettop(L) - (int)ctx;
}

/* Inserts an armed guard at index 1. */
static void arm(lua_State *L, mimicl *b) {
    guard *g = mimicl_new(L, MIMICL_GUARD, sizeof *g, 0);
    g->grad = mimic_grad_enabled(b->ctx);
    g->name_depth = mimic_name_depth(b->ctx);
    g->base_depth = b->base_depth;
    g->armed = true;
    lua_insert(L, 1);
    lua_toclose(L, 1);
}

static int no_grad(lua_State *L) {
    mimicl *b = mimicl_self(L);
    luaL_checkany(L, 1);
    arm(L, b);
    mimic_set_grad_enabled(b->ctx, false);
    b->base_depth = mimic_name_depth(b->ctx);
    lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, guarded_done);
    return guarded_done(L, LUA_OK, 1);
}

/* m.named(name, f, ...): the name stands in front of messages while f runs. */
static int named(lua_State *L) {
    mimicl *b = mimicl_self(L);
    luaL_checkstring(L, 1);
    luaL_checkany(L, 2);
    arm(L, b);
    mimic_push_name(b->ctx, lua_tostring(L, 2));
    b->base_depth = mimic_name_depth(b->ctx);
    lua_remove(L, 2);
    lua_callk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, guarded_done);
    return guarded_done(L, LUA_OK, 1);
}

/* m.push_name(s) -> depth before it, for pop_name */
static int push_name(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const char *name = luaL_checkstring(L, 1);
    lua_pushinteger(L, mimic_name_depth(b->ctx));
    mimic_push_name(b->ctx, name);
    return 1;
}

/* m.pop_name([depth]): one name, or all above `depth`, also those that failed calls left */
static int pop_name(lua_State *L) {
    mimicl *b = mimicl_self(L);
    int depth = mimic_name_depth(b->ctx);
    lua_Integer to = luaL_optinteger(L, 1, depth - 1);
    if (to >= 0 && to < depth)
        mimic_set_name_depth(b->ctx, (int)to);
    return 0;
}

void mimicl_open_scope(lua_State *L, int b) {
    static const luaL_Reg methods[] = {{"keep", scope_keep}, {"close", scope_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", scope_gc}, {"__close", scope_close}, {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg guard_meta[] = {
        {"__gc", guard_close}, {"__close", guard_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"scope", scope_new},       {"step", step},
                                         {"checkpoint", checkpoint}, {"no_grad", no_grad},
                                         {"named", named},           {"push_name", push_name},
                                         {"pop_name", pop_name},     {NULL, NULL}};
    mimicl_class(L, b, MIMICL_SCOPE, "mimic.scope", methods, meta);
    mimicl_class(L, b, MIMICL_GUARD, "mimic.guard", none, guard_meta);
    mimicl_functions(L, b, functions);
}

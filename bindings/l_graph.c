/* m.graph: a step that is recorded and done again, as an object. lua/mimic/replay.lua holds the
 * rules of its use. */
#include "l_mimic.h"

typedef struct graph_box {
    mimic_graph *g; /* NULL: closed */
} graph_box;

static mimic_graph *self(lua_State *L) {
    graph_box *box = mimicl_check(L, 1, MIMICL_GRAPH);
    if (!box->g)
        mimicl_error(L, MIMIC_ESTATE, "this graph is closed");
    return box->g;
}

/* m.graph() -> graph of the current device */
static int graph_new(lua_State *L) {
    mimicl *b = mimicl_self(L);
    graph_box *box = mimicl_new(L, MIMICL_GRAPH, sizeof *box, 0);
    mimicl_ok(L, b, mimic_graph_new(b->ctx, &box->g));
    return 1;
}

/* g:begin(record) */
static int graph_begin(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_graph_begin(self(L), lua_toboolean(L, 2)));
    return 0;
}

/* g:finish(keep) */
static int graph_finish(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_graph_end(self(L), lua_toboolean(L, 2)));
    return 0;
}

static int graph_replay(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_graph_replay(self(L)));
    return 0;
}

static int graph_close(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    graph_box *box = lua_touserdata(L, 1);
    if (b->ctx)
        mimic_graph_free(box->g);
    box->g = NULL;
    return 0;
}

void mimicl_open_graph(lua_State *L, int b) {
    static const luaL_Reg methods[] = {{"begin", graph_begin},
                                       {"finish", graph_finish},
                                       {"replay", graph_replay},
                                       {"close", graph_close},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", graph_close}, {"__close", graph_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"graph", graph_new}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_GRAPH, "mimic.graph", methods, meta);
    mimicl_functions(L, b, functions);
}

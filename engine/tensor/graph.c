/* Recorded steps: the arena, the device's recording, replays (mimic/graph.h). */
#include <stdatomic.h>
#include <string.h>

#include "mimic/graph.h"
#include "ops/op_impl.h"

struct mimic_graph {
    mimic_ctx *ctx;
    mimic_device *device;
    void *work;       /* the device's; NULL: nothing recorded yet */
    uint64_t step;    /* of the recording */
    bool open, write; /* between begin and end; `write`: recording */
};

mimic_status mimic_graph_new(mimic_ctx *ctx, mimic_graph **out) {
    mimic_device *d = ctx->device;
    if (!d->backend->record)
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "graph: %s records no steps", d->backend->name);
    if (ctx->graph)
        return mimic_fail(ctx, MIMIC_ESTATE, "graph: there is one already");
    mimic_graph *g = mimic_calloc(ctx, sizeof *g);
    if (!g)
        return MIMIC_ENOMEM;
    g->ctx = ctx;
    g->device = d;
    *out = ctx->graph = g;
    return MIMIC_OK;
}

static void forget(mimic_graph *g) {
    if (g->work)
        g->device->backend->forget(g->ctx, g->work);
    g->work = NULL;
}

void mimic_graph_free(mimic_graph *g) {
    if (!g)
        return;
    mimic_graph_end(g, false);
    forget(g);
    mimic_arena_drop(g->device);
    g->ctx->graph = NULL;
    mimic_free(g->ctx, g);
}

mimic_status mimic_graph_begin(mimic_graph *g, bool record) {
    if (g->open)
        return mimic_fail(g->ctx, MIMIC_ESTATE, "graph: a step is open already");
    if (record) {
        forget(g);
        mimic_status st = g->device->backend->record(g->ctx);
        if (st)
            return st;
        g->step = g->ctx->step;
    }
    mimic_arena_enter(g->device, record);
    g->open = true;
    g->write = record;
    return MIMIC_OK;
}

mimic_status mimic_graph_end(mimic_graph *g, bool keep) {
    if (!g->open)
        return MIMIC_OK;
    mimic_arena_leave(g->device);
    g->open = false;
    return g->write ? g->device->backend->recorded(g->ctx, keep, &g->work) : MIMIC_OK;
}

mimic_status mimic_graph_replay(mimic_graph *g) {
    if (!g->work || g->open)
        return mimic_fail(g->ctx, MIMIC_ESTATE, "graph: no step was recorded");
    return g->device->backend->replay(g->ctx, g->work, g->ctx->step - g->step);
}

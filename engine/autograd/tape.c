/* The tape: making, dropping and releasing nodes. */
#include <string.h>

#include "autograd/tape.h"

mimic_status mimic_tape_init(mimic_ctx *ctx) {
    ctx->tape = mimic_alloc_raw(ctx, sizeof *ctx->tape);
    if (!ctx->tape)
        return MIMIC_ENOMEM;
    *ctx->tape = (mimic_tape){0};
    return MIMIC_OK;
}

static size_t node_bytes(int n_in) {
    return sizeof(mimic_node) + (size_t)n_in * sizeof(mimic_node_in);
}

mimic_status mimic_node_new(mimic_ctx *ctx, const mimic_op *op, int n_in, mimic_node **out) {
    mimic_node *node = mimic_slab_get(ctx, node_bytes(n_in));
    if (!node)
        return MIMIC_ENOMEM;
    memset(node, 0, offsetof(mimic_node, attrs));
    for (int i = 0; i < n_in; i++) {
        node->in[i].kept = node->in[i].leaf = NULL;
        node->in[i].from = NULL;
        node->in[i].again = false;
    }
    node->refs = 1;
    node->ctx = ctx;
    node->op = op;
    node->n_in = (uint8_t)n_in;
    node->n_out = op->n_out;
    node->n_save = op->n_save;
    node->place = ctx->place;
    node->segment = ctx->tape->segment;
    node->prev = ctx->tape->last;
    if (node->prev)
        node->prev->next = node;
    else
        ctx->tape->first = node;
    ctx->tape->last = node;
    *out = node;
    return MIMIC_OK;
}

static void unlink_node(mimic_node *node) {
    mimic_tape *tape = node->ctx->tape;
    if (node->prev)
        node->prev->next = node->next;
    else
        tape->first = node->next;
    if (node->next)
        node->next->prev = node->prev;
    else
        tape->last = node->prev;
    node->next = node->prev = NULL;
}

/* Lets go of what backward has read for the last time. */
static void retire(mimic_tensor **slot, enum mimic_node_state state) {
    const mimic_tensor *t = *slot;
    if (t && state == MIMIC_NODE_CONSUMED && t->refs == 1 && t->storage && t->storage->refs == 1)
        mimic_pool_retire(t->storage);
    mimic_tensor_release(*slot);
    *slot = NULL;
}

void mimic_node_drop(mimic_node *node, enum mimic_node_state state) {
    if (node->state != MIMIC_NODE_LIVE)
        return;
    node->state = (uint8_t)state;
    unlink_node(node);
    for (int i = 0; i < node->n_in; i++) {
        mimic_node_in *in = &node->in[i];
        retire(&in->kept, state);
        mimic_tensor_release(in->leaf);
        if (in->from)
            mimic_node_release(in->from);
        in->leaf = NULL;
        in->from = NULL;
    }
    for (int i = 0; i < node->n_out; i++) {
        retire(&node->out[i], state);
        mimic_tensor_release(node->grad[i]);
        node->grad[i] = NULL;
    }
    for (int i = 0; i < node->n_save; i++) {
        retire(&node->save[i], state);
    }
}

void mimic_node_release(mimic_node *node) {
    if (--node->refs > 0)
        return;
    mimic_ctx *ctx = node->ctx;
    mimic_tape *tape = ctx->tape;
    node->dying = tape->dying;
    tape->dying = node;
    if (tape->draining)
        return;
    tape->draining = true;
    while (tape->dying) {
        mimic_node *n = tape->dying;
        tape->dying = n->dying;
        mimic_node_drop(n, MIMIC_NODE_CLEARED);
        mimic_slab_put(ctx, n, node_bytes(n->n_in));
    }
    tape->draining = false;
}

mimic_status mimic_node_gone(mimic_ctx *ctx, const mimic_node *node) {
    const char *comma = node->place ? ", " : "", *place = node->place ? node->place : "";
    if (node->state == MIMIC_NODE_CLEARED)
        return mimic_fail(
            ctx, MIMIC_ESTATE,
            "backward: this graph (%s%s%s) went with its scope; call backward before the "
            "outermost scope closes",
            node->op->name, comma, place);
    return mimic_fail(
        ctx, MIMIC_ESTATE,
        "backward already ran through this graph (%s%s%s); run the forward pass again",
        node->op->name, comma, place);
}

void mimic_tape_clear(mimic_ctx *ctx) {
    while (ctx->tape->last) {
        mimic_node *node = ctx->tape->last;
        node->refs++;
        mimic_node_drop(node, MIMIC_NODE_CLEARED);
        mimic_node_release(node);
    }
}

/* Called after the last tensor is gone: they may still hold dropped nodes. */
void mimic_tape_close(mimic_ctx *ctx) {
    if (!ctx->tape)
        return;
    mimic_tape_clear(ctx);
    mimic_free_raw(ctx, ctx->tape);
    ctx->tape = NULL;
}

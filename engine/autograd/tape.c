/* The tape: making, dropping and releasing nodes. */
#include <string.h>

#include "autograd/tape.h"

mimic_status mimic_tape_init(mimic_ctx *ctx) {
    ctx->tape = mimic_calloc(ctx, sizeof *ctx->tape);
    return ctx->tape ? MIMIC_OK : MIMIC_ENOMEM;
}

mimic_status mimic_node_new(mimic_ctx *ctx, mimic_node **out) {
    mimic_node *node = mimic_alloc(ctx, sizeof *node);
    if (!node)
        return MIMIC_ENOMEM;
    memset(node, 0, sizeof *node);
    node->refs = 1;
    node->ctx = ctx;
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

void mimic_node_drop(mimic_node *node, enum mimic_node_state state) {
    if (node->state != MIMIC_NODE_LIVE)
        return;
    node->state = (uint8_t)state;
    unlink_node(node);
    for (int i = 0; i < node->n_in; i++) {
        mimic_tensor_release(node->in[i]);
        mimic_tensor_release(node->leaf[i]);
        if (node->from[i])
            mimic_node_release(node->from[i]);
        node->in[i] = node->leaf[i] = NULL;
        node->from[i] = NULL;
    }
    for (int i = 0; i < node->n_out; i++) {
        mimic_tensor_release(node->out[i]);
        mimic_tensor_release(node->grad[i]);
        node->out[i] = node->grad[i] = NULL;
    }
    for (int i = 0; i < node->n_save; i++) {
        mimic_tensor_release(node->save[i]);
        node->save[i] = NULL;
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
        mimic_free(ctx, n);
    }
    tape->draining = false;
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
    mimic_free(ctx, ctx->tape);
    ctx->tape = NULL;
}

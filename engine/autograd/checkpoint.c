/* Activation checkpointing: a stretch of the tape keeps its inputs only and is computed again when
 * backward reaches it. The nodes hold operator, attributes (random ones with their counters) and
 * the inputs from outside, so the replay needs nothing of the script and gives the same bits. */
#include <string.h>

#include "autograd/tape.h"

/* Marks the nodes whose results something reads: the gradient of their own or a later node, or a
 * later node's replay. The last products of a stretch are seldom among them. */
static mimic_node *mark_wanted(mimic_node *last) {
    mimic_node *first = last;
    for (mimic_node *n = last; n && n->segment == last->segment; first = n, n = n->prev) {
        if (n->mark != last->mark)
            continue;
        n->wanted |= n->n_save || n->op->keep_out;
        for (int i = 0; i < n->n_in; i++) {
            mimic_node *from = n->in[i].from;
            if (from && from->segment == n->segment && (n->wanted || n->op->keep_in >> i & 1))
                from->wanted = true;
        }
    }
    return first;
}

static mimic_status run_again(mimic_ctx *ctx, mimic_node *n) {
    mimic_call c;
    memset(&c, 0, sizeof c);
    c.ctx = ctx;
    c.op = n->op;
    c.device = n->device;
    c.attrs = n->attrs;
    c.n_in = n->n_in;
    c.n_out = n->n_out;
    c.n_save = n->n_save;
    c.save_wanted = true;
    for (int k = 0; k < c.n_save; k++)
        c.save_shape[k].dtype = MIMIC_DTYPE_COUNT;
    for (int i = 0; i < n->n_in; i++) {
        const mimic_node_in *in = &n->in[i];
        c.in[i] = in->kept ? in->kept : in->from ? in->from->out[in->from_out] : NULL;
    }
    ctx->place = n->place;
    mimic_status st = mimic_compute(&c);
    memcpy(n->out, c.out, sizeof n->out); /* what came out of a failure goes with the node */
    memcpy(n->save, c.save, sizeof n->save);
    return st;
}

/* Makes n an ordinary node: exactly what its gradient reads is kept. */
static void settle_inputs(mimic_node *n, uint32_t segment) {
    for (int i = 0; i < n->n_in; i++) {
        mimic_node_in *in = &n->in[i];
        if (!(n->op->keep_in >> i & 1)) {
            mimic_tensor_release(in->kept);
            in->kept = NULL;
        } else if (!in->kept && in->from && in->from->segment == segment) {
            in->kept = in->from->out[in->from_out];
            mimic_tensor_retain(in->kept);
        }
    }
}

static void settle_outputs(mimic_node *n) {
    for (int k = 0; k < n->n_out; k++)
        if (!(n->op->keep_out >> k & 1)) {
            mimic_tensor_release(n->out[k]);
            n->out[k] = NULL;
        }
    n->wanted = false;
    n->segment = 0;
}

mimic_status mimic_checkpoint_replay(mimic_ctx *ctx, mimic_node *last) {
    uint32_t segment = last->segment, mark = last->mark;
    const char *place = ctx->place;
    mimic_node *first = mark_wanted(last), *end = last->next;
    mimic_status st = MIMIC_OK;
    for (mimic_node *n = first; n != end && !st; n = n->next)
        if (n->mark == mark && n->wanted)
            st = run_again(ctx, n);
    ctx->place = place;
    if (st)
        return st;
    for (mimic_node *n = first; n != end; n = n->next)
        if (n->mark == mark)
            settle_inputs(n, segment);
    for (mimic_node *n = first; n != end; n = n->next)
        if (n->mark == mark)
            settle_outputs(n);
    return MIMIC_OK;
}

uint32_t mimic_checkpoint_begin(mimic_ctx *ctx) {
    mimic_tape *tape = ctx->tape;
    if (tape->segment || !ctx->grad_enabled)
        return 0;
    if (++tape->last_segment == 0) /* 0 is "none" */
        tape->last_segment = 1;
    return tape->segment = tape->last_segment;
}

void mimic_checkpoint_end(mimic_ctx *ctx, uint32_t segment, uint32_t scope) {
    ctx->tape->segment = 0;
    for (mimic_node *n = ctx->tape->last; n && n->segment == segment; n = n->prev)
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i].kept && n->in[i].kept->scope >= scope)
                mimic_scope_move_out(n->in[i].kept);
}

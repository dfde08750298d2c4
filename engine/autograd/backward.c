/* Backward: walks the tape from the newest node to the oldest, hands each its gradient, gives back
 * memory as it goes. The order is that of the tape, so sums of gradients have one order. */
#include <string.h>

#include "autograd/profile.h"
#include "autograd/tape.h"
#include "ops/shape_util.h"

static mimic_status cast_to(mimic_ctx *ctx, mimic_tensor *t, mimic_dtype dtype,
                            mimic_tensor **out) {
    mimic_attrs attrs = {.v = {{.i = dtype}}};
    return mimic_apply1(ctx, &mimic_op_cast, &attrs, out, 1, &t);
}

/* True when nobody else can see t's bytes, so that it may be added to in place. */
static bool exclusive(const mimic_tensor *t) {
    return t->refs == 1 && t->storage->refs == 1 && mimic_dense(t) && t->dtype != MIMIC_BF16;
}

/* dst += src, both contiguous, equal shapes, on dst's device. */
static mimic_status accumulate(mimic_ctx *ctx, mimic_tensor *dst, const mimic_tensor *src) {
    const mimic_device *d = dst->storage->device;
    if (src->storage->device != d)
        return mimic_fail(ctx, MIMIC_EINVAL, "backward: a gradient on %s for a tensor on %s",
                          mimic_device_name(src->storage->device), mimic_device_name(d));
    int64_t start = mimic_profiling(ctx) ? mimic_profile_now() : 0, n = mimic_numel(src);
    mimic_status st = d->backend->accumulate(ctx, (mimic_dtype)dst->dtype, mimic_data(dst),
                                             (mimic_dtype)src->dtype, mimic_data(src), n);
    if (start)
        mimic_profile_event_add(ctx, "accumulate", start,
                                (double)n * (double)(2 * mimic_dtype_size((mimic_dtype)dst->dtype) +
                                                     mimic_dtype_size((mimic_dtype)src->dtype)));
    return st;
}

/* *slot += g; takes over the reference to g. */
static mimic_status add_to(mimic_ctx *ctx, mimic_tensor **slot, mimic_tensor *g) {
    mimic_status st = MIMIC_OK;
    mimic_tensor *dense = NULL, *a = NULL, *b = NULL, *sum = NULL;
    if (!*slot) {
        *slot = g;
        return MIMIC_OK;
    }
    if (exclusive(*slot) && ((*slot)->dtype == MIMIC_F64) == (g->dtype == MIMIC_F64)) {
        if (!mimic_dense(g)) {
            if ((st = mimic_apply_1(ctx, &mimic_op_contiguous, g, &dense)))
                goto done;
        }
        st = accumulate(ctx, *slot, dense ? dense : g);
        goto done;
    }
    mimic_dtype wide = mimic_accum_dtype((mimic_dtype)(*slot)->dtype);
    if ((*slot)->dtype != g->dtype) {
        if ((st = cast_to(ctx, *slot, wide, &a)) || (st = cast_to(ctx, g, wide, &b)))
            goto done;
    }
    st = mimic_apply_2(ctx, &mimic_op_add, a ? a : *slot, b ? b : g, &sum);
    if (!st) {
        mimic_tensor_release(*slot);
        *slot = sum;
    }
done:
    mimic_tensor_release(dense);
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    mimic_tensor_release(g);
    return st;
}

/* leaf.grad += g */
static mimic_status add_to_leaf(mimic_ctx *ctx, mimic_tensor *leaf, mimic_tensor *g) {
    mimic_tensor *dense = NULL;
    mimic_status st = mimic_tensor_check(ctx, leaf, "backward");
    if (st || !leaf->grad ||
        (st = mimic_tensor_check(ctx, leaf->grad, "backward: the leaf's gradient")))
        return st;
    if (!mimic_dense(g) && (st = mimic_apply_1(ctx, &mimic_op_contiguous, g, &dense)))
        return st;
    st = accumulate(ctx, leaf->grad, dense ? dense : g);
    mimic_tensor_release(dense);
    return st;
}

static mimic_status check_shape(mimic_ctx *ctx, const mimic_node *node, int i,
                                const mimic_tensor *g) {
    const mimic_node_in *in = &node->in[i];
    char a[160], b[160];
    if (g->rank == in->rank && memcmp(g->shape, in->shape, sizeof *in->shape * in->rank) == 0)
        return MIMIC_OK;
    return mimic_fail(ctx, MIMIC_ESTATE, "%s: its gradient for input %d is %s, the input was %s",
                      node->op->name, i + 1, mimic_shape_text(g->rank, g->shape, a, sizeof a),
                      mimic_shape_text(in->rank, in->shape, b, sizeof b));
}

/* What the operator sees of its node: everything but the gradients. */
static void show_node(mimic_ctx *ctx, const mimic_node *node, mimic_vjp *g) {
    g->ctx = ctx;
    g->op = node->op;
    g->attrs = node->attrs;
    g->n_in = node->n_in;
    g->n_out = node->n_out;
    g->n_save = node->n_save;
    memset(g->in, 0, sizeof g->in);
    memset(g->need, 0, sizeof g->need);
    memset(g->din, 0, sizeof g->din);
    memset(g->made, 0, sizeof g->made);
    memcpy(g->out, node->out, sizeof g->out);
    memcpy(g->save, node->save, sizeof g->save);
    for (int i = 0; i < node->n_in; i++) {
        const mimic_node_in *in = &node->in[i];
        g->in[i] = in->kept;
        g->need[i] = in->from || in->leaf;
        g->in_shape[i].dtype = (mimic_dtype)in->dtype;
        g->in_shape[i].rank = in->rank;
        memcpy(g->in_shape[i].shape, in->shape, sizeof in->shape);
    }
}

/* Output k of a node again, a new reference; the node holds it too as long as others will ask. */
static mimic_status make_again(mimic_ctx *ctx, mimic_node *node, int k, mimic_tensor **out) {
    mimic_vjp g;
    if (!node->out[k]) {
        show_node(ctx, node, &g);
        memset(g.dout, 0, sizeof g.dout);
        mimic_status st = node->op->again(&g, k, &node->out[k]);
        if (st)
            return st;
    }
    *out = node->out[k];
    node->again[k]--;
    if (node->again[k] > 0 || node->op->keep_out >> k & 1)
        mimic_tensor_retain(*out);
    else
        node->out[k] = NULL;
    return MIMIC_OK;
}

/* The gradients of the node's inputs into g.din. */
static mimic_status call_vjp(mimic_ctx *ctx, mimic_node *node, mimic_vjp *g) {
    mimic_status st = MIMIC_OK;
    show_node(ctx, node, g);
    memcpy(g->dout, node->grad, sizeof g->dout);
    memset(node->grad, 0, sizeof node->grad);
    for (int i = 0; i < node->n_in && !st; i++)
        if (node->in[i].again) {
            st = make_again(ctx, node->in[i].from, node->in[i].from_out, &g->made[i]);
            g->in[i] = g->made[i];
        }
    for (int k = 0; k < node->n_out && !st; k++) {
        mimic_tensor *d = g->dout[k], *dense = NULL;
        if (!d || mimic_dense(d))
            continue;
        st = mimic_apply_1(ctx, &mimic_op_contiguous, d, &dense);
        mimic_tensor_release(d);
        g->dout[k] = dense;
    }
    if (!st)
        st = node->op->vjp(g);
    for (int k = 0; k < node->n_out; k++)
        mimic_tensor_release(g->dout[k]);
    for (int i = 0; i < node->n_in; i++)
        mimic_tensor_release(g->made[i]);
    return st;
}

/* Hands the gradients of a node's inputs on to the nodes and leaves these came from. */
static mimic_status run_node(mimic_ctx *ctx, mimic_node *node) {
    mimic_vjp g;
    mimic_status st = call_vjp(ctx, node, &g);
    for (int i = 0; i < node->n_in; i++) {
        const mimic_node_in *in = &node->in[i];
        mimic_tensor *d = g.din[i];
        if (!d)
            continue;
        if (!st)
            st = check_shape(ctx, node, i, d);
        if (!st && in->from) {
            st = add_to(ctx, &in->from->grad[in->from_out], d);
            continue; /* the reference went along */
        }
        if (!st && in->leaf)
            st = add_to_leaf(ctx, in->leaf, d);
        mimic_tensor_release(d);
    }
    return st;
}

/* Everything a node needs is still there; marks the nodes it leads to. */
static mimic_status mark_inputs(mimic_ctx *ctx, const mimic_node *node) {
    mimic_status st = MIMIC_OK;
    for (int i = 0; i < node->n_in && !st; i++) {
        const mimic_node_in *in = &node->in[i];
        if (in->kept && !in->kept->storage)
            st = mimic_tensor_check(ctx, in->kept, node->op->name);
        else if (in->leaf && !in->leaf->storage)
            st = mimic_tensor_check(ctx, in->leaf, node->op->name);
        else if (in->from && in->from->state != MIMIC_NODE_LIVE)
            st = mimic_node_gone(ctx, in->from);
        else if (in->from)
            in->from->mark = node->mark;
    }
    for (int k = 0; k < node->n_out && !st; k++)
        if (node->out[k] && !node->out[k]->storage)
            st = mimic_tensor_check(ctx, node->out[k], node->op->name);
    for (int k = 0; k < node->n_save && !st; k++)
        if (node->save[k] && !node->save[k]->storage)
            st = mimic_tensor_check(ctx, node->save[k], node->op->name);
    return st;
}

/* The nearest node before `node` on the tape that this pass reaches. */
static mimic_node *older_marked(const mimic_node *node) {
    uint32_t mark = node->mark;
    mimic_node *n = node->prev;
    while (n && n->mark != mark)
        n = n->prev;
    return n;
}

/* Marks the nodes that lead to `last`; nothing is changed when one of them cannot be walked. */
static mimic_status mark_graph(mimic_ctx *ctx, mimic_node *last) {
    mimic_status st = MIMIC_OK;
    if (++ctx->tape->mark == 0) { /* after 2^32 passes old marks would come alive again */
        for (mimic_node *n = ctx->tape->first; n; n = n->next)
            n->mark = 0;
        ctx->tape->mark = 1;
    }
    last->mark = ctx->tape->mark;
    for (mimic_node *n = last; n && !st; n = older_marked(n))
        st = mark_inputs(ctx, n);
    return st;
}

static mimic_status check_loss(mimic_ctx *ctx, const mimic_tensor *loss) {
    char text[160];
    mimic_status st = mimic_tensor_check(ctx, loss, "backward");
    if (st)
        return st;
    if (mimic_numel(loss) != 1)
        return mimic_fail(ctx, MIMIC_EINVAL, "backward: the loss has one element, not %s",
                          mimic_shape_text(loss->rank, loss->shape, text, sizeof text));
    if (!loss->requires_grad)
        return mimic_fail(
            ctx, MIMIC_ESTATE,
            "backward: the loss (%s%s%s) depends on no tensor that requires a gradient", loss->op,
            loss->place ? ", " : "", loss->place ? loss->place : "");
    if (loss->node && loss->node->state != MIMIC_NODE_LIVE)
        return mimic_node_gone(ctx, loss->node);
    return MIMIC_OK;
}

mimic_status mimic_backward(mimic_ctx *ctx, mimic_tensor *loss) {
    mimic_status st = check_loss(ctx, loss);
    if (st)
        return st;
    mimic_tensor *one = NULL;
    mimic_dtype dtype = (mimic_dtype)loss->dtype;
    if ((st = mimic_tensor_make(loss->storage->device, dtype, loss->rank, loss->shape, "backward",
                                &one)))
        return st;
    double value = 1;
    if ((st = mimic_tensor_write(ctx, one, MIMIC_F64, &value, 1)) || !loss->node) {
        if (!st)
            st = add_to_leaf(ctx, loss, one);
        mimic_tensor_release(one);
        return st;
    }
    if ((st = mark_graph(ctx, loss->node))) {
        mimic_tensor_release(one);
        return st;
    }
    bool enabled = ctx->grad_enabled;
    const char *place = ctx->place;
    ctx->grad_enabled = false;
    mimic_profile_phase(ctx, true);
    mimic_node *node = loss->node;
    node->grad[loss->node_out] = one;
    for (mimic_node *n = node; n; n = older_marked(n)) /* none may vanish under the walk */
        n->refs++;
    for (mimic_node *older; node; node = older) {
        bool reached = false; /* not so when a gradient below came out as none */
        older = older_marked(node);
        for (int k = 0; k < node->n_out; k++)
            reached |= node->grad[k] != NULL;
        if (reached && !st && node->segment)
            st = mimic_checkpoint_replay(ctx, node);
        if (reached && !st) {
            ctx->place = node->place; /* messages name the line of the forward pass */
            st = run_node(ctx, node);
        }
        mimic_node_drop(node, MIMIC_NODE_CONSUMED);
        mimic_node_release(node);
    }
    ctx->grad_enabled = enabled;
    ctx->place = place;
    mimic_profile_phase(ctx, false);
    return st;
}

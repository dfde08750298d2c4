/* Backward: walks the tape from the newest node to the oldest, hands each its gradient, gives back memory as it
 * goes. The order is that of the tape, so sums of gradients have one order. */
#include <stdatomic.h>
#include <string.h>

#include "autograd/tape.h"
#include "ops/shape_util.h"

static mimic_status cast_to(mimic_ctx *ctx, mimic_tensor *t, mimic_dtype dtype, mimic_tensor **out) {
    mimic_attrs attrs = {.v = {{.i = dtype}}};
    return mimic_apply1(ctx, &mimic_op_cast, &attrs, out, 1, &t);
}

/* True when nobody else can see t's bytes, so that it may be added to in place. */
static bool exclusive(const mimic_tensor *t) {
    return atomic_load(&t->refs) == 1 && atomic_load(&t->storage->refs) == 1 &&
           mimic_tensor_contiguous(t) && t->dtype != MIMIC_BF16;
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
        if (!mimic_tensor_contiguous(g)) {
            if ((st = mimic_apply_1(ctx, &mimic_op_contiguous, g, &dense)))
                goto done;
        }
        const mimic_tensor *src = dense ? dense : g;
        st = ctx->backend->accumulate(ctx, (mimic_dtype)(*slot)->dtype, mimic_data(*slot),
                                      (mimic_dtype)src->dtype, mimic_data(src), mimic_numel(src));
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
    if (st || !leaf->grad)
        return st;
    if (!mimic_tensor_contiguous(g) && (st = mimic_apply_1(ctx, &mimic_op_contiguous, g, &dense)))
        return st;
    const mimic_tensor *src = dense ? dense : g;
    st = ctx->backend->accumulate(ctx, (mimic_dtype)leaf->grad->dtype, mimic_data(leaf->grad),
                                  (mimic_dtype)src->dtype, mimic_data(src), mimic_numel(src));
    mimic_tensor_release(dense);
    return st;
}

static mimic_status check_kept(mimic_ctx *ctx, const mimic_node *node) {
    mimic_status st = MIMIC_OK;
    for (int i = 0; i < node->n_in && !st; i++)
        if (node->in[i])
            st = mimic_tensor_check(ctx, node->in[i], node->op->name);
    return st;
}

static mimic_status check_shape(mimic_ctx *ctx, const mimic_node *node, int i,
                                const mimic_tensor *g) {
    const mimic_shape_out *s = &node->in_shape[i];
    char a[160], b[160];
    if (g->rank == s->rank && memcmp(g->shape, s->shape, sizeof *s->shape * g->rank) == 0)
        return MIMIC_OK;
    return mimic_fail(ctx, MIMIC_ESTATE, "%s: its gradient for input %d is %s, the input was %s",
                      node->op->name, i + 1, mimic_shape_text(g->rank, g->shape, a, sizeof a),
                      mimic_shape_text(s->rank, s->shape, b, sizeof b));
}

static mimic_status run_node(mimic_ctx *ctx, mimic_node *node) {
    mimic_vjp g;
    mimic_status st = check_kept(ctx, node);
    if (st)
        return st;
    memset(&g, 0, sizeof g);
    g.ctx = ctx;
    g.op = node->op;
    g.attrs = node->attrs;
    g.n_in = node->n_in;
    g.n_out = node->n_out;
    g.n_save = node->n_save;
    memcpy(g.in, node->in, sizeof g.in);
    memcpy(g.out, node->out, sizeof g.out);
    memcpy(g.save, node->save, sizeof g.save);
    memcpy(g.in_shape, node->in_shape, sizeof g.in_shape);
    for (int i = 0; i < node->n_in; i++)
        g.need[i] = node->from[i] || node->leaf[i];
    for (int k = 0; k < node->n_out && !st; k++) {
        mimic_tensor *d = node->grad[k];
        node->grad[k] = NULL;
        if (d && !mimic_tensor_contiguous(d)) {
            mimic_tensor *dense = NULL;
            st = mimic_apply_1(ctx, &mimic_op_contiguous, d, &dense);
            mimic_tensor_release(d);
            d = dense;
        }
        g.dout[k] = d;
    }
    if (!st)
        st = node->op->vjp(&g);
    for (int k = 0; k < node->n_out; k++)
        mimic_tensor_release(g.dout[k]);
    for (int i = 0; i < node->n_in; i++) {
        mimic_tensor *d = g.din[i];
        if (!d)
            continue;
        if (!st)
            st = check_shape(ctx, node, i, d);
        if (!st && node->leaf[i])
            st = add_to_leaf(ctx, node->leaf[i], d);
        if (!st && node->from[i] && node->from[i]->state == MIMIC_NODE_LIVE) {
            st = add_to(ctx, &node->from[i]->grad[node->from_out[i]], d);
            continue; /* the reference went along */
        }
        if (!st && node->from[i])
            st = mimic_fail(ctx, MIMIC_ESTATE,
                            "backward already ran through this graph (%s%s%s); run the forward pass again",
                            node->from[i]->op->name, node->from[i]->place ? ", " : "",
                            node->from[i]->place ? node->from[i]->place : "");
        mimic_tensor_release(d);
    }
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
        return mimic_fail(ctx, MIMIC_ESTATE,
                          "backward: the loss (%s%s%s) depends on no tensor that requires a gradient",
                          loss->op, loss->place ? ", " : "", loss->place ? loss->place : "");
    if (loss->node && loss->node->state != MIMIC_NODE_LIVE)
        return mimic_fail(ctx, MIMIC_ESTATE, "backward already ran through this graph (%s%s%s); run the "
                          "forward pass again",
                          loss->op, loss->place ? ", " : "", loss->place ? loss->place : "");
    return MIMIC_OK;
}

mimic_status mimic_backward(mimic_ctx *ctx, mimic_tensor *loss) {
    mimic_status st = check_loss(ctx, loss);
    if (st)
        return st;
    mimic_tensor *one = NULL;
    mimic_dtype dtype = (mimic_dtype)loss->dtype;
    if ((st = mimic_tensor_make(ctx, dtype, loss->rank, loss->shape, "backward", &one)))
        return st;
    double value = 1;
    if ((st = mimic_tensor_write(ctx, one, MIMIC_F64, &value, 1)) || !loss->node) {
        if (!st)
            st = add_to_leaf(ctx, loss, one);
        mimic_tensor_release(one);
        return st;
    }
    bool enabled = ctx->grad_enabled;
    ctx->grad_enabled = false;
    mimic_node *node = loss->node;
    node->grad[loss->node_out] = one;
    for (mimic_node *n = node; n; n = n->prev) /* none may vanish under the walk */
        n->refs++;
    for (mimic_node *older; node; node = older) {
        bool reached = false;
        older = node->prev;
        for (int k = 0; k < node->n_out; k++)
            reached |= node->grad[k] != NULL;
        if (reached) {
            if (!st)
                st = run_node(ctx, node);
            mimic_node_drop(node, MIMIC_NODE_CONSUMED);
        }
        mimic_node_release(node);
    }
    ctx->grad_enabled = enabled;
    return st;
}

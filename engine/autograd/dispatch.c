/* Applying an operator: checks, shape rule, memory, kernel, tape node. Lean on purpose: a small
 * operator spends most of its time here. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/profile.h"
#include "autograd/tape.h"
#include "ops/shape_util.h"

/* "matmul: a" */
static const char *input_label(const mimic_op *op, int i, char *buf, size_t size) {
    char name[32];
    snprintf(buf, size, "%s: %s", op->name, mimic_input_name(op, i, name, sizeof name));
    return buf;
}

static mimic_status mixed_devices(const mimic_call *c, int i) {
    char name[32], other[32];
    int first = 0;
    while (!c->in[first])
        first++;
    return mimic_shape_fail(
        c, "%s is on %s, %s on %s", mimic_input_name(c->op, first, name, sizeof name),
        mimic_device_name(c->device), mimic_input_name(c->op, i, other, sizeof other),
        mimic_device_name(c->in[i]->storage->device));
}

/* Runs the kernel where the inputs are. */
static mimic_status run_kernel(mimic_call *c) {
    mimic_kernel kernel = c->device->backend->kernels[c->op->index];
    if (!kernel)
        return mimic_fail(c->ctx, MIMIC_EUNSUPPORTED, "%s: no kernel for '%s'",
                          c->device->backend->name, c->op->name);
    return kernel(c);
}

static mimic_status check_inputs(mimic_call *c) {
    const mimic_op *op = c->op;
    bool placed = false;
    if (c->n_in < op->min_in || c->n_in > op->n_in)
        return mimic_fail(c->ctx, MIMIC_EINVAL, "%s: takes %d%s%.0d tensors (%s), got %d", op->name,
                          op->min_in, op->n_in > op->min_in ? " to " : "",
                          op->n_in > op->min_in ? op->n_in : 0, op->inputs ? op->inputs : "",
                          c->n_in);
    for (int i = 0; i < c->n_in; i++) {
        char name[64];
        mimic_status st;
        if (!c->in[i]) {
            if (i < op->min_in)
                return mimic_fail(c->ctx, MIMIC_EINVAL, "%s: %s is missing", op->name,
                                  mimic_input_name(op, i, name, sizeof name));
            continue;
        }
        if ((!c->in[i]->storage || c->in[i]->ctx != c->ctx) &&
            (st = mimic_tensor_check(c->ctx, c->in[i], input_label(op, i, name, sizeof name))))
            return st;
        if (!placed)
            c->device = c->in[i]->storage->device;
        else if (c->in[i]->storage->device != c->device)
            return mixed_devices(c, i);
        placed = true;
    }
    if (c->n_in && c->in[0] && !(MIMIC_BIT(c->in[0]->dtype) & op->dtypes))
        return mimic_shape_fail(c, "takes no %s", mimic_dtype_name((mimic_dtype)c->in[0]->dtype));
    return MIMIC_OK;
}

/* Whether input i needs a contiguous copy first. A reshape is a view of contiguous memory only. */
static bool wants_copy(const mimic_call *c, int i) {
    if (!c->in[i] || mimic_dense(c->in[i]))
        return false;
    if (c->op->flags & MIMIC_OP_VIEW)
        return c->op == &mimic_op_reshape;
    return !(c->op->flags & MIMIC_OP_STRIDED);
}

static void fill_random(mimic_call *c) {
    int64_t stream = -1;
    for (int i = 0; i < MIMIC_MAX_ATTR && c->op->attrs[i].kind != MIMIC_ATTR_END; i++) {
        const char *name = c->op->attrs[i].name;
        if (c->attrs.v[i].i >= 0 || c->op->attrs[i].kind != MIMIC_ATTR_I64)
            continue;
        if (strcmp(name, "seed") == 0)
            c->attrs.v[i].i = (int64_t)(c->ctx->seed & INT64_MAX);
        else if (strcmp(name, "step") == 0)
            c->attrs.v[i].i = (int64_t)(c->ctx->step & INT64_MAX);
        else if (strcmp(name, "stream") == 0)
            c->attrs.v[i].i = stream < 0 ? (stream = c->ctx->next_stream++) : stream;
    }
}

static bool all_finite(mimic_dtype dtype, const void *data, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double x;
        if (dtype == MIMIC_F32)
            x = ((const float *)data)[i];
        else if (dtype == MIMIC_BF16)
            x = mimic_bf16_to_f32(((const uint16_t *)data)[i]);
        else if (dtype == MIMIC_F64)
            x = ((const double *)data)[i];
        else
            return true;
        if (!isfinite(x))
            return false;
    }
    return true;
}

/* Looks at the tensor where it is, or at a copy on the host. */
static mimic_status tensor_finite(mimic_ctx *ctx, const mimic_tensor *t, bool *finite) {
    int64_t n = mimic_numel(t);
    mimic_dtype dtype = (mimic_dtype)t->dtype;
    const void *data = mimic_tensor_data(t);
    void *copy = NULL;
    if (!data) {
        if (!(copy = mimic_alloc(ctx, (size_t)n * mimic_dtype_size(dtype))))
            return MIMIC_ENOMEM;
        mimic_status st = mimic_tensor_read(ctx, t, dtype, copy, n);
        if (st) {
            mimic_free(ctx, copy);
            return st;
        }
    }
    *finite = all_finite(dtype, data ? data : copy, n);
    mimic_free(ctx, copy);
    return MIMIC_OK;
}

static mimic_status check_finite(mimic_call *c) {
    for (int k = 0; k < c->n_out; k++) {
        bool finite;
        mimic_status st = tensor_finite(c->ctx, c->out[k], &finite);
        if (st)
            return st;
        if (!finite) {
            const char *place = c->ctx->place;
            mimic_shape_fail(c, "the first NaN or infinity came out here%s%s", place ? ", at " : "",
                             place ? place : "");
            return c->ctx->status = MIMIC_ENUMERIC;
        }
    }
    return MIMIC_OK;
}

/* Whether out[0] may lie over in[0]: it is like it, and nobody else sees the bytes. */
static bool takes_over(const mimic_call *c) {
    const mimic_tensor *t = c->in[0];
    const mimic_shape_out *o = &c->out_shape[0];
    return c->over && t->refs == 1 && t->storage->refs == 1 && t->dtype == o->dtype &&
           t->rank == o->rank && memcmp(t->shape, o->shape, sizeof *o->shape * t->rank) == 0;
}

static mimic_status make_outputs(mimic_call *c) {
    mimic_status st = MIMIC_OK;
    if (c->op->flags & MIMIC_OP_VIEW) {
        const mimic_shape_out *o = &c->out_shape[0];
        return mimic_tensor_view(c->ctx, c->in[0], o->rank, o->shape, o->stride, o->offset,
                                 c->op->name, &c->out[0]);
    }
    int k = 0;
    if (takes_over(c)) {
        const mimic_tensor *t = c->in[0];
        st = mimic_tensor_view(c->ctx, c->in[0], t->rank, t->shape, t->stride, t->offset,
                               c->op->name, &c->out[0]);
        k = 1;
    }
    for (; k < c->n_out && !st; k++)
        st = mimic_tensor_make(c->device, c->out_shape[k].dtype, c->out_shape[k].rank,
                               c->out_shape[k].shape, c->op->name, &c->out[k]);
    for (k = 0; k < c->n_save && c->save_wanted && !st; k++)
        if (c->save_shape[k].dtype != MIMIC_DTYPE_COUNT)
            st = mimic_tensor_make(c->device, c->save_shape[k].dtype, c->save_shape[k].rank,
                                   c->save_shape[k].shape, c->op->name, &c->save[k]);
    return st;
}

/* Whether the node that made t makes it again for the gradient of `node`: from what it holds, not
 * from something that would have to be made again first. */
static bool made_again(const mimic_node *node, const mimic_tensor *t) {
    const mimic_node *from = t->node;
    if (!from || !from->op->again || (from->n_save > 0 && !from->save[0]) ||
        !from->device->backend->host || from->segment || node->segment ||
        from->state != MIMIC_NODE_LIVE)
        return false;
    for (int i = 0; i < from->n_in; i++)
        if (from->in[i].again && from->op->again_in >> i & 1)
            return false;
    return true;
}

/* In a checkpoint only what comes from outside of it is kept, and all of that: a replay makes the
 * rest. */
static bool keeps_input(const mimic_node *node, const mimic_op *op, const mimic_tensor *t, int i) {
    if (!node->segment)
        return op->keep_in >> i & 1;
    return !t->node || t->node->segment != node->segment;
}

/* Writes the application down. Saves move into the node; inputs and outputs are kept as the record
 * says. */
static mimic_status record(mimic_call *c) {
    mimic_node *node;
    mimic_status st = mimic_node_new(c->ctx, c->op, c->n_in, &node);
    if (st)
        return st;
    node->attrs = c->attrs;
    node->device = c->device;
    for (int i = 0; i < c->n_in; i++) {
        mimic_tensor *t = c->in[i];
        mimic_node_in *in = &node->in[i];
        if (!t) {
            in->dtype = in->rank = 0;
            continue;
        }
        in->dtype = t->dtype;
        in->rank = t->rank;
        memcpy(in->shape, t->shape, sizeof in->shape);
        bool needs_grad = t->requires_grad && !(c->op->no_grad_in >> i & 1);
        if (!keeps_input(node, c->op, t, i)) {
        } else if (needs_grad && made_again(node, t)) {
            in->again = true;
            t->node->again[t->node_out]++;
        } else {
            mimic_tensor_retain(t);
            in->kept = t;
        }
        if (!needs_grad)
            continue;
        if (t->node) {
            in->from = t->node;
            in->from_out = (uint8_t)t->node_out;
            t->node->refs++;
        } else {
            mimic_tensor_retain(t);
            in->leaf = t;
        }
    }
    for (int k = 0; k < c->n_save && !node->segment; k++) {
        node->save[k] = c->save[k];
        c->save[k] = NULL;
    }
    for (int k = 0; k < c->n_out && !st; k++) {
        mimic_tensor *t = c->out[k];
        if (c->op->keep_out >> k & 1 && !node->segment)
            st = mimic_tensor_view(c->ctx, t, t->rank, t->shape, t->stride, t->offset, c->op->name,
                                   &node->out[k]);
        if (!(MIMIC_BIT(t->dtype) & MIMIC_FLOATS))
            continue;
        t->node = node;
        t->node_out = k;
        t->requires_grad = true;
        node->refs++;
    }
    mimic_node_release(node); /* the outputs hold it now */
    return st;
}

mimic_status mimic_compute(mimic_call *c) {
    mimic_status st;
    int64_t start = mimic_profiling(c->ctx) ? mimic_profile_now() : 0;
    if ((st = c->op->shape(c)) || (st = make_outputs(c)))
        return st;
    if (c->op->flags & MIMIC_OP_VIEW)
        return MIMIC_OK;
    if ((st = run_kernel(c)))
        return st;
    if (start) {
        if ((st = c->device->backend->sync(c->ctx))) /* a device's time is its own */
            return st;
        mimic_profile_call(c, start);
    }
    return c->ctx->check_nan ? check_finite(c) : MIMIC_OK;
}

static mimic_status apply(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *const *in, int n_in,
                          const mimic_attrs *attrs, bool over, mimic_tensor **out) {
    mimic_call c;
    mimic_tensor *copies[MIMIC_MAX_IN];
    int n_copies = 0;
    mimic_status st;
    bool differentiable = false;

    c.ctx = ctx;
    c.op = op;
    c.over = over;
    c.device = ctx->device;
    c.n_in = n_in < MIMIC_MAX_IN ? n_in : MIMIC_MAX_IN;
    c.n_out = op->n_out;
    c.n_save = op->n_save;
    memset(c.in, 0, sizeof c.in);
    for (int k = 0; k < c.n_out; k++)
        c.out[k] = NULL;
    for (int k = 0; k < c.n_save; k++) {
        c.save[k] = NULL;
        c.save_shape[k].dtype = MIMIC_DTYPE_COUNT;
    }
    if (attrs)
        c.attrs = *attrs;
    else
        mimic_op_defaults(op, &c.attrs);
    for (int i = 0; i < c.n_in; i++)
        c.in[i] = in[i];
    if (n_in != c.n_in)
        c.n_in = MIMIC_MAX_IN + 1;
    if ((st = check_inputs(&c)))
        return st;
    for (int i = 0; i < c.n_in; i++) {
        if (wants_copy(&c, i)) {
            if ((st = mimic_op_apply(ctx, &mimic_op_contiguous, &c.in[i], 1, NULL,
                                     &copies[n_copies])))
                goto done;
            c.in[i] = copies[n_copies++];
        }
        differentiable |= c.in[i] && c.in[i]->requires_grad && !(op->no_grad_in >> i & 1);
    }
    bool taped = differentiable && ctx->grad_enabled && !(op->flags & MIMIC_OP_NO_GRAD);
    c.save_wanted = taped && !ctx->tape->segment; /* in a checkpoint the replay makes them */
    if (op->flags & MIMIC_OP_RANDOM)
        fill_random(&c);
    if ((st = mimic_compute(&c)))
        goto done;
    if (taped && (st = record(&c)))
        goto done;
done:
    for (int k = 0; k < c.n_out; k++) {
        if (st)
            mimic_tensor_release(c.out[k]);
        else
            out[k] = c.out[k];
    }
    for (int k = 0; k < c.n_save; k++)
        mimic_tensor_release(c.save[k]);
    for (int i = 0; i < n_copies; i++)
        mimic_tensor_release(copies[i]);
    return st;
}

mimic_status mimic_op_apply(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *const *in, int n_in,
                            const mimic_attrs *attrs, mimic_tensor **out) {
    return apply(ctx, op, in, n_in, attrs, false, out);
}

mimic_status mimic_apply_over(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *const *in, int n_in,
                              const mimic_attrs *attrs, mimic_tensor **out) {
    return apply(ctx, op, in, n_in, attrs, true, out);
}

mimic_status mimic_apply1(mimic_ctx *ctx, const mimic_op *op, const mimic_attrs *attrs,
                          mimic_tensor **out, int n_in, mimic_tensor *const *in) {
    mimic_tensor *results[MIMIC_MAX_OUT];
    mimic_status st = mimic_op_apply(ctx, op, in, n_in, attrs, results);
    if (st)
        return st;
    for (int k = 1; k < op->n_out; k++)
        mimic_tensor_release(results[k]);
    *out = results[0];
    return MIMIC_OK;
}

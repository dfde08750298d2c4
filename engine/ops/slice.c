/* slice: a range of one axis. */
#include <math.h>

#include "ops/shape_util.h"

enum { AXIS, START, STOP };

/* Range in 0-based, half-open terms: stop 0 = to the end, -1 = up to and with the last. */
static mimic_status slice_range(const mimic_call *c, int64_t n, int64_t *start, int64_t *stop) {
    *start = c->attrs.v[START].i < 0 ? c->attrs.v[START].i + n : c->attrs.v[START].i;
    *stop = c->attrs.v[STOP].i <= 0 ? c->attrs.v[STOP].i + n + (c->attrs.v[STOP].i < 0)
                                    : c->attrs.v[STOP].i;
    if (*start < 0 || *stop > n || *start > *stop)
        return mimic_shape_fail(c, "%lld..%lld is not a range of 1..%lld", (long long)*start + 1,
                                (long long)*stop, (long long)n);
    return MIMIC_OK;
}

static mimic_status slice_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_shape_out *o = &c->out_shape[0];
    int axis;
    int64_t start, stop;
    mimic_status st;
    if ((st = mimic_axis(c, c->attrs.v[AXIS].i, x->rank, &axis)) ||
        (st = slice_range(c, x->shape[axis], &start, &stop)))
        return st;
    o->dtype = (mimic_dtype)x->dtype;
    o->rank = x->rank;
    for (int i = 0; i < x->rank; i++) {
        o->shape[i] = i == axis ? stop - start : x->shape[i];
        o->stride[i] = x->stride[i];
    }
    o->offset = x->offset + start * x->stride[axis];
    return MIMIC_OK;
}

static mimic_status slice_vjp(mimic_vjp *g) {
    mimic_attrs attrs = g->attrs;
    attrs.list_n = g->in_shape[0].rank;
    for (int i = 0; i < attrs.list_n; i++)
        attrs.list[i] = g->in_shape[0].shape[i];
    return mimic_apply1(g->ctx, &mimic_op_slice_bwd, &attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_slice = {
    .name = "slice",
    .index = MIMIC_OP_slice,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_VIEW,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"axis", MIMIC_ATTR_AXIS, 0, NULL},
              {"start", MIMIC_ATTR_INDEX, 0, NULL},
              {"stop", MIMIC_ATTR_I64, 0, NULL}},
    .shape = slice_shape,
    .vjp = slice_vjp,
    .inputs = "x",
    .cases = "x[5,3] start=1 stop=4; x[2,6,3] axis=1 start=2; x[4,4]:bf16 axis=-1 stop=-2; "
             "x[6]:i32=index(9) start=-2; x[3,4] start=1 stop=1",
    .doc = "slice(x, {axis = 1, start = 1, stop = 0}) -> y\n"
           "A view of positions start..stop (1-based, both included) of one axis. Negative "
           "positions count "
           "from the end; stop = 0 means to the end.",
};

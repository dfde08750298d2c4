/* Reductions: sum, mean, max over one axis or over all elements, argmax of the last axis, max_bwd.
 */
#include "ops/shape_util.h"

/* The attribute `axis` when none is given: all elements. Outside of every axis number. */
#define ALL (-1000)
#define AXIS_ATTRS                                                                                 \
    { {"axis", MIMIC_ATTR_AXIS, ALL, NULL}, {"keep", MIMIC_ATTR_BOOL, 0, NULL}, }

/* Shape of the result; `ones` is the same with the reduced axes kept as 1. Returns the number of
 * elements that are reduced to one, or -1 after a failure. */
static int64_t reduced(const mimic_call *c, int *rank, int64_t *shape, int64_t *ones) {
    const mimic_tensor *x = c->in[0];
    bool keep = c->attrs.v[1].i != 0;
    int64_t len = 1;
    int axis = -1;
    if (c->attrs.v[0].i != ALL && mimic_axis(c, c->attrs.v[0].i, x->rank, &axis) != MIMIC_OK)
        return -1;
    *rank = 0;
    for (int i = 0; i < x->rank; i++) {
        bool gone = axis < 0 || i == axis;
        len *= gone ? x->shape[i] : 1;
        ones[i] = gone ? 1 : x->shape[i];
        if (!gone || keep)
            shape[(*rank)++] = ones[i];
    }
    return len;
}

static mimic_status sum_shape(mimic_call *c) {
    int64_t shape[MIMIC_MAX_RANK], ones[MIMIC_MAX_RANK];
    int rank;
    if (reduced(c, &rank, shape, ones) < 0)
        return MIMIC_EINVAL;
    mimic_out_set(c, 0, (mimic_dtype)c->in[0]->dtype, rank, shape);
    return MIMIC_OK;
}

static mimic_status mean_shape(mimic_call *c) {
    int64_t shape[MIMIC_MAX_RANK], ones[MIMIC_MAX_RANK];
    int rank;
    int64_t len = reduced(c, &rank, shape, ones);
    if (len < 0)
        return MIMIC_EINVAL;
    if (len == 0)
        return mimic_shape_fail(c, "no elements to average");
    mimic_out_set(c, 0, (mimic_dtype)c->in[0]->dtype, rank, shape);
    return MIMIC_OK;
}

/* The axis as 0..rank-1, or -1 for all. */
static int axis_of(const mimic_vjp *g) {
    int64_t axis = g->attrs.v[0].i;
    return axis == ALL ? -1 : (int)(axis < 0 ? axis + g->in_shape[0].rank : axis);
}

/* din[0] = alpha dy, repeated along the reduced axes. */
static mimic_status spread_vjp(mimic_vjp *g, bool mean) {
    const mimic_shape_out *x = &g->in_shape[0];
    int64_t ones[MIMIC_MAX_RANK], len = 1;
    int axis = axis_of(g);
    mimic_tensor *dy = NULL;
    mimic_status s = MIMIC_OK;
    for (int i = 0; i < x->rank; i++) {
        bool gone = axis < 0 || i == axis;
        len *= gone ? x->shape[i] : 1;
        ones[i] = gone ? 1 : x->shape[i];
    }
    if (mean)
        s = mimic_apply_scaled(g->ctx, g->dout[0], 1.0 / (double)len, &dy);
    else
        mimic_take(g->dout[0], &dy);
    if (s == MIMIC_OK)
        s = mimic_apply_spread(g->ctx, dy, x->rank, ones, x->shape, &g->din[0]);
    mimic_tensor_release(dy);
    return s;
}

static mimic_status sum_vjp(mimic_vjp *g) {
    return spread_vjp(g, false);
}

static mimic_status mean_vjp(mimic_vjp *g) {
    return spread_vjp(g, true);
}

const mimic_op mimic_op_sum = {
    .name = "sum",
    .index = MIMIC_OP_sum,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = AXIS_ATTRS,
    .shape = sum_shape,
    .vjp = sum_vjp,
    .inputs = "x",
    .cases = "x[3,5]; x[3,5] axis=0; x[2,3,4] axis=1 keep=1; x[2,3,40] axis=-1; x[3,700] keep=1; "
             "x[]; x[2,300]:bf16 axis=1; x[0,3]; x[0,3] axis=0; x[40000]:bf16; x[1030,3] axis=0",
    .doc =
        "sum(x [, {axis, keep=false}]) -> y\n"
        "Sum over an axis, or over all elements when no axis is given. keep leaves the axis with "
        "size 1. Partial sums of fixed blocks are added in order, in f32 for bf16.",
};

const mimic_op mimic_op_mean = {
    .name = "mean",
    .index = MIMIC_OP_mean,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = AXIS_ATTRS,
    .shape = mean_shape,
    .vjp = mean_vjp,
    .inputs = "x",
    .cases = "x[3,5]; x[3,5] axis=0; x[2,3,4] axis=1 keep=1; x[2,3,40] axis=-1; x[]; "
             "x[2,300]:bf16 axis=1; x[2,0] axis=0",
    .doc = "mean(x [, {axis, keep=false}]) -> y\n"
           "Mean over an axis, or over all elements when no axis is given.",
};

static mimic_status max_shape(mimic_call *c) {
    int64_t shape[MIMIC_MAX_RANK], ones[MIMIC_MAX_RANK];
    int rank;
    int64_t len = reduced(c, &rank, shape, ones);
    if (len < 0)
        return MIMIC_EINVAL;
    if (len == 0 || len > INT32_MAX)
        return mimic_shape_fail(c, len ? "too many elements" : "no elements to choose from");
    mimic_out_set(c, 0, (mimic_dtype)c->in[0]->dtype, rank, shape);
    mimic_save_set(c, 0, MIMIC_I32, rank, shape);
    return MIMIC_OK;
}

static mimic_status max_vjp(mimic_vjp *g) {
    const mimic_shape_out *x = &g->in_shape[0];
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_max_bwd, &attrs);
    attrs.v[0].i = axis_of(g) < 0 ? ALL : axis_of(g);
    attrs.list_n = x->rank;
    for (int i = 0; i < x->rank; i++)
        attrs.list[i] = x->shape[i];
    return mimic_apply1(g->ctx, &mimic_op_max_bwd, &attrs, &g->din[0], 2,
                        (mimic_tensor *[]){g->dout[0], g->save[0]});
}

const mimic_op mimic_op_max = {
    .name = "max",
    .index = MIMIC_OP_max,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .n_save = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = AXIS_ATTRS,
    .shape = max_shape,
    .vjp = max_vjp,
    .inputs = "x",
    .cases =
        "x[3,5]; x[3,5] axis=0; x[2,3,4] axis=1 keep=1; x[4,70] axis=-1; x[]; x[2,30]:bf16 axis=1; "
        "x[2,0,3] axis=0",
    .doc =
        "max(x [, {axis, keep=false}]) -> y\n"
        "Largest element of an axis, or of all. NaN wins. The gradient goes to the first largest.",
};

static mimic_status max_bwd_shape(mimic_call *c) {
    const mimic_tensor *dy = c->in[0];
    int axis = -1;
    int64_t n = 1;
    mimic_status s = mimic_want_dtype(c, 1, MIMIC_BIT(MIMIC_I32));
    if (s == MIMIC_OK)
        s = mimic_want_shape(c, 1, dy->rank, dy->shape);
    if (s == MIMIC_OK && c->attrs.v[0].i != ALL)
        s = mimic_axis(c, c->attrs.v[0].i, c->attrs.list_n, &axis);
    if (s != MIMIC_OK)
        return s;
    for (int i = 0; i < c->attrs.list_n; i++)
        n *= axis < 0 || i == axis ? 1 : c->attrs.list[i];
    if (n != mimic_numel(dy))
        return mimic_shape_fail(c, "dy must have %lld elements", (long long)n);
    mimic_out_set(c, 0, (mimic_dtype)dy->dtype, c->attrs.list_n, c->attrs.list);
    return MIMIC_OK;
}

const mimic_op mimic_op_max_bwd = {
    .name = "max_bwd",
    .index = MIMIC_OP_max_bwd,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"axis", MIMIC_ATTR_AXIS, ALL, NULL}, {"shape", MIMIC_ATTR_INTS, 0, NULL}},
    .shape = max_bwd_shape,
    .inputs = "dy index",
    .cases = "dy[3] index[3]:i32=index(5) axis=1 shape=3,5; dy[5] index[5]:i32=index(3) axis=0 "
             "shape=3,5; dy[] index[]:i32=index(6) shape=2,3",
    .doc =
        "max_bwd(dy, index, {axis, shape...}) -> dx\nZeros with dy at the positions of the maxima.",
};

static mimic_status argmax_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s != MIMIC_OK)
        return s;
    if (x->shape[x->rank - 1] == 0 || x->shape[x->rank - 1] > INT32_MAX)
        return mimic_shape_fail(c, "the last axis cannot have this size");
    mimic_out_set(c, 0, MIMIC_I32, x->rank - 1, x->shape);
    return MIMIC_OK;
}

const mimic_op mimic_op_argmax = {
    .name = "argmax",
    .index = MIMIC_OP_argmax,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .shape = argmax_shape,
    .inputs = "x",
    .cases = "x[3,7]; x[5]; x[2,3,40]:bf16; x[0,3]",
    .doc = "argmax(x) -> index\n"
           "Position (0-based, i32) of the largest element of the last axis, the first of equals.",
};

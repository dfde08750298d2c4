/* transpose and permute: the axes in another order. */
#include <math.h>

#include "ops/shape_util.h"

static void reorder(mimic_call *c, const int *axes) {
    const mimic_tensor *x = c->in[0];
    mimic_shape_out *o = &c->out_shape[0];
    o->dtype = (mimic_dtype)x->dtype;
    o->rank = x->rank;
    o->offset = x->offset;
    for (int i = 0; i < x->rank; i++) {
        o->shape[i] = x->shape[axes[i]];
        o->stride[i] = x->stride[axes[i]];
    }
}

static mimic_status transpose_shape(mimic_call *c) {
    int axes[MIMIC_MAX_RANK], a, b, rank = c->in[0]->rank;
    mimic_status st;
    if ((st = mimic_axis(c, c->attrs.v[0].i, rank, &a)) ||
        (st = mimic_axis(c, c->attrs.v[1].i, rank, &b)))
        return st;
    for (int i = 0; i < rank; i++)
        axes[i] = i == a ? b : i == b ? a : i;
    reorder(c, axes);
    return MIMIC_OK;
}

static mimic_status transpose_vjp(mimic_vjp *g) {
    return mimic_apply1(g->ctx, &mimic_op_transpose, &g->attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_transpose = {
    .name = "transpose",
    .index = MIMIC_OP_transpose,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_VIEW,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"a", MIMIC_ATTR_AXIS, -2, NULL}, {"b", MIMIC_ATTR_AXIS, -1, NULL}},
    .shape = transpose_shape,
    .vjp = transpose_vjp,
    .inputs = "x",
    .cases = "x[3,5]; x[2,3,4]; x[2,3,4,5]:bf16 a=0 b=2; x[4,3]:i32=index(9); x[2,3] a=1 b=1",
    .doc = "transpose(x, {a = -2, b = -1}) -> y\n"
           "A view with axes a and b exchanged.",
};

static mimic_status permute_shape(mimic_call *c) {
    int axes[MIMIC_MAX_RANK], rank = c->in[0]->rank;
    bool seen[MIMIC_MAX_RANK] = {false};
    if (c->attrs.list_n != rank)
        return mimic_shape_fail(c, "%d axes are named, there are %d", c->attrs.list_n, rank);
    for (int i = 0; i < rank; i++) {
        mimic_status st = mimic_axis(c, c->attrs.list[i], rank, &axes[i]);
        if (st)
            return st;
        if (seen[axes[i]])
            return mimic_shape_fail(c, "axis %d is named twice", axes[i] + 1);
        seen[axes[i]] = true;
    }
    reorder(c, axes);
    return MIMIC_OK;
}

static mimic_status permute_vjp(mimic_vjp *g) {
    mimic_attrs inverse = {.list_n = g->attrs.list_n};
    for (int i = 0; i < g->attrs.list_n; i++) {
        int64_t axis = g->attrs.list[i];
        inverse.list[axis < 0 ? axis + g->attrs.list_n : axis] = i;
    }
    return mimic_apply1(g->ctx, &mimic_op_permute, &inverse, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_permute = {
    .name = "permute",
    .index = MIMIC_OP_permute,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_VIEW,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"axes", MIMIC_ATTR_AXES, 0, NULL}},
    .shape = permute_shape,
    .vjp = permute_vjp,
    .inputs = "x",
    .cases = "x[3,5] axes=1,0; x[2,3,4] axes=2,0,1; x[2,3,4]:bf16 axes=-1,0,1; "
             "x[2,1,3,2]:u8=bool axes=3,1,2,0",
    .doc = "permute(x, {i, j, ...}) -> y\n"
           "A view whose axis k is axis list[k] of x.",
};

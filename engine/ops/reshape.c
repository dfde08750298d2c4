/* reshape: another shape over the same elements. */
#include "ops/shape_util.h"

static mimic_status reshape_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_shape_out *o = &c->out_shape[0];
    int64_t n = mimic_numel(x), known = 1;
    int free_axis = -1;
    o->dtype = (mimic_dtype)x->dtype;
    o->rank = c->attrs.list_n;
    o->offset = x->offset;
    for (int i = 0; i < o->rank; i++) {
        o->shape[i] = c->attrs.list[i];
        if (o->shape[i] == -1 && free_axis < 0)
            free_axis = i;
        else if (o->shape[i] < 0 || __builtin_mul_overflow(known, o->shape[i], &known))
            return mimic_shape_fail(c, "size %lld of axis %d is not possible",
                                    (long long)o->shape[i], i + 1);
    }
    if (free_axis >= 0) {
        if (known == 0 || n % known != 0)
            return mimic_shape_fail(c, "%lld elements do not divide by %lld", (long long)n,
                                    (long long)known);
        o->shape[free_axis] = n / known;
    } else if (known != n) {
        return mimic_shape_fail(c, "the new shape has %lld elements, x has %lld", (long long)known,
                                (long long)n);
    }
    int64_t stride = 1;
    for (int i = o->rank - 1; i >= 0; i--) {
        o->stride[i] = stride;
        stride *= o->shape[i];
    }
    return MIMIC_OK;
}

static mimic_status reshape_vjp(mimic_vjp *g) {
    mimic_attrs attrs = {.list_n = g->in_shape[0].rank};
    for (int i = 0; i < attrs.list_n; i++)
        attrs.list[i] = g->in_shape[0].shape[i];
    return mimic_apply1(g->ctx, &mimic_op_reshape, &attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_reshape = {
    .name = "reshape",
    .index = MIMIC_OP_reshape,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_VIEW,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"shape", MIMIC_ATTR_INTS, 0, NULL}},
    .shape = reshape_shape,
    .vjp = reshape_vjp,
    .inputs = "x",
    .cases = "x[2,3,4] shape=6,4; x[2,6] shape=3,-1; x[12]:bf16 shape=1,2,6; x[1] shape=; "
             "x[4]:i32=index(9) shape=2,2",
    .doc = "reshape(x, {n1, n2, ...}) -> y\n"
           "The same elements in row-major order under another shape; one size may be -1 (what is "
           "left). A "
           "view, except that a view that is not contiguous is copied first.",
};

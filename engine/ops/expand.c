/* expand: axes of size 1 repeated without a copy (stride 0). */
#include "ops/shape_util.h"

static mimic_status expand_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_shape_out *o = &c->out_shape[0];
    int lead = c->attrs.list_n - x->rank;
    if (lead < 0)
        return mimic_shape_fail(c, "%d sizes for %d axes", c->attrs.list_n, x->rank);
    o->dtype = (mimic_dtype)x->dtype;
    o->rank = c->attrs.list_n;
    o->offset = x->offset;
    for (int i = 0; i < o->rank; i++) {
        int64_t n = c->attrs.list[i], have = i < lead ? 1 : x->shape[i - lead];
        if (n == -1 && i >= lead)
            n = have;
        if (n < 0 || (have != 1 && have != n))
            return mimic_shape_fail(c, "size %lld of axis %d does not come from %lld", (long long)n,
                                    i + 1, (long long)have);
        o->shape[i] = n;
        o->stride[i] = have == 1 ? 0 : x->stride[i - lead];
    }
    return MIMIC_OK;
}

static mimic_status expand_vjp(mimic_vjp *g) {
    return mimic_apply_sum_to(g->ctx, g->dout[0], &g->in_shape[0], &g->din[0]);
}

const mimic_op mimic_op_expand = {
    .name = "expand",
    .index = MIMIC_OP_expand,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_VIEW,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"shape", MIMIC_ATTR_INTS, 0, NULL}},
    .shape = expand_shape,
    .vjp = expand_vjp,
    .inputs = "x",
    .cases =
        "x[1,5] shape=3,5; x[4] shape=2,3,4; x[2,1,3]:bf16 shape=2,5,-1; x[1]:i32=index(9) shape=6",
    .doc = "expand(x, {n1, n2, ...}) -> y\n"
           "A view with axes of size 1 repeated to the given sizes and new axes in front, as NumPy "
           "broadcasts; -1 keeps a size.",
};

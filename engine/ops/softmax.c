/* softmax over the last axis: y = exp(x - max) / sum exp(x - max); dx = y (dy - sum(y dy)). */
#include "ops/shape_util.h"

static mimic_status softmax_shape(mimic_call *c) {
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return s;
}

static mimic_status softmax_vjp(mimic_vjp *g) {
    return mimic_apply_2(g->ctx, &mimic_op_softmax_bwd, g->dout[0], g->out[0], &g->din[0]);
}

const mimic_op mimic_op_softmax = {
    .name = "softmax",
    .index = MIMIC_OP_softmax,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .keep_out = 1,
    .dtypes = MIMIC_FLOATS,
    .shape = softmax_shape,
    .vjp = softmax_vjp,
    .inputs = "x",
    .cases = "x[3,7]; x[2,3,33]; x[1]; x[5,1]; x[4,197]:bf16; x[0,3]; x[3,0]",
    .doc = "softmax(x) -> y\n"
           "y = exp(x) / sum exp(x) over the last axis, computed in f32 (f64 for f64) after "
           "subtracting the maximum.",
};

static mimic_status softmax_bwd_shape(mimic_call *c) {
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = mimic_want_like(c, 1, 0);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return s;
}

const mimic_op mimic_op_softmax_bwd = {
    .name = "softmax_bwd",
    .index = MIMIC_OP_softmax_bwd,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .shape = softmax_bwd_shape,
    .inputs = "dy y",
    .cases = "dy[3,7] y[3,7]=uniform; dy[2,40]:bf16 y[2,40]:bf16=uniform",
    .doc = "softmax_bwd(dy, y) -> dx\ndx = y (dy - sum(y dy)) over the last axis.",
};

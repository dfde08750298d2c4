/* Rows of length 1 over the last axis: y = x / max(|x|, eps) (method.md section 1, normalisation of
 * z). */
#include "ops/shape_util.h"

static mimic_status l2norm_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, x, (mimic_dtype)x->dtype);
    mimic_save_set(c, 0, mimic_accum_dtype((mimic_dtype)x->dtype), x->rank - 1, x->shape);
    return MIMIC_OK;
}

static mimic_status l2norm_vjp(mimic_vjp *g) {
    return mimic_apply1(g->ctx, &mimic_op_l2norm_bwd, &g->attrs, &g->din[0], 3,
                        (mimic_tensor *[]){g->dout[0], g->out[0], g->save[0]});
}

const mimic_op mimic_op_l2norm = {
    .name = "l2norm",
    .index = MIMIC_OP_l2norm,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .n_save = 1,
    .keep_out = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"eps", MIMIC_ATTR_F64, 1e-12, NULL}},
    .shape = l2norm_shape,
    .vjp = l2norm_vjp,
    .inputs = "x",
    .cases = "x[4,7]; x[2,3,130]; x[3,5] eps=100; x[5]; x[6,40]:bf16; x[0,4]",
    .doc = "l2norm(x[..., D] [, {eps=1e-12}]) -> y\n"
           "y = x / max(|x|, eps), |x| over the last axis. A row of zeros stays zero.",
};

static mimic_status l2norm_bwd_shape(mimic_call *c) {
    const mimic_tensor *dy = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = mimic_want_like(c, 1, 0);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 2, MIMIC_BIT(mimic_accum_dtype((mimic_dtype)dy->dtype)));
    if (s == MIMIC_OK)
        s = mimic_want_shape(c, 2, dy->rank - 1, dy->shape);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, dy, (mimic_dtype)dy->dtype);
    return s;
}

const mimic_op mimic_op_l2norm_bwd = {
    .name = "l2norm_bwd",
    .index = MIMIC_OP_l2norm_bwd,
    .min_in = 3,
    .n_in = 3,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"eps", MIMIC_ATTR_F64, 1e-12, NULL}},
    .shape = l2norm_bwd_shape,
    .inputs = "dy y norm",
    .cases = "dy[4,7] y[4,7] norm[4]=uniform; dy[3,40]:bf16 y[3,40]:bf16 norm[3]=uniform",
    .doc = "l2norm_bwd(dy, y, norm [, {eps}]) -> dx\n"
           "dx = (dy - y sum(y dy)) / |x|; dy / eps where |x| <= eps (method.md, gradient of the "
           "contrastive losses).",
};

/* Batch normalisation of [N, C] with the statistics of the batch (training mode; Ioffe and Szegedy
 * 2015). */
#include "ops/shape_util.h"

static mimic_status batchnorm_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_dtype a = mimic_accum_dtype((mimic_dtype)x->dtype);
    mimic_status s = mimic_want_rank(c, 0, 2, 2);
    if (s != MIMIC_OK)
        return s;
    if (x->shape[0] == 0)
        return mimic_shape_fail(c, "the batch is empty");
    s = mimic_want_vector(c, 1, x->shape[1]);
    if (s == MIMIC_OK)
        s = mimic_want_vector(c, 2, x->shape[1]);
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, x, (mimic_dtype)x->dtype);
    mimic_out_set(c, 1, a, 1, &x->shape[1]);
    mimic_out_set(c, 2, a, 1, &x->shape[1]);
    return MIMIC_OK;
}

static mimic_status batchnorm_vjp(mimic_vjp *g) {
    mimic_tensor *in[7] = {g->in[0],   g->out[1],  g->out[2], g->in[1],
                           g->dout[0], g->dout[1], g->dout[2]};
    mimic_tensor *out[3];
    mimic_status s = mimic_op_apply(g->ctx, &mimic_op_batchnorm_bwd, in, 7, &g->attrs, out);
    if (s == MIMIC_OK)
        mimic_give(g, out, 3);
    return s;
}

const mimic_op mimic_op_batchnorm = {
    .name = "batchnorm",
    .index = MIMIC_OP_batchnorm,
    .min_in = 1,
    .n_in = 3,
    .n_out = 3,
    .keep_in = 3,
    .keep_out = 6,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"eps", MIMIC_ATTR_F64, 1e-5, NULL}},
    .shape = batchnorm_shape,
    .vjp = batchnorm_vjp,
    .inputs = "x weight? bias?",
    .cases =
        "x[6,5] weight[5] bias[5]; x[8,70]; x[6,5] - bias[5]; x[40,33]:bf16 weight[33] bias[33] "
        "eps=1e-3; x[1,3] weight[3] bias[3] eps=0.1",
    .doc = "batchnorm(x[N, C] [, weight[C] [, bias[C]]] [, {eps=1e-5}]) -> y, mean[C], var[C]\n"
           "y = (x - mean) / sqrt(var + eps) * weight + bias with mean and biased variance of each "
           "column. "
           "mean and var are f32 (f64 for f64).",
};

static mimic_status batchnorm_bwd_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_dtype a = mimic_accum_dtype((mimic_dtype)x->dtype);
    mimic_status s = mimic_want_rank(c, 0, 2, 2);
    for (int i = 1; s == MIMIC_OK && i < 7; i++)
        s = i == 4 ? mimic_want_like(c, 4, 0) : mimic_want_vector(c, i, x->shape[1]);
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, x, (mimic_dtype)x->dtype);
    mimic_out_set(c, 1, a, 1, &x->shape[1]);
    mimic_out_set(c, 2, a, 1, &x->shape[1]);
    return MIMIC_OK;
}

const mimic_op mimic_op_batchnorm_bwd = {
    .name = "batchnorm_bwd",
    .index = MIMIC_OP_batchnorm_bwd,
    .min_in = 3,
    .n_in = 7,
    .n_out = 3,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"eps", MIMIC_ATTR_F64, 1e-5, NULL}},
    .shape = batchnorm_bwd_shape,
    .inputs = "x mean var weight? dy? dmean? dvar?",
    .cases =
        "x[6,5] mean[5] var[5]=uniform weight[5] dy[6,5]; x[6,70]:bf16 mean[70] var[70]=uniform - "
        "dy[6,70]:bf16; x[6,5] mean[5] var[5]=uniform - - dmean[5] dvar[5]",
    .doc = "batchnorm_bwd(x, mean, var [, weight [, dy [, dmean [, dvar]]]] [, {eps}]) -> dx, "
           "dweight, dbias\n"
           "With h = (x - mean) r, r = 1/sqrt(var + eps), e = dy weight, per column: dx = r (e - "
           "mean(e) - h "
           "mean(e h)) + dmean / N + 2 dvar (x - mean) / N.",
};

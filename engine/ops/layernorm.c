/* Layer normalisation over the last axis, alone and with the residual sum before it:
 * y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(var + eps), var biased (Ba et al. 2016).
 */
#include "ops/shape_util.h"

static mimic_status norm_inputs(const mimic_call *c, int weight, int bias) {
    const mimic_tensor *x = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s != MIMIC_OK)
        return s;
    int64_t d = x->shape[x->rank - 1];
    if (d == 0)
        return mimic_shape_fail(c, "the last axis is empty");
    s = mimic_want_vector(c, weight, d);
    return s != MIMIC_OK ? s : mimic_want_vector(c, bias, d);
}

static void save_statistics(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_dtype a = mimic_accum_dtype((mimic_dtype)x->dtype);
    mimic_save_set(c, 0, a, x->rank - 1, x->shape);
    mimic_save_set(c, 1, a, x->rank - 1, x->shape);
}

static mimic_status layernorm_shape(mimic_call *c) {
    mimic_status s = norm_inputs(c, 1, 2);
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    save_statistics(c);
    return MIMIC_OK;
}

static mimic_status layernorm_vjp(mimic_vjp *g) {
    mimic_tensor *in[5] = {g->dout[0], g->in[0], g->in[1], g->save[0], g->save[1]};
    mimic_tensor *out[3];
    mimic_status s = mimic_op_apply(g->ctx, &mimic_op_layernorm_bwd, in, 5, NULL, out);
    if (s == MIMIC_OK)
        mimic_give(g, out, 3);
    return s;
}

static mimic_status layernorm_again(const mimic_vjp *g, int k, mimic_tensor **out) {
    (void)k;
    return mimic_apply1(g->ctx, &mimic_op_layernorm, &g->attrs, out, 3, g->in);
}

const mimic_op mimic_op_layernorm = {
    .name = "layernorm",
    .index = MIMIC_OP_layernorm,
    .min_in = 3,
    .n_in = 3,
    .n_out = 1,
    .n_save = 2,
    .keep_in = 7,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"eps", MIMIC_ATTR_F64, 1e-6, NULL}},
    .shape = layernorm_shape,
    .vjp = layernorm_vjp,
    .again = layernorm_again,
    .again_in = 7,
    .inputs = "x weight bias",
    .cases =
        "x[2,5,8] weight[8] bias[8]; x[3,1] weight[1] bias[1]; x[70,33] weight[33] bias[33] "
        "eps=1e-3; x[7,768]:bf16 weight[768] bias[768]; x[9] weight[9] bias[9]; x[0,4] weight[4] "
        "bias[4]",
    .doc = "layernorm(x[..., D], weight[D], bias[D] [, {eps=1e-6}]) -> y\n"
           "y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis, var biased. "
           "Statistics, "
           "weight and bias are f32 (f64 for f64).",
};

static mimic_status add_layernorm_shape(mimic_call *c) {
    mimic_status s = mimic_want_like(c, 1, 0);
    if (s == MIMIC_OK)
        s = norm_inputs(c, 2, 3);
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    mimic_out_like(c, 1, c->in[0], (mimic_dtype)c->in[0]->dtype);
    save_statistics(c);
    return MIMIC_OK;
}

/* Both summands get the gradient of the sum: what came through the normalisation plus what came
 * directly. */
static mimic_status add_layernorm_vjp(mimic_vjp *g) {
    mimic_tensor *out[4] = {NULL}; /* x, r, weight, bias */
    mimic_status s = MIMIC_OK;
    if (g->dout[1]) {
        mimic_tensor *in[6] = {g->dout[1], g->out[0], g->in[2], g->save[0], g->save[1], g->dout[0]};
        s = mimic_op_apply(g->ctx, &mimic_op_layernorm_bwd, in, 6, NULL, out + 1);
    } else {
        mimic_take(g->dout[0], &out[1]);
    }
    if (s != MIMIC_OK)
        return s;
    mimic_take(out[1], &out[0]);
    mimic_give(g, out, 4);
    return MIMIC_OK;
}

/* y is the norm of the sum, which is kept. */
static mimic_status add_layernorm_again(const mimic_vjp *g, int k, mimic_tensor **out) {
    mimic_tensor *in[3] = {g->out[0], g->in[2], g->in[3]};
    (void)k;
    return mimic_apply1(g->ctx, &mimic_op_layernorm, &g->attrs, out, 3, in);
}

const mimic_op mimic_op_add_layernorm = {
    .name = "add_layernorm",
    .index = MIMIC_OP_add_layernorm,
    .min_in = 4,
    .n_in = 4,
    .n_out = 2,
    .n_save = 2,
    .keep_in = 12,
    .keep_out = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"eps", MIMIC_ATTR_F64, 1e-6, NULL}},
    .shape = add_layernorm_shape,
    .vjp = add_layernorm_vjp,
    .again = add_layernorm_again,
    .again_in = 12,
    .inputs = "x r weight bias",
    .cases = "x[2,5,8] r[2,5,8] weight[8] bias[8]; x[70,33] r[70,33] weight[33] bias[33] eps=1e-3; "
             "x[7,64]:bf16 r[7,64]:bf16 weight[64] bias[64]; x[0,4] r[0,4] weight[4] bias[4]",
    .doc = "add_layernorm(x[..., D], r[..., D], weight[D], bias[D] [, {eps=1e-6}]) -> sum, y\n"
           "sum = x + r, y = layernorm(sum, weight, bias) in one pass over the rows.",
};

static mimic_status layernorm_bwd_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[1];
    mimic_dtype a = mimic_accum_dtype((mimic_dtype)c->in[0]->dtype);
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = mimic_want_like(c, 1, 0);
    if (s == MIMIC_OK)
        s = mimic_want_vector(c, 2, x->shape[x->rank - 1]);
    for (int i = 3; s == MIMIC_OK && i < 5; i++) {
        s = mimic_want_dtype(c, i, MIMIC_BIT(a));
        if (s == MIMIC_OK)
            s = mimic_want_shape(c, i, x->rank - 1, x->shape);
    }
    if (s == MIMIC_OK)
        s = mimic_want_like(c, 5, 0);
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, x, (mimic_dtype)x->dtype);
    mimic_out_set(c, 1, a, 1, &x->shape[x->rank - 1]);
    mimic_out_set(c, 2, a, 1, &x->shape[x->rank - 1]);
    return MIMIC_OK;
}

const mimic_op mimic_op_layernorm_bwd = {
    .name = "layernorm_bwd",
    .index = MIMIC_OP_layernorm_bwd,
    .min_in = 5,
    .n_in = 6,
    .n_out = 3,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .shape = layernorm_bwd_shape,
    .inputs = "dy x weight mean rstd dsum?",
    .cases = "dy[6,8] x[6,8] weight[8] mean[6] rstd[6]=uniform; dy[300,33] x[300,33] weight[33] "
             "mean[300] "
             "rstd[300]=uniform dsum[300,33]; dy[5,40]:bf16 x[5,40]:bf16 weight[40] mean[5] "
             "rstd[5]=uniform",
    .doc =
        "layernorm_bwd(dy, x, weight, mean, rstd [, dsum]) -> dx, dweight, dbias\n"
        "With h = (x - mean) rstd and e = dy weight: dx = rstd (e - mean(e) - h mean(e h)) + dsum, "
        "dweight = sum dy h, dbias = sum dy over the rows, summed in fixed blocks.",
};

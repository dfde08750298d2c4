/* Multi-head self-attention on the packed result of one qkv projection (Vaswani et al. 2017). */
#include <math.h>

#include "ops/shape_util.h"

/* Checks qkv and gives batch, tokens, heads and the width of the result. */
static mimic_status attention_sizes(const mimic_call *c, int qkv, int64_t sizes[4]) {
    const mimic_tensor *x = c->in[qkv];
    int64_t heads = c->attrs.v[0].i;
    mimic_status s = mimic_want_rank(c, qkv, 3, 3);
    if (s != MIMIC_OK)
        return s;
    if (heads < 1 || x->shape[2] == 0 || x->shape[2] % (3 * heads) != 0)
        return mimic_shape_fail(c, "%lld columns are not q, k and v of %lld heads",
                                (long long)x->shape[2], (long long)heads);
    sizes[0] = x->shape[0];
    sizes[1] = x->shape[1];
    sizes[2] = heads;
    sizes[3] = x->shape[2] / 3;
    return MIMIC_OK;
}

static mimic_status attention_shape(mimic_call *c) {
    int64_t n[4] = {0};
    mimic_status s = attention_sizes(c, 0, n);
    if (s != MIMIC_OK)
        return s;
    mimic_dtype dtype = (mimic_dtype)c->in[0]->dtype;
    mimic_out_set(c, 0, dtype, 3, (const int64_t[]){n[0], n[1], n[3]});
    mimic_save_set(c, 0, mimic_accum_dtype(dtype), 3, (const int64_t[]){n[0], n[2], n[1]});
    return MIMIC_OK;
}

static mimic_status attention_vjp(mimic_vjp *g) {
    mimic_tensor *in[4] = {g->dout[0], g->in[0], g->out[0], g->save[0]};
    return mimic_apply1(g->ctx, &mimic_op_attention_bwd, &g->attrs, &g->din[0], 4, in);
}

/* q k^T and p v; backward: the scores again, dp, dv, dq, dk. */
static double attention_flops(const mimic_call *c) {
    const mimic_tensor *y = c->op == &mimic_op_attention ? c->out[0] : c->in[0];
    int products = c->op == &mimic_op_attention ? 2 : 5;
    return 2.0 * products * (double)mimic_numel(y) * (double)y->shape[1];
}

const mimic_op mimic_op_attention = {
    .name = "attention",
    .index = MIMIC_OP_attention,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .n_save = 1,
    .keep_in = 1,
    .keep_out = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"heads", MIMIC_ATTR_I64, NAN, NULL}},
    .shape = attention_shape,
    .vjp = attention_vjp,
    .flops = attention_flops,
    .inputs = "qkv",
    .cases = "qkv[2,5,24] heads=2; qkv[1,1,9] heads=1; qkv[1,70,48] heads=1; qkv[2,50,96] heads=1; "
             "qkv[3,17,30] heads=2; qkv[2,33,96]:bf16 heads=2; qkv[0,4,12] heads=2",
    .doc = "attention(qkv[B, T, 3*H*d], {heads=H}) -> y[B, T, H*d]\n"
           "y = softmax(q k^T / sqrt(d)) v for each head; columns are q | k | v, head by head "
           "inside each. The "
           "softmax is exact and computed in f32 (f64 for f64).",
};

static mimic_status attention_bwd_shape(mimic_call *c) {
    int64_t n[4] = {0};
    mimic_dtype dtype = (mimic_dtype)c->in[0]->dtype;
    mimic_status s = attention_sizes(c, 1, n);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(dtype));
    if (s == MIMIC_OK)
        s = mimic_want_shape(c, 0, 3, (const int64_t[]){n[0], n[1], n[3]});
    if (s == MIMIC_OK)
        s = mimic_want_like(c, 2, 0);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 3, MIMIC_BIT(mimic_accum_dtype(dtype)));
    if (s == MIMIC_OK)
        s = mimic_want_shape(c, 3, 3, (const int64_t[]){n[0], n[2], n[1]});
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[1], dtype);
    return s;
}

const mimic_op mimic_op_attention_bwd = {
    .name = "attention_bwd",
    .index = MIMIC_OP_attention_bwd,
    .min_in = 4,
    .n_in = 4,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"heads", MIMIC_ATTR_I64, NAN, NULL}},
    .shape = attention_bwd_shape,
    .flops = attention_flops,
    .inputs = "dy qkv y lse",
    .cases =
        "dy[2,5,8] qkv[2,5,24] y[2,5,8] lse[2,2,5]=4 heads=2; dy[1,70,16] qkv[1,70,48] y[1,70,16] "
        "lse[1,1,70]=6 heads=1; dy[2,33,32]:bf16 qkv[2,33,96]:bf16 y[2,33,32]:bf16 lse[2,2,33]=5 "
        "heads=2",
    .doc = "attention_bwd(dy, qkv, y, lse[B, H, T], {heads=H}) -> dqkv\n"
           "Gradient of attention; lse is the log-sum-exp of each query's scaled scores.",
};

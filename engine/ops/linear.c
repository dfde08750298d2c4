/* linear: y = act(x w^T + b), the weight as [out, in] as in files; and the gradient of its
 * activation. */
#include "ops/shape_util.h"

#define ACTS "none|relu|gelu|gelu_tanh"
enum { ACT_RELU = 1, ACT_GELU, ACT_GELU_TANH };

static mimic_status linear_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0], *w = c->in[1];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = mimic_want_rank(c, 1, 2, 2);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(x->dtype));
    if (s != MIMIC_OK)
        return s;
    if (x->shape[x->rank - 1] != w->shape[1])
        return mimic_shape_fail(c, "x has %lld features, the weight takes %lld",
                                (long long)x->shape[x->rank - 1], (long long)w->shape[1]);
    s = mimic_want_vector(c, 2, w->shape[0]);
    if (s != MIMIC_OK)
        return s;
    int64_t shape[MIMIC_MAX_RANK];
    for (int i = 0; i < x->rank - 1; i++)
        shape[i] = x->shape[i];
    shape[x->rank - 1] = w->shape[0];
    mimic_out_set(c, 0, (mimic_dtype)x->dtype, x->rank, shape);
    /* The value before the activation; without one there is nothing to keep. */
    mimic_save_set(c, 0, c->attrs.v[0].i ? (mimic_dtype)x->dtype : MIMIC_DTYPE_COUNT, x->rank,
                   shape);
    return MIMIC_OK;
}

/* t as a matrix of its last axis. */
static mimic_status as_matrix(mimic_ctx *ctx, mimic_tensor *t, mimic_tensor **out) {
    int64_t last = t->shape[t->rank - 1], rows = 1;
    for (int i = 0; i < t->rank - 1; i++)
        rows *= t->shape[i];
    mimic_attrs a = {.list = {rows, last}, .list_n = 2};
    return mimic_apply1(ctx, &mimic_op_reshape, &a, out, 1, &t);
}

/* dx = dy' w, dw = dy'^T x over all rows, db = column sums of dy'; dy' = dy act'(pre). What is read
 * for the last time goes before the next product is made. */
static mimic_status linear_vjp(mimic_vjp *g) {
    mimic_tensor *dy = NULL, *rows = NULL, *x = NULL;
    mimic_status s = MIMIC_OK;
    if (g->attrs.v[0].i) {
        mimic_tensor *in[2] = {g->dout[0], g->save[0]}, *out[2] = {NULL, NULL};
        mimic_attrs a = {.v = {{.i = g->attrs.v[0].i}}};
        const mimic_op *op = g->need[2] ? &mimic_op_act_bias_bwd : &mimic_op_act_bwd;
        s = mimic_apply_over(g->ctx, op, in, 2, &a, out);
        dy = out[0];
        g->din[2] = out[1];
        mimic_tensor_release(g->dout[0]);
    } else {
        dy = g->dout[0];
    }
    g->dout[0] = NULL;
    if (s == MIMIC_OK)
        s = as_matrix(g->ctx, dy, &rows);
    if (s == MIMIC_OK && g->need[1])
        s = as_matrix(g->ctx, g->in[0], &x);
    if (s == MIMIC_OK && g->need[1]) {
        mimic_tensor *in[2] = {rows, x};
        mimic_attrs a = {.v = {{.i = 1}, {.i = 0}, {.i = 1}}}; /* ta, tb, out = f32 */
        s = mimic_apply1(g->ctx, &mimic_op_matmul, &a, &g->din[1], 2, in);
    }
    mimic_tensor_release(x);
    mimic_tensor_release(g->made[0]);
    g->made[0] = NULL;
    if (s == MIMIC_OK && g->need[0]) {
        mimic_tensor *in[2] = {rows, g->in[1]}, *dx = NULL;
        mimic_attrs a = {.list_n = g->in_shape[0].rank};
        for (int i = 0; i < a.list_n; i++)
            a.list[i] = g->in_shape[0].shape[i];
        s = mimic_apply1(g->ctx, &mimic_op_matmul, NULL, &dx, 2, in);
        if (s == MIMIC_OK)
            s = mimic_apply1(g->ctx, &mimic_op_reshape, &a, &g->din[0], 1, &dx);
        mimic_tensor_release(dx);
    }
    if (s == MIMIC_OK && g->need[2] && !g->din[2])
        s = mimic_apply1(g->ctx, &mimic_op_col_sum, NULL, &g->din[2], 1, &rows);
    mimic_tensor_release(rows);
    mimic_tensor_release(dy);
    return s;
}

/* The activation of what is kept before it; the product alone is not made again. */
static mimic_status linear_again(const mimic_vjp *g, int k, mimic_tensor **out) {
    (void)k;
    if (g->attrs.v[0].i == ACT_RELU)
        return mimic_apply_1(g->ctx, &mimic_op_relu, g->save[0], out);
    mimic_attrs a = {.v = {{.i = g->attrs.v[0].i == ACT_GELU_TANH}}};
    return mimic_apply1(g->ctx, &mimic_op_gelu, &a, out, 1, &g->save[0]);
}

static double linear_flops(const mimic_call *c) {
    return 2.0 * (double)mimic_numel(c->out[0]) * (double)c->in[1]->shape[1];
}

const mimic_op mimic_op_linear = {
    .name = "linear",
    .index = MIMIC_OP_linear,
    .min_in = 2,
    .n_in = 3,
    .n_out = 1,
    .n_save = 1,
    .keep_in = 3,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"act", MIMIC_ATTR_ENUM, 0, ACTS}},
    .shape = linear_shape,
    .vjp = linear_vjp,
    .again = linear_again,
    .flops = linear_flops,
    .inputs = "x weight bias?",
    .cases = "x[2,5,8] weight[12,8] bias[12]; x[3,7] weight[5,7]; x[70,33] weight[65,33] bias[65] "
             "act=gelu; "
             "x[2,3,6] weight[4,6] bias[4] act=gelu_tanh; x[9,6] weight[4,6] bias[4] act=relu; "
             "x[8] weight[3,8] bias[3]; x[4,9] weight[4,9] - act=gelu; x[0,4] weight[3,4] bias[3]; "
             "x[70,33]:bf16 weight[65,33]:bf16 bias[65] act=gelu; x[13,64]:bf16 "
             "weight[130,64]:bf16; x[5,16] weight[24,16] bias[24] act=gelu_tanh; "
             "x[5,16] weight[24,16] - act=gelu_tanh; x[3,0] weight[4,0] bias[4] act=gelu",
    .doc = "linear(x[..., K], weight[N, K] [, bias[N]] [, {act=\"none\"}]) -> y[..., N]\n"
           "y = act(x weight^T + bias), act none, relu, gelu (exact erf) or gelu_tanh. bf16 x and "
           "weight give "
           "bf16 y with f32 sums; the bias is f32 (f64 for f64). The gradients of weight and bias "
           "are f32.",
};

static mimic_status act_bwd_shape(mimic_call *c) {
    mimic_status s = mimic_want_like(c, 1, 0);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return s;
}

const mimic_op mimic_op_act_bwd = {
    .name = "act_bwd",
    .index = MIMIC_OP_act_bwd,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"act", MIMIC_ATTR_ENUM, 0, ACTS}},
    .shape = act_bwd_shape,
    .inputs = "dy pre",
    .cases =
        "dy[3,7] pre[3,7] act=gelu; dy[70,33] pre[70,33] act=gelu_tanh; dy[5] pre[5] act=relu; "
        "dy[4,20]:bf16 pre[4,20]:bf16 act=gelu; dy[4] pre[4]",
    .doc = "act_bwd(dy, pre [, {act=\"none\"}]) -> dpre\n"
           "dy times the derivative of the activation at `pre`.",
};

static mimic_status act_bias_bwd_shape(mimic_call *c) {
    const mimic_tensor *dy = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = act_bwd_shape(c);
    if (s == MIMIC_OK)
        mimic_out_set(c, 1, mimic_accum_dtype((mimic_dtype)dy->dtype), 1, &dy->shape[dy->rank - 1]);
    return s;
}

const mimic_op mimic_op_act_bias_bwd = {
    .name = "act_bias_bwd",
    .index = MIMIC_OP_act_bias_bwd,
    .min_in = 2,
    .n_in = 2,
    .n_out = 2,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"act", MIMIC_ATTR_ENUM, 0, ACTS}},
    .shape = act_bias_bwd_shape,
    .inputs = "dy pre",
    .cases = "dy[3,7] pre[3,7] act=gelu; dy[300,33] pre[300,33] act=gelu_tanh; dy[5] pre[5] "
             "act=relu; dy[140,2,24]:bf16 pre[140,2,24]:bf16 act=gelu; dy[0,4] pre[0,4]; "
             "dy[40,260]:bf16 pre[40,260]:bf16 act=gelu",
    .doc = "act_bias_bwd(dy[..., N], pre[..., N] [, {act=\"none\"}]) -> dpre, db[N]\n"
           "act_bwd and the col_sum of its result in one pass; db is f32 (f64 for f64).",
};

/* matmul over the last two axes with broadcast batch axes, and col_sum, the gradient of a bias. */
#include "ops/shape_util.h"

enum { TA, TB, OUT }; /* attributes */

static mimic_status matmul_shape(mimic_call *c) {
    const mimic_tensor *a = c->in[0], *b = c->in[1];
    bool ta = c->attrs.v[TA].i != 0, tb = c->attrs.v[TB].i != 0;
    mimic_status s = mimic_want_rank(c, 0, 2, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = mimic_want_rank(c, 1, 2, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(a->dtype));
    if (s != MIMIC_OK)
        return s;
    int64_t k = a->shape[a->rank - (ta ? 2 : 1)], kb = b->shape[b->rank - (tb ? 1 : 2)];
    if (k != kb)
        return mimic_shape_fail(c, "inner sizes differ: %lld and %lld", (long long)k,
                                (long long)kb);
    int rank = a->rank > b->rank ? a->rank : b->rank;
    int64_t shape[MIMIC_MAX_RANK];
    shape[rank - 2] = a->shape[a->rank - (ta ? 1 : 2)];
    shape[rank - 1] = b->shape[b->rank - (tb ? 2 : 1)];
    for (int i = 3; i <= rank; i++) {
        int64_t na = i <= a->rank ? a->shape[a->rank - i] : 1;
        int64_t nb = i <= b->rank ? b->shape[b->rank - i] : 1;
        if (na != nb && na != 1 && nb != 1)
            return mimic_shape_fail(c, "batch sizes %lld and %lld do not broadcast", (long long)na,
                                    (long long)nb);
        shape[rank - i] = na == 1 ? nb : na;
    }
    mimic_dtype out = (mimic_dtype)a->dtype;
    mimic_out_set(c, 0, c->attrs.v[OUT].i ? mimic_accum_dtype(out) : out, rank, shape);
    return MIMIC_OK;
}

/* *din = op(l) op(r), summed over the batch axes that the input lacks. */
static mimic_status product(mimic_vjp *g, int i, mimic_tensor *l, mimic_tensor *r, bool tl,
                            bool tr) {
    mimic_attrs a = {.v = {{.i = tl}, {.i = tr}, {.i = 0}}};
    mimic_tensor *in[2] = {l, r}, *full = NULL;
    mimic_status s = mimic_apply1(g->ctx, &mimic_op_matmul, &a, &full, 2, in);
    if (s == MIMIC_OK)
        s = mimic_apply_sum_to(g->ctx, full, &g->in_shape[i], &g->din[i]);
    mimic_tensor_release(full);
    return s;
}

/* t [.., M, N] as [.. * M, N]. */
static mimic_status flatten(mimic_ctx *ctx, mimic_tensor *t, mimic_tensor **out) {
    mimic_attrs a = {.list = {1, t->shape[t->rank - 1]}, .list_n = 2};
    for (int i = 0; i < t->rank - 1; i++)
        a.list[0] *= t->shape[i];
    return mimic_apply1(ctx, &mimic_op_reshape, &a, out, 1, &t);
}

/* The gradient of a right operand without batch axes: one tall product instead of a sum of many. */
static mimic_status shared_right(mimic_vjp *g, mimic_tensor *dy) {
    mimic_tensor *a = NULL, *d = NULL;
    bool tb = g->attrs.v[TB].i != 0;
    mimic_status s = flatten(g->ctx, g->in[0], &a);
    if (s == MIMIC_OK)
        s = flatten(g->ctx, dy, &d);
    if (s == MIMIC_OK)
        s = tb ? product(g, 1, d, a, true, false) : product(g, 1, a, d, true, false);
    mimic_tensor_release(a);
    mimic_tensor_release(d);
    return s;
}

/* With C = op(A) op(B): d op(A) = dC op(B)^T and d op(B) = op(A)^T dC, each transposed back. */
static mimic_status matmul_vjp(mimic_vjp *g) {
    bool ta = g->attrs.v[TA].i != 0, tb = g->attrs.v[TB].i != 0;
    mimic_tensor *a = g->in[0], *b = g->in[1], *dy = NULL;
    mimic_status s = MIMIC_OK;
    if (g->dout[0]->dtype == g->in_shape[0].dtype) {
        mimic_take(g->dout[0], &dy);
    } else { /* out = f32 of bf16 operands */
        mimic_attrs to = {.v = {{.i = g->in_shape[0].dtype}}};
        s = mimic_apply1(g->ctx, &mimic_op_cast, &to, &dy, 1, g->dout);
    }
    if (s == MIMIC_OK && g->need[0])
        s = ta ? product(g, 0, b, dy, tb, true) : product(g, 0, dy, b, false, !tb);
    if (s == MIMIC_OK && g->need[1]) {
        if (!ta && g->in_shape[1].rank == 2 && a->rank == dy->rank)
            s = shared_right(g, dy);
        else
            s = tb ? product(g, 1, dy, a, true, ta) : product(g, 1, a, dy, !ta, false);
    }
    mimic_tensor_release(dy);
    return s;
}

static double matmul_flops(const mimic_call *c) {
    const mimic_tensor *a = c->in[0];
    int64_t inner = a->shape[a->rank - (c->attrs.v[TA].i ? 2 : 1)];
    return 2.0 * (double)mimic_numel(c->out[0]) * (double)inner;
}

const mimic_op mimic_op_matmul = {
    .name = "matmul",
    .index = MIMIC_OP_matmul,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .keep_in = 3,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"ta", MIMIC_ATTR_BOOL, 0, NULL},
              {"tb", MIMIC_ATTR_BOOL, 0, NULL},
              {"out", MIMIC_ATTR_ENUM, 0, "same|f32"}},
    .shape = matmul_shape,
    .vjp = matmul_vjp,
    .flops = matmul_flops,
    .inputs = "a b",
    .cases =
        "a[5,7] b[7,9]; a[7,5] b[7,9] ta=true; a[5,7] b[9,7] tb=true; a[7,5] b[9,7] ta=true "
        "tb=true; "
        "a[2,3,5,4] b[3,4,6]; a[3,4,5] b[1,4,6] ta=true; a[2,1,5,4] b[3,6,4] tb=true; a[2,5,4] "
        "b[4,6]; "
        "a[2,5,4] b[6,4] tb=true; a[5,4] b[2,6,4] tb=true; a[70,33] b[33,130]; a[1,3] b[3,1]; "
        "a[5,0] b[0,6]; a[0,4] b[4,6]; a[64,31]:bf16 b[31,70]:bf16; a[130,64]:bf16 b[130,72]:bf16 "
        "ta=true out=f32; a[2,9,16]:bf16 b[20,16]:bf16 tb=true",
    .doc = "matmul(a[..., M, K], b[..., K, N] [, {ta=false, tb=false, out=\"same\"}]) -> y[..., M, "
           "N]\n"
           "Product of the last two axes; ta, tb: that operand is stored transposed. Batch axes "
           "broadcast. bf16 "
           "operands are summed in f32 and give bf16, or f32 with out=\"f32\".",
};

static mimic_status col_sum_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK)
        mimic_out_set(c, 0, mimic_accum_dtype((mimic_dtype)x->dtype), 1, &x->shape[x->rank - 1]);
    return s;
}

const mimic_op mimic_op_col_sum = {
    .name = "col_sum",
    .index = MIMIC_OP_col_sum,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .shape = col_sum_shape,
    .inputs = "x",
    .cases = "x[5,7]; x[300,70]; x[2,3,8]; x[9]; x[140,33]:bf16; x[0,4]",
    .doc = "col_sum(x[..., N]) -> s[N]\n"
           "Sum over all axes but the last, in blocks of fixed length; f32 (f64 for f64).",
};

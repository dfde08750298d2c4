/* Rows by index: gather_rows and scatter_rows (each the other's gradient), argsort, onehot. Indices
 * are 0-based i32 data; one outside its range is an error that names the place. */
#include "ops/shape_util.h"

#include <math.h>

/* idx [M] with x [N, ...], or idx [B, M] with x [B, N, ...]. */
static mimic_status rows_inputs(const mimic_call *c) {
    const mimic_tensor *x = c->in[0], *idx = c->in[1];
    mimic_status s = mimic_want_dtype(c, 1, MIMIC_BIT(MIMIC_I32));
    if (s == MIMIC_OK)
        s = mimic_want_rank(c, 1, 1, 2);
    if (s == MIMIC_OK)
        s = mimic_want_rank(c, 0, idx->rank, MIMIC_MAX_RANK);
    if (s == MIMIC_OK && idx->rank == 2 && idx->shape[0] != x->shape[0])
        s = mimic_shape_fail(c, "the first axes differ");
    return s;
}

static mimic_status gather_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0], *idx = c->in[1];
    int64_t shape[MIMIC_MAX_RANK];
    mimic_status s = rows_inputs(c);
    if (s != MIMIC_OK)
        return s;
    for (int i = 0; i < x->rank; i++)
        shape[i] = i == idx->rank - 1 ? idx->shape[i] : x->shape[i];
    mimic_out_set(c, 0, (mimic_dtype)x->dtype, x->rank, shape);
    return MIMIC_OK;
}

static mimic_status gather_vjp(mimic_vjp *g) {
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_scatter_rows, &attrs);
    attrs.v[0].i = g->in_shape[0].shape[g->in_shape[1].rank - 1];
    return mimic_apply1(g->ctx, &mimic_op_scatter_rows, &attrs, &g->din[0], 2,
                        (mimic_tensor *[]){g->dout[0], g->in[1]});
}

const mimic_op mimic_op_gather_rows = {
    .name = "gather_rows",
    .index = MIMIC_OP_gather_rows,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .keep_in = 2,
    .no_grad_in = 2,
    .dtypes = MIMIC_ALL_DTYPES,
    .shape = gather_shape,
    .vjp = gather_vjp,
    .inputs = "x index",
    .cases =
        "x[2,6,4] index[2,3]:i32=perm; x[2,6] index[2,9]:i32=index(6); x[5,3] "
        "index[4]:i32=index(5); "
        "x[2,6,40]:bf16 index[2,5]:i32=index(6); x[7]:i32=index(9) index[3]:i32=index(7); x[2,3,4] "
        "index[2,0]:i32=index(1)",
    .doc = "gather_rows(x[B, N, ...], index[B, M]) -> y[B, M, ...]\n"
           "y[b, m] = x[b, index[b, m]]; or x[N, ...] with index[M]. index is i32, 0-based.",
};

static mimic_status scatter_shape(mimic_call *c) {
    const mimic_tensor *y = c->in[0], *idx = c->in[1];
    int64_t shape[MIMIC_MAX_RANK];
    mimic_status s = rows_inputs(c);
    if (s == MIMIC_OK && idx->shape[idx->rank - 1] != y->shape[idx->rank - 1])
        s = mimic_shape_fail(c, "index and y have different numbers of rows");
    if (s == MIMIC_OK && c->attrs.v[0].i < 0)
        s = mimic_shape_fail(c, "rows must be given and not negative");
    if (s != MIMIC_OK)
        return s;
    for (int i = 0; i < y->rank; i++)
        shape[i] = i == idx->rank - 1 ? c->attrs.v[0].i : y->shape[i];
    mimic_out_set(c, 0, (mimic_dtype)y->dtype, y->rank, shape);
    return MIMIC_OK;
}

static mimic_status scatter_vjp(mimic_vjp *g) {
    return mimic_apply_2(g->ctx, &mimic_op_gather_rows, g->dout[0], g->in[1], &g->din[0]);
}

const mimic_op mimic_op_scatter_rows = {
    .name = "scatter_rows",
    .index = MIMIC_OP_scatter_rows,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .keep_in = 2,
    .no_grad_in = 2,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"rows", MIMIC_ATTR_I64, NAN, NULL}},
    .shape = scatter_shape,
    .vjp = scatter_vjp,
    .inputs = "y index",
    .cases =
        "y[2,3,4] index[2,3]:i32=index(6) rows=6; y[2,9] index[2,9]:i32=index(4) rows=4; y[4,300] "
        "index[4]:i32=index(5) rows=5; y[2,5,40]:bf16 index[2,5]:i32=index(6) rows=6; y[2,0,3] "
        "index[2,0]:i32=index(1) rows=2",
    .doc = "scatter_rows(y[B, M, ...], index[B, M], {rows=N}) -> x[B, N, ...]\n"
           "x[b, n] = sum of y[b, m] over the m with index[b, m] = n, added in the order of m; or "
           "y[M, ...] "
           "with index[M].",
};

static mimic_status argsort_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    if (s == MIMIC_OK && x->shape[x->rank - 1] > INT32_MAX)
        s = mimic_shape_fail(c, "too many elements in a row");
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, x, MIMIC_I32);
    return s;
}

const mimic_op mimic_op_argsort = {
    .name = "argsort",
    .index = MIMIC_OP_argsort,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_I32),
    .shape = argsort_shape,
    .inputs = "x",
    .cases = "x[3,7]; x[2,2,196]=uniform; x[300]:i32=index(9); x[1]; x[0,3]; x[3,0]",
    .doc =
        "argsort(x) -> index\n"
        "The positions (0-based, i32) that put each row of the last axis in ascending order; equal "
        "elements keep their order, NaN comes last.",
};

static mimic_status onehot_shape(mimic_call *c) {
    int64_t k = c->attrs.v[0].i;
    double smoothing = c->attrs.v[1].f;
    mimic_status s = mimic_want_rank(c, 0, 1, 1);
    if (s == MIMIC_OK && (k < 1 || k > INT32_MAX))
        s = mimic_shape_fail(c, "classes must be given and positive");
    if (s == MIMIC_OK && !(smoothing >= 0 && smoothing <= 1))
        s = mimic_shape_fail(c, "smoothing %g is not in 0..1", smoothing);
    if (s == MIMIC_OK)
        mimic_out_set(c, 0, MIMIC_F32, 2, (int64_t[]){c->in[0]->shape[0], k});
    return s;
}

const mimic_op mimic_op_onehot = {
    .name = "onehot",
    .index = MIMIC_OP_onehot,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_NO_GRAD,
    .no_grad_in = 1,
    .dtypes = MIMIC_BIT(MIMIC_I32),
    .attrs = {{"classes", MIMIC_ATTR_I64, NAN, NULL}, {"smoothing", MIMIC_ATTR_F64, 0, NULL}},
    .shape = onehot_shape,
    .inputs = "labels",
    .cases = "labels[6]:i32=index(4) classes=4; labels[3]:i32=index(7) classes=7 smoothing=0.1; "
             "labels[0]:i32=index(1) classes=3",
    .doc = "onehot(labels[N], {classes=K, smoothing=0}) -> y[N, K]\n"
           "y = 1 - smoothing + smoothing/K at the label, smoothing/K elsewhere (timm's off and on "
           "values; method.md 6.6). labels are i32, 0-based.",
};

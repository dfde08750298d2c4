/* add, sub, mul, div with numpy broadcasting, and sum_to, which undoes a broadcast. Gradients of a
 * broadcast operand are summed back to its shape. */
#include "ops/shape_util.h"

static mimic_status binary_shape(mimic_call *c) {
    const mimic_tensor *a = c->in[0], *b = c->in[1];
    int64_t shape[MIMIC_MAX_RANK];
    int rank = a->rank > b->rank ? a->rank : b->rank;
    mimic_status s = mimic_want_dtype(c, 1, MIMIC_BIT(a->dtype));
    if (s != MIMIC_OK)
        return s;
    for (int i = 0; i < rank; i++) { /* from the right */
        int64_t p = i < a->rank ? a->shape[a->rank - 1 - i] : 1;
        int64_t q = i < b->rank ? b->shape[b->rank - 1 - i] : 1;
        if (p != q && p != 1 && q != 1)
            return mimic_shape_fail(c, "shapes do not broadcast (%lld against %lld)", (long long)p,
                                    (long long)q);
        shape[rank - 1 - i] = p == 1 ? q : p;
    }
    mimic_out_set(c, 0, (mimic_dtype)a->dtype, rank, shape);
    return MIMIC_OK;
}

/* din[i] = alpha * t summed to the shape of input i; takes over the reference t. */
static mimic_status give(mimic_vjp *g, int i, double alpha, mimic_tensor *t) {
    mimic_tensor *u = NULL;
    mimic_status s = mimic_apply_sum_to(g->ctx, t, &g->in_shape[i], &u);
    if (s == MIMIC_OK && alpha != 1)
        s = mimic_apply_scaled(g->ctx, u, alpha, &g->din[i]);
    else if (s == MIMIC_OK)
        mimic_take(u, &g->din[i]);
    mimic_tensor_release(u);
    mimic_tensor_release(t);
    return s;
}

static mimic_status sum_vjp(mimic_vjp *g, double sign) {
    for (int i = 0; i < 2; i++) {
        if (!g->need[i])
            continue;
        mimic_tensor_retain(g->dout[0]);
        mimic_status s = give(g, i, i == 1 ? sign : 1, g->dout[0]);
        if (s != MIMIC_OK)
            return s;
    }
    return MIMIC_OK;
}

static mimic_status add_vjp(mimic_vjp *g) {
    return sum_vjp(g, 1);
}

static mimic_status sub_vjp(mimic_vjp *g) {
    return sum_vjp(g, -1);
}

static mimic_status mul_vjp(mimic_vjp *g) {
    for (int i = 0; i < 2; i++) {
        mimic_tensor *t = NULL;
        if (!g->need[i])
            continue;
        mimic_status s = mimic_apply_2(g->ctx, &mimic_op_mul, g->dout[0], g->in[1 - i], &t);
        if (s == MIMIC_OK)
            s = give(g, i, 1, t);
        if (s != MIMIC_OK)
            return s;
    }
    return MIMIC_OK;
}

/* y = a / b: da = dy / b, db = -(dy / b) y */
static mimic_status div_vjp(mimic_vjp *g) {
    mimic_tensor *da = NULL, *t = NULL;
    mimic_status s = mimic_apply_2(g->ctx, &mimic_op_div, g->dout[0], g->in[1], &da);
    if (s == MIMIC_OK && g->need[1]) {
        s = mimic_apply_2(g->ctx, &mimic_op_mul, da, g->out[0], &t);
        if (s == MIMIC_OK)
            s = give(g, 1, -1, t);
    }
    if (s == MIMIC_OK && g->need[0]) {
        mimic_tensor_retain(da);
        s = give(g, 0, 1, da);
    }
    mimic_tensor_release(da);
    return s;
}

#define BINARY_CASES                                                                               \
    "a[3,4] b[3,4]; a[2,3,8] b[8]; a[5] b[]; a[2,1,4] b[3,1]; a[2,3,1,5] b[1,4,1]; a[70,9]:bf16 "  \
    "b[9]:bf16; a[0,4] b[4]; a[1,1] b[2,3,1,2,2]"

#define BROADCAST " Shapes are aligned at the last axis; axes of size 1 are repeated. Equal dtypes."

/* What the records share. */
#define BINARY(op)                                                                                 \
    .name = #op, .index = MIMIC_OP_##op, .min_in = 2, .n_in = 2, .n_out = 1,                       \
    .dtypes = MIMIC_FLOATS, .shape = binary_shape, .inputs = "a b"

const mimic_op mimic_op_add = {
    BINARY(add),
    .vjp = add_vjp,
    .cases = BINARY_CASES,
    .doc = "add(a, b) -> y\ny = a + b." BROADCAST,
};

const mimic_op mimic_op_sub = {
    BINARY(sub),
    .vjp = sub_vjp,
    .cases = BINARY_CASES,
    .doc = "sub(a, b) -> y\ny = a - b." BROADCAST,
};

const mimic_op mimic_op_mul = {
    BINARY(mul),
    .keep_in = 3,
    .vjp = mul_vjp,
    .cases = BINARY_CASES,
    .doc = "mul(a, b) -> y\ny = a * b, element by element." BROADCAST,
};

const mimic_op mimic_op_div = {
    BINARY(div),
    .keep_in = 2,
    .keep_out = 1,
    .vjp = div_vjp,
    .cases = "a[3,4] b[3,4]=uniform; a[2,3,8] b[8]=uniform; a[5] b[]=uniform; a[2,1,4] "
             "b[3,1]=uniform; a[70,9]:bf16 b[9]:bf16=uniform; a[0,4] b[4]=uniform",
    .doc = "div(a, b) -> y\ny = a / b, element by element." BROADCAST,
};

static mimic_status sum_to_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    int n = c->attrs.list_n;
    bool fits = n <= x->rank;
    for (int i = 0; fits && i < n; i++) {
        int64_t d = c->attrs.list[n - 1 - i];
        fits = d == 1 || d == x->shape[x->rank - 1 - i];
    }
    if (!fits) {
        char text[96];
        return mimic_shape_fail(c, "x is not a broadcast of %s",
                                mimic_shape_text(n, c->attrs.list, text, sizeof text));
    }
    mimic_out_set(c, 0, (mimic_dtype)x->dtype, n, c->attrs.list);
    return MIMIC_OK;
}

/* A broadcast of dy to x's shape. */
static mimic_status sum_to_vjp(mimic_vjp *g) {
    const mimic_shape_out *x = &g->in_shape[0];
    int64_t ones[MIMIC_MAX_RANK];
    int lead = x->rank - g->dout[0]->rank;
    for (int i = 0; i < x->rank; i++)
        ones[i] = i < lead ? 1 : g->dout[0]->shape[i - lead];
    return mimic_apply_spread(g->ctx, g->dout[0], x->rank, ones, x->shape, &g->din[0]);
}

const mimic_op mimic_op_sum_to = {
    .name = "sum_to",
    .index = MIMIC_OP_sum_to,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"shape", MIMIC_ATTR_INTS, 0, NULL}},
    .shape = sum_to_shape,
    .vjp = sum_to_vjp,
    .inputs = "x",
    .cases = "x[2,3,8] shape=8; x[4,5] shape=4,1; x[3,4,5] shape=1,4,1; x[3,4] shape=3,4; x[2,3] "
             "shape=; x[600,130]:bf16 shape=130; x[2,3,2,3] shape=2,1,2,1",
    .doc = "sum_to(x, {d1, d2, ...}) -> y[d1, d2, ...]\n"
           "Sums x over the axes along which a tensor of that shape would be repeated to give x's "
           "shape: the gradient of a broadcast.",
};

/* Elementwise operators of one tensor: scale, exp, log, sqrt, relu, gelu, and the two gradients
 * that need a kernel of their own. */
#include "ops/shape_util.h"

static mimic_status unary_shape(mimic_call *c) {
    mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return MIMIC_OK;
}

static mimic_status pair_shape(mimic_call *c) {
    mimic_status s = mimic_want_like(c, 1, 0);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return s;
}

static mimic_status scale_vjp(mimic_vjp *g) {
    return mimic_apply_scaled(g->ctx, g->dout[0], g->attrs.v[0].f, &g->din[0]);
}

static mimic_status exp_vjp(mimic_vjp *g) {
    return mimic_apply_2(g->ctx, &mimic_op_mul, g->dout[0], g->out[0], &g->din[0]);
}

static mimic_status log_vjp(mimic_vjp *g) {
    return mimic_apply_2(g->ctx, &mimic_op_div, g->dout[0], g->in[0], &g->din[0]);
}

static mimic_status sqrt_vjp(mimic_vjp *g) {
    mimic_tensor *t = NULL;
    mimic_status s = mimic_apply_2(g->ctx, &mimic_op_div, g->dout[0], g->out[0], &t);
    if (s == MIMIC_OK)
        s = mimic_apply_scaled(g->ctx, t, 0.5, &g->din[0]);
    mimic_tensor_release(t);
    return s;
}

static mimic_status relu_vjp(mimic_vjp *g) {
    return mimic_apply_2(g->ctx, &mimic_op_relu_bwd, g->dout[0], g->out[0], &g->din[0]);
}

static mimic_status gelu_vjp(mimic_vjp *g) {
    return mimic_apply1(g->ctx, &mimic_op_gelu_bwd, &g->attrs, &g->din[0], 2,
                        (mimic_tensor *[]){g->dout[0], g->in[0]});
}

static mimic_status gelu_again(const mimic_vjp *g, int k, mimic_tensor **out) {
    (void)k;
    return mimic_apply1(g->ctx, &mimic_op_gelu, &g->attrs, out, 1, g->in);
}

/* What the records of one tensor share. */
#define UNARY(op)                                                                                  \
    .name = #op, .index = MIMIC_OP_##op, .min_in = 1, .n_in = 1, .n_out = 1,                       \
    .dtypes = MIMIC_FLOATS, .shape = unary_shape, .inputs = "x"

const mimic_op mimic_op_scale = {
    UNARY(scale),
    .attrs = {{"alpha", MIMIC_ATTR_F64, 1, NULL}, {"beta", MIMIC_ATTR_F64, 0, NULL}},
    .vjp = scale_vjp,
    .cases = "x[3,5] alpha=2.5 beta=-1; x[] alpha=-1; x[4,33]:bf16 alpha=0.5; x[0] alpha=2",
    .doc = "scale(x [, {alpha=1, beta=0}]) -> y\ny = alpha * x + beta.",
};

const mimic_op mimic_op_exp = {
    UNARY(exp),
    .keep_out = 1,
    .vjp = exp_vjp,
    .cases = "x[3,5]; x[2,40]:bf16; x[0]",
    .doc = "exp(x) -> y\ny = e^x, element by element.",
};

const mimic_op mimic_op_log = {
    UNARY(log),
    .keep_in = 1,
    .vjp = log_vjp,
    .cases = "x[3,5]=uniform; x[2,40]:bf16=positive; x[0]",
    .doc = "log(x) -> y\nNatural logarithm; -inf at 0, NaN below.",
};

const mimic_op mimic_op_sqrt = {
    UNARY(sqrt),
    .keep_out = 1,
    .vjp = sqrt_vjp,
    .cases = "x[3,5]=uniform; x[2,40]:bf16=uniform; x[0]",
    .doc = "sqrt(x) -> y\nSquare root; NaN below 0.",
};

const mimic_op mimic_op_relu = {
    UNARY(relu),
    .keep_out = 1,
    .vjp = relu_vjp,
    .cases = "x[3,5]; x[2,40]:bf16; x[0]",
    .doc = "relu(x) -> y\ny = max(x, 0); the gradient at 0 is 0.",
};

/* And those of a gradient of its own. */
#define BACKWARD(op)                                                                               \
    .name = #op, .index = MIMIC_OP_##op, .min_in = 2, .n_in = 2, .n_out = 1,                       \
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD, .dtypes = MIMIC_FLOATS, .shape = pair_shape

const mimic_op mimic_op_relu_bwd = {
    BACKWARD(relu_bwd),
    .inputs = "dy y",
    .cases = "dy[3,5] y[3,5]; dy[2,40]:bf16 y[2,40]:bf16",
    .doc = "relu_bwd(dy, y) -> dx\ndx = dy where y > 0, else 0.",
};

const mimic_op mimic_op_gelu = {
    UNARY(gelu),
    .keep_in = 1,
    .attrs = {{"form", MIMIC_ATTR_ENUM, 0, "erf|tanh"}},
    .vjp = gelu_vjp,
    .again = gelu_again,
    .again_in = 1,
    .cases = "x[3,37]; x[3,5] form=1; x[2,40]:bf16; x[2,40]:bf16 form=1; x[0]",
    .doc =
        "gelu(x [, {form=\"erf\"}]) -> y\n"
        "erf: y = x Phi(x) with Phi the normal distribution (Hendrycks and Gimpel 2016, the exact "
        "form that timm's ViT uses); tanh: y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).",
};

const mimic_op mimic_op_gelu_bwd = {
    BACKWARD(gelu_bwd),
    .attrs = {{"form", MIMIC_ATTR_ENUM, 0, "erf|tanh"}},
    .inputs = "dy x",
    .cases = "dy[3,5] x[3,5]; dy[3,5] x[3,5] form=1; dy[2,40]:bf16 x[2,40]:bf16",
    .doc = "gelu_bwd(dy, x [, {form}]) -> dx\nerf: dx = dy (Phi(x) + x phi(x)).",
};

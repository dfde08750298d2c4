/* Operators that draw random numbers: Philox4x32-10 with counter (element / 4, stream, step), so
 * the numbers depend on seed, stream and step alone. Those three attributes are filled in from the
 * context when they are -1; gradients of dropout and drop_path apply the same operator with the
 * same numbers. */
#include "ops/shape_util.h"

#define RANDOM_ATTRS                                                                               \
    {"seed", MIMIC_ATTR_I64, -1, NULL}, {"stream", MIMIC_ATTR_I64, -1, NULL}, {                    \
        "step", MIMIC_ATTR_I64, -1, NULL                                                           \
    }

static mimic_status random_shape(mimic_call *c) {
    mimic_status s = mimic_want_list_shape(c);
    if (s == MIMIC_OK)
        mimic_out_set(c, 0, MIMIC_F32, c->attrs.list_n, c->attrs.list);
    return s;
}

const mimic_op mimic_op_rand_uniform = {
    .name = "rand_uniform",
    .index = MIMIC_OP_rand_uniform,
    .n_out = 1,
    .flags = MIMIC_OP_RANDOM | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"shape", MIMIC_ATTR_INTS, 0, NULL},
              {"lo", MIMIC_ATTR_F64, 0, NULL},
              {"hi", MIMIC_ATTR_F64, 1, NULL},
              RANDOM_ATTRS},
    .shape = random_shape,
    .inputs = "",
    .cases = "shape=3,5; shape=1000 lo=-2 hi=3; shape=; shape=0,4; shape=40000",
    .doc = "rand_uniform({d1, d2, ..., lo=0, hi=1}) -> y[d1, d2, ...]\n"
           "f32 numbers lo + (hi - lo) u, u in [0, 1) with 24 random bits.",
};

static mimic_status rand_normal_shape(mimic_call *c) {
    if (!(c->attrs.v[2].f >= 0) || !(c->attrs.v[3].f >= 0))
        return mimic_shape_fail(c, "std and cut must not be negative");
    return random_shape(c);
}

const mimic_op mimic_op_rand_normal = {
    .name = "rand_normal",
    .index = MIMIC_OP_rand_normal,
    .n_out = 1,
    .flags = MIMIC_OP_RANDOM | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"shape", MIMIC_ATTR_INTS, 0, NULL},
              {"mean", MIMIC_ATTR_F64, 0, NULL},
              {"std", MIMIC_ATTR_F64, 1, NULL},
              {"cut", MIMIC_ATTR_F64, 0, NULL},
              RANDOM_ATTRS},
    .shape = rand_normal_shape,
    .inputs = "",
    .cases = "shape=3,5; shape=1000 mean=2 std=0.5 cut=2; shape=0",
    .doc =
        "rand_normal({d1, d2, ..., mean=0, std=1, cut=0}) -> y[d1, d2, ...]\n"
        "f32 normal numbers by the inverse distribution function of one uniform each; with cut > 0 "
        "truncated at mean +- cut * std.",
};

static mimic_status drop_shape(mimic_call *c) {
    double p = c->attrs.v[0].f;
    if (!(p >= 0 && p < 1))
        return mimic_shape_fail(c, "p = %g is not in [0, 1)", p);
    mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return MIMIC_OK;
}

static mimic_status drop_path_shape(mimic_call *c) {
    mimic_status s = mimic_want_rank(c, 0, 1, MIMIC_MAX_RANK);
    return s != MIMIC_OK ? s : drop_shape(c);
}

static mimic_status drop_vjp(mimic_vjp *g) {
    return mimic_apply1(g->ctx, g->op, &g->attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_dropout = {
    .name = "dropout",
    .index = MIMIC_OP_dropout,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_RANDOM,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"p", MIMIC_ATTR_F64, 0.5, NULL}, RANDOM_ATTRS},
    .shape = drop_shape,
    .vjp = drop_vjp,
    .inputs = "x",
    .cases =
        "x[3,50] p=0.3; x[40] p=0; x[2,40]:bf16 p=0.5; x[0]; x[3,5] p=0.2 seed=3 stream=1 step=9",
    .doc = "dropout(x [, {p=0.5}]) -> y\n"
           "Each element is 0 with probability p, else x / (1 - p).",
};

const mimic_op mimic_op_drop_path = {
    .name = "drop_path",
    .index = MIMIC_OP_drop_path,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_RANDOM,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"p", MIMIC_ATTR_F64, 0.5, NULL}, RANDOM_ATTRS},
    .shape = drop_path_shape,
    .vjp = drop_vjp,
    .inputs = "x",
    .cases = "x[9,5] p=0.3; x[4,3,2] p=0; x[6,40]:bf16 p=0.5; x[0,3]; x[7] p=0.5",
    .doc = "drop_path(x[B, ...] [, {p=0.5}]) -> y\n"
           "Each sample (first axis) is 0 with probability p, else x / (1 - p): stochastic depth "
           "as in timm.",
};

/* Mean cross-entropy of logits against labels or soft targets (method.md Eq. 1 and 3): with target
 * t (one-hot, smoothed t (1-s) + s/K), L = 1/N sum_i (T lse(s_i) - sum_k t_ik s_ik), T = sum_k
 * t_ik; dL/ds = (T softmax(s) - t) / N. */
#include "ops/shape_util.h"

static mimic_status inputs(const mimic_call *c, int logits, int target) {
    const mimic_tensor *x = c->in[logits], *t = c->in[target];
    double smoothing = c->attrs.v[0].f;
    mimic_status s = mimic_want_rank(c, logits, 2, 2);
    if (s != MIMIC_OK)
        return s;
    if (x->shape[0] == 0 || x->shape[1] == 0)
        return mimic_shape_fail(c, "no logits");
    if (!(smoothing >= 0 && smoothing <= 1))
        return mimic_shape_fail(c, "smoothing %g is not in 0..1", smoothing);
    s = mimic_want_dtype(c, target,
                         MIMIC_BIT(MIMIC_I32) | MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(x->dtype));
    return s != MIMIC_OK ? s : mimic_want_shape(c, target, t->dtype == MIMIC_I32 ? 1 : 2, x->shape);
}

static mimic_status ce_shape(mimic_call *c) {
    mimic_status s = inputs(c, 0, 1);
    if (s != MIMIC_OK)
        return s;
    mimic_out_set(c, 0, (mimic_dtype)c->in[0]->dtype, 0, NULL);
    mimic_save_set(c, 0, (mimic_dtype)c->in[0]->dtype, 1, c->in[0]->shape);
    return MIMIC_OK;
}

static mimic_status ce_vjp(mimic_vjp *g) {
    return mimic_apply1(g->ctx, &mimic_op_cross_entropy_bwd, &g->attrs, &g->din[0], 4,
                        (mimic_tensor *[]){g->dout[0], g->in[0], g->in[1], g->save[0]});
}

const mimic_op mimic_op_cross_entropy = {
    .name = "cross_entropy",
    .index = MIMIC_OP_cross_entropy,
    .min_in = 2,
    .n_in = 2,
    .n_out = 1,
    .n_save = 1,
    .keep_in = 3,
    .no_grad_in = 2,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"smoothing", MIMIC_ATTR_F64, 0, NULL}},
    .shape = ce_shape,
    .vjp = ce_vjp,
    .inputs = "logits target",
    .cases =
        "logits[5,7] target[5]:i32=index(7); logits[5,7] target[5]:i32=index(7) smoothing=0.1; "
        "logits[4,33] target[4,33]=uniform; logits[4,5] target[4,5]=uniform smoothing=0.2; "
        "logits[1,1] target[1]:i32=index(1)",
    .doc = "cross_entropy(logits[N, K], target [, {smoothing=0}]) -> loss\n"
           "Mean over N of -sum_k t_k log softmax(logits)_k. target: labels [N] (i32, 0-based) or "
           "soft targets "
           "[N, K]; smoothing makes t (1 - smoothing) + smoothing/K of it (method.md Eq. 1 and 3). "
           "bf16 "
           "logits are cast to f32 first.",
};

static mimic_status ce_bwd_shape(mimic_call *c) {
    mimic_dtype d = (mimic_dtype)c->in[0]->dtype;
    mimic_status s = mimic_want_scalar(c, 0, d);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(d));
    if (s == MIMIC_OK)
        s = inputs(c, 1, 2);
    if (s == MIMIC_OK)
        s = mimic_want_vector(c, 3, c->in[1]->shape[0]);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[1], d);
    return s;
}

const mimic_op mimic_op_cross_entropy_bwd = {
    .name = "cross_entropy_bwd",
    .index = MIMIC_OP_cross_entropy_bwd,
    .min_in = 4,
    .n_in = 4,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"smoothing", MIMIC_ATTR_F64, 0, NULL}},
    .shape = ce_bwd_shape,
    .inputs = "dloss logits target lse",
    .cases = "dloss[] logits[5,7] target[5]:i32=index(7) lse[5]=positive; dloss[] logits[4,33] "
             "target[4,33]=uniform lse[4]=positive smoothing=0.1",
    .doc = "cross_entropy_bwd(dloss, logits, target, lse [, {smoothing}]) -> dlogits\n"
           "dlogits = dloss (T softmax(logits) - t) / N, T = sum of t.",
};

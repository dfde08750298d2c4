/* Loss of masked reconstruction (method.md Eq. 2, models_mae.py forward_loss): mean squared error
 * per patch, averaged over the masked patches. norm: each target patch is normalised with its own
 * mean and UNBIASED variance, (t - mean) / sqrt(var + 1e-6). */
#include "ops/shape_util.h"

static mimic_status inputs(const mimic_call *c, int pred) {
    const mimic_tensor *x = c->in[pred];
    bool norm = c->attrs.v[0].i != 0, masked = c->attrs.v[1].i == 0;
    mimic_status s = mimic_want_rank(c, pred, 3, 3);
    if (s != MIMIC_OK)
        return s;
    if (mimic_numel(x) == 0)
        return mimic_shape_fail(c, "no patches");
    if (norm && x->shape[2] < 2)
        return mimic_shape_fail(c, "norm needs patches of at least 2 values");
    if (masked && !c->in[pred + 2])
        return mimic_shape_fail(c, "a mask is needed unless on = \"all\"");
    s = mimic_want_like(c, pred + 1, pred);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, pred + 2, MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(x->dtype));
    return s != MIMIC_OK ? s : mimic_want_shape(c, pred + 2, 2, x->shape);
}

static mimic_status mse_shape(mimic_call *c) {
    mimic_status s = inputs(c, 0);
    if (s == MIMIC_OK)
        mimic_out_set(c, 0, (mimic_dtype)c->in[0]->dtype, 0, NULL);
    return s;
}

static mimic_status mse_vjp(mimic_vjp *g) {
    return mimic_apply1(g->ctx, &mimic_op_masked_mse_bwd, &g->attrs, &g->din[0], 4,
                        (mimic_tensor *[]){g->dout[0], g->in[0], g->in[1], g->in[2]});
}

const mimic_op mimic_op_masked_mse = {
    .name = "masked_mse",
    .index = MIMIC_OP_masked_mse,
    .min_in = 2,
    .n_in = 3,
    .n_out = 1,
    .keep_in = 7,
    .no_grad_in = 6,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"norm", MIMIC_ATTR_BOOL, 0, NULL}, {"on", MIMIC_ATTR_ENUM, 0, "masked|all"}},
    .shape = mse_shape,
    .vjp = mse_vjp,
    .inputs = "pred target mask?",
    .cases = "pred[2,5,12] target[2,5,12] mask[2,5]=uniform; pred[2,5,37] target[2,5,37] "
             "mask[2,5]=uniform "
             "norm=1; pred[3,4,6] target[3,4,6] - on=1; pred[1,2,5] target[1,2,5] mask[1,2]=1 "
             "norm=1 on=1",
    .doc = "masked_mse(pred[B, L, P], target[B, L, P] [, mask[B, L]] [, {norm=false, "
           "on=\"masked\"}]) -> loss\n"
           "e = mean_k (pred - target)^2 per patch; masked: sum(mask e) / sum(mask), mask 1 on the "
           "removed "
           "patches; all: mean of e. norm normalises each target patch by its mean and unbiased "
           "variance "
           "(eps 1e-6). The target has no gradient (method.md Eq. 2).",
};

static mimic_status mse_bwd_shape(mimic_call *c) {
    mimic_dtype d = (mimic_dtype)c->in[0]->dtype;
    mimic_status s = mimic_want_scalar(c, 0, d);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(d));
    if (s == MIMIC_OK)
        s = inputs(c, 1);
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, c->in[1], d);
    return s;
}

const mimic_op mimic_op_masked_mse_bwd = {
    .name = "masked_mse_bwd",
    .index = MIMIC_OP_masked_mse_bwd,
    .min_in = 3,
    .n_in = 4,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"norm", MIMIC_ATTR_BOOL, 0, NULL}, {"on", MIMIC_ATTR_ENUM, 0, "masked|all"}},
    .shape = mse_bwd_shape,
    .inputs = "dloss pred target mask?",
    .cases = "dloss[] pred[2,5,12] target[2,5,12] mask[2,5]=uniform; dloss[] pred[2,5,37] "
             "target[2,5,37] "
             "mask[2,5]=uniform norm=1; dloss[] pred[3,4,6] target[3,4,6] - on=1",
    .doc = "masked_mse_bwd(dloss, pred, target [, mask] [, {norm, on}]) -> dpred\n"
           "dpred = dloss mask 2 (pred - target) / (P sum(mask)), zero on kept patches.",
};

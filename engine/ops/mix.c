/* Mixup and CutMix of a batch of images (method.md Eq. 9 and section 6.6; timm data/mixup.py). */
#include "ops/shape_util.h"

static mimic_status mix_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mimic_status s = mimic_want_rank(c, 0, 4, 4);
    for (int i = 1; s == MIMIC_OK && i < 4; i++) {
        int64_t shape[2] = {x->shape[0], 4};
        s = mimic_want_dtype(c, i, MIMIC_BIT(i == 1 ? MIMIC_F32 : MIMIC_I32));
        if (s == MIMIC_OK)
            s = mimic_want_shape(c, i, i == 2 ? 2 : 1, shape);
    }
    if (s == MIMIC_OK)
        mimic_out_like(c, 0, x, (mimic_dtype)x->dtype);
    return s;
}

const mimic_op mimic_op_mix = {
    .name = "mix",
    .index = MIMIC_OP_mix,
    .min_in = 4,
    .n_in = 4,
    .n_out = 1,
    .flags = MIMIC_OP_NO_GRAD,
    .no_grad_in = 15,
    .dtypes = MIMIC_FLOATS,
    .shape = mix_shape,
    .inputs = "x lam box partner",
    .cases =
        "x[4,3,6,6] lam[4]=uniform box[4,4]:i32=0 partner[4]:i32=perm; x[2,1,9,9] lam[2]=uniform "
        "box[2,4]:i32=index(9) partner[2]:i32=index(2); x[2,3,5,5]:bf16 lam[2]=uniform "
        "box[2,4]:i32=0 "
        "partner[2]:i32=index(2); x[0,3,4,4] lam[0] box[0,4]:i32=0 partner[0]:i32=index(1)",
    .doc = "mix(x[B, C, H, W], lam[B], box[B, 4], partner[B]) -> y\n"
           "box holds yl, yh, xl, xh (0-based, half open). yl >= yh: Mixup, y[b] = lam[b] x[b] + "
           "(1 - lam[b]) "
           "x[partner[b]]. Else CutMix: the box is replaced from the partner; lam must already be "
           "recomputed "
           "from the box's area. box and partner are i32. No gradient (method.md Eq. 9, 6.6).",
};

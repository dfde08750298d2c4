/* Images to rows of patches and back; each is the other's gradient (method.md, Eq. 2). Patches are
 * row-major over the image; inside one the order is (py, px, c) for "mae" and (c, py, px) for
 * "conv", the order of a convolution's weights. */
#include "ops/shape_util.h"

#include <math.h>

static mimic_status patchify_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    int64_t p = c->attrs.v[0].i;
    mimic_status s = mimic_want_rank(c, 0, 4, 4);
    if (s == MIMIC_OK && (p < 1 || x->shape[2] % p || x->shape[3] % p))
        s = mimic_shape_fail(c, "height and width must be multiples of patch");
    if (s == MIMIC_OK)
        mimic_out_set(
            c, 0, (mimic_dtype)x->dtype, 3,
            (int64_t[]){x->shape[0], x->shape[2] / p * (x->shape[3] / p), p * p * x->shape[1]});
    return s;
}

static mimic_status patchify_vjp(mimic_vjp *g) {
    const mimic_shape_out *x = &g->in_shape[0];
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_unpatchify, &attrs);
    attrs.v[0].i = g->attrs.v[0].i;
    attrs.v[1].i = x->shape[1];
    attrs.v[2].i = g->attrs.v[1].i;
    attrs.v[3].i = x->shape[2] / g->attrs.v[0].i;
    if (attrs.v[3].i == 0 || x->shape[3] == 0 || x->shape[1] == 0) /* nothing to give */
        return MIMIC_OK;
    return mimic_apply1(g->ctx, &mimic_op_unpatchify, &attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_patchify = {
    .name = "patchify",
    .index = MIMIC_OP_patchify,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"patch", MIMIC_ATTR_I64, NAN, NULL}, {"order", MIMIC_ATTR_ENUM, 0, "mae|conv"}},
    .shape = patchify_shape,
    .vjp = patchify_vjp,
    .inputs = "img",
    .cases = "img[2,3,8,8] patch=4; img[1,3,4,6] patch=2 order=1; img[2,3,32,32]:bf16 patch=16; "
             "img[1,1,4,4]:u8=bool patch=2; img[0,3,4,4] patch=4",
    .doc = "patchify(img[B, C, H, W], {patch, order=\"mae\"}) -> x[B, H/patch * W/patch, "
           "patch*patch*C]\n"
           "Patches row by row. Order inside a patch: mae = (py, px, c), conv = (c, py, px).",
};

static mimic_status unpatchify_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    int64_t p = c->attrs.v[0].i, ch = c->attrs.v[1].i, rows = c->attrs.v[3].i;
    mimic_status s = mimic_want_rank(c, 0, 3, 3);
    if (s != MIMIC_OK)
        return s;
    if (p < 1 || ch < 1 || p > 65536 || ch > 65536 || x->shape[2] != p * p * ch)
        return mimic_shape_fail(c, "the last axis must be patch*patch*channels");
    if (rows == 0)
        rows = (int64_t)(sqrt((double)x->shape[1]) + 0.5);
    if (rows < 1 || x->shape[1] % rows || (c->attrs.v[3].i == 0 && rows * rows != x->shape[1]))
        return mimic_shape_fail(c, "%lld patches are not a %s grid", (long long)x->shape[1],
                                c->attrs.v[3].i ? "such a" : "square");
    mimic_out_set(c, 0, (mimic_dtype)x->dtype, 4,
                  (int64_t[]){x->shape[0], ch, rows * p, x->shape[1] / rows * p});
    return MIMIC_OK;
}

static mimic_status unpatchify_vjp(mimic_vjp *g) {
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_patchify, &attrs);
    attrs.v[0].i = g->attrs.v[0].i;
    attrs.v[1].i = g->attrs.v[2].i;
    return mimic_apply1(g->ctx, &mimic_op_patchify, &attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_unpatchify = {
    .name = "unpatchify",
    .index = MIMIC_OP_unpatchify,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"patch", MIMIC_ATTR_I64, NAN, NULL},
              {"channels", MIMIC_ATTR_I64, 3, NULL},
              {"order", MIMIC_ATTR_ENUM, 0, "mae|conv"},
              {"rows", MIMIC_ATTR_I64, 0, NULL}},
    .shape = unpatchify_shape,
    .vjp = unpatchify_vjp,
    .inputs = "x",
    .cases = "x[2,4,48] patch=4; x[1,9,8] patch=2 channels=2 order=1; x[2,6,12] patch=2 rows=2; "
             "x[2,4,12]:bf16 patch=2; x[0,4,12] patch=2",
    .doc = "unpatchify(x[B, N, patch*patch*C], {patch, channels=3, order=\"mae\", rows}) -> img[B, "
           "C, H, W]\n"
           "The inverse of patchify. The grid is square unless its number of patch rows is given.",
};

/* Histograms of oriented gradients, the targets of LocalMIM (method.md 3.1; Haoqing-Wang/LocalMIM
 * HOGLayer). */
#include "ops/shape_util.h"

#include <math.h>

static mimic_status hog_shape(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    int64_t bins = c->attrs.v[0].i, pool = c->attrs.v[1].i;
    mimic_status s = mimic_want_rank(c, 0, 4, 4);
    if (s != MIMIC_OK)
        return s;
    if (bins < 1 || bins > 360)
        return mimic_shape_fail(c, "bins = %lld, 1 to 360 are possible", (long long)bins);
    if (pool < 1 || x->shape[2] % pool || x->shape[3] % pool)
        return mimic_shape_fail(c, "height and width must be multiples of pool");
    if (x->shape[2] < 2 || x->shape[3] < 2)
        return mimic_shape_fail(c, "reflected borders need at least 2 x 2 pixels");
    mimic_out_set(
        c, 0, mimic_accum_dtype((mimic_dtype)x->dtype), 5,
        (int64_t[]){x->shape[0], x->shape[2] / pool, x->shape[3] / pool, x->shape[1], bins});
    return MIMIC_OK;
}

const mimic_op mimic_op_hog = {
    .name = "hog",
    .index = MIMIC_OP_hog,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"bins", MIMIC_ATTR_I64, 9, NULL},
              {"pool", MIMIC_ATTR_I64, NAN, NULL},
              {"gx", MIMIC_ATTR_F64, 0, NULL},
              {"gy", MIMIC_ATTR_F64, 0, NULL}},
    .shape = hog_shape,
    .inputs = "img",
    .cases =
        "img[2,3,8,8] pool=4; img[1,1,6,4] pool=2 bins=5; img[1,3,2,2] pool=1; "
        "img[0,3,4,4] pool=2; img[2,3,32,32] pool=8 bins=18; img[1,3,8,8] pool=4 bins=18 gx=0.3 "
        "gy=-0.2",
    .doc = "hog(img[B, C, H, W], {pool, bins=9, gx=0, gy=0}) -> histogram[B, H/pool, W/pool, C, "
           "bins]\n"
           "Per pixel and channel the Sobel gradient (borders reflected) gx, gy, to which the "
           "attributes gx, gy are added; its magnitude goes to bin floor(atan2(gx, gy) / pi * "
           "bins) mod bins; mean over pool x pool pixels. "
           "Not normalised. No gradient.",
};

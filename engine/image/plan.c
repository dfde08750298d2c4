/* Draws a transform program for one picture: every random number of the rng of the call, in a fixed
 * order, before any pixel is touched. */
#include "image/image_impl.h"

#include <string.h>

void mimic_plan_scales(const mimic_transform *t, double mean[3], double std[3], uint8_t fill[3]) {
    static const double imagenet_mean[3] = {0.485, 0.456, 0.406};
    static const double imagenet_std[3] = {0.229, 0.224, 0.225};
    bool given = t->std[0] != 0;
    for (int c = 0; c < 3; c++) {
        mean[c] = (given ? t->mean : imagenet_mean)[c];
        std[c] = (given ? t->std : imagenet_std)[c];
        fill[c] = (uint8_t)fmin(255, fmax(0, nearbyint(255 * mean[c])));
    }
}

int mimic_plan_most_steps(const mimic_transform *t) {
    return (t->randaugment_n > 0 ? t->randaugment_n : 4) + 3;
}

static void add_step(mimic_plan *p, mimic_aug op, double a, double b) {
    mimic_plan_step *s = &p->step[p->steps++];
    *s = (mimic_plan_step){.op = (int32_t)op, .a = a, .b = b};
    if (op == MIMIC_AUG_ROTATE)
        mimic_rotation(a, s->turn);
}

/* The box and what it becomes. */
static mimic_status draw_place(const mimic_transform *t, int width, int height, mimic_rng *rng,
                               mimic_plan *p, mimic_err *err) {
    int left = 0, top = 0, w = width, h = height, size = t->size;
    p->out_w = p->out_h = size;
    if (t->crop) {
        mimic_crop_draw(rng, width, height, t->scale, t->ratio, &left, &top, &w, &h);
    } else if (t->resize_short) {
        int64_t side = t->resize_short;
        int64_t lw = w <= h ? side : side * w / h, lh = w <= h ? side * h / w : side;
        if (lw * lh > (int64_t)1 << 28) /* each is less than 2^42 by mimic_image's limit */
            return mimic_err_fail(err, MIMIC_EINVAL,
                                  "resize_short = %d makes %lld x %lld pixels of %d x %d",
                                  t->resize_short, (long long)lw, (long long)lh, w, h);
        p->out_w = (int)lw;
        p->out_h = (int)lh;
        p->x = (int)nearbyint((p->out_w - size) / 2.0);
        p->y = (int)nearbyint((p->out_h - size) / 2.0);
    }
    p->left = left;
    p->top = top;
    p->w = w;
    p->h = h;
    return MIMIC_OK;
}

static double either_sign(mimic_rng *rng, double v) {
    return mimic_rng_uniform(rng) < 0.5 ? -v : v;
}

/* Argument of `op` at level v (magnitude / 10). */
static double rand_argument(mimic_aug op, double v, int size, mimic_rng *rng) {
    switch (op) {
    case MIMIC_AUG_ROTATE:
        return either_sign(rng, 30.0 * v);
    case MIMIC_AUG_POSTERIZE:
        return 4 - (int)(4 * v);
    case MIMIC_AUG_SOLARIZE:
        return 256 - (int)(256 * v);
    case MIMIC_AUG_SOLARIZE_ADD:
        return fmin(128, (int)(110 * v));
    case MIMIC_AUG_COLOR:
    case MIMIC_AUG_CONTRAST:
    case MIMIC_AUG_BRIGHTNESS:
    case MIMIC_AUG_SHARPNESS:
        return fmax(0.1, 1.0 + either_sign(rng, 0.9 * v));
    case MIMIC_AUG_SHEAR_X:
    case MIMIC_AUG_SHEAR_Y:
        return either_sign(rng, 0.3 * v);
    case MIMIC_AUG_TRANSLATE_X:
        return either_sign(rng, 0.45 * v) * size;
    case MIMIC_AUG_TRANSLATE_Y:
        return either_sign(rng, 0.45 * v) * size;
    default:
        return 0;
    }
}

/* `n` operators of rand-m<m>-mstd<std>-inc1 (method.md 6.5). */
static void draw_randaugment(const mimic_transform *t, mimic_rng *rng, mimic_plan *p) {
    const uint32_t count = MIMIC_AUG_TRANSLATE_Y + 1; /* the first fifteen of mimic_aug */
    for (int i = 0; i < t->randaugment_n; i++) {
        mimic_aug op = (mimic_aug)mimic_rng_below(rng, count);
        if (mimic_rng_uniform(rng) >= 0.5)
            continue;
        double level = t->randaugment_m;
        if (t->randaugment_std > 0)
            level += t->randaugment_std * mimic_rng_normal(rng);
        double a = rand_argument(op, fmin(10, fmax(0, level)) / 10, t->size, rng);
        add_step(p, op, a, 128);
    }
}

static double factor(mimic_rng *rng, double v) {
    double lo = v > 1 ? 0 : 1 - v;
    return lo + (1 + v - lo) * mimic_rng_uniform(rng);
}

/* The four adjustments of ColorJitter in random order. */
static void draw_jitter(const mimic_transform *t, mimic_rng *rng, mimic_plan *p) {
    static const mimic_aug what[4] = {MIMIC_AUG_BRIGHTNESS, MIMIC_AUG_CONTRAST, MIMIC_AUG_COLOR,
                                      MIMIC_AUG_HUE};
    int order[4] = {0, 1, 2, 3};
    for (int i = 3; i > 0; i--) {
        int j = (int)mimic_rng_below(rng, (uint32_t)i + 1), k = order[i];
        order[i] = order[j];
        order[j] = k;
    }
    double a[4];
    for (int i = 0; i < 3; i++)
        a[i] = factor(rng, t->jitter[i]);
    a[3] = t->jitter[3] * (2 * mimic_rng_uniform(rng) - 1);
    for (int i = 0; i < 4; i++)
        if (t->jitter[order[i]] > 0)
            add_step(p, what[order[i]], a[order[i]], 0);
}

static bool chance(mimic_rng *rng, double p) {
    return p > 0 && mimic_rng_uniform(rng) < p;
}

mimic_status mimic_plan_draw(const mimic_transform *t, int width, int height, mimic_rng *rng,
                             mimic_plan *p, mimic_err *err) {
    memset(p, 0, offsetof(mimic_plan, step));
    mimic_status st = draw_place(t, width, height, rng, p, err);
    if (st != MIMIC_OK)
        return st;
    p->filter = (int32_t)t->filter;
    p->flip = chance(rng, t->flip);
    if (t->randaugment_n > 0)
        draw_randaugment(t, rng, p);
    else if (chance(rng, t->jitter_p))
        draw_jitter(t, rng, p);
    if (chance(rng, t->grey_p))
        add_step(p, MIMIC_AUG_GREY, 0, 0);
    if (chance(rng, t->blur_p)) {
        double lo = t->blur_sigma[0], hi = t->blur_sigma[1];
        add_step(p, MIMIC_AUG_BLUR, lo + (hi - lo) * mimic_rng_uniform(rng), 0);
    }
    if (chance(rng, t->solarize_p))
        add_step(p, MIMIC_AUG_SOLARIZE, 128, 0);
    int left, top, w, h;
    if (mimic_erase_draw(t->size, t->erase_p, rng, &left, &top, &w, &h)) {
        p->erase_left = left;
        p->erase_top = top;
        p->erase_w = w;
        p->erase_h = h;
        p->noise = *rng;
    }
    return MIMIC_OK;
}

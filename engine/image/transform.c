/* From a decoded picture to normalised floats: runs a checked transform program in the order of
 * method.md 6.1. Every random number comes from the rng of the call, drawn in a fixed order. */
#include "image/image_impl.h"

#include <math.h>
#include <string.h>

static const double imagenet_mean[3] = {0.485, 0.456, 0.406};
static const double imagenet_std[3] = {0.229, 0.224, 0.225};

static bool in_range(double v, double lo, double hi) {
    return v >= lo && v <= hi; /* false for NaN */
}

mimic_status mimic_transform_check(const mimic_transform *t, mimic_err *err) {
    const struct {
        const char *name;
        double value, lo, hi;
    } fields[] = {
        {"size", t->size, 1, 8192},
        {"pre_resize", t->pre_resize, 0, 8192},
        {"resize_short", t->resize_short, 0, 8192},
        {"scale[1]", t->scale[0], 0, 1},
        {"scale[2]", t->scale[1], t->scale[0], 1},
        {"ratio[1]", t->ratio[0], 0, 1e3},
        {"ratio[2]", t->ratio[1], t->ratio[0], 1e3},
        {"flip", t->flip, 0, 1},
        {"jitter[1]", t->jitter[0], 0, 10},
        {"jitter[2]", t->jitter[1], 0, 10},
        {"jitter[3]", t->jitter[2], 0, 10},
        {"jitter[4]", t->jitter[3], 0, 0.5},
        {"jitter_p", t->jitter_p, 0, 1},
        {"grey_p", t->grey_p, 0, 1},
        {"blur_p", t->blur_p, 0, 1},
        {"blur_sigma[1]", t->blur_sigma[0], 0, 100},
        {"blur_sigma[2]", t->blur_sigma[1], t->blur_sigma[0], 100},
        {"solarize_p", t->solarize_p, 0, 1},
        {"randaugment.n", t->randaugment_n, 0, 100},
        {"randaugment.m", t->randaugment_m, 0, 10},
        {"randaugment.std", t->randaugment_std, 0, 10},
        {"erase_p", t->erase_p, 0, 1},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!in_range(fields[i].value, fields[i].lo, fields[i].hi))
            return mimic_err_fail(err, MIMIC_EINVAL, "transform: %s = %g is outside of %g to %g",
                                  fields[i].name, fields[i].value, fields[i].lo, fields[i].hi);
    if (t->filter != MIMIC_BILINEAR && t->filter != MIMIC_BICUBIC)
        return mimic_err_fail(err, MIMIC_EINVAL, "transform: unknown filter %d", (int)t->filter);
    if (t->crop && t->resize_short)
        return mimic_err_fail(err, MIMIC_EINVAL,
                              "transform: crop and resize_short exclude each other");
    if (t->resize_short && t->resize_short < t->size)
        return mimic_err_fail(err, MIMIC_EINVAL,
                              "transform: resize_short = %d is less than size = %d",
                              t->resize_short, t->size);
    if ((t->ratio[0] > 0) != (t->ratio[1] > 0))
        return mimic_err_fail(err, MIMIC_EINVAL, "transform: ratio = {%g, %g} holds a zero",
                              t->ratio[0], t->ratio[1]);
    bool jitter = t->jitter_p > 0 &&
                  (t->jitter[0] > 0 || t->jitter[1] > 0 || t->jitter[2] > 0 || t->jitter[3] > 0);
    if (t->randaugment_n > 0 && jitter)
        return mimic_err_fail(err, MIMIC_EINVAL,
                              "transform: randaugment and jitter exclude each other");
    bool some = t->std[0] != 0 || t->std[1] != 0 || t->std[2] != 0;
    for (int c = 0; c < 3; c++)
        if (some && (!in_range(t->std[c], 1e-6, 1e6) || !in_range(t->mean[c], -1e6, 1e6)))
            return mimic_err_fail(err, MIMIC_EINVAL, "transform: mean = %g, std = %g of channel %d",
                                  t->mean[c], t->std[c], c + 1);
    return MIMIC_OK;
}

void mimic_transform_scratch_free(mimic_transform_scratch *s) {
    if (!s)
        return;
    mimic_image_free(&s->a);
    mimic_image_free(&s->b);
    mimic_image_free(&s->c);
}

/* The geometric part: `src` to size x size in s->a. */
static mimic_status place(const mimic_transform *t, const mimic_image *src, mimic_rng *rng,
                          mimic_transform_scratch *s, mimic_err *err) {
    mimic_status st = MIMIC_OK;
    int size = t->size;
    if (t->pre_resize && (src->width != t->pre_resize || src->height != t->pre_resize)) {
        st = mimic_image_resize(src, 0, 0, src->width, src->height, t->pre_resize, t->pre_resize,
                                MIMIC_BILINEAR, &s->b, err);
        src = &s->b;
    }
    if (st != MIMIC_OK)
        return st;
    int left = 0, top = 0, w = src->width, h = src->height;
    if (t->crop) {
        mimic_crop_draw(rng, w, h, t->scale, t->ratio, &left, &top, &w, &h);
    } else if (t->resize_short) {
        int64_t side = t->resize_short;
        int64_t lw = w <= h ? side : side * w / h, lh = w <= h ? side * h / w : side;
        if (lw * lh > (int64_t)1 << 28) /* each is less than 2^42 by mimic_image's limit */
            return mimic_err_fail(err, MIMIC_EINVAL,
                                  "resize_short = %d makes %lld x %lld pixels of %d x %d",
                                  t->resize_short, (long long)lw, (long long)lh, w, h);
        int rw = (int)lw, rh = (int)lh;
        if (rw != w || rh != h) {
            st = mimic_image_resize(src, 0, 0, w, h, rw, rh, t->filter, &s->c, err);
            src = &s->c;
        }
        left = (int)nearbyint((rw - size) / 2.0);
        top = (int)nearbyint((rh - size) / 2.0);
        w = h = size;
    }
    if (st != MIMIC_OK)
        return st;
    return mimic_image_resize(src, left, top, w, h, size, size, t->filter, &s->a, err);
}

static double factor(mimic_rng *rng, double v) {
    double lo = v > 1 ? 0 : 1 - v;
    return lo + (1 + v - lo) * mimic_rng_uniform(rng);
}

/* The four adjustments of ColorJitter in random order. */
static mimic_status jitter(const mimic_transform *t, mimic_rng *rng, mimic_image *img,
                           mimic_image *tmp, mimic_err *err) {
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
    mimic_status st = MIMIC_OK;
    for (int i = 0; i < 4 && st == MIMIC_OK; i++)
        if (t->jitter[order[i]] > 0)
            st = mimic_augment_run(img, tmp, what[order[i]], a[order[i]], 0, t->filter, NULL, err);
    return st;
}

static bool chance(mimic_rng *rng, double p) {
    return p > 0 && mimic_rng_uniform(rng) < p;
}

static mimic_status colours(const mimic_transform *t, mimic_rng *rng, const double mean[3],
                            mimic_image *img, mimic_image *tmp, mimic_err *err) {
    mimic_status st = MIMIC_OK;
    if (t->randaugment_n > 0) {
        uint8_t fill[3];
        for (int c = 0; c < 3; c++)
            fill[c] = (uint8_t)fmin(255, fmax(0, nearbyint(255 * mean[c])));
        st = mimic_randaugment(img, tmp, rng, t->randaugment_n, t->randaugment_m,
                               t->randaugment_std, t->filter, fill, err);
    } else if (chance(rng, t->jitter_p)) {
        st = jitter(t, rng, img, tmp, err);
    }
    if (st == MIMIC_OK && chance(rng, t->grey_p))
        mimic_image_grey(img);
    if (st == MIMIC_OK && chance(rng, t->blur_p)) {
        double lo = t->blur_sigma[0], hi = t->blur_sigma[1];
        st = mimic_image_blur(img, tmp, lo + (hi - lo) * mimic_rng_uniform(rng), err);
    }
    if (st == MIMIC_OK && chance(rng, t->solarize_p))
        mimic_image_solarize(img, 128);
    return st;
}

mimic_status mimic_transform_apply(const mimic_transform *t, const mimic_image *src, mimic_rng *rng,
                                   mimic_transform_scratch *s, float *out, mimic_err *err) {
    bool given = t->std[0] != 0;
    const double *mean = given ? t->mean : imagenet_mean, *std = given ? t->std : imagenet_std;
    mimic_image *img = &s->a;
    mimic_status st = place(t, src, rng, s, err);
    if (st != MIMIC_OK)
        return st;
    if (chance(rng, t->flip))
        mimic_image_flip(img);
    st = colours(t, rng, mean, img, &s->b, err);
    if (st != MIMIC_OK)
        return st;
    float lut[3][256];
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++)
            lut[c][i] = ((float)i / 255.0f - (float)mean[c]) / (float)std[c];
    size_t n = (size_t)t->size * (size_t)t->size;
    const uint8_t *p = img->pixels;
    for (size_t i = 0; i < n; i++, p += 3) {
        out[i] = lut[0][p[0]];
        out[n + i] = lut[1][p[1]];
        out[2 * n + i] = lut[2][p[2]];
    }
    mimic_erase(out, t->size, t->erase_p, rng);
    return MIMIC_OK;
}

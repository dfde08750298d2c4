/* From a decoded picture to normalised floats: checks transform programs and runs the plan (plan.c)
 * of one for a picture, in the order of method.md 6.1. */
#include "image/image_impl.h"

#include <math.h>
#include <string.h>

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

mimic_status mimic_plan_place(const mimic_plan *p, int size, const mimic_image *src,
                              mimic_transform_scratch *s, mimic_err *err) {
    mimic_filter filter = (mimic_filter)p->filter;
    bool window = p->out_w != size || p->out_h != size;
    if (!window)
        return mimic_image_resize(src, p->left, p->top, p->w, p->h, size, size, filter, &s->a, err);
    int left = p->left + p->x, top = p->top + p->y;
    if (p->out_w != p->w || p->out_h != p->h) {
        mimic_status st = mimic_image_resize(src, p->left, p->top, p->w, p->h, p->out_w, p->out_h,
                                             filter, &s->c, err);
        if (st != MIMIC_OK)
            return st;
        src = &s->c;
        left = p->x;
        top = p->y;
    }
    return mimic_image_resize(src, left, top, size, size, size, size, filter, &s->a, err);
}

static mimic_status steps(const mimic_plan *p, const uint8_t fill[3], mimic_image *img,
                          mimic_image *tmp, mimic_err *err) {
    mimic_status st = MIMIC_OK;
    for (int i = 0; i < p->steps && st == MIMIC_OK; i++)
        st = mimic_augment_run(img, tmp, (mimic_aug)p->step[i].op, p->step[i].a, p->step[i].b,
                               (mimic_filter)p->filter, fill, err);
    return st;
}

static void erase(const mimic_plan *p, int size, float *out) {
    mimic_rng rng = p->noise;
    size_t side = (size_t)size;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < p->erase_h; y++) {
            float *row = out + ((size_t)c * side + (size_t)(p->erase_top + y)) * side;
            for (int x = 0; x < p->erase_w; x++)
                row[p->erase_left + x] = (float)mimic_rng_normal(&rng);
        }
}

mimic_status mimic_transform_apply(const mimic_transform *t, const mimic_image *src, mimic_rng *rng,
                                   mimic_transform_scratch *s, float *out, mimic_err *err) {
    double mean[3], std[3];
    uint8_t fill[3];
    mimic_plan plan;
    mimic_image *img = &s->a;
    mimic_status st = MIMIC_OK;
    mimic_plan_scales(t, mean, std, fill);
    if (t->pre_resize && (src->width != t->pre_resize || src->height != t->pre_resize)) {
        st = mimic_image_resize(src, 0, 0, src->width, src->height, t->pre_resize, t->pre_resize,
                                MIMIC_BILINEAR, &s->b, err);
        src = &s->b;
    }
    if (st == MIMIC_OK)
        st = mimic_plan_draw(t, src->width, src->height, rng, &plan, err);
    if (st == MIMIC_OK)
        st = mimic_plan_place(&plan, t->size, src, s, err);
    if (st == MIMIC_OK && plan.flip)
        mimic_image_flip(img);
    if (st == MIMIC_OK)
        st = steps(&plan, fill, img, &s->b, err);
    if (st != MIMIC_OK)
        return st;
    float lut[3][256];
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++)
            lut[c][i] = mimic_normalise(i, (float)mean[c], (float)std[c]);
    size_t n = (size_t)t->size * (size_t)t->size;
    const uint8_t *p = img->pixels;
    for (size_t i = 0; i < n; i++, p += 3) {
        out[i] = lut[0][p[0]];
        out[n + i] = lut[1][p[1]];
        out[2 * n + i] = lut[2][p[2]];
    }
    if (plan.erase_w > 0)
        erase(&plan, t->size, out);
    return MIMIC_OK;
}

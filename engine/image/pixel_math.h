/* The arithmetic of pixels, in one place for the CPU and for device code: Pillow's weights, blends,
 * HSV and boxes. Compiled without contraction to fma (-ffp-contract=off, --fmad=false), so that
 * every backend gives the same bytes. */
#ifndef MIMIC_PIXEL_MATH_H
#define MIMIC_PIXEL_MATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "mimic/image.h"

#ifdef __CUDACC__
#define PIXEL_FN static __host__ __device__ __forceinline__
#else
#define PIXEL_FN static inline
#endif

PIXEL_FN uint8_t mimic_clip8(int v) {
    return v < 0 ? 0 : v > 255 ? 255 : (uint8_t)v;
}

/* Pillow's grey: (19595 R + 38470 G + 7471 B + 32768) >> 16. */
PIXEL_FN int mimic_luma(const uint8_t *p) {
    return (19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 32768) >> 16;
}

/* trunc(clip(g + f (x - g))) */
PIXEL_FN uint8_t mimic_blend(int g, int x, float f) {
    float v = (float)g + f * (float)(x - g);
    return v <= 0.0f ? 0 : v >= 255.0f ? 255 : (uint8_t)v;
}

/* The grey that contrast blends with: the rounded mean of n values of luma. */
PIXEL_FN int mimic_mean_luma(int64_t sum, int64_t n) {
    return (int)((double)sum / (double)n + 0.5);
}

/* The smoothed pixel of sharpness from its neighbours' sum (1 1 1, 1 5 1, 1 1 1), over 13. */
PIXEL_FN int mimic_smooth(int sum) {
    return (2 * sum + 13) / 26;
}

PIXEL_FN uint8_t mimic_posterize(uint8_t v, int bits) {
    return v & (uint8_t) ~((1 << (8 - bits)) - 1);
}

PIXEL_FN uint8_t mimic_solarize(uint8_t v, int threshold) {
    return (uint8_t)(v < threshold ? v : 255 - v);
}

PIXEL_FN uint8_t mimic_solarize_add(uint8_t v, int amount, int threshold) {
    return v < threshold ? mimic_clip8(v + amount) : v;
}

/* What autocontrast and equalize make of the values of a channel, by its histogram. */
PIXEL_FN void mimic_autocontrast_table(const uint32_t h[256], uint8_t table[256]) {
    int lo = 0, hi = 255;
    while (lo < 255 && h[lo] == 0)
        lo++;
    while (hi > 0 && h[hi] == 0)
        hi--;
    double scale = hi > lo ? 255.0 / (hi - lo) : 1.0, offset = hi > lo ? -lo * scale : 0.0;
    for (int i = 0; i < 256; i++)
        table[i] = mimic_clip8((int)(i * scale + offset));
}

PIXEL_FN void mimic_equalize_table(const uint32_t h[256], uint8_t table[256]) {
    int64_t sum = 0, last = 0;
    for (int i = 0; i < 256; i++)
        if (h[i]) {
            last = h[i];
            sum += last;
        }
    int64_t step = (sum - last) / 255, n = step / 2; /* one level only: step is 0 */
    for (int i = 0; i < 256; i++) {
        int64_t v = step ? n / step : i;
        table[i] = v > 255 ? 255 : (uint8_t)v;
        n += h[i];
    }
}

PIXEL_FN float mimic_normalise(int v, float mean, float std) {
    return ((float)v / 255.0f - mean) / std;
}

/* --- hue ---------------------------------------------------------------------------- */

/* RGB to Pillow's 8-bit HSV. */
PIXEL_FN void mimic_to_hsv(const uint8_t *p, uint8_t *out) {
    int r = p[0], g = p[1], b = p[2];
    int mx = r > g ? (r > b ? r : b) : (g > b ? g : b);
    int mn = r < g ? (r < b ? r : b) : (g < b ? g : b);
    out[0] = out[1] = 0;
    out[2] = (uint8_t)mx;
    if (mx == mn)
        return;
    float cr = (float)(mx - mn), s = cr / (float)mx, h;
    float rc = (float)(mx - r) / cr, gc = (float)(mx - g) / cr, bc = (float)(mx - b) / cr;
    if (r == mx)
        h = bc - gc;
    else if (g == mx)
        h = (float)(2.0 + (double)rc - (double)bc);
    else
        h = (float)(4.0 + (double)gc - (double)rc);
    double turn = (double)h / 6.0 + 1.0; /* 0.8 to 1.9: the remainder by 1 needs no fmod */
    h = (float)(turn - (int)turn);
    out[0] = mimic_clip8((int)((double)h * 255.0));
    out[1] = mimic_clip8((int)((double)s * 255.0));
}

/* round() of a value >= 0, without a call. */
PIXEL_FN uint8_t mimic_round8(double v) {
    int i = (int)v;
    return mimic_clip8(i + (v - i >= 0.5));
}

PIXEL_FN void mimic_from_hsv(const uint8_t *p, uint8_t *out) {
    uint8_t v = p[2];
    if (p[1] == 0) {
        out[0] = out[1] = out[2] = v;
        return;
    }
    double turn = (double)p[0] * 6.0 / 255.0, value = (double)v;
    int i = (int)turn;
    float f = (float)(turn - i), fs = (float)((double)p[1] / 255.0);
    uint8_t a = mimic_round8(value * (1.0 - (double)fs));
    uint8_t q = mimic_round8(value * (1.0 - (double)(fs * f)));
    uint8_t t = mimic_round8(value * (1.0 - (double)fs * (1.0 - (double)f)));
    i %= 6;
    out[0] = i == 0 || i == 5 ? v : i == 1 ? q : i == 4 ? t : a;
    out[1] = i == 1 || i == 2 ? v : i == 0 ? t : i == 3 ? q : a;
    out[2] = i == 3 || i == 4 ? v : i == 2 ? t : i == 5 ? q : a;
}

/* Turns the hue by f of the circle. */
PIXEL_FN void mimic_turn_hue(uint8_t *p, double f) {
    uint8_t hsv[3];
    mimic_to_hsv(p, hsv);
    hsv[0] = (uint8_t)(hsv[0] + (uint8_t)(int)(f * 255));
    mimic_from_hsv(hsv, p);
}

/* --- resampling: weights of an axis (method.md 6.3) ------------------------------------------- */

enum { MIMIC_WEIGHT_BITS = 22 };

/* An axis of `in` pixels that becomes one of `out`. */
typedef struct mimic_taps {
    int in;
    mimic_filter filter;
    double scale, support, step; /* step: source pixels to units of the filter */
} mimic_taps;

PIXEL_FN mimic_taps mimic_taps_of(int in, int out, mimic_filter filter) {
    mimic_taps a;
    double scale = (double)in / out, fs = scale < 1.0 ? 1.0 : scale;
    a.in = in;
    a.filter = filter;
    a.scale = scale;
    a.support = (filter == MIMIC_BILINEAR ? 1.0 : 2.0) * fs;
    a.step = 1.0 / fs;
    return a;
}

/* No output has more source pixels than this. */
PIXEL_FN int mimic_taps_most(const mimic_taps *a) {
    return (int)ceil(a->support) * 2 + 1;
}

/* Source pixels lo..hi-1 of output o, whose centre is returned. */
PIXEL_FN double mimic_taps_window(const mimic_taps *a, int o, int *lo, int *hi) {
    double c = (o + 0.5) * a->scale;
    int first = (int)(c - a->support + 0.5), end = (int)(c + a->support + 0.5);
    *lo = first < 0 ? 0 : first;
    *hi = end > a->in ? a->in : end;
    return c;
}

/* The filter at source pixel x of an output with centre c. */
PIXEL_FN double mimic_taps_value(const mimic_taps *a, int x, double c) {
    double v = fabs((x - c + 0.5) * a->step);
    if (a->filter == MIMIC_BILINEAR)
        return v < 1.0 ? 1.0 - v : 0.0;
    const double k = -0.5;
    if (v < 1.0)
        return ((k + 2.0) * v - (k + 3.0)) * v * v + 1;
    if (v < 2.0)
        return (((v - 5) * v + 8) * v - 4) * k;
    return 0.0;
}

/* A value as a fixed-point weight, the sum of the output's values being `sum`. */
PIXEL_FN int32_t mimic_taps_weight(double value, double sum) {
    double v = (sum != 0 ? value / sum : value) * (1 << MIMIC_WEIGHT_BITS);
    return (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
}

/* --- Gaussian blur by boxes (method.md 6.4) --------------------------------------------------- */

/* A box of 2 radius + 1 pixels of weight ww and two outer ones of weight fw, in 2^-24. */
typedef struct mimic_box_filter {
    int radius;
    uint32_t ww, fw;
} mimic_box_filter;

/* The box whose threefold use has the variance of the Gaussian; false: nothing to do. */
PIXEL_FN bool mimic_box_of(double sigma, mimic_box_filter *b) {
    float radius = (float)sigma, sigma2 = radius * radius / 3;
    float length = (float)sqrt(12.0 * (double)sigma2 + 1.0);
    float l = (float)floor(((double)length - 1.0) / 2.0);
    float a = (2 * l + 1) * (l * (l + 1) - 3 * sigma2);
    a /= 6 * (sigma2 - (l + 1) * (l + 1));
    float whole = l + a;
    if (!(whole > 0.0f))
        return false;
    b->radius = (int)whole;
    b->ww = (uint32_t)((float)(1u << 24) / (whole * 2 + 1));
    b->fw = ((1u << 24) - (uint32_t)(2 * b->radius + 1) * b->ww) / 2;
    return true;
}

/* sum: of the inner pixels, far: of the two outer ones. */
PIXEL_FN uint8_t mimic_box_weigh(const mimic_box_filter *b, uint32_t sum, uint32_t far) {
    return (uint8_t)((sum * b->ww + far * b->fw + (1u << 23)) >> 24);
}

#endif

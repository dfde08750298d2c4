/* Pillow's ImageEnhance (blends with a degenerate picture in fp32), hue and grey. */
#include "image/image_impl.h"

#include <string.h>

static inline uint8_t blend(int g, int x, float f) {
    float v = (float)g + f * (float)(x - g);
    return v <= 0.0f ? 0 : v >= 255.0f ? 255 : (uint8_t)v;
}

static size_t pixel_count(const mimic_image *img) {
    return (size_t)img->width * (size_t)img->height;
}

static void blend_constant(mimic_image *img, int g, float f) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = blend(g, i, f);
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p++)
        *p = lut[*p];
}

void mimic_image_color(mimic_image *img, float f) {
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p += 3) {
        int g = mimic_luma(p);
        for (int c = 0; c < 3; c++)
            p[c] = blend(g, p[c], f);
    }
}

void mimic_image_contrast(mimic_image *img, float f) {
    size_t n = pixel_count(img);
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += mimic_luma(img->pixels + i * 3);
    blend_constant(img, (int)((double)sum / (double)n + 0.5), f);
}

void mimic_image_brightness(mimic_image *img, float f) {
    blend_constant(img, 0, f);
}

/* The smoothed picture is (1 1 1, 1 5 1, 1 1 1) / 13, rounded; its border is the picture's own. */
mimic_status mimic_image_sharpness(mimic_image *img, mimic_image *tmp, float f, mimic_err *err) {
    int w = img->width, h = img->height;
    if (w < 3 || h < 3)
        return MIMIC_OK;
    mimic_status s = mimic_image_copy(tmp, img, err);
    if (s != MIMIC_OK)
        return s;
    const ptrdiff_t row = (ptrdiff_t)w * 3;
    for (int y = 1; y < h - 1; y++) {
        const uint8_t *in = tmp->pixels + (size_t)y * (size_t)row;
        uint8_t *out = img->pixels + (size_t)y * (size_t)row;
        for (ptrdiff_t i = 3; i < row - 3; i++) {
            const uint8_t *p = in + i;
            int sum = p[-row - 3] + p[-row] + p[-row + 3] + p[-3] + 5 * p[0] + p[3] + p[row - 3] +
                      p[row] + p[row + 3];
            out[i] = blend((2 * sum + 13) / 26, p[0], f);
        }
    }
    return MIMIC_OK;
}

/* RGB to Pillow's 8-bit HSV. */
static void to_hsv(const uint8_t *p, uint8_t *out) {
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
        h = (float)(2.0 + rc - bc);
    else
        h = (float)(4.0 + gc - rc);
    double turn = h / 6.0 + 1.0; /* 0.8 to 1.9: the remainder by 1 needs no fmod */
    h = (float)(turn - (int)turn);
    out[0] = mimic_clip8((int)(h * 255.0));
    out[1] = mimic_clip8((int)(s * 255.0));
}

/* round() of a value >= 0, without a call. */
static inline uint8_t round8(double v) {
    int i = (int)v;
    return mimic_clip8(i + (v - i >= 0.5));
}

static void from_hsv(const uint8_t *p, uint8_t *out) {
    uint8_t v = p[2];
    if (p[1] == 0) {
        out[0] = out[1] = out[2] = v;
        return;
    }
    int i = (int)((float)p[0] * 6.0 / 255.0);
    float f = (float)((float)p[0] * 6.0 / 255.0 - (float)i), fs = (float)((float)p[1] / 255.0);
    uint8_t a = round8((float)v * (1.0 - fs));
    uint8_t q = round8((float)v * (1.0 - fs * f));
    uint8_t t = round8((float)v * (1.0 - fs * (1.0 - f)));
    const uint8_t rgb[6][3] = {{v, t, a}, {q, v, a}, {a, v, t}, {a, q, v}, {t, a, v}, {v, a, q}};
    memcpy(out, rgb[i % 6], 3);
}

void mimic_image_hue(mimic_image *img, double f) {
    uint8_t turn = (uint8_t)(int)(f * 255);
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p += 3) {
        uint8_t hsv[3];
        to_hsv(p, hsv);
        hsv[0] = (uint8_t)(hsv[0] + turn);
        from_hsv(hsv, p);
    }
}

void mimic_image_grey(mimic_image *img) {
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p += 3)
        p[0] = p[1] = p[2] = (uint8_t)mimic_luma(p);
}

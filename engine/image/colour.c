/* Pillow's ImageEnhance (blends with a degenerate picture in fp32), hue and grey. */
#include "image/image_impl.h"

#include <string.h>

static size_t pixel_count(const mimic_image *img) {
    return (size_t)img->width * (size_t)img->height;
}

static void blend_constant(mimic_image *img, int g, float f) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = mimic_blend(g, i, f);
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p++)
        *p = lut[*p];
}

void mimic_image_color(mimic_image *img, float f) {
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p += 3) {
        int g = mimic_luma(p);
        for (int c = 0; c < 3; c++)
            p[c] = mimic_blend(g, p[c], f);
    }
}

void mimic_image_contrast(mimic_image *img, float f) {
    size_t n = pixel_count(img);
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += mimic_luma(img->pixels + i * 3);
    blend_constant(img, mimic_mean_luma(sum, (int64_t)n), f);
}

void mimic_image_brightness(mimic_image *img, float f) {
    blend_constant(img, 0, f);
}

/* The border of the smoothed picture is the picture's own. */
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
            out[i] = mimic_blend(mimic_smooth(sum), p[0], f);
        }
    }
    return MIMIC_OK;
}

void mimic_image_hue(mimic_image *img, double f) {
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p += 3)
        mimic_turn_hue(p, f);
}

void mimic_image_grey(mimic_image *img) {
    uint8_t *end = img->pixels + pixel_count(img) * 3;
    for (uint8_t *p = img->pixels; p < end; p += 3)
        p[0] = p[1] = p[2] = (uint8_t)mimic_luma(p);
}

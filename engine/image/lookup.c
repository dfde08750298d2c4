/* Operators that map every 8-bit value by a table: Pillow's ImageOps and timm's SolarizeAdd. */
#include "image/image_impl.h"

#include <string.h>

static void apply(mimic_image *img, uint8_t lut[3][256]) {
    size_t n = (size_t)img->width * (size_t)img->height;
    uint8_t *p = img->pixels;
    for (size_t i = 0; i < n; i++, p += 3)
        for (int c = 0; c < 3; c++)
            p[c] = lut[c][p[c]];
}

static void apply_one(mimic_image *img, const uint8_t lut[256]) {
    uint8_t *end = img->pixels + (size_t)img->width * (size_t)img->height * 3;
    for (uint8_t *p = img->pixels; p < end; p++)
        *p = lut[*p];
}

static void histogram(const mimic_image *img, int64_t h[3][256]) {
    memset(h, 0, 3 * 256 * sizeof h[0][0]);
    const uint8_t *end = img->pixels + (size_t)img->width * (size_t)img->height * 3;
    for (const uint8_t *p = img->pixels; p < end; p += 3)
        for (int c = 0; c < 3; c++)
            h[c][p[c]]++;
}

void mimic_image_autocontrast(mimic_image *img) {
    int64_t h[3][256];
    uint8_t lut[3][256];
    histogram(img, h);
    for (int c = 0; c < 3; c++) {
        int lo = 0, hi = 255;
        while (lo < 255 && h[c][lo] == 0)
            lo++;
        while (hi > 0 && h[c][hi] == 0)
            hi--;
        double scale = hi > lo ? 255.0 / (hi - lo) : 1.0, offset = hi > lo ? -lo * scale : 0.0;
        for (int i = 0; i < 256; i++)
            lut[c][i] = mimic_clip8((int)(i * scale + offset));
    }
    apply(img, lut);
}

void mimic_image_equalize(mimic_image *img) {
    int64_t h[3][256];
    uint8_t lut[3][256];
    histogram(img, h);
    for (int c = 0; c < 3; c++) {
        int64_t sum = 0, last = 0;
        for (int i = 0; i < 256; i++)
            if (h[c][i]) {
                last = h[c][i];
                sum += last;
            }
        int64_t step = (sum - last) / 255, n = step / 2; /* one level only: step is 0 */
        for (int i = 0; i < 256; i++) {
            int64_t v = step ? n / step : i;
            lut[c][i] = v > 255 ? 255 : (uint8_t)v;
            n += h[c][i];
        }
    }
    apply(img, lut);
}

void mimic_image_invert(mimic_image *img) {
    mimic_image_solarize(img, 0);
}

void mimic_image_posterize(mimic_image *img, int bits) {
    uint8_t lut[256], mask = (uint8_t) ~((1 << (8 - bits)) - 1);
    for (int i = 0; i < 256; i++)
        lut[i] = (uint8_t)i & mask;
    apply_one(img, lut);
}

void mimic_image_solarize(mimic_image *img, int threshold) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = (uint8_t)(i < threshold ? i : 255 - i);
    apply_one(img, lut);
}

void mimic_image_solarize_add(mimic_image *img, int amount, int threshold) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = i < threshold ? mimic_clip8(i + amount) : (uint8_t)i;
    apply_one(img, lut);
}

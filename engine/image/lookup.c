/* Operators that map every 8-bit value by a table: Pillow's ImageOps and timm's SolarizeAdd. */
#include "image/image_impl.h"

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

static void by_histogram(mimic_image *img, void (*table)(const uint32_t *, uint8_t *)) {
    uint32_t h[3][256] = {{0}};
    uint8_t lut[3][256];
    const uint8_t *end = img->pixels + (size_t)img->width * (size_t)img->height * 3;
    for (const uint8_t *p = img->pixels; p < end; p += 3)
        for (int c = 0; c < 3; c++)
            h[c][p[c]]++;
    for (int c = 0; c < 3; c++)
        table(h[c], lut[c]);
    apply(img, lut);
}

void mimic_image_autocontrast(mimic_image *img) {
    by_histogram(img, mimic_autocontrast_table);
}

void mimic_image_equalize(mimic_image *img) {
    by_histogram(img, mimic_equalize_table);
}

void mimic_image_invert(mimic_image *img) {
    mimic_image_solarize(img, 0);
}

void mimic_image_posterize(mimic_image *img, int bits) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = mimic_posterize((uint8_t)i, bits);
    apply_one(img, lut);
}

void mimic_image_solarize(mimic_image *img, int threshold) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = mimic_solarize((uint8_t)i, threshold);
    apply_one(img, lut);
}

void mimic_image_solarize_add(mimic_image *img, int amount, int threshold) {
    uint8_t lut[256];
    for (int i = 0; i < 256; i++)
        lut[i] = mimic_solarize_add((uint8_t)i, amount, threshold);
    apply_one(img, lut);
}

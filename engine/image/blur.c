/* Pillow's GaussianBlur: three box passes with fractional edges per axis, 8-bit between the passes
 * (method.md 6.4). */
#include "image/image_impl.h"

#include <stdlib.h>
#include <string.h>

/* One row of w pixels; line has room for w + 2 radius + 2 pixels: the row with its ends repeated.
 */
static void blur_row(const uint8_t *in, uint8_t *out, int w, const mimic_box_filter *b,
                     uint8_t *line) {
    int pad = b->radius + 1;
    for (int i = 0; i < pad; i++) {
        memcpy(line + i * 3, in, 3);
        memcpy(line + (pad + w + i) * 3, in + (w - 1) * 3, 3);
    }
    memcpy(line + pad * 3, in, (size_t)w * 3);
    uint32_t sum[3] = {0};
    for (int i = 1; i < 2 * pad; i++)
        for (int c = 0; c < 3; c++)
            sum[c] += line[i * 3 + c];
    const uint8_t *lo = line, *hi = line + 2 * pad * 3;
    for (int x = 0; x < w; x++, lo += 3, hi += 3, out += 3)
        for (int c = 0; c < 3; c++) {
            out[c] = mimic_box_weigh(b, sum[c], (uint32_t)lo[c] + hi[c]);
            sum[c] += (uint32_t)hi[c] - lo[3 + c];
        }
}

static int clamp(int y, int h) {
    return y < 0 ? 0 : y < h ? y : h - 1;
}

/* All columns at once: sum holds one running sum per byte of a row. */
static void blur_columns(const uint8_t *in, uint8_t *out, size_t row, int h,
                         const mimic_box_filter *b, uint32_t *sum) {
    memset(sum, 0, row * sizeof *sum);
    for (int y = -b->radius; y <= b->radius; y++) {
        const uint8_t *p = in + (size_t)clamp(y, h) * row;
        for (size_t i = 0; i < row; i++)
            sum[i] += p[i];
    }
    for (int y = 0; y < h; y++, out += row) {
        const uint8_t *lo = in + (size_t)clamp(y - b->radius - 1, h) * row;
        const uint8_t *hi = in + (size_t)clamp(y + b->radius + 1, h) * row;
        const uint8_t *leaves = in + (size_t)clamp(y - b->radius, h) * row;
        for (size_t i = 0; i < row; i++) {
            out[i] = mimic_box_weigh(b, sum[i], (uint32_t)lo[i] + hi[i]);
            sum[i] += (uint32_t)hi[i] - leaves[i];
        }
    }
}

mimic_status mimic_image_blur(mimic_image *img, mimic_image *tmp, double sigma, mimic_err *err) {
    mimic_box_filter b;
    if (!mimic_box_of(sigma, &b))
        return MIMIC_OK;
    int w = img->width, h = img->height;
    size_t row = (size_t)w * 3;
    mimic_status s = mimic_image_reserve(tmp, w, h, err);
    if (s != MIMIC_OK)
        return s;
    size_t line = row + (size_t)(b.radius + 1) * 6, sums = row * sizeof(uint32_t);
    void *scratch = malloc(line > sums ? line : sums);
    if (!scratch)
        return mimic_err_fail(err, MIMIC_ENOMEM, "no memory to blur a picture");
    for (int pass = 0; pass < 6; pass++) {
        for (int y = 0; y < h && pass < 3; y++)
            blur_row(img->pixels + (size_t)y * row, tmp->pixels + (size_t)y * row, w, &b, scratch);
        if (pass >= 3)
            blur_columns(img->pixels, tmp->pixels, row, h, &b, scratch);
        mimic_image_swap(img, tmp);
    }
    free(scratch);
    return MIMIC_OK;
}

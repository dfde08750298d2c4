/* Affine warps as Pillow's Image.transform computes them: centres of pixels, cubic with a = -1,
 * columns clamped, rows beyond the picture repeat the row before, result clipped and truncated. */
#include "image/image_impl.h"

#include <math.h>
#include <string.h>

static inline int floor_int(double v) {
    return v < 0.0 ? (int)floor(v) : (int)v;
}

static inline double cubic(double v1, double v2, double v3, double v4, double d) {
    double p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
    return v2 + d * (p2 + d * (p3 + d * p4));
}

static inline int clamp(int v, int n) {
    return v < 0 ? 0 : v < n ? v : n - 1;
}

/* xi, yi: already moved by half a pixel. The three channels are independent lanes of the same
 * arithmetic. */
static void sample_bicubic(const mimic_image *src, double xi, double yi, uint8_t *out) {
    int w = src->width, h = src->height, x = floor_int(xi), y = floor_int(yi);
    double dx = xi - x, dy = yi - y, v[4][3];
    int at[4];
    for (int i = 0; i < 4; i++)
        at[i] = clamp(x - 1 + i, w) * 3;
    for (int i = 0; i < 4; i++) {
        int row = y - 1 + i;
        if (i > 0 && (row < 0 || row >= h)) {
            memcpy(v[i], v[i - 1], sizeof v[i]);
            continue;
        }
        const uint8_t *p = src->pixels + (size_t)clamp(row, h) * (size_t)w * 3;
        const uint8_t *a = p + at[0], *b = p + at[1], *c = p + at[2], *d = p + at[3];
        for (int k = 0; k < 3; k++)
            v[i][k] = cubic(a[k], b[k], c[k], d[k], dx);
    }
    for (int k = 0; k < 3; k++) {
        double r = cubic(v[0][k], v[1][k], v[2][k], v[3][k], dy);
        out[k] = r <= 0.0 ? 0 : r >= 255.0 ? 255 : (uint8_t)r;
    }
}

static void sample_bilinear(const mimic_image *src, double xi, double yi, uint8_t *out) {
    int w = src->width, h = src->height, x = floor_int(xi), y = floor_int(yi);
    double dx = xi - x, dy = yi - y;
    int a = clamp(x, w) * 3, b = clamp(x + 1, w) * 3;
    for (int c = 0; c < 3; c++) {
        const uint8_t *p = src->pixels + (size_t)clamp(y, h) * (size_t)w * 3 + c;
        double v1 = p[a] + (p[b] - p[a]) * dx, v2 = v1;
        if (y + 1 >= 0 && y + 1 < h) {
            p = src->pixels + (size_t)(y + 1) * (size_t)w * 3 + c;
            v2 = p[a] + (p[b] - p[a]) * dx;
        }
        out[c] = (uint8_t)(v1 + (v2 - v1) * dy);
    }
}

mimic_status mimic_image_affine(const mimic_image *src, const double m[6], mimic_filter filter,
                                const uint8_t fill[3], mimic_image *dst, mimic_err *err) {
    mimic_status s = mimic_image_reserve(dst, src->width, src->height, err);
    if (s != MIMIC_OK)
        return s;
    uint8_t *out = dst->pixels;
    for (int y = 0; y < dst->height; y++)
        for (int x = 0; x < dst->width; x++, out += 3) {
            double cx = x + 0.5, cy = y + 0.5;
            double xi = m[0] * cx + m[1] * cy + m[2], yi = m[3] * cx + m[4] * cy + m[5];
            if (!(xi >= 0.0 && xi < src->width && yi >= 0.0 && yi < src->height))
                memcpy(out, fill, 3);
            else if (filter == MIMIC_BICUBIC)
                sample_bicubic(src, xi - 0.5, yi - 0.5, out);
            else
                sample_bilinear(src, xi - 0.5, yi - 0.5, out);
        }
    return MIMIC_OK;
}

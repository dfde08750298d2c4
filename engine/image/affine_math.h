/* Affine warps as Pillow's Image.transform computes them, for the CPU and for device code: centres
 * of pixels, cubic with a = -1, columns clamped, rows beyond the picture repeat the row before,
 * result clipped and truncated. */
#ifndef MIMIC_AFFINE_MATH_H
#define MIMIC_AFFINE_MATH_H

#include "image/pixel_math.h"

PIXEL_FN int mimic_floor(double v) {
    return v < 0.0 ? (int)floor(v) : (int)v;
}

PIXEL_FN double mimic_cubic(double v1, double v2, double v3, double v4, double d) {
    double p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
    return v2 + d * (p2 + d * (p3 + d * p4));
}

PIXEL_FN int mimic_within(int v, int n) {
    return v < 0 ? 0 : v < n ? v : n - 1;
}

/* src[h,w,3] at (xi, yi), already moved by half a pixel. The three channels are independent lanes
 * of the same arithmetic. */
PIXEL_FN void mimic_sample_bicubic(const uint8_t *src, int w, int h, double xi, double yi,
                                   uint8_t *out) {
    int x = mimic_floor(xi), y = mimic_floor(yi);
    double dx = xi - x, dy = yi - y, v[4][3];
    int at[4];
    for (int i = 0; i < 4; i++)
        at[i] = mimic_within(x - 1 + i, w) * 3;
    for (int i = 0; i < 4; i++) {
        int row = y - 1 + i;
        bool repeats = i > 0 && (row < 0 || row >= h);
        const uint8_t *p = src + (size_t)mimic_within(row, h) * (size_t)w * 3;
        const uint8_t *a = p + at[0], *b = p + at[1], *c = p + at[2], *d = p + at[3];
        for (int k = 0; k < 3; k++)
            v[i][k] = repeats ? v[i > 0 ? i - 1 : 0][k] : mimic_cubic(a[k], b[k], c[k], d[k], dx);
    }
    for (int k = 0; k < 3; k++) {
        double r = mimic_cubic(v[0][k], v[1][k], v[2][k], v[3][k], dy);
        out[k] = r <= 0.0 ? 0 : r >= 255.0 ? 255 : (uint8_t)r;
    }
}

PIXEL_FN void mimic_sample_bilinear(const uint8_t *src, int w, int h, double xi, double yi,
                                    uint8_t *out) {
    int x = mimic_floor(xi), y = mimic_floor(yi);
    double dx = xi - x, dy = yi - y;
    int a = mimic_within(x, w) * 3, b = mimic_within(x + 1, w) * 3;
    for (int c = 0; c < 3; c++) {
        const uint8_t *p = src + (size_t)mimic_within(y, h) * (size_t)w * 3 + c;
        double v1 = p[a] + (p[b] - p[a]) * dx, v2 = v1;
        if (y + 1 >= 0 && y + 1 < h) {
            p = src + (size_t)(y + 1) * (size_t)w * 3 + c;
            v2 = p[a] + (p[b] - p[a]) * dx;
        }
        out[c] = (uint8_t)(v1 + (v2 - v1) * dy);
    }
}

/* Pixel (x, y) of the warp of src[h,w,3] by the matrix m (image_impl.h). */
PIXEL_FN void mimic_warp_pixel(const uint8_t *src, int w, int h, const double m[6], int x, int y,
                               mimic_filter filter, const uint8_t fill[3], uint8_t *out) {
    double cx = x + 0.5, cy = y + 0.5;
    double xi = m[0] * cx + m[1] * cy + m[2], yi = m[3] * cx + m[4] * cy + m[5];
    if (!(xi >= 0.0 && xi < w && yi >= 0.0 && yi < h)) {
        for (int c = 0; c < 3; c++)
            out[c] = fill[c];
    } else if (filter == MIMIC_BICUBIC) {
        mimic_sample_bicubic(src, w, h, xi - 0.5, yi - 0.5, out);
    } else {
        mimic_sample_bilinear(src, w, h, xi - 0.5, yi - 0.5, out);
    }
}

/* The matrix of a warp with argument a; turn: cosine and sine of a rotation. */
PIXEL_FN void mimic_warp_matrix(int op, double a, const double turn[2], int w, int h, double m[6]) {
    m[0] = m[4] = 1;
    m[1] = m[2] = m[3] = m[5] = 0;
    if (op == MIMIC_AUG_ROTATE) {
        double cx = w / 2.0, cy = h / 2.0;
        m[0] = m[4] = turn[0];
        m[1] = turn[1];
        m[3] = -turn[1];
        m[2] = m[0] * -cx + m[1] * -cy + 0.0 + cx;
        m[5] = m[3] * -cx + m[4] * -cy + 0.0 + cy;
    } else {
        m[op == MIMIC_AUG_SHEAR_X       ? 1
          : op == MIMIC_AUG_SHEAR_Y     ? 3
          : op == MIMIC_AUG_TRANSLATE_X ? 2
                                        : 5] = a;
    }
}

#endif

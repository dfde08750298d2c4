/* The picture buffer: an 8-bit RGB array that is reused from sample to sample. */
#include "image/image_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIXELS ((int64_t)1 << 28)

mimic_status mimic_err_fail(mimic_err *err, mimic_status status, const char *fmt, ...) {
    if (err) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
    }
    return status;
}

void mimic_image_free(mimic_image *img) {
    if (!img)
        return;
    free(img->pixels);
    *img = (mimic_image){0};
}

mimic_status mimic_image_reserve(mimic_image *img, int width, int height, mimic_err *err) {
    if (width < 1 || height < 1 || (int64_t)width * height > MAX_PIXELS)
        return mimic_err_fail(err, MIMIC_EINVAL, "a picture of %d x %d pixels is refused", width,
                              height);
    size_t bytes = (size_t)width * (size_t)height * 3;
    if (bytes > img->capacity || !img->pixels) {
        uint8_t *pixels = malloc(bytes);
        if (!pixels)
            return mimic_err_fail(err, MIMIC_ENOMEM, "no memory for a picture of %d x %d pixels",
                                  width, height);
        free(img->pixels);
        img->pixels = pixels;
        img->capacity = bytes;
    }
    img->width = width;
    img->height = height;
    return MIMIC_OK;
}

mimic_status mimic_image_copy(mimic_image *dst, const mimic_image *src, mimic_err *err) {
    mimic_status s = mimic_image_reserve(dst, src->width, src->height, err);
    if (s == MIMIC_OK)
        memcpy(dst->pixels, src->pixels, (size_t)src->width * (size_t)src->height * 3);
    return s;
}

void mimic_image_swap(mimic_image *a, mimic_image *b) {
    mimic_image t = *a;
    *a = *b;
    *b = t;
}

void mimic_image_flip(mimic_image *img) {
    for (int y = 0; y < img->height; y++) {
        uint8_t *l = img->pixels + (size_t)y * (size_t)img->width * 3;
        uint8_t *r = l + (size_t)(img->width - 1) * 3;
        for (; l < r; l += 3, r -= 3)
            for (int c = 0; c < 3; c++) {
                uint8_t t = l[c];
                l[c] = r[c];
                r[c] = t;
            }
    }
}

mimic_status mimic_image_orient(mimic_image *img, mimic_image *tmp, int orientation,
                                mimic_err *err) {
    if (orientation < 2 || orientation > 8)
        return MIMIC_OK;
    /* Bits of what each value asks for: 1 mirror columns, 2 mirror rows (of the source), 4
     * transpose. */
    static const uint8_t what[9] = {0, 0, 1, 3, 2, 4, 6, 7, 5};
    int flags = what[orientation], w = img->width, h = img->height;
    bool transpose = (flags & 4) != 0;
    mimic_status s = mimic_image_reserve(tmp, transpose ? h : w, transpose ? w : h, err);
    if (s != MIMIC_OK)
        return s;
    uint8_t *out = tmp->pixels;
    for (int y = 0; y < tmp->height; y++)
        for (int x = 0; x < tmp->width; x++, out += 3) {
            int sx = transpose ? y : x, sy = transpose ? x : y;
            if (flags & 1)
                sx = w - 1 - sx;
            if (flags & 2)
                sy = h - 1 - sy;
            memcpy(out, img->pixels + ((size_t)sy * (size_t)w + (size_t)sx) * 3, 3);
        }
    mimic_image_swap(img, tmp);
    return MIMIC_OK;
}

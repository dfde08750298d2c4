/* Affine warps of whole pictures. */
#include "image/affine_math.h"
#include "image/image_impl.h"

mimic_status mimic_image_affine(const mimic_image *src, const double m[6], mimic_filter filter,
                                const uint8_t fill[3], mimic_image *dst, mimic_err *err) {
    mimic_status s = mimic_image_reserve(dst, src->width, src->height, err);
    if (s != MIMIC_OK)
        return s;
    uint8_t *out = dst->pixels;
    for (int y = 0; y < dst->height; y++)
        for (int x = 0; x < dst->width; x++, out += 3)
            mimic_warp_pixel(src->pixels, src->width, src->height, m, x, y, filter, fill, out);
    return MIMIC_OK;
}

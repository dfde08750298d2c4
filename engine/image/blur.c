/* Pillow's GaussianBlur: three box passes with fractional edges per axis, 8-bit between the passes
 * (method.md 6.4). */
#include "image/image_impl.h"

#include <math.h>
#include <string.h>

/* One box pass along lines of n pixels, `step` bytes apart; edges are repeated. */
static void box_line(const uint8_t *in, uint8_t *out, int n, size_t step, int radius, uint32_t ww,
                     uint32_t fw) {
    const int last = n - 1;
#define AT(i) in[(size_t)((i) < 0 ? 0 : (i) > last ? last : (i)) * step]
    uint32_t sum = 0; /* of the 2 radius + 1 inner pixels */
    for (int i = -radius; i <= radius; i++)
        sum += AT(i);
    for (int x = 0; x < n; x++) {
        uint32_t far = (uint32_t)AT(x - radius - 1) + AT(x + radius + 1);
        out[(size_t)x * step] = (uint8_t)((sum * ww + far * fw + (1u << 23)) >> 24);
        sum += (uint32_t)AT(x + radius + 1) - AT(x - radius);
    }
#undef AT
}

mimic_status mimic_image_blur(mimic_image *img, mimic_image *tmp, double sigma, mimic_err *err) {
    float radius = (float)sigma, sigma2 = radius * radius / 3;
    float length = (float)sqrt(12.0 * sigma2 + 1.0);
    float l = (float)floor((length - 1.0) / 2.0);
    float a = (2 * l + 1) * (l * (l + 1) - 3 * sigma2);
    a /= 6 * (sigma2 - (l + 1) * (l + 1));
    float box = l + a;
    if (!(box > 0.0f))
        return MIMIC_OK;
    if (box > 4096.0f)
        return mimic_err_fail(err, MIMIC_EINVAL, "blur: sigma %g is too large", sigma);
    mimic_status s = mimic_image_reserve(tmp, img->width, img->height, err);
    if (s != MIMIC_OK)
        return s;
    int r = (int)box, w = img->width, h = img->height;
    uint32_t ww = (uint32_t)((float)(1u << 24) / (box * 2 + 1));
    uint32_t fw = ((1u << 24) - (uint32_t)(2 * r + 1) * ww) / 2;
    for (int pass = 0; pass < 6; pass++) {
        bool rows = pass < 3;
        size_t line = rows ? (size_t)w * 3 : 3, step = rows ? 3 : (size_t)w * 3;
        for (int i = 0; i < (rows ? h : w); i++)
            for (size_t c = 0; c < 3; c++)
                box_line(img->pixels + (size_t)i * line + c, tmp->pixels + (size_t)i * line + c,
                         rows ? w : h, step, r, ww, fw);
        mimic_image_swap(img, tmp);
    }
    return MIMIC_OK;
}

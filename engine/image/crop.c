/* Geometry of RandomResizedCrop (method.md 6.2) and random erasing (6.7). */
#include "image/image_impl.h"

#include <math.h>

static const double whole[2] = {0.08, 1.0}, usual[2] = {3.0 / 4.0, 4.0 / 3.0};

bool mimic_crop_attempt(int width, int height, const double scale[2], const double ratio[2],
                        double u_area, double u_ratio, int *w, int *h) {
    double area = (scale[0] + (scale[1] - scale[0]) * u_area) * ((double)width * height);
    double lo = log(ratio[0]), hi = log(ratio[1]), r = exp(lo + (hi - lo) * u_ratio);
    double fw = nearbyint(sqrt(area * r)), fh = nearbyint(sqrt(area / r));
    if (!(fw > 0 && fw <= width && fh > 0 && fh <= height))
        return false;
    *w = (int)fw;
    *h = (int)fh;
    return true;
}

void mimic_crop_fallback(int width, int height, const double ratio[2], int *left, int *top, int *w,
                         int *h) {
    double r = (double)width / height;
    *w = width;
    *h = height;
    if (r < ratio[0])
        *h = (int)nearbyint(width / ratio[0]);
    else if (r > ratio[1])
        *w = (int)nearbyint(height * ratio[1]);
    *w = *w < 1 ? 1 : *w > width ? width : *w;
    *h = *h < 1 ? 1 : *h > height ? height : *h;
    *top = (height - *h) / 2;
    *left = (width - *w) / 2;
}

void mimic_crop_draw(mimic_rng *rng, int width, int height, const double scale[2],
                     const double ratio[2], int *left, int *top, int *w, int *h) {
    if (!scale || !(scale[1] > 0))
        scale = whole;
    if (!ratio || !(ratio[0] > 0))
        ratio = usual;
    for (int i = 0; i < 10; i++) {
        double u_area = mimic_rng_uniform(rng), u_ratio = mimic_rng_uniform(rng);
        if (mimic_crop_attempt(width, height, scale, ratio, u_area, u_ratio, w, h)) {
            *top = (int)mimic_rng_below(rng, (uint32_t)(height - *h) + 1);
            *left = (int)mimic_rng_below(rng, (uint32_t)(width - *w) + 1);
            return;
        }
    }
    mimic_crop_fallback(width, height, ratio, left, top, w, h);
}

bool mimic_erase_draw(int size, double p, mimic_rng *rng, int *left, int *top, int *w, int *h) {
    if (!(p > 0) || mimic_rng_uniform(rng) >= p)
        return false;
    double limit = log(1 / 0.3);
    for (int i = 0; i < 10; i++) {
        double area = (0.02 + (1.0 / 3 - 0.02) * mimic_rng_uniform(rng)) * size * size;
        double aspect = exp(limit * (2 * mimic_rng_uniform(rng) - 1));
        *h = (int)nearbyint(sqrt(area * aspect));
        *w = (int)nearbyint(sqrt(area / aspect));
        if (*h >= size || *w >= size)
            continue;
        *top = (int)mimic_rng_below(rng, (uint32_t)(size - *h) + 1);
        *left = (int)mimic_rng_below(rng, (uint32_t)(size - *w) + 1);
        return true;
    }
    return false;
}

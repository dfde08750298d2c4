/* What the picture files share: messages of worker threads, the steps of the transform program.
 * Nothing here knows a context: everything runs in loader threads. */
#ifndef MIMIC_IMAGE_IMPL_H
#define MIMIC_IMAGE_IMPL_H

#include "image/pixel_math.h"
#include "image/plan.h"
#include "mimic/image.h"

/* Writes the message (cut to the buffer) and returns `status`. err may be NULL. */
mimic_status mimic_err_fail(mimic_err *err, mimic_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "a PNG" by the first bytes of a file, NULL when they say nothing. */
const char *mimic_image_kind(const uint8_t *data, size_t size);
mimic_status mimic_image_copy(mimic_image *dst, const mimic_image *src, mimic_err *err);
void mimic_image_swap(mimic_image *a, mimic_image *b);

/* Applies EXIF orientation 2-8 to img, by way of tmp; 1 and unknown values change nothing. */
mimic_status mimic_image_orient(mimic_image *img, mimic_image *tmp, int orientation,
                                mimic_err *err);

/* Cosine and sine of Pillow's rotation. */
void mimic_rotation(double degrees, double turn[2]);
/* Affine warp of src into dst (of the same size): output pixel (x,y) samples
 * (m0 (x+.5) + m1 (y+.5) + m2, m3 (x+.5) + m4 (y+.5) + m5), `fill` outside; method.md 6.3. */
mimic_status mimic_image_affine(const mimic_image *src, const double m[6], mimic_filter filter,
                                const uint8_t fill[3], mimic_image *dst, mimic_err *err);

/* Look-up operators (pixel by pixel): autocontrast to solarize_add. */
void mimic_image_autocontrast(mimic_image *img);
void mimic_image_equalize(mimic_image *img);
void mimic_image_invert(mimic_image *img);
void mimic_image_posterize(mimic_image *img, int bits);
void mimic_image_solarize(mimic_image *img, int threshold);
void mimic_image_solarize_add(mimic_image *img, int amount, int threshold);

/* Enhancements: blends trunc(clip(g + f (x - g))) in fp32 with a degenerate picture g. */
void mimic_image_color(mimic_image *img, float f);
void mimic_image_contrast(mimic_image *img, float f);
void mimic_image_brightness(mimic_image *img, float f);
mimic_status mimic_image_sharpness(mimic_image *img, mimic_image *tmp, float f, mimic_err *err);
void mimic_image_hue(mimic_image *img, double f);
void mimic_image_grey(mimic_image *img);
mimic_status mimic_image_blur(mimic_image *img, mimic_image *tmp, double sigma, mimic_err *err);

/* mimic_image_augment with the caller's scratch picture. */
mimic_status mimic_augment_run(mimic_image *img, mimic_image *tmp, mimic_aug op, double a, double b,
                               mimic_filter filter, const uint8_t fill[3], mimic_err *err);

/* Size of one attempt of RandomResizedCrop from its two uniforms; false: does not fit. */
bool mimic_crop_attempt(int width, int height, const double scale[2], const double ratio[2],
                        double u_area, double u_ratio, int *w, int *h);
/* The central crop taken after ten attempts that did not fit. */
void mimic_crop_fallback(int width, int height, const double ratio[2], int *left, int *top, int *w,
                         int *h);
/* The rectangle of random erasing (method.md 6.7); false: none. */
bool mimic_erase_draw(int size, double p, mimic_rng *rng, int *left, int *top, int *w, int *h);

#endif

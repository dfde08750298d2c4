/* Pictures: decoding, Pillow-exact resizing, augmentations. 8-bit RGB, rows top to bottom, [H,W,3].
 * None of these functions touches the tensor pool; all are thread-safe. Errors go to `err`. */
#ifndef MIMIC_IMAGE_H
#define MIMIC_IMAGE_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A message buffer for code that runs in worker threads, where the context must not be touched. */
typedef struct mimic_err {
    char text[512];
} mimic_err;

typedef struct mimic_image {
    int width, height;
    uint8_t *pixels; /* [height,width,3], malloc'ed; NULL when empty */
    size_t capacity; /* bytes allocated: images are reused */
} mimic_image;

void mimic_image_free(mimic_image *img);
/* Makes room for width x height; keeps the allocation when large enough. */
mimic_status mimic_image_reserve(mimic_image *img, int width, int height, mimic_err *err);

/* Decodes a JPEG held in memory: grey and CMYK/YCCK become RGB, EXIF orientation is applied,
 * progressive is fine. A damaged or truncated file is MIMIC_EFORMAT, never a crash (libjpeg's
 * warnings count as damage); `name` (a path) starts every message. Pictures of more than 2^28
 * pixels, and headers that promise more pixels than the bytes can hold, are refused. */
mimic_status mimic_jpeg_decode(const uint8_t *data, size_t size, const char *name, mimic_image *out,
                               mimic_err *err);
/* Baseline JPEG of quality 1-100; *data is malloc'ed. */
mimic_status mimic_jpeg_encode(const mimic_image *img, int quality, uint8_t **data, size_t *size,
                               mimic_err *err);
const char *mimic_jpeg_version(void); /* "libjpeg-turbo 2.1.5" */
/* The same for PNG of every kind: 8 bits of each channel, gamma and transparency ignored, as
 * Pillow's convert("RGB") has it. `grey` writes one channel. */
mimic_status mimic_png_decode(const uint8_t *data, size_t size, const char *name, mimic_image *out,
                              mimic_err *err);
mimic_status mimic_png_encode(const mimic_image *img, bool grey, uint8_t **data, size_t *size,
                              mimic_err *err);
/* Decodes what the first bytes say it is, JPEG or PNG: ImageNet has a PNG under a .JPEG name. */
mimic_status mimic_image_decode(const uint8_t *data, size_t size, const char *name,
                                mimic_image *out, mimic_err *err);
mimic_status mimic_image_read(const char *path, mimic_image *out, mimic_err *err);

typedef enum mimic_filter { MIMIC_BILINEAR, MIMIC_BICUBIC } mimic_filter;

/* Crops to the box (left, top, w, h), then Pillow 9.4's Image.resize: bit-exact (method.md 6.3).
 * Pixels outside of the box have no part in the result. Only the rows that the result needs are
 * filtered. out != src. */
mimic_status mimic_image_resize(const mimic_image *src, int left, int top, int w, int h, int out_w,
                                int out_h, mimic_filter filter, mimic_image *out, mimic_err *err);
void mimic_image_flip(mimic_image *img); /* left-right, in place */

/* The single augmentation operators with fixed arguments (method.md 6.4, 6.5), in place. Arguments
 * outside of an operator's range are MIMIC_EINVAL; fill NULL is black. The first fifteen are
 * RandAugment's. */
typedef enum mimic_aug {
    MIMIC_AUG_AUTOCONTRAST,
    MIMIC_AUG_EQUALIZE,
    MIMIC_AUG_INVERT,
    MIMIC_AUG_ROTATE,       /* a = degrees */
    MIMIC_AUG_POSTERIZE,    /* a = bits kept */
    MIMIC_AUG_SOLARIZE,     /* a = threshold */
    MIMIC_AUG_SOLARIZE_ADD, /* a = amount, b = threshold (128) */
    MIMIC_AUG_COLOR,
    MIMIC_AUG_CONTRAST,
    MIMIC_AUG_BRIGHTNESS,
    MIMIC_AUG_SHARPNESS, /* a = factor */
    MIMIC_AUG_SHEAR_X,
    MIMIC_AUG_SHEAR_Y, /* a = factor */
    MIMIC_AUG_TRANSLATE_X,
    MIMIC_AUG_TRANSLATE_Y, /* a = pixels */
    MIMIC_AUG_HUE,         /* a = fraction of the circle, -0.5..0.5 */
    MIMIC_AUG_GREY,
    MIMIC_AUG_BLUR, /* a = sigma of Pillow's GaussianBlur */
    MIMIC_AUG_COUNT
} mimic_aug;
const char *mimic_aug_name(mimic_aug op); /* "autocontrast" */
mimic_status mimic_image_augment(mimic_image *img, mimic_aug op, double a, double b,
                                 mimic_filter filter, const uint8_t fill[3], mimic_err *err);

/* A validated transform program: what happens to one picture between file and batch. All zero =
 * resize to `size` only. Order as method.md 6.1. */
typedef struct mimic_transform {
    int size;         /* output is size x size */
    int pre_resize;   /* first resize to this square (bilinear); 0 = off */
    bool crop;        /* RandomResizedCrop, else plain resize (or resize_short + centre crop) */
    int resize_short; /* evaluation on ImageNet: short side to this, then centre crop; 0 = off */
    double scale[2];  /* crop area, e.g. 0.2..1 */
    double ratio[2];  /* crop aspect, 3/4..4/3 when zero */
    mimic_filter filter;
    double flip;                /* probability */
    double jitter[4], jitter_p; /* brightness, contrast, saturation, hue */
    double grey_p, blur_p, blur_sigma[2], solarize_p;
    int randaugment_n;                     /* operators per picture, 0 = off */
    double randaugment_m, randaugment_std; /* 9, 0.5 */
    double erase_p;                        /* random erasing, pixel mode */
    double mean[3], std[3];                /* of pixels / 255; std zero = ImageNet's both */
} mimic_transform;
mimic_status mimic_transform_check(const mimic_transform *t, mimic_err *err);

/* Geometry of RandomResizedCrop for a W x H picture, drawn from rng. */
void mimic_crop_draw(mimic_rng *rng, int width, int height, const double scale[2],
                     const double ratio[2], int *left, int *top, int *w, int *h);

/* Scratch of one thread for mimic_transform_apply; zero-initialise, free at the end. */
typedef struct mimic_transform_scratch {
    mimic_image a, b, c;
} mimic_transform_scratch;
void mimic_transform_scratch_free(mimic_transform_scratch *s);
/* Runs the program on `src` with the numbers of rng; writes normalised floats [3,size,size]. */
mimic_status mimic_transform_apply(const mimic_transform *t, const mimic_image *src, mimic_rng *rng,
                                   mimic_transform_scratch *s, float *out, mimic_err *err);

/* Draws for the synthetic sets (`mimic data synth`): a picture of class `label`, 8 to 1024 pixels
 * square, from (seed, index, label) alone. */
mimic_status mimic_synth_general(uint64_t seed, uint32_t index, int label, int size,
                                 mimic_image *out, mimic_err *err);
mimic_status mimic_synth_face(uint64_t seed, uint32_t index, int label, int size, mimic_image *out,
                              mimic_err *err);
#define MIMIC_SYNTH_GENERAL_CLASSES 12
#define MIMIC_SYNTH_FACE_CLASSES                                                                   \
    7 /* RAF-DB order: surprise fear disgust happiness sadness anger neutral */

#ifdef __cplusplus
}
#endif
#endif

/* The augmentation operators by name and argument (method.md 6.4, 6.5).
 * Arguments are checked here, so the operators themselves cannot fail but for memory. */
#include "image/affine_math.h"
#include "image/image_impl.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* Range of the argument a of every operator. */
static const struct {
    const char *name;
    double lo, hi;
} ops[MIMIC_AUG_COUNT] = {
    [MIMIC_AUG_AUTOCONTRAST] = {"autocontrast", 0, 0},
    [MIMIC_AUG_EQUALIZE] = {"equalize", 0, 0},
    [MIMIC_AUG_INVERT] = {"invert", 0, 0},
    [MIMIC_AUG_ROTATE] = {"rotate", -1e6, 1e6},
    [MIMIC_AUG_POSTERIZE] = {"posterize", 0, 8},
    [MIMIC_AUG_SOLARIZE] = {"solarize", 0, 256},
    [MIMIC_AUG_SOLARIZE_ADD] = {"solarize_add", -255, 255},
    [MIMIC_AUG_COLOR] = {"color", -100, 100},
    [MIMIC_AUG_CONTRAST] = {"contrast", -100, 100},
    [MIMIC_AUG_BRIGHTNESS] = {"brightness", -100, 100},
    [MIMIC_AUG_SHARPNESS] = {"sharpness", -100, 100},
    [MIMIC_AUG_SHEAR_X] = {"shear_x", -100, 100},
    [MIMIC_AUG_SHEAR_Y] = {"shear_y", -100, 100},
    [MIMIC_AUG_TRANSLATE_X] = {"translate_x", -1e6, 1e6},
    [MIMIC_AUG_TRANSLATE_Y] = {"translate_y", -1e6, 1e6},
    [MIMIC_AUG_HUE] = {"hue", -0.5, 0.5},
    [MIMIC_AUG_GREY] = {"grey", 0, 0},
    [MIMIC_AUG_BLUR] = {"blur", 0, 1000},
};

const char *mimic_aug_name(mimic_aug op) {
    return (int)op >= 0 && op < MIMIC_AUG_COUNT ? ops[op].name : "unknown";
}

/* Pillow rounds the matrix of a rotation to 15 decimals. */
static double round15(double v) {
    return nearbyint(v * 1e15) / 1e15;
}

void mimic_rotation(double degrees, double turn[2]) {
    degrees = fmod(degrees, 360.0);
    if (degrees < 0)
        degrees += 360.0;
    double t = -(degrees * (pi / 180.0));
    turn[0] = round15(cos(t));
    turn[1] = round15(sin(t));
}

static mimic_status warp(mimic_image *img, mimic_image *tmp, mimic_aug op, double a,
                         mimic_filter filter, const uint8_t fill[3], mimic_err *err) {
    static const uint8_t black[3];
    double m[6], turn[2];
    mimic_rotation(a, turn);
    mimic_warp_matrix(op, a, turn, img->width, img->height, m);
    mimic_status s = mimic_image_affine(img, m, filter, fill ? fill : black, tmp, err);
    if (s == MIMIC_OK)
        mimic_image_swap(img, tmp);
    return s;
}

mimic_status mimic_augment_run(mimic_image *img, mimic_image *tmp, mimic_aug op, double a, double b,
                               mimic_filter filter, const uint8_t fill[3], mimic_err *err) {
    if ((int)op < 0 || op >= MIMIC_AUG_COUNT)
        return mimic_err_fail(err, MIMIC_EINVAL, "unknown augmentation %d", (int)op);
    bool takes = ops[op].lo < ops[op].hi;
    if (takes && !(a >= ops[op].lo && a <= ops[op].hi))
        return mimic_err_fail(err, MIMIC_EINVAL, "%s: argument %g is outside of %g to %g",
                              ops[op].name, a, ops[op].lo, ops[op].hi);
    if (op == MIMIC_AUG_SOLARIZE_ADD && !(b >= 0 && b <= 256))
        return mimic_err_fail(err, MIMIC_EINVAL, "%s: threshold %g is outside of 0 to 256",
                              ops[op].name, b);
    if (!img->pixels)
        return mimic_err_fail(err, MIMIC_EINVAL, "%s: the picture is empty", ops[op].name);
    switch (op) {
    case MIMIC_AUG_AUTOCONTRAST:
        mimic_image_autocontrast(img);
        break;
    case MIMIC_AUG_EQUALIZE:
        mimic_image_equalize(img);
        break;
    case MIMIC_AUG_INVERT:
        mimic_image_invert(img);
        break;
    case MIMIC_AUG_POSTERIZE:
        mimic_image_posterize(img, (int)a);
        break;
    case MIMIC_AUG_SOLARIZE:
        mimic_image_solarize(img, (int)ceil(a));
        break;
    case MIMIC_AUG_SOLARIZE_ADD:
        mimic_image_solarize_add(img, (int)a, (int)ceil(b));
        break;
    case MIMIC_AUG_COLOR:
        mimic_image_color(img, (float)a);
        break;
    case MIMIC_AUG_CONTRAST:
        mimic_image_contrast(img, (float)a);
        break;
    case MIMIC_AUG_BRIGHTNESS:
        mimic_image_brightness(img, (float)a);
        break;
    case MIMIC_AUG_SHARPNESS:
        return mimic_image_sharpness(img, tmp, (float)a, err);
    case MIMIC_AUG_HUE:
        mimic_image_hue(img, a);
        break;
    case MIMIC_AUG_GREY:
        mimic_image_grey(img);
        break;
    case MIMIC_AUG_BLUR:
        return mimic_image_blur(img, tmp, a, err);
    default:
        return warp(img, tmp, op, a, filter, fill, err);
    }
    return MIMIC_OK;
}

mimic_status mimic_image_augment(mimic_image *img, mimic_aug op, double a, double b,
                                 mimic_filter filter, const uint8_t fill[3], mimic_err *err) {
    mimic_image tmp = {0};
    mimic_status s = mimic_augment_run(img, &tmp, op, a, b, filter, fill, err);
    mimic_image_free(&tmp);
    return s;
}

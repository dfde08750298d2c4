/* Augmentation operators (properties; Pillow's results are compared by the golden tests), crops,
 * transform programs. */
#include "data_util.h"

#include <math.h>

static mimic_err err;
static const uint8_t fill[3] = {124, 116, 104};

static void run(mimic_image *img, mimic_aug op, double a, double b) {
    if (mimic_image_augment(img, op, a, b, MIMIC_BICUBIC, fill, &err) != MIMIC_OK)
        fail_msg("%s: %s", mimic_aug_name(op), err.text);
}

static void noise(mimic_image *img, int w, int h) {
    mimic_rng rng;
    mimic_rng_init(&rng, 5, 0, (uint64_t)(w * 1000 + h));
    assert_int_equal(mimic_image_reserve(img, w, h, &err), MIMIC_OK);
    for (int i = 0; i < w * h * 3; i++)
        img->pixels[i] = (uint8_t)mimic_rng_u32(&rng);
}

/* Operators that change nothing with these arguments. */
static void test_identities(void **state) {
    (void)state;
    static const struct {
        mimic_aug op;
        double a;
    } same[] = {{MIMIC_AUG_ROTATE, 0},      {MIMIC_AUG_ROTATE, 360},     {MIMIC_AUG_POSTERIZE, 8},
                {MIMIC_AUG_SOLARIZE, 256},  {MIMIC_AUG_SOLARIZE_ADD, 0}, {MIMIC_AUG_COLOR, 1},
                {MIMIC_AUG_CONTRAST, 1},    {MIMIC_AUG_BRIGHTNESS, 1},   {MIMIC_AUG_SHARPNESS, 1},
                {MIMIC_AUG_SHEAR_X, 0},     {MIMIC_AUG_SHEAR_Y, 0},      {MIMIC_AUG_TRANSLATE_X, 0},
                {MIMIC_AUG_TRANSLATE_Y, 0}, {MIMIC_AUG_BLUR, 0}};
    mimic_image a = {0}, b = {0};
    noise(&a, 23, 17);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        noise(&b, 23, 17);
        run(&b, same[i].op, same[i].a, 128);
        if (memcmp(a.pixels, b.pixels, 23 * 17 * 3))
            fail_msg("%s changes the picture", mimic_aug_name(same[i].op));
    }
    noise(&b, 23, 17);
    run(&b, MIMIC_AUG_INVERT, 0, 0);
    run(&b, MIMIC_AUG_INVERT, 0, 0);
    assert_memory_equal(a.pixels, b.pixels, 23 * 17 * 3);
    run(&b, MIMIC_AUG_TRANSLATE_X, 4, 0); /* whole pixels: moved, filled at the right */
    assert_memory_equal(b.pixels, a.pixels + 12, 3 * 19);
    assert_memory_equal(b.pixels + 3 * 22, fill, 3);
    mimic_image_free(&a);
    mimic_image_free(&b);
}

static void test_values(void **state) {
    (void)state;
    mimic_image img = {0};
    assert_int_equal(mimic_image_reserve(&img, 2, 1, &err), MIMIC_OK);
    const uint8_t px[6] = {10, 20, 30, 200, 100, 50};
    struct {
        mimic_aug op;
        double a;
        uint8_t want[6];
    } cases[] = {{MIMIC_AUG_INVERT, 0, {245, 235, 225, 55, 155, 205}},
                 {MIMIC_AUG_POSTERIZE, 2, {0, 0, 0, 192, 64, 0}},
                 {MIMIC_AUG_SOLARIZE, 60, {10, 20, 30, 55, 155, 50}},
                 {MIMIC_AUG_SOLARIZE_ADD, 110, {120, 130, 140, 200, 210, 160}},
                 {MIMIC_AUG_AUTOCONTRAST, 0, {0, 0, 0, 255, 255, 255}},
                 {MIMIC_AUG_BRIGHTNESS, 1.5, {15, 30, 45, 255, 150, 75}},
                 {MIMIC_AUG_GREY, 0, {18, 18, 18, 124, 124, 124}},
                 {MIMIC_AUG_COLOR, 0, {18, 18, 18, 124, 124, 124}},
                 {MIMIC_AUG_CONTRAST, 0, {71, 71, 71, 71, 71, 71}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(img.pixels, px, 6);
        run(&img, cases[i].op, cases[i].a, 128);
        if (memcmp(img.pixels, cases[i].want, 6))
            fail_msg("%s: %d %d %d %d %d %d", mimic_aug_name(cases[i].op), img.pixels[0],
                     img.pixels[1], img.pixels[2], img.pixels[3], img.pixels[4], img.pixels[5]);
    }
    mimic_image_free(&img);
}

/* Every operator on tiny and odd pictures, at the ends of its range. */
static void test_all_sizes(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {2, 1}, {1, 9}, {3, 3}, {16, 5}, {64, 64}};
    mimic_image img = {0};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int op = 0; op < MIMIC_AUG_COUNT; op++)
            for (int i = 0; i < 3; i++) {
                const double a[3] = {0, 0.5, op == MIMIC_AUG_HUE ? -0.5 : 5};
                noise(&img, sizes[k][0], sizes[k][1]);
                run(&img, (mimic_aug)op, a[i], 128);
                assert_int_equal(img.width, sizes[k][0]);
                assert_int_equal(img.height, sizes[k][1]);
            }
    assert_int_equal(
        mimic_image_augment(&img, MIMIC_AUG_POSTERIZE, 9, 0, MIMIC_BICUBIC, fill, &err),
        MIMIC_EINVAL);
    assert_int_equal(mimic_image_augment(&img, MIMIC_AUG_ROTATE, NAN, 0, MIMIC_BICUBIC, fill, &err),
                     MIMIC_EINVAL);
    assert_int_equal(mimic_image_augment(&img, MIMIC_AUG_COUNT, 0, 0, MIMIC_BICUBIC, fill, &err),
                     MIMIC_EINVAL);
    mimic_image_free(&img);
}

static void test_crop(void **state) {
    (void)state;
    const double scale[2] = {0.2, 1}, ratio[2] = {3.0 / 4, 4.0 / 3};
    mimic_rng rng;
    mimic_rng_init(&rng, 3, 1, 4);
    double area = 0;
    for (int i = 0; i < 4000; i++) {
        int left, top, w, h;
        mimic_crop_draw(&rng, 200, 150, scale, ratio, &left, &top, &w, &h);
        assert_true(left >= 0 && top >= 0 && w > 0 && h > 0 && left + w <= 200 && top + h <= 150);
        assert_true((double)w / h > 0.74 && (double)w / h < 1.36);
        area += (double)w * h / 30000 / 4000;
    }
    assert_true(area > 0.45 && area < 0.6);
    /* Far from any allowed aspect: the central crop. */
    int left, top, w, h;
    mimic_crop_draw(&rng, 1000, 10, (double[2]){0.9, 1}, ratio, &left, &top, &w, &h);
    assert_true(h == 10 && w == 13 && left == 493 && top == 0);
    mimic_crop_draw(&rng, 1, 1, NULL, NULL, &left, &top, &w, &h);
    assert_true(w == 1 && h == 1);
}

static void test_transform_check(void **state) {
    (void)state;
    const mimic_transform good = {.size = 32};
    assert_int_equal(mimic_transform_check(&good, &err), MIMIC_OK);
#define BAD(part, ...)                                                                             \
    do {                                                                                           \
        mimic_transform t = {.size = 32, __VA_ARGS__};                                             \
        assert_int_equal(mimic_transform_check(&t, &err), MIMIC_EINVAL);                           \
        if (!strstr(err.text, part))                                                               \
            fail_msg("\"%s\" is not in \"%s\"", part, err.text);                                   \
    } while (0)
    BAD("flip", .flip = 1.5);
    BAD("flip", .flip = NAN);
    BAD("scale", .scale = {0.5, 0.2});
    BAD("jitter[4]", .jitter = {0, 0, 0, 0.6});
    BAD("resize_short", .resize_short = 16);
    BAD("exclude", .resize_short = 64, .crop = true);
    BAD("exclude", .randaugment_n = 2, .jitter = {0.4}, .jitter_p = 1);
    BAD("filter", .filter = (mimic_filter)7);
    BAD("std", .std = {1, 0, 1});
    mimic_transform t = {.size = 0};
    assert_int_equal(mimic_transform_check(&t, &err), MIMIC_EINVAL);
}

static void apply(const mimic_transform *t, const mimic_image *src, uint64_t seed, float *out) {
    mimic_transform_scratch s = {0};
    mimic_rng rng;
    mimic_rng_init(&rng, seed, 0, 0);
    if (mimic_transform_apply(t, src, &rng, &s, out, &err) != MIMIC_OK)
        fail_msg("%s", err.text);
    mimic_transform_scratch_free(&s);
}

static void test_transform(void **state) {
    (void)state;
    mimic_image src = {0};
    float a[3 * 16 * 16], b[3 * 16 * 16];
    noise(&src, 16, 16);
    /* Nothing but normalisation; mean and std default to ImageNet's. */
    apply(&(mimic_transform){.size = 16}, &src, 1, a);
    assert_float_equal(a[0], (src.pixels[0] / 255.0 - 0.485) / 0.229, 1e-5);
    assert_float_equal(a[256 + 17], (src.pixels[17 * 3 + 1] / 255.0 - 0.456) / 0.224, 1e-5);
    apply(&(mimic_transform){.size = 16, .flip = 1, .mean = {0}, .std = {1, 1, 1}}, &src, 1, b);
    assert_float_equal(b[15], src.pixels[0] / 255.0, 1e-6);
    /* Resize, short side then centre: 20 x 40 -> 16 x 32 -> the middle 16 x 16. */
    fill_image(&src, 20, 40, 0);
    apply(&(mimic_transform){.size = 16, .resize_short = 16, .std = {1, 1, 1}}, &src, 1, a);
    assert_true(a[256] > 0.23 && a[256] < 0.29 && a[2 * 256 - 1] > 0.68 && a[2 * 256 - 1] < 0.78);
    /* The same seed gives the same picture, another seed another one; no operator leaves the range.
     */
    mimic_transform full = {.size = 16,
                            .pre_resize = 24,
                            .crop = true,
                            .scale = {0.2, 1},
                            .flip = 0.5,
                            .filter = MIMIC_BICUBIC,
                            .randaugment_n = 2,
                            .randaugment_m = 9,
                            .randaugment_std = 0.5,
                            .std = {1, 1, 1}};
    mimic_transform moco = {.size = 16,
                            .crop = true,
                            .jitter = {0.4, 0.4, 0.2, 0.1},
                            .jitter_p = 0.8,
                            .grey_p = 0.2,
                            .blur_p = 0.5,
                            .blur_sigma = {0.1, 2},
                            .solarize_p = 0.2,
                            .erase_p = 0,
                            .std = {1, 1, 1}};
    int changed = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        const mimic_transform *t = seed % 2 ? &full : &moco;
        apply(t, &src, seed, a);
        apply(t, &src, seed, b);
        assert_memory_equal(a, b, sizeof a);
        apply(t, &src, seed + 1000, b);
        changed += memcmp(a, b, sizeof a) != 0;
        for (int i = 0; i < 3 * 256; i++)
            assert_true(a[i] >= 0 && a[i] <= 1);
    }
    assert_true(changed > 195);
    /* Erasing puts normal noise into a box. */
    int erased = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        apply(&(mimic_transform){.size = 16, .erase_p = 0.25, .std = {1, 1, 1}}, &src, seed, a);
        bool outside = false;
        for (int i = 0; i < 3 * 256; i++)
            outside |= a[i] < 0 || a[i] > 1;
        erased += outside;
    }
    assert_true(erased > 8 && erased < 45);
    mimic_image_free(&src);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identities),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_all_sizes),       cmocka_unit_test(test_crop),
        cmocka_unit_test(test_transform_check), cmocka_unit_test(test_transform),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

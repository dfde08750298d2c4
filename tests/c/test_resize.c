/* Resampling against a plain transcription of method.md 6.3, in doubles and 64-bit sums. (The
 * golden file of Pillow's results is compared by the golden tests.) */
#include "data_util.h"

#include <math.h>

static mimic_err err;

static double weight(mimic_filter filter, double x) {
    x = fabs(x);
    if (filter == MIMIC_BILINEAR)
        return x < 1 ? 1 - x : 0;
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

/* One pass along an axis of `in` samples that lie `step` bytes apart. */
static void pass(const uint8_t *src, size_t step, int in, uint8_t *dst, size_t dst_step, int out,
                 mimic_filter filter) {
    double scale = (double)in / out, fs = scale > 1 ? scale : 1;
    double support = (filter == MIMIC_BILINEAR ? 1 : 2) * fs;
    for (int o = 0; o < out; o++) {
        double c = (o + 0.5) * scale, sum = 0;
        int lo = (int)fmax(0, c - support + 0.5), hi = (int)fmin(in, c + support + 0.5);
        int64_t acc = 1 << 21;
        for (int x = lo; x < hi; x++)
            sum += weight(filter, (x - c + 0.5) * (1 / fs));
        for (int x = lo; x < hi; x++)
            acc += (int64_t)round(weight(filter, (x - c + 0.5) * (1 / fs)) / sum * (1 << 22)) *
                   src[(size_t)x * step];
        acc >>= 22;
        dst[(size_t)o * dst_step] = (uint8_t)(acc < 0 ? 0 : acc > 255 ? 255 : acc);
    }
}

static void reference(const mimic_image *src, int left, int top, int w, int h, int out_w, int out_h,
                      mimic_filter filter, uint8_t *out) {
    uint8_t *between = malloc((size_t)h * (size_t)out_w * 3);
    for (int y = 0; y < h; y++)
        for (int c = 0; c < 3; c++) {
            const uint8_t *in = src->pixels + ((top + y) * src->width + left) * 3 + c;
            uint8_t *to = between + y * out_w * 3 + c;
            if (w != out_w)
                pass(in, 3, w, to, 3, out_w, filter);
            else
                for (int x = 0; x < w; x++)
                    to[x * 3] = in[x * 3];
        }
    if (h == out_h)
        memcpy(out, between, (size_t)h * (size_t)out_w * 3);
    else
        for (int i = 0; i < out_w * 3; i++)
            pass(between + i, (size_t)out_w * 3, h, out + i, (size_t)out_w * 3, out_h, filter);
    free(between);
}

static void test_against_reference(void **state) {
    (void)state;
    mimic_rng rng;
    mimic_image src = {0}, got = {0};
    mimic_rng_init(&rng, 11, 0, 0);
    for (int round = 0; round < 300; round++) {
        int width = 1 + (int)mimic_rng_below(&rng, 90), height = 1 + (int)mimic_rng_below(&rng, 90);
        assert_int_equal(mimic_image_reserve(&src, width, height, &err), MIMIC_OK);
        for (int i = 0; i < width * height * 3; i++)
            src.pixels[i] = (uint8_t)mimic_rng_u32(&rng);
        int left = (int)mimic_rng_below(&rng, (uint32_t)width);
        int top = (int)mimic_rng_below(&rng, (uint32_t)height);
        int w = 1 + (int)mimic_rng_below(&rng, (uint32_t)(width - left));
        int h = 1 + (int)mimic_rng_below(&rng, (uint32_t)(height - top));
        int out_w = round % 7 == 0 ? w : 1 + (int)mimic_rng_below(&rng, 120);
        int out_h = round % 5 == 0 ? h : 1 + (int)mimic_rng_below(&rng, 120);
        mimic_filter filter = round % 2 ? MIMIC_BICUBIC : MIMIC_BILINEAR;
        assert_int_equal(
            mimic_image_resize(&src, left, top, w, h, out_w, out_h, filter, &got, &err), MIMIC_OK);
        uint8_t *want = malloc((size_t)out_w * (size_t)out_h * 3);
        reference(&src, left, top, w, h, out_w, out_h, filter, want);
        assert_memory_equal(got.pixels, want, (size_t)out_w * (size_t)out_h * 3);
        free(want);
    }
    mimic_image_free(&src);
    mimic_image_free(&got);
}

static void test_arguments(void **state) {
    (void)state;
    mimic_image src = {0}, out = {0};
    fill_image(&src, 10, 8, 0);
    const int bad[][4] = {{-1, 0, 5, 5}, {0, 0, 11, 8}, {0, 0, 10, 9},
                          {6, 0, 5, 5},  {0, 0, 0, 5},  {INT32_MAX, 0, 5, 5}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int *b = bad[i];
        assert_int_equal(
            mimic_image_resize(&src, b[0], b[1], b[2], b[3], 4, 4, MIMIC_BILINEAR, &out, &err),
            MIMIC_EINVAL);
        assert_non_null(strstr(err.text, "outside"));
    }
    assert_int_equal(mimic_image_resize(&src, 0, 0, 10, 8, 0, 4, MIMIC_BILINEAR, &out, &err),
                     MIMIC_EINVAL);
    assert_int_equal(mimic_image_resize(&src, 0, 0, 10, 8, 4, 4, MIMIC_BILINEAR, &src, &err),
                     MIMIC_EINVAL);
    assert_int_equal(
        mimic_image_resize(&src, 0, 0, 10, 8, 1 << 20, 1 << 20, MIMIC_BILINEAR, &out, &err),
        MIMIC_EINVAL);
    mimic_image_free(&src);
    mimic_image_free(&out);
}

static void test_flip(void **state) {
    (void)state;
    mimic_image a = {0}, b = {0};
    fill_image(&a, 7, 3, 5);
    fill_image(&b, 7, 3, 5);
    mimic_image_flip(&a);
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 7; x++)
            assert_memory_equal(a.pixels + (y * 7 + x) * 3, b.pixels + (y * 7 + 6 - x) * 3, 3);
    mimic_image_free(&a);
    mimic_image_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_flip),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

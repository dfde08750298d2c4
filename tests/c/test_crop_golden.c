/* Geometry of RandomResizedCrop against the golden file: sizes from given uniform numbers, fallback
 * box. MIMIC_GOLDEN names another folder with resize.safetensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "image/image_impl.h"
#include "mimic.h"

static mimic_tensor *load(mimic_safetensors *f, const char *name) {
    mimic_tensor *t = NULL;
    int i = mimic_safetensors_find(f, name);
    assert_true(i >= 0);
    assert_int_equal(mimic_safetensors_load(f, i, &t), MIMIC_OK);
    return t;
}

static void crop_geometry(void **state) {
    mimic_ctx *ctx = NULL;
    mimic_safetensors *f = NULL;
    const char *folder = getenv("MIMIC_GOLDEN");
    char path[4096];
    (void)state;
    snprintf(path, sizeof path, "%s/resize.safetensors",
             folder && *folder ? folder : MIMIC_SOURCE "/tests/golden");
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    assert_int_equal(mimic_safetensors_open(ctx, path, &f), MIMIC_OK);
    mimic_tensor *scale = load(f, "in.geom.scale");               /* f64 [2] */
    mimic_tensor *u = load(f, "in.geom.u");                       /* f64 [n,attempts,2] */
    mimic_tensor *wh = load(f, "in.geom.WH");                     /* i32 [n,2] */
    mimic_tensor *out = load(f, "out.geom.attempt_h_w_top_left"); /* i32 [n,5] */
    const double *range = mimic_tensor_data(scale), *draws = mimic_tensor_data(u);
    const int32_t *size = mimic_tensor_data(wh), *want = mimic_tensor_data(out);
    const double ratio[2] = {3.0 / 4, 4.0 / 3};
    int64_t n = mimic_tensor_shape(u)[0], attempts = mimic_tensor_shape(u)[1], fallbacks = 0;
    assert_true(n > 0);
    for (int64_t i = 0; i < n; i++, want += 5, size += 2) {
        int w = 0, h = 0, left = 0, top = 0, k = 0;
        while (k < attempts) {
            const double *d = draws + (i * attempts + k) * 2;
            if (mimic_crop_attempt(size[0], size[1], range, ratio, d[0], d[1], &w, &h))
                break;
            k++;
        }
        assert_int_equal(k, want[0]);
        if (k == attempts) {
            mimic_crop_fallback(size[0], size[1], ratio, &left, &top, &w, &h);
            assert_int_equal(top, want[3]);
            assert_int_equal(left, want[4]);
            fallbacks++;
        }
        assert_int_equal(h, want[1]);
        assert_int_equal(w, want[2]);
    }
    assert_true(fallbacks < n);
    mimic_tensor_release(scale);
    mimic_tensor_release(u);
    mimic_tensor_release(wh);
    mimic_tensor_release(out);
    mimic_safetensors_close(f);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(crop_geometry)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

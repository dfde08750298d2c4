/* Random numbers: Philox against Random123's published vectors, distributions, independence of history. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/ctx.h"

/* kat_vectors of Random123: philox4x32 10 rounds. */
static void philox_known_answers(void **state) {
    (void)state;
    uint32_t r[4];
    mimic_philox(0, 0, 0, 0, r);
    assert_memory_equal(r, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), 16);
    mimic_philox(UINT64_MAX, UINT32_MAX, UINT64_MAX, UINT32_MAX, r);
    assert_memory_equal(r, ((uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), 16);
    mimic_philox(0x299f31d0a4093822, 0x85a308d3, 0x0370734413198a2e, 0x243f6a88, r);
    assert_memory_equal(r, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), 16);
}

static void icdf_inverts_the_cdf(void **state) {
    (void)state;
    for (double p = 1e-9; p < 1; p += 0.000731) {
        double x = mimic_normal_icdf(p), back = 0.5 * erfc(-x / sqrt(2));
        assert_true(fabs(back - p) <= 1e-13 + 1e-9 * p);
    }
    assert_true(mimic_normal_icdf(0.5) == 0);
    assert_true(fabs(mimic_normal_icdf(0.975) - 1.959963984540054) < 1e-12);
}

static void moments(void **state) {
    (void)state;
    mimic_rng r;
    mimic_rng_init(&r, 7, 1, 2);
    double s = 0, ss = 0, b = 0, bb = 0, g = 0;
    int n = 200000;
    for (int i = 0; i < n; i++) {
        double x = mimic_rng_normal(&r), y = mimic_rng_beta(&r, 2, 2), z = mimic_rng_beta(&r, 0.8, 0.8);
        s += x;
        ss += x * x;
        b += y;
        bb += y * y;
        g += z * z;
    }
    assert_true(fabs(s / n) < 0.01 && fabs(ss / n - 1) < 0.02);
    assert_true(fabs(b / n - 0.5) < 0.003 && fabs(bb / n - 0.25 - 0.05) < 0.003); /* var = 1/20 */
    assert_true(fabs(g / n - 0.25 - 1 / (4 * 2.6)) < 0.004); /* var of Beta(a,a) = 1/(4(2a+1)) */
}

static void below_is_in_range_and_even(void **state) {
    (void)state;
    mimic_rng r;
    int count[7] = {0};
    mimic_rng_init(&r, 1, 0, 0);
    for (int i = 0; i < 70000; i++)
        count[mimic_rng_below(&r, 7)]++;
    for (int k = 0; k < 7; k++)
        assert_true(abs(count[k] - 10000) < 500);
}

static void shuffles_are_permutations_of_the_key_alone(void **state) {
    (void)state;
    int32_t a[1000], b[1000];
    uint64_t scratch[1000];
    char seen[1000] = {0};
    mimic_rng r;
    mimic_rng_init(&r, 5, 9, 3);
    mimic_rng_shuffle(&r, a, scratch, 1000);
    mimic_rng_init(&r, 5, 9, 3);
    mimic_rng_shuffle(&r, b, scratch, 1000);
    assert_memory_equal(a, b, sizeof a);
    mimic_rng_init(&r, 5, 9, 4);
    mimic_rng_shuffle(&r, b, scratch, 1000);
    assert_true(memcmp(a, b, sizeof a) != 0);
    for (int i = 0; i < 1000; i++)
        seen[a[i]]++;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(seen[i], 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(icdf_inverts_the_cdf),
        cmocka_unit_test(moments),
        cmocka_unit_test(below_is_in_range_and_even),
        cmocka_unit_test(shuffles_are_permutations_of_the_key_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Random numbers: Philox against Random123's published vectors, the distributions by their moments,
 * and independence of history. */
#include "core_util.h"

#include "core/ctx.h"
#include "core/random_math.h"

/* Random123's kat_vectors, philox4x32 with 10 rounds. */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint32_t *c = rows[i].counter, *k = rows[i].key;
        uint32_t out[4];
        mimic_philox((uint64_t)k[1] << 32 | k[0], c[1], (uint64_t)c[3] << 32 | c[2], c[0], out);
        assert_memory_equal(out, rows[i].answer, sizeof out);
    }
}

static void normal_quantiles(void **state) {
    (void)state;
    static const struct {
        double p, x;
    } rows[] = {{0.5, 0},
                {0.975, 1.959963984540054},
                {0.99, 2.3263478740408408},
                {0.025, -1.959963984540054},
                {1e-3, -3.090232306167813},
                {1e-10, -6.361340902404056}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_true(fabs(mimic_normal_icdf(rows[i].p) - rows[i].x) <= 1e-12 * fabs(rows[i].x));
    /* the error by one Newton step of the CDF, over everything a 32-bit draw can give, and beyond
     */
    for (double p = 1e-18; p < 0.5; p *= 1.01) {
        double x = mimic_normal_icdf(p), cdf = 0.5 * erfc(-x / sqrt(2));
        double density = exp(-0.5 * x * x) / sqrt(2 * acos(-1));
        assert_true(fabs(cdf - p) / density <= 1e-9 * fabs(x) + 1e-15);
        assert_true(p < 1e-15 || fabs(mimic_normal_icdf(1 - p) + x) <= 1e-15 / density);
    }
    assert_true(isfinite(mimic_normal_icdf(mimic_open_unit(0))));
    assert_true(isfinite(mimic_normal_icdf(mimic_open_unit(0xffffffff))));
}

static void streams_depend_on_their_key_only(void **state) {
    (void)state;
    mimic_rng a, b;
    mimic_rng_init(&a, 5, 2, 9);
    mimic_rng_init(&b, 5, 2, 9);
    for (int i = 0; i < 100; i++)
        assert_int_equal(mimic_rng_u32(&a), mimic_rng_u32(&b));
    const struct {
        uint64_t seed, step;
        uint32_t stream;
    } others[] = {
        {6, 9, 2}, {5, 10, 2}, {5, 9, 3}, {5 + (1ull << 32), 9, 2}, {5, 9 + (1ull << 32), 2}};
    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
        int equal = 0;
        mimic_rng_init(&a, 5, 2, 9);
        mimic_rng_init(&b, others[k].seed, others[k].stream, others[k].step);
        for (int i = 0; i < 100; i++)
            equal += mimic_rng_u32(&a) == mimic_rng_u32(&b);
        assert_true(equal <= 1);
    }
}

static void moments(double (*draw)(mimic_rng *, double, double), double a, double b, int n,
                    double *mean, double *variance, double *least, double *most) {
    mimic_rng r;
    double sum = 0, square = 0;
    mimic_rng_init(&r, 1, 1, 1);
    *least = INFINITY;
    *most = -INFINITY;
    for (int i = 0; i < n; i++) {
        double x = draw(&r, a, b);
        assert_true(isfinite(x));
        sum += x;
        square += x * x;
        *least = fmin(*least, x);
        *most = fmax(*most, x);
    }
    *mean = sum / n;
    *variance = square / n - *mean * *mean;
}

static double draw_uniform(mimic_rng *r, double a, double b) {
    (void)a;
    (void)b;
    return mimic_rng_uniform(r);
}

static double draw_normal(mimic_rng *r, double a, double b) {
    (void)a;
    (void)b;
    return mimic_rng_normal(r);
}

static void uniform_and_normal(void **state) {
    (void)state;
    double mean, variance, least, most;
    moments(draw_uniform, 0, 0, 100000, &mean, &variance, &least, &most);
    assert_true(fabs(mean - 0.5) < 0.004 && fabs(variance - 1.0 / 12) < 0.001);
    assert_true(least >= 0 && most < 1);
    moments(draw_normal, 0, 0, 100000, &mean, &variance, &least, &most);
    assert_true(fabs(mean) < 0.015 && fabs(variance - 1) < 0.02);
    assert_true(least < -3.5 && most > 3.5);
}

static void beta(void **state) {
    (void)state;
    const double shapes[][2] = {{2, 2}, {0.8, 0.8}, {1, 1}, {0.1, 0.1}, {5, 1.5}, {0.01, 0.01}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        double a = shapes[i][0], b = shapes[i][1], mean, variance, least, most;
        moments(mimic_rng_beta, a, b, 40000, &mean, &variance, &least, &most);
        assert_true(fabs(mean - a / (a + b)) < 0.012);
        assert_true(fabs(variance - a * b / ((a + b) * (a + b) * (a + b + 1))) < 0.005);
        assert_true(least >= 0 && most <= 1);
    }
}

/* a = b = 2 takes four numbers of the stream: Gamma(2) = -log(u1 u2), twice. */
static void beta_of_mixup(void **state) {
    (void)state;
    mimic_rng r, u;
    mimic_rng_init(&r, 3, 0, 0);
    mimic_rng_init(&u, 3, 0, 0);
    for (int i = 0; i < 50; i++) {
        double g[2];
        for (int k = 0; k < 2; k++) {
            double u1 = mimic_open_unit(mimic_rng_u32(&u)), u2 = mimic_open_unit(mimic_rng_u32(&u));
            g[k] = -log(u1 * u2);
        }
        assert_true(fabs(mimic_rng_beta(&r, 2, 2) - g[0] / (g[0] + g[1])) < 1e-13);
    }
}

static void below_is_even(void **state) {
    (void)state;
    mimic_rng r;
    mimic_rng_init(&r, 4, 0, 0);
    for (uint32_t n = 1; n < 12; n++) {
        int count[12] = {0};
        for (int i = 0; i < 10000; i++) {
            uint32_t k = mimic_rng_below(&r, n);
            assert_true(k < n);
            count[k]++;
        }
        for (uint32_t k = 0; k < n; k++)
            assert_true(fabs(count[k] - 10000.0 / n) < 5 * sqrt(10000.0 / n));
    }
    /* of n = 3 * 2^30 a plain modulus would give the low third twice as often */
    int low = 0;
    for (int i = 0; i < 10000; i++)
        low += mimic_rng_below(&r, 3u << 30) < 1u << 30;
    assert_true(abs(low - 3333) < 300);
}

static void shuffle_is_a_permutation(void **state) {
    (void)state;
    enum { N = 5000 };
    static int32_t a[N], b[N];
    static uint64_t scratch[N];
    static bool seen[N];
    const int32_t sizes[] = {0, 1, 2, 10, N};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int32_t n = sizes[s], fixed = 0;
        mimic_rng r;
        mimic_rng_init(&r, 8, 1, 2);
        mimic_rng_shuffle(&r, a, scratch, n);
        mimic_rng_init(&r, 8, 1, 2);
        mimic_rng_shuffle(&r, b, scratch, n);
        memset(seen, 0, sizeof seen);
        for (int32_t i = 0; i < n; i++) {
            assert_int_equal(a[i], b[i]);
            assert_in_range(a[i], 0, n - 1);
            assert_false(seen[a[i]]);
            seen[a[i]] = true;
            fixed += a[i] == i;
        }
        assert_true(n < 10 || fixed < 8);
    }
    /* the order is that of the keys random32 << 32 | index */
    mimic_rng r;
    mimic_rng_init(&r, 8, 1, 2);
    uint32_t word[10];
    for (int i = 0; i < 10; i++)
        word[i] = mimic_rng_u32(&r);
    mimic_rng_init(&r, 8, 1, 2);
    mimic_rng_shuffle(&r, a, scratch, 10);
    for (int i = 1; i < 10; i++)
        assert_true(word[a[i - 1]] < word[a[i]]);
}

/* Operators that draw: the same step and calls give the same numbers; another step or stream
 * others. */
static void operators_repeat_by_step(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    const mimic_op *op = mimic_op_find("rand_normal");
    mimic_attrs attrs;
    mimic_op_defaults(op, &attrs);
    attrs.list_n = 1;
    attrs.list[0] = 100;
    double first[2][100], again[100];
    for (int pass = 0; pass < 4; pass++) {
        mimic_set_step(ctx, pass == 2 ? 4 : 3);
        mimic_seed(ctx, pass == 3 ? 12 : 11);
        for (int k = 0; k < 2; k++) {
            mimic_tensor *t = NULL;
            ok(ctx, mimic_op_apply(ctx, op, NULL, 0, &attrs, &t));
            ok(ctx, mimic_tensor_read(ctx, t, MIMIC_F64, pass ? again : first[k], 100));
            if (pass == 1)
                assert_memory_equal(first[k], again, sizeof again);
            if (pass > 1)
                assert_memory_not_equal(first[k], again, sizeof again);
            mimic_tensor_release(t);
        }
    }
    assert_memory_not_equal(first[0], first[1], sizeof again);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(normal_quantiles),
        cmocka_unit_test(streams_depend_on_their_key_only),
        cmocka_unit_test(uniform_and_normal),
        cmocka_unit_test(beta),
        cmocka_unit_test(beta_of_mixup),
        cmocka_unit_test(below_is_even),
        cmocka_unit_test(shuffle_is_a_permutation),
        cmocka_unit_test(operators_repeat_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Operators against values worked out by hand or by their definition, where a gradient check says
 * nothing: orders, ties, edges, rounding, random distributions. */
#include "case.h"

static mimic_ctx *ctx;

static int open_group(void **state) {
    (void)state;
    ctx = open_ctx(2);
    return 0;
}

static int close_group(void **state) {
    (void)state;
    mimic_close(ctx);
    return 0;
}

/* The first output of `name` with the case's attributes for inputs with these values (NULL = as the
 * case says). */
static run_result apply(const char *name, const char *text, double *const *values) {
    op_case c[MAX_CASES];
    run_result r;
    double *all[MIMIC_MAX_IN] = {NULL};
    assert_int_equal(read_cases(mimic_op_find(name), text, c), 1);
    for (int i = 0; i < c->n_in; i++) {
        int64_t n = spec_count(&c->in[i]);
        all[i] = make_values(c, i);
        if (values && values[i])
            memcpy(all[i], values[i], sizeof(double) * (size_t)n);
    }
    if (run_case(ctx, c, all, 0, &r) != MIMIC_OK)
        fail_msg("%s: %s", c->text, mimic_message(ctx));
    for (int i = 0; i < c->n_in; i++)
        free(all[i]);
    return r;
}

static void expect(const char *name, const char *text, double *const *values, int out,
                   const double *want, int n, double tolerance) {
    run_result r = apply(name, text, values);
    assert_int_equal(r.count[out], n);
    for (int i = 0; i < n; i++) {
        double got = r.out[out][i];
        if (!(fabs(got - want[i]) <= tolerance) && got != want[i] &&
            !(isnan(got) && isnan(want[i])))
            fail_msg("%s %s: output %d, element %d is %.9g, not %.9g", name, text, out + 1, i, got,
                     want[i]);
    }
    free_result(&r);
}

#define LIST(...) ((double[]){__VA_ARGS__})
#define VALUES(...) ((double *[]){__VA_ARGS__, NULL, NULL, NULL, NULL})

static void test_order(void **state) {
    (void)state;
    expect("argsort", "x[6]", VALUES(LIST(2, NAN, -1, 2, -INFINITY, 0)), 0, LIST(4, 2, 5, 0, 3, 1),
           6, 0);
    expect("argsort", "x[4]", VALUES(LIST(0, -0.0, -1e-30, 1e-30)), 0, LIST(2, 0, 1, 3), 4, 0);
    expect("argsort", "x[5]:i32", VALUES(LIST(3, -5, 3, 0, -2147483648.0)), 0, LIST(4, 1, 3, 0, 2),
           5, 0);
    expect("argmax", "x[2,3]", VALUES(LIST(1, 5, 5, NAN, 7, 9)), 0, LIST(1, 0), 2, 0);
    expect("max", "x[2,3] axis=0", VALUES(LIST(1, 5, -5, 2, NAN, -9)), 0, LIST(2, NAN, -5), 3, 0);
    double long_row[40];
    for (int i = 0; i < 40; i++)
        long_row[i] = i == 33 ? INFINITY : -i;
    expect("max", "x[40]", VALUES(long_row), 0, LIST(INFINITY), 1, 0);
    expect("argmax", "x[40]", VALUES(long_row), 0, LIST(33), 1, 0);
}

static void test_cast(void **state) {
    (void)state;
    expect("cast", "x[7] dtype=i32", VALUES(LIST(1.9, -1.9, NAN, 1e20, -1e20, 0.5, -0.0)), 0,
           LIST(1, -1, 0, 2147483647.0, -2147483648.0, 0, 0), 7, 0);
    expect("cast", "x[5] dtype=u8", VALUES(LIST(-3, 255.9, 300, NAN, 17.7)), 0,
           LIST(0, 255, 255, 0, 17), 5, 0);
    /* 1 + 2^-8 lies half way: to even, down; 1 + 3 * 2^-8 up. */
    expect("cast", "x[4]:f64 dtype=bf16", VALUES(LIST(1.00390625, 1.01171875, NAN, -INFINITY)), 0,
           LIST(1, 1.015625, NAN, -INFINITY), 4, 0);
}

static void test_labels(void **state) {
    (void)state;
    expect("onehot", "labels[2]:i32 classes=4 smoothing=0.2", VALUES(LIST(2, 0)), 0,
           LIST(0.05, 0.05, 0.85, 0.05, 0.85, 0.05, 0.05, 0.05), 8, 1e-7);
    expect("cross_entropy", "logits[2,4] target[2]:i32",
           VALUES(LIST(3, 3, 3, 3, 100, 0, 0, 0), LIST(1, 0)), 0, LIST(log(4) / 2), 1, 1e-6);
    /* tv of these labels to class 0 is 0.5, 0.5 + 1e-4, 0 and 1; candidate 2 contains sample 0. */
    expect("mscl_masks", "anchors[1,3] candidates[4,3] a[4]:i32 b[4]:i32",
           VALUES(LIST(1, 0, 0), LIST(0.5, 0.5, 0, 0.4999, 0.5001, 0, 1, 0, 0, 0, 0.3, 0.7),
                  LIST(1, 2, 0, 3), LIST(2, 1, 1, 1)),
           0, LIST(1, 0, 0, 0), 4, 0);
    expect("mscl_masks",
           "anchors[1,3] candidates[2,3] a[2]:i32 b[2]:i32 dist=l1 exclude_self=false",
           VALUES(LIST(1, 0, 0), LIST(0.75, 0.25, 0, 0.7, 0.3, 0), LIST(0, 1), LIST(0, 1)), 0,
           LIST(1, 0), 2, 0);
    /* Orthogonal unit vectors, one positive of two candidates: log(1 + e^(-1/tau)). */
    expect("contrastive", "za[1,2] zc[2,2] pos[1,2]:u8 cand[1,2]:u8 tau=0.5",
           VALUES(LIST(1, 0), LIST(1, 0, 0, 1), LIST(1, 0), LIST(1, 1)), 0, LIST(log1p(exp(-2))), 1,
           1e-6);
}

static void test_pictures(void **state) {
    double img[2 * 4 * 2], box_from[16];
    (void)state;
    for (int i = 0; i < 16; i++)
        box_from[i] = img[i] = i; /* [1,2,4,2]: channel, row, column */
    expect("patchify", "img[1,2,4,2] patch=2", VALUES(img), 0,
           LIST(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15), 16, 0);
    expect("patchify", "img[1,2,4,2] patch=2 order=conv", VALUES(img), 0,
           LIST(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15), 16, 0);
    expect("mix", "x[2,1,2,4] lam[2] box[2,4]:i32 partner[2]:i32",
           VALUES(box_from, LIST(0.25, 0.5), LIST(0, 0, 0, 0, 1, 2, 1, 3), LIST(1, 0)), 0,
           LIST(6, 7, 8, 9, 10, 11, 12, 13, 8, 9, 10, 11, 12, 5, 6, 15), 16, 1e-6);
    /* norm: target 1, 3 has unbiased variance 2; the kept patch costs nothing. */
    double s = sqrt(2 + 1e-6);
    expect("masked_mse", "pred[1,2,2] target[1,2,2] mask[1,2] norm=true",
           VALUES(LIST(0, 0, 9, 9), LIST(1, 3, 5, 6), LIST(1, 0)), 0, LIST(1 / (s * s)), 1, 1e-6);
}

static void test_rows(void **state) {
    (void)state;
    expect("scatter_rows", "y[3,2] index[3]:i32 rows=3",
           VALUES(LIST(1, 2, 3, 4, 5, 6), LIST(2, 0, 2)), 0, LIST(3, 4, 0, 0, 6, 8), 6, 0);
    expect("l2norm", "x[2,2]", VALUES(LIST(3, 4, 0, 0)), 0, LIST(0.6, 0.8, 0, 0), 4, 1e-7);
    expect("batchnorm", "x[2,1] eps=0", VALUES(LIST(1, 3)), 2, LIST(1), 1, 0);
    expect("sum", "x[0,2] axis=0", NULL, 0, LIST(0, 0), 2, 0);
    expect("softmax", "x[3]", VALUES(LIST(-INFINITY, 1000, 1000)), 0, LIST(0, 0.5, 0.5), 3, 0);
    expect("gelu", "x[4]", VALUES(LIST(-INFINITY, -3, 1, 30)), 0,
           LIST(NAN, -0.004049694, 0.841344746, 30), 4, 1e-7);
}

static void moments(const run_result *r, double *mean, double *std, double *lo, double *hi) {
    double s = 0, q = 0;
    *lo = INFINITY;
    *hi = -INFINITY;
    for (int64_t i = 0; i < r->count[0]; i++) {
        double x = r->out[0][i];
        s += x;
        q += x * x;
        *lo = fmin(*lo, x);
        *hi = fmax(*hi, x);
    }
    *mean = s / (double)r->count[0];
    *std = sqrt(q / (double)r->count[0] - *mean * *mean);
}

static void test_random(void **state) {
    double mean, std, lo, hi;
    (void)state;
    run_result r = apply("rand_uniform", "shape=200000", NULL);
    moments(&r, &mean, &std, &lo, &hi);
    assert_true(fabs(mean - 0.5) < 0.005 && fabs(std - sqrt(1.0 / 12)) < 0.005 && lo >= 0 &&
                hi < 1);
    uint32_t word[4]; /* element 5 is word 1 of block 1 */
    mimic_philox(11, 0, 3, 1, word);
    assert_true(r.out[0][5] == (word[1] >> 8) / 16777216.0);
    free_result(&r);
    r = apply("rand_normal", "shape=200000 mean=2 std=0.5", NULL);
    moments(&r, &mean, &std, &lo, &hi);
    assert_true(fabs(mean - 2) < 0.01 && fabs(std - 0.5) < 0.01);
    free_result(&r);
    r = apply("rand_normal", "shape=200000 cut=2", NULL);
    moments(&r, &mean, &std, &lo, &hi);
    assert_true(lo >= -2 && hi <= 2 && fabs(mean) < 0.01 && fabs(std - 0.8796) < 0.01);
    free_result(&r);
}

static void test_drop(void **state) {
    op_case c[MAX_CASES];
    run_result r;
    int64_t zeros = 0;
    (void)state;
    assert_int_equal(read_cases(&mimic_op_dropout, "x[200,100]=4 p=0.25", c), 1);
    assert_int_equal(run_case(ctx, c, NULL, ~0u, &r), MIMIC_OK);
    for (int64_t i = 0; i < r.count[0]; i++) {
        zeros += r.out[0][i] == 0;
        assert_true(r.out[0][i] == 0 || fabs(r.out[0][i] - 4 / 0.75) < 1e-5);
        assert_true((r.out[0][i] == 0) == (r.grad[0][i] == 0)); /* the same mask backward */
    }
    assert_true(llabs((long long)zeros - 5000) < 250);
    free_result(&r);
    assert_int_equal(read_cases(&mimic_op_drop_path, "x[400,3]=1 p=0.5", c), 1);
    assert_int_equal(run_case(ctx, c, NULL, ~0u, &r), MIMIC_OK);
    zeros = 0;
    for (int64_t i = 0; i < 400; i++) {
        zeros += r.out[0][3 * i] == 0;
        assert_true(r.out[0][3 * i] == r.out[0][3 * i + 1] &&
                    r.out[0][3 * i] == r.out[0][3 * i + 2]);
    }
    assert_true(zeros > 150 && zeros < 250);
    free_result(&r);
}

/* Two calls in a step draw different numbers; the same step again draws the same. */
static void test_streams(void **state) {
    mimic_attrs attrs;
    mimic_tensor *t[4];
    double v[4][8];
    (void)state;
    mimic_op_defaults(&mimic_op_rand_uniform, &attrs);
    attrs.list_n = 1;
    attrs.list[0] = 8;
    for (int i = 0; i < 4; i++) {
        if (i % 2 == 0)
            mimic_set_step(ctx, 9);
        assert_int_equal(mimic_op_apply(ctx, &mimic_op_rand_uniform, NULL, 0, &attrs, &t[i]),
                         MIMIC_OK);
        assert_int_equal(mimic_tensor_read(ctx, t[i], MIMIC_F64, v[i], 8), MIMIC_OK);
        mimic_tensor_release(t[i]);
    }
    assert_memory_equal(v[0], v[2], sizeof v[0]);
    assert_memory_equal(v[1], v[3], sizeof v[0]);
    assert_memory_not_equal(v[0], v[1], sizeof v[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),  cmocka_unit_test(test_cast),
        cmocka_unit_test(test_labels), cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_rows),   cmocka_unit_test(test_random),
        cmocka_unit_test(test_drop),   cmocka_unit_test(test_streams)};
    return cmocka_run_group_tests(tests, open_group, close_group);
}

/* The tape: what backward does to leaves, memory and errors. Gradients of each operator: tests/ops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "mimic/op.h"

static mimic_ctx *ctx;
static int64_t live_before;

static int setup(void **state) {
    (void)state;
    if (mimic_open(&(mimic_config){.threads = 1}, &ctx))
        return 1;
    live_before = mimic_alloc_live(ctx);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    mimic_trim(ctx);
    mimic_set_place(ctx, NULL);
    bool clean = mimic_alloc_live(ctx) == live_before;
    mimic_close(ctx);
    return !clean;
}

static mimic_tensor *leaf(int n, double first) {
    mimic_tensor *t;
    double v[16];
    for (int i = 0; i < n; i++)
        v[i] = first + i;
    assert_int_equal(mimic_tensor_from(ctx, MIMIC_F64, 1, (int64_t[]){n}, v, &t), MIMIC_OK);
    assert_int_equal(mimic_tensor_set_requires_grad(ctx, t, true), MIMIC_OK);
    return t;
}

static mimic_status try(const char *op, mimic_tensor *a, mimic_tensor *b, mimic_tensor **out) {
    mimic_attrs attrs;
    mimic_op_defaults(mimic_op_find(op), &attrs);
    return mimic_op_apply(ctx, mimic_op_find(op), (mimic_tensor *[]){a, b}, b ? 2 : 1, &attrs, out);
}

static mimic_tensor *apply(const char *op, mimic_tensor *a, mimic_tensor *b) {
    mimic_tensor *y = NULL;
    assert_int_equal(try(op, a, b, &y), MIMIC_OK);
    return y;
}

static double grad(const mimic_tensor *t, int i) {
    return ((double *)mimic_tensor_data(mimic_tensor_grad(t)))[i];
}

/* loss = sum(x*x + x): 2x + 1, through a tensor used three times. */
static void uses_add_up(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1), *xx = apply("mul", x, x), *y = apply("add", xx, x);
    mimic_tensor *loss = apply("sum", y, NULL);
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_OK);
    assert_true(grad(x, 0) == 3 && grad(x, 2) == 7);
    mimic_tensor *again = apply("sum", x, NULL);
    assert_int_equal(mimic_backward(ctx, again), MIMIC_OK); /* gradients accumulate */
    assert_true(grad(x, 0) == 4);
    mimic_tensor *all[] = {x, xx, y, loss, again};
    for (int i = 0; i < 5; i++)
        mimic_tensor_release(all[i]);
}

static void a_second_backward_is_refused(void **state) {
    (void)state;
    mimic_set_place(ctx, "train.lua:42");
    mimic_tensor *x = leaf(3, 1), *y = apply("mul", x, x), *loss = apply("sum", y, NULL);
    mimic_tensor *other = apply("mean", y, NULL);
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_OK);
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_ESTATE);
    assert_non_null(strstr(mimic_message(ctx), "already ran"));
    assert_non_null(strstr(mimic_message(ctx), "train.lua:42"));
    assert_int_equal(mimic_backward(ctx, other), MIMIC_ESTATE); /* its trunk is consumed */
    assert_non_null(strstr(mimic_message(ctx), "mul"));
    mimic_tensor *all[] = {x, y, loss, other};
    for (int i = 0; i < 4; i++)
        mimic_tensor_release(all[i]);
}

static void wrong_losses_are_refused(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1), *plain, *sum;
    assert_int_equal(mimic_backward(ctx, x), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_detach(ctx, x, &plain), MIMIC_OK);
    sum = apply("sum", plain, NULL);
    assert_int_equal(mimic_backward(ctx, sum), MIMIC_ESTATE);
    assert_non_null(strstr(mimic_message(ctx), "no tensor that requires a gradient"));
    assert_int_equal(mimic_tensor_set_requires_grad(ctx, sum, true), MIMIC_OK); /* a leaf itself */
    assert_int_equal(mimic_backward(ctx, sum), MIMIC_OK);
    assert_true(grad(sum, 0) == 1);
    mimic_tensor_release(x);
    mimic_tensor_release(plain);
    mimic_tensor_release(sum);
}

static void no_grad_records_nothing(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1);
    mimic_set_grad_enabled(ctx, false);
    mimic_tensor *y = apply("mul", x, x);
    mimic_set_grad_enabled(ctx, true);
    assert_false(mimic_tensor_requires_grad(y));
    mimic_tensor_release(x);
    mimic_tensor_release(y);
}

static void dropped_graphs_are_freed_however_deep(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1), *y = apply("scale", x, NULL);
    for (int i = 0; i < 100000; i++) {
        mimic_tensor *z = apply("scale", y, NULL);
        mimic_tensor_release(y);
        y = z;
    }
    mimic_tensor_release(y);
    mimic_tensor_release(x);
}

static void the_outermost_scope_clears_the_tape(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1);
    mimic_scope *s;
    assert_int_equal(mimic_scope_open(ctx, &s), MIMIC_OK);
    mimic_tensor *y = apply("mul", x, x), *loss = apply("sum", y, NULL);
    assert_int_equal(mimic_scope_keep(s, loss), MIMIC_OK);
    mimic_scope_close(s);
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_ESTATE);
    mimic_scope_release(s);
    mimic_tensor_release(x);
    mimic_tensor_release(y);
    mimic_tensor_release(loss);
}

static void nan_is_caught_where_it_arises(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, -1), *y = NULL;
    mimic_check_nan(ctx, true);
    mimic_set_place(ctx, "train.lua:7");
    assert_int_equal(try("log", x, NULL, &y), MIMIC_ENUMERIC);
    assert_null(y);
    assert_non_null(strstr(mimic_message(ctx), "log: the first NaN"));
    assert_non_null(strstr(mimic_message(ctx), "train.lua:7"));
    mimic_tensor_release(x);
}

static void wrong_calls_name_operator_and_shapes(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1), *z = leaf(4, 1), *y = NULL;
    assert_int_equal(try("add", x, z, &y), MIMIC_EINVAL);
    assert_non_null(strstr(mimic_message(ctx), "add: "));
    assert_non_null(strstr(mimic_message(ctx), "[3]"));
    assert_non_null(strstr(mimic_message(ctx), "[4]"));
    assert_int_equal(mimic_op_apply(ctx, mimic_op_find("add"), &x, 1, NULL, &y), MIMIC_EINVAL);
    assert_int_equal(mimic_op_apply(ctx, mimic_op_find("relu"), (mimic_tensor *[]){NULL}, 1, NULL, &y),
                     MIMIC_EINVAL);
    mimic_tensor_release(x);
    mimic_tensor_release(z);
}

/* Each allocation of a step fails once: always a status, nothing lost, the next step works. */
static void a_step_survives_any_failure(void **state) {
    (void)state;
    mimic_tensor *x = leaf(3, 1);
    mimic_status st = MIMIC_ENOMEM;
    for (int64_t n = 1; st; n++) {
        mimic_scope *s = NULL;
        mimic_tensor *y = NULL, *t = NULL, *loss = NULL;
        mimic_trim(ctx); /* so that the pool has to ask */
        mimic_fail_alloc(ctx, n, false);
        st = mimic_scope_open(ctx, &s);
        st = st ? st : try("mul", x, x, &y);
        st = st ? st : try("add", y, x, &t);
        st = st ? st : try("sum", t, NULL, &loss);
        st = st ? st : mimic_backward(ctx, loss);
        mimic_fail_alloc(ctx, 0, false);
        assert_true(st == MIMIC_OK || st == MIMIC_ENOMEM);
        assert_true(mimic_grad_enabled(ctx));
        if (s)
            mimic_scope_close(s);
        mimic_scope_release(s);
        mimic_tensor_release(y);
        mimic_tensor_release(t);
        mimic_tensor_release(loss);
        assert_true(n < 200);
    }
    mimic_tensor_release(x);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Printed, not judged: what a small operator costs, forward and backward. */
static void cost_of_a_small_operator(void **state) {
    (void)state;
    mimic_tensor *x = leaf(4, 1);
    double best = 1;
    for (int round = 0; round < 20; round++) {
        double start = seconds();
        mimic_tensor *y = apply("scale", x, NULL);
        for (int i = 0; i < 999; i++) {
            mimic_tensor *z = apply("scale", y, NULL);
            mimic_tensor_release(y);
            y = z;
        }
        mimic_tensor *loss = apply("sum", y, NULL);
        assert_int_equal(mimic_backward(ctx, loss), MIMIC_OK);
        mimic_tensor_release(y);
        mimic_tensor_release(loss);
        double t = (seconds() - start) / 1000;
        best = t < best ? t : best;
    }
    print_message("small operator, forward + backward: %.0f ns\n", best * 1e9);
    mimic_tensor_release(x);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(uses_add_up),
        TEST(a_second_backward_is_refused),
        TEST(wrong_losses_are_refused),
        TEST(no_grad_records_nothing),
        TEST(dropped_graphs_are_freed_however_deep),
        TEST(the_outermost_scope_clears_the_tape),
        TEST(nan_is_caught_where_it_arises),
        TEST(wrong_calls_name_operator_and_shapes),
        TEST(a_step_survives_any_failure),
        TEST(cost_of_a_small_operator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

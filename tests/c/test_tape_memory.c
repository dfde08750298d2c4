/* Memory of tape and backward: nothing is kept that is not needed, and every failing allocation
 * leaves a usable context. */
#include "core_util.h"

#include <time.h>

/* --- memory ----------------------------------------------------------------------------------- */

static void inference_keeps_nothing(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 1000, 0);
    size_t base = live_bytes(ctx);
    mimic_set_grad_enabled(ctx, false);
    mimic_tensor *x = op2(ctx, "relu", a, NULL), *y = op2(ctx, "relu", x, NULL);
    mimic_tensor_release(x);
    assert_int_equal(live_bytes(ctx), base + 4032); /* the size class of 4000 bytes */
    mimic_tensor_release(y);
    mimic_set_grad_enabled(ctx, true);
    /* a graph that nobody walks goes with its results */
    for (int i = 0; i < 10; i++) {
        x = op2(ctx, "exp", a, NULL);
        y = op2(ctx, "exp", x, NULL);
        mimic_tensor_release(x);
        mimic_tensor_release(y);
        assert_int_equal(live_bytes(ctx), base);
    }
    mimic_tensor_release(a);
    mimic_close(ctx);
}

static void backward_gives_memory_back(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    enum { N = 1 << 16, DEPTH = 20 };
    mimic_tensor *a = leaf(ctx, 0, N, 0), *x = a;
    size_t base = live_bytes(ctx), block = N * sizeof(float);
    mimic_tensor_retain(a);
    for (int i = 0; i < DEPTH; i++) {
        mimic_tensor *y = op2(ctx, "exp", x, NULL);
        mimic_tensor_release(x);
        x = y;
    }
    mimic_tensor *loss = sum_of(ctx, x);
    assert_true(live_bytes(ctx) >= base + (DEPTH - 1) * block);
    mimic_memory m;
    mimic_reset_peak(ctx);
    ok(ctx, mimic_backward(ctx, loss));
    mimic_memory_stats(ctx, &m);
    assert_true(m.peak <= base + (DEPTH + 4) * block); /* not a second copy of everything */
    assert_true(m.live <= base + 64);
    mimic_tensor_release(loss);
    mimic_tensor_release(a);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void the_outermost_scope_clears_the_tape(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 1000, 0);
    size_t base = live_bytes(ctx);
    mimic_scope *s;
    ok(ctx, mimic_scope_open(ctx, &s));
    mimic_tensor *loss = sum_of(ctx, op2(ctx, "exp", a, NULL));
    ok(ctx, mimic_scope_keep(s, loss));
    mimic_scope_close(s);
    mimic_scope_release(s);
    assert_true(live_bytes(ctx) <= base + 64);
    assert_true(mimic_tensor_alive(loss));
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_ESTATE);
    assert_message(ctx, "scope");
    mimic_tensor_release(loss);
    mimic_tensor_release(a);
    mimic_close(ctx);
}

/* A step: leaves outside, everything else inside, gradients stay. */
static void steps_leave_gradients_only(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 3, 1);
    size_t base = live_bytes(ctx);
    for (int step = 1; step <= 3; step++) {
        mimic_scope *s;
        ok(ctx, mimic_scope_open(ctx, &s));
        mimic_tensor *loss = sum_of(ctx, op2(ctx, "mul", a, a));
        ok(ctx, mimic_backward(ctx, loss));
        mimic_scope_close(s);
        mimic_scope_release(s);
        assert_false(mimic_tensor_alive(loss));
        mimic_tensor_release(loss);
        assert_grad(ctx, a, (double[]){2.0 * step, 4.0 * step, 6.0 * step});
        assert_int_equal(live_bytes(ctx), base);
    }
    mimic_tensor_release(a);
    mimic_close(ctx);
}

static void tensors_lost_to_an_inner_scope_are_named(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 3, 1);
    mimic_scope *outer, *inner;
    ok(ctx, mimic_scope_open(ctx, &outer));
    ok(ctx, mimic_scope_open(ctx, &inner));
    mimic_set_place(ctx, "net.lua:5");
    mimic_tensor *x = op2(ctx, "scale", a, NULL), *loss = sum_of(ctx, op2(ctx, "mul", x, x));
    ok(ctx, mimic_scope_keep(inner, loss));
    mimic_scope_close(inner);
    mimic_scope_release(inner);
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_ESTATE);
    assert_message(ctx, "net.lua:5) was freed when its scope closed; use s:keep(t)");
    mimic_tensor *again = sum_of(ctx, op2(ctx, "mul", a, a)); /* the context goes on */
    ok(ctx, mimic_backward(ctx, again));
    assert_grad(ctx, a, (double[]){2, 4, 6});
    mimic_scope_close(outer);
    mimic_scope_release(outer);
    mimic_tensor *all[] = {a, x, loss, again};
    for (int i = 0; i < 4; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

/* A leaf made in a step and kept takes its gradient along. */
static void kept_leaves_keep_their_gradient(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_scope *s;
    ok(ctx, mimic_scope_open(ctx, &s));
    mimic_tensor *a = leaf(ctx, 0, 2, 1), *b = leaf(ctx, 0, 2, 1);
    ok(ctx, mimic_scope_keep(s, a));
    mimic_scope_close(s);
    mimic_scope_release(s);
    assert_null(mimic_tensor_grad(b));
    mimic_tensor *loss = sum_of(ctx, op2(ctx, "mul", a, a));
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){2, 4});
    mimic_tensor_free(
        mimic_tensor_grad(a)); /* a gradient freed by hand is missed, not crashed on */
    mimic_tensor_release(loss);
    loss = sum_of(ctx, op2(ctx, "mul", a, a));
    assert_int_equal(mimic_backward(ctx, loss), MIMIC_ESTATE);
    assert_message(ctx, "gradient");
    mimic_tensor *all[] = {a, b, loss};
    for (int i = 0; i < 3; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void long_chains_need_no_stack(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    for (int walk = 0; walk < 2; walk++) {
        mimic_tensor *a = leaf(ctx, 0, 1, 1), *x = a;
        mimic_tensor_retain(a);
        for (int i = 0; i < 200000; i++) {
            mimic_tensor *y = op2(ctx, "scale", x, NULL);
            mimic_tensor_release(x);
            x = y;
        }
        if (walk) {
            ok(ctx, mimic_backward(ctx, x));
            assert_grad(ctx, a, (double[]){1});
        }
        mimic_tensor_release(x);
        mimic_tensor_release(a);
        assert_int_equal(live_bytes(ctx), 0);
    }
    mimic_close(ctx);
}

/* --- failing memory --------------------------------------------------------------------------- */

/* A small network with views, saves, several uses and a loss. */
static mimic_status forward(mimic_ctx *ctx, mimic_tensor *x, mimic_tensor *w, mimic_tensor **loss) {
    mimic_tensor *t[5] = {NULL};
    mimic_status st;
    *loss = NULL;
    (void)((st = try_op(ctx, "matmul", x, w, NULL, &t[0])) ||
           (st = try_op(ctx, "gelu", t[0], NULL, NULL, &t[1])) ||
           (st = try_op(ctx, "softmax", t[1], NULL, NULL, &t[2])) ||
           (st = try_op(ctx, "transpose", t[2], NULL, NULL, &t[3])) ||
           (st = try_op(ctx, "mul", t[3], t[3], NULL, &t[4])) ||
           (st = try_op(ctx, "sum", t[4], NULL, NULL, loss)));
    for (int i = 0; i < 5; i++)
        mimic_tensor_release(t[i]);
    return st;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *x = ramp(ctx, 3, 4, -1), *w = leaf(ctx, 4, 3, 0), *loss;
    double clean[12], grad[12], zero[12] = {0};
    ok(ctx, forward(ctx, x, w, &loss));
    ok(ctx, mimic_backward(ctx, loss));
    mimic_tensor_release(loss);
    ok(ctx, mimic_tensor_read(ctx, mimic_tensor_grad(w), MIMIC_F64, clean, 12));
    for (int sticky = 0; sticky < 2; sticky++)
        for (int64_t n = 1, done = 0; !done; n++) {
            assert_true(n < 500);
            mimic_trim(ctx);
            int64_t blocks = mimic_alloc_live(ctx);
            size_t bytes = live_bytes(ctx);
            mimic_scope *s = NULL;
            loss = NULL;
            mimic_fail_alloc(ctx, n, sticky);
            mimic_status st = mimic_scope_open(ctx, &s);
            if (!st)
                st = forward(ctx, x, w, &loss);
            if (!st)
                st = mimic_backward(ctx, loss);
            mimic_fail_alloc(ctx, 0, false);
            done = st == MIMIC_OK && n > 30;
            if (st)
                assert_int_equal(st, MIMIC_ENOMEM);
            mimic_tensor_release(loss);
            if (s)
                mimic_scope_close(s);
            mimic_scope_release(s);
            mimic_trim(ctx);
            assert_int_equal(live_bytes(ctx), bytes);
            assert_int_equal(mimic_alloc_live(ctx), blocks);
            ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(w), MIMIC_F64, zero, 12));
            ok(ctx, forward(ctx, x, w, &loss)); /* and the context works as before */
            ok(ctx, mimic_backward(ctx, loss));
            mimic_tensor_release(loss);
            ok(ctx, mimic_tensor_read(ctx, mimic_tensor_grad(w), MIMIC_F64, grad, 12));
            assert_memory_equal(clean, grad, sizeof grad);
        }
    mimic_tensor_release(x);
    mimic_tensor_release(w);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

/* The host's memory ends at the n-th block, wherever that is, and never comes back. */
static void the_host_runs_out_for_good(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        host h = {.fail_from = n};
        mimic_ctx *ctx = NULL;
        mimic_tensor *x = NULL, *w = NULL, *loss = NULL;
        const float data[12] = {1, 2, 3};
        mimic_status st = host_open(&h, 2, &ctx);
        if (!st)
            st = mimic_tensor_from(ctx, MIMIC_F32, 2, (int64_t[]){3, 4}, data, &x);
        if (!st)
            st = mimic_tensor_from(ctx, MIMIC_F32, 2, (int64_t[]){4, 3}, data, &w);
        if (!st)
            st = mimic_tensor_set_requires_grad(ctx, w, true);
        if (!st)
            st = forward(ctx, x, w, &loss);
        if (!st)
            st = mimic_backward(ctx, loss);
        mimic_tensor_release(x);
        mimic_tensor_release(loss);
        mimic_close(ctx);
        mimic_tensor_release(w); /* after the context */
        assert_int_equal(h.live, 0);
        if (st == MIMIC_OK)
            break;
        assert_int_equal(st, MIMIC_ENOMEM);
    }
}

/* Printed, not judged: what dispatch and tape cost a small operator. */
static void cost_of_a_small_operator(void **state) {
    (void)state;
    enum { STEPS = 300, DEPTH = 100 };
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 1, 1), *b = ramp(ctx, 0, 1, 1);
    double best[2] = {1e9, 1e9};
    for (int step = 0; step < STEPS; step++) {
        mimic_tensor *x = a;
        mimic_tensor_retain(a);
        clock_t start = clock();
        for (int i = 0; i < DEPTH; i++) {
            mimic_tensor *y = op2(ctx, "mul", x, b);
            mimic_tensor_release(x);
            x = y;
        }
        clock_t middle = clock();
        ok(ctx, mimic_backward(ctx, x));
        best[0] = fmin(best[0], (double)(middle - start));
        best[1] = fmin(best[1], (double)(clock() - middle));
        mimic_tensor_release(x);
    }
    double ns = 1e9 / CLOCKS_PER_SEC / DEPTH;
    print_message("mul of one element: forward %.0f ns, backward %.0f ns\n", best[0] * ns,
                  best[1] * ns);
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    mimic_close(ctx);
}

static void nothing_leaks(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *x = ramp(ctx, 3, 4, -1), *w = leaf(ctx, 4, 3, 0), *loss;
    int64_t blocks = 0;
    for (int i = 0; i < 5; i++) {
        mimic_scope *s;
        ok(ctx, mimic_scope_open(ctx, &s));
        ok(ctx, forward(ctx, x, w, &loss));
        if (i % 2)
            ok(ctx, mimic_backward(ctx, loss));
        mimic_tensor_release(loss);
        mimic_scope_close(s);
        mimic_scope_release(s);
        mimic_trim(ctx);
        assert_true(i == 0 || mimic_alloc_live(ctx) == blocks);
        blocks = mimic_alloc_live(ctx);
    }
    mimic_tensor_release(x);
    mimic_tensor_release(w);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inference_keeps_nothing),
        cmocka_unit_test(backward_gives_memory_back),
        cmocka_unit_test(the_outermost_scope_clears_the_tape),
        cmocka_unit_test(steps_leave_gradients_only),
        cmocka_unit_test(tensors_lost_to_an_inner_scope_are_named),
        cmocka_unit_test(kept_leaves_keep_their_gradient),
        cmocka_unit_test(long_chains_need_no_stack),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_host_runs_out_for_good),
        cmocka_unit_test(cost_of_a_small_operator),
        cmocka_unit_test(nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Checkpoints of activations: the same bits as the tape that keeps everything, less memory,
 * whatever the stretch holds (random operators, constants, views), and every failing allocation
 * leaves a usable context. */
#include "core_util.h"

enum { N = 1 << 12, DEPTH = 6, STRETCHES = 4 };

/* DEPTH gelus with dropout and a constant made on the way: exp(relu(c)) needs no gradient. */
static mimic_status stretch(mimic_ctx *ctx, mimic_tensor *x, mimic_tensor *c, mimic_tensor **out) {
    mimic_attrs drop;
    mimic_op_defaults(mimic_op_find("dropout"), &drop);
    drop.v[attr_at("dropout", "p")].f = 0.25;
    mimic_status st = MIMIC_OK;
    mimic_tensor *h = x, *y = NULL, *k = NULL, *k2 = NULL;
    mimic_tensor_retain(h);
    for (int i = 0; i < DEPTH && !st; i++) {
        st = try_op(ctx, i == 2 ? "dropout" : "gelu", h, NULL, i == 2 ? &drop : NULL, &y);
        mimic_tensor_release(h);
        h = y;
    }
    if (st || (st = try_op(ctx, "relu", c, NULL, NULL, &k)) ||
        (st = try_op(ctx, "exp", k, NULL, NULL, &k2)))
        goto done;
    st = try_op(ctx, "mul", h, k2, NULL, out);
done:
    mimic_tensor_release(h);
    mimic_tensor_release(k);
    mimic_tensor_release(k2);
    return st;
}

/* Loss and gradient of STRETCHES stretches from `x`; *after gets the bytes in use before backward.
 */
static mimic_status run(mimic_ctx *ctx, mimic_tensor *x, mimic_tensor *c, bool checkpointed,
                        double *loss, size_t *after) {
    mimic_scope *all = NULL;
    mimic_tensor *h = x, *y = NULL, *sum = NULL;
    mimic_status st = mimic_scope_open(ctx, &all);
    if (st)
        return st;
    mimic_set_step(ctx, 3);
    mimic_tensor_retain(h);
    for (int i = 0; i < STRETCHES && !st; i++) {
        mimic_scope *s = NULL;
        st = checkpointed ? mimic_checkpoint_open(ctx, &s) : MIMIC_OK;
        y = NULL;
        if (!st)
            st = stretch(ctx, h, c, &y);
        if (!st && s)
            st = mimic_scope_keep(s, y);
        if (s) {
            mimic_scope_close(s);
            mimic_scope_release(s);
        }
        mimic_tensor_release(h);
        h = y;
    }
    if (!st)
        st = try_op(ctx, "sum", h, NULL, NULL, &sum);
    mimic_tensor_release(h);
    *after = live_bytes(ctx);
    if (!st)
        st = mimic_tensor_read(ctx, sum, MIMIC_F64, loss, 1);
    if (!st)
        st = mimic_backward(ctx, sum);
    mimic_tensor_release(sum);
    mimic_scope_close(all);
    mimic_scope_release(all);
    return st;
}

/* A leaf of N small numbers. */
static mimic_tensor *small_leaf(mimic_ctx *ctx) {
    float data[N];
    int64_t n = N;
    mimic_tensor *t = NULL;
    for (int i = 0; i < N; i++)
        data[i] = (float)(i % 97 - 48) / 32;
    ok(ctx, mimic_tensor_from(ctx, MIMIC_F32, 1, &n, data, &t));
    ok(ctx, mimic_tensor_set_requires_grad(ctx, t, true));
    return t;
}

static mimic_tensor *constant(mimic_ctx *ctx) {
    mimic_tensor *x = small_leaf(ctx);
    ok(ctx, mimic_tensor_set_requires_grad(ctx, x, false));
    return x;
}

static void read_grad(mimic_ctx *ctx, mimic_tensor *x, float *out) {
    ok(ctx, mimic_tensor_read(ctx, mimic_tensor_grad(x), MIMIC_F32, out, N));
}

static void same_bits_in_less_memory(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *c = constant(ctx), *x[2];
    double loss[2];
    size_t before = 0, after[2];
    static float grad[2][N];
    for (int k = 0; k < 2; k++) {
        x[k] = small_leaf(ctx);
        before = live_bytes(ctx);
        ok(ctx, run(ctx, x[k], c, k == 1, &loss[k], &after[k]));
        assert_int_equal(live_bytes(ctx), before);
        read_grad(ctx, x[k], grad[k]);
    }
    assert_true(loss[0] == loss[1]);
    assert_memory_equal(grad[0], grad[1], sizeof grad[0]);
    /* kept: what goes from stretch to stretch and the constants; not DEPTH results in each, of
     * which the tape keeps every other one (a gelu is made again from its argument) */
    size_t block = N * sizeof(float);
    assert_true(after[0] - before > STRETCHES * DEPTH / 2 * block);
    assert_true(after[1] - before <= (2 * STRETCHES + 1) * block);
    for (int k = 0; k < 2; k++)
        mimic_tensor_release(x[k]);
    mimic_tensor_release(c);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void one_inside_another_belongs_to_the_outer(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 4, 1), *b, *d, *sum;
    mimic_scope *outer, *inner;
    ok(ctx, mimic_checkpoint_open(ctx, &outer));
    ok(ctx, mimic_checkpoint_open(ctx, &inner));
    b = op2(ctx, "mul", a, a);
    ok(ctx, mimic_scope_keep(inner, b));
    mimic_scope_close(inner);
    d = op2(ctx, "mul", b, a); /* still in the outer one, which computes b again */
    ok(ctx, mimic_scope_keep(outer, d));
    mimic_scope_close(outer);
    assert_false(mimic_tensor_alive(b));
    sum = sum_of(ctx, d);
    ok(ctx, mimic_backward(ctx, sum));
    assert_grad(ctx, a, (const double[]){3, 12, 27, 48}); /* 3 a^2 */
    mimic_scope_release(inner);
    mimic_scope_release(outer);
    mimic_tensor_release(sum);
    mimic_tensor_release(b);
    mimic_tensor_release(a);
    mimic_close(ctx);
}

static void a_scope_inside_takes_its_constants_away(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 4, 1), *c = ramp(ctx, 0, 4, 1), *k, *d, *sum;
    mimic_scope *s, *inner;
    ok(ctx, mimic_checkpoint_open(ctx, &s));
    ok(ctx, mimic_scope_open(ctx, &inner));
    k = op2(ctx, "exp", c, NULL);
    d = op2(ctx, "mul", a, k);
    ok(ctx, mimic_scope_keep(inner, d));
    mimic_scope_close(inner);
    ok(ctx, mimic_scope_keep(s, d));
    mimic_scope_close(s);
    sum = sum_of(ctx, d);
    assert_int_equal(mimic_backward(ctx, sum), MIMIC_ESTATE);
    assert_message(ctx, "was freed when its scope closed");
    mimic_scope_release(inner);
    mimic_scope_release(s);
    mimic_tensor_release(sum);
    mimic_tensor_release(k);
    mimic_tensor_release(c);
    mimic_tensor_release(a);
    mimic_close(ctx);
}

static void without_the_tape_it_is_a_scope(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 4, 1), *b;
    mimic_scope *s;
    mimic_set_grad_enabled(ctx, false);
    ok(ctx, mimic_checkpoint_open(ctx, &s));
    b = op2(ctx, "exp", a, NULL);
    mimic_scope_close(s);
    mimic_scope_release(s);
    assert_false(mimic_tensor_alive(b));
    mimic_tensor_release(b);
    mimic_tensor_release(a);
    mimic_close(ctx);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *c = constant(ctx), *x = small_leaf(ctx);
    double loss;
    size_t after;
    static float grad[2][N];
    ok(ctx, run(ctx, x, c, true, &loss, &after));
    read_grad(ctx, x, grad[0]);
    mimic_tensor_release(x);
    int failures = 0;
    for (int64_t n = 1;; n++) {
        x = small_leaf(ctx);
        int64_t blocks = mimic_alloc_live(ctx);
        mimic_fail_alloc(ctx, n, false);
        mimic_status st = run(ctx, x, c, true, &loss, &after);
        mimic_fail_alloc(ctx, 0, false);
        assert_int_equal(mimic_alloc_live(ctx), blocks);
        if (st == MIMIC_OK)
            break;
        failures++;
        assert_int_equal(st, MIMIC_ENOMEM);
        mimic_tensor_release(x);
    }
    assert_true(failures > 100);
    read_grad(ctx, x, grad[1]);
    assert_memory_equal(grad[0], grad[1], sizeof grad[0]);
    mimic_tensor_release(x);
    mimic_tensor_release(c);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_in_less_memory),
        cmocka_unit_test(one_inside_another_belongs_to_the_outer),
        cmocka_unit_test(a_scope_inside_takes_its_constants_away),
        cmocka_unit_test(without_the_tape_it_is_a_scope),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

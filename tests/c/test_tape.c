/* Dispatch, tape and backward: gradients add up, what cuts the tape, how operators and backward
 * refuse. */
#include "core_util.h"

/* --- gradients -------------------------------------------------------------------------------- */

static void a_product(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 3, 1), *b = leaf(ctx, 0, 3, 4);
    assert_true(mimic_tensor_requires_grad(a));
    assert_grad(ctx, a, (double[]){0, 0, 0});
    mimic_tensor *loss = sum_of(ctx, op2(ctx, "mul", a, b));
    assert_true(mimic_tensor_requires_grad(loss));
    assert_null(mimic_tensor_grad(loss));
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){4, 5, 6});
    assert_grad(ctx, b, (double[]){1, 2, 3});
    mimic_tensor_release(loss);
    loss = sum_of(ctx, op2(ctx, "mul", a, b)); /* another pass adds */
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){8, 10, 12});
    mimic_tensor_release(loss);
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void shared_leaves_and_results_accumulate(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 3, 1), *sq = op2(ctx, "mul", a, a); /* a*a: a used twice */
    mimic_tensor *q = op2(ctx, "mul", sq, sq), *s = op2(ctx, "add", q, sq),
                 *s2 = op2(ctx, "add", s, sq);
    mimic_tensor *loss = sum_of(ctx, s2); /* a^4 + 2 a^2 */
    mimic_tensor_release(sq);
    mimic_tensor_release(q);
    mimic_tensor_release(s);
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){8, 40, 120}); /* 4 a^3 + 4 a */
    mimic_tensor_release(loss);
    mimic_tensor_release(a);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

/* x + x hands the same gradient to both sides; adding to one in place would spoil the other. */
static void shared_gradients_are_not_spoiled(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 2, 1), *x = op2(ctx, "exp", a, NULL),
                 *y = op2(ctx, "exp", a, NULL);
    mimic_tensor *s = op2(ctx, "add", x, y), *t = op2(ctx, "add", s, x), *u = op2(ctx, "add", t, s);
    mimic_tensor *loss = sum_of(ctx, u); /* 3x + 2y */
    ok(ctx, mimic_backward(ctx, loss));
    assert_true(fabs(item(ctx, mimic_tensor_grad(a), 0) - 5 * exp(1)) < 1e-5);
    assert_true(fabs(item(ctx, mimic_tensor_grad(a), 1) - 5 * exp(2)) < 1e-5);
    mimic_tensor *all[] = {a, x, y, s, t, loss};
    for (int i = 0; i < 6; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void views_pass_gradients_through(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_attrs attrs = {.list_n = 1, .list = {6}};
    mimic_tensor *a = leaf(ctx, 2, 3, 0), *t = op2(ctx, "transpose", a, NULL), *r, *e;
    ok(ctx, try_op(ctx, "reshape", t, NULL, &attrs, &r)); /* not contiguous: copied, on the tape */
    mimic_tensor *w = ramp(ctx, 0, 6, 1), *loss = sum_of(ctx, op2(ctx, "mul", r, w));
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){1, 3, 5, 2, 4, 6});
    mimic_tensor_release(loss);
    mimic_tensor *b = leaf(ctx, 1, 3, 0); /* repeated rows: the gradient is a sum over them */
    mimic_attrs rows = {.list_n = 2, .list = {4, 3}};
    ok(ctx, try_op(ctx, "expand", b, NULL, &rows, &e));
    loss = sum_of(ctx, op2(ctx, "exp", e, NULL));
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, b, (double[]){4, 4 * exp(1), 4 * exp(2)});
    mimic_tensor *all[] = {a, t, r, w, loss, b, e};
    for (int i = 0; i < 7; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void bf16_leaves_have_f32_gradients(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = NULL;
    ok(ctx, mimic_tensor_new(ctx, MIMIC_BF16, 1, (int64_t[]){4}, &a));
    ok(ctx, mimic_tensor_write(ctx, a, MIMIC_F32, (float[]){1, 2, 3, 4}, 4));
    ok(ctx, mimic_tensor_set_requires_grad(ctx, a, true));
    assert_int_equal(mimic_tensor_dtype(mimic_tensor_grad(a)), MIMIC_F32);
    mimic_tensor *x = op2(ctx, "mul", a, a), *y = op2(ctx, "add", x, x), *z = op2(ctx, "add", y, x);
    mimic_tensor *loss = sum_of(ctx, z); /* a bf16 result used three times */
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){6, 12, 18, 24});
    mimic_tensor *all[] = {a, x, y, loss};
    for (int i = 0; i < 4; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void a_leaf_can_be_the_loss(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 1, 5);
    ok(ctx, mimic_backward(ctx, a));
    ok(ctx, mimic_backward(ctx, a));
    assert_grad(ctx, a, (double[]){2});
    mimic_tensor_release(a);
    mimic_close(ctx);
}

/* A step large enough for every kernel to cut its work: equal bytes whatever the number of threads.
 */
static void threads_do_not_change_results(void **state) {
    (void)state;
    enum { ROWS = 300, IN = 257, OUT = 301 };
    mimic_ctx *ctx = open_ctx();
    float *first = malloc(IN * OUT * sizeof *first), *again = malloc(IN * OUT * sizeof *again);
    const int threads[] = {1, 2, 3, 8};
    for (int i = 0; i < 4; i++) {
        ok(ctx, mimic_set_threads(ctx, threads[i]));
        mimic_tensor *x = ramp(ctx, ROWS, IN, -30000), *w = leaf(ctx, IN, OUT, -40000),
                     *small = NULL;
        mimic_attrs attrs;
        mimic_op_defaults(mimic_op_find("scale"), &attrs);
        attrs.v[attr_at("scale", "alpha")].f = 1e-9;
        ok(ctx, try_op(ctx, "scale", x, NULL, &attrs, &small));
        mimic_tensor *y = op2(ctx, "matmul", small, w), *g = op2(ctx, "gelu", y, NULL);
        mimic_tensor *s = op2(ctx, "softmax", g, NULL), *loss = sum_of(ctx, op2(ctx, "mul", s, g));
        ok(ctx, mimic_backward(ctx, loss));
        ok(ctx,
           mimic_tensor_read(ctx, mimic_tensor_grad(w), MIMIC_F32, i ? again : first, IN * OUT));
        assert_true(isfinite(first[0]) && first[0] != 0);
        if (i)
            assert_memory_equal(first, again, IN * OUT * sizeof *first);
        mimic_tensor *all[] = {x, w, small, y, g, s, loss};
        for (int k = 0; k < 7; k++)
            mimic_tensor_release(all[k]);
    }
    free(first);
    free(again);
    mimic_close(ctx);
}

/* --- what cuts the tape ----------------------------------------------------------------------- */

static void no_grad_and_detach_cut(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 2, 1), *frozen = ramp(ctx, 0, 2, 3);
    mimic_set_grad_enabled(ctx, false);
    assert_false(mimic_grad_enabled(ctx));
    mimic_tensor *off = op2(ctx, "mul", a, a);
    mimic_set_grad_enabled(ctx, true);
    assert_false(mimic_tensor_requires_grad(off));
    mimic_tensor *x = op2(ctx, "mul", a, frozen), *d = NULL;
    ok(ctx, mimic_tensor_detach(ctx, x, &d));
    assert_false(mimic_tensor_requires_grad(d));
    assert_ptr_equal(mimic_tensor_data(d), mimic_tensor_data(x));
    mimic_tensor *loss = sum_of(ctx, op2(ctx, "mul", x, d)); /* d is a constant here */
    ok(ctx, mimic_backward(ctx, loss));
    assert_grad(ctx, a, (double[]){9, 32});
    assert_null(mimic_tensor_grad(frozen));
    ok(ctx, mimic_tensor_set_requires_grad(ctx, a, false));
    mimic_tensor *still = op2(ctx, "mul", a, a);
    assert_false(mimic_tensor_requires_grad(still));
    mimic_tensor *all[] = {a, frozen, off, x, d, loss, still};
    for (int i = 0; i < 7; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void what_backward_refuses(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 2, 1), *plain = ramp(ctx, 0, 1, 1),
                 *x = op2(ctx, "exp", a, NULL);
    assert_int_equal(mimic_backward(ctx, x), MIMIC_EINVAL);
    assert_message(ctx, "[2]");
    assert_int_equal(mimic_backward(ctx, plain), MIMIC_ESTATE);
    assert_message(ctx, "gradient");
    assert_int_equal(mimic_backward(ctx, NULL), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_set_requires_grad(ctx, x, false), MIMIC_ESTATE);
    assert_message(ctx, "detach");
    mimic_tensor *labels = NULL;
    ok(ctx, mimic_tensor_new(ctx, MIMIC_I32, 1, (int64_t[]){2}, &labels));
    assert_int_equal(mimic_tensor_set_requires_grad(ctx, labels, true), MIMIC_EINVAL);
    assert_message(ctx, "i32");
    mimic_tensor *all[] = {a, plain, x, labels};
    for (int i = 0; i < 4; i++)
        mimic_tensor_release(all[i]);
    mimic_close(ctx);
}

static void a_second_backward_says_so(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_set_place(ctx, "train.lua:42");
    mimic_tensor *a = leaf(ctx, 0, 2, 1), *x = op2(ctx, "exp", a, NULL);
    mimic_set_place(ctx, "train.lua:43");
    mimic_tensor *one = op2(ctx, "sum", x, NULL), *two = op2(ctx, "sum", x, NULL);
    ok(ctx, mimic_backward(ctx, one));
    assert_int_equal(mimic_backward(ctx, one), MIMIC_ESTATE);
    assert_message(ctx,
                   "backward already ran through this graph (sum, train.lua:43); run the forward "
                   "pass again");
    double before[2] = {item(ctx, mimic_tensor_grad(a), 0), item(ctx, mimic_tensor_grad(a), 1)};
    assert_int_equal(mimic_backward(ctx, two), MIMIC_ESTATE); /* its trunk is gone */
    assert_message(ctx, "(exp, train.lua:42)");
    assert_grad(ctx, a, before);                                         /* and nothing was added */
    mimic_tensor *y = op2(ctx, "exp", x, NULL), *three = sum_of(ctx, y); /* built on it later */
    assert_int_equal(mimic_backward(ctx, three), MIMIC_ESTATE);
    mimic_tensor *all[] = {a, x, one, two, three};
    for (int i = 0; i < 5; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

/* A trunk that is gone is found before anything is added to any leaf. */
static void a_refused_backward_adds_nothing(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = leaf(ctx, 0, 2, 1), *b = leaf(ctx, 0, 2, 1), *x = op2(ctx, "exp", a, NULL);
    mimic_tensor *one = op2(ctx, "sum", x, NULL), *two = sum_of(ctx, op2(ctx, "mul", x, b));
    ok(ctx, mimic_backward(ctx, one));
    assert_int_equal(mimic_backward(ctx, two), MIMIC_ESTATE);
    assert_grad(ctx, b, (double[]){0, 0});
    mimic_tensor *all[] = {a, b, x, one, two};
    for (int i = 0; i < 5; i++)
        mimic_tensor_release(all[i]);
    mimic_close(ctx);
}

/* --- errors of operators ---------------------------------------------------------------------- */

static void operators_name_what_is_wrong(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = ramp(ctx, 2, 3, 0), *b = ramp(ctx, 2, 4, 0), *i32 = NULL, *out;
    const mimic_op *op = mimic_op_find("matmul");
    ok(ctx, mimic_tensor_new(ctx, MIMIC_I32, 1, (int64_t[]){2}, &i32));
    mimic_push_name(ctx, "vit.blocks.3.attn");
    assert_int_equal(try_op(ctx, "matmul", a, b, NULL, &out), MIMIC_EINVAL);
    assert_int_equal(strncmp(mimic_message(ctx), "vit.blocks.3.attn: matmul: ", 27), 0);
    assert_message(ctx, "[2,3]");
    assert_message(ctx, "[2,4]");
    assert_int_equal(mimic_op_apply(ctx, op, &a, 1, NULL, &out), MIMIC_EINVAL);
    assert_message(ctx, "matmul: takes 2 tensors");
    mimic_tensor *three[12] = {a, b, a, b, a, b, a, b, a, b, a, b};
    assert_int_equal(mimic_op_apply(ctx, op, three, 3, NULL, &out), MIMIC_EINVAL);
    assert_int_equal(mimic_op_apply(ctx, op, three, 12, NULL, &out), MIMIC_EINVAL);
    mimic_tensor *hole[2] = {NULL, b};
    assert_int_equal(mimic_op_apply(ctx, op, hole, 2, NULL, &out), MIMIC_EINVAL);
    assert_message(ctx, "missing");
    assert_int_equal(try_op(ctx, "exp", i32, NULL, NULL, &out), MIMIC_EINVAL);
    assert_message(ctx, "exp");
    assert_message(ctx, "i32");
    assert_null(out);
    assert_null(mimic_op_find("no_such_operator"));
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    mimic_tensor_release(i32);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

static void check_nan_names_the_first_operator(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = ramp(ctx, 0, 3, -1), *out;
    ok(ctx, try_op(ctx, "log", a, NULL, NULL, &out));
    mimic_tensor_release(out);
    mimic_check_nan(ctx, true);
    mimic_set_place(ctx, "loss.lua:9");
    mimic_push_name(ctx, "head");
    assert_int_equal(try_op(ctx, "log", a, NULL, NULL, &out), MIMIC_ENUMERIC);
    assert_int_equal(mimic_last_status(ctx), MIMIC_ENUMERIC);
    assert_message(ctx, "head: log");
    assert_message(ctx, "loss.lua:9");
    assert_message(ctx, "[3]");
    assert_null(out);
    ok(ctx, try_op(ctx, "exp", a, NULL, NULL, &out));
    mimic_tensor_release(out);
    mimic_tensor_release(a);
    a = leaf(ctx, 0, 1, 0); /* sqrt'(0) is infinite: found in the gradient, with the forward line */
    mimic_set_place(ctx, "net.lua:3");
    mimic_tensor *root = op2(ctx, "sqrt", a, NULL);
    mimic_set_place(ctx, "train.lua:8");
    assert_int_equal(mimic_backward(ctx, root), MIMIC_ENUMERIC);
    assert_message(ctx, "net.lua:3");
    mimic_check_nan(ctx, false);
    mimic_tensor_release(root);
    mimic_tensor_release(a);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_product),
        cmocka_unit_test(shared_leaves_and_results_accumulate),
        cmocka_unit_test(shared_gradients_are_not_spoiled),
        cmocka_unit_test(views_pass_gradients_through),
        cmocka_unit_test(bf16_leaves_have_f32_gradients),
        cmocka_unit_test(a_leaf_can_be_the_loss),
        cmocka_unit_test(threads_do_not_change_results),
        cmocka_unit_test(no_grad_and_detach_cut),
        cmocka_unit_test(what_backward_refuses),
        cmocka_unit_test(a_second_backward_says_so),
        cmocka_unit_test(a_refused_backward_adds_nothing),
        cmocka_unit_test(operators_name_what_is_wrong),
        cmocka_unit_test(check_nan_names_the_first_operator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

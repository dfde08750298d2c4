/* Tensors, views and scopes: who lives how long, and what a dead handle says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "mimic/op.h"

static mimic_ctx *ctx;

static int setup(void **state) {
    (void)state;
    return mimic_open(&(mimic_config){.threads = 2}, &ctx) != MIMIC_OK;
}

static int teardown(void **state) {
    (void)state;
    mimic_memory m;
    mimic_memory_stats(ctx, &m);
    mimic_close(ctx);
    return m.tensors != 0; /* each test leaves nothing behind */
}

static mimic_tensor *make(int64_t a, int64_t b) {
    mimic_tensor *t;
    float v[64];
    for (int i = 0; i < 64; i++)
        v[i] = (float)i;
    assert_int_equal(mimic_tensor_from(ctx, MIMIC_F32, 2, (int64_t[]){a, b}, v, &t), MIMIC_OK);
    return t;
}

static mimic_tensor *apply(const char *op, mimic_tensor *x, const mimic_attrs *attrs) {
    mimic_tensor *y = NULL;
    mimic_attrs a;
    mimic_op_defaults(mimic_op_find(op), &a);
    assert_int_equal(mimic_op_apply(ctx, mimic_op_find(op), &x, 1, attrs ? attrs : &a, &y), MIMIC_OK);
    return y;
}

static void values_go_in_and_out(void **state) {
    (void)state;
    mimic_tensor *t = make(2, 3), *y = apply("transpose", t, NULL);
    double v[6];
    assert_false(mimic_tensor_contiguous(y));
    assert_int_equal(mimic_tensor_read(ctx, y, MIMIC_F64, v, 6), MIMIC_OK);
    assert_memory_equal(v, ((double[]){0, 3, 1, 4, 2, 5}), sizeof v);
    assert_int_equal(mimic_tensor_read(ctx, y, MIMIC_F64, v, 5), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_write(ctx, y, MIMIC_F64, v, 6), MIMIC_EINVAL); /* not contiguous */
    assert_int_equal(mimic_tensor_write(ctx, t, MIMIC_F64, v, 6), MIMIC_OK);
    int32_t i[6];
    assert_int_equal(mimic_tensor_read(ctx, t, MIMIC_I32, i, 6), MIMIC_OK);
    assert_memory_equal(i, ((int32_t[]){0, 3, 1, 4, 2, 5}), sizeof i);
    mimic_tensor_release(t);
    mimic_tensor_release(y);
}

static void impossible_shapes_are_refused(void **state) {
    (void)state;
    mimic_tensor *t = NULL;
    int64_t huge[] = {INT64_MAX / 2, 8}, negative[] = {-1};
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 2, huge, &t), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 1, negative, &t), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 7, huge, &t), MIMIC_EINVAL);
    huge[0] = (int64_t)1 << 50;
    huge[1] = 1;
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 2, huge, &t), MIMIC_ENOMEM);
    assert_null(t);
    int64_t none[] = {0, 5};
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 2, none, &t), MIMIC_OK);
    assert_int_equal(mimic_tensor_count(t), 0);
    mimic_tensor_release(t);
}

static void views_share_and_outlive(void **state) {
    (void)state;
    mimic_tensor *t = make(4, 4);
    mimic_attrs a = {.v = {{.i = 0}, {.i = 1}, {.i = 3}}};
    mimic_tensor *s = apply("slice", t, &a);
    mimic_tensor_release(t);
    float v[8];
    assert_int_equal(mimic_tensor_read(ctx, s, MIMIC_F32, v, 8), MIMIC_OK);
    assert_true(v[0] == 4 && v[7] == 11);
    mimic_tensor_release(s);
}

static void scopes_free_what_is_not_kept(void **state) {
    (void)state;
    mimic_scope *outer, *inner;
    assert_int_equal(mimic_scope_open(ctx, &outer), MIMIC_OK);
    mimic_tensor *a = make(2, 2);
    assert_int_equal(mimic_scope_open(ctx, &inner), MIMIC_OK);
    mimic_tensor *b = make(2, 2), *c = make(2, 2), *d = make(2, 2);
    assert_int_equal(mimic_scope_keep(inner, b), MIMIC_OK);
    assert_int_equal(mimic_scope_keep(inner, a), MIMIC_OK); /* lives outside already */
    mimic_tensor_release(d);                                /* dies before its scope */
    mimic_scope_close(inner);
    assert_true(mimic_tensor_alive(a) && mimic_tensor_alive(b) && !mimic_tensor_alive(c));
    float v[4];
    mimic_set_place(ctx, "x.lua:1");
    assert_int_equal(mimic_tensor_read(ctx, c, MIMIC_F32, v, 4), MIMIC_ESTATE);
    assert_non_null(strstr(mimic_message(ctx), "was freed when its scope closed; use s:keep(t)"));
    assert_int_equal(mimic_scope_keep(inner, b), MIMIC_ESTATE);
    assert_int_equal(mimic_scope_keep(outer, b), MIMIC_OK);
    mimic_scope_close(outer);
    mimic_scope_close(outer);
    assert_true(!mimic_tensor_alive(a) && mimic_tensor_alive(b));
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    mimic_tensor_release(c);
    mimic_scope_release(inner);
    mimic_scope_release(outer);
}

static void closing_an_outer_scope_closes_the_inner(void **state) {
    (void)state;
    mimic_scope *outer, *inner;
    assert_int_equal(mimic_scope_open(ctx, &outer), MIMIC_OK);
    assert_int_equal(mimic_scope_open(ctx, &inner), MIMIC_OK);
    mimic_push_name(ctx, "left behind");
    mimic_tensor *t = make(1, 1);
    mimic_scope_release(inner); /* as an abandoned coroutine would */
    mimic_scope_close(outer);
    assert_int_equal(mimic_scope_depth(ctx), 0);
    assert_int_equal(mimic_name_depth(ctx), 0);
    assert_false(mimic_tensor_alive(t));
    mimic_tensor_release(t);
    mimic_scope_release(outer);
}

static void freed_handles_answer(void **state) {
    (void)state;
    mimic_tensor *t = make(2, 2), *y = NULL;
    mimic_tensor_free(t);
    assert_int_equal(mimic_op_apply(ctx, mimic_op_find("relu"), &t, 1, NULL, &y), MIMIC_ESTATE);
    assert_non_null(strstr(mimic_message(ctx), "was freed"));
    assert_int_equal(mimic_scope_depth(ctx), 0);
    mimic_tensor_release(t);
}

static void handles_may_outlive_the_context(void **state) {
    (void)state;
    mimic_ctx *other;
    mimic_tensor *t;
    mimic_scope *s;
    assert_int_equal(mimic_open(NULL, &other), MIMIC_OK);
    assert_int_equal(mimic_scope_open(other, &s), MIMIC_OK);
    assert_int_equal(mimic_tensor_new(other, MIMIC_F32, 0, NULL, &t), MIMIC_OK);
    mimic_close(other);
    assert_false(mimic_tensor_alive(t));
    mimic_tensor_release(t);
    mimic_scope_close(s);
    mimic_scope_release(s);
}

static void same_calls_give_the_same_addresses(void **state) {
    (void)state;
    void *first[3] = {NULL};
    for (int round = 0; round < 3; round++) {
        mimic_scope *s;
        assert_int_equal(mimic_scope_open(ctx, &s), MIMIC_OK);
        mimic_tensor *a = make(8, 8), *b = make(4, 8), *c = make(8, 8);
        void *now[3] = {mimic_tensor_data(a), mimic_tensor_data(b), mimic_tensor_data(c)};
        if (round == 1)
            memcpy(first, now, sizeof now);
        if (round == 2)
            assert_memory_equal(first, now, sizeof now);
        mimic_scope_close(s);
        mimic_scope_release(s);
        mimic_tensor_release(a);
        mimic_tensor_release(b);
        mimic_tensor_release(c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_go_in_and_out, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_shapes_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(views_share_and_outlive, setup, teardown),
        cmocka_unit_test_setup_teardown(scopes_free_what_is_not_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_an_outer_scope_closes_the_inner, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_handles_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(handles_may_outlive_the_context, setup, teardown),
        cmocka_unit_test_setup_teardown(same_calls_give_the_same_addresses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

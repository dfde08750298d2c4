/* Tensors: geometry, conversion, references, scopes, the pool and its out-of-memory report. */
#include "core_util.h"

static int64_t live_tensors(mimic_ctx *ctx) {
    mimic_memory m;
    mimic_memory_stats(ctx, &m);
    return m.tensors;
}

/* --- geometry and values ---------------------------------------------------------------------- */

static void dtypes_have_names(void **state) {
    (void)state;
    static const char *const names[] = {"f32", "bf16", "f64", "i32", "u8"};
    static const size_t sizes[] = {4, 2, 8, 4, 1};
    for (int i = 0; i < MIMIC_DTYPE_COUNT; i++) {
        mimic_dtype d = MIMIC_DTYPE_COUNT;
        assert_string_equal(mimic_dtype_name((mimic_dtype)i), names[i]);
        assert_true(mimic_dtype_parse(names[i], &d));
        assert_int_equal(d, i);
        assert_int_equal(mimic_dtype_size(d), sizes[i]);
    }
    mimic_dtype d;
    assert_false(mimic_dtype_parse("f16", &d));
}

static void new_tensors_are_zero(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    for (int pass = 0; pass < 2; pass++) { /* the second one gets the used block */
        mimic_tensor *t = NULL;
        ok(ctx, mimic_tensor_new(ctx, MIMIC_F32, 2, (int64_t[]){3, 5}, &t));
        assert_int_equal(mimic_tensor_rank(t), 2);
        assert_int_equal(mimic_tensor_shape(t)[0], 3);
        assert_int_equal(mimic_tensor_shape(t)[1], 5);
        assert_int_equal(mimic_tensor_count(t), 15);
        assert_int_equal(mimic_tensor_dtype(t), MIMIC_F32);
        assert_true(mimic_tensor_contiguous(t));
        assert_true(mimic_tensor_alive(t));
        float *data = mimic_tensor_data(t);
        assert_int_equal((uintptr_t)data % 64, 0);
        for (int i = 0; i < 15; i++) {
            assert_true(data[i] == 0);
            data[i] = 9;
        }
        mimic_tensor_release(t);
    }
    mimic_close(ctx);
}

static void odd_shapes(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *t = NULL;
    ok(ctx, mimic_tensor_new(ctx, MIMIC_F64, 0, NULL, &t));
    assert_int_equal(mimic_tensor_count(t), 1);
    assert_true(item(ctx, t, 0) == 0);
    mimic_tensor_release(t);
    ok(ctx, mimic_tensor_new(ctx, MIMIC_F32, 2, (int64_t[]){0, 4}, &t));
    assert_int_equal(mimic_tensor_count(t), 0);
    ok(ctx, mimic_tensor_read(ctx, t, MIMIC_F32, NULL, 0));
    mimic_tensor_release(t);
    t = NULL;
    int64_t big[] = {INT64_MAX / 2, 4}, negative[] = {2, -1}, seven[7] = {1, 1, 1, 1, 1, 1, 1};
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 2, big, &t), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 2, negative, &t), MIMIC_EINVAL);
    assert_message(ctx, "[2,-1]");
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 7, seven, &t), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, -1, seven, &t), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_DTYPE_COUNT, 1, seven, &t), MIMIC_EINVAL);
    big[1] = 1;
    assert_int_not_equal(mimic_tensor_new(ctx, MIMIC_F32, 2, big, &t), MIMIC_OK);
    assert_null(t);
    assert_int_equal(live_tensors(ctx), 0);
    mimic_close(ctx);
}

static void tensors_describe_themselves(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    char text[128], wanted[128];
    mimic_set_place(ctx, "train.lua:42");
    mimic_tensor *a = ramp(ctx, 2, 3, 0), *b = op2(ctx, "add", a, a);
    mimic_set_place(ctx, "train.lua:43");
    mimic_tensor_describe(b, text, sizeof text);
    snprintf(wanted, sizeof wanted, "tensor #%u (add, train.lua:42) f32 [2,3]", mimic_tensor_id(b));
    assert_string_equal(text, wanted);
    assert_int_not_equal(mimic_tensor_id(a), mimic_tensor_id(b));
    mimic_tensor_describe(b, text, 10);
    assert_int_equal(strlen(text), 9);
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    mimic_close(ctx);
}

static void values_convert(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    const double in[] = {0, 1, -2, 3.75, 100, 1.00390625};
    const double expected[MIMIC_DTYPE_COUNT][6] = {{0, 1, -2, 3.75, 100, 1.00390625},
                                                   {0, 1, -2, 3.75, 100, 1}, /* a tie, to even */
                                                   {0, 1, -2, 3.75, 100, 1.00390625},
                                                   {0, 1, -2, 3, 100, 1},
                                                   {0, 1, 0, 3, 100, 1}};
    for (int d = 0; d < MIMIC_DTYPE_COUNT; d++) {
        mimic_tensor *t = NULL;
        ok(ctx, mimic_tensor_new(ctx, (mimic_dtype)d, 1, (int64_t[]){6}, &t));
        ok(ctx, mimic_tensor_write(ctx, t, MIMIC_F64, in, 6));
        for (int i = 0; i < 6; i++)
            if (d != MIMIC_U8 || in[i] >= 0) /* what -2 is as u8 is left open */
                assert_true(item(ctx, t, i) == expected[d][i]);
        for (int e = 0; e < MIMIC_DTYPE_COUNT; e++) { /* small whole numbers survive every dtype */
            double buffer[6];
            mimic_tensor *u = NULL;
            ok(ctx, mimic_tensor_new(ctx, (mimic_dtype)e, 1, (int64_t[]){6}, &u));
            ok(ctx, mimic_tensor_copy(ctx, u, t));
            ok(ctx, mimic_tensor_read(ctx, u, (mimic_dtype)e, buffer, 6));
            assert_true(item(ctx, u, 1) == 1 && item(ctx, u, 4) == 100);
            mimic_tensor_release(u);
        }
        mimic_tensor_release(t);
    }
    mimic_close(ctx);
}

static void views_read_in_row_major_order(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = ramp(ctx, 2, 3, 0), *t = op2(ctx, "transpose", a, NULL);
    assert_int_equal(mimic_tensor_shape(t)[0], 3);
    assert_false(mimic_tensor_contiguous(t));
    assert_null(mimic_tensor_data(t));
    float data[6];
    const float expected[6] = {0, 3, 1, 4, 2, 5};
    ok(ctx, mimic_tensor_read(ctx, t, MIMIC_F32, data, 6));
    assert_memory_equal(data, expected, sizeof data);
    mimic_tensor_release(a); /* the view keeps the bytes */
    ok(ctx, mimic_tensor_read(ctx, t, MIMIC_F32, data, 6));
    assert_memory_equal(data, expected, sizeof data);
    assert_int_equal(live_tensors(ctx), 1);
    assert_int_equal(mimic_tensor_write(ctx, t, MIMIC_F32, data, 6), MIMIC_EINVAL);
    assert_int_equal(mimic_tensor_read(ctx, t, MIMIC_F32, data, 5), MIMIC_EINVAL);
    mimic_tensor *copy = ramp(ctx, 3, 2, 9), *other = ramp(ctx, 2, 3, 9);
    ok(ctx, mimic_tensor_copy(ctx, copy, t));
    assert_memory_equal(mimic_tensor_data(copy), expected, sizeof data);
    assert_int_equal(mimic_tensor_copy(ctx, other, t), MIMIC_EINVAL);
    assert_message(ctx, "[2,3]");
    assert_message(ctx, "[3,2]");
    mimic_tensor_release(t);
    mimic_tensor_release(copy);
    mimic_tensor_release(other);
    assert_int_equal(live_tensors(ctx), 0);
    mimic_close(ctx);
}

/* --- lives ------------------------------------------------------------------------------------ */

static void references_decide_outside_scopes(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *t = ramp(ctx, 0, 100, 0);
    assert_true(live_bytes(ctx) >= 400);
    mimic_tensor_retain(t);
    mimic_tensor_release(t);
    assert_true(item(ctx, t, 99) == 99);
    mimic_tensor_release(t);
    mimic_tensor_release(NULL);
    assert_int_equal(live_bytes(ctx), 0);
    assert_int_equal(live_tensors(ctx), 0);
    mimic_close(ctx);
}

static void freed_tensors_say_so(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_set_place(ctx, "a.lua:7");
    mimic_tensor *t = ramp(ctx, 0, 4, 0), *out;
    mimic_tensor_free(t);
    mimic_tensor_free(t);
    assert_false(mimic_tensor_alive(t));
    assert_null(mimic_tensor_data(t));
    assert_int_equal(mimic_tensor_shape(t)[0], 4);
    assert_int_equal(live_bytes(ctx), 0);
    float data[4];
    assert_int_equal(mimic_tensor_read(ctx, t, MIMIC_F32, data, 4), MIMIC_ESTATE);
    assert_message(ctx, "a.lua:7) was freed");
    assert_int_equal(mimic_tensor_write(ctx, t, MIMIC_F32, data, 4), MIMIC_ESTATE);
    assert_int_equal(mimic_tensor_set_requires_grad(ctx, t, true), MIMIC_ESTATE);
    assert_int_equal(mimic_tensor_detach(ctx, t, &out), MIMIC_ESTATE);
    assert_int_equal(mimic_backward(ctx, t), MIMIC_ESTATE);
    assert_int_equal(try_op(ctx, "exp", t, NULL, NULL, &out), MIMIC_ESTATE);
    assert_message(ctx, "exp");
    assert_null(out);
    mimic_tensor_release(t);
    mimic_close(ctx);
}

static void scopes_take_their_tensors(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_scope *s = NULL;
    mimic_tensor *before = ramp(ctx, 0, 4, 0);
    ok(ctx, mimic_scope_open(ctx, &s));
    assert_int_equal(mimic_scope_depth(ctx), 1);
    mimic_set_place(ctx, "train.lua:42");
    mimic_tensor *lost = ramp(ctx, 0, 4, 1), *kept = ramp(ctx, 0, 4, 2);
    ok(ctx, mimic_scope_keep(s, kept));
    ok(ctx, mimic_scope_keep(s, before));
    mimic_scope_close(s);
    mimic_scope_close(s);
    assert_int_equal(mimic_scope_depth(ctx), 0);
    assert_true(mimic_tensor_alive(before) && mimic_tensor_alive(kept));
    assert_false(mimic_tensor_alive(lost));
    float data[4];
    char wanted[160];
    snprintf(wanted, sizeof wanted,
             "tensor #%u (tensor, train.lua:42) was freed when its scope closed; "
             "use s:keep(t)",
             mimic_tensor_id(lost));
    assert_int_equal(mimic_tensor_read(ctx, lost, MIMIC_F32, data, 4), MIMIC_ESTATE);
    assert_message(ctx, wanted);
    assert_int_equal(mimic_scope_keep(s, kept), MIMIC_ESTATE);
    assert_int_equal(live_tensors(ctx), 2);
    mimic_scope_release(s);
    mimic_tensor_release(before);
    mimic_tensor_release(lost);
    mimic_tensor_release(kept);
    assert_int_equal(live_tensors(ctx), 0);
    mimic_close(ctx);
}

static void memory_comes_back_before_the_scope_closes(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_scope *s;
    ok(ctx, mimic_scope_open(ctx, &s));
    for (int i = 0; i < 100; i++)
        mimic_tensor_release(ramp(ctx, 0, 1000, 0));
    mimic_memory m;
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.live, 0);
    assert_true(m.peak < 10000);
    mimic_scope_close(s);
    mimic_scope_release(s);
    mimic_close(ctx);
}

static void scopes_nest(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_scope *a, *b, *c;
    ok(ctx, mimic_scope_open(ctx, &a));
    mimic_tensor *in_a = ramp(ctx, 0, 4, 0);
    ok(ctx, mimic_scope_open(ctx, &b));
    mimic_tensor *in_b = ramp(ctx, 0, 4, 0), *one_out = ramp(ctx, 0, 4, 0);
    ok(ctx, mimic_scope_open(ctx, &c));
    mimic_tensor *in_c = ramp(ctx, 0, 4, 0), *far_out = ramp(ctx, 0, 4, 0);
    ok(ctx, mimic_scope_keep(b, in_a));    /* lives further out: stays there */
    ok(ctx, mimic_scope_keep(b, one_out)); /* to a */
    ok(ctx, mimic_scope_keep(b, far_out)); /* of an inner scope: to a as well */
    mimic_scope_close(b);                  /* and c with it */
    assert_int_equal(mimic_scope_depth(ctx), 1);
    assert_false(mimic_tensor_alive(in_b) || mimic_tensor_alive(in_c));
    assert_true(mimic_tensor_alive(in_a) && mimic_tensor_alive(one_out) &&
                mimic_tensor_alive(far_out));
    ok(ctx, mimic_scope_keep(a, far_out));
    mimic_scope_close(c); /* already */
    mimic_scope_release(c);
    mimic_scope_release(b);
    mimic_scope_close(a);
    mimic_scope_release(a);
    assert_false(mimic_tensor_alive(in_a) || mimic_tensor_alive(one_out));
    assert_true(mimic_tensor_alive(far_out));
    mimic_tensor *all[] = {in_a, in_b, one_out, in_c, far_out};
    for (int i = 0; i < 5; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(live_tensors(ctx), 0);
    mimic_close(ctx);
}

static void kept_views_keep_the_bytes(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_scope *s;
    ok(ctx, mimic_scope_open(ctx, &s));
    mimic_tensor *a = ramp(ctx, 2, 3, 0), *v = op2(ctx, "transpose", a, NULL);
    ok(ctx, mimic_scope_keep(s, v));
    mimic_scope_close(s);
    mimic_scope_release(s);
    assert_false(mimic_tensor_alive(a));
    assert_true(item(ctx, v, 1) == 3);
    mimic_tensor_release(a);
    mimic_tensor_release(v);
    assert_int_equal(live_tensors(ctx), 0);
    mimic_close(ctx);
}

static void scopes_cut_the_name_stack_and_free_without_references(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_scope *s;
    ok(ctx, mimic_scope_open(ctx, &s));
    mimic_tensor *t = ramp(ctx, 0, 4, 0);
    mimic_scope_release(s); /* an open scope whose handle is gone still closes with the context */
    mimic_close(ctx);
    assert_false(mimic_tensor_alive(t));
    mimic_tensor_release(t);
}

/* Handles of every kind, released after the context: nothing leaks, nothing crashes. */
static void handles_outlive_the_context(void **state) {
    (void)state;
    host h = {0};
    mimic_ctx *ctx;
    mimic_scope *s;
    assert_int_equal(host_open(&h, 2, &ctx), MIMIC_OK);
    mimic_tensor *plain = ramp(ctx, 0, 4, 0), *w = leaf(ctx, 2, 3, 1);
    ok(ctx, mimic_scope_open(ctx, &s));
    mimic_tensor *scoped = op2(ctx, "exp", plain, NULL), *y = op2(ctx, "mul", w, w);
    mimic_tensor *loss = op2(ctx, "sum", y, NULL), *view = op2(ctx, "transpose", y, NULL);
    mimic_close(ctx);
    mimic_tensor *all[] = {plain, w, scoped, y, loss, view};
    for (int i = 0; i < 6; i++) {
        char text[128];
        assert_false(mimic_tensor_alive(all[i]));
        assert_null(mimic_tensor_data(all[i]));
        mimic_tensor_describe(all[i], text, sizeof text);
        mimic_tensor_free(all[i]);
        mimic_tensor_retain(all[i]);
        mimic_tensor_release(all[i]);
    }
    assert_int_equal(mimic_tensor_shape(view)[0], 3);
    mimic_scope_close(s);
    mimic_scope_release(s);
    for (int i = 0; i < 6; i++)
        mimic_tensor_release(all[i]);
    assert_int_equal(h.live, 0);
}

static void foreign_tensors_are_refused(void **state) {
    (void)state;
    mimic_ctx *a = open_ctx(), *b = open_ctx();
    mimic_tensor *t = ramp(a, 0, 4, 0), *out;
    assert_int_equal(try_op(b, "exp", t, NULL, NULL, &out), MIMIC_ESTATE);
    assert_message(b, "another context");
    mimic_tensor_release(t);
    mimic_close(a);
    mimic_close(b);
}

/* --- pool ------------------------------------------------------------------------------------- */

static void same_calls_same_addresses(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    void *first[3];
    for (int pass = 0; pass < 4; pass++) {
        mimic_scope *s;
        ok(ctx, mimic_scope_open(ctx, &s));
        mimic_tensor *t[3];
        for (int i = 0; i < 3; i++) {
            t[i] = ramp(ctx, 0, i == 1 ? 100000 : 10, 0);
            if (pass == 1) /* the first pass fills the lists; from then on they repeat */
                first[i] = mimic_tensor_data(t[i]);
            if (pass > 1)
                assert_ptr_equal(first[i], mimic_tensor_data(t[i]));
        }
        mimic_scope_close(s);
        mimic_scope_release(s);
        for (int i = 0; i < 3; i++)
            mimic_tensor_release(t[i]);
    }
    mimic_close(ctx);
}

static void statistics_and_trim(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_memory m;
    mimic_tensor *t = ramp(ctx, 0, 1 << 20, 0);
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.live, 4 << 20);
    assert_int_equal(m.peak, 4 << 20);
    assert_int_equal(m.tensors, 1);
    mimic_tensor_release(t);
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.live, 0);
    assert_int_equal(m.cached, 4 << 20);
    assert_int_equal(m.peak, 4 << 20);
    mimic_reset_peak(ctx);
    mimic_trim(ctx);
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.cached, 0);
    assert_int_equal(m.peak, 0);
    mimic_close(ctx);
}

static void class_sizes_waste_little(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    for (int64_t n = 1; n < 5000000; n += 1 + n / 7) {
        mimic_tensor *t = NULL;
        ok(ctx, mimic_tensor_new(ctx, MIMIC_U8, 1, &n, &t));
        size_t live = live_bytes(ctx);
        assert_true(live >= (size_t)n && live <= (size_t)n + (size_t)n / 8 + 64);
        mimic_tensor_release(t);
        assert_int_equal(live_bytes(ctx), 0);
        mimic_trim(ctx);
    }
    mimic_close(ctx);
}

static void the_limit_gives_a_report(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_set_memory_limit(ctx, 8 << 20);
    mimic_set_place(ctx, "train.lua:1");
    mimic_tensor *small = ramp(ctx, 0, 100, 0);
    mimic_set_place(ctx, "train.lua:2");
    mimic_tensor *big = ramp(ctx, 1024, 1024, 0), *out = NULL;
    assert_int_equal(try_op(ctx, "exp", big, NULL, NULL, &out), MIMIC_ENOMEM);
    assert_int_equal(mimic_last_status(ctx), MIMIC_ENOMEM);
    char wanted[80];
    snprintf(wanted, sizeof wanted, "tensor #%u (tensor, train.lua:2) f32 [1024,1024] 4.0 MiB",
             mimic_tensor_id(big));
    assert_message(ctx, wanted);
    assert_message(ctx, "train.lua:1");
    assert_message(ctx, "8.0 MiB"); /* the limit */
    assert_true(strstr(mimic_message(ctx), "train.lua:2") <
                strstr(mimic_message(ctx), "train.lua:1"));
    mimic_set_memory_limit(ctx, 0); /* and the context goes on */
    ok(ctx, try_op(ctx, "exp", big, NULL, NULL, &out));
    mimic_tensor_release(out);
    mimic_tensor_release(big);
    mimic_tensor_release(small);
    mimic_close(ctx);
}

/* When the host refuses a block, the cache is given back and the block asked for once more. */
static void cache_is_given_back_before_failing(void **state) {
    (void)state;
    host h = {0};
    mimic_ctx *ctx;
    mimic_memory m;
    mimic_tensor *t = NULL;
    int64_t n = 300000;
    assert_int_equal(host_open(&h, 1, &ctx), MIMIC_OK);
    mimic_tensor_release(ramp(ctx, 0, 100000, 0));
    h.fail_at = h.count + 1;
    ok(ctx, mimic_tensor_new(ctx, MIMIC_F32, 1, &n, &t));
    assert_true(h.count > h.fail_at);
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.cached, 0);
    mimic_tensor_release(t);
    t = NULL;
    n = 900000;
    h.fail_from = h.count + 1;
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 1, &n, &t), MIMIC_ENOMEM);
    assert_message(ctx, "3.4 MiB requested");
    assert_null(t);
    assert_int_equal(live_bytes(ctx), 0);
    mimic_close(ctx);
    assert_int_equal(h.live, 0);
}

static void limit_of_the_configuration(void **state) {
    (void)state;
    mimic_config cfg = {.memory_limit = 1000, .threads = 1};
    mimic_ctx *ctx;
    mimic_tensor *t = NULL;
    int64_t n = 1000;
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 1, &n, &t), MIMIC_ENOMEM);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_have_names),
        cmocka_unit_test(new_tensors_are_zero),
        cmocka_unit_test(odd_shapes),
        cmocka_unit_test(tensors_describe_themselves),
        cmocka_unit_test(values_convert),
        cmocka_unit_test(views_read_in_row_major_order),
        cmocka_unit_test(references_decide_outside_scopes),
        cmocka_unit_test(freed_tensors_say_so),
        cmocka_unit_test(scopes_take_their_tensors),
        cmocka_unit_test(memory_comes_back_before_the_scope_closes),
        cmocka_unit_test(scopes_nest),
        cmocka_unit_test(kept_views_keep_the_bytes),
        cmocka_unit_test(scopes_cut_the_name_stack_and_free_without_references),
        cmocka_unit_test(handles_outlive_the_context),
        cmocka_unit_test(foreign_tensors_are_refused),
        cmocka_unit_test(same_calls_same_addresses),
        cmocka_unit_test(statistics_and_trim),
        cmocka_unit_test(class_sizes_waste_little),
        cmocka_unit_test(the_limit_gives_a_report),
        cmocka_unit_test(cache_is_given_back_before_failing),
        cmocka_unit_test(limit_of_the_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Context, messages, threads, memory accounting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "core/ctx.h"
#include "mimic/tensor.h"

static void opens_and_closes(void **state) {
    (void)state;
    mimic_ctx *ctx;
    mimic_close(NULL);
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    assert_true(mimic_threads(ctx) >= 1);
    assert_string_equal(mimic_message(ctx), "");
    mimic_close(ctx);
}

static void unknown_isa_is_refused(void **state) {
    (void)state;
    mimic_ctx *ctx;
    mimic_config cfg = {.isa = "abacus"};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_EUNSUPPORTED);
    assert_null(ctx);
    cfg.isa = "base";
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    assert_string_equal(mimic_isa(ctx), "base");
    mimic_close(ctx);
}

static void messages_carry_the_name_stack(void **state) {
    (void)state;
    mimic_ctx *ctx;
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    mimic_push_name(ctx, "vit");
    mimic_push_name(ctx, "blocks.3");
    mimic_fail(ctx, MIMIC_EINVAL, "linear: %d", 7);
    assert_string_equal(mimic_message(ctx), "vit.blocks.3: linear: 7");
    assert_int_equal(mimic_last_status(ctx), MIMIC_EINVAL);
    mimic_fail(ctx, MIMIC_EIO, "again: %s", mimic_message(ctx)); /* the old message as an argument */
    assert_string_equal(mimic_message(ctx), "vit.blocks.3: again: vit.blocks.3: linear: 7");
    int depth = mimic_name_depth(ctx);
    for (int i = 0; i < 100; i++)
        mimic_push_name(ctx, "deep");
    mimic_fail(ctx, MIMIC_EINVAL, "x");
    mimic_set_name_depth(ctx, depth);
    mimic_pop_name(ctx);
    mimic_pop_name(ctx);
    mimic_pop_name(ctx); /* one too many is harmless */
    assert_int_equal(mimic_name_depth(ctx), 0);
    mimic_close(ctx);
}

typedef struct counts {
    mimic_ctx *ctx;
    _Atomic int hits[1000];
} counts;

static void hit(void *arg, int64_t i, int worker) {
    counts *c = arg;
    (void)worker;
    atomic_fetch_add(&c->hits[i], 1);
}

static void nested(void *arg, int64_t i, int worker) {
    counts *c = arg;
    (void)i;
    (void)worker;
    mimic_parallel(c->ctx, 1000, hit, c);
}

static void every_chunk_runs_once(void **state) {
    (void)state;
    counts c = {0};
    mimic_config cfg = {.threads = 3};
    assert_int_equal(mimic_open(&cfg, &c.ctx), MIMIC_OK);
    for (int round = 1; round <= 200; round++) {
        mimic_parallel(c.ctx, 1000, hit, &c);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(c.hits[i], round);
    }
    mimic_parallel(c.ctx, 5, nested, &c);
    assert_int_equal(c.hits[999], 205);
    assert_int_equal(mimic_set_threads(c.ctx, 0), MIMIC_EINVAL);
    assert_int_equal(mimic_set_threads(c.ctx, 1), MIMIC_OK);
    mimic_parallel(c.ctx, 1000, hit, &c);
    assert_int_equal(mimic_set_threads(c.ctx, 2), MIMIC_OK);
    mimic_parallel(c.ctx, 1000, hit, &c);
    assert_int_equal(c.hits[0], 207);
    mimic_close(c.ctx);
}

static void injected_failures_count_down(void **state) {
    (void)state;
    mimic_ctx *ctx;
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    int64_t live = mimic_alloc_live(ctx);
    mimic_fail_alloc(ctx, 2, false);
    void *a = mimic_alloc(ctx, 8), *b = mimic_alloc(ctx, 8), *c = mimic_alloc(ctx, 8);
    assert_non_null(a);
    assert_null(b);
    assert_int_equal(mimic_last_status(ctx), MIMIC_ENOMEM);
    assert_non_null(c);
    mimic_fail_alloc(ctx, 1, true);
    assert_null(mimic_alloc(ctx, 8));
    assert_null(mimic_alloc(ctx, 8));
    mimic_fail_alloc(ctx, 0, false);
    mimic_free(ctx, a);
    mimic_free(ctx, c);
    assert_int_equal(mimic_alloc_live(ctx), live);
    mimic_close(ctx);
}

typedef struct budget {
    int64_t left, live;
} budget;

static void *budget_alloc(void *user, size_t bytes) {
    budget *b = user;
    if (b->left-- <= 0)
        return NULL;
    b->live++;
    void *p = NULL;
    return posix_memalign(&p, 64, bytes) == 0 ? p : NULL;
}

static void budget_free(void *user, void *p) {
    ((budget *)user)->live -= p != NULL;
    free(p);
}

static void opening_survives_any_failure(void **state) {
    (void)state;
    mimic_status st = MIMIC_ENOMEM;
    for (int64_t n = 0; st; n++) {
        mimic_ctx *ctx;
        budget b = {.left = n};
        mimic_config cfg = {.alloc = budget_alloc, .free = budget_free, .user = &b, .threads = 2};
        st = mimic_open(&cfg, &ctx);
        assert_true(st == MIMIC_OK || st == MIMIC_ENOMEM);
        mimic_close(ctx);
        assert_int_equal(b.live, 0);
        assert_true(n < 100);
    }
}

static void out_of_memory_is_a_report(void **state) {
    (void)state;
    mimic_ctx *ctx;
    mimic_config cfg = {.memory_limit = 1 << 20};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    mimic_tensor *a, *b;
    mimic_set_place(ctx, "train.lua:42");
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 1, (int64_t[]){1 << 17}, &a), MIMIC_OK);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 1, (int64_t[]){1 << 18}, &b), MIMIC_ENOMEM);
    assert_non_null(strstr(mimic_message(ctx), "train.lua:42"));
    assert_non_null(strstr(mimic_message(ctx), "limit 1.0 MiB"));
    mimic_tensor_release(a);
    assert_int_equal(mimic_tensor_new(ctx, MIMIC_F32, 1, (int64_t[]){1 << 18}, &b), MIMIC_OK);
    mimic_tensor_release(b);
    mimic_memory m;
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.live, 0);
    assert_true(m.cached > 0 && m.peak == 1 << 20);
    mimic_trim(ctx);
    mimic_memory_stats(ctx, &m);
    assert_int_equal(m.cached, 0);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_and_closes),
        cmocka_unit_test(unknown_isa_is_refused),
        cmocka_unit_test(messages_carry_the_name_stack),
        cmocka_unit_test(every_chunk_runs_once),
        cmocka_unit_test(injected_failures_count_down),
        cmocka_unit_test(opening_survives_any_failure),
        cmocka_unit_test(out_of_memory_is_a_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Allocation failure in every operator: the n-th allocation of forward and backward fails, for n =
 * 1, 2, ... until all succeed. Each time there is a status, nothing is leaked and the context works
 * on. */
#include "case.h"

static void sweep(mimic_ctx *ctx, const op_case *c, bool sticky) {
    if (run_case(ctx, c, NULL, ~0u, NULL) !=
        MIMIC_OK) /* warm: tables of the context have their size */
        fail_msg("%s: %s", c->text, mimic_message(ctx));
    mimic_trim(ctx);
    int64_t live = mimic_alloc_live(ctx);
    for (int64_t n = 1;; n++) {
        mimic_fail_alloc(ctx, n, sticky);
        mimic_status st = run_case(ctx, c, NULL, ~0u, NULL);
        mimic_fail_alloc(ctx, 0, false);
        mimic_trim(ctx);
        if (mimic_alloc_live(ctx) != live)
            fail_msg("%s: allocation %lld fails: %lld blocks before, %lld after", c->text,
                     (long long)n, (long long)live, (long long)mimic_alloc_live(ctx));
        if (st == MIMIC_OK)
            break;
        if (st != MIMIC_ENOMEM || !*mimic_message(ctx))
            fail_msg("%s: allocation %lld fails: %s \"%s\"", c->text, (long long)n,
                     mimic_status_name(st), mimic_message(ctx));
        assert_true(n < 2000);
    }
    if (run_case(ctx, c, NULL, ~0u, NULL) != MIMIC_OK)
        fail_msg("%s: does not work after the sweep: %s", c->text, mimic_message(ctx));
}

static void sweep_all(int first, int step) {
    mimic_ctx *ctx = open_ctx(2);
    op_case cases[MAX_CASES];
    for (int o = first; o < mimic_op_count(); o += step) {
        const mimic_op *op = mimic_op_at(o);
        int n = read_cases(op, NULL, cases);
        for (int k = 0; k < n && k < 3; k++) {
            sweep(ctx, &cases[k], false);
            if (k == 0)
                sweep(ctx, &cases[k], true);
        }
    }
    mimic_close(ctx);
}

static void test_even(void **state) {
    (void)state;
    sweep_all(0, 2);
}

static void test_odd(void **state) {
    (void)state;
    sweep_all(1, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_even), cmocka_unit_test(test_odd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

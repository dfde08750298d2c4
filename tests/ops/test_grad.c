/* Gradients of every operator against central differences in f64: for each case of the table,
 * random directions and single elements of every differentiable input, and every output of the
 * operator on its own. */
#include "case.h"

enum { DIRECTIONS = 3, ELEMENTS = 24 };

/* All floats of the case as f64. */
static void widen(op_case *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].given && is_float(c->in[i].dtype))
            c->in[i].dtype = MIMIC_F64;
}

static double loss_at(mimic_ctx *ctx, const op_case *c, double **values, unsigned mask, int i,
                      const double *direction, int64_t element, double h) {
    int64_t n = spec_count(&c->in[i]);
    double *x = values[i], *moved = malloc(sizeof *moved * (size_t)(n + 1));
    run_result r;
    memcpy(moved, x, sizeof *moved * (size_t)n);
    for (int64_t k = 0; k < n; k++)
        moved[k] += direction ? h * direction[k] : 0;
    if (element >= 0)
        moved[element] += h;
    values[i] = moved;
    mimic_set_grad_enabled(ctx, false);
    mimic_status st = run_case(ctx, c, values, mask, &r);
    mimic_set_grad_enabled(ctx, true);
    if (st != MIMIC_OK)
        fail_msg("%s: %s", c->text, mimic_message(ctx));
    values[i] = x;
    free(moved);
    double loss = r.loss;
    free_result(&r);
    return loss;
}

static void compare(const op_case *c, int i, unsigned mask, const char *what, int64_t at,
                    double numeric, double exact, double scale) {
    if (!(fabs(numeric - exact) <= 1e-7 * fabs(exact) + 1e-8 * scale + 1e-10))
        fail_msg("%s: input %d, outputs %x, %s %lld: differences give %.10g, the gradient %.10g",
                 c->text, i + 1, mask, what, (long long)at, numeric, exact);
}

static void check_outputs(mimic_ctx *ctx, const op_case *c, double **values, unsigned mask) {
    const double h = 1e-5;
    run_result r;
    mimic_rng rng;
    mimic_rng_init(&rng, 5, 0, 0);
    if (run_case(ctx, c, values, mask, &r) != MIMIC_OK)
        fail_msg("%s: %s", c->text, mimic_message(ctx));
    for (int k = 0; k < r.n_out; k++)
        if (is_float(r.dtype[k]) && r.dtype[k] != MIMIC_F64) { /* rounds: no central differences */
            free_result(&r);
            return;
        }
    for (int i = 0; i < c->n_in; i++) {
        int64_t n = spec_count(&c->in[i]);
        if (!r.grad[i] || n == 0)
            continue;
        double *direction = malloc(sizeof *direction * (size_t)n), norm = 0;
        for (int64_t k = 0; k < n; k++)
            norm += r.grad[i][k] * r.grad[i][k];
        norm = sqrt(norm);
        for (int d = 0; d < DIRECTIONS; d++) {
            double exact = 0;
            for (int64_t k = 0; k < n; k++) {
                direction[k] = mimic_rng_normal(&rng) / sqrt((double)n);
                exact += direction[k] * r.grad[i][k];
            }
            double numeric = (loss_at(ctx, c, values, mask, i, direction, -1, h) -
                              loss_at(ctx, c, values, mask, i, direction, -1, -h)) /
                             (2 * h);
            compare(c, i, mask, "direction", d, numeric, exact, norm + fabs(r.loss));
        }
        for (int e = 0; e < ELEMENTS && e < n; e++) {
            int64_t at = n <= ELEMENTS ? e : (int64_t)mimic_rng_below(&rng, (uint32_t)n);
            double numeric = (loss_at(ctx, c, values, mask, i, NULL, at, h) -
                              loss_at(ctx, c, values, mask, i, NULL, at, -h)) /
                             (2 * h);
            compare(c, i, mask, "element", at, numeric, r.grad[i][at], norm + fabs(r.loss));
        }
        free(direction);
    }
    free_result(&r);
}

static void test_gradients(void **state) {
    mimic_ctx *ctx = open_ctx(1);
    op_case cases[MAX_CASES];
    (void)state;
    for (int o = 0; o < mimic_op_count(); o++) {
        const mimic_op *op = mimic_op_at(o);
        if (op->flags & MIMIC_OP_NO_GRAD)
            continue;
        int n = read_cases(op, NULL, cases), checked = 0;
        for (int k = 0; k < n; k++) {
            op_case *c = &cases[k];
            double *values[MIMIC_MAX_IN] = {NULL};
            bool any = false;
            widen(c);
            for (int i = 0; i < c->n_in; i++) {
                values[i] = c->in[i].given ? make_values(c, i) : NULL;
                any |= differentiable(c, i);
            }
            if (any) {
                checked++;
                check_outputs(ctx, c, values, (1u << op->n_out) - 1);
                for (int out = 0; op->n_out > 1 && out < op->n_out; out++)
                    check_outputs(ctx, c, values, 1u << out);
            }
            for (int i = 0; i < c->n_in; i++)
                free(values[i]);
        }
        if (!checked)
            fail_msg("%s: no case with a gradient", op->name);
    }
    mimic_close(ctx);
}

/* A gradient that is not asked for is not computed wrongly either: each input alone. */
static void test_single_inputs(void **state) {
    mimic_ctx *ctx = open_ctx(1);
    op_case cases[MAX_CASES];
    (void)state;
    for (int o = 0; o < mimic_op_count(); o++) {
        const mimic_op *op = mimic_op_at(o);
        int n = op->flags & MIMIC_OP_NO_GRAD ? 0 : read_cases(op, NULL, cases);
        for (int k = 0; k < n && k < 4; k++) {
            const op_case *c = &cases[k];
            run_result all, one;
            assert_int_equal(run_case(ctx, c, NULL, ~0u, &all), MIMIC_OK);
            for (int i = 0; i < c->n_in; i++) {
                mimic_tensor *in[MIMIC_MAX_IN] = {NULL};
                if (!all.grad[i])
                    continue;
                for (int j = 0; j < c->n_in; j++) {
                    if (!c->in[j].given)
                        continue;
                    double *v = make_values(c, j);
                    in[j] = make_tensor(ctx, &c->in[j], v);
                    free(v);
                }
                assert_int_equal(mimic_tensor_set_requires_grad(ctx, in[i], true), MIMIC_OK);
                if (run_inputs(ctx, c, in, in, ~0u, &one) != MIMIC_OK)
                    fail_msg("%s: input %d alone: %s", c->text, i + 1, mimic_message(ctx));
                if (!one.grad[i] || memcmp(one.grad[i], all.grad[i],
                                           sizeof(double) * (size_t)all.grad_count[i]) != 0)
                    fail_msg("%s: the gradient of input %d alone differs", c->text, i + 1);
                free_result(&one);
                for (int j = 0; j < c->n_in; j++)
                    mimic_tensor_release(in[j]);
            }
            free_result(&all);
        }
    }
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients),
                                       cmocka_unit_test(test_single_inputs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

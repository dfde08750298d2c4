/* What every operator of the table promises, checked for all of its cases: a complete record,
 * messages for wrong inputs, equal bits on every run, number of threads and layout of the inputs,
 * bf16 near f32. */
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

/* Calls f for every case of the table. */
static void each_case(void (*f)(const op_case *c)) {
    op_case cases[MAX_CASES];
    for (int o = 0; o < mimic_op_count(); o++) {
        int n = read_cases(mimic_op_at(o), NULL, cases);
        for (int k = 0; k < n; k++)
            f(&cases[k]);
    }
}

static void must(mimic_status st, const op_case *c) {
    if (st != MIMIC_OK)
        fail_msg("%s: %s", c->text, mimic_message(ctx));
}

static void test_records(void **state) {
    (void)state;
    for (int o = 0; o < mimic_op_count(); o++) {
        const mimic_op *op = mimic_op_at(o);
        op_case cases[MAX_CASES];
        int words = 0;
        assert_ptr_equal(mimic_op_find(op->name), op);
        assert_int_equal(op->index, o);
        if (!op->doc || strncmp(op->doc, op->name, strlen(op->name)) != 0 || !strchr(op->doc, '\n'))
            fail_msg("%s: its doc begins with its call and a line of explanation", op->name);
        if (!op->cases || read_cases(op, NULL, cases) < 1)
            fail_msg("%s: no cases", op->name);
        if (!op->vjp != !!(op->flags & MIMIC_OP_NO_GRAD))
            fail_msg("%s: a gradient, or the flag NO_GRAD", op->name);
        for (const char *p = op->inputs; *p; p++)
            words += *p != ' ' && (p == op->inputs || p[-1] == ' ');
        if (words != op->n_in)
            fail_msg("%s: %d input names for %d inputs", op->name, words, op->n_in);
        if (strlen(op->name) > 4 && strcmp(op->name + strlen(op->name) - 4, "_bwd") == 0)
            assert_true(mimic_op_internal(op));
    }
    assert_null(mimic_op_find("nonsense"));
    assert_null(mimic_op_at(-1));
    assert_null(mimic_op_at(mimic_op_count()));
}

static void runs(const op_case *c) {
    run_result a, b;
    must(run_case(ctx, c, NULL, ~0u, &a), c);
    must(run_case(ctx, c, NULL, ~0u, &b), c);
    expect_equal_bits(c, "second run", &a, &b);
    free_result(&b);
    mimic_set_grad_enabled(ctx, false); /* nothing is saved: the same outputs */
    must(run_case(ctx, c, NULL, 0, &b), c);
    mimic_set_grad_enabled(ctx, true);
    for (int k = 0; k < a.n_out; k++)
        if (memcmp(a.out[k], b.out[k], sizeof(double) * (size_t)a.count[k]) != 0)
            fail_msg("%s: another output without the tape", c->text);
    free_result(&a);
    free_result(&b);
}

static void test_runs(void **state) {
    (void)state;
    each_case(runs);
}

/* --- wrong inputs
 * ------------------------------------------------------------------------------------------ */

/* Runs a spoiled case: it works, or there is EINVAL and a message that begins with the operator. */
static bool refused(const op_case *c, const char *how, int i) {
    mimic_status st = run_case(ctx, c, NULL, 0, NULL);
    if (st == MIMIC_OK)
        return false;
    if (st != MIMIC_EINVAL || strncmp(mimic_message(ctx), c->op->name, strlen(c->op->name)) != 0)
        fail_msg("%s, input %d %s: %s: %s", c->text, i + 1, how, mimic_status_name(st),
                 mimic_message(ctx));
    return true;
}

static void spoil(const op_case *c) {
    int given = 0, shapes = 0;
    for (int i = 0; i < c->n_in; i++) {
        op_case bad = *c;
        input_spec *s = &bad.in[i];
        if (!s->given)
            continue;
        given++;
        if (s->rank < MIMIC_MAX_RANK) { /* an axis more, an axis less */
            memmove(s->shape + 1, s->shape, sizeof(int64_t) * (size_t)s->rank);
            s->shape[0] = 3;
            s->rank++;
            shapes += refused(&bad, "with an axis more", i);
        }
        *s = c->in[i];
        if (s->rank > 0) {
            s->rank--;
            shapes += refused(&bad, "with an axis less", i);
        }
        *s = c->in[i];
        for (int k = 0; k < s->rank; k++) {
            s->shape[k] += 2;
            shapes += refused(&bad, "with a longer axis", i);
            *s = c->in[i];
        }
        for (int d = 0; d < MIMIC_DTYPE_COUNT; d++) {
            s->dtype = (mimic_dtype)d;
            if (d != (int)c->in[i].dtype)
                refused(&bad, "of another dtype", i);
        }
        *s = c->in[i];
        if (i >= c->op->min_in)
            continue;
        s->given = false;
        if (!refused(&bad, "left out", i))
            fail_msg("%s: works without input %d", c->text, i + 1);
    }
    if (given > 1 && shapes == 0)
        fail_msg("%s: takes any shapes", c->text);
}

static void test_wrong_inputs(void **state) {
    (void)state;
    each_case(spoil);
}

/* Indices far out of range: an error, or the operator does not use them as positions. */
static void wild_index(const op_case *c) {
    for (int i = 0; i < c->n_in; i++) {
        op_case bad = *c;
        if (!c->in[i].given || c->in[i].dtype != MIMIC_I32 || spec_count(&c->in[i]) == 0)
            continue;
        for (int sign = -1; sign < 2; sign += 2) {
            bad.in[i].fill = FILL_NUMBER;
            bad.in[i].value = sign * 100000;
            refused(&bad, "out of range", i);
        }
    }
}

static void expect_message(const char *name, const char *text, const char *message) {
    op_case c[MAX_CASES];
    assert_int_equal(read_cases(mimic_op_find(name), text, c), 1);
    assert_int_equal(run_case(ctx, c, NULL, 0, NULL), MIMIC_EINVAL);
    assert_string_equal(mimic_message(ctx), message);
}

static void test_index_errors(void **state) {
    (void)state;
    each_case(wild_index);
    expect_message("cross_entropy", "logits[13,7] target[13]:i32=7",
                   "cross_entropy: label 7 at row 0 is not in 0..6");
    expect_message("gather_rows", "x[2,3,4] index[2,3]:i32=-1",
                   "gather_rows: index -1 at row 0, column 0 is not in 0..2");
    expect_message("onehot", "labels[2]:i32=9 classes=4",
                   "onehot: label 9 at row 0 is not in 0..3");
    expect_message("layernorm", "x[2,5,8] weight[7] bias[8]",
                   "layernorm: weight must be [8]: x [2,5,8], weight [7], bias [8]");
    expect_message("add", "a[2,3]:bf16 b[3]", "add: b must be bf16, not f32: a [2,3]:bf16, b [3]");
    expect_message("masked_mse", "pred[1,2,3] target[1,2,3] mask[1,2]=0",
                   "masked_mse: the mask sums to 0, no patch to average over");
}

/* --- threads
 * -----------------------------------------------------------------------------------------------
 */

/* Cases large enough for several chunks. */
static const char *const large[][2] = {
    {"contiguous", "x[3,20000]; x[200,300]"},
    {"cast", "x[70001] dtype=1; x[70001] dtype=3"},
    {"concat", "a[300,70] b[300,90] axis=1"},
    {"slice", "x[300,200] axis=1 start=7"},
    {"add", "a[70001] b[70001]; a[300,201] b[201]; a[20,1,50] b[60,50]; a[50000] b[]"},
    {"mul", "a[70001]:bf16 b[70001]:bf16; a[300,201] b[300,1]"},
    {"gelu", "x[70001]; x[70001]:bf16"},
    {"exp", "x[70001]"},
    {"sum_to", "x[40,50,60] shape=50,1; x[3000,33] shape=33"},
    {"sum", "x[100001]; x[900,100] axis=0; x[40,60,50] axis=1; x[70000,2] axis=1"},
    {"max", "x[900,100] axis=0; x[900,100] axis=1; x[70001]"},
    {"softmax", "x[900,100]; x[900,100]:bf16"},
    {"layernorm", "x[900,100] weight[100] bias[100]; x[30000,9] weight[9] bias[9]"},
    {"add_layernorm", "x[900,100]:bf16 r[900,100]:bf16 weight[100] bias[100]"},
    {"batchnorm", "x[300,300] weight[300] bias[300]"},
    {"l2norm", "x[900,100]"},
    {"sub", "a[70001] b[70001]"},
    {"div", "a[70001] b[70001]=positive"},
    {"scale", "x[70001] alpha=3 beta=1"},
    {"log", "x[70001]=positive"},
    {"sqrt", "x[70001]=positive"},
    {"relu", "x[70001]; x[70001]:bf16"},
    {"mean", "x[100001]; x[900,100] axis=0"},
    {"argmax", "x[9000,20]"},
    {"hog", "img[16,3,64,64] pool=8"},
    {"unpatchify", "x[4,36,768] patch=16"},
    {"onehot", "labels[9000]:i32=index(30) classes=30"},
    {"rand_uniform", "shape=70001"},
    {"mscl_masks",
     "anchors[200,7]=uniform candidates[200,7]=uniform a[200]:i32=perm b[200]:i32=perm"},
    {"linear",
     "x[300,200] weight[150,200] bias[150] act=gelu; x[300,200]:bf16 weight[150,200]:bf16"},
    {"matmul", "a[3,100,150] b[3,150,90]"},
    {"attention", "qkv[3,70,192] heads=2"},
    {"gather_rows", "x[40,60,50] index[40,70]:i32=index(60)"},
    {"scatter_rows",
     "y[40,60,50] index[40,60]:i32=index(70) rows=70; y[900,600] index[900]:i32=index(5) rows=5"},
    {"argsort", "x[300,300]"},
    {"patchify", "img[4,3,96,96] patch=16"},
    {"rand_normal", "shape=70001"},
    {"dropout", "x[70001] p=0.3"},
    {"drop_path", "x[300,201] p=0.3"},
    {"mix", "x[8,3,64,64] lam[8]=uniform box[8,4]:i32=0 partner[8]:i32=perm"},
    {"cross_entropy", "logits[900,100] target[900]:i32=index(100)"},
    {"masked_mse", "pred[4,196,96] target[4,196,96] mask[4,196]=uniform norm=1"},
    {"contrastive",
     "za[128,64]=uniform zc[256,64]=uniform pos[128,256]:u8=bool cand[128,256]:u8=1 tau=5"},
};

static void same_on_threads(const op_case *c) {
    run_result a, b;
    assert_int_equal(mimic_set_threads(ctx, 1), MIMIC_OK);
    must(run_case(ctx, c, NULL, ~0u, &a), c);
    for (int t = 2; t <= 3; t++) {
        assert_int_equal(mimic_set_threads(ctx, t), MIMIC_OK);
        must(run_case(ctx, c, NULL, ~0u, &b), c);
        expect_equal_bits(c, t == 2 ? "2 threads" : "3 threads", &a, &b);
        free_result(&b);
    }
    free_result(&a);
}

/* Every operator with a kernel is in the list; internal ones run as gradients of the others. */
static void every_kernel_is_listed(void) {
    for (int o = 0; o < mimic_op_count(); o++) {
        const mimic_op *op = mimic_op_at(o);
        bool listed = mimic_op_internal(op) || op->flags & MIMIC_OP_VIEW;
        for (size_t i = 0; !listed && i < sizeof large / sizeof *large; i++)
            listed = strcmp(large[i][0], op->name) == 0;
        if (!listed)
            fail_msg("%s: no large case for the comparison of threads", op->name);
    }
}

static void test_threads(void **state) {
    (void)state;
    every_kernel_is_listed();
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        op_case cases[MAX_CASES];
        const mimic_op *op = mimic_op_find(large[i][0]);
        assert_non_null(op);
        int n = read_cases(op, large[i][1], cases);
        for (int k = 0; k < n; k++)
            same_on_threads(&cases[k]);
    }
    assert_int_equal(mimic_set_threads(ctx, 2), MIMIC_OK);
}

/* --- dtypes
 * ------------------------------------------------------------------------------------------------
 */

/* b near a, each element within `rel` of itself and of the largest (or top). */
static void near(const op_case *c, const char *what, int k, const double *a, const double *b,
                 int64_t n, double rel, double top) {
    for (int64_t i = 0; i < n; i++)
        top = isfinite(a[i]) && fabs(a[i]) > top ? fabs(a[i]) : top;
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= rel * (fabs(a[i]) + top)) && a[i] != b[i])
            fail_msg("%s: %s %d, element %lld: %g and %g", c->text, what, k + 1, (long long)i, a[i],
                     b[i]);
}

/* The case in another float dtype has nearly the same outputs and gradients. */
static void compare_dtypes(const op_case *c, mimic_dtype from, mimic_dtype to, double rel) {
    op_case wide = *c;
    run_result a, b;
    bool any = false;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].given && c->in[i].dtype == from) {
            wide.in[i].dtype = to;
            any = true;
        }
    if (!any || !(MIMIC_BIT(wide.in[0].dtype) & c->op->dtypes))
        return;
    double *values[MIMIC_MAX_IN] = {NULL};
    for (int i = 0; i < c->n_in; i++)
        values[i] = c->in[i].given ? make_values(c, i) : NULL;
    must(run_case(ctx, c, values, ~0u, &a), c);
    must(run_case(ctx, &wide, values, ~0u, &b), c);
    for (int k = 0; k < a.n_out; k++)
        if (is_float(a.dtype[k]))
            near(c, "output", k, b.out[k], a.out[k], a.count[k], rel, 0);
    for (int i = 0; i < c->n_in; i++)
        if (a.grad[i] && b.grad[i])
            near(c, "gradient", i, b.grad[i], a.grad[i], a.grad_count[i], rel, 0);
    for (int i = 0; i < c->n_in; i++)
        free(values[i]);
    free_result(&a);
    free_result(&b);
}

static void bf16_case(const op_case *c) {
    compare_dtypes(c, MIMIC_BF16, MIMIC_F32, 0.02);
}

static void f64_case(const op_case *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].dtype == MIMIC_BF16)
            return;
    if (c->op != &mimic_op_cast && c->op != &mimic_op_mix) /* those say f32 */
        compare_dtypes(c, MIMIC_F32, MIMIC_F64, 5e-5);
}

static void test_bf16(void **state) {
    (void)state;
    each_case(bf16_case);
}

static void test_f64(void **state) {
    (void)state;
    each_case(f64_case);
}

/* --- layouts
 * -----------------------------------------------------------------------------------------------
 */

/* Input i as a view with reversed axes of a tensor that holds its values in that order; values[i]
 * are in the case's order. The gradient of the tensor, read back in the case's order, must be that
 * of the plain run. */
static void reversed_layout(const op_case *c) {
    mimic_tensor *in[MIMIC_MAX_IN] = {NULL}, *leaf[MIMIC_MAX_IN] = {NULL};
    run_result plain, other;
    must(run_case(ctx, c, NULL, ~0u, &plain), c);
    for (int i = 0; i < c->n_in; i++) {
        input_spec s = c->in[i];
        mimic_attrs attrs = {.list_n = s.rank};
        if (!s.given)
            continue;
        int64_t n = spec_count(&s);
        double *v = make_values(c, i), *turned = malloc(sizeof *turned * (size_t)(n + 1));
        for (int k = 0; k < s.rank; k++) {
            s.shape[k] = c->in[i].shape[s.rank - 1 - k];
            attrs.list[k] = s.rank - 1 - k;
        }
        for (int64_t p = 0; p < n; p++) { /* p counts in the case's order */
            int64_t rest = p, q = 0, step = n;
            for (int k = s.rank - 1; k >= 0; k--) {
                int64_t d = c->in[i].shape[k];
                step /= d;
                q += rest % d * step;
                rest /= d;
            }
            turned[q] = v[p];
        }
        assert_non_null(leaf[i] = make_tensor(ctx, &s, turned));
        if (differentiable(c, i))
            assert_int_equal(mimic_tensor_set_requires_grad(ctx, leaf[i], true), MIMIC_OK);
        must(mimic_op_apply(ctx, &mimic_op_permute, &leaf[i], 1, &attrs, &in[i]), c);
        free(v);
        free(turned);
    }
    must(run_inputs(ctx, c, in, leaf, ~0u, &other), c);
    for (int i = 0; i < c->n_in; i++) { /* gradients into the case's order */
        int64_t n = other.grad_count[i];
        double *g = other.grad[i], *turned = malloc(sizeof *turned * (size_t)(n + 1));
        for (int64_t p = 0; g && p < n; p++) {
            int64_t rest = p, q = 0, step = n;
            for (int k = c->in[i].rank - 1; k >= 0; k--) {
                int64_t d = c->in[i].shape[k];
                step /= d;
                q += rest % d * step;
                rest /= d;
            }
            turned[p] = g[q];
        }
        if (g)
            memcpy(g, turned, sizeof *g * (size_t)n);
        free(turned);
        mimic_tensor_release(in[i]);
        mimic_tensor_release(leaf[i]);
    }
    expect_equal_bits(c, "transposed inputs", &plain, &other);
    free_result(&plain);
    free_result(&other);
}

/* Input i repeated along axis 0 with stride 0, against the same numbers written out. */
static void expanded_layout(const op_case *c) {
    for (int i = 0; i < c->n_in; i++) {
        op_case base = *c;
        mimic_tensor *in[MIMIC_MAX_IN] = {NULL}, *leaf[MIMIC_MAX_IN] = {NULL};
        double *values[MIMIC_MAX_IN] = {NULL};
        run_result plain, other;
        int64_t n = spec_count(&c->in[i]), repeat = c->in[i].rank ? c->in[i].shape[0] : 0;
        if (!c->in[i].given || n == 0 || repeat < 2)
            continue;
        for (int k = 0; k < c->n_in; k++)
            values[k] = c->in[k].given ? make_values(c, k) : NULL;
        base.in[i].shape[0] = 1;
        for (int64_t p = n / repeat; p < n; p++)
            values[i][p] = values[i][p % (n / repeat)];
        must(run_case(ctx, c, values, ~0u, &plain), c);
        for (int k = 0; k < c->n_in; k++) {
            if (!c->in[k].given)
                continue;
            assert_non_null(leaf[k] = make_tensor(ctx, &base.in[k], values[k]));
            if (differentiable(c, k))
                assert_int_equal(mimic_tensor_set_requires_grad(ctx, leaf[k], true), MIMIC_OK);
            if (k == i) {
                mimic_attrs attrs = {.list_n = c->in[i].rank};
                memcpy(attrs.list, c->in[i].shape, sizeof attrs.list);
                must(mimic_op_apply(ctx, &mimic_op_expand, &leaf[k], 1, &attrs, &in[k]), c);
            } else {
                mimic_tensor_retain(in[k] = leaf[k]);
            }
        }
        must(run_inputs(ctx, c, in, leaf, ~0u, &other), c);
        if (plain.grad[i]) { /* the repeated tensor gets the sum; the others must be equal */
            int64_t m = n / repeat;
            double top = 0;
            for (int64_t p = 0; p < n; p++)
                top = fmax(top, fabs(plain.grad[i][p]));
            for (int64_t p = m; p < n; p++)
                plain.grad[i][p % m] += plain.grad[i][p];
            near(c, "gradient of the repeated input", i, plain.grad[i], other.grad[i], m,
                 c->in[i].dtype == MIMIC_BF16 ? 0.02 : 1e-5, top);
            free(plain.grad[i]);
            plain.grad[i] = NULL;
        }
        expect_equal_bits(c, "repeated input", &plain, &other);
        free_result(&plain);
        free_result(&other);
        for (int k = 0; k < c->n_in; k++) {
            free(values[k]);
            mimic_tensor_release(in[k]);
            mimic_tensor_release(leaf[k]);
        }
    }
}

static void test_reversed(void **state) {
    (void)state;
    each_case(reversed_layout);
}

static void test_expanded(void **state) {
    (void)state;
    each_case(expanded_layout);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records),      cmocka_unit_test(test_runs),
        cmocka_unit_test(test_wrong_inputs), cmocka_unit_test(test_index_errors),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_f64),          cmocka_unit_test(test_reversed),
        cmocka_unit_test(test_expanded)};
    return cmocka_run_group_tests(tests, open_group, close_group);
}

/* Every case of the operator table on the CUDA device (the emulated one, unless MIMIC_CUDA names
 * another) against the CPU: forward and backward, in the case's dtypes and in bf16, dense and
 * strided inputs; two runs give equal bits. Every operator has a kernel. */
#include <dlfcn.h>

#include "cuda_util.h"

/* Cases beside the records': sizes that take another way through a kernel. Rows: up to 1024 and
 * 4096 elements in registers of a warp and of a block, longer and odd ones read again; several
 * blocks that share column sums; sorts in tiles. */
static const struct {
    const char *op, *cases;
} larger[] = {
    {"sum", "x[3,9000] axis=1; x[70000]; x[2,700,3] axis=1; x[1200,264] axis=0; x[90,264] axis=0"},
    {"col_sum", "x[1200,264]; x[1200,33]; x[90,8]"},
    {"max", "x[2,1500] axis=1; x[3000]; x[2,9,300] axis=1"},
    {"argmax", "x[2,1500]; x[2,1027]:bf16"},
    {"max_bwd", "dy[700] index[700]:i32=index(3) axis=1 shape=700,3"},
    {"softmax", "x[5,768]; x[2,1536]; x[2,1501]; x[2,4100]; x[9,1000]:bf16"},
    {"l2norm", "x[5,256]; x[2,1536]; x[2,1501]; x[2,4100]; x[3,0]"},
    {"layernorm", "x[40,768] weight[768] bias[768]; x[18,1536] weight[1536] bias[1536]; x[18,1501] "
                  "weight[1501] bias[1501]; x[40,31] weight[31] bias[31]; x[3,4100] weight[4100] "
                  "bias[4100]; x[4300,8] weight[8] bias[8]"},
    {"add_layernorm",
     "x[40,768] r[40,768] weight[768] bias[768]; x[18,1536] r[18,1536] weight[1536] "
     "bias[1536]; x[18,1501] r[18,1501] weight[1501] bias[1501]"},
    {"batchnorm", "x[300,70] weight[70] bias[70]"},
    {"cross_entropy", "logits[5,1000] target[5]:i32=index(1000) smoothing=0.1; logits[3,1501] "
                      "target[3,1501]=uniform; logits[3,2048] target[3]:i32=index(2048); "
                      "logits[700,8] target[700]:i32=index(8)"},
    {"masked_mse", "pred[2,5,768] target[2,5,768] mask[2,5]=uniform norm=1; pred[1,3,1536] "
                   "target[1,3,1536] mask[1,3]=1 norm=1; pred[1,3,1501] target[1,3,1501] "
                   "mask[1,3]=uniform norm=1; pred[3,4,8] target[3,4,8] mask[3,4]=perm"},
    {"mscl_masks", "anchors[40,70]=uniform candidates[37,70]=uniform a[37]:i32=index(40) "
                   "b[37]:i32=index(40) t=12"},
    {"contrastive",
     "za[70,65] zc[150,65] pos[70,150]:u8=bool cand[70,150]:u8=bool tau=9; za[600,3] "
     "zc[5,3] pos[600,5]:u8=bool cand[600,5]:u8=bool tau=1 empty=1"},
    {"gather_rows", "x[3,40,256] index[3,30]:i32=perm; x[5,6] index[4]:i32=index(5); x[5,5] "
                    "index[4]:i32=index(5); x[9,7]:u8 index[4]:i32=index(9)"},
    {"scatter_rows", "y[2,70,260] index[2,70]:i32=index(9) rows=9; y[2,70,33] "
                     "index[2,70]:i32=index(70) rows=70"},
    {"argsort", "x[2,2048]=uniform; x[2,5000]=uniform; x[9001]:i32=index(70)"},
    {"onehot", "labels[70]:i32=index(9) classes=9"},
    {"patchify", "img[2,3,32,48] patch=16 order=1; img[3,2,6,9]:u8 patch=3"},
    {"mix", "x[3,2,40,32] lam[3]=uniform box[3,4]:i32=index(32) partner[3]:i32=perm"},
    {"hog", "img[1,2,48,24] pool=12 bins=100"},
    {"dropout", "x[5000] p=0.3; x[5003] p=0.3"},
    {"drop_path", "x[9,5000] p=0.3; x[5,4097] p=0.3"},
    {"rand_normal", "shape=20000 mean=1 std=3"},
};

/* Largest difference relative to the largest value of `want`, NaN and infinity in the same places.
 */
static double distance(const double *got, const double *want, int64_t n) {
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(want[i]) && fabs(want[i]) > scale)
            scale = fabs(want[i]);
        if (isfinite(want[i]) != isfinite(got[i]) || isnan(want[i]) != isnan(got[i]))
            return INFINITY;
        double d = isfinite(want[i]) ? fabs(got[i] - want[i]) : 0;
        worst = d > worst ? d : worst;
    }
    return worst / (scale > 1e-30 ? scale : 1);
}

/* f32: rounding of sums in another order and other exp, log, erf. bf16: an ulp of the storage. */
static double tolerance(const op_case *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i].given && c->in[i].dtype == MIMIC_BF16)
            return 1.0 / 64;
    return 2e-5;
}

static void compare(const op_case *c, const char *how, const run_result *got,
                    const run_result *want) {
    double tol = tolerance(c);
    for (int k = 0; k < want->n_out; k++) {
        assert_int_equal(got->count[k], want->count[k]);
        bool exact = !is_float(want->dtype[k]) || strncmp(c->op->name, "rand_", 5) == 0;
        double d = distance(got->out[k], want->out[k], want->count[k]);
        if (d > (exact ? 0 : tol))
            fail_msg("%s%s: output %d is off by %.3g", c->text, how, k + 1, d);
    }
    for (int i = 0; i < c->n_in; i++) {
        if (!want->grad[i] != !got->grad[i])
            fail_msg("%s%s: gradient %d is there on one device only", c->text, how, i + 1);
        double d = want->grad[i] ? distance(got->grad[i], want->grad[i], want->grad_count[i]) : 0;
        if (d > tol)
            fail_msg("%s%s: gradient %d is off by %.3g", c->text, how, i + 1, d);
    }
}

/* run_case with every input of rank 2 or more as a view: axes exchanged in memory and back. */
static mimic_status run_strided(mimic_ctx *ctx, const op_case *c, unsigned mask, run_result *r) {
    mimic_tensor *in[MIMIC_MAX_IN] = {NULL}, *leaf[MIMIC_MAX_IN] = {NULL};
    mimic_scope *scope = NULL;
    mimic_status st = mimic_scope_open(ctx, &scope);
    for (int i = 0; i < c->n_in && st == MIMIC_OK; i++) {
        const input_spec *s = &c->in[i];
        input_spec turned = *s;
        if (!s->given)
            continue;
        double *v = make_values(c, i), *u = malloc(sizeof *u * (size_t)(spec_count(s) + 1));
        int64_t last = s->rank > 1 ? s->shape[s->rank - 1] : 1,
                rows = s->rank > 1 ? s->shape[0] : 1;
        int64_t mid = rows > 0 && last > 0 ? spec_count(s) / (rows * last) : 0;
        for (int64_t a = 0; a < rows; a++)
            for (int64_t m = 0; m < mid; m++)
                for (int64_t b = 0; b < last; b++)
                    u[(b * mid + m) * rows + a] = v[(a * mid + m) * last + b];
        if (s->rank > 1) {
            turned.shape[0] = last;
            turned.shape[s->rank - 1] = rows;
        }
        leaf[i] = make_tensor(ctx, &turned, s->rank > 1 ? u : v);
        free(v);
        free(u);
        if (!leaf[i]) {
            st = mimic_last_status(ctx);
            break;
        }
        if (mask && differentiable(c, i))
            st = mimic_tensor_set_requires_grad(ctx, leaf[i], true);
        mimic_attrs attrs = {.v = {{.i = 0}, {.i = s->rank - 1}}};
        if (st == MIMIC_OK && s->rank > 1)
            st = mimic_apply1(ctx, &mimic_op_transpose, &attrs, &in[i], 1, &leaf[i]);
        else if (st == MIMIC_OK) {
            mimic_tensor_retain(leaf[i]);
            in[i] = leaf[i];
        }
    }
    if (st == MIMIC_OK)
        st = run_inputs(ctx, c, in, leaf, mask, r);
    for (int i = 0; i < c->n_in; i++) {
        mimic_tensor_release(in[i]);
        mimic_tensor_release(leaf[i]);
    }
    mimic_scope_close(scope);
    mimic_scope_release(scope);
    return st;
}

static void must(mimic_status st, mimic_ctx *ctx, const op_case *c) {
    if (st != MIMIC_OK)
        fail_msg("%s: %s: %s", c->text, mimic_status_name(st), mimic_message(ctx));
}

static bool has_f64(const op_case *c) {
    bool f64 = strcmp(c->op->name, "cast") == 0 && c->attrs.v[0].i == MIMIC_F64;
    for (int i = 0; i < c->n_in; i++)
        f64 |= c->in[i].given && c->in[i].dtype == MIMIC_F64;
    return f64;
}

static void on_both(const op_case *c) {
    run_result want, got, again;
    if (has_f64(c)) {
        mimic_status st = run_case(gpu, c, NULL, ~0u, NULL);
        if (st != MIMIC_EUNSUPPORTED || !strstr(mimic_message(gpu), "f64"))
            fail_msg("%s: f64 is not refused: %s", c->text, mimic_message(gpu));
        return;
    }
    must(run_case(cpu, c, NULL, ~0u, &want), cpu, c);
    must(run_case(gpu, c, NULL, ~0u, &got), gpu, c);
    compare(c, "", &got, &want);
    must(run_case(gpu, c, NULL, ~0u, &again), gpu, c);
    expect_equal_bits(c, "second run", &got, &again);
    free_result(&again);
    free_result(&want);
    free_result(&got);
    must(run_strided(cpu, c, ~0u, &want), cpu, c);
    must(run_strided(gpu, c, ~0u, &got), gpu, c);
    compare(c, ", strided", &got, &want);
    free_result(&want);
    free_result(&got);
}

/* The case with its f32 inputs in bf16 where the operator takes that; false: there is none. */
static bool in_bf16(const op_case *c, op_case *out) {
    run_result r;
    *out = *c;
    if (!c->n_in || !c->in[0].given || c->in[0].dtype != MIMIC_F32 ||
        !(c->op->dtypes & MIMIC_BIT(MIMIC_BF16)))
        return false;
    for (int all = 1; all >= 0; all--) { /* all inputs, or the first with the others as they are */
        for (int i = 0; i < c->n_in; i++)
            if (c->in[i].given && c->in[i].dtype == MIMIC_F32)
                out->in[i].dtype = all || i == 0 ? MIMIC_BF16 : MIMIC_F32;
        if (run_case(cpu, out, NULL, ~0u, &r) == MIMIC_OK) {
            free_result(&r);
            snprintf(out->text, sizeof out->text, "%.200s (in bf16)", c->text);
            return true;
        }
    }
    return false;
}

/* The cases of text, or of the record for NULL. */
static void run_cases(const mimic_op *op, const char *text) {
    op_case cases[MAX_CASES], half;
    int n = read_cases(op, text, cases);
    for (int k = 0; k < n; k++) {
        on_both(&cases[k]);
        if (in_bf16(&cases[k], &half))
            on_both(&half);
    }
}

static void test_cases(void **state) {
    (void)state;
    for (int o = 0; o < mimic_op_count(); o++)
        run_cases(mimic_op_at(o), NULL);
}

static void test_larger(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof larger / sizeof *larger; i++) {
        const mimic_op *op = mimic_op_find(larger[i].op);
        assert_non_null(op);
        run_cases(op, larger[i].cases);
    }
}

/* Sizes that take other ways on the device than those of the operators' own cases: heads of the
 * widths that models have and odd ones; tokens up to, at and beyond what fits a block. */
static const struct {
    const mimic_op *op;
    const char *cases;
} sizes[] = {
    {&mimic_op_attention,
     "qkv[1,197,384] heads=2; qkv[2,50,288] heads=3; qkv[1,208,240] heads=1; qkv[1,209,192] "
     "heads=1; qkv[1,230,99] heads=1; qkv[2,65,480] heads=2; qkv[1,300,96] heads=1; qkv[1,16,192] "
     "heads=1; qkv[1,230,240] heads=1; qkv[1,1024,96] heads=1"},
};

static void test_sizes(void **state) {
    (void)state;
    op_case cases[MAX_CASES], half;
    for (size_t o = 0; o < sizeof sizes / sizeof *sizes; o++)
        for (int k = read_cases(sizes[o].op, sizes[o].cases, cases) - 1; k >= 0; k--) {
            on_both(&cases[k]);
            assert_true(in_bf16(&cases[k], &half));
            on_both(&half);
        }
}

/* Sizes of any kind never go along y and z of a grid, which end early. */
static void test_narrow_grids(void **state) {
    static const struct {
        const char *op, *cases;
    } long_rows[] = {
        {"argsort", "x[2,9000]=uniform"},
        {"drop_path", "x[3,16384] p=0.3; x[3,5001] p=0.3"},
        {"mix", "x[2,2,80,64] lam[2]=uniform box[2,4]:i32=index(64) partner[2]:i32=perm"},
        {"mscl_masks", "anchors[3,7]=uniform candidates[90,7]=uniform a[90]:i32=index(3) "
                       "b[90]:i32=index(3) t=0.5"},
        {"contrastive", "za[3,5] zc[150,5] pos[3,150]:u8=bool cand[3,150]:u8=bool tau=1"},
        {"contrastive_bwd", "dloss[] za[3,5] zc[150,5] g[3,150] tau=1"},
        {"scatter_rows", "y[2,7,516] index[2,7]:i32=index(9) rows=9; y[2,7,517] "
                         "index[2,7]:i32=index(9) rows=9"},
    };
    (void)state;
    void *lib = dlopen(getenv("MIMIC_CUDA"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(lib);
    unsigned *limit = dlsym(lib, "emu_grid_limit");
    if (!limit) /* a real device has its own */
        skip();
    unsigned usual = *limit;
    for (size_t i = 0; i < sizeof long_rows / sizeof *long_rows; i++) {
        op_case cases[MAX_CASES];
        int n = read_cases(mimic_op_find(long_rows[i].op), long_rows[i].cases, cases);
        for (int k = 0; k < n; k++) {
            *limit = 4;
            run_result got, want;
            must(run_case(gpu, &cases[k], NULL, 0, &got), gpu, &cases[k]);
            *limit = usual;
            must(run_case(cpu, &cases[k], NULL, 0, &want), cpu, &cases[k]);
            compare(&cases[k], ", narrow", &got, &want);
            free_result(&want);
            free_result(&got);
        }
    }
    *limit = usual;
}

/* Rows farther apart than one call can copy are copied all the same. */
static void test_far_rows(void **state) {
    static const struct {
        const char *op, *cases;
    } far[] = {
        {"concat", "a[1,3,5] b[1,4,5] axis=1; a[2,9] b[3,9] axis=0"},
        {"slice_bwd", "dy[1,2,5] axis=1 start=1 shape=1,6,5"},
    };
    (void)state;
    void *lib = dlopen(getenv("MIMIC_CUDA"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(lib);
    size_t *limit = dlsym(lib, "emu_pitch_limit");
    if (!limit) /* a real device has its own */
        skip();
    size_t usual = *limit;
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        op_case cases[MAX_CASES];
        int n = read_cases(mimic_op_find(far[i].op), far[i].cases, cases);
        for (int k = 0; k < n; k++) {
            run_result got, want;
            *limit = 16;
            mimic_status st = run_case(gpu, &cases[k], NULL, 0, &got);
            *limit = usual;
            must(st, gpu, &cases[k]);
            must(run_case(cpu, &cases[k], NULL, 0, &want), cpu, &cases[k]);
            compare(&cases[k], ", far rows", &got, &want);
            free_result(&want);
            free_result(&got);
        }
    }
}

static mimic_status attend(int64_t columns, unsigned mask) {
    op_case cases[MAX_CASES];
    char text[64];
    snprintf(text, sizeof text, "qkv[1,2,%lld] heads=1", 3 * (long long)columns);
    read_cases(&mimic_op_attention, text, cases);
    return run_case(gpu, cases, NULL, mask, NULL);
}

/* A head that no block can hold is refused with the widest that it can, which it can. */
static void test_wide_heads(void **state) {
    long long most = 0, trained = 0;
    (void)state;
    assert_int_equal(attend(1000, ~0u), MIMIC_EUNSUPPORTED);
    const char *said = strstr(mimic_message(gpu), "attention: heads of 1000 columns are too wide");
    assert_non_null(said);
    assert_int_equal(
        sscanf(strstr(said, "at most"), "at most %lld, with gradients %lld", &most, &trained), 2);
    assert_true(trained < most);
    assert_int_equal(attend(trained, ~0u), MIMIC_OK);
    assert_int_equal(attend(trained + 1, ~0u), MIMIC_EUNSUPPORTED);
    assert_int_equal(attend(most, 0), MIMIC_OK);
    assert_int_equal(attend(most + 1, 0), MIMIC_EUNSUPPORTED);
}

/* None is missing; and one that were says its name. */
static void test_complete(void **state) {
    (void)state;
    mimic_device *d = &gpu->devices[MIMIC_CUDA];
    const mimic_backend *whole = d->backend;
    for (int o = 0; o < mimic_op_count(); o++)
        if (!whole->kernels[o] && !(mimic_op_at(o)->flags & MIMIC_OP_VIEW))
            fail_msg("no CUDA kernel for '%s'", mimic_op_at(o)->name);
    mimic_backend without = *whole;
    op_case cases[MAX_CASES];
    read_cases(&mimic_op_argsort, NULL, cases);
    without.kernels[MIMIC_OP_argsort] = NULL;
    d->backend = &without;
    mimic_status st = run_case(gpu, &cases[0], NULL, 0, NULL);
    d->backend = whole;
    assert_int_equal(st, MIMIC_EUNSUPPORTED);
    assert_string_equal(mimic_message(gpu), "cuda: no kernel for 'argsort'");
}

/* Bad data: the kernels touch nothing they should not; the next call that waits says what it was.
 */
static void test_faults(void **state) {
    static const struct {
        const char *op, *cases, *text;
    } faults[] = {
        {"cross_entropy", "logits[3,4] target[3]:i32=4",
         "cross_entropy: label at 0 is not in 0..3"},
        {"cross_entropy_bwd", "dloss[] logits[3,4] target[3]:i32=-1 lse[3]",
         "cross_entropy_bwd: label at 0 is not in 0..3"},
        {"gather_rows", "x[5,3] index[4]:i32=5", "gather_rows: index at 0 is not in 0..4"},
        {"gather_rows", "x[5,3] index[4]:i32=2000000000", /* nobody's memory */
         "gather_rows: index at 0 is not in 0..4"},
        {"gather_rows", "x[5,3] index[4]:i32=-2000000000",
         "gather_rows: index at 0 is not in 0..4"},
        {"gather_rows", "x[0,3] index[2]:i32=0", "gather_rows: index at 0 is not in 0..-1"},
        {"scatter_rows", "y[4,3] index[4]:i32=-1 rows=5",
         "scatter_rows: index at 0 is not in 0..4"},
        {"onehot", "labels[2]:i32=3 classes=3", "onehot: label at 0 is not in 0..2"},
        {"max_bwd", "dy[3] index[3]:i32=5 axis=1 shape=3,5", "max_bwd: index at 0 is not in 0..4"},
        {"mix", "x[2,1,3,3] lam[2] box[2,4]:i32=0 partner[2]:i32=2",
         "mix: partner at 0 is not in 0..1"},
        {"mix", "x[9,1,3,3] lam[9] box[9,4]:i32=index(9) partner[9]:i32=0",
         "mix: box leaves the image (row "},
        {"masked_mse", "pred[1,2,4] target[1,2,4] mask[1,2]=0",
         "masked_mse: the mask does not sum"},
        {"masked_mse_bwd", "dloss[] pred[1,2,4] target[1,2,4] mask[1,2]=0",
         "masked_mse_bwd: the mask does not sum"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        op_case c;
        mimic_tensor *t = NULL;
        double v;
        assert_int_equal(read_cases(mimic_op_find(faults[i].op), faults[i].cases, &c), 1);
        must(run_case(gpu, &c, NULL, 0, NULL), gpu, &c);
        must(mimic_tensor_new(gpu, MIMIC_F32, 0, NULL, &t), gpu, &c);
        if (mimic_tensor_read(gpu, t, MIMIC_F64, &v, 1) != MIMIC_EINVAL ||
            strncmp(mimic_message(gpu), faults[i].text, strlen(faults[i].text)) != 0)
            fail_msg("%s: %s", c.text, mimic_message(gpu));
        must(mimic_tensor_read(gpu, t, MIMIC_F64, &v, 1), gpu, &c); /* once only */
        mimic_tensor_release(t);
    }
}

/* The word travels with every value on its way: told with the first value behind it, once. */
static void test_faults_sent_late(void **state) {
    op_case c;
    mimic_tensor *t = NULL;
    mimic_later *before = NULL, *first = NULL, *second = NULL;
    double v = 0;
    (void)state;
    assert_int_equal(read_cases(mimic_op_find("onehot"), "labels[2]:i32=3 classes=3", &c), 1);
    must(mimic_tensor_new(gpu, MIMIC_F32, 0, NULL, &t), gpu, &c);
    must(mimic_tensor_later(gpu, t, &before), gpu, &c);
    must(run_case(gpu, &c, NULL, 0, NULL), gpu, &c);
    must(mimic_tensor_later(gpu, t, &first), gpu, &c);
    must(mimic_tensor_later(gpu, t, &second), gpu, &c);
    must(mimic_later_value(before, &v), gpu, &c);
    assert_int_equal(mimic_later_value(first, &v), MIMIC_EINVAL);
    assert_non_null(strstr(mimic_message(gpu), "onehot: label at 0 is not in 0..2"));
    must(mimic_later_value(second, &v), gpu, &c);
    must(mimic_tensor_read(gpu, t, MIMIC_F64, &v, 1), gpu, &c);
    mimic_later_free(before);
    mimic_later_free(first);
    mimic_later_free(second);
    mimic_tensor_release(t);
}

/* What a read says after one wrong label and `more` good ones. */
static void after_many(int more, const char *expected) {
    op_case bad, good;
    mimic_tensor *t = NULL;
    double v = 0;
    read_cases(&mimic_op_onehot, "labels[2]:i32=3 classes=3", &bad);
    read_cases(&mimic_op_onehot, "labels[1]:i32=0 classes=2", &good);
    must(mimic_tensor_new(gpu, MIMIC_F32, 0, NULL, &t), gpu, &bad);
    must(mimic_tensor_read(gpu, t, MIMIC_F64, &v, 1), gpu, &bad); /* all that was is settled */
    must(run_case(gpu, &bad, NULL, 0, NULL), gpu, &bad);
    for (int i = 0; i < more; i++)
        must(run_case(gpu, &good, NULL, 0, NULL), gpu, &good);
    assert_int_equal(mimic_tensor_read(gpu, t, MIMIC_F64, &v, 1), MIMIC_EINVAL);
    if (!strstr(mimic_message(gpu), expected))
        fail_msg("after %d others: %s", more, mimic_message(gpu));
    must(mimic_tensor_read(gpu, t, MIMIC_F64, &v, 1), gpu, &bad);
    mimic_tensor_release(t);
}

/* An operator that is no longer known is not named as another one. */
static void test_faults_of_many(void **state) {
    (void)state;
    after_many(255, "onehot: label at 0 is not in 0..2");
    after_many(256, "one of the 257 operators since the last read that look at labels and indices "
                    "found a wrong one at 0");
    after_many(1 << 15, "one of the 32769 operators since the last read"); /* tickets repeat */
}

static void test_mixed_devices(void **state) {
    (void)state;
    mimic_tensor *a = NULL, *b = NULL, *y = NULL;
    float x[2] = {1, 2}, back[2];
    int64_t n = 2;
    assert_int_equal(mimic_tensor_from(gpu, MIMIC_F32, 1, &n, x, &a), MIMIC_OK);
    assert_string_equal(mimic_tensor_device(a), "cuda");
    assert_null(mimic_tensor_data(a));
    assert_int_equal(mimic_tensor_to(gpu, a, "cpu", &b), MIMIC_OK);
    assert_string_equal(mimic_tensor_device(b), "cpu");
    assert_memory_equal(mimic_tensor_data(b), x, sizeof x);
    assert_int_equal(mimic_op_apply(gpu, &mimic_op_add, (mimic_tensor *[]){a, b}, 2, NULL, &y),
                     MIMIC_EINVAL);
    assert_non_null(strstr(mimic_message(gpu), "add: a is on cuda, b on cpu"));
    assert_int_equal(mimic_op_apply(gpu, &mimic_op_add, (mimic_tensor *[]){b, b}, 2, NULL, &y),
                     MIMIC_OK); /* where the inputs are */
    assert_string_equal(mimic_tensor_device(y), "cpu");
    mimic_tensor_release(y);
    assert_int_equal(mimic_tensor_copy(gpu, a, b), MIMIC_OK);
    assert_int_equal(mimic_tensor_read(gpu, a, MIMIC_F32, back, 2), MIMIC_OK);
    assert_memory_equal(back, x, sizeof x);
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    assert_int_equal(mimic_set_device(gpu, "tpu"), MIMIC_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete),         cmocka_unit_test(test_faults),
        cmocka_unit_test(test_faults_sent_late), cmocka_unit_test(test_faults_of_many),
        cmocka_unit_test(test_mixed_devices),    cmocka_unit_test(test_cases),
        cmocka_unit_test(test_larger),           cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_narrow_grids),     cmocka_unit_test(test_far_rows),
        cmocka_unit_test(test_wide_heads)};
    return cmocka_run_group_tests(tests, open_both, close_both);
}

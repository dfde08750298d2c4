/* Matrix products and attention against plain f64 loops: random sizes with odd edges, every
 * transposition, dtype and instruction set this machine has; equal bits for any number of threads.
 */
#include <math.h>

#include "core_util.h"
#include "tensor/tensor_impl.h"

static const char *const isas[] = {"base", "avx2", "avx512", "amx"};
static mimic_rng rng;

static mimic_ctx *open_isa(const char *isa) {
    mimic_config cfg = {.threads = 3, .isa = isa};
    mimic_ctx *ctx = NULL;
    return mimic_open(&cfg, &ctx) == MIMIC_OK ? ctx : NULL;
}

/* A tensor of normal numbers. */
static mimic_tensor *random_tensor(mimic_ctx *ctx, mimic_dtype dtype, int rank,
                                   const int64_t *shape) {
    mimic_tensor *t = NULL;
    ok(ctx, mimic_tensor_new(ctx, dtype, rank, shape, &t));
    int64_t n = mimic_tensor_count(t);
    double *data = malloc((size_t)(n + 1) * sizeof *data);
    for (int64_t i = 0; i < n; i++)
        data[i] = mimic_rng_normal(&rng);
    ok(ctx, mimic_tensor_write(ctx, t, MIMIC_F64, data, n));
    free(data);
    return t;
}

static double *read_all(mimic_ctx *ctx, const mimic_tensor *t) {
    int64_t n = mimic_tensor_count(t);
    double *data = malloc((size_t)(n + 1) * sizeof *data);
    ok(ctx, mimic_tensor_read(ctx, t, MIMIC_F64, data, n));
    return data;
}

static double tolerance(mimic_dtype dtype) {
    return dtype == MIMIC_F64 ? 1e-12 : dtype == MIMIC_F32 ? 3e-6 : 1e-2;
}

static void assert_close(const double *got, const double *want, int64_t n, double tol,
                         const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= tol * (1 + fabs(want[i]))))
            fail_msg("%s: element %lld of %lld is %.9g, not %.9g", what, (long long)i, (long long)n,
                     got[i], want[i]);
}

static int64_t pick(int64_t most) {
    static const int64_t edges[] = {1, 2, 3, 5, 6, 7, 15, 16, 17, 31, 63, 64, 65, 95, 97, 130};
    int64_t n = mimic_rng_below(&rng, 3) ? edges[mimic_rng_below(&rng, 16)]
                                         : 1 + (int64_t)mimic_rng_below(&rng, (uint32_t)most);
    return n < most ? n : most;
}

/* One product c = op(a) op(b) of `batch` items (0 = plain matrices; b shared with `share`). */
static void check_product(mimic_ctx *ctx, mimic_dtype dtype, bool f32_out, int64_t batch,
                          bool share, int64_t m, int64_t n, int64_t k, bool ta, bool tb) {
    int64_t sa[3] = {batch, ta ? k : m, ta ? m : k}, sb[3] = {batch, tb ? n : k, tb ? k : n};
    int skip = batch == 0;
    mimic_tensor *a = random_tensor(ctx, dtype, 3 - skip, sa + skip);
    mimic_tensor *b = random_tensor(ctx, dtype, share || skip ? 2 : 3, share || skip ? sb + 1 : sb);
    mimic_tensor *in[2] = {a, b}, *c[4];
    mimic_attrs attrs = {.v = {{.i = ta}, {.i = tb}, {.i = f32_out}}};
    const mimic_op *op = mimic_op_find("matmul");
    char what[160];
    snprintf(what, sizeof what, "%s %s%s %lld x %lldx%lldx%lld%s", mimic_isa(ctx),
             mimic_dtype_name(dtype), f32_out ? "->f32" : "", (long long)batch, (long long)m,
             (long long)n, (long long)k,
             ta   ? (tb ? " TT" : " TN")
             : tb ? " NT"
                  : " NN");
    for (int threads = 1; threads <= 3; threads++) {
        ok(ctx, mimic_set_threads(ctx, threads));
        ok(ctx, mimic_op_apply(ctx, op, in, 2, &attrs, &c[threads]));
        if (memcmp(mimic_tensor_data(c[1]), mimic_tensor_data(c[threads]),
                   (size_t)mimic_tensor_count(c[1]) * mimic_dtype_size(mimic_tensor_dtype(c[1]))) !=
            0)
            fail_msg("%s: %d threads give other bits than one", what, threads);
    }
    double *da = read_all(ctx, a), *db = read_all(ctx, b), *dc = read_all(ctx, c[1]);
    int64_t items = skip ? 1 : batch;
    double *want = malloc((size_t)(items * m * n) * sizeof *want);
    for (int64_t i = 0; i < items * m * n; i++) {
        int64_t col = i % n, row = i / n % m, item = i / n / m;
        const double *pa = da + item * m * k, *pb = db + (share ? 0 : item * n * k);
        double sum = 0;
        for (int64_t j = 0; j < k; j++)
            sum += pa[ta ? j * m + row : row * k + j] * pb[tb ? col * k + j : j * n + col];
        want[i] = sum;
    }
    double tol = tolerance(f32_out ? MIMIC_F32 : dtype) * sqrt((double)k);
    assert_close(dc, want, items * m * n, dtype == MIMIC_BF16 && !f32_out ? 1e-2 : tol, what);
    free(want);
    free(dc);
    free(db);
    free(da);
    for (int i = 1; i <= 3; i++)
        mimic_tensor_release(c[i]);
    mimic_tensor_release(b);
    mimic_tensor_release(a);
}

static void for_each_isa(void (*check)(mimic_ctx *ctx)) {
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        mimic_ctx *ctx = open_isa(isas[i]);
        if (!ctx)
            continue;
        mimic_rng_init(&rng, 11, 0, 0);
        check(ctx);
        assert_int_equal(mimic_alloc_live(ctx) >= 0, 1);
        mimic_close(ctx);
    }
}

static void check_products(mimic_ctx *ctx) {
    static const mimic_dtype dtypes[] = {MIMIC_F32, MIMIC_BF16, MIMIC_F64};
    for (int round = 0; round < 40; round++)
        for (int d = 0; d < 3; d++)
            for (int t = 0; t < 4; t++)
                check_product(ctx, dtypes[d], dtypes[d] == MIMIC_BF16 && round % 2,
                              round % 5 == 4 ? pick(9) : 0, round % 10 == 9, pick(140), pick(140),
                              pick(140), t & 1, t & 2);
}
static void products(void **state) {
    (void)state;
    for_each_isa(check_products);
}

/* Sizes past the blocks of k, the packing limit and the rows of a task. */
static void check_large(mimic_ctx *ctx) {
    check_product(ctx, MIMIC_F32, false, 0, false, 200, 70, 1100, false, true);
    check_product(ctx, MIMIC_F32, false, 0, false, 70, 600, 1030, true, false);
    check_product(ctx, MIMIC_F32, false, 0, false, 7, 140, 5000, true, false);
    check_product(ctx, MIMIC_BF16, false, 0, false, 110, 130, 2101, false, true);
    check_product(ctx, MIMIC_BF16, true, 0, false, 101, 67, 2500, true, false);
    check_product(ctx, MIMIC_F64, false, 0, false, 100, 33, 1025, true, true);
    check_product(ctx, MIMIC_F32, false, 70, false, 33, 32, 65, false, true);
    check_product(ctx, MIMIC_F32, false, 3, true, 200, 90, 64, false, false);
}
static void large_products(void **state) {
    (void)state;
    for_each_isa(check_large);
}

static double activate(int act, double x) {
    switch (act) {
    case 1:
        return x > 0 ? x : 0;
    case 2:
        return 0.5 * x * erfc(-x / sqrt(2));
    case 3:
        return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    default:
        return x;
    }
}

static void check_linear(mimic_ctx *ctx) {
    static const mimic_dtype dtypes[] = {MIMIC_F32, MIMIC_BF16, MIMIC_F64};
    for (int round = 0; round < 36; round++) {
        mimic_dtype dtype = dtypes[round % 3];
        int act = round / 3 % 4;
        bool bias = round % 5 != 0;
        int64_t m = pick(120), n = pick(120), k = pick(120);
        mimic_tensor *x = random_tensor(ctx, dtype, 2, (int64_t[]){m, k});
        mimic_tensor *w = random_tensor(ctx, dtype, 2, (int64_t[]){n, k});
        mimic_tensor *b = random_tensor(ctx, dtype == MIMIC_F64 ? MIMIC_F64 : MIMIC_F32, 1, &n);
        mimic_tensor *in[3] = {x, w, bias ? b : NULL}, *y;
        mimic_attrs attrs = {.v = {{.i = act}}};
        if (round % 2) /* the value before the activation is written too */
            ok(ctx, mimic_tensor_set_requires_grad(ctx, w, true));
        ok(ctx, mimic_op_apply(ctx, mimic_op_find("linear"), in, 3, &attrs, &y));
        double *dx = read_all(ctx, x), *dw = read_all(ctx, w), *db = read_all(ctx, b),
               *dy = read_all(ctx, y);
        double *want = malloc((size_t)(m * n) * sizeof *want);
        for (int64_t i = 0; i < m * n; i++) {
            double sum = bias ? db[i % n] : 0;
            for (int64_t j = 0; j < k; j++)
                sum += dx[i / n * k + j] * dw[i % n * k + j];
            want[i] = activate(act, sum);
        }
        assert_close(dy, want, m * n,
                     dtype == MIMIC_BF16 ? 1e-2 : tolerance(dtype) * sqrt((double)k), "linear");
        free(want);
        free(dy);
        free(db);
        free(dw);
        free(dx);
        mimic_tensor_release(y);
        mimic_tensor_release(b);
        mimic_tensor_release(w);
        mimic_tensor_release(x);
    }
}
static void linear_layers(void **state) {
    (void)state;
    for_each_isa(check_linear);
}

/* y and the gradient of sum(y g) by plain loops. */
static void attention_loops(const double *qkv, const double *g, double *y, double *dqkv, int64_t bs,
                            int64_t t, int64_t h, int64_t d) {
    double scale = 1 / sqrt((double)d), *p = malloc((size_t)(2 * t) * sizeof *p), *dp = p + t;
    memset(y, 0, (size_t)(bs * t * h * d) * sizeof *y);
    memset(dqkv, 0, (size_t)(3 * bs * t * h * d) * sizeof *dqkv);
    for (int64_t item = 0; item < bs * h * t; item++) {
        int64_t i = item % t, head = item / t % h, image = item / t / h, w = h * d;
        const double *base = qkv + image * t * 3 * w + head * d, *q = base + i * 3 * w;
        double *dbase = dqkv + image * t * 3 * w + head * d;
        double top = -INFINITY, sum = 0, dot = 0;
        for (int64_t j = 0; j < t; j++) {
            p[j] = 0;
            for (int64_t e = 0; e < d; e++)
                p[j] += q[e] * base[j * 3 * w + w + e] * scale;
            top = fmax(top, p[j]);
        }
        for (int64_t j = 0; j < t; j++)
            sum += p[j] = exp(p[j] - top);
        int64_t at = (image * t + i) * w + head * d;
        for (int64_t j = 0; j < t; j++) {
            p[j] /= sum;
            dp[j] = 0;
            for (int64_t e = 0; e < d; e++) {
                double v = base[j * 3 * w + 2 * w + e];
                y[at + e] += p[j] * v;
                dp[j] += g[at + e] * v;
                dbase[j * 3 * w + 2 * w + e] += p[j] * g[at + e];
            }
            dot += dp[j] * p[j];
        }
        for (int64_t j = 0; j < t; j++)
            for (int64_t e = 0; e < d; e++) {
                double ds = p[j] * (dp[j] - dot) * scale;
                dbase[i * 3 * w + e] += ds * base[j * 3 * w + w + e];
                dbase[j * 3 * w + w + e] += ds * q[e];
            }
    }
    free(p);
}

static void check_attention(mimic_ctx *ctx) {
    static const int64_t sizes[][4] = {{2, 5, 2, 4},    {1, 1, 1, 3},  {3, 65, 2, 32},
                                       {1, 197, 1, 64}, {2, 50, 3, 7}, {1, 130, 1, 80}};
    static const mimic_dtype dtypes[] = {MIMIC_F32, MIMIC_BF16, MIMIC_F64};
    for (int round = 0; round < 18; round++) {
        const int64_t *s = sizes[round / 3], b = s[0], t = s[1], h = s[2], w = s[2] * s[3];
        mimic_dtype dtype = dtypes[round % 3];
        mimic_tensor *qkv = random_tensor(ctx, dtype, 3, (int64_t[]){b, t, 3 * w});
        mimic_tensor *g = random_tensor(ctx, dtype, 3, (int64_t[]){b, t, w});
        mimic_tensor *y, *dqkv[4];
        mimic_attrs attrs = {.v = {{.i = h}}};
        ok(ctx, mimic_op_apply(ctx, mimic_op_find("attention"), &qkv, 1, &attrs, &y));
        double *dx = read_all(ctx, qkv), *dg = read_all(ctx, g), *dy = read_all(ctx, y);
        double *want = malloc((size_t)(b * t * w) * sizeof *want);
        double *dwant = malloc((size_t)(3 * b * t * w) * sizeof *dwant);
        attention_loops(dx, dg, want, dwant, b, t, h, s[3]);
        double tol = dtype == MIMIC_F64 ? 1e-12 : dtype == MIMIC_F32 ? 2e-6 : 1e-2;
        assert_close(dy, want, b * t * w, tol, "attention");
        double *lse = malloc((size_t)(b * h * t) * sizeof *lse);
        for (int64_t i = 0; i < b * h * t; i++) {
            int64_t row = i % t, head = i / t % h, image = i / t / h;
            const double *base = dx + image * t * 3 * w + head * s[3];
            double sum = 0;
            for (int64_t j = 0; j < t; j++) {
                double dot = 0;
                for (int64_t e = 0; e < s[3]; e++)
                    dot += base[row * 3 * w + e] * base[j * 3 * w + w + e];
                sum += exp(dot / sqrt((double)s[3]));
            }
            lse[i] = log(sum);
        }
        mimic_tensor *l;
        ok(ctx, mimic_tensor_new(ctx, dtype == MIMIC_F64 ? MIMIC_F64 : MIMIC_F32, 3,
                                 (int64_t[]){b, h, t}, &l));
        ok(ctx, mimic_tensor_write(ctx, l, MIMIC_F64, lse, b * h * t));
        mimic_tensor *in[4] = {g, qkv, y, l};
        for (int threads = 1; threads <= 3; threads++) {
            ok(ctx, mimic_set_threads(ctx, threads));
            ok(ctx,
               mimic_op_apply(ctx, mimic_op_find("attention_bwd"), in, 4, &attrs, &dqkv[threads]));
            assert_memory_equal(mimic_tensor_data(dqkv[1]), mimic_tensor_data(dqkv[threads]),
                                (size_t)(3 * b * t * w) * mimic_dtype_size(dtype));
        }
        double *got = read_all(ctx, dqkv[1]);
        assert_close(got, dwant, 3 * b * t * w, dtype == MIMIC_BF16 ? 2e-2 : 4 * tol,
                     "attention_bwd");
        free(got);
        free(lse);
        free(dwant);
        free(want);
        free(dy);
        free(dg);
        free(dx);
        for (int i = 1; i <= 3; i++)
            mimic_tensor_release(dqkv[i]);
        mimic_tensor_release(l);
        mimic_tensor_release(y);
        mimic_tensor_release(g);
        mimic_tensor_release(qkv);
    }
}
static void attention(void **state) {
    (void)state;
    for_each_isa(check_attention);
}

/* NaN and infinity in an operand come out; they do not leak into rows they have no part in. */
static void non_finite_values(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_rng_init(&rng, 3, 0, 0);
    mimic_tensor *a = random_tensor(ctx, MIMIC_BF16, 2, (int64_t[]){20, 31});
    mimic_tensor *b = random_tensor(ctx, MIMIC_BF16, 2, (int64_t[]){31, 9}), *in[2] = {a, b}, *c;
    double *d = read_all(ctx, a);
    d[5 * 31] = NAN;
    d[7 * 31 + 30] = INFINITY;
    ok(ctx, mimic_tensor_write(ctx, a, MIMIC_F64, d, 20 * 31));
    ok(ctx, mimic_op_apply(ctx, mimic_op_find("matmul"), in, 2, NULL, &c));
    double *r = read_all(ctx, c);
    for (int i = 0; i < 20 * 9; i++)
        assert_int_equal(isfinite(r[i]) != 0, i / 9 != 5 && i / 9 != 7);
    free(r);
    free(d);
    mimic_tensor_release(c);
    mimic_tensor_release(b);
    mimic_tensor_release(a);
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),          cmocka_unit_test(large_products),
        cmocka_unit_test(linear_layers),     cmocka_unit_test(attention),
        cmocka_unit_test(non_finite_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

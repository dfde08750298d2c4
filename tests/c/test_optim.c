/* Optimisers: golden Adam and AdamW trajectories, SGD and LARS against plain loops, arenas,
 * shadows, clipping, scale of gradients, failures, and handles that outlive their context. */
#include <math.h>

#include "core_util.h"
#include "ops/op_impl.h"

#define MOST 64

static mimic_tensor *load(mimic_ctx *ctx, mimic_safetensors *f, const char *prefix,
                          const char *name) {
    char full[160];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    int i = mimic_safetensors_find(f, full);
    if (i < 0)
        fail_msg("no tensor %s", full);
    mimic_tensor *t = NULL;
    ok(ctx, mimic_safetensors_load(f, i, &t));
    return t;
}

static double load_number(mimic_ctx *ctx, mimic_safetensors *f, const char *prefix,
                          const char *name, int at) {
    mimic_tensor *t = load(ctx, f, prefix, name);
    double x = item(ctx, t, at);
    mimic_tensor_release(t);
    return x;
}

/* Five steps of a golden file; f32 to its tolerance. */
static void trajectory(const char *file, mimic_optim_kind kind, const char *isa) {
    mimic_ctx *ctx = NULL;
    mimic_config config = {.threads = 2, .isa = isa};
    if (mimic_open(&config, &ctx) != MIMIC_OK)
        return;
    mimic_safetensors *f = NULL;
    mimic_param params[MOST];
    const char *names[MOST];
    int n = 0;
    char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/%s", MIMIC_SOURCE, file);
    ok(ctx, mimic_safetensors_open(ctx, path, &f));
    for (int i = 0; i < mimic_safetensors_count(f); i++) {
        const char *full = mimic_safetensors_name(f, i);
        if (strncmp(full, "w0.", 3) != 0)
            continue;
        assert_true(n < MOST);
        names[n] = full + 3;
        params[n++] = (mimic_param){.tensor = load(ctx, f, "w0.", full + 3),
                                    .lr_scale = load_number(ctx, f, "scale.", full + 3, 0),
                                    .weight_decay = load_number(ctx, f, "wd.", full + 3, 0)};
    }
    assert_true(n > 5);
    mimic_optim_config cfg = {.kind = kind,
                              .beta1 = load_number(ctx, f, "meta.", "betas_eps", 0),
                              .beta2 = load_number(ctx, f, "meta.", "betas_eps", 1),
                              .eps = load_number(ctx, f, "meta.", "betas_eps", 2)};
    mimic_optim *opt;
    ok(ctx, mimic_optim_new(ctx, &cfg, params, n, &opt));
    for (int step = 0; step < 5; step++) {
        char g[8], w[8];
        snprintf(g, sizeof g, "g%d.", step);
        snprintf(w, sizeof w, "w%d.", step + 1);
        for (int i = 0; i < n; i++) {
            mimic_tensor *grad = load(ctx, f, g, names[i]);
            ok(ctx, mimic_tensor_copy(ctx, mimic_tensor_grad(params[i].tensor), grad));
            mimic_tensor_release(grad);
        }
        ok(ctx, mimic_optim_step(opt, load_number(ctx, f, "in.", "lrs", step), 1, NULL));
        for (int i = 0; i < n; i++) {
            mimic_tensor *want = load(ctx, f, w, names[i]);
            int64_t count = mimic_tensor_count(want);
            double a[512], b[512];
            assert_true(count <= 512);
            ok(ctx, mimic_tensor_read(ctx, params[i].tensor, MIMIC_F64, a, count));
            ok(ctx, mimic_tensor_read(ctx, want, MIMIC_F64, b, count));
            for (int64_t k = 0; k < count; k++)
                if (!(fabs(a[k] - b[k]) <= 1e-6 * fmax(1, fabs(b[k]))))
                    fail_msg("%s step %d %s[%d]: %.9g, not %.9g", file, step, names[i], (int)k,
                             a[k], b[k]);
            ok(ctx,
               mimic_tensor_read(ctx, mimic_tensor_grad(params[i].tensor), MIMIC_F64, a, count));
            for (int64_t k = 0; k < count; k++)
                assert_true(a[k] == 0);
            mimic_tensor_release(want);
        }
    }
    assert_int_equal(mimic_optim_count(opt), 5);
    mimic_optim_free(opt);
    for (int i = 0; i < n; i++)
        mimic_tensor_release(params[i].tensor);
    mimic_safetensors_close(f);
    assert_int_equal(mimic_alloc_live(ctx) >= 0, 1);
    mimic_close(ctx);
}

static void golden(void **state) {
    (void)state;
    static const char *const isas[] = {"base", "avx2", "avx512", "amx"};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        trajectory("opt_adam_l2.safetensors", MIMIC_ADAM, isas[i]);
        trajectory("opt_adamw.safetensors", MIMIC_ADAMW, isas[i]);
    }
}

static mimic_tensor *random_leaf(mimic_ctx *ctx, mimic_dtype dtype, int rank, const int64_t *shape,
                                 mimic_rng *r) {
    mimic_tensor *t;
    ok(ctx, mimic_tensor_new(ctx, dtype, rank, shape, &t));
    int64_t n = mimic_tensor_count(t);
    double *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = mimic_rng_normal(r);
    ok(ctx, mimic_tensor_write(ctx, t, MIMIC_F64, x, n));
    free(x);
    return t;
}

/* Three steps of SGD or LARS in f64 on a matrix longer than a chunk and a vector. */
static void momentum_run(mimic_optim_kind kind, int threads) {
    enum { ROWS = 137, COLS = 131, N = ROWS * COLS };
    mimic_ctx *ctx = open_ctx();
    ok(ctx, mimic_set_threads(ctx, threads));
    mimic_rng r;
    mimic_rng_init(&r, 1, 2, 3);
    mimic_tensor *w = random_leaf(ctx, MIMIC_F64, 2, (int64_t[]){ROWS, COLS}, &r);
    mimic_tensor *b = random_leaf(ctx, MIMIC_F64, 1, (int64_t[]){COLS}, &r);
    mimic_param params[2] = {{w, 0.5, 0.1}, {b, 1, 0.2}};
    mimic_optim_config cfg = {.kind = kind, .beta1 = 0.9, .trust = 0.001};
    static double x[N + COLS], m[N + COLS], g[N + COLS];
    memset(m, 0, sizeof m);
    ok(ctx, mimic_tensor_read(ctx, w, MIMIC_F64, x, N));
    ok(ctx, mimic_tensor_read(ctx, b, MIMIC_F64, x + N, COLS));
    mimic_optim *opt;
    ok(ctx, mimic_optim_new(ctx, &cfg, params, 2, &opt));
    for (int step = 0; step < 3; step++) {
        double ww = 0, gg = 0, trust = 1;
        for (int i = 0; i < N + COLS; i++)
            g[i] = mimic_rng_normal(&r);
        ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(w), MIMIC_F64, g, N));
        ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(b), MIMIC_F64, g + N, COLS));
        ok(ctx, mimic_optim_step(opt, 0.1, 0.25, NULL));
        for (int i = 0; i < N + COLS; i++) {
            g[i] *= 0.25;
            if (i < N || kind == MIMIC_SGD)
                g[i] += (i < N ? 0.1 : 0.2) * x[i];
            if (i < N) {
                ww += x[i] * x[i];
                gg += g[i] * g[i];
            }
        }
        if (kind == MIMIC_LARS)
            trust = 0.001 * sqrt(ww) / sqrt(gg);
        for (int i = 0; i < N + COLS; i++) {
            m[i] = 0.9 * m[i] + g[i] * (i < N ? trust : 1);
            x[i] -= 0.1 * (i < N ? 0.5 : 1) * m[i];
        }
    }
    static double y[N + COLS];
    ok(ctx, mimic_tensor_read(ctx, w, MIMIC_F64, y, N));
    ok(ctx, mimic_tensor_read(ctx, b, MIMIC_F64, y + N, COLS));
    for (int i = 0; i < N + COLS; i++)
        assert_true(fabs(x[i] - y[i]) <= 1e-13 * (1 + fabs(x[i])));
    assert_null(mimic_optim_state(opt, 1));
    assert_int_equal(mimic_tensor_count(mimic_optim_state(opt, 0)),
                     (N + 63) / 64 * 64 + (COLS + 63) / 64 * 64);
    mimic_optim_free(opt);
    mimic_tensor_release(w);
    mimic_tensor_release(b);
    mimic_close(ctx);
}
static void momentum(void **state) {
    (void)state;
    momentum_run(MIMIC_SGD, 1);
    momentum_run(MIMIC_SGD, 3);
    momentum_run(MIMIC_LARS, 2);
}

/* A zero matrix keeps ratio 1: LARS still moves it. */
static void lars_zero_weights(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *w;
    ok(ctx, mimic_tensor_new(ctx, MIMIC_F32, 2, (int64_t[]){1, 2}, &w));
    mimic_param p = {w, 1, 0};
    mimic_optim_config cfg = {.kind = MIMIC_LARS, .beta1 = 0.9, .trust = 0.001};
    mimic_optim *opt;
    ok(ctx, mimic_optim_new(ctx, &cfg, &p, 1, &opt));
    ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(w), MIMIC_F64, (double[]){1, -2}, 2));
    ok(ctx, mimic_optim_step(opt, 0.5, 1, NULL));
    assert_true(item(ctx, w, 0) == -0.5 && item(ctx, w, 1) == 1);
    mimic_optim_free(opt);
    mimic_tensor_release(w);
    mimic_close(ctx);
}

static void norms_and_clipping(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *a = ramp(ctx, 0, 3, 0), *b = ramp(ctx, 0, 1, 5);
    mimic_param params[2] = {{a, 1, 0}, {b, 1, 0}};
    mimic_optim_config cfg = {.kind = MIMIC_SGD, .clip = 1};
    mimic_optim *opt;
    ok(ctx, mimic_optim_new(ctx, &cfg, params, 2, &opt));
    double norm = 0;
    ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(a), MIMIC_F64, (double[]){0, 6, 0}, 3));
    ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(b), MIMIC_F64, (double[]){8}, 1));
    ok(ctx, mimic_optim_step(opt, 1, 0.5, &norm));
    assert_true(fabs(norm - 5) < 1e-6);
    assert_true(fabs(item(ctx, a, 1) - (1 - 0.6)) < 1e-5 &&
                fabs(item(ctx, b, 0) - (5 - 0.8)) < 1e-5);
    ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(b), MIMIC_F64, (double[]){0.5}, 1));
    ok(ctx, mimic_optim_step(opt, 1, 1, &norm));
    assert_true(fabs(norm - 0.5) < 1e-6 && fabs(item(ctx, b, 0) - (5 - 0.8 - 0.5)) < 1e-5);
    ok(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(b), MIMIC_F64, (double[]){3}, 1));
    ok(ctx, mimic_optim_zero_grad(opt));
    assert_true(item(ctx, mimic_tensor_grad(b), 0) == 0);
    mimic_optim_free(opt);
    mimic_tensor_release(a);
    mimic_tensor_release(b);
    mimic_close(ctx);
}

/* Matrices have bf16 copies whose gradient arrives in the parameter's; the copies follow every
 * update. */
static void shadows(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_rng r;
    mimic_rng_init(&r, 4, 5, 6);
    mimic_tensor *w = random_leaf(ctx, MIMIC_F32, 2, (int64_t[]){3, 5}, &r);
    mimic_tensor *b = random_leaf(ctx, MIMIC_F32, 1, (int64_t[]){3}, &r);
    mimic_param params[2] = {{w, 1, 0}, {b, 1, 0}};
    mimic_optim_config cfg = {
        .kind = MIMIC_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .shadow_bf16 = true};
    mimic_optim *opt;
    ok(ctx, mimic_optim_new(ctx, &cfg, params, 2, &opt));
    mimic_tensor *s = mimic_optim_shadow(opt, 0);
    assert_true(s != w && mimic_optim_shadow(opt, 1) == b);
    assert_int_equal(mimic_tensor_dtype(s), MIMIC_BF16);
    assert_true(mimic_tensor_grad(s) == mimic_tensor_grad(w));
    for (int step = 0; step < 2; step++) {
        for (int i = 0; i < 15; i++)
            assert_true(item(ctx, s, i) ==
                        mimic_bf16_to_f32(mimic_f32_to_bf16((float)item(ctx, w, i))));
        mimic_tensor *x = NULL, *x16 = NULL, *y = NULL, *y32 = NULL, *loss = NULL;
        ok(ctx, mimic_tensor_new(ctx, MIMIC_F32, 2, (int64_t[]){2, 5}, &x));
        ok(ctx,
           mimic_tensor_write(ctx, x, MIMIC_F64, (double[]){1, 2, 3, 4, 5, 1, 1, 1, 1, 1}, 10));
        mimic_attrs to16 = {.v = {{.i = MIMIC_BF16}}}, to32 = {.v = {{.i = MIMIC_F32}}};
        ok(ctx, try_op(ctx, "cast", x, NULL, &to16, &x16));
        mimic_tensor *in[3] = {x16, s, b};
        ok(ctx, mimic_op_apply(ctx, mimic_op_find("linear"), in, 3, NULL, &y));
        ok(ctx, try_op(ctx, "cast", y, NULL, &to32, &y32));
        ok(ctx, try_op(ctx, "sum", y32, NULL, NULL, &loss));
        ok(ctx, mimic_backward(ctx, loss));
        assert_true(item(ctx, mimic_tensor_grad(w), 0) == 2 &&
                    item(ctx, mimic_tensor_grad(w), 14) == 6);
        assert_true(item(ctx, mimic_tensor_grad(b), 2) == 2);
        mimic_tensor_release(loss);
        mimic_tensor_release(y32);
        mimic_tensor_release(y);
        mimic_tensor_release(x16);
        mimic_tensor_release(x);
        ok(ctx, mimic_optim_step(opt, 0.1, 1, NULL));
    }
    ok(ctx, mimic_tensor_write(ctx, w, MIMIC_F64,
                               (double[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 15));
    ok(ctx, mimic_optim_sync(opt));
    assert_true(item(ctx, s, 14) == 15);
    mimic_optim_free(opt);
    mimic_tensor_release(w);
    mimic_tensor_release(b);
    mimic_close(ctx);
}

/* Parameters survive the scope the optimiser was made in, and every failing allocation is only a
 * status. */
static void scopes_and_failures(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *w = ramp(ctx, 2, 3, 1), *b = ramp(ctx, 0, 3, 1), *wrong = NULL;
    mimic_param params[3] = {{w, 1, 0}, {b, 1, 0}, {w, 1, 0}};
    mimic_optim_config cfg = {
        .kind = MIMIC_ADAM, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .shadow_bf16 = true};
    mimic_optim *opt = NULL;
    assert_int_equal(mimic_optim_new(ctx, &cfg, params, 3, &opt), MIMIC_EINVAL);
    assert_message(ctx, "parameters 1 and 3 are the same");
    ok(ctx, mimic_tensor_new(ctx, MIMIC_F64, 1, (int64_t[]){2}, &wrong));
    params[2].tensor = wrong;
    assert_int_equal(mimic_optim_new(ctx, &cfg, params, 3, &opt), MIMIC_EINVAL);
    assert_message(ctx, "parameter 3 differs in dtype");
    mimic_tensor_release(wrong);
    mimic_scope *scope;
    ok(ctx, mimic_scope_open(ctx, &scope));
    for (int n = 1;; n++) {
        mimic_fail_alloc(ctx, n, false);
        mimic_status status = mimic_optim_new(ctx, &cfg, params, 2, &opt);
        mimic_fail_alloc(ctx, 0, false);
        if (status == MIMIC_OK)
            break;
        assert_int_equal(status, MIMIC_ENOMEM);
        assert_true(item(ctx, w, 5) == 6);
        assert_true(n < 100);
    }
    mimic_scope_close(scope);
    mimic_scope_release(scope);
    ok(ctx,
       mimic_tensor_write(ctx, mimic_tensor_grad(w), MIMIC_F64, (double[]){1, 1, 1, 1, 1, 1}, 6));
    ok(ctx, mimic_optim_step(opt, 0.5, 1, NULL));
    assert_true(fabs(item(ctx, w, 0) - 0.5) < 1e-5 && item(ctx, b, 0) == 1);
    assert_true(mimic_tensor_alive(mimic_optim_shadow(opt, 0)));
    assert_int_equal(mimic_tensor_count(mimic_optim_state(opt, 1)), 128);
    mimic_close(ctx); /* handles outlive it */
    assert_int_equal(mimic_optim_step(opt, 0.5, 1, NULL), MIMIC_ESTATE);
    mimic_optim_free(opt);
    mimic_tensor_release(w);
    mimic_tensor_release(b);
}

/* --- large arenas ----------------------------------------------------------------------------- */

static size_t resident(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f)
        return 0;
    if (fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    fclose(f);
    return (size_t)pages * 4096;
}

/* A leaf of n numbers, or of zeros with start 0. */
static mimic_tensor *numbers(mimic_ctx *ctx, int64_t n, float start) {
    mimic_tensor *t = NULL;
    ok(ctx, mimic_tensor_new(ctx, MIMIC_F32, 1, &n, &t));
    float *p = mimic_tensor_data(t);
    for (int64_t i = 0; i < n && start != 0; i++)
        p[i] = start + 0.25F * (float)i;
    return t;
}

static float number_at(const mimic_tensor *t, int64_t i) {
    const float *p = mimic_tensor_data(t);
    return p[i];
}

/* t[0]^2 summed + t[1] summed, backward. */
static void gradients_of(mimic_ctx *ctx, mimic_tensor *const t[2]) {
    mimic_tensor *a = sum_of(ctx, op2(ctx, "mul", t[0], t[0])), *b = NULL, *all = NULL;
    if (t[1]) {
        mimic_tensor_retain(t[1]); /* sum_of takes it */
        b = sum_of(ctx, t[1]);
        all = op2(ctx, "add", a, b);
    }
    ok(ctx, mimic_backward(ctx, all ? all : a));
    mimic_tensor_release(all);
    mimic_tensor_release(b);
    mimic_tensor_release(a);
}

/* Two steps of the same small parameter, beside a large one with the gradient 1 throughout. */
static void steps_beside(mimic_ctx *ctx, int64_t large, double *out) {
    mimic_tensor *t[2] = {numbers(ctx, 5, 1), large ? numbers(ctx, large, 0) : NULL};
    mimic_param params[2] = {{.tensor = t[0], .lr_scale = 1}, {.tensor = t[1], .lr_scale = 1}};
    mimic_optim_config cfg = {.kind = MIMIC_ADAMW, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    mimic_optim *opt;
    ok(ctx, mimic_optim_new(ctx, &cfg, params, large ? 2 : 1, &opt));
    for (int step = 0; step < 2; step++) {
        gradients_of(ctx, t);
        size_t before = resident();
        ok(ctx, mimic_optim_step(opt, 0.1, 1, NULL));
        if (large && step == 1) /* the moments are there since the first step */
            assert_true(resident() + (size_t)large * 3 < before);
        for (int k = 0; k < 2 && t[k]; k++) {
            const mimic_tensor *g = mimic_tensor_grad(t[k]);
            assert_true(number_at(g, 0) == 0 && number_at(g, mimic_tensor_count(g) - 1) == 0);
        }
    }
    for (int i = 0; i < 5; i++)
        out[i] = number_at(t[0], i);
    if (large) /* two steps of -lr, whatever the place */
        assert_true(number_at(t[1], 0) == number_at(t[1], large - 1) &&
                    fabsf(number_at(t[1], 0) + 0.2F) < 1e-5F);
    mimic_optim_free(opt);
    mimic_tensor_release(t[0]);
    mimic_tensor_release(t[1]);
}

static void large_gradients_give_their_pages_back(void **state) {
    (void)state;
    double alone[5], beside[5];
    mimic_ctx *ctx = open_ctx();
    steps_beside(ctx, 0, alone);
    steps_beside(ctx, (int64_t)MIMIC_HOST_LARGE / 4 + 77, beside);
    assert_memory_equal(alone, beside, sizeof alone);
    mimic_close(ctx);
}

/* What the tape frees goes back to the system as far as the gradients' arena will take its place,
 * and can be used again. */
static void backward_retires_what_it_has_read(void **state) {
    (void)state;
    enum { N = 1 << 22, DEPTH = 6 };
    mimic_ctx *ctx = open_ctx();
    mimic_tensor *x = numbers(ctx, N, 1);
    ok(ctx, mimic_tensor_set_requires_grad(ctx, x, true));
    for (int step = 1; step <= 2; step++) {
        mimic_tensor *y = x;
        mimic_tensor_retain(y);
        for (int i = 0; i < DEPTH; i++) {
            mimic_tensor *next = op2(ctx, "relu", y, NULL); /* keeps its output */
            mimic_tensor_release(y);
            y = next;
        }
        mimic_tensor *loss = sum_of(ctx, y);
        size_t before = resident();
        mimic_pool_owe(ctx->device, MIMIC_HOST_LARGE); /* four of the six */
        ok(ctx, mimic_backward(ctx, loss));
        mimic_tensor_release(loss);
#ifndef __SANITIZE_ADDRESS__ /* it has pages of its own */
        assert_true(resident() + MIMIC_HOST_LARGE * 3 / 4 < before + 2 * N * sizeof(float));
#else
        (void)before;
#endif
        assert_true(number_at(mimic_tensor_grad(x), N - 1) == (float)step);
    }
    mimic_tensor_release(x);
    mimic_close(ctx);
}

/* A block that only backward takes gives its pages back between steps, and as much more of the tape
 * does while backward works; a chilled pool keeps its blocks. */
static void what_only_backward_takes_gives_its_pages_back(void **state) {
    (void)state;
    enum { N = 1 << 24 };
    mimic_ctx *ctx = open_ctx();
    void *forward = NULL, *backward = NULL;
    mimic_storage none = {.bytes = 0, .device = ctx->device};
    for (int step = 1; step <= 3; step++) {
        mimic_pool_owe(ctx->device, MIMIC_HOST_LARGE);
        ok(ctx, mimic_pool_get(ctx, N, &forward));
        memset(forward, 1, N);
        mimic_pool_retire(&none); /* backward begins */
        ok(ctx, mimic_pool_get(ctx, N, &backward));
        memset(backward, 1, N);
        mimic_pool_put(ctx, backward, N);
        mimic_pool_put(ctx, forward, N);
#ifndef __SANITIZE_ADDRESS__
        size_t before = resident();
        mimic_pool_owe(ctx->device, MIMIC_HOST_LARGE);
        assert_true(resident() + N * 3 / 4 < before && resident() + N * 3 / 2 > before);
        mimic_pool_chill(ctx->device);
        assert_true(resident() + N * 7 / 4 < before);
#endif
        mimic_memory m;
        mimic_memory_stats(ctx, &m);
        assert_true(m.cached >= 2 * N);
    }
    mimic_close(ctx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(momentum),
        cmocka_unit_test(lars_zero_weights),
        cmocka_unit_test(shadows),
        cmocka_unit_test(norms_and_clipping),
        cmocka_unit_test(scopes_and_failures),
        cmocka_unit_test(large_gradients_give_their_pages_back),
        cmocka_unit_test(backward_retires_what_it_has_read),
        cmocka_unit_test(what_only_backward_takes_gives_its_pages_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

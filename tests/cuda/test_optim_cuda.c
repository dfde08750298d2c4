/* The optimisers on the CUDA device against the CPU: all kinds, layer decay, clipping, bf16
 * shadows, the gradient's norm; a parameter on another device is refused. */
#include <dlfcn.h>

#include "cuda_util.h"

#include "mimic/optim.h"

enum { PARAMS = 4, STEPS = 3 };
static const int64_t shapes[PARAMS][2] = {
    {17, 9}, {33, 0}, {3, 1}, {130, 70}}; /* [n,0]: a vector */

static void must(mimic_ctx *ctx, mimic_status st) {
    if (st != MIMIC_OK)
        fail_msg("%s: %s", mimic_status_name(st), mimic_message(ctx));
}

/* What a run leaves behind, one after another: parameters, shadows, state, norms. */
typedef struct record {
    double v[200000];
    int n;
} record;

static void take(mimic_ctx *ctx, record *r, const mimic_tensor *t) {
    int64_t n = mimic_tensor_count(t);
    assert_true(r->n + n < (int64_t)(sizeof r->v / sizeof *r->v));
    must(ctx, mimic_tensor_read(ctx, t, MIMIC_F64, r->v + r->n, n));
    r->n += (int)n;
}

static void set_grad(mimic_ctx *ctx, mimic_tensor *t, int i, int step) {
    int64_t n = mimic_tensor_count(t);
    float *g = malloc((size_t)n * sizeof *g);
    mimic_rng rng;
    mimic_rng_init(&rng, 5, (uint32_t)i, (uint64_t)step);
    for (int64_t k = 0; k < n; k++)
        g[k] = (float)mimic_rng_normal(&rng);
    must(ctx, mimic_tensor_write(ctx, mimic_tensor_grad(t), MIMIC_F32, g, n));
    free(g);
}

static void run(mimic_ctx *ctx, const mimic_optim_config *cfg, double decay, record *r) {
    mimic_tensor *t[PARAMS];
    mimic_param params[PARAMS];
    mimic_optim *o;
    r->n = 0;
    for (int i = 0; i < PARAMS; i++) {
        input_spec s = {.given = true, .dtype = MIMIC_F32, .rank = shapes[i][1] ? 2 : 1};
        memcpy(s.shape, shapes[i], sizeof shapes[i]);
        op_case c = {.n_in = 1, .in = {s}};
        double *v = make_values(&c, 0);
        assert_non_null(t[i] = make_tensor(ctx, &s, v));
        free(v);
        params[i] = (mimic_param){t[i], 1.0 / (i + 1), i == 1 ? 0 : decay};
    }
    must(ctx, mimic_optim_new(ctx, cfg, params, PARAMS, &o));
    for (int step = 0; step < STEPS; step++) {
        double norm;
        for (int i = 0; i < PARAMS; i++)
            set_grad(ctx, t[i], i, step);
        must(ctx, mimic_optim_step(o, 0.01 * (step + 1), 0.5, &norm));
        r->v[r->n++] = norm;
    }
    for (int i = 0; i < PARAMS; i++) {
        take(ctx, r, t[i]);
        take(ctx, r, mimic_tensor_grad(t[i])); /* cleared by the step */
        take(ctx, r, mimic_optim_shadow(o, i));
    }
    for (int k = 0; k < 2; k++)
        if (mimic_optim_state(o, k))
            take(ctx, r, mimic_optim_state(o, k));
    mimic_optim_free(o);
    for (int i = 0; i < PARAMS; i++)
        mimic_tensor_release(t[i]);
}

static void test_kinds(void **state) {
    static record want, got, again;
    static const char *const names[] = {"adam", "adamw", "sgd", "lars"};
    (void)state;
    for (int kind = MIMIC_ADAM; kind <= MIMIC_LARS; kind++)
        for (int variant = 0; variant < 3; variant++) {
            mimic_optim_config cfg = {.kind = (mimic_optim_kind)kind,
                                      .beta1 = 0.9,
                                      .beta2 = 0.95,
                                      .eps = 1e-8,
                                      .trust = 0.001,
                                      .clip = variant == 1 ? 0.5 : 0,
                                      .shadow_bf16 = variant == 2};
            double decay = variant == 0 ? 0 : 0.05;
            run(cpu, &cfg, decay, &want);
            run(gpu, &cfg, decay, &got);
            run(gpu, &cfg, decay, &again);
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.v, again.v, sizeof *got.v * (size_t)got.n);
            for (int i = 0; i < want.n; i++) {
                double tol = (variant == 2 ? 1.0 / 128 : 1e-5) * (fabs(want.v[i]) + 0.01);
                if (!(fabs(got.v[i] - want.v[i]) <= tol))
                    fail_msg("%s, variant %d: value %d of %d is %.9g, not %.9g", names[kind],
                             variant, i, want.n, got.v[i], want.v[i]);
            }
        }
}

/* Clipping begins beyond the limit: a gradient of norm 5 with limits around it, SGD with rate 1. */
static void test_clipping(void **state) {
    static const double limits[] = {0, 2.5, 4.999, 5, 5.001, 100};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const float zero[2] = {0, 0}, g[2] = {3, 4};
        const int64_t n = 2;
        mimic_optim_config cfg = {.kind = MIMIC_SGD, .clip = limits[i]};
        mimic_tensor *t = NULL;
        mimic_optim *o;
        double norm = 0, w[2], c = limits[i];
        must(gpu, mimic_tensor_from(gpu, MIMIC_F32, 1, &n, zero, &t));
        mimic_param param = {t, 1, 0};
        must(gpu, mimic_optim_new(gpu, &cfg, &param, 1, &o));
        must(gpu, mimic_tensor_write(gpu, mimic_tensor_grad(t), MIMIC_F32, g, 2));
        must(gpu, mimic_optim_step(o, 1, 1, &norm));
        must(gpu, mimic_tensor_read(gpu, t, MIMIC_F64, w, 2));
        double factor = c > 0 && c < 5 ? c / 5 : 1;
        assert_true(norm == 5); /* before it is clipped */
        for (int k = 0; k < 2; k++)
            if (!(fabs(w[k] + factor * g[k]) < 3e-6))
                fail_msg("limit %g: parameter %d moves by %.9g, not by %.9g", c, k, w[k],
                         -factor * g[k]);
        mimic_optim_free(o);
        mimic_tensor_release(t);
    }
}

/* Norms and ratios are the device's own business: nobody waits for a step. */
static void test_nobody_waits(void **state) {
    mimic_optim *o;
    mimic_tensor *t;
    mimic_optim_config cfg = {
        .kind = MIMIC_LARS, .beta1 = 0.9, .trust = 0.001, .clip = 0.5, .shadow_bf16 = true};
    (void)state;
    void *lib = dlopen(getenv("MIMIC_CUDA"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(lib);
    const int *waits = dlsym(lib, "emu_waits");
    if (!waits) /* a real device does not count */
        skip();
    must(gpu, mimic_tensor_new(gpu, MIMIC_F32, 2, shapes[3], &t));
    mimic_param param = {t, 1, 0.05};
    must(gpu, mimic_optim_new(gpu, &cfg, &param, 1, &o));
    int before = *waits;
    for (int step = 0; step < STEPS; step++)
        must(gpu, mimic_optim_step(o, 0.01, 1, NULL));
    assert_int_equal(*waits, before);
    double norm = -1;
    must(gpu, mimic_optim_step(o, 0.01, 1, &norm));
    assert_true(norm == 0);
    assert_true(*waits > before); /* a wanted norm is waited for */
    mimic_optim_free(o);
    mimic_tensor_release(t);
}

/* Nor is the table of a large model, MAE ViT-L and beyond, copied from memory that may be waited
 * for. */
static void test_many_parameters(void **state) {
    enum { MANY = 1200 };
    static mimic_param params[MANY];
    mimic_optim *o;
    mimic_optim_config cfg = {.kind = MIMIC_ADAMW, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    int64_t n = 3;
    (void)state;
    void *lib = dlopen(getenv("MIMIC_CUDA"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(lib);
    const int *pageable = dlsym(lib, "emu_pageable");
    for (int i = 0; i < MANY; i++) {
        params[i] = (mimic_param){NULL, 1, 0.05};
        must(gpu, mimic_tensor_new(gpu, MIMIC_F32, 1, &n, &params[i].tensor));
    }
    must(gpu, mimic_optim_new(gpu, &cfg, params, MANY, &o));
    int before = pageable ? *pageable : 0; /* a real device does not count */
    must(gpu, mimic_optim_step(o, 0.01, 1, NULL));
    assert_int_equal(pageable ? *pageable : 0, before);
    mimic_optim_free(o);
    for (int i = 0; i < MANY; i++)
        mimic_tensor_release(params[i].tensor);
}

static void test_mixed(void **state) {
    (void)state;
    mimic_tensor *a = NULL, *b = NULL;
    mimic_optim *o = NULL;
    mimic_optim_config cfg = {.kind = MIMIC_SGD};
    int64_t n = 3;
    must(gpu, mimic_tensor_new(gpu, MIMIC_F32, 1, &n, &a));
    must(gpu, mimic_tensor_to(gpu, a, "cpu", &b));
    mimic_param params[] = {{a, 1, 0}, {b, 1, 0}};
    assert_int_equal(mimic_optim_new(gpu, &cfg, params, 2, &o), MIMIC_EINVAL);
    assert_non_null(strstr(mimic_message(gpu), "parameter 2 is on cpu, the first on cuda"));
    mimic_tensor_release(a);
    mimic_tensor_release(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds), cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_nobody_waits), cmocka_unit_test(test_many_parameters),
        cmocka_unit_test(test_mixed)};
    return cmocka_run_group_tests(tests, open_both, close_both);
}

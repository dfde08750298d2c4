/* linear: y = act(x . w^T + b) in one product; the finish of its rows, shared with matmul; and the
 * gradient of its activation. Activations: exact-erf and tanh GELU, ReLU. */
#ifdef T

#include "backend/cpu/activations.h"

/* n lanes from column j on of one row. */
SIMD_FN void NAME(finish_vector)(const REAL *sum, const REAL *bias, T *pre, T *c, int64_t j,
                                 int64_t n, enum gemm_act act) {
    VEC v = n == W ? RLOAD(sum + j) : RLOADN(sum + j, n);
    if (bias)
        v += n == W ? RLOAD(bias + j) : RLOADN(bias + j, n);
    /* the activation is that of the value as it is kept */
    if (n == W) {
        if (act != GEMM_ACT_NONE)
            v = KEEP(pre ? pre + j : NULL, v);
        QUICK_STORE(c + j, NAME(activate)(v, act));
    } else {
        if (act != GEMM_ACT_NONE)
            v = KEEP(NULL, v);
        if (pre)
            STOREN(pre + j, v, n);
        STOREN(c + j, NAME(activate)(v, act), n);
    }
}
/* Inlined for each activation, which is then known in the loop. */
SIMD_FN void NAME(finish_rows)(const gemm_args *g, int64_t row, int64_t m, int64_t col, int64_t n,
                               const REAL *sum, int64_t ld, enum gemm_act act) {
    const REAL *bias = g->bias ? (const REAL *)g->bias + col : NULL;
    for (int64_t i = 0; i < m; i++, sum += ld) {
        int64_t at = (row + i) * g->ldc + col, j = 0;
        T *c = (T *)g->c + at, *pre = g->pre ? (T *)g->pre + at : NULL;
        for (; j + W <= n; j += W)
            NAME(finish_vector)(sum, bias, pre, c, j, W, act);
        if (j < n)
            NAME(finish_vector)(sum, bias, pre, c, j, n - j, act);
    }
}
static void NAME(finish)(const gemm_args *g, int64_t row, int64_t m, int64_t col, int64_t n,
                         const void *sum, int64_t ld) {
    switch (g->act) {
    case GEMM_ACT_RELU:
        NAME(finish_rows)(g, row, m, col, n, sum, ld, GEMM_ACT_RELU);
        break;
    case GEMM_ACT_GELU:
        NAME(finish_rows)(g, row, m, col, n, sum, ld, GEMM_ACT_GELU);
        break;
    case GEMM_ACT_GELU_TANH:
        NAME(finish_rows)(g, row, m, col, n, sum, ld, GEMM_ACT_GELU_TANH);
        break;
    default:
        NAME(finish_rows)(g, row, m, col, n, sum, ld, GEMM_ACT_NONE);
    }
}

SIMD_FN void NAME(act_bwd_range)(const T *dy, const T *pre, T *dx, int64_t n, enum gemm_act act) {
    int64_t j = 0;
    for (; j + W <= n; j += W)
        QUICK_STORE(dx + j, LOAD(dy + j) * NAME(slope)(LOAD(pre + j), act));
    if (j < n)
        STOREN(dx + j, LOADN(dy + j, n - j) * NAME(slope)(LOADN(pre + j, n - j), act), n - j);
}
static void NAME(act_bwd_chunk)(void *arg, int64_t i, int worker) {
    const mimic_call *c = arg;
    (void)worker;
    int64_t at = i * CHUNK, n = mimic_numel(c->out[0]) - at;
    n = n < CHUNK ? n : CHUNK;
    const T *dy = (const T *)mimic_data(c->in[0]) + at, *pre = (const T *)mimic_data(c->in[1]) + at;
    T *dx = (T *)mimic_data(c->out[0]) + at;
    switch (c->attrs.v[0].i) {
    case GEMM_ACT_RELU:
        NAME(act_bwd_range)(dy, pre, dx, n, GEMM_ACT_RELU);
        break;
    case GEMM_ACT_GELU:
        NAME(act_bwd_range)(dy, pre, dx, n, GEMM_ACT_GELU);
        break;
    case GEMM_ACT_GELU_TANH:
        NAME(act_bwd_range)(dy, pre, dx, n, GEMM_ACT_GELU_TANH);
        break;
    default:
        NAME(act_bwd_range)(dy, pre, dx, n, GEMM_ACT_NONE);
    }
}

#else
#include "backend/cpu/gemm.h"

#define CHUNK 16384

#define QUICK_STORE(p, v) EACH_CAT(quick_store, SUFFIX)(p, v)
#define quick_store_f32 vstore_f32
#define quick_store_f64 vstore_f64
#define quick_store_bf16 vstore_bf16_quick

/* Stores v unless p is NULL; returns it as it is when read again. */
#define KEEP(p, v) EACH_CAT(keep, SUFFIX)(p, v)
SIMD_FN vf32 keep_f32(float *p, vf32 v) {
    if (p)
        vstore_f32(p, v);
    return v;
}
SIMD_FN vf64 keep_f64(double *p, vf64 v) {
    if (p)
        vstore_f64(p, v);
    return v;
}
SIMD_FN vf32 keep_bf16(uint16_t *p, vf32 v) {
#ifdef __AVX512BF16__
    vu16 h = (vu16)_mm512_cvtneps_pbh((__m512)v);
#else
    vu16 h = vto_bf16(v);
#endif
    if (p)
        memcpy(p, &h, sizeof h);
    return vfrom_bf16(h);
}

#define FAMILY "backend/cpu/linear.c"
#include "backend/cpu/each_float.h"

void KERNEL(gemm_finish)(const gemm_args *g, int64_t row, int64_t m, int64_t col, int64_t n,
                         const void *sum, int64_t ld) {
    BY_FLOAT(g->out, finish)(g, row, m, col, n, sum, ld);
}

mimic_status KERNEL(linear)(mimic_call *c) {
    const mimic_tensor *x = c->in[0], *w = c->in[1];
    int64_t k = w->shape[1], n = w->shape[0], m = 1;
    for (int i = 0; i < x->rank - 1; i++)
        m *= x->shape[i];
    gemm_args g = {.in = (mimic_dtype)x->dtype,
                   .out = (mimic_dtype)x->dtype,
                   .m = m,
                   .n = n,
                   .k = k,
                   .a = mimic_data(x),
                   .b = mimic_data(w),
                   .lda = k,
                   .ldb = k,
                   .ldc = n,
                   .tb = true,
                   .c = mimic_data(c->out[0]),
                   .bias = c->in[2] ? mimic_data(c->in[2]) : NULL,
                   .pre = c->save[0] ? mimic_data(c->save[0]) : NULL,
                   .act = (enum gemm_act)c->attrs.v[0].i};
    return KERNEL(gemm)(c->ctx, &g, 1, 0, 0, 0);
}

mimic_status KERNEL(act_bwd)(mimic_call *c) {
    int64_t n = mimic_numel(c->out[0]);
    mimic_parallel(c->ctx, (n + CHUNK - 1) / CHUNK, BY_FLOAT(c->out[0]->dtype, act_bwd_chunk), c);
    return MIMIC_OK;
}

mimic_status KERNEL(act_bias_bwd)(mimic_call *c) {
    mimic_call sums = *c;
    mimic_status status = KERNEL(act_bwd)(c);
    sums.in[0] = c->out[0];
    sums.out[0] = c->out[1];
    return status ? status : KERNEL(col_sum)(&sums);
}
#endif

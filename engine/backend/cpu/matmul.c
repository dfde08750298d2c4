/* matmul over broadcast batch axes, and col_sum. A batch that shares its right operand becomes one
 * tall product. */
#ifdef T

/* Sums CHUNK rows (fewer at the end) of the matrix into row i of the partial sums. */
static void NAME(col_sum_chunk)(void *arg, int64_t i, int worker) {
    const col_sum_job *job = arg;
    (void)worker;
    int64_t n = job->n, r0 = i * CHUNK, r1 = r0 + CHUNK < job->rows ? r0 + CHUNK : job->rows, j = 0;
    const T *x = job->x;
    REAL *out = (REAL *)job->partial + i * n;
    for (; j + 4 * W <= n; j += 4 * W) {
        VEC s[4] = {{0}, {0}, {0}, {0}};
        for (int64_t r = r0; r < r1; r++)
            for (int v = 0; v < 4; v++)
                s[v] += LOAD(x + r * n + j + v * W);
        for (int v = 0; v < 4; v++)
            RSTORE(out + j + v * W, s[v]);
    }
    for (; j < n; j += W) {
        int64_t left = n - j < W ? n - j : W;
        VEC s = {0};
        for (int64_t r = r0; r < r1; r++)
            s += LOADN(x + r * n + j, left);
        RSTOREN(out + j, s, left);
    }
}
/* Adds the partial sums in order. */
static void NAME(col_sum_total)(const col_sum_job *job, int64_t chunks, void *result) {
    REAL *out = result;
    const REAL *p = job->partial;
    for (int64_t j = 0; j < job->n; j++)
        out[j] = 0;
    for (int64_t i = 0; i < chunks; i++, p += job->n)
        for (int64_t j = 0; j < job->n; j++)
            out[j] += p[j];
}

#else
#include "backend/cpu/gemm.h"
#include "ops/batch_axes.h"

#define CHUNK 128 /* rows */

typedef struct col_sum_job {
    const void *x; /* [rows, n] */
    void *partial; /* [chunks, n] */
    int64_t rows, n;
} col_sum_job;

#define FAMILY "backend/cpu/matmul.c"
#include "backend/cpu/each_float.h"

mimic_status KERNEL(col_sum)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    col_sum_job job = {.x = mimic_data(x), .n = x->shape[x->rank - 1]};
    job.rows = job.n > 0 ? mimic_numel(x) / job.n : 0;
    int64_t chunks = (job.rows + CHUNK - 1) / CHUNK;
    size_t bytes =
        (size_t)(chunks * job.n) * mimic_dtype_size(mimic_accum_dtype((mimic_dtype)x->dtype));
    void *memory = NULL;
    if (chunks > 1) {
        mimic_status status = mimic_pool_get(c->ctx, bytes, &memory);
        if (status != MIMIC_OK)
            return status;
    }
    job.partial = memory;
    if (chunks == 1) {
        job.partial = mimic_data(c->out[0]);
        BY_FLOAT(x->dtype, col_sum_chunk)(&job, 0, 0);
    } else {
        mimic_parallel(c->ctx, chunks, BY_FLOAT(x->dtype, col_sum_chunk), &job);
        BY_FLOAT(x->dtype, col_sum_total)(&job, chunks, mimic_data(c->out[0]));
        if (memory)
            mimic_pool_put(c->ctx, memory, bytes);
    }
    return MIMIC_OK;
}

mimic_status KERNEL(matmul)(mimic_call *c) {
    const mimic_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    bool ta = c->attrs.v[0].i != 0, tb = c->attrs.v[1].i != 0;
    gemm_args g = {.in = (mimic_dtype)a->dtype,
                   .out = (mimic_dtype)y->dtype,
                   .m = y->shape[y->rank - 2],
                   .n = y->shape[y->rank - 1],
                   .k = a->shape[a->rank - (ta ? 2 : 1)],
                   .lda = a->shape[a->rank - 1],
                   .ldb = b->shape[b->rank - 1],
                   .ldc = y->shape[y->rank - 1],
                   .ta = ta,
                   .tb = tb};
    if (mimic_numel(y) == 0)
        return MIMIC_OK;
    batch_axis axes[MIMIC_MAX_RANK] = {{.n = 1}};
    int n_axes = batch_axes(c, axes);
    if (n_axes > 0 && axes[0].sb == 0 && !ta && axes[0].sa == g.m * g.k) {
        g.m *= axes[0].n;
        axes[0] = (batch_axis){.n = 1};
    }
    int64_t outer = 1;
    for (int i = 1; i < n_axes; i++)
        outer *= axes[i].n;
    size_t in = mimic_dtype_size(g.in), out = mimic_dtype_size(g.out);
    for (int64_t o = 0; o < outer; o++) {
        int64_t at[3];
        batch_offsets(axes, n_axes, o, at);
        g.a = (const char *)mimic_data(a) + (size_t)at[0] * in;
        g.b = (const char *)mimic_data(b) + (size_t)at[1] * in;
        g.c = (char *)mimic_data(y) + (size_t)at[2] * out;
        mimic_status status =
            KERNEL(gemm)(c->ctx, &g, axes[0].n, axes[0].sa, axes[0].sb, axes[0].sc);
        if (status != MIMIC_OK)
            return status;
    }
    return MIMIC_OK;
}
#endif

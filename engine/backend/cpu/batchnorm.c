/* batchnorm of [rows, columns], training mode, and its gradient. A task is a block of columns over
 * all rows, so no sum is split. */
#ifdef T

/* y, mean and var of columns first..end-1 */
static void NAME(bn_columns)(const bn_job *j, int64_t first, int64_t end) {
    const T *x = j->x;
    T *y = j->y;
    const REAL *w = j->weight, *b = j->bias;
    REAL sum[BN_BLOCK], scale[BN_BLOCK], mean[BN_BLOCK];
    int64_t n = end - first, c = j->columns;
    memset(sum, 0, sizeof sum);
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += GET(x[r * c + first + i]);
    for (int64_t i = 0; i < n; i++) {
        mean[i] = sum[i] / (REAL)j->rows;
        sum[i] = 0;
    }
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t i = 0; i < n; i++) {
            REAL d = GET(x[r * c + first + i]) - mean[i];
            sum[i] += d * d;
        }
    for (int64_t i = 0; i < n; i++) {
        REAL var = sum[i] / (REAL)j->rows;
        scale[i] = (w ? w[first + i] : 1) / RMATH(sqrt)(var + (REAL)j->eps);
        ((REAL *)j->mean)[first + i] = mean[i];
        ((REAL *)j->var)[first + i] = var;
    }
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t i = 0; i < n; i++)
            y[r * c + first + i] =
                PUT((GET(x[r * c + first + i]) - mean[i]) * scale[i] + (b ? b[first + i] : 0));
}

static void NAME(bn_bwd_columns)(const bn_job *j, int64_t first, int64_t end) {
    const T *x = j->x, *dy = j->dy;
    T *dx = j->y;
    const REAL *w = j->weight, *mean = (const REAL *)j->mean + first;
    const REAL *dmean = j->dmean ? (const REAL *)j->dmean + first : NULL;
    const REAL *dvar = j->dvar ? (const REAL *)j->dvar + first : NULL;
    REAL rstd[BN_BLOCK], s1[BN_BLOCK], s2[BN_BLOCK], count = (REAL)j->rows;
    int64_t n = end - first, c = j->columns;
    memset(s1, 0, sizeof s1);
    memset(s2, 0, sizeof s2);
    for (int64_t i = 0; i < n; i++)
        rstd[i] = 1 / RMATH(sqrt)(((const REAL *)j->var)[first + i] + (REAL)j->eps);
    for (int64_t r = 0; dy && r < j->rows; r++)
        for (int64_t i = 0; i < n; i++) {
            REAL d = GET(dy[r * c + first + i]);
            s1[i] += d;
            s2[i] += d * (GET(x[r * c + first + i]) - mean[i]) * rstd[i];
        }
    for (int64_t i = 0; i < n; i++) {
        ((REAL *)j->dbias)[first + i] = s1[i];
        ((REAL *)j->dweight)[first + i] = s2[i];
    }
    for (int64_t r = 0; r < j->rows; r++)
        for (int64_t i = 0; i < n; i++) {
            REAL d = GET(x[r * c + first + i]) - mean[i], h = d * rstd[i];
            REAL v = dy ? GET(dy[r * c + first + i]) - s1[i] / count - h * s2[i] / count : 0;
            v *= rstd[i] * (w ? w[first + i] : 1);
            v += dmean ? dmean[i] / count : 0;
            v += dvar ? 2 * dvar[i] * d / count : 0;
            dx[r * c + first + i] = PUT(v);
        }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

enum { BN_BLOCK = 64 }; /* columns of a task */

typedef struct bn_job {
    mimic_dtype dtype;
    const void *x, *dy;        /* [rows,columns]; dy may be NULL */
    const void *weight, *bias; /* [columns] or NULL */
    const void *dmean, *dvar;  /* [columns] or NULL */
    void *y;                   /* [rows,columns] */
    void *mean, *var;          /* [columns] */
    void *dweight, *dbias;     /* [columns] */
    int64_t rows, columns;
    double eps;
} bn_job;

#define FAMILY "backend/cpu/batchnorm.c"
#include "backend/cpu/each_float.h"

static const void *data_or_null(const mimic_tensor *t) {
    return t ? mimic_data(t) : NULL;
}

static void forward_block(void *arg, int64_t i, int worker) {
    const bn_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, bn_columns)(j, i * BN_BLOCK, chunk_end(i, BN_BLOCK, j->columns));
}

static void backward_block(void *arg, int64_t i, int worker) {
    const bn_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, bn_bwd_columns)(j, i * BN_BLOCK, chunk_end(i, BN_BLOCK, j->columns));
}

mimic_status KERNEL(batchnorm)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    bn_job j = {.dtype = (mimic_dtype)x->dtype,
                .x = mimic_data(x),
                .weight = data_or_null(c->in[1]),
                .bias = data_or_null(c->in[2]),
                .y = mimic_data(c->out[0]),
                .mean = mimic_data(c->out[1]),
                .var = mimic_data(c->out[2]),
                .rows = x->shape[0],
                .columns = x->shape[1],
                .eps = c->attrs.v[0].f};
    mimic_parallel(c->ctx, chunk_count(j.columns, BN_BLOCK), forward_block, &j);
    return MIMIC_OK;
}

mimic_status KERNEL(batchnorm_bwd)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    bn_job j = {.dtype = (mimic_dtype)x->dtype,
                .x = mimic_data(x),
                .mean = mimic_data(c->in[1]),
                .var = mimic_data(c->in[2]),
                .weight = data_or_null(c->in[3]),
                .dy = data_or_null(c->in[4]),
                .dmean = data_or_null(c->in[5]),
                .dvar = data_or_null(c->in[6]),
                .y = mimic_data(c->out[0]),
                .dweight = mimic_data(c->out[1]),
                .dbias = mimic_data(c->out[2]),
                .rows = x->shape[0],
                .columns = x->shape[1],
                .eps = c->attrs.v[0].f};
    mimic_parallel(c->ctx, chunk_count(j.columns, BN_BLOCK), backward_block, &j);
    return MIMIC_OK;
}
#endif

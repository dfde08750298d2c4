/* cross_entropy and masked_mse with their gradients. Each row's (patch's) share is computed in
 * parallel, the mean over the rows in order, in double. */
#ifdef T

static inline REAL NAME(target_at)(const loss_job *j, int64_t i) {
    REAL t = j->target_dtype == MIMIC_F64 ? (REAL)((const double *)j->target)[i]
                                          : (REAL)((const float *)j->target)[i];
    return t * (REAL)(1 - j->smoothing) + (REAL)(j->smoothing / (double)j->len);
}

static void NAME(ce_rows)(const loss_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * n;
        REAL m = x[0], s = 0, dot = 0, total = 0;
        VEC v = VSET(0);
        int64_t i = 0;
        for (int64_t k = 1; k < n; k++)
            m = x[k] > m ? x[k] : m;
        for (; i + W <= n; i += W)
            v += vexp(LOAD(x + i) - m);
        if (i < n) {
            VEC e = vexp(LOADN(x + i, n - i) - m);
            for (int64_t k = 0; k < n - i; k++)
                s += e[k];
        }
        /* With every logit taken relative to the maximum: T log(sum) - sum t (x - m). */
        REAL log_sum = RMATH(log)(s + vhsum(v));
        if (j->labels) {
            REAL off = (REAL)(j->smoothing / (double)n);
            total = 1;
            dot = (x[j->labels[r]] - m) * (REAL)(1 - j->smoothing);
            for (int64_t k = 0; off > 0 && k < n; k++)
                dot += off * (x[k] - m);
        } else {
            for (int64_t k = 0; k < n; k++) {
                REAL t = NAME(target_at)(j, r * n + k);
                total += t;
                dot += t * (x[k] - m);
            }
        }
        j->share[r] = (double)(total * log_sum - dot);
        if (j->lse)
            ((REAL *)j->lse)[r] = m + log_sum;
    }
}

static void NAME(ce_bwd_rows)(const loss_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    REAL f = *(const REAL *)j->dloss / (REAL)j->rows, off = (REAL)(j->smoothing / (double)n);
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * n;
        T *dx = (T *)j->y + r * n;
        REAL lse = ((const REAL *)j->lse)[r], total = 1;
        int64_t i = 0;
        if (!j->labels) {
            total = 0;
            for (int64_t k = 0; k < n; k++)
                total += NAME(target_at)(j, r * n + k);
        }
        for (; i + W <= n; i += W)
            STORE(dx + i, vexp(LOAD(x + i) - lse) * total);
        if (i < n)
            STOREN(dx + i, vexp(LOADN(x + i, n - i) - lse) * total, n - i);
        for (int64_t k = 0; k < n; k++)
            dx[k] = (dx[k] - (j->labels ? off : NAME(target_at)(j, r * n + k))) * f;
        if (j->labels)
            dx[j->labels[r]] -= (REAL)(1 - j->smoothing) * f;
    }
}

static inline REAL NAME(mask_at)(const loss_job *j, int64_t i) {
    if (!j->mask)
        return 1;
    return j->target_dtype == MIMIC_F64 ? (REAL)((const double *)j->mask)[i]
                                        : (REAL)((const float *)j->mask)[i];
}

/* What turns a target value t into (t - mean) * rstd. */
static inline void NAME(target_norm)(const loss_job *j, const T *t, REAL *mean, REAL *rstd) {
    VEC s = VSET(0);
    int64_t n = j->len, i = 0;
    REAL m = 0, v = 0;
    *mean = 0;
    *rstd = 1;
    if (!j->norm)
        return;
    for (; i + W <= n; i += W)
        s += LOAD(t + i);
    for (m = vhsum(s); i < n; i++)
        m += t[i];
    m /= (REAL)n;
    s = VSET(0);
    for (i = 0; i + W <= n; i += W) {
        VEC d = LOAD(t + i) - m;
        s += d * d;
    }
    for (v = vhsum(s); i < n; i++)
        v += (t[i] - m) * (t[i] - m);
    *mean = m;
    *rstd = 1 / RMATH(sqrt)(v / (REAL)(n - 1) + (REAL)1e-6); /* unbiased variance */
}

static void NAME(mse_rows)(const loss_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * n, *t = (const T *)j->target + r * n;
        REAL mask = NAME(mask_at)(j, r), mean, rstd, e;
        VEC s = VSET(0);
        int64_t i = 0;
        j->share[r] = 0;
        if (mask == 0) /* a kept patch costs nothing */
            continue;
        NAME(target_norm)(j, t, &mean, &rstd);
        for (; i + W <= n; i += W) {
            VEC d = LOAD(x + i) - (LOAD(t + i) - mean) * rstd;
            s += d * d;
        }
        for (e = vhsum(s); i < n; i++) {
            REAL d = x[i] - (t[i] - mean) * rstd;
            e += d * d;
        }
        j->share[r] = (double)(mask * e / (REAL)n);
    }
}

static void NAME(mse_bwd_rows)(const loss_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    double g = *(const REAL *)j->dloss * 2.0 / ((double)n * j->weight);
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * n, *t = (const T *)j->target + r * n;
        T *dx = (T *)j->y + r * n;
        REAL mask = NAME(mask_at)(j, r), f = (REAL)(g * (double)mask), mean, rstd;
        int64_t i = 0;
        if (mask == 0) {
            memset(dx, 0, (size_t)n * sizeof *dx);
            continue;
        }
        NAME(target_norm)(j, t, &mean, &rstd);
        for (; i + W <= n; i += W)
            STORE(dx + i, (LOAD(x + i) - (LOAD(t + i) - mean) * rstd) * f);
        for (; i < n; i++)
            dx[i] = (x[i] - (t[i] - mean) * rstd) * f;
    }
}

static double NAME(mask_sum)(const loss_job *j) {
    double s = 0;
    for (int64_t r = 0; r < j->rows; r++)
        s += (double)NAME(mask_at)(j, r);
    return s;
}
#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

typedef struct loss_job loss_job;
struct loss_job {
    void (*rows_fn)(const loss_job *j, int64_t first, int64_t end);
    const void *x;            /* [rows,len] logits or prediction */
    const void *target;       /* [rows,len] */
    const int32_t *labels;    /* [rows], or NULL with soft targets */
    const void *mask;         /* [rows] or NULL = all 1 */
    mimic_dtype target_dtype; /* of soft targets; of the mask */
    const void *dloss;        /* one number */
    void *lse;                /* [rows] or NULL */
    void *y;                  /* [rows,len] gradient */
    double *share;            /* [rows] */
    int64_t rows, len, per;
    double smoothing, weight;
    bool norm;
};

#define NO_BF16
#define FAMILY "backend/cpu/losses.c"
#include "backend/cpu/each_float.h"

static void chunk(void *arg, int64_t i, int worker) {
    const loss_job *j = arg;
    (void)worker;
    j->rows_fn(j, i * j->per, chunk_end(i, j->per, j->rows));
}

static void run(mimic_ctx *ctx, loss_job *j) {
    j->per = chunk_rows(j->rows, j->len);
    mimic_parallel(ctx, chunk_count(j->rows, j->per), chunk, j);
}

/* out = sum of the rows' shares / divisor */
static mimic_status run_loss(mimic_call *c, loss_job *j, double divisor) {
    void *share;
    double sum = 0;
    size_t bytes = (size_t)j->rows * sizeof *j->share;
    mimic_status s = mimic_pool_get(c->ctx, bytes, &share);
    if (s != MIMIC_OK)
        return s;
    j->share = share;
    run(c->ctx, j);
    for (int64_t r = 0; r < j->rows; r++)
        sum += j->share[r];
    mimic_pool_put(c->ctx, share, bytes);
    if (c->out[0]->dtype == MIMIC_F64)
        *(double *)mimic_data(c->out[0]) = sum / divisor;
    else
        *(float *)mimic_data(c->out[0]) = (float)(sum / divisor);
    return MIMIC_OK;
}

static mimic_status set_target(mimic_call *c, loss_job *j, const mimic_tensor *x,
                               const mimic_tensor *target) {
    j->x = mimic_data(x);
    j->rows = x->shape[0];
    j->len = x->shape[1];
    j->smoothing = c->attrs.v[0].f;
    j->target = mimic_data(target);
    j->target_dtype = (mimic_dtype)target->dtype;
    if (target->dtype != MIMIC_I32)
        return MIMIC_OK;
    j->labels = j->target;
    for (int64_t r = 0; r < j->rows; r++)
        if (j->labels[r] < 0 || j->labels[r] >= j->len)
            return mimic_fail(c->ctx, MIMIC_EINVAL, "%s: label %d at row %lld is not in 0..%lld",
                              c->op->name, j->labels[r], (long long)r, (long long)j->len - 1);
    return MIMIC_OK;
}

mimic_status KERNEL(cross_entropy)(mimic_call *c) {
    loss_job j = {.rows_fn = BY_REAL(c->in[0]->dtype, ce_rows),
                  .lse = c->save[0] ? mimic_data(c->save[0]) : NULL};
    mimic_status s = set_target(c, &j, c->in[0], c->in[1]);
    return s != MIMIC_OK ? s : run_loss(c, &j, (double)j.rows);
}

mimic_status KERNEL(cross_entropy_bwd)(mimic_call *c) {
    loss_job j = {.rows_fn = BY_REAL(c->in[1]->dtype, ce_bwd_rows),
                  .dloss = mimic_data(c->in[0]),
                  .lse = mimic_data(c->in[3]),
                  .y = mimic_data(c->out[0])};
    mimic_status s = set_target(c, &j, c->in[1], c->in[2]);
    if (s == MIMIC_OK)
        run(c->ctx, &j);
    return s;
}

/* Sets the operands and the divisor, the sum of the mask. */
static mimic_status set_patches(mimic_call *c, loss_job *j, int pred) {
    const mimic_tensor *x = c->in[pred], *mask = c->in[pred + 2];
    j->x = mimic_data(x);
    j->target = mimic_data(c->in[pred + 1]);
    j->rows = x->shape[0] * x->shape[1];
    j->len = x->shape[2];
    j->norm = c->attrs.v[0].i != 0;
    if (mask && c->attrs.v[1].i == 0) {
        j->mask = mimic_data(mask);
        j->target_dtype = (mimic_dtype)mask->dtype;
    }
    j->weight = BY_REAL(x->dtype, mask_sum)(j);
    if (!(j->weight > 0))
        return mimic_fail(c->ctx, MIMIC_EINVAL, "%s: the mask sums to %g, no patch to average over",
                          c->op->name, j->weight);
    return MIMIC_OK;
}

mimic_status KERNEL(masked_mse)(mimic_call *c) {
    loss_job j = {.rows_fn = BY_REAL(c->in[0]->dtype, mse_rows)};
    mimic_status s = set_patches(c, &j, 0);
    return s != MIMIC_OK ? s : run_loss(c, &j, j.weight);
}

mimic_status KERNEL(masked_mse_bwd)(mimic_call *c) {
    loss_job j = {.rows_fn = BY_REAL(c->in[1]->dtype, mse_bwd_rows),
                  .dloss = mimic_data(c->in[0]),
                  .y = mimic_data(c->out[0])};
    mimic_status s = set_patches(c, &j, 1);
    if (s == MIMIC_OK)
        run(c->ctx, &j);
    return s;
}
#endif

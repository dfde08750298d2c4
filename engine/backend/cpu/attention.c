/* Multi-head self-attention, one (image, head) per task with everything of it in cache: rows of q,
 * k, v are gathered from the qkv buffer, scores are made for ROWS queries at a time, softmax is
 * exact. All arithmetic in f32 (f64 for f64), also for bf16 tensors, where AMX does not multiply
 * them as they are (attention_amx.h). */
#ifdef T

/* rows x d values, `ld` apart, into dense rows of dp (zero-padded). The rows of a head lie too far
 * apart for the hardware to foresee, so the same rows of this thread's likely next task, `next`
 * values on, are fetched. */
static void NAME(gather)(const T *src, int64_t ld, int64_t rows, int64_t d, REAL *out, int64_t dp,
                         int64_t next) {
    for (int64_t i = 0; i < rows; i++, src += ld, out += dp) {
        int64_t j = 0;
        for (; j < d; j += 64 / (int64_t)sizeof(T))
            __builtin_prefetch(src + next + j);
        for (j = 0; j + W <= d; j += W)
            RSTORE(out + j, LOAD(src + j));
        if (j < d)
            RSTORE(out + j, LOADN(src + j, d - j));
    }
}
static void NAME(put_rows)(const REAL *src, int64_t dp, int64_t rows, int64_t d, T *out,
                           int64_t ld) {
    for (int64_t i = 0; i < rows; i++, src += dp, out += ld) {
        int64_t j = 0;
        for (; j + W <= d; j += W)
            STORE(out + j, RLOAD(src + j));
        if (j < d)
            STOREN(out + j, RLOAD(src + j), d - j);
    }
}
/* From the rows of a head to those of the head `ahead` tasks later, in a buffer of `columns` per
 * token. */
static int64_t NAME(to_next)(const attention_job *a, int64_t item, int64_t columns) {
    int64_t n = item + a->ahead;
    return (n / a->heads - item / a->heads) * a->t * columns +
           (n % a->heads - item % a->heads) * a->d;
}
/* k [t,d] as panels of its transpose. */
static void NAME(panels)(const attention_job *a, const REAL *k, REAL *out) {
    const int nr = gemm_nr(a->kind);
    for (int64_t j = 0; j < a->t; j += nr, out += a->d * nr) {
        int64_t n = a->t - j < nr ? a->t - j : nr;
        KERNEL(gemm_pack_b)(a->kind, ACCUM, true, k, a->dp, j, n, 0, a->d, a->d, out);
    }
}
/* out[r,tp] = x[r,d] . y^T, y as panels. */
static void NAME(scores)(const attention_job *a, int64_t r, const REAL *x, const REAL *y,
                         REAL *out) {
    const int64_t size = sizeof(REAL), nr = gemm_nr(a->kind);
    KERNEL(gemm_block)
    (a->kind, r, a->t, a->d, x, a->dp * size, false, y, nr * size, a->d * nr * size, out,
     a->tp * size, false);
}
/* out[r,d] = p[r,t] . v[t,d] */
static void NAME(mix_rows)(const attention_job *a, int64_t r, const REAL *p, const REAL *v,
                           REAL *out) {
    const int64_t size = sizeof(REAL);
    KERNEL(gemm_block)
    (a->kind, r, a->dp, a->t, p, a->tp * size, false, v, a->dp * size, gemm_nr(a->kind) * size, out,
     a->dp * size, false);
}
/* out[t,d] (=|+=) p[r,t]^T . x[r,d] */
static void NAME(spread)(const attention_job *a, int64_t r, const REAL *p, const REAL *x, REAL *out,
                         bool add) {
    const int64_t size = sizeof(REAL);
    KERNEL(gemm_block)
    (a->kind, a->t, a->dp, r, p, a->tp * size, true, x, a->dp * size, gemm_nr(a->kind) * size, out,
     a->dp * size, add);
}

/* Scores s[t] become exp(scale (s - max)), lanes up to the next whole vector 0; returns one over
 * their sum. lse (may be NULL): the logarithm of the sum of exp(scale s). */
SIMD_FN REAL NAME(exp_row)(REAL *s, int64_t t, REAL scale, REAL *lse) {
    for (int64_t j = t; j % W != 0; j++)
        s[j] = -(REAL)INFINITY; /* lanes beyond the row count for nothing */
    VEC top = RLOAD(s), sum = {0};
    for (int64_t j = W; j < t; j += W)
        top = vmax(top, RLOAD(s + j));
    REAL m = vhmax(top);
    for (int64_t j = 0; j < t; j += W) {
        VEC e = vexp((RLOAD(s + j) - m) * scale);
        sum += e;
        RSTORE(s + j, e);
    }
    REAL total = vhsum(sum);
    if (lse)
        *lse = m * scale + RMATH(log)(total);
    return 1 / total;
}
/* Scores s[t] become their softmax p, and dp[t], its gradient, that of the scores; mean = p . dp.
 */
SIMD_FN void NAME(grad_row)(REAL *s, REAL *dp, int64_t t, REAL scale, REAL lse, REAL mean) {
    for (int64_t j = 0; j < t; j += W) {
        VEC e = vexp(RLOAD(s + j) * scale - lse);
        RSTORE(s + j, e);
        RSTORE(dp + j, e * (RLOAD(dp + j) - mean) * scale);
    }
}

static void NAME(forward)(void *arg, int64_t item, int worker) {
    const attention_job *a = arg;
    const int64_t t = a->t, d = a->d, dp = a->dp, width = a->heads * d;
    const int64_t image = item / a->heads, head = item % a->heads;
    const T *qkv = (const T *)a->qkv + image * t * 3 * width + head * d;
    T *y = (T *)a->y + image * t * width + head * d;
    REAL *lse = a->lse ? (REAL *)a->lse + item * t : NULL;
    REAL *q = (REAL *)(a->scratch + (size_t)worker * a->scratch_size);
    REAL *k = q + t * dp, *v = k + t * dp, *kt = v + t * dp, *p = kt + d * a->tp,
         *o = p + ROWS * a->tp;
    const REAL scale = (REAL)a->scale;
    const int64_t next = NAME(to_next)(a, item, 3 * width);
    NAME(gather)(qkv, 3 * width, t, d, q, dp, next);
    NAME(gather)(qkv + width, 3 * width, t, d, k, dp, next);
    NAME(gather)(qkv + 2 * width, 3 * width, t, d, v, dp, next);
    NAME(panels)(a, k, kt);
    for (int64_t r0 = 0; r0 < t; r0 += ROWS) {
        int64_t r = t - r0 < ROWS ? t - r0 : ROWS;
        REAL inverse[ROWS];
        NAME(scores)(a, r, q + r0 * dp, kt, p);
        for (int64_t i = 0; i < r; i++)
            inverse[i] = NAME(exp_row)(p + i * a->tp, t, scale, lse ? lse + r0 + i : NULL);
        NAME(mix_rows)(a, r, p, v, o);
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < dp; j += W)
                RSTORE(o + i * dp + j, RLOAD(o + i * dp + j) * inverse[i]);
        NAME(put_rows)(o, dp, r, d, y + r0 * width, width);
    }
}

/* With p = softmax: dv = p^T dy, ds = p (dy v^T - rowsum(dy y)) scale, dq = ds k, dk = ds^T q. */
static void NAME(backward)(void *arg, int64_t item, int worker) {
    const attention_job *a = arg;
    const int64_t t = a->t, d = a->d, dp = a->dp, tp = a->tp, width = a->heads * d;
    const int64_t image = item / a->heads, head = item % a->heads;
    const T *qkv = (const T *)a->qkv + image * t * 3 * width + head * d;
    T *dqkv = (T *)a->dqkv + image * t * 3 * width + head * d;
    const T *y = (const T *)a->y + image * t * width + head * d;
    const T *dy = (const T *)a->dy + image * t * width + head * d;
    const REAL *lse = (const REAL *)a->lse + item * t;
    REAL *q = (REAL *)(a->scratch + (size_t)worker * a->scratch_size);
    REAL *k = q + t * dp, *v = k + t * dp, *g = v + t * dp, *dk = g + t * dp, *dv = dk + t * dp;
    REAL *kt = dv + t * dp, *vt = kt + d * tp, *p = vt + d * tp, *ds = p + ROWS * tp,
         *dq = ds + ROWS * tp;
    const REAL scale = (REAL)a->scale;
    const int64_t next = NAME(to_next)(a, item, 3 * width);
    NAME(gather)(qkv, 3 * width, t, d, q, dp, next);
    NAME(gather)(qkv + width, 3 * width, t, d, k, dp, next);
    NAME(gather)(qkv + 2 * width, 3 * width, t, d, v, dp, next);
    NAME(gather)(dy, width, t, d, g, dp, NAME(to_next)(a, item, width));
    NAME(panels)(a, k, kt);
    NAME(panels)(a, v, vt);
    for (int64_t r0 = 0; r0 < t; r0 += ROWS) {
        int64_t r = t - r0 < ROWS ? t - r0 : ROWS;
        NAME(scores)(a, r, q + r0 * dp, kt, p);
        NAME(scores)(a, r, g + r0 * dp, vt, ds);
        NAME(gather)(y + r0 * width, width, r, d, dq, dp, NAME(to_next)(a, item, width));
        for (int64_t i = 0; i < r; i++) {
            VEC dot = {0};
            for (int64_t j = 0; j < dp; j += W)
                dot += RLOAD(g + (r0 + i) * dp + j) * RLOAD(dq + i * dp + j);
            NAME(grad_row)(p + i * tp, ds + i * tp, t, scale, lse[r0 + i], vhsum(dot));
        }
        NAME(spread)(a, r, p, g + r0 * dp, dv, r0 > 0);
        NAME(spread)(a, r, ds, q + r0 * dp, dk, r0 > 0);
        NAME(mix_rows)(a, r, ds, k, dq);
        NAME(put_rows)(dq, dp, r, d, dqkv + r0 * 3 * width, 3 * width);
    }
    NAME(put_rows)(dk, dp, t, d, dqkv + width, 3 * width);
    NAME(put_rows)(dv, dp, t, d, dqkv + 2 * width, 3 * width);
}

#else
#include "backend/cpu/gemm.h"

#define ROWS 48            /* queries at a time: a multiple of every GEMM_MR */
#define SERIAL_WORK 300000 /* multiply-adds below which threads are not woken */

typedef struct attention_job {
    gemm_kind kind;
    const void *qkv, *dy; /* [b,t,3,h,d], [b,t,h,d] */
    void *y, *lse, *dqkv; /* [b,t,h,d], [b,h,t], [b,t,3,h,d] */
    int64_t images, heads, t, d, ahead;
    int64_t tp, dp; /* row lengths in scratch: whole panels, whole vectors */
    double scale;
    char *scratch;
    size_t scratch_size; /* of one worker */
} attention_job;

#define FAMILY "backend/cpu/attention.c"
#include "backend/cpu/each_float.h"
#ifdef __AMX_BF16__
#include "backend/cpu/attention_amx.h"
#endif

/* fn for every head, with scratch of its own for each thread. */
static mimic_status each_head(mimic_call *c, attention_job *a, void (*fn)(void *, int64_t, int)) {
    const int64_t heads = a->images * a->heads;
    if (heads * a->t == 0)
        return MIMIC_OK;
    bool serial = heads * a->t * a->t * a->d < SERIAL_WORK;
    a->ahead = serial ? 1 : mimic_threads(c->ctx);
    a->scratch_size = (a->scratch_size + 63) & ~(size_t)63;
    size_t bytes = a->scratch_size * (size_t)(serial ? 1 : mimic_threads(c->ctx));
    void *memory;
    mimic_status status = mimic_pool_get(c->ctx, bytes, &memory);
    if (status != MIMIC_OK)
        return status;
    a->scratch = memory;
    if (serial) {
        for (int64_t i = 0; i < heads; i++)
            fn(a, i, 0);
    } else {
        mimic_parallel(c->ctx, heads, fn, a);
    }
    mimic_pool_put(c->ctx, memory, bytes);
    return MIMIC_OK;
}

/* Fills in the sizes; scratch of `wide` [t,dp], `panels` [d,tp] and `blocks` [ROWS,tp]. */
static void plan(attention_job *a, const mimic_call *c, const mimic_tensor *qkv, int wide,
                 int panels, int blocks) {
    a->kind = qkv->dtype == MIMIC_F64 ? GEMM_F64 : GEMM_F32;
    a->qkv = mimic_data(qkv);
    a->heads = c->attrs.v[0].i;
    a->images = qkv->shape[0];
    a->t = qkv->shape[1];
    a->d = qkv->shape[2] / 3 / a->heads;
    a->scale = 1.0 / sqrt((double)a->d);
    const int64_t w = gemm_vector(a->kind), nr = gemm_nr(a->kind);
    a->dp = (a->d + w - 1) / w * w;
    a->tp = (a->t + nr - 1) / nr * nr;
    int64_t reals =
        wide * a->t * a->dp + panels * a->d * a->tp + blocks * ROWS * a->tp + ROWS * a->dp;
    a->scratch_size = (size_t)(reals * gemm_unit(a->kind));
}

mimic_status KERNEL(attention)(mimic_call *c) {
    attention_job a = {.y = mimic_data(c->out[0]),
                       .lse = c->save[0] ? mimic_data(c->save[0]) : NULL};
    plan(&a, c, c->in[0], 3, 1, 1);
#ifdef __AMX_BF16__
    if (c->in[0]->dtype == MIMIC_BF16) {
        a.scratch_size = amx_forward_size(&a);
        return each_head(c, &a, amx_forward);
    }
#endif
    return each_head(c, &a, BY_FLOAT(c->in[0]->dtype, forward));
}

mimic_status KERNEL(attention_bwd)(mimic_call *c) {
    attention_job a = {.dy = mimic_data(c->in[0]),
                       .y = mimic_data(c->in[2]),
                       .lse = mimic_data(c->in[3]),
                       .dqkv = mimic_data(c->out[0])};
    plan(&a, c, c->in[1], 6, 2, 2);
#ifdef __AMX_BF16__
    if (c->in[1]->dtype == MIMIC_BF16) {
        a.scratch_size = amx_backward_size(&a);
        return each_head(c, &a, amx_backward);
    }
#endif
    return each_head(c, &a, BY_FLOAT(c->in[1]->dtype, backward));
}
#endif

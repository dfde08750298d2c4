/* layernorm, add_layernorm and their gradient: rows of the last axis. Statistics and sums over rows
 * in the compute type; the column sums dweight and dbias are partial sums of fixed row blocks,
 * added in order. */
#ifdef T

/* mean and 1/sqrt(var + eps) of a row */
static inline void NAME(statistics)(const T *x, int64_t n, REAL eps, REAL *mean, REAL *rstd) {
    VEC s = VSET(0), t = VSET(0);
    int64_t i = 0, whole = n - n % W;
    for (; i + 2 * W <= n; i += 2 * W) {
        s += LOAD(x + i);
        t += LOAD(x + i + W);
    }
    for (; i < whole; i += W)
        s += LOAD(x + i);
    if (i < n)
        t += LOADN(x + i, n - i);
    REAL m = vhsum(s + t) / (REAL)n, rest = 0;
    s = t = VSET(0);
    for (i = 0; i + 2 * W <= n; i += 2 * W) {
        VEC a = LOAD(x + i) - m, b = LOAD(x + i + W) - m;
        s += a * a;
        t += b * b;
    }
    for (; i < whole; i += W) {
        VEC a = LOAD(x + i) - m;
        s += a * a;
    }
    for (; i < n; i++)
        rest += (GET(x[i]) - m) * (GET(x[i]) - m);
    *mean = m;
    *rstd = 1 / RMATH(sqrt)((vhsum(s + t) + rest) / (REAL)n + eps);
}

static void NAME(norm_rows)(const norm_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    const REAL *w = j->weight, *b = j->bias;
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * n;
        T *y = (T *)j->y + r * n;
        int64_t i = 0;
        REAL mean, rstd;
        if (j->r) {
            const T *a = (const T *)j->r + r * n;
            T *sum = (T *)j->sum + r * n;
            for (; i + W <= n; i += W)
                STORE(sum + i, LOAD(x + i) + LOAD(a + i));
            if (i < n)
                STOREN(sum + i, LOADN(x + i, n - i) + LOADN(a + i, n - i), n - i);
            x = sum;
        }
        NAME(statistics)(x, n, (REAL)j->eps, &mean, &rstd);
        for (i = 0; i + W <= n; i += W)
            STORE(y + i, (LOAD(x + i) - mean) * rstd * RLOAD(w + i) + RLOAD(b + i));
        if (i < n)
            STOREN(y + i,
                   (LOADN(x + i, n - i) - mean) * rstd * RLOADN(w + i, n - i) +
                       RLOADN(b + i, n - i),
                   n - i);
        if (j->mean) {
            ((REAL *)j->mean)[r] = mean;
            ((REAL *)j->rstd)[r] = rstd;
        }
    }
}

/* dx of rows first..end-1 and their share of dweight and dbias. */
static void NAME(norm_bwd_rows)(const norm_job *j, int64_t first, int64_t end, void *partial) {
    int64_t n = j->len, i;
    const REAL *w = j->weight;
    REAL *dw = partial, *db = dw + n;
    memset(dw, 0, 2 * (size_t)n * sizeof *dw);
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * n, *dy = (const T *)j->dy + r * n;
        const T *ds = j->dsum ? (const T *)j->dsum + r * n : NULL;
        T *dx = (T *)j->y + r * n;
        REAL mean = ((const REAL *)j->mean)[r], rstd = ((const REAL *)j->rstd)[r];
        VEC s1 = VSET(0), s2 = VSET(0);
        for (i = 0; i + W <= n; i += W) {
            VEC d = LOAD(dy + i), h = (LOAD(x + i) - mean) * rstd, e = d * RLOAD(w + i);
            s1 += e;
            s2 += e * h;
            RSTORE(dw + i, RLOAD(dw + i) + d * h);
            RSTORE(db + i, RLOAD(db + i) + d);
        }
        REAL m1 = vhsum(s1), m2 = vhsum(s2);
        for (; i < n; i++) {
            REAL d = GET(dy[i]), h = (GET(x[i]) - mean) * rstd, e = d * w[i];
            m1 += e;
            m2 += e * h;
            dw[i] += d * h;
            db[i] += d;
        }
        m1 /= (REAL)n;
        m2 /= (REAL)n;
        for (i = 0; i + W <= n; i += W) {
            VEC h = (LOAD(x + i) - mean) * rstd;
            VEC v = (LOAD(dy + i) * RLOAD(w + i) - m1 - h * m2) * rstd;
            STORE(dx + i, ds ? v + LOAD(ds + i) : v);
        }
        for (; i < n; i++) {
            REAL h = (GET(x[i]) - mean) * rstd;
            REAL v = (GET(dy[i]) * w[i] - m1 - h * m2) * rstd;
            dx[i] = PUT(ds ? v + GET(ds[i]) : v);
        }
    }
}

/* Columns first..end-1 of [dweight | dbias] (2 len columns) over the partial rows. */
static void NAME(norm_columns)(const norm_job *j, int64_t first, int64_t end) {
    const REAL *p = j->partial;
    for (int64_t i = first; i < end; i++) {
        REAL s = 0;
        for (int64_t b = 0; b < j->blocks; b++)
            s += p[b * 2 * j->len + i];
        if (i < j->len)
            ((REAL *)j->dweight)[i] = s;
        else
            ((REAL *)j->dbias)[i - j->len] = s;
    }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

typedef struct norm_job {
    mimic_dtype dtype;
    const void *x, *r, *dy, *dsum; /* [rows,len]; r, dsum may be NULL */
    const void *weight, *bias;     /* [len] */
    void *sum, *y;                 /* [rows,len]; y is dx in the gradient */
    void *mean, *rstd;             /* [rows] or NULL */
    void *dweight, *dbias;         /* [len] */
    void *partial;                 /* [blocks,2,len] */
    int64_t rows, len, per, per_columns, blocks;
    double eps;
} norm_job;

#define FAMILY "backend/cpu/layernorm.c"
#include "backend/cpu/each_float.h"

static void forward_chunk(void *arg, int64_t i, int worker) {
    const norm_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, norm_rows)(j, i * j->per, chunk_end(i, j->per, j->rows));
}

static void backward_chunk(void *arg, int64_t i, int worker) {
    const norm_job *j = arg;
    size_t real = mimic_dtype_size(mimic_accum_dtype(j->dtype));
    (void)worker;
    BY_FLOAT(j->dtype, norm_bwd_rows)
    (j, i * j->per, chunk_end(i, j->per, j->rows),
     (char *)j->partial + (size_t)(i * 2 * j->len) * real);
}

static void columns_chunk(void *arg, int64_t i, int worker) {
    const norm_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, norm_columns)
    (j, i * j->per_columns, chunk_end(i, j->per_columns, 2 * j->len));
}

static void set_rows(norm_job *j, const mimic_tensor *x) {
    j->dtype = (mimic_dtype)x->dtype;
    j->len = x->shape[x->rank - 1];
    j->rows = mimic_numel(x) / j->len;
    j->per = chunk_rows(j->rows, j->len);
}

/* Inputs x, (r,) weight, bias; outputs (sum,) y. */
static mimic_status forward(mimic_call *c, bool add) {
    norm_job j = {.x = mimic_data(c->in[0]),
                  .r = add ? mimic_data(c->in[1]) : NULL,
                  .weight = mimic_data(c->in[1 + add]),
                  .bias = mimic_data(c->in[2 + add]),
                  .sum = add ? mimic_data(c->out[0]) : NULL,
                  .y = mimic_data(c->out[add]),
                  .mean = c->save[0] ? mimic_data(c->save[0]) : NULL,
                  .rstd = c->save[1] ? mimic_data(c->save[1]) : NULL,
                  .eps = c->attrs.v[0].f};
    set_rows(&j, c->in[0]);
    mimic_parallel(c->ctx, chunk_count(j.rows, j.per), forward_chunk, &j);
    return MIMIC_OK;
}

mimic_status KERNEL(layernorm)(mimic_call *c) {
    return forward(c, false);
}

mimic_status KERNEL(add_layernorm)(mimic_call *c) {
    return forward(c, true);
}

mimic_status KERNEL(layernorm_bwd)(mimic_call *c) {
    norm_job j = {.dy = mimic_data(c->in[0]),
                  .x = mimic_data(c->in[1]),
                  .weight = mimic_data(c->in[2]),
                  .mean = mimic_data(c->in[3]),
                  .rstd = mimic_data(c->in[4]),
                  .dsum = c->in[5] ? mimic_data(c->in[5]) : NULL,
                  .y = mimic_data(c->out[0]),
                  .dweight = mimic_data(c->out[1]),
                  .dbias = mimic_data(c->out[2])};
    set_rows(&j, c->in[1]);
    if (chunk_count(j.rows, j.per) > 64) /* at most 64 blocks */
        j.per = (j.rows + 63) / 64;
    j.blocks = chunk_count(j.rows, j.per);
    size_t bytes = (size_t)((j.blocks > 0 ? j.blocks : 1) * 2 * j.len) *
                   mimic_dtype_size(mimic_accum_dtype(j.dtype));
    mimic_status s = mimic_pool_get(c->ctx, bytes, &j.partial);
    if (s != MIMIC_OK)
        return s;
    mimic_parallel(c->ctx, j.blocks, backward_chunk, &j);
    j.per_columns = chunk_rows(2 * j.len, j.blocks);
    mimic_parallel(c->ctx, chunk_count(2 * j.len, j.per_columns), columns_chunk, &j);
    mimic_pool_put(c->ctx, j.partial, bytes);
    return MIMIC_OK;
}
#endif

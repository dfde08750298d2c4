/* mscl_masks, contrastive and contrastive_bwd. Anchors (rows) are independent; their losses are
 * added in order, in double. The gradient is two products with the saved coefficients g. */
#ifdef T

/* s[j] = z . c_j * f over d columns */
static inline void NAME(similarities)(const T *z, const T *c, int64_t m, int64_t d, REAL f, T *s) {
    int64_t whole = d - d % W;
    for (int64_t j = 0; j < m; j++, c += d) {
        VEC a = VSET(0);
        REAL rest = 0;
        for (int64_t i = 0; i < whole; i += W)
            a += LOAD(z + i) * LOAD(c + i);
        for (int64_t i = whole; i < d; i++)
            rest += z[i] * c[i];
        s[j] = (vhsum(a) + rest) * f;
    }
}

/* Losses of anchors first..end-1 and, where they are kept, the coefficients g without the weight
 * w_i. */
static void NAME(anchors)(const contrast_job *j, int64_t first, int64_t end, int worker) {
    int64_t m = j->m;
    for (int64_t i = first; i < end; i++) {
        const uint8_t *pos = j->pos + i * m, *cand = j->cand + i * m;
        T *s = j->g ? (T *)j->g + i * m : (T *)j->scratch + (int64_t)worker * j->scratch_len;
        REAL top = -INFINITY, total = 0;
        double dot = 0;
        int64_t positives = 0;
        NAME(similarities)((const T *)j->za + i * j->d, j->zc, m, j->d, (REAL)(1 / j->tau), s);
        for (int64_t k = 0; k < m; k++)
            if (cand[k]) {
                top = s[k] > top ? s[k] : top;
                positives += pos[k] != 0;
            }
        for (int64_t k = 0; k < m; k++)
            if (cand[k]) {
                dot += pos[k] ? (double)(s[k] - top) : 0;
                s[k] = RMATH(exp)(s[k] - top);
                total += s[k];
            } else {
                s[k] = 0;
            }
        j->positives[i] = positives;
        j->share[i] = positives ? (double)RMATH(log)(total) - dot / (double)positives : 0;
        for (int64_t k = 0; j->g && k < m; k++)
            s[k] = positives ? s[k] / total - (cand[k] && pos[k] ? 1 / (REAL)positives : 0) : 0;
    }
}

static void NAME(weigh)(const contrast_job *j, double w) {
    T *g = j->g;
    for (int64_t i = 0; i < j->n * j->m; i++)
        g[i] *= (T)w;
}

/* out[r] = f * sum over k of coefficient(r,k) * z[k]: rows first..end-1 */
static void NAME(products)(const contrast_job *j, int64_t first, int64_t end) {
    const T *g = j->coef;
    REAL f = *(const T *)j->dloss * (REAL)(1 / j->tau);
    int64_t d = j->d;
    for (int64_t r = first; r < end; r++) {
        T *out = (T *)j->out + r * d;
        memset(out, 0, (size_t)d * sizeof *out);
        for (int64_t k = 0; k < j->terms; k++) {
            const T *z = (const T *)j->z + k * d;
            REAL w = g[r * j->row_step + k * j->term_step] * f;
            int64_t i = 0;
            for (; i + W <= d; i += W)
                STORE(out + i, LOAD(out + i) + LOAD(z + i) * w);
            for (; i < d; i++)
                out[i] += z[i] * w;
        }
    }
}

static double NAME(distance)(const void *u_, const void *c_, int64_t k, int64_t kind) {
    const T *u = u_, *c = c_;
    double sum = 0, top = 0, squares = 0;
    for (int64_t i = 0; i < k; i++) {
        double a = fabs((double)u[i] - (double)c[i]);
        sum += a;
        squares += a * a;
        top = a > top ? a : top;
    }
    return kind == 0 ? 0.5 * sum : kind == 1 ? top : kind == 2 ? sum : sqrt(squares);
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

typedef struct contrast_job {
    mimic_dtype dtype;
    const void *za, *zc;       /* [n,d], [m,d] */
    const uint8_t *pos, *cand; /* [n,m] */
    void *g;                   /* [n,m] or NULL */
    void *scratch;             /* a row of similarities per worker, without g */
    int64_t scratch_len;
    double *share;      /* [n] */
    int64_t *positives; /* [n] */
    int64_t n, m, d, per;
    double tau;
    /* gradient: out[r] = dloss / tau * sum_k coef[r * row_step + k * term_step] z[k] */
    const void *dloss, *coef, *z;
    void *out;
    int64_t rows, terms, row_step, term_step;
} contrast_job;

#define NO_BF16
#define FAMILY "backend/cpu/contrastive.c"
#include "backend/cpu/each_float.h"

static void anchors_chunk(void *arg, int64_t i, int worker) {
    const contrast_job *j = arg;
    BY_REAL(j->dtype, anchors)(j, i * j->per, chunk_end(i, j->per, j->n), worker);
}

static void products_chunk(void *arg, int64_t i, int worker) {
    const contrast_job *j = arg;
    (void)worker;
    BY_REAL(j->dtype, products)(j, i * j->per, chunk_end(i, j->per, j->rows));
}

mimic_status KERNEL(contrastive)(mimic_call *c) {
    const mimic_tensor *za = c->in[0], *zc = c->in[1];
    bool sum = c->attrs.v[1].i == 1, skip = c->attrs.v[2].i == 1;
    contrast_job j = {.dtype = (mimic_dtype)za->dtype,
                      .za = mimic_data(za),
                      .zc = mimic_data(zc),
                      .pos = mimic_data(c->in[2]),
                      .cand = mimic_data(c->in[3]),
                      .g = c->save[0] ? mimic_data(c->save[0]) : NULL,
                      .n = za->shape[0],
                      .m = zc->shape[0],
                      .d = za->shape[1],
                      .tau = c->attrs.v[0].f};
    size_t real = mimic_dtype_size(j.dtype);
    size_t shares = (size_t)j.n * (sizeof *j.share + sizeof *j.positives);
    void *memory;
    j.scratch_len = (j.m + 15) / 16 * 16;
    size_t bytes = shares + (j.g ? 0 : (size_t)(j.scratch_len * mimic_threads(c->ctx)) * real);
    mimic_status s = mimic_pool_get(c->ctx, bytes, &memory);
    if (s != MIMIC_OK)
        return s;
    j.share = memory;
    j.positives = (int64_t *)(j.share + j.n);
    j.scratch = j.positives + j.n;
    j.per = chunk_rows(j.n, j.m * (j.d / 8 + 4));
    mimic_parallel(c->ctx, chunk_count(j.n, j.per), anchors_chunk, &j);

    double loss = 0;
    int64_t filled = 0;
    for (int64_t i = 0; i < j.n; i++) {
        loss += j.share[i];
        filled += j.positives[i] > 0;
    }
    int64_t divisor = sum ? 1 : skip ? filled : j.n;
    double w = divisor > 0 ? 1.0 / (double)divisor : 0;
    if (j.g)
        BY_REAL(j.dtype, weigh)(&j, w);
    if (j.dtype == MIMIC_F64)
        *(double *)mimic_data(c->out[0]) = loss * w;
    else
        *(float *)mimic_data(c->out[0]) = (float)(loss * w);
    mimic_pool_put(c->ctx, memory, bytes);
    return MIMIC_OK;
}

mimic_status KERNEL(contrastive_bwd)(mimic_call *c) {
    const mimic_tensor *za = c->in[1], *zc = c->in[2];
    int64_t n = za->shape[0], m = zc->shape[0];
    contrast_job j = {.dtype = (mimic_dtype)za->dtype,
                      .d = za->shape[1],
                      .tau = c->attrs.v[0].f,
                      .dloss = mimic_data(c->in[0]),
                      .coef = mimic_data(c->in[3])};
    for (int side = 0; side < 2; side++) {
        j.z = mimic_data(side ? za : zc);
        j.out = mimic_data(c->out[side]);
        j.rows = side ? m : n;
        j.terms = side ? n : m;
        j.row_step = side ? 1 : m;
        j.term_step = side ? m : 1;
        if (j.d == 0 || j.rows == 0)
            continue;
        j.per = chunk_rows(j.rows, j.terms * (j.d / 8 + 1));
        mimic_parallel(c->ctx, chunk_count(j.rows, j.per), products_chunk, &j);
    }
    return MIMIC_OK;
}

/* Small: n, m are at most a few hundred, K a dozen. */
mimic_status KERNEL(mscl_masks)(mimic_call *c) {
    const mimic_tensor *anchors = c->in[0], *candidates = c->in[1];
    int64_t n = anchors->shape[0], m = candidates->shape[0], k = anchors->shape[1];
    size_t row = (size_t)k * mimic_dtype_size((mimic_dtype)anchors->dtype);
    const char *u = mimic_data(anchors), *v = mimic_data(candidates);
    const int32_t *a = mimic_data(c->in[2]), *b = mimic_data(c->in[3]);
    uint8_t *pos = mimic_data(c->out[0]), *cand = mimic_data(c->out[1]);
    double t = c->attrs.v[1].f + 1e-6; /* half of a box is positive on every platform */
    bool exclude = c->attrs.v[2].i != 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            bool in = !exclude || (a[j] != i && b[j] != i);
            double d = BY_REAL(anchors->dtype, distance)(u + (size_t)i * row, v + (size_t)j * row,
                                                         k, c->attrs.v[0].i);
            cand[i * m + j] = in;
            pos[i * m + j] = in && d <= t;
        }
    return MIMIC_OK;
}
#endif

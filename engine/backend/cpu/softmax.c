/* softmax and l2norm: rows of the last axis, forward and backward. Sums in the compute type. */
#ifdef T

static void NAME(softmax_rows)(const row_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->a + r * n;
        T *y = (T *)j->y + r * n;
        VEC vm = VSET(-INFINITY), vs = VSET(0);
        REAL m = -INFINITY, s = 0;
        int64_t i = 0, whole = n - n % W;
        for (; i < whole; i += W)
            vm = vmax(LOAD(x + i), vm);
        if (whole)
            m = vhmax(vm);
        for (; i < n; i++)
            m = GET(x[i]) > m ? GET(x[i]) : m;
        for (i = 0; i < whole; i += W) {
            VEC e = vexp(LOAD(x + i) - m);
            vs += e;
            if (sizeof(T) == sizeof(REAL))
                STORE(y + i, e);
        }
        s = vhsum(vs);
        VEC tail = VSET(0);
        if (i < n) {
            tail = vexp(LOADN(x + i, n - i) - m);
            for (int64_t k = 0; k < n - i; k++)
                s += tail[k];
        }
        REAL f = 1 / s;
        for (i = 0; i < whole; i += W) /* bf16: once more, rather than round twice */
            STORE(y + i, (sizeof(T) == sizeof(REAL) ? LOAD(y + i) : vexp(LOAD(x + i) - m)) * f);
        if (i < n)
            STOREN(y + i, tail * f, n - i);
    }
}

static inline REAL NAME(row_dot)(const T *a, const T *b, int64_t n) {
    VEC s = VSET(0), t = VSET(0);
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        s += LOAD(a + i) * LOAD(b + i);
        t += LOAD(a + i + W) * LOAD(b + i + W);
    }
    for (; i + W <= n; i += W)
        s += LOAD(a + i) * LOAD(b + i);
    if (i < n)
        t += LOADN(a + i, n - i) * LOADN(b + i, n - i);
    return vhsum(s + t);
}

static void NAME(softmax_bwd_rows)(const row_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    for (int64_t r = first; r < end; r++) {
        const T *dy = (const T *)j->a + r * n, *y = (const T *)j->b + r * n;
        T *dx = (T *)j->y + r * n;
        REAL dot = NAME(row_dot)(dy, y, n);
        int64_t i = 0;
        for (; i + W <= n; i += W)
            STORE(dx + i, LOAD(y + i) * (LOAD(dy + i) - dot));
        if (i < n)
            STOREN(dx + i, LOADN(y + i, n - i) * (LOADN(dy + i, n - i) - dot), n - i);
    }
}

static void NAME(l2norm_rows)(const row_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    REAL eps = (REAL)j->eps;
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->a + r * n;
        T *y = (T *)j->y + r * n;
        REAL norm = RMATH(sqrt)(NAME(row_dot)(x, x, n)), f = 1 / (norm > eps ? norm : eps);
        int64_t i = 0;
        if (norm != norm)
            f = norm;
        for (; i + W <= n; i += W)
            STORE(y + i, LOAD(x + i) * f);
        if (i < n)
            STOREN(y + i, LOADN(x + i, n - i) * f, n - i);
        if (j->norm)
            ((REAL *)j->norm)[r] = norm;
    }
}

static void NAME(l2norm_bwd_rows)(const row_job *j, int64_t first, int64_t end) {
    int64_t n = j->len;
    REAL eps = (REAL)j->eps;
    for (int64_t r = first; r < end; r++) {
        const T *dy = (const T *)j->a + r * n, *y = (const T *)j->b + r * n;
        T *dx = (T *)j->y + r * n;
        REAL norm = ((const REAL *)j->norm)[r], f = 1 / (norm > eps ? norm : eps);
        REAL dot = norm > eps ? NAME(row_dot)(dy, y, n) : 0;
        int64_t i = 0;
        for (; i + W <= n; i += W)
            STORE(dx + i, (LOAD(dy + i) - LOAD(y + i) * dot) * f);
        if (i < n)
            STOREN(dx + i, (LOADN(dy + i, n - i) - LOADN(y + i, n - i) * dot) * f, n - i);
    }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

typedef struct row_job row_job;
struct row_job {
    void (*rows_fn)(const row_job *j, int64_t first, int64_t end);
    const void *a, *b; /* [rows,len] */
    void *y;           /* [rows,len] */
    void *norm;        /* [rows] or NULL */
    int64_t rows, len, per;
    double eps;
};

#define FAMILY "backend/cpu/softmax.c"
#include "backend/cpu/each_float.h"

static void chunk(void *arg, int64_t i, int worker) {
    const row_job *j = arg;
    (void)worker;
    j->rows_fn(j, i * j->per, chunk_end(i, j->per, j->rows));
}

static mimic_status run(mimic_call *c, row_job *j) {
    const mimic_tensor *x = c->in[0];
    int64_t n = mimic_numel(x);
    j->a = mimic_data(x);
    j->y = mimic_data(c->out[0]);
    j->len = x->shape[x->rank - 1];
    if (n == 0 && !j->norm)
        return MIMIC_OK;
    j->rows = 1;
    for (int i = 0; i < x->rank - 1; i++)
        j->rows *= x->shape[i];
    j->per = chunk_rows(j->rows, j->len);
    mimic_parallel(c->ctx, chunk_count(j->rows, j->per), chunk, j);
    return MIMIC_OK;
}

mimic_status KERNEL(softmax)(mimic_call *c) {
    row_job j = {.rows_fn = BY_FLOAT(c->in[0]->dtype, softmax_rows)};
    return run(c, &j);
}

mimic_status KERNEL(softmax_bwd)(mimic_call *c) {
    row_job j = {.rows_fn = BY_FLOAT(c->in[0]->dtype, softmax_bwd_rows), .b = mimic_data(c->in[1])};
    return run(c, &j);
}

mimic_status KERNEL(l2norm)(mimic_call *c) {
    row_job j = {.rows_fn = BY_FLOAT(c->in[0]->dtype, l2norm_rows),
                 .norm = c->save[0] ? mimic_data(c->save[0]) : NULL,
                 .eps = c->attrs.v[0].f};
    return run(c, &j);
}

mimic_status KERNEL(l2norm_bwd)(mimic_call *c) {
    row_job j = {.rows_fn = BY_FLOAT(c->in[0]->dtype, l2norm_bwd_rows),
                 .b = mimic_data(c->in[1]),
                 .norm = mimic_data(c->in[2]),
                 .eps = c->attrs.v[0].f};
    return run(c, &j);
}
#endif

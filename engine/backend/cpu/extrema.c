/* max, argmax and max_bwd over the middle axis of [outer, len, inner]. NaN counts as largest; the
 * first of equals is chosen. */
#ifdef T

/* Position of the largest of n elements. */
static int64_t NAME(row_argmax)(const T *x, int64_t n) {
    int64_t i = 0, best = 0;
    REAL m = GET(x[0]);
    if (n >= W) {
        VEC v = LOAD(x);
        VEC bad = VSET(0);
        for (; i + W <= n; i += W) {
            VEC a = LOAD(x + i);
            v = vmax(a, v);
            bad += a - a; /* NaN when a is NaN or infinite: then the plain search decides */
        }
        REAL b = vhsum(bad);
        m = b == b ? vhmax(v) : m;
        if (b != b)
            i = 0;
    }
    for (; i < n; i++) {
        REAL a = GET(x[i]);
        if (m == m && !(a <= m))
            m = a;
    }
    while (best < n - 1 && (m == m ? GET(x[best]) != m : GET(x[best]) == GET(x[best])))
        best++;
    return best;
}

/* Results first..end-1 of outer index o when the axis is not the last: columns side by side. */
static void NAME(max_columns)(const max_job *j, int64_t o, int64_t first, int64_t end) {
    const T *x = (const T *)j->x + o * j->len * j->inner + first;
    REAL top[COLUMNS];
    int32_t at[COLUMNS] = {0};
    int64_t n = end - first, r = o * j->inner + first;
    for (int64_t k = 0; k < n; k++)
        top[k] = GET(x[k]);
    for (int64_t i = 1; i < j->len; i++)
        for (int64_t k = 0; k < n; k++) {
            REAL a = GET(x[i * j->inner + k]);
            bool more = top[k] == top[k] && !(a <= top[k]);
            top[k] = more ? a : top[k];
            at[k] = more ? (int32_t)i : at[k];
        }
    for (int64_t k = 0; k < n; k++) {
        ((T *)j->y)[r + k] = x[at[k] * j->inner + k];
        if (j->index)
            j->index[r + k] = at[k];
    }
}

static void NAME(max_results)(const max_job *j, int64_t first, int64_t end) {
    for (int64_t r = first; r < end;) {
        if (j->inner > 1) {
            int64_t o = r / j->inner, k = r % j->inner, stop = k + COLUMNS;
            stop = stop < j->inner ? stop : j->inner;
            stop = stop - k < end - r ? stop : k + end - r;
            NAME(max_columns)(j, o, k, stop);
            r += stop - k;
            continue;
        }
        const T *x = (const T *)j->x + r * j->len;
        int64_t best = NAME(row_argmax)(x, j->len);
        if (j->y)
            ((T *)j->y)[r] = x[best];
        if (j->index)
            j->index[r] = (int32_t)best;
        r++;
    }
}

static void NAME(max_scatter)(const max_job *j) {
    T *dx = j->y;
    const T *dy = j->x;
    memset(dx, 0, (size_t)(j->outer * j->len * j->inner) * sizeof *dx);
    for (int64_t r = 0; r < j->outer * j->inner; r++)
        dx[(r / j->inner * j->len + j->index[r]) * j->inner + r % j->inner] = dy[r];
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

enum { COLUMNS = 64 };

typedef struct max_job {
    mimic_dtype dtype;
    const void *x;  /* [outer,len,inner]; max_bwd: dy [outer,inner] */
    void *y;        /* [outer,inner] or NULL; max_bwd: dx */
    int32_t *index; /* [outer,inner] or NULL */
    int64_t outer, len, inner, per;
} max_job;

#define FAMILY "backend/cpu/extrema.c"
#include "backend/cpu/each_float.h"

static void max_chunk(void *arg, int64_t i, int worker) {
    const max_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, max_results)(j, i * j->per, chunk_end(i, j->per, j->outer * j->inner));
}

static void geometry(max_job *j, int rank, const int64_t *shape, int64_t axis) {
    j->outer = j->len = j->inner = 1;
    if (axis < -rank) /* all */
        axis = MIMIC_MAX_RANK;
    else if (axis < 0)
        axis += rank;
    for (int i = 0; i < rank; i++)
        if (i == axis || axis == MIMIC_MAX_RANK)
            j->len *= shape[i];
        else if (i < axis)
            j->outer *= shape[i];
        else
            j->inner *= shape[i];
}

static void run(mimic_ctx *ctx, max_job *j) {
    j->per = chunk_rows(j->outer * j->inner, j->len);
    mimic_parallel(ctx, chunk_count(j->outer * j->inner, j->per), max_chunk, j);
}

mimic_status KERNEL(max)(mimic_call *c) {
    max_job j = {.dtype = (mimic_dtype)c->in[0]->dtype,
                 .x = mimic_data(c->in[0]),
                 .y = mimic_data(c->out[0]),
                 .index = c->save[0] ? mimic_data(c->save[0]) : NULL};
    geometry(&j, c->in[0]->rank, c->in[0]->shape, c->attrs.v[0].i);
    run(c->ctx, &j);
    return MIMIC_OK;
}

mimic_status KERNEL(argmax)(mimic_call *c) {
    max_job j = {.dtype = (mimic_dtype)c->in[0]->dtype,
                 .x = mimic_data(c->in[0]),
                 .index = mimic_data(c->out[0])};
    geometry(&j, c->in[0]->rank, c->in[0]->shape, -1);
    run(c->ctx, &j);
    return MIMIC_OK;
}

mimic_status KERNEL(max_bwd)(mimic_call *c) {
    max_job j = {
        .x = mimic_data(c->in[0]), .y = mimic_data(c->out[0]), .index = mimic_data(c->in[1])};
    geometry(&j, c->out[0]->rank, c->out[0]->shape, c->attrs.v[0].i);
    for (int64_t r = 0; r < j.outer * j.inner; r++)
        if (j.index[r] < 0 || j.index[r] >= j.len)
            return mimic_fail(c->ctx, MIMIC_EINVAL, "max_bwd: index %d at %lld is not in 0..%lld",
                              j.index[r], (long long)r, (long long)j.len - 1);
    BY_FLOAT(c->in[0]->dtype, max_scatter)(&j);
    return MIMIC_OK;
}
#endif

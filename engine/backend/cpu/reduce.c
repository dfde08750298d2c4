/* Reductions over the middle axis of [outer, len, inner]: sum, mean, sum_to. Fixed blocks of `len`
 * are summed first, in parallel, then their partial sums in order. */
#ifdef T

static inline REAL NAME(row_sum)(const T *x, int64_t n) {
    VEC a = VSET(0), b = VSET(0), c = VSET(0), d = VSET(0);
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W) {
        a += LOAD(x + i);
        b += LOAD(x + i + W);
        c += LOAD(x + i + 2 * W);
        d += LOAD(x + i + 3 * W);
    }
    for (; i + W <= n; i += W)
        a += LOAD(x + i);
    if (i < n)
        b += LOADN(x + i, n - i);
    return vhsum((a + b) + (c + d));
}

/* acc[inner] = sum of len rows */
static void NAME(sum_cell)(const void *x_, int64_t at, int64_t len, int64_t inner, void *acc_) {
    const T *x = (const T *)x_ + at;
    REAL *acc = acc_;
    if (inner == 1) {
        acc[0] = NAME(row_sum)(x, len);
        return;
    }
    memset(acc, 0, (size_t)inner * sizeof *acc);
    for (int64_t k = 0; k < len; k++, x += inner) {
        int64_t i = 0;
        for (; i + W <= inner; i += W)
            RSTORE(acc + i, RLOAD(acc + i) + LOAD(x + i));
        for (; i < inner; i++)
            acc[i] += GET(x[i]);
    }
}

/* y[inner] = scale * sum of the partial rows */
static void NAME(sum_finish)(const void *partial, int64_t blocks, int64_t inner, double scale,
                             void *y_, int64_t at) {
    const REAL *p = partial;
    T *y = (T *)y_ + at;
    for (int64_t i = 0; i < inner; i++) {
        REAL s = p[i];
        for (int64_t b = 1; b < blocks; b++)
            s += p[b * inner + i];
        y[i] = PUT(s * (REAL)scale);
    }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

#define FAMILY "backend/cpu/reduce.c"
#include "backend/cpu/each_float.h"

typedef struct sum_job {
    void (*cell)(const void *x, int64_t at, int64_t len, int64_t inner, void *acc);
    void (*finish)(const void *partial, int64_t blocks, int64_t inner, double scale, void *y,
                   int64_t at);
    const void *x; /* [outer,len,inner] */
    char *partial; /* [outer,blocks,inner] */
    void *y;       /* [outer,inner] */
    size_t real;   /* bytes of a partial sum */
    int64_t outer, len, inner, block, blocks, per, per_finish;
    double scale;
} sum_job;

static void sum_chunk(void *arg, int64_t i, int worker) {
    const sum_job *j = arg;
    int64_t cells = j->outer * j->blocks, end = chunk_end(i, j->per, cells);
    (void)worker;
    for (int64_t c = i * j->per; c < end; c++) {
        int64_t o = c / j->blocks, first = c % j->blocks * j->block;
        int64_t n = j->len - first < j->block ? j->len - first : j->block;
        j->cell(j->x, (o * j->len + first) * j->inner, n, j->inner,
                j->partial + (size_t)(c * j->inner) * j->real);
    }
}

static void finish_chunk(void *arg, int64_t i, int worker) {
    const sum_job *j = arg;
    int64_t end = chunk_end(i, j->per_finish, j->outer);
    (void)worker;
    for (int64_t o = i * j->per_finish; o < end; o++)
        j->finish(j->partial + (size_t)(o * j->blocks * j->inner) * j->real, j->blocks, j->inner,
                  j->scale, j->y, o * j->inner);
}

/* y[outer,inner] (of dtype dy) = scale * sum over len of x (of dtype dx). */
static mimic_status sum_axis(mimic_ctx *ctx, mimic_dtype dx, const void *x, int64_t outer,
                             int64_t len, int64_t inner, double scale, mimic_dtype dy, void *y) {
    mimic_dtype accum = mimic_accum_dtype(dx);
    sum_job j = {.cell = BY_FLOAT(dx, sum_cell),
                 .finish = BY_FLOAT(dy, sum_finish),
                 .x = x,
                 .y = y,
                 .real = mimic_dtype_size(accum),
                 .outer = outer,
                 .len = len,
                 .inner = inner,
                 .scale = scale};
    void *scratch = NULL;
    if (outer == 0 || inner == 0)
        return MIMIC_OK;
    j.block = inner == 1            ? CHUNK
              : CHUNK / inner < 16  ? 16
              : CHUNK / inner > 512 ? 512
                                    : CHUNK / inner;
    j.blocks = len > j.block ? (len + j.block - 1) / j.block : 1;
    bool direct = j.blocks == 1 && dy == accum && scale == 1;
    size_t bytes = (size_t)(outer * j.blocks * inner) * j.real;
    if (direct) {
        j.partial = y;
    } else {
        mimic_status s = mimic_pool_get(ctx, bytes, &scratch);
        if (s != MIMIC_OK)
            return s;
        j.partial = scratch;
    }
    j.per = chunk_rows(outer * j.blocks, (len < j.block ? len : j.block) * inner);
    mimic_parallel(ctx, chunk_count(outer * j.blocks, j.per), sum_chunk, &j);
    if (!direct) {
        j.per_finish = chunk_rows(outer, j.blocks * inner);
        mimic_parallel(ctx, chunk_count(outer, j.per_finish), finish_chunk, &j);
        mimic_pool_put(ctx, scratch, bytes);
    }
    return MIMIC_OK;
}

static mimic_status sum_kernel(mimic_call *c, bool mean) {
    const mimic_tensor *x = c->in[0];
    int64_t outer = 1, len = 1, inner = 1, axis = c->attrs.v[0].i;
    mimic_dtype d = (mimic_dtype)x->dtype;
    if (axis < -x->rank) { /* all */
        len = mimic_numel(x);
    } else {
        axis += axis < 0 ? x->rank : 0;
        len = x->shape[axis];
        for (int i = 0; i < axis; i++)
            outer *= x->shape[i];
        for (int i = (int)axis + 1; i < x->rank; i++)
            inner *= x->shape[i];
    }
    return sum_axis(c->ctx, d, mimic_data(x), outer, len, inner, mean ? 1.0 / (double)len : 1, d,
                    mimic_data(c->out[0]));
}

mimic_status KERNEL(sum)(mimic_call *c) {
    return sum_kernel(c, false);
}

mimic_status KERNEL(mean)(mimic_call *c) {
    return sum_kernel(c, true);
}

/* Merges the axes to alternating kept and summed groups, then sums one group after the other from
 * the right, in the statistics dtype until the last. */
mimic_status KERNEL(sum_to)(mimic_call *c) {
    const mimic_tensor *x = c->in[0], *y = c->out[0];
    mimic_dtype d = (mimic_dtype)x->dtype, accum = mimic_accum_dtype(d), from = d;
    int64_t n[MIMIC_MAX_RANK];
    bool gone[MIMIC_MAX_RANK];
    int groups = 0, left = 0;
    for (int i = 0; i < x->rank; i++) {
        int k = i - (x->rank - y->rank);
        bool g = k < 0 || y->shape[k] != x->shape[i];
        if (x->shape[i] == 1)
            continue;
        if (groups > 0 && gone[groups - 1] == g) {
            n[groups - 1] *= x->shape[i];
        } else {
            n[groups] = x->shape[i];
            gone[groups++] = g;
            left += g;
        }
    }
    if (left == 0) {
        memcpy(mimic_data(y), mimic_data(x), (size_t)mimic_numel(x) * mimic_dtype_size(d));
        return MIMIC_OK;
    }
    const void *src = mimic_data(x);
    void *temp = NULL;
    size_t temp_bytes = 0;
    mimic_status s = MIMIC_OK;
    for (int g = groups - 1; g >= 0 && s == MIMIC_OK; g--) {
        int64_t outer = 1, inner = 1;
        void *next = NULL;
        size_t bytes = 0;
        if (!gone[g])
            continue;
        for (int i = 0; i < g; i++)
            outer *= n[i];
        for (int i = g + 1; i < groups; i++)
            inner *= n[i];
        bool last = --left == 0;
        if (!last) {
            bytes = (size_t)(outer * inner) * mimic_dtype_size(accum);
            s = mimic_pool_get(c->ctx, bytes, &next);
        }
        if (s == MIMIC_OK)
            s = sum_axis(c->ctx, from, src, outer, n[g], inner, 1, last ? d : accum,
                         last ? mimic_data(y) : next);
        if (temp)
            mimic_pool_put(c->ctx, temp, temp_bytes);
        temp = next;
        temp_bytes = bytes;
        src = next;
        from = accum;
        n[g] = 1;
    }
    if (temp)
        mimic_pool_put(c->ctx, temp, temp_bytes);
    return s;
}
#endif

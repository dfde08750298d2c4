/* gather_rows, scatter_rows, argsort, onehot. Indices are checked before anything is written; the
 * sums of scatter_rows are in the order of its rows, in the compute type. */
#ifdef T

/* Columns first..end-1 of batch entry b. bf16 is summed in acc, [rows, width] in the compute type.
 */
static void NAME(scatter_block)(const rows_job *j, int64_t b, int64_t first, int64_t end,
                                void *acc) {
    const T *y = (const T *)j->x + b * j->m * j->inner + first;
    T *x = (T *)j->y + b * j->n * j->inner + first;
    const int32_t *index = j->index + b * j->m;
    int64_t width = end - first;
    bool direct = sizeof(T) == sizeof(REAL);
    REAL *sum = direct ? (REAL *)(void *)x : acc;
    int64_t step = direct ? j->inner : width;
    for (int64_t n = 0; n < j->n; n++)
        memset(sum + n * step, 0, (size_t)width * sizeof *sum);
    for (int64_t m = 0; m < j->m; m++) {
        const T *row = y + m * j->inner;
        REAL *to = sum + index[m] * step;
        int64_t i = 0;
        for (; i + W <= width; i += W)
            RSTORE(to + i, RLOAD(to + i) + LOAD(row + i));
        for (; i < width; i++)
            to[i] += GET(row[i]);
    }
    for (int64_t n = 0; !direct && n < j->n; n++)
        for (int64_t i = 0; i < width; i++)
            x[n * j->inner + i] = PUT(sum[n * width + i]);
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

enum { SCATTER_COLUMNS = 256 };

typedef struct rows_job {
    const void *x;        /* gather: [batch,n,inner]; scatter: [batch,m,inner] */
    void *y;              /* the other */
    const int32_t *index; /* [batch,m] */
    int64_t batch, n, m, inner, per, blocks;
    size_t row; /* bytes of a row */
    mimic_dtype dtype;
    char *scratch; /* per worker */
    size_t scratch_bytes;
} rows_job;

#define FAMILY "backend/cpu/index.c"
#include "backend/cpu/each_float.h"

static mimic_status check_index(mimic_call *c, const mimic_tensor *t, const char *what, int64_t n) {
    const int32_t *v = mimic_data(t);
    int64_t count = mimic_numel(t), row = t->rank > 1 ? t->shape[t->rank - 1] : count;
    for (int64_t i = 0; i < count; i++)
        if (v[i] < 0 || v[i] >= n) {
            if (t->rank > 1)
                return mimic_fail(c->ctx, MIMIC_EINVAL,
                                  "%s: %s %d at row %lld, column %lld is not in 0..%lld",
                                  c->op->name, what, v[i], (long long)(i / row),
                                  (long long)(i % row), (long long)n - 1);
            return mimic_fail(c->ctx, MIMIC_EINVAL, "%s: %s %d at row %lld is not in 0..%lld",
                              c->op->name, what, v[i], (long long)i, (long long)n - 1);
        }
    return MIMIC_OK;
}

static void gather_chunk(void *arg, int64_t i, int worker) {
    const rows_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->batch * j->m);
    (void)worker;
    for (int64_t r = i * j->per; r < end; r++) {
        int64_t from = r / j->m * j->n + j->index[r];
        memcpy((char *)j->y + (size_t)r * j->row, (const char *)j->x + (size_t)from * j->row,
               j->row);
    }
}

/* full: the tensor that is indexed; part: the one with a row per index. */
static void set_rows(rows_job *j, const mimic_tensor *full, const mimic_tensor *part,
                     const mimic_tensor *index) {
    int axis = index->rank - 1;
    j->index = mimic_data(index);
    j->batch = axis == 1 ? full->shape[0] : 1;
    j->n = full->shape[axis];
    j->m = part->shape[axis];
    j->inner = 1;
    for (int i = axis + 1; i < full->rank; i++)
        j->inner *= full->shape[i];
    j->dtype = (mimic_dtype)full->dtype;
    j->row = (size_t)j->inner * mimic_dtype_size(j->dtype);
}

mimic_status KERNEL(gather_rows)(mimic_call *c) {
    rows_job j = {.x = mimic_data(c->in[0]), .y = mimic_data(c->out[0])};
    set_rows(&j, c->in[0], c->out[0], c->in[1]);
    mimic_status s = check_index(c, c->in[1], "index", j.n);
    if (s != MIMIC_OK || mimic_numel(c->out[0]) == 0)
        return s;
    j.per = chunk_rows(j.batch * j.m, j.inner);
    mimic_parallel(c->ctx, chunk_count(j.batch * j.m, j.per), gather_chunk, &j);
    return MIMIC_OK;
}

static void scatter_chunk(void *arg, int64_t i, int worker) {
    const rows_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->batch * j->blocks);
    for (int64_t r = i * j->per; r < end; r++) {
        int64_t first = r % j->blocks * SCATTER_COLUMNS;
        int64_t last = first + SCATTER_COLUMNS < j->inner ? first + SCATTER_COLUMNS : j->inner;
        BY_FLOAT(j->dtype, scatter_block)
        (j, r / j->blocks, first, last,
         j->scratch ? j->scratch + (size_t)worker * j->scratch_bytes : NULL);
    }
}

mimic_status KERNEL(scatter_rows)(mimic_call *c) {
    rows_job j = {.x = mimic_data(c->in[0]), .y = mimic_data(c->out[0])};
    set_rows(&j, c->out[0], c->in[0], c->in[1]);
    mimic_status s = check_index(c, c->in[1], "index", j.n);
    if (s != MIMIC_OK || mimic_numel(c->out[0]) == 0)
        return s;
    int64_t width = j.inner < SCATTER_COLUMNS ? j.inner : SCATTER_COLUMNS;
    void *scratch = NULL;
    size_t bytes = 0;
    j.blocks = chunk_count(j.inner, SCATTER_COLUMNS);
    if (j.dtype == MIMIC_BF16) {
        j.scratch_bytes = ((size_t)(j.n * width) * sizeof(float) + 63) / 64 * 64;
        bytes = j.scratch_bytes * (size_t)mimic_threads(c->ctx);
        s = mimic_pool_get(c->ctx, bytes, &scratch);
        if (s != MIMIC_OK)
            return s;
        j.scratch = scratch;
    }
    j.per = chunk_rows(j.batch * j.blocks, (j.n + j.m) * width);
    mimic_parallel(c->ctx, chunk_count(j.batch * j.blocks, j.per), scatter_chunk, &j);
    if (scratch)
        mimic_pool_put(c->ctx, scratch, bytes);
    return MIMIC_OK;
}

/* --- argsort: merge sort of 64-bit keys (value made monotonic << 32 | position)
 * --------------------------- */

typedef struct sort_job {
    const uint32_t *x;
    int32_t *y;
    bool is_float;
    int64_t rows, len, per;
    uint64_t *scratch; /* per worker: 2 * len keys */
} sort_job;

static uint32_t float_key(uint32_t u) {
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return 0xffffffffu;
    if (u == 0x80000000u) /* -0 equals 0 */
        u = 0;
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static uint64_t *merge_sort(uint64_t *a, uint64_t *b, int64_t n) {
    for (int64_t run = 1; run < n; run *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * run) {
            int64_t mid = lo + run < n ? lo + run : n, hi = mid + run < n ? mid + run : n;
            int64_t p = lo, q = mid;
            for (int64_t k = lo; k < hi; k++)
                b[k] = p < mid && (q >= hi || a[p] < a[q]) ? a[p++] : a[q++];
        }
        uint64_t *t = a;
        a = b;
        b = t;
    }
    return a;
}

static void sort_chunk(void *arg, int64_t i, int worker) {
    const sort_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->rows);
    uint64_t *a = j->scratch + (int64_t)worker * 2 * j->len;
    for (int64_t r = i * j->per; r < end; r++) {
        for (int64_t k = 0; k < j->len; k++) {
            uint32_t u = j->x[r * j->len + k];
            a[k] = (uint64_t)(j->is_float ? float_key(u) : u ^ 0x80000000u) << 32 | (uint64_t)k;
        }
        const uint64_t *sorted = merge_sort(a, a + j->len, j->len);
        for (int64_t k = 0; k < j->len; k++)
            j->y[r * j->len + k] = (int32_t)(sorted[k] & 0xffffffffu);
    }
}

mimic_status KERNEL(argsort)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    sort_job j = {.x = mimic_data(x),
                  .y = mimic_data(c->out[0]),
                  .is_float = x->dtype == MIMIC_F32,
                  .len = x->shape[x->rank - 1]};
    void *scratch;
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    j.rows = mimic_numel(x) / j.len;
    size_t bytes = (size_t)mimic_threads(c->ctx) * 2 * (size_t)j.len * sizeof *j.scratch;
    mimic_status s = mimic_pool_get(c->ctx, bytes, &scratch);
    if (s != MIMIC_OK)
        return s;
    j.scratch = scratch;
    j.per = chunk_rows(j.rows, 8 * j.len);
    mimic_parallel(c->ctx, chunk_count(j.rows, j.per), sort_chunk, &j);
    mimic_pool_put(c->ctx, scratch, bytes);
    return MIMIC_OK;
}

mimic_status KERNEL(onehot)(mimic_call *c) {
    const mimic_tensor *labels = c->in[0];
    const int32_t *v = mimic_data(labels);
    float *y = mimic_data(c->out[0]);
    int64_t k = c->attrs.v[0].i;
    double smoothing = c->attrs.v[1].f, off = smoothing / (double)k;
    mimic_status s = check_index(c, labels, "label", k);
    for (int64_t i = 0; s == MIMIC_OK && i < labels->shape[0]; i++) {
        for (int64_t m = 0; m < k; m++)
            y[i * k + m] = (float)off;
        y[i * k + v[i]] = (float)(1 - smoothing + off);
    }
    return s;
}
#endif

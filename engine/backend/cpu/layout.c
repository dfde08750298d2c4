/* Copies to another layout: contiguous (any strides), concat, slice_bwd. They know element sizes
 * only. */
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

#include <string.h>

enum { TILE = 32 }; /* of a transposition: a tile of 8-byte elements is 8 KiB on each side */

/* Source axes, merged where the strides run on, in output order. */
typedef struct copy_job {
    const char *x;
    char *y;
    size_t size; /* bytes of an element */
    int rank;
    int64_t n[MIMIC_MAX_RANK], s[MIMIC_MAX_RANK];
    int64_t rows, len, per;
} copy_job;

static inline void copy_element(char *y, const char *x, size_t size) {
    switch (size) {
    case 1:
        *y = *x;
        break;
    case 2:
        memcpy(y, x, 2);
        break;
    case 4:
        memcpy(y, x, 4);
        break;
    default:
        memcpy(y, x, 8);
    }
}

static inline __attribute__((always_inline)) void copy_strided(char *y, const char *x, size_t size,
                                                               int64_t n, int64_t step) {
    for (int64_t i = 0; i < n; i++)
        copy_element(y + (size_t)i * size, x + (int64_t)size * i * step, size);
}

static void copy_row(char *y, const char *x, size_t size, int64_t n, int64_t step) {
    if (step == 1)
        memcpy(y, x, (size_t)n * size);
    else if (size == 4)
        copy_strided(y, x, 4, n, step);
    else if (size == 2)
        copy_strided(y, x, 2, n, step);
    else if (size == 8)
        copy_strided(y, x, 8, n, step);
    else
        copy_strided(y, x, 1, n, step);
}

static int64_t source_offset(const copy_job *j, int64_t row, int axes) {
    int64_t at = 0;
    for (int k = axes - 1; k >= 0; k--) {
        at += row % j->n[k] * j->s[k];
        row /= j->n[k];
    }
    return at;
}

static void rows_chunk(void *arg, int64_t i, int worker) {
    const copy_job *j = arg;
    int last = j->rank - 1;
    int64_t end = chunk_end(i, j->per, j->rows);
    (void)worker;
    for (int64_t r = i * j->per; r < end; r++)
        copy_row(j->y + (size_t)(r * j->len) * j->size,
                 j->x + source_offset(j, r, last) * (int64_t)j->size, j->size, j->len, j->s[last]);
}

/* The two last axes of the output are [rows,len] with the source running along the rows: tiles, so
 * that both sides stay in cache. Work item: a band of TILE rows of one matrix. */
static void tile_chunk(void *arg, int64_t i, int worker) {
    const copy_job *j = arg;
    int last = j->rank - 1;
    int64_t m = j->n[last - 1], bands = (m + TILE - 1) / TILE;
    int64_t matrix = i / bands, r0 = i % bands * TILE, r1 = r0 + TILE < m ? r0 + TILE : m;
    int64_t z = (int64_t)j->size;
    const char *x = j->x + source_offset(j, matrix, last - 1) * z;
    char *y = j->y + matrix * m * j->len * z;
    (void)worker;
    for (int64_t c0 = 0; c0 < j->len; c0 += TILE) {
        int64_t n = j->len - c0 < TILE ? j->len - c0 : TILE;
        for (int64_t r = r0; r < r1; r++)
            copy_row(y + (r * j->len + c0) * z, x + (r * j->s[last - 1] + c0 * j->s[last]) * z,
                     j->size, n, j->s[last]);
    }
}

mimic_status KERNEL(contiguous)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    copy_job j = {.x = mimic_data(x),
                  .y = mimic_data(c->out[0]),
                  .size = mimic_dtype_size((mimic_dtype)x->dtype)};
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    for (int k = 0; k < x->rank; k++) {
        int r = j.rank;
        if (x->shape[k] == 1)
            continue;
        if (r > 0 && j.s[r - 1] == x->stride[k] * x->shape[k]) {
            j.n[r - 1] *= x->shape[k];
            j.s[r - 1] = x->stride[k];
            continue;
        }
        j.n[r] = x->shape[k];
        j.s[r] = x->stride[k];
        j.rank++;
    }
    if (j.rank == 0) {
        j.rank = 1;
        j.n[0] = j.s[0] = 1;
    }
    if (j.rank == 1 && j.n[0] > 2 * CHUNK) { /* long rows are cut */
        int64_t n = j.n[0], whole = n / CHUNK;
        copy_job tail = j;
        tail.n[0] = tail.len = n - whole * CHUNK;
        tail.rows = tail.per = 1;
        tail.x += whole * CHUNK * j.s[0] * (int64_t)j.size;
        tail.y += whole * CHUNK * (int64_t)j.size;
        if (tail.len > 0)
            rows_chunk(&tail, 0, 0);
        j.rank = 2;
        j.n[1] = CHUNK;
        j.s[1] = j.s[0];
        j.n[0] = whole;
        j.s[0] *= CHUNK;
    }
    j.len = j.n[j.rank - 1];
    j.rows = 1;
    for (int k = 0; k < j.rank - 1; k++)
        j.rows *= j.n[k];
    if (j.rank > 1 && j.s[j.rank - 1] != 1 && j.s[j.rank - 2] == 1) {
        int64_t m = j.n[j.rank - 2];
        mimic_parallel(c->ctx, j.rows / m * ((m + TILE - 1) / TILE), tile_chunk, &j);
    } else {
        j.per = chunk_rows(j.rows, j.len);
        mimic_parallel(c->ctx, chunk_count(j.rows, j.per), rows_chunk, &j);
    }
    return MIMIC_OK;
}

/* Bytes before and from `axis` on, for one index of the axes before it. */
static void split(const mimic_tensor *t, int axis, int64_t *outer, size_t *bytes) {
    *outer = 1;
    *bytes = mimic_dtype_size((mimic_dtype)t->dtype);
    for (int i = 0; i < t->rank; i++)
        if (i < axis)
            *outer *= t->shape[i];
        else
            *bytes *= (size_t)t->shape[i];
}

typedef struct join_job {
    int n;
    const char *x[MIMIC_MAX_IN];
    size_t bytes[MIMIC_MAX_IN], total;
    char *y;
    int64_t outer, per;
} join_job;

static void join_chunk(void *arg, int64_t i, int worker) {
    const join_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->outer);
    (void)worker;
    for (int64_t o = i * j->per; o < end; o++) {
        char *y = j->y + (size_t)o * j->total;
        for (int k = 0; k < j->n; k++) {
            memcpy(y, j->x[k] + (size_t)o * j->bytes[k], j->bytes[k]);
            y += j->bytes[k];
        }
    }
}

mimic_status KERNEL(concat)(mimic_call *c) {
    join_job j = {.y = mimic_data(c->out[0])};
    int axis = (int)(c->attrs.v[0].i < 0 ? c->attrs.v[0].i + c->out[0]->rank : c->attrs.v[0].i);
    if (mimic_numel(c->out[0]) == 0)
        return MIMIC_OK;
    for (int k = 0; k < c->n_in; k++)
        if (c->in[k] && mimic_numel(c->in[k]) > 0) {
            j.x[j.n] = mimic_data(c->in[k]);
            split(c->in[k], axis, &j.outer, &j.bytes[j.n++]);
        }
    split(c->out[0], axis, &j.outer, &j.total);
    j.per = chunk_rows(j.outer, (int64_t)j.total / 4);
    mimic_parallel(c->ctx, chunk_count(j.outer, j.per), join_chunk, &j);
    return MIMIC_OK;
}

typedef struct slice_job {
    const char *dy;
    char *dx;
    size_t before, bytes, total; /* of one index of the axes before */
    int64_t outer, per;
} slice_job;

static void slice_chunk(void *arg, int64_t i, int worker) {
    const slice_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->outer);
    (void)worker;
    for (int64_t o = i * j->per; o < end; o++) {
        char *dx = j->dx + (size_t)o * j->total;
        memset(dx, 0, j->before);
        if (j->bytes > 0)
            memcpy(dx + j->before, j->dy + (size_t)o * j->bytes, j->bytes);
        memset(dx + j->before + j->bytes, 0, j->total - j->before - j->bytes);
    }
}

mimic_status KERNEL(slice_bwd)(mimic_call *c) {
    const mimic_tensor *dy = c->in[0], *dx = c->out[0];
    int axis = (int)(c->attrs.v[0].i < 0 ? c->attrs.v[0].i + dx->rank : c->attrs.v[0].i);
    int64_t start = c->attrs.v[1].i + (c->attrs.v[1].i < 0 ? dx->shape[axis] : 0);
    slice_job j = {.dy = mimic_data(dy), .dx = mimic_data(dx)};
    if (mimic_numel(dx) == 0)
        return MIMIC_OK;
    split(dy, axis, &j.outer, &j.bytes);
    split(dx, axis, &j.outer, &j.total);
    j.before = j.total / (size_t)dx->shape[axis] * (size_t)start;
    j.per = chunk_rows(j.outer, (int64_t)j.total / 4);
    mimic_parallel(c->ctx, chunk_count(j.outer, j.per), slice_chunk, &j);
    return MIMIC_OK;
}

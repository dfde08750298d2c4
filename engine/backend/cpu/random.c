/* rand_uniform, rand_normal, dropout, drop_path. Element e takes word e % 4 of the Philox block
 * with counter (e / 4, stream, step): nothing depends on how the work is cut. */
#ifdef T

/* Elements first..end-1, first a multiple of 4. */
static void NAME(dropout_span)(const random_job *j, int64_t first, int64_t end) {
    const T *x = j->x;
    T *y = j->y;
    REAL scale = (REAL)(1 / (1 - j->p));
    uint32_t word[4];
    for (int64_t e = first; e < end; e++) {
        if (e % 4 == 0)
            philox_block(j->seed, j->stream, j->step, (uint32_t)(e / 4), word);
        y[e] = word[e % 4] < j->threshold ? PUT(0) : PUT(GET(x[e]) * scale);
    }
}

static void NAME(drop_path_rows)(const random_job *j, int64_t first, int64_t end) {
    REAL scale = (REAL)(1 / (1 - j->p));
    for (int64_t r = first; r < end; r++) {
        const T *x = (const T *)j->x + r * j->len;
        T *y = (T *)j->y + r * j->len;
        uint32_t word[4];
        int64_t i = 0;
        philox_block(j->seed, j->stream, j->step, (uint32_t)(r / 4), word);
        if (word[r % 4] < j->threshold) {
            memset(y, 0, (size_t)j->len * sizeof *y);
            continue;
        }
        for (; i + W <= j->len; i += W)
            STORE(y + i, LOAD(x + i) * scale);
        if (i < j->len)
            STOREN(y + i, LOADN(x + i, j->len - i) * scale, j->len - i);
    }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"
#include "core/random_math.h"

typedef struct random_job {
    const void *x;
    void *y;
    mimic_dtype dtype;
    uint64_t seed, step;
    uint32_t stream;
    uint64_t threshold; /* words below it drop */
    double p;           /* probability of dropping */
    double a, b;        /* uniform: lo, hi - lo; normal: mean, std */
    double lo, span;    /* normal: the uniform is lo + span u */
    int64_t n, len, per;
} random_job;

#define FAMILY "backend/cpu/random.c"
#include "backend/cpu/each_float.h"

/* seed, stream and step are the three attributes from `first` on. */
static void set_key(random_job *j, const mimic_call *c, int first) {
    j->seed = (uint64_t)c->attrs.v[first].i;
    j->stream = (uint32_t)c->attrs.v[first + 1].i;
    j->step = (uint64_t)c->attrs.v[first + 2].i;
}

static void uniform_chunk(void *arg, int64_t i, int worker) {
    const random_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->n);
    float *y = j->y, a = (float)j->a, b = (float)j->b;
    uint32_t word[4];
    (void)worker;
    for (int64_t e = i * j->per; e < end; e++) {
        if (e % 4 == 0)
            philox_block(j->seed, j->stream, j->step, (uint32_t)(e / 4), word);
        y[e] = uniform_in(word[e % 4], a, b);
    }
}

static void normal_chunk(void *arg, int64_t i, int worker) {
    const random_job *j = arg;
    int64_t end = chunk_end(i, j->per, j->n);
    float *y = j->y;
    uint32_t word[4];
    (void)worker;
    for (int64_t e = i * j->per; e < end; e++) {
        if (e % 4 == 0)
            philox_block(j->seed, j->stream, j->step, (uint32_t)(e / 4), word);
        y[e] = normal_in(word[e % 4], j->a, j->b, j->lo, j->span);
    }
}

static void dropout_chunk(void *arg, int64_t i, int worker) {
    const random_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, dropout_span)(j, i * j->per, chunk_end(i, j->per, j->n));
}

static void drop_path_chunk(void *arg, int64_t i, int worker) {
    const random_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, drop_path_rows)(j, i * j->per, chunk_end(i, j->per, j->n));
}

/* Chunks of elements begin at a multiple of 4. */
static void run(mimic_call *c, random_job *j, void (*fn)(void *, int64_t, int)) {
    j->n = mimic_numel(c->out[0]);
    j->y = mimic_data(c->out[0]);
    j->per = CHUNK / 4;
    mimic_parallel(c->ctx, chunk_count(j->n, j->per), fn, j);
}

mimic_status KERNEL(rand_uniform)(mimic_call *c) {
    random_job j = {.a = c->attrs.v[1].f, .b = c->attrs.v[2].f - c->attrs.v[1].f};
    set_key(&j, c, 3);
    run(c, &j, uniform_chunk);
    return MIMIC_OK;
}

mimic_status KERNEL(rand_normal)(mimic_call *c) {
    double cut = c->attrs.v[3].f;
    random_job j = {.a = c->attrs.v[1].f, .b = c->attrs.v[2].f, .span = 1};
    if (cut > 0) {
        j.lo = 0.5 * erfc(cut * 0.70710678118654752440);
        j.span = 1 - 2 * j.lo;
    }
    set_key(&j, c, 4);
    run(c, &j, normal_chunk);
    return MIMIC_OK;
}

static random_job drop_job(mimic_call *c) {
    double p = c->attrs.v[0].f;
    random_job j = {.x = mimic_data(c->in[0]),
                    .dtype = (mimic_dtype)c->in[0]->dtype,
                    .p = p,
                    .threshold = (uint64_t)(p * 4294967296.0)};
    set_key(&j, c, 1);
    return j;
}

mimic_status KERNEL(dropout)(mimic_call *c) {
    random_job j = drop_job(c);
    run(c, &j, dropout_chunk);
    return MIMIC_OK;
}

mimic_status KERNEL(drop_path)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    random_job j = drop_job(c);
    j.n = x->shape[0];
    j.y = mimic_data(c->out[0]);
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    j.len = mimic_numel(x) / j.n;
    j.per = chunk_rows(j.n, j.len);
    mimic_parallel(c->ctx, chunk_count(j.n, j.per), drop_path_chunk, &j);
    return MIMIC_OK;
}
#endif

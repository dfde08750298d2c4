/* The optimiser's pass over the flat arenas: parameters, moments, gradients (cleared) and bf16
 * copies are each touched once. Chunks have fixed size; coefficients are computed in double. */
#ifdef REAL

/* Elements i.. of the arenas, n lanes; shadow: where element 0 would be. */
SIMD_FN void FN(update)(const mimic_optim_args *a, const coefficients *k, uint16_t *shadow,
                        int64_t i, int64_t n) {
    const bool whole = n == W;
    REAL *wp = (REAL *)a->w + i, *gp = (REAL *)a->g + i, *mp = (REAL *)a->m + i;
    VEC w = whole ? LOAD(wp) : LOADN(wp, n), m = whole ? LOAD(mp) : LOADN(mp, n);
    VEC g = (whole ? LOAD(gp) : LOADN(gp, n)) * (REAL)k->grad_scale + w * (REAL)k->decay_in;
    if (k->adam) {
        REAL *vp = (REAL *)a->v + i;
        VEC v = whole ? LOAD(vp) : LOADN(vp, n);
        w *= (REAL)k->decay_out;
        m = m * (REAL)k->beta1 + g * (REAL)k->rest1;
        v = v * (REAL)k->beta2 + g * g * (REAL)k->rest2;
        w -= m * (REAL)k->step / (vsqrt(v) * (REAL)k->root + (REAL)k->eps);
        if (whole)
            STORE(vp, v);
        else
            STOREN(vp, v, n);
    } else {
        m = m * (REAL)k->beta1 + g * (REAL)k->rest1;
        w -= m * (REAL)k->step;
    }
    if (whole) {
        STORE(wp, w);
        STORE(mp, m);
    } else {
        STOREN(wp, w, n);
        STOREN(mp, m, n);
    }
    if (!a->leave_g && whole)
        STORE(gp, (VEC){0});
    else if (!a->leave_g)
        STOREN(gp, (VEC){0}, n);
    if (shadow)
        FN(copy_out)(w, shadow + i, n);
}

static void FN(update_range)(const mimic_optim_args *a, const mimic_segment *s, int64_t from,
                             int64_t to) {
    const coefficients k = coefficients_of(a, s);
    uint16_t *shadow = s->shadow >= 0 ? a->shadow + s->shadow - s->offset : NULL;
    for (; from + W <= to; from += W)
        FN(update)(a, &k, shadow, from, W);
    if (from < to)
        FN(update)(a, &k, shadow, from, to - from);
}

/* Short runs are summed in REAL, their sums in double. */
static void FN(squares)(void *arg, int64_t chunk, int worker) {
    const squares_job *job = arg;
    (void)worker;
    const REAL *x = job->x;
    int64_t i = chunk * CHUNK, end = i + CHUNK < job->n ? i + CHUNK : job->n;
    double total = 0;
    while (i < end) {
        int64_t stop = i + 64 * W < end ? i + 64 * W : end;
        VEC s = {0};
        for (; i + W <= stop; i += W) {
            VEC v = LOAD(x + i);
            s += v * v;
        }
        if (i < stop) {
            VEC v = LOADN(x + i, stop - i);
            s += v * v;
            i = stop;
        }
        total += (double)vhsum(s);
    }
    job->partial[chunk] = total;
}

#else
#include "autograd/optim_impl.h"
#include "backend/cpu/kernel.h"
#include "backend/cpu/simd.h"

#define CHUNK 16384

/* g = grad_scale g + decay_in w; Adam: w *= decay_out, m and v follow, w -= step m / (root sqrt(v)
 * + eps); others: m = beta1 m + rest1 g, w -= step m. */
typedef struct coefficients {
    bool adam;
    double grad_scale, decay_in, decay_out, beta1, rest1, beta2, rest2, step, root, eps;
} coefficients;

static coefficients coefficients_of(const mimic_optim_args *a, const mimic_segment *s) {
    double lr = a->lr * s->lr_scale;
    coefficients k = {.adam = a->kind == MIMIC_ADAM || a->kind == MIMIC_ADAMW,
                      .grad_scale = a->grad_scale,
                      .decay_in = s->weight_decay,
                      .decay_out = 1,
                      .beta1 = a->beta1,
                      .rest1 = 1 - a->beta1,
                      .beta2 = a->beta2,
                      .rest2 = 1 - a->beta2,
                      .step = lr,
                      .eps = a->eps};
    switch (a->kind) {
    case MIMIC_ADAMW:
        k.decay_in = 0;
        k.decay_out = 1 - lr * s->weight_decay;
        /* fall through */
    case MIMIC_ADAM:
        k.step = lr / (1 - pow(a->beta1, (double)a->t));
        k.root = 1 / sqrt(1 - pow(a->beta2, (double)a->t));
        break;
    case MIMIC_SGD:
        k.rest1 = 1;
        break;
    case MIMIC_LARS:
        if (s->rank <= 1)
            k.decay_in = 0;
        k.rest1 = s->rank > 1 ? s->trust : 1;
        break;
    }
    return k;
}

typedef struct squares_job {
    const void *x;
    int64_t n;
    double *partial; /* one of each chunk */
} squares_job;

#define FN2(name, suffix) name##_##suffix
#define FN1(name, suffix) FN2(name, suffix)
#define FN(name) FN1(name, SUFFIX)
#define LOAD(p) FN(vload)(p)
#define STORE(p, v) FN(vstore)(p, v)
#define LOADN(p, n) FN(vloadn)(p, n)
#define STOREN(p, v, n) FN(vstoren)(p, v, n)

SIMD_FN void copy_out_f32(vf32 w, uint16_t *shadow, int64_t n) {
    if (n == VF32_W)
        vstore_bf16(shadow, w);
    else
        vstoren_bf16(shadow, w, n);
}
SIMD_FN void copy_out_f64(vf64 w, uint16_t *shadow, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        shadow[i] = mimic_f32_to_bf16((float)w[i]);
}

#define REAL float
#define VEC vf32
#define W VF32_W
#define SUFFIX f32
#include "backend/cpu/optim.c"
#undef REAL
#undef VEC
#undef W
#undef SUFFIX
#define REAL double
#define VEC vf64
#define W VF64_W
#define SUFFIX f64
#include "backend/cpu/optim.c"

static void step_chunk(void *arg, int64_t chunk, int worker) {
    const mimic_optim_args *a = arg;
    (void)worker;
    int64_t from = chunk * CHUNK, to = from + CHUNK;
    int lo = 0, hi = a->n_segments; /* the first segment that ends behind `from` */
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (a->segments[mid].offset + a->segments[mid].count <= from)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < a->n_segments && a->segments[lo].offset < to; lo++) {
        const mimic_segment *s = &a->segments[lo];
        int64_t i = s->offset > from ? s->offset : from;
        int64_t end = s->offset + s->count < to ? s->offset + s->count : to;
        if (a->dtype == MIMIC_F64)
            update_range_f64(a, s, i, end);
        else
            update_range_f32(a, s, i, end);
    }
}

mimic_status KERNEL(optim_step)(mimic_ctx *ctx, const mimic_optim_args *args) {
    const mimic_segment *last = &args->segments[args->n_segments - 1];
    int64_t n = args->n_segments > 0 ? last->offset + last->count : 0;
    mimic_optim_args a = *args;
    mimic_parallel(ctx, (n + CHUNK - 1) / CHUNK, step_chunk, &a);
    return MIMIC_OK;
}

mimic_status KERNEL(sum_squares)(mimic_ctx *ctx, mimic_dtype dtype, const void *x, int64_t n,
                                 double *out) {
    int64_t chunks = (n + CHUNK - 1) / CHUNK;
    double few[16];
    squares_job job = {.x = x, .n = n, .partial = few};
    size_t bytes = (size_t)chunks * sizeof(double);
    void *memory = NULL;
    if (chunks > 16) {
        mimic_status status = mimic_pool_get(ctx, bytes, &memory);
        if (status != MIMIC_OK)
            return status;
        job.partial = memory;
    }
    mimic_parallel(ctx, chunks, dtype == MIMIC_F64 ? squares_f64 : squares_f32, &job);
    *out = 0;
    for (int64_t i = 0; i < chunks; i++)
        *out += job.partial[i];
    if (memory)
        mimic_pool_put(ctx, memory, bytes);
    return MIMIC_OK;
}

typedef struct add_job {
    mimic_dtype dst_dtype, src_dtype;
    char *dst;
    const char *src;
    int64_t n;
} add_job;

static double element(const char *p, mimic_dtype dtype, int64_t i) {
    switch (dtype) {
    case MIMIC_F64:
        return ((const double *)(const void *)p)[i];
    case MIMIC_BF16:
        return mimic_bf16_to_f32(((const uint16_t *)(const void *)p)[i]);
    default:
        return ((const float *)(const void *)p)[i];
    }
}

static void add_chunk(void *arg, int64_t chunk, int worker) {
    const add_job *job = arg;
    (void)worker;
    int64_t i = chunk * CHUNK, end = i + CHUNK < job->n ? i + CHUNK : job->n;
    if (job->dst_dtype == MIMIC_F32 && job->src_dtype != MIMIC_F64) {
        float *dst = (float *)(void *)job->dst;
        const float *f = (const float *)(const void *)job->src;
        const uint16_t *h = (const uint16_t *)(const void *)job->src;
        bool wide = job->src_dtype == MIMIC_F32;
        for (; i + VF32_W <= end; i += VF32_W)
            vstore_f32(dst + i, vload_f32(dst + i) + (wide ? vload_f32(f + i) : vload_bf16(h + i)));
        for (; i < end; i++)
            dst[i] += wide ? f[i] : mimic_bf16_to_f32(h[i]);
    } else if (job->dst_dtype == MIMIC_F64) {
        for (; i < end; i++)
            ((double *)(void *)job->dst)[i] += element(job->src, job->src_dtype, i);
    } else {
        for (; i < end; i++)
            ((float *)(void *)job->dst)[i] += (float)element(job->src, job->src_dtype, i);
    }
}

mimic_status KERNEL(accumulate)(mimic_ctx *ctx, mimic_dtype dst_dtype, void *dst,
                                mimic_dtype src_dtype, const void *src, int64_t n) {
    add_job job = {.dst_dtype = dst_dtype, .src_dtype = src_dtype, .dst = dst, .src = src, .n = n};
    mimic_parallel(ctx, (n + CHUNK - 1) / CHUNK, add_chunk, &job);
    return MIMIC_OK;
}
#endif

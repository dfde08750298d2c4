/* Passes over flat arrays: gradients added up, and the optimiser's step in one launch over the
 * arenas. Norms for clipping and the ratios of LARS stay on the device: nobody waits for them. */
#include "autograd/optim_impl.h"
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"

enum { THREADS = 256, PART = 16384 };

/* dst[n] += src[n] */
template <class T> __global__ void add_to(float *dst, const T *src, int64_t n, bool packs) {
    const int N = pack<T>::N;
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (packs && i + N <= n) {
        pack<T> v = *(const pack<T> *)(src + i);
        for (int k = 0; k < N; k += 4) {
            float4 d = *(float4 *)(dst + i + k);
            d.x += get(v.at[k]);
            d.y += get(v.at[k + 1]);
            d.z += get(v.at[k + 2]);
            d.w += get(v.at[k + 3]);
            *(float4 *)(dst + i + k) = d;
        }
    } else {
        for (int64_t end = i + N < n ? i + N : n; i < end; i++)
            dst[i] += get(src[i]);
    }
}

template <class T> static void run_add(cudaStream_t stream, float *dst, const T *src, int64_t n) {
    LAUNCH(add_to<T>, blocks_of(n, THREADS * pack<T>::N), THREADS, 0, stream, dst, src, n,
           wide(dst, src));
}

mimic_status mimic_cuda_accumulate(mimic_ctx *ctx, mimic_dtype, void *dst, mimic_dtype src_dtype,
                                   const void *src, int64_t n) {
    cudaStream_t stream = state_of(ctx)->stream;
    if (n == 0)
        return MIMIC_OK;
    if (src_dtype == MIMIC_F32)
        run_add(stream, (float *)dst, (const float *)src, n);
    else
        run_add(stream, (float *)dst, (const bf16 *)src, n);
    return cuda_done(ctx, "sum of gradients");
}

/* --- the optimiser --- */

/* g = grad_scale g + decay_in w; Adam: w *= decay_out, m and v follow, w -= step m / (root sqrt(v)
 * + eps); others: m = beta1 m + rest1 g, w -= step m. As the CPU's (cpu/optim.c). */
struct coefficients {
    float grad_scale, decay_in, decay_out, beta1, rest1, beta2, rest2, step, root, eps;
};

/* A parameter's stretch of the arenas, with the padding behind it, which stays zero. LARS sums the
 * squares of a matrix in parts of PART elements, the first of which has number `part`. */
struct stretch {
    int64_t first;  /* element of the arenas, a multiple of 64 */
    int64_t shadow; /* what to add to an index for the bf16 copy; NONE: there is none */
    int64_t count, part, parts;
    double decay; /* LARS */
    coefficients k;
};
#define NONE INT64_MIN

/* What a step finds out about its gradients: the norm before clipping, and the factor with it. */
struct found {
    double norm, grad_scale;
};

/* partial[block] = sum of x^2 over the block's PART elements */
__global__ void square_part(const float *x, double *partial, int64_t n) {
    int64_t first = (int64_t)blockIdx.x * PART;
    int64_t end = first + PART < n ? first + PART : n;
    float s = 0.0f;
    for (int64_t i = first + threadIdx.x; i < end; i += THREADS)
        s += x[i] * x[i];
    double sum = block_sum(s);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* The norm from the sum of all parts, and clipping to it (clip 0: none); one block */
__global__ void square_total(const double *partial, int64_t parts, double grad_scale, double clip,
                             found *out) {
    double s = 0;
    for (int64_t i = threadIdx.x; i < parts; i += THREADS)
        s += partial[i];
    s = block_sum(s);
    if (threadIdx.x == 0) {
        double norm = sqrt(s) * fabs(grad_scale);
        bool over = clip > 0 && norm > clip;
        out->norm = norm;
        out->grad_scale = over ? grad_scale * (clip / (norm + 1e-6)) : grad_scale;
    }
}

/* The last stretch of which `at` is not before the given number. */
template <class F>
__device__ __forceinline__ int stretch_at(int count, int64_t number, const F &at) {
    int lo = 0, hi = count - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (at(mid) <= number)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

/* partial[block][3] = sums of w^2, w g and g^2 over a part of a matrix */
__global__ void layer_part(const float *w, const float *g, double *partial,
                           const stretch *stretches, int count) {
    const stretch &s =
        stretches[stretch_at(count, blockIdx.x, [=](int i) { return stretches[i].part; })];
    int64_t first = ((int64_t)blockIdx.x - s.part) * PART;
    int64_t end = first + PART < s.count ? first + PART : s.count;
    double ww = 0, wg = 0, gg = 0;
    for (int64_t i = s.first + first + threadIdx.x; i < s.first + end; i += THREADS) {
        double a = w[i], b = g[i];
        ww += a * a;
        wg += a * b;
        gg += b * b;
    }
    ww = block_sum(ww);
    wg = block_sum(wg);
    gg = block_sum(gg);
    if (threadIdx.x == 0) {
        double *p = partial + (int64_t)blockIdx.x * 3;
        p[0] = ww, p[1] = wg, p[2] = gg;
    }
}

/* LARS: rest1 of a matrix = trust |w| / |g|, g with its factor and weight decay; 1 where either is
 * 0. A block a stretch; f NULL: the factor is grad_scale. */
__global__ void layer_ratio(const double *partial, stretch *stretches, const found *f,
                            double grad_scale, double trust) {
    stretch &s = stretches[blockIdx.x];
    double sums[3] = {0, 0, 0};
    if (s.parts == 0)
        return;
    UNROLL for (int k = 0; k < 3; k++) {
        double sum = 0;
        for (int64_t i = threadIdx.x; i < s.parts; i += THREADS)
            sum += partial[(s.part + i) * 3 + k];
        sums[k] = block_sum(sum);
    }
    if (threadIdx.x == 0) {
        double c = f ? f->grad_scale : grad_scale, d = s.decay;
        double gg = c * c * sums[2] + 2 * c * d * sums[1] + d * d * sums[0];
        s.k.rest1 = (float)(sums[0] > 0 && gg > 0 ? trust * sqrt(sums[0] / gg) : 1);
    }
}

__device__ __forceinline__ void update(float &w, float &g, float &m, float *v,
                                       const coefficients &k) {
    float d = g * k.grad_scale + w * k.decay_in;
    m = m * k.beta1 + d * k.rest1;
    if (v) {
        w *= k.decay_out;
        *v = *v * k.beta2 + d * d * k.rest2;
        w -= m * k.step / (sqrtf(*v) * k.root + k.eps);
    } else {
        w -= m * k.step;
    }
    g = 0.0f;
}

/* w, g, m, v: arenas of n floats, n a multiple of 4 (v NULL: no second moment; f NULL: the factor
 * of the gradients is each stretch's own) */
__global__ void optim_step(float *w, float *g, float *m, float *v, bf16 *shadow, int64_t n,
                           const stretch *stretches, int count, const found *f) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n)
        return;
    const stretch &s = stretches[stretch_at(count, i, [=](int k) { return stretches[k].first; })];
    coefficients k = s.k;
    float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
    float4 W = *(float4 *)(w + i), G = *(float4 *)(g + i), M = *(float4 *)(m + i);
    float4 V = v ? *(float4 *)(v + i) : zero;
    if (f)
        k.grad_scale = (float)f->grad_scale;
    update(W.x, G.x, M.x, v ? &V.x : NULL, k);
    update(W.y, G.y, M.y, v ? &V.y : NULL, k);
    update(W.z, G.z, M.z, v ? &V.z : NULL, k);
    update(W.w, G.w, M.w, v ? &V.w : NULL, k);
    *(float4 *)(w + i) = W;
    *(float4 *)(g + i) = G;
    *(float4 *)(m + i) = M;
    if (v)
        *(float4 *)(v + i) = V;
    if (s.shadow == NONE)
        return;
    bf16 *h = shadow + i + s.shadow;
    put(h, W.x);
    put(h + 1, W.y);
    put(h + 2, W.z);
    put(h + 3, W.w);
}

static coefficients coefficients_of(const mimic_optim_args *a, const mimic_segment *s) {
    bool adam = a->kind == MIMIC_ADAM || a->kind == MIMIC_ADAMW, matrix = s->rank > 1;
    double lr = a->lr * s->lr_scale, step = lr, root = 0, rest1 = 1 - a->beta1;
    double decay_in = s->weight_decay, decay_out = 1;
    if (a->kind == MIMIC_ADAMW) {
        decay_in = 0;
        decay_out = 1 - lr * s->weight_decay;
    }
    if (adam) {
        step = lr / (1 - pow(a->beta1, (double)a->t));
        root = 1 / sqrt(1 - pow(a->beta2, (double)a->t));
    }
    if (a->kind == MIMIC_SGD)
        rest1 = 1;
    if (a->kind == MIMIC_LARS) {
        decay_in = matrix ? decay_in : 0;
        rest1 = 1; /* of matrices: layer_ratio */
    }
    coefficients k = {(float)a->grad_scale, (float)decay_in, (float)decay_out,      (float)a->beta1,
                      (float)rest1,         (float)a->beta2, (float)(1 - a->beta2), (float)step,
                      (float)root,          (float)a->eps};
    return k;
}

/* What a step needs beside the arenas, in one piece of scratch memory: the table, which goes to the
 * device with every step (learning rates change, and it is small), partial sums, what was found. */
struct scratch {
    size_t bytes, partial_at, found_at;
    stretch *table; /* on the host */
    int count;
    int64_t n, parts; /* elements of the arenas; parts of matrices (LARS) */
};

static mimic_status fill_table(mimic_ctx *ctx, const mimic_optim_args *a, scratch *s) {
    s->count = a->n_segments;
    const mimic_segment *last = &a->segments[s->count - 1];
    s->n = (last->offset + last->count + 3) & ~(int64_t)3;
    s->table = (stretch *)state_of(ctx)->host->alloc(ctx, (size_t)s->count * sizeof(stretch));
    if (!s->table)
        return MIMIC_ENOMEM;
    s->parts = 0;
    for (int i = 0; i < s->count; i++) {
        const mimic_segment *p = &a->segments[i];
        stretch *t = &s->table[i];
        bool summed = a->kind == MIMIC_LARS && p->rank > 1;
        t->first = p->offset;
        t->shadow = p->shadow >= 0 && a->shadow ? p->shadow - p->offset : NONE;
        t->count = p->count;
        t->part = s->parts;
        t->parts = summed ? (p->count + PART - 1) / PART : 0;
        t->decay = p->weight_decay;
        t->k = coefficients_of(a, p);
        s->parts += t->parts;
    }
    size_t table = (size_t)s->count * sizeof(stretch), partial = (size_t)blocks_of(s->n, PART);
    if (partial < (size_t)s->parts * 3)
        partial = (size_t)s->parts * 3;
    s->partial_at = (table + 15) & ~(size_t)15;
    s->found_at = s->partial_at + partial * sizeof(double);
    s->bytes = s->found_at + sizeof(found);
    return MIMIC_OK;
}

static mimic_status run_step(mimic_ctx *ctx, const mimic_optim_args *a, const scratch *s,
                             char *memory) {
    cudaStream_t stream = state_of(ctx)->stream;
    stretch *table = (stretch *)memory;
    double *partial = (double *)(memory + s->partial_at);
    found *f = a->norm || a->clip > 0 ? (found *)(memory + s->found_at) : NULL;
    float *w = (float *)a->w, *g = (float *)a->g;
    unsigned parts = blocks_of(s->n, PART);
    mimic_status st = mimic_cuda_upload(ctx, table, s->table, (size_t)s->count * sizeof *table);
    if (st || s->n == 0)
        return st;
    if (f) {
        LAUNCH(square_part, parts, THREADS, 0, stream, (const float *)g, partial, s->n);
        LAUNCH(square_total, 1, THREADS, 0, stream, (const double *)partial, (int64_t)parts,
               a->grad_scale, a->clip, f);
    }
    if (s->parts > 0) {
        LAUNCH(layer_part, (unsigned)s->parts, THREADS, 0, stream, (const float *)w,
               (const float *)g, partial, (const stretch *)table, s->count);
        LAUNCH(layer_ratio, (unsigned)s->count, THREADS, 0, stream, (const double *)partial, table,
               (const found *)f, a->grad_scale, a->trust);
    }
    LAUNCH(optim_step, blocks_of(s->n, THREADS * 4), THREADS, 0, stream, w, g, (float *)a->m,
           (float *)a->v, (bf16 *)a->shadow, s->n, (const stretch *)table, s->count,
           (const found *)f);
    st = cuda_done(ctx, "optimizer step");
    return st || !a->norm ? st : mimic_cuda_download(ctx, a->norm, &f->norm, sizeof f->norm);
}

mimic_status mimic_cuda_optim_step(mimic_ctx *ctx, const mimic_optim_args *a) {
    const mimic_host *host = state_of(ctx)->host;
    mimic_device *d = &ctx->devices[MIMIC_CUDA];
    scratch s = {};
    void *memory = NULL;
    if (a->norm)
        *a->norm = 0;
    if (a->n_segments == 0)
        return MIMIC_OK;
    mimic_status st = fill_table(ctx, a, &s);
    if (!st)
        st = host->get(d, s.bytes, &memory);
    if (!st)
        st = run_step(ctx, a, &s, (char *)memory);
    if (memory)
        host->put(d, memory, s.bytes);
    host->free(ctx, s.table);
    return st;
}

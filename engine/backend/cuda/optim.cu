/* Passes over flat arrays: gradients added up, sums of squares, and the optimiser's step in one
 * launch over the arenas. */
#include "autograd/optim_impl.h"
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"

enum { THREADS = 256, SQUARES = 16384 };

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
    return cuda_check(ctx, cudaGetLastError(), "accumulate");
}

/* --- sums of squares --- */

/* partial[block] = sum of x^2 over the block's SQUARES elements */
__global__ void square_part(const float *x, double *partial, int64_t n) {
    int64_t first = (int64_t)blockIdx.x * SQUARES;
    int64_t end = first + SQUARES < n ? first + SQUARES : n;
    float s = 0.0f;
    for (int64_t i = first + threadIdx.x; i < end; i += THREADS)
        s += x[i] * x[i];
    double sum = block_sum(s);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* *out = the sum of all parts; one block */
__global__ void square_total(const double *partial, int64_t parts, double *out) {
    double s = 0;
    for (int64_t i = threadIdx.x; i < parts; i += THREADS)
        s += partial[i];
    s = block_sum(s);
    if (threadIdx.x == 0)
        *out = s;
}

mimic_status mimic_cuda_sum_squares(mimic_ctx *ctx, mimic_dtype, const void *x, int64_t n,
                                    double *out) {
    cuda_state *s = state_of(ctx);
    mimic_device *d = &ctx->devices[MIMIC_CUDA];
    unsigned parts = blocks_of(n, SQUARES);
    size_t bytes = (parts + 1) * sizeof(double);
    void *memory;
    *out = 0;
    if (n == 0)
        return MIMIC_OK;
    mimic_status st = s->host->get(d, bytes, &memory);
    if (st)
        return st;
    double *partial = (double *)memory;
    LAUNCH(square_part, parts, THREADS, 0, s->stream, (const float *)x, partial, n);
    LAUNCH(square_total, 1, THREADS, 0, s->stream, (const double *)partial, (int64_t)parts,
           partial + parts);
    st = cuda_check(ctx, cudaGetLastError(), "sum of squares");
    if (!st)
        st = mimic_cuda_download(ctx, out, partial + parts, sizeof *out);
    s->host->put(d, memory, bytes);
    return st;
}

/* --- the optimiser --- */

/* g = grad_scale g + decay_in w; Adam: w *= decay_out, m and v follow, w -= step m / (root sqrt(v)
 * + eps); others: m = beta1 m + rest1 g, w -= step m. As the CPU's (cpu/optim.c). */
struct coefficients {
    float grad_scale, decay_in, decay_out, beta1, rest1, beta2, rest2, step, root, eps;
};

/* A parameter's stretch of the arenas, with the padding behind it, which stays zero. */
struct stretch {
    int64_t first;  /* element of the arenas, a multiple of 64 */
    int64_t shadow; /* what to add to an index for the bf16 copy; NONE: there is none */
    coefficients k;
};
#define NONE INT64_MIN

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

/* w, g, m, v: arenas of n floats, n a multiple of 4 (v NULL: no second moment) */
__global__ void optim_step(float *w, float *g, float *m, float *v, bf16 *shadow, int64_t n,
                           const stretch *stretches, int count) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n)
        return;
    int lo = 0, hi = count - 1; /* the last stretch that begins at i or before */
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (stretches[mid].first <= i)
            lo = mid;
        else
            hi = mid - 1;
    }
    const stretch &s = stretches[lo];
    float4 zero = {0.0f, 0.0f, 0.0f, 0.0f};
    float4 W = *(float4 *)(w + i), G = *(float4 *)(g + i), M = *(float4 *)(m + i);
    float4 V = v ? *(float4 *)(v + i) : zero;
    update(W.x, G.x, M.x, v ? &V.x : NULL, s.k);
    update(W.y, G.y, M.y, v ? &V.y : NULL, s.k);
    update(W.z, G.z, M.z, v ? &V.z : NULL, s.k);
    update(W.w, G.w, M.w, v ? &V.w : NULL, s.k);
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
        rest1 = matrix ? s->trust : 1;
    }
    coefficients k = {(float)a->grad_scale, (float)decay_in, (float)decay_out,      (float)a->beta1,
                      (float)rest1,         (float)a->beta2, (float)(1 - a->beta2), (float)step,
                      (float)root,          (float)a->eps};
    return k;
}

/* The table goes to the device with every step: learning rates change, and it is small. */
mimic_status mimic_cuda_optim_step(mimic_ctx *ctx, const mimic_optim_args *a) {
    cuda_state *s = state_of(ctx);
    mimic_device *d = &ctx->devices[MIMIC_CUDA];
    int count = a->n_segments;
    size_t bytes = (size_t)count * sizeof(stretch);
    if (count == 0)
        return MIMIC_OK;
    const mimic_segment *last = &a->segments[count - 1];
    int64_t n = (last->offset + last->count + 3) & ~(int64_t)3;
    stretch *table = (stretch *)s->host->alloc(ctx, bytes);
    void *memory = NULL;
    if (!table)
        return MIMIC_ENOMEM;
    for (int i = 0; i < count; i++) {
        const mimic_segment *p = &a->segments[i];
        table[i].first = p->offset;
        table[i].shadow = p->shadow >= 0 && a->shadow ? p->shadow - p->offset : NONE;
        table[i].k = coefficients_of(a, p);
    }
    mimic_status st = s->host->get(d, bytes, &memory);
    if (!st)
        st = mimic_cuda_upload(ctx, memory, table, bytes);
    if (!st && n > 0) {
        LAUNCH(optim_step, blocks_of(n, THREADS * 4), THREADS, 0, s->stream, (float *)a->w,
               (float *)a->g, (float *)a->m, (float *)a->v, (bf16 *)a->shadow, n,
               (const stretch *)memory, count);
        st = cuda_check(ctx, cudaGetLastError(), "optimizer step");
    }
    s->host->put(d, memory, bytes);
    s->host->free(ctx, table);
    return st;
}

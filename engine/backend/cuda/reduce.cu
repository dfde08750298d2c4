/* sum, mean, max, argmax and max_bwd over the middle axis of [outer,len,inner]. */
#include "backend/cuda/kernel.h"

enum { THREADS = 256 };

struct span {
    int64_t outer, len, inner;
};

/* axis as in the record; one below -rank means all. */
static span span_of(int rank, const int64_t *shape, int64_t axis) {
    span s = {1, 1, 1};
    bool all = axis < -rank;
    axis += axis < 0 ? rank : 0;
    for (int k = 0; k < rank; k++)
        (all || k == axis ? s.len : k < axis ? s.outer : s.inner) *= shape[k];
    return s;
}

static mimic_status sum_of(mimic_call *c, bool mean) {
    const mimic_tensor *x = c->in[0];
    span s = span_of(x->rank, x->shape, c->attrs.v[0].i);
    const int64_t n[3] = {s.outer, s.len, s.inner};
    const bool keep[3] = {true, false, true};
    mimic_status st = cuda_sum(c->ctx, x->dtype, mimic_data(x), mimic_data(c->out[0]), 3, n, keep,
                               mean ? (float)(1.0 / (double)s.len) : 1.0f);
    return st ? st : done(c);
}

KERNEL(sum) {
    return sum_of(c, false);
}

KERNEL(mean) {
    return sum_of(c, true);
}

/* --- largest: the greatest key, which is value and position, the first of equals being greater ---
 */

typedef unsigned long long key;

template <class T> __device__ __forceinline__ key key_of(T x, int64_t i) {
    return (key)ordered(get(x)) << 32 | (0xffffffffu - (unsigned)i);
}

template <class T>
__device__ __forceinline__ void choose(key best, const T *x, int64_t step, T *y, int32_t *index) {
    unsigned i = 0xffffffffu - (unsigned)best;
    if (y)
        *y = x[i * step];
    if (index)
        *index = (int32_t)i;
}

/* y, index [rows] (either may be NULL) of x[rows,len]; a warp, or a block, for a row */
template <class T>
__global__ void max_rows(const T *x, T *y, int32_t *index, int64_t rows, int64_t len) {
    SHARED(key, warps, 32);
    int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    key best = 0;
    if (r >= rows)
        return;
    x += r * len;
    for (int64_t i = threadIdx.x; i < len; i += blockDim.x) {
        key k = key_of(x[i], i);
        best = k > best ? k : best;
    }
    for (int o = 16; o > 0; o >>= 1) {
        key k = __shfl_xor_sync(0xffffffffu, best, o);
        best = k > best ? k : best;
    }
    if (blockDim.x > 32) {
        if (threadIdx.x % 32 == 0)
            warps[threadIdx.x / 32] = best;
        __syncthreads();
        for (unsigned w = 0; w < blockDim.x / 32; w++)
            best = warps[w] > best ? warps[w] : best;
    }
    if (threadIdx.x == 0)
        choose(best, x, 1, y ? y + r : NULL, index ? index + r : NULL);
}

/* y, index [outer,inner] of x[outer,len,inner]; a thread for each result */
template <class T> __global__ void max_columns(const T *x, T *y, int32_t *index, span s) {
    int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    key best = 0;
    if (r >= s.outer * s.inner)
        return;
    x += r / s.inner * s.len * s.inner + r % s.inner;
    for (int64_t i = 0; i < s.len; i++) {
        key k = key_of(x[i * s.inner], i);
        best = k > best ? k : best;
    }
    choose(best, x, s.inner, y ? y + r : NULL, index ? index + r : NULL);
}

/* dx[outer,len,inner], zero before: dy[outer,inner] at the positions of index */
template <class T>
__global__ void max_scatter(const T *dy, const int32_t *index, T *dx, span s, fault f) {
    int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= s.outer * s.inner)
        return;
    if (index[r] < 0 || index[r] >= s.len)
        f.report(r);
    else
        dx[(r / s.inner * s.len + index[r]) * s.inner + r % s.inner] = dy[r];
}

template <class T>
static void run_max(mimic_call *c, const span &s, void *out, const mimic_tensor *at) {
    const T *x = (const T *)mimic_data(c->in[0]);
    T *y = (T *)out;
    int32_t *index = at ? (int32_t *)mimic_data(at) : NULL;
    int64_t results = s.outer * s.inner;
    cudaStream_t stream = state_of(c->ctx)->stream;
    if (results == 0)
        return;
    if (s.inner > 1)
        LAUNCH(max_columns<T>, blocks_of(results, THREADS), THREADS, 0, stream, x, y, index, s);
    else if (s.len > 1024)
        LAUNCH(max_rows<T>, blocks_of(results, 1), THREADS, 0, stream, x, y, index, results, s.len);
    else
        LAUNCH(max_rows<T>, blocks_of(results, 4), dim3(32, 4), 0, stream, x, y, index, results,
               s.len);
}

KERNEL(max) {
    span s = span_of(c->in[0]->rank, c->in[0]->shape, c->attrs.v[0].i);
    BY_FLOAT(c->in[0]->dtype, run_max)(c, s, mimic_data(c->out[0]), c->save[0]);
    return done(c);
}

KERNEL(argmax) {
    span s = span_of(c->in[0]->rank, c->in[0]->shape, -1);
    BY_FLOAT(c->in[0]->dtype, run_max)(c, s, NULL, c->out[0]);
    return done(c);
}

template <class T> static void run_max_bwd(mimic_call *c, const span &s) {
    int64_t results = s.outer * s.inner;
    if (results > 0)
        LAUNCH(max_scatter<T>, blocks_of(results, THREADS), THREADS, 0, state_of(c->ctx)->stream,
               (const T *)mimic_data(c->in[0]), (const int32_t *)mimic_data(c->in[1]),
               (T *)mimic_data(c->out[0]), s, fault_of(c, "index", s.len));
}

KERNEL(max_bwd) {
    const mimic_tensor *dx = c->out[0];
    span s = span_of(dx->rank, dx->shape, c->attrs.v[0].i);
    size_t bytes = (size_t)mimic_numel(dx) * element_size(dx->dtype);
    if (bytes > 0)
        cudaMemsetAsync(mimic_data(dx), 0, bytes, state_of(c->ctx)->stream);
    BY_FLOAT(dx->dtype, run_max_bwd)(c, s);
    return done(c);
}

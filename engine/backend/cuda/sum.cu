/* Sums over axes. Stage one: blocks of 32 outputs (packs of them where they lie side by side) by 8
 * rows of the reduced axes, cut into `parts` whose number depends on the shape alone; stage two
 * adds the parts, each thread every eighth, in fixed order. */
#include "backend/cuda/kernel.h"

enum { LANES = 32, ROWS = 8, PART = 512 };

/* Merged axes, kept ones first: y's index runs over them, a sum over the others. */
struct axes {
    int kept, reduced;
    int64_t n[2 * MIMIC_MAX_RANK], stride[2 * MIMIC_MAX_RANK];
};

__device__ __forceinline__ int64_t offset(const axes &a, int from, int count, int64_t i) {
    int64_t at = 0;
    for (int k = from + count - 1; k >= from; k--) {
        at += i % a.n[k] * a.stride[k];
        i /= a.n[k];
    }
    return at;
}

/* partial[parts,outs] or y[outs]: sums of x over its share of `terms` */
template <class T, class Y>
__global__ void sum_part(const T *x, Y *y, int64_t outs, int64_t terms, int64_t per, axes a,
                         float factor) {
    SHARED(float, rows, ROWS *LANES);
    int64_t o = (int64_t)blockIdx.x * LANES + threadIdx.x;
    int64_t first = (int64_t)blockIdx.y * per, end = first + per < terms ? first + per : terms;
    float s = 0.0f;
    if (o < outs) {
        const T *base = x + offset(a, 0, a.kept, o);
        for (int64_t r = first + threadIdx.y; r < end; r += ROWS)
            s += get(base[offset(a, a.kept, a.reduced, r)]);
    }
    rows[threadIdx.y * LANES + threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y > 0 || o >= outs)
        return;
    for (int k = 1; k < ROWS; k++)
        s += rows[k * LANES + threadIdx.x];
    put(y + (int64_t)blockIdx.y * outs + o, s * factor);
}

/* The same for outputs side by side, whose terms lie `step` apart (the columns of a matrix): a
 * thread has a pack of columns. */
template <class T, class Y>
__global__ void sum_columns(const T *x, Y *y, int64_t outs, int64_t terms, int64_t per,
                            int64_t step, float factor) {
    const int N = pack<T>::N;
    SHARED(float, rows, ROWS *N *LANES);
    int64_t o = ((int64_t)blockIdx.x * LANES + threadIdx.x) * N;
    int64_t first = (int64_t)blockIdx.y * per, end = first + per < terms ? first + per : terms;
    float s[N];
    UNROLL for (int j = 0; j < N; j++) s[j] = 0.0f;
    for (int64_t r = first + threadIdx.y; o < outs && r < end; r += ROWS) {
        pack<T> v = *(const pack<T> *)(x + r * step + o);
        UNROLL for (int j = 0; j < N; j++) s[j] += get(v.at[j]);
    }
    UNROLL for (int j = 0; j < N; j++) rows[(threadIdx.y * N + j) * LANES + threadIdx.x] = s[j];
    __syncthreads();
    for (int i = (int)(threadIdx.y * LANES + threadIdx.x); i < N * LANES; i += ROWS * LANES) {
        float total = rows[i];
        for (int k = 1; k < ROWS; k++)
            total += rows[k * N * LANES + i];
        int64_t column = ((int64_t)blockIdx.x * LANES + i % LANES) * N + i / LANES;
        if (column < outs)
            put(y + (int64_t)blockIdx.y * outs + column, total * factor);
    }
}

/* One output of many terms, which lie side by side: a block adds its share with all its threads. */
template <class T, class Y>
__global__ void sum_run(const T *x, Y *y, int64_t terms, int64_t per, float factor) {
    SHARED(float, warps, 32);
    int64_t first = (int64_t)blockIdx.x * per, end = first + per < terms ? first + per : terms;
    x += (int64_t)blockIdx.y * terms;
    float s = 0.0f;
    for (int64_t r = first + threadIdx.x; r < end; r += blockDim.x)
        s += get(x[r]);
    s = warp_sum(s);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x >= 32)
        return;
    s = warp_sum(threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0)
        put(y + (int64_t)blockIdx.y * gridDim.x + blockIdx.x, s * factor);
}

/* y[outs] = factor * (partial[0] + partial[1] + ...); parts of an output lie `step` apart */
template <class Y>
__global__ void sum_parts(const float *partial, Y *y, int64_t outs, int64_t parts, int64_t step,
                          int64_t across, float factor) {
    SHARED(float, rows, ROWS *LANES);
    int64_t o = (int64_t)blockIdx.x * LANES + threadIdx.x;
    float s = 0.0f;
    for (int64_t p = threadIdx.y; o < outs && p < parts; p += ROWS)
        s += partial[o * across + p * step];
    rows[threadIdx.y * LANES + threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y > 0 || o >= outs)
        return;
    for (int k = 1; k < ROWS; k++)
        s += rows[k * LANES + threadIdx.x];
    put(y + o, s * factor);
}

static axes split(int rank, const int64_t *n, const bool *keep) {
    axes a = {};
    int64_t stride[MIMIC_MAX_RANK], step = 1;
    for (int k = rank - 1; k >= 0; k--) {
        stride[k] = step;
        step *= n[k];
    }
    for (int kept = 1; kept >= 0; kept--) {
        int first = kept ? 0 : a.kept, count = 0, last = -2;
        for (int k = 0; k < rank; k++) {
            if (keep[k] != (kept != 0) || n[k] == 1)
                continue;
            int at = first + count - 1;
            if (count > 0 && last == k - 1 && a.stride[at] == stride[k] * n[k]) {
                a.n[at] *= n[k];
                a.stride[at] = stride[k];
            } else {
                a.n[first + count] = n[k];
                a.stride[first + count++] = stride[k];
            }
            last = k;
        }
        if (kept)
            a.kept = count;
        else
            a.reduced = count;
    }
    return a;
}

/* Whether x is a matrix whose columns are the outputs, to be read in packs. */
template <class T> static bool in_columns(const axes &a, const T *x) {
    const int N = pack<T>::N;
    return a.kept == 1 && a.stride[0] == 1 && a.n[0] % N == 0 && a.reduced == 1 &&
           a.stride[1] % N == 0 && wide(x);
}

/* Whether the terms of an output lie side by side, outputs one after another. */
static bool in_a_row(const axes &a, int64_t terms) {
    return (a.reduced == 0 || (a.reduced == 1 && a.stride[a.kept] == 1)) &&
           (a.kept == 0 || (a.kept == 1 && a.stride[0] == terms));
}

template <class T, class Y>
static mimic_status sum_of(mimic_ctx *ctx, const T *x, Y *y, int64_t outs, int64_t terms,
                           const axes &a, float factor) {
    cuda_state *s = state_of(ctx);
    bool rows = in_a_row(a, terms) && terms >= 128 && outs <= 65535;
    int64_t per = rows ? 8192 : PART, parts = (terms + per - 1) / per;
    if (parts > 256) {
        per = (terms + 255) / 256;
        parts = (terms + per - 1) / per;
    }
    void *memory = NULL;
    size_t bytes = (size_t)(parts * outs) * sizeof(float);
    if (parts > 1) {
        mimic_status st = s->host->get(&ctx->devices[MIMIC_CUDA], bytes, &memory);
        if (st)
            return st;
    }
    float *partial = (float *)memory;
    bool columns = !rows && in_columns(a, x);
    dim3 grid(blocks_of(outs, columns ? LANES * pack<T>::N : LANES), (unsigned)parts);
    dim3 block(LANES, ROWS);
    if (rows && parts > 1)
        LAUNCH((sum_run<T, float>), dim3((unsigned)parts, (unsigned)outs), 256, 0, s->stream, x,
               partial, terms, per, 1.0f);
    else if (rows)
        LAUNCH((sum_run<T, Y>), dim3(1, (unsigned)outs), 256, 0, s->stream, x, y, terms, per,
               factor);
    else if (columns && parts > 1)
        LAUNCH((sum_columns<T, float>), grid, block, 0, s->stream, x, partial, outs, terms, per,
               a.stride[1], 1.0f);
    else if (columns)
        LAUNCH((sum_columns<T, Y>), grid, block, 0, s->stream, x, y, outs, terms, per, a.stride[1],
               factor);
    else if (parts > 1)
        LAUNCH((sum_part<T, float>), grid, block, 0, s->stream, x, partial, outs, terms, per, a,
               1.0f);
    else
        LAUNCH((sum_part<T, Y>), grid, block, 0, s->stream, x, y, outs, terms, per, a, factor);
    if (parts > 1) {
        LAUNCH(sum_parts<Y>, blocks_of(outs, LANES), block, 0, s->stream, partial, y, outs, parts,
               rows ? (int64_t)1 : outs, rows ? parts : (int64_t)1, factor);
        s->host->put(&ctx->devices[MIMIC_CUDA], memory, bytes);
    }
    return MIMIC_OK;
}

mimic_status cuda_sum(mimic_ctx *ctx, int dtype, const void *x, void *y, int rank, const int64_t *n,
                      const bool *keep, float factor) {
    int64_t outs = 1, terms = 1;
    for (int k = 0; k < rank; k++)
        (keep[k] ? outs : terms) *= n[k];
    axes a = split(rank, n, keep);
    if (outs == 0)
        return MIMIC_OK;
    if (terms == 0) {
        cudaMemsetAsync(y, 0, (size_t)outs * element_size(dtype), state_of(ctx)->stream);
        return MIMIC_OK;
    }
    return dtype == MIMIC_F32 ? sum_of(ctx, (const float *)x, (float *)y, outs, terms, a, factor)
                              : sum_of(ctx, (const bf16 *)x, (bf16 *)y, outs, terms, a, factor);
}

/* a[n] | b[n] = columns of partial[parts,2n]; ROWS * 2 rows of threads share the parts */
__global__ void sum_pairs(const float *partial, int64_t parts, int64_t n, float *a, float *b) {
    SHARED(float, rows, 2 * ROWS * LANES);
    int64_t i = (int64_t)blockIdx.x * LANES + threadIdx.x;
    float s = 0.0f;
    for (int64_t p = threadIdx.y; i < 2 * n && p < parts; p += 2 * ROWS)
        s += partial[p * 2 * n + i];
    rows[threadIdx.y * LANES + threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.y > 0 || i >= 2 * n)
        return;
    for (int k = 1; k < 2 * ROWS; k++)
        s += rows[k * LANES + threadIdx.x];
    if (i < n)
        a[i] = s;
    else
        b[i - n] = s;
}

void cuda_sum_pairs(mimic_ctx *ctx, const float *partial, int64_t parts, int64_t n, float *a,
                    float *b) {
    LAUNCH(sum_pairs, blocks_of(2 * n, LANES), dim3(LANES, 2 * ROWS), 0, state_of(ctx)->stream,
           partial, parts, n, a, b);
}

mimic_status cuda_col_sum(mimic_ctx *ctx, int dtype, const void *x, float *y, int64_t rows,
                          int64_t n) {
    const int64_t shape[2] = {rows, n};
    const bool keep[2] = {false, true};
    axes a = split(2, shape, keep);
    if (n == 0)
        return MIMIC_OK;
    if (rows == 0)
        return cuda_check(ctx, cudaMemsetAsync(y, 0, (size_t)n * 4, state_of(ctx)->stream),
                          "clear");
    return dtype == MIMIC_F32 ? sum_of(ctx, (const float *)x, y, n, rows, a, 1.0f)
                              : sum_of(ctx, (const bf16 *)x, y, n, rows, a, 1.0f);
}

KERNEL(sum_to) {
    const mimic_tensor *x = c->in[0], *y = c->out[0];
    bool keep[MIMIC_MAX_RANK];
    int lead = x->rank - y->rank;
    for (int k = 0; k < x->rank; k++)
        keep[k] = k >= lead && y->shape[k - lead] == x->shape[k];
    mimic_status st =
        cuda_sum(c->ctx, x->dtype, mimic_data(x), mimic_data(y), x->rank, x->shape, keep, 1.0f);
    return st ? st : done(c);
}

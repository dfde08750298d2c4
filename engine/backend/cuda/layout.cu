/* Copies to another layout or dtype: contiguous (any strides), concat, slice_bwd, cast. All but
 * cast know element sizes only. */
#include "backend/cuda/kernel.h"

enum { THREADS = 256, TILE = 32 };

/* Source axes in output order, merged where the strides run on. */
struct layout {
    int rank;
    int64_t n[MIMIC_MAX_RANK], stride[MIMIC_MAX_RANK];
};

/* y[n] contiguous from x with the layout's strides */
template <class T> __global__ void gather(const T *x, T *y, int64_t n, layout l) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, rest = i, at = 0;
    if (i >= n)
        return;
    for (int k = l.rank - 1; k >= 0; k--) {
        at += rest % l.n[k] * l.stride[k];
        rest /= l.n[k];
    }
    y[i] = x[at];
}

/* The two last axes exchanged: y[m,rows,cols] from x with strides 1 along rows, `step` along cols.
 * A block moves a tile by way of shared memory, so that both sides run along addresses. */
template <class T>
__global__ void transpose(const T *x, T *y, int64_t rows, int64_t cols, int64_t step, layout l) {
    SHARED(T, tile, TILE * (TILE + 1));
    int64_t at = 0, rest = blockIdx.z;
    for (int k = l.rank - 3; k >= 0; k--) {
        at += rest % l.n[k] * l.stride[k];
        rest /= l.n[k];
    }
    int64_t r0 = (int64_t)blockIdx.y * TILE, c0 = (int64_t)blockIdx.x * TILE;
    for (unsigned i = threadIdx.y; i < TILE; i += blockDim.y)
        if (r0 + threadIdx.x < rows && c0 + i < cols)
            tile[i * (TILE + 1) + threadIdx.x] = x[at + (c0 + i) * step + r0 + threadIdx.x];
    __syncthreads();
    y += (int64_t)blockIdx.z * rows * cols;
    for (unsigned i = threadIdx.y; i < TILE; i += blockDim.y)
        if (r0 + i < rows && c0 + threadIdx.x < cols)
            y[(r0 + i) * cols + c0 + threadIdx.x] = tile[threadIdx.x * (TILE + 1) + i];
}

static layout merged(const mimic_tensor *x) {
    layout l = {};
    for (int k = 0; k < x->rank; k++) {
        int r = l.rank - 1;
        if (x->shape[k] == 1)
            continue;
        if (r >= 0 && l.stride[r] == x->stride[k] * x->shape[k]) {
            l.n[r] *= x->shape[k];
            l.stride[r] = x->stride[k];
            continue;
        }
        l.n[l.rank] = x->shape[k];
        l.stride[l.rank++] = x->stride[k];
    }
    return l;
}

/* Elements that run on along the last axis are moved in larger ones, up to 16 bytes: the size that
 * fits addresses, rows and strides. */
static size_t widen(layout *l, size_t size, const void *x, const void *y) {
    int last = l->rank - 1;
    while (size < 16 && l->stride[last] == 1 && l->n[last] % 2 == 0 &&
           (((uintptr_t)x | (uintptr_t)y) & (2 * size - 1)) == 0) {
        for (int k = 0; k < last; k++)
            if (l->stride[k] % 2 != 0)
                return size;
        for (int k = 0; k < last; k++)
            l->stride[k] /= 2;
        l->n[last] /= 2;
        size *= 2;
    }
    return size;
}

template <class T> static void copy_gathered(mimic_call *c, const layout &l, int64_t n) {
    LAUNCH(gather<T>, blocks_of(n, THREADS), THREADS, 0, state_of(c->ctx)->stream,
           (const T *)mimic_data(c->in[0]), (T *)mimic_data(c->out[0]), n, l);
}

/* The last two axes exchanged, where it is that and fits the grid; else false. */
template <class T> static bool copy_transposed(mimic_call *c, const layout &l, int64_t n) {
    int r = l.rank;
    if (r < 2 || l.stride[r - 2] != 1 || l.stride[r - 1] == 0)
        return false;
    int64_t rows = l.n[r - 2], cols = l.n[r - 1], m = n / (rows * cols);
    dim3 grid(blocks_of(cols, TILE), blocks_of(rows, TILE), (unsigned)m);
    if (grid.y > 65535 || m > 65535)
        return false;
    LAUNCH(transpose<T>, grid, dim3(TILE, 8), 0, state_of(c->ctx)->stream,
           (const T *)mimic_data(c->in[0]), (T *)mimic_data(c->out[0]), rows, cols, l.stride[r - 1],
           l);
    return true;
}

static void rearrange(mimic_call *c, layout l, int64_t n) {
    size_t size = element_size(c->in[0]->dtype);
    if (size == 4   ? copy_transposed<uint32_t>(c, l, n)
        : size == 2 ? copy_transposed<uint16_t>(c, l, n)
                    : copy_transposed<uint8_t>(c, l, n))
        return;
    size_t wider = widen(&l, size, mimic_data(c->in[0]), mimic_data(c->out[0]));
    n /= (int64_t)(wider / size);
    switch (wider) {
    case 16:
        return copy_gathered<uint4>(c, l, n);
    case 8:
        return copy_gathered<uint2>(c, l, n);
    case 4:
        return copy_gathered<uint32_t>(c, l, n);
    case 2:
        return copy_gathered<uint16_t>(c, l, n);
    default:
        return copy_gathered<uint8_t>(c, l, n);
    }
}

KERNEL(contiguous) {
    int64_t n = mimic_numel(c->in[0]);
    layout l = merged(c->in[0]);
    if (n == 0)
        return MIMIC_OK;
    if (l.rank == 0 || (l.rank == 1 && l.stride[0] == 1))
        cudaMemcpyAsync(mimic_data(c->out[0]), mimic_data(c->in[0]),
                        (size_t)n * element_size(c->in[0]->dtype), cudaMemcpyDeviceToDevice,
                        state_of(c->ctx)->stream);
    else
        rearrange(c, l, n);
    return done(c);
}

/* Bytes from `axis` on, for one index of the axes before it, whose number is *outer. */
static size_t row_bytes(const mimic_tensor *t, int axis, size_t *outer) {
    size_t bytes = element_size(t->dtype);
    *outer = 1;
    for (int i = 0; i < t->rank; i++)
        if (i < axis)
            *outer *= (size_t)t->shape[i];
        else
            bytes *= (size_t)t->shape[i];
    return bytes;
}

/* `rows` rows of `bytes`, one after another, to rows `pitch` apart. The call for that ends at
 * pitches of 2^31 - 1 bytes; a single row needs none, so few rows as are longer go one by one. */
static void copy_rows(mimic_call *c, char *dst, size_t pitch, const void *src, size_t bytes,
                      size_t rows) {
    cudaStream_t stream = state_of(c->ctx)->stream;
    if (rows > 1 && pitch <= INT32_MAX) {
        cudaMemcpy2DAsync(dst, pitch, src, bytes, bytes, rows, cudaMemcpyDeviceToDevice, stream);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        cudaMemcpyAsync(dst + i * pitch, (const char *)src + i * bytes, bytes,
                        cudaMemcpyDeviceToDevice, stream);
}

KERNEL(concat) {
    const mimic_tensor *y = c->out[0];
    int axis = (int)(c->attrs.v[0].i < 0 ? c->attrs.v[0].i + y->rank : c->attrs.v[0].i);
    size_t outer, total = row_bytes(y, axis, &outer), before = 0;
    for (int k = 0; k < c->n_in && mimic_numel(y) > 0; k++) {
        if (!c->in[k] || mimic_numel(c->in[k]) == 0)
            continue;
        size_t bytes = row_bytes(c->in[k], axis, &outer);
        copy_rows(c, (char *)mimic_data(y) + before, total, mimic_data(c->in[k]), bytes, outer);
        before += bytes;
    }
    return done(c);
}

KERNEL(slice_bwd) {
    const mimic_tensor *dy = c->in[0], *dx = c->out[0];
    cudaStream_t stream = state_of(c->ctx)->stream;
    int axis = (int)(c->attrs.v[0].i < 0 ? c->attrs.v[0].i + dx->rank : c->attrs.v[0].i);
    int64_t start = c->attrs.v[1].i + (c->attrs.v[1].i < 0 ? dx->shape[axis] : 0);
    if (mimic_numel(dx) == 0)
        return MIMIC_OK;
    size_t outer, total = row_bytes(dx, axis, &outer), bytes = row_bytes(dy, axis, &outer);
    size_t before = total / (size_t)dx->shape[axis] * (size_t)start;
    cudaMemsetAsync(mimic_data(dx), 0, outer * total, stream);
    if (bytes > 0)
        copy_rows(c, (char *)mimic_data(dx) + before, total, mimic_data(dy), bytes, outer);
    return done(c);
}

/* --- cast --- */

/* Floats to integers are cut towards zero and held in range; NaN gives 0. */
__device__ __forceinline__ void convert(float x, float *y) {
    *y = x;
}
__device__ __forceinline__ void convert(float x, bf16 *y) {
    put(y, x);
}
__device__ __forceinline__ void convert(float x, int32_t *y) {
    *y = x >= 2147483648.0f    ? 2147483647
         : x <= -2147483648.0f ? -2147483647 - 1
         : x == x              ? (int32_t)x
                               : 0;
}
__device__ __forceinline__ void convert(float x, uint8_t *y) {
    *y = x >= 255.0f ? 255 : x > 0.0f ? (uint8_t)x : 0;
}
__device__ __forceinline__ float get(int32_t x) {
    return (float)x;
}
__device__ __forceinline__ float get(uint8_t x) {
    return (float)x;
}

template <class A, class B> __global__ void cast(const A *x, B *y, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        convert(get(x[i]), y + i);
}

/* Between integers no float lies in between. */
__global__ void i32_to_u8(const int32_t *x, uint8_t *y, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = x[i] >= 255 ? 255 : x[i] > 0 ? (uint8_t)x[i] : 0;
}
__global__ void u8_to_i32(const uint8_t *x, int32_t *y, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = x[i];
}

template <class A, class B> static void run_cast(mimic_call *c) {
    int64_t n = mimic_numel(c->in[0]);
    LAUNCH((cast<A, B>), blocks_of(n, THREADS), THREADS, 0, state_of(c->ctx)->stream,
           (const A *)mimic_data(c->in[0]), (B *)mimic_data(c->out[0]), n);
}

template <class A> static void cast_from(mimic_call *c) {
    switch (c->out[0]->dtype) {
    case MIMIC_F32:
        run_cast<A, float>(c);
        break;
    case MIMIC_BF16:
        run_cast<A, bf16>(c);
        break;
    case MIMIC_I32:
        run_cast<A, int32_t>(c);
        break;
    default:
        run_cast<A, uint8_t>(c);
    }
}

KERNEL(cast) {
    int from = c->in[0]->dtype, to = c->out[0]->dtype;
    const void *x = mimic_data(c->in[0]);
    void *y = mimic_data(c->out[0]);
    int64_t n = mimic_numel(c->in[0]);
    cudaStream_t stream = state_of(c->ctx)->stream;
    if (n == 0)
        return MIMIC_OK;
    if (from == to)
        cudaMemcpyAsync(y, x, (size_t)n * element_size(to), cudaMemcpyDeviceToDevice, stream);
    else if (from == MIMIC_I32 && to == MIMIC_U8)
        LAUNCH(i32_to_u8, blocks_of(n, THREADS), THREADS, 0, stream, (const int32_t *)x,
               (uint8_t *)y, n);
    else if (from == MIMIC_U8 && to == MIMIC_I32)
        LAUNCH(u8_to_i32, blocks_of(n, THREADS), THREADS, 0, stream, (const uint8_t *)x,
               (int32_t *)y, n);
    else if (from == MIMIC_F32)
        cast_from<float>(c);
    else if (from == MIMIC_BF16)
        cast_from<bf16>(c);
    else if (from == MIMIC_I32)
        cast_from<int32_t>(c);
    else
        cast_from<uint8_t>(c);
    return done(c);
}

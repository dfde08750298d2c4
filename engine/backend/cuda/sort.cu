/* argsort of rows. Keys are 64 bits, the value made monotonic and the position below it, so all are
 * different and any way of sorting gives the one stable order. Rows up to TILE keys are sorted in
 * shared memory; longer ones in such tiles, which are then merged two by two. */
#include "backend/cuda/kernel.h"

enum { TILE = 2048, THREADS = 256 };
typedef unsigned long long key;

__device__ __forceinline__ key key_of(float x, int64_t i) {
    return (key)ordered(x) << 32 | (unsigned)i;
}
__device__ __forceinline__ key key_of(int32_t x, int64_t i) {
    return (key)((unsigned)x ^ 0x80000000u) << 32 | (unsigned)i;
}

/* Sorts a tile of x[rows,len], `size` keys (a power of 2, all of them at or below TILE, in dynamic
 * shared memory): a bitonic network. A row has `blocks` blocks. The order goes to y or, if that is
 * NULL, the keys to keys, both [rows,len]. */
template <class T>
__global__ void sort_tiles(const T *x, int32_t *y, key *keys, int64_t len, int size,
                           unsigned blocks) {
    DYNAMIC_SHARED(key, tile);
    int64_t first = (int64_t)(blockIdx.x % blocks) * size;
    int64_t base = (int64_t)(blockIdx.x / blocks) * len + first;
    int n = len - first < size ? (int)(len - first) : size;
    for (int i = (int)threadIdx.x; i < size; i += THREADS)
        tile[i] = i < n ? key_of(x[base + i], first + i) : ~(key)0;
    for (int run = 2; run <= size; run *= 2)
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int p = (int)threadIdx.x; p < size / 2; p += THREADS) {
                int i = 2 * p - (p & (step - 1)), k = i + step;
                key a = tile[i], b = tile[k];
                if ((a > b) == ((i & run) == 0)) {
                    tile[i] = b;
                    tile[k] = a;
                }
            }
        }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        if (y)
            y[base + i] = (int32_t)(unsigned)tile[i];
        else
            keys[base + i] = tile[i];
}

/* Merges sorted runs of keys[rows,len] two by two: each key goes to its place in its own run plus
 * the number of smaller ones in the other. A row has `blocks` blocks. The order to y or, if NULL,
 * the keys to out. */
__global__ void merge_runs(const key *keys, key *out, int32_t *y, int64_t len, int64_t run,
                           unsigned blocks) {
    int64_t i = (int64_t)(blockIdx.x % blocks) * THREADS + threadIdx.x;
    int64_t base = (int64_t)(blockIdx.x / blocks) * len;
    if (i >= len)
        return;
    key k = keys[base + i];
    int64_t pair = i / (2 * run) * 2 * run, middle = pair + run < len ? pair + run : len;
    int64_t end = middle + run < len ? middle + run : len;
    int64_t lo = i < middle ? middle : pair, hi = i < middle ? end : middle, other = lo;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (keys[base + mid] < k)
            lo = mid + 1;
        else
            hi = mid;
    }
    int64_t at = base + pair + (i - (i < middle ? pair : middle)) + (lo - other);
    if (y)
        y[at] = (int32_t)(unsigned)k;
    else
        out[at] = k;
}

template <class T> static mimic_status run_sort(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    cuda_state *s = state_of(c->ctx);
    const T *values = (const T *)mimic_data(x);
    int32_t *y = (int32_t *)mimic_data(c->out[0]);
    int64_t n = mimic_numel(x), len = x->shape[x->rank - 1];
    unsigned rows = (unsigned)(n / len);
    int size = 2;
    while (size < TILE && size < len)
        size *= 2;
    if (len <= TILE) {
        LAUNCH(sort_tiles<T>, rows, THREADS, (size_t)size * sizeof(key), s->stream, values, y,
               nullptr, len, size, 1u);
        return MIMIC_OK;
    }
    size_t bytes = 2 * (size_t)n * sizeof(key);
    void *memory;
    mimic_status st = s->host->get(c->device, bytes, &memory);
    if (st)
        return st;
    key *from = (key *)memory, *to = from + n;
    unsigned tiles = blocks_of(len, TILE), blocks = blocks_of(len, THREADS);
    LAUNCH(sort_tiles<T>, rows * tiles, THREADS, TILE * sizeof(key), s->stream, values, nullptr,
           from, len, TILE, tiles);
    for (int64_t run = TILE; run < len; run *= 2) {
        LAUNCH(merge_runs, rows * blocks, THREADS, 0, s->stream, (const key *)from, to,
               2 * run < len ? NULL : y, len, run, blocks);
        key *swap = from;
        from = to;
        to = swap;
    }
    s->host->put(c->device, memory, bytes);
    return MIMIC_OK;
}

KERNEL(argsort) {
    mimic_status st = MIMIC_OK;
    if (mimic_numel(c->in[0]) > 0)
        st = c->in[0]->dtype == MIMIC_F32 ? run_sort<float>(c) : run_sort<int32_t>(c);
    return st ? st : done(c);
}

/* One pass over elements of one array or of two of equal shape, 16 bytes a thread wherever the
 * addresses allow it: the elementwise operators, and what follows a product. */
#ifndef MIMIC_CUDA_MAP_H
#define MIMIC_CUDA_MAP_H

#include "backend/cuda/activations.h"

enum { MAP_THREADS = 256 };

/* y[n] = f(a[n]); y may be a. `packs`: 16 bytes at once. */
template <class T, class F> __global__ void map_one(const T *a, T *y, int64_t n, bool packs, F f) {
    const int N = pack<T>::N;
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (packs && i + N <= n) {
        pack<T> v = *(const pack<T> *)(a + i);
        for (int k = 0; k < N; k++)
            put(&v.at[k], f(get(v.at[k])));
        *(pack<T> *)(y + i) = v;
    } else {
        for (int64_t end = i + N < n ? i + N : n; i < end; i++)
            put(y + i, f(get(a[i])));
    }
}

/* y[n] = f(a[n], b[n]) */
template <class T, class F>
__global__ void map_two(const T *a, const T *b, T *y, int64_t n, bool packs, F f) {
    const int N = pack<T>::N;
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (packs && i + N <= n) {
        pack<T> v = *(const pack<T> *)(a + i), w = *(const pack<T> *)(b + i);
        for (int k = 0; k < N; k++)
            put(&v.at[k], f(get(v.at[k]), get(w.at[k])));
        *(pack<T> *)(y + i) = v;
    } else {
        for (int64_t end = i + N < n ? i + N : n; i < end; i++)
            put(y + i, f(get(a[i]), get(b[i])));
    }
}

template <class T, class F> static void map(cudaStream_t stream, const T *a, T *y, int64_t n, F f) {
    LAUNCH((map_one<T, F>), blocks_of(n, MAP_THREADS * pack<T>::N), MAP_THREADS, 0, stream, a, y, n,
           wide(a, y), f);
}

template <class T, class F>
static void map(cudaStream_t stream, const T *a, const T *b, T *y, int64_t n, F f) {
    LAUNCH((map_two<T, F>), blocks_of(n, MAP_THREADS * pack<T>::N), MAP_THREADS, 0, stream, a, b, y,
           n, wide(a, b, y), f);
}

#endif

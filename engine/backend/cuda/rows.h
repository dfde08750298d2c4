/* Rows of a matrix, each worked off by a group of threads: the frame of softmax, normalisations and
 * losses. A form says how: P elements are moved at once, N stay in registers of a thread (0: they
 * are read again in each pass, mostly from the cache), G threads share a row. threadIdx.x counts
 * the threads of a row, threadIdx.y the rows of a block. */
#ifndef MIMIC_CUDA_ROWS_H
#define MIMIC_CUDA_ROWS_H

#include "backend/cuda/kernel.h"

template <int P_, int N_, int G_> struct form {
    enum { P = P_, N = N_, G = G_, ROWS = G_ == 32 ? 4 : 1 /* of a block */ };
};

/* Calls f(a form) with the one for rows of n elements T; packs: all addresses are multiples of 16.
 */
template <class T, class F> static void with_form(int64_t n, bool packs, F f) {
    const int W = pack<T>::N;
    packs = packs && n % W == 0;
    if (packs && n <= 1024)
        f(form<W, 32, 32>());
    else if (packs && n <= 4096)
        f(form<W, 32, 128>());
    else if (n <= 1024)
        f(form<1, 0, 32>());
    else
        f(form<1, 0, 256>());
}

/* Launch of a form: LAUNCH((kernel<T, S>), row_grid<S>(rows), row_block<S>(), ...) */
template <class S> static inline dim3 row_grid(int64_t rows) {
    return dim3(blocks_of(rows, S::ROWS));
}
template <class S> static inline dim3 row_block() {
    return dim3(S::G, S::ROWS);
}

/* --- in kernels --- */

/* The row of this thread. A whole group ends when there is no such row. */
template <class S> __device__ __forceinline__ int64_t row_index() {
    return (int64_t)blockIdx.x * S::ROWS + threadIdx.y;
}

/* P elements at x, or to y, by 16 bytes unless P is 1 */
template <int P, class T> __device__ __forceinline__ void load(const T *x, float *v) {
    if constexpr (P == 1) {
        v[0] = get(x[0]);
    } else {
        UNROLL for (int k = 0; k < P; k += pack<T>::N) {
            pack<T> w = *(const pack<T> *)(x + k);
            UNROLL for (int j = 0; j < pack<T>::N; j++) v[k + j] = get(w.at[j]);
        }
    }
}
template <int P, class T> __device__ __forceinline__ void store(T *y, const float *v) {
    if constexpr (P == 1) {
        put(y, v[0]);
    } else {
        UNROLL for (int k = 0; k < P; k += pack<T>::N) {
            pack<T> w;
            UNROLL for (int j = 0; j < pack<T>::N; j++) put(&w.at[j], v[k + j]);
            *(pack<T> *)(y + k) = w;
        }
    }
}

/* Calls f(slot, i) for each i where P elements of this thread begin. */
template <class S, class F> __device__ __forceinline__ void walk(int64_t n, F f) {
    if constexpr (S::N > 0) {
        UNROLL for (int s = 0; s < S::N / S::P; s++) {
            int i = (s * S::G + (int)threadIdx.x) * S::P;
            if (i < (int)n)
                f(s, (int64_t)i);
        }
    } else {
        for (int64_t i = (int64_t)threadIdx.x * S::P; i < n; i += S::G * S::P)
            f(0, i);
    }
}

/* This thread's elements of x[n]. */
template <class T, class S> struct row {
    const T *x;
    float kept[S::N > 0 ? S::N : 1];
    __device__ __forceinline__ row(const T *x_, int64_t n) : x(x_) {
        if constexpr (S::N > 0)
            walk<S>(n, [&](int s, int64_t i) { load<S::P>(x + i, kept + s * S::P); });
    }
    __device__ __forceinline__ void take(int s, int64_t i, float *v) const {
        if constexpr (S::N == 0)
            load<S::P>(x + i, v);
        else
            UNROLL for (int k = 0; k < S::P; k++) v[k] = kept[s * S::P + k];
    }
    /* What take gives from now on; x must get it too. */
    __device__ __forceinline__ void replace(int s, const float *v) {
        if constexpr (S::N > 0)
            UNROLL for (int k = 0; k < S::P; k++) kept[s * S::P + k] = v[k];
    }
};

/* Calls f(element, i) for all elements of this thread. */
template <class T, class S, class F>
__device__ __forceinline__ void each(const row<T, S> &r, int64_t n, F f) {
    walk<S>(n, [&](int s, int64_t i) {
        float v[S::P];
        r.take(s, i, v);
        UNROLL for (int k = 0; k < S::P; k++) f(v[k], i + k);
    });
}
/* The same of two rows. */
template <class T, class S, class F>
__device__ __forceinline__ void each(const row<T, S> &a, const row<T, S> &b, int64_t n, F f) {
    walk<S>(n, [&](int s, int64_t i) {
        float v[S::P], w[S::P];
        a.take(s, i, v);
        b.take(s, i, w);
        UNROLL for (int k = 0; k < S::P; k++) f(v[k], w[k]);
    });
}
/* y[n] = f(element, i) */
template <class T, class S, class F>
__device__ __forceinline__ void fill(T *y, const row<T, S> &r, int64_t n, F f) {
    walk<S>(n, [&](int s, int64_t i) {
        float v[S::P];
        r.take(s, i, v);
        UNROLL for (int k = 0; k < S::P; k++) v[k] = f(v[k], i + k);
        store<S::P>(y + i, v);
    });
}
/* y[n] = f(element of a, of b) */
template <class T, class S, class F>
__device__ __forceinline__ void fill(T *y, const row<T, S> &a, const row<T, S> &b, int64_t n, F f) {
    walk<S>(n, [&](int s, int64_t i) {
        float v[S::P], w[S::P];
        a.take(s, i, v);
        b.take(s, i, w);
        UNROLL for (int k = 0; k < S::P; k++) v[k] = f(v[k], w[k]);
        store<S::P>(y + i, v);
    });
}

/* Sum, or largest, of a value of each thread of a row, the same in all; warps: shared, one for each
 * warp. */
template <class S> __device__ __forceinline__ float group_sum(float v, float *warps) {
    v = warp_sum(v);
    if (S::G == 32)
        return v;
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = warps[0];
    for (int w = 1; w < S::G / 32; w++)
        v += warps[w];
    __syncthreads();
    return v;
}
template <class S> __device__ __forceinline__ float group_max(float v, float *warps) {
    v = warp_max(v);
    if (S::G == 32)
        return v;
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = warps[0];
    for (int w = 1; w < S::G / 32; w++)
        v = fmaxf(v, warps[w]);
    __syncthreads();
    return v;
}

#endif

/* layernorm, add_layernorm and their gradient: a row stays in registers, so bytes are moved once.
 * Column sums in two stages: a block sums a fixed share of the rows, sum_pairs adds the blocks. */
#include "backend/cuda/rows.h"

enum { SHARES = 396 }; /* blocks of the gradient at most: three for each multiprocessor of H100 */

template <class T> __device__ __forceinline__ float rounded(float v) {
    T t;
    put(&t, v);
    return get(t);
}

/* sum[rows,n] = x + r (r NULL: sum is not written and x is taken), y = its normalisation; mean and
 * rstd [rows] may be NULL. weight, bias [n]. */
template <class T, class S>
__global__ void norm_rows(const T *x, const T *r, const float *weight, const float *bias, T *sum,
                          T *y, float *mean, float *rstd, int64_t rows, int64_t n, float eps) {
    SHARED(float, warps, 32);
    int64_t k = row_index<S>();
    if (k >= rows)
        return;
    row<T, S> a(x + k * n, n);
    if (r) {
        walk<S>(n, [&](int s, int64_t i) {
            float v[S::P], w[S::P];
            a.take(s, i, v);
            load<S::P>(r + k * n + i, w);
            UNROLL for (int j = 0; j < S::P; j++) v[j] = rounded<T>(v[j] + w[j]);
            a.replace(s, v);
            store<S::P>(sum + k * n + i, v);
        });
        a.x = sum + k * n;
    }
    float s1 = 0.0f, s2 = 0.0f;
    each(a, n, [&](float v, int64_t) { s1 += v; });
    float m = group_sum<S>(s1, warps) / (float)n;
    each(a, n, [&](float v, int64_t) { s2 += (v - m) * (v - m); });
    float f = 1.0f / sqrtf(group_sum<S>(s2, warps) / (float)n + eps);
    walk<S>(n, [&](int s, int64_t i) {
        float v[S::P], w[S::P], b[S::P];
        a.take(s, i, v);
        load<S::P>(weight + i, w);
        load<S::P>(bias + i, b);
        UNROLL for (int j = 0; j < S::P; j++) v[j] = (v[j] - m) * f * w[j] + b[j];
        store<S::P>(y + k * n + i, v);
    });
    if (mean && threadIdx.x == 0) {
        mean[k] = m;
        rstd[k] = f;
    }
}

/* dx[rows,n] of this block's `per` rows, and their sums of dy h and dy in partial[parts,2,n]. With
 * rows in registers a part is a block's (its groups add up in shared memory, 2n floats), else a
 * group's, which then adds to memory. */
template <class T, class S>
__global__ void norm_bwd_rows(const T *dy, const T *x, const float *weight, const float *mean,
                              const float *rstd, const T *dsum, T *dx, float *partial, int64_t rows,
                              int64_t n, int64_t per) {
    SHARED(float, warps, 32);
    DYNAMIC_SHARED(float, total);
    float dw[S::N > 0 ? S::N : 1], db[S::N > 0 ? S::N : 1];
    float *part = partial + ((int64_t)blockIdx.x * S::ROWS + threadIdx.y) * 2 * n;
    UNROLL for (int k = 0; k < (S::N > 0 ? S::N : 1); k++) dw[k] = db[k] = 0.0f;
    if (S::N == 0)
        walk<S>(n, [&](int, int64_t i) { part[i] = part[n + i] = 0.0f; });
    int64_t first = (int64_t)blockIdx.x * per, end = first + per < rows ? first + per : rows;
    for (int64_t r = first + threadIdx.y; r < end; r += S::ROWS) {
        row<T, S> d(dy + r * n, n), a(x + r * n, n);
        float m = mean[r], f = rstd[r], m1 = 0.0f, m2 = 0.0f;
        walk<S>(n, [&](int s, int64_t i) {
            float g[S::P], v[S::P], w[S::P];
            d.take(s, i, g);
            a.take(s, i, v);
            load<S::P>(weight + i, w);
            UNROLL for (int j = 0; j < S::P; j++) {
                float h = (v[j] - m) * f, e = g[j] * w[j];
                m1 += e;
                m2 += e * h;
                if (S::N > 0) {
                    dw[s * S::P + j] += g[j] * h;
                    db[s * S::P + j] += g[j];
                } else {
                    part[i] += g[j] * h;
                    part[n + i] += g[j];
                }
            }
        });
        m1 = group_sum<S>(m1, warps) / (float)n;
        m2 = group_sum<S>(m2, warps) / (float)n;
        walk<S>(n, [&](int s, int64_t i) {
            float g[S::P], v[S::P], w[S::P], b[S::P];
            d.take(s, i, g);
            a.take(s, i, v);
            load<S::P>(weight + i, w);
            UNROLL for (int j = 0; j < S::P; j++) v[j] =
                (g[j] * w[j] - m1 - (v[j] - m) * f * m2) * f;
            if (dsum) {
                load<S::P>(dsum + r * n + i, b);
                UNROLL for (int j = 0; j < S::P; j++) v[j] += b[j];
            }
            store<S::P>(dx + r * n + i, v);
        });
    }
    if constexpr (S::N > 0) {
        for (unsigned k = 0; k < S::ROWS; k++) {
            if (threadIdx.y == k)
                walk<S>(n, [&](int s, int64_t i) {
                    UNROLL for (int j = 0; j < S::P; j++) {
                        total[i + j] = (k > 0 ? total[i + j] : 0.0f) + dw[s * S::P + j];
                        total[n + i + j] = (k > 0 ? total[n + i + j] : 0.0f) + db[s * S::P + j];
                    }
                });
            __syncthreads();
        }
        for (int64_t i = threadIdx.y * S::G + threadIdx.x; i < 2 * n; i += S::G * S::ROWS)
            partial[(int64_t)blockIdx.x * 2 * n + i] = total[i];
    }
}

/* --- entries --- */

template <class T> static void run_norm(mimic_call *c, bool add) {
    const mimic_tensor *x = c->in[0];
    const T *a = (const T *)mimic_data(x), *r = add ? (const T *)mimic_data(c->in[1]) : NULL;
    const float *weight = (const float *)mimic_data(c->in[1 + add]);
    const float *bias = (const float *)mimic_data(c->in[2 + add]);
    T *sum = add ? (T *)mimic_data(c->out[0]) : NULL, *y = (T *)mimic_data(c->out[add]);
    float *mean = c->save[0] ? (float *)mimic_data(c->save[0]) : NULL;
    float *rstd = c->save[1] ? (float *)mimic_data(c->save[1]) : NULL;
    int64_t n = x->shape[x->rank - 1], rows = mimic_numel(x) / n;
    float eps = (float)c->attrs.v[0].f;
    cudaStream_t stream = state_of(c->ctx)->stream;
    if (rows == 0)
        return;
    with_form<T>(n, wide(a, r, sum) && wide(weight, bias, y), [&](auto s) {
        typedef decltype(s) S;
        LAUNCH((norm_rows<T, S>), row_grid<S>(rows), row_block<S>(), 0, stream, a, r, weight, bias,
               sum, y, mean, rstd, rows, n, eps);
    });
}

KERNEL(layernorm) {
    BY_FLOAT(c->in[0]->dtype, run_norm)(c, false);
    return done(c);
}

KERNEL(add_layernorm) {
    BY_FLOAT(c->in[0]->dtype, run_norm)(c, true);
    return done(c);
}

template <class T> static mimic_status run_bwd(mimic_call *c) {
    const mimic_tensor *x = c->in[1];
    cuda_state *s = state_of(c->ctx);
    const T *dy = (const T *)mimic_data(c->in[0]), *a = (const T *)mimic_data(x);
    const float *weight = (const float *)mimic_data(c->in[2]);
    const float *mean = (const float *)mimic_data(c->in[3]);
    const float *rstd = (const float *)mimic_data(c->in[4]);
    const T *dsum = c->in[5] ? (const T *)mimic_data(c->in[5]) : NULL;
    T *dx = (T *)mimic_data(c->out[0]);
    int64_t n = x->shape[x->rank - 1], rows = mimic_numel(x) / n;
    int64_t per = (rows + SHARES - 1) / SHARES < 16 ? 16 : (rows + SHARES - 1) / SHARES;
    unsigned blocks = blocks_of(rows, per);
    mimic_status st = MIMIC_OK;
    with_form<T>(n, wide(dy, a, dx) && wide(dsum, weight), [&](auto f) {
        typedef decltype(f) S;
        int64_t parts = (int64_t)blocks * (S::N > 0 ? 1 : S::ROWS);
        size_t bytes = (size_t)(parts * 2 * n) * sizeof(float);
        void *memory;
        st = s->host->get(c->device, bytes, &memory);
        if (st)
            return;
        LAUNCH((norm_bwd_rows<T, S>), blocks, row_block<S>(),
               S::N > 0 ? (size_t)(2 * n) * sizeof(float) : 0, s->stream, dy, a, weight, mean, rstd,
               dsum, dx, (float *)memory, rows, n, per);
        cuda_sum_pairs(c->ctx, (const float *)memory, parts, n, (float *)mimic_data(c->out[1]),
                       (float *)mimic_data(c->out[2]));
        s->host->put(c->device, memory, bytes);
    });
    return st;
}

KERNEL(layernorm_bwd) {
    mimic_status st = BY_FLOAT(c->in[0]->dtype, run_bwd)(c);
    return st ? st : done(c);
}

/* softmax and l2norm over the last axis, forward and backward: one pass over memory. */
#include "backend/cuda/rows.h"

/* y[rows,n] = softmax of x[rows,n] */
template <class T, class S>
__global__ void softmax_rows(const T *x, T *y, int64_t rows, int64_t n) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    row<T, S> a(x + r * n, n);
    float top = -INFINITY, sum = 0.0f;
    each(a, n, [&](float v, int64_t) { top = fmaxf(top, v); });
    top = group_max<S>(top, warps);
    each(a, n, [&](float v, int64_t) { sum += expf(v - top); });
    float f = 1.0f / group_sum<S>(sum, warps);
    fill(y + r * n, a, n, [&](float v, int64_t) { return expf(v - top) * f; });
}

/* dx[rows,n] = y (dy - sum(y dy)) */
template <class T, class S>
__global__ void softmax_bwd_rows(const T *dy, const T *y, T *dx, int64_t rows, int64_t n) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    row<T, S> d(dy + r * n, n), a(y + r * n, n);
    float dot = 0.0f;
    each(d, a, n, [&](float g, float v) { dot += g * v; });
    dot = group_sum<S>(dot, warps);
    fill(dx + r * n, d, a, n, [&](float g, float v) { return v * (g - dot); });
}

/* y[rows,n] = x / max(|x|, eps), norm[rows] = |x| unless NULL */
template <class T, class S>
__global__ void l2norm_rows(const T *x, T *y, float *norm, int64_t rows, int64_t n, float eps) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    row<T, S> a(x + r * n, n);
    float sum = 0.0f;
    each(a, n, [&](float v, int64_t) { sum += v * v; });
    float length = sqrtf(group_sum<S>(sum, warps));
    float f = length != length ? length : 1.0f / fmaxf(length, eps);
    fill(y + r * n, a, n, [&](float v, int64_t) { return v * f; });
    if (norm && threadIdx.x == 0)
        norm[r] = length;
}

/* dx[rows,n] = (dy - y sum(y dy)) / norm; dy / eps where norm[rows] <= eps */
template <class T, class S>
__global__ void l2norm_bwd_rows(const T *dy, const T *y, const float *norm, T *dx, int64_t rows,
                                int64_t n, float eps) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    row<T, S> d(dy + r * n, n), a(y + r * n, n);
    float length = norm[r], dot = 0.0f;
    each(d, a, n, [&](float g, float v) { dot += g * v; });
    dot = group_sum<S>(dot, warps);
    dot = length > eps ? dot : 0.0f;
    float f = 1.0f / fmaxf(length, eps);
    fill(dx + r * n, d, a, n, [&](float g, float v) { return (g - v * dot) * f; });
}

/* --- entries --- */

/* Rows of the last axis: [rows,n]. */
static int64_t last_axis(const mimic_tensor *x, int64_t *n) {
    int64_t rows = 1;
    *n = x->shape[x->rank - 1];
    for (int i = 0; i < x->rank - 1; i++)
        rows *= x->shape[i];
    return rows;
}

template <class T> static void run_softmax(mimic_call *c) {
    const T *x = (const T *)mimic_data(c->in[0]);
    T *y = (T *)mimic_data(c->out[0]);
    cudaStream_t stream = state_of(c->ctx)->stream;
    int64_t n, rows = last_axis(c->in[0], &n);
    with_form<T>(n, wide(x, y), [&](auto s) {
        typedef decltype(s) S;
        LAUNCH((softmax_rows<T, S>), row_grid<S>(rows), row_block<S>(), 0, stream, x, y, rows, n);
    });
}

template <class T> static void run_softmax_bwd(mimic_call *c) {
    const T *dy = (const T *)mimic_data(c->in[0]), *y = (const T *)mimic_data(c->in[1]);
    T *dx = (T *)mimic_data(c->out[0]);
    cudaStream_t stream = state_of(c->ctx)->stream;
    int64_t n, rows = last_axis(c->in[0], &n);
    with_form<T>(n, wide(dy, y, dx), [&](auto s) {
        typedef decltype(s) S;
        LAUNCH((softmax_bwd_rows<T, S>), row_grid<S>(rows), row_block<S>(), 0, stream, dy, y, dx,
               rows, n);
    });
}

template <class T> static void run_l2norm(mimic_call *c) {
    const T *x = (const T *)mimic_data(c->in[0]);
    T *y = (T *)mimic_data(c->out[0]);
    float *norm = c->save[0] ? (float *)mimic_data(c->save[0]) : NULL;
    float eps = (float)c->attrs.v[0].f;
    cudaStream_t stream = state_of(c->ctx)->stream;
    int64_t n, rows = last_axis(c->in[0], &n);
    with_form<T>(n, wide(x, y), [&](auto s) {
        typedef decltype(s) S;
        LAUNCH((l2norm_rows<T, S>), row_grid<S>(rows), row_block<S>(), 0, stream, x, y, norm, rows,
               n, eps);
    });
}

template <class T> static void run_l2norm_bwd(mimic_call *c) {
    const T *dy = (const T *)mimic_data(c->in[0]), *y = (const T *)mimic_data(c->in[1]);
    const float *norm = (const float *)mimic_data(c->in[2]);
    T *dx = (T *)mimic_data(c->out[0]);
    float eps = (float)c->attrs.v[0].f;
    cudaStream_t stream = state_of(c->ctx)->stream;
    int64_t n, rows = last_axis(c->in[0], &n);
    with_form<T>(n, wide(dy, y, dx), [&](auto s) {
        typedef decltype(s) S;
        LAUNCH((l2norm_bwd_rows<T, S>), row_grid<S>(rows), row_block<S>(), 0, stream, dy, y, norm,
               dx, rows, n, eps);
    });
}

KERNEL(softmax) {
    if (mimic_numel(c->in[0]) > 0)
        BY_FLOAT(c->in[0]->dtype, run_softmax)(c);
    return done(c);
}

KERNEL(softmax_bwd) {
    if (mimic_numel(c->in[0]) > 0)
        BY_FLOAT(c->in[0]->dtype, run_softmax_bwd)(c);
    return done(c);
}

KERNEL(l2norm) {
    int64_t n, rows = last_axis(c->in[0], &n);
    if (rows > 0) /* empty rows have a norm */
        BY_FLOAT(c->in[0]->dtype, run_l2norm)(c);
    return done(c);
}

KERNEL(l2norm_bwd) {
    if (mimic_numel(c->in[0]) > 0)
        BY_FLOAT(c->in[0]->dtype, run_l2norm_bwd)(c);
    return done(c);
}

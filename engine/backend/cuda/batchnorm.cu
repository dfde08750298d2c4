/* batchnorm of [rows,columns], training mode, and its gradient. A block owns 32 columns over all
 * rows, so each sum has one order; the second and third pass find the columns in the cache. Used in
 * small heads, where this is enough. */
#include "backend/cuda/kernel.h"

enum { LANES = 32, GROUPS = 16 };

/* Sum over the GROUPS threads of a column, in order, in all of them. */
__device__ __forceinline__ float column_sum(float v, float *cells) {
    cells[threadIdx.y * LANES + threadIdx.x] = v;
    __syncthreads();
    v = cells[threadIdx.x];
    for (int k = 1; k < GROUPS; k++)
        v += cells[k * LANES + threadIdx.x];
    __syncthreads();
    return v;
}

/* y[rows,cols], mean[cols], var[cols] of x[rows,cols]; weight, bias [cols] may be NULL */
template <class T>
__global__ void bn_columns(const T *x, const float *weight, const float *bias, T *y, float *mean,
                           float *var, int64_t rows, int64_t cols, float eps) {
    SHARED(float, cells, LANES *GROUPS);
    int64_t i = (int64_t)blockIdx.x * LANES + threadIdx.x;
    int64_t end = i < cols ? rows : 0; /* threads beyond the columns only wait */
    float s = 0.0f, q = 0.0f;
    for (int64_t r = threadIdx.y; r < end; r += GROUPS)
        s += get(x[r * cols + i]);
    float m = column_sum(s, cells) / (float)rows;
    for (int64_t r = threadIdx.y; r < end; r += GROUPS) {
        float d = get(x[r * cols + i]) - m;
        q += d * d;
    }
    float v = column_sum(q, cells) / (float)rows;
    if (i >= cols)
        return;
    float scale = (weight ? weight[i] : 1.0f) / sqrtf(v + eps), shift = bias ? bias[i] : 0.0f;
    for (int64_t r = threadIdx.y; r < rows; r += GROUPS)
        put(y + r * cols + i, (get(x[r * cols + i]) - m) * scale + shift);
    if (threadIdx.y == 0) {
        mean[i] = m;
        var[i] = v;
    }
}

/* What the gradient reads: x, dy [rows,cols]; the rest [cols]. weight, dy, dmean, dvar may be NULL.
 */
template <class T> struct bn_inputs {
    const T *x, *dy;
    const float *mean, *var, *weight, *dmean, *dvar;
};

/* dx[rows,cols], dweight[cols], dbias[cols] */
template <class T>
__global__ void bn_bwd_columns(bn_inputs<T> in, T *dx, float *dweight, float *dbias, int64_t rows,
                               int64_t cols, float eps) {
    SHARED(float, cells, LANES *GROUPS);
    int64_t i = (int64_t)blockIdx.x * LANES + threadIdx.x;
    int64_t end = i < cols && in.dy ? rows : 0;
    float m = i < cols ? in.mean[i] : 0.0f, f = i < cols ? 1.0f / sqrtf(in.var[i] + eps) : 0.0f;
    float s1 = 0.0f, s2 = 0.0f, count = (float)rows;
    for (int64_t r = threadIdx.y; r < end; r += GROUPS) {
        float d = get(in.dy[r * cols + i]);
        s1 += d;
        s2 += d * (get(in.x[r * cols + i]) - m) * f;
    }
    s1 = column_sum(s1, cells);
    s2 = column_sum(s2, cells);
    if (i >= cols)
        return;
    float scale = f * (in.weight ? in.weight[i] : 1.0f);
    float shift = in.dmean ? in.dmean[i] / count : 0.0f;
    float slope = in.dvar ? 2.0f * in.dvar[i] / count : 0.0f;
    for (int64_t r = threadIdx.y; r < rows; r += GROUPS) {
        float d = get(in.x[r * cols + i]) - m;
        float v = in.dy ? get(in.dy[r * cols + i]) - s1 / count - d * f * s2 / count : 0.0f;
        put(dx + r * cols + i, v * scale + shift + slope * d);
    }
    if (threadIdx.y == 0) {
        dweight[i] = s2;
        dbias[i] = s1;
    }
}

/* --- entries --- */

template <class T> static const T *data_or_null(const mimic_tensor *t) {
    return t ? (const T *)mimic_data(t) : NULL;
}

template <class T> static void run_forward(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    LAUNCH(bn_columns<T>, blocks_of(x->shape[1], LANES), dim3(LANES, GROUPS), 0,
           state_of(c->ctx)->stream, (const T *)mimic_data(x), data_or_null<float>(c->in[1]),
           data_or_null<float>(c->in[2]), (T *)mimic_data(c->out[0]),
           (float *)mimic_data(c->out[1]), (float *)mimic_data(c->out[2]), x->shape[0], x->shape[1],
           (float)c->attrs.v[0].f);
}

template <class T> static void run_backward(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    bn_inputs<T> in;
    in.x = (const T *)mimic_data(x);
    in.dy = data_or_null<T>(c->in[4]);
    in.mean = (const float *)mimic_data(c->in[1]);
    in.var = (const float *)mimic_data(c->in[2]);
    in.weight = data_or_null<float>(c->in[3]);
    in.dmean = data_or_null<float>(c->in[5]);
    in.dvar = data_or_null<float>(c->in[6]);
    LAUNCH(bn_bwd_columns<T>, blocks_of(x->shape[1], LANES), dim3(LANES, GROUPS), 0,
           state_of(c->ctx)->stream, in, (T *)mimic_data(c->out[0]), (float *)mimic_data(c->out[1]),
           (float *)mimic_data(c->out[2]), x->shape[0], x->shape[1], (float)c->attrs.v[0].f);
}

KERNEL(batchnorm) {
    BY_FLOAT(c->in[0]->dtype, run_forward)(c);
    return done(c);
}

KERNEL(batchnorm_bwd) {
    BY_FLOAT(c->in[0]->dtype, run_backward)(c);
    return done(c);
}

/* gather_rows, scatter_rows, onehot: rows by index. */
#include "backend/cuda/rows.h"

enum { THREADS = 256 };

/* Reports the indices [count] that are not in 0..n-1; the kernels below leave those out. */
__global__ void check_index(const int32_t *index, int64_t count, int64_t n, fault f) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count && (index[i] < 0 || index[i] >= n))
        f.report(i);
}

static void check(mimic_call *c, const mimic_tensor *index, const char *what, int64_t n) {
    int64_t count = mimic_numel(index);
    if (count > 0)
        LAUNCH(check_index, blocks_of(count, THREADS), THREADS, 0, state_of(c->ctx)->stream,
               (const int32_t *)mimic_data(index), count, n, fault_of(c, what, n));
}

/* [batch,n,inner] is indexed by index[batch,m], which gives [batch,m,inner]. */
struct rows_shape {
    int64_t batch, n, m, inner;
};

static rows_shape shape_of(const mimic_tensor *full, const mimic_tensor *part,
                           const mimic_tensor *index) {
    int axis = index->rank - 1;
    rows_shape s = {axis == 1 ? full->shape[0] : 1, full->shape[axis], part->shape[axis], 1};
    for (int i = axis + 1; i < full->rank; i++)
        s.inner *= full->shape[i];
    return s;
}

/* y[batch,m,units] = x[batch,n,units] at the indices; U: what a thread moves */
template <class U>
__global__ void gather_units(const U *x, const int32_t *index, U *y, rows_shape s, int64_t units) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, r = i / units;
    if (i >= s.batch * s.m * units)
        return;
    int64_t k = index[r];
    if (k >= 0 && k < s.n)
        y[i] = x[(r / s.m * s.n + k) * units + i % units];
}

template <class U> static void run_gather(mimic_call *c, const rows_shape &s, size_t row) {
    int64_t units = (int64_t)(row / sizeof(U));
    LAUNCH(gather_units<U>, blocks_of(s.batch * s.m * units, THREADS), THREADS, 0,
           state_of(c->ctx)->stream, (const U *)mimic_data(c->in[0]),
           (const int32_t *)mimic_data(c->in[1]), (U *)mimic_data(c->out[0]), s, units);
}

KERNEL(gather_rows) {
    const mimic_tensor *x = c->in[0], *y = c->out[0];
    rows_shape s = shape_of(x, y, c->in[1]);
    size_t row = (size_t)s.inner * element_size(x->dtype);
    check(c, c->in[1], "index", s.n);
    if (mimic_numel(y) == 0)
        return done(c);
    uintptr_t low = (uintptr_t)mimic_data(x) | (uintptr_t)mimic_data(y) | row;
    if (low % 16 == 0)
        run_gather<uint4>(c, s, row);
    else if (low % 4 == 0)
        run_gather<uint32_t>(c, s, row);
    else if (low % 2 == 0)
        run_gather<uint16_t>(c, s, row);
    else
        run_gather<uint8_t>(c, s, row);
    return done(c);
}

/* x[batch,n,inner]: the sums of those y[batch,m,inner] whose index is n, in the order of m. A warp
 * has P elements a lane of one row of x and looks through the batch's indices, 32 at once; `blocks`
 * warps share a row. */
template <class T, int P>
__global__ void scatter_sums(const T *y, const int32_t *index, T *x, rows_shape s,
                             unsigned blocks) {
    int64_t r = (int64_t)(blockIdx.x / blocks) * blockDim.y + threadIdx.y;
    int64_t b = r / s.n, row = r % s.n;
    int64_t i = ((int64_t)(blockIdx.x % blocks) * 32 + threadIdx.x) * P;
    float sum[P] = {0.0f}, v[P];
    if (r >= s.batch * s.n)
        return;
    index += b * s.m;
    for (int64_t first = 0; first < s.m; first += 32) {
        int64_t at = first + threadIdx.x;
        unsigned hits = __ballot_sync(0xffffffffu, at < s.m && index[at] == row);
        for (; hits; hits &= hits - 1) {
            int64_t m = first + __ffs((int)hits) - 1;
            if (i >= s.inner)
                continue;
            load<P>(y + (b * s.m + m) * s.inner + i, v);
            UNROLL for (int k = 0; k < P; k++) sum[k] += v[k];
        }
    }
    if (i < s.inner)
        store<P>(x + r * s.inner + i, sum);
}

template <class T> static void run_scatter(mimic_call *c, const rows_shape &s) {
    const int P = pack<T>::N;
    const T *y = (const T *)mimic_data(c->in[0]);
    const int32_t *index = (const int32_t *)mimic_data(c->in[1]);
    T *x = (T *)mimic_data(c->out[0]);
    cudaStream_t stream = state_of(c->ctx)->stream;
    bool packs = wide(y, x) && s.inner % P == 0;
    unsigned rows = blocks_of(s.batch * s.n, 4), blocks = blocks_of(s.inner, packs ? 32 * P : 32);
    LAUNCH((packs ? scatter_sums<T, P> : scatter_sums<T, 1>), rows * blocks, dim3(32, 4), 0, stream,
           y, index, x, s, blocks);
}

KERNEL(scatter_rows) {
    rows_shape s = shape_of(c->out[0], c->in[0], c->in[1]);
    check(c, c->in[1], "index", s.n);
    if (mimic_numel(c->out[0]) > 0)
        BY_FLOAT(c->out[0]->dtype, run_scatter)(c, s);
    return done(c);
}

/* y[count,classes] = on at the label, off elsewhere */
__global__ void onehot_rows(const int32_t *labels, float *y, int64_t count, int64_t classes,
                            float on, float off) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count * classes)
        y[i] = labels[i / classes] == i % classes ? on : off;
}

KERNEL(onehot) {
    const mimic_tensor *labels = c->in[0];
    int64_t n = labels->shape[0], k = c->attrs.v[0].i;
    double smoothing = c->attrs.v[1].f, off = smoothing / (double)k;
    check(c, labels, "label", k);
    if (n > 0)
        LAUNCH(onehot_rows, blocks_of(n * k, THREADS), THREADS, 0, state_of(c->ctx)->stream,
               (const int32_t *)mimic_data(labels), (float *)mimic_data(c->out[0]), n, k,
               (float)(1 - smoothing + off), (float)off);
    return done(c);
}

/* mscl_masks, contrastive and contrastive_bwd, in f32: a product in tiles gives the similarities, a
 * block each anchor's loss and coefficients, two products the gradient. */
#include "backend/cuda/kernel.h"

enum { TILE = 32, SIDE = 16, THREADS = 128, TOTAL = 512 };

/* An operand: element (i,k) at i * row + k * term, one of the two steps being 1. */
struct operand {
    const float *at;
    int64_t row, term;
};

/* A tile of o, rows from `first`, terms from `k0`, to cells[TILE * (TILE + 1)] by term and row; 0
 * outside. Neighbouring threads read neighbouring addresses. */
__device__ __forceinline__ void load_tile(const operand &o, int64_t first, int64_t rows, int64_t k0,
                                          int64_t terms, float *cells) {
    for (int e = (int)(threadIdx.y * SIDE + threadIdx.x); e < TILE * TILE; e += SIDE * SIDE) {
        int k = o.term == 1 ? e % TILE : e / TILE, i = o.term == 1 ? e / TILE : e % TILE;
        bool in = first + i < rows && k0 + k < terms;
        cells[k * (TILE + 1) + i] = in ? o.at[(first + i) * o.row + (k0 + k) * o.term] : 0.0f;
    }
}

/* y[rows,cols] = factor * scale (unless NULL) * sum over terms of a(i,k) b(j,k); 2 x 2 results a
 * thread, terms in order; `down` blocks cover the rows */
__global__ void product(operand a, operand b, float *y, int64_t rows, int64_t cols, int64_t terms,
                        float factor, const float *scale, unsigned down) {
    SHARED(float, ta, TILE *(TILE + 1));
    SHARED(float, tb, TILE *(TILE + 1));
    int64_t i0 = (int64_t)(blockIdx.x % down) * TILE, j0 = (int64_t)(blockIdx.x / down) * TILE;
    float s00 = 0.0f, s01 = 0.0f, s10 = 0.0f, s11 = 0.0f;
    for (int64_t k0 = 0; k0 < terms; k0 += TILE) {
        load_tile(a, i0, rows, k0, terms, ta);
        load_tile(b, j0, cols, k0, terms, tb);
        __syncthreads();
        for (int k = 0; k < TILE; k++) {
            const float *p = ta + k * (TILE + 1) + threadIdx.y;
            const float *q = tb + k * (TILE + 1) + threadIdx.x;
            s00 += p[0] * q[0];
            s01 += p[0] * q[SIDE];
            s10 += p[SIDE] * q[0];
            s11 += p[SIDE] * q[SIDE];
        }
        __syncthreads();
    }
    int64_t i = i0 + threadIdx.y, j = j0 + threadIdx.x;
    factor *= scale ? *scale : 1.0f;
    if (i < rows && j < cols)
        y[i * cols + j] = s00 * factor;
    if (i < rows && j + SIDE < cols)
        y[i * cols + j + SIDE] = s01 * factor;
    if (i + SIDE < rows && j < cols)
        y[(i + SIDE) * cols + j] = s10 * factor;
    if (i + SIDE < rows && j + SIDE < cols)
        y[(i + SIDE) * cols + j + SIDE] = s11 * factor;
}

static void run_product(mimic_ctx *ctx, operand a, operand b, float *y, int64_t rows, int64_t cols,
                        int64_t terms, float factor, const float *scale) {
    unsigned down = blocks_of(rows, TILE);
    if (rows > 0 && cols > 0)
        LAUNCH(product, down * blocks_of(cols, TILE), dim3(SIDE, SIDE), 0, state_of(ctx)->stream, a,
               b, y, rows, cols, terms, factor, scale, down);
}

/* In all threads of the block: f of every thread's v, by f(a, b). */
template <class F> __device__ __forceinline__ float combine(float v, float *warps, F f) {
    for (int o = 16; o > 0; o >>= 1)
        v = f(v, __shfl_xor_sync(0xffffffffu, v, o));
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = warps[0];
    for (int w = 1; w < THREADS / 32; w++)
        v = f(v, warps[w]);
    __syncthreads();
    return v;
}
struct sum_fn {
    __device__ float operator()(float a, float b) const {
        return a + b;
    }
};
struct max_fn {
    __device__ float operator()(float a, float b) const {
        return fmaxf(a, b);
    }
};

/* Anchor blockIdx.x: its loss, whether it has positives, and s[n,m] (similarities) turned into the
 * coefficients without the anchors' weight. pos, cand [n,m]. */
__global__ void anchor_rows(float *s, const uint8_t *pos, const uint8_t *cand, float *share,
                            int32_t *filled, int64_t m) {
    SHARED(float, warps, 32);
    int64_t i = blockIdx.x;
    float top = -INFINITY, positives = 0.0f, total = 0.0f, dot = 0.0f;
    s += i * m;
    pos += i * m;
    cand += i * m;
    for (int64_t k = threadIdx.x; k < m; k += THREADS)
        if (cand[k]) {
            top = fmaxf(top, s[k]);
            positives += pos[k] ? 1.0f : 0.0f;
        }
    top = combine(top, warps, max_fn());
    positives = combine(positives, warps, sum_fn());
    for (int64_t k = threadIdx.x; k < m; k += THREADS)
        if (cand[k]) {
            dot += pos[k] ? s[k] - top : 0.0f;
            total += expf(s[k] - top);
        }
    total = combine(total, warps, sum_fn());
    dot = combine(dot, warps, sum_fn());
    bool any = positives > 0.0f;
    for (int64_t k = threadIdx.x; k < m; k += THREADS)
        s[k] =
            any && cand[k] ? expf(s[k] - top) / total - (pos[k] ? 1.0f / positives : 0.0f) : 0.0f;
    if (threadIdx.x == 0) {
        share[i] = any ? logf(total) - dot / positives : 0.0f;
        filled[i] = any;
    }
}

/* loss = weight * sum(share[n]); *weight = 1 (sum), 1 / anchors with positives (skip), 1 / n. */
__global__ void anchor_total(const float *share, const int32_t *filled, int64_t n, bool sum,
                             bool skip, float *loss, float *weight) {
    double s = 0, count = 0;
    for (int64_t i = threadIdx.x; i < n; i += TOTAL) {
        s += (double)share[i];
        count += filled[i];
    }
    s = block_sum(s);
    count = block_sum(count);
    if (threadIdx.x > 0)
        return;
    double divisor = sum ? 1 : skip ? count : (double)n, w = divisor > 0 ? 1 / divisor : 0;
    *loss = (float)(s * w);
    *weight = (float)w;
}

/* g[n] *= *weight */
__global__ void weigh(float *g, const float *weight, int64_t n) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        g[i] *= *weight;
}

/* Without save[0] the similarities go to scratch. */
KERNEL(contrastive) {
    const mimic_tensor *za = c->in[0], *zc = c->in[1];
    int64_t n = za->shape[0], m = zc->shape[0], d = za->shape[1];
    cuda_state *s = state_of(c->ctx);
    size_t bytes = (size_t)(2 * n + 1 + (c->save[0] ? 0 : n * m)) * sizeof(float);
    void *memory;
    mimic_status st = s->host->get(c->device, bytes, &memory);
    if (st)
        return st;
    float *share = (float *)memory, *weight = share + 2 * n;
    float *g = c->save[0] ? (float *)mimic_data(c->save[0]) : weight + 1;
    int32_t *filled = (int32_t *)(share + n);
    operand a = {(const float *)mimic_data(za), d, 1}, b = {(const float *)mimic_data(zc), d, 1};
    run_product(c->ctx, a, b, g, n, m, d, (float)(1 / c->attrs.v[0].f), NULL);
    LAUNCH(anchor_rows, (unsigned)n, THREADS, 0, s->stream, g,
           (const uint8_t *)mimic_data(c->in[2]), (const uint8_t *)mimic_data(c->in[3]), share,
           filled, m);
    LAUNCH(anchor_total, 1, TOTAL, 0, s->stream, (const float *)share, (const int32_t *)filled, n,
           c->attrs.v[1].i == 1, c->attrs.v[2].i == 1, (float *)mimic_data(c->out[0]), weight);
    if (c->save[0] && m > 0)
        LAUNCH(weigh, blocks_of(n * m, 256), 256, 0, s->stream, g, (const float *)weight, n * m);
    s->host->put(c->device, memory, bytes);
    return done(c);
}

/* dza = dloss / tau g zc, dzc = dloss / tau g^T za */
KERNEL(contrastive_bwd) {
    const mimic_tensor *za = c->in[1], *zc = c->in[2];
    int64_t n = za->shape[0], m = zc->shape[0], d = za->shape[1];
    const float *dloss = (const float *)mimic_data(c->in[0]);
    const float *g = (const float *)mimic_data(c->in[3]);
    float f = (float)(1 / c->attrs.v[0].f);
    operand ga = {g, m, 1}, gc = {g, 1, m};
    operand a = {(const float *)mimic_data(za), 1, d}, b = {(const float *)mimic_data(zc), 1, d};
    run_product(c->ctx, ga, b, (float *)mimic_data(c->out[0]), n, d, m, f, dloss);
    run_product(c->ctx, gc, a, (float *)mimic_data(c->out[1]), m, d, n, f, dloss);
    return done(c);
}

/* pos, cand [n,m] of labels u[n,classes], v[m,classes] and the samples a, b [m] that candidates
 * mix. kind: tv, linf, l1, l2. In f64 and in order, as on the CPU: a distance of exactly t is
 * common. `down` blocks cover the rows. */
__global__ void label_masks(const float *u, const float *v, const int32_t *a, const int32_t *b,
                            uint8_t *pos, uint8_t *cand, int64_t n, int64_t m, int64_t classes,
                            int kind, double t, bool exclude, unsigned down) {
    SHARED(float, tu, TILE *(TILE + 1));
    SHARED(float, tv, TILE *(TILE + 1));
    int64_t i0 = (int64_t)(blockIdx.x % down) * SIDE, j0 = (int64_t)(blockIdx.x / down) * SIDE;
    int64_t i = i0 + threadIdx.y, j = j0 + threadIdx.x;
    double sum = 0, top = 0, squares = 0;
    operand ou = {u, classes, 1}, ov = {v, classes, 1};
    for (int64_t k0 = 0; k0 < classes; k0 += TILE) {
        load_tile(ou, i0, n, k0, classes, tu);
        load_tile(ov, j0, m, k0, classes, tv);
        __syncthreads();
        for (int k = 0; k < TILE; k++) {
            double e = fabs((double)tu[k * (TILE + 1) + threadIdx.y] -
                            (double)tv[k * (TILE + 1) + threadIdx.x]);
            sum += e;
            squares += e * e;
            top = e > top ? e : top;
        }
        __syncthreads();
    }
    if (i >= n || j >= m)
        return;
    double d = kind == 0 ? 0.5 * sum : kind == 1 ? top : kind == 2 ? sum : sqrt(squares);
    bool in = !exclude || (a[j] != i && b[j] != i);
    cand[i * m + j] = in;
    pos[i * m + j] = in && d <= t;
}

KERNEL(mscl_masks) {
    const mimic_tensor *u = c->in[0], *v = c->in[1];
    int64_t n = u->shape[0], m = v->shape[0];
    unsigned down = blocks_of(n, SIDE);
    if (n > 0 && m > 0)
        LAUNCH(label_masks, down * blocks_of(m, SIDE), dim3(SIDE, SIDE), 0,
               state_of(c->ctx)->stream, (const float *)mimic_data(u), (const float *)mimic_data(v),
               (const int32_t *)mimic_data(c->in[2]), (const int32_t *)mimic_data(c->in[3]),
               (uint8_t *)mimic_data(c->out[0]), (uint8_t *)mimic_data(c->out[1]), n, m,
               u->shape[1], (int)c->attrs.v[0].i, c->attrs.v[1].f + 1e-6, c->attrs.v[2].i != 0,
               down);
    return done(c);
}

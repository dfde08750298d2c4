/* linear, matmul, act_bwd and col_sum: the products are cublasLt's. The exact-erf GELU and ReLU are
 * a pass of their own after the product with the bias; the tanh GELU is part of the product where
 * the library can and is no slower so. */
#include "backend/cuda/gemm.h"
#include "backend/cuda/map.h"
#include "ops/batch_axes.h"

enum { THREADS = 256, LINES = 8 };

/* N elements, moved at once. */
template <class T, int N> struct alignas(N * sizeof(T)) few { T at[N]; };

/* dx[rows,n] = f(dy[rows,n], pre[rows,n]), and partial[part,n] = the column sums of its `per` rows:
 * a block has 32 N columns of one part, LINES rows at a time. */
template <class T, int N, class F>
__global__ void activate_bias_bwd(const T *dy, const T *pre, T *dx, float *partial, int64_t rows,
                                  int64_t n, int64_t per, F f) {
    SHARED(float, sums, LINES * 32 * N);
    int64_t at = ((int64_t)blockIdx.x * 32 + threadIdx.x) * N, part = blockIdx.y;
    int64_t end = (part + 1) * per < rows ? (part + 1) * per : rows;
    float s[N] = {};
    for (int64_t r = part * per + threadIdx.y; r < end && at < n; r += LINES) {
        few<T, N> v = *(const few<T, N> *)(dy + r * n + at);
        few<T, N> w = *(const few<T, N> *)(pre + r * n + at);
        for (int k = 0; k < N; k++) {
            put(&v.at[k], f(get(v.at[k]), get(w.at[k])));
            s[k] += get(v.at[k]);
        }
        *(few<T, N> *)(dx + r * n + at) = v;
    }
    for (int k = 0; k < N; k++)
        sums[(threadIdx.y * N + k) * 32 + threadIdx.x] = s[k];
    __syncthreads();
    if (threadIdx.y > 0 || at >= n)
        return;
    for (int k = 0; k < N; k++) {
        for (int line = 1; line < LINES; line++)
            s[k] += sums[(line * N + k) * 32 + threadIdx.x];
        partial[part * n + at + k] = s[k];
    }
}

/* y[rows,n] = bias[n] */
template <class T> __global__ void fill_bias(const float *bias, T *y, int64_t n, int64_t count) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        put(y + i, bias[i % n]);
}

template <class T>
static void fill(cudaStream_t s, const void *bias, void *y, int64_t n, int64_t count) {
    LAUNCH(fill_bias<T>, blocks_of(count, THREADS), THREADS, 0, s, (const float *)bias, (T *)y, n,
           count);
}

template <class T>
static void pass(cudaStream_t s, int64_t act, const void *x, void *y, int64_t n) {
    const T *from = (const T *)x;
    if (act == ACT_RELU)
        map(s, from, (T *)y, n, relu_fn());
    else if (act == ACT_GELU)
        map(s, from, (T *)y, n, gelu_fn());
    else
        map(s, from, (T *)y, n, gelu_tanh_fn());
}

struct same_bwd_fn {
    __device__ float operator()(float dy, float) const {
        return dy;
    }
};

/* RUN(f) for the gradient f of the activation. */
#define BY_ACT(act, RUN)                                                                           \
    ((act) == ACT_RELU        ? RUN(relu_bwd_fn())                                                 \
     : (act) == ACT_GELU      ? RUN(gelu_bwd_fn())                                                 \
     : (act) == ACT_GELU_TANH ? RUN(gelu_tanh_bwd_fn())                                            \
                              : RUN(same_bwd_fn()))

template <class T, class F> static void bwd_with(mimic_call *c, F f) {
    const T *dy = (const T *)mimic_data(c->in[0]), *pre = (const T *)mimic_data(c->in[1]);
    T *dx = (T *)mimic_data(c->out[0]);
    int64_t n = mimic_numel(c->out[0]);
    if (n > 0)
        map(state_of(c->ctx)->stream, dy, pre, dx, n, f);
}

template <class T> static void bwd(mimic_call *c) {
#define RUN(f) bwd_with<T>(c, f)
    BY_ACT(c->attrs.v[0].i, RUN);
#undef RUN
}

KERNEL(act_bwd) {
    BY_FLOAT(c->in[0]->dtype, bwd)(c);
    return done(c);
}

/* partial[parts,n] = sums over each part's rows */
template <class T, int N, class F>
static void bias_bwd_with(mimic_call *c, float *partial, int64_t rows, int64_t n, int64_t parts,
                          F f) {
    const T *dy = (const T *)mimic_data(c->in[0]), *pre = (const T *)mimic_data(c->in[1]);
    dim3 grid(blocks_of(n, 32 * N), (unsigned)parts), block(32, LINES);
    LAUNCH((activate_bias_bwd<T, N, F>), grid, block, 0, state_of(c->ctx)->stream, dy, pre,
           (T *)mimic_data(c->out[0]), partial, rows, n, (rows + parts - 1) / parts, f);
}

template <class T>
static void bias_bwd(mimic_call *c, float *partial, int64_t rows, int64_t n, int64_t parts) {
    bool packs = n % pack<T>::N == 0 &&
                 wide(mimic_data(c->in[0]), mimic_data(c->in[1]), mimic_data(c->out[0]));
#define RUN(f)                                                                                     \
    (packs ? bias_bwd_with<T, pack<T>::N>(c, partial, rows, n, parts, f)                           \
           : bias_bwd_with<T, 1>(c, partial, rows, n, parts, f))
    BY_ACT(c->attrs.v[0].i, RUN);
#undef RUN
}

KERNEL(act_bias_bwd) {
    const mimic_tensor *dy = c->in[0];
    const mimic_host *host = state_of(c->ctx)->host;
    int64_t n = dy->shape[dy->rank - 1], rows = n > 0 ? mimic_numel(dy) / n : 0;
    int64_t parts = (rows + 255) / 256 < 512 ? (rows + 255) / 256 : 512; /* by the shape alone */
    float *db = (float *)mimic_data(c->out[1]);
    void *memory = NULL;
    size_t bytes = (size_t)(parts * n) * sizeof(float);
    mimic_status st = MIMIC_OK;
    if (parts > 1)
        st = host->get(c->device, bytes, &memory);
    if (st)
        return st;
    float *partial = parts > 1 ? (float *)memory : db;
    if (bytes > 0)
        BY_FLOAT(dy->dtype, bias_bwd)(c, partial, rows, n, parts);
    if (parts != 1)
        st = cuda_col_sum(c->ctx, MIMIC_F32, partial, db, parts, n);
    if (memory)
        host->put(c->device, memory, bytes);
    return st ? st : done(c);
}

KERNEL(col_sum) {
    const mimic_tensor *x = c->in[0];
    int64_t n = x->shape[x->rank - 1];
    mimic_status st = cuda_col_sum(c->ctx, x->dtype, mimic_data(x), (float *)mimic_data(c->out[0]),
                                   n > 0 ? mimic_numel(x) / n : 0, n);
    return st ? st : done(c);
}

/* What follows a product in a pass of its own: y = act(what g made). */
struct activation {
    int64_t act;
    void *y;
};

static void activated(mimic_ctx *ctx, const gemm *g, const void *how) {
    const activation *a = (const activation *)how;
    BY_FLOAT(g->out, pass)(state_of(ctx)->stream, a->act, g->c, a->y, g->m * g->n);
}

/* The product and what follows it; g is the product with its bias in y's dtype. */
static mimic_status product(mimic_call *c, gemm *g) {
    cudaStream_t stream = state_of(c->ctx)->stream;
    int64_t act = c->attrs.v[0].i;
    void *y = mimic_data(c->out[0]), *pre = c->save[0] ? mimic_data(c->save[0]) : NULL;
    const activation then = {act, y};
    bool one = false;
    mimic_status st = MIMIC_OK;
    g->c = act && pre ? pre : y;
    if (act == ACT_GELU_TANH && g->k > 0) {
        gemm with = *g;
        with.finish |= GEMM_GELU;
        with.aux = pre;
        with.c = y;
        st = cuda_gemm_in_one(c->ctx, &with, g, activated, &then, &one);
        if (!st && one)
            return cuda_gemm(c->ctx, &with);
    }
    if (!st && g->k == 0 && g->bias)
        BY_FLOAT(g->out, fill)(stream, g->bias, (void *)g->c, g->n, g->m * g->n);
    else if (!st)
        st = cuda_gemm(c->ctx, g);
    if (!st && act)
        activated(c->ctx, g, &then);
    return st;
}

KERNEL(linear) {
    const mimic_tensor *x = c->in[0], *w = c->in[1], *bias = c->in[2];
    cuda_state *s = state_of(c->ctx);
    gemm g = {};
    g.in = g.out = x->dtype;
    g.tb = true;
    g.k = g.lda = g.ldb = w->shape[1];
    g.n = g.ldc = w->shape[0];
    g.m = mimic_numel(c->out[0]) / (g.n > 0 ? g.n : 1);
    g.a = mimic_data(x);
    g.b = mimic_data(w);
    if (g.m == 0 || g.n == 0)
        return MIMIC_OK;
    void *narrow = NULL;
    size_t bytes = (size_t)g.n * sizeof(bf16);
    mimic_status st = MIMIC_OK;
    if (bias) {
        g.finish = GEMM_BIAS;
        g.bias = mimic_data(bias);
        if (x->dtype == MIMIC_BF16 && g.k > 0) { /* the library wants it in y's dtype */
            st = s->host->get(c->device, bytes, &narrow);
            if (!st)
                fill<bf16>(s->stream, g.bias, narrow, g.n, g.n);
            g.bias = narrow;
        }
    }
    if (!st)
        st = product(c, &g);
    if (narrow)
        s->host->put(c->device, narrow, bytes);
    return st ? st : done(c);
}

KERNEL(matmul) {
    const mimic_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    gemm g = {};
    g.in = a->dtype;
    g.out = y->dtype;
    g.ta = c->attrs.v[0].i != 0;
    g.tb = c->attrs.v[1].i != 0;
    g.m = y->shape[y->rank - 2];
    g.n = g.ldc = y->shape[y->rank - 1];
    g.k = a->shape[a->rank - (g.ta ? 2 : 1)];
    g.lda = a->shape[a->rank - 1];
    g.ldb = b->shape[b->rank - 1];
    if (mimic_numel(y) == 0)
        return MIMIC_OK;
    batch_axis axes[MIMIC_MAX_RANK] = {{1, 0, 0, 0}};
    int n_axes = batch_axes(c, axes);
    if (n_axes > 0 && axes[0].sb == 0 && !g.ta && axes[0].sa == g.m * g.k) { /* one tall product */
        g.m *= axes[0].n;
        axes[0] = batch_axis{1, 0, 0, 0};
    }
    g.batch = axes[0].n;
    g.sa = axes[0].sa;
    g.sb = axes[0].sb;
    g.sc = axes[0].sc;
    int64_t outer = 1;
    for (int i = 1; i < n_axes; i++)
        outer *= axes[i].n;
    mimic_status st = MIMIC_OK;
    for (int64_t o = 0; o < outer && !st; o++) {
        int64_t at[3];
        batch_offsets(axes, n_axes, o, at);
        g.a = (const char *)mimic_data(a) + (size_t)at[0] * element_size(g.in);
        g.b = (const char *)mimic_data(b) + (size_t)at[1] * element_size(g.in);
        g.c = (char *)mimic_data(y) + (size_t)at[2] * element_size(g.out);
        st = cuda_gemm(c->ctx, &g);
    }
    return st ? st : done(c);
}

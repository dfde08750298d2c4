/* rand_uniform, rand_normal, dropout, drop_path: the numbers of the CPU. Element e takes word e % 4
 * of the Philox block with counter (e / 4, stream, step). */
#include "backend/cuda/rows.h"
#include "core/random_math.h"

enum { THREADS = 256 };

/* seed, stream and step of the call; in a recorded step `moved` is added to the step */
struct rng {
    uint64_t seed, step;
    const uint64_t *moved;
    uint32_t stream;
    __device__ void block(int64_t i, uint32_t *word) const {
        philox_block(seed, stream, moved ? step + *moved : step, (uint32_t)i, word);
    }
};

/* The three attributes from `first` on. */
static rng rng_of(const mimic_call *c, int first) {
    uint64_t step = (uint64_t)c->attrs.v[first + 2].i;
    return rng{(uint64_t)c->attrs.v[first].i, step, cuda_moved(c, step),
               (uint32_t)c->attrs.v[first + 1].i};
}

struct uniform_fn {
    float lo, span;
    __device__ float operator()(uint32_t u) const {
        return uniform_in(u, lo, span);
    }
};
struct normal_fn {
    double mean, std, lo, span;
    __device__ float operator()(uint32_t u) const {
        return normal_in(u, mean, std, lo, span);
    }
};

/* y[n] = f(words), four a thread */
template <class F> __global__ void draw(float *y, int64_t n, rng g, F f) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 4;
    uint32_t word[4];
    float v[4];
    if (i >= n)
        return;
    g.block(i / 4, word);
    UNROLL for (int k = 0; k < 4; k++) v[k] = f(word[k]);
    if (i + 4 <= n)
        store<4>(y + i, v);
    else
        for (int k = 0; i + k < n; k++)
            y[i + k] = v[k];
}

/* y[n] = x scale, 0 where the word is below the threshold (33 bits); packs: 16 bytes a thread */
template <class T>
__global__ void drop_elements(const T *x, T *y, int64_t n, bool packs, uint64_t threshold,
                              float scale, rng g) {
    const int N = pack<T>::N;
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    uint32_t word[N];
    float v[N];
    if (i >= n)
        return;
    UNROLL for (int k = 0; k < N; k += 4) g.block((i + k) / 4, word + k);
    if (packs && i + N <= n) {
        load<N>(x + i, v);
        UNROLL for (int k = 0; k < N; k++) v[k] = word[k] < threshold ? 0.0f : v[k] * scale;
        store<N>(y + i, v);
    } else {
        UNROLL for (int k = 0; k < N; k++) if (i + k < n)
            put(y + i + k, word[k] < threshold ? 0.0f : get(x[i + k]) * scale);
    }
}

/* y[rows,n] = x scale, whole rows 0; P elements a thread, `blocks` blocks a row */
template <class T, int P>
__global__ void drop_rows(const T *x, T *y, int64_t n, unsigned blocks, uint64_t threshold,
                          float scale, rng g) {
    int64_t r = blockIdx.x / blocks;
    int64_t i = ((int64_t)(blockIdx.x % blocks) * THREADS + threadIdx.x) * P;
    uint32_t word[4];
    float v[P] = {0.0f};
    if (i >= n)
        return;
    g.block(r / 4, word);
    uint32_t w = r % 4 == 0 ? word[0] : r % 4 == 1 ? word[1] : r % 4 == 2 ? word[2] : word[3];
    if (w >= threshold) {
        load<P>(x + r * n + i, v);
        UNROLL for (int k = 0; k < P; k++) v[k] *= scale;
    }
    store<P>(y + r * n + i, v);
}

/* --- entries --- */

template <class F> static void run_draw(mimic_call *c, const rng &g, const F &f) {
    int64_t n = mimic_numel(c->out[0]);
    if (n > 0)
        LAUNCH(draw<F>, blocks_of(n, THREADS * 4), THREADS, 0, state_of(c->ctx)->stream,
               (float *)mimic_data(c->out[0]), n, g, f);
}

KERNEL(rand_uniform) {
    float lo = (float)c->attrs.v[1].f, span = (float)(c->attrs.v[2].f - c->attrs.v[1].f);
    run_draw(c, rng_of(c, 3), uniform_fn{lo, span});
    return done(c);
}

KERNEL(rand_normal) {
    double cut = c->attrs.v[3].f, lo = cut > 0 ? 0.5 * erfc(cut * 0.70710678118654752440) : 0;
    run_draw(c, rng_of(c, 4), normal_fn{c->attrs.v[1].f, c->attrs.v[2].f, lo, 1 - 2 * lo});
    return done(c);
}

struct drop {
    uint64_t threshold;
    float scale;
};

static drop drop_of(const mimic_call *c) {
    double p = c->attrs.v[0].f;
    return drop{(uint64_t)(p * 4294967296.0), (float)(1 / (1 - p))};
}

template <class T> static void run_dropout(mimic_call *c) {
    const T *x = (const T *)mimic_data(c->in[0]);
    T *y = (T *)mimic_data(c->out[0]);
    int64_t n = mimic_numel(c->in[0]);
    drop d = drop_of(c);
    LAUNCH(drop_elements<T>, blocks_of(n, THREADS * pack<T>::N), THREADS, 0,
           state_of(c->ctx)->stream, x, y, n, wide(x, y), d.threshold, d.scale, rng_of(c, 1));
}

template <class T> static void run_drop_path(mimic_call *c) {
    const int P = pack<T>::N;
    const T *x = (const T *)mimic_data(c->in[0]);
    T *y = (T *)mimic_data(c->out[0]);
    int64_t rows = c->in[0]->shape[0], n = mimic_numel(c->in[0]) / rows;
    cudaStream_t stream = state_of(c->ctx)->stream;
    drop d = drop_of(c);
    rng g = rng_of(c, 1);
    bool packs = wide(x, y) && n % P == 0;
    unsigned blocks = blocks_of(n, packs ? THREADS * P : THREADS);
    LAUNCH((packs ? drop_rows<T, P> : drop_rows<T, 1>), (unsigned)rows * blocks, THREADS, 0, stream,
           x, y, n, blocks, d.threshold, d.scale, g);
}

KERNEL(dropout) {
    if (mimic_numel(c->in[0]) > 0)
        BY_FLOAT(c->in[0]->dtype, run_dropout)(c);
    return done(c);
}

KERNEL(drop_path) {
    if (mimic_numel(c->in[0]) > 0)
        BY_FLOAT(c->in[0]->dtype, run_drop_path)(c);
    return done(c);
}

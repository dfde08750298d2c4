/* Attention for any head width and any number of tokens, by plain f32 multiply-adds. A block keeps
 * ROWS rows of one head (queries, or keys for their gradients) and walks over the other side in
 * tiles of COLS: a warp has 4 of the rows, a lane one column of the tile. Gradients are summed by
 * the block that keeps their rows, so each is written once and in a fixed order. */
#include "backend/cuda/attention.h"

enum { WARPS = 4, EACH = 4, ROWS = WARPS * EACH, COLS = 32, THREADS = 32 * WARPS };

/* Sizes in a kernel, and where its block is. */
struct place {
    int t, heads, d, ld; /* ld: row length in shared memory, odd: lanes meet no common bank */
    int64_t step;
    float scale;
};

/* dst[rows,ld] = src[rows,d], rows `step` apart; zero behind the `left` that exist. */
template <class T>
__device__ void load_rows(const T *src, int64_t step, int left, int rows, const place &p,
                          float *dst) {
    for (int i = (int)threadIdx.x; i < rows * p.d; i += THREADS) {
        int r = i / p.d, c = i - r * p.d;
        dst[r * p.ld + c] = r < left ? get(src[r * step + c]) : 0.0f;
    }
}

/* out[i] = row i of this warp . row `lane` of the tile */
__device__ __forceinline__ void dots(const float *rows, const float *tile, int lane, const place &p,
                                     float out[EACH]) {
    for (int i = 0; i < EACH; i++)
        out[i] = 0.0f;
    for (int c = 0; c < p.d; c++) {
        float x = tile[lane * p.ld + c];
        for (int i = 0; i < EACH; i++)
            out[i] += rows[i * p.ld + c] * x;
    }
}

/* sum[EACH,d] = sum * by + weight[EACH,COLS] . tile[COLS,d], columns shared out among the lanes */
__device__ __forceinline__ void mix_tile(float *sum, const float by[EACH], const float *weight,
                                         const float *tile, int lane, const place &p) {
    for (int c = lane; c < p.d; c += 32) {
        float s[EACH];
        for (int i = 0; i < EACH; i++)
            s[i] = sum[i * p.ld + c] * by[i];
        for (int j = 0; j < COLS; j++) {
            float x = tile[j * p.ld + c];
            for (int i = 0; i < EACH; i++)
                s[i] += weight[i * COLS + j] * x;
        }
        for (int i = 0; i < EACH; i++)
            sum[i * p.ld + c] = s[i];
    }
}

/* y, lse: the largest score so far is taken out as it changes, which leaves the softmax exact. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    any_forward(const T *qkv, T *y, float *lse, place p, int tiles) {
    DYNAMIC_SHARED(float, q);
    float *k = q + ROWS * p.ld, *v = k + COLS * p.ld, *o = v + COLS * p.ld, *w = o + ROWS * p.ld;
    const int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * EACH;
    const int first = (int)(blockIdx.x % tiles) * ROWS, item = (int)(blockIdx.x / tiles);
    const int64_t width = p.step / 3;
    qkv += item / p.heads * (int64_t)p.t * p.step + item % p.heads * p.d;
    y += item / p.heads * (int64_t)p.t * width + item % p.heads * p.d;
    float top[EACH], total[EACH], by[EACH], s[EACH];
    load_rows(qkv + first * p.step, p.step, p.t - first, ROWS, p, q);
    for (int i = 0; i < EACH; i++) {
        top[i] = -INFINITY;
        total[i] = 0.0f;
        for (int c = lane; c < p.d; c += 32)
            o[(mine + i) * p.ld + c] = 0.0f;
    }
    for (int j0 = 0; j0 < p.t; j0 += COLS) {
        __syncthreads();
        load_rows(qkv + j0 * p.step + width, p.step, p.t - j0, COLS, p, k);
        load_rows(qkv + j0 * p.step + 2 * width, p.step, p.t - j0, COLS, p, v);
        __syncthreads();
        dots(q + mine * p.ld, k, lane, p, s);
        for (int i = 0; i < EACH; i++) {
            float x = j0 + lane < p.t ? s[i] * p.scale : -INFINITY;
            float now = fmaxf(top[i], warp_max(x)), e = expf(x - now);
            by[i] = expf(top[i] - now);
            total[i] = total[i] * by[i] + warp_sum(e);
            top[i] = now;
            w[(mine + i) * COLS + lane] = e;
        }
        __syncwarp();
        mix_tile(o + mine * p.ld, by, w + mine * COLS, v, lane, p);
    }
    for (int i = 0; i < EACH; i++) {
        int row = first + mine + i;
        if (row >= p.t)
            break;
        for (int c = lane; c < p.d; c += 32)
            put(y + row * width + c, o[(mine + i) * p.ld + c] / total[i]);
        if (lse && lane == 0)
            lse[(int64_t)item * p.t + row] = top[i] + logf(total[i]);
    }
}

/* One warp a row: delta = dy . y */
template <class T>
__global__ void head_dots(const T *dy, const T *y, float *delta, place p, int64_t rows) {
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (i >= rows)
        return;
    int lane = threadIdx.x % 32, head = (int)(i / p.t % p.heads);
    int64_t at = (i / p.t / p.heads * p.t + i % p.t) * (p.step / 3) + (int64_t)head * p.d;
    float s = 0.0f;
    for (int c = lane; c < p.d; c += 32)
        s += get(dy[at + c]) * get(y[at + c]);
    s = warp_sum(s);
    if (lane == 0)
        delta[i] = s;
}

/* With w = exp(scaled score - lse) and g = w (dy . v - delta) scale of each query and key: dq = g k
 * for the block's queries, or (KEYS) dk = g^T q, dv = w^T dy for its keys. */
template <class T, bool KEYS>
__global__ void __launch_bounds__(THREADS)
    any_backward(const T *qkv, const T *dy, const float *lse, const float *delta, T *dqkv, place p,
                 int tiles) {
    DYNAMIC_SHARED(float, a);
    float *a2 = a + ROWS * p.ld, *b = a2 + ROWS * p.ld, *b2 = b + COLS * p.ld;
    float *sum = b2 + COLS * p.ld, *sum2 = sum + ROWS * p.ld;
    float *g = sum2 + ROWS * p.ld, *w = g + ROWS * COLS;
    const int lane = threadIdx.x % 32, mine = threadIdx.x / 32 * EACH;
    const int first = (int)(blockIdx.x % tiles) * ROWS, item = (int)(blockIdx.x / tiles);
    const int64_t width = p.step / 3;
    const int64_t at = item / p.heads * (int64_t)p.t * p.step + item % p.heads * p.d;
    qkv += at;
    dqkv += at;
    dy += item / p.heads * (int64_t)p.t * width + item % p.heads * p.d;
    lse += (int64_t)item * p.t;
    delta += (int64_t)item * p.t;
    const T *rows = qkv + (KEYS ? width : 0), *rows2 = KEYS ? qkv + 2 * width : dy;
    const T *cols = qkv + (KEYS ? 0 : width), *cols2 = KEYS ? dy : qkv + 2 * width;
    const int64_t rows2_step = KEYS ? p.step : width, cols2_step = KEYS ? width : p.step;
    const float one[EACH] = {1.0f, 1.0f, 1.0f, 1.0f};
    float s[EACH], ds[EACH];
    load_rows(rows + first * p.step, p.step, p.t - first, ROWS, p, a);
    load_rows(rows2 + first * rows2_step, rows2_step, p.t - first, ROWS, p, a2);
    for (int i = mine; i < mine + EACH; i++)
        for (int c = lane; c < p.d; c += 32)
            sum[i * p.ld + c] = sum2[i * p.ld + c] = 0.0f;
    for (int j0 = 0; j0 < p.t; j0 += COLS) {
        __syncthreads();
        load_rows(cols + j0 * p.step, p.step, p.t - j0, COLS, p, b);
        load_rows(cols2 + j0 * cols2_step, cols2_step, p.t - j0, COLS, p, b2);
        __syncthreads();
        dots(a + mine * p.ld, b, lane, p, s);
        dots(a2 + mine * p.ld, b2, lane, p, ds);
        for (int i = 0; i < EACH; i++) {
            int row = first + mine + i, col = j0 + lane, query = KEYS ? col : row;
            bool there = row < p.t && col < p.t;
            float e = there ? expf(s[i] * p.scale - lse[query]) : 0.0f;
            g[(mine + i) * COLS + lane] = there ? e * (ds[i] - delta[query]) * p.scale : 0.0f;
            if (KEYS)
                w[(mine + i) * COLS + lane] = e;
        }
        __syncwarp();
        mix_tile(sum + mine * p.ld, one, g + mine * COLS, b, lane, p);
        if (KEYS)
            mix_tile(sum2 + mine * p.ld, one, w + mine * COLS, b2, lane, p);
    }
    for (int i = mine; i < mine + EACH && first + i < p.t; i++) {
        T *out = dqkv + (first + i) * p.step;
        for (int c = lane; c < p.d; c += 32) {
            put(out + (KEYS ? width : 0) + c, sum[i * p.ld + c]);
            if (KEYS)
                put(out + 2 * width + c, sum2[i * p.ld + c]);
        }
    }
}

static place place_of(const heads &a) {
    return place{(int)a.t, (int)a.heads, (int)a.d, (int)a.d | 1, a.step, a.scale};
}

/* What a block keeps in shared memory: rows of `wide` as long as a head, and `small` floats. */
struct room {
    int wide, small;
};
static const room of_forward = {2 * ROWS + 2 * COLS, ROWS *COLS};
static const room of_backward = {4 * ROWS + 2 * COLS, 2 * ROWS *COLS};

/* Columns of the widest head that fits; rows have odd lengths. */
static int64_t widest(const cuda_state *s, room r) {
    int64_t length = ((int64_t)(s->max_shared / sizeof(float)) - r.small) / r.wide;
    return (length - 1) | 1;
}

/* The bytes of shared memory; refuses heads that no block can have. */
static mimic_status shared_bytes(mimic_call *c, const heads &a, room r, size_t *bytes) {
    cuda_state *s = state_of(c->ctx);
    *bytes = (size_t)(r.wide * (a.d | 1) + r.small) * sizeof(float);
    if (*bytes <= s->max_shared)
        return MIMIC_OK;
    return s->host->fail(c->ctx, MIMIC_EUNSUPPORTED,
                         "%s: heads of %lld columns are too wide for this device: at most %lld, "
                         "with gradients %lld",
                         c->op->name, (long long)a.d, (long long)widest(s, of_forward),
                         (long long)widest(s, of_backward));
}

template <class T> static mimic_status forward(mimic_call *c, const heads &a) {
    int tiles = (int)((a.t + ROWS - 1) / ROWS);
    size_t bytes;
    mimic_status st = a.lse ? shared_bytes(c, a, of_backward, &bytes) : MIMIC_OK; /* told now */
    if (!st)
        st = shared_bytes(c, a, of_forward, &bytes);
    if (!st)
        st = allow_shared(c, any_forward<T>, bytes);
    if (!st)
        LAUNCH(any_forward<T>, (unsigned)(tiles * a.images * a.heads), THREADS, bytes,
               state_of(c->ctx)->stream, (const T *)a.qkv, (T *)a.y, (float *)a.lse, place_of(a),
               tiles);
    return st;
}

template <class T, bool KEYS>
static mimic_status backward_of(mimic_call *c, const heads &a, const float *delta) {
    int tiles = (int)((a.t + ROWS - 1) / ROWS);
    size_t bytes;
    mimic_status st = shared_bytes(c, a, of_backward, &bytes);
    if (!st)
        st = allow_shared(c, any_backward<T, KEYS>, bytes);
    if (!st)
        LAUNCH((any_backward<T, KEYS>), (unsigned)(tiles * a.images * a.heads), THREADS, bytes,
               state_of(c->ctx)->stream, (const T *)a.qkv, (const T *)a.dy, (const float *)a.lse,
               delta, (T *)a.dqkv, place_of(a), tiles);
    return st;
}

template <class T> static mimic_status backward(mimic_call *c, const heads &a, const float *delta) {
    mimic_status st = backward_of<T, false>(c, a, delta);
    return st ? st : backward_of<T, true>(c, a, delta);
}

template <class T> static void delta_of(mimic_call *c, const heads &a, float *delta) {
    int64_t rows = a.images * a.heads * a.t;
    LAUNCH(head_dots<T>, blocks_of(rows, 8), 256, 0, state_of(c->ctx)->stream, (const T *)a.dy,
           (const T *)a.y, delta, place_of(a), rows);
}

void attention_delta(mimic_call *c, const heads &a, float *delta) {
    (a.bf16 ? delta_of<bf16> : delta_of<float>)(c, a, delta);
}

mimic_status attention_any(mimic_call *c, const heads &a) {
    return (a.bf16 ? forward<bf16> : forward<float>)(c, a);
}

mimic_status attention_any_bwd(mimic_call *c, const heads &a, float *delta) {
    attention_delta(c, a, delta);
    return (a.bf16 ? backward<bf16> : backward<float>)(c, a, delta);
}

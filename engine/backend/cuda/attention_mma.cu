/* Attention in bf16 by the tensor cores, for heads of 32, 64 and 80 columns. A warp has 16 rows of
 * one head (queries, or keys for their gradients) in registers; the other side lies in shared
 * memory: all of it up to WHOLE tokens, where one block has the head for itself, and in tiles of
 * TILE beyond. The gradient of each row is summed by its warp and written once. Sums and the
 * softmax are f32; what goes into a second product is rounded to bf16. */
#include "backend/cuda/attention.h"
#include "backend/cuda/mma.h"

enum { WHOLE = 208, TILE = 64, STRIP = 32, FEW = 7, MANY = WHOLE / 16 /* warps */ };
#define LOG2_E 1.4426950408889634f

/* Sizes in a kernel; what lies within an image is counted in 32 bits. A head has `blocks` blocks;
 * each goes through `rounds` of 16 rows a warp. */
struct place {
    int t, heads, tile, blocks, rounds, step;
    float scale;
};

/* Starts copies: dst[rows,D+8] = src[rows,D], rows `step` apart; zero behind the `left` that exist.
 */
template <int D>
__device__ void load_tile(const bf16 *src, int step, int left, int rows, bf16 *dst) {
    const int PACKS = D / 8;
    for (int i = (int)threadIdx.x; i < rows * PACKS; i += (int)blockDim.x) {
        int r = i / PACKS, c = i % PACKS * 8;
        copy_16(dst + r * (D + 8) + c, r < left ? src + r * step + c : src, r < left);
    }
}

/* Rows first.. of src as the A of products over D; zero from row t on. */
template <int D>
__device__ __forceinline__ void load_operand(const bf16 *src, int step, int first, int t,
                                             unsigned a[D / 16][4]) {
    const int lane = threadIdx.x % 32, row = first + lane / 4, column = lane % 4 * 2;
    for (int k = 0; k < D / 16; k++)
        for (int i = 0; i < 4; i++) {
            int r = row + i % 2 * 8, c = k * 16 + i / 2 * 8 + column;
            a[k][i] = r < t ? *(const unsigned *)(src + r * step + c) : 0;
        }
}

/* Where a lane finds the rows first.. of a tile as operand A, 16 columns a step. */
template <int D> __device__ __forceinline__ const bf16 *operand_at(const bf16 *tile, int first) {
    const int lane = threadIdx.x % 32;
    return tile + (first + lane % 16) * (D + 8) + lane / 16 * 8;
}

/* s[16,16] = a[16,D] . tile[16,D]^T; rows_of(k) gives 16 columns of a */
template <int D, class F>
__device__ __forceinline__ void scores_of(F rows_of, const bf16 *tile, float s[2][4]) {
    const int lane = threadIdx.x % 32;
    const bf16 *row = tile + (lane / 16 * 8 + lane % 8) * (D + 8) + lane / 8 % 2 * 8;
    for (int i = 0; i < 4; i++)
        s[0][i] = s[1][i] = 0.0f;
    for (int k = 0; k < D / 16; k++) {
        unsigned b[4];
        const unsigned *a = rows_of(k);
        load_matrices(b, row + k * 16);
        mma(s[0], a, b);
        mma(s[1], a, b + 2);
    }
}

template <int D>
__device__ __forceinline__ void scores(const unsigned a[D / 16][4], const bf16 *tile,
                                       float s[2][4]) {
    scores_of<D>([&](int k) { return a[k]; }, tile, s);
}

/* The same with a's rows in shared memory too, for want of registers. */
template <int D>
__device__ __forceinline__ void scores_between(const bf16 *a, const bf16 *tile, float s[2][4]) {
    unsigned now[4];
    scores_of<D>(
        [&](int k) {
            load_matrices(now, a + k * 16);
            return (const unsigned *)now;
        },
        tile, s);
}

/* sum[16,D] += w[16,16] . tile[16,D] */
template <int D>
__device__ __forceinline__ void add_product(float sum[D / 8][4], const float w[2][4],
                                            const bf16 *tile) {
    const int lane = threadIdx.x % 32;
    const bf16 *row = tile + lane % 16 * (D + 8) + lane / 16 * 8;
    const unsigned a[4] = {pair_of(w[0][0], w[0][1]), pair_of(w[0][2], w[0][3]),
                           pair_of(w[1][0], w[1][1]), pair_of(w[1][2], w[1][3])};
    for (int n = 0; n < D / 16; n++) {
        unsigned b[4];
        load_transposed(b, row + n * 16);
        mma(sum[2 * n], a, b);
        mma(sum[2 * n + 1], a, b + 2);
    }
}

/* Rows first.. of dst = sum, those of the two halves times by[0], by[1]. */
template <int D>
__device__ __forceinline__ void store_rows(bf16 *dst, int step, int first, int t,
                                           const float sum[D / 8][4], float by0, float by1) {
    const int lane = threadIdx.x % 32, row = first + lane / 4, column = lane % 4 * 2;
    for (int n = 0; n < D / 8; n++) {
        if (row < t)
            *(unsigned *)(dst + row * step + n * 8 + column) =
                pair_of(sum[n][0] * by0, sum[n][1] * by0);
        if (row + 8 < t)
            *(unsigned *)(dst + (row + 8) * step + n * 8 + column) =
                pair_of(sum[n][2] * by1, sum[n][3] * by1);
    }
}

/* Sum over the four lanes that share a row. */
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* What a warp keeps of its 16 queries; [0] is of row lane / 4, [1] of the row 8 on. */
template <int D> struct queries {
    unsigned q[D / 16][4];
    float o[D / 8][4], top[2], total[2]; /* total: of this lane's columns */
};

/* Adds STRIP keys at most, of which `left` exist: the largest score so far is taken out as it
 * changes, which leaves the softmax exact. */
template <int D>
__device__ __forceinline__ void add_keys(queries<D> &m, const bf16 *k, const bf16 *v, int left,
                                         float scale) {
    float s[STRIP / 16][2][4], now[2] = {m.top[0], m.top[1]}, shift[2], by[2];
    const int column = threadIdx.x % 4 * 2;
    for (int j = 0; j < STRIP / 16; j++) {
        if (16 * j < left)
            scores<D>(m.q, k + 16 * j * (D + 8), s[j]);
        for (int i = 0; i < 8; i++) {
            if (16 * j + i / 4 * 8 + column + i % 2 >= left)
                s[j][i / 4][i % 4] = -INFINITY;
            now[i % 4 / 2] = fmaxf(now[i % 4 / 2], s[j][i / 4][i % 4]);
        }
    }
    for (int h = 0; h < 2; h++) {
        now[h] = quad_max(now[h]);
        by[h] = exp2f((m.top[h] - now[h]) * scale);
        shift[h] = now[h] * scale;
        m.top[h] = now[h];
        m.total[h] *= by[h];
    }
    for (int n = 0; n < D / 8; n++)
        for (int i = 0; i < 4; i++)
            m.o[n][i] *= by[i / 2];
    for (int j = 0; j < STRIP / 16; j++) {
        if (16 * j >= left)
            break;
        for (int i = 0; i < 8; i++) {
            float e = exp2f(s[j][i / 4][i % 4] * scale - shift[i % 4 / 2]);
            s[j][i / 4][i % 4] = e;
            m.total[i % 4 / 2] += e;
        }
        add_product<D>(m.o, s[j], v + 16 * j * (D + 8));
    }
}

template <int D>
__global__ void __launch_bounds__(32 * FEW, D < 80 ? 2 : 1)
    mma_forward(const bf16 *qkv, bf16 *y, float *lse, place p) {
    DYNAMIC_SHARED(bf16, k);
    bf16 *v = k + p.tile * (D + 8);
    const int lane = threadIdx.x % 32, warps = (int)blockDim.x / 32;
    const int item = (int)blockIdx.x / p.blocks, block = (int)blockIdx.x % p.blocks;
    const int width = p.step / 3, head = item % p.heads;
    const int64_t image = item / p.heads;
    qkv += image * p.t * p.step + head * D;
    y += image * p.t * width + head * D;
    queries<D> m;
    for (int round = 0, there = -1; round < p.rounds; round++) {
        const int first = ((block * p.rounds + round) * warps + (int)threadIdx.x / 32) * 16;
        load_operand<D>(qkv, p.step, first, p.t, m.q);
        for (int n = 0; n < D / 8; n++)
            for (int i = 0; i < 4; i++)
                m.o[n][i] = 0.0f;
        for (int h = 0; h < 2; h++) {
            m.top[h] = -INFINITY;
            m.total[h] = 0.0f;
        }
        for (int j0 = 0; j0 < p.t; j0 += p.tile) {
            if (j0 != there) {
                __syncthreads();
                load_tile<D>(qkv + j0 * p.step + width, p.step, p.t - j0, p.tile, k);
                load_tile<D>(qkv + j0 * p.step + 2 * width, p.step, p.t - j0, p.tile, v);
                end_copies();
                wait_copies<0>();
                __syncthreads();
                there = j0;
            }
            const int end = p.t - j0 < p.tile ? p.t - j0 : p.tile;
            for (int j = 0; j < end && first < p.t; j += STRIP)
                add_keys<D>(m, k + j * (D + 8), v + j * (D + 8), end - j, p.scale * LOG2_E);
        }
        const float total[2] = {quad_sum(m.total[0]), quad_sum(m.total[1])};
        store_rows<D>(y, width, first, p.t, m.o, 1.0f / total[0], 1.0f / total[1]);
        for (int h = 0; h < 2 && lse && lane % 4 == 0; h++) {
            int row = first + lane / 4 + 8 * h;
            if (row < p.t)
                lse[(int64_t)item * p.t + row] = m.top[h] * p.scale + logf(total[h]);
        }
    }
}

/* out = dot products of the operand's rows, this lane's two, with those of y */
template <int D>
__device__ __forceinline__ void row_dots(const unsigned a[D / 16][4], const bf16 *y, int step,
                                         int first, int t, float out[2]) {
    unsigned b[D / 16][4];
    load_operand<D>(y, step, first, t, b);
    out[0] = out[1] = 0.0f;
    for (int k = 0; k < D / 16; k++)
        for (int i = 0; i < 4; i++)
            out[i % 2] +=
                __uint_as_float(a[k][i] << 16) * __uint_as_float(b[k][i] << 16) +
                __uint_as_float(a[k][i] & 0xffff0000u) * __uint_as_float(b[k][i] & 0xffff0000u);
    out[0] = quad_sum(out[0]);
    out[1] = quad_sum(out[1]);
}

/* Operands of a gradient: those of the rows of the warps, and of the columns in shared memory. */
struct side {
    const bf16 *first, *second;
    int step, second_step;
};

/* Elements of shared memory that the columns of a gradient take: both tiles, lse and delta. */
template <int D> __host__ __device__ __forceinline__ int side_size(int tile) {
    return tile * (2 * (D + 8) + 4);
}

template <int D>
__device__ __forceinline__ void load_side(const side &cols, int j0, const place &p, bf16 *to) {
    load_tile<D>(cols.first + j0 * cols.step, cols.step, p.t - j0, p.tile, to);
    load_tile<D>(cols.second + j0 * cols.second_step, cols.second_step, p.t - j0, p.tile,
                 to + p.tile * (D + 8));
    end_copies();
}

/* Warps of a block that has a head for itself: as many as rows want where registers allow. */
template <int D> struct backward_warps {
    enum { N = D < 80 ? MANY : FEW };
};

/* With w = exp(scaled score - lse) and g = w (dy . v - delta) scale of each query and key: dq = g k
 * for rows of queries, or (KEYS) dk = g^T q, dv = w^T dy for rows of keys. The columns lie in
 * `shared`, tile by tile if TILED. Else the block has the whole head: it finds them on their way,
 * reads the rows' values where the first pass had them, and makes delta as it goes through the
 * queries. Columns behind the last token are zero, and their w too, or it meets zeros only. */
template <int D, bool KEYS, bool TILED>
__device__ __forceinline__ void gradient(const side &rows, const side &cols, const bf16 *values,
                                         const bf16 *y, const float *lse, float *delta, bf16 *out,
                                         bf16 *out2, int block, const place &p, bf16 *shared) {
    bf16 *b = shared, *b2 = b + p.tile * (D + 8);
    float *col_lse = (float *)(b2 + p.tile * (D + 8)), *col_delta = col_lse + p.tile;
    const int lane = threadIdx.x % 32, warps = (int)blockDim.x / 32, column = lane % 4 * 2;
    unsigned a[D / 16][4], a2[D / 16][4];
    float sum[D / 8][4], sum2[KEYS ? D / 8 : 1][4], row_lse[2], row_delta[2];
    const int rounds = TILED || (int)backward_warps<D>::N < MANY ? p.rounds : 1;
    for (int round = 0, there = -1; round < rounds; round++) {
        const int first = ((block * rounds + round) * warps + (int)threadIdx.x / 32) * 16;
        const bf16 *own = KEYS && !TILED ? operand_at<D>(values, first) : NULL;
        load_operand<D>(rows.first, rows.step, first, p.t, a);
        if (!KEYS || TILED)
            load_operand<D>(rows.second, rows.second_step, first, p.t, a2);
        for (int n = 0; n < D / 8; n++)
            for (int i = 0; i < 4; i++)
                sum[n][i] = sum2[KEYS ? n : 0][i] = 0.0f;
        if (!KEYS && !TILED)
            row_dots<D>(a2, y, rows.second_step, first, p.t, row_delta);
        for (int h = 0; h < 2 && !KEYS; h++) {
            int row = first + lane / 4 + 8 * h;
            row_lse[h] = row < p.t ? lse[row] * LOG2_E : INFINITY;
            if (TILED)
                row_delta[h] = row < p.t ? delta[row] : 0.0f;
            else if (row < p.t && lane % 4 == 0)
                delta[row] = row_delta[h];
        }
        for (int j0 = 0; j0 < (TILED ? p.t : 1); j0 += p.tile) {
            if (j0 != there) {
                __syncthreads();
                if (TILED)
                    load_side<D>(cols, j0, p, shared);
                for (int i = (int)threadIdx.x; i < p.tile && KEYS; i += (int)blockDim.x) {
                    col_lse[i] = j0 + i < p.t ? lse[j0 + i] * LOG2_E : INFINITY;
                    col_delta[i] = j0 + i < p.t ? delta[j0 + i] : 0.0f;
                }
                wait_copies<KEYS || TILED ? 0 : 1>(); /* the queries come later */
                __syncthreads();
                there = j0;
            }
            const int end = p.t - j0 < p.tile ? p.t - j0 : p.tile;
            for (int j = 0; j < end && first < p.t; j += 16) {
                float w[2][4], g[2][4];
                scores<D>(a, b + j * (D + 8), w);
                if (KEYS && !TILED)
                    scores_between<D>(own, b2 + j * (D + 8), g);
                else
                    scores<D>(a2, b2 + j * (D + 8), g);
                for (int i = 0; i < 8; i++) {
                    int c = j + i / 4 * 8 + column + i % 2, h = i % 4 / 2;
                    float &x = w[i / 4][i % 4], &dx = g[i / 4][i % 4];
                    x = exp2f(x * (p.scale * LOG2_E) - (KEYS ? col_lse[c] : row_lse[h]));
                    dx = x * (dx - (KEYS ? col_delta[c] : row_delta[h])) * p.scale;
                }
                if (KEYS)
                    add_product<D>(sum2, w, b2 + j * (D + 8));
                add_product<D>(sum, g, b + j * (D + 8));
            }
        }
        store_rows<D>(out, p.step, first, p.t, sum, 1.0f, 1.0f);
        if (KEYS)
            store_rows<D>(out2, p.step, first, p.t, sum2, 1.0f, 1.0f);
    }
}

template <int D, bool TILED>
__global__ void __launch_bounds__(32 * (TILED ? TILE / 16 : (int)backward_warps<D>::N), 1)
    mma_backward(const bf16 *qkv, const bf16 *y, const bf16 *dy, const float *lse, float *delta,
                 bf16 *dqkv, place p) {
    DYNAMIC_SHARED(bf16, shared);
    const int item = (int)blockIdx.x / p.blocks, block = (int)blockIdx.x % p.blocks;
    const int width = p.step / 3, head = item % p.heads;
    const int64_t image = item / p.heads;
    const int64_t at = image * p.t * p.step + head * D, at_y = image * p.t * width + head * D;
    const side queries = {qkv + at, dy + at_y, p.step, width};
    const side keys = {qkv + at + width, qkv + at + 2 * width, p.step, p.step};
    bf16 *second = TILED ? shared : shared + side_size<D>(p.tile);
    lse += (int64_t)item * p.t;
    delta += (int64_t)item * p.t;
    if (!TILED) {
        load_side<D>(keys, 0, p, shared);
        load_side<D>(queries, 0, p, second);
    }
    gradient<D, false, TILED>(queries, keys, NULL, y + at_y, lse, delta, dqkv + at, NULL, block, p,
                              shared);
    gradient<D, true, TILED>(keys, queries, shared + p.tile * (D + 8), NULL, lse, delta,
                             dqkv + at + width, dqkv + at + 2 * width, block, p, second);
}

/* How a head is shared out: its rows in blocks, the warps of a block, at most `most`. */
static place plan(const heads &a, int most, int *threads) {
    place p = {};
    int tiles = (int)((a.t + 15) / 16), warps = tiles <= most ? tiles : (tiles + 1) / 2;
    p.t = (int)a.t;
    p.heads = (int)a.heads;
    p.step = (int)a.step;
    p.scale = a.scale;
    p.tile = a.t <= WHOLE ? 16 * tiles : TILE;
    p.blocks = a.t <= WHOLE ? 1 : (int)((a.t + TILE - 1) / TILE);
    warps = a.t <= WHOLE ? warps : TILE / 16;
    p.rounds = a.t <= WHOLE ? (tiles + warps - 1) / warps : 1;
    *threads = 32 * warps;
    return p;
}

template <int D> static mimic_status forward(mimic_call *c, const heads &a) {
    int threads;
    place p = plan(a, FEW, &threads);
    size_t bytes = (size_t)p.tile * (D + 8) * 2 * sizeof(bf16);
    mimic_status st = allow_shared(c, mma_forward<D>, bytes);
    if (!st)
        LAUNCH(mma_forward<D>, (unsigned)(a.images * a.heads * p.blocks), threads, bytes,
               state_of(c->ctx)->stream, (const bf16 *)a.qkv, (bf16 *)a.y, (float *)a.lse, p);
    return st;
}

template <int D, bool TILED>
static mimic_status backward_in(mimic_call *c, const heads &a, float *delta) {
    int threads;
    place p = plan(a, backward_warps<D>::N, &threads);
    size_t bytes = (size_t)(side_size<D>(p.tile) * (TILED ? 1 : 2)) * sizeof(bf16);
    mimic_status st = allow_shared(c, mma_backward<D, TILED>, bytes);
    if (!st)
        LAUNCH((mma_backward<D, TILED>), (unsigned)(a.images * a.heads * p.blocks), threads, bytes,
               state_of(c->ctx)->stream, (const bf16 *)a.qkv, (const bf16 *)a.y, (const bf16 *)a.dy,
               (const float *)a.lse, delta, (bf16 *)a.dqkv, p);
    return st;
}

template <int D> static mimic_status backward(mimic_call *c, const heads &a, float *delta) {
    return a.t > WHOLE ? backward_in<D, true>(c, a, delta) : backward_in<D, false>(c, a, delta);
}

bool attention_mma_takes(const heads &a) {
    return a.bf16 && (a.d == 32 || a.d == 64 || a.d == 80) && wide(a.qkv, a.y) &&
           wide(a.dy, a.dqkv) && a.t * a.step <= INT32_MAX;
}

mimic_status attention_mma(mimic_call *c, const heads &a) {
    return (a.d == 32 ? forward<32> : a.d == 64 ? forward<64> : forward<80>)(c, a);
}

mimic_status attention_mma_bwd(mimic_call *c, const heads &a, float *delta) {
    if (a.t > WHOLE) /* else a block has all it needs */
        attention_delta(c, a, delta);
    return (a.d == 32 ? backward<32> : a.d == 64 ? backward<64> : backward<80>)(c, a, delta);
}

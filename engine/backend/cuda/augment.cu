/* Views of pictures from 8-bit sources: crop and resize (Pillow's weights), flip, colours, blur,
 * normalisation, erasing, as drawn by the CPU (image/plan.h). One block makes one view; the
 * arithmetic is the CPU pipeline's own (image/pixel_math.h, core/random_math.h), compiled without
 * contraction: the floats are equal to those of the CPU in every bit.
 *
 * Mixing (mix.cu) and patch rows (patches.cu) are passes of their own. A mixed view needs its
 * partner's, which another block makes: in one pass every picture would be made twice, and losses
 * want the un-mixed views too. What the passes move at batch 256 and 224 pixels, by their shapes:
 * MAE (view written, read twice and written as rows twice, a quarter gathered and rounded to bf16)
 * 0.91 GB; MSCL of two views (written, mixed, joined, cut into rows, rounded) 4.6 GB. At 3 TB/s
 * that is 0.3 ms of a MAE ViT-B step of 46 ms and 1.5 ms of some 260 ms (tests/bench/RESULTS.md,
 * H100): 0.6 % and less is all that one pass could save. */
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"
#include "core/random_math.h"
#include "image/affine_math.h"
#include "image/pixel_math.h"
#include "image/plan.h"

enum { THREADS = 256 };

/* Scratch of one view, in bytes from its begin: weights, the picture between the passes (and while
 * it is blurred), the picture. */
struct layout {
    size_t between, picture, bytes;
    int size, taps;
};

/* 8-bit pixels as the passes read them: pixel (x, y) at p + y * row + x * step. */
struct pixels {
    const uint8_t *p;
    size_t row;
    int step; /* 1: grey, its one value stands for all three */
    __device__ int at(int x, int y, int c) const {
        return p[(size_t)y * row + (size_t)x * step + (step == 1 ? 0 : c)];
    }
};

/* Sources and weights of the `size` outputs of one axis; taps = 0: pixel `first` + o itself. */
struct axis_table {
    int32_t *first, *count, *weight; /* [size], [size], [size,taps] */
    int taps, offset;
    __device__ axis_table(int32_t *memory, int size, int most, bool same, int from)
        : first(memory), count(memory + size), weight(memory + 2 * size), taps(same ? 0 : most),
          offset(from) {
    }
    __device__ int begin(int o) const {
        return taps ? first[o] : offset + o;
    }
    __device__ int end(int o) const {
        return taps ? first[o] + count[o] : offset + o + 1;
    }
};

__device__ static void fill_axis(const axis_table &t, int in, int out, int filter, int size) {
    mimic_taps a = mimic_taps_of(in, out, (mimic_filter)filter);
    for (int o = (int)threadIdx.x; t.taps && o < size; o += THREADS) {
        int lo, hi;
        double sum = 0, c = mimic_taps_window(&a, t.offset + o, &lo, &hi);
        for (int x = lo; x < hi; x++)
            sum += mimic_taps_value(&a, x, c);
        for (int x = lo; x < hi; x++)
            t.weight[o * t.taps + x - lo] = mimic_taps_weight(mimic_taps_value(&a, x, c), sum);
        t.first[o] = lo;
        t.count[o] = hi - lo;
    }
}

/* Output o of the axis: of pixels [o's begin - from, ...) of a row (down: a column) at `at`. */
__device__ static uint8_t resampled(const axis_table &t, int o, const pixels &src, int at, int from,
                                    bool down, int c) {
    int lo = t.begin(o) - from;
    if (!t.taps)
        return (uint8_t)(down ? src.at(at, lo, c) : src.at(lo, at, c));
    const int32_t *w = t.weight + o * t.taps;
    int32_t sum = 1 << (MIMIC_WEIGHT_BITS - 1);
    for (int k = 0; k < t.count[o]; k++)
        sum += w[k] * (down ? src.at(at, lo + k, c) : src.at(lo + k, at, c));
    return mimic_clip8(sum >> MIMIC_WEIGHT_BITS);
}

/* The horizontal pass, into between [rows,size,3], of the rows that the other one needs; afterwards
 * src is what that reads, its row 0 being row `from` of the source. */
__device__ static int pass_across(const axis_table &x, const axis_table &y, int size,
                                  uint8_t *between, pixels *src) {
    if (!x.taps) {
        src->p += (size_t)x.offset * src->step;
        return 0;
    }
    int from = y.begin(0), rows = y.end(size - 1) - from;
    for (int64_t i = threadIdx.x; i < (int64_t)rows * size; i += THREADS)
        for (int c = 0; c < 3; c++)
            between[i * 3 + c] =
                resampled(x, (int)(i % size), *src, from + (int)(i / size), 0, false, c);
    *src = pixels{between, (size_t)size * 3, 3};
    return from;
}

/* What a step was told about the whole picture before it: the mean of the luma (contrast), a table
 * of each channel's values [3,256] (autocontrast, equalize). */
struct whole {
    int mean;
    const uint8_t *table;
};

/* One step that looks at one pixel alone. */
__device__ static void colour(uint8_t *p, const mimic_plan_step &s, const whole &w) {
    int grey = s.op == MIMIC_AUG_CONTRAST ? w.mean : 0;
    switch (s.op) {
    case MIMIC_AUG_AUTOCONTRAST:
    case MIMIC_AUG_EQUALIZE:
        for (int c = 0; c < 3; c++)
            p[c] = w.table[c * 256 + p[c]];
        return;
    case MIMIC_AUG_INVERT:
        for (int c = 0; c < 3; c++)
            p[c] = (uint8_t)(255 - p[c]);
        return;
    case MIMIC_AUG_POSTERIZE:
        for (int c = 0; c < 3; c++)
            p[c] = mimic_posterize(p[c], (int)s.a);
        return;
    case MIMIC_AUG_SOLARIZE_ADD:
        for (int c = 0; c < 3; c++)
            p[c] = mimic_solarize_add(p[c], (int)s.a, (int)ceil(s.b));
        return;
    case MIMIC_AUG_COLOR:
        grey = mimic_luma(p);
        break;
    case MIMIC_AUG_HUE:
        mimic_turn_hue(p, s.a);
        return;
    case MIMIC_AUG_GREY:
        p[0] = p[1] = p[2] = (uint8_t)mimic_luma(p);
        return;
    case MIMIC_AUG_SOLARIZE:
        for (int c = 0; c < 3; c++)
            p[c] = mimic_solarize(p[c], (int)ceil(s.a));
        return;
    }
    for (int c = 0; c < 3; c++)
        p[c] = mimic_blend(grey, p[c], (float)s.a);
}

/* What a step needs of the pixels as they are before it. */
enum need { ONE, MEAN, TABLES, NEIGHBOURS };

__device__ static need need_of(const mimic_plan_step &s) {
    switch (s.op) {
    case MIMIC_AUG_CONTRAST:
        return MEAN;
    case MIMIC_AUG_AUTOCONTRAST:
    case MIMIC_AUG_EQUALIZE:
        return TABLES;
    case MIMIC_AUG_BLUR:
    case MIMIC_AUG_SHARPNESS:
    case MIMIC_AUG_ROTATE:
    case MIMIC_AUG_SHEAR_X:
    case MIMIC_AUG_SHEAR_Y:
    case MIMIC_AUG_TRANSLATE_X:
    case MIMIC_AUG_TRANSLATE_Y:
        return NEIGHBOURS;
    }
    return ONE;
}

/* One pass of a box over from[size,size,3] along x or down y. */
__device__ static void box_pass(const mimic_box_filter &b, const uint8_t *from, uint8_t *to,
                                int size, bool down) {
    pixels src = {from, (size_t)size * 3, 3};
    for (int i = (int)threadIdx.x; i < size * size; i += THREADS) {
        int x = i % size, y = i / size, at = down ? y : x;
        for (int c = 0; c < 3; c++) {
            uint32_t sum = 0, far = 0;
            for (int k = -b.radius - 1; k <= b.radius + 1; k++) {
                int q = mimic_within(at + k, size);
                uint32_t v = (uint32_t)(down ? src.at(x, q, c) : src.at(q, y, c));
                if (k < -b.radius || k > b.radius)
                    far += v;
                else
                    sum += v;
            }
            to[i * 3 + c] = mimic_box_weigh(&b, sum, far);
        }
    }
}

/* from[size,size,3], of 3 pixels a side or more, blended with its smoothed self. */
__device__ static void sharpen(float f, const uint8_t *from, uint8_t *to, int size) {
    pixels src = {from, (size_t)size * 3, 3};
    for (int i = (int)threadIdx.x; i < size * size; i += THREADS) {
        int x = i % size, y = i / size;
        bool edge = x == 0 || y == 0 || x == size - 1 || y == size - 1;
        for (int c = 0; c < 3; c++) {
            int v = src.at(x, y, c), sum = 4 * v;
            for (int k = 0; k < 9 && !edge; k++)
                sum += src.at(x + k % 3 - 1, y + k / 3 - 1, c);
            to[i * 3 + c] = edge ? (uint8_t)v : mimic_blend(mimic_smooth(sum), v, f);
        }
    }
}

__device__ static void warp(const mimic_view *v, const mimic_plan_step &s, const uint8_t *from,
                            uint8_t *to, int size) {
    double m[6];
    mimic_warp_matrix(s.op, s.a, s.turn, size, size, m);
    for (int i = (int)threadIdx.x; i < size * size; i += THREADS)
        mimic_warp_pixel(from, size, size, m, i % size, i / size, (mimic_filter)v->plan.filter,
                         v->fill, to + i * 3);
}

/* Blurs the picture by way of other; all threads see the result. */
__device__ static void blur(double sigma, uint8_t *picture, uint8_t *other, int size) {
    mimic_box_filter b;
    bool some = mimic_box_of(sigma, &b);
    __syncthreads();
    for (int pass = 0; some && pass < 6; pass++) {
        box_pass(b, pass % 2 ? other : picture, pass % 2 ? picture : other, size, pass >= 3);
        __syncthreads();
    }
}

/* The tables of a step from histograms[3,256]; all threads see them. */
__device__ static void make_tables(int op, const unsigned *histograms, uint8_t *tables) {
    __syncthreads();
    if (threadIdx.x < 3 && op == MIMIC_AUG_EQUALIZE)
        mimic_equalize_table(histograms + threadIdx.x * 256, tables + threadIdx.x * 256);
    else if (threadIdx.x < 3)
        mimic_autocontrast_table(histograms + threadIdx.x * 256, tables + threadIdx.x * 256);
    __syncthreads();
}

/* The sum over the block, in all of its threads: integers, exact in f64. */
__device__ static int64_t total(int64_t v) {
    SHARED(double, shared, 1);
    double sum = block_sum((double)v);
    if (threadIdx.x == 0)
        shared[0] = sum;
    __syncthreads();
    sum = shared[0];
    __syncthreads();
    return (int64_t)sum;
}

/* Pixel i of the result: normalised, or noise where the plan erases. out[3,size,size] */
__device__ static void write_pixel(const mimic_view *v, const uint8_t *p, int i, int size,
                                   float *out) {
    const mimic_plan &plan = v->plan;
    int x = i % size - plan.erase_left, y = i / size - plan.erase_top;
    bool noise = x >= 0 && x < plan.erase_w && y >= 0 && y < plan.erase_h;
    for (int c = 0; c < 3; c++) {
        float value = mimic_normalise(p[c], v->mean[c], v->std[c]);
        if (noise) {
            const mimic_rng &g = plan.noise;
            uint32_t word[4], at = g.index * 4 - 4 + (uint32_t)g.used;
            at += ((uint32_t)c * (uint32_t)plan.erase_h + (uint32_t)y) * (uint32_t)plan.erase_w +
                  (uint32_t)x;
            philox_block(g.seed, g.stream, g.step, at / 4, word);
            value = (float)normal_quantile(mimic_open_unit(word[at % 4]));
        }
        out[(int64_t)c * size * size + i] = value;
    }
}

/* batch: n views of `stride` bytes, then pictures. Block b makes view first + b. Steps that look at
 * one pixel alone are done on the way from one pass to the next. ALL: RandAugment's steps too,
 * which take more registers and shared memory. */
template <bool ALL>
__global__ void augment_views(const uint8_t *batch, const uint8_t *kept, size_t stride, int first,
                              float *out, uint8_t *scratch, layout g) {
    SHARED(unsigned, histograms, ALL ? 3 * 256 : 1);
    SHARED(uint8_t, tables, ALL ? 3 * 256 : 1);
    const mimic_view *v = (const mimic_view *)(batch + (first + (int)blockIdx.x) * stride);
    const mimic_plan &p = v->plan;
    const int size = g.size, n = size * size;
    uint8_t *mine = scratch + blockIdx.x * g.bytes, *other = mine + g.between,
            *picture = mine + g.picture;
    out += (int64_t)(first + (int)blockIdx.x) * 3 * n;
    pixels src = {(v->source == MIMIC_VIEW_KEPT ? kept : batch) + v->at,
                  (size_t)v->width * v->channels, v->channels};
    src.p += (size_t)p.top * src.row + (size_t)p.left * src.step;
    axis_table x((int32_t *)mine, size, g.taps, p.out_w == p.w, p.x);
    axis_table y((int32_t *)mine + size * (g.taps + 2), size, g.taps, p.out_h == p.h, p.y);
    fill_axis(x, p.w, p.out_w, p.filter, size);
    fill_axis(y, p.h, p.out_h, p.filter, size);
    __syncthreads();
    int from = pass_across(x, y, size, other, &src);
    __syncthreads();
    whole w = {0, tables};
    bool fresh = true, known = false; /* known: what the step at `at` needs to know is in w */
    for (int at = 0;;) {
        int end = at + known;
        while (end < p.steps && need_of(p.step[end]) == ONE)
            end++;
        need wanted = end < p.steps ? need_of(p.step[end]) : ONE;
        if (ALL && wanted == TABLES) {
            for (int i = (int)threadIdx.x; i < 3 * 256; i += THREADS)
                histograms[i] = 0;
            __syncthreads();
        }
        int64_t luma = 0;
        for (int i = (int)threadIdx.x; i < n; i += THREADS) {
            uint8_t c[3];
            for (int k = 0; k < 3; k++)
                c[k] = fresh ? resampled(y, i / size, src, p.flip ? size - 1 - i % size : i % size,
                                         from, true, k)
                             : picture[i * 3 + k];
            for (int k = at; k < end; k++)
                colour(c, p.step[k], w);
            if (end == p.steps) {
                write_pixel(v, c, i, size, out);
                continue;
            }
            luma += mimic_luma(c);
            for (int k = 0; k < 3; k++) {
                picture[i * 3 + k] = c[k];
                if (ALL && wanted == TABLES)
                    atomicInc(histograms + k * 256 + c[k], 0xffffffffu);
            }
        }
        if (end == p.steps)
            return;
        const mimic_plan_step &step = p.step[end];
        fresh = false;
        known = wanted != NEIGHBOURS;
        at = end + !known;
        if (wanted == MEAN) {
            w.mean = mimic_mean_luma(total(luma), n);
        } else if (step.op == MIMIC_AUG_BLUR) {
            blur(step.a, picture, other, size);
        } else if (ALL && wanted == TABLES) {
            make_tables(step.op, histograms, tables);
        } else if (ALL && !(step.op == MIMIC_AUG_SHARPNESS && size < 3)) {
            __syncthreads();
            if (step.op == MIMIC_AUG_SHARPNESS)
                sharpen((float)step.a, picture, other, size);
            else
                warp(v, step, picture, other, size);
            uint8_t *swap = picture;
            picture = other;
            other = swap; /* no barrier: a thread goes on with the pixels that it wrote */
        }
    }
}

/* Views in the works at once: their scratch stays in a cache of some 50 MB, or nearly so. */
static const size_t scratch_limit = (size_t)128 << 20;

static size_t rounded(size_t bytes) {
    return (bytes + 15) / 16 * 16;
}

mimic_status mimic_cuda_augment(mimic_ctx *ctx, const mimic_augment_job *job) {
    cuda_state *s = state_of(ctx);
    size_t side = (size_t)job->size, rows = (size_t)(job->rows > job->size ? job->rows : job->size);
    layout g = {0, 0, 0, job->size, job->taps};
    g.between = rounded(2 * side * ((size_t)job->taps + 2) * sizeof(int32_t));
    g.picture = g.between + rounded(rows * side * 3);
    g.bytes = g.picture + rounded(side * side * 3);
    int group = g.bytes * (size_t)job->n > scratch_limit ? (int)(scratch_limit / g.bytes) : job->n;
    group = group < 1 ? 1 : group;
    void *scratch = NULL;
    mimic_device *d = &ctx->devices[MIMIC_CUDA];
    mimic_status st = s->host->get(d, g.bytes * (size_t)group, &scratch);
    if (st)
        return st;
    for (int first = 0; first < job->n; first += group)
        LAUNCH((job->all ? augment_views<true> : augment_views<false>),
               (unsigned)(job->n - first < group ? job->n - first : group), THREADS, 0, s->stream,
               job->batch, job->kept, job->stride, first, job->out, (uint8_t *)scratch, g);
    s->host->put(d, scratch, g.bytes * (size_t)group);
    return cuda_done(ctx, "augment");
}

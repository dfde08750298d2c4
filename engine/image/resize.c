/* Pillow's resampling, bit for bit: 22-bit fixed-point weights, horizontal pass first, 8-bit
 * between the passes (method.md 6.3). Both passes run the same kernel, weighted sums of contiguous
 * byte rows: the horizontal one on groups of source rows that are laid side by side first. */
#include "image/image_impl.h"

#include <stdlib.h>
#include <string.h>
#if defined __x86_64__
#include <immintrin.h>
#endif

#define BLOCK 96 /* sums of the portable kernel that are kept together */
#define GROUP 32 /* source rows of the horizontal pass that are computed together */

/* For every output position of an axis: the first source position, the number of taps, the weights.
 */
typedef struct axis {
    int out, taps; /* taps: row length of `weight` */
    int *first, *count;
    int32_t *weight; /* [out, taps] */
} axis;

static bool axis_build(axis *ax, int in, int out, mimic_filter filter) {
    mimic_taps a = mimic_taps_of(in, out, filter);
    ax->out = out;
    ax->taps = mimic_taps_most(&a);
    size_t n = (size_t)out, taps = (size_t)ax->taps;
    ax->weight =
        malloc(n * taps * sizeof *ax->weight + n * 2 * sizeof(int) + taps * sizeof(double));
    if (!ax->weight)
        return false;
    ax->first = (int *)(ax->weight + n * taps);
    ax->count = ax->first + n;
    double *w = malloc(taps * sizeof *w);
    if (!w) {
        free(ax->weight);
        ax->weight = NULL;
        return false;
    }
    for (int o = 0; o < out; o++) {
        int lo, hi;
        double sum = 0, c = mimic_taps_window(&a, o, &lo, &hi);
        for (int x = lo; x < hi; x++)
            sum += w[x - lo] = mimic_taps_value(&a, x, c);
        for (int i = 0; i < hi - lo; i++)
            ax->weight[(size_t)o * taps + (size_t)i] = mimic_taps_weight(w[i], sum);
        ax->first[o] = lo;
        ax->count[o] = hi - lo;
    }
    free(w);
    return true;
}

/* out[0..n) = clip((2^21 + sum_k w[k] * rows[k * stride + i]) >> 22). The sum cannot overflow:
 * weights of one output add up to 2^22 and the cubic overshoots by less than a third. */
static void weigh_base(const uint8_t *rows, size_t stride, const int32_t *w, int taps, uint8_t *out,
                       size_t n) {
    for (size_t i = 0; i < n; i += BLOCK) {
        int32_t acc[BLOCK];
        size_t m = n - i < BLOCK ? n - i : BLOCK;
        for (size_t j = 0; j < m; j++)
            acc[j] = 1 << (MIMIC_WEIGHT_BITS - 1);
        for (int k = 0; k < taps; k++) {
            const uint8_t *p = rows + (size_t)k * stride + i;
            for (size_t j = 0; j < m; j++)
                acc[j] += w[k] * p[j];
        }
        for (size_t j = 0; j < m; j++)
            out[i + j] = mimic_clip8(acc[j] >> MIMIC_WEIGHT_BITS);
    }
}

#if defined __x86_64__
/* The same sums, eight at a time; the compiler's own code for bytes to words is several times
 * slower. */
__attribute__((target("avx2"))) static void
weigh_avx2(const uint8_t *rows, size_t stride, const int32_t *w, int taps, uint8_t *out, size_t n) {
    const __m256i half = _mm256_set1_epi32(1 << (MIMIC_WEIGHT_BITS - 1));
    /* Undoes the order in which the two packs below leave the words of 32 sums. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const uint8_t *p = rows + i;
        __m256i a[4] = {half, half, half, half};
        for (int k = 0; k < taps; k++, p += stride) {
            __m256i weight = _mm256_set1_epi32(w[k]);
            for (int j = 0; j < 4; j++) {
                __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(p + 8 * j));
                a[j] =
                    _mm256_add_epi32(a[j], _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), weight));
            }
        }
        for (int j = 0; j < 4; j++)
            a[j] = _mm256_srai_epi32(a[j], MIMIC_WEIGHT_BITS);
        __m256i lo = _mm256_packs_epi32(a[0], a[1]), hi = _mm256_packs_epi32(a[2], a[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(lo, hi), order);
        _mm256_storeu_si256((__m256i *)(void *)(out + i), bytes);
    }
    if (i < n)
        weigh_base(rows + i, stride, w, taps, out + i, n - i);
}
#define PICK_WEIGH (__builtin_cpu_supports("avx2") ? weigh_avx2 : weigh_base)
#else
#define PICK_WEIGH weigh_base
#endif

typedef void weigh_fn(const uint8_t *rows, size_t stride, const int32_t *w, int taps, uint8_t *out,
                      size_t n);

/* One group of up to GROUP rows of the horizontal pass. side: [in_w][3][GROUP] scratch. */
static void row_group(const axis *ax, const uint8_t *const *src, int in_w, uint8_t *side,
                      uint8_t *out, int rows, weigh_fn *weigh) {
    const size_t lane = 3 * GROUP;
    for (int r = 0; r < GROUP; r++) {
        const uint8_t *p = src[r < rows ? r : rows - 1];
        uint8_t *q = side + r;
        for (int x = 0; x < in_w; x++, p += 3, q += lane) {
            q[0] = p[0];
            q[GROUP] = p[1];
            q[2 * GROUP] = p[2];
        }
    }
    uint8_t sums[3 * GROUP];
    for (int o = 0; o < ax->out; o++) {
        weigh(side + (size_t)ax->first[o] * lane, lane, ax->weight + (size_t)o * (size_t)ax->taps,
              ax->count[o], sums, lane);
        uint8_t *q = out + (size_t)o * 3;
        for (int r = 0; r < rows; r++, q += (size_t)ax->out * 3) {
            q[0] = sums[r];
            q[1] = sums[GROUP + r];
            q[2] = sums[2 * GROUP + r];
        }
    }
}

/* Rows [y0, y1) of the box, resampled to ax->out columns, into out [y1 - y0, ax->out, 3]. */
static bool horizontal(const axis *ax, const mimic_image *src, int left, int top, int in_w, int y0,
                       int y1, uint8_t *out) {
    weigh_fn *weigh = PICK_WEIGH;
    uint8_t *side = malloc((size_t)in_w * 3 * GROUP);
    if (!side)
        return false;
    for (int y = y0; y < y1; y += GROUP) {
        const uint8_t *rows[GROUP];
        int n = y1 - y < GROUP ? y1 - y : GROUP;
        for (int r = 0; r < n; r++)
            rows[r] = src->pixels + ((size_t)(top + y + r) * (size_t)src->width + (size_t)left) * 3;
        row_group(ax, rows, in_w, side, out + (size_t)(y - y0) * (size_t)ax->out * 3, n, weigh);
    }
    free(side);
    return true;
}

static mimic_status no_memory(mimic_err *err) {
    return mimic_err_fail(err, MIMIC_ENOMEM, "no memory to resize a picture");
}

/* Both passes; out has room. */
static mimic_status resample(const mimic_image *src, int left, int top, int w, int h, int out_w,
                             int out_h, mimic_filter filter, uint8_t *out, mimic_err *err) {
    mimic_status s = MIMIC_OK;
    axis ax = {0}, ay = {0};
    uint8_t *between = NULL;
    const uint8_t *rows;
    size_t stride, n = (size_t)out_w * 3;
    int y0 = 0, y1 = h;
    weigh_fn *weigh = PICK_WEIGH;
    if (h != out_h) {
        if (!axis_build(&ay, h, out_h, filter)) {
            s = no_memory(err);
            goto done;
        }
        y0 = ay.first[0];
        y1 = ay.first[out_h - 1] + ay.count[out_h - 1];
    }
    if (w != out_w) {
        if (h != out_h && !(between = malloc((size_t)(y1 - y0) * n))) {
            s = no_memory(err);
            goto done;
        }
        if (!axis_build(&ax, w, out_w, filter) ||
            !horizontal(&ax, src, left, top, w, y0, y1, between ? between : out)) {
            s = no_memory(err);
            goto done;
        }
        rows = between;
        stride = n;
    } else {
        rows = src->pixels + ((size_t)(top + y0) * (size_t)src->width + (size_t)left) * 3;
        stride = (size_t)src->width * 3;
    }
    if (h != out_h)
        for (int o = 0; o < out_h; o++)
            weigh(rows + (size_t)(ay.first[o] - y0) * stride, stride,
                  ay.weight + (size_t)o * (size_t)ay.taps, ay.count[o], out + (size_t)o * n, n);
    else if (w == out_w)
        for (int y = 0; y < h; y++)
            memcpy(out + (size_t)y * n, rows + (size_t)y * stride, n);
done:
    free(ax.weight);
    free(ay.weight);
    free(between);
    return s;
}

mimic_status mimic_image_resize(const mimic_image *src, int left, int top, int w, int h, int out_w,
                                int out_h, mimic_filter filter, mimic_image *out, mimic_err *err) {
    if (!src->pixels || w < 1 || h < 1 || left < 0 || top < 0 || left > src->width - w ||
        top > src->height - h)
        return mimic_err_fail(
            err, MIMIC_EINVAL,
            "resize: the box %d,%d + %d x %d lies outside of a picture of %d x %d", left, top, w, h,
            src->width, src->height);
    if (out == src)
        return mimic_err_fail(err, MIMIC_EINVAL, "resize: source and result are the same picture");
    if (filter != MIMIC_BILINEAR && filter != MIMIC_BICUBIC)
        return mimic_err_fail(err, MIMIC_EINVAL, "resize: unknown filter %d", (int)filter);
    mimic_status s = mimic_image_reserve(out, out_w, out_h, err);
    return s != MIMIC_OK ? s
                         : resample(src, left, top, w, h, out_w, out_h, filter, out->pixels, err);
}

/* Packing of operands for the register tile: panels of B, blocks of A, with widening or pairing of
 * bf16. A copy is written once and read many times, so it is what keeps transposed and strided
 * operands at full speed. */
#include "backend/cpu/gemm.h"

#define PREFETCH 16 /* rows */

typedef float quad __attribute__((vector_size(16)));
typedef uint32_t uquad __attribute__((vector_size(16)));
typedef uint16_t hquad __attribute__((vector_size(8)));

SIMD_FN quad load_quad(const char *p, bool widen) {
    if (widen) {
        hquad h;
        memcpy(&h, p, sizeof h);
        return (quad)(__builtin_convertvector(h, uquad) << 16);
    }
    quad q;
    memcpy(&q, p, sizeof q);
    return q;
}
static uint32_t load_unit(const char *p, bool widen) {
    if (widen) {
        uint16_t h;
        memcpy(&h, p, sizeof h);
        return (uint32_t)h << 16;
    }
    uint32_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

/* out[k*nr + j] = row j of src at unit k, for k < kc, j < n: 4x4 blocks, one cache line of a row at
 * a time. */
static void transpose32(const char *src, int64_t ld, int64_t n, int64_t kc, uint32_t *out,
                        int64_t nr, bool widen) {
    const int step = widen ? 2 : 4;
#ifdef SIMD_AVX512
    if (!widen && n >= 16 && kc >= 16) {
        int64_t n16 = n & ~(int64_t)15, k16 = kc & ~(int64_t)15;
        for (int64_t k = 0; k < k16; k += 16) {
            for (int64_t j = 0; j < n16; j += 16) {
                __m512i r[16];
                for (int i = 0; i < 16; i++)
                    r[i] = _mm512_loadu_si512(src + (j + i) * ld + k * 4);
                simd_transpose16(r);
                for (int i = 0; i < 16; i++)
                    _mm512_storeu_si512(out + (k + i) * nr + j, r[i]);
            }
        }
        transpose32(src + k16 * 4, ld, n16, kc - k16, out + k16 * nr, nr, false);
        transpose32(src + n16 * ld, ld, n - n16, kc, out + n16, nr, false);
        return;
    }
#endif
    int64_t n4 = n & ~(int64_t)3, k4 = kc & ~(int64_t)3;
    for (int64_t kb = 0; kb < k4; kb += 16) {
        int64_t ke = kb + 16 < k4 ? kb + 16 : k4;
        for (int64_t j = 0; j < n4; j += 4) {
            const char *s = src + j * ld;
            for (int64_t k = kb; k < ke; k += 4) {
                quad a = load_quad(s + k * step, widen), b = load_quad(s + ld + k * step, widen);
                quad c = load_quad(s + 2 * ld + k * step, widen);
                quad d = load_quad(s + 3 * ld + k * step, widen);
                quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
                quad cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
                quad ef = __builtin_shufflevector(a, b, 2, 6, 3, 7);
                quad gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
                quad r[4] = {__builtin_shufflevector(ab, cd, 0, 1, 4, 5),
                             __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
                             __builtin_shufflevector(ef, gh, 0, 1, 4, 5),
                             __builtin_shufflevector(ef, gh, 2, 3, 6, 7)};
                for (int i = 0; i < 4; i++)
                    memcpy(out + (k + i) * nr + j, &r[i], sizeof r[i]);
            }
        }
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t k = j < n4 ? k4 : 0; k < kc; k++)
            out[k * nr + j] = load_unit(src + j * ld + k * step, widen);
}

/* out[j] = pair (lo[j], hi[j]); hi NULL = zeros. */
SIMD_FN void interleave(const uint16_t *lo, const uint16_t *hi, int64_t n, uint32_t *out) {
    int64_t j = 0;
    for (; j + VF32_W <= n; j += VF32_W) {
        vu16 a, b = {0};
        memcpy(&a, lo + j, sizeof a);
        if (hi)
            memcpy(&b, hi + j, sizeof b);
        vu32 u = vwiden_u16(a) | vwiden_u16(b) << 16;
        memcpy(out + j, &u, sizeof u);
    }
    for (; j < n; j++)
        out[j] = lo[j] | (hi ? (uint32_t)hi[j] << 16 : 0);
}
SIMD_FN void widen(const uint16_t *src, int64_t n, float *out) {
    int64_t j = 0;
    for (; j + VF32_W <= n; j += VF32_W)
        vstore_f32(out + j, vload_bf16(src + j));
    for (; j < n; j++)
        out[j] = mimic_bf16_to_f32(src[j]);
}

/* n units of row k of a matrix that is stored with k as its outer axis. */
SIMD_FN void row_units(gemm_kind kind, mimic_dtype dtype, const char *src, int64_t ld, int64_t k,
                       int64_t K, int64_t n, void *out) {
    if (kind == GEMM_PAIRS) {
        const uint16_t *lo = (const uint16_t *)src + 2 * k * ld;
        interleave(lo, 2 * k + 1 < K ? lo + ld : NULL, n, out);
    } else if (dtype == MIMIC_BF16) {
        widen((const uint16_t *)src + k * ld, n, out);
    } else {
        size_t size = (size_t)gemm_unit(kind);
        memcpy(out, src + (size_t)(k * ld) * size, (size_t)n * size);
    }
}

void KERNEL(gemm_pack_b)(gemm_kind kind, mimic_dtype dtype, bool trans, const void *src, int64_t ld,
                         int64_t n0, int64_t n, int64_t k0, int64_t k1, int64_t K, void *out) {
#ifdef __AMX_BF16__
    if (kind == GEMM_TILES) {
        KERNEL(gemm_amx_pack_b)(trans, src, ld, n0, n, k0, k1, K, out);
        return;
    }
#endif
    const int unit = gemm_unit(kind), nr = gemm_nr(kind), w = gemm_vector(kind);
    const int64_t size = (int64_t)mimic_dtype_size(dtype);
    int64_t pad = ((n + w - 1) / w * w - n) * unit;
    char *o = out;
    const char *s = (const char *)src + n0 * (trans ? ld : 1) * size;
    if (!trans) {
        for (int64_t k = k0; k < k1; k++, o += nr * unit) {
            row_units(kind, dtype, s, ld, k, K, n, o);
            if (pad)
                memset(o + n * unit, 0, (size_t)pad);
        }
        return;
    }
    int64_t kc = k1 - k0;
    if (kind == GEMM_F64) {
        for (int64_t k = 0; k < kc; k++)
            for (int64_t j = 0; j < n; j++)
                memcpy(o + (k * nr + j) * 8, s + (j * ld + k0 + k) * 8, 8);
    } else if (kind == GEMM_PAIRS) {
        bool odd = 2 * k1 > K; /* the last unit has one element only */
        transpose32(s + k0 * 4, ld * 2, n, kc - odd, (uint32_t *)o, nr, false);
        for (int64_t j = 0; odd && j < n; j++)
            ((uint32_t *)o)[(kc - 1) * nr + j] = ((const uint16_t *)s)[j * ld + K - 1];
    } else if (dtype == MIMIC_BF16) {
        transpose32(s + k0 * 2, ld * 2, n, kc, (uint32_t *)o, nr, true);
    } else {
        transpose32(s + k0 * 4, ld * 4, n, kc, (uint32_t *)o, nr, false);
    }
    for (int64_t k = 0; pad && k < kc; k++)
        memset(o + (k * nr + n) * unit, 0, (size_t)pad);
}

/* Splits a row of m units into groups of GEMM_MR, `group` bytes apart. */
SIMD_FN void scatter(const char *row, int64_t m, int unit, char *out, int64_t group) {
    int64_t i = 0;
    for (; i + GEMM_MR <= m; i += GEMM_MR, out += group)
        memcpy(out, row + i * unit, (size_t)(GEMM_MR * unit));
    if (i < m)
        memcpy(out, row + i * unit, (size_t)((m - i) * unit));
}

void KERNEL(gemm_pack_a)(gemm_kind kind, mimic_dtype dtype, bool trans, const void *src, int64_t ld,
                         int64_t m0, int64_t m, int64_t k0, int64_t k1, int64_t K, void *out) {
#ifdef __AMX_BF16__
    if (kind == GEMM_TILES) {
        KERNEL(gemm_amx_pack_a)(trans, src, ld, m0, m, k0, k1, K, out);
        return;
    }
#endif
    const int unit = gemm_unit(kind);
    const int64_t size = (int64_t)mimic_dtype_size(dtype), kc = k1 - k0;
    const int per = kind == GEMM_PAIRS ? 2 : 1; /* elements of a unit */
    char *o = out;
    if (!trans) {
        int64_t have = k1 * per <= K ? kc * per : K - k0 * per;
        for (int64_t i = 0; i < m; i++, o += kc * unit) {
            const char *s = (const char *)src + ((m0 + i) * ld + k0 * per) * size;
            if (kind == GEMM_F32 && dtype == MIMIC_BF16)
                widen((const uint16_t *)s, have, (float *)o);
            else
                memcpy(o, s, (size_t)(have * size));
            memset(o + (have / per) * unit + (have % per) * size, 0,
                   (size_t)((kc - have / per) * unit - (have % per) * size));
        }
        return;
    }
    const char *s = (const char *)src + m0 * size;
    double row[GEMM_MAX_MB];
    for (int64_t k = k0; k < k1; k++, o += GEMM_MR * unit) {
        const char *r = (const char *)row;
        for (int64_t p = 0; p < per;
             p++) /* pieces of far rows: the hardware does not see them coming */
            for (int64_t b = 0; b < m * size; b += 64)
                __builtin_prefetch(s + (k * per + p + PREFETCH) * ld * size + b);
        if (kind == GEMM_F64 || dtype == MIMIC_F32)
            r = s + k * ld * size;
        else
            row_units(kind, dtype, s, ld, k, K, m, row);
        if (kind == GEMM_F64) /* constant sizes make the copies plain moves */
            scatter(r, m, 8, o, GEMM_GROUP(kc, 8));
        else
            scatter(r, m, 4, o, GEMM_GROUP(kc, 4));
    }
}

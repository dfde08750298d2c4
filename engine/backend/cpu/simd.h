/* Compute vectors over GCC vector extensions: vf32 and vf64 of one register each, the width given
 * by the instruction set the file is compiled for. The same source gives the same bits on every run
 * of one instruction set; reductions inside a vector are in fixed order. bf16 is storage only: it
 * is loaded to and stored from vf32 (round to nearest even). */
#ifndef MIMIC_CPU_SIMD_H
#define MIMIC_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tensor/tensor_impl.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define SIMD_AVX512 1
#define SIMD_BYTES 64
#elif defined(__AVX2__)
#define SIMD_AVX2 1
#define SIMD_BYTES 32
#else
#define SIMD_BYTES 16
#endif
#if defined(SIMD_AVX512) || defined(SIMD_AVX2)
#include <immintrin.h>
#endif

#define VF32_W (SIMD_BYTES / 4) /* lanes */
#define VF64_W (SIMD_BYTES / 8)

typedef float vf32 __attribute__((vector_size(SIMD_BYTES)));
typedef int32_t vi32 __attribute__((vector_size(SIMD_BYTES)));
typedef uint32_t vu32 __attribute__((vector_size(SIMD_BYTES)));
typedef uint16_t vu16 __attribute__((vector_size(SIMD_BYTES / 2)));
typedef double vf64 __attribute__((vector_size(SIMD_BYTES)));
typedef int64_t vi64 __attribute__((vector_size(SIMD_BYTES)));

#define SIMD_FN static inline __attribute__((always_inline))

/* --- load and store: vload_T(p), vstore_T(p, v), and the first n lanes only (the others 0)
 * ------------ */

SIMD_FN vf32 vload_f32(const float *p) {
    vf32 v;
    memcpy(&v, p, sizeof v);
    return v;
}
SIMD_FN void vstore_f32(float *p, vf32 v) {
    memcpy(p, &v, sizeof v);
}
SIMD_FN vf64 vload_f64(const double *p) {
    vf64 v;
    memcpy(&v, p, sizeof v);
    return v;
}
SIMD_FN void vstore_f64(double *p, vf64 v) {
    memcpy(p, &v, sizeof v);
}

/* Between 16 and 32 bits; compilers split the generic conversion of a whole register. */
SIMD_FN vu32 vwiden_u16(vu16 h) {
#ifdef SIMD_AVX512
    return (vu32)_mm512_cvtepu16_epi32((__m256i)h);
#else
    return __builtin_convertvector(h, vu32);
#endif
}
SIMD_FN vu16 vnarrow_u32(vu32 u) {
#ifdef SIMD_AVX512
    return (vu16)_mm512_cvtepi32_epi16((__m512i)u);
#else
    return __builtin_convertvector(u, vu16);
#endif
}
SIMD_FN vf32 vfrom_bf16(vu16 h) {
    return (vf32)(vwiden_u16(h) << 16);
}
/* Nearest even; NaN stays NaN. Equal to mimic_f32_to_bf16 in every bit. */
SIMD_FN vu16 vto_bf16(vf32 v) {
    vu32 u = (vu32)v;
    vu32 nan = (vu32)((u & 0x7fffffffu) > 0x7f800000u);
    vu32 r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    vu32 q = (u >> 16) | 0x40u;
    return vnarrow_u32((nan & q) | (~nan & r));
}
SIMD_FN vf32 vload_bf16(const uint16_t *p) {
    vu16 h;
    memcpy(&h, p, sizeof h);
    return vfrom_bf16(h);
}
SIMD_FN void vstore_bf16(uint16_t *p, vf32 v) {
    vu16 h = vto_bf16(v);
    memcpy(p, &h, sizeof h);
}
/* By the machine's own rounding, which differs only in making subnormals 0. */
SIMD_FN void vstore_bf16_quick(uint16_t *p, vf32 v) {
#ifdef __AVX512BF16__
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &h, sizeof h);
#else
    vstore_bf16(p, v);
#endif
}

SIMD_FN vf32 vloadn_f32(const float *p, int64_t n) {
#ifdef SIMD_AVX512
    return (vf32)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    float b[VF32_W] = {0};
    for (int64_t i = 0; i < n; i++)
        b[i] = p[i];
    return vload_f32(b);
#endif
}
SIMD_FN void vstoren_f32(float *p, vf32 v, int64_t n) {
#ifdef SIMD_AVX512
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    float b[VF32_W];
    vstore_f32(b, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = b[i];
#endif
}
SIMD_FN vf64 vloadn_f64(const double *p, int64_t n) {
    double b[VF64_W] = {0};
    for (int64_t i = 0; i < n; i++)
        b[i] = p[i];
    return vload_f64(b);
}
SIMD_FN void vstoren_f64(double *p, vf64 v, int64_t n) {
    double b[VF64_W];
    vstore_f64(b, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = b[i];
}
SIMD_FN vf32 vloadn_bf16(const uint16_t *p, int64_t n) {
#ifdef SIMD_AVX512
    return vfrom_bf16((vu16)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1u), p));
#else
    uint16_t b[VF32_W] = {0};
    for (int64_t i = 0; i < n; i++)
        b[i] = p[i];
    return vload_bf16(b);
#endif
}
SIMD_FN void vstoren_bf16(uint16_t *p, vf32 v, int64_t n) {
#ifdef SIMD_AVX512
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1u), (__m256i)vto_bf16(v));
#else
    uint16_t b[VF32_W];
    vstore_bf16(b, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = b[i];
#endif
}

/* --- lane-wise basics
 * ---------------------------------------------------------------------------------- */

SIMD_FN vf32 vset_f32(float x) {
    return (vf32){0} + x;
}
SIMD_FN vf64 vset_f64(double x) {
    return (vf64){0} + x;
}
/* m ? a : b, m from a comparison of vectors. */
SIMD_FN vf32 vsel_f32(vi32 m, vf32 a, vf32 b) {
#ifdef SIMD_AVX2
    return (vf32)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
#else
    return (vf32)((m & (vi32)a) | (~m & (vi32)b));
#endif
}
SIMD_FN vf64 vsel_f64(vi64 m, vf64 a, vf64 b) {
    return (vf64)((m & (vi64)a) | (~m & (vi64)b));
}
/* a > b ? a : b, so that a NaN in b is returned and one in a is not. */
SIMD_FN vf32 vmax_f32(vf32 a, vf32 b) {
#if defined(SIMD_AVX512)
    return (vf32)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(SIMD_AVX2)
    return (vf32)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vsel_f32(a > b, a, b);
#endif
}
SIMD_FN vf32 vmin_f32(vf32 a, vf32 b) {
#if defined(SIMD_AVX512)
    return (vf32)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(SIMD_AVX2)
    return (vf32)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vsel_f32(a < b, a, b);
#endif
}
SIMD_FN vf64 vmax_f64(vf64 a, vf64 b) {
    return vsel_f64(a > b, a, b);
}
SIMD_FN vf64 vmin_f64(vf64 a, vf64 b) {
    return vsel_f64(a < b, a, b);
}
SIMD_FN vf32 vabs_f32(vf32 a) {
    return (vf32)((vi32)a & 0x7fffffff);
}
SIMD_FN vf64 vabs_f64(vf64 a) {
    return (vf64)((vi64)a & INT64_MAX);
}
SIMD_FN vf32 vsqrt_f32(vf32 a) {
#if defined(SIMD_AVX512)
    return (vf32)_mm512_sqrt_ps((__m512)a);
#elif defined(SIMD_AVX2)
    return (vf32)_mm256_sqrt_ps((__m256)a);
#else
    for (int i = 0; i < VF32_W; i++)
        a[i] = sqrtf(a[i]);
    return a;
#endif
}
SIMD_FN vf64 vsqrt_f64(vf64 a) {
    for (int i = 0; i < VF64_W; i++)
        a[i] = sqrt(a[i]);
    return a;
}
/* Sums and maxima over the lanes: halves onto each other, always in the same order. */
typedef float simd_quad __attribute__((vector_size(16)));
/* The last 4 lanes of a sum: as the loops over halves would. */
SIMD_FN float simd_sum_quad(simd_quad q) {
    q += __builtin_shufflevector(q, q, 2, 3, 2, 3);
    return q[0] + q[1];
}
SIMD_FN float vhsum_f32(vf32 v) {
#if defined(SIMD_AVX512)
    __m256 h =
        _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
    return simd_sum_quad(
        (simd_quad)_mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
#elif defined(SIMD_AVX2)
    __m256 h = (__m256)v;
    return simd_sum_quad(
        (simd_quad)_mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
#else
    return simd_sum_quad(v);
#endif
}
SIMD_FN double vhsum_f64(vf64 v) {
    double b[VF64_W];
    vstore_f64(b, v);
    for (int h = VF64_W / 2; h > 0; h /= 2)
        for (int i = 0; i < h; i++)
            b[i] += b[i + h];
    return b[0];
}
SIMD_FN float vhmax_f32(vf32 v) {
#if defined(SIMD_AVX512)
    return _mm512_reduce_max_ps((__m512)v);
#endif
    float m = v[0];
    for (int i = 1; i < VF32_W; i++)
        m = v[i] > m ? v[i] : m;
    return m;
}
SIMD_FN double vhmax_f64(vf64 v) {
    double m = v[0];
    for (int i = 1; i < VF64_W; i++)
        m = v[i] > m ? v[i] : m;
    return m;
}

/* --- functions: polynomials for f32 (errors about one unit in the last place), libm lane by lane
 * for f64
 * -------------------------------------------------------------------------------------------------------
 */

/* e^x = 2^n e^r, |r| <= ln 2 / 2; returns e^r. */
SIMD_FN vf32 vexp_parts_f32(vf32 x, vi32 *n) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    vf32 t = x * 1.44269504f + magic;
    *n = (vi32)t - 0x4b400000;
    vf32 f = t - magic;
    vf32 r = x - f * 0.693359375f;
    r = r - f * -2.12194440e-4f;
    vf32 p = r * 0.00139411084f + 0.0083751264f;
    p = p * r + 0.0416663529f;
    p = p * r + 0.166664155f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    return p * r + 1.0f;
}
/* The power of two is multiplied in two halves: no overflow before the last step, subnormal results
 * come out. */
SIMD_FN vf32 vexp_f32(vf32 x) {
    vi32 n;
    vf32 p = vexp_parts_f32(vmin_f32(vset_f32(89.0f), vmax_f32(vset_f32(-105.0f), x)), &n);
    vi32 h = n >> 1;
    vf32 a = (vf32)((h + 127) << 23), b = (vf32)((n - h + 127) << 23);
    return p * a * b;
}
/* For x <= 0, in one step; not below 1e-38. */
SIMD_FN vf32 vexp_down_f32(vf32 x) {
    vi32 n;
    vf32 p = vexp_parts_f32(vmax_f32(vset_f32(-87.0f), x), &n);
    return p * (vf32)((n + 127) << 23);
}
SIMD_FN vf64 vexp_f64(vf64 x) {
    for (int i = 0; i < VF64_W; i++)
        x[i] = exp(x[i]);
    return x;
}
/* log x = e ln 2 + log m, m in [sqrt 1/2, sqrt 2). */
SIMD_FN vf32 vlog_f32(vf32 x) {
    vi32 tiny = x < 1.17549435e-38f;
    vf32 s = vsel_f32(tiny, x * 8388608.0f, x);
    vi32 u = (vi32)s - 0x3f3504f3;
    vi32 e = (u >> 23) - (tiny & 23);
    vf32 m = (vf32)((u & 0x7fffff) + 0x3f3504f3);
    vf32 f = m - 1.0f, k = __builtin_convertvector(e, vf32);
    vf32 p = f * 0.0697161144f + -0.114797338f;
    p = p * f + 0.116854199f;
    p = p * f + -0.124256873f;
    p = p * f + 0.142490576f;
    p = p * f + -0.166678023f;
    p = p * f + 0.200007157f;
    p = p * f + -0.24999997f;
    p = p * f + 0.333333312f;
    vf32 f2 = f * f;
    vf32 r = (p * f2 * f - f2 * 0.5f + k * -2.12194440e-4f) + f + k * 0.693359375f;
    r = vsel_f32(x == INFINITY, x, r);
    r = vsel_f32(x == 0.0f, vset_f32(-INFINITY), r);
    return vsel_f32((x < 0.0f) | (x != x), vset_f32(NAN), r);
}
SIMD_FN vf64 vlog_f64(vf64 x) {
    for (int i = 0; i < VF64_W; i++)
        x[i] = log(x[i]);
    return x;
}

/* Distribution function Phi(x) = (1 + erf(x / sqrt 2)) / 2 of the normal distribution, with a small
 * relative error on both sides, and *pdf = its density. Phi(-|x|) = t Q(t) e^(-x^2/2), t = 1 / (1 +
 * 0.3 |x| / sqrt 2), Q fitted to erfcx. */
SIMD_FN vf32 vnormal_f32(vf32 x, vf32 *pdf) {
    vf32 e = vexp_down_f32(x * x * -0.5f);
    vf32 t = 1.0f / (vabs_f32(x) * 0.212132034f + 1.0f);
    vf32 q = t * -0.0652096671f + 0.24510257f;
    q = q * t + -0.261267981f;
    q = q * t + 0.280163691f;
    q = q * t + -0.0520275739f;
    q = q * t + 0.109638117f;
    q = q * t + 0.0735615704f;
    q = q * t + 0.0854513577f;
    q = q * t + 0.0845879061f;
    vf32 tail = q * t * e;
    *pdf = e * 0.398942280f;
    return vsel_f32(x < 0.0f, tail, 1.0f - tail);
}
SIMD_FN vf64 vnormal_f64(vf64 x, vf64 *pdf) {
    vf64 c = x, d = x;
    for (int i = 0; i < VF64_W; i++) {
        c[i] = 0.5 * erfc(-0.70710678118654752440 * x[i]);
        d[i] = 0.39894228040143267794 * exp(-0.5 * x[i] * x[i]);
    }
    *pdf = d;
    return c;
}
SIMD_FN vf32 vtanh_f32(vf32 x) {
    vf32 a = vabs_f32(x), u = x * x;
    vf32 e = vexp_f32(a * -2.0f);
    vf32 big = (1.0f - e) / (1.0f + e);
    big = (vf32)((vi32)big | ((vi32)x & (int32_t)0x80000000));
    vf32 p = u * -0.00609671417f + 0.020997179f;
    p = p * u + -0.0538509096f;
    p = p * u + 0.133327697f;
    p = p * u + -0.333333289f;
    return vsel_f32(a < 0.625f, x + x * u * p, big);
}
SIMD_FN vf64 vtanh_f64(vf64 x) {
    for (int i = 0; i < VF64_W; i++)
        x[i] = tanh(x[i]);
    return x;
}

#ifdef SIMD_AVX512
/* Transposes 16 rows of 16 units in registers. */
SIMD_FN void simd_transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4g + c], 128-bit lane l: column 4l + c of rows 4g .. 4g + 3 */
    for (int c = 0; c < 4; c++) {
        __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        __m512i b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        __m512i d = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        __m512i e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, d, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}
#endif

/* --- the same names for both compute types, for kernels written once (each_float.h)
 * ---------------------- */

#define SIMD_PICK(name, v) _Generic((v), vf32 : name##_f32, vf64 : name##_f64)
#define vmax(a, b) SIMD_PICK(vmax, a)(a, b)
#define vmin(a, b) SIMD_PICK(vmin, a)(a, b)
#define vsel(m, a, b) SIMD_PICK(vsel, a)(m, a, b)
#define vabs(a) SIMD_PICK(vabs, a)(a)
#define vsqrt(a) SIMD_PICK(vsqrt, a)(a)
#define vhsum(a) SIMD_PICK(vhsum, a)(a)
#define vhmax(a) SIMD_PICK(vhmax, a)(a)
#define vexp(a) SIMD_PICK(vexp, a)(a)
#define vlog(a) SIMD_PICK(vlog, a)(a)
#define vtanh(a) SIMD_PICK(vtanh, a)(a)
#define vnormal(a, pdf) SIMD_PICK(vnormal, a)(a, pdf)

#endif

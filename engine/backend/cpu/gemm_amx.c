/* The tile of bf16 products in the matrix registers of AMX (Intel's Advanced Matrix Extensions,
 * TDPBF16PS): 2x2 registers of 16x16 f32 sums, each fed by a register of A [16 rows][16 pairs] and
 * one of B [16 pairs][16 columns]. Subnormal operands and results count as zero, as with the bf16
 * instructions of AVX-512. The system lets a process use the registers when it asks (cpu_select.c).
 */
#ifdef __AMX_BF16__
#include "backend/cpu/gemm.h"

/* Numbers of the registers: the intrinsics take constants. */
#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

/* mt by nt registers of C; always inlined with constant mt and nt. The next registers of A and B
 * are fetched as soon as their predecessors have been used for the last time. */
SIMD_FN void load_a(int mt, const char *a, int64_t lda, int64_t below) {
    _tile_loadd(A0, a, lda);
    if (mt > 1)
        _tile_loadd(A1, a + below, lda);
}
SIMD_FN void load_b(int nt, const char *b) {
    _tile_loadd(B0, b, 64);
    if (nt > 1)
        _tile_loadd(B1, b + AMX_BYTES, 64);
}
SIMD_FN void sums(int mt, int nt, int64_t kc, const char *a, int64_t lda, const char *b, char *c,
                  int64_t ldc, bool add) {
    char *below = c + AMX_ROWS * ldc;
    const int64_t a_below = lda ? AMX_ROWS * lda : AMX_BYTES, a_step = lda ? 64 : 2 * AMX_BYTES;
    lda = lda ? lda : 64;
    if (add) {
        _tile_loadd(C00, c, ldc);
        if (nt > 1)
            _tile_loadd(C01, c + 64, ldc);
        if (mt > 1)
            _tile_loadd(C10, below, ldc);
        if (mt > 1 && nt > 1)
            _tile_loadd(C11, below + 64, ldc);
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
        _tile_zero(C10);
        _tile_zero(C11);
    }
    load_a(mt, a, lda, a_below);
    load_b(nt, b);
    for (int64_t k = AMX_UNITS; k < kc; k += AMX_UNITS) {
        a += a_step;
        b += GEMM_NV * AMX_BYTES;
        _tile_dpbf16ps(C00, A0, B0);
        if (nt > 1)
            _tile_dpbf16ps(C01, A0, B1);
        _tile_loadd(A0, a, lda);
        if (mt > 1)
            _tile_dpbf16ps(C10, A1, B0);
        _tile_loadd(B0, b, 64);
        if (mt > 1 && nt > 1)
            _tile_dpbf16ps(C11, A1, B1);
        if (nt > 1)
            _tile_loadd(B1, b + AMX_BYTES, 64);
        if (mt > 1)
            _tile_loadd(A1, a + a_below, lda);
    }
    _tile_dpbf16ps(C00, A0, B0);
    if (nt > 1)
        _tile_dpbf16ps(C01, A0, B1);
    if (mt > 1)
        _tile_dpbf16ps(C10, A1, B0);
    if (mt > 1 && nt > 1)
        _tile_dpbf16ps(C11, A1, B1);
    _tile_stored(C00, c, ldc);
    if (nt > 1)
        _tile_stored(C01, c + 64, ldc);
    if (mt > 1)
        _tile_stored(C10, below, ldc);
    if (mt > 1 && nt > 1)
        _tile_stored(C11, below + 64, ldc);
}

#define TILE(mt, nv)                                                                               \
    static void tile_##mt##_##nv(int64_t kc, const char *a, int64_t lda, const char *b,            \
                                 int64_t ldb, char *c, int64_t ldc, bool add) {                    \
        (void)ldb;                                                                                 \
        for (int j = 0; j + 2 <= nv; j += 2)                                                       \
            sums(mt, 2, kc, a, lda, b + j * AMX_BYTES, c + j * 64, ldc, add);                      \
        if (nv % 2)                                                                                \
            sums(mt, 1, kc, a, lda, b + (nv - 1) * AMX_BYTES, c + (nv - 1) * 64, ldc, add);        \
    }
#define TILES(X) X(1, 1) X(1, 2) X(1, 3) X(1, 4) X(2, 1) X(2, 2) X(2, 3) X(2, 4)
TILES(TILE)
#undef TILE

gemm_tile_fn KERNEL(gemm_amx_tile)(int m, int nv) {
#define TILE(mt, nv) [(mt)-1][(nv)-1] = tile_##mt##_##nv,
    static const gemm_tile_fn tiles[2][4] = {TILES(TILE)};
#undef TILE
    return tiles[m > AMX_ROWS][nv - 1];
}

/* How many of `step` elements from i on lie before n. */
static int64_t within(int64_t n, int64_t i, int64_t step) {
    return n - i < step ? (n > i ? n - i : 0) : step;
}
/* A register of rows as they lie: out[r] = units of row r, `n` rows of `k` elements. */
SIMD_FN void rows(const uint16_t *src, int64_t ld, int64_t n, int64_t k, __m512i out[16]) {
    const __mmask32 some = k < 32 ? (__mmask32)((1u << k) - 1) : ~(__mmask32)0;
    for (int r = 0; r < 16; r++)
        out[r] = r < n ? _mm512_maskz_loadu_epi16(some, src + r * ld) : _mm512_setzero_si512();
}
/* A register of rows paired along k: out[u] = the pairs of rows 2u and 2u + 1 of `k` rows of n
 * elements. */
SIMD_FN void pairs(const uint16_t *src, int64_t ld, int64_t n, int64_t k, __m512i out[16]) {
    const __mmask16 some = n < 16 ? (__mmask16)((1u << n) - 1) : (__mmask16)~0;
    for (int u = 0; u < 16; u++) {
        __m512i lo = _mm512_setzero_si512(), hi = lo;
        __builtin_prefetch(src + (2 * u + 32) * ld); /* far rows: unforeseen by the hardware */
        __builtin_prefetch(src + (2 * u + 33) * ld);
        if (2 * u < k)
            lo = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, src + 2 * u * ld));
        if (2 * u + 1 < k)
            hi = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, src + (2 * u + 1) * ld));
        out[u] = _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
    }
}
/* One matrix register: [16 lines along m or n][16 units] of a matrix whose lines lie as rows, or as
 * columns with `columns`; `across` = with the units as rows. n lines of k elements are there, the
 * rest is zero. */
SIMD_FN void pack(bool columns, bool across, const uint16_t *src, int64_t ld, int64_t n, int64_t k,
                  char *out) {
    __m512i r[16];
    if (columns)
        pairs(src, ld, n, k, r);
    else
        rows(src, ld, n, k, r);
    if (columns != across)
        simd_transpose16(r);
    for (int i = 0; i < 16; i++)
        _mm512_store_si512(out + i * 64, r[i]);
}

void KERNEL(gemm_amx_pack_a)(bool trans, const uint16_t *src, int64_t ld, int64_t m0, int64_t m,
                             int64_t k0, int64_t k1, int64_t K, char *out) {
    const int64_t group = (k1 - k0) * AMX_GROUP * 4;
    for (int64_t k = k0; k < k1; k += AMX_UNITS, out += 2 * AMX_BYTES) {
        for (int64_t i = 0; i < m; i += AMX_ROWS) {
            char *o = out + i / AMX_GROUP * group + i / AMX_ROWS % 2 * AMX_BYTES;
            const int64_t n = within(m, i, AMX_ROWS), left = within(K, 2 * k, 2 * AMX_UNITS);
            if (trans)
                pack(true, false, src + 2 * k * ld + m0 + i, ld, n, left, o);
            else
                pack(false, false, src + (m0 + i) * ld + 2 * k, ld, n, left, o);
        }
    }
}
void KERNEL(gemm_amx_pack_b)(bool trans, const uint16_t *src, int64_t ld, int64_t n0, int64_t n,
                             int64_t k0, int64_t k1, int64_t K, char *out) {
    for (int64_t k = k0; k < k1; k += AMX_UNITS, out += GEMM_NV * AMX_BYTES) {
        for (int64_t j = 0; j < n; j += AMX_ROWS) {
            char *o = out + j / AMX_ROWS * AMX_BYTES;
            const int64_t some = within(n, j, AMX_ROWS), left = within(K, 2 * k, 2 * AMX_UNITS);
            if (trans)
                pack(false, true, src + (n0 + j) * ld + 2 * k, ld, some, left, o);
            else
                pack(true, true, src + 2 * k * ld + n0 + j, ld, some, left, o);
        }
    }
}

void KERNEL(gemm_amx_begin)(void) {
    /* Palette 1: eight registers of 16 rows by 64 bytes. Constant data, for gcc 12 takes the
     * instruction to read no more than its first word. */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1,
                .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
}
void KERNEL(gemm_amx_end)(void) {
    _tile_release();
}
#endif

/* The register tile, written once and unrolled for every height, width and layout of A: an edge of
 * a matrix runs the same arithmetic as its middle, only on fewer registers. */
#ifdef UNIT

/* Always inlined with constant m, nv and kmajor, so that the accumulators are registers. */
SIMD_FN void EACH(tile)(int m, int nv, bool kmajor, int64_t kc, const char *a, int64_t lda,
                        const char *b, int64_t ldb, char *c, int64_t ldc, bool add) {
    VEC r[GEMM_MR][GEMM_NV];
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int j = 0; j < nv; j++)
            r[i][j] = (VEC){0};
    }
    if (add) {
        UNROLL
        for (int i = 0; i < m; i++) {
            UNROLL
            for (int j = 0; j < nv; j++)
                memcpy(&r[i][j], c + i * ldc + j * (int)sizeof(VEC), sizeof(VEC));
        }
    }
    for (int64_t k = 0; k < kc; k++) {
        BVEC x[GEMM_NV];
        UNROLL
        for (int j = 0; j < nv; j++)
            memcpy(&x[j], b + j * (int)sizeof(VEC), sizeof(VEC));
        UNROLL
        for (int i = 0; i < m; i++) {
            UNIT u;
            memcpy(&u, a + i * (kmajor ? (int)sizeof u : lda), sizeof u);
            BVEC s = u - (BVEC){0}; /* + 0 would change -0 and cost an addition */
            UNROLL
            for (int j = 0; j < nv; j++)
                r[i][j] = FMA(r[i][j], s, x[j]);
        }
        b += ldb;
        a += kmajor ? lda : (int)sizeof(UNIT);
    }
    UNROLL
    for (int i = 0; i < m; i++) {
        UNROLL
        for (int j = 0; j < nv; j++)
            memcpy(c + i * ldc + j * (int)sizeof(VEC), &r[i][j], sizeof(VEC));
    }
}

#define TILE(m, nv)                                                                                \
    static void EACH(row_##m##_##nv)(int64_t kc, const char *a, int64_t lda, const char *b,        \
                                     int64_t ldb, char *c, int64_t ldc, bool add) {                \
        EACH(tile)(m, nv, false, kc, a, lda, b, ldb, c, ldc, add);                                 \
    }                                                                                              \
    static void EACH(col_##m##_##nv)(int64_t kc, const char *a, int64_t lda, const char *b,        \
                                     int64_t ldb, char *c, int64_t ldc, bool add) {                \
        EACH(tile)(m, nv, true, kc, a, lda, b, ldb, c, ldc, add);                                  \
    }
TILES(TILE)
#undef TILE
#define TILE(m, nv)                                                                                \
    [0][(m)-1][(nv)-1] = EACH(row_##m##_##nv), [1][(m)-1][(nv)-1] = EACH(col_##m##_##nv),
static const gemm_tile_fn EACH(tiles)[2][GEMM_MR][GEMM_NV] = {TILES(TILE)};
#undef TILE

#else
#include "backend/cpu/gemm.h"

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

#define EACH_2(name, suffix) name##_##suffix
#define EACH_1(name, suffix) EACH_2(name, suffix)
#define EACH(name) EACH_1(name, SUFFIX)

#define TILES_ROW2(X, m) X(m, 1) X(m, 2)
#if GEMM_NV == 4
#define TILES_ROW(X, m) TILES_ROW2(X, m) X(m, 3) X(m, 4)
#else
#define TILES_ROW(X, m) TILES_ROW2(X, m)
#endif
#define TILES_4(X) TILES_ROW(X, 1) TILES_ROW(X, 2) TILES_ROW(X, 3) TILES_ROW(X, 4)
#if GEMM_MR == 6
#define TILES(X) TILES_4(X) TILES_ROW(X, 5) TILES_ROW(X, 6)
#else
#define TILES(X) TILES_4(X)
#endif

#define SUFFIX f32
#define UNIT float
#define VEC vf32
#define BVEC vf32
#define FMA(r, a, b) ((r) + (a) * (b))
#include "backend/cpu/gemm_tile.c"
#undef SUFFIX
#undef UNIT
#undef VEC
#undef BVEC

#define SUFFIX f64
#define UNIT double
#define VEC vf64
#define BVEC vf64
#include "backend/cpu/gemm_tile.c"
#undef SUFFIX
#undef UNIT
#undef VEC
#undef BVEC
#undef FMA

#ifdef __AVX512BF16__
#define SUFFIX pairs
#define UNIT uint32_t
#define VEC vf32
#define BVEC vu32
#define FMA(r, a, b) ((vf32)_mm512_dpbf16_ps((__m512)(r), (__m512bh)(a), (__m512bh)(b)))
#include "backend/cpu/gemm_tile.c"
#endif

gemm_tile_fn KERNEL(gemm_tile)(gemm_kind kind, bool kmajor, int m, int nv) {
#ifdef __AVX512BF16__
    if (kind == GEMM_PAIRS)
        return tiles_pairs[kmajor][m - 1][nv - 1];
#endif
    return kind == GEMM_F64 ? tiles_f64[kmajor][m - 1][nv - 1] : tiles_f32[kmajor][m - 1][nv - 1];
}
#endif

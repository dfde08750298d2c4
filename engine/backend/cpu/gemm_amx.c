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

/* mt by nt registers of C; always inlined with constant mt and nt. */
SIMD_FN void sums(int mt, int nt, int64_t kc, const char *a, const char *b, int64_t ldb, char *c,
                  int64_t ldc, bool add) {
    char *below = c + AMX_ROWS * ldc;
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
    for (int64_t k = 0; k < kc; k += AMX_UNITS, a += 2 * AMX_BYTES, b += AMX_UNITS * ldb) {
        _tile_loadd(A0, a, 64);
        _tile_loadd(B0, b, ldb);
        _tile_dpbf16ps(C00, A0, B0);
        if (nt > 1) {
            _tile_loadd(B1, b + 64, ldb);
            _tile_dpbf16ps(C01, A0, B1);
        }
        if (mt > 1) {
            _tile_loadd(A1, a + AMX_BYTES, 64);
            _tile_dpbf16ps(C10, A1, B0);
            if (nt > 1)
                _tile_dpbf16ps(C11, A1, B1);
        }
    }
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
        (void)lda;                                                                                 \
        for (int j = 0; j + 2 <= nv; j += 2)                                                       \
            sums(mt, 2, kc, a, b + j * 64, ldb, c + j * 64, ldc, add);                             \
        if (nv % 2)                                                                                \
            sums(mt, 1, kc, a, b + (nv - 1) * 64, ldb, c + (nv - 1) * 64, ldc, add);               \
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

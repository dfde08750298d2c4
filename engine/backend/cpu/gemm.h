/* Matrix products of the CPU backend. The rule: an element of the result is summed over k in
 * ascending order, in blocks of fixed length, so its bits depend on neither threads, tile shape nor
 * place in the matrix. */
#ifndef MIMIC_CPU_GEMM_H
#define MIMIC_CPU_GEMM_H

#include "backend/cpu/kernel.h"
#include "backend/cpu/simd.h"

/* Register tile: GEMM_MR rows by GEMM_NV vectors of accumulators. GEMM_BLOCK_K units of k stay in
 * cache. */
#if defined(SIMD_AVX512)
#define GEMM_MR 6
#define GEMM_NV 4
#elif defined(SIMD_AVX2)
#define GEMM_MR 6
#define GEMM_NV 2
#else
#define GEMM_MR 4
#define GEMM_NV 2
#endif
#define GEMM_BLOCK_K 512
#define GEMM_MAX_MB 96  /* rows of a task: a multiple of every GEMM_MR */
#define GEMM_AMX_MB 192 /* the same for TILES: B comes from farther away than it is used up */
/* Bytes between packed groups of kc units by GEMM_MR rows; the odd cache line keeps groups out of
 * each other's cache sets. */
#define GEMM_GROUP(kc, unit) ((int64_t)(kc)*GEMM_MR * (unit) + 64)
#define GEMM_NR_MAX (GEMM_NV * VF32_W)

/* How a product is computed. A unit is what one multiply-add takes of A: an element, or with PAIRS
 * and TILES two bf16 neighbours along k in 32 bits. Without the bf16 instructions bf16 is widened
 * to f32 while packing. TILES are the matrix registers of AMX: see gemm_amx.c. */
typedef enum gemm_kind { GEMM_F32, GEMM_F64, GEMM_PAIRS, GEMM_TILES } gemm_kind;

/* A matrix register of AMX: rows by units; the product takes A in groups of two of them, one below
 * the other, and k in whole registers. */
#define AMX_ROWS 16
#define AMX_UNITS 16
#define AMX_BYTES (AMX_ROWS * AMX_UNITS * 4)
#define AMX_GROUP 32 /* rows */

/* c (=|+=) a . b over kc units, m <= GEMM_MR rows and nv vectors of columns.
 * a: unit (i,k) at a + i*lda + k*unit bytes, or with `kmajor` at a + k*lda + i*unit.
 * b: row k at b + k*ldb bytes. c: row i at c + i*ldc bytes, f32 or f64. */
typedef void (*gemm_tile_fn)(int64_t kc, const char *a, int64_t lda, const char *b, int64_t ldb,
                             char *c, int64_t ldc, bool add);
gemm_tile_fn KERNEL(gemm_tile)(gemm_kind kind, bool kmajor, int m, int nv);
#ifdef __AMX_BF16__
/* The same for TILES: b packed, a as it lies or packed (lda 0), kc whole registers long; rows of c
 * up to the next multiple of AMX_ROWS are written. Between gemm_amx_begin and gemm_amx_end on each
 * thread. */
gemm_tile_fn KERNEL(gemm_amx_tile)(int m, int nv);
void KERNEL(gemm_amx_pack_a)(bool trans, const uint16_t *src, int64_t ld, int64_t m0, int64_t m,
                             int64_t k0, int64_t k1, int64_t K, char *out);
void KERNEL(gemm_amx_pack_b)(bool trans, const uint16_t *src, int64_t ld, int64_t n0, int64_t n,
                             int64_t k0, int64_t k1, int64_t K, char *out);
void KERNEL(gemm_amx_begin)(void);
void KERNEL(gemm_amx_end)(void);
#endif

/* Packing. B becomes panels of nr = GEMM_NV vectors columns, row k of nr units;
 * columns beyond n are zero up to the next vector. `src` element (k,n)
 * lies at k*ld + n, or with `trans` at n*ld + k. One panel from column n0, units k0..k1 (counted in
 * units), K elements in all. */
void KERNEL(gemm_pack_b)(gemm_kind kind, mimic_dtype dtype, bool trans, const void *src, int64_t ld,
                         int64_t n0, int64_t n, int64_t k0, int64_t k1, int64_t K, void *out);
/* A block of m rows from row m0 of op(A), units k0..k1. Stored transposed: groups of GEMM_MR rows,
 * GEMM_GROUP bytes apart, each [units][GEMM_MR] (k-major). Else rows of `k1 - k0` units, converted,
 * an odd last pair filled with zero.
 * TILES: matrix registers with zeros beyond m, n and K; of B panels of [units /
 * AMX_UNITS][GEMM_NV], of A groups of AMX_GROUP rows, [units / AMX_UNITS][2]. */
void KERNEL(gemm_pack_a)(gemm_kind kind, mimic_dtype dtype, bool trans, const void *src, int64_t ld,
                         int64_t m0, int64_t m, int64_t k0, int64_t k1, int64_t K, void *out);

/* What is done to a finished row while it is in cache. */
enum gemm_act { GEMM_ACT_NONE, GEMM_ACT_RELU, GEMM_ACT_GELU, GEMM_ACT_GELU_TANH };

typedef struct gemm_args {
    mimic_dtype in, out; /* of a and b, of c and pre; out is `in` or f32 for bf16 */
    int64_t m, n, k;
    const void *a;         /* [m,k], or [k,m] with ta */
    const void *b;         /* [k,n], or [n,k] with tb */
    int64_t lda, ldb, ldc; /* elements */
    bool ta, tb;
    void *c;          /* [m,n] */
    const void *bias; /* [n] f32 (f64 for f64) or NULL */
    void *pre;        /* [m,n] value before the activation, or NULL */
    enum gemm_act act;
} gemm_args;

/* c = act(op(a) . op(b) + bias) for `batch` independent problems, `sa`, `sb`, `sc` elements apart
 * (0 = the same operand). bias, pre and act need batch = 1. */
mimic_status KERNEL(gemm)(mimic_ctx *ctx, const gemm_args *args, int64_t batch, int64_t sa,
                          int64_t sb, int64_t sc);

/* c[m,n] (=|+=) op(a) . b on the caller's thread, all of k in blocks of GEMM_BLOCK_K; f32 or f64. b
 * is packed panels (`panel` bytes apart, ldb = nr units) or rows in place (ldb bytes apart, panel =
 * nr units) when n is a multiple of the vector. lda, ldc in bytes. */
void KERNEL(gemm_block)(gemm_kind kind, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                        bool kmajor, const void *b, int64_t ldb, int64_t panel, void *c,
                        int64_t ldc, bool add);

/* Finishes m rows of n sums (f32, or f64 for out = f64; ld elements apart) into columns col.. of c
 * and pre, which point at column 0 of the rows: adds the bias, keeps the value in pre, applies the
 * activation. */
void KERNEL(gemm_finish)(const gemm_args *g, int64_t row, int64_t m, int64_t col, int64_t n,
                         const void *sum, int64_t ld);

static inline int gemm_vector(gemm_kind kind) {
    return kind == GEMM_F64 ? VF64_W : VF32_W;
}
static inline int gemm_mr(gemm_kind kind) {
    return kind == GEMM_TILES ? AMX_GROUP : GEMM_MR;
}
static inline int gemm_nr(gemm_kind kind) {
    return GEMM_NV * gemm_vector(kind);
}
static inline int gemm_unit(gemm_kind kind) { /* bytes */
    return kind == GEMM_F64 ? 8 : 4;
}

#endif

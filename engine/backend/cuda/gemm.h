/* Matrix products through cublasLt (gemm.cu), and the file that keeps the algorithm chosen for each
 * shape (gemm_cache.c). */
#ifndef MIMIC_CUDA_GEMM_H
#define MIMIC_CUDA_GEMM_H

#include "backend/cuda/module.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What follows the sums, inside the product. GELU is the tanh form. */
enum gemm_finish { GEMM_PLAIN = 0, GEMM_BIAS = 1, GEMM_GELU = 2 };

/* c = finish(op(a) op(b)), row-major; `batch` of them, s* elements apart. Sums are f32. */
typedef struct gemm {
    int in, out;               /* dtypes: of a and b, of c */
    bool ta, tb;               /* stored transposed */
    int64_t m, n, k;           /* op(a) [m,k], op(b) [k,n] */
    int64_t lda, ldb, ldc;     /* elements from row to row as stored */
    int64_t batch, sa, sb, sc; /* batch 0 counts as 1 */
    const void *a, *b;
    void *c;
    int finish;       /* bits of gemm_finish */
    const void *bias; /* [n] of c's dtype, with GEMM_BIAS */
    void *aux;        /* [m,n], with GEMM_GELU: what it is applied to, of c's dtype, rows of ldc;
                         NULL: not kept */
} gemm;

/* Enqueues it. k = 0 gives zeros (and then no finish); nothing to do for m, n = 0. */
mimic_status cuda_gemm(mimic_ctx *ctx, const gemm *g);
/* Enqueues what follows the product `part` and is not in it. */
typedef void gemm_rest(mimic_ctx *ctx, const gemm *part, const void *how);
/* Which of two ways to the same is quicker: *one is true when it is the product `whole`, false when
 * it is `part` with `rest` behind it. Both are run and timed when the shape is first met (they
 * write what they write), and the choice is kept with the algorithms. What the library cannot do at
 * these sizes and addresses is never chosen. */
mimic_status cuda_gemm_in_one(mimic_ctx *ctx, const gemm *whole, const gemm *part, gemm_rest *rest,
                              const void *how, bool *one);
size_t cuda_gemm_workspace(mimic_ctx *ctx); /* bytes taken for the library */
/* Gives back the library's handle, the plans and the workspace. */
void cuda_gemm_close(mimic_ctx *ctx);

/* The words kept for a shape: the library's algorithm and the bytes of workspace it wants; for a
 * choice of ways (its key says so) the way, in the first of them. */
typedef struct gemm_choice {
    uint64_t algorithm[8], workspace;
} gemm_choice;
enum { GEMM_KEY = 320 }; /* longest key with its end */

/* The file: MIMIC_GEMM_CACHE, or mimic/gemm.txt in XDG_CACHE_HOME or ~/.cache; "" when there is no
 * such folder or MIMIC_GEMM_CACHE is empty: nothing is kept. Returns a warning, NULL where that is
 * as wanted. */
const char *gemm_cache_path(char *path, size_t size);
/* Reads what was kept under `key` (no space, no line end). A file that is not ours or is damaged
 * counts for nothing: *warning (or NULL) says so. */
bool gemm_cache_find(const char *path, const char *key, gemm_choice *choice, const char **warning);
/* Adds the choice, or gives the one that another process has kept meanwhile (unless `replace`). The
 * file is replaced as a whole or not at all; one that is not ours is left alone. */
bool gemm_cache_add(const char *path, const char *key, gemm_choice *choice, bool replace,
                    const char **warning);

#ifdef __cplusplus
}
#endif
#endif

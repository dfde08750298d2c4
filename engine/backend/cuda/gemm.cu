/* Matrix products by cublasLt. Each shape has a plan: descriptors made once and an algorithm. The
 * algorithm is the quickest of the library's first proposals, each run at the real shape when the
 * shape is first met; the choice is kept in a file (gemm_cache.c), so that later runs repeat it and
 * with it every bit. Only algorithms that repeat are asked for: split sums are put together in f32
 * and in order. Whether something is done in the product or behind it is chosen likewise. */
#include <cublasLt.h>

#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/gemm.h"
#include "backend/cuda/kernel.h"

enum { PROPOSALS = 16, RUNS = 3, BUCKETS = 256 };
enum { IN_ONE = 1, IN_PARTS = 2 }; /* ways, as they are kept */

/* What decides about the algorithm. No padding: compared as bytes. */
struct shape {
    int64_t m, n, k, lda, ldb, ldc, batch, sa, sb, sc;
    int32_t in, out, ta, tb, finish, aux, align, compute;
};

struct plan {
    shape key;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* in the library's order: a is our b, transposed */
    cublasLtMatmulAlgo_t algorithm;
    bool able; /* false: the library has no algorithm for it */
    int way;   /* of cuda_gemm_in_one, 0: not chosen yet */
    plan *next;
};

typedef struct gemm_state {
    cublasLtHandle_t handle;
    void *workspace;
    size_t workspace_size;
    cublasComputeType_t f32; /* MIMIC_TF32=1 allows TF32 in products of f32 */
    cudaEvent_t begin, end;
    char cache[4096]; /* file of choices; "" none */
    bool warned;
    plan *plans[BUCKETS];
} gemm_state;

static mimic_status lt_check(mimic_ctx *ctx, cublasStatus_t e, const char *what) {
    if (e == CUBLAS_STATUS_SUCCESS)
        return MIMIC_OK;
    return state_of(ctx)->host->fail(ctx, MIMIC_ESTATE, "cuda: cublasLt: %s: %s", what,
                                     cublasLtGetStatusString(e));
}

/* Warns once in the life of a context about the file of choices. */
static void warn(mimic_ctx *ctx, gemm_state *s, const char *warning) {
    if (warning && !s->warned)
        state_of(ctx)->host->log(ctx, 2, "cuda: chosen product algorithms%s%s%s %s",
                                 *s->cache ? " (" : "", s->cache, *s->cache ? "):" : "", warning);
    s->warned |= warning != NULL;
}

/* The library, ready at the first product. */
static mimic_status open_state(mimic_ctx *ctx, gemm_state **out) {
    cuda_state *s = state_of(ctx);
    if (!s->gemm) {
        const char *tf32 = getenv("MIMIC_TF32");
        gemm_state *g = (gemm_state *)calloc(1, sizeof *g);
        if (!g)
            return s->host->fail(ctx, MIMIC_ENOMEM, "cuda: out of memory");
        s->gemm = g;
        g->f32 = tf32 && strcmp(tf32, "1") == 0 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
        warn(ctx, g, gemm_cache_path(g->cache, sizeof g->cache));
    }
    gemm_state *g = *out = s->gemm;
    if (g->begin)
        return MIMIC_OK;
    if (s->recording)
        return cuda_refuse(ctx, "the first product is met");
    size_t want = s->memory / 512, most = (size_t)128 << 20, least = (size_t)4 << 20;
    g->workspace_size = want < least ? least : want > most ? most : want;
    mimic_status st = MIMIC_OK;
    if (!g->handle)
        st = lt_check(ctx, cublasLtCreate(&g->handle), "opening");
    if (!st && !g->workspace)
        st = cuda_take(ctx, &g->workspace, g->workspace_size, "workspace of products");
    if (!st && !g->end)
        st = cuda_check(ctx, cudaEventCreateWithFlags(&g->end, 0), "event");
    return st ? st : cuda_check(ctx, cudaEventCreateWithFlags(&g->begin, 0), "event");
}

size_t cuda_gemm_workspace(mimic_ctx *ctx) {
    const gemm_state *g = state_of(ctx)->gemm;
    return g && g->workspace ? g->workspace_size : 0;
}

static void drop(plan *p) {
    for (cublasLtMatrixLayout_t l : {p->a, p->b, p->c})
        if (l)
            cublasLtMatrixLayoutDestroy(l);
    if (p->desc)
        cublasLtMatmulDescDestroy(p->desc);
    free(p);
}

void cuda_gemm_close(mimic_ctx *ctx) {
    gemm_state *g = state_of(ctx)->gemm;
    if (!g)
        return;
    for (int i = 0; i < BUCKETS; i++)
        for (plan *p = g->plans[i], *next; p; p = next) {
            next = p->next;
            drop(p);
        }
    if (g->handle)
        cublasLtDestroy(g->handle);
    if (g->begin)
        cudaEventDestroy(g->begin);
    if (g->end)
        cudaEventDestroy(g->end);
    cudaFree(g->workspace);
    free(g);
    state_of(ctx)->gemm = NULL;
}

static shape shape_of(const gemm_state *s, const gemm *g) {
    shape k;
    uintptr_t bits = (uintptr_t)g->a | (uintptr_t)g->b | (uintptr_t)g->c | (uintptr_t)g->bias |
                     (uintptr_t)g->aux | 16;
    memset(&k, 0, sizeof k);
    k.m = g->m, k.n = g->n, k.k = g->k;
    k.lda = g->lda, k.ldb = g->ldb, k.ldc = g->ldc;
    k.batch = g->batch > 1 ? g->batch : 1;
    if (k.batch > 1)
        k.sa = g->sa, k.sb = g->sb, k.sc = g->sc;
    k.in = g->in, k.out = g->out;
    k.ta = g->ta, k.tb = g->tb;
    k.finish = g->finish, k.aux = g->aux != NULL;
    k.align = (int32_t)(bits & (~bits + 1)); /* of the least aligned, 16 at most */
    k.compute = g->in == MIMIC_F32 ? s->f32 : CUBLAS_COMPUTE_32F;
    return k;
}

static cudaDataType_t type_of(int dtype) {
    return dtype == MIMIC_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* The library's column-major layout of a row-major matrix: its transpose. */
static cublasStatus_t layout(cublasLtMatrixLayout_t *l, int dtype, int64_t rows, int64_t cols,
                             int64_t ld, int64_t batch, int64_t stride) {
    int32_t count = (int32_t)batch;
    cublasStatus_t e =
        cublasLtMatrixLayoutCreate(l, type_of(dtype), (uint64_t)cols, (uint64_t)rows, ld);
    if (e || batch == 1)
        return e;
    e = cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                         sizeof count);
    return e ? e
             : cublasLtMatrixLayoutSetAttribute(*l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                                &stride, sizeof stride);
}

static cublasStatus_t set(plan *p, cublasLtMatmulDescAttributes_t a, const void *v, size_t size) {
    return cublasLtMatmulDescSetAttribute(p->desc, a, v, size);
}

/* The addresses that are the descriptor's: of this call. */
static cublasStatus_t aim(plan *p, const gemm *g) {
    cublasStatus_t e = CUBLAS_STATUS_SUCCESS;
    if (g->finish & GEMM_BIAS)
        e = set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias);
    if (!e && g->aux)
        e = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &g->aux, sizeof g->aux);
    return e;
}

static cublasStatus_t describe(plan *p, const gemm *g) {
    const shape *k = &p->key;
    /* C^T = op(B)^T op(A)^T; a row-major matrix as it is stored counts as transposed already. */
    int32_t ta = k->tb ? CUBLAS_OP_T : CUBLAS_OP_N, tb = k->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    if (k->finish & GEMM_GELU)
        epilogue = k->aux ? CUBLASLT_EPILOGUE_GELU_AUX : CUBLASLT_EPILOGUE_GELU;
    if (k->finish & GEMM_BIAS)
        epilogue = (epilogue & ~1u) | CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t e =
        cublasLtMatmulDescCreate(&p->desc, (cublasComputeType_t)k->compute, CUDA_R_32F);
    if (!e)
        e = set(p, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    if (!e)
        e = set(p, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    if (!e)
        e = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (!e && k->aux)
        e = set(p, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &k->ldc, sizeof k->ldc);
    if (!e)
        e = aim(p, g);
    if (!e)
        e = layout(&p->a, k->in, k->tb ? k->n : k->k, k->tb ? k->k : k->n, k->ldb, k->batch, k->sb);
    if (!e)
        e = layout(&p->b, k->in, k->ta ? k->k : k->m, k->ta ? k->m : k->k, k->lda, k->batch, k->sa);
    return e ? e : layout(&p->c, k->out, k->m, k->n, k->ldc, k->batch, k->sc);
}

static cublasStatus_t launch(const gemm_state *s, cudaStream_t stream, plan *p, const gemm *g,
                             const cublasLtMatmulAlgo_t *algorithm) {
    const float one = 1.0f, zero = 0.0f;
    return cublasLtMatmul(s->handle, p->desc, &one, g->b, p->a, g->a, p->b, &zero, g->c, p->c, g->c,
                          p->c, algorithm, s->workspace, s->workspace_size, stream);
}

/* Up to PROPOSALS algorithms, those first that the library thinks quickest. */
static cublasStatus_t propose(const gemm_state *s, const plan *p,
                              cublasLtMatmulHeuristicResult_t *list, int *count) {
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t want = NULL;
    uint64_t bytes = s->workspace_size;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, align = (uint32_t)p->key.align;
    cublasStatus_t e = cublasLtMatmulPreferenceCreate(&want);
    if (!e)
        e = cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &bytes, sizeof bytes);
    if (!e)
        e = cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                 &reduction, sizeof reduction);
    for (int i = 0; i < 4 && !e; i++)
        e = cublasLtMatmulPreferenceSetAttribute(want, alignments[i], &align, sizeof align);
    *count = 0;
    if (!e)
        e = cublasLtMatmulAlgoGetHeuristic(s->handle, p->desc, p->a, p->b, p->c, p->c, want,
                                           PROPOSALS, list, count);
    if (e == CUBLAS_STATUS_NOT_SUPPORTED)
        e = CUBLAS_STATUS_SUCCESS; /* an answer: none */
    cublasLtMatmulPreferenceDestroy(want);
    return e;
}

/* Milliseconds of RUNS runs after one to warm up; false when one does not run. */
template <class F>
static bool measure(const gemm_state *s, cudaStream_t stream, float *ms, F runs) {
    if (!runs() || cudaEventRecord(s->begin, stream))
        return false;
    for (int i = 0; i < RUNS; i++)
        if (!runs())
            return false;
    return !cudaEventRecord(s->end, stream) && !cudaEventSynchronize(s->end) &&
           !cudaEventElapsedTime(ms, s->begin, s->end);
}

/* what: "" for the algorithm, or what else is kept of the shape. */
static void key_text(const cuda_state *s, const shape *k, const char *what, char text[GEMM_KEY]) {
    int n = snprintf(
        text, GEMM_KEY,
        "%sv%zu,sm%d.%d,%d,%.40s;%d>%d,c%d,t%d%d,f%d%d,a%d;%lld,%lld,%lld;%lld,%lld,%lld;"
        "%lld,%lld,%lld,%lld",
        what, cublasLtGetVersion(), s->major, s->minor, s->sms, s->name, k->in, k->out, k->compute,
        k->ta, k->tb, k->finish, k->aux, k->align, (long long)k->m, (long long)k->n,
        (long long)k->k, (long long)k->lda, (long long)k->ldb, (long long)k->ldc,
        (long long)k->batch, (long long)k->sa, (long long)k->sb, (long long)k->sc);
    for (int i = 0; i < n && text[i]; i++)
        text[i] = text[i] == ' ' ? '_' : text[i];
}

/* Makes a choice the plan's algorithm; false when the library no longer takes it. */
static bool use(const gemm_state *s, plan *p, const gemm_choice *choice) {
    cublasLtMatmulHeuristicResult_t r = {};
    memcpy(&p->algorithm, choice->algorithm, sizeof p->algorithm);
    return cublasLtMatmulAlgoCheck(s->handle, p->desc, p->a, p->b, p->c, p->c, &p->algorithm, &r) ==
               CUBLAS_STATUS_SUCCESS &&
           r.workspaceSize <= s->workspace_size;
}

/* The quickest of the library's proposals; false when it has none that runs. */
static mimic_status quickest(mimic_ctx *ctx, const gemm_state *s, plan *p, const gemm *g,
                             gemm_choice *choice, bool *some) {
    cudaStream_t stream = state_of(ctx)->stream;
    cublasLtMatmulHeuristicResult_t list[PROPOSALS];
    int count = 0, best = -1;
    float least = 0.0f, ms;
    mimic_status st = lt_check(ctx, propose(s, p, list, &count), "asking for algorithms");
    for (int i = 0; i < count && !st; i++)
        if (list[i].state == CUBLAS_STATUS_SUCCESS &&
            measure(s, stream, &ms, [&] { return !launch(s, stream, p, g, &list[i].algo); }) &&
            (best < 0 || ms < least)) {
            best = i;
            least = ms;
        }
    *some = best >= 0;
    cudaError_t left = cudaGetLastError(); /* by an algorithm that did not run */
    if (!*some)
        return st ? st : cuda_check(ctx, left, "trying algorithms");
    memcpy(choice->algorithm, &list[best].algo, sizeof choice->algorithm);
    choice->workspace = list[best].workspaceSize;
    return MIMIC_OK;
}

/* Chooses the plan's algorithm: the one kept, if it still fits, or the quickest, which is then
 * kept. Of processes that choose at one time the first decides for all. Leaves able false when
 * there is none. */
static mimic_status choose(mimic_ctx *ctx, gemm_state *s, plan *p, const gemm *g) {
    char key[GEMM_KEY];
    gemm_choice kept, ours;
    const char *warning = NULL;
    key_text(state_of(ctx), &p->key, "", key);
    bool found = *s->cache && gemm_cache_find(s->cache, key, &kept, &warning);
    warn(ctx, s, warning);
    p->able = found && use(s, p, &kept);
    if (p->able)
        return MIMIC_OK;
    mimic_status st = quickest(ctx, s, p, g, &ours, &p->able);
    if (st || !p->able)
        return st;
    kept = ours;
    if (*s->cache)
        gemm_cache_add(s->cache, key, &kept, found, &warning);
    warn(ctx, s, warning);
    if (!use(s, p, &kept))
        use(s, p, &ours);
    return MIMIC_OK;
}

static mimic_status plan_of(mimic_ctx *ctx, gemm_state *s, const gemm *g, plan **out) {
    shape key = shape_of(s, g);
    const unsigned char *bytes = (const unsigned char *)&key;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof key; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    plan **bucket = &s->plans[(hash ^ hash >> 16) % BUCKETS];
    for (*out = *bucket; *out; *out = (*out)->next)
        if (memcmp(&(*out)->key, &key, sizeof key) == 0)
            return MIMIC_OK;
    if (state_of(ctx)->recording) /* algorithms are timed, and that waits */
        return cuda_refuse(ctx, "a product of a new shape is met");
    plan *p = (plan *)calloc(1, sizeof *p);
    if (!p)
        return state_of(ctx)->host->fail(ctx, MIMIC_ENOMEM, "cuda: out of memory");
    p->key = key;
    mimic_status st = lt_check(ctx, describe(p, g), "describing a product");
    if (!st)
        st = choose(ctx, s, p, g);
    if (st) {
        drop(p);
        return st;
    }
    p->next = *bucket;
    *out = *bucket = p;
    return MIMIC_OK;
}

static bool is_way(const gemm_choice *c) {
    return c->algorithm[0] == IN_ONE || c->algorithm[0] == IN_PARTS;
}

/* Chooses between the plan's product of all and the part's with `rest` behind it, both of which the
 * library can do: as kept, or the quicker one. */
static mimic_status choose_way(mimic_ctx *ctx, gemm_state *s, plan *p, const gemm *whole, plan *q,
                               const gemm *part, gemm_rest *rest, const void *how) {
    char key[GEMM_KEY];
    gemm_choice kept = {};
    const char *warning = NULL;
    cudaStream_t stream = state_of(ctx)->stream;
    float one = 0.0f, parts = 0.0f;
    key_text(state_of(ctx), &p->key, "way,", key);
    bool found = *s->cache && gemm_cache_find(s->cache, key, &kept, &warning);
    warn(ctx, s, warning);
    if (!found || !is_way(&kept)) {
        if (state_of(ctx)->recording)
            return cuda_refuse(ctx, "a product of a new shape is met");
        mimic_status st = lt_check(ctx, aim(p, whole), "addresses");
        if (!st)
            st = lt_check(ctx, aim(q, part), "addresses");
        if (st)
            return st;
        bool runs =
            measure(s, stream, &one, [&] { return !launch(s, stream, p, whole, &p->algorithm); });
        bool part_runs = measure(s, stream, &parts, [&] {
            bool good = !launch(s, stream, q, part, &q->algorithm);
            rest(ctx, part, how);
            return good;
        });
        int way = runs && (!part_runs || one <= parts) ? IN_ONE : IN_PARTS;
        kept = gemm_choice{{(uint64_t)way}, 0};
        if (*s->cache)
            gemm_cache_add(s->cache, key, &kept, found, &warning);
        warn(ctx, s, warning);
        kept.algorithm[0] = is_way(&kept) ? kept.algorithm[0] : (uint64_t)way;
    }
    p->way = (int)kept.algorithm[0];
    return MIMIC_OK;
}

mimic_status cuda_gemm_in_one(mimic_ctx *ctx, const gemm *whole, const gemm *part, gemm_rest *rest,
                              const void *how, bool *one) {
    gemm_state *s = NULL;
    plan *p = NULL, *q = NULL;
    mimic_status st = open_state(ctx, &s);
    if (!st)
        st = plan_of(ctx, s, whole, &p);
    if (!st && p->able && p->way == 0)
        st = plan_of(ctx, s, part, &q);
    if (!st && q)
        st = q->able ? choose_way(ctx, s, p, whole, q, part, rest, how) : MIMIC_OK;
    *one = !st && p->able && p->way != IN_PARTS;
    return st;
}

mimic_status cuda_gemm(mimic_ctx *ctx, const gemm *g) {
    cudaStream_t stream = state_of(ctx)->stream;
    gemm_state *s = NULL;
    plan *p = NULL;
    if (g->m == 0 || g->n == 0)
        return MIMIC_OK;
    if (g->k == 0) {
        int64_t count = g->batch > 1 ? (g->batch - 1) * g->sc + g->m * g->n : g->m * g->n;
        return cuda_check(
            ctx, cudaMemsetAsync(g->c, 0, (size_t)count * element_size(g->out), stream), "clear");
    }
    mimic_status st = open_state(ctx, &s);
    if (!st)
        st = plan_of(ctx, s, g, &p);
    if (!st && !p->able)
        st = state_of(ctx)->host->fail(ctx, MIMIC_EUNSUPPORTED,
                                       "cuda: cublasLt has no algorithm for a product of %lldx%lld "
                                       "and %lldx%lld",
                                       (long long)g->m, (long long)g->k, (long long)g->k,
                                       (long long)g->n);
    if (!st)
        st = lt_check(ctx, aim(p, g), "addresses");
    return st ? st : lt_check(ctx, launch(s, stream, p, g, &p->algorithm), "product");
}

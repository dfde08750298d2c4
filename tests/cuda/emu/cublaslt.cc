/* cublasLt on the host: column-major products in f32 with their epilogues, as work of a stream.
 * What the library would refuse is refused: unknown attributes and values, types that do not go
 * together, layouts that do not fit, pointers less aligned than the algorithm was asked for. The
 * algorithms of a shape are a fixed list of two: one sum over k, and two halves of it put together.
 */
#include "cublasLt.h"

#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "cuda_bf16.h"

struct emu_lt_handle {
    int live; /* always 1 */
};
struct emu_lt_desc {
    cublasComputeType_t compute;
    int transpose[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
    void *aux = nullptr;
    int64_t aux_ld = 0;
};
struct emu_lt_layout {
    cudaDataType_t type;
    int64_t rows, cols, ld, stride = 0;
    int32_t batch = 1;
};
struct emu_lt_preference {
    uint64_t workspace = 0;
    uint32_t reduction = 7, alignment[4] = {256, 256, 256, 256};
};

/* For tests: how often the list of algorithms was asked for, the epilogue of the newest product;
 * the time that each algorithm takes, and a GELU in the product besides. */
extern "C" {
__attribute__((visibility("default"))) int emu_lt_heuristics, emu_lt_epilogue;
__attribute__((visibility("default"))) int emu_lt_time[2] = {1, 1}, emu_lt_gelu_time;
}

namespace {

enum { MAGIC = 0x6c745f65, SPLIT_WORKSPACE = 1024, BIAS = 4, GELU = 32, AUX = 128 };
int handles, parts; /* live ones; parts: descriptors, layouts, preferences */

/* What is left when the program ends was forgotten. */
struct leak_check {
    ~leak_check() {
        if (handles == 0 && parts == 0)
            return;
        fprintf(stderr, "emulator: not destroyed at the end: %d cublasLt handles, %d descriptors\n",
                handles, parts);
        fflush(stdout);
        _exit(99);
    }
} at_end;

size_t size_of(cudaDataType_t t) {
    return t == CUDA_R_16BF ? 2 : 4;
}

float value(const void *p, cudaDataType_t t, int64_t i) {
    return t == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *)p)[i])
                            : ((const float *)p)[i];
}

void store(void *p, cudaDataType_t t, int64_t i, float v) {
    if (t == CUDA_R_16BF)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(v);
    else
        ((float *)p)[i] = v;
}

template <class T> bool take(T *to, const void *from, size_t size) {
    if (size != sizeof *to)
        return false;
    memcpy(to, from, size);
    return true;
}

cublasStatus_t status(bool good) {
    return good ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/* Descriptors, layouts and preferences are counted. */
template <class T> T *counted(T *p) {
    parts++;
    return p;
}

template <class T> cublasStatus_t dropped(T *p) {
    parts -= p != nullptr;
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}

/* Elements from a matrix's first to its last one, all of the batch. */
int64_t extent(const emu_lt_layout &l) {
    return (l.batch - 1) * l.stride + (l.cols - 1) * l.ld + l.rows;
}

bool fits(const emu_lt_desc &d, const emu_lt_layout &a, const emu_lt_layout &b,
          const emu_lt_layout &c) {
    int64_t ka = d.transpose[0] ? a.rows : a.cols, m = d.transpose[0] ? a.cols : a.rows;
    int64_t kb = d.transpose[1] ? b.cols : b.rows, n = d.transpose[1] ? b.rows : b.cols;
    return ka == kb && m == c.rows && n == c.cols && a.batch == c.batch && b.batch == c.batch &&
           (c.batch == 1 || c.stride >= (c.cols - 1) * c.ld + c.rows);
}

/* INVALID_VALUE: shapes; NOT_SUPPORTED: no algorithm does it. */
cublasStatus_t judge(const emu_lt_desc &d, const emu_lt_layout &a, const emu_lt_layout &b,
                     const emu_lt_layout &c) {
    bool types = a.type == b.type && (c.type == a.type || c.type == CUDA_R_32F) &&
                 (d.compute == CUBLAS_COMPUTE_32F || a.type == CUDA_R_32F);
    bool aux = !(d.epilogue & AUX) ||
               (d.aux && d.aux_ld % 8 == 0 && d.aux_ld >= c.rows && (uintptr_t)d.aux % 16 == 0);
    if (!fits(d, a, b, c) || ((d.epilogue & BIAS) && !d.bias))
        return CUBLAS_STATUS_INVALID_VALUE;
    return types && aux ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasLtMatmulAlgo_t algorithm(int id, uint32_t align) {
    return {{MAGIC, (uint64_t)id, align, 0, 0, 0, 0, 0}};
}

bool known(const cublasLtMatmulAlgo_t &a) {
    uint64_t rest = a.data[3] | a.data[4] | a.data[5] | a.data[6] | a.data[7];
    return a.data[0] == MAGIC && a.data[1] < 2 && rest == 0;
}

float gelu(float x) {
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * x * (1.0f + 0.044715f * x * x)));
}

/* op(X) of one batch item as dense f32, `inner` runs along the rows of the result. */
std::vector<float> dense(const void *x, const emu_lt_layout &l, int item, bool rows_run) {
    std::vector<float> out((size_t)(l.rows * l.cols));
    const char *base = (const char *)x + (size_t)(item * l.stride) * size_of(l.type);
    for (int64_t j = 0; j < l.cols; j++)
        for (int64_t i = 0; i < l.rows; i++)
            out[(size_t)(rows_run ? j * l.rows + i : i * l.cols + j)] =
                value(base, l.type, j * l.ld + i);
    return out;
}

/* sum[m] += A[:, k0..k1) b[k0..k1), A as [k][m] */
__attribute__((optimize("O3"))) void add_column(float *__restrict sum, const float *__restrict a,
                                                const float *b, int64_t m, int64_t k0, int64_t k1) {
    for (int64_t k = k0; k < k1; k++) {
        const float f = b[k], *__restrict row = a + k * m;
        for (int64_t i = 0; i < m; i++)
            sum[i] += row[i] * f;
    }
}

void product(const emu_lt_desc &d, const emu_lt_layout &la, const void *A, const emu_lt_layout &lb,
             const void *B, const emu_lt_layout &lc, void *C, int item, bool split, float alpha) {
    int64_t m = lc.rows, n = lc.cols, k = d.transpose[0] ? la.rows : la.cols;
    std::vector<float> a = dense(A, la, item, !d.transpose[0]); /* [k][m] */
    std::vector<float> b = dense(B, lb, item, !d.transpose[1]); /* [n][k] */
    std::vector<float> sum((size_t)m), half((size_t)m);
    char *c = (char *)C + (size_t)(item * lc.stride) * size_of(lc.type);
    for (int64_t j = 0; j < n; j++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        std::fill(half.begin(), half.end(), 0.0f);
        int64_t middle = split ? k / 2 : k;
        add_column(sum.data(), a.data(), b.data() + j * k, m, 0, middle);
        add_column(half.data(), a.data(), b.data() + j * k, m, middle, k);
        for (int64_t i = 0; i < m; i++) {
            float v = alpha * (sum[(size_t)i] + half[(size_t)i]);
            if (d.epilogue & BIAS)
                v += value(d.bias, lc.type, i);
            if (d.epilogue & AUX)
                store(d.aux, lc.type, j * d.aux_ld + i, v);
            store(c, lc.type, j * lc.ld + i, d.epilogue & GELU ? gelu(v) : v);
        }
    }
}

} // namespace

size_t cublasLtGetVersion() {
    return 130000;
}

const char *cublasLtGetStatusString(cublasStatus_t s) {
    return s == CUBLAS_STATUS_SUCCESS         ? "success"
           : s == CUBLAS_STATUS_INVALID_VALUE ? "invalid value"
           : s == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported"
                                              : "internal error";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = new emu_lt_handle{1};
    handles++;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    if (!h || h->live != 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    delete h;
    if (--handles > 0 || parts == 0)
        return CUBLAS_STATUS_SUCCESS;
    fprintf(stderr, "emulator: %d cublasLt descriptors outlive their handle\n", parts);
    return CUBLAS_STATUS_INTERNAL_ERROR;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) ||
        scale != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    *d = counted(new emu_lt_desc);
    (*d)->compute = compute;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    return dropped(d);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t a, const void *value,
                                              size_t size) {
    static const uint32_t epilogues[] = {
        CUBLASLT_EPILOGUE_DEFAULT,   CUBLASLT_EPILOGUE_BIAS,     CUBLASLT_EPILOGUE_GELU,
        CUBLASLT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_AUX_BIAS};
    switch (a) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB: {
        int *t = &d->transpose[a == CUBLASLT_MATMUL_DESC_TRANSB];
        return status(take(t, value, size) && (*t == CUBLAS_OP_N || *t == CUBLAS_OP_T));
    }
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return status(take(&d->epilogue, value, size) &&
                      std::count(std::begin(epilogues), std::end(epilogues), d->epilogue) == 1);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return status(take(&d->bias, value, size));
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return status(take(&d->aux, value, size));
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return status(take(&d->aux_ld, value, size));
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    if ((type != CUDA_R_32F && type != CUDA_R_16BF) || rows == 0 || cols == 0 || ld < (int64_t)rows)
        return CUBLAS_STATUS_INVALID_VALUE;
    *l = counted(new emu_lt_layout{type, (int64_t)rows, (int64_t)cols, ld});
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    return dropped(l);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l,
                                                cublasLtMatrixLayoutAttribute_t a,
                                                const void *value, size_t size) {
    switch (a) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return status(take(&l->batch, value, size) && l->batch > 0);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return status(take(&l->stride, value, size) && l->stride >= 0);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = counted(new emu_lt_preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    return dropped(p);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a,
                                                    const void *value, size_t size) {
    switch (a) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return status(take(&p->workspace, value, size));
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: /* what is not repeatable is not for us */
    {
        uint32_t scheme = 0;
        bool good = take(&scheme, value, size) && scheme == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
        p->reduction = good ? scheme : p->reduction;
        return status(good);
    }
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: {
        uint32_t n = 0;
        bool good = take(&n, value, size) && n > 0 && (n & (n - 1)) == 0;
        if (good)
            p->alignment[a - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = n;
        return status(good);
    }
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t p, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *got) {
    *got = 0;
    emu_lt_heuristics++;
    if (!h || h->live != 1 || wanted < 1 || p->reduction != CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t s = judge(*d, *a, *b, *out);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    uint32_t align = *std::min_element(p->alignment, p->alignment + 4);
    for (int id = 0; id < 2 && *got < wanted; id++) {
        cublasLtMatmulHeuristicResult_t r = {};
        r.algo = algorithm(id, align);
        r.workspaceSize = id ? SPLIT_WORKSPACE : 0;
        if (r.workspaceSize <= p->workspace && c->type == out->type)
            results[(*got)++] = r;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t d,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t out,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result) {
    if (!h || !known(*algo))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    result->workspaceSize = algo->data[1] ? SPLIT_WORKSPACE : 0;
    return result->state = judge(*d, *a, *b, *out);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha,
                              const void *A, cublasLtMatrixLayout_t a, const void *B,
                              cublasLtMatrixLayout_t b, const void *beta, const void *C,
                              cublasLtMatrixLayout_t, void *D, cublasLtMatrixLayout_t out,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_size, cudaStream_t stream) {
    float scale = *(const float *)alpha;
    if (!h || h->live != 1 || !known(*algo) || *(const float *)beta != 0.0f || C != D)
        return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t s = judge(*d, *a, *b, *out);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    uintptr_t bits = (uintptr_t)A | (uintptr_t)B | (uintptr_t)D;
    bool split = algo->data[1] != 0;
    if (bits % algo->data[2] != 0 || (split && workspace_size < SPLIT_WORKSPACE) ||
        !emu::on_device_memory(A, (size_t)extent(*a) * size_of(a->type)) ||
        !emu::on_device_memory(B, (size_t)extent(*b) * size_of(b->type)) ||
        !emu::on_device_memory(D, (size_t)extent(*out) * size_of(out->type)) ||
        (split && !emu::on_device_memory(workspace, SPLIT_WORKSPACE)) ||
        ((d->epilogue & BIAS) &&
         !emu::on_device_memory(d->bias, (size_t)out->rows * size_of(out->type))) ||
        ((d->epilogue & AUX) &&
         !emu::on_device_memory(d->aux, (size_t)((out->cols - 1) * d->aux_ld + out->rows) *
                                            size_of(out->type))))
        return CUBLAS_STATUS_INVALID_VALUE;
    emu_lt_desc desc = *d;
    emu_lt_layout la = *a, lb = *b, lc = *out;
    emu_lt_epilogue = (int)desc.epilogue;
    int time = emu_lt_time[split] + (desc.epilogue & GELU ? emu_lt_gelu_time : 0);
    auto work = [=] {
        if (split)
            memset(workspace, 0xff, SPLIT_WORKSPACE);
        for (int item = 0; item < lc.batch; item++)
            product(desc, la, A, lb, B, lc, D, item, split, scale);
    };
    return status(emu::add_work(stream, work, time));
}

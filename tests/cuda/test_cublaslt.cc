/* The stand-in for cublasLt on trial: products and what follows them are right, come when the
 * stream does, and what the library would refuse is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#include "cublasLt.h"

static cudaStream_t stream;
static cublasLtHandle_t handle;
static float *device; /* a [2,3] | b [3,8] | c [2,8] | bias [8] | aux [2,8], each 32 floats on */
enum { A = 0, B = 32, C = 64, BIAS = 96, AUX = 128, END = 160 };
static float host[END];

/* c[2,8] = a[2,3] b[3,8] of row-major floats: c^T = b^T a^T. */
struct product {
    cublasLtMatmulDesc_t d;
    cublasLtMatrixLayout_t b, a, c;
    cublasLtMatmulPreference_t p;
    cublasLtMatmulHeuristicResult_t list[4];
    int count;
};

template <class T>
static cublasStatus_t set(product &m, cublasLtMatmulDescAttributes_t a, const T &v) {
    return cublasLtMatmulDescSetAttribute(m.d, a, &v, sizeof v);
}

static product make(uint32_t epilogue) {
    product m = {};
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, align = 16;
    uint64_t workspace = 4096;
    assert_false(cublasLtMatmulDescCreate(&m.d, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    assert_false(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
    assert_false(set(m, CUBLASLT_MATMUL_DESC_BIAS_POINTER, device + BIAS));
    assert_false(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, device + AUX));
    assert_false(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, (int64_t)8));
    assert_false(cublasLtMatrixLayoutCreate(&m.b, CUDA_R_32F, 8, 3, 8));
    assert_false(cublasLtMatrixLayoutCreate(&m.a, CUDA_R_32F, 3, 2, 3));
    assert_false(cublasLtMatrixLayoutCreate(&m.c, CUDA_R_32F, 8, 2, 8));
    assert_false(cublasLtMatmulPreferenceCreate(&m.p));
    assert_false(cublasLtMatmulPreferenceSetAttribute(m.p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &workspace, sizeof workspace));
    assert_false(cublasLtMatmulPreferenceSetAttribute(
        m.p, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction));
    for (int i = 0; i < 4; i++)
        assert_false(cublasLtMatmulPreferenceSetAttribute(
            m.p,
            (cublasLtMatmulPreferenceAttributes_t)(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES + i),
            &align, sizeof align));
    return m;
}

static cublasStatus_t propose(product &m) {
    return cublasLtMatmulAlgoGetHeuristic(handle, m.d, m.b, m.a, m.c, m.c, m.p, 4, m.list,
                                          &m.count);
}

static cublasStatus_t launch(product &m, int way, size_t workspace) {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, m.d, &one, device + B, m.b, device + A, m.a, &zero, device + C,
                          m.c, device + C, m.c, &m.list[way].algo, device + END, workspace, stream);
}

static void drop(product &m) {
    cublasLtMatmulDescDestroy(m.d);
    cublasLtMatrixLayoutDestroy(m.a);
    cublasLtMatrixLayoutDestroy(m.b);
    cublasLtMatrixLayoutDestroy(m.c);
    cublasLtMatmulPreferenceDestroy(m.p);
}

static int load() {
    for (int i = 0; i < END; i++)
        host[i] = (float)(i % 5) - 1.5f;
    return cudaMemcpyAsync(device, host, sizeof host, cudaMemcpyHostToDevice, stream) ||
           cudaStreamSynchronize(stream);
}

static int setup(void **) {
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) ||
           cudaMalloc((void **)&device, sizeof host + 4096) || cublasLtCreate(&handle);
}

static int teardown(void **) {
    return cublasLtDestroy(handle) || cudaFree(device) || cudaStreamDestroy(stream);
}

static void results(void **) {
    const uint32_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_BIAS,
                                  CUBLASLT_EPILOGUE_GELU_AUX_BIAS};
    for (uint32_t e : epilogues)
        for (int way = 0; way < 2; way++) {
            product m = make(e);
            float got[END];
            assert_false(load());
            assert_false(propose(m));
            assert_int_equal(m.count, 2);
            assert_false(launch(m, way, 4096));
            assert_true(device[C] == host[C]); /* not yet */
            assert_false(cudaMemcpyAsync(got, device, sizeof got, cudaMemcpyDeviceToHost, stream));
            for (int i = 0; i < 16; i++) {
                double v = e == CUBLASLT_EPILOGUE_DEFAULT ? 0 : host[BIAS + i % 8];
                for (int k = 0; k < 3; k++)
                    v += host[A + i / 8 * 3 + k] * host[B + k * 8 + i % 8];
                double y = 0.5 * v * (1 + tanh(0.7978845608 * (v + 0.044715 * v * v * v)));
                bool gelu = e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
                assert_true(fabs(got[C + i] - (gelu ? y : v)) < 1e-5);
                assert_true(!gelu || fabs(got[AUX + i] - v) < 1e-5);
            }
            drop(m);
        }
}

static void refusals(void **) {
    product m = make(CUBLASLT_EPILOGUE_GELU_AUX);
    uint32_t scheme = 1, odd = 24;
    assert_int_equal(set(m, (cublasLtMatmulDescAttributes_t)9, 0), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(set(m, CUBLASLT_MATMUL_DESC_TRANSA, 7), CUBLAS_STATUS_INVALID_VALUE);
    assert_false(set(m, CUBLASLT_MATMUL_DESC_TRANSA, (int32_t)CUBLAS_OP_N));
    assert_int_equal(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, 8), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatmulPreferenceSetAttribute(
                         m.p, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &scheme, sizeof scheme),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatmulPreferenceSetAttribute(
                         m.p, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &odd, sizeof odd),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_false(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, (int64_t)9));
    assert_int_equal(propose(m), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_false(set(m, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, (int64_t)8));
    assert_false(propose(m));
    assert_int_equal(launch(m, 1, 8), CUBLAS_STATUS_INVALID_VALUE); /* workspace */
    device++;                                                       /* alignment */
    assert_int_equal(launch(m, 0, 4096), CUBLAS_STATUS_INVALID_VALUE);
    device--;
    device += 1 << 20; /* memory of nobody */
    assert_int_equal(launch(m, 0, 4096), CUBLAS_STATUS_INVALID_VALUE);
    device -= 1 << 20;
    m.list[0].algo.data[0]++;
    assert_int_equal(launch(m, 0, 4096), CUBLAS_STATUS_INVALID_VALUE);
    cublasLtMatrixLayoutDestroy(m.a);
    assert_false(cublasLtMatrixLayoutCreate(&m.a, CUDA_R_32F, 3, 4, 3));
    assert_int_equal(propose(m), CUBLAS_STATUS_INVALID_VALUE);
    drop(m);
}

static void leaks(void **) {
    product m = make(CUBLASLT_EPILOGUE_DEFAULT);
    assert_int_equal(cublasLtDestroy(handle), CUBLAS_STATUS_INTERNAL_ERROR);
    drop(m);
    assert_false(cublasLtCreate(&handle));
}

/* The status of a process that ends and leaves a handle's descriptor, or destroys all. */
static int ends(bool forgets) {
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        cublasLtMatrixLayout_t l;
        if (cublasLtCreate(&handle) || cublasLtMatrixLayoutCreate(&l, CUDA_R_32F, 8, 3, 8) ||
            (!forgets && cublasLtMatrixLayoutDestroy(l)))
            _exit(1);
        cublasLtDestroy(handle); /* whoever closes it looks at no status */
        exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void leaks_at_the_end(void **) {
    assert_int_equal(ends(false), 0);
    assert_int_equal(ends(true), 99);
}

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(results, setup, teardown),
                                cmocka_unit_test_setup_teardown(refusals, setup, teardown),
                                cmocka_unit_test_setup_teardown(leaks, setup, teardown),
                                cmocka_unit_test(leaks_at_the_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

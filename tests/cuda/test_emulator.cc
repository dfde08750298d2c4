/* The emulator is itself on trial: what goes wrong only sometimes on a GPU (a missing barrier, a
 * race, a barrier that not all reach, a write beyond a block, a copy not waited for) must come out
 * here. Each fault stands beside the same kernel without it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#include "backend/cuda/kernel.h"

enum { N = 256 };

static cudaStream_t stream;
static float *x, *y;
static float host[N];

/* y[0] = sum of x[256] through shared memory, with or without the barriers it needs */
template <bool GOOD> __global__ void block_total(const float *a, float *out) {
    SHARED(float, s, N);
    s[threadIdx.x] = a[threadIdx.x];
    if (GOOD)
        __syncthreads();
    for (unsigned half = N / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            s[threadIdx.x] += s[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *out = s[0];
}

/* y[i] = x[i] + x[i+1]; the faulty one reads y while its neighbours write it */
template <bool GOOD> __global__ void neighbours(const float *a, float *out) {
    unsigned i = threadIdx.x;
    out[i] = a[i];
    __syncthreads();
    float next = i + 1 < N ? out[i + 1] : 0.0f;
    if (GOOD)
        __syncthreads();
    out[i] += next;
}

/* Lanes give to each other without the barrier that separates writing from reading. */
template <bool GOOD> __global__ void through_warp(const float *a, float *out) {
    SHARED(float, s, N);
    s[threadIdx.x] = a[threadIdx.x];
    if (GOOD)
        __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 1];
}

/* Warps give to each other; waiting for the own one is not enough. */
template <bool GOOD> __global__ void across_warps(const float *a, float *out) {
    SHARED(float, s, N);
    s[threadIdx.x] = a[threadIdx.x];
    if (GOOD)
        __syncthreads();
    else
        __syncwarp();
    out[threadIdx.x] = s[threadIdx.x ^ 33];
}

template <bool GOOD> __global__ void some_wait(float *out) {
    if (GOOD || threadIdx.x < N / 2)
        __syncthreads();
    else
        __syncwarp();
    for (int k = 0; k < 2; k++)
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}

__global__ void two_places(float *out) {
    if (threadIdx.x % 2)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}

__global__ void lanes(float *out) {
    float v = (float)threadIdx.x, sum = warp_sum(v);
    unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x % 2);
    float up = __shfl_up_sync(0xffffffffu, v, 1), down = __shfl_down_sync(0xffffffffu, v, 1);
    float base = (float)(threadIdx.x / 32 * 32), lane = (float)(threadIdx.x % 32);
    bool good = sum == 32 * base + 496 && odd == 0xaaaaaaaau && up == (lane > 0 ? v - 1 : v) &&
                down == (lane < 31 ? v + 1 : v) && warp_max(v) == base + 31;
    out[threadIdx.x] = good ? 1.0f : 0.0f;
}

__global__ void fill(float *out, int n, float v) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        out[i] = v;
}

static int open_group(void **) {
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) ||
           cudaMalloc((void **)&x, sizeof host) || cudaMalloc((void **)&y, sizeof host);
}

static int close_group(void **) {
    return cudaFree(x) || cudaFree(y) || cudaStreamDestroy(stream);
}

static void load() {
    for (int i = 0; i < N; i++)
        host[i] = (float)(i % 7);
    assert_int_equal(cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, stream),
                     cudaSuccess);
}

static void read_back() {
    assert_int_equal(cudaMemcpyAsync(host, y, sizeof host, cudaMemcpyDeviceToHost, stream),
                     cudaSuccess);
}

/* How many of `tries` launches give other results than `want` says. */
template <class L, class W> static int wrong(int tries, L launch, W want) {
    int bad = 0;
    for (int t = 0; t < tries; t++) {
        load();
        launch();
        read_back();
        for (int i = 0; i < N; i++)
            if (!want(i)) {
                bad++;
                break;
            }
    }
    return bad;
}

static bool total_right(int i) {
    return i > 0 || host[0] == 36 * 21 + 0 + 1 + 2 + 3;
}
static bool sums_right(int i) {
    return host[i] == (float)(i % 7 + (i + 1 < N ? (i + 1) % 7 : 0));
}
static bool crossed_right(int i) {
    return host[i] == (float)((i ^ 33) % 7);
}
static bool swapped_right(int i) {
    return host[i] == (float)((i ^ 1) % 7);
}

static void missing_barriers(void **) {
    auto total = [](auto k) { LAUNCH(k, 1, N, 0, stream, x, y); };
    assert_int_equal(wrong(
                         20, [&] { total(block_total<true>); }, total_right),
                     0);
    assert_int_equal(wrong(
                         20, [&] { total(block_total<false>); }, total_right),
                     20);
    assert_int_equal(wrong(
                         20, [&] { total(neighbours<true>); }, sums_right),
                     0);
    assert_int_equal(wrong(
                         20, [&] { total(neighbours<false>); }, sums_right),
                     20);
    assert_int_equal(wrong(
                         20, [&] { total(through_warp<true>); }, swapped_right),
                     0);
    assert_int_equal(wrong(
                         20, [&] { total(through_warp<false>); }, swapped_right),
                     20);
    assert_int_equal(wrong(
                         20, [&] { total(across_warps<true>); }, crossed_right),
                     0);
    assert_int_equal(wrong(
                         20, [&] { total(across_warps<false>); }, crossed_right),
                     20);
}

static void warp_calls(void **) {
    LAUNCH(lanes, 1, N, 0, stream, y);
    read_back();
    for (int i = 0; i < N; i++)
        assert_true(host[i] == 1.0f);
}

/* Nothing is done before it is waited for, and streams need events between them. */
static void streams_and_events(void **) {
    cudaStream_t other;
    cudaEvent_t made;
    float *pinned;
    int early = 0;
    assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaHostAlloc((void **)&pinned, sizeof host, cudaHostAllocMapped),
                     cudaSuccess);
    for (int wait = 0; wait < 2; wait++)
        for (int t = 0; t < 20; t++) {
            pinned[0] = -1;
            LAUNCH(fill, 1, 32, 0, stream, y, N, (float)t);
            cudaEventRecord(made, stream);
            if (wait)
                cudaStreamWaitEvent(other, made);
            cudaMemcpyAsync(pinned, y, sizeof host, cudaMemcpyDeviceToHost, other);
            assert_true(pinned[0] == -1.0f);
            cudaStreamSynchronize(other);
            early += pinned[0] != (float)t;
            assert_true(!wait || pinned[0] == (float)t);
            cudaStreamSynchronize(stream);
        }
    assert_true(early > 0); /* of those that did not wait */
    assert_int_equal(cudaFreeHost(pinned), cudaSuccess);
    assert_int_equal(cudaEventDestroy(made), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(other), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(other), cudaErrorInvalidResourceHandle);
    cudaGetLastError();
}

static void wrong_calls(void **) {
    static const struct {
        dim3 grid, block;
    } shapes[] = {{0, 32}, {{1, 0}, 32}, {0x80000000u, 32}, {{1, 65536}, 32}, {{1, 1, 65536}, 32},
                  {1, 0},  {1, 1025},    {1, {32, 33}},     {1, {1, 1, 65}}};
    for (const auto &s : shapes) {
        LAUNCH(fill, s.grid, s.block, 0, stream, y, N, 0.0f);
        assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    }
    LAUNCH(fill, 1, 32, 64 * 1024, stream, y, N, 0.0f);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536),
                     cudaSuccess);
    LAUNCH(fill, 1, 32, 64 * 1024, stream, y, N, 0.0f);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(host, x, 4, cudaMemcpyHostToDevice, stream),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpyAsync(y, x, 4 * N + 4, cudaMemcpyDeviceToDevice, stream),
                     cudaErrorInvalidValue);
    assert_int_equal(cudaFree(host), cudaErrorInvalidValue);
    cudaGetLastError();
}

/* Declared and dynamic shared memory, each of which would be allowed. */
__global__ void much_shared(float *out) {
    SHARED(float, declared, 8 * 1024 + 4);
    DYNAMIC_SHARED(float, dynamic);
    declared[threadIdx.x] = dynamic[threadIdx.x] = 1.0f;
    out[threadIdx.x] = declared[threadIdx.x];
}

/* Last: what breaks a device stays broken. */
static void broken_for_good(void **) {
    if (const char *which = getenv("EMULATOR_FAULT")) { /* in the child */
        float *block;
        cudaMalloc((void **)&block, 64);
        if (*which == 'l')
            cudaMalloc((void **)&block, 64);
        else if (*which == 'd')
            LAUNCH(some_wait<false>, 1, N, 0, stream, y);
        else if (*which == 's')
            LAUNCH(much_shared, 1, 32, 16 * 1024, stream, y);
        else if (*which == 'p')
            LAUNCH(two_places, 1, N, 0, stream, y);
        else
            LAUNCH(fill, 1, 32, 0, stream, block, 17, 1.0f);
        cudaError_t e = cudaStreamSynchronize(stream);
        e = e ? e : cudaFree(block);
        printf("%s\n", cudaGetErrorString(e));
        fflush(stdout);
        if (*which == 'l')
            exit(0); /* with what was made here forgotten */
        _exit(e == cudaErrorLaunchFailure && cudaGetLastError() == e ? 7 : 1);
    }
    static const struct {
        const char *which, *says;
        int code;
    } faults[] = {
        {"l", "not freed at the end: 3 blocks, 1 streams, 0 events, 0 graphs", 99},
        {"d", "kernel 'some_wait<false>': divergent barrier", 7},
        {"s", "kernel 'much_shared' has 49168 bytes of shared memory, 49152 allowed", 134},
        {"p", "kernel 'two_places': divergent barrier", 7},
        {"beyond", "a kernel wrote beyond a block of 64 bytes", 7}};
    LAUNCH(some_wait<true>, 1, N, 0, stream, y);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    for (auto &f : faults) {
        char text[512] = "", command[256];
        snprintf(command, sizeof command, "EMULATOR_FAULT=%s /proc/%d/exe 2>&1; exit $?", f.which,
                 (int)getpid());
        FILE *p = popen(command, "r");
        assert_non_null(p);
        size_t n = fread(text, 1, sizeof text - 1, p);
        text[n] = 0;
        int status = pclose(p);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == f.code);
        if (!strstr(text, f.says))
            fail_msg("%s does not say: %s", text, f.says);
    }
}

__global__ void twice(const float *a, float *out) {
    out[threadIdx.x] = 2 * a[threadIdx.x];
}

/* What is captured is done by a launch of the graph, each time anew. */
static void captures(void **) {
    cudaGraph_t g;
    cudaGraphExec_t e;
    float back[N];
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    LAUNCH(twice, 1, N, 0, stream, x, y);
    assert_int_equal(cudaStreamEndCapture(stream, &g), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&e, g, 0), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(g), cudaSuccess);
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < N; i++)
            host[i] = (float)(i * round);
        cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, stream);
        cudaMemsetAsync(y, 0, sizeof host, stream);
        cudaMemcpyAsync(back, y, sizeof back, cudaMemcpyDeviceToHost, stream);
        assert_true(back[5] == 0);
        assert_int_equal(cudaGraphLaunch(e, stream), cudaSuccess);
        cudaMemcpyAsync(back, y, sizeof back, cudaMemcpyDeviceToHost, stream);
        for (int i = 0; i < N; i++)
            assert_true(back[i] == 2.0f * (float)(i * round));
    }
    assert_int_equal(cudaGraphExecDestroy(e), cudaSuccess);
}

/* Each of these is refused in a capture, which then comes to nothing; outside of it they go. */
static void forbidden_in_captures(void **) {
    void *p = NULL, *q = NULL;
    cudaEvent_t event;
    cudaGraph_t g;
    cudaGraphExec_t other;
    cudaStream_t second;
    assert_int_equal(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_int_equal(cudaStreamEndCapture(stream, &g), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&other, g, 0), cudaSuccess);
    cudaGraphDestroy(g);
    assert_int_equal(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaEventRecord(event, stream), cudaSuccess);
    assert_int_equal(cudaMalloc(&q, 64), cudaSuccess);
    const std::function<cudaError_t()> calls[] = {
        [&] { return cudaMalloc(&p, 64); },
        [&] { return cudaHostAlloc(&p, 64, 0); },
        [&] { return cudaFree(q); },
        [&] { return cudaStreamSynchronize(stream); },
        [&] { return cudaEventSynchronize(event); },
        [&] { return cudaEventQuery(event); },
        [&] { return cudaStreamWaitEvent(stream, event); },
        [&] { return cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, stream); },
        [&] { return cudaMemcpyAsync(host, x, sizeof host, cudaMemcpyDeviceToHost, stream); },
        [&] { return cudaEventRecord(event, stream); },
        [&] { return cudaStreamDestroy(second); },
        [&] { return cudaGraphLaunch(other, second); },
        [&] { return cudaGraphExecDestroy(other); },
        [&] { return cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal); },
    };
    for (const auto &call : calls) {
        bool nested = &call == std::end(calls) - 1;
        assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                         cudaSuccess);
        LAUNCH(twice, 1, N, 0, stream, x, y);
        assert_true(call() != cudaSuccess);
        assert_null(p);
        assert_int_equal(cudaStreamEndCapture(stream, &g),
                         nested ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
        assert_true(nested == (g != NULL));
        cudaGraphDestroy(g);
        cudaGetLastError();
    }
    assert_int_equal(cudaFree(q), cudaSuccess);
    assert_int_equal(cudaGraphExecDestroy(other), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(second), cudaSuccess);
    assert_int_equal(cudaEventDestroy(event), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
}

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(missing_barriers),   cmocka_unit_test(warp_calls),
        cmocka_unit_test(streams_and_events), cmocka_unit_test(wrong_calls),
        cmocka_unit_test(captures),           cmocka_unit_test(forbidden_in_captures),
        cmocka_unit_test(broken_for_good)};
    const CMUnitTest one[] = {cmocka_unit_test(broken_for_good)};
    return getenv("EMULATOR_FAULT") ? cmocka_run_group_tests(one, open_group, close_group)
                                    : cmocka_run_group_tests(tests, open_group, close_group);
}

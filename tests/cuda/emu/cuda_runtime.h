/* Stand-in for CUDA's header: kernels of engine/backend/cuda compile as plain C++ against it and
 * run on the CPU. Only what those sources use. The other half is emu.cc (threads of a block as
 * fibers) and runtime.cc (memory, streams, events). */
#ifndef EMU_CUDA_RUNTIME_H
#define EMU_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>

#ifndef MIMIC_EMULATED
#define MIMIC_EMULATED 1
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};
struct uint3 {
    unsigned x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

/* Of the thread that runs now. */
extern dim3 threadIdx, blockIdx, blockDim, gridDim;
enum { warpSize = 32 };

/* --- host calls (runtime.cc) --- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureIsolation = 905
};
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocMapped = 2 };
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph_exec *cudaGraphExec_t;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
    size_t sharedMemPerBlockOptin;
};

struct cudaFuncAttributes {
    int numRegs;
};
template <class F> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, F *) {
    a->numRegs = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char *cudaGetErrorString(cudaError_t e);

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind k, cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch,
                              size_t width, size_t height, cudaMemcpyKind k, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int byte, size_t n, cudaStream_t s);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b);

/* Between begin and end work on the stream goes into a graph. What waits or touches memory is
 * refused then, and so are copies from or to pageable memory; the capture is invalid after it. */
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e);
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s);

cudaError_t emu_func_attribute(const void *kernel, cudaFuncAttribute a, int value);
template <class F> cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute a, int value) {
    return emu_func_attribute((const void *)kernel, a, value);
}

/* --- threads of a block (emu.cc) --- */

namespace emu {

/* One launch, its arguments bound. */
struct kernel {
    const char *name;
    const void *function;
    dim3 grid, block;
    size_t shared;
    std::function<void()> body;
    size_t most; /* bytes of shared memory, dynamic and declared; set by enqueue */
};
void enqueue(cudaStream_t s, kernel k);
/* A part of a device block is used for `wanted` of its bytes: NaN is written into them, a pattern
 * behind them, which must be whole when it is given back; all in the order of the stream. */
void taken(cudaStream_t s, void *p, size_t wanted, size_t bytes);
void given(cudaStream_t s, void *p, size_t bytes);
/* For stand-ins of libraries: work of their own on a stream (false: it is none), which takes `time`
 * by the clock of events (a kernel takes 1), and whether all n bytes from p are device memory. */
bool add_work(cudaStream_t s, std::function<void()> f, int time = 1);
bool on_device_memory(const void *p, size_t n);
/* Runs all blocks, in random order, threads in random order; false and a text in *why when threads
 * wait for each other for ever. */
bool run(const kernel &k, const char **why);

/* Waits for the block (every thread that has not ended), or for the lanes of the mask; `site` tells
 * barriers apart. */
void sync_block(int site);
void sync_warp(unsigned mask, int site);
/* What lane `lane` gave to this exchange. */
void exchange(unsigned mask, const void *give, void *take, size_t size, int lane);
int lane();
unsigned ballot(unsigned mask, bool on);
/* Shared memory of the block for a declaration; the same for all its threads, filled with NaN when
 * the block starts. */
void *shared(const void *site, size_t bytes);
void *dynamic_shared();

template <class T> T shuffle(unsigned mask, T v, int from) {
    T r;
    exchange(mask, &v, &r, sizeof v, from);
    return r;
}

template <class... P, class... A>
void launch(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t s,
            void (*function)(P...), A... args) {
    std::tuple<P...> bound(static_cast<P>(args)...);
    enqueue(s, kernel{name, (const void *)function, grid, block, shared,
                      [=] { std::apply(function, bound); }, 0});
}

} // namespace emu

#define __syncthreads() emu::sync_block(__LINE__)
#define __syncwarp(...) emu::sync_warp(emu::mask_or_all(__VA_ARGS__), __LINE__)
namespace emu {
inline unsigned mask_or_all(unsigned mask = ~0u) {
    return mask;
}
} // namespace emu

template <class T> T __shfl_sync(unsigned mask, T v, int from) {
    return emu::shuffle(mask, v, from & 31);
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int with) {
    return emu::shuffle(mask, v, emu::lane() ^ with);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, int by) {
    int from = emu::lane() + by;
    return emu::shuffle(mask, v, from < 32 ? from : emu::lane());
}
template <class T> T __shfl_up_sync(unsigned mask, T v, int by) {
    int from = emu::lane() - by;
    return emu::shuffle(mask, v, from >= 0 ? from : emu::lane());
}
inline unsigned __ballot_sync(unsigned mask, bool on) {
    return emu::ballot(mask, on);
}
inline bool __any_sync(unsigned mask, bool on) {
    return emu::ballot(mask, on) != 0;
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}

/* Integers only: blocks run one after another. */
template <class T> T atomicMin(T *p, T v) {
    T old = *p;
    *p = v < old ? v : old;
    return old;
}
inline unsigned atomicInc(unsigned *p, unsigned most) {
    unsigned old = *p;
    *p = old >= most ? 0 : old + 1;
    return old;
}
inline int atomicCAS(int *p, int expected, int v) {
    int old = *p;
    if (old == expected)
        *p = v;
    return old;
}

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline float __expf(float x) {
    return expf(x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
inline unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}
inline float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

#endif

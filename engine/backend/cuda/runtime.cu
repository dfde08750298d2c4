/* Life of the device, its memory and copies. One stream does everything in order; only downloads
 * and sync wait for it. */
#include "backend/cuda/gemm.h"
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"

#include <stdio.h>
#include <stdlib.h>

mimic_status cuda_check(mimic_ctx *ctx, cudaError_t e, const char *what) {
    if (e == cudaSuccess)
        return MIMIC_OK;
    const mimic_host *host = state_of(ctx)->host;
    return host->fail(ctx, e == cudaErrorMemoryAllocation ? MIMIC_ENOMEM : MIMIC_ESTATE,
                      "cuda: %s: %s", what, cudaGetErrorString(e));
}

fault fault_of(mimic_call *c, const char *what, int64_t limit) {
    cuda_state *s = state_of(c->ctx);
    uint64_t ticket = s->faults++;
    s->notes[ticket % FAULTS] = fault_note{c->op->name, what, c->ctx->place, limit};
    return fault{s->fault_word, (unsigned long long)(ticket & 0xffff) << 48};
}

mimic_status check_fault(mimic_ctx *ctx) {
    cuda_state *s = state_of(ctx);
    unsigned long long word = *(volatile unsigned long long *)s->fault_word;
    if (word == ~0ull)
        return MIMIC_OK;
    *s->fault_word = ~0ull;
    const fault_note *n = &s->notes[(word >> 48) % FAULTS];
    const char *open = n->place ? " (" : "", *place = n->place ? n->place : "";
    const char *close = n->place ? ")" : "";
    long long at = (long long)(word & 0xffffffffffffull);
    if (n->limit == NO_LIMIT)
        return s->host->fail(ctx, MIMIC_EINVAL, "%s: %s (row %lld)%s%s%s", n->op, n->what, at, open,
                             place, close);
    return s->host->fail(ctx, MIMIC_EINVAL, "%s: %s at %lld is not in 0..%lld%s%s%s", n->op,
                         n->what, at, (long long)n->limit - 1, open, place, close);
}

/* Waits for the stream. */
static mimic_status wait(mimic_ctx *ctx, const char *what) {
    mimic_status st = cuda_check(ctx, cudaStreamSynchronize(state_of(ctx)->stream), what);
    return st ? st : check_fault(ctx);
}

mimic_status done(mimic_call *c) {
    mimic_status st = cuda_check(c->ctx, cudaGetLastError(), c->op->name);
    return !st && state_of(c->ctx)->sync ? wait(c->ctx, c->op->name) : st;
}

/* Asked for at open: is there code for this GPU in the module? */
__global__ void probe(int *) {
}

/* Fills in what the device is; false and the reason when there is none to use. */
static bool look(cuda_state *s, char *why, size_t size) {
    int n = 0, driver = 0;
    cudaDeviceProp p;
    cudaFuncAttributes code;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n == 0) {
        cudaDriverGetVersion(&driver);
        if (driver == 0)
            snprintf(why, size, "no NVIDIA driver on this machine");
        else
            snprintf(why, size, "no device: %s (driver for CUDA %d.%d)", cudaGetErrorString(e),
                     driver / 1000, driver % 1000 / 10);
        return false;
    }
    if ((e = cudaSetDevice(0)) == cudaSuccess &&
        (e = cudaGetDeviceProperties(&p, 0)) == cudaSuccess &&
        cudaFuncGetAttributes(&code, probe) != cudaSuccess) {
        snprintf(why, size, "the module has no code for %s (compute %d.%d): script/build cuda-all",
                 p.name, p.major, p.minor);
        return false;
    }
    if (e != cudaSuccess ||
        (e = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)) != cudaSuccess ||
        (e = cudaHostAlloc((void **)&s->fault_word, sizeof *s->fault_word, cudaHostAllocMapped)) !=
            cudaSuccess) {
        snprintf(why, size, "the device cannot be used: %s", cudaGetErrorString(e));
        return false;
    }
    snprintf(s->name, sizeof s->name, "%s", p.name);
    *s->fault_word = ~0ull;
    s->sms = p.multiProcessorCount;
    s->max_shared = p.sharedMemPerBlockOptin;
    s->memory = p.totalGlobalMem;
    s->major = p.major;
    s->minor = p.minor;
    return true;
}

mimic_status mimic_cuda_open_device(mimic_ctx *ctx, const mimic_host *host, char *why,
                                    size_t size) {
    cuda_state *s = (cuda_state *)calloc(1, sizeof *s);
    if (!s) {
        snprintf(why, size, "out of memory");
        return MIMIC_ENOMEM;
    }
    s->host = host;
    s->ctx = ctx;
    const char *sync = getenv("MIMIC_SYNC");
    s->sync = sync && strcmp(sync, "0") != 0;
    if (!look(s, why, size)) {
        free(s);
        return MIMIC_EUNSUPPORTED;
    }
    ctx->devices[MIMIC_CUDA].state = s;
    return MIMIC_OK;
}

void mimic_cuda_close(mimic_ctx *ctx) {
    cuda_state *s = state_of(ctx);
    cudaStreamSynchronize(s->stream);
    mimic_cuda_transfer_close(ctx);
    cuda_gemm_close(ctx);
    cudaStreamDestroy(s->stream);
    cudaFreeHost(s->fault_word);
    free(s);
    ctx->devices[MIMIC_CUDA].state = NULL;
}

void mimic_cuda_about(mimic_ctx *ctx, char *buf, size_t size) {
    const cuda_state *s = state_of(ctx);
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    snprintf(buf, size, "%s, %.1f GiB, %d multiprocessors, compute %d.%d, CUDA %d.%d, driver %d.%d",
             s->name, (double)s->memory / (1 << 30), s->sms, s->major, s->minor, runtime / 1000,
             runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
}

void *mimic_cuda_alloc(mimic_ctx *ctx, size_t bytes) {
    void *p = NULL;
    (void)ctx;
    if (cudaMalloc(&p, bytes) == cudaSuccess)
        return p;
    cudaGetLastError(); /* being out of memory is reported by the pool */
    return NULL;
}

size_t mimic_cuda_room(mimic_ctx *ctx) {
    size_t available = 0, total = 0;
    (void)ctx;
    if (cudaMemGetInfo(&available, &total) == cudaSuccess)
        return available;
    cudaGetLastError();
    return 0;
}

void mimic_cuda_free(mimic_ctx *ctx, void *p) {
    (void)ctx;
    cudaFree(p);
}

mimic_status mimic_cuda_upload(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    cudaStream_t stream = state_of(ctx)->stream;
    if (bytes == 0)
        return MIMIC_OK;
    return cuda_check(ctx, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream),
                      "copy to the device");
}

mimic_status mimic_cuda_download(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    cudaStream_t stream = state_of(ctx)->stream;
    if (bytes == 0)
        return MIMIC_OK;
    mimic_status st =
        cuda_check(ctx, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, stream),
                   "copy from the device");
    return st ? st : wait(ctx, "copy from the device");
}

mimic_status mimic_cuda_copy(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    cudaStream_t stream = state_of(ctx)->stream;
    if (bytes == 0)
        return MIMIC_OK;
    return cuda_check(ctx, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, stream),
                      "copy on the device");
}

mimic_status mimic_cuda_clear(mimic_ctx *ctx, void *dst, size_t bytes) {
    if (bytes == 0)
        return MIMIC_OK;
    return cuda_check(ctx, cudaMemsetAsync(dst, 0, bytes, state_of(ctx)->stream), "clear");
}

mimic_status mimic_cuda_sync(mimic_ctx *ctx) {
    return wait(ctx, "sync");
}

#ifdef MIMIC_EMULATED
void mimic_cuda_taken(mimic_ctx *ctx, void *p, size_t wanted, size_t bytes) {
    emu::taken(state_of(ctx)->stream, p, wanted, bytes);
}

void mimic_cuda_given(mimic_ctx *ctx, void *p, size_t bytes) {
    emu::given(state_of(ctx)->stream, p, bytes);
}
#endif

/* Life of the device, its memory and copies. One stream does everything in order; only downloads
 * and sync wait for it. */
#include "backend/cuda/gemm.h"
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"

#include <stdio.h>
#include <stdlib.h>

/* "; in one of the 3 operators since the last wait: gelu (x.lua:7), ...", the newest last. An error
 * of a kernel shows in whatever call comes later. */
static void trail_text(const cuda_state *s, char *text, size_t size) {
    uint64_t open = s->launched - s->settled, shown = open < TRAIL ? open : (uint64_t)TRAIL;
    size_t used = 0;
    text[0] = 0;
    if (s->sync || open == 0)
        return;
    if (open == 1)
        used = (size_t)snprintf(text, size, "; during or after operator ");
    else
        used = (size_t)snprintf(text, size, "; in one of the %llu operators since the last wait%s",
                                (unsigned long long)open, open > shown ? ", the last: " : ": ");
    for (uint64_t i = s->launched - shown; i < s->launched && used < size; i++) {
        const char *place = s->trail[i % TRAIL].place;
        used += (size_t)snprintf(text + used, size - used, "%s%s%s%s%s", s->trail[i % TRAIL].op,
                                 place ? " (" : "", place ? place : "", place ? ")" : "",
                                 i + 1 < s->launched ? ", " : "");
    }
    if (used < size)
        snprintf(text + used, size - used, "; MIMIC_SYNC=1 names it exactly");
}

mimic_status cuda_check(mimic_ctx *ctx, cudaError_t e, const char *what) {
    char trail[1024] = "";
    if (e == cudaSuccess)
        return MIMIC_OK;
    const cuda_state *s = state_of(ctx);
    cudaGetLastError(); /* told here, and not by a later call again */
    if (e == cudaErrorMemoryAllocation)
        return s->host->fail(ctx, MIMIC_ENOMEM, "cuda: %s: %s", what, cudaGetErrorString(e));
    trail_text(s, trail, sizeof trail);
    return s->host->fail(ctx, MIMIC_ESTATE, "cuda: %s: %s%s", what, cudaGetErrorString(e), trail);
}

fault fault_of(mimic_call *c, const char *what, int64_t limit) {
    cuda_state *s = state_of(c->ctx);
    uint64_t ticket = s->recording ? s->recorded_faults++ : s->faults++;
    fault_note *notes = s->recording ? s->recorded : s->notes;
    notes[ticket % FAULTS] = fault_note{c->op->name, what, c->ctx->place, limit, ticket};
    ticket = ticket % RECORDED_TICKET + (s->recording ? RECORDED_TICKET : 0);
    return fault{s->fault_word, (unsigned long long)ticket << 48};
}

cudaError_t send_fault(mimic_ctx *ctx, letter *l) {
    cuda_state *s = state_of(ctx);
    l->life = s->fault_life;
    l->launched = s->launched;
    l->faults = s->faults;
    return cudaMemcpyAsync(&l->fault, s->fault_word, sizeof l->fault, cudaMemcpyDeviceToHost,
                           s->stream);
}

static cudaError_t clear_fault(cuda_state *s) {
    s->fault_life++;
    return cudaMemsetAsync(s->fault_word, 0xff, sizeof *s->fault_word, s->stream);
}

/* What the fault word says. Its operator is unknown when newer ones have taken its note, or when so
 * many, `open`, were not read of that tickets repeat. */
static mimic_status tell_fault(mimic_ctx *ctx, unsigned long long word, uint64_t open) {
    const cuda_state *s = state_of(ctx);
    bool recorded = (word >> 48 & RECORDED_TICKET) != 0;
    uint64_t ticket = word >> 48 & (RECORDED_TICKET - 1);
    const fault_note *notes = recorded ? s->recorded : s->notes;
    const fault_note *n = &notes[ticket % FAULTS];
    const char *before = n->place ? " (" : "", *place = n->place ? n->place : "";
    const char *close = n->place ? ")" : "";
    long long at = (long long)(word & 0xffffffffffffull);
    if (n->ticket % RECORDED_TICKET != ticket || (!recorded && open > RECORDED_TICKET))
        return s->host->fail(ctx, MIMIC_EINVAL,
                             "cuda: one of the %llu operators %s that look at labels and indices "
                             "found a wrong one at %lld; MIMIC_SYNC=1 names it exactly",
                             (unsigned long long)(recorded ? s->recorded_faults : open),
                             recorded ? "of recorded steps" : "since the last read", at);
    if (n->limit == NO_LIMIT)
        return s->host->fail(ctx, MIMIC_EINVAL, "%s: %s (row %lld)%s%s%s", n->op, n->what, at,
                             before, place, close);
    return s->host->fail(ctx, MIMIC_EINVAL, "%s: %s at %lld is not in 0..%lld%s%s%s", n->op,
                         n->what, at, (long long)n->limit - 1, before, place, close);
}

mimic_status read_fault(mimic_ctx *ctx, const letter *l) {
    cuda_state *s = state_of(ctx);
    unsigned long long word = l->fault;
    uint64_t open = l->faults > s->faults_settled ? l->faults - s->faults_settled : 0;
    s->faults_settled += open;
    s->settled = l->launched > s->settled ? l->launched : s->settled;
    if (word == ~0ull || l->life != s->fault_life) /* none, or one that was told already */
        return MIMIC_OK;
    mimic_status st = cuda_check(ctx, clear_fault(s), "fault word");
    return st ? st : tell_fault(ctx, word, open);
}

/* Waits for the stream. */
static mimic_status wait(mimic_ctx *ctx, const char *what) {
    cuda_state *s = state_of(ctx);
    if (s->recording)
        return cuda_refuse(ctx, "the host waits for the device");
    cudaError_t e = send_fault(ctx, s->fault_seen);
    mimic_status st = cuda_check(ctx, e ? e : cudaStreamSynchronize(s->stream), what);
    return st ? st : read_fault(ctx, s->fault_seen);
}

mimic_status cuda_done(mimic_ctx *ctx, const char *what) {
    cuda_state *s = state_of(ctx);
    cuda_note(s, what, ctx->place);
    mimic_status st = cuda_check(ctx, cudaGetLastError(), what);
    return !st && s->sync ? wait(ctx, what) : st;
}

mimic_status done(mimic_call *c) {
    return cuda_done(c->ctx, c->op->name);
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
        (e = cudaMalloc((void **)&s->fault_word, sizeof *s->fault_word)) != cudaSuccess ||
        (e = cudaHostAlloc((void **)&s->fault_seen, sizeof *s->fault_seen, 0)) != cudaSuccess ||
        (e = cudaMalloc((void **)&s->moved, sizeof *s->moved)) != cudaSuccess ||
        (e = clear_fault(s)) != cudaSuccess) {
        snprintf(why, size, "the device cannot be used: %s", cudaGetErrorString(e));
        return false;
    }
    snprintf(s->name, sizeof s->name, "%s", p.name);
    s->sms = p.multiProcessorCount;
    s->max_shared = p.sharedMemPerBlockOptin;
    s->memory = p.totalGlobalMem;
    s->major = p.major;
    s->minor = p.minor;
    return true;
}

/* Gives back what look took, and the state. */
static void leave(cuda_state *s) {
    if (s->stream)
        cudaStreamDestroy(s->stream);
    cudaFree(s->fault_word);
    cudaFree(s->moved);
    if (s->fault_seen)
        cudaFreeHost(s->fault_seen);
    free(s);
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
        leave(s);
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
    leave(s);
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

mimic_status mimic_cuda_alloc(mimic_ctx *ctx, size_t bytes, void **out) {
    *out = NULL;
    cudaError_t e = state_of(ctx)->recording ? cudaErrorMemoryAllocation : cudaMalloc(out, bytes);
    if (e != cudaErrorMemoryAllocation)
        return cuda_check(ctx, e, "memory");
    cudaGetLastError(); /* being out of memory is reported by the pool */
    return MIMIC_ENOMEM;
}

size_t mimic_cuda_room(mimic_ctx *ctx) {
    size_t available = 0, total = 0;
    (void)ctx;
    if (cudaMemGetInfo(&available, &total) == cudaSuccess)
        return available;
    cudaGetLastError();
    return 0;
}

static double mib(size_t bytes) {
    return (double)bytes / (1 << 20);
}

void mimic_cuda_beside(mimic_ctx *ctx, char *text, size_t size) {
    const cuda_state *s = state_of(ctx);
    size_t available = 0, total = 0, lanes = 0;
    for (const feeder::lane &l : s->feed.lanes)
        lanes += l.bytes;
    int n = snprintf(text, size, "; beside the tensors %.1f MiB for products, %.1f MiB for batches",
                     mib(cuda_gemm_workspace(ctx)), mib(lanes));
    if (cudaMemGetInfo(&available, &total) != cudaSuccess)
        cudaGetLastError();
    else if (n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, "; %.1f of the device's %.1f MiB are free",
                 mib(available), mib(total));
}

mimic_status cuda_take(mimic_ctx *ctx, void **p, size_t bytes, const char *what) {
    const mimic_host *host = state_of(ctx)->host;
    char beside[256];
    mimic_status st = mimic_cuda_alloc(ctx, bytes, p);
    if (st == MIMIC_ENOMEM) {
        host->trim(&ctx->devices[MIMIC_CUDA]);
        st = mimic_cuda_alloc(ctx, bytes, p);
    }
    if (st != MIMIC_ENOMEM)
        return st;
    mimic_cuda_beside(ctx, beside, sizeof beside);
    return host->fail(ctx, st, "cuda: %s: out of memory: %.1f MiB requested%s", what, mib(bytes),
                      beside);
}

void mimic_cuda_free(mimic_ctx *ctx, void *p) {
    (void)ctx;
    cudaFree(p);
}

/* What a step brings of its own (lists of the script, the optimiser's table) goes as arguments:
 * from pageable memory a copy may wait. */
mimic_status mimic_cuda_upload(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    cudaStream_t stream = state_of(ctx)->stream;
    if (bytes == 0)
        return MIMIC_OK;
    if (state_of(ctx)->recording || bytes <= MOST_LITERAL)
        return cuda_upload_literal(ctx, dst, src, bytes);
    return cuda_check(ctx, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, stream),
                      "copy to the device");
}

mimic_status mimic_cuda_download(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    cudaStream_t stream = state_of(ctx)->stream;
    if (bytes == 0)
        return MIMIC_OK;
    if (state_of(ctx)->recording)
        return cuda_refuse(ctx, "the host reads a value");
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

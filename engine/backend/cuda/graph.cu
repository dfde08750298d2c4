/* Work written down instead of done, and done again by one call: CUDA graphs. While a stretch is
 * recorded nothing may wait for the device or take memory from it; whoever tries is refused and the
 * recording comes to nothing. What a launch is given by value is the same in every replay; the
 * step of random numbers alone moves on (`moved`). */
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"

#include <stdio.h>

/* Bytes that travel as an argument of a kernel. */
struct literal {
    unsigned char at[2048];
};

/* dst[n] = the bytes */
__global__ void write_literal(unsigned char *dst, literal bytes, int n) {
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        dst[i] = bytes.at[i];
}

__global__ void write_word(uint64_t *dst, uint64_t value) {
    *dst = value;
}

mimic_status cuda_refuse(mimic_ctx *ctx, const char *what) {
    cuda_state *s = state_of(ctx);
    s->spoiled = true;
    return s->host->fail(ctx, MIMIC_ESTATE, "cuda: %s while a step is recorded", what);
}

mimic_status cuda_upload_literal(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    literal piece;
    if (bytes > MOST_LITERAL)
        return cuda_refuse(ctx, "more than 256 KiB come from the host");
    for (size_t at = 0; at < bytes; at += sizeof piece) {
        size_t n = bytes - at < sizeof piece ? bytes - at : sizeof piece;
        memcpy(piece.at, (const char *)src + at, n);
        LAUNCH(write_literal, 1, 256, 0, state_of(ctx)->stream, (unsigned char *)dst + at, piece,
               (int)n);
    }
    return cuda_check(ctx, cudaGetLastError(), "copy to the device");
}

const uint64_t *cuda_moved(const mimic_call *c, uint64_t step) {
    const cuda_state *s = state_of(c->ctx);
    bool own = step == (c->ctx->step & INT64_MAX); /* not one that the script gave */
    return s->recording && own ? s->moved : NULL;
}

mimic_status mimic_cuda_record(mimic_ctx *ctx) {
    cuda_state *s = state_of(ctx);
    if (s->sync)
        return s->host->fail(ctx, MIMIC_EUNSUPPORTED,
                             "cuda: with MIMIC_SYNC=1 nothing can be recorded");
    mimic_status st = cuda_check(
        ctx, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal), "recording");
    if (st)
        return st;
    s->recording = true;
    s->spoiled = false;
    return MIMIC_OK;
}

mimic_status mimic_cuda_recorded(mimic_ctx *ctx, bool keep, void **out) {
    cuda_state *s = state_of(ctx);
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    cudaError_t e = cudaStreamEndCapture(s->stream, &graph);
    s->recording = false;
    if (keep && e == cudaSuccess && !s->spoiled)
        e = cudaGraphInstantiate(&exec, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (!keep || s->spoiled) /* whatever was wrong was told already */
        cudaGetLastError();
    if (!keep)
        return MIMIC_OK;
    if (s->spoiled && exec == NULL)
        return s->host->fail(ctx, MIMIC_ESTATE,
                             "cuda: the recorded step did what cannot be recorded");
    *out = exec;
    return cuda_check(ctx, e, "recording");
}

mimic_status mimic_cuda_replay(mimic_ctx *ctx, void *graph, uint64_t moved) {
    cuda_state *s = state_of(ctx);
    LAUNCH(write_word, 1, 1, 0, s->stream, s->moved, moved);
    cudaError_t e = cudaGraphLaunch((cudaGraphExec_t)graph, s->stream);
    cuda_note(s, "the recorded step", NULL);
    return cuda_check(ctx, e, "the recorded step");
}

void mimic_cuda_forget(mimic_ctx *ctx, void *graph) {
    cuda_state *s = state_of(ctx);
    cudaStreamSynchronize(s->stream); /* it may be under way */
    cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

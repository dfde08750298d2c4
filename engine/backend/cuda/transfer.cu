/* Transfers that nobody waits for: values to the host through a pinned mail box, batches to the
 * device through two buffers and a stream of their own. */
#include "backend/cuda/kernel.h"
#include "backend/cuda/runtime.h"

static mimic_status open_mail(mimic_ctx *ctx) {
    mail_box *m = &state_of(ctx)->mail;
    if (m->slots)
        return MIMIC_OK;
    cudaError_t e = cudaHostAlloc((void **)&m->slots, MAIL * sizeof *m->slots, 0);
    for (int i = 0; i < MAIL && e == cudaSuccess; i++)
        e = cudaEventCreateWithFlags(&m->there[i], cudaEventDisableTiming);
    return cuda_check(ctx, e, "mail box");
}

mimic_status mimic_cuda_post(mimic_ctx *ctx, const void *src, size_t bytes, int *slot) {
    cuda_state *s = state_of(ctx);
    mail_box *m = &s->mail;
    if (s->recording)
        return cuda_refuse(ctx, "the host asks for a value");
    mimic_status st = open_mail(ctx);
    int i = 0;
    while (i < MAIL && m->busy >> i & 1)
        i++;
    if (!st && i == MAIL)
        st = s->host->fail(ctx, MIMIC_ESTATE, "cuda: %d values are on their way: read some", MAIL);
    if (st)
        return st;
    letter *l = &m->slots[i];
    cudaError_t e = cudaMemcpyAsync(&l->value, src, bytes, cudaMemcpyDeviceToHost, s->stream);
    if (e == cudaSuccess)
        e = send_fault(ctx, l);
    if (e == cudaSuccess)
        e = cudaEventRecord(m->there[i], s->stream);
    if (e == cudaSuccess) {
        m->busy |= 1ull << i;
        *slot = i;
    }
    return cuda_check(ctx, e, "value to the host");
}

mimic_status mimic_cuda_collect(mimic_ctx *ctx, int slot, void *dst) {
    mail_box *m = &state_of(ctx)->mail;
    if (state_of(ctx)->recording)
        return cuda_refuse(ctx, "the host waits for a value");
    m->busy &= ~(1ull << slot);
    mimic_status st = cuda_check(ctx, cudaEventSynchronize(m->there[slot]), "value to the host");
    memcpy(dst, &m->slots[slot].value, sizeof m->slots[slot].value);
    return st ? st : read_fault(ctx, &m->slots[slot]);
}

void *mimic_cuda_pin(mimic_ctx *ctx, size_t bytes) {
    void *p = NULL;
    cudaError_t e = cudaHostAlloc(&p, bytes, cudaHostAllocMapped);
    return cuda_check(ctx, e, "pinned memory") ? NULL : p;
}

void mimic_cuda_unpin(mimic_ctx *ctx, void *p) {
    (void)ctx;
    if (p)
        cudaFreeHost(p);
}

/* A lane with room for `bytes`; grows only when batches do. */
static mimic_status make_room(mimic_ctx *ctx, feeder::lane *l, size_t bytes) {
    feeder *f = &state_of(ctx)->feed;
    cudaError_t e = cudaSuccess;
    if (!f->stream)
        e = cudaStreamCreateWithFlags(&f->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess && !l->filled)
        e = cudaEventCreateWithFlags(&l->filled, cudaEventDisableTiming);
    if (e == cudaSuccess && !l->emptied)
        e = cudaEventCreateWithFlags(&l->emptied, cudaEventDisableTiming);
    if (e != cudaSuccess || l->bytes >= bytes)
        return cuda_check(ctx, e, "batch to the device");
    cudaFree(l->buffer); /* waits for what reads it */
    l->buffer = NULL;
    l->bytes = 0;
    mimic_status st = cuda_take(ctx, &l->buffer, bytes, "buffer for batches");
    l->bytes = st ? 0 : bytes;
    return st;
}

mimic_status mimic_cuda_feed(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    cuda_state *s = state_of(ctx);
    feeder *f = &s->feed;
    feeder::lane *l = &f->lanes[f->next];
    if (bytes == 0)
        return MIMIC_OK;
    if (s->recording)
        return cuda_refuse(ctx, "a batch is fed");
    mimic_status st = make_room(ctx, l, bytes);
    f->next = (f->next + 1) % LANES_IN;
    if (st)
        return st;
    cudaError_t e = cudaStreamWaitEvent(f->stream, l->emptied);
    if (e == cudaSuccess)
        e = cudaMemcpyAsync(l->buffer, src, bytes, cudaMemcpyHostToDevice, f->stream);
    if (e == cudaSuccess)
        e = cudaEventRecord(l->filled, f->stream);
    if (e == cudaSuccess)
        e = cudaStreamWaitEvent(s->stream, l->filled);
    if (e == cudaSuccess)
        e = cudaMemcpyAsync(dst, l->buffer, bytes, cudaMemcpyDeviceToDevice, s->stream);
    if (e == cudaSuccess)
        e = cudaEventRecord(l->emptied, s->stream);
    return cuda_check(ctx, e, "batch to the device");
}

mimic_status mimic_cuda_fed(mimic_ctx *ctx) {
    cudaStream_t stream = state_of(ctx)->feed.stream;
    return stream ? cuda_check(ctx, cudaStreamSynchronize(stream), "batch to the device")
                  : MIMIC_OK;
}

void mimic_cuda_transfer_close(mimic_ctx *ctx) {
    cuda_state *s = state_of(ctx);
    if (s->feed.stream)
        cudaStreamDestroy(s->feed.stream);
    for (feeder::lane &l : s->feed.lanes) {
        cudaFree(l.buffer);
        if (l.filled)
            cudaEventDestroy(l.filled);
        if (l.emptied)
            cudaEventDestroy(l.emptied);
    }
    for (cudaEvent_t e : s->mail.there)
        if (e)
            cudaEventDestroy(e);
    if (s->mail.slots)
        cudaFreeHost(s->mail.slots);
}

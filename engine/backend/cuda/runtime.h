/* The device's own calls of the backend (runtime.cu, transfer.cu) and the passes over flat arrays
 * (optim.cu). */
#ifndef MIMIC_CUDA_RUNTIME_H
#define MIMIC_CUDA_RUNTIME_H

#include "backend/cuda/module.h"

#ifdef __cplusplus
extern "C" {
#endif

mimic_status mimic_cuda_open_device(mimic_ctx *ctx, const mimic_host *host, char *why, size_t size);
void mimic_cuda_close(mimic_ctx *ctx);
void mimic_cuda_about(mimic_ctx *ctx, char *buf, size_t size);
mimic_status mimic_cuda_alloc(mimic_ctx *ctx, size_t bytes, void **out);
void mimic_cuda_free(mimic_ctx *ctx, void *p);
mimic_status mimic_cuda_upload(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
mimic_status mimic_cuda_download(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
mimic_status mimic_cuda_copy(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
mimic_status mimic_cuda_clear(mimic_ctx *ctx, void *dst, size_t bytes);
mimic_status mimic_cuda_sync(mimic_ctx *ctx);
/* The emulator's checks: new blocks hold NaN, and nobody writes behind them. */
void mimic_cuda_taken(mimic_ctx *ctx, void *p, size_t wanted, size_t bytes);
void mimic_cuda_given(mimic_ctx *ctx, void *p, size_t bytes);

/* transfer.cu */
mimic_status mimic_cuda_post(mimic_ctx *ctx, const void *src, size_t bytes, int *slot);
mimic_status mimic_cuda_collect(mimic_ctx *ctx, int slot, void *dst);
void *mimic_cuda_pin(mimic_ctx *ctx, size_t bytes);
void mimic_cuda_unpin(mimic_ctx *ctx, void *p);
mimic_status mimic_cuda_feed(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
mimic_status mimic_cuda_fed(mimic_ctx *ctx);
void mimic_cuda_transfer_close(mimic_ctx *ctx);

mimic_status mimic_cuda_augment(mimic_ctx *ctx, const mimic_augment_job *job); /* augment.cu */
size_t mimic_cuda_room(mimic_ctx *ctx);
void mimic_cuda_beside(mimic_ctx *ctx, char *text, size_t size);
/* graph.cu */
mimic_status mimic_cuda_record(mimic_ctx *ctx);
mimic_status mimic_cuda_recorded(mimic_ctx *ctx, bool keep, void **work);
mimic_status mimic_cuda_replay(mimic_ctx *ctx, void *work, uint64_t moved);
void mimic_cuda_forget(mimic_ctx *ctx, void *work);

mimic_status mimic_cuda_optim_step(mimic_ctx *ctx, const mimic_optim_args *args);
mimic_status mimic_cuda_accumulate(mimic_ctx *ctx, mimic_dtype dst_dtype, void *dst,
                                   mimic_dtype src_dtype, const void *src, int64_t n);

#ifdef __cplusplus
}
#endif
#endif

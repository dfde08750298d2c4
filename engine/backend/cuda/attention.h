/* Ways to compute attention, behind the operators of attention.cu. */
#ifndef MIMIC_CUDA_ATTENTION_H
#define MIMIC_CUDA_ATTENTION_H

#include "backend/cuda/kernel.h"

/* One call. `step`: elements from a token to the next in qkv; a third of it in y and dy. */
struct heads {
    int64_t images, t, heads, d, step;
    float scale;
    bool bf16;
    const void *qkv; /* [images,t,3,heads,d] */
    void *y, *lse;   /* [images,t,heads,d], [images,heads,t] f32 (NULL: not wanted) */
    const void *dy;  /* [images,t,heads,d]; backward: and y, lse are read */
    void *dqkv;
};

/* Any sizes, f32 arithmetic (attention_any.cu). */
mimic_status attention_any(mimic_call *c, const heads &a);
mimic_status attention_any_bwd(mimic_call *c, const heads &a, float *delta);

/* delta[images,heads,t] = sum of dy y over a head's columns. */
void attention_delta(mimic_call *c, const heads &a, float *delta);

/* bf16 by the tensor cores (attention_mma.cu): heads of 32, 64 or 80 columns at addresses of whole
 * 16 bytes. */
bool attention_mma_takes(const heads &a);
mimic_status attention_mma(mimic_call *c, const heads &a);
mimic_status attention_mma_bwd(mimic_call *c, const heads &a, float *delta);

/* A launch that may want more shared memory than every kernel gets. */
template <class F> mimic_status allow_shared(mimic_call *c, F *kernel, size_t bytes) {
    if (bytes <= 48 * 1024)
        return MIMIC_OK;
    return cuda_check(
        c->ctx,
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
        c->op->name);
}

#endif

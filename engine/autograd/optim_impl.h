/* What a backend's optimiser pass gets: flat arenas and the segment table. */
#ifndef MIMIC_OPTIM_IMPL_H
#define MIMIC_OPTIM_IMPL_H

#include "mimic/optim.h"
#include "ops/op_impl.h"

typedef struct mimic_segment {
    int64_t offset, count; /* elements in the arena; offsets are multiples of 64 elements */
    double lr_scale, weight_decay;
    int rank;       /* LARS scales and decays only tensors of rank > 1 */
    double trust;   /* LARS: the layer's ratio of this step */
    int64_t shadow; /* element offset in the bf16 arena, or -1 */
} mimic_segment;

struct mimic_optim_args {
    mimic_optim_kind kind;
    mimic_dtype dtype;   /* of w, g, m, v: f32 or f64 */
    void *w, *g, *m, *v; /* arenas; v NULL for SGD and LARS */
    uint16_t *shadow;    /* bf16 copy or NULL */
    const mimic_segment *segments;
    int n_segments;
    bool leave_g;                             /* g is not to be cleared: the caller does */
    double lr, beta1, beta2, eps, grad_scale; /* grad_scale includes clipping */
    int64_t t;                                /* update number, from 1 */
    /* For a device that works behind the host, which finds norms and ratios by itself: the largest
     * norm of the gradient (0: any), LARS's coefficient, and where the norm before clipping goes
     * when it is wanted, which waits for it. On the CPU the engine has put all that into grad_scale
     * and the segments. */
    double clip, trust, *norm;
};

#endif

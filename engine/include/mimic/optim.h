/* Optimisers over a flat arena: parameters, gradients and state in contiguous buffers, one pass a
 * step. Update rules: method.md section 7 (PyTorch's Adam/AdamW, MAE's LARS). */
#ifndef MIMIC_OPTIM_H
#define MIMIC_OPTIM_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mimic_optim_kind { MIMIC_ADAM, MIMIC_ADAMW, MIMIC_SGD, MIMIC_LARS } mimic_optim_kind;

typedef struct mimic_optim mimic_optim;

typedef struct mimic_optim_config {
    mimic_optim_kind kind;
    double beta1, beta2, eps; /* Adam, AdamW; SGD and LARS: beta1 = momentum */
    double trust;             /* LARS coefficient, 0.001 */
    double clip;              /* largest global gradient norm; 0 = off */
    bool shadow_bf16;         /* keep bf16 copies of tensors of rank >= 2 for bf16 compute */
} mimic_optim_config;

typedef struct mimic_param {
    mimic_tensor *tensor; /* f32 (or f64) leaf, contiguous; its bytes move into the arena */
    double lr_scale;      /* layer decay */
    double weight_decay;
} mimic_param;

/* Moves the parameters into one arena (their handles stay valid and see the new place), makes
 * gradient and state arenas at once, so that state can be loaded before step 1. Keeps references.
 */
mimic_status mimic_optim_new(mimic_ctx *ctx, const mimic_optim_config *cfg,
                             const mimic_param *params, int n, mimic_optim **out);
void mimic_optim_free(mimic_optim *opt);
/* One update with base learning rate lr; counts t. *grad_norm (may be NULL) gets the global norm
 * before clipping (computed only when asked for or clipping). grad_scale multiplies gradients first
 * (1/accumulation). Gradients are zeroed by the same pass. */
mimic_status mimic_optim_step(mimic_optim *opt, double lr, double grad_scale, double *grad_norm);
mimic_status mimic_optim_zero_grad(mimic_optim *opt);
/* The bf16 shadow of parameter i (borrowed, a leaf whose grad is the f32 gradient of the
 * parameter), or the parameter itself when it has none. */
mimic_tensor *mimic_optim_shadow(const mimic_optim *opt, int i);
/* After writing to parameters from outside (loading weights): refreshes the shadows. */
mimic_status mimic_optim_sync(mimic_optim *opt);
/* Flat state for checkpoints, borrowed: k = 0 first moment / momentum, 1 second moment; NULL
 * beyond. */
mimic_tensor *mimic_optim_state(const mimic_optim *opt, int k);
int64_t mimic_optim_count(const mimic_optim *opt); /* updates done (t) */
void mimic_optim_set_count(mimic_optim *opt, int64_t t);

#ifdef __cplusplus
}
#endif
#endif

/* Tensors: reference-counted views of storages, and the scopes that bound their lives. */
#ifndef MIMIC_TENSOR_H
#define MIMIC_TENSOR_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MIMIC_MAX_RANK 6

typedef enum mimic_dtype {
    MIMIC_F32,
    MIMIC_BF16,
    MIMIC_F64,
    MIMIC_I32,
    MIMIC_U8,
    MIMIC_DTYPE_COUNT
} mimic_dtype;

const char *mimic_dtype_name(mimic_dtype dtype); /* "f32" ... */
bool mimic_dtype_parse(const char *name, mimic_dtype *out);
size_t mimic_dtype_size(mimic_dtype dtype);

typedef struct mimic_tensor mimic_tensor;

/* A new contiguous tensor in the current scope, filled with zeros. rank 0 is a scalar. */
mimic_status mimic_tensor_new(mimic_ctx *ctx, mimic_dtype dtype, int rank, const int64_t *shape,
                              mimic_tensor **out);
/* The same with `bytes` copied from data (contiguous, of that dtype). */
mimic_status mimic_tensor_from(mimic_ctx *ctx, mimic_dtype dtype, int rank, const int64_t *shape,
                               const void *data, mimic_tensor **out);
void mimic_tensor_retain(mimic_tensor *t);
void mimic_tensor_release(mimic_tensor *t); /* NULL is allowed */
/* Gives the bytes back now; the handle stays and answers MIMIC_ESTATE in later calls. */
void mimic_tensor_free(mimic_tensor *t);

int mimic_tensor_rank(const mimic_tensor *t);
const int64_t *mimic_tensor_shape(const mimic_tensor *t);
mimic_dtype mimic_tensor_dtype(const mimic_tensor *t);
int64_t mimic_tensor_count(const mimic_tensor *t); /* number of elements */
bool mimic_tensor_contiguous(const mimic_tensor *t);
bool mimic_tensor_alive(const mimic_tensor *t);
uint32_t mimic_tensor_id(const mimic_tensor *t);
/* One line for messages: "tensor #812 (matmul, train.lua:42) f32 [2,3]". */
void mimic_tensor_describe(const mimic_tensor *t, char *buf, size_t size);

/* Copies all elements, in row-major order whatever the strides, into `data` of `dtype` (converted),
 * `count` elements; count must match. */
mimic_status mimic_tensor_read(mimic_ctx *ctx, const mimic_tensor *t, mimic_dtype dtype, void *data,
                               int64_t count);
/* The value of a tensor of one element, read without waiting for it: the copy begins when the
 * device comes to it, and mimic_later_value waits for that alone, not for what was asked of the
 * device since. To be freed before the context is closed. */
typedef struct mimic_later mimic_later;
mimic_status mimic_tensor_later(mimic_ctx *ctx, const mimic_tensor *t, mimic_later **out);
mimic_status mimic_later_value(mimic_later *later, double *out);
void mimic_later_free(mimic_later *later); /* NULL is allowed */
/* Overwrites the elements of a contiguous tensor (parameters, buffers). Not seen by the tape. */
mimic_status mimic_tensor_write(mimic_ctx *ctx, mimic_tensor *t, mimic_dtype dtype,
                                const void *data, int64_t count);
/* dst = src, equal shapes, converting dtypes. Not seen by the tape. */
mimic_status mimic_tensor_copy(mimic_ctx *ctx, mimic_tensor *dst, const mimic_tensor *src);
/* Direct pointer of a contiguous CPU tensor, or NULL. Valid while the tensor lives. */
void *mimic_tensor_data(const mimic_tensor *t);
const char *mimic_tensor_device(const mimic_tensor *t); /* "cpu", "cuda"; "none" once freed */
/* A copy on another device ("cpu", "cuda"), contiguous, not seen by the tape. */
mimic_status mimic_tensor_to(mimic_ctx *ctx, mimic_tensor *t, const char *device,
                             mimic_tensor **out);

/* Autograd state of a tensor. A leaf that requires a gradient gets an f32 (f64 for f64) `grad` of
 * its shape, zero-filled, that backward adds to. */
mimic_status mimic_tensor_set_requires_grad(mimic_ctx *ctx, mimic_tensor *t, bool on);
bool mimic_tensor_requires_grad(const mimic_tensor *t);
mimic_tensor *mimic_tensor_grad(const mimic_tensor *t); /* borrowed, or NULL */
/* A view of the same bytes that the tape does not see. */
mimic_status mimic_tensor_detach(mimic_ctx *ctx, mimic_tensor *t, mimic_tensor **out);

/* Scopes. Every tensor made while a scope is open belongs to the innermost one and loses its bytes
 * when that closes, unless kept. Outside any scope a tensor lives as long as its references. */
typedef struct mimic_scope mimic_scope;
mimic_status mimic_scope_open(mimic_ctx *ctx, mimic_scope **out);
/* Closes `scope` and any scope opened after it. Closing twice is allowed (the handle is freed by
 * mimic_scope_release only). Closing the outermost scope also clears the tape. */
void mimic_scope_close(mimic_scope *scope);
void mimic_scope_release(mimic_scope *scope);
/* A scope that is also a checkpoint: of the operators applied while it is open the tape keeps only
 * the inputs from outside; backward computes the rest again, with the same bits (random operators
 * included). Costs about one more forward pass of the stretch and saves its activations. Keep
 * its results before closing. One inside another belongs to the outer one. */
mimic_status mimic_checkpoint_open(mimic_ctx *ctx, mimic_scope **out);
/* Moves t to the scope around `scope` (or out of all scopes). */
mimic_status mimic_scope_keep(mimic_scope *scope, mimic_tensor *t);
int mimic_scope_depth(const mimic_ctx *ctx);

#ifdef __cplusplus
}
#endif
#endif

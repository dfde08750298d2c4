/* Checks and small steps that the operator records share: what an input must look like, said once,
 * so that all messages read alike. */
#ifndef MIMIC_SHAPE_UTIL_H
#define MIMIC_SHAPE_UTIL_H

#include "ops/op_impl.h"

bool mimic_same_shape(const mimic_tensor *a, const mimic_tensor *b);
/* The input's name in the record ("weight"), in buf. */
const char *mimic_input_name(const mimic_op *op, int i, char *buf, size_t size);

/* Each fails with the operator's name, the reason and all operands unless input i (if present) is
 * so. */
mimic_status mimic_want_rank(const mimic_call *c, int i, int lo, int hi);
mimic_status mimic_want_dtype(const mimic_call *c, int i, unsigned dtypes);
mimic_status mimic_want_shape(const mimic_call *c, int i, int rank, const int64_t *shape);
/* Shape and dtype of input i are those of input j. */
mimic_status mimic_want_like(const mimic_call *c, int i, int j);
/* A vector of n elements, of the statistics dtype that belongs to in[0]. */
mimic_status mimic_want_vector(const mimic_call *c, int i, int64_t n);
/* One element of the given dtype: the gradient of a loss. */
mimic_status mimic_want_scalar(const mimic_call *c, int i, mimic_dtype dtype);
/* The attribute list is a shape that an output may have. */
mimic_status mimic_want_list_shape(const mimic_call *c);

/* out = t with a new reference. */
void mimic_take(mimic_tensor *t, mimic_tensor **out);
/* Moves the first n of `t` to din where they are needed and drops the others. */
void mimic_give(mimic_vjp *g, mimic_tensor **t, int n);
/* op of one or two tensors, no attributes. */
mimic_status mimic_apply_1(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *a, mimic_tensor **out);
mimic_status mimic_apply_2(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *a, mimic_tensor *b,
                           mimic_tensor **out);
/* alpha * a */
mimic_status mimic_apply_scaled(mimic_ctx *ctx, mimic_tensor *a, double alpha, mimic_tensor **out);
/* a summed to `s`; a itself (a new reference) when it has that shape. */
mimic_status mimic_apply_sum_to(mimic_ctx *ctx, mimic_tensor *a, const mimic_shape_out *s,
                                mimic_tensor **out);
/* a of `rank` with 1 where it was summed, expanded to `shape` and made contiguous. */
mimic_status mimic_apply_spread(mimic_ctx *ctx, mimic_tensor *a, int rank, const int64_t *ones,
                                const int64_t *shape, mimic_tensor **out);

#endif

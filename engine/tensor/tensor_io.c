/* Values in and out of tensors, and the leaf's gradient buffer. None of it is seen by the tape. */
#include <inttypes.h>
#include <string.h>

#include "tensor/tensor_impl.h"

/* Copies t's elements in row-major order, converted, whatever the strides. */
static void gather(const mimic_tensor *t, mimic_dtype dtype, char *dst) {
    int64_t index[MIMIC_MAX_RANK] = {0};
    int last = t->rank - 1;
    int64_t row = t->rank ? t->shape[last] : 1, rows = row ? mimic_numel(t) / row : 0;
    int64_t stride = t->rank ? t->stride[last] : 1;
    size_t in = mimic_dtype_size((mimic_dtype)t->dtype), out = mimic_dtype_size(dtype);
    const char *base = mimic_data(t);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = 0;
        for (int i = 0; i < last; i++)
            at += index[i] * t->stride[i];
        mimic_convert(dtype, dst, (mimic_dtype)t->dtype, base + at * (int64_t)in, row, stride);
        dst += (size_t)row * out;
        for (int i = last - 1; i >= 0 && ++index[i] == t->shape[i]; i--)
            index[i] = 0;
    }
}

static mimic_status check_count(mimic_ctx *ctx, const mimic_tensor *t, int64_t count,
                                const char *what) {
    if (count != mimic_numel(t))
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: %" PRId64 " values for a tensor of %" PRId64,
                          what, count, mimic_numel(t));
    return MIMIC_OK;
}

mimic_status mimic_tensor_read(mimic_ctx *ctx, const mimic_tensor *t, mimic_dtype dtype, void *data,
                               int64_t count) {
    mimic_status st;
    if ((st = mimic_tensor_check(ctx, t, "read")) || (st = check_count(ctx, t, count, "read")))
        return st;
    if (mimic_tensor_contiguous(t))
        mimic_convert(dtype, data, (mimic_dtype)t->dtype, mimic_data(t), count, 1);
    else
        gather(t, dtype, data);
    return MIMIC_OK;
}

mimic_status mimic_tensor_write(mimic_ctx *ctx, mimic_tensor *t, mimic_dtype dtype,
                                const void *data, int64_t count) {
    mimic_status st;
    if ((st = mimic_tensor_check(ctx, t, "write")) || (st = check_count(ctx, t, count, "write")))
        return st;
    if (!mimic_tensor_contiguous(t))
        return mimic_fail(ctx, MIMIC_EINVAL, "write: the tensor is a view that is not contiguous");
    mimic_convert((mimic_dtype)t->dtype, mimic_data(t), dtype, data, count, 1);
    return MIMIC_OK;
}

mimic_status mimic_tensor_copy(mimic_ctx *ctx, mimic_tensor *dst, const mimic_tensor *src) {
    mimic_status st;
    char a[160], b[160];
    if ((st = mimic_tensor_check(ctx, dst, "copy")) || (st = mimic_tensor_check(ctx, src, "copy")))
        return st;
    if (dst->rank != src->rank ||
        memcmp(dst->shape, src->shape, sizeof *dst->shape * dst->rank) != 0)
        return mimic_fail(ctx, MIMIC_EINVAL, "copy: shapes differ: %s from %s",
                          mimic_shape_text(dst->rank, dst->shape, a, sizeof a),
                          mimic_shape_text(src->rank, src->shape, b, sizeof b));
    if (!mimic_tensor_contiguous(dst))
        return mimic_fail(ctx, MIMIC_EINVAL, "copy: the target is a view that is not contiguous");
    return mimic_tensor_read(ctx, src, (mimic_dtype)dst->dtype, mimic_data(dst), mimic_numel(src));
}

mimic_status mimic_tensor_set_requires_grad(mimic_ctx *ctx, mimic_tensor *t, bool on) {
    mimic_status st = mimic_tensor_check(ctx, t, "requires_grad");
    if (st)
        return st;
    if (t->node)
        return mimic_fail(ctx, MIMIC_ESTATE,
                          "requires_grad: tensor #%u is a result of %s; only leaves can ask for a "
                          "gradient (detach it first)",
                          t->id, t->op);
    if (on && t->dtype != MIMIC_F32 && t->dtype != MIMIC_F64 && t->dtype != MIMIC_BF16)
        return mimic_fail(ctx, MIMIC_EINVAL, "requires_grad: %s tensors have no gradient",
                          mimic_dtype_name((mimic_dtype)t->dtype));
    if (on && !t->grad) {
        mimic_tensor *grad;
        mimic_dtype dtype = t->dtype == MIMIC_F64 ? MIMIC_F64 : MIMIC_F32;
        st = mimic_tensor_new(ctx, dtype, t->rank, t->shape, &grad);
        if (st)
            return st;
        grad->op = "grad";
        mimic_scope_forget(grad); /* it goes with its leaf, which a scope may keep */
        t->grad = grad;
    }
    t->leaf = t->requires_grad = on;
    return MIMIC_OK;
}

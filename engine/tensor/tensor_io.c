/* Values in and out of tensors, and the leaf's gradient buffer. None of it is seen by the tape. */
#include <inttypes.h>
#include <string.h>

#include "ops/op_impl.h"

/* Copies t's elements, the first of which lies at `base`, in row-major order, converted, whatever
 * the strides. */
static void gather(const mimic_tensor *t, const char *base, mimic_dtype dtype, char *dst) {
    int64_t index[MIMIC_MAX_RANK] = {0};
    int last = t->rank - 1;
    int64_t row = t->rank ? t->shape[last] : 1, rows = row ? mimic_numel(t) / row : 0;
    int64_t stride = t->rank ? t->stride[last] : 1;
    size_t in = mimic_dtype_size((mimic_dtype)t->dtype), out = mimic_dtype_size(dtype);
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

/* A copy on the host of all that t's elements span, in memory from mimic_alloc. */
static mimic_status fetch(mimic_ctx *ctx, const mimic_tensor *t, void **out) {
    int64_t span = 1;
    for (int i = 0; i < t->rank; i++)
        span += (t->shape[i] - 1) * t->stride[i];
    size_t bytes = (size_t)span * mimic_dtype_size((mimic_dtype)t->dtype);
    if (!(*out = mimic_alloc(ctx, bytes)))
        return MIMIC_ENOMEM;
    mimic_status st = t->storage->device->backend->download(ctx, *out, mimic_data(t), bytes);
    if (st)
        mimic_free(ctx, *out);
    return st;
}

mimic_status mimic_tensor_read(mimic_ctx *ctx, const mimic_tensor *t, mimic_dtype dtype, void *data,
                               int64_t count) {
    mimic_status st;
    if ((st = mimic_tensor_check(ctx, t, "read")) || (st = check_count(ctx, t, count, "read")))
        return st;
    if (count == 0)
        return MIMIC_OK;
    const mimic_backend *b = t->storage->device->backend;
    bool dense = mimic_tensor_contiguous(t);
    if (!b->host && dense && dtype == (mimic_dtype)t->dtype)
        return b->download(ctx, data, mimic_data(t), (size_t)count * mimic_dtype_size(dtype));
    void *copy = NULL;
    if (!b->host && (st = fetch(ctx, t, &copy)))
        return st;
    const void *from = copy ? copy : mimic_data(t);
    if (dense)
        mimic_convert(dtype, data, (mimic_dtype)t->dtype, from, count, 1);
    else
        gather(t, from, dtype, data);
    mimic_free(ctx, copy);
    return MIMIC_OK;
}

/* t's elements, which are contiguous, from the host. */
static mimic_status put(mimic_ctx *ctx, mimic_tensor *t, mimic_dtype dtype, const void *data,
                        int64_t count) {
    const mimic_backend *b = t->storage->device->backend;
    size_t bytes = (size_t)count * mimic_dtype_size((mimic_dtype)t->dtype);
    if (b->host) {
        mimic_convert((mimic_dtype)t->dtype, mimic_data(t), dtype, data, count, 1);
        return MIMIC_OK;
    }
    if (dtype == (mimic_dtype)t->dtype)
        return b->upload(ctx, mimic_data(t), data, bytes);
    void *copy = mimic_alloc(ctx, bytes);
    if (!copy)
        return MIMIC_ENOMEM;
    mimic_convert((mimic_dtype)t->dtype, copy, dtype, data, count, 1);
    mimic_status st = b->upload(ctx, mimic_data(t), copy, bytes);
    mimic_free(ctx, copy);
    return st;
}

mimic_status mimic_tensor_write(mimic_ctx *ctx, mimic_tensor *t, mimic_dtype dtype,
                                const void *data, int64_t count) {
    mimic_status st;
    if ((st = mimic_tensor_check(ctx, t, "write")) || (st = check_count(ctx, t, count, "write")))
        return st;
    if (!mimic_tensor_contiguous(t))
        return mimic_fail(ctx, MIMIC_EINVAL, "write: the tensor is a view that is not contiguous");
    return put(ctx, t, dtype, data, count);
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
    const mimic_device *to = dst->storage->device;
    int64_t count = mimic_numel(src);
    mimic_dtype dtype = (mimic_dtype)dst->dtype;
    if (to->backend->host)
        return mimic_tensor_read(ctx, src, dtype, mimic_data(dst), count);
    size_t bytes = (size_t)count * mimic_dtype_size(dtype);
    if (src->storage->device == to && src->dtype == dst->dtype && mimic_tensor_contiguous(src))
        return to->backend->copy(ctx, mimic_data(dst), mimic_data(src), bytes);
    void *copy = mimic_alloc(ctx, bytes);
    if (!copy)
        return MIMIC_ENOMEM;
    if (!(st = mimic_tensor_read(ctx, src, dtype, copy, count)))
        st = put(ctx, dst, dtype, copy, count);
    mimic_free(ctx, copy);
    return st;
}

mimic_status mimic_tensor_to(mimic_ctx *ctx, mimic_tensor *t, const char *device,
                             mimic_tensor **out) {
    mimic_device *d = NULL;
    mimic_status st;
    if ((st = mimic_tensor_check(ctx, t, "to")) || (st = mimic_device_open(ctx, device, &d)))
        return st;
    if (t->node && ctx->grad_enabled)
        return mimic_fail(ctx, MIMIC_ESTATE,
                          "to: tensor #%u is a result that gradients pass through; detach it first",
                          t->id);
    if ((st = mimic_tensor_make(d, (mimic_dtype)t->dtype, t->rank, t->shape, "to", out)))
        return st;
    if ((st = mimic_tensor_copy(ctx, *out, t)))
        mimic_tensor_release(*out);
    return st;
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
        st = mimic_tensor_zeros(t->storage->device, dtype, t->rank, t->shape, &grad);
        if (st)
            return st;
        grad->op = "grad";
        mimic_scope_forget(grad); /* it goes with its leaf, which a scope may keep */
        t->grad = grad;
    }
    t->leaf = t->requires_grad = on;
    return MIMIC_OK;
}

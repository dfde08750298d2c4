/* Transfers that nobody waits for: a value on its way to the host, batches on their way to the
 * device. On the CPU both are there at once. */
#include <string.h>

#include "ops/op_impl.h"

struct mimic_later {
    mimic_ctx *ctx;
    mimic_device *device;
    mimic_dtype dtype;
    int slot; /* of the device's mail box; NONE: `value` is known */
    double value;
};
enum { NONE = -1 };

mimic_status mimic_tensor_later(mimic_ctx *ctx, const mimic_tensor *t, mimic_later **out) {
    mimic_status st = mimic_tensor_check(ctx, t, "later");
    if (st)
        return st;
    if (mimic_numel(t) != 1)
        return mimic_fail(ctx, MIMIC_EINVAL, "later: the tensor has %lld elements, not 1",
                          (long long)mimic_numel(t));
    mimic_later *l = mimic_alloc(ctx, sizeof *l);
    if (!l)
        return MIMIC_ENOMEM;
    *l = (mimic_later){ctx, t->storage->device, (mimic_dtype)t->dtype, NONE, 0};
    const mimic_backend *b = l->device->backend;
    st = b->post ? b->post(ctx, mimic_data(t), mimic_dtype_size(l->dtype), &l->slot)
                 : mimic_tensor_read(ctx, t, MIMIC_F64, &l->value, 1);
    if (st)
        mimic_free(ctx, l);
    else
        *out = l;
    return st;
}

mimic_status mimic_later_value(mimic_later *l, double *out) {
    if (l->slot != NONE) {
        char bytes[8];
        mimic_status st = l->device->backend->collect(l->ctx, l->slot, bytes);
        l->slot = NONE;
        if (st)
            return st;
        mimic_convert(MIMIC_F64, &l->value, l->dtype, bytes, 1, 1);
    }
    *out = l->value;
    return MIMIC_OK;
}

void mimic_later_free(mimic_later *l) {
    double ignored;
    if (!l)
        return;
    mimic_later_value(l, &ignored); /* frees the slot */
    mimic_free(l->ctx, l);
}

/* --- batches ---------------------------------------------------------------------------------- */

void *mimic_feed_alloc(mimic_device *d, size_t bytes) {
    return d->backend->pin ? d->backend->pin(d->ctx, bytes) : mimic_alloc(d->ctx, bytes);
}

void mimic_feed_free(mimic_device *d, void *p) {
    if (d->backend->pin)
        d->backend->unpin(d->ctx, p);
    else
        mimic_free(d->ctx, p);
}

mimic_status mimic_feed(mimic_device *d, mimic_dtype dtype, int rank, const int64_t *shape,
                        const void *data, mimic_tensor **out) {
    mimic_tensor *t;
    mimic_status st = mimic_tensor_make(d, dtype, rank, shape, "batch", &t);
    if (st)
        return st;
    const mimic_backend *b = d->backend;
    st = (b->feed ? b->feed : b->upload)(d->ctx, mimic_data(t), data, t->storage->bytes);
    if (st)
        mimic_tensor_release(t);
    else
        *out = t;
    return st;
}

bool mimic_feed_pending(const mimic_device *d) {
    return d->backend->feed != NULL;
}

mimic_status mimic_feed_wait(mimic_device *d) {
    return d->backend->feed ? d->backend->fed(d->ctx) : MIMIC_OK;
}

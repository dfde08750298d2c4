#include "tensor/views.h"
#include "ops/op_impl.h"

bool mimic_device_augments(const mimic_device *d) {
    return d->backend->augment && d->backend->room;
}

mimic_status mimic_device_augment(mimic_device *d, const mimic_augment_job *job) {
    return d->backend->augment(d->ctx, job);
}

size_t mimic_device_room(const mimic_device *d) {
    mimic_memory m = mimic_pool_stats(d);
    size_t n = d->backend->room(d->ctx) + m.cached;
    size_t allowed = m.limit > m.live ? m.limit - m.live : 0;
    return m.limit && allowed < n ? allowed : n;
}

mimic_status mimic_device_copy(mimic_device *d, void *dst, const void *src, size_t bytes) {
    return d->backend->copy(d->ctx, dst, src, bytes);
}

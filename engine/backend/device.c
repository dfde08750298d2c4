/* The devices of a context by name: "cpu" is always open, "cuda" is opened when first asked for. */
#include <stdio.h>
#include <string.h>

#include "ops/op_impl.h"

static const char *const names[MIMIC_DEVICES] = {"cpu", "cuda"};

int mimic_device_count(void) {
    return MIMIC_DEVICES;
}

const char *mimic_device_at(int i) {
    return i >= 0 && i < MIMIC_DEVICES ? names[i] : NULL;
}

const char *mimic_device_name(const mimic_device *d) {
    return names[d - d->ctx->devices];
}

/* d becomes the CUDA device, or stays closed. */
static mimic_status open_cuda(mimic_ctx *ctx, mimic_device *d) {
    const mimic_backend *backend;
    d->ctx = ctx;
    mimic_status st = mimic_cuda_open(ctx, &backend);
    if (st)
        return st;
    d->backend = backend;
    if ((st = mimic_pool_open(d))) {
        backend->close(ctx);
        d->backend = NULL;
    }
    return st;
}

mimic_status mimic_device_open(mimic_ctx *ctx, const char *name, mimic_device **out) {
    for (int i = 0; i < MIMIC_DEVICES; i++) {
        mimic_device *d = &ctx->devices[i];
        mimic_status st;
        if (strcmp(name, names[i]) != 0)
            continue;
        if (!d->backend && (st = open_cuda(ctx, d)))
            return st;
        *out = d;
        return MIMIC_OK;
    }
    return mimic_fail(ctx, MIMIC_EINVAL, "device '%s' is none; there are cpu and cuda", name);
}

void mimic_devices_close(mimic_ctx *ctx) {
    for (int i = MIMIC_DEVICES - 1; i >= 0; i--) {
        mimic_device *d = &ctx->devices[i];
        mimic_pool_close(d);
        if (d->backend && d->backend->close)
            d->backend->close(ctx);
        d->backend = i == MIMIC_CPU ? d->backend : NULL;
    }
    ctx->device = &ctx->devices[MIMIC_CPU];
}

mimic_status mimic_set_device(mimic_ctx *ctx, const char *name) {
    mimic_device *d = NULL;
    mimic_status st = mimic_device_open(ctx, name, &d);
    if (!st)
        ctx->device = d;
    return st;
}

const char *mimic_get_device(const mimic_ctx *ctx) {
    return mimic_device_name(ctx->device);
}

mimic_status mimic_device_about(mimic_ctx *ctx, const char *name, char *buf, size_t size) {
    mimic_device *d = NULL;
    mimic_status st = mimic_device_open(ctx, name, &d);
    if (st)
        return st;
    if (d->backend->about)
        d->backend->about(ctx, buf, size);
    else
        snprintf(buf, size, "%s, %d threads", d->backend->name, mimic_threads(ctx));
    return MIMIC_OK;
}

mimic_status mimic_sync(mimic_ctx *ctx) {
    return ctx->device->backend->sync(ctx);
}

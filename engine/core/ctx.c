/* Life of a context: opens the parts in order, closes them in reverse. No globals. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mimic/graph.h"
#include "core/ctx.h"
#include "ops/op_impl.h"

/* Without a context there is no message: the host's log learns why. */
static void tell(const mimic_config *c, const char *text) {
    if (c->log)
        c->log(c->user, 3, text);
}

/* The kernels asked for, or NULL after saying which there are. */
static const mimic_backend *choose_backend(const mimic_config *c) {
    const char *env = getenv("MIMIC_ISA");
    const char *isa = c->isa ? c->isa : env && env[0] ? env : NULL;
    char names[64] = "", text[256];
    const mimic_backend *backend = mimic_cpu_backend(isa, names, sizeof names);
    snprintf(text, sizeof text, "%s \"%.60s\": this machine and build have %s",
             c->isa ? "isa" : "MIMIC_ISA", isa ? isa : "", names);
    if (!backend)
        tell(c, text);
    return backend;
}

mimic_status mimic_open(const mimic_config *cfg, mimic_ctx **out) {
    *out = NULL;
    mimic_config c = cfg ? *cfg : (mimic_config){0};
    mimic_alloc_init(&c);
    const mimic_backend *backend = choose_backend(&c);
    if (!backend)
        return MIMIC_EUNSUPPORTED;
    mimic_ctx *ctx = c.alloc(c.user, sizeof *ctx);
    if (!ctx)
        return MIMIC_ENOMEM;
    memset(ctx, 0, sizeof *ctx);
    ctx->cfg = c;
    ctx->device = &ctx->devices[MIMIC_CPU];
    *ctx->device = (mimic_device){.ctx = ctx, .backend = backend};
    ctx->seed = c.seed;
    ctx->grad_enabled = true;
    ctx->message_size = MIMIC_MESSAGE_SIZE;
    mimic_status st = MIMIC_ENOMEM;
    ctx->message = mimic_alloc_raw(ctx, ctx->message_size);
    if (!ctx->message)
        goto fail;
    ctx->message[0] = 0;
    if ((st = mimic_threads_init(ctx, c.threads)) || (st = mimic_pool_open(ctx->device)) ||
        (st = mimic_scopes_init(ctx)) || (st = mimic_tape_init(ctx)))
        goto fail;
    const char *device = c.device ? c.device : getenv("MIMIC_DEVICE");
    if (device && (st = mimic_set_device(ctx, device))) {
        mimic_log(ctx, 3, "%s", mimic_message(ctx));
        goto fail;
    }
    *out = ctx;
    return MIMIC_OK;
fail:
    tell(&c, ctx->message && ctx->message[0] ? ctx->message : mimic_status_name(st));
    mimic_close(ctx);
    return st;
}

void mimic_close(mimic_ctx *ctx) {
    if (!ctx)
        return;
    mimic_threads_close(ctx);
    mimic_graph_free(ctx->graph);
    mimic_scopes_close(ctx);
    mimic_tensors_close(ctx);
    mimic_tape_close(ctx);
    mimic_profile_close(ctx);
    mimic_devices_close(ctx);
    mimic_intern_close(ctx);
    mimic_free_raw(ctx, ctx->message);
    ctx->message = NULL;
    mimic_slabs_close(ctx);
}

const char *mimic_isa(const mimic_ctx *ctx) {
    const char *name = ctx->devices[MIMIC_CPU].backend->name, *slash = strchr(name, '/');
    return slash ? slash + 1 : name;
}

void mimic_check_nan(mimic_ctx *ctx, bool on) {
    ctx->check_nan = on;
}

bool mimic_grad_enabled(const mimic_ctx *ctx) {
    return ctx->grad_enabled;
}

void mimic_set_grad_enabled(mimic_ctx *ctx, bool on) {
    ctx->grad_enabled = on;
}

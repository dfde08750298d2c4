/* Allocation through the context: 64-byte aligned, counted, with fault injection. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/ctx.h"

static void *default_alloc(void *user, size_t bytes) {
    (void)user;
    return aligned_alloc(64, (bytes + 63) & ~(size_t)63);
}

static void default_free(void *user, void *p) {
    (void)user;
    free(p);
}

void mimic_alloc_init(mimic_config *cfg) {
    if (!cfg->alloc || !cfg->free) {
        cfg->alloc = default_alloc;
        cfg->free = default_free;
    }
}

/* True when this allocation is to fail by order of mimic_fail_alloc. */
static bool injected(mimic_ctx *ctx) {
    int64_t at = atomic_load_explicit(&ctx->fail_at, memory_order_relaxed);
    if (at == 0)
        return false;
    at = atomic_fetch_sub(&ctx->fail_at, 1);
    if (at > 1)
        return false;
    /* The countdown reached its end: stay at 1 to fail again, or turn off. */
    atomic_store(&ctx->fail_at, ctx->fail_sticky ? 1 : 0);
    return at >= 1;
}

void *mimic_try_alloc(mimic_ctx *ctx, size_t bytes) {
    if (injected(ctx))
        return NULL;
    void *p = ctx->cfg.alloc(ctx->cfg.user, bytes ? bytes : 1);
    if (p) {
        atomic_fetch_add_explicit(&ctx->alloc_count, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&ctx->alloc_live, 1, memory_order_relaxed);
    }
    return p;
}

void *mimic_alloc(mimic_ctx *ctx, size_t bytes) {
    void *p = mimic_try_alloc(ctx, bytes);
    if (!p && mimic_on_own_thread(ctx))
        mimic_fail(ctx, MIMIC_ENOMEM, "out of memory: %zu bytes for the engine's own tables", bytes);
    return p;
}

void *mimic_calloc(mimic_ctx *ctx, size_t bytes) {
    void *p = mimic_alloc(ctx, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

void *mimic_realloc(mimic_ctx *ctx, void *p, size_t old_bytes, size_t bytes) {
    void *q = mimic_alloc(ctx, bytes);
    if (q && p) {
        memcpy(q, p, old_bytes < bytes ? old_bytes : bytes);
        mimic_free(ctx, p);
    }
    return q;
}

void mimic_free(mimic_ctx *ctx, void *p) {
    if (!p)
        return;
    atomic_fetch_sub_explicit(&ctx->alloc_live, 1, memory_order_relaxed);
    ctx->cfg.free(ctx->cfg.user, p);
}

char *mimic_strdup(mimic_ctx *ctx, const char *s) {
    size_t n = strlen(s) + 1;
    char *p = mimic_alloc(ctx, n);
    if (p)
        memcpy(p, s, n);
    return p;
}

void mimic_fail_alloc(mimic_ctx *ctx, int64_t n, bool sticky) {
    ctx->fail_sticky = sticky;
    atomic_store(&ctx->fail_at, n);
}

int64_t mimic_alloc_count(const mimic_ctx *ctx) {
    return atomic_load(&ctx->alloc_count);
}

int64_t mimic_alloc_live(const mimic_ctx *ctx) {
    return atomic_load(&ctx->alloc_live);
}

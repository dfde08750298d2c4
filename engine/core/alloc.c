/* Allocation through the context: 64-byte aligned, counted, with fault injection; slabs for small
 * structs. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/ctx.h"

enum { SLAB_ITEMS = 64, SLAB_STEP = 64 };

struct mimic_slab_chunk {
    struct mimic_slab_chunk *next;
};
struct mimic_slab_item {
    struct mimic_slab_item *next;
};

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

bool mimic_system_alloc(const mimic_ctx *ctx) {
    return ctx->cfg.alloc == default_alloc;
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

void *mimic_alloc_raw(mimic_ctx *ctx, size_t bytes) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    return ctx->cfg.alloc(ctx->cfg.user, bytes ? bytes : 1);
}

void mimic_free_raw(mimic_ctx *ctx, void *p) {
    if (p)
        ctx->cfg.free(ctx->cfg.user, p);
}

void *mimic_try_alloc(mimic_ctx *ctx, size_t bytes) {
    if (injected(ctx))
        return NULL;
    void *p = mimic_alloc_raw(ctx, bytes);
    if (p) {
        atomic_fetch_add_explicit(&ctx->alloc_count, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&ctx->alloc_live, 1, memory_order_relaxed);
    }
    return p;
}

static void *none_left(mimic_ctx *ctx, size_t bytes) {
    mimic_fail(ctx, MIMIC_ENOMEM, "out of memory: %zu bytes for the engine's own tables", bytes);
    return NULL;
}

void *mimic_alloc(mimic_ctx *ctx, size_t bytes) {
    void *p = mimic_try_alloc(ctx, bytes);
    return p ? p : none_left(ctx, bytes);
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

/* --- slabs ------------------------------------------------------------------------------------ */

bool mimic_alloc_note(mimic_ctx *ctx) {
    if (injected(ctx))
        return false;
    ctx->slab_count++;
    ctx->slab_live++;
    return true;
}

void mimic_free_note(mimic_ctx *ctx) {
    ctx->slab_live--;
}

/* A new chunk of items of class k into its free list, lowest address first. */
static void slab_grow(mimic_ctx *ctx, size_t k) {
    size_t step = (k + 1) * SLAB_STEP;
    char *chunk = mimic_alloc_raw(ctx, SLAB_STEP + step * SLAB_ITEMS);
    if (!chunk)
        return;
    struct mimic_slab_chunk *head = (void *)chunk;
    head->next = ctx->slab_chunks;
    ctx->slab_chunks = head;
    for (size_t i = SLAB_ITEMS; i-- > 0;) {
        struct mimic_slab_item *item = (void *)(chunk + SLAB_STEP + i * step);
        item->next = ctx->slab_free[k];
        ctx->slab_free[k] = item;
    }
}

void *mimic_slab_get(mimic_ctx *ctx, size_t bytes) {
    size_t k = (bytes - 1) / SLAB_STEP;
    if (!mimic_alloc_note(ctx))
        return none_left(ctx, bytes);
    if (!ctx->slab_free[k])
        slab_grow(ctx, k);
    struct mimic_slab_item *item = ctx->slab_free[k];
    if (!item) {
        mimic_free_note(ctx);
        return none_left(ctx, bytes);
    }
    ctx->slab_free[k] = item->next;
    return item;
}

static void end_context(mimic_ctx *ctx) {
    for (struct mimic_slab_chunk *c = ctx->slab_chunks, *next; c; c = next) {
        next = c->next;
        mimic_free_raw(ctx, c);
    }
    mimic_free_raw(ctx, ctx);
}

void mimic_slab_put(mimic_ctx *ctx, void *p, size_t bytes) {
    size_t k = (bytes - 1) / SLAB_STEP;
    struct mimic_slab_item *item = p;
    item->next = ctx->slab_free[k];
    ctx->slab_free[k] = item;
    mimic_free_note(ctx);
    if (ctx->closed && ctx->slab_live == 0)
        end_context(ctx);
}

void mimic_slabs_close(mimic_ctx *ctx) {
    ctx->closed = true;
    if (ctx->slab_live == 0)
        end_context(ctx);
}

/* --- tests' view ------------------------------------------------------------------------------ */

void mimic_fail_alloc(mimic_ctx *ctx, int64_t n, bool sticky) {
    ctx->fail_sticky = sticky;
    atomic_store(&ctx->fail_at, n);
}

int64_t mimic_alloc_count(const mimic_ctx *ctx) {
    return atomic_load(&ctx->alloc_count) + ctx->slab_count;
}

int64_t mimic_alloc_live(const mimic_ctx *ctx) {
    return atomic_load(&ctx->alloc_live) + ctx->slab_live;
}

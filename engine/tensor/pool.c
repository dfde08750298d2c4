/* Tensor memory: blocks of size classes (8 steps per power of two) kept in free lists, so that a step that
 * repeats gets the same addresses and no page is faulted in twice. */
#define _GNU_SOURCE /* madvise */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tensor/tensor_impl.h"

enum { CLASSES = 8 * 48 };
static const size_t huge_page = 2u << 20;

typedef struct block {
    struct block *next; /* in the free list */
} block;

struct mimic_pool {
    block *free[CLASSES];
    mimic_memory stats;
    mimic_storage *storages; /* list of the live ones, newest first */
};

/* Class of a size, and in *bytes the size of its blocks: 64 * (8 + k) / 8 * 2^e. */
static int class_of(size_t *bytes) {
    size_t n = *bytes <= 64 ? 64 : *bytes;
    int e = 63 - __builtin_clzll(n); /* 2^e <= n, e >= 6 */
    size_t step = (size_t)1 << (e - 3);
    size_t k = (n - ((size_t)1 << e) + step - 1) / step; /* 0..8 */
    if (k == 8) {
        e++;
        k = 0;
        step <<= 1;
    }
    *bytes = ((size_t)1 << e) + k * step;
    return (e - 6) * 8 + (int)k;
}

mimic_status mimic_pool_init(mimic_ctx *ctx) {
    ctx->pool = mimic_calloc(ctx, sizeof *ctx->pool);
    if (!ctx->pool)
        return MIMIC_ENOMEM;
    ctx->pool->stats.limit = ctx->cfg.memory_limit;
    return MIMIC_OK;
}

void mimic_trim(mimic_ctx *ctx) {
    for (int c = 0; c < CLASSES; c++)
        for (block *b = ctx->pool->free[c]; b; b = ctx->pool->free[c]) {
            ctx->pool->free[c] = b->next;
            mimic_free(ctx, b);
        }
    ctx->pool->stats.cached = 0;
}

/* Storages that are still referenced lose their bytes; their handles answer "freed with its context". */
void mimic_pool_close(mimic_ctx *ctx) {
    mimic_pool *p = ctx->pool;
    if (!p)
        return;
    for (mimic_storage *s = p->storages, *next; s; s = next) {
        next = s->next;
        mimic_free(ctx, s->data);
        s->data = NULL;
        s->ctx = NULL;
        s->next = s->prev = NULL;
    }
    mimic_trim(ctx);
    mimic_free(ctx, p);
    ctx->pool = NULL;
}

void mimic_pool_track(mimic_ctx *ctx, mimic_storage *s) {
    mimic_pool *p = ctx->pool;
    s->next = p->storages;
    s->prev = NULL;
    if (s->next)
        s->next->prev = s;
    p->storages = s;
    p->stats.tensors++;
}

void mimic_pool_untrack(mimic_ctx *ctx, mimic_storage *s) {
    mimic_pool *p = ctx->pool;
    if (s->prev)
        s->prev->next = s->next;
    else
        p->storages = s->next;
    if (s->next)
        s->next->prev = s->prev;
    p->stats.tensors--;
}

static double mib(size_t bytes) {
    return (double)bytes / (1 << 20);
}

/* The out-of-memory report: what was asked for, what there is, the five largest tensors with their birth. */
static mimic_status report(mimic_ctx *ctx, size_t bytes, const char *why) {
    mimic_pool *p = ctx->pool;
    char text[2048];
    size_t used = 0;
    const mimic_storage *shown[5];
    int n = 0;
    for (; n < 5; n++) {
        const mimic_storage *best = NULL;
        for (const mimic_storage *s = p->storages; s; s = s->next) {
            bool done = false;
            for (int i = 0; i < n; i++)
                done |= shown[i] == s;
            if (!done && (!best || s->bytes > best->bytes))
                best = s;
        }
        if (!best)
            break;
        shown[n] = best;
        used += (size_t)snprintf(text + used, sizeof text - used, "\n  %.1f MiB: %s%s%s%s",
                                 mib(best->bytes), best->op ? best->op : "tensor",
                                 best->place ? " (" : "", best->place ? best->place : "",
                                 best->place ? ")" : "");
        if (used >= sizeof text)
            break;
    }
    text[n ? sizeof text - 1 : 0] = 0;
    return mimic_fail(ctx, MIMIC_ENOMEM,
                      "out of memory (%s): %.1f MiB asked for, %.1f MiB live in %lld tensors, %.1f MiB "
                      "cached, limit %.1f MiB%s%s",
                      why, mib(bytes), mib(p->stats.live), (long long)p->stats.tensors,
                      mib(p->stats.cached), mib(p->stats.limit),
                      n ? "; the largest:" : "", text);
}

mimic_status mimic_pool_get(mimic_ctx *ctx, size_t bytes, void **out) {
    mimic_pool *p = ctx->pool;
    if (bytes > (size_t)1 << 46)
        return report(ctx, bytes, "no machine has that much");
    int c = class_of(&bytes);
    if (p->stats.limit && p->stats.live + bytes > p->stats.limit)
        return report(ctx, bytes, "over the memory limit");
    block *b = p->free[c];
    if (b) {
        p->free[c] = b->next;
        p->stats.cached -= bytes;
    } else {
        b = mimic_try_alloc(ctx, bytes);
        if (!b && p->stats.cached) {
            mimic_trim(ctx);
            b = mimic_try_alloc(ctx, bytes);
        }
        if (!b)
            return report(ctx, bytes, "the system gives no more");
        if (bytes >= 2 * huge_page) {
            uintptr_t lo = ((uintptr_t)b + huge_page - 1) & ~(huge_page - 1);
            uintptr_t hi = ((uintptr_t)b + bytes) & ~(huge_page - 1);
            madvise((void *)lo, hi - lo, MADV_HUGEPAGE); /* a hint: failure is harmless */
        }
    }
    p->stats.live += bytes;
    if (p->stats.live > p->stats.peak)
        p->stats.peak = p->stats.live;
    *out = b;
    return MIMIC_OK;
}

void mimic_pool_put(mimic_ctx *ctx, void *ptr, size_t bytes) {
    if (!ptr)
        return;
    mimic_pool *p = ctx->pool;
    int c = class_of(&bytes);
    block *b = ptr;
    b->next = p->free[c];
    p->free[c] = b;
    p->stats.live -= bytes;
    p->stats.cached += bytes;
}

void mimic_memory_stats(const mimic_ctx *ctx, mimic_memory *out) {
    *out = ctx->pool->stats;
}

void mimic_reset_peak(mimic_ctx *ctx) {
    ctx->pool->stats.peak = ctx->pool->stats.live;
}

void mimic_set_memory_limit(mimic_ctx *ctx, size_t bytes) {
    ctx->pool->stats.limit = bytes;
}

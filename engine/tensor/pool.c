/* Tensor memory: blocks of size classes (8 steps per power of two) kept in free lists, so that a
 * step that repeats gets the same addresses and no page is faulted in twice. */
#define _GNU_SOURCE /* madvise */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tensor/tensor_impl.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(p, n) ((void)(p), (void)(n))
#define __asan_unpoison_memory_region(p, n) ((void)(p), (void)(n))
#endif

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

static size_t class_bytes(int c) {
    return ((size_t)8 + (size_t)c % 8) << (c / 8 + 3);
}

mimic_status mimic_pool_init(mimic_ctx *ctx) {
    ctx->pool = mimic_alloc_raw(ctx, sizeof *ctx->pool);
    if (!ctx->pool)
        return MIMIC_ENOMEM;
    memset(ctx->pool, 0, sizeof *ctx->pool);
    ctx->pool->stats.limit = ctx->cfg.memory_limit;
    return MIMIC_OK;
}

void mimic_trim(mimic_ctx *ctx) {
    for (int c = 0; c < CLASSES; c++)
        for (block *b = ctx->pool->free[c]; b; b = ctx->pool->free[c]) {
            __asan_unpoison_memory_region(b, class_bytes(c));
            ctx->pool->free[c] = b->next;
            mimic_free_raw(ctx, b);
        }
    ctx->pool->stats.cached = 0;
}

/* Called after the last tensor lost its bytes. */
void mimic_pool_close(mimic_ctx *ctx) {
    if (!ctx->pool)
        return;
    mimic_trim(ctx);
    mimic_free_raw(ctx, ctx->pool);
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

/* Before a and b in the report: larger first, of equals the older. */
static bool larger(const mimic_storage *a, const mimic_storage *b) {
    return a->bytes != b->bytes ? a->bytes > b->bytes : a->id < b->id;
}

/* The out-of-memory report: what was asked for, what there is, the five largest tensors with their
 * birth. */
static mimic_status report(mimic_ctx *ctx, size_t bytes, const char *why) {
    enum { SHOWN = 5 };
    mimic_pool *p = ctx->pool;
    const mimic_storage *top[SHOWN];
    char text[2048] = "", limit[64] = "none", shape[160];
    size_t used = 0;
    int n = 0;
    for (const mimic_storage *s = p->storages; s; s = s->next) {
        int at = n;
        while (at > 0 && larger(s, top[at - 1]))
            at--;
        if (at == SHOWN)
            continue;
        n += n < SHOWN;
        memmove(top + at + 1, top + at, (size_t)(n - 1 - at) * sizeof *top);
        top[at] = s;
    }
    for (int i = 0; i < n && used < sizeof text; i++)
        used += (size_t)snprintf(
            text + used, sizeof text - used, "\n  tensor #%u (%s%s%s) %s %s %.1f MiB", top[i]->id,
            top[i]->op, top[i]->place ? ", " : "", top[i]->place ? top[i]->place : "",
            mimic_dtype_name((mimic_dtype)top[i]->dtype),
            mimic_shape_text(top[i]->rank, top[i]->shape, shape, sizeof shape), mib(top[i]->bytes));
    if (p->stats.limit)
        snprintf(limit, sizeof limit, "%.1f MiB", mib(p->stats.limit));
    return mimic_fail(
        ctx, MIMIC_ENOMEM,
        "out of memory (%s): %.1f MiB requested, %.1f MiB live in %lld tensors, %.1f MiB "
        "cached, limit %s%s%s",
        why, mib(bytes), mib(p->stats.live), (long long)p->stats.tensors, mib(p->stats.cached),
        limit, n ? "; the largest:" : "", text);
}

/* A new block of `bytes`, a class's size, or NULL. */
static void *new_block(mimic_ctx *ctx, size_t bytes) {
    char *b = mimic_alloc_raw(ctx, bytes);
    if (b && bytes >= 2 * huge_page) {
        uintptr_t lo = ((uintptr_t)b + huge_page - 1) & ~(huge_page - 1);
        uintptr_t hi = ((uintptr_t)b + bytes) & ~(huge_page - 1);
        madvise((void *)lo, hi - lo, MADV_HUGEPAGE); /* a hint: failure is harmless */
    }
    return b;
}

mimic_status mimic_pool_get(mimic_ctx *ctx, size_t bytes, void **out) {
    mimic_pool *p = ctx->pool;
    size_t wanted = bytes;
    if (bytes > (size_t)1 << 46)
        return report(ctx, bytes, "no machine has that much");
    int c = class_of(&bytes);
    if (p->stats.limit && p->stats.live + bytes > p->stats.limit)
        return report(ctx, wanted, "over the memory limit");
    if (!mimic_alloc_note(
            ctx)) { /* an injected failure stands for one that trimming did not help */
        mimic_trim(ctx);
        return report(ctx, wanted, "the system gives no more");
    }
    block *b = p->free[c];
    if (b) {
        __asan_unpoison_memory_region(b, wanted > sizeof *b ? wanted : sizeof *b);
        p->free[c] = b->next;
        p->stats.cached -= bytes;
    } else {
        if (p->stats.limit && p->stats.live + p->stats.cached + bytes > p->stats.limit)
            mimic_trim(ctx);
        b = new_block(ctx, bytes);
        if (!b && p->stats.cached) {
            mimic_trim(ctx);
            b = new_block(ctx, bytes);
        }
        if (!b) {
            mimic_free_note(ctx);
            return report(ctx, wanted, "the system gives no more");
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
    __asan_unpoison_memory_region(b, sizeof *b);
    b->next = p->free[c];
    __asan_poison_memory_region(b, bytes);
    p->free[c] = b;
    p->stats.live -= bytes;
    p->stats.cached += bytes;
    mimic_free_note(ctx);
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

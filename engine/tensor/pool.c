/* Tensor memory of one device: blocks of size classes (32 steps per power of two, so 3 % are
 * lost at most) kept in stacks of
 * free ones, so that a step that repeats gets the same addresses and no page is faulted in twice.
 * A device works its operators off in order, so a block may be used again at once. */
#include <stdio.h>
#include <string.h>

#include "ops/op_impl.h"
#include "tensor/views.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(p, n) ((void)(p), (void)(n))
#define __asan_unpoison_memory_region(p, n) ((void)(p), (void)(n))
#endif

enum { LOG_STEPS = 5, STEPS = 1 << LOG_STEPS, CLASSES = STEPS * 48, RETIRED_LEAST = 1 << 20 };

/* The blocks of one size. Blocks may be out of the host's reach, so their addresses are kept here;
 * there is room for all of them before one is handed out: giving back cannot fail. */
typedef struct class_blocks {
    void **free;         /* [2 room]: the free ones, then from [room] on those of the arena */
    int32_t count, kept; /* how many of each; the last one is taken next */
    int32_t blocks, room;
    int32_t cold;  /* the first so many have given their pages back: taken last */
    int32_t least; /* so many were free all through the forward pass, or made after it */
} class_blocks;

struct mimic_pool {
    class_blocks classes[CLASSES];
    bool arena, fixed; /* blocks come from the arena now; it gets no more */
    mimic_memory stats;
    size_t owed;             /* see mimic_pool_owe */
    bool forward;            /* since then, until backward: `least` is watched */
    mimic_storage *storages; /* list of the live ones, newest first */
};

/* Blocks that lie in a stack may not be touched. */
static void poison(const mimic_device *d, void *b, size_t bytes) {
    if (d->backend->host)
        __asan_poison_memory_region(b, bytes);
}

static void unpoison(const mimic_device *d, void *b, size_t bytes) {
    if (d->backend->host)
        __asan_unpoison_memory_region(b, bytes);
}

/* Class of a size, and in *bytes the size of its blocks: 64 * (1 + k / STEPS) * 2^e. */
static int class_of(size_t *bytes) {
    size_t n = *bytes <= 64 ? 64 : *bytes;
    int e = 63 - __builtin_clzll(n); /* 2^e <= n, e >= 6 */
    int log_step = e - LOG_STEPS;
    size_t k = (n - ((size_t)1 << e) + ((size_t)1 << log_step) - 1) >> log_step; /* 0..STEPS */
    *bytes = ((size_t)1 << e) + (k << log_step);
    return (e - 6) * STEPS + (int)k; /* STEPS of e are 0 of e + 1 */
}

static size_t class_bytes(int c) {
    return (STEPS + (size_t)c % STEPS) * (64 / STEPS) << c / STEPS;
}

mimic_status mimic_pool_open(mimic_device *d) {
    d->pool = mimic_alloc_raw(d->ctx, sizeof *d->pool);
    if (!d->pool)
        return MIMIC_ENOMEM;
    memset(d->pool, 0, sizeof *d->pool);
    d->pool->stats.limit = d->ctx->cfg.memory_limit;
    return MIMIC_OK;
}

/* Gives cached blocks back to the system; not while a device records, which may not be asked. */
void mimic_pool_trim(mimic_device *d) {
    for (int c = 0; c < CLASSES && !d->pool->fixed; c++) {
        class_blocks *k = &d->pool->classes[c];
        k->cold = k->least = 0;
        for (; k->count > 0; k->blocks--) {
            void *b = k->free[--k->count];
            unpoison(d, b, class_bytes(c));
            d->backend->free(d->ctx, b);
            d->pool->stats.cached -= class_bytes(c);
        }
    }
    if (d->backend->host)
        mimic_host_trim(d->ctx);
}

void mimic_arena_enter(mimic_device *d, bool fixed) {
    d->pool->arena = true;
    d->pool->fixed = fixed;
}

void mimic_arena_leave(mimic_device *d) {
    d->pool->arena = d->pool->fixed = false;
}

bool mimic_arena_entered(const mimic_device *d) {
    return d->pool->arena;
}

void mimic_arena_drop(mimic_device *d) {
    for (int c = 0; c < CLASSES; c++) {
        class_blocks *k = &d->pool->classes[c];
        while (k->kept > 0)
            k->free[k->count++] = k->free[k->room + --k->kept];
    }
}

void mimic_trim(mimic_ctx *ctx) {
    mimic_pool_trim(ctx->device);
}

/* Called after the last tensor lost its bytes. */
void mimic_pool_close(mimic_device *d) {
    if (!d->pool)
        return;
    mimic_arena_drop(d);
    mimic_pool_trim(d);
    for (int c = 0; c < CLASSES; c++)
        mimic_free_raw(d->ctx, d->pool->classes[c].free);
    mimic_free_raw(d->ctx, d->pool);
    d->pool = NULL;
}

void mimic_pool_track(mimic_storage *s) {
    mimic_pool *p = s->device->pool;
    s->next = p->storages;
    s->prev = NULL;
    if (s->next)
        s->next->prev = s;
    p->storages = s;
    p->stats.tensors++;
}

void mimic_pool_untrack(mimic_storage *s) {
    mimic_pool *p = s->device->pool;
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
static mimic_status report(mimic_device *d, size_t bytes, const char *why) {
    enum { SHOWN = 5 };
    mimic_pool *p = d->pool;
    const mimic_storage *top[SHOWN];
    char text[2048] = "", limit[64] = "none", beside[256] = "", shape[160];
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
    if (d->backend->beside)
        d->backend->beside(d->ctx, beside, sizeof beside);
    return mimic_fail(
        d->ctx, MIMIC_ENOMEM,
        "out of memory%s (%s): %.1f MiB requested, %.1f MiB live in %lld tensors, %.1f MiB "
        "cached, limit %s%s%s%s",
        d->backend->host ? "" : " on the device", why, mib(bytes), mib(p->stats.live),
        (long long)p->stats.tensors, mib(p->stats.cached), limit, beside, n ? "; the largest:" : "",
        text);
}

/* A new block of the class. MIMIC_ENOMEM is for the caller to tell. */
static mimic_status new_block(mimic_device *d, int class, void **out) {
    class_blocks *k = &d->pool->classes[class];
    if (k->blocks == k->room) {
        int32_t room = k->room ? 2 * k->room : 8;
        void **wider = mimic_alloc_raw(d->ctx, 2 * (size_t)room * sizeof *wider);
        if (!wider)
            return MIMIC_ENOMEM;
        if (k->count > 0)
            memcpy(wider, k->free, (size_t)k->count * sizeof *wider);
        if (k->kept > 0)
            memcpy(wider + room, k->free + k->room, (size_t)k->kept * sizeof *wider);
        mimic_free_raw(d->ctx, k->free);
        k->free = wider;
        k->room = room;
    }
    mimic_status st = d->backend->alloc(d->ctx, class_bytes(class), out);
    if (!st) {
        k->blocks++;
        k->least += !d->pool->forward;
    }
    return st;
}

mimic_status mimic_device_get(mimic_device *d, size_t bytes, void **out) {
    mimic_pool *p = d->pool;
    size_t wanted = bytes;
    if (bytes > (size_t)1 << 46)
        return report(d, bytes, "no machine has that much");
    int c = class_of(&bytes);
    class_blocks *k = &p->classes[c];
    if (p->stats.limit && p->stats.live + bytes > p->stats.limit)
        return report(d, wanted, "over the memory limit");
    if (!mimic_alloc_note(d->ctx)) {
        /* an injected failure stands for one that trimming did not help */
        mimic_pool_trim(d);
        return report(d, wanted, "the system gives no more");
    }
    void *b;
    if (p->arena && k->kept > 0) {
        b = k->free[k->room + --k->kept];
        unpoison(d, b, wanted);
        p->stats.cached -= bytes;
    } else if (k->count > 0) {
        b = k->free[--k->count];
        k->cold = k->cold < k->count ? k->cold : k->count;
        if (p->forward && k->count < k->least)
            k->least = k->count;
        unpoison(d, b, wanted);
        p->stats.cached -= bytes;
    } else if (p->fixed) {
        mimic_free_note(d->ctx);
        return report(d, wanted, "more than the steps before the recording took");
    } else {
        if (p->stats.limit && p->stats.live + p->stats.cached + bytes > p->stats.limit)
            mimic_pool_trim(d);
        mimic_status st = new_block(d, c, &b);
        if (st == MIMIC_ENOMEM && p->stats.cached) {
            mimic_pool_trim(d);
            st = new_block(d, c, &b);
        }
        if (st) {
            mimic_free_note(d->ctx);
            return st == MIMIC_ENOMEM ? report(d, wanted, "the system gives no more") : st;
        }
    }
    p->stats.live += bytes;
    if (p->stats.live > p->stats.peak)
        p->stats.peak = p->stats.live;
    if (d->backend->taken)
        d->backend->taken(d->ctx, b, wanted, bytes);
    *out = b;
    return MIMIC_OK;
}

void mimic_device_put(mimic_device *d, void *b, size_t bytes) {
    mimic_device_put_in(d, b, bytes, d->pool->arena);
}

void mimic_device_put_in(mimic_device *d, void *b, size_t bytes, bool arena) {
    if (!b)
        return;
    mimic_pool *p = d->pool;
    class_blocks *k = &p->classes[class_of(&bytes)];
    poison(d, b, bytes);
    if (d->backend->given)
        d->backend->given(d->ctx, b, bytes);
    if (arena)
        k->free[k->room + k->kept++] = b;
    else
        k->free[k->count++] = b;
    p->stats.live -= bytes;
    p->stats.cached += bytes;
    mimic_free_note(d->ctx);
}

/* Gives the pages of the first n free blocks of a class back to the system. */
static void chill(mimic_device *d, int class, int32_t n) {
    class_blocks *k = &d->pool->classes[class];
    while (k->cold < n && mimic_host_forget(d->ctx, k->free[k->cold], class_bytes(class)))
        k->cold++;
}

static int first_large(void) {
    size_t bytes = RETIRED_LEAST;
    return class_of(&bytes);
}

void mimic_pool_chill(mimic_device *d) {
    for (int c = first_large(); c < CLASSES && d->backend->host; c++)
        chill(d, c, d->pool->classes[c].count);
}

/* Chills what only backward takes, and watches anew; how much that is. */
static size_t chill_least(mimic_device *d) {
    size_t sum = 0;
    for (int c = first_large(); c < CLASSES; c++) {
        class_blocks *k = &d->pool->classes[c];
        k->least = k->least < k->count ? k->least : k->count;
        chill(d, c, k->least);
        sum += (size_t)k->least * class_bytes(c);
        k->least = k->count;
    }
    return sum;
}

void mimic_pool_owe(mimic_device *d, size_t bytes) {
    if (!d->backend->host || bytes < MIMIC_HOST_LARGE)
        return;
    d->pool->owed = bytes + chill_least(d);
    d->pool->forward = true;
}

void mimic_pool_retire(mimic_storage *s) {
    mimic_device *d = s->device;
    d->pool->forward = false;
    if (s->bytes < RETIRED_LEAST || d->pool->owed < s->bytes ||
        !mimic_host_forget(d->ctx, s->data, s->bytes))
        return;
    d->pool->owed -= s->bytes;
    s->cold = true;
}

void mimic_pool_sink(mimic_device *d, size_t bytes) {
    class_blocks *k = &d->pool->classes[class_of(&bytes)];
    void *b = k->free[k->count - 1];
    k->free[k->count - 1] = k->free[k->cold];
    k->free[k->cold++] = b;
}

mimic_status mimic_pool_get(mimic_ctx *ctx, size_t bytes, void **out) {
    return mimic_device_get(&ctx->devices[MIMIC_CPU], bytes, out);
}

void mimic_pool_put(mimic_ctx *ctx, void *p, size_t bytes) {
    mimic_device_put(&ctx->devices[MIMIC_CPU], p, bytes);
}

mimic_memory mimic_pool_stats(const mimic_device *d) {
    return d->pool->stats;
}

void mimic_memory_stats(const mimic_ctx *ctx, mimic_memory *out) {
    *out = ctx->device->pool->stats;
}

void mimic_reset_peak(mimic_ctx *ctx) {
    ctx->device->pool->stats.peak = ctx->device->pool->stats.live;
}

void mimic_set_memory_limit(mimic_ctx *ctx, size_t bytes) {
    ctx->device->pool->stats.limit = bytes;
}

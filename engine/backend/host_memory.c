/* Memory of the CPU "device": plain host memory, all calls done when they return. */
#define _GNU_SOURCE /* madvise */
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>

#include "ops/op_impl.h"

static const size_t huge_page = 2u << 20, page = 4096;

mimic_status mimic_host_alloc(mimic_ctx *ctx, size_t bytes, void **out) {
    char *b = *out = mimic_alloc_raw(ctx, bytes);
    if (b && bytes >= 2 * huge_page) {
        uintptr_t lo = ((uintptr_t)b + huge_page - 1) & ~(huge_page - 1);
        uintptr_t hi = ((uintptr_t)b + bytes) & ~(huge_page - 1);
        madvise((void *)lo, hi - lo, MADV_HUGEPAGE); /* a hint: failure is harmless */
    }
    return b ? MIMIC_OK : MIMIC_ENOMEM;
}

void mimic_host_free(mimic_ctx *ctx, void *p) {
    mimic_free_raw(ctx, p);
}

mimic_status mimic_host_copy(mimic_ctx *ctx, void *dst, const void *src, size_t bytes) {
    (void)ctx;
    if (bytes > 0)
        memcpy(dst, src, bytes);
    return MIMIC_OK;
}

bool mimic_host_forget(mimic_ctx *ctx, void *p, size_t bytes) {
    uintptr_t lo = ((uintptr_t)p + page - 1) & ~(page - 1),
              hi = ((uintptr_t)p + bytes) & ~(page - 1);
    if (!mimic_system_alloc(ctx)) /* the host's own memory may be anything */
        return false;
    return lo >= hi || madvise((void *)lo, hi - lo, MADV_DONTNEED) == 0;
}

void mimic_host_trim(mimic_ctx *ctx) {
    if (mimic_system_alloc(ctx))
        malloc_trim(0);
}

mimic_status mimic_host_clear(mimic_ctx *ctx, void *dst, size_t bytes) {
    uintptr_t p = (uintptr_t)dst, lo = (p + page - 1) & ~(page - 1), hi = (p + bytes) & ~(page - 1);
    if (bytes >= MIMIC_HOST_LARGE && mimic_host_forget(ctx, dst, bytes)) {
        memset(dst, 0, lo - p);
        memset((void *)hi, 0, p + bytes - hi);
    } else if (bytes > 0) {
        memset(dst, 0, bytes);
    }
    return MIMIC_OK;
}

mimic_status mimic_host_sync(mimic_ctx *ctx) {
    (void)ctx;
    return MIMIC_OK;
}

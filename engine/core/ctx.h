/* Inside of the context, for the engine only. Every allocation of the engine goes through
 * mimic_alloc, so that failure can be injected and leaks counted. */
#ifndef MIMIC_CTX_H
#define MIMIC_CTX_H

#include "mimic/core.h"

#ifdef __cplusplus /* a device module sees the struct, but never touches what is atomic */
typedef int64_t mimic_counter;
#else
typedef _Atomic int64_t mimic_counter;
#endif

typedef struct mimic_pool mimic_pool;
typedef struct mimic_threads_pool mimic_threads_pool;
typedef struct mimic_tape mimic_tape;
typedef struct mimic_scopes mimic_scopes;
typedef struct mimic_profile mimic_profile;
typedef struct mimic_backend mimic_backend;

enum { MIMIC_NAME_DEPTH = 32, MIMIC_MESSAGE_SIZE = 8192, MIMIC_SLAB_CLASSES = 24 };

/* Where tensors live and operators run. The CPU is always open, another device once it was asked
 * for. */
enum { MIMIC_CPU, MIMIC_CUDA, MIMIC_DEVICES };
typedef struct mimic_device {
    mimic_ctx *ctx;
    const mimic_backend *backend; /* NULL: not open */
    mimic_pool *pool;             /* tensor/pool.c */
    void *state;                  /* the backend's own */
} mimic_device;

struct mimic_ctx {
    mimic_config cfg;
    mimic_status status;
    char *message; /* MIMIC_MESSAGE_SIZE bytes, taken at open: a message needs no memory */
    size_t message_size;
    const char *names[MIMIC_NAME_DEPTH]; /* interned */
    int name_depth;
    const char *place; /* interned, or NULL */
    struct mimic_intern *intern;
    mimic_counter alloc_count, alloc_live, fail_at; /* fail_at: 0 off, else countdown */
    bool fail_sticky;
    bool closed; /* mimic_close ran; this struct waits for the last handle */
    int64_t slab_count,
        slab_live; /* the same counts for slabs and the pool: one thread, no atomics */
    struct mimic_slab_chunk *slab_chunks;
    struct mimic_slab_item *slab_free[MIMIC_SLAB_CLASSES];
    struct mimic_tensor *tensors; /* those outside of all scopes, newest first */
    mimic_threads_pool *threads;  /* core/threads.c */
    mimic_tape *tape;             /* autograd/tape.c */
    mimic_scopes *scopes;         /* tensor/scope.c */
    mimic_profile *profile;       /* autograd/profile.c: where events go, NULL = off */
    mimic_profile *recorded;      /* the events of the last profile */
    struct mimic_graph *graph;    /* tensor/graph.c: the recorder, or NULL */
    mimic_device devices[MIMIC_DEVICES];
    mimic_device *device; /* where new tensors are made */
    uint64_t seed, step;
    uint32_t next_stream;
    uint32_t next_tensor_id;
    bool grad_enabled, check_nan;
};

/* Bytes from the context's allocator (64-byte aligned, not zeroed); NULL after setting the message.
 * Free with mimic_free. Thread-safe; the message is set only on the context's own thread. */
void *mimic_alloc(mimic_ctx *ctx, size_t bytes);
void *mimic_try_alloc(mimic_ctx *ctx, size_t bytes); /* the same, leaving the message alone */
void *mimic_calloc(mimic_ctx *ctx, size_t bytes);
void *mimic_realloc(mimic_ctx *ctx, void *p, size_t old_bytes, size_t bytes);
void mimic_free(mimic_ctx *ctx, void *p);
char *mimic_strdup(mimic_ctx *ctx, const char *s);
/* Small structs (tensors, nodes) from free lists of 64-byte classes up to 1.5 KB, not zeroed; on
 * the context's thread only. Each counts as an allocation, for injection and leaks. One that is put
 * back after mimic_close, the last of them, ends the context's struct. */
void *mimic_slab_get(mimic_ctx *ctx, size_t bytes);
void mimic_slab_put(mimic_ctx *ctx, void *p, size_t bytes);
/* For what belongs to the context itself (pool, slabs, interned text): neither counted nor
 * injected, and no message. */
void *mimic_alloc_raw(mimic_ctx *ctx, size_t bytes);
void mimic_free_raw(mimic_ctx *ctx, void *p);
/* Counts one block taken from such a cache; false when fault injection wants it to fail. */
bool mimic_alloc_note(mimic_ctx *ctx);
void mimic_free_note(mimic_ctx *ctx);
/* One copy of each text for the life of the context; "" on failure (benign: only messages use it).
 */
const char *mimic_intern_text(mimic_ctx *ctx, const char *s);
void mimic_log(mimic_ctx *ctx, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Threads that the engine starts mark themselves; in them mimic_fail leaves the context's message
 * alone. */
void mimic_mark_worker_thread(void);
bool mimic_on_own_thread(const mimic_ctx *ctx);

/* Runs fn(arg, i, worker) for i in 0..n-1 on the context's threads, chunks claimed from a counter;
 * returns when all are done. worker is 0..threads-1. The order is free: a result must depend on i
 * alone. Calls from inside fn run serially. */
void mimic_parallel(mimic_ctx *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int worker),
                    void *arg);

/* Philox4x32-10 of Random123: key = seed, counter = (index, stream, step low, step high). */
void mimic_philox(uint64_t seed, uint32_t stream, uint64_t step, uint32_t index, uint32_t out[4]);
/* Inverse of the normal distribution's CDF, 0 < p < 1 (core/random_math.h). */
double mimic_normal_icdf(double p);

/* Life-cycle hooks of core, called by mimic_open and mimic_close. */
void mimic_alloc_init(mimic_config *cfg);      /* fills in the default allocator */
bool mimic_system_alloc(const mimic_ctx *ctx); /* whether that is the one in use */
mimic_status mimic_threads_init(mimic_ctx *ctx, int threads);
void mimic_threads_close(mimic_ctx *ctx);
void mimic_intern_close(mimic_ctx *ctx);
void mimic_slabs_close(
    mimic_ctx *ctx); /* frees the context's struct too, now or with the last handle */

#endif

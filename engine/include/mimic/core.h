/* Context, status codes, messages, memory accounting. */
#ifndef MIMIC_CORE_H
#define MIMIC_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MIMIC_VERSION "0.1.0"

typedef enum mimic_status {
    MIMIC_OK = 0,
    MIMIC_EINVAL,  /* wrong argument: shape, dtype, range, unknown name */
    MIMIC_ENOMEM,  /* out of memory; the message holds the report */
    MIMIC_EIO,     /* a file could not be read or written; errno text and path in the message */
    MIMIC_EFORMAT, /* a file was read but its content is wrong: damaged JPEG, lying safetensors */
    MIMIC_ESTATE,  /* wrong order of calls: freed tensor, second backward, closed database */
    MIMIC_EUNSUPPORTED, /* asked for something this build or backend has not */
    MIMIC_ENUMERIC,     /* NaN or infinity where check_nan or a loss refuses it */
    MIMIC_EDB           /* SQLite said no; its text is in the message */
} mimic_status;

typedef struct mimic_ctx mimic_ctx;

/* Everything may be zero: then the default in brackets holds. */
typedef struct mimic_config {
    /* [aligned_alloc, free] memory aligned to 64 bytes, or NULL; both or neither */
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *p);
    /* [none] level: 0 debug, 1 info, 2 warning, 3 error */
    void (*log)(void *user, int level, const char *text);
    void *user;
    uint64_t seed;       /* [0] key of every random number of the context */
    int threads;         /* [number of cores, or MIMIC_THREADS] 1 to 256, the caller included */
    size_t memory_limit; /* [none] bytes of tensor memory beyond which is MIMIC_ENOMEM */
    const char *isa;     /* [best, or MIMIC_ISA] "base", "avx2", "avx512", "amx": CPU kernels */
    /* [cpu, or MIMIC_DEVICE] where tensors are made: "cpu", "cuda". When it cannot be opened,
     * mimic_open fails with MIMIC_EUNSUPPORTED; `log` gets the reason. */
    const char *device;
} mimic_config;

/* Opens a context. On failure *out is NULL and cfg->log is told why: there is no context to hold a
 * message. */
mimic_status mimic_open(const mimic_config *cfg, mimic_ctx **out);
/* Joins threads, frees everything the context owns. NULL is allowed. Tensor references that are
 * still held stay valid as empty handles ("freed with its context") and may be released then. */
void mimic_close(mimic_ctx *ctx);

/* Text of the last failure, "" if none. Valid until the next failing call. */
const char *mimic_message(const mimic_ctx *ctx);
mimic_status mimic_last_status(const mimic_ctx *ctx);
const char *mimic_status_name(mimic_status status); /* "EINVAL" */
/* Sets the message (printf format), prefixed by the name stack of mimic_push_name, and returns
 * `status`. NULL ctx is allowed. */
mimic_status mimic_fail(mimic_ctx *ctx, mimic_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Name stack: "vit.blocks.3.attn" in front of messages. A push beyond the maximal depth is counted
 * but not shown; every push needs its pop. mimic_name_depth / mimic_set_name_depth let an error
 * handler cut back what a failed call left. */
void mimic_push_name(mimic_ctx *ctx, const char *name);
void mimic_pop_name(mimic_ctx *ctx);
int mimic_name_depth(const mimic_ctx *ctx);
void mimic_set_name_depth(mimic_ctx *ctx, int depth);

/* Where the script is now ("train.lua:42"); kept with tensors and tape nodes for messages.
 * The text is copied (interned) by the context. */
void mimic_set_place(mimic_ctx *ctx, const char *place);
/* For callers that come by the same places again and again: the context's copy of a place, which
 * lives as long as it does, and the same as mimic_set_place with such a copy, at no cost. */
const char *mimic_intern_place(mimic_ctx *ctx, const char *place);
void mimic_set_interned_place(mimic_ctx *ctx, const char *interned);

typedef struct mimic_memory {
    size_t live;     /* bytes in use by tensors now */
    size_t cached;   /* bytes kept by the pool for reuse */
    size_t peak;     /* largest `live` since open or mimic_reset_peak */
    size_t limit;    /* 0 = none */
    int64_t tensors; /* number of storages alive */
} mimic_memory;
void mimic_memory_stats(const mimic_ctx *ctx, mimic_memory *out);
void mimic_reset_peak(mimic_ctx *ctx);
void mimic_trim(mimic_ctx *ctx); /* gives cached bytes back to the system */
void mimic_set_memory_limit(mimic_ctx *ctx, size_t bytes);

/* Devices. New tensors are made on the current one; an operator runs where its inputs are. "cuda"
 * needs the module libmimic_cuda.so (beside the program or library, or MIMIC_CUDA=FILE), a driver
 * and a GPU; without one of them it is MIMIC_EUNSUPPORTED and the message says which. */
mimic_status mimic_set_device(mimic_ctx *ctx, const char *name);
const char *mimic_get_device(const mimic_ctx *ctx);
/* Number of kinds of devices that the engine knows, and their names. */
int mimic_device_count(void);
const char *mimic_device_at(int i);
/* What the device is ("NVIDIA H100 ..., 80 GiB, ..."), into buf; or fails as mimic_set_device does.
 */
mimic_status mimic_device_about(mimic_ctx *ctx, const char *name, char *buf, size_t size);
/* Waits until the device has done all that was asked of it. */
mimic_status mimic_sync(mimic_ctx *ctx);

int mimic_threads(const mimic_ctx *ctx);
/* Changes the number of compute threads; results do not depend on it. */
mimic_status mimic_set_threads(mimic_ctx *ctx, int threads);
const char *mimic_isa(const mimic_ctx *ctx); /* the CPU kernels in use */

/* Fault injection for tests: the n-th allocation from now (1 = next) fails, and all after it while
 * `sticky`. 0 turns it off. mimic_alloc_count: allocations since open; mimic_alloc_live: blocks not
 * yet freed (0 after everything is released, the context itself apart). */
void mimic_fail_alloc(mimic_ctx *ctx, int64_t n, bool sticky);
int64_t mimic_alloc_count(const mimic_ctx *ctx);
int64_t mimic_alloc_live(const mimic_ctx *ctx);

/* Random numbers are Philox4x32-10 (Random123) with key = seed and counter = (stream, step, index):
 * independent of threads and call history. Operators that draw take the next stream number of the
 * current step, so the same step with the same calls gives the same numbers, also after resume. */
void mimic_seed(mimic_ctx *ctx, uint64_t seed);
uint64_t mimic_get_seed(const mimic_ctx *ctx);
void mimic_set_step(mimic_ctx *ctx, uint64_t step); /* also restarts the stream count */
uint64_t mimic_get_step(const mimic_ctx *ctx);

/* A counter-based generator for the host: same key and counter, same numbers, everywhere. */
typedef struct mimic_rng {
    uint64_t seed;
    uint32_t stream;
    uint64_t step;
    uint32_t index; /* next 4-number block */
    uint32_t block[4];
    int used; /* numbers of `block` already handed out; 4 = none left */
} mimic_rng;
void mimic_rng_init(mimic_rng *r, uint64_t seed, uint32_t stream, uint64_t step);
uint32_t mimic_rng_u32(mimic_rng *r);
double mimic_rng_uniform(mimic_rng *r);                  /* [0,1), 32 bits */
double mimic_rng_normal(mimic_rng *r);                   /* inverse CDF of one uniform */
uint32_t mimic_rng_below(mimic_rng *r, uint32_t n);      /* 0..n-1, unbiased */
double mimic_rng_beta(mimic_rng *r, double a, double b); /* Beta(a,b); a=b=2 as method.md 6.6 */
/* Writes a permutation of 0..n-1: sorts 64-bit keys (random32 << 32 | index). scratch: n uint64. */
void mimic_rng_shuffle(mimic_rng *r, int32_t *out, uint64_t *scratch, int32_t n);

#ifdef __cplusplus
}
#endif
#endif

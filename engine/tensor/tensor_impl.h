/* Inside of tensors, storages, pool: for the engine only. */
#ifndef MIMIC_TENSOR_IMPL_H
#define MIMIC_TENSOR_IMPL_H

#include "core/ctx.h"
#include "mimic/tensor.h"

typedef struct mimic_node mimic_node;

/* Counts of references are plain numbers: a context, and so its tensors, is used by one thread at a
 * time. */

/* Bytes, shared by the views of one tensor. */
typedef struct mimic_storage {
    uint32_t refs;
    mimic_device *device;
    void *data; /* in the device's memory */
    size_t bytes;
    uint32_t id; /* birth, for the out-of-memory report */
    uint8_t dtype, rank;
    bool cold;  /* retired: see mimic_pool_retire */
    bool arena; /* of the recorder's memory */
    int64_t shape[MIMIC_MAX_RANK];
    const char *op, *place;
    struct mimic_storage *next, *prev; /* the pool's list of live storages */
} mimic_storage;

enum mimic_end { MIMIC_END_NONE, MIMIC_END_FREED, MIMIC_END_SCOPE, MIMIC_END_CONTEXT };

struct mimic_tensor { /* a view: cheap, never owns bytes itself */
    uint32_t refs;
    uint8_t dtype, rank;
    bool requires_grad, leaf;
    int64_t shape[MIMIC_MAX_RANK], stride[MIMIC_MAX_RANK]; /* elements */
    int64_t offset;                                        /* elements */
    mimic_storage *storage;                                /* NULL once freed */
    mimic_ctx *ctx;                                        /* NULL after the context closed */
    mimic_tensor *next, *prev, **list; /* in its scope's list, or the context's: not a reference */
    uint8_t end;                       /* why storage is NULL: enum mimic_end */
    mimic_ctx *home;    /* whose slab the handle is from, also after the context closed */
    mimic_tensor *grad; /* leaves only */
    mimic_node *node;   /* the tape node that made it, or NULL */
    int node_out;       /* which output of the node */
    uint32_t id, scope; /* scope 0 = outside */
    const char *op;     /* birth: operator name and script line, interned */
    const char *place;
};

/* A tensor with uninitialised bytes on a device, which may not have the dtype: outputs of
 * operators.
 */
mimic_status mimic_tensor_make(mimic_device *d, mimic_dtype dtype, int rank, const int64_t *shape,
                               const char *op, mimic_tensor **out);
mimic_status mimic_tensor_zeros(mimic_device *d, mimic_dtype dtype, int rank, const int64_t *shape,
                                mimic_tensor **out);
/* A view of t's storage with another geometry. */
mimic_status mimic_tensor_view(mimic_ctx *ctx, mimic_tensor *t, int rank, const int64_t *shape,
                               const int64_t *stride, int64_t offset, const char *op,
                               mimic_tensor **out);
/* Fails with "was freed when its scope closed" for dead handles. */
mimic_status mimic_tensor_check(mimic_ctx *ctx, const mimic_tensor *t, const char *what);
static inline int64_t mimic_numel(const mimic_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}
/* mimic_tensor_contiguous for the engine's inner paths. */
static inline bool mimic_dense(const mimic_tensor *t) {
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != stride)
            return false;
        stride *= t->shape[i];
    }
    return true;
}
static inline void *mimic_data(const mimic_tensor *t) {
    static const uint8_t size[MIMIC_DTYPE_COUNT] = {4, 2, 8, 4, 1};
    return (char *)t->storage->data + t->offset * size[t->dtype];
}
/* n elements from src (every src_stride-th) to contiguous dst, converting. */
void mimic_convert(mimic_dtype to, void *dst, mimic_dtype from, const void *src, int64_t n,
                   int64_t src_stride);
/* "[2,3,4]" into buf, which it returns. */
const char *mimic_shape_text(int rank, const int64_t *shape, char *buf, size_t size);

/* Pool of a device's tensor memory: size-class free lists over aligned blocks, counts, limit. The
 * same order of calls gives the same addresses. On failure the message is the out-of-memory report.
 */
mimic_status mimic_device_get(mimic_device *d, size_t bytes, void **out);
void mimic_device_put(mimic_device *d, void *p, size_t bytes);
/* The arena of recorded steps (graph.c): between enter and leave blocks come from it, filled up
 * from the pool's free ones, and those of it that are given back stay in it, until it is dropped.
 * `fixed`: the device is not asked for more. */
void mimic_arena_enter(mimic_device *d, bool fixed);
void mimic_arena_leave(mimic_device *d);
void mimic_arena_drop(mimic_device *d);
bool mimic_arena_entered(const mimic_device *d);
/* mimic_device_put of a block whose origin is known. */
void mimic_device_put_in(mimic_device *d, void *p, size_t bytes, bool arena);
/* The same of the CPU: scratch memory of its kernels. */
mimic_status mimic_pool_get(mimic_ctx *ctx, size_t bytes, void **out);
void mimic_pool_put(mimic_ctx *ctx, void *p, size_t bytes);

/* Gives cached blocks back to the system. */
void mimic_pool_trim(mimic_device *d);
/* The cached blocks stay, but give their pages back until they are used again. */
void mimic_pool_chill(mimic_device *d);
/* The gradients' arena has given up `bytes` of pages, which backward will take again while it
 * frees what the tape held: as much of that goes back to the system meanwhile (mimic_pool_retire,
 * of a storage about to be released by its last holder), and as much as the blocks have that no
 * forward pass takes, which give theirs up now. So forward's, backward's and the gradients' memory
 * are never all there. */
void mimic_pool_owe(mimic_device *d, size_t bytes);
void mimic_pool_retire(mimic_storage *s);
/* The block given back last, of `bytes`, is of a retired storage. */
void mimic_pool_sink(mimic_device *d, size_t bytes);

/* The list of live storages, for the report. */
void mimic_pool_track(mimic_storage *s);
void mimic_pool_untrack(mimic_storage *s);
/* Takes t's bytes away (its share of the storage, its gradient, its node); `end` says why in later
 * errors. */
void mimic_tensor_end(mimic_tensor *t, enum mimic_end end);
/* Lets t share the storage of another buffer from now on (parameters moving into an arena). */
void mimic_tensor_repoint(mimic_tensor *t, mimic_tensor *arena, int64_t offset);
void mimic_node_release(mimic_node *node); /* autograd/tape.c */

/* Engine life cycle hooks, called by mimic_open / mimic_close. */
mimic_status mimic_pool_open(mimic_device *d);
void mimic_pool_close(mimic_device *d);
void mimic_tensors_close(mimic_ctx *ctx);
mimic_status mimic_scopes_init(mimic_ctx *ctx);
void mimic_scopes_close(mimic_ctx *ctx);
/* Lists: a new tensor belongs to the innermost scope, or to the context outside of all. */
void mimic_scope_add(mimic_ctx *ctx, mimic_tensor *t);
void mimic_tensor_link(mimic_tensor *t, mimic_tensor **list);
void mimic_tensor_unlink(mimic_tensor *t);
void mimic_scope_move_out(mimic_tensor *t); /* to the scope around the innermost */
void mimic_scope_forget(mimic_tensor *t);   /* from now on t lives as long as its references */

/* Batches for a device: host memory it can fetch from by itself, a tensor made from it without
 * waiting, and the wait after which the memory may be written again. On the CPU: plain copies, and
 * nothing is ever pending. */
void *mimic_feed_alloc(mimic_device *d, size_t bytes);
void mimic_feed_free(mimic_device *d, void *p);
mimic_status mimic_feed(mimic_device *d, mimic_dtype dtype, int rank, const int64_t *shape,
                        const void *data, mimic_tensor **out);
bool mimic_feed_pending(const mimic_device *d);
mimic_status mimic_feed_wait(mimic_device *d);

static inline float mimic_bf16_to_f32(uint16_t b) {
    union {
        uint32_t u;
        float f;
    } x = {.u = (uint32_t)b << 16};
    return x.f;
}
static inline uint16_t mimic_f32_to_bf16(float f) { /* nearest even; NaN stays NaN */
    union {
        float f;
        uint32_t u;
    } x = {.f = f};
    if ((x.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((x.u >> 16) | 0x40u);
    return (uint16_t)((x.u + 0x7fffu + ((x.u >> 16) & 1u)) >> 16);
}

#endif

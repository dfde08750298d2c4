/* The operator record and what shape rules and gradients see. To add an operator:
 *   1. engine/ops/NAME.c (or its family's file): a `const mimic_op mimic_op_NAME` with shape rule,
 *      gradient, cases and doc, no arithmetic;
 *   2. one line X(NAME) in ops.def: it makes the table and each backend's slot;
 *   3. a kernel KERNEL(NAME) in engine/backend/cpu/ (a missing one is a link error).
 * The binding, the printed reference, gradient checks and the other tests of tests/ops follow from
 * it. */
#ifndef MIMIC_OP_IMPL_H
#define MIMIC_OP_IMPL_H

#include "mimic/op.h"
#include "tensor/tensor_impl.h"

#define MIMIC_BIT(dtype) (1u << (dtype))
#define MIMIC_FLOATS (MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_BF16) | MIMIC_BIT(MIMIC_F64))
#define MIMIC_ALL_DTYPES (MIMIC_FLOATS | MIMIC_BIT(MIMIC_I32) | MIMIC_BIT(MIMIC_U8))

enum mimic_op_flags {
    /* no kernel: `shape` sets out_shape's stride and offset too; shares in[0]'s storage */
    MIMIC_OP_VIEW = 1,
    MIMIC_OP_INTERNAL = 2, /* *_bwd rows: not a tensor method */
    MIMIC_OP_NO_GRAD = 4,  /* explicitly without gradient (argmax, masks, random, *_bwd) */
    MIMIC_OP_STRIDED = 8,  /* kernel takes strided inputs (contiguous itself, matmul) */
    /* dispatch fills the I64 attributes "seed", "stream", "step" that are negative */
    MIMIC_OP_RANDOM = 16
};

typedef struct mimic_shape_out {
    mimic_dtype dtype;
    int rank;
    int64_t shape[MIMIC_MAX_RANK];
    int64_t stride[MIMIC_MAX_RANK]; /* views only */
    int64_t offset;                 /* views only, in elements of the storage */
} mimic_shape_out;

/* One application of an operator: what shape rule and kernel see. */
typedef struct mimic_call {
    mimic_ctx *ctx;
    const mimic_op *op;
    mimic_device *device; /* of all inputs and outputs; the current one when there is no input */
    mimic_attrs attrs;
    int n_in, n_out, n_save;
    bool save_wanted; /* false: no gradient will be asked for; the kernel may skip what only save[]
                         needs, save[] are NULL */
    bool over;        /* in[0] is given up: out[0] may lie over it */
    mimic_tensor *in[MIMIC_MAX_IN]; /* contiguous unless STRIDED; NULL = optional input left out */
    mimic_tensor *out[MIMIC_MAX_OUT];           /* allocated, uninitialised, contiguous */
    mimic_tensor *save[MIMIC_MAX_SAVE];         /* extra results for the gradient */
    mimic_shape_out out_shape[MIMIC_MAX_OUT];   /* filled by the shape rule */
    mimic_shape_out save_shape[MIMIC_MAX_SAVE]; /* filled by the shape rule */
} mimic_call;

/* What a gradient sees. It sets din[i] (a new reference) for each i with need[i]; leaving NULL
 * means zero. It computes by applying operators with mimic_apply1/mimic_apply (the tape is off). */
typedef struct mimic_vjp {
    mimic_ctx *ctx;
    const mimic_op *op;
    mimic_attrs attrs;
    int n_in, n_out, n_save;
    mimic_tensor *in[MIMIC_MAX_IN];   /* NULL when not in keep_in */
    mimic_tensor *out[MIMIC_MAX_OUT]; /* NULL when not in keep_out */
    mimic_tensor *save[MIMIC_MAX_SAVE];
    /* The two that follow may be released and set NULL once read, to make room. */
    mimic_tensor *made[MIMIC_MAX_IN];  /* in[i] if it was made again for this call, else NULL */
    mimic_tensor *dout[MIMIC_MAX_OUT]; /* contiguous gradient of each output, NULL = zero; at least
                                          one is set */
    bool need[MIMIC_MAX_IN];
    mimic_shape_out in_shape[MIMIC_MAX_IN]; /* shape and dtype of every input, kept or not */
    mimic_tensor *din[MIMIC_MAX_IN];
} mimic_vjp;

/* The table, in ops.def order. */
enum mimic_op_index {
#define X(name) MIMIC_OP_##name,
#include "ops/ops.def"
#undef X
    MIMIC_OP_COUNT
};
struct mimic_op {
    const char *name;
    uint8_t index;        /* MIMIC_OP_<name>, place in the table and in each backend */
    uint8_t min_in, n_in; /* optional inputs lie between; concat: n_in = MIMIC_MAX_IN */
    uint8_t n_out, n_save;
    uint8_t keep_in, keep_out; /* bit i: the gradient reads in[i] / out[i] */
    uint8_t no_grad_in;        /* bit i: input i is data (labels, masks), never differentiated */
    unsigned flags, dtypes;    /* dtypes: what in[0] may be (checked by dispatch) */
    mimic_attr attrs[MIMIC_MAX_ATTR];
    mimic_status (*shape)(mimic_call *c);
    mimic_status (*vjp)(mimic_vjp *g); /* NULL with MIMIC_OP_NO_GRAD */
    /* Makes out[k], one that keep_out leaves out, again in one pass, from what the node holds, with
     * the bits of the first time. On the host a gradient that reads such an output has it made
     * again instead of keeping it. Never asked of a node whose saves were all left out. NULL:
     * outputs are kept. */
    mimic_status (*again)(const mimic_vjp *g, int k, mimic_tensor **out);
    uint8_t again_in; /* bit i: it reads in[i] */
    /* Of the matrix products in it, 2 per multiply-add, for the profiler; NULL = none. */
    double (*flops)(const mimic_call *c);
    const char *inputs; /* "x weight bias?" names for messages and docs, ? = optional */
    /* Test cases, separated by ';': "x[2,5,8] weight[8] bias[8] eps=1e-3; x[7,64]:bf16 weight[64]
     * bias[64]". NAME[shape][:dtype][=fill], fill: randn (default for floats), uniform (0.1..1.1),
     * positive, index(N) (i32 in 0..N-1), perm (i32 rows of permutations), bool (u8 0/1), or a
     * number. '-' = optional input left out. attr=value follow. First dtype defaults to f32, which
     * the gradient check runs as f64. */
    const char *cases;
    const char *doc;
};

#define X(name) extern const mimic_op mimic_op_##name;
#include "ops/ops.def"
#undef X

/* --- helpers for shape rules (ops/shape_util.c) ----------------------------------------------- */

/* Fails with "OP: " and the operands' shapes appended: `layernorm: weight has 7 elements, x's last
 * axis 8: x [2,5,8], weight [7], bias [8]`. */
mimic_status mimic_shape_fail(const mimic_call *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* out[k] gets the shape of t with dtype. */
void mimic_out_like(mimic_call *c, int k, const mimic_tensor *t, mimic_dtype dtype);
void mimic_out_set(mimic_call *c, int k, mimic_dtype dtype, int rank, const int64_t *shape);
void mimic_save_set(mimic_call *c, int k, mimic_dtype dtype, int rank, const int64_t *shape);
/* Turns a possibly negative 0-based axis into 0..rank-1, or fails. */
mimic_status mimic_axis(const mimic_call *c, int64_t axis, int rank, int *out);
/* f32 for f32 and bf16 inputs, f64 for f64: the dtype of statistics, gains, biases and losses. */
static inline mimic_dtype mimic_accum_dtype(mimic_dtype d) {
    return d == MIMIC_F64 ? MIMIC_F64 : MIMIC_F32;
}

/* --- helpers for gradients -------------------------------------------------------------------- */

/* Applies an operator with up to 4 inputs and returns its only output. */
mimic_status mimic_apply1(mimic_ctx *ctx, const mimic_op *op, const mimic_attrs *attrs,
                          mimic_tensor **out, int n_in, mimic_tensor *const *in);
/* mimic_op_apply for an operator that reads an element of in[0] before it writes that of out[0] and
 * no other after: out[0] takes in[0]'s bytes when the caller's reference is the only one to them.
 * The caller releases in[0] and reads it no more. */
mimic_status mimic_apply_over(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *const *in, int n_in,
                              const mimic_attrs *attrs, mimic_tensor **out);

/* --- backends --------------------------------------------------------------------------------- */

typedef mimic_status (*mimic_kernel)(mimic_call *c);

typedef struct mimic_optim_args mimic_optim_args;   /* autograd/optim_impl.h */
typedef struct mimic_augment_job mimic_augment_job; /* image/plan.h */

/* What a device can do. Calls of one context are worked off in order; only `download` and `sync`
 * wait for them, so a failure may be reported by a later call. */
struct mimic_backend {
    const char *name; /* "cpu/avx512", "cuda" */
    bool host; /* tensors lie in host memory: bytes may be touched, calls do not return early */
    unsigned dtypes;                      /* MIMIC_BIT of those its tensors may have */
    mimic_kernel kernels[MIMIC_OP_COUNT]; /* NULL for view operators, and where one is missing */
    /* Device memory, 64-byte aligned, not zeroed. MIMIC_ENOMEM when there is no more, which the
     * caller tells; any other failure has set the message. */
    mimic_status (*alloc)(mimic_ctx *ctx, size_t bytes, void **out);
    void (*free)(mimic_ctx *ctx, void *p);
    /* Host to device (the source is free again on return), device to host, within the device. */
    mimic_status (*upload)(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
    mimic_status (*download)(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
    mimic_status (*copy)(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
    mimic_status (*clear)(mimic_ctx *ctx, void *dst, size_t bytes); /* zero bytes */
    mimic_status (*sync)(mimic_ctx *ctx);
    /* Without waiting; NULL on the CPU. post: up to 8 bytes to the host, collect waits for them and
     * frees the slot. pin: host memory for feed, which copies to the device beside the operators;
     * fed waits until all that was fed has been read. */
    mimic_status (*post)(mimic_ctx *ctx, const void *src, size_t bytes, int *slot);
    mimic_status (*collect)(mimic_ctx *ctx, int slot, void *dst);
    void *(*pin)(mimic_ctx *ctx, size_t bytes);
    void (*unpin)(mimic_ctx *ctx, void *p);
    mimic_status (*feed)(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
    mimic_status (*fed)(mimic_ctx *ctx);
    /* The views of a batch from 8-bit pictures; NULL: the host makes them. */
    mimic_status (*augment)(mimic_ctx *ctx, const mimic_augment_job *job);
    size_t (*room)(mimic_ctx *ctx); /* bytes that alloc could give; NULL: not known */
    /* For the out-of-memory report: "; " and what else is taken and left; NULL: nothing. */
    void (*beside)(mimic_ctx *ctx, char *text, size_t size);
    /* Recorded steps (mimic/graph.h); NULL: none. Between record and recorded work is written down;
     * recorded ends that, and makes *work of it when `keep`. replay does it again with random
     * numbers of a step larger by `moved`; forget frees it. */
    mimic_status (*record)(mimic_ctx *ctx);
    mimic_status (*recorded)(mimic_ctx *ctx, bool keep, void **work);
    mimic_status (*replay)(mimic_ctx *ctx, void *work, uint64_t moved);
    void (*forget)(mimic_ctx *ctx, void *work);
    /* For devices that check: a block of the pool of `bytes` is used for `wanted` of them from now
     * on, or no longer. NULL: no need to know. */
    void (*taken)(mimic_ctx *ctx, void *p, size_t wanted, size_t bytes);
    void (*given)(mimic_ctx *ctx, void *p, size_t bytes);
    void (*about)(mimic_ctx *ctx, char *buf, size_t size); /* one line for people */
    void (*close)(mimic_ctx *ctx); /* after the pool gave all memory back; NULL: nothing to do */
    /* One pass over the flat arena; see autograd/optim_impl.h. */
    mimic_status (*optim_step)(mimic_ctx *ctx, const mimic_optim_args *args);
    /* Sum of squares of n floats (f32 or f64), two-stage, fixed order; the CPU's only. */
    mimic_status (*sum_squares)(mimic_ctx *ctx, mimic_dtype dtype, const void *x, int64_t n,
                                double *out);
    /* dst += src over n elements, dst f32/f64, src any float. */
    mimic_status (*accumulate)(mimic_ctx *ctx, mimic_dtype dst_dtype, void *dst,
                               mimic_dtype src_dtype, const void *src, int64_t n);
};
/* Opens a device by name, once per context (backend/device.c). */
mimic_status mimic_device_open(mimic_ctx *ctx, const char *name, mimic_device **out);
const char *mimic_device_name(const mimic_device *d);
void mimic_devices_close(mimic_ctx *ctx);
/* The module's backend (backend/cuda_module.c), opened for ctx: its state is in
 * devices[MIMIC_CUDA].
 */
mimic_status mimic_cuda_open(mimic_ctx *ctx, const mimic_backend **out);

/* Those of the CPU (backend/host_memory.c). Clearing MIMIC_HOST_LARGE bytes or more gives their
 * pages back to the system until they are written again. */
#define MIMIC_HOST_LARGE ((size_t)64 << 20)
mimic_status mimic_host_alloc(mimic_ctx *ctx, size_t bytes, void **out);
void mimic_host_free(mimic_ctx *ctx, void *p);
mimic_status mimic_host_copy(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
mimic_status mimic_host_clear(mimic_ctx *ctx, void *dst, size_t bytes);
mimic_status mimic_host_sync(mimic_ctx *ctx);
/* Gives whole pages of [p, p + bytes) back to the system; false: not possible, nothing is changed.
 * Those pages then read as zeros. */
bool mimic_host_forget(mimic_ctx *ctx, void *p, size_t bytes);
/* Gives back what the C library keeps of freed memory. */
void mimic_host_trim(mimic_ctx *ctx);

/* Best CPU variant for this machine, or the one named by cfg.isa. NULL if that one cannot run here.
 */
/* By name, or the best for NULL; without one NULL, and `names` lists what there is. */
const mimic_backend *mimic_cpu_backend(const char *isa, char *names, size_t size);

mimic_status mimic_tape_init(mimic_ctx *ctx);
void mimic_tape_close(mimic_ctx *ctx);
void mimic_profile_close(mimic_ctx *ctx);
void mimic_tape_clear(mimic_ctx *ctx); /* drops all nodes */
/* A checkpoint (autograd/checkpoint.c) lasts as long as its scope. begin: its number, or 0 when the
 * tape is off or an outer one is open. end: constants made inside that the replay reads move out of
 * the scope with that id. */
uint32_t mimic_checkpoint_begin(mimic_ctx *ctx);
void mimic_checkpoint_end(mimic_ctx *ctx, uint32_t segment, uint32_t scope);

#endif

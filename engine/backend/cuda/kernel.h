/* What every .cu file here sees: the launch macro, shared memory, bf16, and the small helpers that
 * kernels share. A file opens with its kernels (templates over T = float or bf16) and ends with the
 * entries KERNEL(name), one for each operator of the table. README.md says how to add one. */
#ifndef MIMIC_CUDA_KERNEL_H
#define MIMIC_CUDA_KERNEL_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "backend/cuda/module.h"

typedef __nv_bfloat16 bf16;

/* How a kernel says that its data are wrong (an index out of range): it reports the position and
 * goes on without touching memory it should not. The smallest position of the first such launch
 * becomes the error of the next call that waits. */
struct fault {
    unsigned long long *word, ticket; /* in device memory */
    __device__ void report(int64_t position) const {
        atomicMin(word, ticket | (unsigned long long)position);
    }
};
enum { FAULTS = 256, RECORDED_TICKET = 0x8000, NO_LIMIT = -1 };

/* What a ticket stands for. Its last 15 bits travel in the fault word. */
typedef struct fault_note {
    const char *op, *what, *place;
    int64_t limit;
    uint64_t ticket;
} fault_note;

enum { MAIL = 64, LANES_IN = 2, TRAIL = 8 };

/* What comes to the host in one go: a value and the fault word of that moment. The rest is the
 * host's: faults cleared, operators launched and tickets given when it was sent. */
typedef struct letter {
    double value;
    unsigned long long fault;
    uint64_t life, launched, faults;
} letter;

/* Values on their way to the host. */
typedef struct mail_box {
    letter *slots; /* [MAIL], pinned */
    cudaEvent_t there[MAIL];
    uint64_t busy; /* bit i: slot i is on its way */
} mail_box;

/* Batches on their way to the device: two buffers there, filled by a stream of their own, each read
 * by the operators' stream into the tensor, so that one fills while the other is in use. */
typedef struct feeder {
    cudaStream_t stream;
    struct lane {
        void *buffer;
        size_t bytes;
        cudaEvent_t filled, emptied;
    } lanes[LANES_IN];
    int next;
} feeder;

/* The device of one context. */
typedef struct cuda_state {
    const mimic_host *host;
    mimic_ctx *ctx;
    cudaStream_t stream; /* all operators, in order */
    int sms;             /* multiprocessors */
    size_t max_shared;   /* bytes a block can ask for */
    size_t memory;       /* of the device */
    bool sync;           /* MIMIC_SYNC=1: wait after every operator */
    char name[256];
    int major, minor;
    unsigned long long *fault_word; /* on the device; ~0: none */
    letter *fault_seen;             /* pinned: the word as the last wait found it */
    uint64_t faults, fault_life;    /* tickets given; how often the word was cleared */
    uint64_t faults_settled;        /* tickets known to have reported nothing */
    fault_note notes[FAULTS];       /* of the newest tickets */
    fault_note recorded[FAULTS];    /* of those in a recorded step, which keep theirs */
    uint64_t recorded_faults;
    bool recording, spoiled; /* a step is being recorded; it did what cannot be */
    uint64_t *moved;         /* on the device: how far a replay is behind its recording */
    struct {
        const char *op, *place;
    } trail[TRAIL];             /* of the newest launches */
    uint64_t launched, settled; /* operators launched, and those known to have gone well */
    mail_box mail;
    feeder feed;
    struct gemm_state *gemm; /* gemm.cu's own */
} cuda_state;

static inline cuda_state *state_of(mimic_ctx *ctx) {
    return (cuda_state *)ctx->devices[MIMIC_CUDA].state;
}

/* The entry of an operator: KERNEL(gelu) { ... return done(c); } */
#define KERNEL(name) extern "C" mimic_status mimic_cuda_##name(mimic_call *c)

/* LAUNCH(kernel, grid, block, bytes of dynamic shared memory, stream, arguments...). Templates in
 * parentheses: LAUNCH((rows<float, 4>), ...). Under the emulator an ordinary call, done later.
 * SHARED(T, name, count): shared memory of fixed size, first thing in a kernel;
 * DYNAMIC_SHARED(T, name): what LAUNCH gave. */
#ifdef MIMIC_EMULATED
#define UNROLL
#define LAUNCH(kernel, grid, block, bytes, stream, ...)                                            \
    emu::launch(#kernel, grid, block, bytes, stream, kernel, __VA_ARGS__)
#define SHARED(T, name, count)                                                                     \
    static const char name##_site = 0;                                                             \
    T *name = (T *)emu::shared(&name##_site, sizeof(T) * (count))
#define DYNAMIC_SHARED(T, name) T *name = (T *)emu::dynamic_shared()
#else
#define UNROLL _Pragma("unroll") /* before a loop whose array must stay in registers */
#define LAUNCH(kernel, grid, block, bytes, stream, ...)                                            \
    kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#define SHARED(T, name, count) __shared__ T name[count]
#define DYNAMIC_SHARED(T, name)                                                                    \
    extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];                          \
    T *name = (T *)dynamic_shared_bytes
#endif

/* For a launch that may report a fault: "OP: WHAT at N is not in 0..LIMIT-1" (N the position);
 * with NO_LIMIT "OP: WHAT (row N)". */
fault fault_of(mimic_call *c, const char *what, int64_t limit);
/* Ends an entry: what the launches before came to, as a status with the operator's name. */
mimic_status done(mimic_call *c);
/* The same for launches that are no operator's: `what` is named in its place. */
mimic_status cuda_done(mimic_ctx *ctx, const char *what);
/* Sends the fault word to the host, and reads a letter that has arrived: the fault that a kernel
 * reported, if one did. */
cudaError_t send_fault(mimic_ctx *ctx, letter *l);
mimic_status read_fault(mimic_ctx *ctx, const letter *l);
/* What a call of the runtime came to: cudaSuccess is MIMIC_OK. `what` names it in the message,
 * which says too which operators were under way. */
mimic_status cuda_check(mimic_ctx *ctx, cudaError_t e, const char *what);

/* Device memory of the module's own, which the pool makes room for; `what` it is for. */
mimic_status cuda_take(mimic_ctx *ctx, void **p, size_t bytes, const char *what);

/* Writes an operator down as launched. */
static inline void cuda_note(cuda_state *s, const char *op, const char *place) {
    s->trail[s->launched % TRAIL].op = op;
    s->trail[s->launched++ % TRAIL].place = place;
}

/* While a step is recorded (graph.cu): fails with "WHAT while a step is recorded"; where the
 * kernels of a call find how far their random numbers' step has moved on, NULL: not at all. Bytes
 * of the host that travel as arguments of kernels, recorded or not: MOST_LITERAL of them, which
 * the optimiser's table of 2,900 parameters keeps to. */
enum { MOST_LITERAL = 256 << 10 };
mimic_status cuda_refuse(mimic_ctx *ctx, const char *what);
mimic_status cuda_upload_literal(mimic_ctx *ctx, void *dst, const void *src, size_t bytes);
const uint64_t *cuda_moved(const mimic_call *c, uint64_t step);

/* Blocks of `per` that cover n, at least one. */
static inline unsigned blocks_of(int64_t n, int64_t per) {
    return n > per ? (unsigned)((n + per - 1) / per) : 1u;
}

static inline size_t element_size(int dtype) {
    return dtype == MIMIC_U8 ? 1 : dtype == MIMIC_BF16 ? 2 : dtype == MIMIC_F64 ? 8 : 4;
}

/* Sums of x over some of its axes (sum.cu), in f32, two stages in fixed order. Axis k of the
 * contiguous x has n[k] elements; those with keep[k] are y's, in order. y = factor * sum, of x's
 * dtype. */
mimic_status cuda_sum(mimic_ctx *ctx, int dtype, const void *x, void *y, int rank, const int64_t *n,
                      const bool *keep, float factor);

/* a[n] and b[n] (f32) = sums over the parts of partial[parts,2,n], in order (sum.cu). */
void cuda_sum_pairs(mimic_ctx *ctx, const float *partial, int64_t parts, int64_t n, float *a,
                    float *b);

/* y[n] = sum of the rows of x[rows,n] (sum.cu), in f32. */
mimic_status cuda_col_sum(mimic_ctx *ctx, int dtype, const void *x, float *y, int64_t rows,
                          int64_t n);

/* --- in kernels --- */

__device__ __forceinline__ float get(float x) {
    return x;
}
__device__ __forceinline__ float get(bf16 x) {
    return __bfloat162float(x);
}
__device__ __forceinline__ void put(float *p, float x) {
    *p = x;
}
__device__ __forceinline__ void put(bf16 *p, float x) {
    *p = __float2bfloat16_rn(x);
}

/* 16 bytes of elements, moved at once. */
template <class T> struct alignas(16) pack {
    enum { N = 16 / sizeof(T) };
    T at[N];
};

/* Whether pack<T> may be used on all of these addresses. */
static inline bool wide(const void *a, const void *b = NULL, const void *c = NULL) {
    return (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) & 15) == 0;
}

/* Sums over the lanes of a warp, the same in all of them. */
__device__ __forceinline__ float warp_sum(float v) {
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
    for (int o = 16; o > 0; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

/* The sum over all threads of a block with one row of them, in thread 0: f64, so that nothing is
 * lost in long arrays. */
__device__ __forceinline__ double block_sum(double v) {
    SHARED(double, warps, 32);
    for (int o = 16; o > 0; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (unsigned w = 0; threadIdx.x == 0 && w < blockDim.x / 32; w++)
        v += warps[w];
    __syncthreads();
    return v;
}

/* Integers in the order of floats: -0 equals 0, NaN comes last. */
__device__ __forceinline__ unsigned ordered(float x) {
    unsigned u = __float_as_uint(x);
    if (x != x)
        return 0xffffffffu;
    if (x == 0.0f)
        u = 0;
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* BY_FLOAT(dtype, f)(args): f<float> or f<bf16>. */
#define BY_FLOAT(dtype, f) ((dtype) == MIMIC_F32 ? f<float> : f<bf16>)

#endif

/* The tensor core's products m16n8k16 of bf16 with f32 sums, loads of their operands from shared
 * memory, and copies that fill it while the threads go on: PTX, and under the emulator the same in
 * C++. All lanes of a warp call together, but for the copies.
 *
 * With g = lane / 4, t = lane % 4, a lane holds of A [16,16] rows g and g + 8, columns 2t, 2t+1
 * (and 8 on): a[0] = (g, 2t), a[1] = (g+8, 2t), a[2] = (g, 2t+8), a[3] = (g+8, 2t+8), two columns a
 * register; of B [16,8] b[0] = rows 2t, 2t+1, b[1] = 8 on, of column g; of D [16,8] d[0], d[1] =
 * row g, columns 2t, 2t+1, d[2], d[3] = row g + 8. So a D, rounded, is half an A. */
#ifndef MIMIC_CUDA_MMA_H
#define MIMIC_CUDA_MMA_H

#include <stdlib.h>
#ifdef MIMIC_EMULATED
#include <vector>
#endif

#include "backend/cuda/kernel.h"

#ifndef MIMIC_EMULATED

/* Two floats rounded to bf16 in one register, `low` first in memory. */
__device__ __forceinline__ unsigned pair_of(float low, float high) {
    unsigned u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
    return u;
}

/* d += a b */
__device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices: lane 8i + r gives the address of row r of matrix i (16 bytes, in shared
 * memory); r[i] = elements 2t, 2t+1 of its row g. */
__device__ __forceinline__ void load_matrices(unsigned r[4], const bf16 *row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The same of the transposed matrices: r[i] = column g, its rows 2t and 2t+1. */
__device__ __forceinline__ void load_transposed(unsigned r[4], const bf16 *row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* Starts a copy of 16 bytes to shared memory, of zeros where there is nothing to copy. */
__device__ __forceinline__ void copy_16(void *to, const void *from, bool there) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

/* Ends a group of the thread's copies; waits until all but the newest `left` groups have arrived:
 * the block sees them after its next barrier. */
__device__ __forceinline__ void end_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int left> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

#else

/* Copies of a thread that have not arrived: done at the wait, so that one that is forgotten shows.
 */
struct copies_under_way {
    struct copy {
        void *to;
        const void *from;
        bool there;
        int group;
    };
    std::vector<copy> list;
    int groups;
};
inline copies_under_way &copies_of_thread() {
    static copies_under_way all[1024];
    return all[threadIdx.x];
}
inline void copy_16(void *to, const void *from, bool there) {
    if (((uintptr_t)to | (uintptr_t)from) % 16 != 0)
        abort(); /* as the device would */
    copies_under_way &c = copies_of_thread();
    c.list.push_back({to, from, there, c.groups});
}
inline void end_copies() {
    copies_of_thread().groups++;
}
template <int left> void wait_copies() {
    copies_under_way &c = copies_of_thread();
    std::vector<copies_under_way::copy> later;
    for (const auto &copy : c.list)
        if (copy.group >= c.groups - left)
            later.push_back(copy);
        else if (copy.there)
            memcpy(copy.to, copy.from, 16);
        else
            memset(copy.to, 0, 16);
    c.list = later;
}

inline unsigned pair_of(float low, float high) {
    return __float2bfloat16_rn(low).bits | (unsigned)__float2bfloat16_rn(high).bits << 16;
}

/* What each lane of the block gave, by thread. */
struct mma_operands {
    unsigned a[4], b[2];
    const bf16 *row;
};
inline mma_operands *mma_given() {
    static mma_operands given[1024];
    return given;
}

inline void mma(float d[4], const unsigned a[4], const unsigned b[2]) {
    mma_operands *given = mma_given(), *warp = given + threadIdx.x / 32 * 32;
    int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    memcpy(given[threadIdx.x].a, a, sizeof given->a);
    memcpy(given[threadIdx.x].b, b, sizeof given->b);
    emu::sync_warp(~0u, -1);
    for (int i = 0; i < 4; i++) {
        int row = i / 2, col = 2 * t + i % 2;
        float s = 0.0f;
        for (int k = 0; k < 16; k++) {
            int half = k / 8, from = k % 8 / 2, high = k % 2 * 16;
            unsigned x = warp[g * 4 + from].a[row + 2 * half] >> high;
            unsigned y = warp[col * 4 + from].b[half] >> high;
            s += __uint_as_float(x << 16) * __uint_as_float(y << 16);
        }
        d[i] += s;
    }
    emu::sync_warp(~0u, -2);
}

inline void load_either(unsigned r[4], const bf16 *row, bool transposed) {
    mma_operands *given = mma_given(), *warp = given + threadIdx.x / 32 * 32;
    int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    if ((uintptr_t)row % 16 != 0)
        abort(); /* as the device would */
    given[threadIdx.x].row = row;
    emu::sync_warp(~0u, -3);
    for (int i = 0; i < 4; i++) {
        const bf16 *low = transposed ? warp[8 * i + 2 * t].row + g : warp[8 * i + g].row + 2 * t;
        const bf16 *high = transposed ? warp[8 * i + 2 * t + 1].row + g : low + 1;
        r[i] = low->bits | (unsigned)high->bits << 16;
    }
    emu::sync_warp(~0u, -4);
}
inline void load_matrices(unsigned r[4], const bf16 *row) {
    load_either(r, row, false);
}
inline void load_transposed(unsigned r[4], const bf16 *row) {
    load_either(r, row, true);
}

#endif
#endif

/* How CPU kernels are built. Every file of this folder is compiled once per instruction set (CMake
 * defines MIMIC_ISA = base, avx2, avx512 with the matching -march), so all external names carry the
 * suffix. A kernel is written once over a compute vector (simd.h) and instantiated for f32, bf16
 * and f64. Rules: inputs contiguous rows; work is cut into chunks of fixed size (never by thread
 * count) and run with mimic_parallel; reductions combine partial results in chunk order. */
#ifndef MIMIC_CPU_KERNEL_H
#define MIMIC_CPU_KERNEL_H

#include "ops/op_impl.h"

#define MIMIC_CAT3(a, b, c) a##_##b##_##c
#define MIMIC_XCAT3(a, b, c) MIMIC_CAT3(a, b, c)
/* mimic_cpu_<isa>_<name> */
#define KERNEL(name) MIMIC_XCAT3(mimic_cpu, MIMIC_ISA, name)

#define V(name)
#define X(name) mimic_status KERNEL(name)(mimic_call * c);
#include "ops/ops.def"
#undef X
mimic_status KERNEL(optim_step)(mimic_ctx *ctx, const mimic_optim_args *args);
mimic_status KERNEL(sum_squares)(mimic_ctx *ctx, mimic_dtype dtype, const void *x, int64_t n,
                                 double *out);
mimic_status KERNEL(accumulate)(mimic_ctx *ctx, mimic_dtype dst_dtype, void *dst,
                                mimic_dtype src_dtype, const void *src, int64_t n);

#endif

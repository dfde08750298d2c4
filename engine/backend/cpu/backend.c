/* The table of this instruction set's kernels, in ops.def order. */
#include "backend/cpu/kernel.h"

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

extern const mimic_backend KERNEL(backend);
const mimic_backend KERNEL(backend) = {
    .name = "cpu/" TEXT(MIMIC_ISA),
    .host = true,
    .dtypes = MIMIC_ALL_DTYPES,
    .alloc = mimic_host_alloc,
    .free = mimic_host_free,
    .upload = mimic_host_copy,
    .download = mimic_host_copy,
    .copy = mimic_host_copy,
    .clear = mimic_host_clear,
    .sync = mimic_host_sync,
    .kernels =
        {
#define V(name)
#define X(name) [MIMIC_OP_##name] = KERNEL(name),
#include "ops/ops.def"
#undef X
        },
    .optim_step = KERNEL(optim_step),
    .sum_squares = KERNEL(sum_squares),
    .accumulate = KERNEL(accumulate),
};

/* The table of this instruction set's kernels, in ops.def order. */
#include "backend/cpu/kernel.h"

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

extern const mimic_backend KERNEL(backend);
const mimic_backend KERNEL(backend) = {
    .name = "cpu/" TEXT(MIMIC_ISA),
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

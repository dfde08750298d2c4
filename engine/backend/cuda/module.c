/* The module's table: every kernel that some .cu file here defines, NULL where there is none yet.
 */
#include "autograd/optim_impl.h"
#include "backend/cuda/module.h"
#include "backend/cuda/runtime.h"

#define V(name)
#define X(name) mimic_status mimic_cuda_##name(mimic_call *c) __attribute__((weak));
#include "ops/ops.def"
#undef X
#undef V

static const char *const op_names[] = {
#define X(name) #name,
#include "ops/ops.def"
#undef X
};

static const mimic_backend backend = {
    .name = "cuda",
    .host = false,
    .dtypes =
        MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_BF16) | MIMIC_BIT(MIMIC_I32) | MIMIC_BIT(MIMIC_U8),
    .kernels =
        {
#define V(name)
#define X(name) [MIMIC_OP_##name] = mimic_cuda_##name,
#include "ops/ops.def"
#undef X
#undef V
        },
    .optim_step = mimic_cuda_optim_step,
    .accumulate = mimic_cuda_accumulate,
    .alloc = mimic_cuda_alloc,
    .free = mimic_cuda_free,
    .upload = mimic_cuda_upload,
    .download = mimic_cuda_download,
    .copy = mimic_cuda_copy,
    .clear = mimic_cuda_clear,
    .sync = mimic_cuda_sync,
    .post = mimic_cuda_post,
    .collect = mimic_cuda_collect,
    .pin = mimic_cuda_pin,
    .unpin = mimic_cuda_unpin,
    .feed = mimic_cuda_feed,
    .fed = mimic_cuda_fed,
    .augment = mimic_cuda_augment,
    .room = mimic_cuda_room,
    .beside = mimic_cuda_beside,
    .record = mimic_cuda_record,
    .recorded = mimic_cuda_recorded,
    .replay = mimic_cuda_replay,
    .forget = mimic_cuda_forget,
#ifdef MIMIC_EMULATED
    .taken = mimic_cuda_taken,
    .given = mimic_cuda_given,
#endif
    .about = mimic_cuda_about,
    .close = mimic_cuda_close,
};

static const mimic_module module = {
    .api = MIMIC_MODULE_API,
    .sizes = MIMIC_MODULE_SIZES,
    .n_ops = MIMIC_OP_COUNT,
    .op_names = op_names,
    .backend = &backend,
    .open = mimic_cuda_open_device,
};

__attribute__((visibility("default"))) const mimic_module *mimic_cuda_module(void);
const mimic_module *mimic_cuda_module(void) {
    return &module;
}

/* What passes between the engine and the CUDA module, which is opened with dlopen and has no symbol
 * of the engine: the module offers one function, mimic_cuda_module, the engine a table of calls.
 * Both are built from the same headers, which `same` proves. */
#ifndef MIMIC_CUDA_MODULE_H
#define MIMIC_CUDA_MODULE_H

#include "ops/op_impl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Goes up with any change of what is below or of mimic_backend. */
enum { MIMIC_MODULE_API = 7 };

/* What the module may call. */
typedef struct mimic_host {
    mimic_status (*fail)(mimic_ctx *ctx, mimic_status status, const char *fmt, ...);
    void (*log)(mimic_ctx *ctx, int level, const char *fmt, ...);
    void *(*alloc)(mimic_ctx *ctx, size_t bytes); /* host memory */
    void (*free)(mimic_ctx *ctx, void *p);
    /* Device memory from the pool; free to be used again by later calls at once. */
    mimic_status (*get)(mimic_device *d, size_t bytes, void **out);
    void (*put)(mimic_device *d, void *p, size_t bytes);
    void (*trim)(mimic_device *d); /* the pool gives its free blocks back to the device */
} mimic_host;

typedef struct mimic_module {
    int api;
    size_t sizes[5]; /* ctx, storage, tensor, call, optim_args */
    int n_ops;
    const char *const *op_names;
    const mimic_backend *backend;
    /* Opens the device for ctx (state in devices[MIMIC_CUDA]), or writes into `why` what is
     * missing.
     */
    mimic_status (*open)(mimic_ctx *ctx, const mimic_host *host, char *why, size_t size);
} mimic_module;

#define MIMIC_MODULE_SIZES                                                                         \
    {                                                                                              \
        sizeof(mimic_ctx), sizeof(mimic_storage), sizeof(mimic_tensor), sizeof(mimic_call),        \
            sizeof(mimic_optim_args)                                                               \
    }

typedef const mimic_module *(*mimic_module_entry)(void); /* of "mimic_cuda_module" */

#ifdef __cplusplus
}
#endif
#endif

/* Any bytes as a file of weights: opened by `open` or refused with a message; every tensor found,
 * loaded or refused with a message; `look` at the open file, if not NULL; closed. */
#ifndef FUZZ_WEIGHTS_H
#define FUZZ_WEIGHTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mimic.h"

static inline void fuzz_weights(const uint8_t *data, size_t size,
                                mimic_status (*open)(mimic_ctx *, const char *,
                                                     mimic_safetensors **),
                                void (*look)(const mimic_safetensors *)) {
    static mimic_ctx *ctx;
    static char path[40];
    static int fd;
    if (!ctx) {
        if (mimic_open(&(mimic_config){.threads = 1, .memory_limit = 64u << 20}, &ctx))
            abort();
        fd = memfd_create("weights", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    mimic_safetensors *f = NULL;
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    if (open(ctx, path, &f)) {
        if (f || !mimic_message(ctx)[0])
            abort();
        return;
    }
    for (int i = 0; i < mimic_safetensors_count(f); i++) {
        mimic_tensor *t = NULL;
        if (mimic_safetensors_find(f, mimic_safetensors_name(f, i)) != i)
            abort();
        if (mimic_safetensors_load(f, i, &t) == MIMIC_OK)
            mimic_tensor_release(t);
        else if (t || !mimic_message(ctx)[0])
            abort();
    }
    if (look)
        look(f);
    mimic_safetensors_close(f);
}

#endif

/* Any bytes as a .pth file: opened or refused with a message, loaded. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mimic.h"
#include "../c/pth_bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mimic_ctx *ctx;
    static char path[40];
    static int fd;
    if (!ctx) {
        if (mimic_open(&(mimic_config){.threads = 1, .memory_limit = 64u << 20}, &ctx))
            abort();
        fd = memfd_create("pth", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    mimic_safetensors *f = NULL;
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    if (mimic_pth_open(ctx, path, &f)) {
        if (f || !mimic_message(ctx)[0])
            abort();
        return 0;
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
    mimic_safetensors_close(f);
    return 0;
}

size_t fuzz_seed(int i, uint8_t *out, size_t cap) {
    static bytes pickle, old;
    static zip z;
    if (i >= 2)
        return 0;
    pickle.n = 0;
    py_checkpoint(&pickle, i);
    pth_zip(&z, &pickle);
    pth_legacy(&old, &pickle);
    const bytes *b = i ? &old : &z.file;
    if (b->n > cap)
        return 0;
    memcpy(out, b->data, b->n);
    return b->n;
}

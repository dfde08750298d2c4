/* Opening the device under test: the emulated one, which must be there, or with MIMIC_GPU_TEST a
 * real one, without which the program ends as skipped (exit code 77). */
#ifndef TEST_CUDA_UTIL_H
#define TEST_CUDA_UTIL_H

#include "ops/case.h"

static UNUSED int open_cuda(mimic_ctx *ctx) {
    mimic_status st = mimic_set_device(ctx, "cuda");
    if (st == MIMIC_OK)
        return 0;
    if (st == MIMIC_EUNSUPPORTED && getenv("MIMIC_GPU_TEST")) {
        printf("skipped: %s\n", mimic_message(ctx));
        exit(77);
    }
    print_error("%s\n", mimic_message(ctx));
    return 1;
}

/* A context of each device, of a whole group of tests. */
static UNUSED mimic_ctx *cpu, *gpu;

static UNUSED int open_both(void **state) {
    (void)state;
    cpu = open_ctx(1);
    gpu = open_ctx(1);
    return open_cuda(gpu);
}

static UNUSED int close_both(void **state) {
    (void)state;
    mimic_close(cpu);
    mimic_close(gpu);
    return 0;
}

#endif

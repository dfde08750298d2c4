/* Opening the device under test: the emulated one, which must be there, or with MIMIC_GPU_TEST a
 * real one. On a machine without a GPU the program then ends as skipped (exit code 77); with one,
 * or with MIMIC_GPU_TEST=must, a device that does not open (a module that is missing or of other
 * sources, no cuBLAS) is a failure. */
#ifndef TEST_CUDA_UTIL_H
#define TEST_CUDA_UTIL_H

#include <glob.h>
#include <unistd.h>

#include "ops/case.h"

static bool wants_gpu(void) {
    const char *test = getenv("MIMIC_GPU_TEST"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    glob_t g = {0};
    bool there = glob("/dev/nvidia[0-9]*", 0, NULL, &g) == 0 || access("/dev/dxg", F_OK) == 0;
    globfree(&g);
    return strcmp(test, "must") == 0 || (there && !(visible && !*visible));
}

static UNUSED int open_cuda(mimic_ctx *ctx) {
    mimic_status st = mimic_set_device(ctx, "cuda");
    if (st == MIMIC_OK)
        return 0;
    if (st == MIMIC_EUNSUPPORTED && getenv("MIMIC_GPU_TEST") && !wants_gpu()) {
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

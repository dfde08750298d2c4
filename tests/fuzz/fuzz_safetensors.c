/* Any bytes as a safetensors file: opened or refused with a message, loaded, saved again. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mimic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mimic_ctx *ctx;
    static char path[40];
    static int fd;
    if (!ctx) {
        if (mimic_open(&(mimic_config){.threads = 1, .memory_limit = 64u << 20}, &ctx))
            abort();
        fd = memfd_create("safetensors", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    mimic_safetensors *f = NULL;
    if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    if (mimic_safetensors_open(ctx, path, &f)) {
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
        else if (t)
            abort();
    }
    for (int i = 0; i < mimic_safetensors_meta_count(f); i++)
        if (!mimic_safetensors_meta(f, mimic_safetensors_meta_key(f, i)))
            abort();
    mimic_safetensors_close(f);
    return 0;
}

size_t fuzz_seed(int i, uint8_t *out, size_t cap) {
    static const char *const headers[] = {
        "{}",
        "{\"__metadata__\":{\"format\":\"pt\",\"a\\u00e9\":\"\\ud83d\\ude00\\n\"},"
        "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}  ",
        "{\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"h\":{\"data_offsets\":[8,16],\"shape\":[2,1,2],\"dtype\":\"F16\"},"
        "\"m\":{\"dtype\":\"BOOL\",\"shape\":[8],\"data_offsets\":[16,24]},"
        "\"z\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[24,32]}}"};
    if (i >= 3 || cap < 1000)
        return 0;
    uint64_t n = strlen(headers[i]);
    memcpy(out, &n, 8);
    memcpy(out + 8, headers[i], n);
    memset(out + 8 + n, 1, 32);
    return 8 + n + (i ? 32 : 0);
}

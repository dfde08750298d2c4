/* Any bytes as a .pth file: opened or refused with a message, loaded. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <string.h>

#include "../c/pth_bytes.h"
#include "weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_weights(data, size, mimic_pth_open, NULL);
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

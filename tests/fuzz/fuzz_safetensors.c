/* Any bytes as a safetensors file: opened or refused with a message, loaded. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <string.h>

#include "weights.h"

static void look_at_meta(const mimic_safetensors *f) {
    for (int i = 0; i < mimic_safetensors_meta_count(f); i++)
        if (!mimic_safetensors_meta(f, mimic_safetensors_meta_key(f, i)))
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_weights(data, size, mimic_safetensors_open, look_at_meta);
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

/* Any bytes as a PNG: decoded or refused with a message. Checksums of chunks are made right, so
 * that what lies behind them is reached. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "mimic.h"

static uint32_t crc_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t copy[1 << 16];
    static mimic_image img;
    mimic_err err = {{0}};
    if (size > sizeof copy)
        return 0;
    memcpy(copy, data, size);
    for (size_t at = 8; at + 12 <= size;) {
        size_t n = (size_t)copy[at] << 24 | (size_t)copy[at + 1] << 16 | (size_t)copy[at + 2] << 8 |
                   copy[at + 3];
        if (n > size - at - 12)
            break;
        uint32_t crc = crc_of(copy + at + 4, n + 4);
        for (int i = 0; i < 4; i++)
            copy[at + 8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += n + 12;
    }
    mimic_status st = mimic_png_decode(copy, size, "fuzz.png", &img, &err);
    if (st && !err.text[0])
        abort();
    if (!st && (img.width < 1 || img.height < 1))
        abort();
    if (img.capacity > 64u << 20)
        mimic_image_free(&img);
    return 0;
}

size_t fuzz_seed(int i, uint8_t *out, size_t cap) {
    mimic_image img = {0};
    mimic_err err;
    uint8_t *data = NULL;
    size_t size = 0;
    if (i >= 4 || mimic_synth_face(1, (uint32_t)i, i, i < 2 ? 16 : 33, &img, &err) ||
        mimic_png_encode(&img, i % 2, &data, &size, &err) || size > cap)
        size = 0;
    else
        memcpy(out, data, size);
    free(data);
    mimic_image_free(&img);
    return size;
}

/* Any bytes as a JPEG: decoded or refused with a message. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "mimic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mimic_image img;
    mimic_err err = {{0}};
    mimic_status st = mimic_jpeg_decode(data, size, "fuzz.jpg", &img, &err);
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
    /* an EXIF block that turns the picture, put behind the first marker */
    static const uint8_t exif[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,    'M', 'M',
                                   0,    42,   0, 0,  0,   8,   0,   1,   1, 0x12, 0,   3,
                                   0,    0,    0, 1,  0,   6,   0,   0,   0, 0,    0,   0};
    if (i >= 4 || mimic_synth_face(1, (uint32_t)i, i, i % 2 ? 33 : 16, &img, &err) ||
        mimic_jpeg_encode(&img, 30 + 20 * i, &data, &size, &err))
        return 0;
    size_t extra = i >= 2 ? sizeof exif : 0;
    if (size + extra <= cap) {
        memcpy(out, data, 2);
        memcpy(out + 2, exif, extra);
        memcpy(out + 2 + extra, data + 2, size - 2);
        size += extra;
    } else
        size = 0;
    free(data);
    mimic_image_free(&img);
    return size;
}

/* The file of decoded pictures, NAME.pixels, little-endian: header, index, records.
 *
 *   header  128 bytes: struct mimic_pixels_header
 *   index   int32 label[count]; uint32 crc32[count]; float soft[count][classes] if
 * MIMIC_PIXELS_SOFT; texts with final zeros: label mode, one name per class, one name per sample
 *   records at `data_at`, `count` of width * height * channels bytes, rows top to bottom */
#ifndef MIMIC_PIXELS_H
#define MIMIC_PIXELS_H

#include "data/dataset_impl.h"

#define MIMIC_PIXELS_MAGIC "MIMICPIX"
enum { MIMIC_PIXELS_VERSION = 1, MIMIC_PIXELS_SOFT = 1, MIMIC_PIXELS_DRAWS = 2 };
enum { MIMIC_PIXELS_SOFT_CLASSES = 4096 };

typedef struct mimic_pixels_header {
    char magic[8];
    uint32_t version, header_bytes;
    uint32_t width, height, channels, flags;
    uint64_t count;
    uint32_t classes, reserved;
    uint64_t index_bytes, data_at;
    uint8_t index_sha256[32];
    uint8_t header_sha256[32]; /* of the bytes before */
} mimic_pixels_header;
_Static_assert(sizeof(mimic_pixels_header) == 128, "the header is a file format");

static inline uint64_t mimic_pixels_record(const mimic_pixels_header *h) {
    return (uint64_t)h->width * h->height * h->channels;
}

#endif

/* The directory of a zip archive whose entries are stored, not compressed. */
#ifndef MIMIC_ZIP_H
#define MIMIC_ZIP_H

#include "store/store_impl.h"

typedef struct mimic_zip_entry {
    const char *name; /* inside the directory, terminated */
    int64_t header;   /* offset of its local header */
    int64_t size;
    uint16_t method, flags;
} mimic_zip_entry;

typedef struct mimic_zip {
    mimic_ctx *ctx;
    const char *path;
    int fd;
    int64_t bytes; /* of the file */
    uint8_t *directory;
    mimic_zip_entry *entries; /* in order of name */
    int64_t n;
} mimic_zip;

/* Reads the directory of an open file; zip64 too. The zip does not own fd. */
mimic_status mimic_zip_open(mimic_ctx *ctx, const char *path, int fd, int64_t bytes,
                            mimic_zip *out);
void mimic_zip_close(mimic_zip *z);
const mimic_zip_entry *mimic_zip_find(const mimic_zip *z, const char *name); /* NULL if absent */
/* Where the entry's bytes begin; refuses compressed and encrypted ones and those beyond the file.
 */
mimic_status mimic_zip_data(const mimic_zip *z, const mimic_zip_entry *e, int64_t *at);

#endif

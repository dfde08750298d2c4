/* Zip directories. Sizes are believed only where the file has room for them, and no entry is ever
 * inflated, so an archive cannot grow in memory. */
#include "store/zip.h"

#include <stdlib.h>
#include <string.h>

enum { END = 22, END64 = 56, LOCATOR = 20, CENTRAL = 46, LOCAL = 30, COMMENT = 65535 };

static uint64_t get(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static mimic_status fail(const mimic_zip *z, const char *what) {
    return mimic_fail(z->ctx, MIMIC_EFORMAT, "%s: damaged zip archive: %s", z->path, what);
}

/* Offset, size and number of entries of the directory. */
static mimic_status find_directory(mimic_zip *z, uint64_t *at, uint64_t *size, uint64_t *count) {
    int64_t tail = z->bytes < END + COMMENT ? z->bytes : END + COMMENT, end = tail - END;
    if (z->bytes < END)
        return fail(z, "too short");
    uint8_t *b = mimic_alloc(z->ctx, (size_t)tail);
    if (!b)
        return MIMIC_ENOMEM;
    mimic_status s = mimic_pread_all(z->ctx, z->path, z->fd, b, (size_t)tail, z->bytes - tail);
    while (s == MIMIC_OK && end >= 0 && get(b + end, 4) != 0x06054b50)
        end--;
    if (s == MIMIC_OK && end < 0)
        s = fail(z, "the file is cut off (no end of directory)");
    if (s != MIMIC_OK)
        goto done;
    *count = get(b + end + 10, 2);
    *size = get(b + end + 12, 4);
    *at = get(b + end + 16, 4);
    if (end < LOCATOR || get(b + end - LOCATOR, 4) != 0x07064b50)
        goto done;
    uint8_t far[END64];
    uint64_t where = get(b + end - LOCATOR + 8, 8);
    if (where > (uint64_t)z->bytes - END64) {
        s = fail(z, "its zip64 directory lies beyond the file");
        goto done;
    }
    s = mimic_pread_all(z->ctx, z->path, z->fd, far, sizeof far, (int64_t)where);
    if (s == MIMIC_OK && get(far, 4) != 0x06064b50)
        s = fail(z, "no zip64 directory where it should be");
    *count = get(far + 32, 8);
    *size = get(far + 40, 8);
    *at = get(far + 48, 8);
done:
    mimic_free(z->ctx, b);
    return s;
}

/* Replaces fields that say 0xffffffff by those of the zip64 extra field. */
static bool extend(const uint8_t *extra, size_t n, uint64_t *size, uint64_t *packed, uint64_t *at) {
    uint64_t *fields[] = {size, packed, at};
    while (n >= 4) {
        size_t id = (size_t)get(extra, 2), length = (size_t)get(extra + 2, 2), used = 4;
        if (length > n - 4)
            return false;
        for (int k = 0; id == 1 && k < 3; k++)
            if (*fields[k] == 0xffffffff) {
                if (used + 8 > length + 4)
                    return false;
                *fields[k] = get(extra + used, 8);
                used += 8;
            }
        extra += 4 + length;
        n -= 4 + length;
    }
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const mimic_zip_entry *)a)->name, ((const mimic_zip_entry *)b)->name);
}

mimic_status mimic_zip_open(mimic_ctx *ctx, const char *path, int fd, int64_t bytes, mimic_zip *z) {
    uint64_t at = 0, size = 0, count = 0;
    *z = (mimic_zip){.ctx = ctx, .path = path, .fd = fd, .bytes = bytes};
    mimic_status s = find_directory(z, &at, &size, &count);
    if (s != MIMIC_OK)
        return s;
    if (at > (uint64_t)bytes || size > (uint64_t)bytes - at || count > size / CENTRAL)
        return fail(z, "its directory lies beyond the file");
    z->directory = mimic_alloc(ctx, (size_t)size + 1);
    z->entries = mimic_alloc(ctx, ((size_t)count + 1) * sizeof *z->entries);
    s = z->directory && z->entries ? MIMIC_OK : MIMIC_ENOMEM;
    if (s == MIMIC_OK)
        s = mimic_pread_all(ctx, path, fd, z->directory, (size_t)size, (int64_t)at);
    uint8_t *p = z->directory, *end = p + size;
    for (uint64_t i = 0; s == MIMIC_OK && i < count; i++) {
        size_t left = (size_t)(end - p);
        size_t name = left < CENTRAL ? 0 : (size_t)get(p + 28, 2);
        size_t extra = left < CENTRAL ? 0 : (size_t)get(p + 30, 2);
        size_t comment = left < CENTRAL ? 0 : (size_t)get(p + 32, 2);
        if (left < CENTRAL || get(p, 4) != 0x02014b50 || left - CENTRAL < name + extra + comment) {
            s = fail(z, "a directory entry is cut off");
            break;
        }
        uint64_t stored = get(p + 20, 4), full = get(p + 24, 4), header = get(p + 42, 4);
        bool ok = extend(p + CENTRAL + name, extra, &full, &stored, &header);
        mimic_zip_entry *e = &z->entries[z->n++];
        *e =
            (mimic_zip_entry){.method = (uint16_t)get(p + 10, 2), .flags = (uint16_t)get(p + 8, 2)};
        e->header = (int64_t)header;
        e->size = (int64_t)full;
        if (!ok || full > (uint64_t)bytes || header > (uint64_t)bytes ||
            (e->method == 0 && full != stored)) {
            s = fail(z, "an entry is larger than the file");
            break;
        }
        /* The name moves to where its header was, so that it can be terminated. */
        memmove(p, p + CENTRAL, name);
        p[name] = 0;
        e->name = (char *)p;
        if (strlen(e->name) != name)
            s = fail(z, "a zero byte in an entry's name");
        p += CENTRAL + name + extra + comment;
    }
    if (s != MIMIC_OK) {
        mimic_zip_close(z);
        return s;
    }
    qsort(z->entries, (size_t)z->n, sizeof *z->entries, by_name);
    return s;
}

void mimic_zip_close(mimic_zip *z) {
    mimic_free(z->ctx, z->directory);
    mimic_free(z->ctx, z->entries);
    z->directory = NULL;
    z->entries = NULL;
    z->n = 0;
}

const mimic_zip_entry *mimic_zip_find(const mimic_zip *z, const char *name) {
    mimic_zip_entry key = {.name = name};
    return z->n ? bsearch(&key, z->entries, (size_t)z->n, sizeof key, by_name) : NULL;
}

mimic_status mimic_zip_data(const mimic_zip *z, const mimic_zip_entry *e, int64_t *at) {
    uint8_t local[LOCAL];
    if (e->flags & 1 || e->method != 0)
        return mimic_fail(z->ctx, MIMIC_EUNSUPPORTED,
                          "%s: entry '%s' is %s; only stored ones are read", z->path, e->name,
                          e->flags & 1 ? "encrypted" : "compressed");
    if (e->header > z->bytes - LOCAL)
        return fail(z, "an entry lies beyond the file");
    mimic_status s = mimic_pread_all(z->ctx, z->path, z->fd, local, sizeof local, e->header);
    if (s != MIMIC_OK)
        return s;
    *at = e->header + LOCAL + (int64_t)get(local + 26, 2) + (int64_t)get(local + 28, 2);
    if (get(local, 4) != 0x04034b50 || *at > z->bytes - e->size)
        return mimic_fail(z->ctx, MIMIC_EFORMAT,
                          "%s: damaged zip archive: entry '%s' lies beyond the file", z->path,
                          e->name);
    return MIMIC_OK;
}

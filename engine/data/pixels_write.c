/* Writes a data set as decoded pictures of one size (pixels.h): decoding and resizing on all
 * threads, a chunk of pictures at a time, in the order of the set. */
#include "data/pixels.h"
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sha2.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK = 64, PAGE = 4096 };

typedef struct work {
    mimic_ctx *ctx;
    const mimic_dataset *d;
    const mimic_pixels_config *cfg;
    mimic_pixels_header h;
    int fd;
    mimic_image *decoded, *resized; /* [threads] */
    uint8_t *chunk;                 /* [CHUNK,record] */
    bool *grey;                     /* [CHUNK] */
    mimic_status status[CHUNK];
    mimic_err err[CHUNK];
    int64_t first; /* of this chunk */
    int64_t *kept; /* [count] samples written */
    uint32_t *crc; /* [count] */
} work;

/* Picture i of the chunk, in the size asked for. */
static mimic_status fetch(work *w, int64_t i, int worker, const mimic_image **out, mimic_err *err) {
    mimic_image *img = &w->decoded[worker];
    mimic_status s = mimic_dataset_read(w->d, w->first + i, img, err);
    *out = img;
    int side = w->cfg->size;
    if (s == MIMIC_OK && side && (img->width != side || img->height != side)) {
        s = mimic_image_resize(img, 0, 0, img->width, img->height, side, side, MIMIC_BILINEAR,
                               &w->resized[worker], err);
        *out = &w->resized[worker];
    }
    return s;
}

static bool is_grey(const mimic_image *img) {
    size_t n = (size_t)img->width * (size_t)img->height;
    for (const uint8_t *p = img->pixels; n > 0; n--, p += 3)
        if (p[0] != p[1] || p[1] != p[2])
            return false;
    return true;
}

static void look(void *arg, int64_t i, int worker) {
    work *w = arg;
    const mimic_image *img;
    w->status[i] = fetch(w, i, worker, &img, &w->err[i]);
    w->grey[i] = w->status[i] != MIMIC_OK || is_grey(img);
}

static void make(void *arg, int64_t i, int worker) {
    work *w = arg;
    const mimic_image *img;
    mimic_status s = fetch(w, i, worker, &img, &w->err[i]);
    const mimic_pixels_header *h = &w->h;
    if (s == MIMIC_OK && ((uint32_t)img->width != h->width || (uint32_t)img->height != h->height))
        s = mimic_err_fail(
            &w->err[i], MIMIC_EINVAL,
            "pictures differ in size: %s has %d x %d pixels, the first %u x %u; give "
            "a size for all",
            mimic_dataset_sample_name(w->d, w->first + i), img->width, img->height, h->width,
            h->height);
    uint8_t *to = w->chunk + (size_t)i * mimic_pixels_record(h);
    if (s == MIMIC_OK && h->channels == 3)
        memcpy(to, img->pixels, mimic_pixels_record(h));
    for (size_t k = 0; s == MIMIC_OK && h->channels == 1 && k < mimic_pixels_record(h); k++)
        to[k] = img->pixels[3 * k];
    w->status[i] = s;
}

/* Runs fn over the chunk at w->first; the first failure that may not be skipped is returned. */
static mimic_status run_chunk(work *w, void (*fn)(void *, int64_t, int), int64_t *n) {
    int64_t left = w->d->count - w->first;
    *n = left < CHUNK ? left : CHUNK;
    mimic_parallel(w->ctx, *n, fn, w);
    for (int64_t i = 0; i < *n; i++)
        if (w->status[i] != MIMIC_OK && !(w->cfg->skip_damaged && w->status[i] == MIMIC_EFORMAT))
            return mimic_fail(w->ctx, w->status[i], "%s", w->err[i].text);
    return MIMIC_OK;
}

/* Size and channels: of the first picture that can be read, one channel when all are grey. */
static mimic_status measure(work *w) {
    mimic_status s = MIMIC_OK;
    int64_t n;
    w->h.channels = 1;
    for (w->first = 0; w->first < w->d->count && s == MIMIC_OK && w->h.channels == 1;
         w->first += CHUNK) {
        s = run_chunk(w, look, &n);
        for (int64_t i = 0; s == MIMIC_OK && i < n; i++) {
            if (!w->grey[i])
                w->h.channels = 3;
            if (w->h.width || w->status[i] != MIMIC_OK)
                continue;
            const mimic_image *img;
            s = fetch(w, i, 0, &img, &w->err[0]);
            if (s != MIMIC_OK)
                return mimic_fail(w->ctx, s, "%s", w->err[0].text);
            w->h.width = (uint32_t)img->width;
            w->h.height = (uint32_t)img->height;
        }
    }
    if (s == MIMIC_OK && !w->h.width)
        s = mimic_fail(w->ctx, MIMIC_EFORMAT, "no picture of the set could be read: %s",
                       w->err[0].text);
    return s;
}

static mimic_status put(work *w, const void *data, size_t size, uint64_t at) {
    const char *p = data;
    while (size > 0) {
        ssize_t n = pwrite(w->fd, p, size, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return mimic_fail(w->ctx, MIMIC_EIO, "%s: %s", w->cfg->path, strerror(errno));
        p += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return MIMIC_OK;
}

static mimic_status write_records(work *w) {
    mimic_status s = MIMIC_OK;
    size_t record = mimic_pixels_record(&w->h);
    int64_t n;
    w->chunk = mimic_alloc(w->ctx, CHUNK * record);
    if (!w->chunk)
        return MIMIC_ENOMEM;
    for (w->first = 0; w->first < w->d->count && s == MIMIC_OK; w->first += CHUNK) {
        s = run_chunk(w, make, &n);
        for (int64_t i = 0; s == MIMIC_OK && i < n; i++) {
            if (w->status[i] != MIMIC_OK)
                continue;
            const uint8_t *from = w->chunk + (size_t)i * record;
            w->crc[w->h.count] = (uint32_t)crc32(0, from, (uInt)record);
            s = put(w, from, record, w->h.data_at + w->h.count * record);
            w->kept[w->h.count++] = w->first + i;
        }
        if (s == MIMIC_OK && w->cfg->progress &&
            !w->cfg->progress(w->cfg->user, w->first + n, w->d->count))
            s = mimic_fail(w->ctx, MIMIC_ESTATE, "packing was stopped after %lld pictures",
                           (long long)(w->first + n));
    }
    return s;
}

/* A name without the folder of the data set. */
static const char *short_name(const mimic_dataset *d, int64_t i) {
    const char *name = mimic_dataset_sample_name(d, i);
    return strlen(name) > d->root ? name + d->root : name;
}

/* Upper bound of the index: that of all samples. */
static uint64_t index_room(const mimic_dataset *d) {
    uint64_t n = (uint64_t)d->count * (8 + (d->soft ? 4 * (uint64_t)d->classes : 0));
    n += strlen(d->mode) + 1;
    for (int k = 0; k < d->classes; k++)
        n += strlen(mimic_dataset_class_name(d, k)) + 1;
    for (int64_t i = 0; i < d->count; i++)
        n += strlen(short_name(d, i)) + 1;
    return n;
}

static uint8_t *append(uint8_t *p, const void *data, size_t size) {
    memcpy(p, data, size);
    return p + size;
}

static void sha256_of(const void *data, size_t size, uint8_t out[32]) {
    SHA2_CTX c;
    SHA256Init(&c);
    SHA256Update(&c, data, size);
    SHA256Final(out, &c);
}

/* Index and header, last: a file that was cut short has no header. */
static mimic_status write_index(work *w, uint64_t room) {
    const mimic_dataset *d = w->d;
    uint8_t *index = mimic_alloc(w->ctx, room), *p = index;
    if (!index)
        return MIMIC_ENOMEM;
    int64_t n = (int64_t)w->h.count;
    for (int64_t i = 0; i < n; i++)
        p = append(p, &d->samples[w->kept[i]].label, 4);
    p = append(p, w->crc, 4 * (size_t)n);
    for (int64_t i = 0; d->soft && i < n; i++)
        p = append(p, mimic_dataset_soft(d, w->kept[i]), 4 * (size_t)d->classes);
    p = append(p, d->mode, strlen(d->mode) + 1);
    for (int k = 0; k < d->classes; k++) {
        const char *name = mimic_dataset_class_name(d, k);
        p = append(p, name, strlen(name) + 1);
    }
    for (int64_t i = 0; i < n; i++) {
        const char *name = short_name(d, w->kept[i]);
        p = append(p, name, strlen(name) + 1);
    }
    w->h.index_bytes = (uint64_t)(p - index);
    sha256_of(index, w->h.index_bytes, w->h.index_sha256);
    sha256_of(&w->h, offsetof(mimic_pixels_header, header_sha256), w->h.header_sha256);
    mimic_status s = put(w, index, w->h.index_bytes, sizeof w->h);
    if (s == MIMIC_OK)
        s = put(w, &w->h, sizeof w->h, 0);
    mimic_free(w->ctx, index);
    return s;
}

static mimic_status write_all(work *w) {
    const mimic_dataset *d = w->d;
    uint64_t room = index_room(d);
    w->h = (mimic_pixels_header){.magic = MIMIC_PIXELS_MAGIC,
                                 .version = MIMIC_PIXELS_VERSION,
                                 .header_bytes = sizeof w->h,
                                 .flags = (d->soft ? MIMIC_PIXELS_SOFT : 0u) |
                                          (d->draws ? MIMIC_PIXELS_DRAWS : 0u),
                                 .classes = (uint32_t)d->classes};
    w->h.data_at = (sizeof w->h + room + PAGE - 1) / PAGE * PAGE;
    mimic_status s = measure(w);
    if (s == MIMIC_OK)
        s = write_records(w);
    if (s == MIMIC_OK &&
        ftruncate(w->fd, (off_t)(w->h.data_at + w->h.count * mimic_pixels_record(&w->h))) != 0)
        s = mimic_fail(w->ctx, MIMIC_EIO, "%s: %s", w->cfg->path, strerror(errno));
    if (s == MIMIC_OK)
        s = write_index(w, room);
    if (s == MIMIC_OK && fsync(w->fd) != 0)
        s = mimic_fail(w->ctx, MIMIC_EIO, "%s: %s", w->cfg->path, strerror(errno));
    return s;
}

mimic_status mimic_pixels_write(mimic_ctx *ctx, const mimic_dataset *d,
                                const mimic_pixels_config *cfg, int64_t *damaged) {
    char part[MIMIC_PATH_MAX];
    if (!cfg->path || !*cfg->path)
        return mimic_fail(ctx, MIMIC_EINVAL, "decoded pictures need a file to go to");
    if (cfg->size != 0 && (cfg->size < 8 || cfg->size > 4096))
        return mimic_fail(ctx, MIMIC_EINVAL, "size = %d, 8 to 4096 are possible", cfg->size);
    mimic_status s = mimic_path(ctx, part, "%s.%d.part", cfg->path, (int)getpid());
    if (s != MIMIC_OK)
        return s;
    int threads = mimic_threads(ctx);
    work *w = mimic_calloc(ctx, sizeof *w);
    if (!w)
        return MIMIC_ENOMEM;
    *w = (work){.ctx = ctx, .d = d, .cfg = cfg};
    w->fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        s = mimic_fail(ctx, MIMIC_EIO, "%s: %s", part, strerror(errno));
        goto done;
    }
    w->decoded = mimic_calloc(ctx, (size_t)threads * sizeof *w->decoded);
    w->resized = mimic_calloc(ctx, (size_t)threads * sizeof *w->resized);
    w->grey = mimic_calloc(ctx, CHUNK * sizeof *w->grey);
    w->kept = mimic_alloc(ctx, (size_t)d->count * sizeof *w->kept);
    w->crc = mimic_alloc(ctx, (size_t)d->count * sizeof *w->crc);
    s = w->decoded && w->resized && w->grey && w->kept && w->crc ? write_all(w) : MIMIC_ENOMEM;
    if (close(w->fd) != 0 && s == MIMIC_OK)
        s = mimic_fail(ctx, MIMIC_EIO, "%s: %s", part, strerror(errno));
    if (s == MIMIC_OK && rename(part, cfg->path) != 0)
        s = mimic_fail(ctx, MIMIC_EIO, "%s: %s", cfg->path, strerror(errno));
    if (s != MIMIC_OK)
        unlink(part);
    else if (damaged)
        *damaged = d->count - (int64_t)w->h.count;
done:
    for (int i = 0; i < threads; i++) {
        mimic_image_free(w->decoded ? &w->decoded[i] : NULL);
        mimic_image_free(w->resized ? &w->resized[i] : NULL);
    }
    void *blocks[] = {w->decoded, w->resized, w->grey, w->kept, w->crc, w->chunk, w};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        mimic_free(ctx, blocks[i]);
    return s;
}

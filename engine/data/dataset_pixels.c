/* Reader of .pixels files. Index and header are verified when opening, each record when it is read
 * for the first time. Records come by pread, so that a file which shrinks is an error and not a bus
 * fault; the page cache makes them as fast as mapped ones. */
#include "data/pixels.h"
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sha2.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct mimic_pixels {
    mimic_pixels_header h;
    char *path;
    uint8_t *index;           /* as in the file */
    const uint32_t *crc;      /* inside it */
    _Atomic uint8_t *checked; /* [count] record i was found right */
};

void mimic_pixels_close(mimic_dataset *d) {
    struct mimic_pixels *p = d->map;
    if (!p)
        return;
    mimic_free(d->ctx, p->path);
    mimic_free(d->ctx, p->index);
    mimic_free(d->ctx, (void *)p->checked);
    mimic_free(d->ctx, p);
}

bool mimic_dataset_form(const mimic_dataset *d, int *width, int *height, int *channels) {
    if (!d->map)
        return false;
    *width = (int)d->map->h.width;
    *height = (int)d->map->h.height;
    *channels = (int)d->map->h.channels;
    return true;
}

static mimic_status read_record(const mimic_dataset *d, int64_t i, mimic_image *out,
                                mimic_err *err) {
    struct mimic_pixels *p = d->map;
    const char *name = d->text + d->samples[i].name;
    size_t bytes = d->samples[i].size, pixels = (size_t)p->h.width * p->h.height;
    mimic_status s = mimic_image_reserve(out, (int)p->h.width, (int)p->h.height, err);
    /* Grey records are read behind their place and spread from there. */
    uint8_t *to = s == MIMIC_OK ? out->pixels + (pixels * 3 - bytes) : NULL;
    if (s == MIMIC_OK)
        s = mimic_read_into(d, d->samples[i].at, to, bytes, p->path, err);
    if (s != MIMIC_OK)
        return s;
    if (!atomic_load_explicit(&p->checked[i], memory_order_relaxed)) {
        if (crc32(0, to, (uInt)bytes) != p->crc[i])
            return mimic_err_fail(err, MIMIC_EFORMAT, "%s: record %lld (%s) is damaged", p->path,
                                  (long long)i, name);
        atomic_store_explicit(&p->checked[i], 1, memory_order_relaxed);
    }
    if (p->h.channels == 1)
        for (size_t k = 0; k < pixels; k++)
            memset(out->pixels + 3 * k, to[k], 3);
    return MIMIC_OK;
}

static mimic_status bad(mimic_dataset *d, const char *what) {
    return mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: %s", d->map->path, what);
}

static mimic_status check_header(mimic_dataset *d, uint64_t bytes) {
    mimic_pixels_header *h = &d->map->h;
    uint8_t sha[32];
    SHA2_CTX c;
    ssize_t n = pread(d->fd, h, sizeof *h, 0);
    if (n < 0)
        return mimic_fail(d->ctx, MIMIC_EIO, "%s: %s", d->map->path, strerror(errno));
    if (n != sizeof *h || memcmp(h->magic, MIMIC_PIXELS_MAGIC, 8) != 0)
        return bad(d, "not a file of decoded pictures (mimic data pack)");
    if (h->version != MIMIC_PIXELS_VERSION)
        return mimic_fail(d->ctx, MIMIC_EUNSUPPORTED,
                          "%s: version %u of the format, this program reads version %d: make it "
                          "again with mimic data pack",
                          d->map->path, h->version, MIMIC_PIXELS_VERSION);
    SHA256Init(&c);
    SHA256Update(&c, (const uint8_t *)h, offsetof(mimic_pixels_header, header_sha256));
    SHA256Final(sha, &c);
    if (memcmp(sha, h->header_sha256, 32) != 0)
        return bad(d, "the header is damaged");
    uint64_t record = mimic_pixels_record(h);
    uint64_t row = 8 + (h->flags & MIMIC_PIXELS_SOFT ? 4 * (uint64_t)h->classes : 0);
    if (h->width < 1 || h->height < 1 || h->width > 1 << 14 || h->height > 1 << 14 ||
        (h->channels != 1 && h->channels != 3) || h->count < 1 || h->count > INT32_MAX ||
        h->classes > (h->flags & MIMIC_PIXELS_SOFT ? MIMIC_PIXELS_SOFT_CLASSES : MIMIC_LABEL_MAX) ||
        h->index_bytes > bytes || h->data_at > bytes || h->count * row >= h->index_bytes ||
        sizeof *h + h->index_bytes > h->data_at)
        return bad(d, "the header's numbers do not fit together");
    if (bytes - h->data_at != h->count * record)
        return mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: %llu bytes, its header promises %llu",
                          d->map->path, (unsigned long long)bytes,
                          (unsigned long long)(h->data_at + h->count * record));
    return MIMIC_OK;
}

/* The next text of the index, or NULL. */
static const char *next_text(const uint8_t **p, const uint8_t *end) {
    const uint8_t *stop = memchr(*p, 0, (size_t)(end - *p));
    const char *text = (const char *)*p;
    if (stop)
        *p = stop + 1;
    return stop ? text : NULL;
}

static mimic_status fill(mimic_dataset *d, bool need_labels) {
    struct mimic_pixels *m = d->map;
    const mimic_pixels_header *h = &m->h;
    const int32_t *label = (const int32_t *)(const void *)m->index;
    size_t n = h->count, classes = h->classes;
    bool soft = h->flags & MIMIC_PIXELS_SOFT;
    double share[MIMIC_PIXELS_SOFT_CLASSES];
    const uint8_t *p = m->index + 8 * n, *end = m->index + h->index_bytes;
    const float *shares = (const float *)(const void *)p;
    m->crc = (const uint32_t *)(label + n);
    p += soft ? 4 * n * classes : 0;
    const char *text = next_text(&p, end);
    mimic_status s = text ? mimic_dataset_set_classes(d, (int)classes) : MIMIC_OK;
    d->mode = text ? text : "";
    d->draws = h->flags & MIMIC_PIXELS_DRAWS;
    for (size_t k = 0; k < classes && s == MIMIC_OK && text; k++)
        if ((text = next_text(&p, end)) && *text)
            s = mimic_dataset_name_class(d, (int)k, text);
    uint64_t record = mimic_pixels_record(h);
    size_t kept = 0;
    for (size_t i = 0; i < n && s == MIMIC_OK && text && (text = next_text(&p, end)); i++) {
        if (label[i] < -1 || label[i] >= (int32_t)classes)
            return bad(d, "a label beyond the classes");
        if (label[i] < 0 && need_labels) {
            d->dropped++;
            continue;
        }
        ((uint32_t *)(void *)m->crc)[kept++] = m->crc[i];
        s = mimic_dataset_add(d, NULL, 0, text, label[i], h->data_at + i * record,
                              (uint32_t)record);
        for (size_t k = 0; soft && k < classes; k++) {
            share[k] = (double)shares[i * classes + k];
            if (!(share[k] >= 0 && share[k] <= 1))
                return bad(d, "a soft label that is no probability");
        }
        if (s == MIMIC_OK && soft)
            s = mimic_dataset_add_soft(d, share, (int)classes);
    }
    return s == MIMIC_OK && !text ? bad(d, "the index ends too early") : s;
}

mimic_status mimic_dataset_open_pixels(mimic_dataset *d, const mimic_dataset_config *cfg) {
    char path[MIMIC_PATH_MAX];
    struct stat st;
    uint8_t sha[32];
    SHA2_CTX c;
    mimic_status s = mimic_pack_path(d, cfg, ".pixels", path);
    if (s != MIMIC_OK)
        return s;
    d->read = read_record;
    d->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (d->fd < 0 || fstat(d->fd, &st) != 0)
        return mimic_fail(d->ctx, MIMIC_EIO, "%s: %s", path, strerror(errno));
    struct mimic_pixels *p = d->map = mimic_calloc(d->ctx, sizeof *p);
    if (!p || !(p->path = mimic_strdup(d->ctx, path)))
        return MIMIC_ENOMEM;
    s = check_header(d, (uint64_t)st.st_size);
    if (s != MIMIC_OK)
        return s;
    mimic_err err;
    s = mimic_read_bytes(d, sizeof p->h, p->h.index_bytes, path, &p->index, &err);
    if (s != MIMIC_OK)
        return mimic_fail(d->ctx, s, "%s", err.text);
    SHA256Init(&c);
    SHA256Update(&c, p->index, p->h.index_bytes);
    SHA256Final(sha, &c);
    if (memcmp(sha, p->h.index_sha256, 32) != 0)
        return bad(d, "the index is damaged");
    p->checked = mimic_calloc(d->ctx, p->h.count);
    return p->checked ? fill(d, cfg->need_labels) : MIMIC_ENOMEM;
}

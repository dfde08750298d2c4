/* .npy: "\x93NUMPY", version, length of a header that is a Python dict in text, raw data. */
#include "data/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BYTES = 4096 };

typedef struct npy {
    mimic_ctx *ctx;
    const char *path;
    uint8_t bytes[MAX_BYTES + 1];
    size_t size, header, header_size;
    bool big;  /* big-endian data */
    char kind; /* U S i u f b */
    int width; /* bytes of an item (U: characters) */
} npy;

static mimic_status fail(const npy *f, const char *what) {
    return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: %s", f->path, what);
}

static mimic_status load(npy *f) {
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return mimic_fail(f->ctx, MIMIC_EIO, "%s: %s", f->path, strerror(errno));
    mimic_status s = MIMIC_OK;
    for (;;) {
        ssize_t n = read(fd, f->bytes + f->size, MAX_BYTES - f->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            s = mimic_fail(f->ctx, MIMIC_EIO, "%s: %s", f->path, strerror(errno));
        if (n <= 0)
            break;
        f->size += (size_t)n;
    }
    close(fd);
    f->bytes[f->size] = 0;
    return s;
}

/* The text behind 'KEY': in the header, or NULL. */
static const char *value_of(const char *header, const char *key) {
    const char *p = strstr(header, key);
    if (!p)
        return NULL;
    p += strlen(key);
    p += strspn(p, " ");
    if (*p++ != ':')
        return NULL;
    return p + strspn(p, " ");
}

static mimic_status parse_header(npy *f) {
    if (f->size < 12 || memcmp(f->bytes, "\x93NUMPY", 6) != 0)
        return fail(f, "not a .npy file");
    if (f->bytes[6] < 1 || f->bytes[6] > 3)
        return fail(f, "a .npy file of an unknown version");
    f->header = f->bytes[6] == 1 ? 10 : 12;
    f->header_size = (size_t)f->bytes[8] | (size_t)f->bytes[9] << 8;
    if (f->bytes[6] > 1)
        f->header_size |= (size_t)f->bytes[10] << 16 | (size_t)f->bytes[11] << 24;
    if (f->header_size > f->size - f->header)
        return fail(f, "the .npy header is cut off");
    char header[MAX_BYTES + 1];
    memcpy(header, f->bytes + f->header, f->header_size);
    header[f->header_size] = 0;
    const char *descr = value_of(header, "'descr'"), *shape = value_of(header, "'shape'");
    if (!descr || !shape || *descr != '\'')
        return fail(f, "no plain 'descr' and 'shape' in the .npy header");
    if (strncmp(shape, "()", 2) != 0 && strncmp(shape, "(1,)", 4) != 0)
        return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: shape %.*s, a single value is expected",
                          f->path, (int)strcspn(shape, ")") + 1, shape);
    descr++;
    f->big = *descr == '>';
    f->kind = descr[0] ? descr[1] : 0;
    f->width = f->kind ? atoi(descr + 2) : 0;
    if (!strchr("<>|=", descr[0]) || !f->kind || !strchr("USiufb", f->kind) || f->width < 1 ||
        f->width > 64)
        return mimic_fail(f->ctx, MIMIC_EUNSUPPORTED,
                          "%s: dtype '%.*s' is neither a number nor a text", f->path,
                          (int)strcspn(descr, "'"), descr);
    return MIMIC_OK;
}

static uint64_t get(const npy *f, const uint8_t *p, int width) {
    uint64_t v = 0;
    for (int i = 0; i < width; i++)
        v |= (uint64_t)p[f->big ? width - 1 - i : i] << (8 * i);
    return v;
}

static mimic_status parse_text(const npy *f, const uint8_t *p, double *out) {
    char text[65];
    int n = 0;
    for (int i = 0; i < f->width; i++) {
        uint64_t c = f->kind == 'U' ? get(f, p + 4 * i, 4) : p[i];
        if (c == 0)
            break;
        text[n++] = c < 128 ? (char)c : '?';
    }
    text[n] = 0;
    char *end;
    *out = strtod(text, &end);
    if (n == 0 || *end)
        return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: \"%s\" is not a number", f->path, text);
    return MIMIC_OK;
}

mimic_status mimic_npy_scalar(mimic_ctx *ctx, const char *path, double *out) {
    npy f = {.ctx = ctx, .path = path};
    mimic_status s = load(&f);
    if (s == MIMIC_OK)
        s = parse_header(&f);
    if (s != MIMIC_OK)
        return s;
    const uint8_t *p = f.bytes + f.header + f.header_size;
    size_t item = (size_t)f.width * (f.kind == 'U' ? 4 : 1);
    if (f.size - f.header - f.header_size != item)
        return fail(&f, "the .npy data is not of the size its header promises");
    if (f.kind == 'U' || f.kind == 'S')
        return parse_text(&f, p, out);
    if (f.width != 1 && f.width != 2 && f.width != 4 && f.width != 8)
        return fail(&f, "a .npy number of an odd size");
    uint64_t v = get(&f, p, f.width);
    if (f.kind == 'f') {
        float single;
        uint32_t low = (uint32_t)v;
        if (f.width == 2)
            return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "%s: dtype f2", path);
        memcpy(&single, &low, sizeof single);
        if (f.width == 8)
            memcpy(out, &v, sizeof *out);
        else
            *out = (double)single;
    } else if (f.kind == 'i' && f.width < 8 && v >> (8 * f.width - 1)) {
        *out = (double)((int64_t)v - ((int64_t)1 << (8 * f.width)));
    } else {
        *out = f.kind == 'i' ? (double)(int64_t)v : (double)v;
    }
    return MIMIC_OK;
}

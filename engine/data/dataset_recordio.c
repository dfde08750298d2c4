/* Faces in MXNet's RecordIO as insightface packs them: NAME.rec, NAME.idx (key<TAB>offset) and
 * `property` (identities,height,width). Record 0 says which keys are pictures and which are
 * identities; an identity's record says which keys are its pictures. Without record 0 every record
 * is a picture with its label in front. */
#include "data/dataset_impl.h"
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0xced7230au
enum { HEADER = 24, MAX_FLOATS = 1 << 16, MAX_PARTS = 1 << 16 };

static bool rec_path(const char *path, char out[MIMIC_PATH_MAX]) {
    size_t n = strlen(path);
    if (n > 4 && strcmp(path + n - 4, ".rec") == 0) {
        snprintf(out, MIMIC_PATH_MAX, "%s", path);
        return mimic_is_file(path);
    }
    int k = snprintf(out, MIMIC_PATH_MAX, "%s/train.rec", path);
    return k < MIMIC_PATH_MAX && mimic_is_file(out);
}

bool mimic_is_recordio(const char *path) {
    char rec[MIMIC_PATH_MAX];
    return rec_path(path, rec);
}

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static float get_float(const uint8_t *p) {
    uint32_t bits = get32(p);
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

typedef struct record {
    uint8_t *data; /* freed with mimic_free */
    size_t size;
} record;

/* Appends the part at `at`, its data cut so that the record has at most `most` bytes. *flag: 0
 * whole, 1 first, 2 middle, 3 last; *next: where the next part begins. */
static mimic_status read_part(const mimic_dataset *d, uint64_t at, size_t most, const char *name,
                              record *r, uint32_t *flag, uint64_t *next, mimic_err *err) {
    uint8_t head[8];
    struct stat st;
    mimic_status s = mimic_read_into(d, at, head, sizeof head, name, err);
    if (s != MIMIC_OK)
        return s;
    uint32_t word = get32(head + 4);
    size_t n = word & ((1u << 29) - 1), room = most - r->size, take = n < room ? n : room;
    *flag = word >> 29;
    *next = at + 8 + (n + 3) / 4 * 4;
    if (get32(head) != MAGIC || *flag > 3 || (r->data ? *flag < 2 : *flag > 1))
        return mimic_err_fail(err, MIMIC_EFORMAT, "%s: no record at byte %llu", name,
                              (unsigned long long)at);
    if (fstat(d->fd, &st) != 0 || (uint64_t)st.st_size < at + 8 + n)
        return mimic_err_fail(err, MIMIC_EFORMAT, "%s: the record is cut off", name);
    bool more = r->data && room >= 4; /* the parts were cut at a magic, which goes between them */
    uint8_t *data = mimic_try_alloc(d->ctx, r->size + 4 + take + 1);
    if (!data)
        return mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for its %zu bytes", name,
                              r->size + take);
    if (r->data)
        memcpy(data, r->data, r->size);
    if (more) {
        memcpy(data + r->size, head, 4);
        r->size += 4;
        take = take < room - 4 ? take : room - 4;
    }
    mimic_free(d->ctx, r->data);
    r->data = data;
    s = mimic_read_into(d, at + 8, data + r->size, take, name, err);
    r->size += take;
    return s;
}

/* The data of the record at `at`, at most `most` bytes of it. */
static mimic_status read_record(const mimic_dataset *d, uint64_t at, size_t most, const char *name,
                                record *r, mimic_err *err) {
    mimic_status s = MIMIC_OK;
    uint32_t flag = 1;
    *r = (record){0};
    for (int part = 0; s == MIMIC_OK && flag != 0 && flag != 3 && r->size < most; part++)
        s = part < MAX_PARTS
                ? read_part(d, at, most, name, r, &flag, &at, err)
                : mimic_err_fail(err, MIMIC_EFORMAT, "%s: a record of too many parts", name);
    if (s != MIMIC_OK) {
        mimic_free(d->ctx, r->data);
        *r = (record){0};
    }
    return s;
}

/* Bytes of the header in front of the picture; 0 when the record is too short for it. */
static size_t header_size(const uint8_t *data, size_t size) {
    if (size < HEADER)
        return 0;
    uint64_t floats = get32(data);
    if (floats > MAX_FLOATS || size - HEADER < floats * 4)
        return 0;
    return HEADER + (size_t)floats * 4;
}

static mimic_status read_face(const mimic_dataset *d, int64_t i, mimic_image *out, mimic_err *err) {
    const char *name = d->text + d->samples[i].name;
    record r;
    mimic_status s = read_record(d, d->samples[i].at, SIZE_MAX / 2, name, &r, err);
    if (s != MIMIC_OK)
        return s;
    size_t skip = header_size(r.data, r.size);
    s = skip ? mimic_image_decode(r.data + skip, r.size - skip, name, out, err)
             : mimic_err_fail(err, MIMIC_EFORMAT, "%s: the record has no whole header", name);
    mimic_free(d->ctx, r.data);
    return s;
}

/* The labels in front of a record: one inside the header (*n = 0), or the first two of *n. */
static mimic_status read_labels(mimic_dataset *d, uint64_t at, const char *name, double label[2],
                                int *n) {
    record r;
    mimic_err err;
    mimic_status s = read_record(d, at, HEADER + 8, name, &r, &err);
    if (s != MIMIC_OK)
        return mimic_fail(d->ctx, s, "%s", err.text);
    uint32_t floats = r.size >= HEADER ? get32(r.data) : 0;
    if (r.size < HEADER || (floats && r.size < HEADER + (floats > 1 ? 8 : 4))) {
        s = mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: the record has no whole header", name);
    } else {
        *n = floats > 2 ? 2 : (int)floats;
        label[0] = (double)get_float(r.data + (floats ? HEADER : 4));
        label[1] = floats > 1 ? (double)get_float(r.data + HEADER + 4) : label[0];
    }
    mimic_free(d->ctx, r.data);
    return s;
}

typedef struct entry {
    int64_t key;
    uint64_t at;
} entry;

typedef struct keys {
    mimic_text text;
    entry *entries; /* in order of key */
    int64_t count, room;
} keys;

static int by_key(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return (x->key > y->key) - (x->key < y->key);
}

static mimic_status read_index(mimic_dataset *d, const char *path, uint64_t bytes, keys *x) {
    mimic_status s = mimic_text_open(&x->text, d->ctx, path);
    for (char *line; s == MIMIC_OK && (line = mimic_text_line(&x->text));) {
        char *tab = strchr(line, '\t');
        int64_t key, at;
        if (!*line)
            continue;
        if (tab)
            *tab = 0;
        if (!tab || !mimic_parse_int(line, 0, INT32_MAX, &key) ||
            !mimic_parse_int(tab + 1, 0, INT64_MAX, &at))
            return mimic_text_fail(&x->text, "not KEY<TAB>OFFSET");
        if ((uint64_t)at >= bytes)
            return mimic_text_fail(&x->text, "offset %lld is beyond the end of the .rec file",
                                   (long long)at);
        if (x->count == x->room) {
            int64_t room = x->room ? x->room * 2 : 1024;
            entry *e = mimic_realloc(d->ctx, x->entries, (size_t)x->room * sizeof *e,
                                     (size_t)room * sizeof *e);
            if (!e)
                return MIMIC_ENOMEM;
            x->entries = e;
            x->room = room;
        }
        x->entries[x->count++] = (entry){key, (uint64_t)at};
    }
    if (s == MIMIC_OK && x->count)
        qsort(x->entries, (size_t)x->count, sizeof *x->entries, by_key);
    for (int64_t i = 1; s == MIMIC_OK && i < x->count; i++)
        if (x->entries[i].key == x->entries[i - 1].key)
            s = mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: key %lld occurs twice", path,
                           (long long)x->entries[i].key);
    return s;
}

static mimic_status add_entry(mimic_dataset *d, const entry *e, const char *file, int32_t label) {
    char name[300];
    snprintf(name, sizeof name, "%.250s:%lld", file, (long long)e->key);
    return mimic_dataset_add(d, NULL, 0, name, label, e->at, 0);
}

static bool whole(double v, double lo, double hi) {
    return v >= lo && v <= hi && v == floor(v);
}

/* First sample with a key of at least `key`; samples are the entries from 1 on, in order of key. */
static int64_t sample_of_key(const mimic_dataset *d, const keys *x, int64_t key) {
    int64_t lo = 0, hi = d->count;
    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        if (x->entries[mid + 1].key < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Labels pictures by the identity records, keys first..last-1. */
static mimic_status label_identities(mimic_dataset *d, const keys *x, const char *file,
                                     int64_t first, int64_t last) {
    int32_t identity = 0;
    for (int64_t i = d->count + 1; i < x->count && x->entries[i].key < last; i++) {
        char name[300];
        double range[2];
        int n;
        snprintf(name, sizeof name, "%.250s:%lld", file, (long long)x->entries[i].key);
        mimic_status s = read_labels(d, x->entries[i].at, name, range, &n);
        if (s != MIMIC_OK)
            return s;
        if (n < 2 || !whole(range[0], 0, (double)first) ||
            !whole(range[1], range[0], (double)first))
            return mimic_fail(d->ctx, MIMIC_EFORMAT,
                              "%s: an identity of the keys %g to %g, pictures end before %lld",
                              name, range[0], range[1], (long long)first);
        int64_t end = sample_of_key(d, x, (int64_t)range[1]);
        for (int64_t k = sample_of_key(d, x, (int64_t)range[0]); k < end; k++)
            d->samples[k].label = identity;
        identity++;
    }
    return mimic_dataset_set_classes(d, identity);
}

static mimic_status add_pictures(mimic_dataset *d, const keys *x, const char *file,
                                 bool need_labels) {
    char name[300];
    double label[2];
    int n;
    if (x->count == 0)
        return MIMIC_OK;
    snprintf(name, sizeof name, "%.250s:%lld", file, (long long)x->entries[0].key);
    mimic_status s = read_labels(d, x->entries[0].at, name, label, &n);
    if (s != MIMIC_OK)
        return s;
    if (x->entries[0].key == 0 && n == 2) {
        if (!whole(label[0], 1, INT32_MAX) || !whole(label[1], label[0], INT32_MAX))
            return mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: record 0 says keys up to %g and %g", name,
                              label[0], label[1]);
        for (int64_t i = 1; s == MIMIC_OK && i < x->count && x->entries[i].key < (int64_t)label[0];
             i++)
            s = add_entry(d, &x->entries[i], file, -1);
        return s == MIMIC_OK ? label_identities(d, x, file, (int64_t)label[0], (int64_t)label[1])
                             : s;
    }
    for (int64_t i = 0; s == MIMIC_OK && i < x->count; i++) {
        snprintf(name, sizeof name, "%.250s:%lld", file, (long long)x->entries[i].key);
        s = read_labels(d, x->entries[i].at, name, label, &n);
        if (s == MIMIC_OK && !whole(label[0], -1, MIMIC_LABEL_MAX - 1))
            s = mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: label %g", name, label[0]);
        if (s == MIMIC_OK && label[0] < 0 && need_labels) {
            d->dropped++;
            continue;
        }
        if (s == MIMIC_OK)
            s = mimic_dataset_set_classes(d, (int)label[0] + 1);
        if (s == MIMIC_OK)
            s = add_entry(d, &x->entries[i], file, (int32_t)label[0]);
    }
    return s;
}

/* Leaves out pictures that belong to no identity. */
static void drop_unlabelled(mimic_dataset *d) {
    int64_t kept = 0;
    for (int64_t i = 0; i < d->count; i++)
        if (d->samples[i].label >= 0)
            d->samples[kept++] = d->samples[i];
    d->dropped += d->count - kept;
    d->count = kept;
}

mimic_status mimic_dataset_open_recordio(mimic_dataset *d, const mimic_dataset_config *cfg) {
    char rec[MIMIC_PATH_MAX], idx[MIMIC_PATH_MAX];
    struct stat st;
    keys x = {0};
    if (cfg->split)
        return mimic_no_split(d, MIMIC_EINVAL, "%s: RecordIO has no splits (\"%s\")", cfg->path,
                              cfg->split);
    if (!rec_path(cfg->path, rec))
        return mimic_fail(d->ctx, MIMIC_EIO, "%s is missing", rec);
    mimic_status s = mimic_path(d->ctx, idx, "%.*s.idx", (int)strlen(rec) - 4, rec);
    if (s != MIMIC_OK)
        return s;
    d->read = read_face;
    d->fd = open(rec, O_RDONLY | O_CLOEXEC);
    if (d->fd < 0 || fstat(d->fd, &st) != 0)
        return mimic_fail(d->ctx, MIMIC_EIO, "%s: %s", rec, strerror(errno));
    s = read_index(d, idx, (uint64_t)st.st_size, &x);
    const char *slash = strrchr(rec, '/');
    if (s == MIMIC_OK)
        s = add_pictures(d, &x, slash ? slash + 1 : rec, cfg->need_labels);
    if (s == MIMIC_OK && cfg->need_labels)
        drop_unlabelled(d);
    mimic_free(d->ctx, x.entries);
    mimic_text_close(&x.text);
    return s;
}

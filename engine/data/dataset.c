/* The sample table of a data set: opening by format, accessors, the hash, reading of one sample. */
#include "data/dataset_impl.h"
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sha2.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- filling --- */

static mimic_status add_text(mimic_dataset *d, size_t bytes) {
    if (d->text_used + bytes <= d->text_room)
        return MIMIC_OK;
    size_t room = d->text_room ? d->text_room * 2 : 4096;
    while (room < d->text_used + bytes)
        room *= 2;
    char *text = mimic_realloc(d->ctx, d->text, d->text_room, room);
    if (!text)
        return MIMIC_ENOMEM;
    d->text = text;
    d->text_room = room;
    return MIMIC_OK;
}

mimic_status mimic_dataset_add(mimic_dataset *d, const char *dir, char separator, const char *name,
                               int32_t label, uint64_t at, uint32_t size) {
    if (d->count == INT32_MAX)
        return mimic_fail(d->ctx, MIMIC_EINVAL, "more than %d samples", INT32_MAX);
    if (d->count == d->room) {
        int64_t room = d->room ? d->room * 2 : 256;
        mimic_sample *samples = mimic_realloc(d->ctx, d->samples, (size_t)d->room * sizeof *samples,
                                              (size_t)room * sizeof *samples);
        if (!samples)
            return MIMIC_ENOMEM;
        d->samples = samples;
        d->room = room;
    }
    size_t a = dir ? strlen(dir) : 0, b = strlen(name);
    mimic_status s = add_text(d, a + b + 2);
    if (s != MIMIC_OK)
        return s;
    char *p = d->text + d->text_used;
    d->samples[d->count++] =
        (mimic_sample){.name = d->text_used, .at = at, .size = size, .label = label};
    if (a) {
        memcpy(p, dir, a);
        p += a;
        *p++ = separator;
    }
    memcpy(p, name, b + 1);
    d->text_used += (size_t)(p - (d->text + d->text_used)) + b + 1;
    return MIMIC_OK;
}

mimic_status mimic_dataset_set_classes(mimic_dataset *d, int classes) {
    if (classes <= d->classes)
        return MIMIC_OK;
    size_t *names = mimic_realloc(d->ctx, d->class_names, (size_t)d->classes * sizeof *names,
                                  (size_t)classes * sizeof *names);
    if (!names)
        return MIMIC_ENOMEM;
    memset(names + d->classes, 0, (size_t)(classes - d->classes) * sizeof *names);
    d->class_names = names;
    d->classes = classes;
    return MIMIC_OK;
}

mimic_status mimic_dataset_name_class(mimic_dataset *d, int k, const char *name) {
    size_t n = strlen(name) + 1;
    mimic_status s = add_text(d, n);
    if (s != MIMIC_OK)
        return s;
    memcpy(d->text + d->text_used, name, n);
    d->class_names[k] = d->text_used;
    d->text_used += n;
    return MIMIC_OK;
}

/* --- opening --- */

static const struct {
    const char *name;
    mimic_status (*open)(mimic_dataset *d, const mimic_dataset_config *cfg);
} formats[] = {{"folders", mimic_dataset_open_folders},
               {"rafdb", mimic_dataset_open_rafdb},
               {"list", mimic_dataset_open_list},
               {"pack", mimic_dataset_open_pack}};

static bool ends_with(const char *s, const char *end) {
    size_t a = strlen(s), b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

/* Index in `formats` of what lies at cfg->path, or -1. */
static int detect(const mimic_dataset_config *cfg) {
    if (mimic_is_folder(cfg->path))
        return mimic_is_rafdb(cfg->path) ? 1 : 0;
    char pack[MIMIC_PATH_MAX];
    int n = cfg->split ? snprintf(pack, sizeof pack, "%s_%s.tar", cfg->path, cfg->split)
                       : snprintf(pack, sizeof pack, "%s.tar", cfg->path);
    if (ends_with(cfg->path, ".tar") || (n < MIMIC_PATH_MAX && mimic_is_file(pack)))
        return 3;
    return mimic_is_file(cfg->path) ? 2 : -1;
}

/* Nothing at cfg->path: says what its folder holds. */
static mimic_status not_found(mimic_ctx *ctx, const char *path) {
    char folder[MIMIC_PATH_MAX], found[400];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder)
        *slash = 0;
    else
        snprintf(folder, sizeof folder, "%s", slash ? "/" : ".");
    mimic_describe_folder(folder, found, sizeof found);
    return mimic_fail(ctx, MIMIC_EIO, "no data set at %s; %s holds: %s", path, folder, found);
}

mimic_status mimic_dataset_open(mimic_ctx *ctx, const mimic_dataset_config *cfg,
                                mimic_dataset **out) {
    *out = NULL;
    if (!cfg->path || !*cfg->path)
        return mimic_fail(ctx, MIMIC_EINVAL, "a data set needs a path");
    if (cfg->split && (!*cfg->split || strchr(cfg->split, '/')))
        return mimic_fail(ctx, MIMIC_EINVAL, "split \"%s\" is not a name", cfg->split);
    int format = -1;
    if (!cfg->format || strcmp(cfg->format, "auto") == 0) {
        format = detect(cfg);
        if (format < 0)
            return not_found(ctx, cfg->path);
    } else {
        for (int i = 0; i < 4; i++)
            if (strcmp(cfg->format, formats[i].name) == 0)
                format = i;
        if (format < 0)
            return mimic_fail(ctx, MIMIC_EINVAL,
                              "unknown data set format \"%s\": auto, folders, rafdb, list, pack",
                              cfg->format);
    }
    mimic_status s = MIMIC_ENOMEM;
    mimic_dataset *d = mimic_calloc(ctx, sizeof *d);
    if (!d)
        return s;
    d->ctx = ctx;
    d->fd = -1;
    d->format = formats[format].name;
    s = add_text(d, 1);
    if (s != MIMIC_OK)
        goto done;
    d->text[d->text_used++] = 0;
    s = formats[format].open(d, cfg);
    if (s == MIMIC_OK && d->count == 0)
        s = mimic_fail(ctx, MIMIC_EFORMAT, "%s: the data set has no sample%s", cfg->path,
                       d->dropped ? " with a label" : "");
done:
    if (s == MIMIC_OK)
        *out = d;
    else
        mimic_dataset_free(d);
    return s;
}

void mimic_dataset_free(mimic_dataset *d) {
    if (!d)
        return;
    if (d->fd >= 0)
        close(d->fd);
    mimic_free(d->ctx, d->text);
    mimic_free(d->ctx, d->samples);
    mimic_free(d->ctx, d->class_names);
    mimic_free(d->ctx, d);
}

/* --- access --- */

int64_t mimic_dataset_size(const mimic_dataset *d) {
    return d->count;
}

int mimic_dataset_classes(const mimic_dataset *d) {
    return d->classes;
}

const char *mimic_dataset_class_name(const mimic_dataset *d, int k) {
    return k >= 0 && k < d->classes ? d->text + d->class_names[k] : "";
}

const char *mimic_dataset_format(const mimic_dataset *d) {
    return d->format;
}

int32_t mimic_dataset_label(const mimic_dataset *d, int64_t i) {
    return i >= 0 && i < d->count ? d->samples[i].label : -1;
}

const char *mimic_dataset_sample_name(const mimic_dataset *d, int64_t i) {
    return i >= 0 && i < d->count ? d->text + d->samples[i].name : "";
}

int64_t mimic_dataset_dropped(const mimic_dataset *d) {
    return d->dropped;
}

void mimic_dataset_counts(const mimic_dataset *d, int64_t *per_class) {
    memset(per_class, 0, (size_t)d->classes * sizeof *per_class);
    for (int64_t i = 0; i < d->count; i++)
        if (d->samples[i].label >= 0)
            per_class[d->samples[i].label]++;
}

void mimic_dataset_hash(const mimic_dataset *d, uint8_t out[32]) {
    SHA2_CTX sha;
    SHA256Init(&sha);
    for (int64_t i = 0; i < d->count; i++) {
        const mimic_sample *m = &d->samples[i];
        const char *name = d->text + m->name;
        uint64_t size = m->size;
        struct stat st;
        if (d->fd < 0)
            size = stat(name, &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
        if (strlen(name) > d->root)
            name += d->root;
        uint8_t tail[12];
        for (int b = 0; b < 8; b++)
            tail[b] = (uint8_t)(size >> (8 * b));
        for (int b = 0; b < 4; b++)
            tail[8 + b] = (uint8_t)((uint32_t)m->label >> (8 * b));
        SHA256Update(&sha, (const uint8_t *)name, strlen(name) + 1);
        SHA256Update(&sha, tail, sizeof tail);
    }
    SHA256Final(out, &sha);
}

/* Sample i of a pack, from the open tar. */
static mimic_status read_packed(const mimic_dataset *d, int64_t i, mimic_image *out,
                                mimic_err *err) {
    const mimic_sample *m = &d->samples[i];
    const char *name = d->text + m->name;
    mimic_status s = MIMIC_OK;
    uint8_t *data = mimic_try_alloc(d->ctx, (size_t)m->size + 1);
    if (!data)
        return mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for its %u bytes", name, m->size);
    for (size_t got = 0; got < m->size;) {
        ssize_t n = pread(d->fd, data + got, m->size - got, (off_t)(m->at + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            s = n < 0 ? mimic_err_fail(err, MIMIC_EIO, "%s: %s", name, strerror(errno))
                      : mimic_err_fail(err, MIMIC_EFORMAT, "%s: the pack has become shorter", name);
            goto done;
        }
        got += (size_t)n;
    }
    s = mimic_image_decode(data, m->size, name, out, err);
done:
    mimic_free(d->ctx, data);
    return s;
}

mimic_status mimic_dataset_read(const mimic_dataset *d, int64_t i, mimic_image *out,
                                mimic_err *err) {
    if (i < 0 || i >= d->count)
        return mimic_err_fail(err, MIMIC_EINVAL, "sample %lld of %lld", (long long)i,
                              (long long)d->count);
    return d->fd >= 0 ? read_packed(d, i, out, err)
                      : mimic_image_read(d->text + d->samples[i].name, out, err);
}

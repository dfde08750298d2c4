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

mimic_status mimic_dataset_add_list(mimic_dataset *d, const char *path) {
    size_t n = strlen(path) + 1;
    mimic_status s = d->list_count < MIMIC_LISTS
                         ? add_text(d, n)
                         : mimic_fail(d->ctx, MIMIC_ESTATE, "more than %d lists", MIMIC_LISTS);
    if (s != MIMIC_OK)
        return s;
    memcpy(d->text + d->text_used, path, n);
    d->lists[d->list_count].name = d->text_used;
    d->lists[d->list_count++].first = d->count;
    d->text_used += n;
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

mimic_status mimic_dataset_name_classes(mimic_dataset *d, const char *const *names, int n) {
    mimic_status s = mimic_dataset_set_classes(d, n);
    for (int k = 0; s == MIMIC_OK && k < n; k++)
        s = mimic_dataset_name_class(d, k, names[k]);
    return s;
}

mimic_status mimic_dataset_add_or_drop(mimic_dataset *d, bool need_labels, const char *dir,
                                       char separator, const char *name, int32_t label, uint64_t at,
                                       uint32_t size) {
    if (label >= 0 || !need_labels)
        return mimic_dataset_add(d, dir, separator, name, label, at, size);
    d->dropped++;
    return MIMIC_OK;
}

/* Room for soft labels of all samples there is room for; new ones are zero. */
static mimic_status grow_soft(mimic_dataset *d, int n) {
    if (d->soft && d->soft_room == d->room)
        return MIMIC_OK;
    size_t row = (size_t)n * sizeof *d->soft, old = (size_t)d->soft_room * row;
    float *soft = mimic_realloc(d->ctx, d->soft, old, (size_t)d->room * row);
    if (!soft)
        return MIMIC_ENOMEM;
    memset((char *)soft + old, 0, (size_t)d->room * row - old);
    d->soft = soft;
    d->soft_room = d->room;
    return MIMIC_OK;
}

mimic_status mimic_dataset_add_soft(mimic_dataset *d, const double *p, int n) {
    mimic_status s = grow_soft(d, n);
    for (int k = 0; s == MIMIC_OK && k < n; k++)
        d->soft[(d->count - 1) * n + k] = (float)p[k];
    return s;
}

/* Unit vectors for samples that have a label but no soft one. */
static mimic_status complete_soft(mimic_dataset *d) {
    mimic_status s = d->soft ? grow_soft(d, d->classes) : MIMIC_OK;
    for (int64_t i = 0; s == MIMIC_OK && d->soft && i < d->count; i++) {
        float *row = d->soft + i * d->classes, sum = 0;
        for (int k = 0; k < d->classes; k++)
            sum += row[k];
        if (sum == 0 && d->samples[i].label >= 0)
            row[d->samples[i].label] = 1;
    }
    return s;
}

bool mimic_box(int64_t x, int64_t y, int64_t w, int64_t h, uint64_t *at) {
    if (x < INT16_MIN || x > INT16_MAX || y < INT16_MIN || y > INT16_MAX || w < 1 ||
        w > INT16_MAX || h < 1 || h > INT16_MAX)
        return false;
    *at =
        (uint64_t)(uint16_t)x << 48 | (uint64_t)(uint16_t)y << 32 | (uint64_t)w << 16 | (uint64_t)h;
    return true;
}

int mimic_dataset_choose_mode(mimic_dataset *d, const char *mode, const char *const *names, int n) {
    char list[200] = "";
    size_t used = 0;
    for (int i = 0; i < n; i++) {
        if (!mode || strcmp(mode, names[i]) == 0) {
            d->mode = names[i];
            return i;
        }
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    mimic_fail(d->ctx, MIMIC_EINVAL, "format %s has no mode \"%s\"; it has: %s", d->format, mode,
               list);
    return -1;
}

int mimic_dataset_choose_split(mimic_dataset *d, const char *what, const char *wanted, bool test) {
    static const char *const names[] = {"train", "val", "test", "valid", "validation"};
    if (!wanted)
        return -1;
    for (int i = 0; i < 5; i++)
        if (strcmp(wanted, names[i]) == 0 && (i != 2 || test))
            return i < 3 ? i : 1;
    mimic_no_split(d, MIMIC_EINVAL, "%s has the splits train%s, not \"%s\"", what,
                   test ? ", val and test" : " and val", wanted);
    return -2;
}

/* --- opening --- */

static const struct {
    const char *name;
    mimic_status (*open)(mimic_dataset *d, const mimic_dataset_config *cfg);
    bool modes;
} formats[] = {{"folders", mimic_dataset_open_folders, false},
               {"rafdb", mimic_dataset_open_rafdb, false},
               {"ferplus", mimic_dataset_open_ferplus, true},
               {"affectnet", mimic_dataset_open_affectnet, true},
               {"recordio", mimic_dataset_open_recordio, false},
               {"list", mimic_dataset_open_list, false},
               {"pack", mimic_dataset_open_pack, false},
               {"pixels", mimic_dataset_open_pixels, false}};
enum { FOLDERS, RAFDB, FERPLUS, AFFECTNET, RECORDIO, LIST, PACK, PIXELS, FORMATS };

static bool ends_with(const char *s, const char *end) {
    size_t a = strlen(s), b = strlen(end);
    return a >= b && strcmp(s + a - b, end) == 0;
}

/* Nothing at cfg->path: says what its folder holds. */
static mimic_status not_found(mimic_ctx *ctx, const mimic_dataset_config *cfg) {
    const char *path = cfg->path;
    char folder[MIMIC_PATH_MAX], found[400];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash && slash != folder)
        *slash = 0;
    else
        snprintf(folder, sizeof folder, "%s", slash ? "/" : ".");
    mimic_describe_folder(folder, found, sizeof found);
    return mimic_fail(ctx, MIMIC_EIO, "no data set at %s%s%s; %s holds: %s", path,
                      cfg->split ? ", split " : "", cfg->split ? cfg->split : "", folder, found);
}

/* Does PATH[_SPLIT]END exist? */
static bool has_companion(const mimic_dataset_config *cfg, const char *end) {
    char path[MIMIC_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s%s%s%s", cfg->path, cfg->split ? "_" : "",
                     cfg->split ? cfg->split : "", end);
    return n < MIMIC_PATH_MAX && mimic_is_file(path);
}

/* Index in `formats` of what lies at cfg->path, or -1. */
static int detect(const mimic_dataset_config *cfg) {
    if (mimic_is_ferplus(cfg->path))
        return FERPLUS;
    if (mimic_is_recordio(cfg->path))
        return RECORDIO;
    if (mimic_is_folder(cfg->path))
        return mimic_is_rafdb(cfg->path)       ? RAFDB
               : mimic_is_affectnet(cfg->path) ? AFFECTNET
                                               : FOLDERS;
    if (ends_with(cfg->path, ".pixels") || has_companion(cfg, ".pixels"))
        return PIXELS;
    if (ends_with(cfg->path, ".tar") || has_companion(cfg, ".tar"))
        return PACK;
    return mimic_is_file(cfg->path) ? LIST : -1;
}

const char *mimic_dataset_detect(const char *path) {
    int format = detect(&(mimic_dataset_config){.path = path});
    return format < 0 ? NULL : formats[format].name;
}

/* The format asked for, or found; -1 after a failure. */
static int choose_format(mimic_ctx *ctx, const mimic_dataset_config *cfg) {
    int format = -1;
    if (!cfg->format || strcmp(cfg->format, "auto") == 0) {
        format = detect(cfg);
        if (format < 0)
            not_found(ctx, cfg);
        return format;
    }
    char list[200] = "auto";
    size_t used = 4;
    for (int i = 0; i < FORMATS; i++) {
        if (strcmp(cfg->format, formats[i].name) == 0)
            format = i;
        used += (size_t)snprintf(list + used, sizeof list - used, ", %s", formats[i].name);
    }
    if (format < 0)
        mimic_fail(ctx, MIMIC_EINVAL, "unknown data set format \"%s\": %s", cfg->format, list);
    return format;
}

mimic_status mimic_dataset_open(mimic_ctx *ctx, const mimic_dataset_config *cfg,
                                mimic_dataset **out) {
    *out = NULL;
    if (!cfg->path || !*cfg->path)
        return mimic_fail(ctx, MIMIC_EINVAL, "a data set needs a path");
    if (cfg->split && (!*cfg->split || strchr(cfg->split, '/')))
        return mimic_fail(ctx, MIMIC_EINVAL, "split \"%s\" is not a name", cfg->split);
    int format = choose_format(ctx, cfg);
    if (format < 0)
        return cfg->optional && cfg->split && mimic_last_status(ctx) == MIMIC_EIO
                   ? MIMIC_OK
                   : mimic_last_status(ctx);
    if (cfg->mode && !formats[format].modes)
        return mimic_fail(ctx, MIMIC_EINVAL, "format %s has no modes (\"%s\")",
                          formats[format].name, cfg->mode);
    mimic_status s = MIMIC_ENOMEM;
    mimic_dataset *d = mimic_calloc(ctx, sizeof *d);
    if (!d)
        return s;
    d->ctx = ctx;
    d->fd = -1;
    d->format = formats[format].name;
    d->mode = "";
    d->read = mimic_read_file;
    s = add_text(d, 1);
    if (s != MIMIC_OK)
        goto done;
    d->text[d->text_used++] = 0;
    s = formats[format].open(d, cfg);
    if (s == MIMIC_OK && d->count == 0)
        s = mimic_fail(ctx, MIMIC_EFORMAT, "%s: the data set has no sample%s", cfg->path,
                       d->dropped ? " with a label" : "");
    if (s == MIMIC_OK)
        s = complete_soft(d);
done:
    if (s == MIMIC_OK) {
        *out = d;
        return s;
    }
    if (cfg->optional && cfg->split && d->no_split)
        s = MIMIC_OK;
    mimic_dataset_free(d);
    return s;
}

void mimic_dataset_free(mimic_dataset *d) {
    if (!d)
        return;
    mimic_pixels_close(d);
    if (d->fd >= 0)
        close(d->fd);
    mimic_free(d->ctx, d->soft);
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

const float *mimic_dataset_soft(const mimic_dataset *d, int64_t i) {
    return d->soft && i >= 0 && i < d->count ? d->soft + i * d->classes : NULL;
}

bool mimic_dataset_draws(const mimic_dataset *d) {
    return d->draws;
}

const char *mimic_dataset_mode(const mimic_dataset *d) {
    return d->mode;
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
    if (d->soft)
        SHA256Update(&sha, (const uint8_t *)d->soft,
                     (size_t)d->count * (size_t)d->classes * sizeof *d->soft);
    SHA256Final(out, &sha);
}

mimic_status mimic_read_into(const mimic_dataset *d, uint64_t at, void *to, size_t size,
                             const char *name, mimic_err *err) {
    for (size_t got = 0; got < size;) {
        ssize_t n = pread(d->fd, (uint8_t *)to + got, size - got, (off_t)(at + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? mimic_err_fail(err, MIMIC_EIO, "%s: %s", name, strerror(errno))
                         : mimic_err_fail(err, MIMIC_EFORMAT, "%s: its file ends too early", name);
        got += (size_t)n;
    }
    return MIMIC_OK;
}

mimic_status mimic_read_bytes(const mimic_dataset *d, uint64_t at, size_t size, const char *name,
                              uint8_t **out, mimic_err *err) {
    *out = NULL;
    uint8_t *data = mimic_try_alloc(d->ctx, size + 1);
    if (!data)
        return mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for its %zu bytes", name, size);
    mimic_status s = mimic_read_into(d, at, data, size, name, err);
    if (s != MIMIC_OK) {
        mimic_free(d->ctx, data);
        return s;
    }
    data[size] = 0;
    *out = data;
    return MIMIC_OK;
}

mimic_status mimic_read_member(const mimic_dataset *d, int64_t i, mimic_image *out,
                               mimic_err *err) {
    const mimic_sample *m = &d->samples[i];
    const char *name = d->text + m->name;
    uint8_t *data;
    mimic_status s = mimic_read_bytes(d, m->at, m->size, name, &data, err);
    if (s == MIMIC_OK)
        s = mimic_image_decode(data, m->size, name, out, err);
    mimic_free(d->ctx, data);
    return s;
}

/* Keeps what of the box lies in the picture, in place. */
static mimic_status crop(mimic_image *img, uint64_t at, const char *name, mimic_err *err) {
    int x = (int16_t)(at >> 48), y = (int16_t)(at >> 32), w = (int)(at >> 16 & 0x7fff),
        h = (int)(at & 0x7fff);
    int left = x > 0 ? x : 0, top = y > 0 ? y : 0;
    int right = x + w < img->width ? x + w : img->width;
    int bottom = y + h < img->height ? y + h : img->height;
    if (left >= right || top >= bottom)
        return mimic_err_fail(
            err, MIMIC_EFORMAT,
            "%s: the box (%d, %d) of %d x %d lies outside of the picture of %d x %d", name, x, y, w,
            h, img->width, img->height);
    for (int row = top; row < bottom; row++)
        memmove(img->pixels + (size_t)(row - top) * (size_t)(right - left) * 3,
                img->pixels + ((size_t)row * (size_t)img->width + (size_t)left) * 3,
                (size_t)(right - left) * 3);
    img->width = right - left;
    img->height = bottom - top;
    return MIMIC_OK;
}

mimic_status mimic_read_file(const mimic_dataset *d, int64_t i, mimic_image *out, mimic_err *err) {
    const mimic_sample *m = &d->samples[i];
    mimic_status s = mimic_image_read(d->text + m->name, out, err);
    if (s == MIMIC_OK && m->at)
        s = crop(out, m->at, d->text + m->name, err);
    int list = d->list_count - 1;
    while (list >= 0 && d->lists[list].first > i)
        list--;
    if (s == MIMIC_OK || m->size == 0 || list < 0)
        return s;
    char why[sizeof err->text];
    memcpy(why, err->text, sizeof why);
    return mimic_err_fail(err, s, "%s (named in %s:%u)", why, d->text + d->lists[list].name,
                          (unsigned)m->size);
}

mimic_status mimic_dataset_read(const mimic_dataset *d, int64_t i, mimic_image *out,
                                mimic_err *err) {
    if (i < 0 || i >= d->count)
        return mimic_err_fail(err, MIMIC_EINVAL, "sample %lld of %lld", (long long)i,
                              (long long)d->count);
    return d->read(d, i, out, err);
}

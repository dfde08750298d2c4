/* Text lines and folder listings for the dataset formats. Everything is read completely and sorted
 * as bytes, so that the order of samples does not depend on the file system. */
#include "data/dataset_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

mimic_status mimic_text_open(mimic_text *t, mimic_ctx *ctx, const char *path) {
    *t = (mimic_text){.ctx = ctx, .path = path};
    mimic_status s = MIMIC_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (fd < 0 || fstat(fd, &st) != 0) {
        s = mimic_fail(ctx, MIMIC_EIO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        s = mimic_fail(ctx, MIMIC_EIO, "%s: not a regular file", path);
        goto done;
    }
    t->data = mimic_alloc(ctx, (size_t)st.st_size + 1);
    if (!t->data) {
        s = MIMIC_ENOMEM;
        goto done;
    }
    while (t->size < (size_t)st.st_size) {
        ssize_t n = read(fd, t->data + t->size, (size_t)st.st_size - t->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            s = mimic_fail(ctx, MIMIC_EIO, "%s: %s", path, strerror(errno));
            goto done;
        }
        if (n == 0)
            break;
        t->size += (size_t)n;
    }
    t->data[t->size] = 0;
    t->next = mimic_skip_mark(t->data);
    char *zero = memchr(t->data, 0, t->size);
    if (zero) {
        t->line = 1;
        for (char *p = t->data; p < zero; p++)
            t->line += *p == '\n';
        s = mimic_text_fail(t, "a zero byte: this is not a text file");
    }
done:
    if (fd >= 0)
        close(fd);
    if (s != MIMIC_OK)
        mimic_text_close(t);
    return s;
}

void mimic_text_close(mimic_text *t) {
    mimic_free(t->ctx, t->data);
    t->data = t->next = NULL;
}

char *mimic_text_line(mimic_text *t) {
    char *line = t->next, *end = t->data + t->size;
    if (!line || line >= end)
        return NULL;
    char *stop = memchr(line, '\n', (size_t)(end - line));
    t->next = stop ? stop + 1 : end;
    if (!stop)
        stop = end;
    *stop = 0;
    if (stop > line && stop[-1] == '\r')
        stop[-1] = 0;
    t->line++;
    return line;
}

mimic_status mimic_text_fail(mimic_text *t, const char *fmt, ...) {
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return mimic_fail(t->ctx, MIMIC_EFORMAT, "%s:%lld: %s", t->path, (long long)t->line, text);
}

bool mimic_parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out) {
    const char *p = s + (*s == '-');
    if (*p == 0 || strlen(p) > 18 || strspn(p, "0123456789") != strlen(p))
        return false;
    *out = strtoll(s, NULL, 10);
    return *out >= lo && *out <= hi;
}

char *mimic_skip_mark(char *text) {
    return strncmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text;
}

int mimic_find_column(char **field, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(field[i] + strspn(field[i], " "), name) == 0)
            return i;
    return -1;
}

int mimic_split_row(char *line, char **field, int max) {
    int n = 0;
    for (char *p = line; p; n++) {
        if (n == max)
            return -1;
        field[n] = p;
        if (*p == '"') {
            char *end = strchr(p + 1, '"');
            if (!end || (end[1] != ',' && end[1] != 0))
                return -1;
            field[n]++;
            *end = 0;
            p = end + 1;
        }
        p = strchr(p, ',');
        if (p)
            *p++ = 0;
    }
    return n;
}

bool mimic_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool mimic_is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool has(const char *root, const char *name, bool (*kind)(const char *)) {
    char path[MIMIC_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", root, name);
    return n < MIMIC_PATH_MAX && kind(path);
}

bool mimic_has_folder(const char *root, const char *name) {
    return has(root, name, mimic_is_folder);
}

bool mimic_has_file(const char *root, const char *name) {
    return has(root, name, mimic_is_file);
}

mimic_status mimic_no_split(mimic_dataset *d, mimic_status status, const char *fmt, ...) {
    char text[1200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    d->no_split = true;
    return mimic_fail(d->ctx, status, "%s", text);
}

mimic_status mimic_no_part(mimic_dataset *d, const char *root, const char *name) {
    char found[400];
    mimic_describe_folder(root, found, sizeof found);
    return mimic_no_split(d, MIMIC_EIO, "%s/%s is missing; %s holds: %s", root, name, root, found);
}

mimic_status mimic_path(mimic_ctx *ctx, char out[MIMIC_PATH_MAX], const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(out, MIMIC_PATH_MAX, fmt, args);
    va_end(args);
    if (n < 0 || n >= MIMIC_PATH_MAX)
        return mimic_fail(ctx, MIMIC_EINVAL, "a path of %d bytes is too long: %.200s...", n, out);
    return MIMIC_OK;
}

static bool has_picture_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0 ||
                   strcasecmp(dot, ".png") == 0);
}

/* Does entry e of the folder have the wanted kind? Links are followed. */
static bool wanted(DIR *dir, const struct dirent *e, mimic_listing_kind kind) {
    if (e->d_name[0] == '.' || (kind == MIMIC_LIST_PICTURES && !has_picture_name(e->d_name)))
        return false;
    if (e->d_type == DT_DIR || e->d_type == DT_REG)
        return (e->d_type == DT_DIR) == (kind == MIMIC_LIST_FOLDERS);
    struct stat st;
    if (fstatat(dirfd(dir), e->d_name, &st, 0) != 0)
        return kind == MIMIC_LIST_PICTURES; /* a broken link: reading it will say so */
    return kind == MIMIC_LIST_FOLDERS ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

mimic_status mimic_list_folder(mimic_ctx *ctx, const char *path, mimic_listing_kind kind,
                               mimic_listing *out) {
    *out = (mimic_listing){0};
    mimic_status s = MIMIC_OK;
    DIR *dir = opendir(path);
    if (!dir)
        return mimic_fail(ctx, MIMIC_EIO, "%s: %s", path, strerror(errno));
    struct dirent *e;
    for (errno = 0; (e = readdir(dir)); errno = 0) {
        if (!wanted(dir, e, kind))
            continue;
        size_t n = strlen(e->d_name) + 1;
        if (out->used + n > out->room) {
            size_t room = out->room ? out->room * 2 : 4096;
            char *text = mimic_realloc(ctx, out->text, out->room, room);
            if (!text) {
                s = MIMIC_ENOMEM;
                goto done;
            }
            out->text = text;
            out->room = room;
        }
        memcpy(out->text + out->used, e->d_name, n);
        out->used += n;
        out->count++;
    }
    if (errno) {
        s = mimic_fail(ctx, MIMIC_EIO, "%s: %s", path, strerror(errno));
        goto done;
    }
    out->names = mimic_alloc(ctx, ((size_t)out->count + 1) * sizeof *out->names);
    if (!out->names) {
        s = MIMIC_ENOMEM;
        goto done;
    }
    char *p = out->text;
    for (int64_t i = 0; i < out->count; i++, p += strlen(p) + 1)
        out->names[i] = p;
    qsort(out->names, (size_t)out->count, sizeof *out->names, compare_names);
done:
    closedir(dir);
    if (s != MIMIC_OK)
        mimic_listing_free(ctx, out);
    return s;
}

void mimic_listing_free(mimic_ctx *ctx, mimic_listing *l) {
    mimic_free(ctx, l->names);
    mimic_free(ctx, l->text);
    *l = (mimic_listing){0};
}

void mimic_describe_folder(const char *path, char *buf, size_t size) {
    char shown[8][64];
    int count = 0, kept = 0;
    DIR *dir = opendir(path);
    if (!dir) {
        snprintf(buf, size, "%s", strerror(errno));
        return;
    }
    /* The eight smallest names, by insertion. */
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        struct stat st;
        bool folder = fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
        char name[64];
        snprintf(name, sizeof name, "%.60s%s", e->d_name, folder ? "/" : "");
        count++;
        int at = kept;
        while (at > 0 && strcmp(name, shown[at - 1]) < 0)
            at--;
        if (at == 8)
            continue;
        kept = kept < 8 ? kept + 1 : 8;
        memmove(shown[at + 1 < 8 ? at + 1 : 7], shown[at], (size_t)(kept - 1 - at) * sizeof *shown);
        memcpy(shown[at], name, sizeof name);
    }
    closedir(dir);
    size_t n = 0;
    buf[0] = 0;
    for (int i = 0; i < kept && n < size; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%s", i ? ", " : "", shown[i]);
    if (count > kept && n < size)
        snprintf(buf + n, size - n, " and %d more", count - kept);
    if (count == 0)
        snprintf(buf, size, "nothing");
}

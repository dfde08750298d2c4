/* Packs: NAME.tar (plain POSIX ustar) read in place with NAME.csv beside it, one row per member in
 * the order of the tar. Every header's checksum is verified and every path must match its row. */
#include "data/dataset_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 512
#define MAX_COLUMNS 256

typedef struct tar {
    mimic_ctx *ctx;
    const char *path;
    int fd;
    uint64_t size, at; /* at: the next header */
} tar;

typedef struct member {
    char name[260];
    uint64_t at;
    uint32_t size;
} member;

static mimic_status tar_fail(const tar *t, const char *what) {
    return mimic_fail(t->ctx, MIMIC_EFORMAT, "%s: %s at byte %llu", t->path, what,
                      (unsigned long long)t->at);
}

static bool parse_octal(const uint8_t *p, int n, uint64_t *out) {
    int i = 0;
    uint64_t v = 0;
    while (i < n && p[i] == ' ')
        i++;
    int digits = 0;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++, digits++)
        v = v * 8 + (uint64_t)(p[i] - '0');
    *out = v;
    return digits > 0 && (i == n || p[i] == 0 || p[i] == ' ');
}

/* The next regular member; *end is set at the end of the archive. */
static mimic_status tar_next(tar *t, member *m, bool *end) {
    uint8_t h[BLOCK];
    for (;;) {
        *end = t->at == t->size;
        if (*end)
            return MIMIC_OK;
        ssize_t n = t->size - t->at < BLOCK ? 0 : pread(t->fd, h, BLOCK, (off_t)t->at);
        if (n < 0)
            return mimic_fail(t->ctx, MIMIC_EIO, "%s: %s", t->path, strerror(errno));
        if (n != BLOCK)
            return tar_fail(t, "the pack is cut off");
        uint64_t sum = 0, want, size;
        bool zero = true;
        for (int i = 0; i < BLOCK; i++) {
            sum += i >= 148 && i < 156 ? ' ' : h[i];
            zero &= h[i] == 0;
        }
        *end = zero;
        if (zero)
            return MIMIC_OK;
        if (memcmp(h + 257, "ustar", 5) != 0)
            return tar_fail(t, "no ustar header");
        if (!parse_octal(h + 148, 8, &want) || want != sum)
            return tar_fail(t, "the header's checksum is wrong");
        if (!parse_octal(h + 124, 12, &size))
            return tar_fail(t, "the member's size is no octal number");
        int a = (int)strnlen((char *)h + 345, 155), b = (int)strnlen((char *)h, 100);
        if (memcmp(h + 257, "ustar ", 6) == 0)
            a = 0; /* GNU keeps times there */
        snprintf(m->name, sizeof m->name, "%.*s%s%.*s", a, h + 345, a ? "/" : "", b, h);
        m->at = t->at + BLOCK;
        if (size > t->size - m->at || size > UINT32_MAX)
            return tar_fail(t, "the pack is cut off");
        m->size = (uint32_t)size;
        uint64_t next = m->at + (size + BLOCK - 1) / BLOCK * BLOCK;
        if (h[156] == '0' || h[156] == 0) {
            t->at = next > t->size ? t->size : next;
            return MIMIC_OK;
        }
        if (h[156] != '5')
            return tar_fail(t,
                            "a member that is no regular file (write it with tar --format=ustar)");
        t->at = next > t->size ? t->size : next;
    }
}

typedef struct csv {
    mimic_text text;
    char *field[MAX_COLUMNS];
    int columns, path, label, name; /* name: column of class names or -1 */
} csv;

static mimic_status csv_header(csv *c, const char *label) {
    mimic_text *t = &c->text;
    char *line = mimic_text_line(t);
    if (!line)
        return mimic_text_fail(t, "the file is empty");
    char row[400];
    snprintf(row, sizeof row, "%s", line);
    c->columns = mimic_split_row(line, c->field, MAX_COLUMNS);
    if (c->columns < 0)
        return mimic_text_fail(t, "more than %d columns, or a quote out of place", MAX_COLUMNS);
    c->path = mimic_find_column(c->field, c->columns, "path");
    c->label = mimic_find_column(c->field, c->columns, label);
    if (c->path < 0 || c->label < 0)
        return mimic_text_fail(t, "no column \"%s\"; the columns are %s",
                               c->path < 0 ? "path" : label, row);
    c->name =
        strcmp(label, "label") == 0 ? mimic_find_column(c->field, c->columns, "label_name") : -1;
    return MIMIC_OK;
}

/* One row and its member. */
static mimic_status add_row(mimic_dataset *d, csv *c, char *line, const member *m, const char *pack,
                            bool need_labels) {
    mimic_text *t = &c->text;
    int64_t label;
    int n = mimic_split_row(line, c->field, MAX_COLUMNS);
    if (n != c->columns)
        return mimic_text_fail(
            t, n < 0 ? "too many fields, or a quote out of place" : "%d fields, the header has %d",
            n, c->columns);
    if (strcmp(c->field[c->path], m->name) != 0)
        return mimic_text_fail(t, "path \"%.100s\", but the tar has \"%.100s\" here",
                               c->field[c->path], m->name);
    if (!mimic_parse_int(c->field[c->label], -1, MIMIC_LABEL_MAX - 1, &label))
        return mimic_text_fail(t, "label \"%.40s\" is not a number from -1", c->field[c->label]);
    if (label < 0 && need_labels) {
        d->dropped++;
        return MIMIC_OK;
    }
    mimic_status s = mimic_dataset_set_classes(d, (int)label + 1);
    if (s == MIMIC_OK && label >= 0 && c->name >= 0) {
        const char *known = mimic_dataset_class_name(d, (int)label), *name = c->field[c->name];
        if (!*known)
            s = mimic_dataset_name_class(d, (int)label, name);
        else if (strcmp(known, name) != 0)
            s = mimic_text_fail(t, "class %d is \"%.60s\" here and \"%.60s\" before", (int)label,
                                name, known);
    }
    return s == MIMIC_OK ? mimic_dataset_add(d, pack, ':', m->name, (int32_t)label, m->at, m->size)
                         : s;
}

mimic_status mimic_pack_path(mimic_dataset *d, const mimic_dataset_config *cfg, const char *end,
                             char out[MIMIC_PATH_MAX]) {
    size_t n = strlen(cfg->path), e = strlen(end), k = cfg->split ? strlen(cfg->split) : 0;
    if (n <= e || strcmp(cfg->path + n - e, end) != 0) {
        if (!cfg->split)
            return mimic_path(d->ctx, out, "%s%s", cfg->path, end);
        mimic_status s = mimic_path(d->ctx, out, "%s_%s%s", cfg->path, cfg->split, end);
        if (s == MIMIC_OK && access(out, F_OK) != 0 && errno == ENOENT)
            s = mimic_no_split(d, MIMIC_EIO, "%s: %s", out, strerror(ENOENT));
        return s;
    }
    if (k && (n < k + e + 1 || cfg->path[n - k - e - 1] != '_' ||
              memcmp(cfg->path + n - k - e, cfg->split, k) != 0))
        return mimic_no_split(d, MIMIC_EINVAL,
                              "%s is one split of a pack, not \"%s\": give NAME and a split for "
                              "NAME_SPLIT%s, or the %s without a split",
                              cfg->path, cfg->split, end, end);
    return mimic_path(d->ctx, out, "%s", cfg->path);
}

mimic_status mimic_dataset_open_pack(mimic_dataset *d, const mimic_dataset_config *cfg) {
    char path[MIMIC_PATH_MAX], table[MIMIC_PATH_MAX];
    csv *c = NULL;
    mimic_status s = mimic_pack_path(d, cfg, ".tar", path);
    if (s == MIMIC_OK)
        s = mimic_path(d->ctx, table, "%.*s.csv", (int)strlen(path) - 4, path);
    if (s != MIMIC_OK)
        return s;
    tar t = {.ctx = d->ctx, .path = path};
    struct stat st;
    d->read = mimic_read_member;
    d->fd = t.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (t.fd < 0 || fstat(t.fd, &st) != 0)
        return mimic_fail(d->ctx, MIMIC_EIO, "%s: %s", path, strerror(errno));
    t.size = (uint64_t)st.st_size;
    c = mimic_calloc(d->ctx, sizeof *c);
    if (!c)
        return MIMIC_ENOMEM;
    s = mimic_text_open(&c->text, d->ctx, table);
    if (s == MIMIC_OK)
        s = csv_header(c, cfg->label_column ? cfg->label_column : "label");
    const char *slash = strrchr(path, '/'), *pack = slash ? slash + 1 : path;
    for (char *line; s == MIMIC_OK && (line = mimic_text_line(&c->text));) {
        member m;
        bool end;
        if (!*line)
            continue;
        s = tar_next(&t, &m, &end);
        if (s == MIMIC_OK && end)
            s = mimic_text_fail(&c->text, "the table has more rows than the tar has members");
        if (s == MIMIC_OK)
            s = add_row(d, c, line, &m, pack, cfg->need_labels);
    }
    if (s == MIMIC_OK) {
        member m;
        bool end;
        s = tar_next(&t, &m, &end);
        if (s == MIMIC_OK && !end)
            s = mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: no row for member \"%s\"", table, m.name);
    }
    mimic_text_close(&c->text);
    mimic_free(d->ctx, c);
    return s;
}

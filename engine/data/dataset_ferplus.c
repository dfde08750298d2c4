/* FERPlus in both forms: fer2013.csv (pixels as text) joined row by row with fer2013new.csv
 * (votes), and folders FER2013Train, FER2013Valid, FER2013Test of PNG files with a label.csv each.
 * The number in an image name is not the row, and names repeat, so nothing is joined by name. */
#include "data/dataset_impl.h"
#include "data/ferplus_label.h"
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIXELS "fer2013.csv"
#define VOTES "fer2013new.csv"
#define VOTES_HEADER                                                                               \
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
enum { SIDE = 48, BUFFER = 1 << 20 };

static const char *const class_names[] = {"neutral", "happiness", "surprise", "sadness",
                                          "anger",   "disgust",   "fear",     "contempt"};
static const char *const modes[] = {"maxvote", "majority", "crossentropy", "probability",
                                    "multi_target"};
static const char *const usages[] = {"Training", "PublicTest", "PrivateTest"};
static const char *const folders[] = {"FER2013Train", "FER2013Valid", "FER2013Test"};

static bool has_folders(const char *root) {
    return mimic_has_folder(root, folders[0]) || mimic_has_folder(root, folders[1]) ||
           mimic_has_folder(root, folders[2]);
}

static bool is_pixels_file(const char *path) {
    const char *slash = strrchr(path, '/');
    return strcmp(slash ? slash + 1 : path, PIXELS) == 0 && mimic_is_file(path);
}

bool mimic_is_ferplus(const char *path) {
    return mimic_has_file(path, PIXELS) || mimic_has_file(path, VOTES) || has_folders(path) ||
           is_pixels_file(path);
}

/* Ten counts of a row. */
static mimic_status parse_votes(mimic_text *t, char **field, int votes[MIMIC_FERPLUS_VOTES]) {
    for (int k = 0; k < MIMIC_FERPLUS_VOTES; k++) {
        int64_t v;
        if (!mimic_parse_int(field[k], 0, 1000, &v))
            return mimic_text_fail(t, "\"%.20s\" is not a count of votes", field[k]);
        votes[k] = (int)v;
    }
    return MIMIC_OK;
}

static mimic_status add(mimic_dataset *d, bool need_labels, mimic_ferplus_mode mode,
                        const int *votes, const char *dir, char separator, const char *name,
                        uint64_t at, uint32_t size) {
    double share[MIMIC_FERPLUS_CLASSES];
    int label;
    if (!mimic_ferplus_label(votes, mode, &label, share))
        return mimic_dataset_add_or_drop(d, need_labels, dir, separator, name, -1, at, size);
    mimic_status s = mimic_dataset_add(d, dir, separator, name, label, at, size);
    if (s == MIMIC_OK && mode >= MIMIC_FERPLUS_CROSSENTROPY)
        s = mimic_dataset_add_soft(d, share, MIMIC_FERPLUS_CLASSES);
    return s;
}

/* --- fer2013.csv: a row at a time, its pixels left where they are ------------------------------
 */

typedef struct scanner {
    mimic_ctx *ctx;
    const char *path;
    int fd;
    char *buffer;
    size_t used, at; /* bytes in the buffer; the next row */
    uint64_t base;   /* offset of the buffer in the file */
    int64_t line;
    bool end;
} scanner;

/* The next row without its line end, and its offset; NULL at the end or after a failure. */
static char *next_row(scanner *f, uint64_t *offset, mimic_status *s) {
    for (;;) {
        char *row = f->buffer + f->at, *stop = memchr(row, '\n', f->used - f->at);
        if (!stop && f->end && f->at < f->used)
            stop = f->buffer + f->used;
        if (stop) {
            *stop = 0;
            if (stop > row && stop[-1] == '\r')
                stop[-1] = 0;
            *offset = f->base + f->at;
            f->at = (size_t)(stop - f->buffer) + 1;
            f->at = f->at > f->used ? f->used : f->at;
            f->line++;
            return row;
        }
        if (f->end)
            return NULL;
        memmove(f->buffer, row, f->used - f->at);
        f->used -= f->at;
        f->base += f->at;
        f->at = 0;
        if (f->used == BUFFER) {
            *s = mimic_fail(f->ctx, MIMIC_EFORMAT, "%s:%lld: a line of more than %d bytes", f->path,
                            (long long)f->line + 1, BUFFER);
            return NULL;
        }
        ssize_t n = read(f->fd, f->buffer + f->used, BUFFER - f->used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            *s = mimic_fail(f->ctx, MIMIC_EIO, "%s: %s", f->path, strerror(errno));
            return NULL;
        }
        f->end = n == 0;
        f->used += (size_t)n;
    }
}

/* Reads 48 x 48 numbers out of the text of sample i. */
static mimic_status read_pixels(const mimic_dataset *d, int64_t i, mimic_image *out,
                                mimic_err *err) {
    const mimic_sample *m = &d->samples[i];
    const char *name = d->text + m->name;
    uint8_t *text;
    mimic_status s = mimic_read_bytes(d, m->at, m->size, name, &text, err);
    if (s == MIMIC_OK)
        s = mimic_image_reserve(out, SIDE, SIDE, err);
    int n = 0;
    for (const uint8_t *p = text; s == MIMIC_OK && *p;) {
        if (*p == ' ') {
            p++;
            continue;
        }
        int v = 0, digits = 0;
        for (; *p >= '0' && *p <= '9' && digits < 4; p++, digits++)
            v = v * 10 + (*p - '0');
        if (digits == 0 || v > 255 || (*p && *p != ' '))
            s = mimic_err_fail(err, MIMIC_EFORMAT, "%s: pixel %d is not a number from 0 to 255",
                               name, n + 1);
        else if (n == SIDE * SIDE)
            s = mimic_err_fail(err, MIMIC_EFORMAT, "%s: more than 48 x 48 = 2304 pixels", name);
        else
            memset(out->pixels + 3 * n++, v, 3);
    }
    if (s == MIMIC_OK && n < SIDE * SIDE)
        s = mimic_err_fail(err, MIMIC_EFORMAT, "%s: %d pixels instead of 48 x 48 = 2304", name, n);
    mimic_free(d->ctx, text);
    return s;
}

typedef struct join {
    mimic_dataset *d;
    const mimic_dataset_config *cfg;
    int split;
    mimic_ferplus_mode mode;
    scanner pixels;
    mimic_text votes;
    int columns, pixel_column, usage_column;
} join;

static mimic_status join_headers(join *j) {
    mimic_status s = MIMIC_OK;
    uint64_t offset;
    char *field[16], *line = next_row(&j->pixels, &offset, &s);
    if (s != MIMIC_OK)
        return s;
    line = line ? mimic_skip_mark(line) : NULL;
    char head[80];
    snprintf(head, sizeof head, "%s", line ? line : "");
    j->columns = line ? mimic_split_row(line, field, 16) : 0;
    j->pixel_column = mimic_find_column(field, j->columns, "pixels");
    j->usage_column = mimic_find_column(field, j->columns, "Usage");
    if (j->pixel_column < 0 || j->usage_column < 0)
        return mimic_fail(j->d->ctx, MIMIC_EFORMAT,
                          "%s:1: the header is \"%s\", expected \"emotion,pixels,Usage\"",
                          j->pixels.path, head);
    line = mimic_text_line(&j->votes);
    if (!line || strcmp(line, VOTES_HEADER) != 0)
        return mimic_text_fail(&j->votes, "the header is \"%.120s\", expected \"" VOTES_HEADER "\"",
                               line ? line : "");
    return MIMIC_OK;
}

/* One row of both files. */
static mimic_status join_row(join *j, char *row, uint64_t offset, char *votes_row) {
    mimic_text *t = &j->votes;
    char *field[16], *part[16], name[64];
    int votes[MIMIC_FERPLUS_VOTES], n = mimic_split_row(votes_row, field, 16), usage = 0;
    if (n != 12)
        return mimic_text_fail(t, "%d fields instead of 12", n);
    const char *start = row;
    n = mimic_split_row(row, part, 16);
    if (n != j->columns)
        return mimic_fail(t->ctx, MIMIC_EFORMAT, "%s:%lld: %d fields, the header has %d",
                          j->pixels.path, (long long)j->pixels.line, n, j->columns);
    if (strcmp(part[j->usage_column], field[0]) != 0)
        return mimic_text_fail(t,
                               "Usage is \"%.20s\", but \"%.20s\" in the same row of " PIXELS
                               ": the files do not belong together",
                               field[0], part[j->usage_column]);
    while (usage < 3 && strcmp(field[0], usages[usage]) != 0)
        usage++;
    if (usage == 3)
        return mimic_text_fail(t, "Usage \"%.20s\": Training, PublicTest or PrivateTest expected",
                               field[0]);
    mimic_status s = parse_votes(t, field + 2, votes);
    if (s != MIMIC_OK || (j->split >= 0 && usage != j->split))
        return s;
    if (!*field[1]) { /* no image name: no face */
        j->d->dropped++;
        return MIMIC_OK;
    }
    const char *pixels = part[j->pixel_column];
    snprintf(name, sizeof name, PIXELS ":%lld", (long long)j->pixels.line);
    return add(j->d, j->cfg->need_labels, j->mode, votes, NULL, 0, name,
               offset + (uint64_t)(pixels - start), (uint32_t)strlen(pixels));
}

static mimic_status open_csv(mimic_dataset *d, const mimic_dataset_config *cfg, const char *folder,
                             int split, mimic_ferplus_mode mode) {
    char pixels[MIMIC_PATH_MAX], votes[MIMIC_PATH_MAX];
    join j = {.d = d, .cfg = cfg, .split = split, .mode = mode};
    mimic_status s = mimic_path(d->ctx, pixels, "%s/" PIXELS, folder);
    if (s == MIMIC_OK)
        s = mimic_path(d->ctx, votes, "%s/" VOTES, folder);
    if (s != MIMIC_OK)
        return s;
    if (!mimic_is_file(pixels) || !mimic_is_file(votes))
        return mimic_fail(d->ctx, MIMIC_EIO,
                          "%s is missing: FERPlus needs the pixels (" PIXELS
                          ") and the votes (" VOTES ") in one folder",
                          mimic_is_file(pixels) ? votes : pixels);
    d->read = read_pixels;
    d->fd = open(pixels, O_RDONLY | O_CLOEXEC);
    if (d->fd < 0)
        return mimic_fail(d->ctx, MIMIC_EIO, "%s: %s", pixels, strerror(errno));
    s = mimic_text_open(&j.votes, d->ctx, votes);
    if (s != MIMIC_OK)
        return s;
    j.pixels = (scanner){.ctx = d->ctx, .path = pixels, .fd = d->fd};
    j.pixels.buffer = mimic_alloc(d->ctx, BUFFER + 1);
    s = j.pixels.buffer ? join_headers(&j) : MIMIC_ENOMEM;
    for (;;) {
        uint64_t offset = 0;
        char *row = NULL, *votes_row;
        do /* an empty line, as some programs leave at the end, is no row */
            row = s == MIMIC_OK ? next_row(&j.pixels, &offset, &s) : NULL;
        while (row && !*row);
        if (s != MIMIC_OK)
            break;
        do
            votes_row = mimic_text_line(&j.votes);
        while (votes_row && !*votes_row);
        if (!row && !votes_row)
            break;
        if (!row || !votes_row) {
            s = mimic_fail(d->ctx, MIMIC_EFORMAT,
                           "%s has more rows than %s (%lld): the files do not belong together",
                           row ? pixels : votes, row ? votes : pixels,
                           (long long)(row ? j.votes.line : j.pixels.line) - 1);
            break;
        }
        s = join_row(&j, row, offset, votes_row);
    }
    mimic_free(d->ctx, j.pixels.buffer);
    mimic_text_close(&j.votes);
    if (s == MIMIC_OK && split >= 0 && d->count + d->dropped == 0)
        s = mimic_no_split(d, MIMIC_EFORMAT, "%s has no row of Usage %s", votes, usages[split]);
    return s;
}

/* --- folders ---------------------------------------------------------------------------------- */

/* label.csv: NAME.png,"(left, top, right, bottom)",ten counts; no header. */
static mimic_status open_folder(mimic_dataset *d, const mimic_dataset_config *cfg, int split,
                                mimic_ferplus_mode mode) {
    char folder[MIMIC_PATH_MAX], list[MIMIC_PATH_MAX];
    mimic_text t = {0};
    if (!mimic_has_folder(cfg->path, folders[split]))
        return mimic_no_part(d, cfg->path, folders[split]);
    mimic_status s = mimic_path(d->ctx, folder, "%s/%s", cfg->path, folders[split]);
    if (s == MIMIC_OK)
        s = mimic_path(d->ctx, list, "%s/label.csv", folder);
    if (s == MIMIC_OK)
        s = mimic_text_open(&t, d->ctx, list);
    if (s == MIMIC_OK)
        s = mimic_dataset_add_list(d, list);
    for (char *line; s == MIMIC_OK && (line = mimic_text_line(&t));) {
        char *field[16];
        int votes[MIMIC_FERPLUS_VOTES], box[4], end = 0;
        uint64_t at;
        if (!*line)
            continue;
        int n = mimic_split_row(line, field, 16);
        if (n != 12 || !*field[0] || strchr(field[0], '/')) {
            s = mimic_text_fail(&t, "%d fields instead of IMAGE,\"(l, t, r, b)\" and ten counts",
                                n);
            continue;
        }
        if (sscanf(field[1], "(%d, %d, %d, %d)%n", &box[0], &box[1], &box[2], &box[3], &end) != 4 ||
            end == 0 || field[1][end] ||
            !mimic_box(box[0], box[1], (int64_t)box[2] - box[0], (int64_t)box[3] - box[1], &at)) {
            s = mimic_text_fail(&t, "\"%.40s\" is not a box (left, top, right, bottom)", field[1]);
            continue;
        }
        s = parse_votes(&t, field + 2, votes);
        if (s == MIMIC_OK)
            s = add(d, cfg->need_labels, mode, votes, folder, '/', field[0], at, (uint32_t)t.line);
    }
    mimic_text_close(&t);
    return s;
}

mimic_status mimic_dataset_open_ferplus(mimic_dataset *d, const mimic_dataset_config *cfg) {
    int mode = mimic_dataset_choose_mode(d, cfg->mode, modes, MIMIC_FERPLUS_MODES);
    int split = mimic_dataset_choose_split(d, "FERPlus", cfg->split, true);
    if (mode < 0 || split < -1)
        return MIMIC_EINVAL;
    d->draws = mode == MIMIC_FERPLUS_PROBABILITY;
    mimic_status s = mimic_dataset_name_classes(d, class_names, MIMIC_FERPLUS_CLASSES);
    if (s != MIMIC_OK)
        return s;
    char folder[MIMIC_PATH_MAX];
    s = mimic_path(d->ctx, folder, "%s", cfg->path);
    if (s != MIMIC_OK)
        return s;
    if (is_pixels_file(folder)) {
        char *slash = strrchr(folder, '/');
        if (slash)
            *slash = 0;
        else
            snprintf(folder, sizeof folder, ".");
        return open_csv(d, cfg, *folder ? folder : "/", split, (mimic_ferplus_mode)mode);
    }
    if (!has_folders(cfg->path))
        return open_csv(d, cfg, folder, split, (mimic_ferplus_mode)mode);
    d->root = strlen(cfg->path) + 1;
    for (int k = 0; k < 3 && s == MIMIC_OK; k++)
        if (split < 0 ? mimic_has_folder(cfg->path, folders[k]) : k == split)
            s = open_folder(d, cfg, k, (mimic_ferplus_mode)mode);
    return s;
}

/* AffectNet with 7 or 8 classes, both releases: the manual one (training.csv, validation.csv, face
 * boxes in whole pictures) and the later one (train_set, val_set: aligned crops, the class in a
 * .npy file each). Rows of other classes (none, uncertain, no face) have no label. */
#include "data/dataset_impl.h"
#include "data/npy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const class_names[] = {"neutral", "happiness", "sadness", "surprise",
                                          "fear",    "disgust",   "anger",   "contempt"};
static const char *const modes[] = {"7", "8"};
static const char *const csv_names[] = {"training.csv", "validation.csv"};
static const char *const sets[] = {"train_set", "val_set"};
static const char *const columns[] = {
    "subDirectory_filePath", "face_x",     "face_y",  "face_width", "face_height",
    "facial_landmarks",      "expression", "valence", "arousal"};
enum { COLUMNS = sizeof columns / sizeof *columns, EXPRESSION = 6 };
static const char *const list_folders[] = {".", "Manually_Annotated_file_lists"};
static const char *const image_folders[] = {
    "Manually_Annotated_Images", "Manually_Annotated_compressed/Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images"};

static bool has_sets(const char *root) {
    return mimic_has_folder(root, "train_set/annotations") ||
           mimic_has_folder(root, "val_set/annotations");
}

/* Where the list of a split lies: an index in list_folders, or -1. */
static int find_list(const char *root, int split) {
    char folder[MIMIC_PATH_MAX];
    for (int i = 0; i < 2; i++) {
        int n = snprintf(folder, sizeof folder, "%s/%s", root, list_folders[i]);
        if (n < MIMIC_PATH_MAX && mimic_has_file(folder, csv_names[split]))
            return i;
    }
    return -1;
}

bool mimic_is_affectnet(const char *root) {
    return find_list(root, 0) >= 0 || find_list(root, 1) >= 0 || has_sets(root);
}

/* The first line, which some copies of validation.csv lack: all columns in their order. */
static mimic_status check_header(mimic_text *t, char **field) {
    for (int k = 0; k < COLUMNS; k++)
        if (strcmp(field[k], columns[k]) != 0)
            return mimic_text_fail(t, "column %d of the header is \"%.40s\", expected \"%s\"",
                                   k + 1, field[k], columns[k]);
    return MIMIC_OK;
}

static mimic_status add_row(mimic_dataset *d, mimic_text *t, char *line, const char *images,
                            int classes, bool need_labels) {
    char *field[16];
    int64_t box[4], label;
    uint64_t at;
    int n = mimic_split_row(line, field, 16);
    if (n < 0)
        return mimic_text_fail(t, "too many fields, or a quote out of place");
    if (n != COLUMNS)
        return mimic_text_fail(t,
                               "%d fields instead of %d: subDirectory_filePath, face_x, face_y, "
                               "face_width, face_height, facial_landmarks, expression, valence, "
                               "arousal",
                               n, COLUMNS);
    if (t->line == 1 && strcmp(field[0], columns[0]) == 0)
        return check_header(t, field);
    if (!*field[0] || field[0][0] == '/' || strstr(field[0], ".."))
        return mimic_text_fail(t, "\"%.80s\" is not a path below the pictures' folder", field[0]);
    for (int k = 0; k < 4; k++)
        if (!mimic_parse_int(field[k + 1], INT16_MIN, INT16_MAX, &box[k]))
            return mimic_text_fail(t, "\"%.20s\" is not a number of pixels", field[k + 1]);
    if (!mimic_parse_int(field[EXPRESSION], 0, 10, &label))
        return mimic_text_fail(t, "expression \"%.20s\" is not 0 to 10", field[EXPRESSION]);
    if (label >= classes)
        label = -1;
    if (!mimic_box(box[0], box[1], box[2], box[3], &at)) {
        if (label >= 0)
            return mimic_text_fail(t, "a face of %lld x %lld pixels", (long long)box[2],
                                   (long long)box[3]);
        at = 0; /* no face: the whole picture */
    }
    return mimic_dataset_add_or_drop(d, need_labels, images, '/', field[0], (int32_t)label, at,
                                     (uint32_t)t->line);
}

static mimic_status open_csv(mimic_dataset *d, const mimic_dataset_config *cfg, int split,
                             int classes) {
    char list[MIMIC_PATH_MAX], images[MIMIC_PATH_MAX];
    mimic_text t = {0};
    int at = find_list(cfg->path, split), where = 0;
    if (at < 0)
        return mimic_no_part(d, cfg->path, csv_names[split]);
    while (where < 3 && !mimic_has_folder(cfg->path, image_folders[where]))
        where++;
    if (where == 3)
        return mimic_fail(d->ctx, MIMIC_EIO, "%s/%s is missing: the pictures of AffectNet",
                          cfg->path, image_folders[0]);
    mimic_status s = mimic_path(d->ctx, list, "%s/%s%s%s", cfg->path, at ? list_folders[at] : "",
                                at ? "/" : "", csv_names[split]);
    if (s == MIMIC_OK)
        s = mimic_path(d->ctx, images, "%s/%s", cfg->path, image_folders[where]);
    if (s == MIMIC_OK)
        s = mimic_text_open(&t, d->ctx, list);
    if (s == MIMIC_OK)
        s = mimic_dataset_add_list(d, list);
    for (char *line; s == MIMIC_OK && (line = mimic_text_line(&t));)
        if (*line)
            s = add_row(d, &t, line, images, classes, cfg->need_labels);
    mimic_text_close(&t);
    return s;
}

/* Pictures in the order of their numbers. */
static int by_number(const void *a, const void *b) {
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    long long i = strtoll(x, NULL, 10), k = strtoll(y, NULL, 10);
    return i != k ? (i > k) - (i < k) : strcmp(x, y);
}

static mimic_status open_set(mimic_dataset *d, const mimic_dataset_config *cfg, int split,
                             int classes) {
    char images[MIMIC_PATH_MAX], npy[MIMIC_PATH_MAX];
    mimic_listing files = {0};
    if (!mimic_has_folder(cfg->path, sets[split]))
        return mimic_no_part(d, cfg->path, sets[split]);
    mimic_status s = mimic_path(d->ctx, images, "%s/%s/images", cfg->path, sets[split]);
    if (s == MIMIC_OK)
        s = mimic_list_folder(d->ctx, images, MIMIC_LIST_PICTURES, &files);
    if (s == MIMIC_OK)
        qsort(files.names, (size_t)files.count, sizeof *files.names, by_number);
    for (int64_t i = 0; s == MIMIC_OK && i < files.count; i++) {
        const char *name = files.names[i], *dot = strrchr(name, '.');
        double v = 0;
        s = mimic_path(d->ctx, npy, "%s/%s/annotations/%.*s_exp.npy", cfg->path, sets[split],
                       (int)(dot - name), name);
        if (s == MIMIC_OK)
            s = mimic_npy_scalar(d->ctx, npy, &v);
        if (s != MIMIC_OK)
            break;
        if (v != floor(v) || v < 0 || v > 10)
            s = mimic_fail(d->ctx, MIMIC_EFORMAT, "%s: expression %g is not 0 to 10", npy, v);
        else
            s = mimic_dataset_add_or_drop(d, cfg->need_labels, images, '/', name,
                                          v < classes ? (int32_t)v : -1, 0, 0);
    }
    mimic_listing_free(d->ctx, &files);
    return s;
}

mimic_status mimic_dataset_open_affectnet(mimic_dataset *d, const mimic_dataset_config *cfg) {
    int mode = mimic_dataset_choose_mode(d, cfg->mode, modes, 2);
    int split = mimic_dataset_choose_split(d, "AffectNet", cfg->split, false);
    if (mode < 0 || split < -1)
        return MIMIC_EINVAL;
    int classes = 7 + mode;
    mimic_status s = mimic_dataset_name_classes(d, class_names, classes);
    bool later = has_sets(cfg->path);
    d->root = strlen(cfg->path) + 1;
    for (int k = 0; k < 2 && s == MIMIC_OK; k++) {
        bool there = later ? mimic_has_folder(cfg->path, sets[k]) : find_list(cfg->path, k) >= 0;
        if (split < 0 ? !there : k != split)
            continue;
        s = later ? open_set(d, cfg, k, classes) : open_csv(d, cfg, k, classes);
    }
    return s;
}

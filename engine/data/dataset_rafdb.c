/* RAF-DB (basic), both forms in circulation: the original with EmoLabel/list_patition_label.txt,
 * and the mirror with DATASET/<split>/<label>/ and <split>_labels.csv. Class index = label - 1. */
#include "data/dataset_impl.h"

#include <stdio.h>
#include <string.h>

#define CLASSES 7
static const char *const class_names[CLASSES] = {"surprise", "fear",  "disgust", "happiness",
                                                 "sadness",  "anger", "neutral"};
#define LIST "EmoLabel/list_patition_label.txt"

bool mimic_is_rafdb(const char *root) {
    return mimic_has_file(root, LIST) || mimic_has_file(root, "train_labels.csv") ||
           mimic_has_file(root, "test_labels.csv") || mimic_has_folder(root, "DATASET");
}

static mimic_status parse_label(mimic_text *t, const char *text, int32_t *label) {
    int64_t v;
    if (!mimic_parse_int(text, 1, CLASSES, &v))
        return mimic_text_fail(t, "label \"%.40s\" is not 1 to %d", text, CLASSES);
    *label = (int32_t)v - 1;
    return MIMIC_OK;
}

/* Lines "train_00001.jpg 5"; the picture is Image/aligned/train_00001_aligned.jpg. */
static mimic_status open_original(mimic_dataset *d, const char *root, const char *split) {
    char list[MIMIC_PATH_MAX], aligned[MIMIC_PATH_MAX], name[300];
    mimic_text t = {0};
    mimic_status s = mimic_path(d->ctx, list, "%s/" LIST, root);
    if (s == MIMIC_OK)
        s = mimic_path(d->ctx, aligned, "%s/Image/aligned", root);
    if (s != MIMIC_OK)
        return s;
    if (!mimic_is_folder(aligned))
        return mimic_fail(d->ctx, MIMIC_EIO, "%s is missing: unpack aligned.zip there", aligned);
    s = mimic_text_open(&t, d->ctx, list);
    if (s == MIMIC_OK)
        s = mimic_dataset_add_list(d, list);
    for (char *line; s == MIMIC_OK && (line = mimic_text_line(&t));) {
        if (!*line)
            continue;
        char *space = strchr(line, ' '), *dot = strrchr(line, '.');
        bool train = strncmp(line, "train_", 6) == 0, test = strncmp(line, "test_", 5) == 0;
        if (!space || !dot || dot > space || (!train && !test) || space - line > 250 ||
            memchr(line, '/', (size_t)(space - line))) {
            s = mimic_text_fail(&t, "\"%.60s\" is not \"train_NUMBER.jpg LABEL\"", line);
            continue;
        }
        int32_t label = 0;
        s = parse_label(&t, space + 1, &label);
        if (s != MIMIC_OK || (split && strcmp(split, train ? "train" : "test") != 0))
            continue;
        snprintf(name, sizeof name, "%.*s_aligned%.*s", (int)(dot - line), line, (int)(space - dot),
                 dot);
        s = mimic_dataset_add(d, aligned, '/', name, label, 0, (uint32_t)t.line);
    }
    mimic_text_close(&t);
    if (s == MIMIC_OK && split && d->count == 0)
        s = mimic_no_split(d, MIMIC_EFORMAT, "%s names no picture for %s", list, split);
    return s;
}

/* <split>_labels.csv: header "image,label", then rows. */
static mimic_status open_csv(mimic_dataset *d, const char *csv, const char *base) {
    mimic_text t = {0};
    char folder[MIMIC_PATH_MAX];
    mimic_status s = mimic_text_open(&t, d->ctx, csv);
    if (s != MIMIC_OK)
        return s;
    char *line = mimic_text_line(&t);
    if (!line || strcmp(line, "image,label") != 0)
        s = mimic_text_fail(&t, "the header is \"%.60s\", expected \"image,label\"",
                            line ? line : "");
    if (s == MIMIC_OK)
        s = mimic_dataset_add_list(d, csv);
    while (s == MIMIC_OK && (line = mimic_text_line(&t))) {
        if (!*line)
            continue;
        char *comma = strchr(line, ',');
        int32_t label = 0;
        if (!comma || comma == line || strchr(line, '/')) {
            s = mimic_text_fail(&t, "\"%.60s\" is not \"IMAGE,LABEL\"", line);
            continue;
        }
        *comma = 0;
        s = parse_label(&t, comma + 1, &label);
        if (s == MIMIC_OK)
            s = mimic_path(d->ctx, folder, "%s/%d", base, label + 1);
        if (s == MIMIC_OK)
            s = mimic_dataset_add(d, folder, '/', line, label, 0, (uint32_t)t.line);
    }
    mimic_text_close(&t);
    return s;
}

/* Without a CSV the folders 1 to 7 say the label. */
static mimic_status open_numbered(mimic_dataset *d, const char *base) {
    char folder[MIMIC_PATH_MAX];
    mimic_status s = MIMIC_OK;
    for (int label = 0; label < CLASSES && s == MIMIC_OK; label++) {
        mimic_listing files = {0};
        s = mimic_path(d->ctx, folder, "%s/%d", base, label + 1);
        if (s == MIMIC_OK && mimic_is_folder(folder))
            s = mimic_list_folder(d->ctx, folder, MIMIC_LIST_PICTURES, &files);
        for (int64_t i = 0; s == MIMIC_OK && i < files.count; i++)
            s = mimic_dataset_add(d, folder, '/', files.names[i], label, 0, 0);
        mimic_listing_free(d->ctx, &files);
    }
    return s;
}

static mimic_status open_mirror(mimic_dataset *d, const char *root, const char *split) {
    char base[MIMIC_PATH_MAX], csv[MIMIC_PATH_MAX];
    mimic_status s = mimic_path(d->ctx, base, "%s/DATASET/%s", root, split);
    if (s == MIMIC_OK)
        s = mimic_path(d->ctx, csv, "%s/%s_labels.csv", root, split);
    if (s != MIMIC_OK)
        return s;
    if (!mimic_is_folder(base) && !mimic_is_file(csv))
        return mimic_no_part(d, root, base + strlen(root) + 1);
    return mimic_is_file(csv) ? open_csv(d, csv, base) : open_numbered(d, base);
}

mimic_status mimic_dataset_open_rafdb(mimic_dataset *d, const mimic_dataset_config *cfg) {
    if (cfg->split && strcmp(cfg->split, "train") != 0 && strcmp(cfg->split, "test") != 0)
        return mimic_no_split(d, MIMIC_EINVAL, "RAF-DB has the splits train and test, not \"%s\"",
                              cfg->split);
    char list[MIMIC_PATH_MAX];
    mimic_status s = mimic_path(d->ctx, list, "%s/" LIST, cfg->path);
    if (s != MIMIC_OK)
        return s;
    d->root = strlen(cfg->path) + 1;
    if (!mimic_is_rafdb(cfg->path)) {
        char found[400];
        mimic_describe_folder(cfg->path, found, sizeof found);
        return mimic_fail(d->ctx, MIMIC_EIO,
                          "%s is not RAF-DB: neither " LIST " nor DATASET/; it holds: %s",
                          cfg->path, found);
    }
    s = mimic_dataset_name_classes(d, class_names, CLASSES);
    if (s != MIMIC_OK)
        return s;
    if (mimic_is_file(list))
        return open_original(d, cfg->path, cfg->split);
    if (cfg->split)
        return open_mirror(d, cfg->path, cfg->split);
    s = open_mirror(d, cfg->path, "train");
    return s == MIMIC_OK ? open_mirror(d, cfg->path, "test") : s;
}

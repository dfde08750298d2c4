/* Class folders: ROOT/[SPLIT/]CLASS/NAME.jpg. The class index is the rank of the folder's name
 * among all splits of the set, sorted as bytes, so that train and val agree even when one lacks a
 * class. */
#include "data/dataset_impl.h"

#include <stdlib.h>
#include <string.h>

static const char *const split_names[] = {"train", "val", "valid", "validation", "test"};
#define SPLITS (sizeof split_names / sizeof *split_names)

static bool is_split(const char *name) {
    for (size_t i = 0; i < SPLITS; i++)
        if (strcmp(name, split_names[i]) == 0)
            return true;
    return false;
}

static int compare_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Is every folder of the root a split? Then the classes lie one level below. */
static bool all_splits(const mimic_listing *l) {
    for (int64_t i = 0; i < l->count; i++)
        if (!is_split(l->names[i]))
            return false;
    return l->count > 0;
}

/* Adds the pictures of one class folder. */
static mimic_status add_class(mimic_dataset *d, const char *base, const char *name, int label) {
    char folder[MIMIC_PATH_MAX];
    mimic_listing files = {0};
    mimic_status s = mimic_path(d->ctx, folder, "%s/%s", base, name);
    if (s == MIMIC_OK)
        s = mimic_list_folder(d->ctx, folder, MIMIC_LIST_PICTURES, &files);
    for (int64_t i = 0; s == MIMIC_OK && i < files.count; i++)
        s = mimic_dataset_add(d, folder, '/', files.names[i], label, 0, 0);
    mimic_listing_free(d->ctx, &files);
    return s;
}

/* The sorted union of the class folders under the given bases; names point into `lists`. */
static mimic_status merge_classes(mimic_dataset *d, const mimic_listing *lists, int n) {
    int64_t total = 0;
    for (int i = 0; i < n; i++)
        total += lists[i].count;
    if (total > MIMIC_LABEL_MAX)
        return mimic_fail(d->ctx, MIMIC_EFORMAT, "%lld class folders are too many",
                          (long long)total);
    const char **all = mimic_alloc(d->ctx, ((size_t)total + 1) * sizeof *all);
    if (!all)
        return MIMIC_ENOMEM;
    int64_t count = 0, kept = 0;
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k < lists[i].count; k++)
            all[count++] = lists[i].names[k];
    qsort(all, (size_t)count, sizeof *all, compare_text);
    for (int64_t k = 0; k < count; k++)
        if (kept == 0 || strcmp(all[kept - 1], all[k]) != 0)
            all[kept++] = all[k];
    mimic_status s = mimic_dataset_set_classes(d, (int)kept);
    for (int64_t k = 0; s == MIMIC_OK && k < kept; k++)
        s = mimic_dataset_name_class(d, (int)k, all[k]);
    mimic_free(d->ctx, all);
    return s;
}

static int class_rank(const mimic_dataset *d, const char *name) {
    int lo = 0, hi = d->classes;
    while (lo < hi) {
        int mid = (lo + hi) / 2, c = strcmp(mimic_dataset_class_name(d, mid), name);
        if (c == 0)
            return mid;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return -1;
}

static mimic_status nothing_found(mimic_dataset *d, const char *base) {
    char found[400];
    mimic_describe_folder(base, found, sizeof found);
    return mimic_fail(
        d->ctx, MIMIC_EFORMAT,
        "%s: no pictures in class folders (CLASS/NAME.jpg, .jpeg, .png); it holds: %s", base,
        found);
}

mimic_status mimic_dataset_open_folders(mimic_dataset *d, const mimic_dataset_config *cfg) {
    enum { MAX_BASES = SPLITS + 1 };
    mimic_listing top = {0}, lists[MAX_BASES] = {{0}};
    char(*bases)[MIMIC_PATH_MAX] = NULL;
    bool wanted[MAX_BASES] = {false};
    int n = 0;
    mimic_status s = mimic_list_folder(d->ctx, cfg->path, MIMIC_LIST_FOLDERS, &top);
    if (s != MIMIC_OK)
        goto done;
    d->root = strlen(cfg->path) + 1;
    bases = mimic_alloc(d->ctx, MAX_BASES * sizeof *bases);
    if (!bases) {
        s = MIMIC_ENOMEM;
        goto done;
    }
    bool split = cfg->split || all_splits(&top), found = false;
    for (int64_t i = 0; i < top.count && split && s == MIMIC_OK; i++) {
        bool asked = cfg->split && strcmp(top.names[i], cfg->split) == 0;
        if (!asked && !is_split(top.names[i]))
            continue;
        s = mimic_path(d->ctx, bases[n], "%s/%s", cfg->path, top.names[i]);
        wanted[n++] = asked || !cfg->split;
        found |= asked;
    }
    if (s == MIMIC_OK && cfg->split && !found)
        s = mimic_no_part(d, cfg->path, cfg->split);
    if (s == MIMIC_OK && !split) {
        s = mimic_path(d->ctx, bases[0], "%s", cfg->path);
        wanted[n++] = true;
    }
    for (int i = 0; i < n && s == MIMIC_OK; i++)
        s = mimic_list_folder(d->ctx, bases[i], MIMIC_LIST_FOLDERS, &lists[i]);
    if (s == MIMIC_OK)
        s = merge_classes(d, lists, n);
    for (int i = 0; i < n && s == MIMIC_OK; i++)
        for (int64_t k = 0; wanted[i] && k < lists[i].count && s == MIMIC_OK; k++)
            s = add_class(d, bases[i], lists[i].names[k], class_rank(d, lists[i].names[k]));
    if (s == MIMIC_OK && d->count == 0) {
        int i = 0;
        while (i < n - 1 && !wanted[i])
            i++;
        s = nothing_found(d, bases[i]);
    }
done:
    for (int i = 0; i < n; i++)
        mimic_listing_free(d->ctx, &lists[i]);
    mimic_listing_free(d->ctx, &top);
    mimic_free(d->ctx, bases);
    return s;
}

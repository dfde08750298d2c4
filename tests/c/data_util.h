/* Shared by the tests of pictures and data sets: a scratch folder, small JPEG files, packs made by
 * hand. */
#ifndef MIMIC_TEST_DATA_UTIL_H
#define MIMIC_TEST_DATA_UTIL_H

#include "store_util.h"

/* A picture whose pixels all follow from (w, h, tone): smooth, so that JPEG keeps it well. */
static inline void fill_image(mimic_image *img, int w, int h, int tone) {
    mimic_err err;
    assert_int_equal(mimic_image_reserve(img, w, h, &err), MIMIC_OK);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *p = img->pixels + ((size_t)y * (size_t)w + (size_t)x) * 3;
            p[0] = (uint8_t)(255 * x / w);
            p[1] = (uint8_t)(255 * y / h);
            p[2] = (uint8_t)tone;
        }
}

static inline uint8_t *make_jpeg(int w, int h, int tone, size_t *size) {
    mimic_image img = {0};
    mimic_err err;
    uint8_t *data;
    fill_image(&img, w, h, tone);
    assert_int_equal(mimic_jpeg_encode(&img, 90, &data, size, &err), MIMIC_OK);
    mimic_image_free(&img);
    return data;
}

static inline void make_folder(const char *name) {
    char path[400];
    snprintf(path, sizeof path, "%s", at(name));
    for (char *p = path + strlen(scratch) + 1;; p++) {
        char c = *p;
        if (c != '/' && c != 0)
            continue;
        *p = 0;
        mkdir(path, 0777);
        if (c == 0)
            break;
        *p = c;
    }
}

/* Writes a JPEG at scratch/name, making its folder. */
static inline void put_jpeg(const char *name, int tone) {
    char folder[300];
    size_t size;
    uint8_t *data = make_jpeg(12, 10, tone, &size);
    snprintf(folder, sizeof folder, "%s", name);
    char *slash = strrchr(folder, '/');
    if (slash) {
        *slash = 0;
        make_folder(folder);
    }
    write_file(at(name), data, size);
    free(data);
}

static inline void put_text(const char *name, const char *text) {
    char folder[300];
    snprintf(folder, sizeof folder, "%s", name);
    char *slash = strrchr(folder, '/');
    if (slash) {
        *slash = 0;
        make_folder(folder);
    }
    write_file(at(name), text, strlen(text));
}

/* Appends one ustar member; `type` 0 writes the two final blocks. */
static inline void put_member(FILE *f, const char *name, char type, const void *data, size_t size) {
    uint8_t h[1024] = {0};
    unsigned sum = 0;
    if (type == 0) {
        assert_int_equal(fwrite(h, 1, 1024, f), 1024);
        return;
    }
    snprintf((char *)h, 100, "%s", name);
    snprintf((char *)h + 100, 8, "%07o", 0644u);
    snprintf((char *)h + 124, 12, "%011zo", size);
    memcpy(h + 257, "ustar\00000", 8);
    h[156] = (uint8_t)type;
    memset(h + 148, ' ', 8);
    for (int i = 0; i < 512; i++)
        sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
    assert_int_equal(fwrite(h, 1, 512, f), 512);
    assert_int_equal(fwrite(data, 1, size, f), size);
    memset(h, 0, sizeof h);
    if (size % 512)
        assert_int_equal(fwrite(h, 1, 512 - size % 512, f), 512 - size % 512);
}

/* A pack of n pictures "set/x<i>.jpg" with label i % classes; sample 1 of every ten is -1 when
 * `holes`. */
static inline void put_pack(const char *stem, int n, int classes, bool holes) {
    char name[300];
    snprintf(name, sizeof name, "%s.tar", stem);
    FILE *tar = fopen(at(name), "wb");
    snprintf(name, sizeof name, "%s.csv", stem);
    FILE *csv = fopen(at(name), "w");
    assert_true(tar && csv);
    fprintf(csv, "path,label,label_name,other\n");
    for (int i = 0; i < n; i++) {
        size_t size;
        uint8_t *data = make_jpeg(12 + i % 5, 10, i % 256, &size);
        snprintf(name, sizeof name, "set/x%04d.jpg", i);
        put_member(tar, name, '0', data, size);
        int label = holes && i % 10 == 1 ? -1 : i % classes;
        if (label < 0)
            fprintf(csv, "%s,-1,none,%d\n", name, i);
        else
            fprintf(csv, "%s,%d,class%d,%d\n", name, label, label, i);
        free(data);
    }
    put_member(tar, NULL, 0, NULL, 0);
    fclose(tar);
    fclose(csv);
}

static inline mimic_dataset *open_set(const char *path, const char *format, const char *split,
                                      bool need_labels) {
    mimic_dataset *d = NULL;
    mimic_dataset_config cfg = {
        .path = at(path), .format = format, .split = split, .need_labels = need_labels};
    must(mimic_dataset_open(ctx, &cfg, &d));
    return d;
}

#endif

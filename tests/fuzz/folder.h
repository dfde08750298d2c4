/* A scratch folder for targets whose parser reads files. */
#ifndef MIMIC_FUZZ_FOLDER_H
#define MIMIC_FUZZ_FOLDER_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mimic.h"

static char folder[64];

static void put(const char *name, const uint8_t *data, size_t size) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
}

static void remove_folder(void) {
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command))
        abort();
}

/* A context, and the folder with these folders in it. */
static mimic_ctx *start(const char *const *names, int n) {
    mimic_ctx *ctx;
    char path[200];
    snprintf(folder, sizeof folder, "%s/mimic-fuzz-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (mimic_open(&(mimic_config){.threads = 1, .memory_limit = 64u << 20}, &ctx) ||
        !mkdtemp(folder) || atexit(remove_folder))
        abort();
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        mkdir(path, 0777);
    }
    return ctx;
}

/* Opens, reads some pictures, closes: whatever comes, there is a message for a failure. */
static void open_set(mimic_ctx *ctx, const mimic_dataset_config *cfg) {
    mimic_dataset *d = NULL;
    if (mimic_dataset_open(ctx, cfg, &d)) {
        if (d || !mimic_message(ctx)[0])
            abort();
        return;
    }
    for (int64_t i = 0; i < mimic_dataset_size(d) && i < 4; i++) {
        mimic_image img = {0};
        mimic_err err = {{0}};
        if (mimic_dataset_read(d, i, &img, &err) && !err.text[0])
            abort();
        const float *soft = mimic_dataset_soft(d, i);
        for (int k = 0; soft && k < mimic_dataset_classes(d); k++)
            if (!(soft[k] >= 0 && soft[k] <= 1))
                abort();
        if (mimic_dataset_label(d, i) >= mimic_dataset_classes(d) ||
            !mimic_dataset_sample_name(d, i))
            abort();
        mimic_image_free(&img);
    }
    uint8_t hash[32];
    mimic_dataset_hash(d, hash);
    mimic_dataset_free(d);
}

#endif

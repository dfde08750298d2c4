/* `mimic data synth`: the synthetic sets as JPEG files in the folder layouts of ImageNet and
 * RAF-DB. Equal settings give equal bytes; a folder made with other settings is left alone. */
#include "data/dataset_impl.h"
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUALITY 90
#define CHUNK 64             /* pictures between two calls of progress */
#define HELD_OUT 0x40000000u /* first index of val and test pictures */
#define STREAM_LABELS 0xfe000002u

/* RAF-DB's own class counts, train and test. */
static const int32_t rafdb_counts[2][MIMIC_SYNTH_FACE_CLASSES] = {
    {1290, 281, 717, 4772, 1982, 705, 2524}, {329, 74, 160, 1185, 478, 162, 680}};

typedef struct job {
    const mimic_synth_config *cfg;
    int size;
    const int8_t *labels; /* faces: of all pictures; NULL: general */
    bool held_out;
    int64_t first; /* of this chunk */
    mimic_status status[CHUNK];
    mimic_err err[CHUNK];
} job;

static mimic_status write_file(const char *path, const void *data, size_t size, mimic_err *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return mimic_err_fail(err, MIMIC_EIO, "%s: %s", path, strerror(errno));
    const char *p = data;
    int failed = 0;
    while (size > 0 && !failed) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            failed = errno;
        else {
            p += n;
            size -= (size_t)n;
        }
    }
    if (close(fd) != 0 && !failed)
        failed = errno;
    if (!failed)
        return MIMIC_OK;
    unlink(path);
    return mimic_err_fail(err, MIMIC_EIO, "%s: %s", path, strerror(failed));
}

/* The class folder of a general picture, in the way of WordNet ids. */
static void general_folder(char *out, size_t size, const char *dir, bool held_out, int label) {
    snprintf(out, size, "%s/general/%s/n%08d", dir, held_out ? "val" : "train", 90000000 + label);
}

static void draw_one(void *arg, int64_t i, int worker) {
    (void)worker;
    job *j = arg;
    int64_t k = j->first + i;
    mimic_err *err = &j->err[i];
    char folder[MIMIC_PATH_MAX], path[MIMIC_PATH_MAX + 64];
    uint32_t index = (uint32_t)k + (j->held_out ? HELD_OUT : 0);
    uint8_t *data = NULL;
    size_t size = 0;
    mimic_image img = {0};
    mimic_status s;
    if (j->labels) {
        snprintf(path, sizeof path,
                 j->held_out ? "%s/faces/Image/aligned/test_%04lld_aligned.jpg"
                             : "%s/faces/Image/aligned/train_%05lld_aligned.jpg",
                 j->cfg->dir, (long long)k + 1);
        s = mimic_synth_face(j->cfg->seed, index, j->labels[k], j->size, &img, err);
    } else {
        int label = (int)(k % MIMIC_SYNTH_GENERAL_CLASSES);
        general_folder(folder, sizeof folder, j->cfg->dir, j->held_out, label);
        snprintf(path, sizeof path, "%s/%s_%lld.JPEG", folder, j->held_out ? "val" : "train",
                 (long long)k);
        s = mimic_synth_general(j->cfg->seed, index, label, j->size, &img, err);
    }
    if (s == MIMIC_OK)
        s = mimic_jpeg_encode(&img, QUALITY, &data, &size, err);
    if (s == MIMIC_OK)
        s = write_file(path, data, size, err);
    free(data);
    mimic_image_free(&img);
    j->status[i] = s;
}

static mimic_status make_folders(mimic_ctx *ctx, const char *path) {
    char p[MIMIC_PATH_MAX];
    mimic_status s = mimic_path(ctx, p, "%s", path);
    for (char *at = p + 1; s == MIMIC_OK; at++) {
        bool end = *at == 0;
        if (*at != '/' && !end)
            continue;
        *at = 0;
        if (mkdir(p, 0777) != 0 && !mimic_is_folder(p))
            s = mimic_fail(ctx, MIMIC_EIO, "cannot make the folder %s: %s", p, strerror(errno));
        if (end)
            break;
        *at = '/';
    }
    return s;
}

/* Labels in RAF-DB's proportions (every class at least once when there is room), in random order.
 */
static void make_labels(int8_t *labels, int n, uint64_t seed, bool held_out) {
    const int32_t *count = rafdb_counts[held_out];
    int64_t total = 0, sum = 0;
    int at = 0;
    mimic_rng rng;
    for (int k = 0; k < MIMIC_SYNTH_FACE_CLASSES; k++)
        total += count[k];
    for (int k = 0; k < MIMIC_SYNTH_FACE_CLASSES; k++) {
        sum += count[k];
        int end = (int)((sum * n + total / 2) / total);
        if (n >= 10 * MIMIC_SYNTH_FACE_CLASSES && end == at)
            end++;
        while (at < end && at < n)
            labels[at++] = (int8_t)k;
    }
    mimic_rng_init(&rng, seed, STREAM_LABELS, held_out);
    for (int i = n - 1; i > 0; i--) {
        int j = (int)mimic_rng_below(&rng, (uint32_t)i + 1);
        int8_t t = labels[i];
        labels[i] = labels[j];
        labels[j] = t;
    }
}

/* Draws `n` pictures of one split. */
static mimic_status draw_all(mimic_ctx *ctx, job *j, int n, int64_t *done, int64_t total) {
    for (j->first = 0; j->first < n; j->first += CHUNK) {
        int64_t count = n - j->first < CHUNK ? n - j->first : CHUNK;
        mimic_parallel(ctx, count, draw_one, j);
        for (int64_t i = 0; i < count; i++)
            if (j->status[i] != MIMIC_OK)
                return mimic_fail(ctx, j->status[i], "%s", j->err[i].text);
        *done += count;
        if (j->cfg->progress && !j->cfg->progress(j->cfg->user, *done, total))
            return mimic_fail(ctx, MIMIC_ESTATE, "drawing was stopped after %lld pictures",
                              (long long)*done);
    }
    return MIMIC_OK;
}

/* EmoLabel/list_patition_label.txt over both splits. */
static mimic_status write_labels(mimic_ctx *ctx, const mimic_synth_config *cfg,
                                 int8_t *const labels[2]) {
    const int n[2] = {cfg->faces_train, cfg->faces_test};
    char path[MIMIC_PATH_MAX];
    mimic_err err;
    mimic_status s = mimic_path(ctx, path, "%s/faces/EmoLabel/list_patition_label.txt", cfg->dir);
    if (s != MIMIC_OK)
        return s;
    size_t room = ((size_t)n[0] + (size_t)n[1]) * 40 + 1, used = 0;
    char *text = mimic_alloc(ctx, room);
    if (!text)
        return MIMIC_ENOMEM;
    for (int split = 0; split < 2; split++)
        for (int i = 0; i < n[split]; i++)
            used += (size_t)snprintf(text + used, room - used,
                                     split ? "test_%04d.jpg %d\n" : "train_%05d.jpg %d\n", i + 1,
                                     labels[split][i] + 1);
    if (write_file(path, text, used, &err) != MIMIC_OK)
        s = mimic_fail(ctx, MIMIC_EIO, "%s", err.text);
    mimic_free(ctx, text);
    return s;
}

/* DIR/synth.txt holds the settings. A folder that has pictures of other settings is refused. */
static mimic_status claim_folder(mimic_ctx *ctx, const mimic_synth_config *cfg, int size) {
    char path[MIMIC_PATH_MAX], text[256], old[256] = "";
    mimic_err err;
    mimic_status s = make_folders(ctx, cfg->dir);
    if (s == MIMIC_OK)
        s = mimic_path(ctx, path, "%s/synth.txt", cfg->dir);
    if (s != MIMIC_OK)
        return s;
    snprintf(text, sizeof text, "seed %llu, size %d, general %d + %d, faces %d + %d\n",
             (unsigned long long)cfg->seed, size, cfg->general_train, cfg->general_val,
             cfg->faces_train, cfg->faces_test);
    FILE *f = fopen(path, "r");
    if (f) {
        if (!fgets(old, sizeof old, f))
            old[0] = 0;
        fclose(f);
        if (strcmp(old, text) != 0)
            return mimic_fail(ctx, MIMIC_EINVAL,
                              "%s holds synthetic pictures of other settings (%.*s): "
                              "choose another folder or remove it",
                              cfg->dir, (int)strcspn(old, "\n"), old);
        return MIMIC_OK;
    }
    char used[2][MIMIC_PATH_MAX];
    s = mimic_path(ctx, used[0], "%s/general", cfg->dir);
    if (s == MIMIC_OK)
        s = mimic_path(ctx, used[1], "%s/faces", cfg->dir);
    for (int i = 0; i < 2 && s == MIMIC_OK; i++)
        if (mimic_is_folder(used[i]))
            s = mimic_fail(ctx, MIMIC_EINVAL, "%s exists already: choose another folder", used[i]);
    if (s == MIMIC_OK && write_file(path, text, strlen(text), &err) != MIMIC_OK)
        s = mimic_fail(ctx, MIMIC_EIO, "%s", err.text);
    return s;
}

static mimic_status write_general(mimic_ctx *ctx, job *j, int64_t *done, int64_t total) {
    const int n[2] = {j->cfg->general_train, j->cfg->general_val};
    char folder[MIMIC_PATH_MAX];
    mimic_status s = MIMIC_OK;
    j->labels = NULL;
    for (int split = 0; split < 2 && s == MIMIC_OK; split++) {
        j->held_out = split == 1;
        for (int k = 0; n[split] > 0 && k < MIMIC_SYNTH_GENERAL_CLASSES && s == MIMIC_OK; k++) {
            general_folder(folder, sizeof folder, j->cfg->dir, j->held_out, k);
            s = make_folders(ctx, folder);
        }
        if (s == MIMIC_OK)
            s = draw_all(ctx, j, n[split], done, total);
    }
    return s;
}

static mimic_status write_faces(mimic_ctx *ctx, job *j, int64_t *done, int64_t total) {
    const int n[2] = {j->cfg->faces_train, j->cfg->faces_test};
    int8_t *labels[2] = {NULL, NULL};
    char folder[MIMIC_PATH_MAX];
    mimic_status s = mimic_path(ctx, folder, "%s/faces/EmoLabel", j->cfg->dir);
    if (s == MIMIC_OK)
        s = make_folders(ctx, folder);
    if (s == MIMIC_OK)
        s = mimic_path(ctx, folder, "%s/faces/Image/aligned", j->cfg->dir);
    if (s == MIMIC_OK)
        s = make_folders(ctx, folder);
    for (int split = 0; split < 2 && s == MIMIC_OK; split++) {
        labels[split] = mimic_alloc(ctx, (size_t)n[split] + 1);
        if (!labels[split]) {
            s = MIMIC_ENOMEM;
            break;
        }
        make_labels(labels[split], n[split], j->cfg->seed, split == 1);
        j->labels = labels[split];
        j->held_out = split == 1;
        s = draw_all(ctx, j, n[split], done, total);
    }
    if (s == MIMIC_OK)
        s = write_labels(ctx, j->cfg, labels);
    mimic_free(ctx, labels[0]);
    mimic_free(ctx, labels[1]);
    return s;
}

mimic_status mimic_synth_write(mimic_ctx *ctx, const mimic_synth_config *cfg) {
    const int n[4] = {cfg->general_train, cfg->general_val, cfg->faces_train, cfg->faces_test};
    int64_t total = 0, done = 0;
    int size = cfg->size ? cfg->size : 64;
    if (!cfg->dir || !*cfg->dir || strlen(cfg->dir) > MIMIC_PATH_MAX - 256)
        return mimic_fail(ctx, MIMIC_EINVAL, "synthetic pictures need a folder to go to");
    for (int i = 0; i < 4; i++) {
        if (n[i] < 0 || n[i] > 10000000)
            return mimic_fail(ctx, MIMIC_EINVAL, "%d synthetic pictures", n[i]);
        total += n[i];
    }
    if (total == 0)
        return mimic_fail(ctx, MIMIC_EINVAL, "no synthetic pictures are asked for");
    if (size < 8 || size > 1024)
        return mimic_fail(ctx, MIMIC_EINVAL, "size = %d, 8 to 1024 are possible", size);
    mimic_status s = claim_folder(ctx, cfg, size);
    if (s != MIMIC_OK)
        return s;
    job *j = mimic_calloc(ctx, sizeof *j);
    if (!j)
        return MIMIC_ENOMEM;
    j->cfg = cfg;
    j->size = size;
    if (n[0] + n[1] > 0)
        s = write_general(ctx, j, &done, total);
    if (s == MIMIC_OK && n[2] + n[3] > 0)
        s = write_faces(ctx, j, &done, total);
    mimic_free(ctx, j);
    return s;
}

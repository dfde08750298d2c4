/* Data sets (lists of samples) and the loader (threads that decode, transform and batch them). */
#ifndef MIMIC_DATA_H
#define MIMIC_DATA_H

#include "image.h"
#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mimic_dataset mimic_dataset;

typedef struct mimic_dataset_config {
    const char *path; /* folder, .tar (pack, with its .csv beside it), .pixels, .rec, fer2013.csv,
                         .txt/.tsv list file */
    /* "auto" (NULL), "folders", "rafdb", "ferplus", "affectnet", "recordio", "list", "pack",
     * "pixels" */
    const char *format;
    /* NULL: all. folders: the sub-folder; rafdb: train or test; ferplus: train, val, test;
     * affectnet: train, val; list, recordio: none; pack, pixels: PATH_SPLIT.tar, PATH_SPLIT.pixels
     * (a path that ends in .tar is one split already, and must be named for the split when one is
     * given). */
    const char *split;
    const char *label_column; /* packs: CSV column, "label" when NULL */
    bool optional;            /* a split that the set has not is no failure: *out is then NULL */
    bool need_labels; /* a sample without a label (-1) is dropped, or refused (list files) */
    /* Label rule. ferplus: "maxvote" (NULL), "majority", "crossentropy", "probability",
     * "multi_target"; affectnet: "7" (NULL) or "8" classes. */
    const char *mode;
} mimic_dataset_config;

/* Reads the index only, no pictures. Messages name file and line. */
mimic_status mimic_dataset_open(mimic_ctx *ctx, const mimic_dataset_config *cfg,
                                mimic_dataset **out);
void mimic_dataset_free(mimic_dataset *d);
/* Format of what lies at a path, as opening it without a split finds it; NULL: nothing. */
const char *mimic_dataset_detect(const char *path);
int64_t mimic_dataset_size(const mimic_dataset *d);
/* Largest label + 1; folders: number of class names over all splits; soft lists: their length. */
int mimic_dataset_classes(const mimic_dataset *d);
const char *mimic_dataset_class_name(const mimic_dataset *d, int k); /* "" when unnamed */
const char *mimic_dataset_format(const mimic_dataset *d);
int32_t mimic_dataset_label(const mimic_dataset *d, int64_t i);
/* [classes] summing to 1 (all 0 without a label), or NULL when the set has hard labels only. The
 * plain label is then the first of the largest. */
const float *mimic_dataset_soft(const mimic_dataset *d, int64_t i);
/* ferplus, mode "probability": training draws the label from the soft one in every epoch. */
bool mimic_dataset_draws(const mimic_dataset *d);
const char *mimic_dataset_mode(const mimic_dataset *d); /* "" without modes */
const char *mimic_dataset_sample_name(const mimic_dataset *d,
                                      int64_t i); /* path, or pack.tar:member */
void mimic_dataset_counts(const mimic_dataset *d, int64_t *per_class); /* [classes] */
int64_t mimic_dataset_dropped(const mimic_dataset *d); /* samples left out for want of a label */
/* SHA-256 over names, sizes, labels and soft labels: identifies the data in a run's record. */
void mimic_dataset_hash(const mimic_dataset *d, uint8_t out[32]);
/* Decodes sample i. Thread-safe. */
mimic_status mimic_dataset_read(const mimic_dataset *d, int64_t i, mimic_image *out,
                                mimic_err *err);

/* `mimic data pack`: writes a set's pictures decoded, in one size, as NAME.pixels, which opens as a
 * data set of format "pixels". Training with transform.pre_resize = size gives the same numbers
 * from both. The file appears when it is complete. */
typedef struct mimic_pixels_config {
    const char *path;
    int size; /* side in pixels, bilinear as pre_resize; 0: all must have one size already */
    bool skip_damaged; /* leave damaged pictures out, else they are an error */
    bool (*progress)(void *user, int64_t done, int64_t total); /* false stops; may be NULL */
    void *user;
} mimic_pixels_config;
mimic_status mimic_pixels_write(mimic_ctx *ctx, const mimic_dataset *d,
                                const mimic_pixels_config *cfg, int64_t *damaged);

typedef struct mimic_loader mimic_loader;

/* Where views are made when the context's device is a GPU; on the CPU it has no meaning. The device
 * computes the bytes of the host's pipeline, every float equal, from the random numbers that the
 * host draws: what a batch holds depends neither on this nor on the memory there is. */
typedef enum mimic_data_device {
    /* On the device, and the set's 8-bit pictures are kept there from their first use on, when all
     * have one size and need no more than a quarter of the memory that is free. */
    MIMIC_DATA_AUTO,
    MIMIC_DATA_OFF,    /* on the host; floats are sent */
    MIMIC_DATA_STREAM, /* on the device, from 8-bit pictures sent with each batch */
    MIMIC_DATA_KEEP    /* on the device, the set must be kept: else an error that says what lacks */
} mimic_data_device;

typedef struct mimic_loader_config {
    mimic_transform transform;
    /* Program of all views but the first, for methods whose views differ (MoCo v3); size 0 = the
     * same. It starts from the same picture: size and pre_resize must be equal. */
    mimic_transform second;
    int batch; /* pictures per batch */
    int views; /* augmented views per picture, up to 16; batch tensor [views*batch,3,S,S], all first
                  views first */
    bool shuffle;      /* a new permutation per epoch, from (seed, epoch) */
    bool balanced;     /* draw with replacement, weight 1/count(class) */
    bool draw_labels;  /* mimic_dataset_draws: draw, from (seed, epoch, sample), instead of the
                          likeliest class; for training */
    bool drop_last;    /* leave out the incomplete last batch */
    int workers;       /* loader threads; 0 = 1. Results do not depend on it */
    int ahead;         /* batches prepared in advance; 0 = 2 */
    uint64_t seed;     /* pictures are drawn from (seed, epoch, sample, view), the order from (seed,
                          epoch) */
    bool skip_damaged; /* a damaged picture is replaced by the next good one and counted, else an
                          error */
    mimic_data_device device;
    size_t cache_bytes; /* keep decoded pictures in memory up to this many bytes; 0 = off */
} mimic_loader_config;

typedef struct mimic_batch {
    mimic_tensor *images; /* f32 [views*n,3,S,S], normalised */
    mimic_tensor *labels; /* i32 [n] (-1 where unlabelled) */
    mimic_tensor *soft;   /* f32 [n,classes], or NULL: hard labels, or drawn ones */
    mimic_tensor *index;  /* i32 [n], position in the data set */
    int n;
} mimic_batch;

mimic_status mimic_loader_new(mimic_ctx *ctx, const mimic_dataset *data,
                              const mimic_loader_config *cfg,
                              mimic_loader **out); /* data must outlive the loader */
void mimic_loader_free(mimic_loader *l);
int64_t mimic_loader_batches(const mimic_loader *l); /* per epoch */
/* Starts epoch `epoch` at batch `position` (both from 0): resume needs nothing else. */
mimic_status mimic_loader_start(mimic_loader *l, int64_t epoch, int64_t position);
/* Next batch, or out->n = 0 at the end of the epoch. Tensors belong to the current scope; the
 * caller releases them. A failed batch is passed over: the next call goes on behind it. */
mimic_status mimic_loader_next(mimic_loader *l, mimic_batch *out);
/* Where views are made: "host", "device, 65.9 MiB of pictures kept there", "device, pictures sent
 * with each batch: ..." and why. */
void mimic_loader_about(const mimic_loader *l, char *buf, size_t size);
size_t mimic_loader_kept(const mimic_loader *l);     /* bytes of pictures kept on the device */
int64_t mimic_loader_damaged(const mimic_loader *l); /* pictures skipped so far */

/* `mimic data synth`: writes general pictures (ImageNet folder layout:
 * DIR/general/{train,val}/<wnid>/) and faces (RAF-DB layout: DIR/faces/EmoLabel/...,
 * DIR/faces/Image/aligned/...), JPEG, from a seed. The same settings give the same bytes; a folder
 * that holds sets of other settings (DIR/synth.txt) is refused. */
typedef struct mimic_synth_config {
    const char *dir;
    uint64_t seed;
    int general_train, general_val, faces_train, faces_test;   /* pictures */
    int size;                                                  /* pixels, 0 = 64 */
    bool (*progress)(void *user, int64_t done, int64_t total); /* false stops; may be NULL */
    void *user;
} mimic_synth_config;
mimic_status mimic_synth_write(mimic_ctx *ctx, const mimic_synth_config *cfg);

#ifdef __cplusplus
}
#endif
#endif

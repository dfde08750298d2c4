/* The loader's state. The pipeline: items (pictures of batches) are claimed one by one in the order
 * of the epoch, each writes its own place of its batch's slot, and the consumer takes the slots in
 * order; so nothing depends on which thread did what. One mutex guards all counters. */
#ifndef MIMIC_LOADER_IMPL_H
#define MIMIC_LOADER_IMPL_H

#include <pthread.h>

#include "mimic/data.h"
#include "core/ctx.h"

/* One batch in the making. */
typedef struct mimic_slot {
    uint8_t *bytes;          /* floats [views * n, 3, S, S], or what device_views.c sends */
    int32_t *labels, *index; /* [batch] */
    float *soft;             /* [batch, classes], or NULL */
    int64_t batch;           /* -1: none */
    int n, done;
    int64_t damaged;
    mimic_status status; /* of the failed item with the smallest number */
    int failed;
    mimic_err err;
} mimic_slot;

/* A decoded picture kept in memory. */
typedef struct mimic_cached {
    int width, height;
    uint8_t pixels[];
} mimic_cached;

/* How batches are made on the device (device_views.c). */
typedef struct mimic_device_views {
    bool on;
    size_t stride, pixels_at,
        room;                    /* of a slot: bytes of a view, the pictures' begin, bytes of one */
    int width, height, channels; /* of the pictures that may be kept; 0: not known */
    size_t record;               /* their bytes */
    mimic_tensor *kept;          /* u8 [size, record] on the device, or NULL */
    _Atomic uint8_t *there;      /* [size] it is in its place */
    char why[160];               /* nothing is kept: the reason, "" without one */
} mimic_device_views;

typedef struct mimic_worker {
    struct mimic_loader *loader;
    pthread_t thread;
    mimic_image decoded, resized;
    mimic_transform_scratch scratch;
} mimic_worker;

struct mimic_loader {
    mimic_ctx *ctx;
    mimic_device *device; /* that batches are made on: the context's when the loader was made */
    bool held;            /* the slot of the batch handed out last is still being fetched */
    const mimic_dataset *data;
    mimic_loader_config cfg;
    int64_t size, batches;
    size_t picture; /* floats of one picture */
    int32_t *order; /* [size] sample of every position of the epoch */
    uint32_t *turn; /* [size] balanced only: how often the sample came before in this epoch */
    void *scratch;  /* for making the order */
    int32_t *by_class, *class_start; /* balanced: samples grouped by class */
    int filled;                      /* balanced: classes with samples */

    pthread_mutex_t lock;
    pthread_cond_t work, ready,
        idle; /* an item may be claimed; a batch is done; no item in the works */
    bool started, running, stopping;
    int64_t epoch, next_batch, taken; /* next to claim from, next to hand out */
    int next_item, active;
    int64_t damaged;

    mimic_slot *slots; /* [cfg.ahead] */
    mimic_worker *workers;
    int threads; /* workers running */

    _Atomic(mimic_cached *) *cache; /* [size], or NULL */
    _Atomic size_t cache_used;
    mimic_device_views dev;
};

/* Chooses between host and device, and takes the memory for what the device keeps. */
mimic_status mimic_device_views_open(struct mimic_loader *l);
void mimic_device_views_close(struct mimic_loader *l);
size_t mimic_device_views_bytes(const struct mimic_loader *l); /* of a slot */
/* Whether the device has the sample's picture. */
bool mimic_device_views_have(const struct mimic_loader *l, int64_t sample);
/* In a loader thread: the plan of view v of an item, of a picture or (NULL) of the one kept; then
 * the picture itself, behind the plans of all its views. */
mimic_status mimic_device_views_plan(const mimic_worker *w, mimic_slot *slot, int item, int v,
                                     int64_t sample, const mimic_image *picture, mimic_rng *rng,
                                     mimic_err *err);
mimic_status mimic_device_views_put(mimic_worker *w, mimic_slot *slot, int item,
                                    const mimic_image *picture, mimic_err *err);
/* On the caller's thread: the views of a finished slot. */
mimic_status mimic_device_views_make(struct mimic_loader *l, const mimic_slot *slot,
                                     mimic_tensor **out);
/* The program of view v. */
static inline const mimic_transform *mimic_loader_program(const struct mimic_loader *l, int v) {
    return v > 0 && l->cfg.second.size ? &l->cfg.second : &l->cfg.transform;
}

/* Fills order (and turn) for l->epoch. */
void mimic_loader_order(struct mimic_loader *l);
/* Allocates what mimic_loader_order needs. */
mimic_status mimic_loader_order_init(struct mimic_loader *l);
int mimic_loader_batch_size(const struct mimic_loader *l, int64_t batch);
void *mimic_loader_work(void *worker);
void mimic_loader_cache_free(struct mimic_loader *l);

/* Random streams of the loader, apart from those of operators (which count from 0). The whole
 * counter of a picture's generator is (index, stream, step) = (draws so far, this | view << 24 |
 * turn, epoch << 32 | sample): different for any two of (epoch, sample, view, turn) under the seed.
 */
#define MIMIC_STREAM_PICTURE 0x80000000u
#define MIMIC_STREAM_ORDER 0xfd000000u
#define MIMIC_STREAM_LABEL 0xfb000000u /* | turn; step as above */

#endif

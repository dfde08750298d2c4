/* A loader thread: claims pictures, decodes (or takes from the cache), transforms, writes into the
 * slot. It never touches the context's message; failures travel in the slot. */
#include "data/loader_impl.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "image/image_impl.h"

/* The picture of sample i as the transform starts from it; points into the cache or the worker.
 * Empty when the device has it. */
static mimic_status fetch(mimic_worker *w, int64_t i, mimic_image *view, mimic_err *err) {
    struct mimic_loader *l = w->loader;
    *view = (mimic_image){0};
    if (mimic_device_views_have(l, i))
        return MIMIC_OK;
    if (l->cache) {
        mimic_cached *c = atomic_load_explicit(&l->cache[i], memory_order_acquire);
        if (c) {
            *view = (mimic_image){.width = c->width, .height = c->height, .pixels = c->pixels};
            return MIMIC_OK;
        }
    }
    mimic_status s = mimic_dataset_read(l->data, i, &w->decoded, err);
    *view = w->decoded;
    int side = l->cfg.transform.pre_resize;
    if (s == MIMIC_OK && side && (view->width != side || view->height != side)) {
        s = mimic_image_resize(view, 0, 0, view->width, view->height, side, side, MIMIC_BILINEAR,
                               &w->resized, err);
        *view = w->resized;
    }
    if (s != MIMIC_OK || !l->cache)
        return s;
    size_t bytes = (size_t)view->width * (size_t)view->height * 3;
    size_t total = sizeof(mimic_cached) + bytes;
    size_t before = atomic_fetch_add_explicit(&l->cache_used, total, memory_order_relaxed);
    mimic_cached *c = before + total <= l->cfg.cache_bytes ? mimic_try_alloc(l->ctx, total) : NULL;
    mimic_cached *none = NULL;
    if (c) {
        c->width = view->width;
        c->height = view->height;
        memcpy(c->pixels, view->pixels, bytes);
    }
    if (!c || !atomic_compare_exchange_strong_explicit(&l->cache[i], &none, c, memory_order_acq_rel,
                                                       memory_order_acquire)) {
        mimic_free(l->ctx, c); /* no room, or another thread was first */
        atomic_fetch_sub_explicit(&l->cache_used, total, memory_order_relaxed);
    }
    return MIMIC_OK;
}

void mimic_loader_cache_free(struct mimic_loader *l) {
    for (int64_t i = 0; l->cache && i < l->size; i++)
        mimic_free(l->ctx, atomic_load_explicit(&l->cache[i], memory_order_relaxed));
    mimic_free(l->ctx, (void *)l->cache);
}

/* The label of a sample in this epoch. */
static int32_t label_of(const struct mimic_loader *l, int64_t sample, int64_t first,
                        uint32_t turn) {
    int32_t label = mimic_dataset_label(l->data, sample);
    if (!l->cfg.draw_labels || !mimic_dataset_draws(l->data) || label < 0)
        return label;
    const float *soft = mimic_dataset_soft(l->data, sample);
    mimic_rng rng;
    mimic_rng_init(&rng, l->cfg.seed, MIMIC_STREAM_LABEL | turn,
                   (uint64_t)l->epoch << 32 | (uint64_t)first);
    double u = mimic_rng_uniform(&rng);
    for (int k = 0; k < mimic_dataset_classes(l->data); k++) {
        u -= soft[k];
        if (u < 0 && soft[k] > 0)
            return k;
    }
    return label; /* rounding */
}

/* Item `item` of the slot's batch: all views of one picture. */
static mimic_status make_item(mimic_worker *w, mimic_slot *slot, int item, int64_t *damaged,
                              mimic_err *err) {
    struct mimic_loader *l = w->loader;
    int64_t position = slot->batch * l->cfg.batch + item, first = l->order[position],
            sample = first;
    mimic_image picture;
    mimic_status s = fetch(w, sample, &picture, err);
    while (s == MIMIC_EFORMAT && l->cfg.skip_damaged && ++*damaged < l->size) {
        sample = sample + 1 == l->size ? 0 : sample + 1;
        s = fetch(w, sample, &picture, err);
    }
    bool read = s == MIMIC_OK;
    uint32_t turn = l->turn ? l->turn[position] & 0xffffffu : 0;
    slot->labels[item] = label_of(l, sample, first, turn);
    slot->index[item] = (int32_t)sample;
    if (slot->soft) {
        int classes = mimic_dataset_classes(l->data);
        memcpy(slot->soft + (size_t)item * (size_t)classes, mimic_dataset_soft(l->data, sample),
               (size_t)classes * sizeof *slot->soft);
    }
    for (int v = 0; v < l->cfg.views && s == MIMIC_OK; v++) {
        mimic_rng rng;
        mimic_rng_init(&rng, l->cfg.seed, MIMIC_STREAM_PICTURE | (uint32_t)v << 24 | turn,
                       (uint64_t)l->epoch << 32 | (uint64_t)first);
        size_t at = ((size_t)v * (size_t)slot->n + (size_t)item) * l->picture;
        s = l->dev.on ? mimic_device_views_plan(w, slot, item, v, sample,
                                                picture.pixels ? &picture : NULL, &rng, err)
                      : mimic_transform_apply(mimic_loader_program(l, v), &picture, &rng,
                                              &w->scratch, (float *)(void *)slot->bytes + at, err);
    }
    if (s == MIMIC_OK && l->dev.on && picture.pixels)
        s = mimic_device_views_put(w, slot, item, &picture, err);
    if (s != MIMIC_OK && read) {
        char text[sizeof err->text];
        snprintf(text, sizeof text, "%s", err->text);
        mimic_err_fail(err, s, "%s: %s", mimic_dataset_sample_name(l->data, sample), text);
    }
    return s;
}

/* Waits for an item; NULL when the loader is being freed. Called with the lock held. */
static mimic_slot *claim(struct mimic_loader *l, int *item) {
    while (!l->stopping &&
           !(l->running && l->next_batch < l->batches && l->next_batch < l->taken + l->cfg.ahead))
        pthread_cond_wait(&l->work, &l->lock);
    if (l->stopping)
        return NULL;
    mimic_slot *slot = &l->slots[l->next_batch % l->cfg.ahead];
    if (l->next_item == 0) {
        slot->batch = l->next_batch;
        slot->n = mimic_loader_batch_size(l, l->next_batch);
        slot->done = 0;
        slot->damaged = 0;
        slot->status = MIMIC_OK;
    }
    *item = l->next_item++;
    if (l->next_item == slot->n) {
        l->next_item = 0;
        l->next_batch++;
    }
    l->active++;
    return slot;
}

void *mimic_loader_work(void *worker) {
    mimic_worker *w = worker;
    struct mimic_loader *l = w->loader;
    mimic_slot *slot;
    int item;
    mimic_mark_worker_thread();
    pthread_mutex_lock(&l->lock);
    while ((slot = claim(l, &item))) {
        pthread_mutex_unlock(&l->lock);
        mimic_err err = {{0}};
        int64_t damaged = 0;
        mimic_status s = make_item(w, slot, item, &damaged, &err);
        pthread_mutex_lock(&l->lock);
        slot->damaged += damaged;
        if (s != MIMIC_OK && (slot->status == MIMIC_OK || item < slot->failed)) {
            slot->status = s;
            slot->failed = item;
            slot->err = err;
        }
        if (++slot->done == slot->n)
            pthread_cond_signal(&l->ready);
        if (--l->active == 0)
            pthread_cond_signal(&l->idle);
    }
    pthread_mutex_unlock(&l->lock);
    mimic_image_free(&w->decoded);
    mimic_image_free(&w->resized);
    mimic_transform_scratch_free(&w->scratch);
    return NULL;
}

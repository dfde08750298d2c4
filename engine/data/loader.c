/* The loader as its caller sees it: made, started at (epoch, position), asked for batches, freed at
 * any moment. All of this runs on the context's thread; the threads are in worker.c. */
#include "data/loader_impl.h"
#include "tensor/tensor_impl.h"

#include <signal.h>
#include <string.h>

#define MAX_WORKERS 256
#define MAX_AHEAD 64

static mimic_status check(mimic_ctx *ctx, const mimic_dataset *data,
                          const mimic_loader_config *cfg) {
    mimic_err err;
    if (mimic_transform_check(&cfg->transform, &err) != MIMIC_OK)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s", err.text);
    if (cfg->second.size) {
        if (mimic_transform_check(&cfg->second, &err) != MIMIC_OK)
            return mimic_fail(ctx, MIMIC_EINVAL, "second %s", err.text);
        if (cfg->second.size != cfg->transform.size ||
            cfg->second.pre_resize != cfg->transform.pre_resize)
            return mimic_fail(ctx, MIMIC_EINVAL,
                              "loader: size and pre_resize of the second transform (%d, %d) differ "
                              "from the first's (%d, %d)",
                              cfg->second.size, cfg->second.pre_resize, cfg->transform.size,
                              cfg->transform.pre_resize);
    }
    if (cfg->batch < 1 || cfg->batch > 1 << 20)
        return mimic_fail(ctx, MIMIC_EINVAL, "loader: batch = %d", cfg->batch);
    if (cfg->views < 0 || cfg->views > 16)
        return mimic_fail(ctx, MIMIC_EINVAL, "loader: views = %d, up to 16 are possible",
                          cfg->views);
    if (cfg->workers < 0 || cfg->workers > MAX_WORKERS)
        return mimic_fail(ctx, MIMIC_EINVAL, "loader: workers = %d, up to %d are possible",
                          cfg->workers, MAX_WORKERS);
    if (cfg->ahead < 0 || cfg->ahead > MAX_AHEAD)
        return mimic_fail(ctx, MIMIC_EINVAL, "loader: ahead = %d, up to %d are possible",
                          cfg->ahead, MAX_AHEAD);
    int64_t n = mimic_dataset_size(data);
    if (cfg->drop_last && n < cfg->batch)
        return mimic_fail(ctx, MIMIC_EINVAL,
                          "loader: %lld samples make no batch of %d, and drop_last is on",
                          (long long)n, cfg->batch);
    return MIMIC_OK;
}

static mimic_status make_slots(mimic_loader *l) {
    size_t batch = (size_t)l->cfg.batch;
    int classes = mimic_dataset_classes(l->data);
    bool drawn = l->cfg.draw_labels && mimic_dataset_draws(l->data);
    bool soft = mimic_dataset_soft(l->data, 0) && !drawn;
    l->slots = mimic_calloc(l->ctx, (size_t)l->cfg.ahead * sizeof *l->slots);
    if (!l->slots)
        return MIMIC_ENOMEM;
    for (int i = 0; i < l->cfg.ahead; i++) {
        mimic_slot *slot = &l->slots[i];
        slot->batch = -1;
        slot->bytes = mimic_feed_alloc(l->device, l->dev.on ? mimic_device_views_bytes(l)
                                                            : batch * (size_t)l->cfg.views *
                                                                  l->picture * sizeof(float));
        slot->labels = mimic_alloc(l->ctx, batch * sizeof(int32_t));
        slot->index = mimic_alloc(l->ctx, batch * sizeof(int32_t));
        if (soft)
            slot->soft = mimic_alloc(l->ctx, batch * (size_t)classes * sizeof(float));
        if (!slot->bytes || !slot->labels || !slot->index || (soft && !slot->soft))
            return MIMIC_ENOMEM;
    }
    return MIMIC_OK;
}

/* Threads with all signals blocked: Ctrl-C belongs to the caller's thread. */
static mimic_status make_threads(mimic_loader *l) {
    sigset_t all, old;
    l->workers = mimic_calloc(l->ctx, (size_t)l->cfg.workers * sizeof *l->workers);
    if (!l->workers)
        return MIMIC_ENOMEM;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = 0;
    while (l->threads < l->cfg.workers && !failed) {
        mimic_worker *w = &l->workers[l->threads];
        w->loader = l;
        failed = pthread_create(&w->thread, NULL, mimic_loader_work, w);
        l->threads += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed ? mimic_fail(l->ctx, MIMIC_ENOMEM, "loader thread %d: %s", l->threads + 1,
                               strerror(failed))
                  : MIMIC_OK;
}

mimic_status mimic_loader_new(mimic_ctx *ctx, const mimic_dataset *data,
                              const mimic_loader_config *cfg, mimic_loader **out) {
    *out = NULL;
    mimic_status s = check(ctx, data, cfg);
    if (s != MIMIC_OK)
        return s;
    mimic_loader *l = mimic_calloc(ctx, sizeof *l);
    if (!l)
        return MIMIC_ENOMEM;
    l->ctx = ctx;
    l->device = ctx->device;
    l->data = data;
    l->cfg = *cfg;
    l->cfg.views += l->cfg.views == 0;
    l->cfg.workers += l->cfg.workers == 0;
    l->cfg.ahead = (cfg->ahead ? cfg->ahead : 2) + mimic_feed_pending(l->device);
    l->size = mimic_dataset_size(data);
    l->batches = cfg->drop_last ? l->size / cfg->batch : (l->size + cfg->batch - 1) / cfg->batch;
    l->picture = (size_t)3 * (size_t)cfg->transform.size * (size_t)cfg->transform.size;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->ready, NULL);
    pthread_cond_init(&l->idle, NULL);
    s = mimic_loader_order_init(l);
    if (s == MIMIC_OK && cfg->cache_bytes) {
        l->cache = mimic_calloc(ctx, (size_t)l->size * sizeof *l->cache);
        s = l->cache ? MIMIC_OK : MIMIC_ENOMEM;
    }
    if (s == MIMIC_OK)
        s = mimic_device_views_open(l);
    if (s == MIMIC_OK)
        s = make_slots(l);
    if (s == MIMIC_OK)
        s = make_threads(l);
    if (s == MIMIC_OK)
        *out = l;
    else
        mimic_loader_free(l);
    return s;
}

void mimic_loader_free(mimic_loader *l) {
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->threads; i++)
        pthread_join(l->workers[i].thread, NULL);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->idle);
    mimic_loader_cache_free(l);
    mimic_device_views_close(l);
    for (int i = 0; l->slots && i < l->cfg.ahead; i++) {
        mimic_feed_free(l->device, l->slots[i].bytes);
        mimic_free(l->ctx, l->slots[i].labels);
        mimic_free(l->ctx, l->slots[i].soft);
        mimic_free(l->ctx, l->slots[i].index);
    }
    void *blocks[] = {l->slots,   l->workers,  l->order,      l->turn,
                      l->scratch, l->by_class, l->class_start};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        mimic_free(l->ctx, blocks[i]);
    mimic_free(l->ctx, l);
}

int64_t mimic_loader_batches(const mimic_loader *l) {
    return l->batches;
}

int64_t mimic_loader_damaged(const mimic_loader *l) {
    return l->damaged;
}

/* A device that fetches batches by itself has the one handed out last: its slot may be filled
 * again.
 */
static mimic_status let_go(mimic_loader *l) {
    if (!l->held)
        return MIMIC_OK;
    mimic_status s = mimic_feed_wait(l->device);
    pthread_mutex_lock(&l->lock);
    l->held = false;
    l->taken++;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return s;
}

mimic_status mimic_loader_start(mimic_loader *l, int64_t epoch, int64_t position) {
    if (epoch < 0 || epoch > INT32_MAX)
        return mimic_fail(l->ctx, MIMIC_EINVAL, "loader: epoch %lld", (long long)epoch);
    if (position < 0 || position > l->batches)
        return mimic_fail(l->ctx, MIMIC_EINVAL, "loader: position %lld of %lld batches",
                          (long long)position, (long long)l->batches);
    mimic_status s = let_go(l);
    if (s != MIMIC_OK)
        return s;
    pthread_mutex_lock(&l->lock);
    l->running = false;
    while (l->active > 0)
        pthread_cond_wait(&l->idle, &l->lock);
    bool same = l->started && l->epoch == epoch;
    l->epoch = epoch;
    if (!same)
        mimic_loader_order(l);
    l->next_batch = l->taken = position;
    l->next_item = 0;
    for (int i = 0; i < l->cfg.ahead; i++)
        l->slots[i].batch = -1;
    l->started = l->running = true;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return MIMIC_OK;
}

/* Small enough to be copied at once. */
static mimic_status from_host(mimic_loader *l, mimic_device *d, int64_t n, const int32_t *values,
                              mimic_tensor **out) {
    mimic_status s = mimic_tensor_make(d, MIMIC_I32, 1, &n, "batch", out);
    return s ? s : mimic_tensor_write(l->ctx, *out, MIMIC_I32, values, n);
}

/* The slot as tensors of the caller's scope. */
static mimic_status to_tensors(mimic_loader *l, const mimic_slot *slot, mimic_batch *out) {
    int64_t side = l->cfg.transform.size, n = slot->n;
    mimic_batch b = {.n = slot->n};
    mimic_status s = l->dev.on ? mimic_device_views_make(l, slot, &b.images)
                               : mimic_feed(l->device, MIMIC_F32, 4,
                                            (int64_t[]){n * l->cfg.views, 3, side, side},
                                            slot->bytes, &b.images);
    if (s == MIMIC_OK)
        s = from_host(l, l->device, n, slot->labels, &b.labels);
    if (s == MIMIC_OK && slot->soft)
        s = mimic_tensor_make(l->device, MIMIC_F32, 2,
                              (int64_t[]){n, mimic_dataset_classes(l->data)}, "batch", &b.soft);
    if (s == MIMIC_OK && slot->soft)
        s = mimic_tensor_write(l->ctx, b.soft, MIMIC_F32, slot->soft, mimic_numel(b.soft));
    if (s == MIMIC_OK)
        s = from_host(l, &l->ctx->devices[MIMIC_CPU], n, slot->index, &b.index);
    if (s == MIMIC_OK) {
        *out = b;
        return s;
    }
    mimic_tensor_release(b.images);
    mimic_tensor_release(b.labels);
    mimic_tensor_release(b.soft);
    return s;
}

mimic_status mimic_loader_next(mimic_loader *l, mimic_batch *out) {
    *out = (mimic_batch){0};
    if (!l->started)
        return mimic_fail(l->ctx, MIMIC_ESTATE, "loader: no epoch was started");
    mimic_status s = let_go(l);
    if (s != MIMIC_OK)
        return s;
    pthread_mutex_lock(&l->lock);
    if (l->taken == l->batches) {
        pthread_mutex_unlock(&l->lock);
        return MIMIC_OK;
    }
    mimic_slot *slot = &l->slots[l->taken % l->cfg.ahead];
    while (slot->batch != l->taken || slot->done < slot->n)
        pthread_cond_wait(&l->ready, &l->lock);
    pthread_mutex_unlock(&l->lock);
    /* The slot is ours until `taken` moves on. */
    s = slot->status;
    if (s != MIMIC_OK)
        mimic_fail(l->ctx, s, "%s", slot->err.text);
    else
        s = to_tensors(l, slot, out);
    pthread_mutex_lock(&l->lock);
    if (s == MIMIC_OK)
        l->damaged += slot->damaged;
    l->held = s == MIMIC_OK && mimic_feed_pending(l->device);
    l->taken += !l->held;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return s;
}

/* Batches whose views are made on the device: loader threads draw the plans and hand over 8-bit
 * pictures, or nothing where the device has kept the picture from an earlier epoch; the consumer's
 * thread sends a slot's bytes on and asks for the views. What a batch holds does not depend on
 * where its pictures came from: the device computes the CPU's bytes. */
#include "data/dataset_impl.h"
#include "data/loader_impl.h"
#include "image/image_impl.h"
#include "tensor/views.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static double mib(size_t bytes) {
    return (double)bytes / (1 << 20);
}

static mimic_view *view_of(const mimic_loader *l, const mimic_slot *slot, int item, int v) {
    return (mimic_view *)(void *)(slot->bytes +
                                  ((size_t)v * (size_t)slot->n + (size_t)item) * l->dev.stride);
}

/* Size of all pictures as the plans start from them, as far as it is known without reading all: of
 * a .pixels file, by pre_resize, or by eight of them. false: `why` says which differ. */
static bool one_size(mimic_loader *l) {
    mimic_device_views *d = &l->dev;
    int side = l->cfg.transform.pre_resize;
    bool known = mimic_dataset_form(l->data, &d->width, &d->height, &d->channels);
    if (side)
        d->width = d->height = side;
    if (known || side)
        return true;
    mimic_image img = {0};
    mimic_err err;
    const int probes = l->size < 8 ? (int)l->size : 8;
    for (int i = 0; i < probes; i++) {
        int64_t sample = l->size * i / probes;
        if (mimic_dataset_read(l->data, sample, &img, &err) != MIMIC_OK)
            continue; /* the loader meets it again */
        if (d->width && (img.width != d->width || img.height != d->height)) {
            snprintf(d->why, sizeof d->why, "pictures differ in size (%d x %d, %d x %d)", d->width,
                     d->height, img.width, img.height);
            d->width = d->height = 0;
            break;
        }
        d->width = img.width;
        d->height = img.height;
    }
    mimic_image_free(&img);
    if (!d->width && !d->why[0])
        snprintf(d->why, sizeof d->why, "no picture of the set could be read");
    return d->width > 0;
}

/* Takes the memory for the whole set; a tensor, so that out-of-memory reports name it. */
static mimic_status keep(mimic_loader *l) {
    mimic_device_views *d = &l->dev;
    bool must = l->cfg.device == MIMIC_DATA_KEEP;
    if (!one_size(l))
        return must ? mimic_fail(l->ctx, MIMIC_EINVAL,
                                 "loader: device = keep: %s: set pre_resize, or pack them (mimic "
                                 "data pack)",
                                 d->why)
                    : MIMIC_OK;
    d->record = (size_t)d->width * (size_t)d->height * (size_t)d->channels;
    size_t bytes = (size_t)l->size * d->record, available = mimic_device_room(l->device);
    if (bytes > (must ? available : available / 4)) {
        snprintf(d->why, sizeof d->why, "%lld pictures of %d x %d need %.1f MiB, %.1f MiB are free",
                 (long long)l->size, d->width, d->height, mib(bytes), mib(available));
        return must ? mimic_fail(l->ctx, MIMIC_ENOMEM, "loader: device = keep: %s", d->why)
                    : MIMIC_OK;
    }
    d->there = mimic_calloc(l->ctx, (size_t)l->size);
    if (!d->there)
        return MIMIC_ENOMEM;
    mimic_status s =
        mimic_tensor_make(l->device, MIMIC_U8, 2, (int64_t[]){l->size, (int64_t)d->record},
                          "pictures kept on the device", &d->kept);
    if (s == MIMIC_OK)
        mimic_scope_forget(d->kept);
    if (s == MIMIC_ENOMEM && !must) {
        snprintf(d->why, sizeof d->why, "the device gave no %.1f MiB", mib(bytes));
        s = MIMIC_OK;
    }
    return s;
}

mimic_status mimic_device_views_open(mimic_loader *l) {
    mimic_device_views *d = &l->dev;
    const mimic_transform *t = &l->cfg.transform, *t2 = l->cfg.second.size ? &l->cfg.second : t;
    if (l->cfg.device < 0 || l->cfg.device > MIMIC_DATA_KEEP)
        return mimic_fail(l->ctx, MIMIC_EINVAL, "loader: device = %d", (int)l->cfg.device);
    if (!mimic_device_augments(l->device) || l->cfg.device == MIMIC_DATA_OFF)
        return MIMIC_OK;
    d->on = true;
    d->channels = 3;
    mimic_status s = l->cfg.device == MIMIC_DATA_STREAM ? MIMIC_OK : keep(l);
    int steps = mimic_plan_most_steps(t), steps2 = mimic_plan_most_steps(t2);
    d->stride = offsetof(mimic_view, plan.step) +
                (size_t)(steps > steps2 ? steps : steps2) * sizeof(mimic_plan_step);
    d->stride = (d->stride + 15) / 16 * 16;
    size_t views = (size_t)l->cfg.views * l->picture;
    d->room = views > d->record ? views : d->record;
    d->pixels_at = (size_t)l->cfg.batch * (size_t)l->cfg.views * d->stride;
    return s;
}

void mimic_device_views_close(mimic_loader *l) {
    mimic_tensor_release(l->dev.kept);
    mimic_free(l->ctx, (void *)l->dev.there);
}

size_t mimic_device_views_bytes(const mimic_loader *l) {
    return l->dev.pixels_at + (size_t)l->cfg.batch * l->dev.room;
}

void mimic_loader_about(const mimic_loader *l, char *buf, size_t size) {
    const mimic_device_views *d = &l->dev;
    const char *colon = d->why[0] ? ": " : "";
    if (!d->on)
        snprintf(buf, size, "host");
    else if (d->kept)
        snprintf(buf, size, "device, %.1f MiB of pictures kept there", mib(mimic_loader_kept(l)));
    else
        snprintf(buf, size, "device, pictures sent with each batch%s%s", colon, d->why);
}

size_t mimic_loader_kept(const mimic_loader *l) {
    return l->dev.kept ? (size_t)l->size * l->dev.record : 0;
}

bool mimic_device_views_have(const mimic_loader *l, int64_t sample) {
    return l->dev.kept && atomic_load_explicit(&l->dev.there[sample], memory_order_acquire);
}

/* Puts the picture, or of a larger one than there is room for its resampled views, into the slot.
 */
mimic_status mimic_device_views_put(mimic_worker *w, mimic_slot *slot, int item,
                                    const mimic_image *picture, mimic_err *err) {
    const mimic_loader *l = w->loader;
    const mimic_device_views *d = &l->dev;
    size_t n = (size_t)picture->width * (size_t)picture->height;
    size_t at = d->pixels_at + (size_t)item * d->room;
    int channels = d->channels;
    if (n * (size_t)channels <= d->room) {
        if (channels == 3)
            memcpy(slot->bytes + at, picture->pixels, n * 3);
        else
            for (size_t k = 0; k < n; k++)
                slot->bytes[at + k] = picture->pixels[3 * k];
        for (int v = 0; v < l->cfg.views; v++) {
            mimic_view *view = view_of(l, slot, item, v);
            view->at = (int64_t)at;
            view->channels = channels;
        }
        return MIMIC_OK;
    }
    int size = l->cfg.transform.size;
    for (int v = 0; v < l->cfg.views; v++, at += l->picture) {
        mimic_view *view = view_of(l, slot, item, v);
        mimic_plan *p = &view->plan;
        mimic_status s = mimic_plan_place(p, size, picture, &w->scratch, err);
        if (s != MIMIC_OK)
            return s;
        memcpy(slot->bytes + at, w->scratch.a.pixels, l->picture);
        p->left = p->top = p->x = p->y = 0;
        p->w = p->h = p->out_w = p->out_h = view->width = view->height = size;
        view->at = (int64_t)at;
        view->channels = 3;
        view->source = MIMIC_VIEW_PLACED;
    }
    return MIMIC_OK;
}

mimic_status mimic_device_views_plan(const mimic_worker *w, mimic_slot *slot, int item, int v,
                                     int64_t sample, const mimic_image *picture, mimic_rng *rng,
                                     mimic_err *err) {
    const mimic_loader *l = w->loader;
    const mimic_device_views *d = &l->dev;
    const mimic_transform *t = mimic_loader_program(l, v);
    mimic_view *view = view_of(l, slot, item, v);
    mimic_plan
        plan; /* longer than its place in the slot, which has room for this program's steps */
    double mean[3], std[3];
    view->source = picture ? MIMIC_VIEW_SENT : MIMIC_VIEW_KEPT;
    view->at = (int64_t)((size_t)sample * d->record);
    view->width = picture ? picture->width : d->width;
    view->height = picture ? picture->height : d->height;
    view->channels = d->channels;
    mimic_status s = mimic_plan_draw(t, view->width, view->height, rng, &plan, err);
    if (s != MIMIC_OK)
        return s;
    memcpy(&view->plan, &plan, d->stride - offsetof(mimic_view, plan));
    mimic_plan_scales(t, mean, std, view->fill);
    for (int c = 0; c < 3; c++) {
        view->mean[c] = (float)mean[c];
        view->std[c] = (float)std[c];
    }
    return MIMIC_OK;
}

static void measure(const mimic_view *v, mimic_augment_job *job) {
    const mimic_plan *p = &v->plan;
    mimic_taps x = mimic_taps_of(p->w, p->out_w, (mimic_filter)p->filter);
    mimic_taps y = mimic_taps_of(p->h, p->out_h, (mimic_filter)p->filter);
    int across = p->w != p->out_w ? mimic_taps_most(&x) : 0;
    int down = p->h != p->out_h ? mimic_taps_most(&y) : 0;
    int most = across > down ? across : down;
    job->taps = most > job->taps ? most : job->taps;
    if (across && p->h > job->rows)
        job->rows = p->h;
}

/* Copies the pictures of a batch that came whole and are not yet there to their places. */
static mimic_status keep_pictures(mimic_loader *l, const mimic_slot *slot, const uint8_t *batch) {
    mimic_device_views *d = &l->dev;
    mimic_status s = MIMIC_OK;
    for (int i = 0; d->kept && i < slot->n && s == MIMIC_OK; i++) {
        const mimic_view *v = view_of(l, slot, i, 0);
        int64_t sample = slot->index[i];
        bool fits = v->width == d->width && v->height == d->height;
        if (v->source != MIMIC_VIEW_SENT || !fits ||
            atomic_load_explicit(&d->there[sample], memory_order_relaxed))
            continue;
        s = mimic_device_copy(l->device,
                              (uint8_t *)mimic_data(d->kept) + (size_t)sample * d->record,
                              batch + v->at, d->record);
        if (s == MIMIC_OK)
            atomic_store_explicit(&d->there[sample], 1, memory_order_release);
    }
    return s;
}

mimic_status mimic_device_views_make(mimic_loader *l, const mimic_slot *slot, mimic_tensor **out) {
    const mimic_device_views *d = &l->dev;
    int n = slot->n * l->cfg.views, size = l->cfg.transform.size;
    mimic_augment_job job = {.n = n,
                             .size = size,
                             .stride = d->stride,
                             .all = l->cfg.transform.randaugment_n > 0 ||
                                    l->cfg.second.randaugment_n > 0};
    bool sent = false;
    for (int i = 0; i < slot->n; i++)
        for (int v = 0; v < l->cfg.views; v++) {
            const mimic_view *view = view_of(l, slot, i, v);
            measure(view, &job);
            sent |= view->source != MIMIC_VIEW_KEPT;
        }
    int64_t bytes = sent ? (int64_t)(d->pixels_at + (size_t)slot->n * d->room)
                         : (int64_t)((size_t)n * d->stride);
    mimic_tensor *batch = NULL, *images = NULL;
    mimic_status s = mimic_feed(l->device, MIMIC_U8, 1, &bytes, slot->bytes, &batch);
    if (s == MIMIC_OK)
        s = mimic_tensor_make(l->device, MIMIC_F32, 4, (int64_t[]){n, 3, size, size}, "batch",
                              &images);
    if (s == MIMIC_OK) {
        job.batch = mimic_data(batch);
        job.kept = d->kept ? mimic_data(d->kept) : NULL;
        job.out = mimic_data(images);
        s = mimic_device_augment(l->device, &job);
    }
    if (s == MIMIC_OK)
        s = keep_pictures(l, slot, mimic_data(batch));
    mimic_tensor_release(batch);
    if (s == MIMIC_OK)
        *out = images;
    else
        mimic_tensor_release(images);
    return s;
}

/* The profiler's record: events in an array taken at start, so that recording needs no memory. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "autograd/profile.h"

struct mimic_profile {
    mimic_profile_event *events;
    int64_t count, capacity, dropped, origin;
    bool backward;
};

int64_t mimic_profile_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ctx->recorded owns the events; ctx->profile is the same while recording, else NULL. */
mimic_status mimic_profile_start(mimic_ctx *ctx, int64_t max_events) {
    mimic_profile_close(ctx);
    if (max_events < 1 || max_events > INT64_C(1) << 28)
        return mimic_fail(ctx, MIMIC_EINVAL, "profile: 1 to 2^28 events, not %lld",
                          (long long)max_events);
    mimic_profile *p = mimic_alloc_raw(ctx, sizeof *p);
    mimic_profile_event *events = mimic_alloc_raw(ctx, (size_t)max_events * sizeof *events);
    if (!p || !events) {
        mimic_free_raw(ctx, p);
        mimic_free_raw(ctx, events);
        return mimic_fail(ctx, MIMIC_ENOMEM, "profile: no memory for %lld events",
                          (long long)max_events);
    }
    *p = (mimic_profile){.events = events, .capacity = max_events, .origin = mimic_profile_now()};
    ctx->profile = ctx->recorded = p;
    return MIMIC_OK;
}

void mimic_profile_stop(mimic_ctx *ctx) {
    ctx->profile = NULL;
}

void mimic_profile_close(mimic_ctx *ctx) {
    if (ctx->recorded) {
        mimic_free_raw(ctx, ctx->recorded->events);
        mimic_free_raw(ctx, ctx->recorded);
    }
    ctx->profile = ctx->recorded = NULL;
}

int64_t mimic_profile_count(const mimic_ctx *ctx, int64_t *dropped) {
    const mimic_profile *p = ctx->recorded;
    if (dropped)
        *dropped = p ? p->dropped : 0;
    return p ? p->count : 0;
}

const mimic_profile_event *mimic_profile_at(const mimic_ctx *ctx, int64_t i) {
    return i >= 0 && i < mimic_profile_count(ctx, NULL) ? &ctx->recorded->events[i] : NULL;
}

void mimic_profile_phase(mimic_ctx *ctx, bool backward) {
    if (ctx->profile)
        ctx->profile->backward = backward;
}

static mimic_profile_event *add(mimic_ctx *ctx, const char *name, int64_t start, int64_t end) {
    mimic_profile *p = ctx->profile;
    if (p->count == p->capacity) {
        p->dropped++;
        return NULL;
    }
    mimic_profile_event *e = &p->events[p->count++];
    *e = (mimic_profile_event){.name = name,
                               .place = ctx->place,
                               .start = start - p->origin,
                               .ns = end - start,
                               .backward = p->backward};
    return e;
}

void mimic_profile_event_add(mimic_ctx *ctx, const char *name, int64_t start, double bytes) {
    mimic_profile_event *e = add(ctx, name, start, mimic_profile_now());
    if (e)
        e->bytes = bytes;
}

void mimic_profile_add(mimic_ctx *ctx, const char *name, double seconds) {
    int64_t now = mimic_profile_now();
    if (ctx->profile && seconds >= 0)
        add(ctx, mimic_intern_text(ctx, name), now - (int64_t)(seconds * 1e9), now);
}

static double bytes_of(const mimic_tensor *t) {
    return t ? (double)mimic_numel(t) * (double)mimic_dtype_size((mimic_dtype)t->dtype) : 0;
}

/* "f32 [64,65,128] [512,128]", cut where it is too long. */
static void write_what(const mimic_call *c, char *out, size_t size) {
    char shape[160];
    const mimic_tensor *first = c->n_in && c->in[0] ? c->in[0] : c->out[0];
    int used = snprintf(out, size, "%s", first ? mimic_dtype_name((mimic_dtype)first->dtype) : "");
    for (int i = 0; i < c->n_in && i < 2 && used > 0 && (size_t)used < size; i++)
        if (c->in[i])
            used +=
                snprintf(out + used, size - (size_t)used, " %s",
                         mimic_shape_text(c->in[i]->rank, c->in[i]->shape, shape, sizeof shape));
}

void mimic_profile_call(const mimic_call *c, int64_t start) {
    mimic_profile_event *e = add(c->ctx, c->op->name, start, mimic_profile_now());
    if (!e)
        return;
    for (int i = 0; i < c->n_in; i++)
        e->bytes += bytes_of(c->in[i]);
    for (int k = 0; k < c->n_out; k++)
        e->bytes += bytes_of(c->out[k]);
    for (int k = 0; k < c->n_save; k++)
        e->bytes += bytes_of(c->save[k]);
    e->flops = c->op->flops ? c->op->flops(c) : 0;
    write_what(c, e->what, sizeof e->what);
}

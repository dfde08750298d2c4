/* Optimisers: parameters, gradients and state in flat arenas with a segment table, so that a step
 * is one pass. The rule: a parameter's handle stays what it was; only its bytes and its gradient's
 * live in the arenas. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "autograd/optim_impl.h"
#include "autograd/profile.h"

#define SEGMENT_ALIGN 64 /* elements */

struct mimic_optim {
    mimic_ctx *ctx;
    mimic_optim_config cfg;
    void (*free)(void *user, void *p); /* the optimiser may outlive its context */
    void *user;
    int n;
    mimic_device *device; /* of all parameters */
    mimic_dtype dtype;
    mimic_tensor *w, *g, *state[2], *shadow; /* arenas; state[1] Adam only, shadow bf16 or NULL */
    int64_t total;                           /* elements */
    int64_t t;
    mimic_segment *segments;
    mimic_tensor **params, **shadows; /* shadows[i] NULL: none */
};

static size_t arena_bytes(const mimic_optim *o) {
    return (size_t)o->total * mimic_dtype_size(o->dtype);
}

static bool is_adam(const mimic_optim *o) {
    return o->cfg.kind == MIMIC_ADAM || o->cfg.kind == MIMIC_ADAMW;
}

static mimic_status check_params(mimic_ctx *ctx, const mimic_param *params, int n) {
    char name[160];
    for (int i = 0; i < n; i++) {
        const mimic_tensor *t = params[i].tensor;
        mimic_status st = mimic_tensor_check(ctx, t, "optimizer");
        if (st != MIMIC_OK)
            return st;
        mimic_tensor_describe(t, name, sizeof name);
        if (t->dtype != MIMIC_F32 && t->dtype != MIMIC_F64)
            return mimic_fail(ctx, MIMIC_EINVAL, "optimizer: parameter %d is not f32 or f64: %s",
                              i + 1, name);
        if (t->dtype != params[0].tensor->dtype)
            return mimic_fail(ctx, MIMIC_EINVAL,
                              "optimizer: parameter %d differs in dtype from the first: %s", i + 1,
                              name);
        if (t->storage->device != params[0].tensor->storage->device)
            return mimic_fail(ctx, MIMIC_EINVAL,
                              "optimizer: parameter %d is on %s, the first on %s: %s", i + 1,
                              mimic_tensor_device(t), mimic_tensor_device(params[0].tensor), name);
        if (t->node || !mimic_tensor_contiguous(t))
            return mimic_fail(ctx, MIMIC_EINVAL,
                              "optimizer: parameter %d is not a contiguous leaf: %s", i + 1, name);
        for (int j = 0; j < i; j++)
            if (params[j].tensor == t)
                return mimic_fail(ctx, MIMIC_EINVAL,
                                  "optimizer: parameters %d and %d are the same: %s", j + 1, i + 1,
                                  name);
    }
    return MIMIC_OK;
}

/* A zero-filled arena that lives outside of all scopes. */
static mimic_status arena(mimic_optim *o, mimic_dtype dtype, int64_t n, mimic_tensor **out) {
    mimic_status st = mimic_tensor_zeros(o->device, dtype, 1, &n, out);
    if (st == MIMIC_OK)
        mimic_scope_forget(*out);
    return st;
}

/* One block holds the handle and its tables. */
static mimic_optim *handle_new(mimic_ctx *ctx, int n) {
    size_t count = (size_t)n;
    size_t at = (sizeof(mimic_optim) + 63) & ~(size_t)63;
    char *block =
        mimic_calloc(ctx, at + count * (sizeof(mimic_segment) + 2 * sizeof(mimic_tensor *)));
    if (!block)
        return NULL;
    atomic_fetch_sub(&ctx->alloc_live, 1); /* handles count as the host's, not the context's */
    mimic_optim *o = (mimic_optim *)(void *)block;
    o->segments = (mimic_segment *)(void *)(block + at);
    o->params = (mimic_tensor **)(void *)(o->segments + n);
    o->shadows = o->params + n;
    o->ctx = ctx;
    o->free = ctx->cfg.free;
    o->user = ctx->cfg.user;
    o->n = n;
    return o;
}

/* Offsets of every parameter; returns the elements of the shadow arena. */
static int64_t lay_out(mimic_optim *o, const mimic_param *params) {
    int64_t shadows = 0;
    for (int i = 0; i < o->n; i++) {
        const mimic_tensor *t = params[i].tensor;
        int64_t count = mimic_numel(t),
                room = (count + SEGMENT_ALIGN - 1) / SEGMENT_ALIGN * SEGMENT_ALIGN;
        o->segments[i] = (mimic_segment){.offset = o->total,
                                         .count = count,
                                         .lr_scale = params[i].lr_scale,
                                         .weight_decay = params[i].weight_decay,
                                         .rank = t->rank,
                                         .trust = 1,
                                         .shadow = -1};
        o->total += room;
        if (o->cfg.shadow_bf16 && t->rank >= 2 && o->dtype == MIMIC_F32) {
            o->segments[i].shadow = shadows;
            shadows += room;
        }
    }
    return shadows;
}

/* A bf16 leaf over the shadow arena that shares the parameter's gradient. */
static mimic_status make_shadow(mimic_optim *o, int i, const mimic_tensor *t) {
    int64_t stride[MIMIC_MAX_RANK], step = 1;
    for (int k = t->rank - 1; k >= 0; k--) {
        stride[k] = step;
        step *= t->shape[k];
    }
    mimic_status st = mimic_tensor_view(o->ctx, o->shadow, t->rank, t->shape, stride,
                                        o->segments[i].shadow, "shadow", &o->shadows[i]);
    if (st != MIMIC_OK)
        return st;
    mimic_scope_forget(o->shadows[i]);
    o->shadows[i]->grad = t->grad;
    mimic_tensor_retain(t->grad);
    o->shadows[i]->leaf = o->shadows[i]->requires_grad = true;
    return MIMIC_OK;
}

/* Copies the bytes of parameter and gradient into the arenas and lets the handles point there. */
static mimic_status move_in(mimic_optim *o, int i) {
    mimic_tensor *t = o->params[i], *grad = t->grad;
    int64_t at = o->segments[i].offset;
    size_t size = mimic_dtype_size(o->dtype), bytes = (size_t)o->segments[i].count * size;
    const mimic_backend *b = o->device->backend;
    mimic_status st =
        b->copy(o->ctx, (char *)mimic_data(o->w) + (size_t)at * size, mimic_data(t), bytes);
    if (st == MIMIC_OK)
        st = b->copy(o->ctx, (char *)mimic_data(o->g) + (size_t)at * size, mimic_data(grad), bytes);
    if (st != MIMIC_OK)
        return st;
    mimic_tensor_repoint(t, o->w, at);
    mimic_tensor_repoint(grad, o->g, at);
    return MIMIC_OK;
}

mimic_status mimic_optim_new(mimic_ctx *ctx, const mimic_optim_config *cfg,
                             const mimic_param *params, int n, mimic_optim **out) {
    mimic_status st = check_params(ctx, params, n);
    if (st != MIMIC_OK)
        return st;
    mimic_optim *o = handle_new(ctx, n);
    if (!o)
        return MIMIC_ENOMEM;
    o->cfg = *cfg;
    o->dtype = n > 0 ? (mimic_dtype)params[0].tensor->dtype : MIMIC_F32;
    o->device = n > 0 ? params[0].tensor->storage->device : ctx->device;
    int64_t shadows = lay_out(o, params);
    st = arena(o, o->dtype, o->total, &o->w);
    if (st == MIMIC_OK)
        st = arena(o, o->dtype, o->total, &o->g);
    if (st == MIMIC_OK)
        mimic_pool_owe(o->device, arena_bytes(o));
    if (st == MIMIC_OK)
        st = arena(o, o->dtype, o->total, &o->state[0]);
    if (st == MIMIC_OK && is_adam(o))
        st = arena(o, o->dtype, o->total, &o->state[1]);
    if (st == MIMIC_OK && shadows > 0)
        st = arena(o, MIMIC_BF16, shadows, &o->shadow);
    for (int i = 0; i < n && st == MIMIC_OK; i++) {
        o->params[i] = params[i].tensor;
        mimic_tensor_retain(o->params[i]);
        st = mimic_tensor_set_requires_grad(ctx, o->params[i], true);
        if (st == MIMIC_OK && o->segments[i].shadow >= 0)
            st = make_shadow(o, i, o->params[i]);
    }
    for (int i = 0; i < n && st == MIMIC_OK; i++)
        st = move_in(o, i);     /* only a broken device fails here */
    mimic_pool_trim(o->device); /* of the blocks that the parameters came from */
    if (st == MIMIC_OK)
        st = mimic_optim_sync(o);
    if (st != MIMIC_OK)
        mimic_optim_free(o);
    else
        *out = o;
    return st;
}

void mimic_optim_free(mimic_optim *opt) {
    if (!opt)
        return;
    for (int i = 0; i < opt->n; i++) {
        mimic_tensor_release(opt->params[i]);
        mimic_tensor_release(opt->shadows[i]);
    }
    mimic_tensor_release(opt->shadow);
    mimic_tensor_release(opt->state[1]);
    mimic_tensor_release(opt->state[0]);
    mimic_tensor_release(opt->g);
    mimic_tensor_release(opt->w);
    opt->free(opt->user, opt);
}

static mimic_status sum_squares(mimic_optim *o, const mimic_tensor *t, int64_t at, int64_t n,
                                double *out) {
    const char *p = (const char *)mimic_data(t) + (size_t)at * mimic_dtype_size(o->dtype);
    return o->device->backend->sum_squares(o->ctx, o->dtype, p, n, out);
}

/* Sum of squares of grad_scale g + decay w, for the rare LARS run with weight decay. */
static mimic_status decayed_squares(const mimic_optim *o, int i, double grad_scale, double *out) {
    const mimic_segment *s = &o->segments[i];
    double *w = mimic_alloc(o->ctx, 2 * (size_t)s->count * sizeof *w), *g = w + s->count;
    if (!w)
        return MIMIC_ENOMEM;
    mimic_status st = mimic_tensor_read(o->ctx, o->params[i], MIMIC_F64, w, s->count);
    if (st == MIMIC_OK)
        st = mimic_tensor_read(o->ctx, o->params[i]->grad, MIMIC_F64, g, s->count);
    *out = 0;
    for (int64_t k = 0; k < s->count && st == MIMIC_OK; k++) {
        double v = g[k] * grad_scale + w[k] * s->weight_decay;
        *out += v * v;
    }
    mimic_free(o->ctx, w);
    return st;
}

/* LARS: trust |w| / |g| of each matrix, g with weight decay; 1 where either norm is 0 (mae
 * util/lars.py). */
static mimic_status layer_ratios(mimic_optim *o, double grad_scale) {
    for (int i = 0; i < o->n; i++) {
        mimic_segment *s = &o->segments[i];
        double ww, gg = 0;
        if (s->rank <= 1)
            continue;
        mimic_status st = sum_squares(o, o->w, s->offset, s->count, &ww);
        if (st == MIMIC_OK)
            st = sum_squares(o, o->g, s->offset, s->count, &gg);
        gg *= grad_scale * grad_scale;
        if (st == MIMIC_OK && s->weight_decay != 0)
            st = decayed_squares(o, i, grad_scale, &gg);
        if (st != MIMIC_OK)
            return st;
        s->trust = ww > 0 && gg > 0 ? o->cfg.trust * sqrt(ww / gg) : 1;
    }
    return MIMIC_OK;
}

/* Clipping and ratios where the gradients are in the host's reach. */
static mimic_status host_factors(mimic_optim *o, mimic_optim_args *a) {
    if (a->norm || a->clip > 0) {
        double squares;
        mimic_status st = sum_squares(o, o->g, 0, o->total, &squares); /* gaps are zero */
        if (st != MIMIC_OK)
            return st;
        double norm = sqrt(squares) * fabs(a->grad_scale);
        if (a->norm)
            *a->norm = norm;
        if (a->clip > 0 && norm > a->clip)
            a->grad_scale *= a->clip / (norm + 1e-6); /* as torch's clip_grad_norm_ */
    }
    return a->kind == MIMIC_LARS ? layer_ratios(o, a->grad_scale) : MIMIC_OK;
}

static mimic_status closed(const mimic_optim *o) {
    return o->w->ctx ? MIMIC_OK : MIMIC_ESTATE; /* no context is left to hold a message */
}

mimic_status mimic_optim_step(mimic_optim *opt, double lr, double grad_scale, double *grad_norm) {
    mimic_optim *o = opt;
    mimic_status st = closed(o);
    if (st != MIMIC_OK)
        return st;
    mimic_optim_args a = {.kind = o->cfg.kind,
                          .dtype = o->dtype,
                          .w = mimic_data(o->w),
                          .g = mimic_data(o->g),
                          .m = mimic_data(o->state[0]),
                          .v = o->state[1] ? mimic_data(o->state[1]) : NULL,
                          .shadow = o->shadow ? mimic_data(o->shadow) : NULL,
                          .segments = o->segments,
                          .n_segments = o->n,
                          .lr = lr,
                          .beta1 = o->cfg.beta1,
                          .beta2 = o->cfg.beta2,
                          .eps = o->cfg.eps,
                          .grad_scale = grad_scale,
                          .t = o->t + 1,
                          .clip = o->cfg.clip,
                          .trust = o->cfg.trust,
                          .norm = grad_norm};
    a.leave_g = o->device->backend->host && arena_bytes(o) >= MIMIC_HOST_LARGE;
    if (o->device->backend->host && (st = host_factors(o, &a)))
        return st;
    if (a.leave_g && o->t == 0) /* the moments' pages come now, beside all others */
        mimic_pool_chill(o->device);
    int64_t start = mimic_profiling(o->ctx) ? mimic_profile_now() : 0;
    st = o->device->backend->optim_step(o->ctx, &a);
    if (st == MIMIC_OK)
        o->t++;
    if (st == MIMIC_OK && a.leave_g)
        st = mimic_optim_zero_grad(o);
    if (start) /* w, g and each moment are read and written, a shadow is written */
        mimic_profile_event_add(
            o->ctx, "optimizer", start,
            (double)o->total *
                ((a.v ? 8.0 : 6.0) * (double)mimic_dtype_size(o->dtype) + (a.shadow ? 2.0 : 0.0)));
    return st;
}

mimic_status mimic_optim_zero_grad(mimic_optim *opt) {
    mimic_status st = closed(opt);
    if (st == MIMIC_OK && opt->total > 0)
        st = opt->device->backend->clear(opt->ctx, mimic_data(opt->g), arena_bytes(opt));
    if (st == MIMIC_OK)
        mimic_pool_owe(opt->device, arena_bytes(opt));
    return st;
}

mimic_tensor *mimic_optim_shadow(const mimic_optim *opt, int i) {
    return opt->shadows[i] ? opt->shadows[i] : opt->params[i];
}

mimic_status mimic_optim_sync(mimic_optim *opt) {
    mimic_status st = closed(opt);
    for (int i = 0; i < opt->n && st == MIMIC_OK; i++) {
        if (opt->shadows[i])
            st = mimic_tensor_copy(opt->ctx, opt->shadows[i], opt->params[i]);
    }
    return st;
}

mimic_tensor *mimic_optim_state(const mimic_optim *opt, int k) {
    return k == 0 || k == 1 ? opt->state[k] : NULL;
}

int64_t mimic_optim_count(const mimic_optim *opt) {
    return opt->t;
}

void mimic_optim_set_count(mimic_optim *opt, int64_t t) {
    opt->t = t;
}

/* Tensors: reference-counted views of reference-counted storages. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/op_impl.h"

/* --- storages --------------------------------------------------------------------------------- */

static mimic_status storage_new(mimic_device *d, const mimic_tensor *t, size_t bytes,
                                mimic_storage **out) {
    mimic_storage *s = mimic_slab_get(d->ctx, sizeof *s);
    if (!s)
        return MIMIC_ENOMEM;
    mimic_status st = mimic_device_get(d, bytes, &s->data);
    if (st) {
        mimic_slab_put(d->ctx, s, sizeof *s);
        return st;
    }
    s->refs = 1;
    s->device = d;
    s->arena = mimic_arena_entered(d);
    s->bytes = bytes;
    s->id = t->id;
    s->dtype = t->dtype;
    s->cold = false;
    s->rank = t->rank;
    memcpy(s->shape, t->shape, sizeof s->shape);
    s->op = t->op;
    s->place = t->place;
    mimic_pool_track(s);
    *out = s;
    return MIMIC_OK;
}

static void storage_release(mimic_storage *s) {
    if (--s->refs > 0)
        return;
    mimic_pool_untrack(s);
    mimic_device_put_in(s->device, s->data, s->bytes, s->arena);
    if (s->cold)
        mimic_pool_sink(s->device, s->bytes);
    mimic_slab_put(s->device->ctx, s, sizeof *s);
}

/* --- handles ---------------------------------------------------------------------------------- */

/* Of dtype, rank and geometry the caller writes what it uses; the rest stays as it was. */
static mimic_tensor *handle_new(mimic_ctx *ctx, const char *op) {
    mimic_tensor *t = mimic_slab_get(ctx, sizeof *t);
    if (!t)
        return NULL;
    t->refs = 1;
    t->requires_grad = t->leaf = false;
    t->offset = 0;
    t->storage = NULL;
    t->ctx = t->home = ctx;
    t->end = MIMIC_END_NONE;
    t->grad = NULL;
    t->node = NULL;
    t->node_out = 0;
    t->op = op;
    t->place = ctx->place;
    t->id = ++ctx->next_tensor_id;
    mimic_scope_add(ctx, t);
    return t;
}

void mimic_tensor_link(mimic_tensor *t, mimic_tensor **list) {
    t->list = list;
    t->prev = NULL;
    t->next = *list;
    if (t->next)
        t->next->prev = t;
    *list = t;
}

void mimic_tensor_unlink(mimic_tensor *t) {
    if (t->prev)
        t->prev->next = t->next;
    else
        *t->list = t->next;
    if (t->next)
        t->next->prev = t->prev;
}

void mimic_tensor_end(mimic_tensor *t, enum mimic_end end) {
    mimic_storage *s = t->storage;
    mimic_tensor *grad = t->grad;
    mimic_node *node = t->node;
    t->storage = NULL;
    t->grad = NULL;
    t->node = NULL;
    if (s)
        t->end = (uint8_t)end;
    if (s)
        storage_release(s);
    if (node)
        mimic_node_release(node);
    mimic_tensor_release(grad);
}

void mimic_tensor_retain(mimic_tensor *t) {
    t->refs++;
}

void mimic_tensor_release(mimic_tensor *t) {
    if (!t || --t->refs > 0)
        return;
    if (t->ctx) {
        mimic_tensor_end(t, MIMIC_END_FREED);
        mimic_tensor_unlink(t);
    }
    mimic_slab_put(t->home, t, sizeof *t);
}

void mimic_tensor_free(mimic_tensor *t) {
    if (t->ctx)
        mimic_tensor_end(t, MIMIC_END_FREED);
}

/* Handles that outlive the context keep their geometry and birth id only. */
void mimic_tensors_close(mimic_ctx *ctx) {
    for (mimic_tensor *t = ctx->tensors; t; t = t->next) /* no handle may vanish while we walk */
        mimic_tensor_retain(t);
    for (mimic_tensor *t = ctx->tensors; t; t = t->next)
        mimic_tensor_end(t, MIMIC_END_CONTEXT);
    for (mimic_tensor *t = ctx->tensors, *next; t; t = next) {
        next = t->next;
        t->ctx = NULL;
        t->place = NULL;
        mimic_tensor_release(t);
    }
    ctx->tensors = NULL;
}

/* --- construction ----------------------------------------------------------------------------- */

static bool overflows(int rank, const int64_t *shape, int64_t *count) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(n, shape[i], &n))
            return true;
    *count = n;
    return n > INT64_MAX / 16;
}

mimic_status mimic_tensor_make(mimic_device *d, mimic_dtype dtype, int rank, const int64_t *shape,
                               const char *op, mimic_tensor **out) {
    mimic_ctx *ctx = d->ctx;
    int64_t n;
    char text[160];
    if (rank < 0 || rank > MIMIC_MAX_RANK)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: rank %d is not in 0..%d", op, rank,
                          MIMIC_MAX_RANK);
    if ((unsigned)dtype >= MIMIC_DTYPE_COUNT)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: unknown dtype %d", op, (int)dtype);
    if (!(MIMIC_BIT(dtype) & d->backend->dtypes))
        return mimic_fail(ctx, MIMIC_EUNSUPPORTED, "%s: no %s on %s", op, mimic_dtype_name(dtype),
                          d->backend->name);
    if (overflows(rank, shape, &n))
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: %s is not a shape", op,
                          mimic_shape_text(rank, shape, text, sizeof text));
    mimic_tensor *t = handle_new(ctx, op);
    if (!t)
        return MIMIC_ENOMEM;
    t->dtype = (uint8_t)dtype;
    t->rank = (uint8_t)rank;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->stride[i] = stride;
        stride *= shape[i];
    }
    mimic_status st = storage_new(d, t, (size_t)n * mimic_dtype_size(dtype), &t->storage);
    if (st) {
        mimic_tensor_release(t);
        return st;
    }
    *out = t;
    return MIMIC_OK;
}

mimic_status mimic_tensor_view(mimic_ctx *ctx, mimic_tensor *t, int rank, const int64_t *shape,
                               const int64_t *stride, int64_t offset, const char *op,
                               mimic_tensor **out) {
    mimic_tensor *v = handle_new(ctx, op);
    if (!v)
        return MIMIC_ENOMEM;
    v->dtype = t->dtype;
    v->rank = (uint8_t)rank;
    memcpy(v->shape, shape, (size_t)rank * sizeof *shape);
    memcpy(v->stride, stride, (size_t)rank * sizeof *stride);
    v->offset = offset;
    v->storage = t->storage;
    v->storage->refs++;
    *out = v;
    return MIMIC_OK;
}

void mimic_tensor_repoint(mimic_tensor *t, mimic_tensor *arena, int64_t offset) {
    mimic_storage *old = t->storage;
    t->storage = arena->storage;
    t->offset = offset;
    t->storage->refs++;
    storage_release(old);
}

/* *out = t, or t released when filling it failed. */
static mimic_status give_or_release(mimic_tensor *t, mimic_status st, mimic_tensor **out) {
    if (st)
        mimic_tensor_release(t);
    else
        *out = t;
    return st;
}

mimic_status mimic_tensor_zeros(mimic_device *d, mimic_dtype dtype, int rank, const int64_t *shape,
                                mimic_tensor **out) {
    mimic_tensor *t;
    mimic_status st = mimic_tensor_make(d, dtype, rank, shape, "tensor", &t);
    if (!st)
        st = give_or_release(t, d->backend->clear(d->ctx, mimic_data(t), t->storage->bytes), out);
    return st;
}

mimic_status mimic_tensor_new(mimic_ctx *ctx, mimic_dtype dtype, int rank, const int64_t *shape,
                              mimic_tensor **out) {
    return mimic_tensor_zeros(ctx->device, dtype, rank, shape, out);
}

mimic_status mimic_tensor_from(mimic_ctx *ctx, mimic_dtype dtype, int rank, const int64_t *shape,
                               const void *data, mimic_tensor **out) {
    mimic_tensor *t;
    mimic_status st = mimic_tensor_make(ctx->device, dtype, rank, shape, "tensor", &t);
    if (!st)
        st = give_or_release(
            t, ctx->device->backend->upload(ctx, mimic_data(t), data, t->storage->bytes), out);
    return st;
}

mimic_status mimic_tensor_detach(mimic_ctx *ctx, mimic_tensor *t, mimic_tensor **out) {
    mimic_status st = mimic_tensor_check(ctx, t, "detach");
    return st ? st
              : mimic_tensor_view(ctx, t, t->rank, t->shape, t->stride, t->offset, "detach", out);
}

/* --- questions -------------------------------------------------------------------------------- */

int mimic_tensor_rank(const mimic_tensor *t) {
    return t->rank;
}

const int64_t *mimic_tensor_shape(const mimic_tensor *t) {
    return t->shape;
}

mimic_dtype mimic_tensor_dtype(const mimic_tensor *t) {
    return (mimic_dtype)t->dtype;
}

int64_t mimic_tensor_count(const mimic_tensor *t) {
    return mimic_numel(t);
}

bool mimic_tensor_contiguous(const mimic_tensor *t) {
    return mimic_dense(t);
}

bool mimic_tensor_alive(const mimic_tensor *t) {
    return t->storage != NULL;
}

uint32_t mimic_tensor_id(const mimic_tensor *t) {
    return t->id;
}

const char *mimic_shape_text(int rank, const int64_t *shape, char *buf, size_t size) {
    size_t used = (size_t)snprintf(buf, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, "%s%" PRId64, i ? "," : "", shape[i]);
    if (used < size)
        snprintf(buf + used, size - used, "]");
    return buf;
}

void mimic_tensor_describe(const mimic_tensor *t, char *buf, size_t size) {
    char shape[160];
    snprintf(buf, size, "tensor #%u (%s%s%s) %s %s", t->id, t->op ? t->op : "?",
             t->place ? ", " : "", t->place ? t->place : "",
             mimic_dtype_name((mimic_dtype)t->dtype),
             mimic_shape_text(t->rank, t->shape, shape, sizeof shape));
}

mimic_status mimic_tensor_check(mimic_ctx *ctx, const mimic_tensor *t, const char *what) {
    if (!t)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: a tensor is missing", what);
    if (t->storage && t->ctx == ctx)
        return MIMIC_OK;
    const char *why = "belongs to another context";
    if (t->end == MIMIC_END_SCOPE)
        why = "was freed when its scope closed; use s:keep(t)";
    else if (t->end == MIMIC_END_CONTEXT)
        why = "was freed with its context";
    else if (t->end == MIMIC_END_FREED)
        why = "was freed";
    return mimic_fail(ctx, MIMIC_ESTATE, "%s: tensor #%u (%s%s%s) %s", what, t->id,
                      t->op ? t->op : "?", t->place ? ", " : "", t->place ? t->place : "", why);
}

void *mimic_tensor_data(const mimic_tensor *t) {
    bool direct = t->storage && t->storage->device->backend->host && mimic_tensor_contiguous(t);
    return direct ? mimic_data(t) : NULL;
}

const char *mimic_tensor_device(const mimic_tensor *t) {
    return t->storage ? mimic_device_name(t->storage->device) : "none";
}

bool mimic_tensor_requires_grad(const mimic_tensor *t) {
    return t->requires_grad;
}

mimic_tensor *mimic_tensor_grad(const mimic_tensor *t) {
    return t->grad;
}

/* Tensors out of an open safetensors file. What the engine has no dtype for is converted where that
 * is exact (F16, small integers) or checked value by value (I64, BOOL); the rest is refused by
 * name. */
#include <stdio.h>
#include <string.h>

#include "store/safetensors_impl.h"
#include "tensor/tensor_impl.h"

void mimic_entry_shape(const mimic_entry *e, char *buf, size_t size) {
    size_t at = 0;
    buf[at++] = '[';
    for (int k = 0; k < e->rank && at < size; k++)
        at += (size_t)snprintf(buf + at, size - at, "%s%lld", k ? "," : "", (long long)e->shape[k]);
    if (at + 2 <= size)
        memcpy(buf + at, "]", 2);
    else
        buf[size - 1] = 0;
}

/* Exact; NaN keeps its sign and upper bits. */
static float half_to_float(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } x;
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 1023u;
    if (exponent == 31)
        x.u = sign | 0x7f800000u | mantissa << 13;
    else if (exponent > 0)
        x.u = sign | (exponent + 112) << 23 | mantissa << 13;
    else {
        x.f = (float)mantissa * 0x1p-24f;
        x.u |= sign;
    }
    return x.f;
}

/* n elements of the file's dtype at `from` to the tensor's dtype at `to`; returns the index of the
 * first value that does not fit, or n. */
static int64_t convert(const mimic_file_dtype *d, const void *from, void *to, int64_t n) {
    int32_t *whole = to;
    if (strcmp(d->name, "F16") == 0) {
        for (int64_t i = 0; i < n; i++)
            ((float *)to)[i] = half_to_float(((const uint16_t *)from)[i]);
    } else if (strcmp(d->name, "I64") == 0) {
        for (int64_t i = 0; i < n; i++) {
            int64_t v = ((const int64_t *)from)[i];
            if (v < INT32_MIN || v > INT32_MAX)
                return i;
            whole[i] = (int32_t)v;
        }
    } else if (strcmp(d->name, "I16") == 0) {
        for (int64_t i = 0; i < n; i++)
            whole[i] = ((const int16_t *)from)[i];
    } else if (strcmp(d->name, "I8") == 0) {
        for (int64_t i = 0; i < n; i++)
            whole[i] = ((const int8_t *)from)[i];
    } else { /* BOOL */
        for (int64_t i = 0; i < n; i++) {
            if (((const uint8_t *)from)[i] > 1)
                return i;
            ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
        }
    }
    return n;
}

static mimic_status no_fit(const mimic_safetensors *f, const mimic_entry *e, int64_t i) {
    return mimic_fail(f->ctx, MIMIC_EFORMAT,
                      "%s: tensor '%s': element %lld of %s does not fit in %s", f->path, e->name,
                      (long long)i, e->dtype->name, mimic_dtype_name(e->dtype->as));
}

/* Are its bytes those of a tensor? */
static bool is_same(const mimic_file_dtype *d) {
    return strcmp(d->name, "BOOL") != 0 && strcmp(d->name, "F16") != 0 &&
           (size_t)d->size == mimic_dtype_size(d->as);
}

static mimic_status load_converted(mimic_safetensors *f, const mimic_entry *e, void *to) {
    _Alignas(64) uint8_t buf[32 * 1024];
    int64_t count = (e->end - e->begin) / e->dtype->size,
            per = (int64_t)sizeof buf / e->dtype->size;
    size_t out_size = mimic_dtype_size(e->dtype->as);
    for (int64_t at = 0; at < count; at += per) {
        int64_t n = count - at < per ? count - at : per;
        mimic_status st = mimic_pread_all(f->ctx, f->path, f->fd, buf, (size_t)(n * e->dtype->size),
                                          f->data_at + e->begin + at * e->dtype->size);
        if (st)
            return st;
        int64_t fit = convert(e->dtype, buf, (char *)to + (size_t)at * out_size, n);
        if (fit < n)
            return no_fit(f, e, at + fit);
    }
    return MIMIC_OK;
}

static bool is_contiguous(const mimic_entry *e) {
    int64_t step = 1;
    for (int k = e->rank - 1; k >= 0; step *= e->shape[k--])
        if (e->shape[k] > 1 && e->stride[k] != step)
            return false;
    return true;
}

/* Gathers the elements of a strided entry from its range in the file. */
static mimic_status load_strided(mimic_safetensors *f, const mimic_entry *e, void *to, int64_t n) {
    size_t size = (size_t)e->dtype->size, bytes = (size_t)(e->end - e->begin);
    int64_t at[MIMIC_MAX_RANK] = {0}, from = 0;
    uint8_t *range = mimic_alloc(f->ctx, bytes + 1),
            *packed = mimic_alloc(f->ctx, (size_t)n * size + 1);
    mimic_status s = range && packed ? MIMIC_OK : MIMIC_ENOMEM;
    if (s == MIMIC_OK)
        s = mimic_pread_all(f->ctx, f->path, f->fd, range, bytes, f->data_at + e->begin);
    for (int64_t i = 0; s == MIMIC_OK && i < n; i++) {
        memcpy(packed + (size_t)i * size, range + (size_t)from * size, size);
        for (int k = e->rank - 1; k >= 0; k--) { /* the next index, last axis first */
            from += e->stride[k];
            if (++at[k] < e->shape[k])
                break;
            from -= e->shape[k] * e->stride[k];
            at[k] = 0;
        }
    }
    if (s == MIMIC_OK && is_same(e->dtype))
        memcpy(to, packed, (size_t)n * size);
    else if (s == MIMIC_OK) {
        int64_t fit = convert(e->dtype, packed, to, n);
        if (fit < n)
            s = no_fit(f, e, fit);
    }
    mimic_free(f->ctx, range);
    mimic_free(f->ctx, packed);
    return s;
}

mimic_status mimic_safetensors_load(mimic_safetensors *f, int i, mimic_tensor **out) {
    *out = NULL;
    if (i < 0 || i >= f->n)
        return mimic_fail(f->ctx, MIMIC_EINVAL, "%s: no tensor number %d (it has %d)", f->path, i,
                          f->n);
    const mimic_entry *e = &f->entries[i];
    if (!e->dtype->loads)
        return mimic_fail(f->ctx, MIMIC_EUNSUPPORTED, "%s: tensor '%s': dtype %s cannot be loaded",
                          f->path, e->name, e->dtype->name);
    mimic_tensor *t = NULL;
    mimic_status st =
        mimic_tensor_make(f->ctx->device, e->dtype->as, e->rank, e->shape, "load", &t);
    if (st)
        return st;
    /* A device gets the bytes by way of the host. */
    void *data = mimic_tensor_data(t), *copy = NULL;
    if (!data && !(data = copy = mimic_alloc(f->ctx, t->storage->bytes))) {
        mimic_tensor_release(t);
        return MIMIC_ENOMEM;
    }
    bool same = is_same(e->dtype);
    if (e->strided && !is_contiguous(e))
        st = load_strided(f, e, data, mimic_numel(t));
    else if (same && e->end > e->begin)
        st = mimic_pread_all(f->ctx, f->path, f->fd, data, (size_t)(e->end - e->begin),
                             f->data_at + e->begin);
    else if (!same)
        st = load_converted(f, e, data);
    if (!st && copy)
        st = mimic_tensor_write(f->ctx, t, e->dtype->as, copy, mimic_tensor_count(t));
    mimic_free(f->ctx, copy);
    if (st)
        mimic_tensor_release(t);
    else
        *out = t;
    return st;
}

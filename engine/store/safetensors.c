/* Strict reader of safetensors files. Everything about a file is checked when it is opened; a file
 * that opens describes exactly its bytes. Values are read on demand by pread, so that a file which
 * shrinks meanwhile is an error and not a bus fault. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/safetensors_impl.h"

enum { HEADER_MAX = 100 * 1000 * 1000 }; /* of the format */

static const mimic_file_dtype file_dtypes[] = {
    {"F64", 8, true, MIMIC_F64},      {"F32", 4, true, MIMIC_F32},
    {"F16", 2, true, MIMIC_F32},      {"BF16", 2, true, MIMIC_BF16},
    {"I64", 8, true, MIMIC_I32},      {"I32", 4, true, MIMIC_I32},
    {"I16", 2, true, MIMIC_I32},      {"I8", 1, true, MIMIC_I32},
    {"U8", 1, true, MIMIC_U8},        {"BOOL", 1, true, MIMIC_U8},
    {"U16", 2, false, MIMIC_I32},     {"U32", 4, false, MIMIC_I32},
    {"U64", 8, false, MIMIC_I32},     {"F8_E4M3", 1, false, MIMIC_F32},
    {"F8_E5M2", 1, false, MIMIC_F32},
};

const mimic_file_dtype *mimic_file_dtype_find(const char *name) {
    for (size_t i = 0; i < sizeof file_dtypes / sizeof *file_dtypes; i++)
        if (strcmp(file_dtypes[i].name, name) == 0)
            return &file_dtypes[i];
    return NULL;
}

static mimic_status bad_json(mimic_safetensors *f, const mimic_json *j) {
    return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: header byte %zu: %s", f->path, j->at,
                      j->error ? j->error : "not as a safetensors header has it");
}

/* Room for one more in a growing array of `size`-byte items; false without memory. */
static bool grow(mimic_ctx *ctx, void *array, int n, int *cap, size_t size) {
    if (n < *cap)
        return true;
    int want = *cap ? *cap * 2 : 64;
    void *p = mimic_realloc(ctx, *(void **)array, (size_t)*cap * size, (size_t)want * size);
    if (!p)
        return false;
    *(void **)array = p;
    *cap = want;
    return true;
}

static mimic_status parse_metadata(mimic_safetensors *f, mimic_json *j) {
    if (!mimic_json_token(j, '{'))
        return bad_json(f, j);
    while (!mimic_json_peek(j, '}')) {
        if (f->n_meta > 0 && !mimic_json_token(j, ','))
            return bad_json(f, j);
        if (!grow(f->ctx, &f->meta, f->n_meta, &f->cap_meta, sizeof *f->meta))
            return MIMIC_ENOMEM;
        mimic_meta_pair *m = &f->meta[f->n_meta];
        m->key = mimic_json_string(j);
        if (!m->key || !mimic_json_token(j, ':') || !(m->value = mimic_json_string(j)))
            return bad_json(f, j);
        f->n_meta++;
    }
    return mimic_json_token(j, '}') ? MIMIC_OK : bad_json(f, j);
}

static mimic_status parse_dtype(mimic_safetensors *f, mimic_json *j, mimic_entry *e) {
    const char *name = mimic_json_string(j);
    if (!name)
        return bad_json(f, j);
    e->dtype = mimic_file_dtype_find(name);
    if (e->dtype)
        return MIMIC_OK;
    return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: tensor '%s': unknown dtype '%s'", f->path,
                      e->name, name);
}

static mimic_status parse_shape(mimic_safetensors *f, mimic_json *j, mimic_entry *e) {
    if (!mimic_json_token(j, '['))
        return bad_json(f, j);
    while (!mimic_json_peek(j, ']')) {
        int64_t size;
        if ((e->rank > 0 && !mimic_json_token(j, ',')) || !mimic_json_whole(j, &size))
            return bad_json(f, j);
        if (e->rank == MIMIC_MAX_RANK)
            return mimic_fail(f->ctx, MIMIC_EUNSUPPORTED, "%s: tensor '%s' has more than %d axes",
                              f->path, e->name, MIMIC_MAX_RANK);
        e->shape[e->rank++] = size;
    }
    return mimic_json_token(j, ']') ? MIMIC_OK : bad_json(f, j);
}

static mimic_status parse_entry(mimic_safetensors *f, mimic_json *j, mimic_entry *e) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    unsigned seen = 0;
    if (!mimic_json_token(j, '{'))
        return bad_json(f, j);
    while (!mimic_json_peek(j, '}')) {
        const char *key;
        if ((seen && !mimic_json_token(j, ',')) || !(key = mimic_json_string(j)) ||
            !mimic_json_token(j, ':'))
            return bad_json(f, j);
        int k = 0;
        while (k < 3 && strcmp(key, fields[k]) != 0)
            k++;
        if (k == 3 || seen & 1u << k)
            return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: tensor '%s': %s '%s'", f->path, e->name,
                              k == 3 ? "unknown field" : "twice the field", key);
        seen |= 1u << k;
        mimic_status st = MIMIC_OK;
        if (k == 0)
            st = parse_dtype(f, j, e);
        else if (k == 1)
            st = parse_shape(f, j, e);
        else if (!mimic_json_token(j, '[') || !mimic_json_whole(j, &e->begin) ||
                 !mimic_json_token(j, ',') || !mimic_json_whole(j, &e->end) ||
                 !mimic_json_token(j, ']'))
            st = bad_json(f, j);
        if (st)
            return st;
    }
    for (int k = 0; k < 3; k++)
        if (!(seen & 1u << k))
            return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: tensor '%s': '%s' is missing", f->path,
                              e->name, fields[k]);
    return mimic_json_token(j, '}') ? MIMIC_OK : bad_json(f, j);
}

/* Its range must hold its shape exactly. */
static mimic_status check_size(mimic_safetensors *f, const mimic_entry *e) {
    char shape[200];
    int64_t need = e->dtype->size;
    bool over = false, zero = false;
    for (int k = 0; k < e->rank; k++) {
        zero |= e->shape[k] == 0;
        over |= __builtin_mul_overflow(need, e->shape[k], &need);
    }
    if (zero && !over)
        need = 0;
    if (!over && e->end >= e->begin && e->end - e->begin == need)
        return MIMIC_OK;
    mimic_entry_shape(e, shape, sizeof shape);
    if (e->end < e->begin)
        return mimic_fail(f->ctx, MIMIC_EFORMAT,
                          "%s: tensor '%s': data [%lld,%lld) ends before it begins", f->path,
                          e->name, (long long)e->begin, (long long)e->end);
    if (over)
        return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: tensor '%s': shape %s of %s is too large",
                          f->path, e->name, shape, e->dtype->name);
    return mimic_fail(f->ctx, MIMIC_EFORMAT,
                      "%s: tensor '%s': data [%lld,%lld) is %lld bytes, shape %s of %s needs %lld",
                      f->path, e->name, (long long)e->begin, (long long)e->end,
                      (long long)(e->end - e->begin), shape, e->dtype->name, (long long)need);
}

static int compare_name(const void *a, const void *b) {
    return strcmp((*(mimic_entry *const *)a)->name, (*(mimic_entry *const *)b)->name);
}

static int compare_range(const void *a, const void *b) {
    const mimic_entry *x = *(mimic_entry *const *)a, *y = *(mimic_entry *const *)b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int compare_key(const void *a, const void *b) {
    return strcmp(((const mimic_meta_pair *)a)->key, ((const mimic_meta_pair *)b)->key);
}

mimic_status mimic_safetensors_sort(mimic_safetensors *f) {
    mimic_entry **s = f->sorted;
    if (f->n > 1)
        qsort(s, (size_t)f->n, sizeof *s, compare_name);
    for (int i = 1; i < f->n; i++)
        if (strcmp(s[i - 1]->name, s[i]->name) == 0)
            return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: two tensors are named '%s'", f->path,
                              s[i]->name);
    if (f->n_meta > 1)
        qsort(f->meta, (size_t)f->n_meta, sizeof *f->meta, compare_key);
    for (int i = 1; i < f->n_meta; i++)
        if (strcmp(f->meta[i - 1].key, f->meta[i].key) == 0)
            return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: metadata has '%s' twice", f->path,
                              f->meta[i].key);
    return MIMIC_OK;
}

/* The ranges must cover the data without holes and overlaps; leaves `sorted` in order of names. */
static mimic_status check_cover(mimic_safetensors *f, int64_t data_size) {
    mimic_entry **s = f->sorted;
    int64_t at = 0;
    qsort(s, (size_t)f->n, sizeof *s, compare_range);
    for (int i = 0; i < f->n; at = s[i++]->end) {
        if (s[i]->begin < at)
            return mimic_fail(f->ctx, MIMIC_EFORMAT,
                              "%s: tensor '%s': data [%lld,%lld) overlaps tensor '%s' [%lld,%lld)",
                              f->path, s[i]->name, (long long)s[i]->begin, (long long)s[i]->end,
                              s[i - 1]->name, (long long)s[i - 1]->begin, (long long)s[i - 1]->end);
        if (s[i]->begin > at)
            return mimic_fail(
                f->ctx, MIMIC_EFORMAT,
                "%s: tensor '%s': data begins at %lld, but bytes [%lld,%lld) before it belong "
                "to no tensor",
                f->path, s[i]->name, (long long)s[i]->begin, (long long)at, (long long)s[i]->begin);
        if (s[i]->end > data_size)
            return mimic_fail(
                f->ctx, MIMIC_EFORMAT,
                "%s: tensor '%s': data [%lld,%lld) reaches beyond the file, which has %lld "
                "bytes of data",
                f->path, s[i]->name, (long long)s[i]->begin, (long long)s[i]->end,
                (long long)data_size);
    }
    if (at != data_size)
        return mimic_fail(f->ctx, MIMIC_EFORMAT,
                          "%s: %lld bytes after the last tensor belong to none", f->path,
                          (long long)(data_size - at));
    return mimic_safetensors_sort(f);
}

static mimic_status parse(mimic_safetensors *f, mimic_json *j) {
    bool first = true, has_meta = false;
    if (!mimic_json_token(j, '{'))
        return bad_json(f, j);
    for (; !mimic_json_peek(j, '}'); first = false) {
        const char *name;
        mimic_status st;
        if ((!first && !mimic_json_token(j, ',')) || !(name = mimic_json_string(j)) ||
            !mimic_json_token(j, ':'))
            return bad_json(f, j);
        if (strcmp(name, "__metadata__") == 0) {
            if (has_meta)
                return mimic_fail(f->ctx, MIMIC_EFORMAT, "%s: __metadata__ comes twice", f->path);
            has_meta = true;
            if ((st = parse_metadata(f, j)))
                return st;
            continue;
        }
        if (!grow(f->ctx, &f->entries, f->n, &f->cap, sizeof *f->entries))
            return MIMIC_ENOMEM;
        mimic_entry *e = &f->entries[f->n];
        *e = (mimic_entry){.name = name};
        if ((st = parse_entry(f, j, e)) || (st = check_size(f, e)))
            return st;
        f->n++;
    }
    return mimic_json_token(j, '}') && mimic_json_end(j) ? MIMIC_OK : bad_json(f, j);
}

mimic_status mimic_safetensors_open(mimic_ctx *ctx, const char *path, mimic_safetensors **out) {
    mimic_status st = MIMIC_ENOMEM;
    uint8_t raw[8];
    uint64_t length = 0;
    *out = NULL;
    mimic_safetensors *f = mimic_calloc(ctx, sizeof *f);
    if (!f)
        return st;
    f->ctx = ctx;
    f->fd = -1;
    if (!(f->path = mimic_strdup(ctx, path)) ||
        (st = mimic_open_regular(ctx, path, &f->fd, &f->bytes)))
        goto done;
    if (f->bytes < 10) {
        st = mimic_fail(ctx, MIMIC_EFORMAT, "%s: %lld bytes are too short for a safetensors file",
                        path, (long long)f->bytes);
        goto done;
    }
    if ((st = mimic_pread_all(ctx, path, f->fd, raw, sizeof raw, 0)))
        goto done;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | raw[i];
    if (length > (uint64_t)f->bytes - 8 || length > HEADER_MAX || length < 2) {
        st = mimic_fail(
            ctx, MIMIC_EFORMAT,
            length > HEADER_MAX && length <= (uint64_t)f->bytes - 8
                ? "%s: a header of %llu bytes is too large (file of %lld bytes, at most 100 MB)"
                : "%s: not a safetensors file, or cut off: header of %llu bytes in a file of %lld",
            path, (unsigned long long)length, (long long)f->bytes);
        goto done;
    }
    f->data_at = 8 + (int64_t)length;
    st = MIMIC_ENOMEM;
    if (!(f->header = mimic_alloc(ctx, length + 1)))
        goto done;
    if ((st = mimic_pread_all(ctx, path, f->fd, f->header, length, 8)))
        goto done;
    mimic_json j = {.text = f->header, .size = length};
    if ((st = parse(f, &j)))
        goto done;
    st = MIMIC_ENOMEM;
    if (!(f->sorted = mimic_alloc(ctx, (size_t)(f->n + 1) * sizeof *f->sorted)))
        goto done;
    for (int i = 0; i < f->n; i++)
        f->sorted[i] = &f->entries[i];
    st = check_cover(f, f->bytes - f->data_at);
done:
    if (st)
        mimic_safetensors_close(f);
    else
        *out = f;
    return st;
}

void mimic_safetensors_close(mimic_safetensors *f) {
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    mimic_free(f->ctx, f->path);
    mimic_free(f->ctx, f->header);
    mimic_free(f->ctx, f->entries);
    mimic_free(f->ctx, f->sorted);
    mimic_free(f->ctx, f->meta);
    mimic_free(f->ctx, f);
}

int mimic_safetensors_count(const mimic_safetensors *f) {
    return f->n;
}

const char *mimic_safetensors_name(const mimic_safetensors *f, int i) {
    return i >= 0 && i < f->n ? f->entries[i].name : NULL;
}

int mimic_safetensors_find(const mimic_safetensors *f, const char *name) {
    mimic_entry key = {.name = name}, *p = &key;
    mimic_entry **hit = bsearch(&p, f->sorted, (size_t)f->n, sizeof *f->sorted, compare_name);
    return hit ? (int)(*hit - f->entries) : -1;
}

void mimic_safetensors_info(const mimic_safetensors *f, int i, const char **dtype_name, int *rank,
                            const int64_t **shape) {
    *dtype_name = f->entries[i].dtype->name;
    *rank = f->entries[i].rank;
    *shape = f->entries[i].shape;
}

const char *mimic_safetensors_meta(const mimic_safetensors *f, const char *key) {
    mimic_meta_pair want = {.key = key}, *hit = NULL;
    if (f->n_meta > 0)
        hit = bsearch(&want, f->meta, (size_t)f->n_meta, sizeof *f->meta, compare_key);
    return hit ? hit->value : NULL;
}

int mimic_safetensors_meta_count(const mimic_safetensors *f) {
    return f->n_meta;
}

const char *mimic_safetensors_meta_key(const mimic_safetensors *f, int i) {
    return i >= 0 && i < f->n_meta ? f->meta[i].key : NULL;
}

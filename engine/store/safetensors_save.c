/* Writer of safetensors files: header padded with spaces to 8 bytes, data in descending element
 * size, so that every tensor is aligned to its elements; the header lists the tensors in the
 * caller's order. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_impl.h"

typedef struct text {
    mimic_ctx *ctx;
    char *s;
    size_t size, cap;
    bool failed; /* no memory: checked once at the end */
} text;

static void put(text *t, const char *s, size_t n) {
    if (t->size + n > t->cap && !t->failed) {
        size_t want = (t->size + n) * 2 + 1024;
        char *p = mimic_realloc(t->ctx, t->s, t->cap, want);
        t->failed = !p;
        t->s = p ? p : t->s;
        t->cap = p ? want : t->cap;
    }
    if (t->failed)
        return;
    memcpy(t->s + t->size, s, n);
    t->size += n;
}

static void putf(text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void putf(text *t, const char *fmt, ...) {
    char buf[64];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    put(t, buf, (size_t)n);
}

/* A JSON string; false if s is not valid UTF-8. */
static bool put_string(text *t, const char *s) {
    size_t left = strlen(s);
    put(t, "\"", 1);
    while (left > 0) {
        int n = mimic_utf8_length(s, left);
        if (n == 0)
            return false;
        if ((uint8_t)*s < 0x20)
            putf(t, "\\u%04x", (unsigned)(uint8_t)*s);
        else {
            if (*s == '"' || *s == '\\')
                put(t, "\\", 1);
            put(t, s, (size_t)n);
        }
        s += n;
        left -= (size_t)n;
    }
    put(t, "\"", 1);
    return true;
}

static const char *file_dtype_name(mimic_dtype dtype) {
    static const char *const names[MIMIC_DTYPE_COUNT] = {[MIMIC_F32] = "F32",
                                                         [MIMIC_BF16] = "BF16",
                                                         [MIMIC_F64] = "F64",
                                                         [MIMIC_I32] = "I32",
                                                         [MIMIC_U8] = "U8"};
    return names[dtype];
}

static int64_t tensor_bytes(const mimic_tensor *t) {
    return mimic_tensor_count(t) * (int64_t)mimic_dtype_size(mimic_tensor_dtype(t));
}

static int compare_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names (step 1) or keys (step 2) must differ. */
static mimic_status check_distinct(mimic_ctx *ctx, const char *path, const char *const *names,
                                   int n, int step, const char *what) {
    const char **sorted = mimic_alloc(ctx, (size_t)(n + 1) * sizeof *sorted);
    mimic_status st = MIMIC_OK;
    if (!sorted)
        return MIMIC_ENOMEM;
    for (int i = 0; i < n; i++)
        sorted[i] = names[i * step];
    qsort(sorted, (size_t)n, sizeof *sorted, compare_text);
    for (int i = 1; i < n && !st; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            st = mimic_fail(ctx, MIMIC_EINVAL, "%s: two %s are named '%s'", path, what, sorted[i]);
    mimic_free(ctx, sorted);
    return st;
}

static mimic_status check(mimic_ctx *ctx, const char *path, const char *const *names,
                          mimic_tensor *const *tensors, int n, const char *const *meta,
                          int n_meta) {
    for (int i = 0; i < n; i++) {
        if (!mimic_tensor_alive(tensors[i])) {
            char about[160];
            mimic_tensor_describe(tensors[i], about, sizeof about);
            return mimic_fail(ctx, MIMIC_ESTATE, "%s: cannot save '%s': %s was freed", path,
                              names[i], about);
        }
        if (strcmp(names[i], "__metadata__") == 0)
            return mimic_fail(ctx, MIMIC_EINVAL, "%s: a tensor cannot be named __metadata__", path);
    }
    mimic_status st = check_distinct(ctx, path, names, n, 1, "tensors");
    return st ? st : check_distinct(ctx, path, meta, n_meta, 2, "metadata keys");
}

/* The header's JSON, padded. begin[i] receives the place of tensor i in the data part. */
static mimic_status make_header(text *h, const char *path, const char *const *names,
                                mimic_tensor *const *tensors, int n, const char *const *meta,
                                int n_meta, int64_t *begin) {
    int64_t at = 0;
    for (size_t size = 8; size > 0; size /= 2)
        for (int i = 0; i < n; i++)
            if (mimic_dtype_size(mimic_tensor_dtype(tensors[i])) == size) {
                begin[i] = at;
                at += tensor_bytes(tensors[i]);
            }
    put(h, "{", 1);
    if (n_meta > 0) {
        put(h, "\"__metadata__\":{", 16);
        for (int i = 0; i < 2 * n_meta; i++) {
            if (i > 0)
                put(h, i % 2 ? ":" : ",", 1);
            if (!put_string(h, meta[i]))
                return mimic_fail(h->ctx, MIMIC_EINVAL, "%s: metadata '%s' is not valid UTF-8",
                                  path, meta[i & ~1]);
        }
        put(h, "}", 1);
    }
    for (int i = 0; i < n; i++) {
        if (i > 0 || n_meta > 0)
            put(h, ",", 1);
        if (!put_string(h, names[i]))
            return mimic_fail(h->ctx, MIMIC_EINVAL, "%s: the name of tensor %d is not valid UTF-8",
                              path, i);
        putf(h, ":{\"dtype\":\"%s\",\"shape\":[", file_dtype_name(mimic_tensor_dtype(tensors[i])));
        for (int k = 0; k < mimic_tensor_rank(tensors[i]); k++)
            putf(h, "%s%" PRId64, k ? "," : "", mimic_tensor_shape(tensors[i])[k]);
        putf(h, "],\"data_offsets\":[%" PRId64, begin[i]);
        putf(h, ",%" PRId64 "]}", begin[i] + tensor_bytes(tensors[i]));
    }
    put(h, "}", 1);
    while (h->size % 8 && !h->failed)
        put(h, " ", 1);
    return h->failed ? MIMIC_ENOMEM : MIMIC_OK;
}

static mimic_status write_tensor(mimic_outfile *o, mimic_tensor *t) {
    int64_t bytes = tensor_bytes(t);
    const void *data = mimic_tensor_data(t);
    if (bytes == 0)
        return MIMIC_OK;
    if (data)
        return mimic_outfile_write(o, data, (size_t)bytes);
    void *copy = mimic_alloc(o->ctx, (size_t)bytes);
    if (!copy)
        return MIMIC_ENOMEM;
    mimic_status st =
        mimic_tensor_read(o->ctx, t, mimic_tensor_dtype(t), copy, mimic_tensor_count(t));
    if (!st)
        st = mimic_outfile_write(o, copy, (size_t)bytes);
    mimic_free(o->ctx, copy);
    return st;
}

mimic_status mimic_safetensors_save(mimic_ctx *ctx, const char *path, const char *const *names,
                                    mimic_tensor *const *tensors, int n, const char *const *meta,
                                    int n_meta, uint8_t sha256[32], int64_t *bytes) {
    text h = {.ctx = ctx};
    mimic_outfile o = {.fd = -1};
    uint8_t length[8];
    int64_t *begin = NULL;
    mimic_status st = check(ctx, path, names, tensors, n, meta, n_meta);
    if (st)
        return st;
    begin = mimic_alloc(ctx, (size_t)(n + 1) * sizeof *begin);
    st = begin ? make_header(&h, path, names, tensors, n, meta, n_meta, begin) : MIMIC_ENOMEM;
    if (st)
        goto done;
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)h.size >> 8 * i);
    if ((st = mimic_outfile_open(ctx, path, &o)) ||
        (st = mimic_outfile_write(&o, length, sizeof length)) ||
        (st = mimic_outfile_write(&o, h.s, h.size)))
        goto done;
    for (size_t size = 8; size > 0; size /= 2)
        for (int i = 0; i < n; i++)
            if (mimic_dtype_size(mimic_tensor_dtype(tensors[i])) == size &&
                (st = write_tensor(&o, tensors[i])))
                goto done;
    st = mimic_outfile_commit(&o, sha256);
    if (!st && bytes)
        *bytes = o.bytes;
done:
    mimic_outfile_abort(&o);
    mimic_free(ctx, begin);
    mimic_free(ctx, h.s);
    return st;
}

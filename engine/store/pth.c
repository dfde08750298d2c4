/* PyTorch's .pth files as a list of named tensors: the zip layout (since 1.6) and the older one of
 * pickles in a row. A dict of dicts gives names joined by dots ("model.blocks.0.attn.qkv.weight"),
 * plain values on top become metadata. Tensors stay in the file until they are loaded. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/pickle.h"
#include "store/safetensors_impl.h"
#include "store/zip.h"

enum {
    MAX_DEPTH = 32,
    MAX_NAME = 1000,
    MAX_PICKLE = 1 << 30,
    FIRST_READ = 1 << 18,
    MAX_TENSORS = 1000 * 1000
};

/* The bytes of a storage. */
typedef struct storage {
    const char *key; /* not terminated */
    uint32_t n_key;
    int64_t at, elements;
} storage;

typedef struct pth {
    mimic_safetensors *f;
    mimic_pickle pickle;
    mimic_zip zip;
    bool zipped;
    char root[256];    /* zip: folder of data.pkl, with its slash */
    storage *storages; /* older layout: in order of key */
    int64_t n_storages;
    char *text; /* names and metadata, moved to f->header */
    size_t used, room;
    size_t *names; /* offset of each entry's name */
    size_t room_names;
    size_t meta[64][2];
    int n_meta;
    int64_t visited;
} pth;

static mimic_status bad(const pth *p, const char *what) {
    return mimic_fail(p->f->ctx, MIMIC_EFORMAT, "%s: %s", p->f->path, what);
}

/* Appends a terminated text; *at is its offset. */
static mimic_status keep(pth *p, const char *text, size_t n, size_t *at) {
    if (p->used + n + 1 > p->room) {
        size_t room = (p->used + n + 1) * 2;
        char *q = mimic_realloc(p->f->ctx, p->text, p->room, room);
        if (!q)
            return MIMIC_ENOMEM;
        p->text = q;
        p->room = room;
    }
    *at = p->used;
    memcpy(p->text + p->used, text, n);
    p->text[p->used + n] = 0;
    p->used += n + 1;
    return MIMIC_OK;
}

static const mimic_file_dtype *dtype_of(const mimic_py *storage_class) {
    static const char *const names[][2] = {
        {"torch.FloatStorage", "F32"},     {"torch.HalfStorage", "F16"},
        {"torch.BFloat16Storage", "BF16"}, {"torch.DoubleStorage", "F64"},
        {"torch.LongStorage", "I64"},      {"torch.IntStorage", "I32"},
        {"torch.ShortStorage", "I16"},     {"torch.CharStorage", "I8"},
        {"torch.ByteStorage", "U8"},       {"torch.BoolStorage", "BOOL"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (mimic_py_is(storage_class, names[i][0]))
            return mimic_file_dtype_find(names[i][1]);
    return NULL;
}

static int by_key(const void *a, const void *b) {
    const storage *x = a, *y = b;
    uint32_t n = x->n_key < y->n_key ? x->n_key : y->n_key;
    int c = memcmp(x->key, y->key, n);
    return c ? c : (x->n_key > y->n_key) - (x->n_key < y->n_key);
}

/* Finds the bytes of a storage: where they begin and how many elements there are. */
static mimic_status locate(pth *p, const mimic_py *id, const mimic_file_dtype *dtype,
                           const char *name, int64_t *at, int64_t *elements) {
    const mimic_py *key = id->item[2];
    int64_t promised = id->item[4]->i;
    if (!p->zipped) {
        storage want = {.key = key->text, .n_key = key->n}, *hit = NULL;
        if (p->n_storages)
            hit = bsearch(&want, p->storages, (size_t)p->n_storages, sizeof want, by_key);
        if (!hit)
            return mimic_fail(p->f->ctx, MIMIC_EFORMAT, "%s: tensor '%s': its data is missing",
                              p->f->path, name);
        *at = hit->at;
        *elements = hit->elements;
        /* A view of a storage: key, offset, size. */
        const mimic_py *view = id->n > 5 ? id->item[5] : NULL;
        if (view && view->kind == MIMIC_PY_LIST && view->n == 3) {
            const mimic_py *from = view->item[1], *size = view->item[2];
            if (from->kind != MIMIC_PY_INT || size->kind != MIMIC_PY_INT || from->i < 0 ||
                size->i < 0 || from->i > hit->elements || size->i > hit->elements - from->i)
                return bad(p, "a view beyond its storage");
            *at += from->i * dtype->size;
            *elements = size->i;
        }
        return MIMIC_OK;
    }
    char path[600];
    snprintf(path, sizeof path, "%sdata/%.*s", p->root, (int)(key->n < 200 ? key->n : 200),
             key->text);
    const mimic_zip_entry *e = mimic_zip_find(&p->zip, path);
    if (!e)
        return mimic_fail(p->f->ctx, MIMIC_EFORMAT, "%s: tensor '%s': entry '%s' is missing",
                          p->f->path, name, path);
    mimic_status s = mimic_zip_data(&p->zip, e, at);
    *elements = e->size / dtype->size;
    if (s == MIMIC_OK && (promised < 0 || promised > *elements))
        return mimic_fail(
            p->f->ctx, MIMIC_EFORMAT,
            "%s: tensor '%s': entry '%s' of %lld bytes cannot hold %lld elements of %s", p->f->path,
            name, path, (long long)e->size, (long long)promised, dtype->name);
    return s;
}

/* Shape, strides and range of a tensor. */
static mimic_status add_tensor(pth *p, const char *name, size_t n_name, const mimic_py *v) {
    mimic_safetensors *f = p->f;
    const mimic_py *id = v->item[0], *size = v->item[2], *stride = v->item[3];
    const mimic_file_dtype *dtype = dtype_of(id->item[1]);
    mimic_entry e = {.dtype = dtype, .strided = true};
    int64_t at = 0, elements = 0, offset = v->item[1]->i, last = offset, count = 1;
    if (!dtype)
        return mimic_fail(f->ctx, MIMIC_EUNSUPPORTED, "%s: tensor '%s': storage of class %.*s",
                          f->path, name, (int)id->item[1]->n, id->item[1]->text);
    if (size->n > MIMIC_MAX_RANK || size->n != stride->n)
        return mimic_fail(f->ctx, MIMIC_EUNSUPPORTED, "%s: tensor '%s' has %u axes and %u strides",
                          f->path, name, size->n, stride->n);
    mimic_status s = locate(p, id, dtype, name, &at, &elements);
    if (s != MIMIC_OK)
        return s;
    e.rank = (int)size->n;
    bool over = offset < 0 || offset > elements, empty = false;
    for (int k = 0; k < e.rank && !over; k++) {
        const mimic_py *a = size->item[k], *b = stride->item[k];
        int64_t span = 0;
        over = a->kind != MIMIC_PY_INT || b->kind != MIMIC_PY_INT || a->i < 0 || b->i < 0;
        if (over)
            break;
        e.shape[k] = a->i;
        e.stride[k] = b->i;
        empty |= a->i == 0;
        over = (a->i > 0 && __builtin_mul_overflow(a->i - 1, b->i, &span)) ||
               __builtin_add_overflow(last, span, &last) ||
               __builtin_mul_overflow(count, a->i, &count);
    }
    if (empty && !over)
        last = offset - 1;
    if (over || last >= elements || count > elements)
        return mimic_fail(f->ctx, MIMIC_EFORMAT,
                          "%s: tensor '%s': its shape and strides reach beyond its storage of %lld "
                          "elements",
                          f->path, name, (long long)elements);
    e.begin = at + offset * dtype->size;
    e.end = at + (last + 1) * dtype->size;
    if (f->n == MAX_TENSORS)
        return bad(p, "more than a million tensors");
    if (f->n == f->cap) {
        int cap = f->cap ? f->cap * 2 : 256;
        mimic_entry *all = mimic_realloc(f->ctx, f->entries, (size_t)f->cap * sizeof *all,
                                         (size_t)cap * sizeof *all);
        if (!all)
            return MIMIC_ENOMEM;
        f->entries = all;
        size_t *names = mimic_realloc(f->ctx, p->names, (size_t)f->cap * sizeof *names,
                                      (size_t)cap * sizeof *names);
        if (!names)
            return MIMIC_ENOMEM;
        p->names = names;
        f->cap = cap;
    }
    s = keep(p, name, n_name, &p->names[f->n]);
    if (s == MIMIC_OK)
        f->entries[f->n++] = e;
    return s;
}

/* A plain value as text; false for others. */
static bool plain(const mimic_py *v, char *out, size_t size) {
    switch (v->kind) {
    case MIMIC_PY_BOOL:
        snprintf(out, size, "%s", v->i ? "true" : "false");
        return true;
    case MIMIC_PY_INT:
        snprintf(out, size, "%lld", (long long)v->i);
        return true;
    case MIMIC_PY_FLOAT:
        snprintf(out, size, "%.17g", v->f);
        return true;
    case MIMIC_PY_TEXT:
        snprintf(out, size, "%.*s", (int)(v->n < size ? v->n : size - 1), v->text);
        return true;
    default:
        return false;
    }
}

static mimic_status add_meta(pth *p, const char *name, size_t n_name, const mimic_py *v) {
    char text[200];
    if (p->n_meta == (int)(sizeof p->meta / sizeof *p->meta) || !plain(v, text, sizeof text))
        return MIMIC_OK;
    mimic_status s = keep(p, name, n_name, &p->meta[p->n_meta][0]);
    if (s == MIMIC_OK)
        s = keep(p, text, strlen(text), &p->meta[p->n_meta][1]);
    p->n_meta += s == MIMIC_OK;
    return s;
}

/* All tensors under v, whose name is name[0..n). */
static mimic_status walk(pth *p, const mimic_py *v, char name[MAX_NAME], size_t n, int depth) {
    if (++p->visited > 4 * MAX_TENSORS)
        return bad(p, "more than four million values");
    if (v->kind == MIMIC_PY_TENSOR)
        return n ? add_tensor(p, name, n, v) : add_tensor(p, "tensor", 6, v);
    if (depth == 1)
        return v->kind == MIMIC_PY_DICT || v->kind == MIMIC_PY_LIST ? MIMIC_OK
                                                                    : add_meta(p, name, n, v);
    return MIMIC_OK;
}

/* The values of a dict or list, names extended by key or number. */
static mimic_status walk_all(pth *p, const mimic_py *v, char name[MAX_NAME], size_t n, int depth) {
    mimic_status s = walk(p, v, name, n, depth);
    if (s != MIMIC_OK || (v->kind != MIMIC_PY_DICT && v->kind != MIMIC_PY_LIST))
        return s;
    if (depth == MAX_DEPTH)
        return bad(p, "values nested too deep");
    uint32_t step = v->kind == MIMIC_PY_DICT ? 2 : 1;
    for (uint32_t i = 0; i + step <= v->n && s == MIMIC_OK; i += step) {
        char key[300];
        if (step == 1)
            snprintf(key, sizeof key, "%u", i);
        else if (!plain(v->item[i], key, sizeof key))
            continue; /* a key that is no name */
        size_t k = strlen(key), dot = n > 0;
        if (n + dot + k >= MAX_NAME)
            return bad(p, "a name of more than 999 bytes");
        if (dot)
            name[n] = '.';
        memcpy(name + n + dot, key, k + 1);
        s = walk_all(p, v->item[i + step - 1], name, n + dot + k, depth + 1);
        name[n] = 0;
    }
    return s;
}

/* --- the two layouts ---------------------------------------------------------------------------
 */

static mimic_status load_bytes(pth *p, int64_t at, int64_t size, uint8_t **out) {
    mimic_safetensors *f = p->f;
    if (size > MAX_PICKLE)
        return bad(p, "a pickle of more than 1 GiB");
    *out = mimic_alloc(f->ctx, (size_t)size + 1);
    return *out ? mimic_pread_all(f->ctx, f->path, f->fd, *out, (size_t)size, at) : MIMIC_ENOMEM;
}

static mimic_status open_zip(pth *p, uint8_t **bytes, mimic_py **root) {
    mimic_safetensors *f = p->f;
    const mimic_zip_entry *data = NULL;
    mimic_status s = mimic_zip_open(f->ctx, f->path, f->fd, f->bytes, &p->zip);
    if (s != MIMIC_OK)
        return s;
    p->zipped = true;
    for (int64_t i = 0; i < p->zip.n && !data; i++) {
        const char *name = p->zip.entries[i].name, *slash = strchr(name, '/');
        if (slash && strcmp(slash + 1, "data.pkl") == 0 && slash - name < 255) {
            data = &p->zip.entries[i];
            snprintf(p->root, sizeof p->root, "%.*s/", (int)(slash - name), name);
        }
    }
    if (!data)
        return bad(p, "a zip archive, but not one of torch.save (no data.pkl)");
    char name[300];
    snprintf(name, sizeof name, "%sconstants.pkl", p->root);
    if (mimic_zip_find(&p->zip, name))
        return mimic_fail(f->ctx, MIMIC_EUNSUPPORTED,
                          "%s: a TorchScript archive (it holds code): save its state_dict instead",
                          f->path);
    int64_t at = 0;
    snprintf(name, sizeof name, "%sbyteorder", p->root);
    const mimic_zip_entry *order = mimic_zip_find(&p->zip, name);
    if (order) {
        char text[8] = "";
        s = mimic_zip_data(&p->zip, order, &at);
        if (s == MIMIC_OK && order->size < 8)
            s = mimic_pread_all(f->ctx, f->path, f->fd, text, (size_t)order->size, at);
        if (s == MIMIC_OK && strcmp(text, "little") != 0)
            s = mimic_fail(f->ctx, MIMIC_EUNSUPPORTED, "%s: byte order '%.7s'", f->path, text);
    }
    if (s == MIMIC_OK)
        s = mimic_zip_data(&p->zip, data, &at);
    if (s == MIMIC_OK)
        s = load_bytes(p, at, data->size, bytes);
    if (s != MIMIC_OK)
        return s;
    p->pickle.data = *bytes;
    p->pickle.size = (size_t)data->size;
    return mimic_pickle_load(&p->pickle, root);
}

/* The element type of every storage, by key, from the tensors' ids. */
static const mimic_py *storage_of_key(const mimic_pickle *p, const mimic_py *key) {
    for (size_t i = 0; i < p->n_all; i++) {
        const mimic_py *v = p->all[i];
        if (v->kind == MIMIC_PY_STORAGE && v->item[2]->n == key->n &&
            memcmp(v->item[2]->text, key->text, key->n) == 0)
            return v;
    }
    return NULL;
}

/* Behind the pickles: for each key in turn the number of elements and the data. */
static mimic_status find_storages(pth *p, const mimic_py *keys) {
    mimic_safetensors *f = p->f;
    int64_t at = (int64_t)p->pickle.at;
    if (keys->kind != MIMIC_PY_LIST)
        return bad(p, "no list of storages behind the pickle");
    p->storages = mimic_alloc(f->ctx, ((size_t)keys->n + 1) * sizeof *p->storages);
    if (!p->storages)
        return MIMIC_ENOMEM;
    for (uint32_t i = 0; i < keys->n; i++) {
        const mimic_py *key = keys->item[i];
        const mimic_py *id = key->kind == MIMIC_PY_TEXT ? storage_of_key(&p->pickle, key) : NULL;
        const mimic_file_dtype *dtype = id ? dtype_of(id->item[1]) : NULL;
        uint8_t raw[8];
        int64_t n = 0;
        if (!dtype)
            return bad(p, "a storage of unknown type");
        if (at > f->bytes - 8)
            return bad(p, "the file is cut off");
        mimic_status s = mimic_pread_all(f->ctx, f->path, f->fd, raw, sizeof raw, at);
        if (s != MIMIC_OK)
            return s;
        for (int b = 7; b >= 0; b--)
            n = (int64_t)((uint64_t)n << 8 | raw[b]);
        at += 8;
        if (n < 0 || n > (f->bytes - at) / dtype->size)
            return mimic_fail(f->ctx, MIMIC_EFORMAT,
                              "%s: the file is cut off: storage '%.*s' has %lld elements", f->path,
                              (int)(key->n < 100 ? key->n : 100), key->text, (long long)n);
        p->storages[p->n_storages++] = (storage){key->text, key->n, at, n};
        at += n * dtype->size;
    }
    qsort(p->storages, (size_t)p->n_storages, sizeof *p->storages, by_key);
    return MIMIC_OK;
}

/* Magic number, protocol, system, object, keys: pickles in a row within the first `size` bytes. */
static mimic_status load_pickles(pth *p, int64_t size, uint8_t **bytes, mimic_py **root,
                                 mimic_py **keys) {
    static const uint8_t magic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
    mimic_py *first, *protocol, *system;
    mimic_status s = load_bytes(p, 0, size, bytes);
    if (s != MIMIC_OK)
        return s;
    p->pickle.data = *bytes;
    p->pickle.size = (size_t)size;
    p->pickle.at = 0;
    s = mimic_pickle_load(&p->pickle, &first);
    if (s == MIMIC_OK &&
        (first->kind != MIMIC_PY_LONG || first->n != 10 || memcmp(first->text, magic, 10) != 0))
        s = bad(p, "a pickle, but not one of torch.save");
    if (s == MIMIC_OK)
        s = mimic_pickle_load(&p->pickle, &protocol);
    if (s == MIMIC_OK && (protocol->kind != MIMIC_PY_INT || protocol->i != 1001))
        s = bad(p, "an unknown version of torch.save");
    if (s == MIMIC_OK)
        s = mimic_pickle_load(&p->pickle, &system);
    if (s == MIMIC_OK)
        s = mimic_pickle_load(&p->pickle, root);
    return s == MIMIC_OK ? mimic_pickle_load(&p->pickle, keys) : s;
}

/* The pickles lie at the front, but their length is not written anywhere: when they do not end
 * within what was read, more is. */
static mimic_status open_legacy(pth *p, uint8_t **bytes, mimic_py **root) {
    int64_t most = p->f->bytes < MAX_PICKLE ? p->f->bytes : MAX_PICKLE;
    mimic_py *keys = NULL;
    for (int64_t size = FIRST_READ;; size *= 8) {
        size = size < most ? size : most;
        mimic_status s = load_pickles(p, size, bytes, root, &keys);
        if (s == MIMIC_OK)
            return find_storages(p, keys);
        if (size == most || s != MIMIC_EFORMAT)
            return s;
        mimic_pickle_free(&p->pickle);
        mimic_free(p->f->ctx, *bytes);
        *bytes = NULL;
    }
}

/* Names and metadata, whose text no longer moves, into their places. */
static mimic_status settle(pth *p) {
    mimic_safetensors *f = p->f;
    f->header = p->text;
    p->text = NULL;
    for (int i = 0; i < f->n; i++)
        f->entries[i].name = f->header + p->names[i];
    f->meta = mimic_alloc(f->ctx, ((size_t)p->n_meta + 1) * sizeof *f->meta);
    f->sorted = mimic_alloc(f->ctx, ((size_t)f->n + 1) * sizeof *f->sorted);
    if (!f->meta || !f->sorted)
        return MIMIC_ENOMEM;
    for (int i = 0; i < p->n_meta; i++)
        f->meta[f->n_meta++] =
            (mimic_meta_pair){f->header + p->meta[i][0], f->header + p->meta[i][1]};
    for (int i = 0; i < f->n; i++)
        f->sorted[i] = &f->entries[i];
    return mimic_safetensors_sort(f);
}

mimic_status mimic_pth_open(mimic_ctx *ctx, const char *path, mimic_safetensors **out) {
    uint8_t head[4] = {0}, *bytes = NULL;
    char name[MAX_NAME] = "";
    mimic_py *root = NULL;
    pth p = {0};
    mimic_status s = MIMIC_ENOMEM;
    *out = NULL;
    mimic_safetensors *f = p.f = mimic_calloc(ctx, sizeof *f);
    if (!f)
        return s;
    f->ctx = ctx;
    f->fd = -1;
    if (!(f->path = mimic_strdup(ctx, path)))
        goto done;
    p.pickle = (mimic_pickle){.ctx = ctx, .path = f->path};
    s = mimic_open_regular(ctx, path, &f->fd, &f->bytes);
    if (s == MIMIC_OK && f->bytes < 16)
        s = bad(&p, "too short for a .pth file");
    if (s == MIMIC_OK)
        s = mimic_pread_all(ctx, path, f->fd, head, sizeof head, 0);
    if (s != MIMIC_OK)
        goto done;
    if (memcmp(head, "PK\3\4", 4) == 0)
        s = open_zip(&p, &bytes, &root);
    else if (head[0] == 0x80)
        s = open_legacy(&p, &bytes, &root);
    else
        s = bad(&p, "not a .pth file: neither a zip archive nor a pickle of torch.save");
    if (s == MIMIC_OK)
        s = walk_all(&p, root, name, 0, 0);
    if (s == MIMIC_OK && f->n == 0)
        s = bad(&p, "no tensors in it");
    if (s == MIMIC_OK)
        s = settle(&p);
done:
    mimic_pickle_free(&p.pickle);
    if (p.zipped)
        mimic_zip_close(&p.zip);
    mimic_free(ctx, bytes);
    mimic_free(ctx, p.storages);
    mimic_free(ctx, p.text);
    mimic_free(ctx, p.names);
    if (s != MIMIC_OK)
        mimic_safetensors_close(f);
    else
        *out = f;
    return s;
}

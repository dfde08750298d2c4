/* Bytes of .pth files written by hand: stored zip archives and pickles, for tests and fuzz seeds.
 */
#ifndef MIMIC_TEST_PTH_BYTES_H
#define MIMIC_TEST_PTH_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bytes {
    uint8_t data[1 << 20];
    size_t n;
} bytes;

static inline void add(bytes *b, const void *data, size_t n) {
    if (b->n + n > sizeof b->data)
        abort();
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static inline void add_number(bytes *b, uint64_t v, int size) {
    for (int i = 0; i < size; i++)
        add(b, &(uint8_t){(uint8_t)(v >> (8 * i))}, 1);
}

static inline void add_text(bytes *b, const char *text) {
    add(b, text, strlen(text));
}

/* --- pickle ----------------------------------------------------------------------------------- */

static inline void py_text(bytes *b, const char *text) { /* BINUNICODE */
    add_text(b, "X");
    add_number(b, strlen(text), 4);
    add_text(b, text);
}

static inline void py_class(bytes *b, const char *module, const char *name) {
    add_text(b, "c");
    add_text(b, module);
    add_text(b, "\n");
    add_text(b, name);
    add_text(b, "\n");
}

static inline void py_int(bytes *b, int32_t v) { /* BININT */
    add_text(b, "J");
    add_number(b, (uint32_t)v, 4);
}

/* A tensor [rows,cols] with the given strides of a storage; `view` adds the older layout's None. */
static inline void py_tensor(bytes *b, const char *type, const char *key, int elements, int offset,
                             int rows, int cols, int row_stride, int col_stride, int view) {
    py_class(b, "torch._utils", "_rebuild_tensor_v2");
    add_text(b, "((");
    py_text(b, "storage");
    py_class(b, "torch", type);
    py_text(b, key);
    py_text(b, "cpu");
    py_int(b, elements);
    add_text(b, view ? "NtQ" : "tQ");
    py_int(b, offset);
    add_text(b, "(");
    py_int(b, rows);
    py_int(b, cols);
    add_text(b, "t(");
    py_int(b, row_stride);
    py_int(b, col_stride);
    add_text(b, "t\x89");
    py_class(b, "collections", "OrderedDict");
    add_text(b, ")RtR");
}

/* {"model": OrderedDict(a = f32 [2,3], t = the same transposed), "epoch": 7} */
static inline void py_checkpoint(bytes *b, int view) {
    add_text(b, "\x80\x02}q\x01(");
    py_text(b, "model");
    py_class(b, "collections", "OrderedDict");
    add_text(b, ")R(");
    py_text(b, "a");
    py_tensor(b, "FloatStorage", "0", 6, 0, 2, 3, 3, 1, view);
    py_text(b, "t");
    py_tensor(b, "FloatStorage", "0", 6, 0, 3, 2, 1, 3, view);
    add_text(b, "u");
    py_text(b, "epoch");
    py_int(b, 7);
    add_text(b, "u.");
}

/* --- zip -------------------------------------------------------------------------------------- */

typedef struct zip {
    bytes file, directory;
    int n;
} zip;

static inline void zip_add(zip *z, const char *name, const void *data, size_t n, int method) {
    size_t at = z->file.n;
    for (int central = 0; central < 2; central++) {
        bytes *b = central ? &z->directory : &z->file;
        add_number(b, central ? 0x02014b50 : 0x04034b50, 4);
        if (central)
            add_number(b, 20, 2);
        add_number(b, 20, 2);
        add_number(b, 0, 2);
        add_number(b, (uint64_t)method, 2);
        add_number(b, 0, 8); /* time, date, CRC (not looked at) */
        add_number(b, n, 4);
        add_number(b, n, 4);
        add_number(b, strlen(name), 2);
        add_number(b, 0, 2);
        if (central) {
            add_number(b, 0, 8); /* comment, disk, attributes */
            add_number(b, 0, 2);
            add_number(b, at, 4);
        }
        add_text(b, name);
        if (!central)
            add(b, data, n);
    }
    z->n++;
}

static inline void zip_end(zip *z) {
    size_t at = z->file.n, size = z->directory.n;
    add(&z->file, z->directory.data, size);
    add_number(&z->file, 0x06054b50, 4);
    add_number(&z->file, 0, 4);
    add_number(&z->file, (uint64_t)z->n, 2);
    add_number(&z->file, (uint64_t)z->n, 2);
    add_number(&z->file, size, 4);
    add_number(&z->file, at, 4);
    add_number(&z->file, 0, 2);
}

static const float pth_values[6] = {0, 1, 2, 3, 4, 5};

/* An archive of torch.save around a pickle. */
static inline void pth_zip(zip *z, const bytes *pickle) {
    memset(z, 0, sizeof *z);
    zip_add(z, "archive/data.pkl", pickle->data, pickle->n, 0);
    zip_add(z, "archive/byteorder", "little", 6, 0);
    zip_add(z, "archive/data/0", pth_values, sizeof pth_values, 0);
    zip_add(z, "archive/version", "3\n", 2, 0);
    zip_end(z);
}

/* The older layout. */
static inline void pth_legacy(bytes *b, const bytes *pickle) {
    b->n = 0;
    add(b, "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.", 25);
    add(b, pickle->data, pickle->n);
    add_text(b, "\x80\x02]");
    py_text(b, "0");
    add_text(b, "a.");
    add_number(b, 6, 8);
    add(b, pth_values, sizeof pth_values);
}

#endif

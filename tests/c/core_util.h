/* What the C tests of the engine share: a counting host allocator, contexts, tensors from literals,
 * operators by name. */
#ifndef CORE_UTIL_H
#define CORE_UTIL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mimic.h"

/* Host memory that counts, and that fails from the n-th allocation on, or at that one only (0 =
 * never). */
typedef struct host {
    long count, live, fail_from, fail_at;
} host;

static inline void *host_alloc(void *user, size_t bytes) {
    host *h = user;
    long n = __atomic_add_fetch(&h->count, 1, __ATOMIC_SEQ_CST);
    if ((h->fail_from && n >= h->fail_from) || n == h->fail_at)
        return NULL;
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (p)
        __atomic_add_fetch(&h->live, 1, __ATOMIC_SEQ_CST);
    return p;
}

static inline void host_free(void *user, void *p) {
    if (p)
        __atomic_sub_fetch(&((host *)user)->live, 1, __ATOMIC_SEQ_CST);
    free(p);
}

static inline mimic_status host_open(host *h, int threads, mimic_ctx **out) {
    mimic_config cfg = {.alloc = host_alloc, .free = host_free, .user = h, .threads = threads};
    return mimic_open(&cfg, out);
}

static inline mimic_ctx *open_ctx(void) {
    mimic_ctx *ctx = NULL;
    mimic_config cfg = {.threads = 2};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    return ctx;
}

/* Fails the test with the engine's own message. */
static inline void ok(mimic_ctx *ctx, mimic_status status) {
    if (status != MIMIC_OK)
        fail_msg("%s: %s", mimic_status_name(status), mimic_message(ctx));
}

static inline void assert_message(mimic_ctx *ctx, const char *part) {
    if (!strstr(mimic_message(ctx), part))
        fail_msg("\"%s\" is not in the message \"%s\"", part, mimic_message(ctx));
}

/* An f32 tensor of `rows` x `cols` (a vector when rows is 0) counting up: start, start+1, ... */
static inline mimic_tensor *ramp(mimic_ctx *ctx, int64_t rows, int64_t cols, float start) {
    int64_t shape[2] = {rows, cols}, n = (rows ? rows : 1) * cols;
    float *data = malloc((size_t)n * sizeof *data);
    assert_non_null(data);
    for (int64_t i = 0; i < n; i++)
        data[i] = start + (float)i;
    mimic_tensor *t = NULL;
    ok(ctx, mimic_tensor_from(ctx, MIMIC_F32, rows ? 2 : 1, rows ? shape : shape + 1, data, &t));
    free(data);
    return t;
}

static inline mimic_tensor *leaf(mimic_ctx *ctx, int64_t rows, int64_t cols, float start) {
    mimic_tensor *t = ramp(ctx, rows, cols, start);
    ok(ctx, mimic_tensor_set_requires_grad(ctx, t, true));
    return t;
}

static inline mimic_status try_op(mimic_ctx *ctx, const char *name, mimic_tensor *a,
                                  mimic_tensor *b, const mimic_attrs *attrs, mimic_tensor **out) {
    mimic_tensor *in[2] = {a, b};
    const mimic_op *op = mimic_op_find(name);
    assert_non_null(op);
    *out = NULL;
    return mimic_op_apply(ctx, op, in, b ? 2 : 1, attrs, out);
}

static inline mimic_tensor *op2(mimic_ctx *ctx, const char *name, mimic_tensor *a,
                                mimic_tensor *b) {
    mimic_tensor *out;
    ok(ctx, try_op(ctx, name, a, b, NULL, &out));
    return out;
}

/* Position of an attribute in the record of operator `name`. */
static inline int attr_at(const char *name, const char *attr) {
    const mimic_attr *a = mimic_op_attrs(mimic_op_find(name));
    for (int i = 0; i < MIMIC_MAX_ATTR && a[i].kind != MIMIC_ATTR_END; i++)
        if (strcmp(a[i].name, attr) == 0)
            return i;
    fail_msg("%s has no attribute %s", name, attr);
    return -1;
}

static inline double item(mimic_ctx *ctx, const mimic_tensor *t, int64_t i) {
    double data[256];
    int64_t n = mimic_tensor_count(t);
    assert_true(i < n && n <= 256);
    ok(ctx, mimic_tensor_read(ctx, t, MIMIC_F64, data, n));
    return data[i];
}

/* Bytes in use by tensors. */
static inline size_t live_bytes(mimic_ctx *ctx) {
    mimic_memory m;
    mimic_memory_stats(ctx, &m);
    return m.live;
}

/* sum(x), releasing x */
static inline mimic_tensor *sum_of(mimic_ctx *ctx, mimic_tensor *x) {
    mimic_tensor *s = op2(ctx, "sum", x, NULL);
    mimic_tensor_release(x);
    return s;
}

static inline void assert_grad(mimic_ctx *ctx, const mimic_tensor *t, const double *expected) {
    assert_non_null(mimic_tensor_grad(t));
    for (int64_t i = 0; i < mimic_tensor_count(t); i++)
        assert_true(fabs(item(ctx, mimic_tensor_grad(t), i) - expected[i]) < 1e-6);
}

#endif

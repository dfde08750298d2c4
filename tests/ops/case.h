/* The test cases of the operator table: reads a record's `cases` text (grammar in op_impl.h), makes
 * inputs of reproducible numbers and runs an operator forward and backward. Shared by the programs
 * of this folder. */
#ifndef TEST_OPS_CASE_H
#define TEST_OPS_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/op_impl.h"

#define UNUSED __attribute__((unused))
#define MAX_CASES 24

enum fill {
    FILL_RANDN,
    FILL_UNIFORM,
    FILL_POSITIVE,
    FILL_INDEX,
    FILL_PERM,
    FILL_BOOL,
    FILL_NUMBER
};

typedef struct input_spec {
    bool given;
    mimic_dtype dtype;
    int rank;
    int64_t shape[MIMIC_MAX_RANK];
    enum fill fill;
    double value; /* number, or N of index(N) */
} input_spec;

typedef struct op_case {
    const mimic_op *op;
    char text[256];
    int n_in;
    input_spec in[MIMIC_MAX_IN];
    mimic_attrs attrs;
} op_case;

/* What a run gave. Values are doubles; bits are the bytes themselves. */
typedef struct run_result {
    int n_out;
    int64_t count[MIMIC_MAX_OUT];
    mimic_dtype dtype[MIMIC_MAX_OUT];
    double *out[MIMIC_MAX_OUT];
    double *grad[MIMIC_MAX_IN]; /* NULL without gradient */
    int64_t grad_count[MIMIC_MAX_IN];
    double loss;
} run_result;

static UNUSED int64_t spec_count(const input_spec *s) {
    int64_t n = 1;
    for (int i = 0; i < s->rank; i++)
        n *= s->shape[i];
    return n;
}

static UNUSED bool is_float(mimic_dtype d) {
    return (MIMIC_BIT(d) & MIMIC_FLOATS) != 0;
}

/* --- reading
 * ------------------------------------------------------------------------------------------- */

static UNUSED void read_input(op_case *c, const char *token, const char *bracket) {
    input_spec *s = &c->in[c->n_in];
    char name[32];
    const char *p = bracket + 1;
    memset(s, 0, sizeof *s);
    s->given = true;
    mimic_dtype dtype = MIMIC_F32;
    while (*p && *p != ']') {
        char *end;
        s->shape[s->rank++] = strtoll(p, &end, 10);
        assert_true(end > p && s->rank <= MIMIC_MAX_RANK);
        p = *end == ',' ? end + 1 : end;
    }
    assert_int_equal(*p, ']');
    p++;
    if (*p == ':') {
        size_t n = strcspn(++p, "=");
        assert_true(n < sizeof name);
        memcpy(name, p, n);
        name[n] = 0;
        if (!mimic_dtype_parse(name, &dtype))
            fail_msg("%s: no dtype in %s", c->op->name, token);
        p += n;
    }
    s->dtype = dtype;
    s->fill = is_float(dtype) ? FILL_RANDN : dtype == MIMIC_U8 ? FILL_BOOL : FILL_NUMBER;
    if (*p == '=') {
        p++;
        if (strcmp(p, "randn") == 0)
            s->fill = FILL_RANDN;
        else if (strcmp(p, "uniform") == 0)
            s->fill = FILL_UNIFORM;
        else if (strcmp(p, "positive") == 0)
            s->fill = FILL_POSITIVE;
        else if (strcmp(p, "perm") == 0)
            s->fill = FILL_PERM;
        else if (strcmp(p, "bool") == 0)
            s->fill = FILL_BOOL;
        else if (sscanf(p, "index(%lf)", &s->value) == 1)
            s->fill = FILL_INDEX;
        else if (sscanf(p, "%lf", &s->value) == 1)
            s->fill = FILL_NUMBER;
        else
            fail_msg("%s: no fill in %s", c->op->name, token);
    }
    assert_true(c->n_in < c->op->n_in);
    c->n_in++;
}

static UNUSED int64_t read_word(const mimic_attr *a, const char *text) {
    char *end;
    long long v = strtoll(text, &end, 10);
    if (*end == 0 && end > text)
        return v;
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
        return text[0] == 't';
    int k = 0;
    for (const char *p = a->choices ? a->choices : ""; *p; k++) {
        size_t n = strcspn(p, "|");
        if (strlen(text) == n && strncmp(p, text, n) == 0)
            return k;
        p += n + (p[n] == '|');
    }
    fail_msg("attribute %s cannot be %s", a->name, text);
    return 0;
}

static UNUSED void read_attr(op_case *c, const char *token) {
    const char *value = strchr(token, '=');
    if (!value)
        fail_msg("%s: what is '%s'?", c->op->name, token);
    for (int i = 0; i < MIMIC_MAX_ATTR && c->op->attrs[i].kind != MIMIC_ATTR_END; i++) {
        const mimic_attr *a = &c->op->attrs[i];
        if (strlen(a->name) != (size_t)(value - token) ||
            strncmp(a->name, token, (size_t)(value - token)) != 0)
            continue;
        value++;
        if (a->kind == MIMIC_ATTR_INTS || a->kind == MIMIC_ATTR_AXES) {
            while (*value) {
                char *end;
                c->attrs.list[c->attrs.list_n++] = strtoll(value, &end, 10);
                value = *end == ',' ? end + 1 : end;
            }
        } else if (a->kind == MIMIC_ATTR_F64) {
            c->attrs.v[i].f = atof(value);
        } else {
            c->attrs.v[i].i = read_word(a, value);
        }
        return;
    }
    fail_msg("%s: no attribute for '%s'", c->op->name, token);
}

/* The cases of text (NULL: of the record); returns their number. */
static UNUSED int read_cases(const mimic_op *op, const char *text, op_case *out) {
    char copy[4096], *rest = copy, *one;
    int n = 0;
    if (!text)
        text = op->cases;
    assert_true(strlen(text) < sizeof copy);
    strcpy(copy, text);
    while ((one = strsep(&rest, ";"))) {
        op_case *c = &out[n++];
        char *token;
        assert_true(n <= MAX_CASES);
        memset(c, 0, sizeof *c);
        c->op = op;
        snprintf(c->text, sizeof c->text, "%s %s", op->name, one + strspn(one, " "));
        mimic_op_defaults(op, &c->attrs);
        while ((token = strsep(&one, " "))) {
            char *bracket = strchr(token, '[');
            if (!*token)
                continue;
            if (strcmp(token, "-") == 0)
                c->in[c->n_in++].given = false;
            else if (bracket)
                read_input(c, token, bracket);
            else
                read_attr(c, token);
        }
    }
    return n;
}

/* --- inputs
 * -------------------------------------------------------------------------------------------- */

/* Numbers of input i; floats are rounded to bf16 unless they are made for f64, so that all dtypes
 * see equal values. */
static UNUSED double *make_values(const op_case *c, int i) {
    const input_spec *s = &c->in[i];
    int64_t n = spec_count(s);
    double *v = malloc(sizeof *v * (size_t)(n + 1));
    mimic_rng rng;
    mimic_rng_init(&rng, 77, (uint32_t)i, 5);
    for (int64_t k = 0; k < n; k++) {
        double x = mimic_rng_normal(&rng);
        double u = mimic_rng_uniform(&rng);
        v[k] = s->fill == FILL_RANDN      ? x
               : s->fill == FILL_UNIFORM  ? 0.1 + u
               : s->fill == FILL_POSITIVE ? fabs(x) + 0.01
               : s->fill == FILL_INDEX    ? floor(u * s->value)
               : s->fill == FILL_BOOL     ? (double)(u < 0.5)
                                          : s->value;
        if (is_float(s->dtype) && s->dtype != MIMIC_F64)
            v[k] = mimic_bf16_to_f32(mimic_f32_to_bf16((float)v[k]));
    }
    if (s->fill == FILL_PERM && s->rank > 0 && n > 0) {
        int32_t len = (int32_t)s->shape[s->rank - 1], *p = malloc(sizeof *p * (size_t)len);
        uint64_t *scratch = malloc(sizeof *scratch * (size_t)len);
        for (int64_t r = 0; r < n; r += len) {
            mimic_rng_shuffle(&rng, p, scratch, len);
            for (int32_t k = 0; k < len; k++)
                v[r + k] = p[k];
        }
        free(p);
        free(scratch);
    }
    return v;
}

static UNUSED mimic_tensor *make_tensor(mimic_ctx *ctx, const input_spec *s, const double *values) {
    mimic_tensor *t = NULL;
    mimic_status st = mimic_tensor_new(ctx, s->dtype, s->rank, s->shape, &t);
    if (st == MIMIC_OK)
        st = mimic_tensor_write(ctx, t, MIMIC_F64, values, spec_count(s));
    if (st != MIMIC_OK) {
        mimic_tensor_release(t);
        return NULL;
    }
    return t;
}

/* --- running
 * ------------------------------------------------------------------------------------------- */

static UNUSED bool differentiable(const op_case *c, int i) {
    return c->in[i].given && is_float(c->in[i].dtype) && !(c->op->flags & MIMIC_OP_NO_GRAD) &&
           !(c->op->no_grad_in >> i & 1);
}

/* sum over the outputs of mask of weights * output, in the outputs' dtype (at least f32). */
static UNUSED mimic_status project(mimic_ctx *ctx, mimic_tensor *const *out, int n_out,
                                   unsigned mask, mimic_tensor **loss) {
    mimic_status st = MIMIC_OK;
    *loss = NULL;
    for (int k = 0; k < n_out && st == MIMIC_OK; k++) {
        mimic_tensor *wide = NULL, *w = NULL, *p = NULL, *s = NULL, *sum = NULL;
        mimic_dtype d = mimic_tensor_dtype(out[k]);
        mimic_attrs attrs;
        if (!(mask >> k & 1) || !is_float(d))
            continue;
        const int at = MIMIC_MAX_IN - 1; /* other numbers than the first inputs have */
        op_case c = {.n_in = 0};
        c.in[at].rank = mimic_tensor_rank(out[k]);
        memcpy(c.in[at].shape, mimic_tensor_shape(out[k]), sizeof(int64_t) * (size_t)c.in[at].rank);
        double *values = make_values(&c, at);
        c.in[at].dtype = mimic_accum_dtype(d);
        mimic_op_defaults(&mimic_op_cast, &attrs);
        attrs.v[0].i = c.in[at].dtype;
        st = mimic_op_apply(ctx, &mimic_op_cast, &out[k], 1, &attrs, &wide);
        if (st == MIMIC_OK && !(w = make_tensor(ctx, &c.in[at], values)))
            st = mimic_last_status(ctx);
        if (st == MIMIC_OK)
            st = mimic_op_apply(ctx, &mimic_op_mul, (mimic_tensor *[]){wide, w}, 2, NULL, &p);
        if (st == MIMIC_OK)
            st = mimic_op_apply(ctx, &mimic_op_sum_to, &p, 1, NULL, &s);
        if (st == MIMIC_OK && *loss) {
            mimic_op_defaults(&mimic_op_cast, &attrs);
            attrs.v[0].i = mimic_tensor_dtype(*loss);
            mimic_tensor *same = NULL;
            st = mimic_op_apply(ctx, &mimic_op_cast, &s, 1, &attrs, &same);
            if (st == MIMIC_OK)
                st = mimic_op_apply(ctx, &mimic_op_add, (mimic_tensor *[]){*loss, same}, 2, NULL,
                                    &sum);
            mimic_tensor_release(same);
            if (st == MIMIC_OK) {
                mimic_tensor_release(*loss);
                *loss = sum;
            }
        } else if (st == MIMIC_OK) {
            mimic_tensor_retain(s);
            *loss = s;
        }
        free(values);
        mimic_tensor_release(wide);
        mimic_tensor_release(w);
        mimic_tensor_release(p);
        mimic_tensor_release(s);
    }
    if (st != MIMIC_OK) {
        mimic_tensor_release(*loss);
        *loss = NULL;
    }
    return st;
}

static UNUSED double *read_values(mimic_ctx *ctx, const mimic_tensor *t) {
    int64_t n = mimic_tensor_count(t);
    double *v = malloc(sizeof *v * (size_t)(n + 1));
    assert_int_equal(mimic_tensor_read(ctx, t, MIMIC_F64, v, n), MIMIC_OK);
    return v;
}

/* Applies the operator to `in` and, when `loss_mask` names an output, runs backward from a random
 * projection of the outputs. `leaf[i]` gets the gradient (in[i] itself, or what in[i] is a view
 * of). r may be NULL. */
static UNUSED mimic_status run_inputs(mimic_ctx *ctx, const op_case *c, mimic_tensor *const *in,
                                      mimic_tensor *const *leaf, unsigned loss_mask,
                                      run_result *r) {
    mimic_tensor *out[MIMIC_MAX_OUT] = {NULL}, *loss = NULL;
    mimic_set_step(ctx, 3); /* the same random numbers in every run */
    mimic_status st = mimic_op_apply(ctx, c->op, in, c->n_in, &c->attrs, out);
    if (st == MIMIC_OK && r) {
        memset(r, 0, sizeof *r);
        r->n_out = c->op->n_out;
        for (int k = 0; k < r->n_out; k++) {
            r->count[k] = mimic_tensor_count(out[k]);
            r->dtype[k] = mimic_tensor_dtype(out[k]);
            r->out[k] = read_values(ctx, out[k]);
        }
    }
    if (st == MIMIC_OK && loss_mask && !(c->op->flags & MIMIC_OP_NO_GRAD)) {
        st = project(ctx, out, c->op->n_out, loss_mask, &loss);
        if (st == MIMIC_OK && loss && mimic_tensor_requires_grad(loss))
            st = mimic_backward(ctx, loss);
        if (st == MIMIC_OK && loss && r) {
            double *v = read_values(ctx, loss);
            r->loss = v[0];
            free(v);
        }
        for (int i = 0; st == MIMIC_OK && r && i < c->n_in; i++) {
            mimic_tensor *g = leaf[i] ? mimic_tensor_grad(leaf[i]) : NULL;
            if (!g)
                continue;
            r->grad_count[i] = mimic_tensor_count(g);
            r->grad[i] = read_values(ctx, g);
        }
    }
    mimic_tensor_release(loss);
    for (int k = 0; k < c->op->n_out; k++)
        mimic_tensor_release(out[k]);
    return st;
}

/* Makes the inputs of the case (all that can, requiring gradients), runs, frees. */
static UNUSED mimic_status run_case(mimic_ctx *ctx, const op_case *c, double *const *values,
                                    unsigned loss_mask, run_result *r) {
    mimic_tensor *in[MIMIC_MAX_IN] = {NULL};
    mimic_scope *scope = NULL;
    mimic_status st = mimic_scope_open(ctx, &scope);
    for (int i = 0; i < c->n_in && st == MIMIC_OK; i++) {
        if (!c->in[i].given)
            continue;
        double *v = values ? values[i] : make_values(c, i);
        if (!(in[i] = make_tensor(ctx, &c->in[i], v)))
            st = mimic_last_status(ctx);
        else if (loss_mask && differentiable(c, i))
            st = mimic_tensor_set_requires_grad(ctx, in[i], true);
        if (!values)
            free(v);
    }
    if (st == MIMIC_OK)
        st = run_inputs(ctx, c, in, in, loss_mask, r);
    for (int i = 0; i < c->n_in; i++)
        mimic_tensor_release(in[i]);
    if (scope) {
        mimic_scope_close(scope);
        mimic_scope_release(scope);
    }
    return st;
}

static UNUSED void free_result(run_result *r) {
    for (int k = 0; k < MIMIC_MAX_OUT; k++)
        free(r->out[k]);
    for (int i = 0; i < MIMIC_MAX_IN; i++)
        free(r->grad[i]);
    memset(r, 0, sizeof *r);
}

static UNUSED void expect_equal_bits(const op_case *c, const char *what, const run_result *a,
                                     const run_result *b) {
    for (int k = 0; k < a->n_out; k++)
        if (a->count[k] != b->count[k] ||
            memcmp(a->out[k], b->out[k], sizeof(double) * (size_t)a->count[k]) != 0)
            fail_msg("%s: %s: output %d differs", c->text, what, k + 1);
    for (int i = 0; i < c->n_in; i++)
        if (a->grad[i] &&
            memcmp(a->grad[i], b->grad[i], sizeof(double) * (size_t)a->grad_count[i]) != 0)
            fail_msg("%s: %s: gradient %d differs", c->text, what, i + 1);
}

static UNUSED mimic_ctx *open_ctx(int threads) {
    mimic_ctx *ctx = NULL;
    mimic_config cfg = {.threads = threads, .seed = 11, .device = "cpu"};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    return ctx;
}

#endif

/* Helpers for shape rules and gradients. Messages carry the operator's name and every operand. */
#include "ops/shape_util.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *mimic_input_name(const mimic_op *op, int i, char *buf, size_t size) {
    const char *s = op->inputs ? op->inputs : "";
    for (int k = 0; *s; k++) {
        size_t n = strcspn(s, " ");
        if (k == i) {
            size_t m = n > 0 && s[n - 1] == '?' ? n - 1 : n;
            snprintf(buf, size, "%.*s", (int)m, s);
            return buf;
        }
        s += n + (s[n] == ' ');
    }
    snprintf(buf, size, "input %d", i + 1);
    return buf;
}

mimic_status mimic_shape_fail(const mimic_call *c, const char *fmt, ...) {
    char text[512], operands[512], name[32], shape[96];
    size_t n = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    operands[0] = 0;
    for (int i = 0; i < c->n_in && n < sizeof operands - 1; i++) {
        const mimic_tensor *t = c->in[i];
        if (!t)
            continue;
        mimic_shape_text(t->rank, t->shape, shape, sizeof shape);
        int w = snprintf(operands + n, sizeof operands - n, "%s%s %s%s%s", n ? ", " : ": ",
                         mimic_input_name(c->op, i, name, sizeof name), shape,
                         t->dtype == MIMIC_F32 ? "" : ":",
                         t->dtype == MIMIC_F32 ? "" : mimic_dtype_name((mimic_dtype)t->dtype));
        n += w > 0 ? (size_t)w : 0;
    }
    return mimic_fail(c->ctx, MIMIC_EINVAL, "%s: %s%s", c->op->name, text, operands);
}

void mimic_out_set(mimic_call *c, int k, mimic_dtype dtype, int rank, const int64_t *shape) {
    mimic_shape_out *o = &c->out_shape[k];
    o->dtype = dtype;
    o->rank = rank;
    for (int i = 0; i < rank; i++)
        o->shape[i] = shape[i];
}

void mimic_out_like(mimic_call *c, int k, const mimic_tensor *t, mimic_dtype dtype) {
    mimic_out_set(c, k, dtype, t->rank, t->shape);
}

void mimic_save_set(mimic_call *c, int k, mimic_dtype dtype, int rank, const int64_t *shape) {
    mimic_shape_out *o = &c->save_shape[k];
    o->dtype = dtype;
    o->rank = rank;
    for (int i = 0; i < rank; i++)
        o->shape[i] = shape[i];
}

mimic_status mimic_axis(const mimic_call *c, int64_t axis, int rank, int *out) {
    if (axis < -rank || axis >= rank)
        return mimic_shape_fail(c, "axis %lld does not exist, there are %d",
                                (long long)(axis < 0 ? axis : axis + 1), rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return MIMIC_OK;
}

bool mimic_same_shape(const mimic_tensor *a, const mimic_tensor *b) {
    return a->rank == b->rank &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]) == 0;
}

mimic_status mimic_want_rank(const mimic_call *c, int i, int lo, int hi) {
    const mimic_tensor *t = c->in[i];
    char name[32];
    if (!t || (t->rank >= lo && t->rank <= hi))
        return MIMIC_OK;
    mimic_input_name(c->op, i, name, sizeof name);
    if (lo == hi)
        return mimic_shape_fail(c, "%s must have %d axes", name, lo);
    return mimic_shape_fail(c, "%s must have %d to %d axes", name, lo, hi);
}

mimic_status mimic_want_dtype(const mimic_call *c, int i, unsigned dtypes) {
    const mimic_tensor *t = c->in[i];
    char name[32], text[64] = "";
    if (!t || (MIMIC_BIT(t->dtype) & dtypes))
        return MIMIC_OK;
    for (int d = 0; d < MIMIC_DTYPE_COUNT; d++)
        if (MIMIC_BIT(d) & dtypes) {
            size_t n = strlen(text);
            snprintf(text + n, sizeof text - n, "%s%s", n ? " or " : "",
                     mimic_dtype_name((mimic_dtype)d));
        }
    return mimic_shape_fail(c, "%s must be %s, not %s",
                            mimic_input_name(c->op, i, name, sizeof name), text,
                            mimic_dtype_name((mimic_dtype)t->dtype));
}

mimic_status mimic_want_shape(const mimic_call *c, int i, int rank, const int64_t *shape) {
    const mimic_tensor *t = c->in[i];
    char name[32], text[96];
    if (!t || (t->rank == rank && memcmp(t->shape, shape, (size_t)rank * sizeof shape[0]) == 0))
        return MIMIC_OK;
    return mimic_shape_fail(c, "%s must be %s", mimic_input_name(c->op, i, name, sizeof name),
                            mimic_shape_text(rank, shape, text, sizeof text));
}

mimic_status mimic_want_like(const mimic_call *c, int i, int j) {
    if (!c->in[i] || !c->in[j])
        return MIMIC_OK;
    mimic_status s = mimic_want_dtype(c, i, MIMIC_BIT(c->in[j]->dtype));
    return s != MIMIC_OK ? s : mimic_want_shape(c, i, c->in[j]->rank, c->in[j]->shape);
}

mimic_status mimic_want_vector(const mimic_call *c, int i, int64_t n) {
    if (!c->in[i])
        return MIMIC_OK;
    mimic_dtype d = mimic_accum_dtype((mimic_dtype)c->in[0]->dtype);
    mimic_status s = mimic_want_dtype(c, i, MIMIC_BIT(d));
    return s != MIMIC_OK ? s : mimic_want_shape(c, i, 1, &n);
}

mimic_status mimic_want_scalar(const mimic_call *c, int i, mimic_dtype dtype) {
    char name[32];
    if (!c->in[i])
        return MIMIC_OK;
    mimic_status s = mimic_want_dtype(c, i, MIMIC_BIT(dtype));
    if (s == MIMIC_OK && (c->in[i]->rank > 1 || mimic_numel(c->in[i]) != 1))
        s = mimic_shape_fail(c, "%s must be one number",
                             mimic_input_name(c->op, i, name, sizeof name));
    return s;
}

mimic_status mimic_want_list_shape(const mimic_call *c) {
    int64_t n = 1;
    for (int i = 0; i < c->attrs.list_n; i++) {
        int64_t d = c->attrs.list[i];
        if (d < 0 || (d > 0 && n > ((int64_t)1 << 48) / d))
            return mimic_shape_fail(c, "size %lld of axis %d of the shape is not possible",
                                    (long long)d, i + 1);
        n *= d > 0 ? d : 1;
    }
    return MIMIC_OK;
}

void mimic_take(mimic_tensor *t, mimic_tensor **out) {
    mimic_tensor_retain(t);
    *out = t;
}

void mimic_give(mimic_vjp *g, mimic_tensor **t, int n) {
    for (int i = 0; i < n; i++) {
        if (g->need[i])
            g->din[i] = t[i];
        else
            mimic_tensor_release(t[i]);
    }
}

mimic_status mimic_apply_1(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *a,
                           mimic_tensor **out) {
    return mimic_apply1(ctx, op, NULL, out, 1, (mimic_tensor *[]){a});
}

mimic_status mimic_apply_2(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *a, mimic_tensor *b,
                           mimic_tensor **out) {
    return mimic_apply1(ctx, op, NULL, out, 2, (mimic_tensor *[]){a, b});
}

mimic_status mimic_apply_scaled(mimic_ctx *ctx, mimic_tensor *a, double alpha, mimic_tensor **out) {
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_scale, &attrs);
    attrs.v[0].f = alpha;
    return mimic_apply1(ctx, &mimic_op_scale, &attrs, out, 1, (mimic_tensor *[]){a});
}

mimic_status mimic_apply_sum_to(mimic_ctx *ctx, mimic_tensor *a, const mimic_shape_out *s,
                                mimic_tensor **out) {
    if (a->rank == s->rank &&
        memcmp(a->shape, s->shape, (size_t)s->rank * sizeof s->shape[0]) == 0) {
        mimic_take(a, out);
        return MIMIC_OK;
    }
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_sum_to, &attrs);
    attrs.list_n = s->rank;
    for (int i = 0; i < s->rank; i++)
        attrs.list[i] = s->shape[i];
    return mimic_apply1(ctx, &mimic_op_sum_to, &attrs, out, 1, (mimic_tensor *[]){a});
}

mimic_status mimic_apply_spread(mimic_ctx *ctx, mimic_tensor *a, int rank, const int64_t *ones,
                                const int64_t *shape, mimic_tensor **out) {
    mimic_tensor *view = NULL;
    int64_t stride[MIMIC_MAX_RANK], step = 1;
    for (int i = rank - 1; i >= 0; i--) { /* a is contiguous */
        stride[i] = ones[i] == shape[i] ? step : 0;
        step *= ones[i];
    }
    mimic_status s = mimic_tensor_view(ctx, a, rank, shape, stride, a->offset, "expand", &view);
    if (s == MIMIC_OK)
        s = mimic_apply_1(ctx, &mimic_op_contiguous, view, out);
    mimic_tensor_release(view);
    return s;
}

/* Rows of a tensor as points in double, and their distances. */
#include "analysis/analysis_impl.h"

#include <math.h>
#include <string.h>

mimic_status mimic_points_read(mimic_ctx *ctx, const mimic_tensor *t, const char *who,
                               int64_t least, mimic_points *out) {
    *out = (mimic_points){.ctx = ctx};
    mimic_status s = mimic_tensor_check(ctx, t, who);
    if (s != MIMIC_OK)
        return s;
    char shape[96];
    mimic_shape_text(t->rank, t->shape, shape, sizeof shape);
    if (t->rank != 2 || t->shape[1] < 1)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: points of shape %s, expected [points,dims]", who,
                          shape);
    int64_t n = t->shape[0], d = t->shape[1];
    if (n < least || n > INT32_MAX)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: points of shape %s, at least %lld are needed",
                          who, shape, (long long)least);
    out->n = n;
    out->stride = (d + 3) / 4 * 4;
    out->x = mimic_calloc(ctx, (size_t)(n * out->stride) * sizeof(double));
    if (!out->x)
        return MIMIC_ENOMEM;
    s = mimic_tensor_read(ctx, t, MIMIC_F64, out->x, n * d);
    for (int64_t i = n - 1; s == MIMIC_OK && i >= 0; i--) { /* spread the rows out, last first */
        double *row = out->x + i * out->stride;
        memmove(row, out->x + i * d, (size_t)d * sizeof *row);
        memset(row + d, 0, (size_t)(out->stride - d) * sizeof *row);
        for (int64_t k = 0; k < d && s == MIMIC_OK; k++)
            if (!isfinite(row[k]))
                s = mimic_fail(ctx, MIMIC_ENUMERIC, "%s: value %lld of point %lld is %g", who,
                               (long long)k, (long long)i, row[k]);
    }
    if (s != MIMIC_OK)
        mimic_points_free(out);
    return s;
}

void mimic_points_free(mimic_points *p) {
    mimic_free(p->ctx, p->x);
    p->x = NULL;
}

void mimic_points_normalise(mimic_points *p) {
    double largest = 0;
    for (int64_t k = 0; k < p->stride; k++) {
        double mean = 0;
        for (int64_t i = 0; i < p->n; i++)
            mean += p->x[i * p->stride + k];
        mean /= (double)p->n;
        for (int64_t i = 0; i < p->n; i++) {
            double *v = &p->x[i * p->stride + k];
            *v -= mean;
            largest = fmax(largest, fabs(*v));
        }
    }
    for (int64_t i = 0; largest > 0 && i < p->n * p->stride; i++)
        p->x[i] /= largest;
}

void mimic_points_unit(mimic_points *p) {
    for (int64_t i = 0; i < p->n; i++) {
        double *row = p->x + i * p->stride, sum = 0;
        for (int64_t k = 0; k < p->stride; k++)
            sum += row[k] * row[k];
        for (int64_t k = 0; sum > 0 && k < p->stride; k++)
            row[k] /= sqrt(sum);
    }
}

double mimic_distance2(const mimic_points *p, int64_t i, const mimic_points *q, int64_t j) {
    const double *a = p->x + i * p->stride, *b = q->x + j * q->stride;
    mimic_v4 sum = {0}, u, v;
    for (int64_t k = 0; k < p->stride; k += 4) {
        memcpy(&u, a + k, sizeof u);
        memcpy(&v, b + k, sizeof v);
        u -= v;
        sum += u * u;
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

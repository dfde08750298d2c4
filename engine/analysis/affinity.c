/* Conditional probabilities of a given perplexity, made symmetric: P of t-SNE. */
#include "analysis/analysis_impl.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Turns squared distances d2[k] into probabilities p[k] whose entropy is log(perplexity), by Newton
 * steps on beta kept inside a bracket; entry `skip` (-1: none) gets 0. Returns beta. */
static double calibrate(const double *d2, double *p, int64_t k, int64_t skip, double perplexity) {
    double lo = 0, hi = DBL_MAX, sum = 0, nearest = DBL_MAX, mean = 0;
    for (int64_t j = 0; j < k; j++)
        if (j != skip) {
            nearest = fmin(nearest, d2[j]);
            mean += d2[j] / (double)k;
        }
    double beta = mean > nearest ? 1 / (mean - nearest) : 1;
    for (int turn = 0; turn < 200; turn++) {
        double first = 0, second = 0;
        sum = 0;
        for (int64_t j = 0; j < k; j++) { /* measured from the nearest: no underflow of them all */
            double d = d2[j] - nearest;
            p[j] = j == skip ? 0 : exp(-beta * d);
            sum += p[j];
            first += d * p[j];
            second += d * d * p[j];
        }
        first /= sum;
        double off = log(sum) + beta * first - log(perplexity); /* falls with beta */
        double slope = beta * (second / sum - first * first);
        if (fabs(off) < 1e-10)
            break;
        if (off > 0)
            lo = beta;
        else
            hi = beta;
        double next = beta + off / slope;
        if (!(next > lo && next < hi))
            next = hi == DBL_MAX ? beta * 2 : (lo + hi) / 2;
        beta = next;
    }
    for (int64_t j = 0; j < k; j++)
        p[j] /= sum;
    return beta;
}

typedef struct rows {
    const mimic_points *points;
    double perplexity;
    int64_t k; /* entries of a row */
    double *distance2, *p, *beta;
} rows;

static void dense_row(void *arg, int64_t i, int worker) {
    (void)worker;
    const rows *r = arg;
    double *row = r->p + i * r->k;
    for (int64_t j = 0; j < r->k; j++)
        row[j] = mimic_distance2(r->points, i, r->points, j);
    double beta = calibrate(row, r->distance2 + i * r->k, r->k, i, r->perplexity);
    if (r->beta)
        r->beta[i] = beta;
}

mimic_status mimic_affinity_dense(const mimic_points *points, double perplexity, double *beta,
                                  mimic_affinity *out) {
    int64_t n = points->n;
    size_t bytes = (size_t)n * (size_t)n * sizeof(double);
    *out = (mimic_affinity){.ctx = points->ctx, .n = n};
    double *scratch = mimic_alloc(points->ctx, bytes), *p = mimic_alloc(points->ctx, bytes);
    if (!scratch || !p) {
        mimic_free(points->ctx, scratch);
        mimic_free(points->ctx, p);
        return MIMIC_ENOMEM;
    }
    rows r = {points, perplexity, n, p, scratch, beta};
    mimic_parallel(points->ctx, n, dense_row, &r);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            sum += p[i * n + j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            p[i * n + j] = p[j * n + i] = (p[i * n + j] + p[j * n + i]) / (2 * sum);
    mimic_free(points->ctx, scratch);
    out->dense = p;
    return MIMIC_OK;
}

static void sparse_row(void *arg, int64_t i, int worker) {
    (void)worker;
    const rows *r = arg;
    calibrate(r->distance2 + i * r->k, r->p + i * r->k, r->k, -1, r->perplexity);
}

typedef struct entry {
    int32_t column;
    double value;
} entry;

static int by_column(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return (x->column > y->column) - (x->column < y->column);
}

/* Adds the transpose: row i becomes the union of its k neighbours and of those that have i. */
static mimic_status symmetrise(mimic_ctx *ctx, int64_t n, int k, const int32_t *index,
                               const double *p, mimic_affinity *out) {
    mimic_status s = MIMIC_ENOMEM;
    int64_t *fill = mimic_calloc(ctx, ((size_t)n + 1) * sizeof *fill);
    entry *all = mimic_alloc(ctx, (size_t)(2 * n * k) * sizeof *all);
    out->start = mimic_calloc(ctx, ((size_t)n + 1) * sizeof *out->start);
    out->column = mimic_alloc(ctx, (size_t)(2 * n * k) * sizeof *out->column);
    out->value = mimic_alloc(ctx, (size_t)(2 * n * k) * sizeof *out->value);
    if (!fill || !all || !out->start || !out->column || !out->value)
        goto done;
    for (int64_t i = 0; i < n; i++) {
        fill[i + 1] += k;
        for (int j = 0; j < k; j++)
            fill[index[i * k + j] + 1]++;
    }
    for (int64_t i = 0; i < n; i++)
        fill[i + 1] += fill[i];
    memcpy(out->start, fill, (size_t)n * sizeof *fill);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < k; j++) {
            int32_t to = index[i * k + j];
            double v = p[i * k + j];
            all[fill[i]++] = (entry){to, v};
            all[fill[to]++] = (entry){(int32_t)i, v};
            sum += 2 * v;
        }
    int64_t used = 0;
    for (int64_t i = 0; i < n; i++) { /* fill[i] is now the end of row i */
        int64_t from = out->start[i], end = fill[i];
        qsort(all + from, (size_t)(end - from), sizeof *all, by_column);
        out->start[i] = used;
        for (int64_t e = from; e < end; e++) {
            if (e > from && all[e].column == all[e - 1].column) {
                out->value[used - 1] += all[e].value / sum;
                continue;
            }
            out->column[used] = all[e].column;
            out->value[used++] = all[e].value / sum;
        }
    }
    out->start[n] = used;
    s = MIMIC_OK;
done:
    mimic_free(ctx, fill);
    mimic_free(ctx, all);
    return s;
}

mimic_status mimic_affinity_sparse(const mimic_points *points, double perplexity,
                                   mimic_affinity *out) {
    mimic_ctx *ctx = points->ctx;
    int64_t n = points->n;
    int k = (int)fmin(floor(3 * perplexity), (double)(n - 1));
    *out = (mimic_affinity){.ctx = ctx, .n = n};
    rows r = {.points = points, .perplexity = perplexity, .k = k};
    int32_t *index = mimic_alloc(ctx, (size_t)(n * k) * sizeof *index);
    r.distance2 = mimic_alloc(ctx, (size_t)(n * k) * sizeof *r.distance2);
    r.p = mimic_alloc(ctx, (size_t)(n * k) * sizeof *r.p);
    mimic_status s = index && r.distance2 && r.p ? MIMIC_OK : MIMIC_ENOMEM;
    if (s == MIMIC_OK)
        s = mimic_nearest(points, k, index, r.distance2);
    if (s == MIMIC_OK) {
        mimic_parallel(ctx, n, sparse_row, &r);
        s = symmetrise(ctx, n, k, index, r.p, out);
    }
    mimic_free(ctx, index);
    mimic_free(ctx, r.distance2);
    mimic_free(ctx, r.p);
    if (s != MIMIC_OK)
        mimic_affinity_free(out);
    return s;
}

void mimic_affinity_free(mimic_affinity *a) {
    mimic_free(a->ctx, a->dense);
    mimic_free(a->ctx, a->start);
    mimic_free(a->ctx, a->column);
    mimic_free(a->ctx, a->value);
    *a = (mimic_affinity){0};
}

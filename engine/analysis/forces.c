/* Forces of t-SNE on a map: the pull of P and the push of the map's own Q, exact or Barnes-Hut. */
#include "analysis/analysis_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>

mimic_status mimic_forces_init(const mimic_affinity *p, double theta, mimic_forces *out) {
    *out = (mimic_forces){.p = p, .theta = theta};
    size_t n = (size_t)p->n;
    double *block = mimic_calloc(p->ctx, 8 * n * sizeof *block);
    if (!block)
        return MIMIC_ENOMEM;
    double **parts[] = {&out->x,      &out->y,      &out->pull_x, &out->pull_y,
                        &out->push_x, &out->push_y, &out->z,      &out->kl};
    for (size_t k = 0; k < 8; k++)
        *parts[k] = block + k * n;
    mimic_status s = theta > 0 ? mimic_quadtree_new(p->ctx, p->n, &out->tree) : MIMIC_OK;
    if (s != MIMIC_OK)
        mimic_forces_free(out);
    return s;
}

void mimic_forces_free(mimic_forces *f) {
    if (!f->p)
        return;
    mimic_free(f->p->ctx, f->x); /* the one block */
    mimic_quadtree_free(f->tree);
    *f = (mimic_forces){0};
}

static double total(mimic_v4 v) {
    return (v[0] + v[1]) + (v[2] + v[3]);
}

/* All pairs of row i. p NULL: the push alone. */
static void exact_row(const mimic_forces *f, int64_t i, const double *p) {
    mimic_v4 pull_x = {0}, pull_y = {0}, push_x = {0}, push_y = {0}, z = {0};
    const double *x = f->x, *y = f->y, xi = x[i], yi = y[i];
    int64_t n = f->p->n, j = 0;
    for (; j + 4 <= n; j += 4) {
        mimic_v4 dx, dy, w = {0};
        memcpy(&dx, x + j, sizeof dx);
        memcpy(&dy, y + j, sizeof dy);
        if (p)
            memcpy(&w, p + j, sizeof w);
        dx = xi - dx;
        dy = yi - dy;
        mimic_v4 q = 1 / (1 + dx * dx + dy * dy);
        z += q;
        w *= q;
        q *= q;
        pull_x += w * dx;
        pull_y += w * dy;
        push_x += q * dx;
        push_y += q * dy;
    }
    double sums[5] = {total(pull_x), total(pull_y), total(push_x), total(push_y), total(z) - 1};
    for (; j < n; j++) {
        double dx = xi - x[j], dy = yi - y[j], q = 1 / (1 + dx * dx + dy * dy);
        double w = p ? p[j] * q : 0;
        sums[0] += w * dx;
        sums[1] += w * dy;
        sums[2] += q * q * dx;
        sums[3] += q * q * dy;
        sums[4] += q;
    }
    f->pull_x[i] = sums[0]; /* the point itself added q = 1 to z, taken off above */
    f->pull_y[i] = sums[1];
    f->push_x[i] = sums[2];
    f->push_y[i] = sums[3];
    f->z[i] = sums[4];
}

static void force_row(void *arg, int64_t i, int worker) {
    (void)worker;
    const mimic_forces *f = arg;
    const mimic_affinity *p = f->p;
    if (!f->tree)
        exact_row(f, i, p->dense ? p->dense + i * p->n : NULL);
    else
        mimic_quadtree_push(f->tree, i, f->theta, &f->push_x[i], &f->push_y[i], &f->z[i]);
    if (p->dense && !f->tree)
        return;
    double pull_x = 0, pull_y = 0;
    int64_t from = p->dense ? 0 : p->start[i], end = p->dense ? p->n : p->start[i + 1];
    for (int64_t e = from; e < end; e++) {
        int64_t j = p->dense ? e : p->column[e];
        double dx = f->x[i] - f->x[j], dy = f->y[i] - f->y[j];
        double w = (p->dense ? p->dense[i * p->n + j] : p->value[e]) / (1 + dx * dx + dy * dy);
        pull_x += w * dx;
        pull_y += w * dy;
    }
    f->pull_x[i] = pull_x;
    f->pull_y[i] = pull_y;
}

mimic_status mimic_forces_run(mimic_forces *f, double *sum) {
    mimic_status s = f->tree ? mimic_quadtree_build(f->tree, f->x, f->y) : MIMIC_OK;
    if (s != MIMIC_OK)
        return s;
    mimic_parallel(f->p->ctx, f->p->n, force_row, f);
    *sum = 0;
    for (int64_t i = 0; i < f->p->n; i++)
        *sum += f->z[i];
    return MIMIC_OK;
}

typedef struct divergence {
    const mimic_forces *f;
    double total;
} divergence;

static void divergence_row(void *arg, int64_t i, int worker) {
    (void)worker;
    const divergence *d = arg;
    const mimic_forces *f = d->f;
    const mimic_affinity *p = f->p;
    double kl = 0;
    int64_t from = p->dense ? 0 : p->start[i], end = p->dense ? p->n : p->start[i + 1];
    for (int64_t e = from; e < end; e++) {
        int64_t j = p->dense ? e : p->column[e];
        if (j == i)
            continue;
        double dx = f->x[i] - f->x[j], dy = f->y[i] - f->y[j];
        double v = p->dense ? p->dense[i * p->n + j] : p->value[e];
        kl += v * log((v + FLT_MIN) / (1 / (1 + dx * dx + dy * dy) / d->total + FLT_MIN));
    }
    f->kl[i] = kl;
}

double mimic_forces_divergence(mimic_forces *f, double sum) {
    divergence d = {f, sum};
    double kl = 0;
    mimic_parallel(f->p->ctx, f->p->n, divergence_row, &d);
    for (int64_t i = 0; i < f->p->n; i++)
        kl += f->kl[i];
    return kl;
}

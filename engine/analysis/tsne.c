/* t-SNE (van der Maaten and Hinton 2008; Barnes-Hut form 2014): the descent, and its parts. */
#include "analysis/analysis_impl.h"

#include <math.h>
#include <string.h>

#define STREAM_MAP 0xfc000000u
#define PROGRESS_EVERY 50

static mimic_status check(mimic_ctx *ctx, double perplexity, double theta, int64_t n) {
    if (!(perplexity >= 1 && perplexity < (double)(n - 1)))
        return mimic_fail(ctx, MIMIC_EINVAL,
                          "t-SNE: perplexity %g of %lld points: from 1 to below %lld is possible",
                          perplexity, (long long)n, (long long)n - 1);
    if (!(theta >= 0 && theta <= 0.7))
        return mimic_fail(ctx, MIMIC_EINVAL, "t-SNE: theta %g: 0 (exact) to 0.7 is possible",
                          theta);
    return MIMIC_OK;
}

/* Copies a map [n,2] into f->x, f->y. */
static mimic_status read_map(mimic_ctx *ctx, const mimic_tensor *y, const char *what,
                             mimic_forces *f) {
    mimic_points p;
    mimic_status s = mimic_points_read(ctx, y, what, 1, &p);
    if (s != MIMIC_OK)
        return s;
    if (p.n != f->p->n || y->shape[1] != 2)
        s = mimic_fail(ctx, MIMIC_EINVAL, "%s: a map of shape [%lld,%lld], expected [%lld,2]", what,
                       (long long)p.n, (long long)y->shape[1], (long long)f->p->n);
    for (int64_t i = 0; s == MIMIC_OK && i < p.n; i++) {
        f->x[i] = p.x[i * p.stride];
        f->y[i] = p.x[i * p.stride + 1];
    }
    mimic_points_free(&p);
    return s;
}

/* a and b [n] as the columns of a new tensor f64 [n,2] */
static mimic_status columns(mimic_ctx *ctx, int64_t n, const double *a, const double *b,
                            mimic_tensor **out) {
    mimic_status s =
        mimic_tensor_make(&ctx->devices[MIMIC_CPU], MIMIC_F64, 2, (int64_t[]){n, 2}, "tsne", out);
    double *data = s == MIMIC_OK ? mimic_data(*out) : NULL;
    for (int64_t i = 0; data && i < n; i++) {
        data[2 * i] = a[i];
        data[2 * i + 1] = b[i];
    }
    return s;
}

/* One coordinate's step: gains grow where the gradient keeps its direction. */
static void step(double *at, double *speed, double *gain, const double *pull, const double *push,
                 int64_t n, double exaggeration, double z, double momentum, double eta) {
    double mean = 0;
    for (int64_t i = 0; i < n; i++) {
        double g = exaggeration * pull[i] - push[i] / z;
        bool same = (g > 0) - (g < 0) == (speed[i] > 0) - (speed[i] < 0);
        gain[i] = fmax(same ? gain[i] * 0.8 : gain[i] + 0.2, 0.01);
        speed[i] = momentum * speed[i] - eta * gain[i] * g;
        at[i] += speed[i];
        mean += at[i];
    }
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++)
        at[i] -= mean;
}

static mimic_status descend(mimic_ctx *ctx, const mimic_tsne_config *c, mimic_forces *f,
                            double *kl) {
    int64_t n = f->p->n;
    double z = 1, *speed = mimic_calloc(ctx, 4 * (size_t)n * sizeof *speed);
    if (!speed)
        return MIMIC_ENOMEM;
    double *gain = speed + 2 * n;
    for (int64_t i = 0; i < 2 * n; i++)
        gain[i] = 1;
    mimic_status s = MIMIC_OK;
    for (int t = 0; t < c->iterations && s == MIMIC_OK; t++) {
        s = mimic_forces_run(f, &z);
        if (s != MIMIC_OK)
            break;
        double exaggeration = t < c->early ? c->exaggeration : 1;
        double momentum = c->momentum[t >= c->early];
        if (c->progress && t > 0 && t % PROGRESS_EVERY == 0 &&
            !c->progress(c->user, t, mimic_forces_divergence(f, z)))
            s = mimic_fail(ctx, MIMIC_ESTATE, "t-SNE was stopped after %d iterations", t);
        step(f->x, speed, gain, f->pull_x, f->push_x, n, exaggeration, z, momentum, c->eta);
        step(f->y, speed + n, gain + n, f->pull_y, f->push_y, n, exaggeration, z, momentum, c->eta);
        if (!isfinite(f->x[0]) || !isfinite(f->y[0]))
            s = mimic_fail(ctx, MIMIC_ENUMERIC,
                           "t-SNE: the map is no longer finite after %d iterations: eta %g is too "
                           "large",
                           t + 1, c->eta);
    }
    if (s == MIMIC_OK)
        s = mimic_forces_run(f, &z);
    if (s == MIMIC_OK) {
        *kl = mimic_forces_divergence(f, z);
        if (c->progress && !c->progress(c->user, c->iterations, *kl))
            s = mimic_fail(ctx, MIMIC_ESTATE, "t-SNE was stopped after %d iterations",
                           c->iterations);
    }
    mimic_free(ctx, speed);
    return s;
}

static mimic_status defaults(mimic_ctx *ctx, const mimic_tsne_config *cfg, mimic_tsne_config *c) {
    *c = *cfg;
    double *const numbers[] = {&c->perplexity, &c->exaggeration, &c->eta, &c->momentum[0],
                               &c->momentum[1]};
    static const double values[] = {30, 12, 200, 0.5, 0.8};
    for (int i = 0; i < 5; i++)
        if (*numbers[i] == 0)
            *numbers[i] = values[i];
    c->iterations = c->iterations ? c->iterations : 1000;
    c->early = c->early ? c->early : 250;
    if (c->iterations < 1 || c->early < 0 || !(c->exaggeration >= 1) || !(c->eta > 0) ||
        !(c->momentum[0] > 0 && c->momentum[0] < 1) || !(c->momentum[1] > 0 && c->momentum[1] < 1))
        return mimic_fail(
            ctx, MIMIC_EINVAL,
            "t-SNE: iterations %d, early %d, exaggeration %g, eta %g, momentum %g and "
            "%g do not make a descent",
            c->iterations, c->early, c->exaggeration, c->eta, c->momentum[0], c->momentum[1]);
    return MIMIC_OK;
}

mimic_status mimic_tsne(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tsne_config *cfg,
                        mimic_tensor **y, double *kl) {
    mimic_tsne_config c;
    mimic_points points = {0};
    mimic_affinity p = {0};
    mimic_forces f = {0};
    double found = 0;
    *y = NULL;
    mimic_status s = defaults(ctx, cfg, &c);
    if (s == MIMIC_OK)
        s = mimic_points_read(ctx, x, "t-SNE", 3, &points);
    if (s == MIMIC_OK)
        s = check(ctx, c.perplexity, c.theta, points.n);
    if (s != MIMIC_OK)
        goto done;
    mimic_points_normalise(&points);
    s = c.theta > 0 ? mimic_affinity_sparse(&points, c.perplexity, &p)
                    : mimic_affinity_dense(&points, c.perplexity, NULL, &p);
    if (s == MIMIC_OK)
        s = mimic_forces_init(&p, c.theta, &f);
    if (s == MIMIC_OK && c.init)
        s = read_map(ctx, c.init, "t-SNE: init", &f);
    if (s != MIMIC_OK)
        goto done;
    if (!c.init) {
        mimic_rng rng;
        mimic_rng_init(&rng, c.seed, STREAM_MAP, 0);
        for (int64_t i = 0; i < p.n; i++) {
            f.x[i] = 1e-4 * mimic_rng_normal(&rng);
            f.y[i] = 1e-4 * mimic_rng_normal(&rng);
        }
    }
    s = descend(ctx, &c, &f, &found);
    if (s == MIMIC_OK)
        s = columns(ctx, p.n, f.x, f.y, y);
    if (s == MIMIC_OK && kl)
        *kl = found;
done:
    mimic_forces_free(&f);
    mimic_affinity_free(&p);
    mimic_points_free(&points);
    return s;
}

mimic_status mimic_tsne_affinities(mimic_ctx *ctx, const mimic_tensor *x, double perplexity,
                                   mimic_tensor **p, mimic_tensor **beta) {
    mimic_points points;
    mimic_affinity a = {0};
    *p = *beta = NULL;
    mimic_status s = mimic_points_read(ctx, x, "t-SNE", 3, &points);
    if (s != MIMIC_OK)
        return s;
    s = check(ctx, perplexity, 0, points.n);
    if (s == MIMIC_OK)
        s = mimic_tensor_make(&ctx->devices[MIMIC_CPU], MIMIC_F64, 1, &points.n, "tsne", beta);
    if (s == MIMIC_OK) {
        mimic_points_normalise(&points);
        s = mimic_affinity_dense(&points, perplexity, mimic_data(*beta), &a);
    }
    if (s == MIMIC_OK)
        s = mimic_tensor_make(&ctx->devices[MIMIC_CPU], MIMIC_F64, 2, (int64_t[]){a.n, a.n}, "tsne",
                              p);
    if (s == MIMIC_OK)
        s = mimic_tensor_write(ctx, *p, MIMIC_F64, a.dense, a.n * a.n);
    if (s != MIMIC_OK) {
        mimic_tensor_release(*beta);
        *beta = NULL;
    }
    mimic_affinity_free(&a);
    mimic_points_free(&points);
    return s;
}

mimic_status mimic_tsne_gradient(mimic_ctx *ctx, const mimic_tensor *p, const mimic_tensor *y,
                                 double theta, mimic_tensor **gradient, double *kl) {
    mimic_forces f = {0};
    *gradient = NULL;
    mimic_status s = mimic_tensor_check(ctx, p, "t-SNE: P");
    if (s == MIMIC_OK && (p->rank != 2 || p->shape[0] != p->shape[1]))
        s = mimic_fail(ctx, MIMIC_EINVAL, "t-SNE: P is not square");
    if (s == MIMIC_OK)
        s = check(ctx, 1, theta, 3);
    if (s != MIMIC_OK)
        return s;
    int64_t n = p->shape[0];
    double z = 1;
    mimic_affinity a = {.ctx = ctx, .n = n};
    a.dense = mimic_alloc(ctx, (size_t)(n * n) * sizeof *a.dense + 1);
    s = a.dense ? mimic_tensor_read(ctx, p, MIMIC_F64, a.dense, n * n) : MIMIC_ENOMEM;
    if (s == MIMIC_OK)
        s = mimic_forces_init(&a, theta, &f);
    if (s == MIMIC_OK)
        s = read_map(ctx, y, "t-SNE: Y", &f);
    if (s == MIMIC_OK)
        s = mimic_forces_run(&f, &z);
    for (int64_t i = 0; s == MIMIC_OK && i < n; i++) {
        f.pull_x[i] -= f.push_x[i] / z;
        f.pull_y[i] -= f.push_y[i] / z;
    }
    if (s == MIMIC_OK)
        s = columns(ctx, n, f.pull_x, f.pull_y, gradient);
    if (s == MIMIC_OK && kl)
        *kl = mimic_forces_divergence(&f, z);
    mimic_forces_free(&f);
    mimic_affinity_free(&a);
    return s;
}

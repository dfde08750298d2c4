/* What the analysis files share: points in double, neighbours, affinities, forces. May include core
 * and tensor. Everything runs row by row on mimic_parallel, each row's sums in a fixed order.
 * Tests: tests/c/test_analysis.c (brute force, threads), golden.tsne. */
#ifndef MIMIC_ANALYSIS_IMPL_H
#define MIMIC_ANALYSIS_IMPL_H

#include "mimic/analysis.h"
#include "core/ctx.h"
#include "tensor/tensor_impl.h"

/* Four sums at once, the same on every processor: the compiler may split, but not reorder, them. */
typedef double mimic_v4 __attribute__((vector_size(32)));

typedef struct mimic_points {
    mimic_ctx *ctx;
    int64_t n, stride; /* stride: d rounded up to 4, the rest zero */
    double *x;         /* [n,stride] */
} mimic_points;

/* Copies a tensor [n,d] of at least `least` rows; `who` starts messages. Values must be finite. */
mimic_status mimic_points_read(mimic_ctx *ctx, const mimic_tensor *t, const char *who,
                               int64_t least, mimic_points *out);
void mimic_points_free(mimic_points *p);
/* Moves the mean to 0 and divides by the largest absolute value: bhtsne's normalisation. */
void mimic_points_normalise(mimic_points *p);
/* Makes every row a unit vector (zero rows stay). */
void mimic_points_unit(mimic_points *p);
double mimic_distance2(const mimic_points *p, int64_t i, const mimic_points *q, int64_t j);

/* The k < n nearest other points of every point, in order of (distance, index), by a vantage-point
 * tree. index [n,k], distance2 [n,k]. */
mimic_status mimic_nearest(const mimic_points *p, int k, int32_t *index, double *distance2);

/* The joint probabilities P, symmetric, sum 1: all of them, or those of near neighbours. */
typedef struct mimic_affinity {
    mimic_ctx *ctx;
    int64_t n;
    double *dense;  /* [n,n], or NULL */
    int64_t *start; /* [n+1] sparse rows */
    int32_t *column;
    double *value;
} mimic_affinity;
mimic_status mimic_affinity_dense(const mimic_points *p, double perplexity, double *beta,
                                  mimic_affinity *out); /* beta [n] or NULL */
mimic_status mimic_affinity_sparse(const mimic_points *p, double perplexity, mimic_affinity *out);
void mimic_affinity_free(mimic_affinity *a);

/* Forces on a map of n points; made once, used in every iteration. */
typedef struct mimic_forces {
    const mimic_affinity *p;
    double theta;
    double *x, *y;                    /* [n] the map */
    double *pull_x, *pull_y;          /* [n] sum_j p q (y_i - y_j) */
    double *push_x, *push_y, *z, *kl; /* [n] sum_j q^2 (y_i - y_j); sum_j q; the row's divergence */
    struct mimic_quadtree *tree;      /* theta > 0 */
} mimic_forces;
mimic_status mimic_forces_init(const mimic_affinity *p, double theta, mimic_forces *out);
void mimic_forces_free(mimic_forces *f);
/* Fills pull, push and z of every point from x, y; returns the sum of z in *total. */
mimic_status mimic_forces_run(mimic_forces *f, double *total);
/* sum_ij p log(p / q) of the map, with the total of the last mimic_forces_run. */
double mimic_forces_divergence(mimic_forces *f, double total);

/* --- quadtree.c --- */

typedef struct mimic_quadtree mimic_quadtree;
mimic_status mimic_quadtree_new(mimic_ctx *ctx, int64_t n, mimic_quadtree **out);
void mimic_quadtree_free(mimic_quadtree *t);
mimic_status mimic_quadtree_build(mimic_quadtree *t, const double *x, const double *y);
/* sum_j q^2 (y_i - y_j) and sum_j q over all other points, far cells taken as one point. */
void mimic_quadtree_push(const mimic_quadtree *t, int64_t i, double theta, double *push_x,
                         double *push_y, double *z);

#endif

/* Looking at features: t-SNE maps (method.md 3.6), silhouette, k-nearest-neighbour accuracy. All
 * arithmetic is in double and row by row, so that results are equal for any number of threads. */
#ifndef MIMIC_ANALYSIS_H
#define MIMIC_ANALYSIS_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zero means the default in brackets, except where zero is said to mean something. */
typedef struct mimic_tsne_config {
    double perplexity;   /* [30] effective number of neighbours, 1 <= perplexity < points - 1 */
    double theta;        /* Barnes-Hut opening angle up to 0.7; 0 = the exact O(N^2) method */
    int iterations;      /* [1000] */
    int early;           /* [250] iterations with exaggerated P and the first momentum */
    double exaggeration; /* [12] */
    double eta;          /* [200] */
    double momentum[2];  /* [0.5, 0.8] */
    uint64_t seed;       /* of the start N(0, 1e-4^2), without `init` */
    const mimic_tensor *init; /* [n,2], or NULL */
    /* Called every 50 iterations and after the last one; false stops with MIMIC_ESTATE. May be
     * NULL. */
    bool (*progress)(void *user, int iteration, double kl);
    void *user;
} mimic_tsne_config;

/* Map of x [n,d] to y f64 [n,2], centred. kl (may be NULL): its Kullback-Leibler divergence. */
mimic_status mimic_tsne(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tsne_config *cfg,
                        mimic_tensor **y, double *kl);
/* The parts of it, for tests and for maps of one's own: P f64 [n,n] (symmetric, sum 1) with beta
 * f64 [n] = 1/(2 sigma^2) per point; gradient f64 [n,2] = sum_j (p-q)(1+|y_i-y_j|^2)^-1 (y_i-y_j),
 * without the factor 4, and the divergence of a map y [n,2]. */
mimic_status mimic_tsne_affinities(mimic_ctx *ctx, const mimic_tensor *x, double perplexity,
                                   mimic_tensor **p, mimic_tensor **beta);
mimic_status mimic_tsne_gradient(mimic_ctx *ctx, const mimic_tensor *p, const mimic_tensor *y,
                                 double theta, mimic_tensor **gradient, double *kl);

typedef enum mimic_metric { MIMIC_EUCLIDEAN, MIMIC_COSINE } mimic_metric; /* cosine: 1 - cos */

/* Mean silhouette of x [n,d] under labels i32 [n]; points labelled -1 are left out, a point alone
 * in its class counts 0. Needs two classes. */
mimic_status mimic_silhouette(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tensor *labels,
                              mimic_metric metric, double *out);
/* Share of points of x whose label is the most frequent one among their k nearest points of
 * `reference` (equal distances in order of index; equal counts: the class with the nearest point).
 * reference NULL: the other points of x itself. Points labelled -1 are left out. */
mimic_status mimic_knn_accuracy(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tensor *labels,
                                const mimic_tensor *reference, const mimic_tensor *reference_labels,
                                int k, mimic_metric metric, double *out);

#ifdef __cplusplus
}
#endif
#endif

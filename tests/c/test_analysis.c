/* t-SNE, silhouette and k-NN accuracy against their plain definitions; equal bits for any number of
 * threads; every allocation may fail. */
#include "core_util.h"
#include "analysis/analysis_impl.h"

static mimic_ctx *ctx;

static int setup(void **state) {
    (void)state;
    ctx = open_ctx();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(mimic_alloc_live(ctx), 0);
    mimic_close(ctx);
    return 0;
}

/* n points of d dims around `classes` centres; every 7th repeats the one before. */
static mimic_tensor *cloud(int64_t n, int64_t d, int classes, double spread) {
    double *x = malloc((size_t)(n * d) * sizeof *x);
    mimic_rng rng, centre;
    mimic_rng_init(&rng, 5, 1, 0);
    for (int64_t i = 0; i < n; i++) {
        mimic_rng_init(&centre, 5, 2, (uint64_t)(i % classes));
        for (int64_t k = 0; k < d; k++)
            x[i * d + k] = mimic_rng_normal(&centre) + spread * mimic_rng_normal(&rng);
        if (i % 7 == 6)
            memcpy(x + i * d, x + (i - 1) * d, (size_t)d * sizeof *x);
    }
    mimic_tensor *t = NULL;
    ok(ctx, mimic_tensor_from(ctx, MIMIC_F64, 2, (int64_t[]){n, d}, x, &t));
    free(x);
    return t;
}

static mimic_tensor *classes_of(int64_t n, int classes, int unlabelled) {
    int32_t *y = malloc((size_t)n * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = unlabelled && i % unlabelled == 0 ? -1 : (int32_t)(i % classes);
    mimic_tensor *t = NULL;
    ok(ctx, mimic_tensor_from(ctx, MIMIC_I32, 1, &n, y, &t));
    free(y);
    return t;
}

static void test_neighbours_are_those_of_all_pairs(void **state) {
    (void)state;
    enum { N = 211, K = 17 };
    for (int d = 1; d < 40; d += 12) {
        mimic_tensor *x = cloud(N, d, 3, 0.5);
        mimic_points p;
        int32_t index[N * K];
        double d2[N * K];
        ok(ctx, mimic_points_read(ctx, x, "test", 1, &p));
        ok(ctx, mimic_nearest(&p, K, index, d2));
        for (int i = 0; i < N; i++)
            for (int k = 0; k < K; k++) {
                /* Exactly k points come before the k-th in the order of (distance, index). */
                int before = 0, at = index[i * K + k];
                assert_true(at != i && d2[i * K + k] == mimic_distance2(&p, i, &p, at));
                for (int j = 0; j < N; j++) {
                    double v = mimic_distance2(&p, i, &p, j);
                    before += j != i && (v < d2[i * K + k] || (v == d2[i * K + k] && j < at));
                }
                assert_int_equal(before, k);
            }
        mimic_points_free(&p);
        mimic_tensor_release(x);
    }
}

static void test_affinities(void **state) {
    (void)state;
    enum { N = 60 };
    mimic_tensor *x = cloud(N, 9, 4, 0.4), *p = NULL, *beta = NULL;
    mimic_points points;
    mimic_affinity sparse;
    double dense[N * N], sum = 0;
    ok(ctx, mimic_tsne_affinities(ctx, x, 20, &p, &beta));
    ok(ctx, mimic_tensor_read(ctx, p, MIMIC_F64, dense, N * N));
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            sum += dense[i * N + j];
            assert_true(dense[i * N + j] == dense[j * N + i]);
        }
    assert_true(fabs(sum - 1) < 1e-12);
    /* Perplexity 20 asks for 60 neighbours: all of them, so the sparse rows are the dense ones. */
    ok(ctx, mimic_points_read(ctx, x, "test", 1, &points));
    mimic_points_normalise(&points);
    ok(ctx, mimic_affinity_sparse(&points, 20, &sparse));
    for (int i = 0; i < N; i++) {
        assert_int_equal(sparse.start[i + 1] - sparse.start[i], N - 1);
        for (int64_t e = sparse.start[i]; e < sparse.start[i + 1]; e++)
            assert_true(fabs(sparse.value[e] - dense[i * N + sparse.column[e]]) < 1e-12);
    }
    mimic_affinity_free(&sparse);
    /* Fewer neighbours: still symmetric with sum 1. */
    ok(ctx, mimic_affinity_sparse(&points, 4, &sparse));
    sum = 0;
    double filled[N][N] = {{0}};
    for (int i = 0; i < N; i++)
        for (int64_t e = sparse.start[i]; e < sparse.start[i + 1]; e++) {
            assert_true(e == sparse.start[i] || sparse.column[e] > sparse.column[e - 1]);
            filled[i][sparse.column[e]] = sparse.value[e];
            sum += sparse.value[e];
        }
    assert_true(fabs(sum - 1) < 1e-12);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            assert_true(fabs(filled[i][j] - filled[j][i]) < 1e-15);
    mimic_affinity_free(&sparse);
    mimic_points_free(&points);
    mimic_tensor_release(x);
    mimic_tensor_release(p);
    mimic_tensor_release(beta);
}

static void gradient_of(const mimic_tensor *p, const mimic_tensor *y, double theta, double *out,
                        double *kl) {
    mimic_tensor *g = NULL;
    ok(ctx, mimic_tsne_gradient(ctx, p, y, theta, &g, kl));
    ok(ctx, mimic_tensor_read(ctx, g, MIMIC_F64, out, mimic_tensor_count(g)));
    mimic_tensor_release(g);
}

static void test_gradient(void **state) {
    (void)state;
    enum { N = 101 };
    mimic_tensor *x = cloud(N, 6, 3, 0.5), *y = cloud(N, 2, 3, 0.7), *p = NULL, *beta = NULL;
    double exact[2 * N], tree[2 * N], map[2 * N], kl, up, down, unused[2 * N], size = 0, off = 0;
    ok(ctx, mimic_tsne_affinities(ctx, x, 10, &p, &beta));
    gradient_of(p, y, 0, exact, &kl);
    /* The slope of the divergence is 4 times it. */
    ok(ctx, mimic_tensor_read(ctx, y, MIMIC_F64, map, 2 * N));
    for (int i = 0; i < 2 * N; i += 37) {
        const double h = 1e-5;
        map[i] += h;
        ok(ctx, mimic_tensor_write(ctx, y, MIMIC_F64, map, 2 * N));
        gradient_of(p, y, 0, unused, &up);
        map[i] -= 2 * h;
        ok(ctx, mimic_tensor_write(ctx, y, MIMIC_F64, map, 2 * N));
        gradient_of(p, y, 0, unused, &down);
        map[i] += h;
        assert_true(fabs((up - down) / (2 * h) - 4 * exact[i]) < 1e-8);
    }
    ok(ctx, mimic_tensor_write(ctx, y, MIMIC_F64, map, 2 * N));
    /* A tree that opens every cell gives the same, points on top of each other included. */
    gradient_of(p, y, 1e-9, tree, &up);
    assert_true(fabs(up - kl) < 1e-12);
    for (int i = 0; i < 2 * N; i++)
        assert_true(fabs(tree[i] - exact[i]) < 1e-13);
    gradient_of(p, y, 0.5, tree, &up);
    for (int i = 0; i < 2 * N; i++) {
        off += (tree[i] - exact[i]) * (tree[i] - exact[i]);
        size += exact[i] * exact[i];
    }
    assert_true(off > 0 && sqrt(off / size) < 0.02);
    mimic_tensor_release(x);
    mimic_tensor_release(y);
    mimic_tensor_release(p);
    mimic_tensor_release(beta);
}

/* All points of a map in one place: nothing pushes, and nothing breaks. */
static void test_coinciding_map(void **state) {
    (void)state;
    enum { N = 20 };
    double zero[2 * N] = {0}, g[2 * N], kl;
    mimic_tensor *x = cloud(N, 3, 2, 0.5), *y = NULL, *p = NULL, *beta = NULL;
    ok(ctx, mimic_tensor_from(ctx, MIMIC_F64, 2, (int64_t[]){N, 2}, zero, &y));
    ok(ctx, mimic_tsne_affinities(ctx, x, 5, &p, &beta));
    gradient_of(p, y, 0.5, g, &kl);
    for (int i = 0; i < 2 * N; i++)
        assert_true(g[i] == 0);
    assert_true(isfinite(kl));
    mimic_tensor_release(x);
    mimic_tensor_release(y);
    mimic_tensor_release(p);
    mimic_tensor_release(beta);
}

static void test_map(void **state) {
    (void)state;
    enum { N = 150 };
    mimic_tensor *x = cloud(N, 20, 3, 0.2), *labels = classes_of(N, 3, 0);
    double first[2 * N], again[2 * N], kl, share;
    for (int form = 0; form < 2; form++) {
        mimic_tsne_config cfg = {
            .perplexity = 10, .theta = form ? 0.5 : 0, .iterations = 400, .seed = 3};
        for (int threads = 1; threads <= 3; threads++) {
            mimic_tensor *y = NULL;
            ok(ctx, mimic_set_threads(ctx, threads));
            ok(ctx, mimic_tsne(ctx, x, &cfg, &y, &kl));
            ok(ctx, mimic_tensor_read(ctx, y, MIMIC_F64, threads == 1 ? first : again, 2 * N));
            if (threads > 1)
                assert_memory_equal(first, again, sizeof first);
            else {
                ok(ctx,
                   mimic_knn_accuracy(ctx, y, labels, NULL, NULL, 10, MIMIC_EUCLIDEAN, &share));
                assert_true(share > 0.8); /* every 7th point is of another class */
                assert_true(kl > 0 && kl < 1.5);
            }
            mimic_tensor_release(y);
        }
    }
    mimic_tensor_release(x);
    mimic_tensor_release(labels);
}

static bool stop_at(void *user, int iteration, double kl) {
    int *calls = user;
    assert_true(kl > 0);
    assert_int_equal(iteration, 50 * ++*calls);
    return *calls < 2;
}

static void test_refusals(void **state) {
    (void)state;
    mimic_tensor *x = cloud(12, 3, 2, 0.5), *y = NULL, *labels = classes_of(12, 1, 0), *bad = NULL;
    double v;
    int calls = 0;
    mimic_tsne_config cfg = {.perplexity = 11};
    assert_int_equal(mimic_tsne(ctx, x, &cfg, &y, NULL), MIMIC_EINVAL);
    assert_message(ctx, "perplexity 11 of 12 points");
    cfg = (mimic_tsne_config){.perplexity = 3, .theta = 0.9};
    assert_int_equal(mimic_tsne(ctx, x, &cfg, &y, NULL), MIMIC_EINVAL);
    assert_message(ctx, "theta 0.9");
    cfg = (mimic_tsne_config){.perplexity = 3, .init = x};
    assert_int_equal(mimic_tsne(ctx, x, &cfg, &y, NULL), MIMIC_EINVAL);
    assert_message(ctx, "init: a map of shape [12,3], expected [12,2]");
    cfg = (mimic_tsne_config){.perplexity = 3, .progress = stop_at, .user = &calls};
    assert_int_equal(mimic_tsne(ctx, x, &cfg, &y, NULL), MIMIC_ESTATE);
    assert_message(ctx, "stopped after 100");
    cfg = (mimic_tsne_config){.perplexity = 3, .eta = 1e300};
    assert_int_equal(mimic_tsne(ctx, x, &cfg, &y, NULL), MIMIC_ENUMERIC);
    double nan[9] = {0, 1, 2, 3, 4, 5, 6, 7, NAN};
    ok(ctx, mimic_tensor_from(ctx, MIMIC_F64, 2, (int64_t[]){3, 3}, nan, &bad));
    cfg = (mimic_tsne_config){.perplexity = 1};
    assert_int_equal(mimic_tsne(ctx, bad, &cfg, &y, NULL), MIMIC_ENUMERIC);
    assert_message(ctx, "value 2 of point 2 is nan");
    assert_null(y);
    assert_int_equal(mimic_silhouette(ctx, x, labels, MIMIC_EUCLIDEAN, &v), MIMIC_EINVAL);
    assert_message(ctx, "two are needed");
    assert_int_equal(mimic_knn_accuracy(ctx, x, labels, NULL, NULL, 12, MIMIC_EUCLIDEAN, &v),
                     MIMIC_EINVAL);
    assert_message(ctx, "k = 12 of 11");
    assert_int_equal(mimic_knn_accuracy(ctx, x, x, NULL, NULL, 2, MIMIC_EUCLIDEAN, &v),
                     MIMIC_EINVAL);
    assert_message(ctx, "expected i32 [12]");
    mimic_tensor_release(x);
    mimic_tensor_release(bad);
    mimic_tensor_release(labels);
}

/* Points on a line whose scores are known by hand: 0 1 | 4 6 | 20, classes 0 0 1 1 2. */
static void test_scores_by_hand(void **state) {
    (void)state;
    float at[] = {0, 1, 100, 4, 6, 20};
    int32_t label[] = {0, 0, -1, 1, 1, 2};
    mimic_tensor *x = NULL, *y = NULL;
    double v;
    ok(ctx, mimic_tensor_from(ctx, MIMIC_F32, 2, (int64_t[]){6, 1}, at, &x));
    ok(ctx, mimic_tensor_from(ctx, MIMIC_I32, 1, (int64_t[]){6}, label, &y));
    ok(ctx, mimic_silhouette(ctx, x, y, MIMIC_EUCLIDEAN, &v));
    double expected = ((5 - 1) / 5.0 + (4 - 1) / 4.0 + (3.5 - 2) / 3.5 + (5.5 - 2) / 5.5 + 0) / 5;
    assert_true(fabs(v - expected) < 1e-12);
    /* k = 1: 0-1 and 4-6 find each other; 20 finds 6. k = 3: 0 {1,4,6} -> 1; 1 {0,4,6} -> 1;
     * 4 {6,1,0} -> 0; 6 {4,1,0} -> 0; 20 {6,4,1} -> 1. k = 2: 0 {1,4}: a draw, the nearest wins. */
    static const double shares[] = {0.8, 0.8, 0};
    for (int k = 1; k <= 3; k++) {
        ok(ctx, mimic_knn_accuracy(ctx, x, y, NULL, NULL, k, MIMIC_EUCLIDEAN, &v));
        assert_true(v == shares[k - 1]);
    }
    /* Against a reference the point itself counts. */
    ok(ctx, mimic_knn_accuracy(ctx, x, y, x, y, 1, MIMIC_EUCLIDEAN, &v));
    assert_true(v == 1);
    mimic_tensor_release(x);
    mimic_tensor_release(y);
}

static void test_silhouette_of_all_pairs(void **state) {
    (void)state;
    enum { N = 90, D = 5, C = 4 };
    mimic_tensor *x = cloud(N, D, C, 0.8), *y = classes_of(N, C, 9);
    double data[N][D], expected[2] = {0, 0}, v;
    int32_t label[N];
    int used = 0;
    ok(ctx, mimic_tensor_read(ctx, x, MIMIC_F64, data, N * D));
    ok(ctx, mimic_tensor_read(ctx, y, MIMIC_I32, label, N));
    for (int i = 0; i < N; i++) {
        if (label[i] < 0)
            continue;
        used++;
        for (int metric = 0; metric < 2; metric++) {
            double sum[C] = {0}, count[C] = {0}, b = INFINITY;
            for (int j = 0; j < N; j++) {
                double d2 = 0, dot = 0, ni = 0, nj = 0;
                if (label[j] < 0 || j == i)
                    continue;
                for (int k = 0; k < D; k++) {
                    d2 += (data[i][k] - data[j][k]) * (data[i][k] - data[j][k]);
                    dot += data[i][k] * data[j][k];
                    ni += data[i][k] * data[i][k];
                    nj += data[j][k] * data[j][k];
                }
                sum[label[j]] += metric ? 1 - dot / sqrt(ni * nj) : sqrt(d2);
                count[label[j]]++;
            }
            for (int k = 0; k < C; k++)
                if (k != label[i])
                    b = fmin(b, sum[k] / count[k]);
            double a = sum[label[i]] / count[label[i]];
            expected[metric] += (b - a) / fmax(a, b);
        }
    }
    for (int metric = 0; metric < 2; metric++) {
        ok(ctx, mimic_silhouette(ctx, x, y, (mimic_metric)metric, &v));
        assert_true(fabs(v - expected[metric] / used) < 1e-12);
    }
    mimic_tensor_release(x);
    mimic_tensor_release(y);
}

static void test_every_allocation_may_fail(void **state) {
    (void)state;
    mimic_tensor *x = cloud(40, 4, 2, 0.5), *labels = classes_of(40, 2, 0), *y = NULL, *beta = NULL,
                 *g = NULL;
    double v;
    int64_t live = mimic_alloc_live(ctx);
    for (int what = 0; what < 5; what++) {
        mimic_status s = MIMIC_ENOMEM;
        int n = 0;
        while (s != MIMIC_OK) {
            mimic_fail_alloc(ctx, ++n, false);
            mimic_tsne_config cfg = {.perplexity = 5, .theta = what ? 0.5 : 0, .iterations = 5};
            if (what < 2)
                s = mimic_tsne(ctx, x, &cfg, &y, NULL);
            else if (what == 2)
                s = mimic_tsne_affinities(ctx, x, 5, &y, &beta);
            else if (what == 3)
                s = mimic_silhouette(ctx, x, labels, MIMIC_COSINE, &v);
            else
                s = mimic_knn_accuracy(ctx, x, labels, x, labels, 3, MIMIC_COSINE, &v);
            mimic_fail_alloc(ctx, 0, false);
            assert_true(s == MIMIC_OK || s == MIMIC_ENOMEM);
            assert_true(n < 200);
            if (s == MIMIC_OK && what == 2)
                ok(ctx, mimic_tsne_gradient(ctx, y, x, 0.5, &g, NULL) == MIMIC_EINVAL
                            ? MIMIC_OK
                            : MIMIC_EINVAL);
            mimic_tensor_release(y);
            mimic_tensor_release(beta);
            y = beta = NULL;
            assert_int_equal(mimic_alloc_live(ctx), live);
        }
        assert_true(n > 3);
    }
    mimic_tensor_release(x);
    mimic_tensor_release(labels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_neighbours_are_those_of_all_pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_affinities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gradient, setup, teardown),
        cmocka_unit_test_setup_teardown(test_coinciding_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scores_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silhouette_of_all_pairs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_allocation_may_fail, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Numbers for how well labels separate in a feature space: silhouette, k-NN accuracy. */
#include "analysis/analysis_impl.h"

#include <math.h>
#include <string.h>

typedef struct labelled {
    mimic_points p;
    int32_t *label; /* [n] */
    int classes;
} labelled;

static void labelled_free(labelled *l) {
    mimic_free(l->p.ctx, l->label);
    mimic_points_free(&l->p);
}

/* Points and labels, those labelled -1 left out. */
static mimic_status labelled_read(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tensor *labels,
                                  const char *who, mimic_metric metric, labelled *out) {
    *out = (labelled){0};
    if (metric != MIMIC_EUCLIDEAN && metric != MIMIC_COSINE)
        return mimic_fail(ctx, MIMIC_EINVAL, "%s: metric %d", who, (int)metric);
    mimic_status s = mimic_points_read(ctx, x, who, 1, &out->p);
    if (s == MIMIC_OK)
        s = mimic_tensor_check(ctx, labels, who);
    if (s != MIMIC_OK)
        goto done;
    int64_t n = out->p.n, kept = 0, stride = out->p.stride;
    if (labels->dtype != MIMIC_I32 || labels->rank != 1 || labels->shape[0] != n) {
        char shape[96];
        s = mimic_fail(ctx, MIMIC_EINVAL, "%s: labels %s %s, expected i32 [%lld]", who,
                       mimic_dtype_name(labels->dtype),
                       mimic_shape_text(labels->rank, labels->shape, shape, sizeof shape),
                       (long long)n);
        goto done;
    }
    out->label = mimic_alloc(ctx, (size_t)n * sizeof *out->label);
    s = out->label ? mimic_tensor_read(ctx, labels, MIMIC_I32, out->label, n) : MIMIC_ENOMEM;
    for (int64_t i = 0; s == MIMIC_OK && i < n; i++) {
        int32_t k = out->label[i];
        if (k < 0)
            continue;
        if (k > 1 << 24) {
            s = mimic_fail(ctx, MIMIC_EINVAL, "%s: label %d of point %lld", who, k, (long long)i);
            break;
        }
        out->classes = k >= out->classes ? k + 1 : out->classes;
        out->label[kept] = k;
        memmove(out->p.x + kept * stride, out->p.x + i * stride, (size_t)stride * sizeof(double));
        kept++;
    }
    out->p.n = kept;
    if (s == MIMIC_OK && metric == MIMIC_COSINE)
        mimic_points_unit(&out->p);
done:
    if (s != MIMIC_OK)
        labelled_free(out);
    return s;
}

typedef struct silhouettes {
    const labelled *l;
    mimic_metric metric;
    const int64_t *count; /* [classes] */
    double *sums;         /* [threads,classes] */
    double *value;        /* [n] */
} silhouettes;

static void silhouette_of(void *arg, int64_t i, int worker) {
    const silhouettes *s = arg;
    const labelled *l = s->l;
    double *sum = s->sums + (int64_t)worker * l->classes;
    int own = l->label[i];
    memset(sum, 0, (size_t)l->classes * sizeof *sum);
    for (int64_t j = 0; j < l->p.n; j++) {
        double d2 = mimic_distance2(&l->p, i, &l->p, j);
        sum[l->label[j]] += s->metric == MIMIC_COSINE ? d2 / 2 : sqrt(d2); /* |a-b|^2/2 = 1-cos */
    }
    double nearest = INFINITY;
    for (int k = 0; k < l->classes; k++)
        if (k != own && s->count[k] > 0)
            nearest = fmin(nearest, sum[k] / (double)s->count[k]);
    double inner = s->count[own] > 1 ? sum[own] / (double)(s->count[own] - 1) : 0;
    double larger = fmax(inner, nearest);
    s->value[i] = s->count[own] > 1 && larger > 0 ? (nearest - inner) / larger : 0;
}

mimic_status mimic_silhouette(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tensor *labels,
                              mimic_metric metric, double *out) {
    labelled l;
    silhouettes v = {.l = &l, .metric = metric};
    int64_t *count = NULL, classes = 0;
    mimic_status s = labelled_read(ctx, x, labels, "silhouette", metric, &l);
    if (s != MIMIC_OK)
        return s;
    size_t k = (size_t)l.classes;
    v.count = count = mimic_calloc(ctx, (k + 1) * sizeof *count);
    v.sums = mimic_alloc(ctx, (k * (size_t)mimic_threads(ctx) + 1) * sizeof *v.sums);
    v.value = mimic_alloc(ctx, ((size_t)l.p.n + 1) * sizeof *v.value);
    if (!count || !v.sums || !v.value) {
        s = MIMIC_ENOMEM;
        goto done;
    }
    for (int64_t i = 0; i < l.p.n; i++)
        classes += count[l.label[i]]++ == 0;
    if (classes < 2) {
        s = mimic_fail(ctx, MIMIC_EINVAL, "silhouette: points of %lld class: two are needed",
                       (long long)classes);
        goto done;
    }
    mimic_parallel(ctx, l.p.n, silhouette_of, &v);
    *out = 0;
    for (int64_t i = 0; i < l.p.n; i++)
        *out += v.value[i];
    *out /= (double)l.p.n;
done:
    mimic_free(ctx, count);
    mimic_free(ctx, v.sums);
    mimic_free(ctx, v.value);
    labelled_free(&l);
    return s;
}

typedef struct neighbour {
    double distance2;
    int64_t index;
} neighbour;

typedef struct votes {
    const labelled *l, *reference;
    int k;
    bool same;        /* the reference is l itself */
    neighbour *near;  /* [threads,k] */
    uint8_t *correct; /* [n] */
} votes;

static void vote(void *arg, int64_t i, int worker) {
    const votes *v = arg;
    const labelled *r = v->reference;
    neighbour *near = v->near + (int64_t)worker * v->k;
    int found = 0;
    for (int64_t j = 0; j < r->p.n; j++) {
        if (v->same && j == i)
            continue;
        double d2 = mimic_distance2(&v->l->p, i, &r->p, j);
        if (found == v->k && d2 >= near[found - 1].distance2)
            continue;
        int at = found < v->k ? found++ : found - 1;
        for (; at > 0 && near[at - 1].distance2 > d2; at--)
            near[at] = near[at - 1];
        near[at] = (neighbour){d2, j};
    }
    int best = -1, best_count = 0;
    for (int a = 0; a < found; a++) { /* in order of distance: an equal count later does not win */
        int label = r->label[near[a].index], count = 0;
        for (int b = 0; b < found; b++)
            count += r->label[near[b].index] == label;
        if (count > best_count) {
            best = label;
            best_count = count;
        }
    }
    v->correct[i] = best == v->l->label[i];
}

mimic_status mimic_knn_accuracy(mimic_ctx *ctx, const mimic_tensor *x, const mimic_tensor *labels,
                                const mimic_tensor *reference, const mimic_tensor *reference_labels,
                                int k, mimic_metric metric, double *out) {
    static const char who[] = "k-NN accuracy";
    labelled l = {0}, other = {0};
    votes v = {.l = &l, .reference = reference ? &other : &l, .k = k, .same = !reference};
    mimic_status s = MIMIC_OK;
    if (!reference != !reference_labels)
        s = mimic_fail(ctx, MIMIC_EINVAL, "%s: a reference needs both points and labels", who);
    if (s == MIMIC_OK)
        s = labelled_read(ctx, x, labels, who, metric, &l);
    if (s == MIMIC_OK && reference)
        s = labelled_read(ctx, reference, reference_labels, who, metric, &other);
    if (s == MIMIC_OK && reference && x->shape[1] != reference->shape[1])
        s = mimic_fail(ctx, MIMIC_EINVAL, "%s: points of %lld dims, reference of %lld", who,
                       (long long)x->shape[1], (long long)reference->shape[1]);
    int64_t others = v.reference->p.n - (v.same ? 1 : 0);
    if (s == MIMIC_OK && (k < 1 || k > others || l.p.n < 1))
        s = mimic_fail(ctx, MIMIC_EINVAL, "%s: k = %d of %lld labelled neighbours", who, k,
                       (long long)others);
    if (s != MIMIC_OK)
        goto done;
    v.near = mimic_alloc(ctx, (size_t)k * (size_t)mimic_threads(ctx) * sizeof *v.near);
    v.correct = mimic_alloc(ctx, (size_t)l.p.n);
    if (!v.near || !v.correct) {
        s = MIMIC_ENOMEM;
        goto done;
    }
    mimic_parallel(ctx, l.p.n, vote, &v);
    int64_t correct = 0;
    for (int64_t i = 0; i < l.p.n; i++)
        correct += v.correct[i];
    *out = (double)correct / (double)l.p.n;
done:
    mimic_free(ctx, v.near);
    mimic_free(ctx, v.correct);
    labelled_free(&l);
    labelled_free(&other);
    return s;
}

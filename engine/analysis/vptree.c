/* Nearest neighbours by a vantage-point tree (Yianilos 1993). A subtree is skipped only when the
 * triangle inequality, with room for rounding, rules it out, so the answer is that of comparing all
 * pairs. */
#include "analysis/analysis_impl.h"

#include <math.h>
#include <string.h>

/* Node at position `lo` of order[lo..hi): its point is order[lo]; those with distance < radius are
 * (lo, mid), the others [mid, hi), mid = (lo + 1 + hi) / 2. So positions alone describe the tree.
 */
typedef struct tree {
    const mimic_points *p;
    int32_t *order;
    double *radius; /* by position */
    double *key;    /* distances while a node is made, by position */
    int k;
    int32_t *index;    /* [n,k] */
    double *distance2; /* [n,k] */
} tree;

static void swap(tree *t, int64_t a, int64_t b) {
    int32_t i = t->order[a];
    double d = t->key[a];
    t->order[a] = t->order[b];
    t->key[a] = t->key[b];
    t->order[b] = i;
    t->key[b] = d;
}

static bool less(const tree *t, int64_t a, double key, int32_t order) {
    return t->key[a] < key || (t->key[a] == key && t->order[a] < order);
}

/* Partial sort of [lo, hi) by (key, index): the nth smallest comes to position nth. */
static void select_nth(tree *t, int64_t lo, int64_t hi, int64_t nth) {
    while (hi - lo > 1) {
        swap(t, lo + (hi - lo) / 2, hi - 1);
        double key = t->key[hi - 1];
        int32_t order = t->order[hi - 1];
        int64_t at = lo;
        for (int64_t i = lo; i < hi - 1; i++)
            if (less(t, i, key, order))
                swap(t, i, at++);
        swap(t, at, hi - 1);
        if (at == nth)
            return;
        if (nth < at)
            hi = at;
        else
            lo = at + 1;
    }
}

/* Makes the nodes of [lo, hi): depth is log2(n), as halves are taken by rank. */
static void build(tree *t, int64_t lo, int64_t hi, mimic_rng *rng) {
    if (hi - lo < 2)
        return;
    swap(t, lo, lo + mimic_rng_below(rng, (uint32_t)(hi - lo)));
    int64_t mid = (lo + 1 + hi) / 2;
    for (int64_t i = lo + 1; i < hi; i++)
        t->key[i] = sqrt(mimic_distance2(t->p, t->order[lo], t->p, t->order[i]));
    select_nth(t, lo + 1, hi, mid);
    t->radius[lo] = t->key[mid];
    build(t, lo + 1, mid, rng);
    build(t, mid, hi, rng);
}

typedef struct query {
    const tree *t;
    int64_t point;
    int found;
    int32_t *index; /* sorted by (distance, index) */
    double *distance2;
    double reach; /* distance of the worst one kept, infinite until k are found */
} query;

static void offer(query *q, int32_t i, double d2) {
    int at = q->found < q->t->k ? q->found : q->t->k;
    while (at > 0 &&
           (q->distance2[at - 1] > d2 || (q->distance2[at - 1] == d2 && q->index[at - 1] > i)))
        at--;
    if (at == q->t->k)
        return;
    q->found += q->found < q->t->k;
    size_t after = (size_t)(q->found - 1 - at);
    memmove(q->index + at + 1, q->index + at, after * sizeof *q->index);
    memmove(q->distance2 + at + 1, q->distance2 + at, after * sizeof *q->distance2);
    q->index[at] = i;
    q->distance2[at] = d2;
    if (q->found == q->t->k)
        q->reach = sqrt(q->distance2[q->t->k - 1]);
}

static void search(query *q, int64_t lo, int64_t hi) {
    const tree *t = q->t;
    if (lo >= hi)
        return;
    double d2 = mimic_distance2(t->p, q->point, t->p, t->order[lo]), d = sqrt(d2);
    if (t->order[lo] != q->point)
        offer(q, t->order[lo], d2);
    if (hi - lo < 2)
        return;
    int64_t mid = (lo + 1 + hi) / 2;
    double r = t->radius[lo], slack = 1e-12 * (d + r);
    bool inside_first = d < r;
    for (int turn = 0; turn < 2; turn++) {
        bool inside = (turn == 0) == inside_first;
        if (inside && d - q->reach <= r + slack)
            search(q, lo + 1, mid);
        if (!inside && d + q->reach >= r - slack)
            search(q, mid, hi);
    }
}

static void nearest_of(void *arg, int64_t i, int worker) {
    (void)worker;
    const tree *t = arg;
    query q = {.t = t,
               .point = i,
               .index = t->index + i * t->k,
               .distance2 = t->distance2 + i * t->k,
               .reach = INFINITY};
    search(&q, 0, t->p->n);
}

mimic_status mimic_nearest(const mimic_points *p, int k, int32_t *index, double *distance2) {
    size_t n = (size_t)p->n;
    tree t = {.p = p, .k = k, .index = index, .distance2 = distance2};
    t.order = mimic_alloc(p->ctx, n * sizeof *t.order);
    t.radius = mimic_calloc(p->ctx, n * sizeof *t.radius);
    t.key = mimic_calloc(p->ctx, n * sizeof *t.key);
    mimic_status s = t.order && t.radius && t.key ? MIMIC_OK : MIMIC_ENOMEM;
    if (s == MIMIC_OK) {
        mimic_rng rng;
        mimic_rng_init(&rng, 0, 0, 0); /* the choice of vantage points does not change the answer */
        for (int64_t i = 0; i < p->n; i++)
            t.order[i] = (int32_t)i;
        build(&t, 0, p->n, &rng);
        mimic_parallel(p->ctx, p->n, nearest_of, &t);
    }
    mimic_free(p->ctx, t.order);
    mimic_free(p->ctx, t.radius);
    mimic_free(p->ctx, t.key);
    return s;
}

/* The quad-tree of Barnes-Hut t-SNE: far groups of points push like one heavy point. */
#include "analysis/analysis_impl.h"

#include <math.h>
#include <string.h>

enum { MAX_DEPTH = 48, STACK = 4 * MAX_DEPTH };

typedef struct cell {
    double x, y, half;   /* centre and half of a side */
    double sum_x, sum_y; /* of its points; after the build their mean */
    int32_t count, depth;
    int32_t child; /* first of four, or -1 for a leaf */
    int32_t point; /* leaf: one of its points (they coincide, or lie too near to part) */
} cell;

struct mimic_quadtree {
    mimic_ctx *ctx;
    int64_t n, used, room;
    cell *cells;
    int32_t *leaf; /* [n] the leaf that holds point i */
    const double *x, *y;
};

mimic_status mimic_quadtree_new(mimic_ctx *ctx, int64_t n, mimic_quadtree **out) {
    *out = NULL;
    mimic_quadtree *t = mimic_calloc(ctx, sizeof *t);
    if (!t)
        return MIMIC_ENOMEM;
    t->ctx = ctx;
    t->n = n;
    t->leaf = mimic_alloc(ctx, (size_t)n * sizeof *t->leaf);
    if (!t->leaf) {
        mimic_quadtree_free(t);
        return MIMIC_ENOMEM;
    }
    *out = t;
    return MIMIC_OK;
}

void mimic_quadtree_free(mimic_quadtree *t) {
    if (!t)
        return;
    mimic_free(t->ctx, t->cells);
    mimic_free(t->ctx, t->leaf);
    mimic_free(t->ctx, t);
}

/* Four children of cell c, empty. */
static mimic_status split(mimic_quadtree *t, int32_t c) {
    if (t->used + 4 > t->room) {
        int64_t room = t->room * 2 + 1024;
        cell *cells = mimic_realloc(t->ctx, t->cells, (size_t)t->room * sizeof *cells,
                                    (size_t)room * sizeof *cells);
        if (!cells)
            return MIMIC_ENOMEM;
        t->cells = cells;
        t->room = room;
    }
    cell *parent = &t->cells[c];
    parent->child = (int32_t)t->used;
    for (int k = 0; k < 4; k++) {
        double half = parent->half / 2;
        t->cells[t->used++] = (cell){.x = parent->x + (k & 1 ? half : -half),
                                     .y = parent->y + (k & 2 ? half : -half),
                                     .half = half,
                                     .depth = parent->depth + 1,
                                     .child = -1};
    }
    return MIMIC_OK;
}

static int32_t child_of(const mimic_quadtree *t, const cell *c, int64_t i) {
    return c->child + (t->x[i] > c->x) + 2 * (t->y[i] > c->y);
}

static mimic_status insert(mimic_quadtree *t, int32_t i) {
    int32_t at = 0;
    for (;;) {
        cell *c = &t->cells[at];
        if (c->child < 0) {
            int32_t other = c->point;
            bool together = c->count > 0 && ((t->x[i] == t->x[other] && t->y[i] == t->y[other]) ||
                                             c->depth == MAX_DEPTH);
            if (c->count == 0 || together) {
                if (c->count == 0)
                    c->point = i;
                c->count++;
                c->sum_x += t->x[i];
                c->sum_y += t->y[i];
                t->leaf[i] = at;
                return MIMIC_OK;
            }
            mimic_status s = split(t, at); /* hands its points down */
            if (s != MIMIC_OK)
                return s;
            c = &t->cells[at];
            cell *down = &t->cells[child_of(t, c, other)];
            down->point = other;
            down->count = c->count;
            down->sum_x = c->sum_x;
            down->sum_y = c->sum_y;
        }
        c->count++;
        c->sum_x += t->x[i];
        c->sum_y += t->y[i];
        at = child_of(t, c, i);
    }
}

mimic_status mimic_quadtree_build(mimic_quadtree *t, const double *x, const double *y) {
    double lo[2] = {x[0], y[0]}, hi[2] = {x[0], y[0]};
    t->x = x;
    t->y = y;
    for (int64_t i = 1; i < t->n; i++) {
        lo[0] = fmin(lo[0], x[i]);
        hi[0] = fmax(hi[0], x[i]);
        lo[1] = fmin(lo[1], y[i]);
        hi[1] = fmax(hi[1], y[i]);
    }
    cell root = {.x = (lo[0] + hi[0]) / 2,
                 .y = (lo[1] + hi[1]) / 2,
                 .half = fmax(hi[0] - lo[0], hi[1] - lo[1]) / 2 * (1 + 1e-9) + 1e-300,
                 .child = -1};
    cell *cells = t->cells;
    if (t->room == 0) {
        cells = mimic_alloc(t->ctx, 1024 * sizeof *cells);
        if (!cells)
            return MIMIC_ENOMEM;
        t->cells = cells;
        t->room = 1024;
    }
    cells[0] = root;
    t->used = 1;
    mimic_status s = MIMIC_OK;
    for (int64_t i = 0; i < t->n && s == MIMIC_OK; i++)
        s = insert(t, (int32_t)i);
    for (int64_t c = 0; c < t->used; c++)
        if (t->cells[c].count > 0) {
            t->cells[c].sum_x /= t->cells[c].count;
            t->cells[c].sum_y /= t->cells[c].count;
        }
    /* Handing down moves points that were in a leaf: their leaf is found last. */
    for (int64_t i = 0; i < t->n && s == MIMIC_OK; i++) {
        int32_t at = t->leaf[i];
        while (t->cells[at].child >= 0)
            at = child_of(t, &t->cells[at], i);
        t->leaf[i] = at;
    }
    return s;
}

void mimic_quadtree_push(const mimic_quadtree *t, int64_t i, double theta, double *push_x,
                         double *push_y, double *z) {
    int32_t stack[STACK], top = 0;
    double fx = 0, fy = 0, sum = 0, limit = theta * theta;
    stack[top++] = 0;
    while (top > 0) {
        int32_t at = stack[--top];
        const cell *c = &t->cells[at];
        double dx = t->x[i] - c->sum_x, dy = t->y[i] - c->sum_y, d2 = dx * dx + dy * dy;
        double side = 2 * c->half;
        if (c->child >= 0 && side * side >= limit * d2) {
            for (int k = 3; k >= 0; k--)
                if (t->cells[c->child + k].count > 0)
                    stack[top++] = c->child + k;
            continue;
        }
        int count = c->count;
        if (at == t->leaf[i]) { /* its other points lie where i lies: q = 1, no push */
            sum += count - 1;
            continue;
        }
        double q = 1 / (1 + d2), w = count * q;
        sum += w;
        w *= q;
        fx += w * dx;
        fy += w * dy;
    }
    *push_x = fx;
    *push_y = fy;
    *z = sum;
}

/* The batch axes of a matmul, for every backend. */
#ifndef MIMIC_BATCH_AXES_H
#define MIMIC_BATCH_AXES_H

#include "ops/op_impl.h"

/* One batch axis: its size and the elements from one item to the next in a, b and c. */
typedef struct batch_axis {
    int64_t n, sa, sb, sc;
} batch_axis;

/* The batch axes of the call, innermost first, neighbours that walk evenly merged. Returns how
 * many. */
static inline int batch_axes(const mimic_call *c, batch_axis *axes) {
    const mimic_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    int64_t sa = a->shape[a->rank - 1] * a->shape[a->rank - 2];
    int64_t sb = b->shape[b->rank - 1] * b->shape[b->rank - 2];
    int64_t sc = y->shape[y->rank - 1] * y->shape[y->rank - 2];
    int count = 0;
    for (int i = 3; i <= y->rank; i++) {
        batch_axis x = {y->shape[y->rank - i], 0, 0, sc};
        int64_t na = i <= a->rank ? a->shape[a->rank - i] : 1;
        int64_t nb = i <= b->rank ? b->shape[b->rank - i] : 1;
        x.sa = na == 1 ? 0 : sa;
        x.sb = nb == 1 ? 0 : sb;
        sa *= na;
        sb *= nb;
        sc *= x.n;
        batch_axis *last = count > 0 ? &axes[count - 1] : NULL;
        if (x.n == 1)
            continue;
        if (last && x.sa == last->sa * last->n && x.sb == last->sb * last->n)
            last->n *= x.n;
        else
            axes[count++] = x;
    }
    return count;
}

/* Where item `o` of the axes behind the first one lies: elements into a, b and c. */
static inline void batch_offsets(const batch_axis *axes, int count, int64_t o, int64_t at[3]) {
    at[0] = at[1] = at[2] = 0;
    for (int i = 1; i < count; i++) {
        int64_t k = o % axes[i].n;
        o /= axes[i].n;
        at[0] += k * axes[i].sa;
        at[1] += k * axes[i].sb;
        at[2] += k * axes[i].sc;
    }
}

#endif

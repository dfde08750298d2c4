/* Elementwise kernels: one operand (scale, exp, ...), two of equal shape (gradients of relu and
 * gelu), two with broadcasting (add, sub, mul, div). One pass, bound by memory. */
#ifdef T
#include "backend/cpu/activations.h"

/* The arithmetic; `code` is a constant wherever this is used, so the switch disappears. */
static inline __attribute__((always_inline)) VEC NAME(apply)(int code, VEC a, VEC b, REAL p,
                                                             REAL q) {
    switch (code) {
    case SCALE:
        return a * p + q;
    case EXP:
        return vexp(a);
    case LOG:
        return vlog(a);
    case SQRT:
        return vsqrt(a);
    case RELU:
        return NAME(activate)(a, GEMM_ACT_RELU);
    case GELU:
        return NAME(activate)(a, GEMM_ACT_GELU);
    case GELU_TANH:
        return NAME(activate)(a, GEMM_ACT_GELU_TANH);
    case ADD:
        return a + b;
    case SUB:
        return a - b;
    case MUL:
        return a * b;
    case DIV:
        return a / b;
    case RELU_BWD:
        return vsel(b > 0, a, VSET(0));
    case GELU_BWD:
        return a * NAME(slope)(b, GEMM_ACT_GELU);
    default: /* GELU_TANH_BWD */
        return a * NAME(slope)(b, GEMM_ACT_GELU_TANH);
    }
}

/* y[i] = apply(a[i], b[i]); the operand that `still` names has one element that is used throughout.
 */
static inline __attribute__((always_inline)) void
NAME(run)(int code, int still, const T *a, const T *b, T *y, int64_t n, REAL p, REAL q) {
    bool two = code >= ADD;
    VEC va = still == STILL_A ? VSET(GET(*a)) : VSET(0);
    VEC vb = still == STILL_B ? VSET(GET(*b)) : VSET(0);
    int64_t i = 0;
    for (; i + W <= n; i += W) {
        if (still != STILL_A)
            va = LOAD(a + i);
        if (two && still != STILL_B)
            vb = LOAD(b + i);
        STORE(y + i, NAME(apply)(code, va, vb, p, q));
    }
    if (i < n) {
        if (still != STILL_A)
            va = LOADN(a + i, n - i);
        if (two && still != STILL_B)
            vb = LOADN(b + i, n - i);
        STOREN(y + i, NAME(apply)(code, va, vb, p, q), n - i);
    }
}

static void NAME(span)(int code, int still, const void *a_, const void *b_, void *y_, int64_t ia,
                       int64_t ib, int64_t iy, int64_t n, double p_, double q_) {
    const T *a = (const T *)a_ + ia, *b = b_ ? (const T *)b_ + ib : NULL;
    T *y = (T *)y_ + iy;
    REAL p = (REAL)p_, q = (REAL)q_;
    switch (code * 3 + still) {
#define RUN(code, still)                                                                           \
    case (code)*3 + (still):                                                                       \
        NAME(run)(code, still, a, b, y, n, p, q);                                                  \
        break;
#define RUN_FLAT(code) RUN(code, 0)
#define RUN_ALL(code) RUN(code, 0) RUN(code, STILL_A) RUN(code, STILL_B)
        UNARY(RUN_FLAT) BINARY(RUN_ALL) BACKWARD(RUN_FLAT)
#undef RUN_ALL
#undef RUN_FLAT
#undef RUN
    }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/gemm.h"

/* From ADD on they have two operands. */
#define UNARY(X) X(SCALE) X(EXP) X(LOG) X(SQRT) X(RELU) X(GELU) X(GELU_TANH)
#define BINARY(X) X(ADD) X(SUB) X(MUL) X(DIV)
#define BACKWARD(X) X(RELU_BWD) X(GELU_BWD) X(GELU_TANH_BWD)
#define CODE(name) name,
enum { UNARY(CODE) BINARY(CODE) BACKWARD(CODE) };
enum { STILL_A = 1, STILL_B = 2 };

#define FAMILY "backend/cpu/elementwise.c"
#include "backend/cpu/each_float.h"

typedef void (*span_fn)(int code, int still, const void *a, const void *b, void *y, int64_t ia,
                        int64_t ib, int64_t iy, int64_t n, double p, double q);

/* Output axes, merged where both operands run on; strides 0 where an operand is repeated. */
typedef struct plan {
    span_fn span;
    int code, rank;
    const void *a, *b;
    void *y;
    int64_t n[MIMIC_MAX_RANK], sa[MIMIC_MAX_RANK], sb[MIMIC_MAX_RANK];
    int64_t rows, len, per; /* per: rows of a chunk, or elements when there is one row */
    double p, q;
} plan;

static void flat_chunk(void *arg, int64_t i, int worker) {
    const plan *p = arg;
    int64_t first = i * p->per, n = chunk_end(i, p->per, p->len) - first;
    int still = p->rank == 0 || (p->sa[0] && p->sb[0]) ? 0 : p->sa[0] == 0 ? STILL_A : STILL_B;
    (void)worker;
    p->span(p->code, still, p->a, p->b, p->y, still == STILL_A ? 0 : first,
            still == STILL_B ? 0 : first, first, n, p->p, p->q);
}

static void rows_chunk(void *arg, int64_t i, int worker) {
    const plan *p = arg;
    int last = p->rank - 1;
    int still = p->sa[last] == 0 ? STILL_A : p->sb[last] == 0 ? STILL_B : 0;
    int64_t at[MIMIC_MAX_RANK], ia = 0, ib = 0, end = chunk_end(i, p->per, p->rows);
    int64_t rest = i * p->per;
    (void)worker;
    for (int k = last - 1; k >= 0; k--) {
        at[k] = rest % p->n[k];
        rest /= p->n[k];
        ia += at[k] * p->sa[k];
        ib += at[k] * p->sb[k];
    }
    for (int64_t r = i * p->per; r < end; r++) {
        p->span(p->code, still, p->a, p->b, p->y, ia, ib, r * p->len, p->len, p->p, p->q);
        for (int k = last - 1; k >= 0; k--) {
            ia += p->sa[k];
            ib += p->sb[k];
            if (++at[k] < p->n[k])
                break;
            ia -= at[k] * p->sa[k];
            ib -= at[k] * p->sb[k];
            at[k] = 0;
        }
    }
}

static mimic_status run_flat(mimic_call *c, int code, double p, double q) {
    const mimic_tensor *a = c->in[0];
    plan w; /* of the axes nothing is read, nor written: small calls are many */
    w.span = BY_FLOAT(a->dtype, span);
    w.code = code;
    w.rank = 0;
    w.a = mimic_data(a);
    w.b = c->n_in > 1 ? mimic_data(c->in[1]) : NULL;
    w.y = mimic_data(c->out[0]);
    w.len = mimic_numel(a);
    w.per = chunk_rows(w.len, 1);
    w.p = p;
    w.q = q;
    mimic_parallel(c->ctx, chunk_count(w.len, w.per), flat_chunk, &w);
    return MIMIC_OK;
}

static bool same_shape(const mimic_tensor *a, const mimic_tensor *b) {
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++)
        same = a->shape[i] == b->shape[i];
    return same;
}

static mimic_status run_binary(mimic_call *c, int code) {
    const mimic_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    if (same_shape(a, b))
        return run_flat(c, code, 0, 0);
    plan w = {.span = BY_FLOAT(a->dtype, span),
              .code = code,
              .a = mimic_data(a),
              .b = mimic_data(b),
              .y = mimic_data(y)};
    int64_t pa = 1, pb = 1, n[MIMIC_MAX_RANK], sa[MIMIC_MAX_RANK], sb[MIMIC_MAX_RANK];
    if (mimic_numel(y) == 0)
        return MIMIC_OK;
    for (int i = 0; i < y->rank; i++) { /* from the right */
        int64_t da = i < a->rank ? a->shape[a->rank - 1 - i] : 1;
        int64_t db = i < b->rank ? b->shape[b->rank - 1 - i] : 1;
        int k = y->rank - 1 - i;
        n[k] = y->shape[k];
        sa[k] = da == 1 ? 0 : pa;
        sb[k] = db == 1 ? 0 : pb;
        pa *= da;
        pb *= db;
    }
    for (int k = 0; k < y->rank; k++) {
        int r = w.rank;
        if (n[k] == 1)
            continue;
        if (r > 0 && w.sa[r - 1] == sa[k] * n[k] && w.sb[r - 1] == sb[k] * n[k]) {
            w.n[r - 1] *= n[k];
            w.sa[r - 1] = sa[k];
            w.sb[r - 1] = sb[k];
            continue;
        }
        w.n[r] = n[k];
        w.sa[r] = sa[k];
        w.sb[r] = sb[k];
        w.rank++;
    }
    w.rows = 1;
    w.len = w.rank ? w.n[w.rank - 1] : 1;
    for (int k = 0; k < w.rank - 1; k++)
        w.rows *= w.n[k];
    if (w.rows == 1) {
        w.per = chunk_rows(w.len, 1);
        mimic_parallel(c->ctx, chunk_count(w.len, w.per), flat_chunk, &w);
    } else {
        w.per = chunk_rows(w.rows, w.len);
        mimic_parallel(c->ctx, chunk_count(w.rows, w.per), rows_chunk, &w);
    }
    return MIMIC_OK;
}

mimic_status KERNEL(add)(mimic_call *c) {
    return run_binary(c, ADD);
}

mimic_status KERNEL(sub)(mimic_call *c) {
    return run_binary(c, SUB);
}

mimic_status KERNEL(mul)(mimic_call *c) {
    return run_binary(c, MUL);
}

mimic_status KERNEL(div)(mimic_call *c) {
    return run_binary(c, DIV);
}

mimic_status KERNEL(scale)(mimic_call *c) {
    return run_flat(c, SCALE, c->attrs.v[0].f, c->attrs.v[1].f);
}

mimic_status KERNEL(exp)(mimic_call *c) {
    return run_flat(c, EXP, 0, 0);
}

mimic_status KERNEL(log)(mimic_call *c) {
    return run_flat(c, LOG, 0, 0);
}

mimic_status KERNEL(sqrt)(mimic_call *c) {
    return run_flat(c, SQRT, 0, 0);
}

mimic_status KERNEL(relu)(mimic_call *c) {
    return run_flat(c, RELU, 0, 0);
}

mimic_status KERNEL(gelu)(mimic_call *c) {
    return run_flat(c, c->attrs.v[0].i ? GELU_TANH : GELU, 0, 0);
}

mimic_status KERNEL(relu_bwd)(mimic_call *c) {
    return run_flat(c, RELU_BWD, 0, 0);
}

mimic_status KERNEL(gelu_bwd)(mimic_call *c) {
    return run_flat(c, c->attrs.v[0].i ? GELU_TANH_BWD : GELU_BWD, 0, 0);
}
#endif

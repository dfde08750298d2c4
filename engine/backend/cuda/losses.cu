/* cross_entropy and masked_mse with their gradients, in f32. Each row's share is computed by
 * itself; one block adds the shares, in f64. */
#include "backend/cuda/rows.h"

enum { THREADS = 512 };

/* loss = sum(share) / weight, weight = sum(mask) (rows without a mask), each unless NULL.
 * share, mask [rows]. */
__global__ void loss_total(const float *share, const float *mask, int64_t rows, float *loss,
                           double *weight, fault f) {
    double s = 0, w = 0;
    for (int64_t r = threadIdx.x; share && r < rows; r += THREADS)
        s += (double)share[r];
    for (int64_t r = threadIdx.x; mask && r < rows; r += THREADS)
        w += (double)mask[r];
    s = block_sum(s);
    w = block_sum(w);
    if (threadIdx.x > 0)
        return;
    if (!mask)
        w = (double)rows;
    if (!(w > 0))
        f.report(0);
    if (loss)
        *loss = (float)(s / w);
    if (weight)
        *weight = w;
}

/* --- cross-entropy of logits [rows,n] --- */

/* labels [rows], or soft targets [rows,n] and labels NULL; t becomes t * keep + off. */
struct targets {
    const int32_t *labels;
    const float *soft;
    float keep, off;
};

/* share[rows] = T lse - sum_k t_k x_k (with every logit relative to the largest), lse[rows] unless
 * NULL */
template <class S>
__global__ void ce_rows(const float *x, targets t, float *share, float *lse, int64_t rows,
                        int64_t n, fault f) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    row<float, S> a(x + r * n, n);
    float top = -INFINITY, sum = 0.0f, dot = 0.0f, total = 0.0f;
    each(a, n, [&](float v, int64_t) { top = fmaxf(top, v); });
    top = group_max<S>(top, warps);
    each(a, n, [&](float v, int64_t) { sum += expf(v - top); });
    float log_sum = logf(group_sum<S>(sum, warps));
    if (t.labels) {
        int64_t label = t.labels[r];
        each(a, n, [&](float v, int64_t i) {
            if (t.off > 0.0f)
                dot += t.off * (v - top);
            if (i == label)
                dot += t.keep * (v - top);
        });
        total = 1.0f;
        if ((label < 0 || label >= n) && threadIdx.x == 0)
            f.report(r);
    } else {
        row<float, S> b(t.soft + r * n, n);
        each(a, b, n, [&](float v, float s) {
            s = s * t.keep + t.off;
            total += s;
            dot += s * (v - top);
        });
        total = group_sum<S>(total, warps);
    }
    dot = group_sum<S>(dot, warps);
    if (threadIdx.x > 0)
        return;
    share[r] = total * log_sum - dot;
    if (lse)
        lse[r] = top + log_sum;
}

/* dx[rows,n] = dloss / rows * (T softmax(x) - t) */
template <class S>
__global__ void ce_bwd_rows(const float *dloss, const float *x, targets t, const float *lse,
                            float *dx, int64_t rows, int64_t n, fault f) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    float scale = dloss[0] / (float)rows, log_sum = lse[r];
    row<float, S> a(x + r * n, n);
    if (t.labels) {
        int64_t label = t.labels[r];
        if ((label < 0 || label >= n) && threadIdx.x == 0)
            f.report(r);
        fill(dx + r * n, a, n, [&](float v, int64_t i) {
            return (expf(v - log_sum) - t.off - (i == label ? t.keep : 0.0f)) * scale;
        });
        return;
    }
    row<float, S> b(t.soft + r * n, n);
    float total = 0.0f;
    each(b, n, [&](float s, int64_t) { total += s * t.keep + t.off; });
    total = group_sum<S>(total, warps);
    fill(dx + r * n, a, b, n, [&](float v, float s) {
        return (expf(v - log_sum) * total - (s * t.keep + t.off)) * scale;
    });
}

/* --- masked squared error of patches x, t [rows,n] --- */

/* What turns a target value v into (v - mean) * rstd: statistics with unbiased variance. */
template <class S>
__device__ __forceinline__ void target_norm(const row<float, S> &t, int64_t n, float *warps,
                                            float *mean, float *rstd) {
    float s = 0.0f, q = 0.0f;
    each(t, n, [&](float v, int64_t) { s += v; });
    float m = group_sum<S>(s, warps) / (float)n;
    each(t, n, [&](float v, int64_t) { q += (v - m) * (v - m); });
    *mean = m;
    *rstd = 1.0f / sqrtf(group_sum<S>(q, warps) / (float)(n - 1) + 1e-6f);
}

/* share[rows] = mask * mean of the squared error; mask [rows] or NULL: 1 */
template <class S>
__global__ void mse_rows(const float *x, const float *t, const float *mask, float *share,
                         int64_t rows, int64_t n, bool norm) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    float weight = mask ? mask[r] : 1.0f, e = 0.0f, mean = 0.0f, rstd = 1.0f;
    if (weight != 0.0f) { /* a kept patch costs nothing */
        row<float, S> a(x + r * n, n), b(t + r * n, n);
        if (norm)
            target_norm<S>(b, n, warps, &mean, &rstd);
        each(a, b, n, [&](float v, float w) {
            float d = v - (w - mean) * rstd;
            e += d * d;
        });
        e = group_sum<S>(e, warps) * weight / (float)n;
    }
    if (threadIdx.x == 0)
        share[r] = e;
}

/* dx[rows,n] = dloss mask 2 (x - target) / (n sum(mask)), zero on kept patches */
template <class S>
__global__ void mse_bwd_rows(const float *dloss, const float *x, const float *t, const float *mask,
                             const double *sum, float *dx, int64_t rows, int64_t n, bool norm) {
    SHARED(float, warps, 32);
    int64_t r = row_index<S>();
    if (r >= rows)
        return;
    float weight = mask ? mask[r] : 1.0f, mean = 0.0f, rstd = 1.0f;
    float f = (float)((double)dloss[0] * 2.0 * (double)weight / ((double)n * *sum));
    if (weight == 0.0f) {
        float zero[S::P] = {0.0f};
        walk<S>(n, [&](int, int64_t i) { store<S::P>(dx + r * n + i, zero); });
        return;
    }
    row<float, S> a(x + r * n, n), b(t + r * n, n);
    if (norm)
        target_norm<S>(b, n, warps, &mean, &rstd);
    fill(dx + r * n, a, b, n, [&](float v, float w) { return (v - (w - mean) * rstd) * f; });
}

/* --- entries --- */

static const float *floats(const mimic_tensor *t) {
    return t ? (const float *)mimic_data(t) : NULL;
}

static targets targets_of(mimic_call *c, const mimic_tensor *t, int64_t n) {
    double smoothing = c->attrs.v[0].f;
    bool hard = t->dtype == MIMIC_I32;
    return targets{hard ? (const int32_t *)mimic_data(t) : NULL, hard ? NULL : floats(t),
                   (float)(1 - smoothing), (float)(smoothing / (double)n)};
}

KERNEL(cross_entropy) {
    const mimic_tensor *x = c->in[0];
    int64_t rows = x->shape[0], n = x->shape[1];
    cuda_state *s = state_of(c->ctx);
    targets t = targets_of(c, c->in[1], n);
    float *lse = c->save[0] ? (float *)mimic_data(c->save[0]) : NULL;
    size_t bytes = (size_t)rows * sizeof(float);
    void *share;
    mimic_status st = s->host->get(c->device, bytes, &share);
    if (st)
        return st;
    fault f = fault_of(c, "label", n);
    with_form<float>(n, wide(floats(x), t.soft), [&](auto form) {
        typedef decltype(form) S;
        LAUNCH(ce_rows<S>, row_grid<S>(rows), row_block<S>(), 0, s->stream, floats(x), t,
               (float *)share, lse, rows, n, f);
    });
    LAUNCH(loss_total, 1, THREADS, 0, s->stream, (const float *)share, nullptr, rows,
           (float *)mimic_data(c->out[0]), nullptr, f);
    s->host->put(c->device, share, bytes);
    return done(c);
}

KERNEL(cross_entropy_bwd) {
    const mimic_tensor *x = c->in[1];
    int64_t rows = x->shape[0], n = x->shape[1];
    targets t = targets_of(c, c->in[2], n);
    float *dx = (float *)mimic_data(c->out[0]);
    fault f = fault_of(c, "label", n);
    with_form<float>(n, wide(floats(x), t.soft, dx), [&](auto form) {
        typedef decltype(form) S;
        LAUNCH(ce_bwd_rows<S>, row_grid<S>(rows), row_block<S>(), 0, state_of(c->ctx)->stream,
               floats(c->in[0]), floats(x), t, floats(c->in[3]), dx, rows, n, f);
    });
    return done(c);
}

#define NO_WEIGHT "the mask does not sum to more than 0: no patch to average over"

KERNEL(masked_mse) {
    const mimic_tensor *x = c->in[0];
    int64_t rows = x->shape[0] * x->shape[1], n = x->shape[2];
    cuda_state *s = state_of(c->ctx);
    bool norm = c->attrs.v[0].i != 0;
    const float *mask = c->attrs.v[1].i == 0 ? floats(c->in[2]) : NULL, *t = floats(c->in[1]);
    size_t bytes = (size_t)rows * sizeof(float);
    void *share;
    mimic_status st = s->host->get(c->device, bytes, &share);
    if (st)
        return st;
    with_form<float>(n, wide(floats(x), t), [&](auto form) {
        typedef decltype(form) S;
        LAUNCH(mse_rows<S>, row_grid<S>(rows), row_block<S>(), 0, s->stream, floats(x), t, mask,
               (float *)share, rows, n, norm);
    });
    LAUNCH(loss_total, 1, THREADS, 0, s->stream, (const float *)share, mask, rows,
           (float *)mimic_data(c->out[0]), nullptr, fault_of(c, NO_WEIGHT, NO_LIMIT));
    s->host->put(c->device, share, bytes);
    return done(c);
}

KERNEL(masked_mse_bwd) {
    const mimic_tensor *x = c->in[1];
    int64_t rows = x->shape[0] * x->shape[1], n = x->shape[2];
    cuda_state *s = state_of(c->ctx);
    bool norm = c->attrs.v[0].i != 0;
    const float *mask = c->attrs.v[1].i == 0 ? floats(c->in[3]) : NULL, *t = floats(c->in[2]);
    float *dx = (float *)mimic_data(c->out[0]);
    void *sum;
    mimic_status st = s->host->get(c->device, sizeof(double), &sum);
    if (st)
        return st;
    LAUNCH(loss_total, 1, THREADS, 0, s->stream, nullptr, mask, rows, nullptr, (double *)sum,
           fault_of(c, NO_WEIGHT, NO_LIMIT));
    with_form<float>(n, wide(floats(x), t, dx), [&](auto form) {
        typedef decltype(form) S;
        LAUNCH(mse_bwd_rows<S>, row_grid<S>(rows), row_block<S>(), 0, s->stream, floats(c->in[0]),
               floats(x), t, mask, (const double *)sum, dx, rows, n, norm);
    });
    s->host->put(c->device, sum, sizeof(double));
    return done(c);
}

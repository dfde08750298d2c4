/* mix: Mixup or CutMix of each image with its partner. A plane of pixels has `blocks` blocks. */
#include "backend/cuda/rows.h"

enum { THREADS = 256 };

/* lam [B], box [B,4] (yl yh xl xh), partner [B] */
struct mix_inputs {
    const float *lam;
    const int32_t *box, *partner;
};

/* y[B,C,h,w] of x, P pixels a thread */
template <class T, int P>
__global__ void mix_planes(const T *x, T *y, mix_inputs in, int64_t batch, int64_t channels,
                           int64_t h, int64_t w, unsigned blocks, fault bad_partner,
                           fault bad_box) {
    int64_t plane = blockIdx.x / blocks, b = plane / channels, ch = plane % channels;
    int64_t i = ((int64_t)(blockIdx.x % blocks) * THREADS + threadIdx.x) * P;
    int64_t partner = in.partner[b];
    const int32_t *box = in.box + b * 4;
    bool cut = box[0] < box[1];
    if (partner < 0 || partner >= batch) {
        bad_partner.report(b);
        return;
    }
    if (cut && (box[0] < 0 || box[1] > h || box[2] < 0 || box[3] > w)) {
        bad_box.report(b);
        return;
    }
    if (i >= h * w)
        return;
    float v[P], o[P], lam = in.lam[b], other = 1.0f - lam;
    load<P>(x + (b * channels + ch) * h * w + i, v);
    load<P>(x + (partner * channels + ch) * h * w + i, o);
    UNROLL for (int k = 0; k < P; k++) {
        int64_t row = (i + k) / w, col = (i + k) % w;
        if (!cut)
            v[k] = v[k] * lam + o[k] * other;
        else if (row >= box[0] && row < box[1] && col >= box[2] && col < box[3])
            v[k] = o[k];
    }
    store<P>(y + plane * h * w + i, v);
}

template <class T> static void run_mix(mimic_call *c) {
    const int P = pack<T>::N;
    const mimic_tensor *t = c->in[0];
    const T *x = (const T *)mimic_data(t);
    T *y = (T *)mimic_data(c->out[0]);
    mix_inputs in = {(const float *)mimic_data(c->in[1]), (const int32_t *)mimic_data(c->in[2]),
                     (const int32_t *)mimic_data(c->in[3])};
    int64_t batch = t->shape[0], channels = t->shape[1], h = t->shape[2], w = t->shape[3];
    fault partner = fault_of(c, "partner", batch),
          box = fault_of(c, "box leaves the image", NO_LIMIT);
    cudaStream_t stream = state_of(c->ctx)->stream;
    bool packs = wide(x, y) && h * w % P == 0;
    unsigned blocks = blocks_of(h * w, packs ? THREADS * P : THREADS);
    LAUNCH((packs ? mix_planes<T, P> : mix_planes<T, 1>), (unsigned)(batch * channels) * blocks,
           THREADS, 0, stream, x, y, in, batch, channels, h, w, blocks, partner, box);
}

KERNEL(mix) {
    if (mimic_numel(c->in[0]) > 0)
        BY_FLOAT(c->in[0]->dtype, run_mix)(c);
    return done(c);
}

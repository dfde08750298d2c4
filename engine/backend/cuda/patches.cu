/* patchify and unpatchify: a copy between [B,C,H,W] and [B,N,p*p*C], a block for each patch. */
#include "backend/cuda/kernel.h"

/* channels, patch size, patches down and across; conv: order (c,py,px), else (py,px,c) */
struct grid_shape {
    int channels, p, down, across;
    bool conv;
};

/* x[B * down * across, p*p*C] from img[B,C,down*p,across*p], or back */
template <class T> __global__ void copy_patch(T *img, T *x, grid_shape g, bool back) {
    int area = g.p * g.p, n = area * g.channels;
    int64_t patch = blockIdx.x, b = patch / (g.down * g.across);
    int at = (int)(patch % (g.down * g.across)), gy = at / g.across, gx = at % g.across;
    int64_t width = (int64_t)g.across * g.p;
    x += patch * n;
    img += (b * g.channels * g.down + gy) * g.p * width + gx * g.p;
    for (int e = (int)threadIdx.x; e < n; e += (int)blockDim.x) {
        int c = g.conv ? e / area : e % g.channels, k = g.conv ? e % area : e / g.channels;
        T *pixel = img + ((int64_t)c * g.down * g.p + k / g.p) * width + k % g.p;
        if (back)
            *pixel = x[e];
        else
            x[e] = *pixel;
    }
}

template <class T>
static void run_copy(mimic_call *c, const mimic_tensor *img, const mimic_tensor *x,
                     const grid_shape &g, bool back) {
    int64_t patches = img->shape[0] * g.down * g.across, n = (int64_t)g.p * g.p * g.channels;
    LAUNCH(copy_patch<T>, blocks_of(patches, 1), n < 256 ? 32 * blocks_of(n, 32) : 256u, 0,
           state_of(c->ctx)->stream, (T *)mimic_data(img), (T *)mimic_data(x), g, back);
}

static mimic_status run(mimic_call *c, const mimic_tensor *img, const mimic_tensor *x,
                        int64_t order, bool back) {
    int p = (int)c->attrs.v[0].i;
    grid_shape g = {(int)img->shape[1], p, (int)img->shape[2] / p, (int)img->shape[3] / p,
                    order == 1};
    size_t size = element_size(x->dtype);
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    if (size == 4)
        run_copy<uint32_t>(c, img, x, g, back);
    else if (size == 2)
        run_copy<uint16_t>(c, img, x, g, back);
    else
        run_copy<uint8_t>(c, img, x, g, back);
    return done(c);
}

KERNEL(patchify) {
    return run(c, c->in[0], c->out[0], c->attrs.v[1].i, false);
}

KERNEL(unpatchify) {
    return run(c, c->out[0], c->in[0], c->attrs.v[2].i, true);
}

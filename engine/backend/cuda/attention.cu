/* attention and attention_bwd: reads the call and picks a way. */
#include "backend/cuda/attention.h"

static heads heads_of(const mimic_call *c, const mimic_tensor *qkv) {
    heads a = {};
    a.images = qkv->shape[0];
    a.t = qkv->shape[1];
    a.step = qkv->shape[2];
    a.heads = c->attrs.v[0].i;
    a.d = a.step / 3 / a.heads;
    a.scale = 1.0f / sqrtf((float)a.d);
    a.bf16 = qkv->dtype == MIMIC_BF16;
    a.qkv = mimic_data(qkv);
    return a;
}

KERNEL(attention) {
    heads a = heads_of(c, c->in[0]);
    a.y = mimic_data(c->out[0]);
    a.lse = c->save[0] ? mimic_data(c->save[0]) : NULL;
    if (a.images * a.t == 0)
        return MIMIC_OK;
    mimic_status st = attention_mma_takes(a) ? attention_mma(c, a) : attention_any(c, a);
    return st ? st : done(c);
}

KERNEL(attention_bwd) {
    heads a = heads_of(c, c->in[1]);
    a.dy = mimic_data(c->in[0]);
    a.y = mimic_data(c->in[2]);
    a.lse = mimic_data(c->in[3]);
    a.dqkv = mimic_data(c->out[0]);
    size_t bytes = (size_t)(a.images * a.heads * a.t) * sizeof(float);
    void *delta = NULL;
    if (bytes == 0)
        return MIMIC_OK;
    mimic_status st = state_of(c->ctx)->host->get(c->device, bytes, &delta);
    if (st)
        return st;
    st = attention_mma_takes(a) ? attention_mma_bwd(c, a, (float *)delta)
                                : attention_any_bwd(c, a, (float *)delta);
    state_of(c->ctx)->host->put(c->device, delta, bytes);
    return st ? st : done(c);
}

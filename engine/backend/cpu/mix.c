/* mix: Mixup or CutMix of each image with its partner. A task is a plane of pixels. */
#ifdef T

static void NAME(mix_planes)(const mix_job *j, int64_t first, int64_t end) {
    int64_t n = j->h * j->w;
    for (int64_t r = first; r < end; r++) {
        int64_t b = r / j->channels, ch = r % j->channels;
        const T *x = (const T *)j->x + r * n;
        const T *p = (const T *)j->x + (j->partner[b] * j->channels + ch) * n;
        const int32_t *box = j->box + b * 4;
        T *y = (T *)j->y + r * n;
        if (box[0] < box[1]) {
            memcpy(y, x, (size_t)n * sizeof *y);
            for (int64_t row = box[0]; row < box[1]; row++)
                if (box[2] < box[3])
                    memcpy(y + row * j->w + box[2], p + row * j->w + box[2],
                           (size_t)(box[3] - box[2]) * sizeof *y);
            continue;
        }
        REAL lam = (REAL)j->lam[b], other = (REAL)1 - lam;
        int64_t i = 0;
        for (; i + W <= n; i += W)
            STORE(y + i, LOAD(x + i) * lam + LOAD(p + i) * other);
        if (i < n)
            STOREN(y + i, LOADN(x + i, n - i) * lam + LOADN(p + i, n - i) * other, n - i);
    }
}

#else
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

typedef struct mix_job {
    mimic_dtype dtype;
    const void *x;                /* [B,C,H,W] */
    void *y;                      /* [B,C,H,W] */
    const float *lam;             /* [B] */
    const int32_t *box, *partner; /* [B,4] yl yh xl xh; [B] */
    int64_t batch, channels, h, w, per;
} mix_job;

#define FAMILY "backend/cpu/mix.c"
#include "backend/cpu/each_float.h"

static void chunk(void *arg, int64_t i, int worker) {
    const mix_job *j = arg;
    (void)worker;
    BY_FLOAT(j->dtype, mix_planes)(j, i * j->per, chunk_end(i, j->per, j->batch * j->channels));
}

mimic_status KERNEL(mix)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    mix_job j = {.dtype = (mimic_dtype)x->dtype,
                 .x = mimic_data(x),
                 .y = mimic_data(c->out[0]),
                 .lam = mimic_data(c->in[1]),
                 .box = mimic_data(c->in[2]),
                 .partner = mimic_data(c->in[3]),
                 .batch = x->shape[0],
                 .channels = x->shape[1],
                 .h = x->shape[2],
                 .w = x->shape[3]};
    for (int64_t b = 0; b < j.batch; b++) {
        const int32_t *box = j.box + b * 4;
        if (j.partner[b] < 0 || j.partner[b] >= j.batch)
            return mimic_fail(c->ctx, MIMIC_EINVAL, "mix: partner %d at row %lld is not in 0..%lld",
                              j.partner[b], (long long)b, (long long)j.batch - 1);
        if (box[0] < box[1] && (box[0] < 0 || box[1] > j.h || box[2] < 0 || box[3] > j.w))
            return mimic_fail(
                c->ctx, MIMIC_EINVAL,
                "mix: box %d..%d x %d..%d at row %lld leaves the image of %lld x %lld", box[0],
                box[1], box[2], box[3], (long long)b, (long long)j.h, (long long)j.w);
    }
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    j.per = chunk_rows(j.batch * j.channels, j.h * j.w);
    mimic_parallel(c->ctx, chunk_count(j.batch * j.channels, j.per), chunk, &j);
    return MIMIC_OK;
}
#endif

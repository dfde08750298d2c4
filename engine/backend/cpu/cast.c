/* cast: f32 and bf16 directly, everything else in pieces through a buffer of doubles, which holds
 * every value of every dtype exactly. Floats to integers are cut towards zero and held in range;
 * NaN gives 0. */
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"
#include "backend/cpu/simd.h"

enum { PIECE = 512 };

typedef struct cast_job {
    mimic_dtype from, to;
    const void *x;
    void *y;
    int64_t n, per;
} cast_job;

static void to_double(mimic_dtype d, const void *x, int64_t at, int64_t n, double *b) {
    switch (d) {
    case MIMIC_F32:
        for (int64_t i = 0; i < n; i++)
            b[i] = ((const float *)x)[at + i];
        break;
    case MIMIC_BF16:
        for (int64_t i = 0; i < n; i++)
            b[i] = mimic_bf16_to_f32(((const uint16_t *)x)[at + i]);
        break;
    case MIMIC_F64:
        memcpy(b, (const double *)x + at, (size_t)n * sizeof *b);
        break;
    case MIMIC_I32:
        for (int64_t i = 0; i < n; i++)
            b[i] = ((const int32_t *)x)[at + i];
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            b[i] = ((const uint8_t *)x)[at + i];
    }
}

static void from_double(mimic_dtype d, const double *b, void *y, int64_t at, int64_t n) {
    switch (d) {
    case MIMIC_F32:
        for (int64_t i = 0; i < n; i++)
            ((float *)y)[at + i] = (float)b[i];
        break;
    case MIMIC_BF16:
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)y)[at + i] = mimic_f32_to_bf16((float)b[i]);
        break;
    case MIMIC_F64:
        memcpy((double *)y + at, b, (size_t)n * sizeof *b);
        break;
    case MIMIC_I32:
        for (int64_t i = 0; i < n; i++)
            ((int32_t *)y)[at + i] = b[i] >= INT32_MAX   ? INT32_MAX
                                     : b[i] <= INT32_MIN ? INT32_MIN
                                     : b[i] == b[i]      ? (int32_t)b[i]
                                                         : 0;
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)y)[at + i] = b[i] >= 255 ? 255 : b[i] > 0 ? (uint8_t)b[i] : 0;
    }
}

static void cast_chunk(void *arg, int64_t i, int worker) {
    const cast_job *j = arg;
    int64_t at = i * j->per, end = chunk_end(i, j->per, j->n);
    (void)worker;
    if (j->from == MIMIC_F32 && j->to == MIMIC_BF16) {
        const float *x = j->x;
        uint16_t *y = j->y;
        for (; at + VF32_W <= end; at += VF32_W)
            vstore_bf16(y + at, vload_f32(x + at));
        vstoren_bf16(y + at, vloadn_f32(x + at, end - at), end - at);
    } else if (j->from == MIMIC_BF16 && j->to == MIMIC_F32) {
        const uint16_t *x = j->x;
        float *y = j->y;
        for (; at + VF32_W <= end; at += VF32_W)
            vstore_f32(y + at, vload_bf16(x + at));
        vstoren_f32(y + at, vloadn_bf16(x + at, end - at), end - at);
    } else if (j->from == j->to) {
        size_t size = mimic_dtype_size(j->to);
        memcpy((char *)j->y + (size_t)at * size, (const char *)j->x + (size_t)at * size,
               (size_t)(end - at) * size);
    } else if (j->from == MIMIC_U8 && j->to == MIMIC_F32) {
        for (; at < end; at++)
            ((float *)j->y)[at] = ((const uint8_t *)j->x)[at];
    } else {
        double b[PIECE];
        for (; at < end; at += PIECE) {
            int64_t n = end - at < PIECE ? end - at : PIECE;
            to_double(j->from, j->x, at, n, b);
            from_double(j->to, b, j->y, at, n);
        }
    }
}

mimic_status KERNEL(cast)(mimic_call *c) {
    cast_job j = {.from = (mimic_dtype)c->in[0]->dtype,
                  .to = (mimic_dtype)c->out[0]->dtype,
                  .x = mimic_data(c->in[0]),
                  .y = mimic_data(c->out[0]),
                  .n = mimic_numel(c->in[0])};
    j.per = chunk_rows(j.n, 1);
    mimic_parallel(c->ctx, chunk_count(j.n, j.per), cast_chunk, &j);
    return MIMIC_OK;
}

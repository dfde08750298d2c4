/* patchify and unpatchify: a copy between [B,C,H,W] and [B,N,p*p*C]. A task is a row of patches. */
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

#include <string.h>

typedef struct patch_job {
    char *img; /* [B,C,H,W] */
    char *x;   /* [B,gh*gw,p*p*C] */
    size_t size;
    int64_t channels, gh, gw, p, rows, per; /* rows: B * gh */
    bool conv, back;                        /* back: x to img */
} patch_job;

static inline __attribute__((always_inline)) void copy_pixels(char *img, char *x, size_t size,
                                                              int64_t n, int64_t step, bool back) {
    for (int64_t i = 0; i < n; i++) {
        char *a = img + (size_t)i * size, *b = x + (size_t)(i * step) * size;
        memcpy(back ? a : b, back ? b : a, size);
    }
}

/* n pixels that lie side by side in the image, `step` apart in the patch. */
static void copy_line(const patch_job *j, char *img, char *x, int64_t n, int64_t step) {
    if (step == 1)
        memcpy(j->back ? img : x, j->back ? x : img, (size_t)n * j->size);
    else if (j->size == 4)
        copy_pixels(img, x, 4, n, step, j->back);
    else if (j->size == 2)
        copy_pixels(img, x, 2, n, step, j->back);
    else if (j->size == 8)
        copy_pixels(img, x, 8, n, step, j->back);
    else
        copy_pixels(img, x, 1, n, step, j->back);
}

static void patch_chunk(void *arg, int64_t i, int worker) {
    const patch_job *j = arg;
    int64_t p = j->p, ch = j->channels, width = j->gw * p, end = chunk_end(i, j->per, j->rows);
    (void)worker;
    for (int64_t r = i * j->per; r < end; r++) {
        int64_t b = r / j->gh, gy = r % j->gh;
        for (int64_t c = 0; c < ch; c++)
            for (int64_t py = 0; py < p; py++) {
                char *line = j->img + (size_t)(((b * ch + c) * j->gh + gy) * p + py) *
                                          (size_t)width * j->size;
                for (int64_t gx = 0; gx < j->gw; gx++) {
                    int64_t patch = (r * j->gw + gx) * p * p * ch;
                    int64_t at = j->conv ? (c * p + py) * p : py * p * ch + c;
                    copy_line(j, line + (size_t)(gx * p) * j->size,
                              j->x + (size_t)(patch + at) * j->size, p, j->conv ? 1 : ch);
                }
            }
    }
}

static mimic_status run(mimic_call *c, const mimic_tensor *img, const mimic_tensor *x,
                        int64_t order, bool back) {
    int64_t p = c->attrs.v[0].i;
    patch_job j = {.img = mimic_data(img),
                   .x = mimic_data(x),
                   .size = mimic_dtype_size((mimic_dtype)x->dtype),
                   .channels = img->shape[1],
                   .gh = img->shape[2] / p,
                   .gw = img->shape[3] / p,
                   .p = p,
                   .conv = order == 1,
                   .back = back};
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    j.rows = img->shape[0] * j.gh;
    j.per = chunk_rows(j.rows, j.gw * p * p * j.channels);
    mimic_parallel(c->ctx, chunk_count(j.rows, j.per), patch_chunk, &j);
    return MIMIC_OK;
}

mimic_status KERNEL(patchify)(mimic_call *c) {
    return run(c, c->in[0], c->out[0], c->attrs.v[1].i, false);
}

mimic_status KERNEL(unpatchify)(mimic_call *c) {
    return run(c, c->out[0], c->in[0], c->attrs.v[2].i, true);
}

/* What a transform program does to one picture, with all random numbers drawn: plain data that the
 * CPU (transform.c) and a device (backend/cuda/augment.cu) work off to the same bytes. */
#ifndef MIMIC_PLAN_H
#define MIMIC_PLAN_H

#include "mimic/image.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mimic_plan_step {
    int32_t op; /* mimic_aug */
    int32_t unused;
    double a, b;
    double turn[2]; /* of a rotation, so that a device needs no sine */
} mimic_plan_step;

enum { MIMIC_PLAN_STEPS = 104 }; /* RandAugment's 100 or jitter's 4, then grey, blur, solarize */

typedef struct mimic_plan {
    /* The box is resampled to out_w x out_h pixels, of which size x size from (x, y) on are taken.
     */
    int32_t left, top, w, h, out_w, out_h, x, y;
    int32_t filter, flip;
    int32_t erase_left, erase_top, erase_w, erase_h; /* a rectangle of noise; erase_w = 0: none */
    mimic_rng noise;                                 /* where its numbers begin */
    int32_t steps, unused;
    mimic_plan_step step[MIMIC_PLAN_STEPS];
} mimic_plan;

/* Draws from rng for a picture of width x height, to which pre_resize was done already. */
mimic_status mimic_plan_draw(const mimic_transform *t, int width, int height, mimic_rng *rng,
                             mimic_plan *p, mimic_err *err);
/* The most steps that a plan of the program has. */
int mimic_plan_most_steps(const mimic_transform *t);
/* Mean and deviation that the program normalises with, and the colour outside of warped pictures.
 */
void mimic_plan_scales(const mimic_transform *t, double mean[3], double std[3], uint8_t fill[3]);
/* The geometric part without the flip: size x size pixels into s->a. */
mimic_status mimic_plan_place(const mimic_plan *p, int size, const mimic_image *src,
                              mimic_transform_scratch *s, mimic_err *err);

/* The whole picture lies in the batch's bytes; what plan_place makes of it lies there; the whole
 * picture lies in the kept bytes. */
enum mimic_view_source { MIMIC_VIEW_SENT, MIMIC_VIEW_PLACED, MIMIC_VIEW_KEPT };

/* One view of a batch, as a device sees it: where its picture lies, what is done to it. */
typedef struct mimic_view {
    int64_t at;                      /* first byte, in the batch's bytes or the kept ones */
    int32_t width, height, channels; /* 1: grey */
    int32_t source;                  /* enum mimic_view_source */
    float mean[3], std[3];
    uint8_t fill[4];
    mimic_plan plan; /* last: cut off behind its steps */
} mimic_view;

/* A batch of views to be made on a device. All addresses are the device's. */
typedef struct mimic_augment_job {
    const uint8_t *batch; /* n views, `stride` bytes each, and pictures */
    const uint8_t *kept;  /* pictures that stay on the device, or NULL */
    float *out;           /* [n,3,size,size] */
    int n, size;
    size_t stride;
    int taps, rows; /* the most of any view: weights of an output, rows of the source in use */
    bool all;       /* some view has a step of RandAugment's */
} mimic_augment_job;

#ifdef __cplusplus
}
#endif
#endif

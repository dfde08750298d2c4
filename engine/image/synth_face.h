/* A synthetic face: who it is, how it is held, what its muscles do. synth_face.c draws these by
 * lot, synth_features.c draws the picture from them. */
#ifndef MIMIC_SYNTH_FACE_H
#define MIMIC_SYNTH_FACE_H

#include "image/synth_draw.h"

/* What the muscles do; 0 is a face at rest. */
enum {
    BROW_IN,  /* inner brow up (+) or down (-) */
    BROW_OUT, /* outer brow up or down */
    KNIT,     /* brows drawn together */
    LID,      /* eye wider (+) or closing (-) */
    LOW_LID,  /* lower lid raised: squint */
    DROOP,    /* outer corner of the lid hangs */
    NOSE,     /* nose wrinkled, nostrils raised */
    UPPER,    /* upper lip raised */
    CORNER,   /* mouth corners up (+) or down (-) */
    STRETCH,  /* mouth wider (+) or rounder (-) */
    OPEN,     /* jaw dropped */
    PRESS,    /* lips thinned */
    TEETH,    /* teeth show */
    ACTIONS
};

typedef struct mimic_face {
    mimic_canvas *c;
    mimic_rng *rng;
    float a[ACTIONS];
    float yaw, pitch, roll, scale, x, y; /* pose */
    /* identity */
    float width, jaw, eye_gap, eye_size, eye_tilt, brow_height, brow_weight, nose_length,
        nose_width, mouth_y, mouth_width, lips, age, beard;
    int hair_style;
    mimic_rgb skin, hair, iris, lip;
    mimic_paint brow;
} mimic_face;

/* Parts in the order of drawing; every one stays within its own features. */
void mimic_face_head(mimic_face *f);
void mimic_face_flesh(mimic_face *f);
void mimic_face_eye(mimic_face *f, int side, float gaze_x, float gaze_y);
void mimic_face_brow(mimic_face *f, int side);
void mimic_face_nose(mimic_face *f);
void mimic_face_mouth(mimic_face *f);
void mimic_face_glasses(mimic_face *f);

static inline float mimic_face_uni(mimic_face *f, float lo, float hi) {
    return mimic_draw_range(f->rng, lo, hi);
}

static inline bool mimic_face_chance(mimic_face *f, float p) {
    return mimic_rng_uniform(f->rng) < p;
}

#endif

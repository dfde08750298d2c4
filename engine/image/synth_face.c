/* Synthetic faces with the seven basic expressions: a parametric head (identity, pose, light) whose
 * brows, lids, nose and mouth are moved by action parameters, as in facial action coding.
 * Expressions come in varying strength and lean towards the ones they are confused with. */
#include "image/synth_face.h"

#include <math.h>

enum { SURPRISE, FEAR, DISGUST, HAPPINESS, SADNESS, ANGER, NEUTRAL };

static const float prototypes[MIMIC_SYNTH_FACE_CLASSES][ACTIONS] = {
    [SURPRISE] = {.9f, .9f, 0, .9f, 0, 0, 0, .1f, 0, -.5f, .9f, 0, .25f},
    [FEAR] = {.8f, .2f, .6f, .8f, .1f, .2f, .1f, .2f, -.4f, .6f, .4f, .1f, .6f},
    [DISGUST] = {-.5f, -.1f, .6f, -.4f, .6f, 0, 1, .9f, -.5f, .1f, .2f, 0, .6f},
    [HAPPINESS] = {.1f, .1f, 0, -.15f, .6f, 0, 0, .25f, 1, .6f, .35f, 0, .9f},
    [SADNESS] = {.7f, -.5f, .4f, -.4f, .1f, .8f, 0, 0, -.9f, -.15f, .05f, .1f, 0},
    [ANGER] = {-.9f, .3f, 1, .3f, .5f, 0, .4f, .2f, -.4f, .1f, .15f, .6f, .4f},
    [NEUTRAL] = {0},
};
/* The expression each one is most often confused with. */
static const int neighbour[MIMIC_SYNTH_FACE_CLASSES] = {FEAR,    SURPRISE, ANGER,  NEUTRAL,
                                                        NEUTRAL, DISGUST,  SADNESS};

static void draw_identity(mimic_face *f) {
    static const mimic_rgb skins[5] = {{.98f, .84f, .74f},
                                       {.93f, .74f, .60f},
                                       {.80f, .60f, .44f},
                                       {.58f, .40f, .28f},
                                       {.38f, .25f, .18f}};
    static const mimic_rgb hairs[6] = {{.08f, .06f, .05f}, {.25f, .15f, .08f}, {.45f, .28f, .14f},
                                       {.80f, .64f, .36f}, {.62f, .60f, .58f}, {.50f, .20f, .10f}};
    static const mimic_rgb irises[4] = {
        {.22f, .13f, .07f}, {.30f, .22f, .10f}, {.25f, .40f, .55f}, {.30f, .45f, .30f}};
    int tone = (int)mimic_rng_below(f->rng, 4);
    f->skin = mimic_rgb_mix(skins[tone], skins[tone + 1], mimic_face_uni(f, 0, 1));
    f->skin = mimic_rgb_mix(f->skin, mimic_draw_colour(f->rng, .5f, .5f, .9f),
                            mimic_face_uni(f, 0, .08f));
    f->hair = mimic_rgb_scale(hairs[mimic_rng_below(f->rng, 6)], mimic_face_uni(f, .7f, 1.2f));
    f->iris = irises[mimic_rng_below(f->rng, 4)];
    f->lip = mimic_rgb_mix(mimic_rgb_scale(f->skin, .8f), (mimic_rgb){.72f, .25f, .27f},
                           mimic_face_uni(f, .25f, .75f));
    f->width = mimic_face_uni(f, .70f, .84f);
    f->jaw = mimic_face_uni(f, .50f, .85f);
    f->eye_gap = mimic_face_uni(f, .28f, .35f);
    f->eye_size = mimic_face_uni(f, .80f, 1.2f);
    f->eye_tilt = mimic_face_uni(f, -.03f, .03f);
    f->brow_height = mimic_face_uni(f, -.03f, .03f);
    f->brow_weight = mimic_face_uni(f, .6f, 1.5f);
    f->nose_length = mimic_face_uni(f, .90f, 1.12f);
    f->nose_width = mimic_face_uni(f, .75f, 1.3f);
    f->mouth_y = mimic_face_uni(f, .47f, .56f);
    f->mouth_width = mimic_face_uni(f, .22f, .30f);
    f->lips = mimic_face_uni(f, .6f, 1.5f);
    f->age = mimic_face_uni(f, 0, 1);
    f->beard = mimic_face_chance(f, .2f) ? mimic_face_uni(f, .2f, .8f) : 0;
    f->hair_style = (int)mimic_rng_below(f->rng, 5);
    f->brow = mimic_draw_plain(mimic_rgb_mix(f->hair, mimic_rgb_scale(f->skin, .4f), .3f));
}

static void draw_pose(mimic_face *f) {
    f->yaw = .16f * (float)mimic_rng_normal(f->rng);
    f->yaw = fmaxf(-.4f, fminf(.4f, f->yaw));
    f->pitch = mimic_face_uni(f, -.12f, .12f);
    f->roll = fmaxf(-.2f, fminf(.2f, .05f * (float)mimic_rng_normal(f->rng)));
    f->scale = mimic_face_uni(f, .88f, 1.02f);
    f->x = mimic_face_uni(f, -.05f, .05f);
    f->y = mimic_face_uni(f, .0f, .10f);
}

/* The expression: a strength, a lean towards the neighbour, noise of every muscle, habits of the
 * person. */
static void draw_expression(mimic_face *f, int label) {
    float strength = label == NEUTRAL ? 0 : mimic_face_uni(f, .55f, 1.2f);
    float lean = mimic_face_uni(f, 0, 1);
    lean = .33f * lean * lean;
    const float *p = prototypes[label], *q = prototypes[neighbour[label]];
    float other = label == NEUTRAL ? .6f : strength;
    for (int k = 0; k < ACTIONS; k++) {
        f->a[k] = strength * p[k] * (1 - lean) + lean * other * q[k];
        f->a[k] += .10f * (float)mimic_rng_normal(f->rng);
    }
    for (int k = OPEN; k < ACTIONS; k++)
        f->a[k] = fmaxf(0, f->a[k]);
    if (label == HAPPINESS && mimic_face_chance(f, .3f))
        f->a[OPEN] = f->a[TEETH] = 0;                   /* a closed smile */
    if (label == ANGER && mimic_face_chance(f, .35f)) { /* shouting */
        f->a[OPEN] += .4f;
        f->a[TEETH] += .6f;
        f->a[PRESS] = 0;
    }
    if (label == NEUTRAL && mimic_face_chance(f, .25f))
        f->a[OPEN] += mimic_face_uni(f, 0, .2f); /* speaking */
    if (mimic_face_chance(f, .08f))
        f->a[LID] -= mimic_face_uni(f, .3f, 1.1f); /* caught blinking */
}

static void draw_scene(mimic_face *f) {
    mimic_canvas *c = f->c;
    mimic_paint back = mimic_draw_any_paint(f->rng);
    back.other = mimic_rgb_mix(back.rgb, back.other, mimic_face_uni(f, .1f, .7f));
    back.frequency *= mimic_face_uni(f, .3f, 1);
    mimic_draw_background(c, &back);
    int blobs = (int)mimic_rng_below(f->rng, 4);
    for (int i = 0; i < blobs; i++)
        mimic_draw_blob(c, mimic_face_uni(f, -1, 1), mimic_face_uni(f, -1, 1),
                        mimic_face_uni(f, .1f, .6f), mimic_face_uni(f, .1f, .6f),
                        mimic_draw_colour(f->rng, .5f, .1f, 1), mimic_face_uni(f, .3f, .9f));
    mimic_paint cloth = mimic_draw_any_paint(f->rng);
    float s = f->scale, nx = f->x - .5f * sinf(f->roll);
    mimic_draw_ellipse(c, nx, f->y + 1.75f * s, 1.25f * s, .75f * s, 0, &cloth);
    mimic_paint neck = mimic_draw_plain(mimic_rgb_scale(f->skin, .72f));
    const mimic_point pt[4] = {{nx - .36f * s, f->y + .5f * s},
                               {nx + .36f * s, f->y + .5f * s},
                               {nx + .42f * s, f->y + 1.3f * s},
                               {nx - .42f * s, f->y + 1.3f * s}};
    mimic_draw_polygon(c, pt, 4, &neck);
}

/* Something in front: a bar, a ball, a hand-like lump that covers some of the face. */
static void draw_occluder(mimic_face *f) {
    mimic_paint p = mimic_draw_any_paint(f->rng);
    float side = mimic_face_chance(f, .5f) ? 1.0f : -1.0f;
    if (mimic_face_chance(f, .5f)) {
        mimic_draw_ellipse(f->c, f->x + side * mimic_face_uni(f, .35f, .8f),
                           f->y + mimic_face_uni(f, -.5f, .9f), mimic_face_uni(f, .15f, .35f),
                           mimic_face_uni(f, .15f, .5f), mimic_face_uni(f, 0, 3), &p);
    } else {
        float y0 = mimic_face_uni(f, -1, 1), slope = mimic_face_uni(f, -.8f, .8f);
        mimic_point pt[2] = {{-1.2f, y0 - slope}, {1.2f, y0 + slope}};
        mimic_draw_stroke(f->c, pt, 2, .08f, mimic_face_uni(f, .06f, .16f), .08f, &p);
    }
}

mimic_status mimic_synth_face(uint64_t seed, uint32_t index, int label, int size, mimic_image *out,
                              mimic_err *err) {
    if (label < 0 || label >= MIMIC_SYNTH_FACE_CLASSES)
        return mimic_err_fail(err, MIMIC_EINVAL, "face class %d of %d", label,
                              MIMIC_SYNTH_FACE_CLASSES);
    mimic_canvas c;
    mimic_rng rng;
    mimic_status s = mimic_canvas_open(&c, size, err);
    if (s != MIMIC_OK)
        return s;
    mimic_rng_init(&rng, seed, MIMIC_SYNTH_STREAM_FACE, index);
    mimic_face f = {.c = &c, .rng = &rng};
    draw_identity(&f);
    draw_pose(&f);
    draw_expression(&f, label);
    draw_scene(&f);
    mimic_face_head(&f);
    mimic_face_flesh(&f);
    float gx = mimic_face_uni(&f, -1, 1), gy = mimic_face_uni(&f, -1, 1);
    for (int side = -1; side <= 1; side += 2) {
        mimic_face_eye(&f, side, gx, gy);
        mimic_face_brow(&f, side);
    }
    mimic_face_nose(&f);
    mimic_face_mouth(&f);
    if (mimic_face_chance(&f, .15f))
        mimic_face_glasses(&f);
    if (mimic_face_chance(&f, .1f))
        draw_occluder(&f);
    mimic_draw_light(&c, mimic_face_uni(&f, -.45f, .45f), mimic_face_uni(&f, -.25f, .25f),
                     mimic_face_uni(&f, 0, .5f));
    s = mimic_canvas_finish(&c, &rng, mimic_face_uni(&f, .004f, .028f), out, err);
    mimic_canvas_close(&c);
    /* Out of focus, washed out, or a grey photograph, now and then. */
    mimic_image tmp = {0};
    if (s == MIMIC_OK)
        s = mimic_augment_run(out, &tmp, MIMIC_AUG_CONTRAST, mimic_face_uni(&f, .7f, 1.2f), 0,
                              MIMIC_BILINEAR, NULL, err);
    if (s == MIMIC_OK && mimic_face_chance(&f, .2f))
        s = mimic_augment_run(out, &tmp, MIMIC_AUG_BLUR,
                              mimic_face_uni(&f, .3f, 1) * (float)size / 64, 0, MIMIC_BILINEAR,
                              NULL, err);
    if (s == MIMIC_OK && mimic_face_chance(&f, .15f))
        mimic_image_grey(out);
    mimic_image_free(&tmp);
    return s;
}

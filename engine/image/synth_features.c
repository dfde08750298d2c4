/* The features of a synthetic face: head and hair, flesh, eyes, brows, nose, mouth, glasses, each
 * moved by the face's pose and action parameters. */
#include "image/synth_face.h"

#include <math.h>

/* A point of the head (x right, y down, 0,0 between the cheeks; chin at y = 1) on the canvas:
 * bulge, turn, nod, tilt, scale, shift. `lift` moves it off the surface. */
static mimic_point at(const mimic_face *f, float x, float y, float lift) {
    float b = 1 - x * x / 0.9f - y * y / 1.9f;
    float z = 0.6f * sqrtf(b > 0 ? b : 0) + lift;
    float x1 = x * cosf(f->yaw) + z * sinf(f->yaw), z1 = z * cosf(f->yaw) - x * sinf(f->yaw);
    float y1 = y * cosf(f->pitch) - z1 * sinf(f->pitch);
    float cr = cosf(f->roll) * f->scale, sr = sinf(f->roll) * f->scale;
    return (mimic_point){f->x + x1 * cr - y1 * sr, f->y + x1 * sr + y1 * cr};
}

/* Points of the arc from (x0,y0) to (x1,y1) that passes (mid + bulge) in the middle. */
static int arc(const mimic_face *f, mimic_point *out, int n, float x0, float y0, float x1, float y1,
               float bulge) {
    for (int i = 0; i < n; i++) {
        float t = (float)i / (float)(n - 1);
        out[i] = at(f, x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + 4 * bulge * t * (1 - t), 0);
    }
    return n;
}

/* Outline of the head; grow > 1 for hair around it. */
static int head_outline(const mimic_face *f, mimic_point *out, float grow, float top) {
    enum { N = 44 };
    for (int i = 0; i < N; i++) {
        float t = 6.2831853f * (float)i / N, x = cosf(t), y = sinf(t);
        /* The lower half narrows towards the chin, more for a small jaw. */
        float narrow = y > 0 ? 1 - (1 - f->jaw) * .65f * y * y : 1;
        float drop = y > 0 ? 1 + .04f * f->a[OPEN] : top;
        float hx = x * f->width * narrow * grow, hy = y * drop * grow;
        /* The outline turns with the head, but does not bulge. */
        float cr = cosf(f->roll) * f->scale, sr = sinf(f->roll) * f->scale;
        hx += .10f * sinf(f->yaw) * (y > 0 ? y : 0);
        out[i] = (mimic_point){f->x + hx * cr - hy * sr, f->y + hx * sr + hy * cr};
    }
    return N;
}

void mimic_face_head(mimic_face *f) {
    mimic_canvas *c = f->c;
    mimic_point pt[64];
    mimic_paint hair = mimic_draw_plain(f->hair);
    hair.other = mimic_rgb_scale(f->hair, 1.3f);
    hair.texture = MIMIC_TEXTURE_NOISE;
    hair.frequency = 9;
    hair.seed = 5;
    if (f->hair_style >= 3) { /* long hair behind */
        int n = head_outline(f, pt, 1.22f, 1.05f);
        mimic_draw_polygon(c, pt, n, &hair);
        mimic_point low = at(f, 0, .6f, -.6f);
        mimic_draw_ellipse(c, low.x, low.y, (f->width + .2f) * f->scale, .7f * f->scale, f->roll,
                           &hair);
    }
    mimic_paint skin = mimic_draw_plain(f->skin),
                shade = mimic_draw_plain(mimic_rgb_scale(f->skin, .8f));
    for (int side = -1; side <= 1; side += 2) { /* ears */
        mimic_point e = at(f, (float)side * (f->width + .02f), -.02f, -.25f);
        mimic_draw_ellipse(c, e.x, e.y, .09f * f->scale, .2f * f->scale, f->roll, &shade);
    }
    int n = head_outline(f, pt, 1, 1.02f);
    mimic_draw_polygon(c, pt, n, &skin);
    c->clip = pt;
    c->clip_count = n;
    mimic_paint top = hair;
    if (f->hair_style > 0) { /* hairline: a cap over the forehead, parted at a side */
        mimic_point cap[20];
        float line = f->hair_style == 4 ? -.52f : -.68f, part = mimic_face_uni(f, -.5f, .5f);
        for (int i = 0; i < 16; i++) {
            float x = -1 + 2 * (float)i / 15;
            float y = line + .30f * x * x - .10f * fabsf(x - part);
            cap[i] = at(f, x * f->width, y, 0);
        }
        cap[16] = at(f, 1.6f, -.2f, 0);
        cap[17] = at(f, 1.6f, -2.2f, 0);
        cap[18] = at(f, -1.6f, -2.2f, 0);
        cap[19] = at(f, -1.6f, -.2f, 0);
        mimic_draw_polygon(c, cap, 20, &top);
    }
    c->clip = NULL;
    if (f->hair_style > 0) { /* volume above the skull */
        mimic_point crown[24];
        int m = 0;
        for (int i = 0; i < 12; i++) {
            float t = 3.4f + 2.6f * (float)i / 11; /* over the top, ear to ear */
            float x = cosf(t) * f->width * 1.10f, y = sinf(t) * 1.16f;
            crown[m++] = at(f, x, y, -.6f);
        }
        for (int i = 11; i >= 0; i--) {
            float t = 3.4f + 2.6f * (float)i / 11;
            crown[m++] = at(f, cosf(t) * f->width * .92f, sinf(t) * .86f, -.35f);
        }
        mimic_draw_polygon(c, crown, m, &top);
    }
}

/* Soft shading of the flesh: sockets, cheeks, chin, folds. */
void mimic_face_flesh(mimic_face *f) {
    mimic_canvas *c = f->c;
    mimic_rgb dark = mimic_rgb_scale(f->skin, .55f), warm = mimic_rgb_mix(f->skin, f->lip, .6f);
    float s = f->scale;
    mimic_paint fold = mimic_draw_plain(mimic_rgb_scale(f->skin, .6f));
    for (int side = -1; side <= 1; side += 2) {
        float k = (float)side;
        mimic_point e = at(f, k * f->eye_gap, -.22f, 0), h = at(f, k * .42f, .2f, 0);
        mimic_draw_blob(c, e.x, e.y, .22f * s, .13f * s, dark, .30f);
        mimic_draw_blob(c, h.x, h.y, .22f * s, .18f * s, warm, .25f + .2f * f->a[CORNER]);
        /* From the nostril to the mouth's corner: deep when smiling, sneering, or old. */
        mimic_point pt[8];
        float deep =
            .15f + .25f * f->age + .45f * fmaxf(0, f->a[CORNER]) + .5f * fmaxf(0, f->a[NOSE]);
        fold.alpha = fminf(.8f, deep);
        arc(f, pt, 8, k * .15f, .17f, k * (f->mouth_width + .09f), f->mouth_y - .02f, -.01f);
        mimic_draw_stroke(c, pt, 8, .008f, .030f * s, .008f, &fold);
    }
    mimic_point chin = at(f, 0, .80f, 0);
    mimic_draw_blob(c, chin.x, chin.y, .28f * s, .08f * s, dark, .20f + .15f * f->a[PRESS]);
    if (f->beard > 0) {
        mimic_point b = at(f, 0, .72f, 0), m = at(f, 0, f->mouth_y - .13f, 0);
        mimic_draw_blob(c, b.x, b.y, .50f * s, .30f * s, f->hair, f->beard);
        mimic_draw_blob(c, m.x, m.y, .26f * s, .07f * s, f->hair, f->beard);
    }
    /* Wrinkles: across the forehead when the brows are up, between them when knit. */
    float up = .5f * (f->a[BROW_IN] + f->a[BROW_OUT]);
    for (int i = 0; i < 3; i++) {
        mimic_point pt[8];
        fold.alpha = fmaxf(0, fminf(.7f, up * .6f + .2f * f->age - .05f));
        arc(f, pt, 8, -.32f, -.60f - .06f * (float)i, .32f, -.60f - .06f * (float)i, -.02f);
        mimic_draw_stroke(c, pt, 8, .004f, .016f * s, .004f, &fold);
    }
    for (int side = -1; side <= 1; side += 2) {
        mimic_point pt[6];
        fold.alpha = fmaxf(0, fminf(.8f, f->a[KNIT] * .8f));
        arc(f, pt, 6, (float)side * .045f, -.48f, (float)side * .035f, -.33f, 0);
        mimic_draw_stroke(c, pt, 6, .004f, .020f * s, .006f, &fold);
        fold.alpha = fmaxf(0, fminf(.8f, f->a[NOSE] * .8f));
        arc(f, pt, 6, (float)side * .10f, -.14f, (float)side * .03f, -.10f, .02f);
        mimic_draw_stroke(c, pt, 6, .006f, .022f * s, .006f, &fold);
    }
}

void mimic_face_eye(mimic_face *f, int side, float gaze_x, float gaze_y) {
    enum { N = 11 };
    mimic_canvas *c = f->c;
    float k = (float)side, s = f->scale, cx = k * f->eye_gap, cy = -.20f,
          half = .145f * f->eye_size;
    float squeeze = fmaxf(0, f->a[NOSE]) * .25f;
    float up = .070f * f->eye_size * fmaxf(.05f, 1 + .75f * f->a[LID] - squeeze);
    float low = .050f * f->eye_size * fmaxf(-.3f, 1 - .8f * f->a[LOW_LID] + .25f * f->a[LID]);
    if (f->a[LID] < -.9f)
        low = fminf(low, .01f);
    mimic_point pt[2 * N], lid[N], crease[N];
    for (int i = 0; i < N; i++) {
        float t = -1 + 2 * (float)i / (N - 1), outer = (t + 1) / 2; /* t = 1 at the outer corner */
        float x = cx + k * t * half, round = 1 - t * t, base = cy - f->eye_tilt * t;
        base += .05f * f->a[DROOP] * outer * outer;
        float lift = up * powf(round, .75f) * (1 - .45f * f->a[DROOP] * outer);
        pt[i] = lid[i] = at(f, x, base - lift, 0);
        crease[i] = at(f, x, base - lift - .035f - .02f * (1 - f->a[LID]) * round, 0);
        pt[2 * N - 1 - i] = at(f, x, base + fmaxf(-lift * .6f, low * round), 0);
    }
    mimic_paint white = mimic_draw_plain((mimic_rgb){.93f, .92f, .90f});
    mimic_draw_polygon(c, pt, 2 * N, &white);
    c->clip = pt;
    c->clip_count = 2 * N;
    mimic_point eye = at(f, cx + gaze_x * .05f, cy - .012f + gaze_y * .02f, 0);
    mimic_paint iris = mimic_draw_plain(f->iris),
                pupil = mimic_draw_plain((mimic_rgb){.03f, .03f, .03f});
    float r = .066f * s * (.5f + .5f * f->eye_size);
    mimic_draw_ellipse(c, eye.x, eye.y, r * cosf(f->yaw), r, 0, &iris);
    mimic_draw_ellipse(c, eye.x, eye.y, r * .48f, r * .48f, 0, &pupil);
    mimic_paint light = mimic_draw_plain((mimic_rgb){1, 1, 1});
    mimic_draw_ellipse(c, eye.x - r * .3f, eye.y - r * .35f, r * .2f, r * .2f, 0, &light);
    mimic_paint shadow = mimic_draw_plain((mimic_rgb){.2f, .15f, .15f});
    shadow.alpha = .35f;
    mimic_draw_stroke(c, lid, N, .02f, .05f * s, .02f, &shadow);
    c->clip = NULL;
    mimic_paint lash = mimic_draw_plain(mimic_rgb_scale(f->hair, .5f)),
                fold = mimic_draw_plain(mimic_rgb_scale(f->skin, .6f));
    mimic_draw_stroke(c, lid, N, .010f * s, .028f * s, .018f * s, &lash);
    fold.alpha = .6f;
    mimic_draw_stroke(c, crease, N, .004f, .014f * s, .006f, &fold);
    fold.alpha = fminf(.8f, .25f + .5f * fmaxf(0, f->a[LOW_LID]));
    mimic_draw_stroke(c, pt + N, N, .006f, .014f * s, .006f, &fold);
}

void mimic_face_brow(mimic_face *f, int side) {
    enum { N = 9 };
    float k = (float)side, s = f->scale, y = -.40f + f->brow_height;
    float x_in = .15f - .055f * f->a[KNIT], x_out = .50f;
    float y_in = y - .100f * f->a[BROW_IN] + .040f * f->a[KNIT] + .02f * f->a[NOSE];
    float y_out = y + .035f - .085f * f->a[BROW_OUT];
    float arch = -.035f - .030f * (f->a[BROW_IN] + f->a[BROW_OUT]) * .5f + .02f * fabsf(f->a[KNIT]);
    mimic_point pt[N];
    arc(f, pt, N, k * x_in, y_in, k * x_out, y_out, arch);
    mimic_draw_stroke(f->c, pt, N, .050f * s * f->brow_weight, .052f * s * f->brow_weight,
                      .012f * s, &f->brow);
}

void mimic_face_nose(mimic_face *f) {
    mimic_canvas *c = f->c;
    float s = f->scale, tip = .16f * f->nose_length - .025f * f->a[NOSE],
          w = .11f * f->nose_width * (1 + .15f * f->a[NOSE]);
    mimic_rgb dark = mimic_rgb_scale(f->skin, .5f),
              bright = mimic_rgb_mix(f->skin, (mimic_rgb){1, 1, 1}, .5f);
    float lit = f->yaw > 0 ? -1 : 1;
    mimic_point pt[8];
    for (int i = 0; i < 8; i++) {
        float t = (float)i / 7;
        pt[i] = at(f, lit * (.05f + .03f * t * f->nose_width), -.22f + (tip + .18f) * t, .04f * t);
    }
    mimic_paint side = mimic_draw_plain(dark);
    side.alpha = .4f;
    mimic_draw_stroke(c, pt, 8, .01f, .035f * s, .03f * s, &side);
    mimic_point t = at(f, 0, tip - .03f, .14f), b = at(f, 0, -.05f, .08f);
    mimic_draw_blob(c, b.x, b.y, .04f * s, .14f * s, bright, .35f);
    mimic_draw_blob(c, t.x, t.y, .07f * s, .06f * s, bright, .40f);
    mimic_paint hole = mimic_draw_plain(mimic_rgb_scale(f->skin, .28f));
    for (int k = -1; k <= 1; k += 2) {
        mimic_point n = at(f, (float)k * w * .55f, tip + .045f, .06f), wing[6];
        mimic_draw_ellipse(c, n.x, n.y, .035f * s * f->nose_width,
                           .018f * s * (1 + .3f * f->a[NOSE]), f->roll + (float)k * .3f, &hole);
        for (int i = 0; i < 6; i++) {
            float u = (float)i / 5;
            wing[i] = at(f, (float)k * (w * (1 + .25f * sinf(3 * u))), tip - .05f + .10f * u, .02f);
        }
        side.alpha = .55f;
        mimic_draw_stroke(c, wing, 6, .006f, .022f * s, .012f, &side);
    }
}

/* A curve across the mouth: corners at +-w, `mid` in the middle, with an optional dip (Cupid's
 * bow). */
static void mouth_curve(const mimic_face *f, mimic_point *out, int n, float w, float corner,
                        float mid, float flat, float bow) {
    for (int i = 0; i < n; i++) {
        float t = -1 + 2 * (float)i / (float)(n - 1), r = powf(fabsf(t), flat);
        float y = mid + (corner - mid) * r + bow * expf(-40 * t * t) -
                  bow * .7f * expf(-30 * (fabsf(t) - .3f) * (fabsf(t) - .3f));
        out[i] = at(f, w * t, y, .03f * (1 - t * t));
    }
}

void mimic_face_mouth(mimic_face *f) {
    enum { N = 17 };
    mimic_canvas *c = f->c;
    const float *a = f->a;
    float w = f->mouth_width * (1 + .28f * a[STRETCH] + .10f * a[CORNER]), y = f->mouth_y;
    float corner = y - .115f * a[CORNER] + .5f * .11f * a[OPEN];
    float thin = f->lips * (1 - .7f * fminf(1, a[PRESS]));
    float in_top = y - .045f * a[UPPER] + .02f * a[CORNER],
          in_low = in_top + .004f + .24f * a[OPEN] + .05f * a[UPPER] * a[TEETH];
    in_low += .05f * a[CORNER] * fminf(1, a[TEETH]) * (a[OPEN] > .02f ? 1 : 0);
    mimic_point top[N], bottom[N], inner[2 * N], lip[2 * N], gap[2 * N];
    /* Outer edges of the lips, then the opening between them. */
    mouth_curve(f, top, N, w, corner, in_top - .058f * thin, 1.7f, .02f * thin);
    mouth_curve(f, bottom, N, w, corner, in_low + .080f * thin, 2.0f, 0);
    for (int i = 0; i < N; i++) {
        lip[i] = top[i];
        lip[2 * N - 1 - i] = bottom[i];
    }
    mimic_paint red = mimic_draw_plain(f->lip);
    mimic_draw_polygon(c, lip, 2 * N, &red);
    mouth_curve(f, inner, N, w * .93f, corner, in_top, 2.0f, 0);
    mouth_curve(f, gap, N, w * .93f, corner, in_low, 2.2f, 0);
    for (int i = 0; i < N; i++)
        inner[2 * N - 1 - i] = gap[i];
    mimic_paint cave = mimic_draw_plain((mimic_rgb){.17f, .05f, .06f});
    mimic_draw_polygon(c, inner, 2 * N, &cave);
    c->clip = inner;
    c->clip_count = 2 * N;
    if (a[OPEN] > .45f) { /* tongue */
        mimic_point t = at(f, 0, in_low + .01f, 0);
        mimic_paint tongue = mimic_draw_plain((mimic_rgb){.68f, .30f, .32f});
        mimic_draw_ellipse(c, t.x, t.y, w * .6f * f->scale, .07f * f->scale, f->roll, &tongue);
    }
    if (a[TEETH] > .15f) {
        mimic_point edge[2 * N];
        float show = fminf(.085f, .03f + .07f * a[TEETH]);
        mouth_curve(f, edge, N, w * .9f, corner - .05f, in_top - .06f, 2, 0);
        mouth_curve(f, gap, N, w * .9f, corner - .005f, in_top + show, 2, 0);
        for (int i = 0; i < N; i++)
            edge[2 * N - 1 - i] = gap[i];
        mimic_paint teeth = mimic_draw_plain((mimic_rgb){.95f, .93f, .87f});
        mimic_draw_polygon(c, edge, 2 * N, &teeth);
    }
    c->clip = NULL;
    /* The line of the lips and the shadow below them. */
    mimic_paint line = mimic_draw_plain(mimic_rgb_scale(f->lip, .4f));
    line.alpha = .8f;
    mimic_draw_stroke(c, inner, N, .016f * f->scale, .014f * f->scale, .016f * f->scale, &line);
    mimic_point under = at(f, 0, in_low + .13f * f->lips, 0);
    mimic_draw_blob(c, under.x, under.y, w * .7f * f->scale, .03f * f->scale,
                    mimic_rgb_scale(f->skin, .5f), .3f);
}

void mimic_face_glasses(mimic_face *f) {
    bool dark = mimic_face_chance(f, .15f);
    mimic_paint rim = mimic_draw_plain(mimic_draw_colour(f->rng, .3f, .05f, .4f));
    mimic_paint glass = mimic_draw_plain((mimic_rgb){.08f, .08f, .10f});
    glass.alpha = dark ? .85f : .06f;
    float rx = mimic_face_uni(f, .17f, .21f), ry = mimic_face_uni(f, .11f, .17f);
    for (int k = -1; k <= 1; k += 2) {
        mimic_point ring[24];
        for (int i = 0; i < 24; i++) {
            float t = 6.2831853f * (float)i / 23;
            ring[i] = at(f, (float)k * f->eye_gap + rx * cosf(t), -.19f + ry * sinf(t), .08f);
        }
        mimic_draw_polygon(f->c, ring, 24, &glass);
        mimic_draw_stroke(f->c, ring, 24, .022f * f->scale, .022f * f->scale, .022f * f->scale,
                          &rim);
        mimic_point arm[2] = {at(f, (float)k * (f->eye_gap + rx), -.21f, .06f),
                              at(f, (float)k * f->width, -.18f, -.2f)};
        mimic_draw_stroke(f->c, arm, 2, .022f * f->scale, .022f * f->scale, .02f * f->scale, &rim);
    }
    mimic_point bridge[2] = {at(f, -f->eye_gap + rx, -.2f, .1f), at(f, f->eye_gap - rx, -.2f, .1f)};
    mimic_draw_stroke(f->c, bridge, 2, .022f * f->scale, .022f * f->scale, .022f * f->scale, &rim);
}

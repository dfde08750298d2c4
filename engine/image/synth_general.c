/* Synthetic general pictures: twelve classes of objects and scenes in random colours, textures,
 * sizes and clutter, so that only the shape tells the class. */
#include "image/synth_draw.h"

#include <math.h>

#define PI 3.14159265f

/* One object: where it stands, how large, how tilted. */
typedef struct thing {
    mimic_canvas *c;
    mimic_rng *rng;
    float x, y, size, angle;
} thing;

static float uni(thing *t, float lo, float hi) {
    return mimic_draw_range(t->rng, lo, hi);
}

static mimic_point at(const thing *t, float x, float y) {
    float c = cosf(t->angle) * t->size, s = sinf(t->angle) * t->size;
    return (mimic_point){t->x + x * c - y * s, t->y + x * s + y * c};
}

static void polygon(thing *t, const float (*xy)[2], int n, const mimic_paint *p) {
    mimic_point pt[64];
    for (int i = 0; i < n; i++)
        pt[i] = at(t, xy[i][0], xy[i][1]);
    mimic_draw_polygon(t->c, pt, n, p);
}

static void box(thing *t, float x0, float y0, float x1, float y1, const mimic_paint *p) {
    const float xy[4][2] = {{x0, y0}, {x1, y0}, {x1, y1}, {x0, y1}};
    polygon(t, xy, 4, p);
}

static void ellipse(thing *t, float x, float y, float rx, float ry, float angle,
                    const mimic_paint *p) {
    mimic_point m = at(t, x, y);
    mimic_draw_ellipse(t->c, m.x, m.y, rx * t->size, ry * t->size, t->angle + angle, p);
}

static void line(thing *t, float x0, float y0, float x1, float y1, float w, const mimic_paint *p) {
    mimic_point pt[2] = {at(t, x0, y0), at(t, x1, y1)};
    w *= t->size;
    mimic_draw_stroke(t->c, pt, 2, w, w, w, p);
}

static mimic_paint darker(mimic_paint p, float f) {
    p.rgb = mimic_rgb_scale(p.rgb, f);
    p.other = mimic_rgb_scale(p.other, f);
    return p;
}

static mimic_paint plain(thing *t) {
    return mimic_draw_plain(mimic_draw_colour(t->rng, uni(t, .1f, .9f), .2f, 1));
}

static void draw_ball(thing *t) {
    mimic_paint p = mimic_draw_any_paint(t->rng);
    mimic_point shadow = at(t, .1f, 1.0f), lit = at(t, -.3f, -.35f), low = at(t, .2f, .4f);
    mimic_draw_blob(t->c, shadow.x, shadow.y, .9f * t->size, .2f * t->size, (mimic_rgb){0, 0, 0},
                    .6f);
    ellipse(t, 0, 0, 1, 1, 0, &p);
    mimic_draw_blob(t->c, low.x, low.y, .6f * t->size, .5f * t->size, (mimic_rgb){0, 0, 0}, .4f);
    mimic_draw_blob(t->c, lit.x, lit.y, .3f * t->size, .3f * t->size, (mimic_rgb){1, 1, 1}, .8f);
}

static void draw_facade(thing *t) {
    mimic_paint wall = mimic_draw_any_paint(t->rng), pane = darker(plain(t), .5f), frame = plain(t);
    int columns = 2 + (int)mimic_rng_below(t->rng, 3), rows = 3 + (int)mimic_rng_below(t->rng, 3);
    box(t, -.75f, -1.1f, .75f, 1.2f, &wall);
    for (int i = 0; i < columns; i++)
        for (int j = 0; j < rows; j++) {
            float w = 1.5f / (float)columns, h = 2.1f / (float)rows;
            float x = -.75f + w * ((float)i + .5f), y = -1.05f + h * ((float)j + .5f);
            box(t, x - .34f * w, y - .34f * h, x + .34f * w, y + .34f * h, &frame);
            box(t, x - .26f * w, y - .28f * h, x + .26f * w, y + .28f * h, &pane);
        }
}

static void draw_star(thing *t) {
    mimic_paint p = mimic_draw_any_paint(t->rng);
    int arms = 5 + (int)mimic_rng_below(t->rng, 3);
    float inner = uni(t, .35f, .55f), xy[20][2];
    t->angle = uni(t, 0, PI);
    for (int i = 0; i < 2 * arms; i++) {
        float a = PI * (float)i / (float)arms, r = i % 2 ? inner : 1;
        xy[i][0] = r * sinf(a);
        xy[i][1] = -r * cosf(a);
    }
    polygon(t, xy, 2 * arms, &p);
}

static void draw_target(thing *t) {
    mimic_paint p[2] = {plain(t), plain(t)};
    int rings = 3 + (int)mimic_rng_below(t->rng, 4);
    float squash = uni(t, .6f, 1);
    for (int i = 0; i < rings; i++) {
        float r = 1 - (float)i / (float)rings;
        ellipse(t, 0, 0, r, r * squash, 0, &p[i % 2]);
    }
}

static void draw_tree(thing *t) {
    mimic_paint trunk = mimic_draw_plain((mimic_rgb){uni(t, .2f, .5f), uni(t, .12f, .3f), .1f});
    mimic_paint leaf = mimic_draw_any_paint(t->rng);
    leaf.rgb = mimic_rgb_mix(leaf.rgb, (mimic_rgb){.1f, uni(t, .3f, .6f), .1f}, uni(t, .3f, 1));
    const float stem[4][2] = {{-.10f, -.1f}, {.10f, -.1f}, {.16f, 1.1f}, {-.16f, 1.1f}};
    polygon(t, stem, 4, &trunk);
    if (mimic_rng_uniform(t->rng) < .5) { /* fir */
        for (int i = 2; i >= 0; i--) {
            float y = -1.1f + .5f * (float)i, w = .4f + .18f * (float)i;
            const float layer[3][2] = {{0, y}, {w, y + .75f}, {-w, y + .75f}};
            mimic_paint p = darker(leaf, .75f + .12f * (float)i);
            polygon(t, layer, 3, &p);
        }
        return;
    }
    for (int i = 0; i < 7; i++) {
        mimic_paint p = darker(leaf, uni(t, .7f, 1.1f));
        float r = uni(t, .3f, .5f);
        ellipse(t, uni(t, -.5f, .5f), uni(t, -.9f, -.2f), r, r * .9f, 0, &p);
    }
}

static void draw_house(thing *t) {
    mimic_paint wall = mimic_draw_any_paint(t->rng), roof = plain(t), door = plain(t),
                pane = plain(t);
    float eave = uni(t, .05f, .25f), top = uni(t, -1.1f, -.7f), wide = uni(t, .8f, 1.1f);
    box(t, -wide, -.2f, wide, .9f, &wall);
    const float gable[3][2] = {{-wide - eave, -.2f}, {wide + eave, -.2f}, {uni(t, -.2f, .2f), top}};
    polygon(t, gable, 3, &roof);
    float x = uni(t, -.6f, .4f);
    box(t, x, .25f, x + .3f, .9f, &door);
    box(t, x > -.1f ? x - .55f : x + .5f, .1f, x > -.1f ? x - .2f : x + .85f, .5f, &pane);
}

static void draw_fish(thing *t) {
    mimic_paint body = mimic_draw_any_paint(t->rng), fin = darker(plain(t), .8f);
    float high = uni(t, .35f, .6f);
    if (mimic_rng_uniform(t->rng) < .5)
        t->angle += PI;
    const float tail[4][2] = {{.6f, 0}, {1.15f, -.5f}, {.95f, 0}, {1.15f, .5f}};
    const float back[3][2] = {{-.3f, -high * .8f}, {.4f, -high * .7f}, {.35f, -high - .3f}};
    polygon(t, tail, 4, &fin);
    polygon(t, back, 3, &fin);
    ellipse(t, -.05f, 0, .8f, high, 0, &body);
    const float belly[3][2] = {{-.1f, .05f}, {.25f, .1f}, {.2f, .4f}};
    polygon(t, belly, 3, &fin);
    mimic_paint white = mimic_draw_plain((mimic_rgb){1, 1, 1}),
                black = mimic_draw_plain((mimic_rgb){0, 0, 0});
    ellipse(t, -.5f, -.1f, .1f, .1f, 0, &white);
    ellipse(t, -.52f, -.1f, .05f, .05f, 0, &black);
}

static void draw_flower(thing *t) {
    mimic_paint petal = mimic_draw_any_paint(t->rng), heart = plain(t);
    mimic_paint green = mimic_draw_plain((mimic_rgb){.15f, uni(t, .35f, .6f), .12f});
    int petals = 5 + (int)mimic_rng_below(t->rng, 5);
    float thick = uni(t, .16f, .26f), turn = uni(t, 0, 1);
    line(t, 0, 0, uni(t, -.2f, .2f), 1.3f, .09f, &green);
    ellipse(t, .25f, .85f, .28f, .10f, -.5f, &green);
    for (int i = 0; i < petals; i++) {
        float a = 2 * PI * ((float)i + turn) / (float)petals;
        mimic_paint p = darker(petal, uni(t, .85f, 1.1f));
        ellipse(t, .48f * cosf(a), -.1f + .48f * sinf(a), .36f, thick, a, &p);
    }
    ellipse(t, 0, -.1f, .24f, .24f, 0, &heart);
}

static void draw_mountains(thing *t) {
    mimic_paint snow = mimic_draw_plain((mimic_rgb){.95f, .96f, 1});
    int peaks = 2 + (int)mimic_rng_below(t->rng, 3);
    for (int i = 0; i < peaks; i++) {
        mimic_paint rock = mimic_draw_any_paint(t->rng);
        float x = uni(t, -1, 1), y = uni(t, -.7f, .1f), w = uni(t, .5f, 1.1f),
              lean = uni(t, -.2f, .2f);
        mimic_point slope[3] = {{x + lean, y}, {x + w, 1.1f}, {x - w, 1.1f}};
        mimic_draw_polygon(t->c, slope, 3, &rock);
        float h = uni(t, .12f, .3f), side = w * h / (1.1f - y);
        mimic_point cap[5] = {{x + lean, y},
                              {x + lean + side * .8f, y + h},
                              {x + lean + side * .25f, y + h * .75f},
                              {x + lean - side * .3f, y + h * 1.1f},
                              {x + lean - side, y + h * .9f}};
        mimic_draw_polygon(t->c, cap, 5, &snow);
    }
}

static void draw_clock(thing *t) {
    mimic_paint rim = plain(t), dial = plain(t), mark = darker(plain(t), .4f);
    dial.rgb = mimic_rgb_mix(dial.rgb, (mimic_rgb){1, 1, 1}, .6f);
    ellipse(t, 0, 0, 1, 1, 0, &rim);
    ellipse(t, 0, 0, .84f, .84f, 0, &dial);
    for (int i = 0; i < 12; i++) {
        float c = cosf(PI * (float)i / 6), s = sinf(PI * (float)i / 6);
        line(t, .66f * c, .66f * s, .79f * c, .79f * s, .06f, &mark);
    }
    for (int i = 0; i < 2; i++) {
        float a = uni(t, 0, 2 * PI), r = i ? .66f : .42f;
        line(t, 0, 0, r * cosf(a), r * sinf(a), i ? .06f : .10f, &mark);
    }
}

static void draw_cup(thing *t) {
    mimic_paint body = mimic_draw_any_paint(t->rng), inside = darker(body, .45f);
    float taper = uni(t, 0, .25f), side = mimic_rng_uniform(t->rng) < .5 ? -1.0f : 1.0f;
    mimic_point ring[14];
    for (int i = 0; i < 14; i++) {
        float a = -PI / 2 + PI * (float)i / 13;
        ring[i] = at(t, side * (.62f + .36f * cosf(a)), .05f + .42f * sinf(a));
    }
    mimic_draw_stroke(t->c, ring, 14, .15f * t->size, .15f * t->size, .15f * t->size, &body);
    const float wall[4][2] = {
        {-.75f, -.7f}, {.75f, -.7f}, {.75f - taper, .8f}, {-.75f + taper, .8f}};
    polygon(t, wall, 4, &body);
    ellipse(t, 0, .8f, .75f - taper, .14f, 0, &body);
    ellipse(t, 0, -.7f, .75f, .2f, 0, &body);
    ellipse(t, 0, -.7f, .66f, .15f, 0, &inside);
}

static void draw_car(thing *t) {
    mimic_paint body = mimic_draw_any_paint(t->rng), glass = darker(plain(t), .6f);
    mimic_paint tyre = mimic_draw_plain((mimic_rgb){.07f, .07f, .08f}), hub = plain(t);
    float front = uni(t, .3f, .6f), back = uni(t, .3f, .7f);
    const float cabin[4][2] = {
        {-back - .2f, -.05f}, {-back + .1f, -.5f}, {front - .2f, -.5f}, {front + .15f, -.05f}};
    const float window[4][2] = {
        {-back - .02f, -.08f}, {-back + .16f, -.4f}, {front - .25f, -.4f}, {front, -.08f}};
    polygon(t, cabin, 4, &body);
    polygon(t, window, 4, &glass);
    box(t, -1.1f, -.08f, 1.1f, .4f, &body);
    for (int k = -1; k <= 1; k += 2) {
        ellipse(t, .62f * (float)k, .4f, .26f, .26f, 0, &tyre);
        ellipse(t, .62f * (float)k, .4f, .12f, .12f, 0, &hub);
    }
}

static void draw_background(thing *t) {
    mimic_paint p = mimic_draw_any_paint(t->rng);
    p.frequency *= uni(t, .3f, 1);
    mimic_draw_background(t->c, &p);
    if (mimic_rng_uniform(t->rng) < .6) { /* ground */
        mimic_paint ground = mimic_draw_any_paint(t->rng);
        float y = uni(t, 0, .8f), slope = uni(t, -.1f, .1f);
        mimic_point pt[4] = {{-1, y - slope}, {1, y + slope}, {1, 1}, {-1, 1}};
        mimic_draw_polygon(t->c, pt, 4, &ground);
    }
    int clutter = (int)mimic_rng_below(t->rng, 6);
    for (int i = 0; i < clutter; i++) {
        mimic_paint q = mimic_draw_any_paint(t->rng);
        q.alpha = uni(t, .4f, 1);
        float x = uni(t, -1, 1), y = uni(t, -1, 1), a = uni(t, 0, PI), r = uni(t, .06f, .3f);
        if (i % 2) {
            mimic_point pt[3];
            for (int k = 0; k < 3; k++, a += uni(t, 1.2f, 2.6f))
                pt[k] = (mimic_point){x + r * cosf(a), y + r * sinf(a)};
            mimic_draw_polygon(t->c, pt, 3, &q);
        } else {
            mimic_draw_ellipse(t->c, x, y, r, r * uni(t, .3f, .7f), a, &q);
        }
    }
}

mimic_status mimic_synth_general(uint64_t seed, uint32_t index, int label, int size,
                                 mimic_image *out, mimic_err *err) {
    static void (*const draw[MIMIC_SYNTH_GENERAL_CLASSES])(thing * t) = {
        draw_ball, draw_facade, draw_star,      draw_target, draw_tree, draw_house,
        draw_fish, draw_flower, draw_mountains, draw_clock,  draw_cup,  draw_car};
    if (label < 0 || label >= MIMIC_SYNTH_GENERAL_CLASSES)
        return mimic_err_fail(err, MIMIC_EINVAL, "general class %d of %d", label,
                              MIMIC_SYNTH_GENERAL_CLASSES);
    mimic_canvas c;
    mimic_rng rng;
    mimic_status s = mimic_canvas_open(&c, size, err);
    if (s != MIMIC_OK)
        return s;
    mimic_rng_init(&rng, seed, MIMIC_SYNTH_STREAM_GENERAL, index);
    thing t = {.c = &c, .rng = &rng};
    draw_background(&t);
    int count = mimic_rng_uniform(&rng) < .3 ? 2 : 1;
    for (int i = 0; i < count; i++) {
        t.size = uni(&t, .28f, .75f) / (float)count + .1f;
        t.x = uni(&t, -.9f + t.size, .9f - t.size) * .9f;
        t.y = uni(&t, -.9f + t.size, .9f - t.size) * .9f;
        t.angle = .15f * (float)mimic_rng_normal(&rng);
        draw[label](&t);
    }
    mimic_draw_light(&c, uni(&t, -.3f, .3f), uni(&t, -.3f, .3f), uni(&t, 0, .5f));
    s = mimic_canvas_finish(&c, &rng, uni(&t, 0, .05f), out, err);
    mimic_canvas_close(&c);
    return s;
}

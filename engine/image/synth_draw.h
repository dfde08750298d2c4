/* Drawing for the synthetic sets: anti-aliased polygons with textures on a float canvas.
 * Coordinates are in units of the picture, -1..1 from left to right and top to bottom. */
#ifndef MIMIC_SYNTH_DRAW_H
#define MIMIC_SYNTH_DRAW_H

#include "image/image_impl.h"

typedef struct mimic_point {
    float x, y;
} mimic_point;

typedef struct mimic_rgb {
    float r, g, b; /* 0..1 */
} mimic_rgb;

typedef enum mimic_texture_kind {
    MIMIC_TEXTURE_NONE,
    MIMIC_TEXTURE_STRIPES,
    MIMIC_TEXTURE_CHECKS,
    MIMIC_TEXTURE_NOISE,
    MIMIC_TEXTURE_SPOTS,
    MIMIC_TEXTURE_GRADIENT,
    MIMIC_TEXTURE_WAVES,
    MIMIC_TEXTURE_BRICKS,
    MIMIC_TEXTURES
} mimic_texture_kind;

/* Colour of a surface: `rgb`, going to `other` where the texture says so. */
typedef struct mimic_paint {
    mimic_rgb rgb, other;
    mimic_texture_kind texture;
    float frequency, angle, phase;
    uint32_t seed;
    float alpha;
} mimic_paint;

typedef struct mimic_canvas {
    int side;                  /* pixels, supersampled */
    float *rgb;                /* [side, side, 3] */
    float *cover, *clip_cover; /* one row of coverage each */
    const mimic_point *clip; /* everything outside of this polygon stays as it is; NULL: no clip */
    int clip_count;
} mimic_canvas;

mimic_status mimic_canvas_open(mimic_canvas *c, int size, mimic_err *err);
void mimic_canvas_close(mimic_canvas *c);
/* Averages the supersamples, adds noise of standard deviation `noise`, rounds. */
mimic_status mimic_canvas_finish(mimic_canvas *c, mimic_rng *rng, float noise, mimic_image *out,
                                 mimic_err *err);

void mimic_draw_background(mimic_canvas *c, const mimic_paint *p);
void mimic_draw_polygon(mimic_canvas *c, const mimic_point *pt, int n, const mimic_paint *p);
void mimic_draw_ellipse(mimic_canvas *c, float x, float y, float rx, float ry, float angle,
                        const mimic_paint *p);
/* A line through n points whose full width goes from w0 over w1 (middle) to w2. */
void mimic_draw_stroke(mimic_canvas *c, const mimic_point *pt, int n, float w0, float w1, float w2,
                       const mimic_paint *p);
/* A soft spot with Gaussian edges. */
void mimic_draw_blob(mimic_canvas *c, float x, float y, float rx, float ry, mimic_rgb rgb,
                     float alpha);
/* Multiplies the light: 1 + gx x + gy y, and darkens the corners by `vignette`. */
void mimic_draw_light(mimic_canvas *c, float gx, float gy, float vignette);

/* Streams of the two kinds of pictures; the step of the generator is the picture's index. */
#define MIMIC_SYNTH_STREAM_FACE 0xfe000000u
#define MIMIC_SYNTH_STREAM_GENERAL 0xfe000001u

/* Chance. */
float mimic_draw_range(mimic_rng *rng, float lo, float hi);
mimic_rgb mimic_draw_colour(mimic_rng *rng, float saturation, float lo, float hi); /* any hue */
mimic_paint mimic_draw_plain(mimic_rgb rgb);
/* A paint with a random texture and two random colours. */
mimic_paint mimic_draw_any_paint(mimic_rng *rng);
mimic_rgb mimic_rgb_mix(mimic_rgb a, mimic_rgb b, float t);
mimic_rgb mimic_rgb_scale(mimic_rgb a, float f);
float mimic_draw_noise(uint32_t seed, float x, float y); /* smooth value noise, 0..1 */

#endif

/* The canvas of the synthetic sets. Polygons are filled by the non-zero rule with exact horizontal
 * coverage on four sub-lines per row of a canvas twice as fine as the picture. */
#include "image/synth_draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OVER 2     /* canvas pixels per picture pixel and axis */
#define SUBLINES 4 /* per canvas row */
#define MAX_POINTS 128
#define PI 3.14159265f

mimic_status mimic_canvas_open(mimic_canvas *c, int size, mimic_err *err) {
    *c = (mimic_canvas){0};
    if (size < 8 || size > 1024)
        return mimic_err_fail(err, MIMIC_EINVAL,
                              "a synthetic picture of %d pixels: 8 to 1024 are possible", size);
    c->side = size * OVER;
    size_t side = (size_t)c->side;
    c->rgb = malloc((side * side * 3 + 2 * side) * sizeof *c->rgb);
    if (!c->rgb)
        return mimic_err_fail(err, MIMIC_ENOMEM, "no memory to draw a picture of %d pixels", size);
    c->cover = c->rgb + side * side * 3;
    c->clip_cover = c->cover + side;
    return MIMIC_OK;
}

void mimic_canvas_close(mimic_canvas *c) {
    free(c->rgb);
    c->rgb = NULL;
}

mimic_status mimic_canvas_finish(mimic_canvas *c, mimic_rng *rng, float noise, mimic_image *out,
                                 mimic_err *err) {
    int size = c->side / OVER;
    mimic_status s = mimic_image_reserve(out, size, size, err);
    if (s != MIMIC_OK)
        return s;
    uint8_t *p = out->pixels;
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            /* Grain is mostly brightness. */
            float grain = noise > 0 ? noise * (float)mimic_rng_normal(rng) : 0;
            for (int k = 0; k < 3; k++, p++) {
                float v = grain;
                for (int j = 0; j < OVER * OVER; j++)
                    v += c->rgb[((size_t)(y * OVER + j / OVER) * (size_t)c->side +
                                 (size_t)(x * OVER + j % OVER)) *
                                    3 +
                                (size_t)k] /
                         (OVER * OVER);
                v = v < 0 ? 0 : v > 1 ? 1 : v;
                *p = (uint8_t)(v * 255 + 0.5f);
            }
        }
    return MIMIC_OK;
}

float mimic_draw_range(mimic_rng *rng, float lo, float hi) {
    return lo + (hi - lo) * (float)mimic_rng_uniform(rng);
}

mimic_rgb mimic_rgb_mix(mimic_rgb a, mimic_rgb b, float t) {
    return (mimic_rgb){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

mimic_rgb mimic_rgb_scale(mimic_rgb a, float f) {
    return (mimic_rgb){a.r * f, a.g * f, a.b * f};
}

mimic_rgb mimic_draw_colour(mimic_rng *rng, float saturation, float lo, float hi) {
    float h = mimic_draw_range(rng, 0, 6), v = mimic_draw_range(rng, lo, hi);
    float f[3];
    for (int k = 0; k < 3; k++) {
        float d = fabsf(fmodf(h + (float)k * 2, 6) - 3) - 1;
        f[k] = v * (1 - saturation * (1 - (d < 0 ? 0 : d > 1 ? 1 : d)));
    }
    return (mimic_rgb){f[0], f[1], f[2]};
}

mimic_paint mimic_draw_plain(mimic_rgb rgb) {
    return (mimic_paint){.rgb = rgb, .other = rgb, .alpha = 1};
}

mimic_paint mimic_draw_any_paint(mimic_rng *rng) {
    float saturation = mimic_draw_range(rng, 0, 0.9f);
    return (mimic_paint){.rgb = mimic_draw_colour(rng, saturation, 0.15f, 1),
                         .other = mimic_draw_colour(rng, saturation, 0.1f, 0.95f),
                         .texture = (mimic_texture_kind)mimic_rng_below(rng, MIMIC_TEXTURES),
                         .frequency = mimic_draw_range(rng, 2, 9),
                         .angle = mimic_draw_range(rng, 0, PI),
                         .phase = mimic_draw_range(rng, 0, 1),
                         .seed = mimic_rng_u32(rng),
                         .alpha = 1};
}

static float hash01(uint32_t seed, int x, int y) {
    uint32_t h = seed ^ (uint32_t)x * 0x9e3779b1u ^ (uint32_t)y * 0x85ebca77u;
    h = (h ^ h >> 15) * 0x2c1b3c6du;
    h = (h ^ h >> 12) * 0x297a2d39u;
    return (float)((h ^ h >> 15) >> 8) * (1.0f / 16777216);
}

float mimic_draw_noise(uint32_t seed, float x, float y) {
    float v = 0, weight = 0.5f;
    for (int octave = 0; octave < 3; octave++, weight *= 0.5f, x *= 2, y *= 2, seed++) {
        int ix = (int)floorf(x), iy = (int)floorf(y);
        float fx = x - (float)ix, fy = y - (float)iy;
        fx = fx * fx * (3 - 2 * fx);
        fy = fy * fy * (3 - 2 * fy);
        float a = hash01(seed, ix, iy), b = hash01(seed, ix + 1, iy);
        float c = hash01(seed, ix, iy + 1), d = hash01(seed, ix + 1, iy + 1);
        v += weight * (a + (b - a) * fx + (c - a + (a - b - c + d) * fx) * fy);
    }
    return v / 0.875f;
}

/* A smooth step of width `w` around 0. */
static float soft(float v, float w) {
    v = v / w + 0.5f;
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* How much of `other` the paint shows at (x,y). */
static float texture_at(const mimic_paint *p, float x, float y) {
    float c = cosf(p->angle), s = sinf(p->angle);
    float u = (x * c + y * s) * p->frequency + p->phase, v = (y * c - x * s) * p->frequency;
    switch (p->texture) {
    case MIMIC_TEXTURE_STRIPES:
        return soft(sinf(u * PI), 0.3f);
    case MIMIC_TEXTURE_CHECKS:
        return soft(sinf(u * PI) * sinf(v * PI), 0.15f);
    case MIMIC_TEXTURE_NOISE:
        return soft(mimic_draw_noise(p->seed, u, v) - 0.5f, 0.7f);
    case MIMIC_TEXTURE_SPOTS: {
        int iu = (int)floorf(u), iv = (int)floorf(v);
        float du = u - (float)iu - 0.3f - 0.4f * hash01(p->seed, iu, iv);
        float dv = v - (float)iv - 0.3f - 0.4f * hash01(p->seed + 7, iu, iv);
        return soft(0.27f - sqrtf(du * du + dv * dv), 0.1f);
    }
    case MIMIC_TEXTURE_GRADIENT:
        return soft(u / p->frequency - p->phase / p->frequency, 2.0f);
    case MIMIC_TEXTURE_WAVES:
        return 0.5f + 0.5f * sinf(u * PI + 1.5f * sinf(v));
    case MIMIC_TEXTURE_BRICKS: {
        float row = floorf(v * 1.6f), in_row = v * 1.6f - row;
        float at = u * 0.8f + 0.5f * fmodf(fabsf(row), 2), in_brick = at - floorf(at);
        float edge = fminf(fminf(in_row, 1 - in_row) * 0.6f, fminf(in_brick, 1 - in_brick));
        return soft(0.07f - edge, 0.04f);
    }
    default:
        return 0;
    }
}

static void blend(float *dst, mimic_rgb c, float a) {
    dst[0] += (c.r - dst[0]) * a;
    dst[1] += (c.g - dst[1]) * a;
    dst[2] += (c.b - dst[2]) * a;
}

static float unit(const mimic_canvas *c, int pixel) {
    return ((float)pixel + 0.5f) * 2 / (float)c->side - 1;
}

static float *pixel_at(mimic_canvas *c, int x, int y) {
    return c->rgb + ((size_t)y * (size_t)c->side + (size_t)x) * 3;
}

static void paint_pixel(mimic_canvas *c, int x, int y, const mimic_paint *p, float cover) {
    mimic_rgb rgb = p->rgb;
    if (p->texture != MIMIC_TEXTURE_NONE)
        rgb = mimic_rgb_mix(rgb, p->other, texture_at(p, unit(c, x), unit(c, y)));
    blend(pixel_at(c, x, y), rgb, p->alpha * cover);
}

void mimic_draw_background(mimic_canvas *c, const mimic_paint *p) {
    memset(c->rgb, 0, (size_t)c->side * (size_t)c->side * 3 * sizeof *c->rgb);
    for (int y = 0; y < c->side; y++)
        for (int x = 0; x < c->side; x++)
            paint_pixel(c, x, y, p, 1);
}

/* Adds the span [a,b) of a sub-line, in pixels, to the row's coverage. */
static void add_span(float *cover, int side, float a, float b) {
    a = a < 0 ? 0 : a;
    b = b > (float)side ? (float)side : b;
    if (a >= b)
        return;
    int x0 = (int)a, x1 = (int)b;
    const float w = 1.0f / SUBLINES;
    if (x0 == x1) {
        cover[x0] += (b - a) * w;
        return;
    }
    cover[x0] += ((float)(x0 + 1) - a) * w;
    for (int x = x0 + 1; x < x1; x++)
        cover[x] += w;
    if (x1 < side)
        cover[x1] += (b - (float)x1) * w;
}

typedef struct crossing {
    float x;
    int direction;
} crossing;

/* Coverage of canvas row y by the polygon; false when it does not touch the row. */
static bool cover_row(const mimic_canvas *c, const mimic_point *pt, int n, int y, float *cover) {
    bool any = false;
    float scale = (float)c->side * 0.5f;
    for (int i = 0; i < SUBLINES; i++) {
        crossing at[MAX_POINTS];
        int count = 0;
        float line = ((float)y + ((float)i + 0.5f) / SUBLINES) / scale - 1;
        for (int k = 0; k < n; k++) {
            mimic_point a = pt[k], b = pt[k + 1 == n ? 0 : k + 1];
            if ((a.y <= line) == (b.y <= line))
                continue;
            crossing v = {(a.x + (b.x - a.x) * (line - a.y) / (b.y - a.y) + 1) * scale,
                          a.y <= line ? 1 : -1};
            int j = count++;
            for (; j > 0 && at[j - 1].x > v.x; j--)
                at[j] = at[j - 1];
            at[j] = v;
        }
        if (count && !any)
            memset(cover, 0, (size_t)c->side * sizeof *cover);
        any |= count > 0;
        int winding = 0;
        for (int j = 0; j + 1 < count; j++) {
            winding += at[j].direction;
            if (winding != 0)
                add_span(cover, c->side, at[j].x, at[j + 1].x);
        }
    }
    return any;
}

void mimic_draw_polygon(mimic_canvas *c, const mimic_point *pt, int n, const mimic_paint *p) {
    float top = 2, bottom = -2;
    for (int i = 0; i < n; i++) {
        top = fminf(top, pt[i].y);
        bottom = fmaxf(bottom, pt[i].y);
    }
    int y0 = (int)((top + 1) * 0.5f * (float)c->side),
        y1 = (int)((bottom + 1) * 0.5f * (float)c->side);
    y0 = y0 < 0 ? 0 : y0;
    for (int y = y0; y <= y1 && y < c->side; y++) {
        if (n < 3 || n > MAX_POINTS || !cover_row(c, pt, n, y, c->cover))
            continue;
        if (c->clip && !cover_row(c, c->clip, c->clip_count, y, c->clip_cover))
            continue;
        for (int x = 0; x < c->side; x++) {
            float cover = c->cover[x] * (c->clip ? c->clip_cover[x] : 1);
            if (cover > 0)
                paint_pixel(c, x, y, p, cover > 1 ? 1 : cover);
        }
    }
}

void mimic_draw_ellipse(mimic_canvas *c, float x, float y, float rx, float ry, float angle,
                        const mimic_paint *p) {
    enum { N = 36 };
    mimic_point pt[N];
    float ca = cosf(angle), sa = sinf(angle);
    for (int i = 0; i < N; i++) {
        float u = rx * cosf(2 * PI * (float)i / N), v = ry * sinf(2 * PI * (float)i / N);
        pt[i] = (mimic_point){x + u * ca - v * sa, y + u * sa + v * ca};
    }
    mimic_draw_polygon(c, pt, N, p);
}

void mimic_draw_stroke(mimic_canvas *c, const mimic_point *pt, int n, float w0, float w1, float w2,
                       const mimic_paint *p) {
    mimic_point out[MAX_POINTS];
    if (n < 2 || n > MAX_POINTS / 2)
        return;
    for (int i = 0; i < n; i++) {
        mimic_point a = pt[i ? i - 1 : 0], b = pt[i + 1 < n ? i + 1 : i];
        float dx = b.x - a.x, dy = b.y - a.y, len = sqrtf(dx * dx + dy * dy) + 1e-6f;
        float t = (float)i / (float)(n - 1) * 2;
        float w = 0.5f * (t < 1 ? w0 + (w1 - w0) * t : w1 + (w2 - w1) * (t - 1)) / len;
        out[i] = (mimic_point){pt[i].x - dy * w, pt[i].y + dx * w};
        out[2 * n - 1 - i] = (mimic_point){pt[i].x + dy * w, pt[i].y - dx * w};
    }
    mimic_draw_polygon(c, out, 2 * n, p);
}

void mimic_draw_blob(mimic_canvas *c, float x, float y, float rx, float ry, mimic_rgb rgb,
                     float alpha) {
    float half = (float)c->side * 0.5f;
    int x0 = (int)fmaxf(0, (x - 2 * rx + 1) * half), y0 = (int)fmaxf(0, (y - 2 * ry + 1) * half);
    int x1 = (int)fminf((float)c->side, (x + 2 * rx + 1) * half);
    int y1 = (int)fminf((float)c->side, (y + 2 * ry + 1) * half);
    for (int py = y0; py < y1; py++)
        for (int px = x0; px < x1; px++) {
            float u = (unit(c, px) - x) / rx, v = (unit(c, py) - y) / ry;
            blend(pixel_at(c, px, py), rgb, alpha * expf(-1.5f * (u * u + v * v)));
        }
}

void mimic_draw_light(mimic_canvas *c, float gx, float gy, float vignette) {
    for (int y = 0; y < c->side; y++)
        for (int x = 0; x < c->side; x++) {
            float u = unit(c, x), v = unit(c, y);
            float f = (1 + gx * u + gy * v) * (1 - vignette * (u * u + v * v) * 0.5f);
            float *p = pixel_at(c, x, y);
            for (int k = 0; k < 3; k++)
                p[k] *= f < 0 ? 0 : f;
        }
}

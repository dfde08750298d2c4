/* hog: one task is a row of cells of one channel. Arithmetic in double: an angle near the border of
 * two bins falls as the definition says. */
#include "backend/cpu/chunks.h"
#include "backend/cpu/kernel.h"

#include <math.h>

typedef struct hog_job {
    const mimic_tensor *img, *out;
    int64_t bins, pool, per, rows; /* rows: B * H/pool */
    double add[2];                 /* to gx, gy */
} hog_job;

static double pixel(const void *plane, bool wide, int64_t at) {
    return wide ? ((const double *)plane)[at] : (double)((const float *)plane)[at];
}

/* Neighbour of i on an axis of n, reflected at the border without repeating the edge. */
static int64_t reflect(int64_t i, int64_t n) {
    return i < 0 ? 1 : i < n ? i : n - 2;
}

/* Adds the gradient at (y, x) of one channel to its cell's histogram. */
static void vote(const void *plane, bool wide, int64_t height, int64_t width, int64_t y, int64_t x,
                 int64_t bins, const double add[2], double *hist) {
    double p[3][3];
    for (int dy = 0; dy < 3; dy++)
        for (int dx = 0; dx < 3; dx++)
            p[dy][dx] = pixel(plane, wide,
                              reflect(y + dy - 1, height) * width + reflect(x + dx - 1, width));
    double gx = p[0][0] - p[0][2] + 2 * (p[1][0] - p[1][2]) + p[2][0] - p[2][2] + add[0];
    double gy = p[0][0] - p[2][0] + 2 * (p[0][1] - p[2][1]) + p[0][2] - p[2][2] + add[1];
    double turn = floor(atan2(gx, gy) / 3.14159265358979323846 * (double)bins);
    int64_t bin = isfinite(turn) ? (int64_t)turn % bins : 0;
    hist[bin < 0 ? bin + bins : bin] += sqrt(gx * gx + gy * gy);
}

static void hog_chunk(void *arg, int64_t chunk, int worker) {
    const hog_job *j = arg;
    const int64_t *s = j->img->shape;
    int64_t channels = s[1], height = s[2], width = s[3], gh = height / j->pool,
            gw = width / j->pool, end = chunk_end(chunk, j->per, j->rows);
    bool wide = j->img->dtype == MIMIC_F64;
    size_t size = wide ? 8 : 4;
    double hist[360];
    (void)worker;
    for (int64_t r = chunk * j->per; r < end; r++)
        for (int64_t cell = 0; cell < gw * channels; cell++) {
            int64_t b = r / gh, cy = r % gh, cx = cell / channels, ch = cell % channels;
            const char *plane = (const char *)mimic_data(j->img) +
                                (size_t)((b * channels + ch) * height * width) * size;
            for (int64_t k = 0; k < j->bins; k++)
                hist[k] = 0;
            for (int64_t y = cy * j->pool; y < (cy + 1) * j->pool; y++)
                for (int64_t x = cx * j->pool; x < (cx + 1) * j->pool; x++)
                    vote(plane, wide, height, width, y, x, j->bins, j->add, hist);
            int64_t at = (r * gw * channels + cell) * j->bins;
            double area = (double)(j->pool * j->pool);
            for (int64_t k = 0; k < j->bins; k++)
                if (wide)
                    ((double *)mimic_data(j->out))[at + k] = hist[k] / area;
                else
                    ((float *)mimic_data(j->out))[at + k] = (float)(hist[k] / area);
        }
}

mimic_status KERNEL(hog)(mimic_call *c) {
    const mimic_tensor *x = c->in[0];
    hog_job j = {.img = x,
                 .out = c->out[0],
                 .bins = c->attrs.v[0].i,
                 .pool = c->attrs.v[1].i,
                 .add = {c->attrs.v[2].f, c->attrs.v[3].f}};
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    j.rows = c->out[0]->shape[0] * c->out[0]->shape[1];
    j.per = chunk_rows(j.rows, x->shape[1] * x->shape[3] * j.pool * 8);
    mimic_parallel(c->ctx, chunk_count(j.rows, j.per), hog_chunk, &j);
    return MIMIC_OK;
}

/* hog: a block for each cell of one channel. Its pixels' bins and magnitudes go to shared memory,
 * then each bin is added up in the order of the pixels, as on the CPU, in f64. */
#include "backend/cuda/kernel.h"

enum { THREADS = 64 };

/* Neighbour of i on an axis of n, reflected at the border without repeating the edge. */
__device__ __forceinline__ int reflect(int i, int n) {
    return i < 0 ? 1 : i < n ? i : n - 2;
}

/* Bin and magnitude of the gradient at (y,x) of plane[height,width], to which `add` is added. */
__device__ __forceinline__ void vote(const float *plane, int height, int width, int y, int x,
                                     int bins, double2 add, int *bin, double *size) {
    double p[3][3];
    UNROLL for (int dy = 0; dy < 3; dy++) UNROLL for (int dx = 0; dx < 3; dx++) p[dy][dx] =
        (double)plane[(int64_t)reflect(y + dy - 1, height) * width + reflect(x + dx - 1, width)];
    double gx = p[0][0] - p[0][2] + 2 * (p[1][0] - p[1][2]) + p[2][0] - p[2][2] + add.x;
    double gy = p[0][0] - p[2][0] + 2 * (p[0][1] - p[2][1]) + p[0][2] - p[2][2] + add.y;
    double turn = floor(atan2(gx, gy) / 3.14159265358979323846 * (double)bins);
    int k = isfinite(turn) ? (int)turn % bins : 0;
    *bin = k < 0 ? k + bins : k;
    *size = sqrt(gx * gx + gy * gy);
}

/* out[B,down,across,C,bins] of img[B,C,down*pool,across*pool]; dynamic shared memory: bins doubles
 */
__global__ void hog_cells(const float *img, float *out, int channels, int down, int across,
                          int pool, int bins, double2 add) {
    SHARED(double, sizes, THREADS);
    SHARED(int, places, THREADS);
    DYNAMIC_SHARED(double, hist);
    int c = (int)(blockIdx.x % (unsigned)channels);
    int64_t cell = blockIdx.x / (unsigned)channels, b = cell / ((int64_t)down * across);
    int cx = (int)(cell % across), cy = (int)(cell / across % down), area = pool * pool;
    const float *plane = img + (b * channels + c) * area * down * across;
    for (int k = (int)threadIdx.x; k < bins; k += THREADS)
        hist[k] = 0;
    for (int first = 0; first < area; first += THREADS) {
        int i = first + (int)threadIdx.x, n = area - first < THREADS ? area - first : THREADS;
        if (i < area)
            vote(plane, down * pool, across * pool, cy * pool + i / pool, cx * pool + i % pool,
                 bins, add, places + threadIdx.x, sizes + threadIdx.x);
        __syncthreads();
        for (int k = (int)threadIdx.x; k < bins; k += THREADS)
            for (int j = 0; j < n; j++)
                hist[k] += places[j] == k ? sizes[j] : 0;
        __syncthreads();
    }
    for (int k = (int)threadIdx.x; k < bins; k += THREADS)
        out[(int64_t)blockIdx.x * bins + k] = (float)(hist[k] / (double)area);
}

KERNEL(hog) {
    const mimic_tensor *x = c->in[0];
    const int64_t *s = c->out[0]->shape;
    int bins = (int)c->attrs.v[0].i, pool = (int)c->attrs.v[1].i;
    double2 add = {c->attrs.v[2].f, c->attrs.v[3].f};
    if (mimic_numel(x) == 0)
        return MIMIC_OK;
    LAUNCH(hog_cells, blocks_of(s[0] * s[1] * s[2] * s[3], 1), THREADS,
           (size_t)bins * sizeof(double), state_of(c->ctx)->stream, (const float *)mimic_data(x),
           (float *)mimic_data(c->out[0]), (int)s[3], (int)s[1], (int)s[2], pool, bins, add);
    return done(c);
}

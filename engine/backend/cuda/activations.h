/* Activations and their gradients at x, in f32: of the operators by name and of linear. */
#ifndef MIMIC_CUDA_ACTIVATIONS_H
#define MIMIC_CUDA_ACTIVATIONS_H

#include "backend/cuda/kernel.h"

/* The values of linear's attribute `act`. */
enum { ACT_NONE, ACT_RELU, ACT_GELU, ACT_GELU_TANH };

/* Distribution function of the normal distribution and *pdf = its density by one exponential, as
 * simd.h has it for the CPU: Phi(-|x|) = t Q(t) e^(-x^2/2), t = 1 / (1 + 0.3 |x| / sqrt 2). */
__device__ __forceinline__ float normal(float x, float *pdf) {
    float e = __expf(-0.5f * x * x), t = __fdividef(1.0f, fmaf(fabsf(x), 0.212132034f, 1.0f));
    float q = fmaf(t, -0.0652096671f, 0.24510257f);
    q = fmaf(q, t, -0.261267981f);
    q = fmaf(q, t, 0.280163691f);
    q = fmaf(q, t, -0.0520275739f);
    q = fmaf(q, t, 0.109638117f);
    q = fmaf(q, t, 0.0735615704f);
    q = fmaf(q, t, 0.0854513577f);
    q = fmaf(q, t, 0.0845879061f);
    float tail = q * t * e;
    *pdf = e * 0.398942280f;
    return x < 0.0f ? tail : 1.0f - tail;
}
#define ROOT_2_PI 0.79788456080286536f /* sqrt(2 / pi) */
#define CUBE 0.044715f

struct relu_fn { /* NaN stays NaN */
    __device__ float operator()(float a) const {
        return a < 0.0f ? 0.0f : a;
    }
};
struct gelu_fn {
    __device__ float operator()(float a) const {
        float pdf;
        return a * normal(a, &pdf);
    }
};
struct gelu_tanh_fn {
    __device__ float operator()(float a) const {
        return 0.5f * a * (1.0f + tanhf(ROOT_2_PI * a * (1.0f + CUBE * a * a)));
    }
};
struct relu_bwd_fn {
    __device__ float operator()(float dy, float x) const {
        return x > 0.0f ? dy : 0.0f;
    }
};
struct gelu_bwd_fn {
    __device__ float operator()(float dy, float x) const {
        float pdf, cdf = normal(x, &pdf);
        return dy * fmaf(x, pdf, cdf);
    }
};
struct gelu_tanh_bwd_fn {
    __device__ float operator()(float dy, float x) const {
        float u = CUBE * x * x, t = tanhf(ROOT_2_PI * x * (1.0f + u));
        float slope = (1.0f + 3.0f * u) * ROOT_2_PI * x * (1.0f - t * t);
        return dy * 0.5f * (1.0f + t + slope);
    }
};

#endif

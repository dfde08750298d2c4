/* Activations and their gradients at x, in f32: of the operators by name and of linear. */
#ifndef MIMIC_CUDA_ACTIVATIONS_H
#define MIMIC_CUDA_ACTIVATIONS_H

#include "backend/cuda/kernel.h"

/* The values of linear's attribute `act`. */
enum { ACT_NONE, ACT_RELU, ACT_GELU, ACT_GELU_TANH };

__device__ __forceinline__ float normal_cdf(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f));
}
__device__ __forceinline__ float normal_pdf(float x) {
    return 0.39894228040143268f * expf(-0.5f * x * x);
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
        return a * normal_cdf(a);
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
        return dy * (x * normal_pdf(x) + normal_cdf(x));
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

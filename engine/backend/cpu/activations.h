/* Activations and their slopes on a register, for kernels written once (each_float.h); included
 * where T is defined. One source, so that an activation made again from its argument has the same
 * bits wherever it was first made. */
#define GELU_SCALE 0.79788456080286535588 /* sqrt(2 / pi) */
#define GELU_CUBIC 0.044715

SIMD_FN VEC NAME(activate)(VEC x, enum gemm_act act) {
    VEC pdf;
    switch (act) {
    case GEMM_ACT_RELU:
        return vmax(VSET(0), x);
    case GEMM_ACT_GELU:
        return x * vnormal(x, &pdf);
    case GEMM_ACT_GELU_TANH:
        return x * (REAL)0.5 * (vtanh(x * (x * x * (REAL)GELU_CUBIC + 1) * (REAL)GELU_SCALE) + 1);
    default:
        return x;
    }
}
SIMD_FN VEC NAME(slope)(VEC x, enum gemm_act act) {
    VEC pdf, cdf;
    switch (act) {
    case GEMM_ACT_RELU:
        return vsel(x > 0, VSET(1), VSET(0));
    case GEMM_ACT_GELU:
        cdf = vnormal(x, &pdf);
        return cdf + x * pdf;
    case GEMM_ACT_GELU_TANH: {
        VEC t = vtanh(x * (x * x * (REAL)GELU_CUBIC + 1) * (REAL)GELU_SCALE);
        VEC inner = (x * x * (REAL)(3 * GELU_CUBIC) + 1) * (REAL)GELU_SCALE;
        return (t + 1) * (REAL)0.5 + x * (REAL)0.5 * (1 - t * t) * inner;
    }
    default:
        return VSET(1);
    }
}

#undef GELU_SCALE
#undef GELU_CUBIC

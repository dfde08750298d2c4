/* The arithmetic of random numbers, in one place for the CPU and for device code: explicit fma and
 * nothing from the mathematical library but exact operations, so that every backend gives the same
 * bits. */
#ifndef MIMIC_RANDOM_MATH_H
#define MIMIC_RANDOM_MATH_H

#include <math.h>
#include <stdint.h>

#include <Random123/philox.h>

#ifdef __CUDACC__
#define RANDOM_FN static __host__ __device__ __forceinline__
#else
#define RANDOM_FN static inline
#endif

/* Philox4x32-10: key = seed, counter = (index, stream, step low, step high). */
RANDOM_FN void philox_block(uint64_t seed, uint32_t stream, uint64_t step, uint32_t index,
                            uint32_t out[4]) {
    philox4x32_ctr_t c = {{index, stream, (uint32_t)step, (uint32_t)(step >> 32)}};
    philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32_R(10, c, k);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

/* Bits to the open unit interval, so that icdf and log are finite: (u + 0.5) / 2^32. */
RANDOM_FN double mimic_open_unit(uint32_t u) {
    return ((double)u + 0.5) * (1.0 / 4294967296.0);
}

/* A float in [0, 1) of 24 bits, times span, plus lo. */
RANDOM_FN float uniform_in(uint32_t u, float lo, float span) {
    return fmaf((float)(u >> 8) * (1.0f / 16777216.0f), span, lo);
}

/* Horner's scheme with explicit fma: the same bits whatever the compiler contracts. */
RANDOM_FN double poly(const double *c, int n, double x) {
    double y = c[n - 1];
    for (int i = n - 2; i >= 0; i--)
        y = fma(y, x, c[i]);
    return y;
}

/* Natural logarithm by the series of atanh with explicit fma; the C library's differs between
 * systems in the last bits. x normal and > 0; the relative error is about 1e-16 except close to 1,
 * where the absolute one is. */
RANDOM_FN double plain_log(double x) {
    static const double c[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                               1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
    int e;
    double m = frexp(x, &e); /* 0.5 <= m < 1 */
    if (m < 0.70710678118654752440) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1);
    return fma((double)e, 0.69314718055994530942, 2 * s * poly(c, 11, s * s));
}

/* M. J. Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37, 1988: about 1e-16 relative. */
RANDOM_FN double normal_quantile(double p) {
    static const double a[] = {3.3871328727963666080e0, 1.3314166789178437745e2,
                               1.9715909503065514427e3, 1.3731693765509461125e4,
                               4.5921953931549871457e4, 6.7265770927008700853e4,
                               3.3430575583588128105e4, 2.5090809287301226727e3};
    static const double b[] = {1.0,
                               4.2313330701600911252e1,
                               6.8718700749205790830e2,
                               5.3941960214247511077e3,
                               2.1213794301586595867e4,
                               3.9307895800092710610e4,
                               2.8729085735721942674e4,
                               5.2264952788528545610e3};
    static const double c[] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                               5.76949722146069140550e0,  3.64784832476320460504e0,
                               1.27045825245236838258e0,  2.41780725177450611770e-1,
                               2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double d[] = {1.0,
                               2.05319162663775882187e0,
                               1.67638483018380384940e0,
                               6.89767334985100004550e-1,
                               1.48103976427480074590e-1,
                               1.51986665636164571966e-2,
                               5.47593808499534494600e-4,
                               1.05075007164441684324e-9};
    static const double e[] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                               1.78482653991729133580e0,  2.96560571828504891230e-1,
                               2.65321895265761230930e-2, 1.24266094738807843860e-3,
                               2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double f[] = {1.0,
                               5.99832206555887937690e-1,
                               1.36929880922735805310e-1,
                               1.48753612908506148525e-2,
                               7.86869131145613259100e-4,
                               1.84631831751005468180e-5,
                               1.42151175831644588870e-7,
                               2.04426310338993978564e-15};
    double q = p - 0.5;
    if (fabs(q) <= 0.425) {
        double r = fma(-q, q, 0.180625);
        return q * poly(a, 8, r) / poly(b, 8, r);
    }
    double r = sqrt(-plain_log(q < 0 ? p : 1 - p));
    double x =
        r <= 5 ? poly(c, 8, r - 1.6) / poly(d, 8, r - 1.6) : poly(e, 8, r - 5) / poly(f, 8, r - 5);
    return q < 0 ? -x : x;
}

/* A normal number from the uniform lo + span u, u in (0, 1). */
RANDOM_FN float normal_in(uint32_t u, double mean, double std, double lo, double span) {
    return (float)fma(std, normal_quantile(fma(span, mimic_open_unit(u), lo)), mean);
}

#endif

/* Counter-based random numbers: Philox4x32-10 of Random123, key = seed, counter = (index, stream,
 * step). Nothing here has state beyond the counter, so numbers do not depend on threads or history.
 */
#include <math.h>

#include <Random123/philox.h>

#include "core/ctx.h"

void mimic_philox(uint64_t seed, uint32_t stream, uint64_t step, uint32_t index, uint32_t out[4]) {
    philox4x32_ctr_t c = {{index, stream, (uint32_t)step, (uint32_t)(step >> 32)}};
    philox4x32_key_t k = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32_R(10, c, k);
    for (int i = 0; i < 4; i++)
        out[i] = r.v[i];
}

/* Horner's scheme with explicit fma: the same bits whatever the compiler contracts. */
static double poly(const double *c, int n, double x) {
    double y = c[n - 1];
    for (int i = n - 2; i >= 0; i--)
        y = fma(y, x, c[i]);
    return y;
}

/* Natural logarithm by the series of atanh with explicit fma; the C library's differs between
 * systems in the last bits. x normal and > 0; the relative error is about 1e-16 except close to 1,
 * where the absolute one is. */
static double plain_log(double x) {
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
double mimic_normal_icdf(double p) {
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

void mimic_seed(mimic_ctx *ctx, uint64_t seed) {
    ctx->seed = seed;
}

uint64_t mimic_get_seed(const mimic_ctx *ctx) {
    return ctx->seed;
}

void mimic_set_step(mimic_ctx *ctx, uint64_t step) {
    ctx->step = step;
    ctx->next_stream = 0;
}

uint64_t mimic_get_step(const mimic_ctx *ctx) {
    return ctx->step;
}

void mimic_rng_init(mimic_rng *r, uint64_t seed, uint32_t stream, uint64_t step) {
    *r = (mimic_rng){.seed = seed, .stream = stream, .step = step, .used = 4};
}

uint32_t mimic_rng_u32(mimic_rng *r) {
    if (r->used == 4) {
        mimic_philox(r->seed, r->stream, r->step, r->index++, r->block);
        r->used = 0;
    }
    return r->block[r->used++];
}

double mimic_rng_uniform(mimic_rng *r) {
    return mimic_rng_u32(r) * (1.0 / 4294967296.0);
}

double mimic_rng_normal(mimic_rng *r) {
    return mimic_normal_icdf(mimic_open_unit(mimic_rng_u32(r)));
}

/* Lemire's multiplication with rejection of the short remainder. */
uint32_t mimic_rng_below(mimic_rng *r, uint32_t n) {
    if (n <= 1)
        return 0;
    uint64_t x = (uint64_t)mimic_rng_u32(r) * n;
    if ((uint32_t)x < n) {
        uint32_t least = (uint32_t)-n % n;
        while ((uint32_t)x < least)
            x = (uint64_t)mimic_rng_u32(r) * n;
    }
    return (uint32_t)(x >> 32);
}

static double open_uniform(mimic_rng *r) {
    return mimic_open_unit(mimic_rng_u32(r));
}

/* The logarithm of a Gamma(a) variate, since small a give numbers below the smallest double.
 * Marsaglia and Tsang 2000; a < 1 by Gamma(a) = Gamma(a+1) U^(1/a). */
static double log_gamma_variate(mimic_rng *r, double a) {
    double boost = 0;
    if (a < 1) {
        boost = plain_log(open_uniform(r)) / a;
        a += 1;
    }
    double d = a - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = mimic_rng_normal(r), v = fma(c, x, 1);
        if (v <= 0)
            continue;
        double log_v = 3 * plain_log(v);
        if (plain_log(open_uniform(r)) < 0.5 * x * x + d * (1 - v * v * v + log_v))
            return plain_log(d) + log_v + boost;
    }
}

/* a = b = 2 takes the short way of method.md 6.6: Gamma(2) = -log(u1 u2). */
double mimic_rng_beta(mimic_rng *r, double a, double b) {
    if (a == 2 && b == 2) {
        double g[2];
        for (int i = 0; i < 2; i++) {
            double u1 = open_uniform(r), u2 = open_uniform(r);
            g[i] = -plain_log(u1 * u2);
        }
        return g[0] / (g[0] + g[1]);
    }
    double x = log_gamma_variate(r, a), y = log_gamma_variate(r, b);
    return 1 / (1 + exp(y - x));
}

/* Sorts by the bits from `bit` down, in place: radix exchange, insertion where few are left. */
static void sort_keys(uint64_t *k, int32_t n, int bit) {
    while (n > 24 && bit >= 0) {
        int32_t low = 0, high = n;
        while (low < high) {
            if (k[low] >> bit & 1) {
                uint64_t swap = k[--high];
                k[high] = k[low];
                k[low] = swap;
            } else {
                low++;
            }
        }
        sort_keys(k + low, n - low, --bit);
        n = low;
    }
    for (int32_t i = 1; i < n; i++) {
        uint64_t key = k[i];
        int32_t at = i;
        for (; at > 0 && k[at - 1] > key; at--)
            k[at] = k[at - 1];
        k[at] = key;
    }
}

void mimic_rng_shuffle(mimic_rng *r, int32_t *out, uint64_t *scratch, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        scratch[i] = (uint64_t)mimic_rng_u32(r) << 32 | (uint32_t)i;
    sort_keys(scratch, n, 63);
    for (int32_t i = 0; i < n; i++)
        out[i] = (int32_t)(uint32_t)scratch[i];
}

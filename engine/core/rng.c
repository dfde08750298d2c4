/* Counter-based random numbers: Philox4x32-10 of Random123, key = seed, counter = (index, stream,
 * step). Nothing here has state beyond the counter, so numbers do not depend on threads or history.
 */
#include "core/random_math.h"

#include "core/ctx.h"

void mimic_philox(uint64_t seed, uint32_t stream, uint64_t step, uint32_t index, uint32_t out[4]) {
    philox_block(seed, stream, step, index, out);
}

double mimic_normal_icdf(double p) {
    return normal_quantile(p);
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

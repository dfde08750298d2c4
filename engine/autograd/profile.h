/* What dispatch and the optimiser tell the profiler. */
#ifndef MIMIC_PROFILE_IMPL_H
#define MIMIC_PROFILE_IMPL_H

#include "mimic/profile.h"
#include "ops/op_impl.h"

int64_t mimic_profile_now(void); /* monotonic nanoseconds */
static inline bool mimic_profiling(const mimic_ctx *ctx) {
    return __builtin_expect(ctx->profile != NULL, 0);
}
/* A call that began at `start` and is done. */
void mimic_profile_call(const mimic_call *c, int64_t start);
void mimic_profile_event_add(mimic_ctx *ctx, const char *name, int64_t start, double bytes);
void mimic_profile_phase(mimic_ctx *ctx, bool backward);

#endif

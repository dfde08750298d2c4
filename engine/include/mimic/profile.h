/* A built-in profiler: what each operator took, moved and computed. Off, it costs one test a call.
 */
#ifndef MIMIC_PROFILE_H
#define MIMIC_PROFILE_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mimic_profile_event {
    const char *name;  /* operator, optimiser, or what mimic_profile_add was given; interned */
    const char *place; /* the script's line, interned, or NULL */
    int64_t start, ns; /* nanoseconds, from mimic_profile_start */
    double bytes;      /* read and written: inputs, outputs, saved results, each once */
    double flops;      /* of matrix products: 2 per multiply-add; 0 for other operators */
    bool backward;
    char what[56]; /* dtype and shapes of the first two inputs: "f32 [64,65,128] [512,128]" */
} mimic_profile_event;

/* Forgets earlier events and records from now on; at most max_events, the rest is counted. */
mimic_status mimic_profile_start(mimic_ctx *ctx, int64_t max_events);
void mimic_profile_stop(mimic_ctx *ctx); /* the events stay until the next start */
int64_t mimic_profile_count(const mimic_ctx *ctx, int64_t *dropped);
const mimic_profile_event *mimic_profile_at(const mimic_ctx *ctx, int64_t i);
/* An event of the host's own that took `seconds` and ends now: waiting for data. */
void mimic_profile_add(mimic_ctx *ctx, const char *name, double seconds);

#ifdef __cplusplus
}
#endif
#endif

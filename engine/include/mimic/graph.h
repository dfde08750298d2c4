/* Steps that repeat: recorded once, done again by one call. A device that works behind the host
 * (CUDA) is then kept busy by a single call a step; the CPU has none of this.
 *
 * Between mimic_graph_begin and _end tensors come from memory of the recorder's own (an arena),
 * which nobody else gets while it lives: a replay writes there again. A step is run in it once or
 * twice as ever, so that all memory is there and every choice made, and then recorded. What a
 * replay reads must lie where it lay: parameters, and tensors made outside into which new values
 * are copied. Numbers that the host puts into a step are those of the recording in every replay; of
 * the random numbers those of the current step (mimic_set_step) are drawn. */
#ifndef MIMIC_GRAPH_H
#define MIMIC_GRAPH_H

#include "mimic/core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mimic_graph mimic_graph;

/* For the current device; one at a time. MIMIC_EUNSUPPORTED where the device cannot record. */
mimic_status mimic_graph_new(mimic_ctx *ctx, mimic_graph **out);
void mimic_graph_free(mimic_graph *g);

/* Begins a step in the arena; with `record` operators are written down instead of done: their
 * results hold numbers after the next replay only. What waits for the device, and memory that the
 * steps before did not need, is refused with a message. */
mimic_status mimic_graph_begin(mimic_graph *g, bool record);
/* Ends it. What was recorded is kept when `keep`; with nothing to end it does nothing. */
mimic_status mimic_graph_end(mimic_graph *g, bool keep);

/* Does the recorded step again, behind everything asked of the device before. */
mimic_status mimic_graph_replay(mimic_graph *g);

#ifdef __cplusplus
}
#endif
#endif

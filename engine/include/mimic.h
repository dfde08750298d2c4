/* mimic.h: the public C interface of mimic, an embeddable deep-learning experiment engine.
 *
 * A host opens a context, makes tensors, applies operators, walks the tape backward, reads images,
 * records results; or hands the context to a Lua 5.4 state and runs scripts. Rules that hold for
 * every function of these headers:
 *   - it returns a mimic_status (or cannot fail); on failure mimic_message(ctx) says what and
 * where, outputs are left untouched (pointers NULL) and the context stays usable;
 *   - it never prints, aborts, exits, longjmps or installs a signal handler;
 *   - a context is used by one thread at a time; different contexts are independent;
 *   - `out` parameters receive one reference that the caller releases;
 *   - shapes are row-major, axis 0 first; axes in C are 0-based (1-based only in Lua);
 *     integers stored in tensors (labels, indices) are 0-based in both. */
#ifndef MIMIC_H
#define MIMIC_H

#include "mimic/core.h"
#include "mimic/tensor.h"
#include "mimic/op.h"
#include "mimic/profile.h"
#include "mimic/graph.h"
#include "mimic/optim.h"
#include "mimic/image.h"
#include "mimic/data.h"
#include "mimic/analysis.h"
#include "mimic/store.h"
#include "mimic/script.h"

#endif

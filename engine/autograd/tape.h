/* Nodes of the tape: one application of an operator whose gradient may be asked for. */
#ifndef MIMIC_TAPE_H
#define MIMIC_TAPE_H

#include "ops/op_impl.h"

enum mimic_node_state { MIMIC_NODE_LIVE, MIMIC_NODE_CONSUMED, MIMIC_NODE_CLEARED };

/* Held by the tensors it made and by the nodes that used those. The tape lists live nodes, newest last, without
 * holding them: a graph nobody refers to is gone. */
struct mimic_node {
    uint32_t refs;
    uint8_t state, n_in, n_out, n_save;
    mimic_ctx *ctx;
    const mimic_op *op;
    const char *place;
    mimic_attrs attrs;
    mimic_tensor *in[MIMIC_MAX_IN];     /* references to what the gradient reads, else NULL */
    mimic_tensor *out[MIMIC_MAX_OUT];   /* views without node, so that no cycle keeps them alive */
    mimic_tensor *save[MIMIC_MAX_SAVE];
    mimic_node *from[MIMIC_MAX_IN]; /* the node that made input i ... */
    uint8_t from_out[MIMIC_MAX_IN];
    mimic_tensor *leaf[MIMIC_MAX_IN]; /* ... or the leaf it is; both NULL: no gradient wanted */
    mimic_shape_out in_shape[MIMIC_MAX_IN];
    mimic_tensor *grad[MIMIC_MAX_OUT]; /* gradient gathered so far, during backward */
    mimic_node *next, *prev;           /* the tape */
    mimic_node *dying;                 /* next one waiting to be freed */
};

struct mimic_tape {
    mimic_node *first, *last;
    mimic_node *dying; /* nodes being released: a loop instead of a recursion of any depth */
    bool draining;
};

/* Drops what the node holds and takes it off the tape; its name and place stay for messages. */
void mimic_node_drop(mimic_node *node, enum mimic_node_state state);
mimic_status mimic_node_new(mimic_ctx *ctx, mimic_node **out);

#endif

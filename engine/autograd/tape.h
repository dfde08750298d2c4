/* Nodes of the tape: one application of an operator whose gradient may be asked for. */
#ifndef MIMIC_TAPE_H
#define MIMIC_TAPE_H

#include "ops/op_impl.h"

enum mimic_node_state { MIMIC_NODE_LIVE, MIMIC_NODE_CONSUMED, MIMIC_NODE_CLEARED };

/* What a node knows of one input. */
typedef struct mimic_node_in {
    mimic_tensor *kept; /* a reference when the gradient reads it, else NULL */
    mimic_node *from;   /* the node that made it ... */
    mimic_tensor *leaf; /* ... or the leaf it is; both NULL: no gradient wanted */
    uint8_t from_out, dtype, rank;
    bool again; /* the gradient reads it: `from` makes it again, kept is NULL */
    int64_t shape[MIMIC_MAX_RANK];
} mimic_node_in;

/* Held by the tensors it made and by the nodes that used those. The tape lists live nodes, newest
 * last, without holding them: a graph nobody refers to is gone. */
struct mimic_node {
    uint32_t refs, mark; /* mark: number of the backward pass that reaches it */
    uint8_t state, n_in, n_out, n_save;
    bool wanted;                   /* during a replay: something reads its results */
    uint32_t again[MIMIC_MAX_OUT]; /* nodes that will have this output made again */
    uint32_t segment; /* of the checkpoint it was made in and whose replay is due; 0 = none */
    mimic_ctx *ctx;
    const mimic_op *op;
    mimic_device *device;
    const char *place;
    mimic_node *next, *prev;          /* the tape */
    mimic_node *dying;                /* next one waiting to be freed */
    mimic_tensor *out[MIMIC_MAX_OUT]; /* views without node, so that no cycle keeps them alive */
    mimic_tensor *save[MIMIC_MAX_SAVE];
    mimic_tensor *grad[MIMIC_MAX_OUT]; /* gradient gathered so far, during backward */
    mimic_attrs attrs;
    mimic_node_in in[]; /* n_in */
};

struct mimic_tape {
    mimic_node *first, *last;
    mimic_node *dying; /* nodes being released: a loop instead of a recursion of any depth */
    bool draining;
    uint32_t mark;
    uint32_t segment, last_segment; /* the checkpoint now open, 0 = none; the newest number */
};

/* An empty node at the end of the tape, held once; the caller fills in[] as far as n_in. */
mimic_status mimic_node_new(mimic_ctx *ctx, const mimic_op *op, int n_in, mimic_node **out);
/* Drops what the node holds and takes it off the tape; its name and place stay for messages. */
void mimic_node_drop(mimic_node *node, enum mimic_node_state state);
/* Shape rule, memory and kernel of a call whose inputs are in place (dispatch.c). On failure the
 * results made so far are left in out[] and save[] for the caller to release. */
mimic_status mimic_compute(mimic_call *c);
/* Computes again what the gradients of `last`'s checkpoint read, `last` being the newest node of it
 * that this backward pass reaches; from then on these are ordinary nodes. */
mimic_status mimic_checkpoint_replay(mimic_ctx *ctx, mimic_node *last);
/* MIMIC_ESTATE with the reason why a node that is not live has no gradient any more. */
mimic_status mimic_node_gone(mimic_ctx *ctx, const mimic_node *node);

#endif

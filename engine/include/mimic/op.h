/* Operators: one const record each, applied by name or record, differentiated by the tape. */
#ifndef MIMIC_OP_H
#define MIMIC_OP_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MIMIC_MAX_IN 8
#define MIMIC_MAX_OUT 4
#define MIMIC_MAX_SAVE 3
#define MIMIC_MAX_ATTR 8

typedef enum mimic_attr_kind {
    MIMIC_ATTR_END, /* no more attributes */
    MIMIC_ATTR_F64,
    MIMIC_ATTR_I64,
    MIMIC_ATTR_BOOL,
    MIMIC_ATTR_AXIS,  /* I64; 1-based or negative (-1 = last) in Lua, 0-based or negative in C */
    MIMIC_ATTR_INDEX, /* I64 position; 1-based in Lua, 0-based in C, negative counts from the end */
    MIMIC_ATTR_ENUM,  /* I64 index into `choices` */
    MIMIC_ATTR_INTS,  /* list of integers (a shape), in mimic_attrs.list; at most one per op */
    MIMIC_ATTR_AXES   /* the same, of axes: 1-based in Lua */
} mimic_attr_kind;

typedef struct mimic_attr {
    const char *name;
    mimic_attr_kind kind;
    double def;          /* default; NAN = required. Lists default to empty. */
    const char *choices; /* ENUM: "erf|tanh" */
} mimic_attr;

typedef struct mimic_attrs {
    union {
        double f;
        int64_t i;
    } v[MIMIC_MAX_ATTR]; /* by position in the record */
    int64_t list[MIMIC_MAX_RANK];
    int list_n;
} mimic_attrs;

typedef struct mimic_op mimic_op;

int mimic_op_count(void);
const mimic_op *mimic_op_at(int i);
const mimic_op *mimic_op_find(const char *name); /* NULL if unknown */
const char *mimic_op_name(const mimic_op *op);
const char *mimic_op_doc(const mimic_op *op); /* "layernorm(x, weight, bias [, {eps}]) -> y\n..." */
const char *mimic_op_cases(const mimic_op *op);
bool mimic_op_internal(const mimic_op *op); /* a *_bwd row: not offered as a tensor method */
void mimic_op_arity(const mimic_op *op, int *min_in, int *max_in, int *n_out);
const mimic_attr *mimic_op_attrs(const mimic_op *op); /* ends with MIMIC_ATTR_END or MAX_ATTR */
void mimic_op_defaults(const mimic_op *op, mimic_attrs *out);

/* Applies an operator: checks shapes, makes outputs in the current scope, runs the kernel, records
 * the tape node when an input requires a gradient and the tape is on. `in` may hold NULL for
 * optional inputs. `attrs` NULL = defaults. out: n_out references. */
mimic_status mimic_op_apply(mimic_ctx *ctx, const mimic_op *op, mimic_tensor *const *in, int n_in,
                            const mimic_attrs *attrs, mimic_tensor **out);

/* Tape. */
bool mimic_grad_enabled(const mimic_ctx *ctx);
void mimic_set_grad_enabled(mimic_ctx *ctx, bool on);
/* Adds d(loss)/d(leaf) to every leaf's grad; loss has one element. Consumes the visited part of the
 * tape: a second call on the same loss is MIMIC_ESTATE. */
mimic_status mimic_backward(mimic_ctx *ctx, mimic_tensor *loss);
/* With on: the first operator that outputs NaN or infinity fails, naming itself and its place. */
void mimic_check_nan(mimic_ctx *ctx, bool on);

#ifdef __cplusplus
}
#endif
#endif

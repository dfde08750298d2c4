/* The operator table, in the order of ops.def, and the public look at a record. */
#include <math.h>
#include <string.h>

#include "ops/op_impl.h"

static const mimic_op *const table[MIMIC_OP_COUNT] = {
#define X(name) &mimic_op_##name,
#include "ops/ops.def"
#undef X
};

int mimic_op_count(void) {
    return MIMIC_OP_COUNT;
}

const mimic_op *mimic_op_at(int i) {
    return i >= 0 && i < MIMIC_OP_COUNT ? table[i] : NULL;
}

const mimic_op *mimic_op_find(const char *name) {
    for (int i = 0; name && i < MIMIC_OP_COUNT; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

const char *mimic_op_name(const mimic_op *op) {
    return op->name;
}

const char *mimic_op_doc(const mimic_op *op) {
    return op->doc;
}

const char *mimic_op_cases(const mimic_op *op) {
    return op->cases;
}

bool mimic_op_internal(const mimic_op *op) {
    return (op->flags & MIMIC_OP_INTERNAL) != 0;
}

void mimic_op_arity(const mimic_op *op, int *min_in, int *max_in, int *n_out) {
    if (min_in)
        *min_in = op->min_in;
    if (max_in)
        *max_in = op->n_in;
    if (n_out)
        *n_out = op->n_out;
}

const mimic_attr *mimic_op_attrs(const mimic_op *op) {
    return op->attrs;
}

/* A required attribute stays NAN or INT64_MIN, which no shape rule accepts. */
void mimic_op_defaults(const mimic_op *op, mimic_attrs *out) {
    memset(out->v, 0, sizeof out->v);
    out->list_n = 0;
    for (int i = 0; i < MIMIC_MAX_ATTR && op->attrs[i].kind != MIMIC_ATTR_END; i++) {
        const mimic_attr *a = &op->attrs[i];
        if (a->kind == MIMIC_ATTR_F64)
            out->v[i].f = a->def;
        else if (a->kind != MIMIC_ATTR_INTS && a->kind != MIMIC_ATTR_AXES)
            out->v[i].i = isnan(a->def) ? INT64_MIN : (int64_t)a->def;
    }
}

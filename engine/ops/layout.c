/* Operators that copy elements to another layout or dtype: contiguous, cast, concat, and slice_bwd.
 */
#include "ops/shape_util.h"

#include <math.h>

static mimic_status contiguous_shape(mimic_call *c) {
    mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->in[0]->dtype);
    return MIMIC_OK;
}

static mimic_status contiguous_vjp(mimic_vjp *g) {
    mimic_take(g->dout[0], &g->din[0]);
    return MIMIC_OK;
}

const mimic_op mimic_op_contiguous = {
    .name = "contiguous",
    .index = MIMIC_OP_contiguous,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_STRIDED,
    .dtypes = MIMIC_ALL_DTYPES,
    .shape = contiguous_shape,
    .vjp = contiguous_vjp,
    .inputs = "x",
    .cases =
        "x[3,5]; x[2,70,33]; x[2,3,4,5]:bf16; x[4,3]:i32=index(9); x[40,40]:u8=bool; x[0,3]; x[]",
    .doc = "contiguous(x) -> y\n"
           "A copy with its elements in row-major order. Operators ask for it by themselves where "
           "they "
           "need it.",
};

static mimic_status cast_shape(mimic_call *c) {
    if (c->attrs.v[0].i < 0 || c->attrs.v[0].i >= MIMIC_DTYPE_COUNT)
        return mimic_shape_fail(c, "dtype is required");
    mimic_out_like(c, 0, c->in[0], (mimic_dtype)c->attrs.v[0].i);
    return MIMIC_OK;
}

/* The gradient passes between float dtypes only. */
static mimic_status cast_vjp(mimic_vjp *g) {
    mimic_attrs attrs = g->attrs;
    if (!(MIMIC_BIT(g->in_shape[0].dtype) & MIMIC_FLOATS))
        return MIMIC_OK;
    attrs.v[0].i = g->in_shape[0].dtype;
    return mimic_apply1(g->ctx, &mimic_op_cast, &attrs, &g->din[0], 1, g->dout);
}

const mimic_op mimic_op_cast = {
    .name = "cast",
    .index = MIMIC_OP_cast,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"dtype", MIMIC_ATTR_ENUM, NAN, "f32|bf16|f64|i32|u8"}},
    .shape = cast_shape,
    .vjp = cast_vjp,
    .inputs = "x",
    .cases =
        "x[3,5] dtype=2; x[3,5]:f64 dtype=0; x[2,70]:bf16 dtype=0; x[70] dtype=1; "
        "x[9]:i32=index(9) dtype=0; x[3,30]:u8=bool dtype=0; x[50] dtype=3; x[50]=uniform dtype=4; "
        "x[9]:i32=index(9) dtype=1; x[7]:f64 dtype=1; x[0] dtype=1",
    .doc = "cast(x, {dtype}) -> y\n"
           "Converts the elements. f32 to bf16 rounds to nearest even; floats to i32 or u8 are cut "
           "towards zero and held in range (NaN gives 0). Gradients pass between float dtypes.",
};

static mimic_status concat_shape(mimic_call *c) {
    const mimic_tensor *a = c->in[0];
    int64_t shape[MIMIC_MAX_RANK];
    int axis;
    if (a->rank == 0)
        return mimic_shape_fail(c, "scalars have no axis to join");
    mimic_status s = mimic_axis(c, c->attrs.v[0].i, a->rank, &axis);
    if (s != MIMIC_OK)
        return s;
    for (int i = 0; i < a->rank; i++)
        shape[i] = a->shape[i];
    for (int k = 1; k < c->n_in; k++) {
        const mimic_tensor *b = c->in[k];
        char name[32];
        if (!b)
            continue;
        s = mimic_want_dtype(c, k, MIMIC_BIT(a->dtype));
        if (s != MIMIC_OK)
            return s;
        bool fits = b->rank == a->rank;
        for (int i = 0; fits && i < a->rank; i++)
            fits = i == axis || b->shape[i] == a->shape[i];
        if (!fits)
            return mimic_shape_fail(c, "%s differs from the first input outside axis %d",
                                    mimic_input_name(c->op, k, name, sizeof name), axis + 1);
        shape[axis] += b->shape[axis];
    }
    mimic_out_set(c, 0, (mimic_dtype)a->dtype, a->rank, shape);
    return MIMIC_OK;
}

static mimic_status concat_vjp(mimic_vjp *g) {
    mimic_tensor *dy = g->dout[0];
    int axis = (int)(g->attrs.v[0].i < 0 ? g->attrs.v[0].i + dy->rank : g->attrs.v[0].i);
    int64_t start = 0;
    for (int k = 0; k < g->n_in; k++) {
        const mimic_shape_out *x = &g->in_shape[k];
        mimic_tensor *view = NULL;
        if (x->rank != dy->rank) /* left out */
            continue;
        if (g->need[k]) {
            mimic_status s =
                mimic_tensor_view(g->ctx, dy, x->rank, x->shape, dy->stride,
                                  dy->offset + start * dy->stride[axis], "slice", &view);
            if (s == MIMIC_OK)
                s = mimic_apply_1(g->ctx, &mimic_op_contiguous, view, &g->din[k]);
            mimic_tensor_release(view);
            if (s != MIMIC_OK)
                return s;
        }
        start += x->shape[axis];
    }
    return MIMIC_OK;
}

const mimic_op mimic_op_concat = {
    .name = "concat",
    .index = MIMIC_OP_concat,
    .min_in = 1,
    .n_in = MIMIC_MAX_IN,
    .n_out = 1,
    .dtypes = MIMIC_ALL_DTYPES,
    .attrs = {{"axis", MIMIC_ATTR_AXIS, 0, NULL}},
    .shape = concat_shape,
    .vjp = concat_vjp,
    .inputs = "a b? c? d? e? f? g? h?",
    .cases =
        "a[2,3] b[4,3]; a[2,3,4] b[2,1,4] c[2,2,4] axis=1; a[5] axis=-1; a[2,3]:bf16 b[2,5]:bf16 "
        "axis=-1; a[0,3] b[2,3]; a[3]:i32=index(4) b[2]:i32=index(4)",
    .doc = "concat(a, b, ... [, {axis=1}]) -> y\n"
           "Joins up to 8 tensors along an axis; the other axes and the dtypes are equal.",
};

static mimic_status slice_bwd_shape(mimic_call *c) {
    const mimic_tensor *dy = c->in[0];
    int axis;
    mimic_status s = mimic_want_rank(c, 0, c->attrs.list_n, c->attrs.list_n);
    if (s == MIMIC_OK)
        s = mimic_axis(c, c->attrs.v[0].i, dy->rank, &axis);
    if (s != MIMIC_OK)
        return s;
    int64_t start = c->attrs.v[1].i + (c->attrs.v[1].i < 0 ? c->attrs.list[axis] : 0);
    for (int i = 0; i < dy->rank; i++)
        if (i == axis ? start < 0 || start + dy->shape[i] > c->attrs.list[i]
                      : dy->shape[i] != c->attrs.list[i])
            return mimic_shape_fail(c, "axis %d does not fit into the full shape", i + 1);
    mimic_out_set(c, 0, (mimic_dtype)dy->dtype, dy->rank, c->attrs.list);
    return MIMIC_OK;
}

const mimic_op mimic_op_slice_bwd = {
    .name = "slice_bwd",
    .index = MIMIC_OP_slice_bwd,
    .min_in = 1,
    .n_in = 1,
    .n_out = 1,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_FLOATS,
    .attrs = {{"axis", MIMIC_ATTR_AXIS, 0, NULL},
              {"start", MIMIC_ATTR_INDEX, 0, NULL},
              {"stop", MIMIC_ATTR_INDEX, -1, NULL},
              {"shape", MIMIC_ATTR_INTS, 0, NULL}},
    .shape = slice_bwd_shape,
    .inputs = "dy",
    .cases = "dy[2,3] axis=1 start=1 shape=2,6; dy[2,3] shape=5,3; dy[3,2,4]:bf16 axis=-2 start=3 "
             "shape=3,5,4",
    .doc =
        "slice_bwd(dy, {axis, start, stop, shape...}) -> dx\n"
        "Zeros of the full shape with dy at positions start.. of the axis: the gradient of slice.",
};

/* Contrastive losses over explicit masks (method.md Eq. 5-8 and 11-13, sections 2.2-2.5):
 * mscl_masks makes the masks of the mix-supervised loss from soft labels, contrastive is the loss
 * that InfoNCE, SupCon and MSCL share. With s = zA zC^T / tau over the candidate set: l_i  =
 * -(1/max(1,|P(i)|)) sum_j pos_ij (s_ij - log sum_j' cand_ij' exp(s_ij')) g_ij = w_i ([|P(i)|>0]
 * q_ij - pos_ij / max(1,|P(i)|)), dzA = g zC / tau, dzC = g^T zA / tau. */
#include "ops/shape_util.h"

static mimic_status masks_shape(mimic_call *c) {
    const mimic_tensor *u = c->in[0], *v = c->in[1];
    mimic_status s = mimic_want_rank(c, 0, 2, 2);
    if (s == MIMIC_OK)
        s = mimic_want_rank(c, 1, 2, 2);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(u->dtype));
    if (s == MIMIC_OK && u->shape[1] != v->shape[1])
        s = mimic_shape_fail(c, "anchor and candidate labels have different numbers of classes");
    for (int i = 2; s == MIMIC_OK && i < 4; i++) {
        s = mimic_want_dtype(c, i, MIMIC_BIT(MIMIC_I32));
        if (s == MIMIC_OK)
            s = mimic_want_shape(c, i, 1, v->shape);
    }
    if (s != MIMIC_OK)
        return s;
    mimic_out_set(c, 0, MIMIC_U8, 2, (int64_t[]){u->shape[0], v->shape[0]});
    mimic_out_set(c, 1, MIMIC_U8, 2, (int64_t[]){u->shape[0], v->shape[0]});
    return MIMIC_OK;
}

const mimic_op mimic_op_mscl_masks = {
    .name = "mscl_masks",
    .index = MIMIC_OP_mscl_masks,
    .min_in = 4,
    .n_in = 4,
    .n_out = 2,
    .flags = MIMIC_OP_NO_GRAD,
    .no_grad_in = 15,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"dist", MIMIC_ATTR_ENUM, 0, "tv|linf|l1|l2"},
              {"t", MIMIC_ATTR_F64, 0.5, NULL},
              {"exclude_self", MIMIC_ATTR_BOOL, 1, NULL}},
    .shape = masks_shape,
    .inputs = "anchors candidates a b",
    .cases = "anchors[6,4]=uniform candidates[6,4]=uniform a[6]:i32=perm b[6]:i32=perm; "
             "anchors[5,3]=uniform "
             "candidates[9,3]=uniform a[9]:i32=index(5) b[9]:i32=index(5) dist=1 t=0.3; "
             "anchors[5,3]=uniform "
             "candidates[9,3]=uniform a[9]:i32=index(5) b[9]:i32=index(5) dist=2 exclude_self=0; "
             "anchors[4,3]=uniform candidates[4,3]=uniform a[4]:i32=perm b[4]:i32=perm dist=3; "
             "anchors[0,3] candidates[4,3] a[4]:i32=index(4) b[4]:i32=index(4)",
    .doc = "mscl_masks(anchors[n, K], candidates[m, K], a[m], b[m] [, {dist=\"tv\", t=0.5, "
           "exclude_self=true}]) -> "
           "pos[n, m], cand[n, m]\n"
           "u8 masks of the mix-supervised contrastive loss. Candidate j mixes the samples a[j] "
           "and b[j] (i32, "
           "0-based; equal for a clean one), anchor i is sample i. cand = 0 where the candidate "
           "contains the "
           "anchor (unless exclude_self is off); pos = cand and dist(label, label) <= t + 1e-6. "
           "Distances: tv = "
           "half the sum of absolute differences, linf, l1, l2 (method.md Eq. 13, 2.2, 2.3).",
};

static mimic_status contrastive_shape(mimic_call *c) {
    const mimic_tensor *za = c->in[0], *zc = c->in[1];
    mimic_status s = mimic_want_rank(c, 0, 2, 2);
    if (s == MIMIC_OK)
        s = mimic_want_rank(c, 1, 2, 2);
    if (s == MIMIC_OK)
        s = mimic_want_dtype(c, 1, MIMIC_BIT(za->dtype));
    if (s == MIMIC_OK && za->shape[1] != zc->shape[1])
        s = mimic_shape_fail(c, "za and zc have different widths");
    if (s == MIMIC_OK && za->shape[0] == 0)
        s = mimic_shape_fail(c, "no anchors");
    if (s == MIMIC_OK && !(c->attrs.v[0].f > 0))
        s = mimic_shape_fail(c, "tau must be positive");
    for (int i = 2; s == MIMIC_OK && i < 4; i++) {
        s = mimic_want_dtype(c, i, MIMIC_BIT(MIMIC_U8));
        if (s == MIMIC_OK)
            s = mimic_want_shape(c, i, 2, (int64_t[]){za->shape[0], zc->shape[0]});
    }
    if (s != MIMIC_OK)
        return s;
    mimic_out_set(c, 0, (mimic_dtype)za->dtype, 0, NULL);
    mimic_save_set(c, 0, (mimic_dtype)za->dtype, 2, (int64_t[]){za->shape[0], zc->shape[0]});
    return MIMIC_OK;
}

static mimic_status contrastive_vjp(mimic_vjp *g) {
    mimic_tensor *in[4] = {g->dout[0], g->in[0], g->in[1], g->save[0]};
    mimic_tensor *out[2];
    mimic_attrs attrs;
    mimic_op_defaults(&mimic_op_contrastive_bwd, &attrs);
    attrs.v[0] = g->attrs.v[0];
    mimic_status s = mimic_op_apply(g->ctx, &mimic_op_contrastive_bwd, in, 4, &attrs, out);
    if (s == MIMIC_OK)
        mimic_give(g, out, 2);
    return s;
}

const mimic_op mimic_op_contrastive = {
    .name = "contrastive",
    .index = MIMIC_OP_contrastive,
    .min_in = 4,
    .n_in = 4,
    .n_out = 1,
    .n_save = 1,
    .keep_in = 3,
    .no_grad_in = 12,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"tau", MIMIC_ATTR_F64, 0.07, NULL},
              {"reduction", MIMIC_ATTR_ENUM, 0, "mean|sum"},
              {"empty", MIMIC_ATTR_ENUM, 0, "zero|skip"}},
    .shape = contrastive_shape,
    .vjp = contrastive_vjp,
    .inputs = "za zc pos cand",
    .cases = "za[6,5] zc[7,5] pos[6,7]:u8=bool cand[6,7]:u8=1 tau=0.7; za[6,40] zc[7,40] "
             "pos[6,7]:u8=bool "
             "cand[6,7]:u8=bool tau=3 reduction=1; za[5,4] zc[3,4] pos[5,3]:u8=bool "
             "cand[5,3]:u8=bool tau=1 "
             "empty=1; za[3,4] zc[5,4] pos[3,5]:u8=0 cand[3,5]:u8=1 empty=1; za[2,3] zc[0,3] "
             "pos[2,0]:u8=0 "
             "cand[2,0]:u8=0",
    .doc =
        "contrastive(za[n, d], zc[m, d], pos[n, m], cand[n, m] [, {tau=0.07, reduction=\"mean\", "
        "empty=\"zero\"}]) -> loss\n"
        "l_i = -mean over the positives j of i of log(exp(s_ij) / sum_cand exp(s_ij')), s = za "
        "zc^T / tau. The "
        "vectors are already normalised (l2norm); pos and cand are u8, a positive counts only "
        "where cand "
        "is set. An anchor without positives adds 0: zero keeps it in the mean, skip does not "
        "(method.md "
        "Eq. 5-8, 11-13, 2.5).",
};

static mimic_status contrastive_bwd_shape(mimic_call *c) {
    const mimic_tensor *za = c->in[1], *zc = c->in[2];
    mimic_dtype d = (mimic_dtype)c->in[0]->dtype;
    mimic_status s = mimic_want_scalar(c, 0, d);
    for (int i = 1; s == MIMIC_OK && i < 4; i++) {
        s = mimic_want_rank(c, i, 2, 2);
        if (s == MIMIC_OK)
            s = mimic_want_dtype(c, i, MIMIC_BIT(d));
    }
    if (s == MIMIC_OK && za->shape[1] != zc->shape[1])
        s = mimic_shape_fail(c, "za and zc have different widths");
    if (s == MIMIC_OK)
        s = mimic_want_shape(c, 3, 2, (int64_t[]){za->shape[0], zc->shape[0]});
    if (s != MIMIC_OK)
        return s;
    mimic_out_like(c, 0, za, d);
    mimic_out_like(c, 1, zc, d);
    return MIMIC_OK;
}

const mimic_op mimic_op_contrastive_bwd = {
    .name = "contrastive_bwd",
    .index = MIMIC_OP_contrastive_bwd,
    .min_in = 4,
    .n_in = 4,
    .n_out = 2,
    .flags = MIMIC_OP_INTERNAL | MIMIC_OP_NO_GRAD,
    .dtypes = MIMIC_BIT(MIMIC_F32) | MIMIC_BIT(MIMIC_F64),
    .attrs = {{"tau", MIMIC_ATTR_F64, 0.07, NULL}},
    .shape = contrastive_bwd_shape,
    .inputs = "dloss za zc g",
    .cases = "dloss[] za[6,5] zc[7,5] g[6,7]; dloss[] za[3,40] zc[5,40] g[3,5] tau=0.5",
    .doc = "contrastive_bwd(dloss, za, zc, g [, {tau}]) -> dza, dzc\n"
           "dza = dloss g zc / tau, dzc = dloss g^T za / tau (method.md, gradient after Eq. 8).",
};

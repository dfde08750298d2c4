/* Attention of bf16 in the matrix registers of AMX: part of attention.c. The operands of a head are
 * packed from where they lie; scores, softmax and sums are f32, the weights and their gradients are
 * rounded to bf16 before they are multiplied, as on a GPU. Packed operands and blocks of rows are
 * those of gemm.h: A in groups of AMX_GROUP rows, B in panels of PANEL columns. */
#define PANEL (GEMM_NV * AMX_ROWS)
#define BLOCK 256 /* queries whose weights are kept for the gradients of keys and values */

static int64_t amx_units(int64_t k) { /* of k elements, whole registers */
    return (k + 2 * AMX_UNITS - 1) / (2 * AMX_UNITS) * AMX_UNITS;
}
static int64_t amx_a_size(int64_t m, int64_t k) { /* bytes */
    return (m + AMX_GROUP - 1) / AMX_GROUP * AMX_GROUP * amx_units(k) * 4;
}
static int64_t amx_b_size(int64_t n, int64_t k) {
    return (n + PANEL - 1) / PANEL * PANEL * amx_units(k) * 4;
}
static int64_t amx_columns(int64_t n) {
    return (n + PANEL - 1) / PANEL * PANEL;
}
static void amx_a(bool trans, const uint16_t *src, int64_t ld, int64_t m, int64_t k, char *out) {
    KERNEL(gemm_amx_pack_a)(trans, src, ld, 0, m, 0, amx_units(k), k, out);
}
static void amx_b(bool trans, const uint16_t *src, int64_t ld, int64_t n, int64_t k, char *out) {
    for (int64_t j = 0; j < n; j += PANEL, out += PANEL * amx_units(k) * 4)
        KERNEL(gemm_amx_pack_b)
    (trans, src, ld, j, n - j < PANEL ? n - j : PANEL, 0, amx_units(k), k, out);
}
/* c[m,n] (=|+=) a[m,k] b[k,n]; m up to AMX_GROUP, c with rows of amx_columns(n). */
static void amx_product(int64_t m, int64_t n, int64_t k, const char *a, const char *b, float *c,
                        bool add) {
    const int64_t kc = amx_units(k), ld = amx_columns(n);
    for (int64_t j = 0; j < n; j += PANEL, b += PANEL * kc * 4) {
        int nv = (int)((n - j < PANEL ? n - j : PANEL) + AMX_ROWS - 1) / AMX_ROWS;
        KERNEL(gemm_amx_tile)((int)m, nv)(kc, a, 0, b, 0, (char *)(c + j), ld * 4, add);
    }
}
static float amx_dot(const uint16_t *a, const uint16_t *b, int64_t n) {
    vf32 s = {0};
    int64_t j = 0;
    for (; j + VF32_W <= n; j += VF32_W)
        s += vload_bf16(a + j) * vload_bf16(b + j);
    if (j < n)
        s += vloadn_bf16(a + j, n - j) * vloadn_bf16(b + j, n - j);
    return vhsum(s);
}
static void amx_round(const float *x, int64_t n, float factor, uint16_t *out) {
    int64_t j = 0;
    for (; j + VF32_W <= n; j += VF32_W)
        vstore_bf16_quick(out + j, vload_f32(x + j) * factor);
    if (j < n)
        vstoren_bf16(out + j, vload_f32(x + j) * factor, n - j);
}

static size_t amx_forward_size(const attention_job *a) {
    const int64_t t = a->t, d = a->d;
    return (size_t)(amx_a_size(t, d) + amx_b_size(t, d) + amx_b_size(d, t) +
                    AMX_GROUP * amx_columns(t) * 6 + amx_a_size(AMX_GROUP, t) +
                    AMX_GROUP * amx_columns(d) * 4);
}
static void amx_forward(void *arg, int64_t item, int worker) {
    const attention_job *a = arg;
    const int64_t t = a->t, d = a->d, width = a->heads * d, tp = amx_columns(t),
                  dp = amx_columns(d), group = amx_a_size(AMX_GROUP, d);
    const int64_t image = item / a->heads, head = item % a->heads;
    const uint16_t *qkv = (const uint16_t *)a->qkv + image * t * 3 * width + head * d;
    uint16_t *y = (uint16_t *)a->y + image * t * width + head * d;
    float *lse = a->lse ? (float *)a->lse + item * t : NULL;
    char *q = a->scratch + (size_t)worker * a->scratch_size, *k = q + amx_a_size(t, d),
         *v = k + amx_b_size(t, d), *w = v + amx_b_size(d, t);
    float *s = (float *)(w + amx_a_size(AMX_GROUP, t)), *o = s + AMX_GROUP * tp;
    uint16_t *p = (uint16_t *)(o + AMX_GROUP * dp);
    KERNEL(gemm_amx_begin)();
    amx_a(false, qkv, 3 * width, t, d, q);
    amx_b(true, qkv + width, 3 * width, t, d, k);
    amx_b(false, qkv + 2 * width, 3 * width, d, t, v);
    for (int64_t r0 = 0; r0 < t; r0 += AMX_GROUP) {
        const int64_t r = t - r0 < AMX_GROUP ? t - r0 : AMX_GROUP;
        float inverse[AMX_GROUP];
        amx_product(r, t, d, q + r0 / AMX_GROUP * group, k, s, false);
        for (int64_t i = 0; i < r; i++) {
            inverse[i] = exp_row_bf16(s + i * tp, t, (float)a->scale, lse ? lse + r0 + i : NULL);
            amx_round(s + i * tp, t, 1, p + i * tp);
        }
        amx_a(false, p, tp, r, t, w);
        amx_product(r, d, t, w, v, o, false);
        for (int64_t i = 0; i < r; i++)
            amx_round(o + i * dp, d, inverse[i], y + (r0 + i) * width);
    }
    KERNEL(gemm_amx_end)();
}

static int64_t amx_block(const attention_job *a) {
    return a->t < BLOCK ? a->t : BLOCK;
}
static int64_t amx_weights_size(const attention_job *a) { /* as A: of a group, or of all columns */
    int64_t rows = amx_a_size(AMX_GROUP, a->t), columns = amx_a_size(a->t, amx_block(a));
    return rows > columns ? rows : columns;
}
static size_t amx_backward_size(const attention_job *a) {
    const int64_t t = a->t, d = a->d, tp = amx_columns(t), dp = amx_columns(d);
    return (size_t)(2 * amx_a_size(t, d) + 2 * amx_b_size(t, d) + amx_b_size(d, t) +
                    2 * amx_b_size(d, amx_block(a)) + amx_weights_size(a) + 2 * AMX_GROUP * tp * 4 +
                    AMX_GROUP * dp * 4 + 2 * (t + AMX_GROUP) * dp * 4 + 2 * amx_block(a) * tp * 2);
}
/* dk or dv: the gradient of all t rows from n queries, whose weights are w [n,tp] and whose own
 * rows are packed in b. */
static void amx_spread(const attention_job *a, int64_t n, const uint16_t *w, const char *b,
                       char *scratch, float *out, bool add) {
    const int64_t t = a->t, dp = amx_columns(a->d), group = amx_a_size(AMX_GROUP, n);
    amx_a(true, w, amx_columns(t), t, n, scratch);
    for (int64_t i = 0; i < t; i += AMX_GROUP, scratch += group)
        amx_product(t - i < AMX_GROUP ? t - i : AMX_GROUP, a->d, n, scratch, b, out + i * dp, add);
}
static void amx_backward(void *arg, int64_t item, int worker) {
    const attention_job *a = arg;
    const int64_t t = a->t, d = a->d, width = a->heads * d, tp = amx_columns(t),
                  dp = amx_columns(d), group = amx_a_size(AMX_GROUP, d);
    const int64_t image = item / a->heads, head = item % a->heads;
    const uint16_t *qkv = (const uint16_t *)a->qkv + image * t * 3 * width + head * d;
    const uint16_t *y = (const uint16_t *)a->y + image * t * width + head * d;
    const uint16_t *dy = (const uint16_t *)a->dy + image * t * width + head * d;
    uint16_t *dqkv = (uint16_t *)a->dqkv + image * t * 3 * width + head * d;
    const float *lse = (const float *)a->lse + item * t, scale = (float)a->scale;
    char *q = a->scratch + (size_t)worker * a->scratch_size, *g = q + amx_a_size(t, d),
         *kt = g + amx_a_size(t, d), *vt = kt + amx_b_size(t, d), *k = vt + amx_b_size(t, d),
         *qb = k + amx_b_size(d, t), *gb = qb + amx_b_size(d, amx_block(a)),
         *w = gb + amx_b_size(d, amx_block(a));
    float *s = (float *)(w + amx_weights_size(a)), *ds = s + AMX_GROUP * tp,
          *dq = ds + AMX_GROUP * tp, *dk = dq + AMX_GROUP * dp, *dv = dk + (t + AMX_GROUP) * dp;
    uint16_t *p = (uint16_t *)(dv + (t + AMX_GROUP) * dp), *x = p + amx_block(a) * tp;
    KERNEL(gemm_amx_begin)();
    amx_a(false, qkv, 3 * width, t, d, q);
    amx_a(false, dy, width, t, d, g);
    amx_b(true, qkv + width, 3 * width, t, d, kt);
    amx_b(true, qkv + 2 * width, 3 * width, t, d, vt);
    amx_b(false, qkv + width, 3 * width, d, t, k);
    for (int64_t b0 = 0; b0 < t; b0 += BLOCK) {
        const int64_t n = t - b0 < BLOCK ? t - b0 : BLOCK;
        for (int64_t r0 = 0; r0 < n; r0 += AMX_GROUP) {
            const int64_t r = n - r0 < AMX_GROUP ? n - r0 : AMX_GROUP, row = b0 + r0;
            amx_product(r, t, d, q + row / AMX_GROUP * group, kt, s, false);
            amx_product(r, t, d, g + row / AMX_GROUP * group, vt, ds, false);
            for (int64_t i = 0; i < r; i++) {
                const float mean = amx_dot(dy + (row + i) * width, y + (row + i) * width, d);
                grad_row_bf16(s + i * tp, ds + i * tp, t, scale, lse[row + i], mean);
                amx_round(s + i * tp, t, 1, p + (r0 + i) * tp);
                amx_round(ds + i * tp, t, 1, x + (r0 + i) * tp);
            }
            amx_a(false, x + r0 * tp, tp, r, t, w);
            amx_product(r, d, t, w, k, dq, false);
            for (int64_t i = 0; i < r; i++)
                amx_round(dq + i * dp, d, 1, dqkv + (row + i) * 3 * width);
        }
        amx_b(false, dy + b0 * width, width, d, n, gb);
        amx_b(false, qkv + b0 * 3 * width, 3 * width, d, n, qb);
        amx_spread(a, n, p, gb, w, dv, b0 > 0);
        amx_spread(a, n, x, qb, w, dk, b0 > 0);
    }
    KERNEL(gemm_amx_end)();
    for (int64_t i = 0; i < t; i++) {
        amx_round(dk + i * dp, d, 1, dqkv + i * 3 * width + width);
        amx_round(dv + i * dp, d, 1, dqkv + i * 3 * width + 2 * width);
    }
}

/* Scopes: each lists the tensors made in it, without holding references: a tensor dies with its
 * last reference, or loses its bytes when its scope closes, whichever comes first. */
#include "ops/op_impl.h"

struct mimic_scope {
    mimic_ctx *ctx; /* NULL once closed */
    mimic_scope *outer;
    uint32_t id;
    bool checkpoint;  /* opened by mimic_checkpoint_open: its graph outlives it */
    uint32_t segment; /* the stretch of the tape it marks, or 0 */
    int name_depth;   /* of the name stack when opened: cut back to at close */
    mimic_tensor *tensors;
    bool released;   /* the handle was given back while open */
    mimic_ctx *home; /* whose slab the handle is from: it may outlive the context */
};

struct mimic_scopes {
    mimic_scope *top;
    uint32_t next_id;
    int depth;
};

mimic_status mimic_scopes_init(mimic_ctx *ctx) {
    ctx->scopes = mimic_alloc_raw(ctx, sizeof *ctx->scopes);
    if (!ctx->scopes)
        return MIMIC_ENOMEM;
    *ctx->scopes = (mimic_scopes){0};
    return MIMIC_OK;
}

void mimic_scopes_close(mimic_ctx *ctx) {
    if (!ctx->scopes)
        return;
    while (ctx->scopes->top)
        mimic_scope_close(ctx->scopes->top);
    mimic_free_raw(ctx, ctx->scopes);
    ctx->scopes = NULL;
}

mimic_status mimic_scope_open(mimic_ctx *ctx, mimic_scope **out) {
    mimic_scope *s = mimic_slab_get(ctx, sizeof *s);
    if (!s)
        return MIMIC_ENOMEM;
    *s = (mimic_scope){.ctx = ctx,
                       .home = ctx,
                       .id = ++ctx->scopes->next_id,
                       .outer = ctx->scopes->top,
                       .name_depth = ctx->name_depth};
    ctx->scopes->top = s;
    ctx->scopes->depth++;
    *out = s;
    return MIMIC_OK;
}

mimic_status mimic_checkpoint_open(mimic_ctx *ctx, mimic_scope **out) {
    mimic_status st = mimic_scope_open(ctx, out);
    if (st)
        return st;
    (*out)->checkpoint = true;
    (*out)->segment = mimic_checkpoint_begin(ctx);
    return MIMIC_OK;
}

static void close_top(mimic_ctx *ctx) {
    mimic_scope *s = ctx->scopes->top;
    if (s->segment)
        mimic_checkpoint_end(ctx, s->segment, s->id);
    ctx->scopes->top = s->outer;
    ctx->scopes->depth--;
    mimic_set_name_depth(ctx, s->name_depth);
    if (!s->outer && ctx->tape && !s->checkpoint)
        mimic_tape_clear(ctx);
    while (s->tensors) {
        mimic_tensor *t = s->tensors;
        mimic_tensor_retain(t); /* ending it may drop references to others of the list, not to it */
        mimic_scope_forget(t);
        mimic_tensor_end(t, MIMIC_END_SCOPE);
        mimic_tensor_release(t);
    }
    s->ctx = NULL;
    if (s->released)
        mimic_slab_put(s->home, s, sizeof *s);
}

void mimic_scope_close(mimic_scope *scope) {
    mimic_ctx *ctx = scope->ctx;
    if (!ctx)
        return;
    bool last;
    do {
        last = ctx->scopes->top == scope;
        close_top(ctx);
    } while (!last);
}

void mimic_scope_release(mimic_scope *scope) {
    if (!scope)
        return;
    if (scope->ctx)
        scope->released = true;
    else
        mimic_slab_put(scope->home, scope, sizeof *scope);
}

void mimic_scope_add(mimic_ctx *ctx, mimic_tensor *t) {
    mimic_scope *s = ctx->scopes->top;
    t->scope = s ? s->id : 0;
    mimic_tensor_link(t, s ? &s->tensors : &ctx->tensors);
}

static void move(mimic_tensor *t, mimic_scope *s) {
    mimic_tensor_unlink(t);
    t->scope = s ? s->id : 0;
    mimic_tensor_link(t, s ? &s->tensors : &t->ctx->tensors);
}

void mimic_scope_move_out(mimic_tensor *t) {
    move(t, t->ctx->scopes->top->outer);
}

void mimic_scope_forget(mimic_tensor *t) {
    move(t, NULL);
}

mimic_status mimic_scope_keep(mimic_scope *scope, mimic_tensor *t) {
    mimic_ctx *ctx = scope->ctx;
    if (!ctx)
        return mimic_fail(t->ctx, MIMIC_ESTATE, "keep: the scope is closed");
    mimic_status st = mimic_tensor_check(ctx, t, "keep");
    if (st)
        return st;
    if (t->scope >= scope->id) /* else it lives outside already */
        move(t, scope->outer);
    return MIMIC_OK;
}

int mimic_scope_depth(const mimic_ctx *ctx) {
    return ctx->scopes->depth;
}

/* Messages, the name stack in front of them, interned texts, the log callback. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ctx.h"

const char *mimic_status_name(mimic_status status) {
    static const char *const names[] = {"OK",     "EINVAL",       "ENOMEM",   "EIO", "EFORMAT",
                                        "ESTATE", "EUNSUPPORTED", "ENUMERIC", "EDB"};
    return (unsigned)status < sizeof names / sizeof names[0] ? names[status] : "?";
}

const char *mimic_message(const mimic_ctx *ctx) {
    return ctx && ctx->message ? ctx->message : "";
}

mimic_status mimic_last_status(const mimic_ctx *ctx) {
    return ctx->status;
}

mimic_status mimic_fail(mimic_ctx *ctx, mimic_status status, const char *fmt, ...) {
    if (!ctx || !ctx->message || !mimic_on_own_thread(ctx))
        return status;
    /* The buffer is fixed at open: a message about missing memory must not need memory. */
    char *out = ctx->message;
    size_t room = ctx->message_size, used = 0;
    va_list ap;
    /* An argument may be the old message itself, so the text is composed aside. */
    char text[MIMIC_MESSAGE_SIZE];
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    int shown = ctx->name_depth < MIMIC_NAME_DEPTH ? ctx->name_depth : MIMIC_NAME_DEPTH;
    for (int i = 0; i < shown && used + 2 < room; i++)
        used += (size_t)snprintf(out + used, room - used, "%s%s", i ? "." : "", ctx->names[i]);
    if (used >= room)
        used = room - 1;
    if (shown > 0)
        used += (size_t)snprintf(out + used, room - used, ": ");
    if (used < room)
        snprintf(out + used, room - used, "%s", text);
    ctx->status = status;
    return status;
}

void mimic_log(mimic_ctx *ctx, int level, const char *fmt, ...) {
    if (!ctx->cfg.log)
        return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ctx->cfg.log(ctx->cfg.user, level, text);
}

/* --- interned texts --------------------------------------------------------------------------- */

/* An open hash table of strings that live as long as the context. Only messages use them, so a text
 * that finds no memory is "" and no failure. */

struct mimic_intern {
    size_t used, size; /* size is a power of two */
    char **slot;
};

static uint64_t hash_text(const char *s) { /* FNV-1a */
    uint64_t h = 1469598103934665603u;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 1099511628211u;
    return h;
}

static char **intern_slot(struct mimic_intern *t, const char *s) {
    size_t i = (size_t)hash_text(s) & (t->size - 1);
    while (t->slot[i] && strcmp(t->slot[i], s) != 0)
        i = (i + 1) & (t->size - 1);
    return &t->slot[i];
}

static bool intern_grow(mimic_ctx *ctx) {
    struct mimic_intern *t = ctx->intern;
    struct mimic_intern bigger = {t->used, t->size ? 2 * t->size : 256, NULL};
    bigger.slot = mimic_alloc_raw(ctx, bigger.size * sizeof *bigger.slot);
    if (!bigger.slot)
        return false;
    memset(bigger.slot, 0, bigger.size * sizeof *bigger.slot);
    for (size_t i = 0; i < t->size; i++)
        if (t->slot[i])
            *intern_slot(&bigger, t->slot[i]) = t->slot[i];
    mimic_free_raw(ctx, t->slot);
    *t = bigger;
    return true;
}

const char *mimic_intern_text(mimic_ctx *ctx, const char *s) {
    if (!ctx->intern) {
        ctx->intern = mimic_alloc_raw(ctx, sizeof *ctx->intern);
        if (!ctx->intern)
            return "";
        *ctx->intern = (struct mimic_intern){0};
    }
    struct mimic_intern *t = ctx->intern;
    if (2 * (t->used + 1) > t->size && !intern_grow(ctx))
        return "";
    char **slot = intern_slot(t, s);
    if (!*slot) {
        size_t bytes = strlen(s) + 1;
        *slot = mimic_alloc_raw(ctx, bytes);
        if (!*slot)
            return "";
        memcpy(*slot, s, bytes);
        t->used++;
    }
    return *slot;
}

void mimic_intern_close(mimic_ctx *ctx) {
    if (!ctx->intern)
        return;
    for (size_t i = 0; i < ctx->intern->size; i++)
        mimic_free_raw(ctx, ctx->intern->slot[i]);
    mimic_free_raw(ctx, ctx->intern->slot);
    mimic_free_raw(ctx, ctx->intern);
    ctx->intern = NULL;
}

/* --- name stack and place --------------------------------------------------------------------- */

void mimic_push_name(mimic_ctx *ctx, const char *name) {
    if (ctx->name_depth < MIMIC_NAME_DEPTH)
        ctx->names[ctx->name_depth] = mimic_intern_text(ctx, name);
    ctx->name_depth++;
}

void mimic_pop_name(mimic_ctx *ctx) {
    if (ctx->name_depth > 0)
        ctx->name_depth--;
}

int mimic_name_depth(const mimic_ctx *ctx) {
    return ctx->name_depth;
}

void mimic_set_name_depth(mimic_ctx *ctx, int depth) {
    if (depth >= 0 && depth < ctx->name_depth)
        ctx->name_depth = depth;
}

void mimic_set_place(mimic_ctx *ctx, const char *place) {
    if (!place || !place[0])
        ctx->place = NULL;
    else if (!ctx->place || strcmp(ctx->place, place) != 0)
        ctx->place = mimic_intern_text(ctx, place);
}

const char *mimic_intern_place(mimic_ctx *ctx, const char *place) {
    return mimic_intern_text(ctx, place);
}

void mimic_set_interned_place(mimic_ctx *ctx, const char *interned) {
    ctx->place = interned;
}

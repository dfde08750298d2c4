/* Shared by the files of the Lua binding. Rules that all of them keep: every C function has the
 * binding as upvalue 1; a Lua error is raised only while no engine object is held outside a box (an
 * empty userdata with __gc is made first, then filled); axes and positions are 1-based in Lua,
 * 0-based below. */
#ifndef MIMIC_L_MIMIC_H
#define MIMIC_L_MIMIC_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "mimic.h"

/* Classes of objects; each has one metatable, held as user value of the binding. */
enum mimicl_kind {
    MIMICL_TENSOR = 1,
    MIMICL_SCOPE,
    MIMICL_GUARD,
    MIMICL_OPTIM,
    MIMICL_IMAGE,
    MIMICL_DATASET,
    MIMICL_LOADER,
    MIMICL_SAFETENSORS,
    MIMICL_DB,
    MIMICL_TX,
    MIMICL_BLOB,
    MIMICL_RNG,
    MIMICL_LOCK,
    MIMICL_BYTES,
    MIMICL_LATER,
    MIMICL_GRAPH,
    MIMICL_KINDS
};

enum { MIMICL_PLACES = 64 };

typedef struct mimicl_node mimicl_node; /* an open scope, l_scope.c */

/* One module instance: userdata in the registry, closed last because it is made first. */
typedef struct mimicl {
    mimic_ctx *ctx;                 /* NULL once closed */
    bool own;                       /* the context closes with the binding */
    const void *meta[MIMICL_KINDS]; /* identity of each metatable */
    const char *class_name[MIMICL_KINDS];
    size_t survived;      /* tensor bytes alive after the last full collection */
    int base_depth;       /* name-stack depth at the innermost guarded call */
    mimicl_node *orphans; /* scopes whose coroutine was abandoned below newer scopes */
    char logged[256];     /* the engine's last line to its log: why no context was opened */
    struct {
        int line;
        const char *place;   /* "FILE:LINE", the context's copy; NULL: none yet */
    } places[MIMICL_PLACES]; /* by line: those that calls came from last */
} mimicl;

/* --- l_module.c: the binding, objects, errors --------------------------------------- */

/* Makes the module table for ctx (closed with the state when `own`), registers it, pushes it. */
int mimicl_push(lua_State *L, mimic_ctx *ctx, bool own);
/* The binding of the running function; raises once the context is closed. */
mimicl *mimicl_self(lua_State *L);
/* An empty, zeroed object of a class with `values` user values (pushed). */
void *mimicl_new(lua_State *L, int kind, size_t size, int values);
/* The object at `arg`, or NULL when it is of another class. */
void *mimicl_test(lua_State *L, int arg, int kind);
void *mimicl_check(lua_State *L, int arg, int kind);
/* Defines a class: methods become a table, `meta` metamethods. Both get the binding as upvalue 1; a
 * metamethod has the table of methods as upvalue 2. Without an __index of its own a class has its
 * methods and refuses other names. The binding is at absolute index b. */
void mimicl_class(lua_State *L, int b, int kind, const char *name, const luaL_Reg *methods,
                  const luaL_Reg *meta);
/* Sets functions of the table on top, with the binding at absolute index b as upvalue 1. */
void mimicl_functions(lua_State *L, int b, const luaL_Reg *functions);
/* In an __index metamethod: pushes the method named by argument 2 and returns true, if there is
 * one. */
bool mimicl_method(lua_State *L);
/* Pushes " (did you mean \"shape\"?)" for the nearest of the names in the table at t and in `more`
 * ("a|b"), or "". */
void mimicl_push_hint(lua_State *L, const char *word, int t, const char *more);
/* In an __index metamethod: raises for a field that is not there, with the nearest method or name
 * of `more` ("a|b"). */
int mimicl_no_field(lua_State *L, const char *more);
/* Raises the context's message with the line of the script. */
int mimicl_raise(lua_State *L, mimicl *b);
/* mimic_fail + mimicl_raise: faults found by the binding have the name stack and m.last_error too.
 */
int mimicl_error(lua_State *L, mimic_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline void mimicl_ok(lua_State *L, mimicl *b, mimic_status status) {
    if (status != MIMIC_OK)
        mimicl_raise(L, b);
}
/* A buffer that Lua collects; stays on the stack. */
void *mimicl_buffer(lua_State *L, size_t count, size_t size);
/* A malloc'ed block that is freed with its box: set *slot. Stays on the stack. */
void **mimicl_malloced(lua_State *L);
/* Opens a Lua state's libraries with paths that do not depend on the environment. */
void mimicl_open_libraries(lua_State *L);
void mimicl_preload(lua_State *L);

/* --- l_fault.c: places and traces ---------------------------------------------------- */

/* Whether a frame (lua_getinfo "S") is of the embedded library. */
bool mimicl_embedded(const lua_Debug *ar);
/* Finds the innermost line, from *level outwards, that is not of the embedded library. */
bool mimicl_script_line(lua_State *L, int *level, lua_Debug *ar);
/* Pushes "FILE:LINE: " of that line, "" without one: luaL_where for scripts. */
void mimicl_where(lua_State *L);
/* Message handler, also m.fault(e [, level]) for handlers written in Lua: gives the text for the
 * screen and the text with the whole traceback. */
int mimicl_fault(lua_State *L);
/* lua_pcall with that handler. */
int mimicl_call(lua_State *L, int args, int results);

/* --- option tables ------------------------------------------------------------------ */

/* Refuses keys that are not in `names` ("kind|beta1|..."). The table is at t. */
void mimicl_options(lua_State *L, int t, const char *who, const char *names);
double mimicl_number(lua_State *L, int t, const char *key, double def);
int64_t mimicl_integer(lua_State *L, int t, const char *key, int64_t def);
int mimicl_int(lua_State *L, int t, const char *key, int64_t def);
bool mimicl_boolean(lua_State *L, int t, const char *key, bool def);
/* The text stays owned by the table. */
const char *mimicl_text(lua_State *L, int t, const char *key, const char *def);
/* Fills `out` when the key is there; its list must have n numbers. Returns whether it was. */
bool mimicl_numbers(lua_State *L, int t, const char *key, int n, double *out);
/* Index of `word` among "a|b|c", or -1. */
int mimicl_choice(const char *choices, const char *word, size_t size);
/* Raises: unknown WHAT 'word', with "did you mean" when one of `names` is near, and all of them. */
int mimicl_unknown(lua_State *L, const char *who, const char *what, const char *word,
                   const char *names);

/* --- l_tensor.c --------------------------------------------------------------------- */

/* An empty tensor box; fill *slot with a reference. */
mimic_tensor **mimicl_new_tensor(lua_State *L);
mimic_tensor *mimicl_tensor(lua_State *L, int arg);
/* The same for an operand of `who`: other values are refused by its number. */
mimic_tensor *mimicl_operand(lua_State *L, int arg, const char *who);
/* Pushes a box with a new reference to a borrowed tensor; nil for NULL. */
void mimicl_push_borrowed(lua_State *L, mimic_tensor *t);
/* Reads a shape from the list at arg. */
int mimicl_shape(lua_State *L, int arg, int64_t shape[MIMIC_MAX_RANK]);
mimic_dtype mimicl_dtype(lua_State *L, int arg, mimic_dtype def);
/* Before a call that makes tensors: tells the context the script's line, and collects garbage when
 * too much tensor memory was made outside scopes since the last collection. */
void mimicl_enter(lua_State *L, mimicl *b);
/* After a failed call: true when it was for want of memory and collecting garbage may help once. */
bool mimicl_retry(lua_State *L, mimicl *b, mimic_status status);

/* --- l_scope.c ---------------------------------------------------------------------- */

/* Closes scopes that garbage collection found open, once no newer scope is open (or `all`). */
void mimicl_close_orphans(lua_State *L, mimicl *b, bool all);

/* --- others ------------------------------------------------------------------------- */

uint64_t mimicl_seed_arg(lua_State *L, int arg);
mimic_rng *mimicl_rng(lua_State *L, int arg);
mimic_filter mimicl_filter(lua_State *L, int t, const char *who);
/* Reads a transform table (m.image.transform, m.data.loader). */
void mimicl_transform(lua_State *L, int t, mimic_transform *out);
mimic_image *mimicl_new_image(lua_State *L);
/* Raises `err` unless status is MIMIC_OK: for calls that report into a buffer. */
void mimicl_check_err(lua_State *L, mimic_status status, const mimic_err *err);
void mimicl_push_hex(lua_State *L, const uint8_t *bytes, size_t n);

/* The table of the methods of tensors. */
void mimicl_push_tensor_methods(lua_State *L, int b);

/* Each adds its functions to the module table on top; the binding is at absolute index b. */
void mimicl_open_tensor(lua_State *L, int b);
/* The next two after it: they add methods to its class. */
void mimicl_open_values(lua_State *L, int b);
void mimicl_open_op(lua_State *L, int b);
void mimicl_open_scope(lua_State *L, int b);
void mimicl_open_context(lua_State *L, int b);
void mimicl_open_optim(lua_State *L, int b);
void mimicl_open_profile(lua_State *L, int b);
void mimicl_open_graph(lua_State *L, int b);
void mimicl_open_image(lua_State *L, int b);
void mimicl_open_data(lua_State *L, int b);
void mimicl_open_analysis(lua_State *L, int b);
void mimicl_open_safetensors(lua_State *L, int b);
void mimicl_open_db(lua_State *L, int b);
/* Set by the program's signal handler: statements of databases that are open for reading end. */
extern volatile sig_atomic_t mimicl_stop_reading;
void mimicl_open_sys(lua_State *L, int b);
void mimicl_open_process(lua_State *L, int b); /* after sys: adds to its table */

#endif

/* Lua: the module and how a host shares its context with a script. Link with the bindings library.
 */
#ifndef MIMIC_SCRIPT_H
#define MIMIC_SCRIPT_H

#include "core.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

/* `require "mimic"` of a stock lua5.4: opens a context of its own, closed with the state. */
__attribute__((visibility("default"))) int luaopen_mimic(struct lua_State *L);
/* Pushes the module table bound to the host's context and registers it as package.loaded.mimic. The
 * context must outlive the state; no scope is left open by it. Returns 1, or raises a Lua error (no
 * memory), as the functions of Lua's own C interface do. */
int mimic_lua_push(struct lua_State *L, mimic_ctx *ctx);
/* Runs a script file in a Lua state of its own, with the module loaded and the global `arg` set to
 * path and argv. On failure the error text with traceback is the context's message. */
mimic_status mimic_run_file(mimic_ctx *ctx, const char *path, int argc, const char *const *argv);

#ifdef __cplusplus
}
#endif
#endif

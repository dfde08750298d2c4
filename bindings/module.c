/* `require "mimic"` of a stock lua5.4: pulls luaopen_mimic, which is exported, out of the library.
 */
#include "l_mimic.h"

int (*const mimicl_module_entry)(lua_State *L) = luaopen_mimic;

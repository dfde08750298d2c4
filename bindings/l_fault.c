/* Errors as their reader needs them: the place is the script's line, not one of the embedded
 * library, and the trace shows the script's own calls. The whole trace is kept for the results
 * database, and shown with MIMIC_TRACE=1. */
#include "l_mimic.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 200, SHOWN = 10 };

bool mimicl_embedded(const lua_Debug *ar) {
    return strncmp(ar->source, "=mimic/", 7) == 0;
}

bool mimicl_script_line(lua_State *L, int *level, lua_Debug *ar) {
    for (; *level < DEEPEST && lua_getstack(L, *level, ar); ++*level) {
        lua_getinfo(L, "Sl", ar);
        if (ar->currentline >= 0 && !mimicl_embedded(ar))
            return true;
    }
    return false;
}

void mimicl_where(lua_State *L) {
    lua_Debug ar;
    int level = 1;
    if (mimicl_script_line(L, &level, &ar))
        lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
    else
        lua_pushliteral(L, "");
}

/* Length of "FILE:LINE: " at the beginning of the text if it is the place of a frame on the stack,
 * or any line of a Lua file; *library: of the embedded library. */
static size_t place_length(lua_State *L, const char *text, bool *library) {
    lua_Debug ar;
    size_t n = 0;
    for (int level = 1; !n && level < DEEPEST && lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline < 0)
            continue;
        const char *place = lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
        if (strncmp(text, place, strlen(place)) == 0) {
            n = strlen(place);
            *library = mimicl_embedded(&ar);
        }
        lua_pop(L, 1);
    }
    const char *end = n ? NULL : strstr(text, ".lua:");
    if (end && end < text + strcspn(text, "\n ")) {
        end += strlen(".lua:");
        end += strspn(end, "0123456789");
        if (strncmp(end, ": ", 2) == 0) {
            n = (size_t)(end + 2 - text);
            *library = strncmp(text, "mimic/", 6) == 0;
        }
    }
    return n;
}

/* Whether the embedded library itself tripped: Lua raised in its code, not a check on purpose. */
static bool library_fault(lua_State *L, int level, bool library) {
    lua_Debug ar;
    if (!library || !lua_getstack(L, level, &ar))
        return false;
    lua_getinfo(L, "S", &ar);
    return *ar.what != 'C';
}

/* Adds the script's calls that led to the line named first, if there is more than that line. */
static void add_calls(lua_State *L, int level, luaL_Buffer *out) {
    lua_Debug ar;
    for (int shown = 0; mimicl_script_line(L, &level, &ar); level++) {
        if (shown++ == 0)
            continue; /* it is named already */
        lua_pushfstring(L, "\n  called from %s:%d", ar.short_src, ar.currentline);
        luaL_addvalue(out);
        if (shown == SHOWN)
            return;
    }
}

/* A misspelt method of a module (modules are plain tables with fields of their own, so that reading
 * one that is absent is no error): pushes " (did you mean ...?)", or "". */
static void push_method_hint(lua_State *L, const char *text) {
    static const char nil_call[] = "attempt to call a nil value (method '";
    const char *p = strstr(text, nil_call);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (!p || lua_getfield(L, -1, "mimic.nn") != LUA_TTABLE ||
        lua_getfield(L, -1, "Module") != LUA_TTABLE) {
        lua_pushliteral(L, "");
        return;
    }
    p += sizeof nil_call - 1;
    lua_pushlstring(L, p, strcspn(p, "'"));
    mimicl_push_hint(L, lua_tostring(L, -1), -2, "forward");
}

int mimicl_fault(lua_State *L) {
    int level = (int)luaL_optinteger(L, 2, 1);
    lua_settop(L, 1);
    const char *raw = lua_tostring(L, 1);
    if (!raw) {
        if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING)
            return 1;
        raw = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
    }
    bool library = false;
    size_t place = place_length(L, raw, &library);
    bool fault = library_fault(L, level, library);
    luaL_traceback(L, L, NULL, level);
    const char *trace = lua_tostring(L, -1);
    push_method_hint(L, raw);
    const char *hint = lua_tostring(L, -1);

    lua_Debug ar;
    int at = level;
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    if ((!place || library) && mimicl_script_line(L, &at, &ar)) {
        lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
        luaL_addvalue(&out);
    }
    luaL_addstring(&out, raw + (library && !fault ? place : 0));
    luaL_addstring(&out, hint);
    luaL_pushresult(&out);
    const char *head = lua_tostring(L, -1);

    luaL_buffinit(L, &out);
    luaL_addstring(&out, head);
    if (fault || getenv("MIMIC_TRACE")) {
        luaL_addchar(&out, '\n');
        luaL_addstring(&out, trace);
    } else {
        add_calls(L, at, &out);
    }
    luaL_pushresult(&out);
    lua_pushfstring(L, "%s\n%s", head, trace);
    return 2;
}

int mimicl_call(lua_State *L, int args, int results) {
    int base = lua_gettop(L) - args;
    lua_pushcfunction(L, mimicl_fault);
    lua_insert(L, base);
    int rc = lua_pcall(L, args, results, base);
    lua_remove(L, base);
    return rc;
}

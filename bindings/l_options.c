/* Option tables of the binding: typed reading, refusal of unknown names with the nearest right one.
 */
#include "l_mimic.h"

#include <stdio.h>
#include <string.h>

int mimicl_choice(const char *choices, const char *word, size_t size) {
    int index = 0;
    for (const char *p = choices; *p; index++) {
        size_t n = strcspn(p, "|");
        if (n == size && memcmp(p, word, n) == 0)
            return index;
        p += n;
        p += *p == '|';
    }
    return -1;
}

/* Number of single-letter changes and swaps of neighbours between a and b (long words are cut: only
 * for hints). */
static int distance(const char *a, size_t na, const char *b, size_t nb) {
    int d[33][33];
    na = na < 32 ? na : 32;
    nb = nb < 32 ? nb : 32;
    for (size_t i = 0; i <= na; i++)
        for (size_t j = 0; j <= nb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (int)(i + j);
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    return d[na][nb];
}

int mimicl_unknown(lua_State *L, const char *who, const char *what, const char *word,
                   const char *names) {
    char list[700] = "", hint[80] = "";
    size_t used = 0, n_word = strlen(word);
    int best = n_word < 4 ? 2 : 3; /* farther is no hint */
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, "|");
        int d = distance(word, n_word, p, n);
        size_t common = n < n_word ? n : n_word; /* one begins with the other */
        bool prefix = common > 2 && memcmp(word, p, common) == 0;
        if (d < best || (prefix && best > 0 && !hint[0])) {
            best = prefix && d > 1 ? 1 : d;
            snprintf(hint, sizeof hint, " (did you mean \"%.*s\"?)", (int)n, p);
        }
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%.*s", used ? ", " : "",
                                     (int)n, p);
        p += n;
        p += *p == '|';
    }
    return mimicl_error(L, MIMIC_EINVAL, "%s: unknown %s \"%.60s\"%s; %s: %s", who, what, word,
                        hint, names[0] ? "it has" : "it has none", list);
}

void mimicl_options(lua_State *L, int t, const char *who, const char *names) {
    t = lua_absindex(L, t);
    luaL_checktype(L, t, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            mimicl_error(L, MIMIC_EINVAL, "%s: options have names (%s), not a %s key", who, names,
                         luaL_typename(L, -2));
        }
        size_t n;
        const char *key = lua_tolstring(L, -2, &n);
        if (mimicl_choice(names, key, n) < 0)
            mimicl_unknown(L, who, "option", key, names);
    }
}

static int wrong(lua_State *L, const char *key, const char *wanted) {
    return mimicl_error(L, MIMIC_EINVAL, "option %s: %s expected, got %s", key, wanted,
                        luaL_typename(L, -1));
}

double mimicl_number(lua_State *L, int t, const char *key, double def) {
    int type = lua_getfield(L, t, key);
    if (type != LUA_TNIL && type != LUA_TNUMBER)
        wrong(L, key, "a number");
    double v = type == LUA_TNIL ? def : lua_tonumber(L, -1);
    lua_pop(L, 1);
    return v;
}

int64_t mimicl_integer(lua_State *L, int t, const char *key, int64_t def) {
    int type = lua_getfield(L, t, key), ok = 1;
    int64_t v = type == LUA_TNIL ? def : lua_tointegerx(L, -1, &ok);
    if (!ok || (type != LUA_TNIL && type != LUA_TNUMBER))
        wrong(L, key, "an integer");
    lua_pop(L, 1);
    return v;
}

int mimicl_int(lua_State *L, int t, const char *key, int64_t def) {
    int64_t v = mimicl_integer(L, t, key, def);
    if (v < INT32_MIN || v > INT32_MAX)
        mimicl_error(L, MIMIC_EINVAL, "option %s: %lld is out of range", key, (long long)v);
    return (int)v;
}

bool mimicl_boolean(lua_State *L, int t, const char *key, bool def) {
    int type = lua_getfield(L, t, key);
    if (type != LUA_TNIL && type != LUA_TBOOLEAN)
        wrong(L, key, "true or false");
    bool v = type == LUA_TNIL ? def : lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

const char *mimicl_text(lua_State *L, int t, const char *key, const char *def) {
    int type = lua_getfield(L, t, key);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        wrong(L, key, "a string");
    const char *v = type == LUA_TNIL ? def : lua_tostring(L, -1);
    lua_pop(L, 1);
    return v;
}

bool mimicl_numbers(lua_State *L, int t, const char *key, int n, double *out) {
    int type = lua_getfield(L, t, key);
    if (type != LUA_TNIL) {
        char wanted[48];
        snprintf(wanted, sizeof wanted, "a list of %d numbers", n);
        if (type != LUA_TTABLE || luaL_len(L, -1) != n)
            wrong(L, key, wanted);
        for (int i = 0; i < n; i++) {
            if (lua_geti(L, -1, i + 1) != LUA_TNUMBER)
                wrong(L, key, wanted);
            out[i] = lua_tonumber(L, -1);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    return type != LUA_TNIL;
}

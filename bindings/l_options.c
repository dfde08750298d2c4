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

/* The name nearest to a word among those considered so far. */
typedef struct nearest {
    const char *word;
    int best;      /* its distance; at first one too far for a hint */
    char name[64]; /* "" = none */
} nearest;

static nearest nearest_to(const char *word) {
    return (nearest){word, strlen(word) < 4 ? 2 : 3, ""};
}

/* Of equally near names the first in alphabetical order, so that the order of a table is no matter.
 */
static void consider(nearest *near, const char *name, size_t n) {
    size_t n_word = strlen(near->word);
    int d = distance(near->word, n_word, name, n);
    size_t common = n < n_word ? n : n_word; /* one begins with the other */
    bool prefix = common > 2 && memcmp(near->word, name, common) == 0;
    if (prefix && d > 1)
        d = 1;
    if (d > near->best || n >= sizeof near->name ||
        (d == near->best && (!near->name[0] || strncmp(name, near->name, n) >= 0)))
        return;
    near->best = d;
    snprintf(near->name, sizeof near->name, "%.*s", (int)n, name);
}

static void hint(const nearest *near, char out[96]) {
    out[0] = 0;
    if (near->name[0])
        snprintf(out, 96, " (did you mean \"%s\"?)", near->name);
}

/* Calls consider for every name of "a|b|c". */
static void consider_list(nearest *near, const char *names) {
    for (const char *p = names; *p;) {
        size_t n = strcspn(p, "|");
        consider(near, p, n);
        p += n;
        p += *p == '|';
    }
}

int mimicl_unknown(lua_State *L, const char *who, const char *what, const char *word,
                   const char *names) {
    char list[700] = "", meant[96];
    size_t used = 0;
    nearest near = nearest_to(word);
    consider_list(&near, names);
    hint(&near, meant);
    for (const char *p = names; *p && used < sizeof list; p++)
        used += (size_t)snprintf(list + used, sizeof list - used, *p == '|' ? ", " : "%c", *p);
    return mimicl_error(L, MIMIC_EINVAL, "%s: unknown %s \"%.60s\"%s; %s: %s", who, what, word,
                        meant, names[0] ? "it has" : "it has none", list);
}

void mimicl_push_hint(lua_State *L, const char *word, int t, const char *more) {
    nearest near = nearest_to(word);
    char meant[96];
    t = lua_absindex(L, t);
    consider_list(&near, more);
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING)
            consider(&near, lua_tostring(L, -2), lua_rawlen(L, -2));
    }
    hint(&near, meant);
    lua_pushstring(L, meant);
}

int mimicl_no_field(lua_State *L, const char *more) {
    luaL_getmetafield(L, 1, "__name");
    const char *who = lua_tostring(L, -1);
    if (lua_type(L, 2) != LUA_TSTRING)
        return mimicl_error(L, MIMIC_EINVAL, "%s: no index [%s]: fields have names", who,
                            luaL_tolstring(L, 2, NULL));
    const char *word = lua_tostring(L, 2);
    mimicl_push_hint(L, word, lua_upvalueindex(2), more);
    return mimicl_error(L, MIMIC_EINVAL, "%s has no field or method \"%.60s\"%s", who, word,
                        lua_tostring(L, -1));
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

/* Every operator of the table as a Lua function and tensor method: inputs, then a table of
 * attributes that is checked against the record. Axes and positions are converted here and nowhere
 * else. */
#include "l_mimic.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int attr_count(const mimic_attr *a) {
    int n = 0;
    while (n < MIMIC_MAX_ATTR && a[n].kind != MIMIC_ATTR_END)
        n++;
    return n;
}

static int attr_find(const mimic_attr *a, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(a[i].name, name) == 0)
            return i;
    return -1;
}

static int unknown_attr(lua_State *L, const mimic_op *op, const char *name) {
    const mimic_attr *a = mimic_op_attrs(op);
    char names[256] = "";
    size_t used = 0;
    for (int i = 0, n = attr_count(a); i < n && used < sizeof names; i++)
        used +=
            (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? "|" : "", a[i].name);
    return mimicl_unknown(L, mimic_op_name(op), "attribute", name, names);
}

static int wrong_attr(lua_State *L, const mimic_op *op, const mimic_attr *a, const char *wanted) {
    return mimicl_error(L, MIMIC_EINVAL, "%s: attribute %s: %s expected, got %s", mimic_op_name(op),
                        a->name, wanted, luaL_typename(L, -1));
}

static int64_t integer(lua_State *L, const mimic_op *op, const mimic_attr *a) {
    int whole;
    int64_t v = lua_tointegerx(L, -1, &whole);
    if (!whole || lua_type(L, -1) != LUA_TNUMBER)
        wrong_attr(L, op, a, "an integer");
    return v;
}

static int64_t axis(lua_State *L, const mimic_op *op, int64_t v) {
    if (v == 0)
        mimicl_error(L, MIMIC_EINVAL, "%s: axis 0: axes count from 1, or back from -1",
                     mimic_op_name(op));
    return v > 0 ? v - 1 : v;
}

/* The list attribute from the table at t: its array part, or the value of the attribute's name. */
static void read_list(lua_State *L, const mimic_op *op, const mimic_attr *a, int t,
                      mimic_attrs *out) {
    lua_Integer n = luaL_len(L, t);
    if (n > MIMIC_MAX_RANK)
        mimicl_error(L, MIMIC_EINVAL, "%s: the list has %lld entries, more than %d",
                     mimic_op_name(op), (long long)n, MIMIC_MAX_RANK);
    for (int i = 0; i < n; i++) {
        lua_geti(L, t, i + 1);
        int64_t v = integer(L, op, a);
        out->list[i] = a->kind == MIMIC_ATTR_AXES ? axis(L, op, v) : v;
        lua_pop(L, 1);
    }
    out->list_n = (int)n;
}

/* Converts the value on top. */
static void read_value(lua_State *L, const mimic_op *op, const mimic_attr *a, int i,
                       mimic_attrs *out) {
    int64_t v;
    switch (a->kind) {
    case MIMIC_ATTR_F64:
        if (lua_type(L, -1) != LUA_TNUMBER)
            wrong_attr(L, op, a, "a number");
        out->v[i].f = lua_tonumber(L, -1);
        break;
    case MIMIC_ATTR_I64:
        out->v[i].i = integer(L, op, a);
        break;
    case MIMIC_ATTR_BOOL:
        if (!lua_isboolean(L, -1))
            wrong_attr(L, op, a, "true or false");
        out->v[i].i = lua_toboolean(L, -1);
        break;
    case MIMIC_ATTR_AXIS:
        out->v[i].i = axis(L, op, integer(L, op, a));
        break;
    case MIMIC_ATTR_INDEX: /* where the last one is the default, 0 means it too */
        v = integer(L, op, a);
        if (v == 0 && a->def != -1)
            mimicl_error(L, MIMIC_EINVAL, "%s: %s 0: positions count from 1, or back from -1",
                         mimic_op_name(op), a->name);
        out->v[i].i = v >= 0 ? v - 1 : v;
        break;
    case MIMIC_ATTR_ENUM: {
        size_t n = 0;
        const char *word = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
        if (!word)
            wrong_attr(L, op, a, "a string");
        int k = mimicl_choice(a->choices, word, n);
        if (k < 0) {
            char what[64];
            snprintf(what, sizeof what, "value of %s", a->name);
            mimicl_unknown(L, mimic_op_name(op), what, word, a->choices);
        }
        out->v[i].i = k;
        break;
    }
    default:
        luaL_checktype(L, -1, LUA_TTABLE);
        read_list(L, op, a, lua_absindex(L, -1), out);
    }
}

/* Reads the table at t into attrs that hold the defaults; bit i of the result: attribute i was
 * given. */
static unsigned read_attrs(lua_State *L, const mimic_op *op, int t, mimic_attrs *out) {
    const mimic_attr *a = mimic_op_attrs(op);
    int n = attr_count(a), list = -1;
    unsigned given = 0;
    for (int i = 0; i < n; i++)
        if (a[i].kind == MIMIC_ATTR_INTS || a[i].kind == MIMIC_ATTR_AXES)
            list = i;
    bool has_list = lua_getmetatable(L, t) != 0; /* a proxy shows its list by __len and __index */
    if (has_list)
        lua_pop(L, 1);
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) {
            if (list < 0)
                mimicl_error(L, MIMIC_EINVAL, "%s: takes no list, only named attributes",
                             mimic_op_name(op));
            has_list = true;
            continue;
        }
        int i = attr_find(a, n, lua_tostring(L, -2));
        if (i < 0)
            unknown_attr(L, op, lua_tostring(L, -2));
        read_value(L, op, &a[i], i, out);
        given |= 1u << i;
    }
    if (has_list && list >= 0) {
        read_list(L, op, &a[list], t, out);
        given |= 1u << list;
    }
    return given;
}

/* Attributes without a default must have been given. */
static void complete_attrs(lua_State *L, const mimic_op *op, unsigned given) {
    const mimic_attr *a = mimic_op_attrs(op);
    for (int i = 0, n = attr_count(a); i < n; i++)
        if (isnan(a[i].def) && !(given >> i & 1))
            mimicl_error(L, MIMIC_EINVAL, "%s: attribute %s must be given", mimic_op_name(op),
                         a[i].name);
}

/* Applies op; leaves its outputs on the stack and returns their number. */
static int apply(lua_State *L, mimicl *b, const mimic_op *op, mimic_tensor *const *in, int n_in,
                 const mimic_attrs *attrs, int n_out) {
    mimic_tensor **slot[MIMIC_MAX_OUT], *out[MIMIC_MAX_OUT] = {NULL};
    for (int i = 0; i < n_out; i++)
        slot[i] = mimicl_new_tensor(L);
    mimicl_enter(L, b);
    mimic_status status = mimic_op_apply(b->ctx, op, in, n_in, attrs, out);
    if (status != MIMIC_OK && mimicl_retry(L, b, status))
        status = mimic_op_apply(b->ctx, op, in, n_in, attrs, out);
    mimicl_ok(L, b, status);
    for (int i = 0; i < n_out; i++)
        *slot[i] = out[i];
    return n_out;
}

static int call_op(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_op *op = lua_touserdata(L, lua_upvalueindex(2));
    int min_in, max_in, n_out, top = lua_gettop(L);
    mimic_op_arity(op, &min_in, &max_in, &n_out);
    mimic_attrs attrs;
    mimic_op_defaults(op, &attrs);
    unsigned given = 0;
    if (top > 0 && lua_type(L, top) == LUA_TTABLE) {
        given = read_attrs(L, op, top, &attrs);
        top--;
    }
    complete_attrs(L, op, given);
    if (top > max_in)
        mimicl_error(L, MIMIC_EINVAL, "%s: takes at most %d tensors%s, got %d arguments: %.200s",
                     mimic_op_name(op), max_in, max_in == 0 ? " (attributes go in a table)" : "",
                     top, mimic_op_doc(op));
    mimic_tensor *in[MIMIC_MAX_IN] = {NULL};
    for (int i = 0; i < top; i++) {
        if (lua_toboolean(L, i + 1)) /* nil or false: an optional input left out */
            in[i] = mimicl_operand(L, i + 1, mimic_op_name(op));
    }
    for (int i = 0; i < min_in; i++)
        if (!in[i])
            mimicl_error(L, MIMIC_EINVAL, "%s: argument %d is missing: %.200s", mimic_op_name(op),
                         i + 1, mimic_op_doc(op));
    while (top > 0 && !in[top - 1])
        top--;
    luaL_checkstack(L, MIMIC_MAX_OUT + 4, "op");
    return apply(L, b, op, in, top, &attrs, n_out);
}

/* --- arithmetic --------------------------------------------------------------------- */

/* alpha * x + beta */
static int scale(lua_State *L, mimicl *b, mimic_tensor *x, double alpha, double beta) {
    const mimic_op *op = mimic_op_find("scale");
    const mimic_attr *a = mimic_op_attrs(op);
    int n = attr_count(a);
    mimic_attrs attrs;
    mimic_op_defaults(op, &attrs);
    attrs.v[attr_find(a, n, "alpha")].f = alpha;
    attrs.v[attr_find(a, n, "beta")].f = beta;
    return apply(L, b, op, &x, 1, &attrs, 1);
}

/* Two tensors through upvalue 3's operator; a number through `scale` by upvalue 4's sign. */
static int arithmetic(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const mimic_op *op = lua_touserdata(L, lua_upvalueindex(3));
    char sign = (char)lua_tointeger(L, lua_upvalueindex(4));
    bool left = lua_type(L, 1) == LUA_TNUMBER, right = lua_type(L, 2) == LUA_TNUMBER;
    if (left || right) {
        double v = lua_tonumber(L, left ? 1 : 2);
        mimic_tensor *x = mimicl_tensor(L, left ? 2 : 1);
        if (sign == '+')
            return scale(L, b, x, 1, v);
        if (sign == '-')
            return left ? scale(L, b, x, -1, v) : scale(L, b, x, 1, -v);
        if (sign == '*')
            return scale(L, b, x, v, 0);
        if (right)
            return scale(L, b, x, 1 / v, 0);
        mimic_tensor **slot = mimicl_new_tensor(L);
        mimicl_ok(L, b, mimic_tensor_new(b->ctx, mimic_tensor_dtype(x), 0, NULL, slot));
        mimicl_ok(L, b, mimic_tensor_write(b->ctx, *slot, MIMIC_F64, &v, 1));
        mimic_tensor *in[2] = {*slot, x};
        return apply(L, b, op, in, 2, NULL, 1);
    }
    char who[] = "operator ?";
    who[sizeof who - 2] = sign;
    mimic_tensor *in[2] = {mimicl_operand(L, 1, who), mimicl_operand(L, 2, who)};
    return apply(L, b, op, in, 2, NULL, 1);
}

static int negate(lua_State *L) {
    return scale(L, mimicl_self(L), mimicl_tensor(L, 1), -1, 0);
}

/* --- the table, for documentation and tests ----------------------------------------- */

static const char *const kind_names[] = {"",      "number", "integer", "boolean", "axis",
                                         "index", "enum",   "list",    "axes"};

/* Attribute a as {name, kind, default, choices}; the default as Lua writes it. */
static void push_attr(lua_State *L, const mimic_attr *a) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, a->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, kind_names[a->kind]);
    lua_setfield(L, -2, "kind");
    if (a->choices) {
        lua_pushstring(L, a->choices);
        lua_setfield(L, -2, "choices");
    }
    if (isnan(a->def) || a->kind == MIMIC_ATTR_INTS || a->kind == MIMIC_ATTR_AXES)
        return;
    if (a->kind == MIMIC_ATTR_AXIS && fabs(a->def) > MIMIC_MAX_RANK)
        return; /* no axis: all of them */
    int64_t whole = a->kind == MIMIC_ATTR_F64 ? 0 : (int64_t)a->def;
    switch (a->kind) {
    case MIMIC_ATTR_F64:
        lua_pushnumber(L, a->def);
        break;
    case MIMIC_ATTR_BOOL:
        lua_pushboolean(L, whole != 0);
        break;
    case MIMIC_ATTR_ENUM: {
        const char *p = a->choices;
        for (int64_t i = 0; i < whole; i++)
            p += strcspn(p, "|") + 1;
        lua_pushlstring(L, p, strcspn(p, "|"));
        break;
    }
    case MIMIC_ATTR_I64:
        lua_pushinteger(L, whole);
        break;
    default: /* positions */
        lua_pushinteger(L, whole >= 0 ? whole + 1 : whole);
    }
    lua_setfield(L, -2, "default");
}

/* The names of the inputs: the words of the doc's argument list outside {attributes} and
 * shape[...]. */
static void push_inputs(lua_State *L, const mimic_op *op) {
    const char *p = strchr(mimic_op_doc(op), '(');
    int n = 0, braces = 0;
    lua_newtable(L);
    while (p && *++p && *p != ')') {
        braces += (*p == '{') - (*p == '}');
        size_t length =
            strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
        if (length == 0 || braces > 0)
            continue;
        lua_pushlstring(L, p, length);
        lua_rawseti(L, -2, ++n);
        p += length;
        p += *p == '[' ? strcspn(p, "]") : 0;
        p -= *p != ']'; /* the loop steps over it */
    }
}

/* m.op(name): the record as a table. */
static int op_info(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    const mimic_op *op = mimic_op_find(name);
    if (!op) {
        luaL_Buffer names;
        luaL_buffinit(L, &names);
        for (int i = 0; i < mimic_op_count(); i++) {
            if (i)
                luaL_addchar(&names, '|');
            luaL_addstring(&names, mimic_op_name(mimic_op_at(i)));
        }
        luaL_pushresult(&names);
        return mimicl_unknown(L, "m.op", "operator", name, lua_tostring(L, -1));
    }
    int min_in, max_in, n_out;
    mimic_op_arity(op, &min_in, &max_in, &n_out);
    lua_createtable(L, 0, 10);
    lua_pushstring(L, mimic_op_name(op));
    lua_setfield(L, -2, "name");
    lua_pushstring(L, mimic_op_doc(op));
    lua_setfield(L, -2, "doc");
    lua_pushstring(L, mimic_op_cases(op));
    lua_setfield(L, -2, "cases");
    lua_pushboolean(L, mimic_op_internal(op));
    lua_setfield(L, -2, "internal");
    lua_pushinteger(L, min_in);
    lua_setfield(L, -2, "min_inputs");
    lua_pushinteger(L, max_in);
    lua_setfield(L, -2, "max_inputs");
    lua_pushinteger(L, n_out);
    lua_setfield(L, -2, "outputs");
    push_inputs(L, op);
    lua_setfield(L, -2, "inputs");
    const mimic_attr *a = mimic_op_attrs(op);
    lua_newtable(L);
    for (int i = 0, n = attr_count(a); i < n; i++) {
        push_attr(L, &a[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "attrs");
    return 1;
}

static int op_names(lua_State *L) {
    lua_createtable(L, mimic_op_count(), 0);
    for (int i = 0; i < mimic_op_count(); i++) {
        lua_pushstring(L, mimic_op_name(mimic_op_at(i)));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static void add_arithmetic(lua_State *L, int b, int metatable) {
    static const struct {
        const char *event, *op;
        char sign;
    } rows[] = {
        {"__add", "add", '+'}, {"__sub", "sub", '-'}, {"__mul", "mul", '*'}, {"__div", "div", '/'}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        lua_pushvalue(L, b);
        lua_pushnil(L);
        lua_pushlightuserdata(L, (void *)mimic_op_find(rows[i].op));
        lua_pushinteger(L, rows[i].sign);
        lua_pushcclosure(L, arithmetic, 4);
        lua_setfield(L, metatable, rows[i].event);
    }
    lua_pushvalue(L, b);
    lua_pushcclosure(L, negate, 1);
    lua_setfield(L, metatable, "__unm");
}

void mimicl_open_op(lua_State *L, int b) {
    static const luaL_Reg functions[] = {{"op", op_info}, {"ops", op_names}, {NULL, NULL}};
    int module = lua_gettop(L);
    mimicl_push_tensor_methods(L, b); /* module+1 */
    for (int i = 0; i < mimic_op_count(); i++) {
        const mimic_op *op = mimic_op_at(i);
        if (mimic_op_internal(op))
            continue;
        lua_pushvalue(L, b);
        lua_pushlightuserdata(L, (void *)op);
        lua_pushcclosure(L, call_op, 2);
        lua_pushvalue(L, -1);
        lua_setfield(L, module, mimic_op_name(op));
        lua_setfield(L, module + 1, mimic_op_name(op));
    }
    lua_getiuservalue(L, b, MIMICL_TENSOR);
    add_arithmetic(L, b, module + 2);
    lua_settop(L, module);
    mimicl_functions(L, b, functions);
}

/* m.db: the results database. Rows are read inside protected calls: a Lua error never jumps over
 * the engine. */
#include "l_mimic.h"

volatile sig_atomic_t mimicl_stop_reading;

#include <stdlib.h>
#include <string.h>

typedef struct db_box {
    mimic_db *db; /* NULL once closed */
} db_box;

typedef struct tx_guard { /* user value 1: the database */
    bool open;
} tx_guard;

static mimic_db *self(lua_State *L) {
    db_box *box = mimicl_check(L, 1, MIMICL_DB);
    if (!box->db)
        mimicl_error(L, MIMIC_ESTATE, "the database is closed");
    return box->db;
}

static int db_open(lua_State *L) {
    mimicl *b = mimicl_self(L);
    const char *path = luaL_checkstring(L, 1);
    bool write = false;
    if (!lua_isnoneornil(L, 2)) {
        mimicl_options(L, 2, "m.db.open", "write");
        write = mimicl_boolean(L, 2, "write", false);
    }
    db_box *box = mimicl_new(L, MIMICL_DB, sizeof *box, 0);
    mimicl_ok(L, b, mimic_db_open(b->ctx, path, write, &box->db));
    if (!write) /* what is being written comes to its end */
        mimic_db_stop_when(box->db, &mimicl_stop_reading);
    return 1;
}

static int db_gc(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    db_box *box = lua_touserdata(L, 1);
    mimic_db *db = box->db;
    box->db = NULL;
    if (b->ctx)
        mimic_db_close(db);
    return 0;
}

static int db_close(lua_State *L) {
    mimicl *b = mimicl_self(L);
    db_box *box = mimicl_check(L, 1, MIMICL_DB);
    mimic_db *db = box->db;
    box->db = NULL;
    mimicl_ok(L, b, mimic_db_close(db));
    return 0;
}

/* --- values ------------------------------------------------------------------------- */

/* The value at arg; texts stay owned by the stack. */
static mimic_value bind_value(lua_State *L, int arg) {
    mimic_value v = {.kind = MIMIC_NULL};
    switch (lua_type(L, arg)) {
    case LUA_TNIL:
        break;
    case LUA_TBOOLEAN:
        v.kind = MIMIC_INT;
        v.i = lua_toboolean(L, arg);
        break;
    case LUA_TNUMBER:
        v.kind = lua_isinteger(L, arg) ? MIMIC_INT : MIMIC_REAL;
        v.i = lua_tointeger(L, arg);
        v.r = lua_tonumber(L, arg);
        break;
    case LUA_TSTRING:
        v.kind = MIMIC_TEXT;
        v.s = lua_tolstring(L, arg, &v.size);
        break;
    default:
        v.s = mimicl_test(L, arg, MIMICL_BLOB);
        if (!v.s)
            mimicl_error(L, MIMIC_EINVAL,
                         "value %d of the statement: nil, a boolean, number, string, "
                         "m.db.blob or m.db.hex expected, got %s",
                         arg - 2, luaL_typename(L, arg));
        v.kind = MIMIC_BLOB;
        v.size = lua_rawlen(L, arg);
    }
    return v;
}

static void push_value(lua_State *L, const mimic_value *v) {
    switch (v->kind) {
    case MIMIC_NULL:
        lua_pushnil(L);
        break;
    case MIMIC_INT:
        lua_pushinteger(L, v->i);
        break;
    case MIMIC_REAL:
        lua_pushnumber(L, v->r);
        break;
    default:
        lua_pushlstring(L, v->s, v->size);
    }
}

/* m.db.blob(bytes): binds as a BLOB */
static int db_blob(lua_State *L) {
    size_t size;
    const char *bytes = luaL_checklstring(L, 1, &size);
    memcpy(mimicl_new(L, MIMICL_BLOB, size, 0), bytes, size);
    return 1;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decodes n bytes of hex text; false for other characters. */
static bool decode_hex(const char *hex, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* m.db.hex(text): binds the decoded bytes; nil stays nil */
static int db_hex(lua_State *L) {
    size_t size;
    if (lua_isnoneornil(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    const char *hex = luaL_checklstring(L, 1, &size);
    uint8_t *out = mimicl_new(L, MIMICL_BLOB, size / 2, 0);
    if (size % 2 || !decode_hex(hex, size / 2, out))
        mimicl_error(L, MIMIC_EINVAL, "m.db.hex: \"%.80s\" is no hexadecimal text", hex);
    return 1;
}

/* --- statements --------------------------------------------------------------------- */

typedef struct query {
    lua_State *L;
    int rows; /* index of the list that takes them */
    int64_t n;
    bool first_only; /* stop after one row */
    bool by_place;   /* rows are lists: columns of one name stay apart */
    bool failed;     /* a Lua error value is on top */
    int columns;     /* the row now given */
    const char *const *names;
    const mimic_value *values;
} query;

/* (list, query): appends the row to the list; the names go to the list's place 0, once. */
static int add_row(lua_State *L) {
    query *q = lua_touserdata(L, 2);
    if (q->n == 0) {
        lua_createtable(L, q->columns, 0);
        for (int i = 0; i < q->columns; i++) {
            lua_pushstring(L, q->names[i]);
            lua_rawseti(L, -2, i + 1);
        }
        lua_rawseti(L, 1, 0);
    }
    lua_createtable(L, q->by_place ? q->columns : 0, q->by_place ? 0 : q->columns);
    for (int i = 0; i < q->columns; i++) {
        const mimic_value *v = &q->values[i];
        if (q->by_place && v->kind == MIMIC_BLOB)
            mimicl_push_hex(L, (const uint8_t *)v->s, v->size);
        else
            push_value(L, v);
        if (q->by_place)
            lua_rawseti(L, -2, i + 1);
        else
            lua_setfield(L, -2, q->names[i]);
    }
    lua_rawseti(L, 1, ++q->n);
    return 0;
}

static bool take_row(void *user, int columns, const char *const *names, const mimic_value *values) {
    query *q = user;
    q->columns = columns;
    q->names = names;
    q->values = values;
    lua_pushcfunction(q->L, add_row);
    lua_pushvalue(q->L, q->rows);
    lua_pushlightuserdata(q->L, q);
    q->failed = lua_pcall(q->L, 2, 0, 0) != LUA_OK;
    return !q->failed && !q->first_only;
}

/* What becomes of the rows of a statement. */
enum take { NO_ROWS, ALL_ROWS, FIRST_ROW, LISTS };

/* Runs (db, sql, values...); leaves the list of the rows taken on top. Returns their number. */
static int64_t run(lua_State *L, mimicl *b, enum take take) {
    mimic_db *db = self(L);
    const char *sql = luaL_checkstring(L, 2);
    int n = lua_gettop(L) - 2;
    mimic_value *values = mimicl_buffer(L, (size_t)n, sizeof *values);
    for (int i = 0; i < n; i++)
        values[i] = bind_value(L, i + 3);
    lua_newtable(L);
    luaL_checkstack(L, 20, "db");
    query q = {
        .L = L, .rows = lua_gettop(L), .first_only = take == FIRST_ROW, .by_place = take == LISTS};
    mimic_status status = mimic_db_exec(db, sql, values, n, take == NO_ROWS ? NULL : take_row, &q);
    if (q.failed)
        lua_error(L);
    mimicl_ok(L, b, status);
    return q.n;
}

static int db_exec(lua_State *L) {
    run(L, mimicl_self(L), NO_ROWS);
    lua_pushinteger(L, mimic_db_changes(self(L)));
    return 1;
}

static int rows_and_names(lua_State *L, enum take take) {
    run(L, mimicl_self(L), take);
    if (lua_rawgeti(L, -1, 0) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
    }
    lua_pushnil(L);
    lua_rawseti(L, -3, 0);
    return 2;
}

/* db:rows(sql, ...) -> list of {column = value}, list of column names ({} without rows) */
static int db_rows(lua_State *L) {
    return rows_and_names(L, ALL_ROWS);
}

/* db:lists(sql, ...) -> the same for a person: rows as lists of values (nil for NULL) in order of
 * the columns, BLOBs as hexadecimal text */
static int db_lists(lua_State *L) {
    return rows_and_names(L, LISTS);
}

static int db_first(lua_State *L) {
    if (run(L, mimicl_self(L), FIRST_ROW) == 0)
        return 0;
    lua_rawgeti(L, -1, 1);
    return 1;
}

static int each_next(lua_State *L) {
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2)) + 1;
    lua_pushinteger(L, i);
    lua_replace(L, lua_upvalueindex(2));
    lua_rawgeti(L, lua_upvalueindex(1), i);
    return 1;
}

/* db:each(sql, ...) -> iterator. The rows are read at once: the loop may write to the database. */
static int db_each(lua_State *L) {
    run(L, mimicl_self(L), ALL_ROWS);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, each_next, 2);
    return 1;
}

/* --- transactions ------------------------------------------------------------------- */

static int db_begin(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_db_begin(self(L), lua_toboolean(L, 2)));
    return 0;
}

static int db_commit(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_db_commit(self(L)));
    return 0;
}

static int db_rollback(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_db_rollback(self(L)));
    return 0;
}

/* An open transaction ends here when an error or an abandoned coroutine left it. */
static int tx_close(lua_State *L) {
    const mimicl *b = lua_touserdata(L, lua_upvalueindex(1));
    tx_guard *g = lua_touserdata(L, 1);
    lua_getiuservalue(L, 1, 1);
    db_box *box = lua_touserdata(L, -1);
    if (g->open && b->ctx && box && box->db)
        mimic_db_rollback(box->db);
    g->open = false;
    return 0;
}

/* The stack is [db, guard, results...]. */
static int tx_done(lua_State *L, int status, lua_KContext ctx) {
    mimicl *b = mimicl_self(L);
    tx_guard *g = lua_touserdata(L, 2);
    (void)status;
    (void)ctx;
    mimic_db *db = self(L);
    mimicl_ok(L, b, mimic_db_commit(db)); /* when it fails, the guard rolls back */
    g->open = false;
    lua_closeslot(L, 2);
    return lua_gettop(L) - 2;
}

/* db:tx(f [, durable]) -> results of f */
static int db_tx(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_db *db = self(L);
    bool durable = lua_toboolean(L, 3);
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    tx_guard *g = mimicl_new(L, MIMICL_TX, sizeof *g, 1);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    lua_insert(L, 2);
    mimicl_ok(L, b, mimic_db_begin(db, durable));
    g->open = true;
    lua_toclose(L, 2);
    lua_callk(L, 0, LUA_MULTRET, 0, tx_done);
    return tx_done(L, LUA_OK, 0);
}

/* --- metrics, blobs ----------------------------------------------------------------- */

static int db_log(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_db *db = self(L);
    mimicl_ok(L, b,
              mimic_db_log(db, luaL_checkinteger(L, 2), luaL_checkstring(L, 3),
                           luaL_checkinteger(L, 4), luaL_checknumber(L, 5)));
    return 0;
}

static int db_flush(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_db_flush(self(L)));
    return 0;
}

/* db:rewind(run, step): takes back a run's metrics after a step. */
static int db_rewind(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_db_rewind(self(L), luaL_checkinteger(L, 2), luaL_checkinteger(L, 3)));
    return 0;
}

static int db_copy(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimicl_ok(L, b, mimic_db_copy(self(L), luaL_checkstring(L, 2)));
    return 0;
}

/* db:hold(trial, token as 16 hex digits, ms) */
static int db_hold(lua_State *L) {
    mimicl *b = mimicl_self(L);
    size_t size;
    const char *hex = luaL_checklstring(L, 3, &size);
    uint8_t token[8];
    if (size != 16 || !decode_hex(hex, 8, token))
        mimicl_error(L, MIMIC_EINVAL, "db:hold: a token of 16 hexadecimal digits expected");
    mimicl_ok(L, b,
              mimic_db_hold(self(L), luaL_checkinteger(L, 2), token, luaL_checkinteger(L, 4)));
    return 0;
}

static int db_held(lua_State *L) {
    lua_pushboolean(L, mimic_db_held(self(L)));
    return 1;
}

static int db_let_go(lua_State *L) {
    lua_pushboolean(L, mimic_db_let_go(self(L)));
    return 1;
}

static int db_put_blob(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_db *db = self(L);
    size_t size;
    const char *bytes = luaL_checklstring(L, 2, &size);
    uint8_t sha[32];
    mimicl_ok(L, b, mimic_db_put_blob(db, bytes, size, sha));
    mimicl_push_hex(L, sha, sizeof sha);
    return 1;
}

/* db:get_blob(hash as hex or as 32 bytes) -> bytes */
static int db_get_blob(lua_State *L) {
    mimicl *b = mimicl_self(L);
    mimic_db *db = self(L);
    size_t size;
    const char *name = luaL_checklstring(L, 2, &size);
    uint8_t sha[32];
    if (size == 32)
        memcpy(sha, name, 32);
    else if (size != 64 || !decode_hex(name, 32, sha))
        mimicl_error(L, MIMIC_EINVAL, "db:get_blob: a SHA-256 expected, got \"%.80s\"", name);
    void **block = mimicl_malloced(L);
    mimicl_ok(L, b, mimic_db_get_blob(db, sha, block, &size));
    lua_pushlstring(L, *block, size);
    return 1;
}

static int db_last_id(lua_State *L) {
    lua_pushinteger(L, mimic_db_last_id(self(L)));
    return 1;
}

static int db_index(lua_State *L) {
    if (mimicl_method(L))
        return 1;
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "path") == 0)
        lua_pushstring(L, mimic_db_path(self(L)));
    else
        return mimicl_no_field(L, "path");
    return 1;
}

void mimicl_open_db(lua_State *L, int b) {
    static const luaL_Reg methods[] = {
        {"exec", db_exec},       {"rows", db_rows},         {"lists", db_lists},
        {"each", db_each},       {"first", db_first},       {"begin", db_begin},
        {"commit", db_commit},   {"rollback", db_rollback}, {"tx", db_tx},
        {"log", db_log},         {"flush", db_flush},       {"rewind", db_rewind},
        {"copy", db_copy},       {"hold", db_hold},         {"held", db_held},
        {"let_go", db_let_go},   {"put_blob", db_put_blob}, {"get_blob", db_get_blob},
        {"last_id", db_last_id}, {"close", db_close},       {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__index", db_index}, {"__gc", db_gc}, {"__close", db_gc}, {NULL, NULL}};
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg tx_meta[] = {{"__gc", tx_close}, {"__close", tx_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"open", db_open}, {"blob", db_blob}, {"hex", db_hex}, {NULL, NULL}};
    mimicl_class(L, b, MIMICL_DB, "mimic.db", methods, meta);
    mimicl_class(L, b, MIMICL_TX, "mimic.transaction", none, tx_meta);
    mimicl_class(L, b, MIMICL_BLOB, "mimic.blob", none, none);
    lua_newtable(L);
    mimicl_functions(L, b, functions);
    lua_setfield(L, -2, "db");
}

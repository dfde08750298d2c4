/* SQL statements of the caller: prepared, kept, bound, run under the lock when they write. A
 * message names the file, SQLite's reason and the place in the statement. */
#include <string.h>

#include "store/db_impl.h"

/* The statement on one line, at most 200 bytes of it. */
static void excerpt(const char *sql, char out[208]) {
    size_t n = 0;
    for (; *sql && n < 200; sql++) {
        bool space = strchr(" \t\r\n", *sql) != NULL;
        if (space && (n == 0 || out[n - 1] == ' '))
            continue;
        out[n++] = space ? ' ' : *sql;
    }
    if (*sql) { /* no half characters */
        while (n > 0 && ((uint8_t)out[n - 1] & 0xc0) == 0x80)
            n--;
        n -= n > 0 && (uint8_t)out[n - 1] >= 0xc0;
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    strcpy(out + n, *sql ? " ..." : "");
}

static mimic_status sql_error(mimic_db *db, const char *sql) {
    char reason[MIMIC_DB_TEXT], text[208], near[208];
    int at = sqlite3_error_offset(db->sql), code = sqlite3_errcode(db->sql) & 0xff;
    mimic_db_reason(db->sql, reason);
    excerpt(sql, text);
    if (code == SQLITE_AUTH)
        return mimic_fail(db->ctx, MIMIC_EINVAL,
                          "%s: transactions and this pragma are not for SQL text here (begin, "
                          "commit and rollback "
                          "are functions): %s",
                          db->path, text);
    if (code == SQLITE_READONLY && !db->write)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s is open for reading only: %s", db->path, text);
    mimic_status st = code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? MIMIC_EFORMAT : MIMIC_EDB;
    if (at < 0 || (size_t)at >= strlen(sql))
        return mimic_fail(db->ctx, st, "%s: %s: in %s", db->path, reason, text);
    excerpt(sql + at, near);
    return mimic_fail(db->ctx, st, "%s: %s: at \"%.40s\" in %s", db->path, reason, near, text);
}

/* True when nothing but spaces, semicolons and comments is left. */
static bool blank(const char *s) {
    while (*s) {
        if (strchr(" \t\r\n\f;", *s))
            s++;
        else if (s[0] == '-' && s[1] == '-')
            s += strcspn(s, "\n");
        else if (s[0] == '/' && s[1] == '*') {
            const char *end = strstr(s + 2, "*/");
            s = end ? end + 2 : s + strlen(s);
        } else
            return false;
    }
    return true;
}

/* A prepared statement: from the cache when the whole text is one statement, else made. slot is
 * NULL when the caller finalizes it. */
static mimic_status prepare(mimic_db *db, const char *sql, mimic_statement **slot,
                            sqlite3_stmt **stmt, const char **tail) {
    mimic_statement *oldest = NULL;
    *slot = NULL;
    *stmt = NULL;
    for (int i = 0; i < MIMIC_STATEMENTS; i++) {
        mimic_statement *s = &db->cache[i];
        if (s->busy)
            continue;
        if (s->sql && strcmp(s->sql, sql) == 0) {
            *slot = s;
            break;
        }
        if (!oldest || s->used < oldest->used)
            oldest = s;
    }
    if (!*slot) {
        if (sqlite3_prepare_v3(db->sql, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt, tail) !=
            SQLITE_OK)
            return sql_error(db, sql);
        char *copy = *stmt && oldest && blank(*tail) ? mimic_strdup(db->ctx, sql) : NULL;
        if (!copy)
            return MIMIC_OK;
        sqlite3_finalize(oldest->stmt);
        mimic_free(db->ctx, oldest->sql);
        *oldest = (mimic_statement){.sql = copy, .stmt = *stmt};
        *slot = oldest;
    }
    (*slot)->busy = true;
    (*slot)->used = ++db->tick;
    *stmt = (*slot)->stmt;
    *tail = sql + strlen(sql);
    return MIMIC_OK;
}

static int bind_value(sqlite3_stmt *stmt, int i, const mimic_value *v) {
    switch (v->kind) {
    case MIMIC_INT:
        return sqlite3_bind_int64(stmt, i, v->i);
    case MIMIC_REAL:
        return sqlite3_bind_double(stmt, i, v->r);
    case MIMIC_TEXT:
        return sqlite3_bind_text64(stmt, i, v->s ? v->s : "", v->size, SQLITE_STATIC, SQLITE_UTF8);
    case MIMIC_BLOB:
        return sqlite3_bind_blob64(stmt, i, v->s ? v->s : "", v->size, SQLITE_STATIC);
    case MIMIC_NULL:
        break;
    }
    return sqlite3_bind_null(stmt, i);
}

static void column_value(sqlite3_stmt *stmt, int i, mimic_value *v) {
    *v = (mimic_value){.kind = MIMIC_NULL};
    switch (sqlite3_column_type(stmt, i)) {
    case SQLITE_INTEGER:
        v->kind = MIMIC_INT;
        v->i = sqlite3_column_int64(stmt, i);
        v->r = (double)v->i;
        break;
    case SQLITE_FLOAT:
        v->kind = MIMIC_REAL;
        v->r = sqlite3_column_double(stmt, i);
        break;
    case SQLITE_TEXT:
        v->kind = MIMIC_TEXT;
        v->s = (const char *)sqlite3_column_text(stmt, i);
        v->size = (size_t)sqlite3_column_bytes(stmt, i);
        break;
    case SQLITE_BLOB:
        v->kind = MIMIC_BLOB;
        v->s = sqlite3_column_blob(stmt, i);
        v->size = (size_t)sqlite3_column_bytes(stmt, i);
        v->s = v->s ? v->s : "";
        break;
    default:
        break;
    }
}

/* Steps to the end, or until `row` has enough. */
static mimic_status run_rows(mimic_db *db, const char *sql, sqlite3_stmt *stmt, mimic_row_fn row,
                             void *user) {
    mimic_status st = MIMIC_OK;
    int n = row ? sqlite3_column_count(stmt) : 0, rc;
    const char **names = NULL;
    mimic_value *values = NULL;
    if (n > 0) {
        names = mimic_alloc(db->ctx, (size_t)n * sizeof *names);
        values = mimic_alloc(db->ctx, (size_t)n * sizeof *values);
        if (!names || !values) {
            st = MIMIC_ENOMEM;
            goto done;
        }
    }
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && n >= 0) {
        for (int i = 0; i < n; i++) {
            names[i] = sqlite3_column_name(stmt, i);
            column_value(stmt, i, &values[i]);
        }
        if (row && !row(user, n, names, values))
            goto done;
    }
    if (rc != SQLITE_DONE)
        st = sql_error(db, sql);
done:
    mimic_free(db->ctx, names);
    mimic_free(db->ctx, values);
    return st;
}

static mimic_status run_statement(mimic_db *db, const char *sql, sqlite3_stmt *stmt,
                                  const mimic_value *bind, int n_bind, mimic_row_fn row,
                                  void *user) {
    char err[MIMIC_DB_TEXT], text[208];
    bool writes = !sqlite3_stmt_readonly(stmt), locked = false;
    mimic_status st = MIMIC_OK;
    if (sqlite3_bind_parameter_count(stmt) != n_bind) {
        excerpt(sql, text);
        return mimic_fail(db->ctx, MIMIC_EINVAL,
                          "%s: the statement has %d parameters, %d values were given: %s", db->path,
                          sqlite3_bind_parameter_count(stmt), n_bind, text);
    }
    if (writes && !db->write) {
        excerpt(sql, text);
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s is open for reading only: %s", db->path, text);
    }
    if (db->in_tx && sqlite3_get_autocommit(db->sql))
        return mimic_fail(db->ctx, MIMIC_ESTATE,
                          "%s: an earlier error has rolled the transaction back", db->path);
    for (int i = 0; i < n_bind; i++)
        if (bind_value(stmt, i + 1, &bind[i]) != SQLITE_OK)
            return sql_error(db, sql);
    if (writes && !db->in_tx) {
        if (!mimic_lock_take(&db->lock, err))
            return mimic_fail(db->ctx, MIMIC_EDB, "%s: %s", db->path, err);
        locked = true;
    }
    st = run_rows(db, sql, stmt, row, user);
    sqlite3_reset(stmt); /* ends the statement's own transaction */
    if (locked)
        mimic_lock_give(&db->lock);
    return st;
}

/* SQLite calls this every 10,000 steps of its machine: a result other than 0 ends the statement. */
static int asked_to_stop(void *asked) {
    return *(const volatile sig_atomic_t *)asked;
}

void mimic_db_stop_when(mimic_db *db, const volatile sig_atomic_t *asked) {
    sqlite3_progress_handler(db->sql, 10000, asked_to_stop, (void *)(uintptr_t)asked);
}

mimic_status mimic_db_exec(mimic_db *db, const char *sql, const mimic_value *bind, int n_bind,
                           mimic_row_fn row, void *user) {
    bool own_tx = false;
    mimic_status st = MIMIC_OK;
    for (const char *at = sql, *tail; !st && !blank(at); at = tail) {
        mimic_statement *slot;
        sqlite3_stmt *stmt;
        if ((st = prepare(db, at, &slot, &stmt, &tail)))
            break;
        if (!blank(tail) && n_bind > 0)
            st = mimic_fail(db->ctx, MIMIC_EINVAL,
                            "%s: several statements cannot have bound values", db->path);
        else if (!blank(tail) && row) {
            char next[208];
            excerpt(tail, next);
            st = mimic_fail(db->ctx, MIMIC_EINVAL,
                            "%s: rows come from one statement, and here a second one begins: %.60s",
                            db->path, next);
        } else if (!blank(tail) && db->write && !db->in_tx) {
            st = mimic_db_begin(db, false); /* all or none */
            own_tx = st == MIMIC_OK;
        }
        if (!st && stmt)
            st = run_statement(db, at, stmt, bind, n_bind, row, user);
        if (slot) {
            sqlite3_reset(stmt);
            sqlite3_clear_bindings(stmt);
            slot->busy = false;
        } else
            sqlite3_finalize(stmt);
    }
    if (own_tx && st)
        mimic_db_rollback(db);
    else if (own_tx)
        st = mimic_db_commit(db);
    return st;
}

/* The results database for its caller: life, transactions. Every write happens under the file lock.
 */
#include <stdio.h>
#include <string.h>

#include "store/db_impl.h"

/* Transactions belong to mimic_db_begin (they need the file lock), and these settings to
 * mimic_db_open. */
static int authorize(void *user, int action, const char *a, const char *b, const char *c,
                     const char *d) {
    static const char *const ours[] = {"journal_mode",   "locking_mode",   "synchronous",
                                       "application_id", "user_version",   "writable_schema",
                                       "query_only",     "wal_checkpoint", "journal_size_limit"};
    (void)c;
    (void)d;
    if (((const mimic_db *)user)->internal)
        return SQLITE_OK;
    if (action == SQLITE_TRANSACTION || action == SQLITE_SAVEPOINT)
        return SQLITE_DENY;
    if (action == SQLITE_PRAGMA && (b || strcmp(a, "wal_checkpoint") == 0))
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            if (sqlite3_stricmp(a, ours[i]) == 0)
                return SQLITE_DENY;
    return SQLITE_OK;
}

mimic_status mimic_db_open(mimic_ctx *ctx, const char *path, bool write, mimic_db **out) {
    mimic_status st = MIMIC_ENOMEM;
    *out = NULL;
    if (path[0] == 0)
        return mimic_fail(ctx, MIMIC_EINVAL, "a results file needs a name");
    mimic_db *db = mimic_calloc(ctx, sizeof *db);
    if (!db)
        return st;
    db->ctx = ctx;
    db->write = write;
    db->lock.fd = -1;
    size_t size = strlen(path) + 6;
    if (!(db->path = mimic_strdup(ctx, path)) || !(db->lock_path = mimic_alloc(ctx, size)))
        goto done;
    snprintf(db->lock_path, size, "%s.lock", path);
    if ((st = mimic_db_open_file(db)))
        goto done;
    sqlite3_set_authorizer(db->sql, authorize, db);
    *out = db;
    db = NULL;
done:
    if (db)
        mimic_db_close(db);
    return st;
}

mimic_status mimic_db_close(mimic_db *db) {
    if (!db)
        return MIMIC_OK;
    mimic_ctx *ctx = db->ctx;
    if (db->in_tx)
        mimic_db_rollback(db);
    mimic_status st = mimic_writer_close(db);
    for (int i = 0; i < MIMIC_STATEMENTS; i++) {
        sqlite3_finalize(db->cache[i].stmt);
        mimic_free(ctx, db->cache[i].sql);
    }
    /* The last connection checkpoints when it closes: under the lock, if it can be had. */
    char err[MIMIC_DB_TEXT];
    bool locked = db->sql && db->write && mimic_lock_take(&db->lock, err);
    if (db->sql && db->write && !locked)
        sqlite3_db_config(db->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(db->sql);
    if (locked)
        mimic_lock_give(&db->lock);
    mimic_lock_close(&db->lock);
    mimic_free(ctx, db->path);
    mimic_free(ctx, db->lock_path);
    mimic_free(ctx, db);
    return st;
}

const char *mimic_db_path(const mimic_db *db) {
    return db->path;
}

int64_t mimic_db_changes(const mimic_db *db) {
    return sqlite3_changes64(db->sql);
}

int64_t mimic_db_last_id(const mimic_db *db) {
    return sqlite3_last_insert_rowid(db->sql);
}

/* Runs our own statement on the caller's connection. */
static mimic_status internal(mimic_db *db, const char *text) {
    char err[MIMIC_DB_TEXT];
    db->internal = true;
    bool ok = mimic_db_run(db->sql, text, err);
    db->internal = false;
    return ok ? MIMIC_OK : mimic_fail(db->ctx, MIMIC_EDB, "%s: %s", db->path, err);
}

mimic_status mimic_db_begin(mimic_db *db, bool durable) {
    char err[MIMIC_DB_TEXT];
    if (!db->write)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s is open for reading only", db->path);
    if (db->in_tx)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s: a transaction is already open", db->path);
    if (!mimic_lock_take(&db->lock, err))
        return mimic_fail(db->ctx, MIMIC_EDB, "%s: %s", db->path, err);
    mimic_status st =
        internal(db, durable ? "PRAGMA synchronous = FULL; BEGIN IMMEDIATE" : "BEGIN IMMEDIATE");
    db->durable = durable;
    if (st) {
        if (durable)
            sqlite3_exec(db->sql, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
        mimic_lock_give(&db->lock);
        return st;
    }
    db->in_tx = true;
    return MIMIC_OK;
}

/* Ends the transaction in any case; what SQL did before decides whether it is committed. */
static void finish(mimic_db *db) {
    db->internal = true;
    if (!sqlite3_get_autocommit(db->sql))
        sqlite3_exec(db->sql, "ROLLBACK", NULL, NULL, NULL);
    if (db->durable)
        sqlite3_exec(db->sql, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    db->internal = false;
    db->in_tx = false;
    mimic_lock_give(&db->lock);
}

mimic_status mimic_db_commit(mimic_db *db) {
    if (!db->in_tx)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s: no transaction is open", db->path);
    mimic_status st =
        sqlite3_get_autocommit(db->sql)
            ? mimic_fail(db->ctx, MIMIC_ESTATE,
                         "%s: an earlier error has rolled the transaction back", db->path)
            : internal(db, "COMMIT");
    finish(db);
    return st;
}

mimic_status mimic_db_rollback(mimic_db *db) {
    if (!db->in_tx)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s: no transaction is open", db->path);
    finish(db);
    return MIMIC_OK;
}

mimic_status mimic_db_copy(mimic_db *db, const char *path) {
    mimic_status st = mimic_db_flush(db);
    if (st)
        return st;
    char *text = sqlite3_mprintf("VACUUM INTO %Q", path);
    if (!text)
        return MIMIC_ENOMEM;
    st = internal(db, text);
    sqlite3_free(text);
    return st;
}

mimic_status mimic_db_rewind(mimic_db *db, int64_t run, int64_t step) {
    const char *const steps[] = {
        "DELETE FROM metric WHERE series IN (SELECT id FROM series WHERE run = ?1) AND step > ?2",
        mimic_series_redo_sql};
    const mimic_value bind[][2] = {{{.kind = MIMIC_INT, .i = run}, {.kind = MIMIC_INT, .i = step}},
                                   {{.kind = MIMIC_INT, .i = run}, {.kind = MIMIC_NULL}}};
    mimic_status st = mimic_db_flush(db);
    if (st || (st = mimic_db_begin(db, true)))
        return st;
    for (int i = 0; i < 2 && !st; i++)
        st = mimic_db_exec(db, steps[i], bind[i], 2, NULL, NULL);
    if (st)
        mimic_db_rollback(db);
    else
        st = mimic_db_commit(db);
    return st;
}

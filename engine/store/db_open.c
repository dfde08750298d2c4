/* Opening a results file: whose file it is, which version, whether WAL can work where it lies. What
 * is not ours is never touched. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/db_impl.h"

void mimic_db_reason(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    int code = sqlite3_extended_errcode(sql), sys = sqlite3_system_errno(sql);
    int basic = code & 0xff;
    bool use_sys =
        sys != 0 && (basic == SQLITE_IOERR || basic == SQLITE_CANTOPEN || basic == SQLITE_FULL);
    if (basic == SQLITE_BUSY)
        snprintf(err, MIMIC_DB_TEXT,
                 "locked for 10 s by a program that does not use the lock file");
    else
        snprintf(err, MIMIC_DB_TEXT, "%s%s%s%s", sqlite3_errmsg(sql), use_sys ? " (" : "",
                 use_sys ? strerror(sys) : "", use_sys ? ")" : "");
}

bool mimic_db_run(sqlite3 *sql, const char *text, char err[MIMIC_DB_TEXT]) {
    if (sqlite3_exec(sql, text, NULL, NULL, NULL) == SQLITE_OK)
        return true;
    mimic_db_reason(sql, err);
    return false;
}

bool mimic_db_pragma_int(sqlite3 *sql, const char *pragma, int64_t *out, char err[MIMIC_DB_TEXT]) {
    sqlite3_stmt *s = NULL;
    bool ok =
        sqlite3_prepare_v2(sql, pragma, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
    if (ok)
        *out = sqlite3_column_int64(s, 0);
    else
        mimic_db_reason(sql, err);
    sqlite3_finalize(s);
    return ok;
}

static bool migrate_one(sqlite3 *sql, mimic_db_step step, int version, char err[MIMIC_DB_TEXT]) {
    char text[64];
    if (!mimic_db_run(sql, "BEGIN EXCLUSIVE", err))
        return false;
    snprintf(text, sizeof text, "PRAGMA user_version = %d; COMMIT", version);
    if (step(sql, err) && mimic_db_run(sql, text, err))
        return true;
    sqlite3_exec(sql, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

bool mimic_db_migrate(sqlite3 *sql, const char *path, const mimic_db_step *steps, int n,
                      char err[MIMIC_DB_TEXT]) {
    int64_t version, tables;
    if (!mimic_db_pragma_int(sql, "PRAGMA user_version", &version, err) ||
        !mimic_db_pragma_int(sql, "SELECT count(*) FROM sqlite_schema", &tables, err))
        return false;
    if (version >= n)
        return true;
    if (tables > 0) {
        char *copy = sqlite3_mprintf("%s.v%d.bak", path, (int)version);
        char *text = copy ? sqlite3_mprintf("VACUUM INTO %Q", copy) : NULL;
        if (copy)
            unlink(copy); /* of a migration that did not come to its end */
        bool ok = text && mimic_db_run(sql, text, err);
        sqlite3_free(text);
        sqlite3_free(copy);
        if (!ok)
            return false;
    }
    for (; version < n; version++)
        if (!migrate_one(sql, steps[version], (int)version + 1, err))
            return false;
    return true;
}

/* A new file: tables, views, the paper's numbers, at the newest version. */
static bool create(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    if (!mimic_db_run(sql, "BEGIN EXCLUSIVE", err))
        return false;
    if (mimic_db_run(sql, mimic_schema_sql, err) && mimic_db_run(sql, mimic_paper_sql, err) &&
        mimic_db_run(sql, "COMMIT", err))
        return true;
    sqlite3_exec(sql, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

/* Views hold no data: the last step of a migration makes them anew from the end of schema.sql. */
static bool renew_views(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    sqlite3_stmt *s = NULL;
    bool ok = true;
    while (ok) {
        ok = sqlite3_prepare_v2(sql, "SELECT name FROM sqlite_schema WHERE type = 'view' LIMIT 1",
                                -1, &s, NULL) == SQLITE_OK;
        int row = ok ? sqlite3_step(s) : SQLITE_ERROR;
        char *text = row == SQLITE_ROW
                         ? sqlite3_mprintf("DROP VIEW \"%w\"", sqlite3_column_text(s, 0))
                         : NULL;
        sqlite3_finalize(s);
        if (!text)
            break;
        ok = mimic_db_run(sql, text, err);
        sqlite3_free(text);
    }
    return ok && mimic_db_run(sql, strstr(mimic_schema_sql, "\nCREATE VIEW"), err);
}

static bool from_0(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    (void)sql;
    snprintf(err, MIMIC_DB_TEXT, "has tables but no version: not a whole results file");
    return false;
}

static bool from_1(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    static const char text[] =
        "ALTER TABLE paper ADD COLUMN pos INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE paper ADD COLUMN mark TEXT NOT NULL DEFAULT 'printed'"
        " CHECK(mark IN ('printed', 'inferred', 'quoted'));"
        "ALTER TABLE paper ADD COLUMN note TEXT NOT NULL DEFAULT '';"
        "CREATE TABLE paper_table( -- The tables and figures of the paper: `mimic table REF`\n"
        "  ref TEXT PRIMARY KEY, title TEXT NOT NULL, base TEXT, note TEXT NOT NULL DEFAULT ''\n"
        ") STRICT, WITHOUT ROWID;";
    return mimic_db_run(sql, text, err) && mimic_db_run(sql, mimic_paper_sql, err) &&
           renew_views(sql, err);
}

/* What the queue of sweeps records. */
static bool from_2(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    static const char text[] = "ALTER TABLE sweep ADD COLUMN spec TEXT;"
                               "ALTER TABLE trial ADD COLUMN finished TEXT;"
                               "ALTER TABLE trial ADD COLUMN rungs TEXT;"
                               "ALTER TABLE trial ADD COLUMN error TEXT;";
    return mimic_db_run(sql, text, err) && renew_views(sql, err);
}

/* Views alone: the best point of a sweep is a mean over seeds (4), a row of the paper is one
 * configuration (5). */
static bool views_alone(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    return renew_views(sql, err);
}

/* steps[v] brings version v to v + 1. The next version: a changed schema.sql, a step here, a dump
 * of the version before it in tests/c/schema. */
static const mimic_db_step steps[] = {from_0, from_1, from_2, views_alone, views_alone};
enum { VERSION = sizeof steps / sizeof *steps };

static bool common_settings(sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    sqlite3_extended_result_codes(sql, 1);
    sqlite3_busy_timeout(sql, 10000);
    sqlite3_db_config(sql, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return mimic_db_run(sql, "PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON", err);
}

static bool opened(int rc, sqlite3 *sql, char err[MIMIC_DB_TEXT]) {
    if (rc == SQLITE_OK)
        return common_settings(sql, err);
    if (sql)
        mimic_db_reason(sql, err);
    else
        snprintf(err, MIMIC_DB_TEXT, "out of memory");
    return false;
}

static bool connect_plain(const char *path, int flags, sqlite3 **sql, char err[MIMIC_DB_TEXT]) {
    /* "./" keeps ":memory:" and "file:..." plain names */
    char *name = sqlite3_mprintf("%s%s", path[0] == '/' ? "" : "./", path);
    flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
    int rc = name ? sqlite3_open_v2(name, sql, flags, NULL) : SQLITE_NOMEM;
    sqlite3_free(name);
    return opened(rc, *sql, err);
}

bool mimic_db_connect(const char *path, bool create, sqlite3 **sql, char err[MIMIC_DB_TEXT]) {
    return connect_plain(path, create ? SQLITE_OPEN_CREATE : 0, sql, err) &&
           mimic_db_run(*sql, "PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 67108864",
                        err);
}

/* mode=ro; `immutable` for media where SQLite can make neither -shm nor -wal. */
static bool connect_read(const char *path, bool immutable, sqlite3 **sql, char err[MIMIC_DB_TEXT]) {
    static const char digit[] = "0123456789abcdef";
    char *uri = sqlite3_malloc64(3 * strlen(path) + 40), *o = uri;
    int rc = SQLITE_NOMEM;
    if (uri) {
        o += sprintf(o, path[0] == '/' ? "file://" : "file:./");
        for (const uint8_t *p = (const uint8_t *)path; *p; p++) {
            if (*p > 32 && *p < 127 && !strchr("%?#:", *p))
                *o++ = (char)*p;
            else {
                *o++ = '%';
                *o++ = digit[*p >> 4];
                *o++ = digit[*p & 15];
            }
        }
        strcpy(o, immutable ? "?mode=ro&immutable=1" : "?mode=ro");
        rc = sqlite3_open_v2(uri, sql, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                             NULL);
    }
    sqlite3_free(uri);
    return opened(rc, *sql, err) && mimic_db_run(*sql, "PRAGMA query_only = ON", err);
}

/* On a full disk SQLite cannot make -shm. With what waits in a -wal file the file is read by
 * itself: the index of the log lies in memory then, which needs that no other process has the file
 * open (one that had would have made -shm). Nothing is written, also not at the end. */
static bool connect_alone(const char *path, sqlite3 **sql, char err[MIMIC_DB_TEXT]) {
    if (!connect_plain(path, 0, sql, err))
        return false;
    sqlite3_db_config(*sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return mimic_db_run(
        *sql, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON; PRAGMA temp_store = MEMORY",
        err);
}

static int basic_code(const mimic_db *db) {
    return db->sql ? sqlite3_errcode(db->sql) & 0xff : SQLITE_NOMEM;
}

static mimic_status fail(mimic_db *db, const char *err) {
    int code = basic_code(db);
    if (code == SQLITE_NOTADB)
        return mimic_fail(db->ctx, MIMIC_EFORMAT, "%s: is not a SQLite database", db->path);
    return mimic_fail(db->ctx, code == SQLITE_CORRUPT ? MIMIC_EFORMAT : MIMIC_EDB, "%s: %s",
                      db->path, err);
}

/* Ours, empty (*empty), or refused. */
static mimic_status check_identity(mimic_db *db, bool *empty) {
    char err[MIMIC_DB_TEXT];
    int64_t application, version, tables;
    if (!mimic_db_pragma_int(db->sql, "PRAGMA application_id", &application, err) ||
        !mimic_db_pragma_int(db->sql, "PRAGMA user_version", &version, err) ||
        !mimic_db_pragma_int(db->sql, "SELECT count(*) FROM sqlite_schema", &tables, err))
        return fail(db, err);
    *empty = application == 0 && version == 0 && tables == 0;
    if (*empty || application == MIMIC_DB_APPLICATION) {
        db->newer = version > VERSION;
        return MIMIC_OK;
    }
    return mimic_fail(
        db->ctx, MIMIC_EFORMAT,
        "%s: is a SQLite database of another program (application_id 0x%08x), not a results "
        "file; it was not touched",
        db->path, (unsigned)application);
}

static mimic_status open_read(mimic_db *db) {
    char err[MIMIC_DB_TEXT], wal[4096];
    struct stat s;
    struct statfs fs;
    if (stat(db->path, &s))
        return mimic_fail(db->ctx, MIMIC_EIO, "%s: cannot open: %s", db->path, strerror(errno));
    const char *network =
        statfs(db->path, &fs) == 0 ? mimic_network_fs((unsigned long)fs.f_type) : NULL;
    snprintf(wal, sizeof wal, "%s-wal", db->path);
    bool pending = stat(wal, &s) == 0 && s.st_size > 0;
    if (network && pending)
        return mimic_fail(
            db->ctx, MIMIC_EUNSUPPORTED,
            "%s: is in use on a network file system (%s), where it cannot be read reliably; read "
            "it on the machine that writes it, or copy it by `sqlite3 FILE \"VACUUM INTO "
            "'copy.db'\"` there",
            db->path, network);
    bool empty = false;
    mimic_status st = MIMIC_OK;
    if (!connect_read(db->path, network != NULL, &db->sql, err))
        return fail(db, err);
    st = check_identity(db, &empty);
    int sys = st ? sqlite3_system_errno(db->sql) : 0;
    if (st && (sys == ENOSPC || sys == EDQUOT)) {
        sqlite3_close(db->sql);
        db->sql = NULL;
        if (!(pending ? connect_alone(db->path, &db->sql, err)
                      : connect_read(db->path, true, &db->sql, err)))
            return fail(db, err);
        st = check_identity(db, &empty);
    } else if (st && (basic_code(db) == SQLITE_CANTOPEN || basic_code(db) == SQLITE_READONLY)) {
        /* a folder that cannot be written: fine as long as nothing waits in a -wal file */
        if (pending)
            return mimic_fail(db->ctx, MIMIC_EIO,
                              "%s: lies in a folder that cannot be written, with unfinished data "
                              "in %s; copy both "
                              "files elsewhere and open the copy",
                              db->path, wal);
        sqlite3_close(db->sql);
        if (!connect_read(db->path, true, &db->sql, err))
            return fail(db, err);
        st = check_identity(db, &empty);
    }
    if (!st && empty)
        st = mimic_fail(db->ctx, MIMIC_EFORMAT, "%s: is empty, not a results file", db->path);
    if (!st && db->newer)
        mimic_log(db->ctx, 2, "%s was written by a newer mimic; it is open for reading", db->path);
    return st;
}

static mimic_status check_writable_place(mimic_db *db) {
    struct statfs fs;
    struct stat s;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", db->path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    const char *network =
        statfs(slash ? folder : ".", &fs) == 0 ? mimic_network_fs((unsigned long)fs.f_type) : NULL;
    if (network)
        return mimic_fail(
            db->ctx, MIMIC_EUNSUPPORTED,
            "%s: lies on a network file system (%s), where a write-ahead log loses data; keep the "
            "results file on a local disk (one per machine, joined by `mimic merge`)",
            db->path, network);
    bool exists = stat(db->path, &s) == 0;
    int error = exists && access(db->path, W_OK) ? errno : 0;
    if (!error)
        error = mimic_lock_open(&db->lock, db->lock_path);
    if (error)
        return mimic_fail(db->ctx, MIMIC_EIO, "%s: cannot be opened for writing: %s%s", db->path,
                          strerror(error),
                          error == ENOENT ? " (its folder is missing)"
                          : exists        ? "; it can be opened for reading"
                                          : "");
    return MIMIC_OK;
}

static bool set_wal(sqlite3 *sql, bool *set, char err[MIMIC_DB_TEXT]) {
    sqlite3_stmt *s = NULL;
    bool ok = sqlite3_prepare_v2(sql, "PRAGMA journal_mode = WAL", -1, &s, NULL) == SQLITE_OK &&
              sqlite3_step(s) == SQLITE_ROW;
    if (ok)
        *set = strcmp((const char *)sqlite3_column_text(s, 0), "wal") == 0;
    else
        mimic_db_reason(sql, err);
    sqlite3_finalize(s);
    return ok;
}

static mimic_status open_write(mimic_db *db) {
    char err[MIMIC_DB_TEXT];
    bool empty = false;
    mimic_status st = check_writable_place(db);
    if (st)
        return st;
    if (!mimic_lock_take(&db->lock, err))
        return mimic_fail(db->ctx, MIMIC_EDB, "%s: %s", db->path, err);
    if (!mimic_db_connect(db->path, true, &db->sql, err)) {
        st = fail(db, err);
        goto done;
    }
    if ((st = check_identity(db, &empty)))
        goto done;
    if (db->newer) {
        st = mimic_fail(
            db->ctx, MIMIC_EUNSUPPORTED,
            "%s: was written by a newer mimic (this one knows version %d); it can be read, not "
            "written",
            db->path, VERSION);
        goto done;
    }
    bool wal = false;
    if (!set_wal(db->sql, &wal, err) ||
        !(empty ? create(db->sql, err) : mimic_db_migrate(db->sql, db->path, steps, VERSION, err)))
        st = fail(db, err);
    else if (!wal)
        st = mimic_fail(db->ctx, MIMIC_EUNSUPPORTED, "%s: SQLite cannot use a write-ahead log here",
                        db->path);
done:
    mimic_lock_give(&db->lock);
    return st;
}

mimic_status mimic_db_open_file(mimic_db *db) {
    return db->write ? open_write(db) : open_read(db);
}

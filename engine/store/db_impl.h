/* Inside of the results database. Two connections of a process may write: that of the caller and
 * that of the writer thread; every write transaction of either is made under the file lock. */
#ifndef MIMIC_DB_IMPL_H
#define MIMIC_DB_IMPL_H

#include <pthread.h>
#include <sqlite3.h>

#include "store/store_impl.h"

#define MIMIC_DB_APPLICATION 0x4d494d43 /* "MIMC" */
#define MIMIC_DB_TEXT 480               /* longest message of SQL code, with its end */

extern const char mimic_schema_sql[]; /* results/schema.sql */
extern const char mimic_paper_sql[];  /* results/paper.sql */

/* --- lock file
 * ------------------------------------------------------------------------------------- */

/* NAME.db.lock. Its flock is held around every write transaction, the automatic checkpoint at its
 * end included: SQLite before 3.51.3 may corrupt a file when several connections write and
 * checkpoint at once (sqlite.org/wal.html#walresetbug). Waiting is fair: byte 0 of the file is a
 * turnstile that the next in turn holds. One fd per connection; depth counts nested holders of one
 * connection. */
typedef struct mimic_lock {
    int fd;
    int depth;
    int patience_ms;
} mimic_lock;

int mimic_lock_open(mimic_lock *l, const char *lock_path); /* 0 or errno */
/* Waits as long as its patience, 10 s. False: err says who holds it. */
bool mimic_lock_take(mimic_lock *l, char err[MIMIC_DB_TEXT]);
void mimic_lock_give(mimic_lock *l);
void mimic_lock_close(mimic_lock *l);
/* Name of a network file system, NULL if f_type (statfs) is none: WAL needs shared memory and true
 * locks. */
const char *mimic_network_fs(unsigned long f_type);

/* --- database
 * -------------------------------------------------------------------------------------- */

typedef struct mimic_statement { /* kept prepared by its text */
    char *sql;
    sqlite3_stmt *stmt;
    bool busy;
    uint32_t used;
} mimic_statement;

enum { MIMIC_STATEMENTS = 24 };

typedef struct mimic_writer mimic_writer;

struct mimic_db {
    mimic_ctx *ctx;
    char *path, *lock_path;
    sqlite3 *sql;
    bool write, newer; /* newer: made by a later version, open for reading */
    bool internal;     /* BEGIN, COMMIT and pragmas are ours now: the authorizer lets them pass */
    bool durable;      /* the open transaction */
    _Atomic bool in_tx;
    mimic_lock lock;
    mimic_statement cache[MIMIC_STATEMENTS];
    uint32_t tick;
    mimic_writer *writer; /* made by the first mimic_db_log */
};

typedef bool (*mimic_db_step)(sqlite3 *sql, char err[MIMIC_DB_TEXT]);

/* Brings the file from version 0 to version n by steps[0..n-1], each in its own exclusive
 * transaction that also sets user_version. A file with content is copied to PATH.vOLD.bak before.
 * The lock is held. */
bool mimic_db_migrate(sqlite3 *sql, const char *path, const mimic_db_step *steps, int n,
                      char err[MIMIC_DB_TEXT]);
/* Opens a connection that writes, with the pragmas all of them need. Closing *sql is the caller's
 * also after a failure. */
bool mimic_db_connect(const char *path, bool create, sqlite3 **sql, char err[MIMIC_DB_TEXT]);
/* Runs statements without results. */
bool mimic_db_run(sqlite3 *sql, const char *text, char err[MIMIC_DB_TEXT]);
/* SQLite's message for the last failure, with the system's reason where it has one. */
void mimic_db_reason(sqlite3 *sql, char err[MIMIC_DB_TEXT]);
bool mimic_db_pragma_int(sqlite3 *sql, const char *pragma, int64_t *out, char err[MIMIC_DB_TEXT]);
mimic_status mimic_db_open_file(mimic_db *db); /* checks, connects, migrates */

/* --- writer thread
 * --------------------------------------------------------------------------------- */

typedef struct mimic_series { /* one (run, name) of this process */
    int64_t run;
    char *name;
    uint64_t hash;
    uint32_t index;
    struct mimic_series *next; /* in its hash bucket */
} mimic_series;

typedef struct mimic_row {
    const mimic_series *series;
    int64_t step, t;
    double value;
    uint32_t order; /* in its batch: the later one of a step counts */
} mimic_row;

typedef struct mimic_rows { /* the SQL side of the writer: connection and statements */
    sqlite3 *sql;
    mimic_lock lock;
    sqlite3_stmt *find, *make, *insert, *replace, *summary, *redo, *renew, *seen;
} mimic_rows;

typedef struct mimic_outcome { /* how writing some rows went */
    bool locked_out;           /* the lock was not free within its time */
    int64_t lost, lost_run;    /* rows of runs that do not exist any more; one of these */
} mimic_outcome;

bool mimic_rows_open(mimic_rows *w, const char *path, const char *lock_path,
                     char err[MIMIC_DB_TEXT]);
void mimic_rows_close(mimic_rows *w);
/* Writes the rows (sorting them) in one transaction, with the summaries of their series. False:
 * nothing of them is in the file. */
bool mimic_rows_write(mimic_rows *w, mimic_row *rows, int n, mimic_outcome *batch,
                      char err[MIMIC_DB_TEXT]);
/* Sets the lease of a trial that still has the token; *held: it has. */
bool mimic_rows_renew(mimic_rows *w, int64_t trial, const uint8_t token[8], int64_t lease,
                      int64_t now, bool *held, char err[MIMIC_DB_TEXT]);
/* Computes summaries from the points: of the series ?2, or all (NULL), of run ?1. */
extern const char mimic_series_redo_sql[];

mimic_status mimic_writer_close(mimic_db *db); /* flushes, ends the thread */

#endif

/* Batches of metric rows as SQL: points and series summaries change together or not at all. */
#include <math.h>
#include <stdlib.h>

#include "store/db_impl.h"

const char mimic_series_redo_sql[] =
    "WITH s AS (SELECT s.id, count(m.step) AS n, count(m.step) - count(m.value) AS bad_n,"
    " min(m.step) FILTER (WHERE m.value IS NULL) AS bad_step, max(m.step) AS last_step,"
    " min(m.value) AS lo, max(m.value) AS hi"
    " FROM series s LEFT JOIN metric m ON m.series = s.id"
    " WHERE s.run = ?1 AND (?2 IS NULL OR s.id = ?2) GROUP BY s.id) "
    "UPDATE series SET n = s.n, bad_n = s.bad_n, bad_step = s.bad_step, last_step = s.last_step,"
    " lo = s.lo, hi = s.hi,"
    " last = (SELECT value FROM metric m WHERE m.series = s.id AND m.step = s.last_step),"
    " lo_step = (SELECT min(step) FROM metric m WHERE m.series = s.id AND m.value = s.lo),"
    " hi_step = (SELECT min(step) FROM metric m WHERE m.series = s.id AND m.value = s.hi)"
    " FROM s WHERE series.id = s.id";

typedef struct summary { /* the columns of a series row; a NaN is NULL, a step counts with its value
                          */
    int64_t id, n, last_step, lo_step, hi_step, bad_n, bad_step;
    double last, lo, hi;
} summary;

bool mimic_rows_open(mimic_rows *w, const char *path, const char *lock_path,
                     char err[MIMIC_DB_TEXT]) {
    static const char *const text[] = {
        "SELECT id, n, last_step, lo_step, hi_step, bad_n, bad_step, last, lo, hi FROM series "
        "WHERE run = ?1 AND name = ?2",
        "INSERT INTO series(run, name) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM run WHERE id = "
        "?1) "
        "RETURNING id",
        "INSERT INTO metric(series, step, t, value) VALUES(?1, ?2, ?3, ?4) "
        "ON CONFLICT(series, step) DO NOTHING",
        "UPDATE metric SET t = ?3, value = ?4 WHERE series = ?1 AND step = ?2",
        "UPDATE series SET n = ?2, last_step = ?3, lo_step = ?4, hi_step = ?5, bad_n = ?6, "
        "bad_step = ?7, "
        "last = ?8, lo = ?9, hi = ?10 WHERE id = ?1",
        mimic_series_redo_sql,
        "UPDATE trial SET lease = ?3 WHERE id = ?1 AND token = ?2 AND state = 'running'",
        "UPDATE worker SET seen = ?2 WHERE id = (SELECT worker FROM trial WHERE id = ?1)"};
    *w = (mimic_rows){0};
    sqlite3_stmt **stmt[] = {&w->find,    &w->make, &w->insert, &w->replace,
                             &w->summary, &w->redo, &w->renew,  &w->seen};
    if (mimic_lock_open(&w->lock, lock_path)) {
        sqlite3_snprintf(MIMIC_DB_TEXT, err, "cannot open %s", lock_path);
        return false;
    }
    bool ok = mimic_db_connect(path, false, &w->sql, err);
    for (int i = 0; ok && i < 8; i++)
        if (sqlite3_prepare_v3(w->sql, text[i], -1, SQLITE_PREPARE_PERSISTENT, stmt[i], NULL) !=
            SQLITE_OK) {
            mimic_db_reason(w->sql, err);
            ok = false;
        }
    if (!ok)
        mimic_rows_close(w);
    return ok;
}

void mimic_rows_close(mimic_rows *w) {
    sqlite3_stmt *stmt[] = {w->find,    w->make, w->insert, w->replace,
                            w->summary, w->redo, w->renew,  w->seen};
    for (int i = 0; i < 8; i++)
        sqlite3_finalize(stmt[i]);
    if (w->sql) /* the caller's connection checkpoints when it closes */
        sqlite3_db_config(w->sql, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(w->sql);
    w->sql = NULL;
    mimic_lock_close(&w->lock);
}

static int compare_rows(const void *a, const void *b) {
    const mimic_row *x = a, *y = b;
    if (x->series != y->series)
        return x->series->index < y->series->index ? -1 : 1;
    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* Steps once and resets; SQLITE_ROW or SQLITE_DONE are good. */
static bool step(sqlite3_stmt *s) {
    int rc = sqlite3_step(s);
    sqlite3_reset(s);
    return rc == SQLITE_ROW || rc == SQLITE_DONE;
}

static double column_or_nan(sqlite3_stmt *s, int i) {
    return sqlite3_column_type(s, i) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(s, i);
}

/* The series' row, made if need be; *found false: its run is gone. */
static bool load(mimic_rows *w, const mimic_series *series, summary *s, bool *found) {
    sqlite3_stmt *q = w->find;
    sqlite3_bind_int64(q, 1, series->run);
    sqlite3_bind_text(q, 2, series->name, -1, SQLITE_STATIC);
    int rc = sqlite3_step(q);
    *s = (summary){.last = (double)NAN, .lo = (double)NAN, .hi = (double)NAN};
    *found = rc == SQLITE_ROW;
    if (*found) {
        int64_t *whole[] = {&s->id,      &s->n,     &s->last_step, &s->lo_step,
                            &s->hi_step, &s->bad_n, &s->bad_step};
        double *real[] = {&s->last, &s->lo, &s->hi};
        for (int i = 0; i < 7; i++)
            *whole[i] = sqlite3_column_int64(q, i);
        for (int i = 0; i < 3; i++)
            *real[i] = column_or_nan(q, 7 + i);
    }
    sqlite3_reset(q);
    if (rc != SQLITE_DONE)
        return rc == SQLITE_ROW;
    q = w->make;
    sqlite3_bind_int64(q, 1, series->run);
    sqlite3_bind_text(q, 2, series->name, -1, SQLITE_STATIC);
    rc = sqlite3_step(q);
    *found = rc == SQLITE_ROW;
    if (*found) {
        s->id = sqlite3_column_int64(q, 0);
        rc = sqlite3_step(q);
    }
    sqlite3_reset(q);
    return rc == SQLITE_DONE;
}

static void add(summary *s, int64_t at, double value) {
    if (s->n == 0 || at > s->last_step) {
        s->last = value;
        s->last_step = at;
    }
    s->n++;
    if (isnan(value)) {
        if (s->bad_n++ == 0 || at < s->bad_step)
            s->bad_step = at;
        return;
    }
    if (isnan(s->lo) || value < s->lo || (value == s->lo && at < s->lo_step)) {
        s->lo = value;
        s->lo_step = at;
    }
    if (isnan(s->hi) || value > s->hi || (value == s->hi && at < s->hi_step)) {
        s->hi = value;
        s->hi_step = at;
    }
}

static void bind_if(sqlite3_stmt *s, int i, int64_t v, bool is) {
    if (is)
        sqlite3_bind_int64(s, i, v);
    else
        sqlite3_bind_null(s, i);
}

static bool save(mimic_rows *w, const summary *s) {
    sqlite3_stmt *q = w->summary;
    sqlite3_bind_int64(q, 1, s->id);
    sqlite3_bind_int64(q, 2, s->n);
    bind_if(q, 3, s->last_step, s->n > 0);
    bind_if(q, 4, s->lo_step, !isnan(s->lo));
    bind_if(q, 5, s->hi_step, !isnan(s->hi));
    sqlite3_bind_int64(q, 6, s->bad_n);
    bind_if(q, 7, s->bad_step, s->bad_n > 0);
    sqlite3_bind_double(q, 8, s->last); /* NaN is bound as NULL */
    sqlite3_bind_double(q, 9, s->lo);
    sqlite3_bind_double(q, 10, s->hi);
    return step(q);
}

static bool write_series(mimic_rows *w, const mimic_row *rows, int n, mimic_outcome *batch) {
    summary s;
    bool found, redo = false;
    if (!load(w, rows[0].series, &s, &found))
        return false;
    if (!found) {
        batch->lost += n;
        batch->lost_run = rows[0].series->run;
        return true;
    }
    for (int i = 0; i < n; i++) {
        if (i + 1 < n && rows[i + 1].step == rows[i].step)
            continue;
        sqlite3_stmt *q = w->insert;
        for (int again = 0; again < 2; again++, q = w->replace) {
            sqlite3_bind_int64(q, 1, s.id);
            sqlite3_bind_int64(q, 2, rows[i].step);
            sqlite3_bind_int64(q, 3, rows[i].t);
            sqlite3_bind_double(q, 4, rows[i].value);
            if (!step(q))
                return false;
            if (sqlite3_changes(w->sql) > 0)
                break;
        }
        redo |= q == w->replace;
        add(&s, rows[i].step, rows[i].value);
    }
    if (!redo)
        return save(w, &s);
    sqlite3_bind_int64(w->redo, 1, rows[0].series->run);
    sqlite3_bind_int64(w->redo, 2, s.id);
    return step(w->redo);
}

bool mimic_rows_write(mimic_rows *w, mimic_row *rows, int n, mimic_outcome *batch,
                      char err[MIMIC_DB_TEXT]) {
    *batch = (mimic_outcome){0};
    qsort(rows, (size_t)n, sizeof *rows, compare_rows);
    if (!mimic_lock_take(&w->lock, err)) {
        batch->locked_out = true;
        return false;
    }
    bool ok = sqlite3_exec(w->sql, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK;
    for (int first = 0, end; ok && first < n; first = end) {
        for (end = first + 1; end < n && rows[end].series == rows[first].series;)
            end++;
        ok = write_series(w, rows + first, end - first, batch);
    }
    ok = ok && sqlite3_exec(w->sql, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (!ok) {
        mimic_db_reason(w->sql, err);
        if (!sqlite3_get_autocommit(w->sql))
            sqlite3_exec(w->sql, "ROLLBACK", NULL, NULL, NULL);
    }
    mimic_lock_give(&w->lock);
    return ok;
}

bool mimic_rows_renew(mimic_rows *w, int64_t trial, const uint8_t token[8], int64_t lease,
                      int64_t now, bool *held, char err[MIMIC_DB_TEXT]) {
    if (!mimic_lock_take(&w->lock, err))
        return false;
    sqlite3_bind_int64(w->renew, 1, trial);
    sqlite3_bind_blob(w->renew, 2, token, 8, SQLITE_STATIC);
    sqlite3_bind_int64(w->renew, 3, lease);
    bool ok = step(w->renew);
    *held = ok && sqlite3_changes(w->sql) > 0;
    if (*held) {
        sqlite3_bind_int64(w->seen, 1, trial);
        sqlite3_bind_int64(w->seen, 2, now);
        ok = step(w->seen);
    }
    if (!ok)
        mimic_db_reason(w->sql, err);
    mimic_lock_give(&w->lock);
    return ok;
}

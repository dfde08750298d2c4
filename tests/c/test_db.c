/* The results database: schema and views, refusals of what is not ours, transactions, blobs,
 * migration, places that cannot be written. */
#include "store_util.h"

#include <fcntl.h>
#include <sys/file.h>

#include "store/db_impl.h"

static mimic_db *db;

static int db_setup(void **state) {
    return scratch_open(state) || mimic_db_open(ctx, at("r.db"), true, &db);
}

static int db_teardown(void **state) {
    mimic_status st = mimic_db_close(db);
    db = NULL;
    return scratch_close(state) || st;
}

static void sql(const char *text) {
    must(mimic_db_exec(db, text, NULL, 0, NULL, NULL));
}

static bool first_value(void *user, int n, const char *const *names, const mimic_value *v) {
    (void)names;
    char *out = user;
    out[0] = 0;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(out);
        if (v[i].kind == MIMIC_TEXT)
            snprintf(out + len, 200 - len, "%s%s", i ? "|" : "", v[i].s);
        else if (v[i].kind == MIMIC_NULL)
            snprintf(out + len, 200 - len, "%snull", i ? "|" : "");
        else
            snprintf(out + len, 200 - len, "%s%.10g", i ? "|" : "", v[i].r);
    }
    return false;
}

/* First row of a query as text: "1|name|null". */
static const char *one(const char *text) {
    static char out[200];
    out[0] = 0;
    must(mimic_db_exec(db, text, NULL, 0, first_value, out));
    return out;
}

static void raw(const char *path, const char *text) {
    sqlite3 *s;
    assert_int_equal(sqlite3_open(path, &s), SQLITE_OK);
    assert_int_equal(sqlite3_exec(s, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(s);
}

static void add_runs(void) {
    sql("INSERT INTO experiment(name) VALUES('e');"
        "INSERT INTO run(uid, experiment, parent, kind, name, config_hash, seed, state, created) "
        "VALUES"
        " ('p', 1, NULL, 'pretrain', 'mae', x'01', 0, 'done', 0),"
        " ('a', 1, 1, 'finetune', 'full', x'02', 0, 'done', 0), ('b', 1, 1, 'finetune', 'full', "
        "x'02', 1, 'done', 0),"
        " ('c', 1, 1, 'finetune', 'full', x'02', 2, 'done', 0), ('d', 1, NULL, 'finetune', 'none', "
        "x'02', 0, 'done', 0),"
        " ('e', 1, 1, 'finetune', 'full', x'02', 2, 'done', 0), ('f', 1, 1, 'finetune', 'full', "
        "x'02', 3, 'failed', 0)");
}

static void schema_explains_itself(void **state) {
    (void)state;
    assert_string_equal(one("PRAGMA application_id"), "1296649539");
    assert_string_equal(one("PRAGMA user_version"), "5");
    assert_string_equal(
        one("SELECT value, mark FROM paper WHERE ref = 'table2' AND row = 'MIM, CE' "
            "AND dataset = 'rafdb'"),
        "88.14|inferred");
    assert_string_equal(one("PRAGMA journal_mode"), "wal");
    assert_string_equal(one("PRAGMA integrity_check"), "ok");
    assert_string_equal(one("SELECT count(*) FROM sqlite_schema WHERE type IN ('table', 'view') "
                            "AND sql NOT LIKE '%-- %'"),
                        "0");
}

static void views(void **state) {
    (void)state;
    add_runs();
    sql("INSERT INTO result VALUES(2, 'd', 'test', 'acc', 80, 10, 5), (3, 'd', 'test', 'acc', 82, "
        "10, 5),"
        " (4, 'd', 'test', 'acc', 10, 10, 5), (6, 'd', 'test', 'acc', 84, 10, 5), (5, 'd', 'test', "
        "'acc', 70, 10, 5),"
        " (7, 'd', 'test', 'acc', 1, 10, 5), (2, 'd', 'test', 'loss', NULL, 10, 5)");
    assert_string_equal(one("SELECT name, runs, n, mean, sd, lo, hi FROM seed_stat WHERE metric = "
                            "'acc' ORDER BY mean DESC"),
                        "full|3|3|82|2|80|84"); /* the newer run of seed 2; not the failed one */
    assert_string_equal(one("SELECT count(*) FROM seed_stat WHERE metric = 'acc'"), "2");
    assert_string_equal(one("SELECT DISTINCT config_hash FROM seed_stat"),
                        "02"); /* text: Datasette cannot show a view's blob */
    assert_string_equal(one("SELECT runs, n, mean, sd FROM seed_stat WHERE metric = 'loss'"),
                        "1|0|null|null");
    assert_string_equal(
        one("SELECT name, value FROM leaderboard WHERE metric = 'acc' ORDER BY value DESC"),
        "full|84");
    assert_string_equal(one("SELECT id, parent, result FROM run_list WHERE id = 2"),
                        "2|mae|d test acc 80.0");
    sql("INSERT INTO paper(ref, row, col, dataset, split, metric, value) VALUES"
        " ('table1', 'ours', 'acc', 'd', 'test', 'acc', 81),"
        " ('table1', 'x', 'acc', 'd', 'test', 'acc', 9);"
        "INSERT INTO paper_run SELECT 'table1', 'ours', id FROM run WHERE id IN (2, 3, 6, 7)");
    assert_string_equal(
        one("SELECT paper, ours, n, delta, sd FROM paper_vs_ours WHERE row = 'ours'"),
        "81|82|3|1|2");
    sql("INSERT INTO run(uid, experiment, kind, name, config_hash, seed, state, created) VALUES"
        " ('g', 1, 'finetune', 'quick', x'04', 0, 'done', 0);"
        "INSERT INTO result VALUES(8, 'd', 'test', 'acc', 3, 10, 5);"
        "INSERT INTO paper_run VALUES('table1', 'ours', 8)"); /* another configuration, of one seed
                                                               */
    assert_string_equal(one("SELECT ours, n FROM paper_vs_ours WHERE row = 'ours'"), "82|3");
    assert_string_equal(one("SELECT paper, ours, n FROM paper_vs_ours WHERE row = 'x'"),
                        "9|null|0");
    sql("INSERT INTO confusion VALUES(2, 'd', 'test', 0, 0, 8), (2, 'd', 'test', 0, 1, 2), (2, "
        "'d', 'test', 1, 0, 0)");
    assert_string_equal(one("SELECT n, recall, precision FROM class_score WHERE class = 0"),
                        "10|80|100");
    sql("INSERT INTO series(run, name) VALUES(2, 'loss'); INSERT INTO metric VALUES(1, 3, 0, 0.5)");
    assert_string_equal(one("SELECT step, value FROM curve WHERE run = 2 AND name = 'loss'"),
                        "3|0.5");
    sql("DELETE FROM run WHERE id = 2");
    assert_string_equal(one("SELECT count(*) FROM metric"), "0");
    sql("INSERT INTO sweep(uid, name, sampler, space, metric, goal, seed, created) VALUES('s', "
        "'s', 'grid', '{}', 'acc', 'max', 0, 0);"
        "INSERT INTO trial(sweep, number, config_hash, seed, params, state, value) VALUES(1, 0, "
        "x'01', 0, '{\"tau\": 0.1}', 'done', 5)");
    assert_string_equal(one("SELECT key, x, y FROM sweep_point"), "tau|0.1|5");
    sql("INSERT INTO trial(sweep, number, config_hash, seed, params, state, value) VALUES(1, 1, "
        "x'01', 1, '{\"tau\": 0.1}', 'done', 8), (1, 2, x'01', 2, '{}', 'failed', NULL)");
    assert_string_equal(one("SELECT trials, done, best FROM sweep_list"),
                        "3|2|6.5"); /* a mean over seeds */
    assert_string_equal(one("SELECT trials, n, mean, sd, lo, hi FROM sweep_stat"),
                        "3|2|6.5|2.121320344|5|8");
}

static void values_and_errors(void **state) {
    (void)state;
    char out[200];
    mimic_value v[] = {{.kind = MIMIC_INT, .i = -7},
                       {.kind = MIMIC_REAL, .r = 0.25},
                       {.kind = MIMIC_TEXT, .s = "t", .size = 1},
                       {.kind = MIMIC_BLOB, .s = "\0b", .size = 2},
                       {.kind = MIMIC_NULL}};
    for (int i = 0; i < 2; i++) { /* the second time from the cache */
        must(mimic_db_exec(db, "SELECT ?, ?, ?, hex(?), ?", v, 5, first_value, out));
        assert_string_equal(out, "-7|0.25|t|0062|null");
    }
    must_fail(mimic_db_exec(db, "SELECT ?, ?", v, 1, NULL, NULL), MIMIC_EINVAL,
              "has 2 parameters, 1 values");
    must_fail(mimic_db_exec(db, "SELECT\n  nmae FROM run", NULL, 0, NULL, NULL), MIMIC_EDB,
              "no such column: nmae: at \"nmae FROM run\" in SELECT nmae FROM run");
    must_fail(mimic_db_exec(db, "SELEC 1", NULL, 0, NULL, NULL), MIMIC_EDB, "at \"SELEC 1\"");
    must_fail(mimic_db_exec(db, "INSERT INTO tag VALUES(1, 'a', 'b')", NULL, 0, NULL, NULL),
              MIMIC_EDB, "FOREIGN KEY constraint failed: in INSERT INTO tag");
    must_fail(
        mimic_db_exec(db, "INSERT INTO env(sha256, json) VALUES(x'00', 'no')", NULL, 0, NULL, NULL),
        MIMIC_EDB, "CHECK constraint failed");
    must_fail(mimic_db_exec(db, "SELECT 1; SELECT ?", v, 1, NULL, NULL), MIMIC_EINVAL,
              "several statements");
    static const char *const ours[] = {"BEGIN",
                                       "COMMIT",
                                       "SAVEPOINT x",
                                       "PRAGMA journal_mode = DELETE",
                                       "PRAGMA user_version = 7",
                                       "PRAGMA wal_checkpoint"};
    for (int i = 0; i < 6; i++)
        must_fail(mimic_db_exec(db, ours[i], NULL, 0, NULL, NULL), MIMIC_EINVAL, ours[i]);
    sql(" -- nothing\n /* at all */ ;");
    for (int i = 0; i < 100; i++) { /* more texts than the cache holds */
        snprintf(out, sizeof out, "SELECT %d", i % 60);
        char want[12];
        snprintf(want, sizeof want, "%d", i % 60);
        assert_string_equal(one(out), want);
    }
    must_fail(mimic_db_open(ctx, at("no/r.db"), true, &(mimic_db *){0}), MIMIC_EIO,
              "its folder is missing");
    must_fail(mimic_db_open(ctx, at("no.db"), false, &(mimic_db *){0}), MIMIC_EIO, "No such file");
}

static bool insert_more(void *user, int n, const char *const *names, const mimic_value *v) {
    (void)n;
    (void)names;
    *(mimic_status *)user |=
        mimic_db_exec(db, "INSERT INTO experiment(name) VALUES(?||'x')", v, 1, NULL, NULL);
    return true;
}

static void transactions(void **state) {
    (void)state;
    must(mimic_db_begin(db, false));
    must_fail(mimic_db_begin(db, false), MIMIC_ESTATE, "already open");
    sql("INSERT INTO experiment(name) VALUES('a')");
    must(mimic_db_rollback(db));
    must_fail(mimic_db_rollback(db), MIMIC_ESTATE, "no transaction");
    must_fail(mimic_db_commit(db), MIMIC_ESTATE, "no transaction");
    assert_string_equal(one("SELECT count(*) FROM experiment"), "0");
    must(mimic_db_begin(db, true));
    assert_string_equal(one("PRAGMA synchronous"), "2");
    sql("INSERT INTO experiment(name) VALUES('b')");
    assert_int_equal(mimic_db_last_id(db), 1);
    assert_int_equal(mimic_db_changes(db), 1);
    must(mimic_db_commit(db));
    assert_string_equal(one("PRAGMA synchronous"), "1");
    /* several statements: all or none */
    must_fail(
        mimic_db_exec(db, "INSERT INTO experiment(name) VALUES('c'); INSERT INTO nowhere VALUES(1)",
                      NULL, 0, NULL, NULL),
        MIMIC_EDB, "no such table: nowhere");
    assert_string_equal(one("SELECT count(*) FROM experiment"), "1");
    sql("INSERT INTO experiment(name) VALUES('c'); INSERT INTO experiment(name) VALUES('d');");
    mimic_status st = MIMIC_OK; /* writing while reading */
    must(mimic_db_exec(db, "SELECT name FROM experiment ORDER BY id LIMIT 3", NULL, 0, insert_more,
                       &st));
    must(st);
    assert_string_equal(
        one("SELECT group_concat(name) FROM (SELECT name FROM experiment ORDER BY id)"),
        "b,c,d,bx,cx,dx");
    must(mimic_db_begin(db, false)); /* closed with its transaction: rolled back */
    sql("DELETE FROM experiment");
    must(mimic_db_close(db));
    db = NULL;
    must(mimic_db_open(ctx, at("r.db"), true, &db));
    assert_string_equal(one("SELECT count(*) FROM experiment"), "6");
}

static void reading_only(void **state) {
    (void)state;
    mimic_db *w = db;
    sql("INSERT INTO experiment(name) VALUES('a')");
    must(mimic_db_open(ctx, at("r.db"), false, &db));
    assert_string_equal(one("SELECT name FROM experiment"), "a");
    must_fail(mimic_db_exec(db, "DELETE FROM experiment", NULL, 0, NULL, NULL), MIMIC_ESTATE,
              "open for reading only");
    must_fail(mimic_db_exec(db, "PRAGMA query_only = OFF", NULL, 0, NULL, NULL), MIMIC_EINVAL,
              "this pragma");
    must_fail(mimic_db_begin(db, false), MIMIC_ESTATE, "open for reading only");
    must_fail(mimic_db_log(db, 1, "x", 0, 0), MIMIC_ESTATE, "open for reading only");
    uint8_t h[32];
    must_fail(mimic_db_put_blob(db, "x", 1, h), MIMIC_ESTATE, "open for reading only");
    must(mimic_db_close(db));
    db = NULL;
    db = w;
}

static void what_is_not_ours_is_refused(void **state) {
    (void)state;
    mimic_db *x;
    size_t size, after;
    raw(at("foreign.db"), "CREATE TABLE t(a); PRAGMA application_id = 77");
    raw(at("plain.db"), "CREATE TABLE t(a)");
    write_file(at("text.db"),
               "this is not a database, but long enough to look at: "
               "0123456789012345678901234567890123456789",
               92);
    write_file(at("empty.db"), "", 0);
    char *before = read_file(at("foreign.db"), &size);
    for (int write = 0; write < 2; write++) {
        must_fail(mimic_db_open(ctx, at("foreign.db"), write, &x), MIMIC_EFORMAT,
                  "another program (application_id 0x0000004d)");
        must_fail(mimic_db_open(ctx, at("plain.db"), write, &x), MIMIC_EFORMAT, "another program");
        must_fail(mimic_db_open(ctx, at("text.db"), write, &x), MIMIC_EFORMAT,
                  "is not a SQLite database");
    }
    char *now = read_file(at("foreign.db"), &after);
    assert_int_equal(size, after);
    assert_memory_equal(before, now, size);
    free(before);
    free(now);
    must_fail(mimic_db_open(ctx, at("empty.db"), false, &x), MIMIC_EFORMAT, "is empty");
    must(mimic_db_open(ctx, at("empty.db"), true, &x)); /* an empty file becomes one */
    must(mimic_db_close(x));
    must_fail(mimic_db_open(ctx, "", true, &x), MIMIC_EINVAL, "needs a name");
    must(mimic_db_open(ctx, at("odd ?#%:name.db"), true, &x));
    must(mimic_db_close(x));
    must(mimic_db_open(ctx, at("odd ?#%:name.db"), false, &x));
    must(mimic_db_close(x));
    assert_null(mimic_network_fs(0xef53));
    assert_string_equal(mimic_network_fs(0x6969), "NFS");
    assert_string_equal(mimic_network_fs(0xffffffffff534d42), "SMB (CIFS)");
}

static void a_newer_version_is_read_only(void **state) {
    (void)state;
    mimic_db *x;
    sql("INSERT INTO experiment(name) VALUES('a')");
    must(mimic_db_close(db));
    db = NULL;
    raw(at("r.db"), "PRAGMA user_version = 99");
    must_fail(mimic_db_open(ctx, at("r.db"), true, &x), MIMIC_EUNSUPPORTED,
              "written by a newer mimic");
    must(mimic_db_open(ctx, at("r.db"), false, &db));
    assert_string_equal(one("SELECT name FROM experiment"), "a");
}

static bool step_one(sqlite3 *s, char err[MIMIC_DB_TEXT]) {
    return mimic_db_run(s, "ALTER TABLE t ADD COLUMN b", err);
}

static bool step_two(sqlite3 *s, char err[MIMIC_DB_TEXT]) {
    return mimic_db_run(s, "UPDATE t SET b = a + 1; DELETE FROM nowhere", err);
}

static void migration_keeps_a_copy(void **state) {
    (void)state;
    const mimic_db_step steps[] = {step_one, step_two};
    char err[MIMIC_DB_TEXT];
    int64_t v;
    sqlite3 *s;
    raw(at("old.db"), "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert_int_equal(sqlite3_open(at("old.db"), &s), SQLITE_OK);
    assert_true(mimic_db_migrate(s, at("old.db"), steps, 1, err));
    assert_true(mimic_db_pragma_int(s, "PRAGMA user_version", &v, err) && v == 1);
    assert_true(mimic_db_migrate(s, at("old.db"), steps, 1, err)); /* nothing more to do */
    assert_false(mimic_db_migrate(s, at("old.db"), steps, 2, err));
    assert_non_null(strstr(err, "no such table: nowhere"));
    assert_true(mimic_db_pragma_int(s, "SELECT count(*) FROM t WHERE b IS NULL", &v, err) &&
                v == 1);
    assert_true(mimic_db_pragma_int(s, "PRAGMA user_version", &v, err) && v == 1);
    sqlite3_close(s);
    assert_int_equal(sqlite3_open(at("old.db.v0.bak"), &s), SQLITE_OK);
    assert_true(mimic_db_pragma_int(s, "SELECT count(*) FROM pragma_table_info('t')", &v, err) &&
                v == 1);
    sqlite3_close(s);
}

static void blobs(void **state) {
    (void)state;
    static char big[200000];
    static const size_t sizes[] = {0, 1, 65536, 65537, sizeof big};
    uint8_t h[32], none[32] = {1};
    char path[500];
    void *data;
    size_t size;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * i >> 3);
    for (int i = 0; i < 5; i++)
        for (int again = 0; again < 2; again++) {
            must(mimic_db_put_blob(db, big, sizes[i], h));
            must(mimic_db_get_blob(db, h, &data, &size));
            assert_int_equal(size, sizes[i]);
            assert_memory_equal(data, big, size);
            free(data);
        }
    assert_string_equal(one("SELECT count(*), count(path), sum(bytes) FROM blob"), "5|2|331074");
    must_fail(mimic_db_get_blob(db, none, &data, &size), MIMIC_EINVAL, "no blob 01000000");
    snprintf(path, sizeof path, "%s.files/%s", at("r.db"),
             one("SELECT path FROM blob WHERE bytes = 200000"));
    big[5] ^= 1;
    write_file(path, big, sizeof big);
    must_fail(mimic_db_get_blob(db, h, &data, &size), MIMIC_EFORMAT, "is damaged");
    write_file(path, big, 7);
    must_fail(mimic_db_get_blob(db, h, &data, &size), MIMIC_EFORMAT,
              "has 7 bytes, 200000 were stored");
    big[5] ^= 1;
    must(mimic_db_put_blob(db, big, sizeof big, h)); /* heals it */
    must(mimic_db_get_blob(db, h, &data, &size));
    free(data);
    unlink(path);
    must_fail(mimic_db_get_blob(db, h, &data, &size), MIMIC_EIO, "No such file");
    sql("UPDATE blob SET data = x'62' WHERE bytes = 1");
    mimic_sha256(big, 1, h);
    must_fail(mimic_db_get_blob(db, h, &data, &size), MIMIC_EFORMAT, "is damaged");
}

static int use_read_only_folder(void) {
    mimic_db *x;
    char out[200];
    if (mimic_db_open(ctx, at("ro/r.db"), true, &x) != MIMIC_EIO ||
        !strstr(mimic_message(ctx), "Permission denied"))
        return 1;
    if (mimic_db_open(ctx, at("ro/r.db"), false, &x))
        return fprintf(stderr, "%s\n", mimic_message(ctx)), 2;
    if (mimic_db_exec(x, "SELECT name FROM experiment", NULL, 0, first_value, out) ||
        strcmp(out, "a") != 0)
        return 3;
    mimic_db_close(x);
    return 0;
}

static int unfinished_read_only_folder(void) {
    mimic_db *x;
    return mimic_db_open(ctx, at("ro/r.db"), false, &x) == MIMIC_EIO &&
                   strstr(mimic_message(ctx), "unfinished data")
               ? 0
               : 1;
}

static void read_only_places(void **state) {
    (void)state;
    mimic_db *x;
    assert_int_equal(chmod(scratch, 0755), 0);
    mkdir(at("ro"), 0777);
    must(mimic_db_open(ctx, at("ro/r.db"), true, &x));
    must(mimic_db_exec(x, "INSERT INTO experiment(name) VALUES('a')", NULL, 0, NULL, NULL));
    must(mimic_db_close(x));
    chmod(at("ro"), 0555);
    chmod(at("ro/r.db"), 0444);
    assert_int_equal(as_nobody(use_read_only_folder), 0);
    write_file(at("ro/r.db-wal"), "waiting", 7);
    assert_int_equal(as_nobody(unfinished_read_only_folder), 0);
    chmod(at("ro"), 0755);
}

static void a_full_disk_is_a_message(void **state) {
    (void)state;
    mimic_db *x;
    static char big[500000];
    uint8_t h[32];
    if (!small_disk("disk", "1m"))
        return;
    must(mimic_db_open(ctx, at("disk/r.db"), true, &x));
    must_fail(mimic_db_exec(
                  x,
                  "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 4000)"
                  " INSERT INTO experiment(name) SELECT hex(randomblob(200)) FROM c",
                  NULL, 0, NULL, NULL),
              MIMIC_EDB, "disk is full");
    must(mimic_db_begin(x, false)); /* an error rolls back: nothing of it may be done alone */
    must_fail(mimic_db_exec(
                  x,
                  "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40000)"
                  " INSERT INTO experiment(name) SELECT hex(randomblob(200)) FROM c",
                  NULL, 0, NULL, NULL),
              MIMIC_EDB, "disk");
    mimic_status st =
        mimic_db_exec(x, "INSERT INTO experiment(name) VALUES('z')", NULL, 0, NULL, NULL);
    assert_true(st == MIMIC_OK || st == MIMIC_ESTATE);
    must(mimic_db_rollback(x));
    must_fail(mimic_db_put_blob(x, big, sizeof big, h) ||
                      mimic_db_put_blob(x, big, sizeof big - 1, h)
                  ? MIMIC_EIO
                  : MIMIC_OK,
              MIMIC_EIO, "No space left");
    mimic_db *keep = db; /* the file is whole and usable */
    db = x;
    assert_string_equal(one("PRAGMA integrity_check"), "ok");
    assert_string_equal(one("SELECT count(*) FROM experiment"), "0");
    db = keep;
    mimic_db_close(x);
    umount(at("disk"));
}

/* Many processes: creation, then increments that must not be lost; another holder is named. */
static void processes_share_a_file(void **state) {
    (void)state;
    enum { N = 4, EACH = 100 };
    fflush(NULL);
    for (int i = 0; i < N; i++)
        if (fork() == 0) {
            mimic_db *x;
            if (mimic_db_open(ctx, at("new.db"), true, &x))
                _exit(1);
            mimic_status st = mimic_db_exec(
                x, "INSERT INTO experiment(name, note) VALUES('n', 0) ON CONFLICT DO NOTHING", NULL,
                0, NULL, NULL);
            for (int k = 0; k < EACH && !st; k++) {
                if (k % 2)
                    st = mimic_db_exec(x, "UPDATE experiment SET note = note + 1", NULL, 0, NULL,
                                       NULL);
                else {
                    char out[200];
                    mimic_value v = {.kind = MIMIC_TEXT, .s = out};
                    st = mimic_db_begin(x, k % 10 == 0);
                    st = st ? st
                            : mimic_db_exec(x, "SELECT note + 1 FROM experiment", NULL, 0,
                                            first_value, out);
                    v.size = strlen(out);
                    st = st ? st
                            : mimic_db_exec(x, "UPDATE experiment SET note = ?", &v, 1, NULL, NULL);
                    st = st ? st : mimic_db_commit(x);
                }
            }
            if (st)
                fprintf(stderr, "%s\n", mimic_message(ctx));
            _exit(st || mimic_db_close(x));
        }
    for (int i = 0, status; i < N; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    must(mimic_db_close(db));
    db = NULL;
    must(mimic_db_open(ctx, at("new.db"), true, &db));
    assert_string_equal(one("SELECT note FROM experiment"), "400");
    assert_string_equal(one("PRAGMA integrity_check"), "ok");
    int fd = open(at("new.db.lock"), O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    char who[80];
    db->lock.patience_ms = 200;
    snprintf(who, sizeof who, "locked for 0.2 s by another writer (process %ld)", (long)getpid());
    must_fail(mimic_db_exec(db, "DELETE FROM experiment", NULL, 0, NULL, NULL), MIMIC_EDB, who);
    close(fd);
    sql("DELETE FROM experiment");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, db_setup, db_teardown)
    const struct CMUnitTest tests[] = {T(schema_explains_itself),
                                       T(views),
                                       T(values_and_errors),
                                       T(transactions),
                                       T(reading_only),
                                       T(what_is_not_ours_is_refused),
                                       T(a_newer_version_is_read_only),
                                       T(migration_keeps_a_copy),
                                       T(blobs),
                                       T(read_only_places),
                                       T(a_full_disk_is_a_message),
                                       T(processes_share_a_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Files of older versions, kept as dumps in tests/c/schema: opened for writing they come up to date
 * with nothing lost, and equal a new file in all but their rows. */
#include "store_util.h"

#include <sqlite3.h>

static char *read_text(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    text[n] = 0;
    fclose(f);
    return text;
}

static sqlite3 *open_sql(const char *path) {
    sqlite3 *s;
    assert_int_equal(sqlite3_open(path, &s), SQLITE_OK);
    return s;
}

static void run_sql(sqlite3 *s, const char *text) {
    char *why = NULL;
    if (sqlite3_exec(s, text, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", text, why);
}

/* All rows of a query as one text, a row a line. The caller frees it. */
static char *rows(sqlite3 *s, const char *sql) {
    sqlite3_stmt *st;
    sqlite3_str *out = sqlite3_str_new(s);
    if (sqlite3_prepare_v2(s, sql, -1, &st, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(s));
    while (sqlite3_step(st) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(st); i++)
            sqlite3_str_appendf(out, "%s|", sqlite3_column_text(st, i));
        sqlite3_str_appendchar(out, 1, '\n');
    }
    sqlite3_finalize(st);
    sqlite3_str_appendall(out, "");
    char *text = sqlite3_str_finish(out);
    return text ? text : sqlite3_mprintf("");
}

/* Queries that list the rows of every table of a file exactly, by the columns it has now. */
static char *contents(sqlite3 *s, const char *queries) {
    sqlite3_str *out = sqlite3_str_new(s);
    char *list = sqlite3_mprintf("%s", queries), *save = NULL;
    for (char *q = strtok_r(list, "\n", &save); q; q = strtok_r(NULL, "\n", &save)) {
        q[strlen(q) - 1] = 0; /* the bar */
        char *r = rows(s, q);
        sqlite3_str_appendf(out, "%s\n%s", q, r);
        sqlite3_free(r);
    }
    sqlite3_free(list);
    return sqlite3_str_finish(out);
}

/* Published numbers may be added to, so their own rows only are compared: those the dump has. */
static const char query_of_tables[] =
    "SELECT 'SELECT ' || group_concat('quote(' || c.name || ')', ', ') || ' FROM ' || t.name ||"
    " CASE t.name WHEN 'paper' THEN ' WHERE ref = ''mine'' OR value = 88.0' ELSE '' END || ' ORDER "
    "BY 1, 2'"
    " FROM sqlite_schema t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    " AND t.name NOT LIKE 'sqlite_%' GROUP BY t.name ORDER BY t.name";

/* Columns with type, default, key; indexes, triggers and views by their text. */
static const char query_of_schema[] =
    "SELECT t.name, c.name, c.type, c.[notnull], c.dflt_value, c.pk FROM sqlite_schema t,"
    " pragma_table_info(t.name) c WHERE t.type IN ('table', 'view')"
    " AND t.name NOT LIKE 'sqlite_%'"
    " UNION ALL SELECT type, name, tbl_name, sql, NULL, NULL FROM sqlite_schema"
    " WHERE type <> 'table' AND sql IS NOT NULL ORDER BY 1, 2, 3, 4";

static void same(const char *text, const char *expected) {
    if (strcmp(text, expected) == 0)
        return;
    size_t i = 0, line = 0;
    for (; text[i] == expected[i]; i++)
        if (text[i] == '\n')
            line = i + 1;
    fail_msg("differs:\n%.300s\nexpected:\n%.300s", text + line, expected + line);
}

static void bring_up_to_date(int version, const char *dump, const char *fresh_schema, int newest) {
    char name[32], backup[48], number[16];
    snprintf(name, sizeof name, "v%d.db", version);
    snprintf(backup, sizeof backup, "v%d.db.v%d.bak", version, version);
    snprintf(number, sizeof number, "%d|\n", version);
    sqlite3 *s = open_sql(at(name));
    run_sql(s, dump);
    char *tables = rows(s, query_of_tables), *before = contents(s, tables);
    same(rows(s, "PRAGMA user_version"), number);
    sqlite3_close(s);

    mimic_db *db;
    must(mimic_db_open(ctx, at(name), true, &db));
    must(mimic_db_exec(db,
                       "INSERT INTO experiment(name) VALUES('new'); DELETE FROM experiment WHERE "
                       "name = 'new'",
                       NULL, 0, NULL, NULL));
    must(mimic_db_close(db));
    s = open_sql(at(name));
    same(contents(s, tables), before);
    same(rows(s, query_of_schema), fresh_schema);
    same(rows(s, "PRAGMA integrity_check"), "ok|\n");
    same(rows(s, "PRAGMA foreign_key_check"), "");
    same(rows(s, "SELECT value FROM paper WHERE ref = 'table3' AND row = 'linear' AND dataset = "
                 "'rafdb'"),
         "87.18|\n");
    same(rows(s, "SELECT ours, n FROM paper_vs_ours WHERE ref = 'table2' AND row = 'MIM, CE' AND "
                 "dataset = 'rafdb'"),
         "88.5|1|\n");
    snprintf(number, sizeof number, "%d|\n", newest);
    same(rows(s, "PRAGMA user_version"), number);
    sqlite3_close(s);

    s = open_sql(at(backup));
    same(contents(s, tables), before);
    sqlite3_close(s);
}

static void every_older_version(void **state) {
    (void)state;
    mimic_db *db;
    must(mimic_db_open(ctx, at("new.db"), true, &db));
    must(mimic_db_close(db));
    sqlite3 *s = open_sql(at("new.db"));
    char *fresh = rows(s, query_of_schema);
    int newest = atoi(rows(s, "PRAGMA user_version"));
    sqlite3_close(s);
    for (int version = 1; version < newest; version++) {
        char path[400];
        snprintf(path, sizeof path, "%s/tests/c/schema/v%d.sql", MIMIC_SOURCE, version);
        char *dump = read_text(path);
        if (!dump)
            fail_msg("no dump of version %d: %s", version, path);
        bring_up_to_date(version, dump, fresh, newest);
        free(dump);
    }
}

/* What cannot be brought up to date stays as it was. */
static void a_failing_migration_changes_nothing(void **state) {
    (void)state;
    mimic_db *db;
    char path[400];
    snprintf(path, sizeof path, "%s/tests/c/schema/v1.sql", MIMIC_SOURCE);
    char *dump = read_text(path);
    sqlite3 *s = open_sql(at("bad.db"));
    run_sql(s, dump);
    run_sql(s, "ALTER TABLE paper ADD COLUMN mark TEXT");
    char *before = rows(s, query_of_schema);
    sqlite3_close(s);
    must_fail(mimic_db_open(ctx, at("bad.db"), true, &db), MIMIC_EDB,
              "duplicate column name: mark");
    s = open_sql(at("bad.db"));
    same(rows(s, query_of_schema), before);
    same(rows(s, "PRAGMA user_version"), "1|\n");
    sqlite3_close(s);
    free(dump);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_older_version, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(a_failing_migration_changes_nothing, scratch_open,
                                        scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

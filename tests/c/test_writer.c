/* The metrics writer: summaries equal what the points say, nothing is lost on a full disk, a killed
 * process leaves a whole file, logging does not wait. */
#include "store_util.h"

#include <float.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "store/db_impl.h"

static mimic_db *db;

static void sql(mimic_db *d, const char *text) {
    must(mimic_db_exec(d, text, NULL, 0, NULL, NULL));
}

static mimic_db *open_with_runs(const char *path) {
    mimic_db *d;
    must(mimic_db_open(ctx, path, true, &d));
    sql(d,
        "INSERT INTO experiment(name) VALUES('e');"
        "INSERT INTO run(uid, experiment, kind, name, config_hash, seed, state, created) VALUES"
        " ('a', 1, 'k', 'a', x'01', 0, 'running', 0), ('b', 1, 'k', 'b', x'01', 1, 'running', 0)");
    return d;
}

static int setup(void **state) {
    if (scratch_open(state))
        return -1;
    db = open_with_runs(at("w.db"));
    return 0;
}

static int teardown(void **state) {
    mimic_status st = mimic_db_close(db);
    db = NULL;
    return scratch_close(state) || st;
}

static bool to_number(void *user, int n, const char *const *names, const mimic_value *v) {
    (void)n;
    (void)names;
    *(double *)user = v[0].kind == MIMIC_NULL ? (double)NAN : v[0].r;
    return false;
}

static double number(mimic_db *d, const char *text) {
    double x = -12345;
    must(mimic_db_exec(d, text, NULL, 0, to_number, &x));
    return x;
}

/* The series whose summary is not what their points say. */
static double wrong_summaries(mimic_db *d) {
    return number(
        d,
        "SELECT count(*) FROM series s WHERE n <> (SELECT count(*) FROM metric WHERE series = s.id)"
        " OR last_step IS NOT (SELECT max(step) FROM metric WHERE series = s.id)"
        " OR last IS NOT (SELECT value FROM metric WHERE series = s.id AND step = s.last_step)"
        " OR lo IS NOT (SELECT min(value) FROM metric WHERE series = s.id)"
        " OR hi IS NOT (SELECT max(value) FROM metric WHERE series = s.id)"
        " OR lo_step IS NOT (SELECT min(step) FROM metric WHERE series = s.id AND value = s.lo)"
        " OR hi_step IS NOT (SELECT min(step) FROM metric WHERE series = s.id AND value = s.hi)"
        " OR bad_n <> (SELECT count(*) FROM metric WHERE series = s.id AND value IS NULL)"
        " OR bad_step IS NOT (SELECT min(step) FROM metric WHERE series = s.id AND value IS NULL)");
}

static void values_are_kept(void **state) {
    (void)state;
    static const double values[] = {1.5, NAN, INFINITY, -INFINITY, 0.1, 5e-324, DBL_MAX, -0.0};
    for (int i = 0; i < 8; i++)
        must(mimic_db_log(db, 1, "x", i * 10, values[i]));
    must(mimic_db_flush(db));
    for (int i = 0; i < 8; i++) {
        char text[100];
        snprintf(text, sizeof text,
                 "SELECT value FROM curve WHERE run = 1 AND name = 'x' AND step = %d", i * 10);
        double got = number(db, text);
        assert_true(isnan(values[i]) ? isnan(got) : got == values[i]);
    }
    assert_true(number(db, "SELECT bad_n * 1000 + bad_step FROM series") == 1010);
    assert_true(isinf(number(db, "SELECT hi FROM series")));
    assert_true(wrong_summaries(db) == 0);
    assert_true(number(db, "SELECT t FROM metric") > 1.6e12);
    must_fail(mimic_db_log(db, 99, "x", 0, 1), MIMIC_EINVAL,
              "metric 'x' for run 99, which does not exist");
    must(mimic_db_flush(db));
}

/* Any order, repetition and mixture of runs and names; batches of all sizes. */
static void summaries_follow_the_points(void **state) {
    (void)state;
    mimic_rng r;
    mimic_rng_init(&r, 3, 0, 0);
    char name[20];
    for (int round = 0; round < 30; round++) {
        for (uint32_t k = mimic_rng_below(&r, 300); k > 0; k--) {
            snprintf(name, sizeof name, "m%u", mimic_rng_below(&r, 5));
            double v = mimic_rng_below(&r, 9) ? (double)mimic_rng_below(&r, 20) : (double)NAN;
            must(mimic_db_log(db, 1 + mimic_rng_below(&r, 2), name,
                              mimic_rng_below(&r, 60) * (1 + round / 10), v));
        }
        must(mimic_db_flush(db));
        assert_true(wrong_summaries(db) == 0);
    }
    assert_true(number(db, "SELECT count(*) FROM series") == 10);
    for (int i = 0; i < 5; i++) /* the latest of a step counts, within a batch and after it */
        must(mimic_db_log(db, 1, "same", 7, i));
    must(mimic_db_flush(db));
    must(mimic_db_log(db, 1, "same", 7, 9));
    must(mimic_db_log(db, 1, "same", 3, 4));
    must(mimic_db_flush(db));
    assert_true(number(db, "SELECT n * 100 + last * 10 + lo FROM series WHERE name = 'same'") ==
                294);
    assert_true(wrong_summaries(db) == 0);
}

static void rewind_takes_back(void **state) {
    (void)state;
    for (int i = 0; i < 3000; i++) {
        must(mimic_db_log(db, 1, "a", i, i % 7 ? i : (double)NAN));
        must(mimic_db_log(db, 2, "a", i, i));
    }
    must(mimic_db_log(db, 1, "late", 2900, 1));
    must(mimic_db_rewind(db, 1, 1200));
    assert_true(number(db, "SELECT n FROM series WHERE run = 1 AND name = 'a'") == 1201);
    assert_true(number(db, "SELECT n FROM series WHERE run = 1 AND name = 'late'") == 0);
    assert_true(number(db, "SELECT n FROM series WHERE run = 2") == 3000);
    assert_true(wrong_summaries(db) == 0);
    for (int i = 1201; i < 3000; i++)
        must(mimic_db_log(db, 1, "a", i, i));
    must(mimic_db_flush(db));
    assert_true(number(db, "SELECT n FROM series WHERE run = 1 AND name = 'a'") == 3000);
    assert_true(wrong_summaries(db) == 0);
    must(mimic_db_begin(db, false));
    must_fail(mimic_db_rewind(db, 1, 0), MIMIC_ESTATE, "inside a transaction");
    must_fail(mimic_db_flush(db), MIMIC_ESTATE, "inside a transaction");
    for (int i = 0; i < 5000; i++) /* logging inside one is fine: it waits in the queue */
        must(mimic_db_log(db, 1, "b", i, i));
    must(mimic_db_commit(db));
    must(mimic_db_flush(db));
    assert_true(number(db, "SELECT n FROM series WHERE name = 'b'") == 5000);
}

static void written_without_being_asked(void **state) {
    (void)state;
    must(mimic_db_log(db, 1, "a", 1, 1));
    usleep(900 * 1000);
    assert_true(number(db, "SELECT count(*) FROM metric") == 1);
    for (int i = 0; i < 1000; i++)
        must(mimic_db_log(db, 1, "a", i, 1));
    usleep(200 * 1000);
    assert_true(number(db, "SELECT count(*) FROM metric") >= 999);
    must(mimic_db_log(db, 1, "last", 1, 1)); /* and by closing */
    must(mimic_db_close(db));
    db = NULL;
    must(mimic_db_open(ctx, at("w.db"), true, &db));
    assert_true(number(db, "SELECT n FROM series WHERE name = 'last'") == 1);
}

static void a_deleted_run_is_told(void **state) {
    (void)state;
    mimic_db_counts c;
    must(mimic_db_log(db, 2, "a", 1, 1));
    must(mimic_db_flush(db));
    sql(db, "DELETE FROM run WHERE id = 2");
    must(mimic_db_log(db, 2, "a", 2, 1));
    must(mimic_db_log(db, 1, "a", 2, 1));
    must_fail(mimic_db_flush(db), MIMIC_EDB,
              "run 2 was deleted while it logged; 1 rows have no place");
    must(mimic_db_flush(db));
    mimic_db_stats(db, &c);
    assert_true(c.logged == 3 && c.written == 2 && c.lost == 1 && c.queued == 0);
    assert_true(number(db, "SELECT count(*) FROM metric") == 1);
}

static void nothing_is_lost_on_a_full_disk(void **state) {
    (void)state;
    if (!small_disk("disk", "1m"))
        return;
    mimic_db *d = open_with_runs(at("disk/w.db"));
    static char ballast[4 << 20];
    FILE *f = fopen(at("disk/ballast"), "wb");
    setvbuf(f, NULL, _IONBF, 0);
    for (size_t at_byte = 0; fwrite(ballast, 1, 4096, f) == 4096 && at_byte < sizeof ballast;)
        at_byte += 4096;
    fclose(f);
    mimic_status st = MIMIC_OK;
    for (int i = 0; i < 9000; i++)
        mimic_db_log(d, 1, "a", i, i); /* may tell of it already */
    st = mimic_db_flush(d);
    must_fail(st, MIMIC_EDB, "metrics could not be written");
    assert_non_null(strstr(mimic_message(ctx), "full"));
    must_fail(mimic_db_flush(d), MIMIC_EDB, "metrics could not be written"); /* still */
    usleep(1200 * 1000); /* it tries on its own */
    must_fail(mimic_db_log(d, 1, "a", 9000, 9000), MIMIC_EDB, "rows wait");
    unlink(at("disk/ballast"));
    must(mimic_db_flush(d));
    assert_true(number(d, "SELECT n FROM series") == 9001);
    assert_true(wrong_summaries(d) == 0);
    mimic_db_counts c;
    mimic_db_stats(d, &c);
    assert_true(c.written == 9001 && c.queued == 0 && c.failures >= 2);
    f = fopen(at("disk/ballast"), "wb"); /* full again, then closed: said, with the number */
    setvbuf(f, NULL, _IONBF, 0);
    for (size_t at_byte = 0; fwrite(ballast, 1, 4096, f) == 4096 && at_byte < sizeof ballast;)
        at_byte += 4096;
    fclose(f);
    for (int i = 0; i < 20000; i++)
        mimic_db_log(d, 2, "b", i, i * 0.1);
    must_fail(mimic_db_close(d), MIMIC_EDB, "are lost");
    unlink(at("disk/ballast"));
    must(mimic_db_open(ctx, at("disk/w.db"), true, &d));
    assert_true(number(d, "SELECT integrity_check = 'ok' FROM pragma_integrity_check") == 1);
    assert_true(wrong_summaries(d) == 0);
    must(mimic_db_close(d));
    umount(at("disk"));
}

static void allocation_failures_are_statuses(void **state) {
    (void)state;
    int done = 0;
    for (int n = 1; !done && n < 60; n++) {
        mimic_db *d = NULL;
        uint8_t h[32];
        void *data = NULL;
        size_t size;
        mimic_fail_alloc(ctx, n, false);
        mimic_status st = mimic_db_open(ctx, at("w.db"), true, &d);
        st = st ? st : mimic_db_log(d, 1, "a", n, 1);
        st = st ? st : mimic_db_put_blob(d, scratch, sizeof scratch, h);
        st = st ? st : mimic_db_get_blob(d, h, &data, &size);
        st = st ? st : mimic_db_rewind(d, 1, 0);
        mimic_fail_alloc(ctx, 0, false);
        free(data);
        done = st == MIMIC_OK;
        assert_true(done || st == MIMIC_ENOMEM);
        must(mimic_db_close(d));
    }
    assert_true(done);
}

/* Logs without end, with a durable transaction now and then, until it is killed. */
static void write_until_killed(const char *path, int64_t run) {
    mimic_db *d;
    if (mimic_db_open(ctx, path, true, &d))
        _exit(1);
    for (int64_t i = 0;; i++) {
        if (mimic_db_log(d, run, i % 3 ? "a" : "b", i, (double)i))
            _exit(2);
        if (i % 1000 == 999) {
            const mimic_value v[] = {{.kind = MIMIC_INT, .i = i}, {.kind = MIMIC_INT, .i = run}};
            if (mimic_db_flush(d) || mimic_db_begin(d, true) ||
                mimic_db_exec(d, "UPDATE run SET step = max(step, ?) WHERE id = ?", v, 2, NULL,
                              NULL) ||
                mimic_db_commit(d))
                _exit(3);
        }
    }
}

static void a_killed_writer_leaves_a_whole_file(void **state) {
    (void)state;
    if (no_threads_after_fork())
        return;
    int rounds = getenv("MIMIC_LONG") ? 60 : 6;
    mimic_rng r;
    mimic_rng_init(&r, 11, 0, 0);
    must(mimic_db_close(db));
    db = NULL;
    for (int round = 0; round < rounds; round++) {
        fflush(NULL);
        pid_t pid[2];
        for (int i = 0; i < 2; i++) /* two at once: each in turn the one that dies first */
            if ((pid[i] = fork()) == 0)
                write_until_killed(at("w.db"), i + 1);
        for (int i = 0; i < 2; i++) {
            usleep(20000 + mimic_rng_below(&r, 120000));
            kill(pid[i], SIGKILL);
            int status;
            assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
            assert_true(WIFSIGNALED(status));
        }
        must(mimic_db_open(ctx, at("w.db"), true, &db));
        assert_true(number(db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check") == 1);
        assert_true(wrong_summaries(db) == 0);
        assert_true(
            number(
                db,
                "SELECT count(*) FROM run r WHERE step > 0 AND step > (SELECT max(step) FROM curve"
                " WHERE run = r.id)") == 0);
        must(mimic_db_close(db));
        db = NULL;
    }
    must(mimic_db_open(ctx, at("w.db"), true, &db));
    assert_true(number(db, "SELECT count(*) FROM metric") > 0);
}

static void two_processes_write_at_once(void **state) {
    (void)state;
    if (no_threads_after_fork())
        return;
    must(mimic_db_close(db));
    db = NULL;
    fflush(NULL);
    for (int i = 0; i < 2; i++)
        if (fork() == 0) {
            mimic_db *d;
            mimic_status st = mimic_db_open(ctx, at("w.db"), true, &d);
            for (int k = 0; k < 20000 && !st; k++) {
                st = mimic_db_log(d, i + 1, k % 2 ? "a" : "b", k, k);
                if (k % 2500 == 0 && !st)
                    st = mimic_db_exec(d, "UPDATE run SET step = step + 1", NULL, 0, NULL, NULL);
            }
            if (st)
                fprintf(stderr, "%s\n", mimic_message(ctx));
            _exit(st || mimic_db_close(d));
        }
    for (int i = 0, status; i < 2; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    must(mimic_db_open(ctx, at("w.db"), true, &db));
    assert_true(number(db, "SELECT count(*) FROM metric") == 40000);
    assert_true(number(db, "SELECT sum(step) FROM run") == 32);
    assert_true(wrong_summaries(db) == 0);
}

static int compare_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Prints the figures; asserts only what no noise of a shared machine explains. */
static void logging_does_not_wait(void **state) {
    (void)state;
    enum { STEPS = 5000, SERIES = 20, N = STEPS * SERIES };
    static double took[N];
    char names[SERIES][24];
    mimic_rng r;
    mimic_rng_init(&r, 1, 0, 0);
    for (int i = 0; i < SERIES; i++)
        snprintf(names[i], sizeof names[i], "series/%d", i);
    double start = seconds();
    for (int i = 0; i < N; i++) {
        double v = mimic_rng_uniform(&r) + 1e-3, before = seconds();
        must(mimic_db_log(db, 1, names[i % SERIES], i / SERIES, v));
        took[i] = seconds() - before;
    }
    double logged = seconds() - start;
    must(mimic_db_flush(db));
    double all = seconds() - start;
    mimic_db_counts c;
    mimic_db_stats(db, &c);
    qsort(took, N, sizeof *took, compare_double);
    must(mimic_db_close(db));
    db = NULL;
    struct stat s;
    assert_int_equal(stat(at("w.db"), &s), 0);
    print_message(
        "log: median %.2f us, p99.9 %.2f us, max %.0f us; %.0f calls/s, %.0f rows/s to the file, "
        "%.1f bytes a row, %lld batches, queue %lld, %lld stalls\n",
        took[N / 2] * 1e6, took[N - N / 1000] * 1e6, took[N - 1] * 1e6, N / logged, N / all,
        (double)s.st_size / N, (long long)c.batches, (long long)c.queued_max, (long long)c.stalls);
    must(mimic_db_open(ctx, at("w.db"), true, &db));
    assert_true(number(db, "SELECT count(*) FROM metric") == N);
    assert_true(wrong_summaries(db) == 0);
    assert_true(c.stalls == 0);
    assert_true((double)s.st_size / N < 32);
    assert_true(took[N / 2] < 20e-6);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(values_are_kept),
                                       T(summaries_follow_the_points),
                                       T(rewind_takes_back),
                                       T(written_without_being_asked),
                                       T(a_deleted_run_is_told),
                                       T(nothing_is_lost_on_a_full_disk),
                                       T(allocation_failures_are_statuses),
                                       T(a_killed_writer_leaves_a_whole_file),
                                       T(two_processes_write_at_once),
                                       T(logging_does_not_wait)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

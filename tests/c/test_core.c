/* Contexts, messages, allocation with faults, compute threads. */
#include "core_util.h"

#include <dirent.h>
#include <unistd.h>

#include "core/ctx.h"

/* --- life ------------------------------------------------------------------------------------- */

static void opens_and_closes(void **state) {
    (void)state;
    mimic_ctx *ctx = NULL;
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    assert_non_null(ctx);
    assert_string_equal(mimic_message(ctx), "");
    assert_int_equal(mimic_last_status(ctx), MIMIC_OK);
    assert_true(mimic_threads(ctx) >= 1);
    assert_true(strlen(mimic_isa(ctx)) > 0);
    assert_true(mimic_grad_enabled(ctx));
    mimic_close(ctx);
    mimic_close(NULL);
}

static void keep_text(void *text, int level, const char *line) {
    assert_int_equal(level, 3);
    snprintf(text, 256, "%s", line);
}

static void isa_by_name(void **state) {
    (void)state;
    mimic_ctx *ctx = (mimic_ctx *)&ctx;
    mimic_config cfg = {.isa = "base", .threads = 1};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    assert_string_equal(mimic_isa(ctx), "base");
    mimic_close(ctx);
    char why[256] = "";
    cfg = (mimic_config){.isa = "abacus", .threads = 1, .log = keep_text, .user = why};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_EUNSUPPORTED);
    assert_null(ctx);
    assert_ptr_equal(strstr(why, "isa \"abacus\": this machine and build have "), why);
    assert_non_null(strstr(why, "base"));
    cfg.isa = NULL;
    setenv("MIMIC_ISA", "counting frame", 1);
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_EUNSUPPORTED);
    assert_ptr_equal(strstr(why, "MIMIC_ISA \"counting frame\": "), why);
    setenv("MIMIC_ISA", "base", 1);
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    assert_string_equal(mimic_isa(ctx), "base");
    mimic_close(ctx);
    unsetenv("MIMIC_ISA");
}

static void two_contexts_are_independent(void **state) {
    (void)state;
    mimic_ctx *a = open_ctx(), *b = open_ctx();
    mimic_fail(a, MIMIC_EIO, "only a");
    mimic_seed(a, 7);
    assert_string_equal(mimic_message(b), "");
    assert_int_equal(mimic_get_seed(b), 0);
    mimic_close(a);
    mimic_fail(b, MIMIC_EIO, "b lives");
    assert_string_equal(mimic_message(b), "b lives");
    mimic_close(b);
}

/* Opening with the n-th host allocation failing, for every n, leaves nothing behind. */
static void open_survives_failing_memory(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        host h = {.fail_from = n};
        mimic_ctx *ctx;
        mimic_status status = host_open(&h, 2, &ctx);
        if (status == MIMIC_OK) {
            assert_true(n > 1);
            mimic_close(ctx);
            assert_int_equal(h.live, 0);
            return;
        }
        assert_int_equal(status, MIMIC_ENOMEM);
        assert_null(ctx);
        assert_int_equal(h.live, 0);
    }
}

/* --- messages --------------------------------------------------------------------------------- */

static void names_of_statuses(void **state) {
    (void)state;
    assert_string_equal(mimic_status_name(MIMIC_OK), "OK");
    assert_string_equal(mimic_status_name(MIMIC_EINVAL), "EINVAL");
    assert_string_equal(mimic_status_name(MIMIC_EDB), "EDB");
    assert_string_equal(mimic_status_name((mimic_status)77), "?");
}

static void messages_carry_the_name_stack(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    char name[16] = "vit";
    mimic_push_name(ctx, name);
    memset(name, 'x', 3); /* the text is copied */
    mimic_push_name(ctx, "blocks.3");
    mimic_push_name(ctx, "attn");
    assert_int_equal(mimic_fail(ctx, MIMIC_EINVAL, "linear: %d and %d", 2, 3), MIMIC_EINVAL);
    assert_string_equal(mimic_message(ctx), "vit.blocks.3.attn: linear: 2 and 3");
    assert_int_equal(mimic_last_status(ctx), MIMIC_EINVAL);
    mimic_pop_name(ctx);
    int depth = mimic_name_depth(ctx);
    assert_int_equal(depth, 2);
    for (int i = 0; i < 100; i++)
        mimic_push_name(ctx, "deep");
    assert_int_equal(mimic_name_depth(ctx), 102);
    mimic_fail(ctx, MIMIC_EINVAL, "still here");
    assert_message(ctx, "vit.blocks.3.deep");
    assert_message(ctx, "still here");
    mimic_set_name_depth(ctx, depth);
    mimic_fail(ctx, MIMIC_EINVAL, "back");
    assert_string_equal(mimic_message(ctx), "vit.blocks.3: back");
    mimic_set_name_depth(ctx, 0);
    mimic_pop_name(ctx); /* one too many is harmless */
    mimic_fail(ctx, MIMIC_EINVAL, "bare");
    assert_string_equal(mimic_message(ctx), "bare");
    mimic_close(ctx);
}

static void messages_may_quote_the_last_one(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_fail(ctx, MIMIC_EIO, "inner");
    mimic_fail(ctx, MIMIC_EFORMAT, "outer: %s", mimic_message(ctx));
    assert_string_equal(mimic_message(ctx), "outer: inner");
    char *long_text = malloc(100000);
    memset(long_text, 'y', 99999);
    long_text[99999] = 0;
    mimic_push_name(ctx, long_text);
    mimic_fail(ctx, MIMIC_EIO, "%s", long_text);
    assert_int_equal(mimic_message(ctx)[0], 'y');
    free(long_text);
    assert_int_equal(mimic_fail(NULL, MIMIC_EIO, "nobody listens"), MIMIC_EIO);
    mimic_close(ctx);
}

static void logged(void *user, int level, const char *text) {
    snprintf(user, 64, "%d %s", level, text);
}

static void log_goes_to_the_host(void **state) {
    (void)state;
    char text[64] = "";
    mimic_ctx *ctx;
    mimic_config cfg = {.log = logged, .user = text, .threads = 1};
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    mimic_log(ctx, 2, "disk %s", "full");
    assert_string_equal(text, "2 disk full");
    mimic_close(ctx);
}

/* --- allocation ------------------------------------------------------------------------------- */

static void allocations_are_aligned_and_counted(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    int64_t live = mimic_alloc_live(ctx), count = mimic_alloc_count(ctx);
    void *p[20];
    for (int i = 0; i < 20; i++) {
        p[i] = mimic_alloc(ctx, (size_t)1 << i);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        memset(p[i], 1, (size_t)1 << i);
    }
    char *text = mimic_strdup(ctx, "text");
    text = mimic_realloc(ctx, text, 5, 5000);
    assert_string_equal(text, "text");
    assert_int_equal(mimic_alloc_live(ctx), live + 21);
    assert_true(mimic_alloc_count(ctx) >= count + 22);
    for (int i = 0; i < 20; i++)
        mimic_free(ctx, p[i]);
    mimic_free(ctx, text);
    mimic_free(ctx, NULL);
    assert_int_equal(mimic_alloc_live(ctx), live);
    mimic_close(ctx);
}

static void faults_are_injected(void **state) {
    (void)state;
    mimic_ctx *ctx = open_ctx();
    mimic_fail_alloc(ctx, 2, false);
    void *a = mimic_alloc(ctx, 8), *b = mimic_alloc(ctx, 8), *c = mimic_alloc(ctx, 8);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_int_equal(mimic_last_status(ctx), MIMIC_ENOMEM);
    assert_message(ctx, "out of memory");
    mimic_fail_alloc(ctx, 1, true);
    for (int i = 0; i < 3; i++)
        assert_null(mimic_alloc(ctx, 8));
    mimic_fail_alloc(ctx, 0, false);
    b = mimic_alloc(ctx, 8);
    assert_non_null(b);
    mimic_free(ctx, a);
    mimic_free(ctx, b);
    mimic_free(ctx, c);
    assert_null(mimic_alloc(ctx, SIZE_MAX));
    mimic_close(ctx);
}

/* --- threads ---------------------------------------------------------------------------------- */

typedef struct job {
    mimic_ctx *ctx;
    int threads;
    _Atomic int seen[4000], bad, nested;
} job;

static void mark(void *arg, int64_t i, int worker) {
    job *j = arg;
    j->seen[i]++;
    if (worker < 0 || worker >= j->threads)
        j->bad++;
}

static void mark_nested(void *arg, int64_t i, int worker) {
    (void)i;
    (void)worker;
    ((job *)arg)->nested++;
}

static void nest(void *arg, int64_t i, int worker) {
    mark(arg, i, worker);
    mimic_parallel(((job *)arg)->ctx, 5, mark_nested, arg);
}

static int os_threads(void) {
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* A joined thread may stay in /proc for a moment. */
static void assert_os_threads(int wanted) {
    for (int i = 0; i < 1000 && os_threads() != wanted && os_threads() != -1; i++)
        usleep(1000);
    if (os_threads() != -1)
        assert_int_equal(os_threads(), wanted);
}

static void parallel_runs_everything_once(void **state) {
    (void)state;
    static job j;
    int before = os_threads();
    mimic_ctx *ctx = open_ctx();
    const int threads[] = {1, 2, 3, 8, 2};
    const int64_t sizes[] = {0, 1, 2, 7, 64, 4000};
    for (size_t t = 0; t < sizeof threads / sizeof threads[0]; t++) {
        ok(ctx, mimic_set_threads(ctx, threads[t]));
        assert_int_equal(mimic_threads(ctx), threads[t]);
        assert_os_threads(before + threads[t] - 1);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (int repeat = 0; repeat < 50; repeat++) {
                memset(&j, 0, sizeof j);
                j.threads = threads[t];
                mimic_parallel(ctx, sizes[s], mark, &j);
                for (int64_t i = 0; i < 4000; i++)
                    assert_int_equal(j.seen[i], i < sizes[s]);
                assert_int_equal(j.bad, 0);
            }
    }
    mimic_close(ctx);
    assert_os_threads(before);
}

static void workers_wake_from_sleep(void **state) {
    (void)state;
    static job j;
    mimic_ctx *ctx = open_ctx();
    for (int repeat = 0; repeat < 20; repeat++) {
        memset(&j, 0, sizeof j);
        j.threads = 2;
        usleep(2000);
        mimic_parallel(ctx, 100, mark, &j);
        for (int i = 0; i < 100; i++)
            assert_int_equal(j.seen[i], 1);
    }
    mimic_close(ctx);
}

static void nested_parallel_is_serial(void **state) {
    (void)state;
    static job j;
    mimic_ctx *ctx = open_ctx();
    memset(&j, 0, sizeof j);
    j.ctx = ctx;
    j.threads = 2;
    mimic_parallel(ctx, 40, nest, &j);
    for (int i = 0; i < 40; i++)
        assert_int_equal(j.seen[i], 1);
    assert_int_equal(j.nested, 200);
    mimic_close(ctx);
}

static void threads_come_from_the_environment(void **state) {
    (void)state;
    mimic_ctx *ctx;
    setenv("MIMIC_THREADS", "3", 1);
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    assert_int_equal(mimic_threads(ctx), 3);
    mimic_close(ctx);
    mimic_config cfg = {.threads = 1}; /* the host's word counts more */
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    assert_int_equal(mimic_threads(ctx), 1);
    assert_int_equal(mimic_set_threads(ctx, 0), MIMIC_EINVAL);
    assert_int_equal(mimic_threads(ctx), 1);
    mimic_close(ctx);
    cfg.threads = 257;
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_EINVAL);
    const char *const wrong[] = {"many", "0", "-1", "2x", "257", "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char why[256] = "";
        cfg = (mimic_config){.log = keep_text, .user = why};
        setenv("MIMIC_THREADS", wrong[i], 1);
        assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_EINVAL);
        assert_null(ctx);
        assert_non_null(strstr(why, "a number from 1 to 256 expected"));
        assert_non_null(strstr(why, wrong[i]));
    }
    setenv("MIMIC_THREADS", "", 1); /* as if it were not set */
    assert_int_equal(mimic_open(NULL, &ctx), MIMIC_OK);
    mimic_close(ctx);
    unsetenv("MIMIC_THREADS");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_and_closes),
        cmocka_unit_test(isa_by_name),
        cmocka_unit_test(two_contexts_are_independent),
        cmocka_unit_test(open_survives_failing_memory),
        cmocka_unit_test(names_of_statuses),
        cmocka_unit_test(messages_carry_the_name_stack),
        cmocka_unit_test(messages_may_quote_the_last_one),
        cmocka_unit_test(log_goes_to_the_host),
        cmocka_unit_test(allocations_are_aligned_and_counted),
        cmocka_unit_test(faults_are_injected),
        cmocka_unit_test(parallel_runs_everything_once),
        cmocka_unit_test(workers_wake_from_sleep),
        cmocka_unit_test(nested_parallel_is_serial),
        cmocka_unit_test(threads_come_from_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The queue between trainers and the disk. mimic_db_log appends to a list of blocks under a mutex
 * that is never held across I/O; a thread takes the blocks and writes them. Nothing queued is ever
 * dropped: a batch that fails stays and is tried again. */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "store/db_impl.h"

enum {
    BLOCK_ROWS = 4000,
    BATCH_ROWS = 1000,    /* wake the writer */
    BATCH_MS = 500,       /* or after that time */
    QUEUE_ROWS = 4000000, /* above, a log call waits for the writer */
    SPARE_BLOCKS = 8,     /* kept for reuse */
    BUCKETS = 1024
};

typedef struct block {
    struct block *next;
    int n;
    mimic_row rows[BLOCK_ROWS];
} block;

struct mimic_writer {
    mimic_ctx *ctx;
    mimic_db *db;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    /* under the mutex */
    block *head, *tail, *spare; /* head: the oldest */
    int spares;
    bool stop, asleep;
    int64_t queued, asked, answered; /* flush requests and the last one answered */
    mimic_db_counts counts;
    char failed[MIMIC_DB_TEXT]; /* why the last attempt failed, "" if it did not */
    bool unreported;            /* the caller does not know it yet */
    int64_t lost, lost_run;     /* rows of a deleted run, the caller does not know of */
    struct {
        int64_t trial, ms; /* trial 0: none is held */
        int64_t due;       /* when to renew */
        uint8_t token[8];
        bool held;
    } lease;
    /* of the caller's thread */
    mimic_series *buckets[BUCKETS];
    uint32_t n_series;
    /* of the writer thread */
    mimic_rows rows;
};

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What the last batch did; the mutex is held. */
static void account(mimic_writer *w, const mimic_outcome *batch, const block *b, bool ok,
                    const char *err) {
    if (!ok) {
        w->counts.failures++;
        w->unreported = true;
        memcpy(w->failed, err, sizeof w->failed);
        return;
    }
    w->queued -= b->n;
    w->counts.batches++;
    w->counts.written += b->n - batch->lost;
    w->counts.lost += batch->lost;
    if (batch->lost > 0) {
        w->lost_run = batch->lost_run;
        w->lost += batch->lost;
    }
    w->unreported = false;
    w->failed[0] = 0;
    pthread_cond_broadcast(&w->done);
}

/* Writes the blocks, oldest first; those done are given back. True when all are in the file. */
static bool write_blocks(mimic_writer *w, block **list) {
    char err[MIMIC_DB_TEXT] = "";
    while (*list) {
        block *b = *list;
        mimic_outcome batch;
        bool ok = mimic_rows_write(&w->rows, b->rows, b->n, &batch, err);
        /* The caller's own transaction is not an obstacle to report: it will end. */
        while (!ok && batch.locked_out && w->db->in_tx)
            ok = mimic_rows_write(&w->rows, b->rows, b->n, &batch, err);
        pthread_mutex_lock(&w->mutex);
        account(w, &batch, b, ok, err);
        if (ok)
            *list = b->next;
        if (ok && w->spares < SPARE_BLOCKS) {
            b->next = w->spare;
            w->spare = b;
            w->spares++;
            b = NULL;
        }
        pthread_mutex_unlock(&w->mutex);
        if (!ok)
            return false;
        mimic_free(w->ctx, b);
    }
    return true;
}

/* Renews the lease a quarter of its time after the last renewal. A failure is tried again at the
 * next turn. The mutex is held, and given up meanwhile. */
static void renew_lease(mimic_writer *w) {
    char err[MIMIC_DB_TEXT];
    uint8_t token[8];
    bool held = false;
    int64_t trial = w->lease.trial, ms = w->lease.ms, now = now_ms();
    if (trial == 0 || !w->lease.held || now < w->lease.due)
        return;
    memcpy(token, w->lease.token, sizeof token);
    pthread_mutex_unlock(&w->mutex);
    bool ok = mimic_rows_renew(&w->rows, trial, token, now + ms, now, &held, err);
    pthread_mutex_lock(&w->mutex);
    if (!ok || w->lease.trial != trial || memcmp(w->lease.token, token, sizeof token) != 0)
        return;
    w->lease.held = held;
    w->lease.due = now + ms / 4;
}

/* Sleeps until there is a batch, a flush, the end, or the time is over. The mutex is held. */
static void wait_for_work(mimic_writer *w, bool failed) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ms = BATCH_MS;
    if (w->lease.trial && w->lease.ms / 4 < ms)
        ms = w->lease.ms / 4;
    until.tv_nsec += (long)ms * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    w->asleep = true;
    while (!w->stop && w->asked == w->answered && (failed || w->queued < BATCH_ROWS))
        if (pthread_cond_timedwait(&w->wake, &w->mutex, &until) != 0)
            break;
    w->asleep = false;
}

static void free_blocks(mimic_ctx *ctx, block *b) {
    for (block *next; b; b = next) {
        next = b->next;
        mimic_free(ctx, b);
    }
}

/* What could not be written is tried again before anything new is taken, so that few blocks pile
 * up. */
static void *writer_main(void *arg) {
    mimic_writer *w = arg;
    block *list = NULL; /* taken, not written yet */
    bool failed = false, stop = false;
    pthread_mutex_lock(&w->mutex);
    while (!stop || (w->head && !failed)) {
        wait_for_work(w, failed);
        stop = w->stop;
        int64_t asked = w->asked;
        pthread_mutex_unlock(&w->mutex);
        failed = !write_blocks(w, &list);
        if (!failed) {
            pthread_mutex_lock(&w->mutex);
            list = w->head;
            w->head = w->tail = NULL;
            pthread_mutex_unlock(&w->mutex);
            failed = !write_blocks(w, &list);
        }
        pthread_mutex_lock(&w->mutex);
        renew_lease(w);
        w->answered = asked;
        pthread_cond_broadcast(&w->done);
    }
    pthread_mutex_unlock(&w->mutex);
    free_blocks(w->ctx, list); /* their rows are still counted as queued */
    return NULL;
}

static void free_writer(mimic_writer *w) {
    for (int i = 0; i < BUCKETS; i++)
        for (mimic_series *s = w->buckets[i], *next; s; s = next) {
            next = s->next;
            mimic_free(w->ctx, s->name);
            mimic_free(w->ctx, s);
        }
    free_blocks(w->ctx, w->head);
    free_blocks(w->ctx, w->spare);
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->done);
    pthread_mutex_destroy(&w->mutex);
    mimic_free(w->ctx, w);
}

static mimic_status start_writer(mimic_db *db) {
    char err[MIMIC_DB_TEXT];
    if (!db->write)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s is open for reading only", db->path);
    mimic_writer *w = mimic_calloc(db->ctx, sizeof *w);
    if (!w)
        return MIMIC_ENOMEM;
    w->ctx = db->ctx;
    w->db = db;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wake, &clock);
    pthread_cond_init(&w->done, &clock);
    pthread_condattr_destroy(&clock);
    if (!mimic_rows_open(&w->rows, db->path, db->lock_path, err)) {
        mimic_fail(db->ctx, MIMIC_EDB, "%s: %s", db->path, err);
        free_writer(w);
        return MIMIC_EDB;
    }
    sigset_t all, before; /* signals are for the host's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&w->thread, NULL, writer_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        mimic_rows_close(&w->rows);
        free_writer(w);
        return mimic_fail(db->ctx, MIMIC_ENOMEM, "%s: cannot start the writer thread: %s", db->path,
                          strerror(error));
    }
    db->writer = w;
    return MIMIC_OK;
}

static bool count_one(void *user, int n, const char *const *names, const mimic_value *values) {
    (void)n;
    (void)names;
    *(bool *)user = values[0].i > 0;
    return true;
}

/* The series of (run, name); a new one only for a run that exists. */
static mimic_status find_series(mimic_db *db, int64_t run, const char *name, mimic_series **out) {
    mimic_writer *w = db->writer;
    uint64_t hash = 14695981039346656037u ^ (uint64_t)run;
    for (const char *p = name; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    for (mimic_series *s = w->buckets[hash % BUCKETS]; s; s = s->next)
        if (s->hash == hash && s->run == run && strcmp(s->name, name) == 0) {
            *out = s;
            return MIMIC_OK;
        }
    bool known = false;
    const mimic_value bind = {.kind = MIMIC_INT, .i = run};
    mimic_status st =
        mimic_db_exec(db, "SELECT count(*) FROM run WHERE id = ?", &bind, 1, count_one, &known);
    if (st)
        return st;
    if (!known)
        return mimic_fail(db->ctx, MIMIC_EINVAL,
                          "%s: metric '%s' for run %lld, which does not exist", db->path, name,
                          (long long)run);
    mimic_series *s = mimic_calloc(w->ctx, sizeof *s);
    char *copy = s ? mimic_strdup(w->ctx, name) : NULL;
    if (!copy) {
        mimic_free(w->ctx, s);
        return MIMIC_ENOMEM;
    }
    *s = (mimic_series){.run = run, .name = copy, .hash = hash, .index = w->n_series++};
    s->next = w->buckets[hash % BUCKETS];
    w->buckets[hash % BUCKETS] = *out = s;
    return MIMIC_OK;
}

/* What the writer could not do, once (a failure that lasts is new with each attempt). Gives up the
 * mutex. */
static mimic_status report(mimic_db *db, bool all) {
    mimic_writer *w = db->writer;
    char failed[MIMIC_DB_TEXT];
    bool tell = w->unreported || (all && w->failed[0]);
    int64_t queued = w->queued, lost = tell ? 0 : w->lost, run = w->lost_run;
    if (tell)
        memcpy(failed, w->failed, sizeof failed);
    w->unreported = false;
    w->lost -= lost;
    pthread_mutex_unlock(&w->mutex);
    if (tell)
        return mimic_fail(db->ctx, MIMIC_EDB,
                          "%s: metrics could not be written: %s (%lld rows wait)", db->path, failed,
                          (long long)queued);
    if (lost > 0)
        return mimic_fail(db->ctx, MIMIC_EDB,
                          "%s: run %lld was deleted while it logged; %lld rows have no place",
                          db->path, (long long)run, (long long)lost);
    return MIMIC_OK;
}

mimic_status mimic_db_log(mimic_db *db, int64_t run, const char *name, int64_t step, double value) {
    mimic_status st = db->writer ? MIMIC_OK : start_writer(db);
    if (st)
        return st;
    mimic_writer *w = db->writer;
    mimic_series *s = NULL;
    if ((st = find_series(db, run, name, &s)))
        return st;
    int64_t t = now_ms();
    bool stalled = false;
    pthread_mutex_lock(&w->mutex);
    while (w->queued >= QUEUE_ROWS && !db->in_tx && !w->failed[0]) {
        w->counts.stalls += !stalled;
        stalled = true;
        pthread_cond_wait(&w->done, &w->mutex);
    }
    block *b = w->tail;
    if (!b || b->n == BLOCK_ROWS) {
        if ((b = w->spare)) {
            w->spare = b->next;
            w->spares--;
        } else if (!(b = mimic_alloc(w->ctx, sizeof *b))) {
            pthread_mutex_unlock(&w->mutex);
            return MIMIC_ENOMEM;
        }
        b->next = NULL;
        b->n = 0;
        if (w->tail)
            w->tail->next = b;
        else
            w->head = b;
        w->tail = b;
    }
    b->rows[b->n] =
        (mimic_row){.series = s, .step = step, .t = t, .value = value, .order = (uint32_t)b->n};
    b->n++;
    w->counts.logged++;
    int64_t queued = ++w->queued;
    if (queued > w->counts.queued_max)
        w->counts.queued_max = queued;
    if (w->asleep && queued == BATCH_ROWS)
        pthread_cond_signal(&w->wake);
    return report(db, false);
}

mimic_status mimic_db_flush(mimic_db *db) {
    mimic_writer *w = db->writer;
    if (!w)
        return MIMIC_OK;
    if (db->in_tx)
        return mimic_fail(db->ctx, MIMIC_ESTATE,
                          "%s: metrics cannot be flushed inside a transaction; flush before it",
                          db->path);
    pthread_mutex_lock(&w->mutex);
    int64_t ticket = ++w->asked;
    pthread_cond_signal(&w->wake);
    while (w->answered < ticket)
        pthread_cond_wait(&w->done, &w->mutex);
    return report(db, true);
}

mimic_status mimic_db_hold(mimic_db *db, int64_t trial, const uint8_t token[8], int64_t ms) {
    mimic_status st = db->writer ? MIMIC_OK : start_writer(db);
    if (st)
        return st;
    if (ms < 4)
        return mimic_fail(db->ctx, MIMIC_EINVAL, "a lease lasts 4 ms or longer");
    mimic_writer *w = db->writer;
    pthread_mutex_lock(&w->mutex);
    w->lease.trial = trial;
    w->lease.ms = ms;
    w->lease.due = now_ms() + ms / 4;
    w->lease.held = true;
    memcpy(w->lease.token, token, sizeof w->lease.token);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    return MIMIC_OK;
}

bool mimic_db_held(mimic_db *db) {
    mimic_writer *w = db->writer;
    if (!w)
        return false;
    pthread_mutex_lock(&w->mutex);
    bool held = w->lease.trial != 0 && w->lease.held;
    pthread_mutex_unlock(&w->mutex);
    return held;
}

bool mimic_db_let_go(mimic_db *db) {
    bool held = mimic_db_held(db);
    if (db->writer) {
        pthread_mutex_lock(&db->writer->mutex);
        db->writer->lease.trial = 0;
        pthread_mutex_unlock(&db->writer->mutex);
    }
    return held;
}

void mimic_db_stats(mimic_db *db, mimic_db_counts *out) {
    mimic_writer *w = db->writer;
    *out = (mimic_db_counts){0};
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    *out = w->counts;
    out->queued = w->queued;
    pthread_mutex_unlock(&w->mutex);
}

mimic_status mimic_writer_close(mimic_db *db) {
    mimic_writer *w = db->writer;
    if (!w)
        return MIMIC_OK;
    pthread_mutex_lock(&w->mutex);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    mimic_status st = MIMIC_OK;
    if (w->queued > 0)
        st = mimic_fail(db->ctx, MIMIC_EDB,
                        "%s: %lld metric rows could not be written and are lost: %s", db->path,
                        (long long)w->queued, w->failed);
    mimic_rows_close(&w->rows);
    db->writer = NULL;
    free_writer(w);
    return st;
}

/* The context's compute threads. A job is n chunks claimed from one atomic counter; the caller
 * works too, and waits only for workers that came in, so a worker the system has not woken yet
 * delays nobody. Workers spin for a short while after a job, because the next one mostly follows at
 * once, then sleep. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/ctx.h"

enum { SPIN = 4000, MAX_THREADS = 256, OPEN = 1 << 30 };

typedef struct worker {
    mimic_threads_pool *pool;
    int index;
    pthread_t thread;
} worker;

struct mimic_threads_pool {
    int threads; /* the caller included */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */
    bool busy; /* inside mimic_parallel: nested calls run serially */
    /* the job: these stay as they are while `inside` is not 0 */
    int64_t n, grain;
    void (*fn)(void *arg, int64_t i, int worker);
    void *arg;
    /* on cache lines of their own */
    _Alignas(64) _Atomic int64_t next; /* first chunk that nobody claimed */
    _Alignas(64) _Atomic int inside;   /* workers in the job; OPEN: more may come in */
    _Alignas(64) _Atomic uint64_t job; /* number of the current job; changes start the workers */
    _Atomic int sleeping;
    worker workers[];
};

/* Set in every thread the engine starts: there the context's message must not be touched. */
static _Thread_local bool worker_thread;

void mimic_mark_worker_thread(void) {
    worker_thread = true;
}

bool mimic_on_own_thread(const mimic_ctx *ctx) {
    (void)ctx;
    return !worker_thread;
}

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void work(mimic_threads_pool *p, int index) {
    const int64_t n = p->n, grain = p->grain;
    for (;;) {
        int64_t from = atomic_fetch_add_explicit(&p->next, grain, memory_order_relaxed);
        int64_t to = from + grain < n ? from + grain : n;
        if (from >= n)
            return;
        for (int64_t i = from; i < to; i++)
            p->fn(p->arg, i, index);
    }
}

/* Takes part in the current job, unless that is over. */
static void join_job(mimic_threads_pool *p, int index) {
    int inside = atomic_load_explicit(&p->inside, memory_order_relaxed);
    while (inside & OPEN)
        if (atomic_compare_exchange_weak_explicit(&p->inside, &inside, inside + 1,
                                                  memory_order_acquire, memory_order_relaxed)) {
            work(p, index);
            atomic_fetch_sub_explicit(&p->inside, 1, memory_order_release);
            return;
        }
}

/* Waits until the job number differs from *seen, which it becomes: spins, then sleeps. False at the
 * end. */
static bool wait_job(mimic_threads_pool *p, uint64_t *seen) {
    uint64_t job = *seen;
    for (int i = 0; i < SPIN && job == *seen; i++) {
        job = atomic_load_explicit(&p->job, memory_order_acquire);
        pause_cpu();
    }
    bool go = true;
    if (job == *seen) {
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->sleeping, 1);
        while (!p->stop && (job = atomic_load(&p->job)) == *seen)
            pthread_cond_wait(&p->wake, &p->lock);
        atomic_fetch_sub(&p->sleeping, 1);
        go = !p->stop;
        pthread_mutex_unlock(&p->lock);
    }
    *seen = job;
    return go;
}

static void *worker_main(void *arg) {
    worker *w = arg;
    mimic_mark_worker_thread();
    for (uint64_t seen = 0; wait_job(w->pool, &seen);)
        join_job(w->pool, w->index);
    return NULL;
}

/* Wakes sleepers for n - 1 chunks: the caller takes one itself. */
static void wake(mimic_threads_pool *p, int64_t n) {
    int sleeping = atomic_load(&p->sleeping);
    if (sleeping == 0)
        return;
    pthread_mutex_lock(&p->lock);
    if (n > sleeping)
        pthread_cond_broadcast(&p->wake);
    else
        for (int64_t i = 1; i < n; i++)
            pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void mimic_parallel(mimic_ctx *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int worker),
                    void *arg) {
    mimic_threads_pool *p = ctx->threads;
    if (n <= 1 || p->threads == 1 || worker_thread || p->busy) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    p->busy = true;
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->grain = 1 + n / (32 * (int64_t)p->threads);
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->inside, OPEN, memory_order_release);
    atomic_fetch_add(&p->job, 1);
    wake(p, n);
    work(p, 0);
    atomic_fetch_and(&p->inside, ~OPEN);
    for (int i = 0; atomic_load_explicit(&p->inside, memory_order_acquire) > 0; i++) {
        if (i < SPIN)
            pause_cpu();
        else
            sched_yield();
    }
    p->busy = false;
}

void mimic_threads_close(mimic_ctx *ctx) {
    mimic_threads_pool *p = ctx->threads;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    atomic_fetch_add(&p->job, 1); /* ends spinning; the next wait sees `stop` under the lock */
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i + 1 < p->threads; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    mimic_free_raw(ctx, p);
    ctx->threads = NULL;
}

/* MIMIC_THREADS, or the cores this process may use; 0 after setting the message. */
static int default_threads(mimic_ctx *ctx) {
    const char *env = getenv("MIMIC_THREADS");
    if (env && env[0]) {
        char *end;
        long n = strtol(env, &end, 10);
        if (*end == 0 && n >= 1 && n <= MAX_THREADS)
            return (int)n;
        mimic_fail(ctx, MIMIC_EINVAL, "MIMIC_THREADS \"%.60s\": a number from 1 to %d expected",
                   env, MAX_THREADS);
        return 0;
    }
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return cores < MAX_THREADS ? cores : MAX_THREADS;
}

/* Starts the workers with all signals blocked, so that the host's handlers run on the host's
 * threads. */
static bool start_workers(mimic_threads_pool *p, int threads) {
    sigset_t all, old;
    int failed = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (p->threads = 1; p->threads < threads && !failed; p->threads += !failed) {
        worker *w = &p->workers[p->threads - 1];
        *w = (worker){.pool = p, .index = p->threads};
        failed = pthread_create(&w->thread, NULL, worker_main, w);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return !failed;
}

mimic_status mimic_threads_init(mimic_ctx *ctx, int threads) {
    if (threads <= 0 && (threads = default_threads(ctx)) == 0)
        return MIMIC_EINVAL;
    if (threads > MAX_THREADS)
        return mimic_fail(ctx, MIMIC_EINVAL, "threads: %d is more than %d", threads, MAX_THREADS);
    size_t bytes = sizeof(mimic_threads_pool) + (size_t)(threads - 1) * sizeof(worker);
    mimic_threads_pool *p = mimic_alloc_raw(ctx, bytes);
    if (!p)
        return mimic_fail(ctx, MIMIC_ENOMEM, "out of memory: no room for %d threads", threads);
    memset(p, 0, bytes);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    ctx->threads = p;
    if (start_workers(p, threads))
        return MIMIC_OK;
    int started = p->threads;
    mimic_threads_close(ctx);
    return mimic_fail(ctx, MIMIC_ENOMEM, "cannot start compute thread %d of %d", started + 1,
                      threads);
}

int mimic_threads(const mimic_ctx *ctx) {
    return ctx->threads->threads;
}

mimic_status mimic_set_threads(mimic_ctx *ctx, int threads) {
    mimic_threads_pool *old = ctx->threads;
    if (threads < 1)
        return mimic_fail(ctx, MIMIC_EINVAL, "threads: %d is not at least 1", threads);
    if (threads == old->threads)
        return MIMIC_OK;
    mimic_status st = mimic_threads_init(ctx, threads);
    mimic_threads_pool *fresh = ctx->threads;
    ctx->threads = old;
    if (st)
        return st;
    mimic_threads_close(ctx);
    ctx->threads = fresh;
    return MIMIC_OK;
}

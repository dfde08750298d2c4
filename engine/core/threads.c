/* The context's compute threads. A job is n chunks claimed from one atomic counter; the caller works too.
 * Workers spin for a short while after a job, because the next one mostly follows at once, then sleep. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/ctx.h"

enum { SPIN = 4000, MAX_THREADS = 256 };

typedef struct worker {
    mimic_threads_pool *pool;
    int index;
    pthread_t thread;
} worker;

struct mimic_threads_pool {
    int threads; /* the caller included */
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic uint64_t job;     /* number of the current job; changes start the workers */
    _Atomic int64_t next;     /* next chunk to claim */
    _Atomic int running;      /* workers that have not finished the current job */
    _Atomic int sleeping;
    _Atomic bool stop;
    bool busy; /* inside mimic_parallel: nested calls run serially */
    int64_t n;
    void (*fn)(void *arg, int64_t i, int worker);
    void *arg;
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
#endif
}

static void work(mimic_threads_pool *p, int index) {
    for (int64_t i; (i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed)) < p->n;)
        p->fn(p->arg, i, index);
}

/* Waits until the job number differs from `seen`: spins, then sleeps. */
static uint64_t wait_job(mimic_threads_pool *p, uint64_t seen) {
    for (int i = 0; i < SPIN; i++) {
        uint64_t job = atomic_load_explicit(&p->job, memory_order_acquire);
        if (job != seen)
            return job;
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1);
    uint64_t job;
    while ((job = atomic_load(&p->job)) == seen)
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
    return job;
}

static void *worker_main(void *arg) {
    worker *w = arg;
    mimic_threads_pool *p = w->pool;
    uint64_t seen = 0;
    mimic_mark_worker_thread();
    for (;;) {
        seen = wait_job(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        work(p, w->index);
        atomic_fetch_sub_explicit(&p->running, 1, memory_order_release);
    }
}

static void start_job(mimic_threads_pool *p) {
    atomic_fetch_add(&p->job, 1);
    if (atomic_load(&p->sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void mimic_parallel(mimic_ctx *ctx, int64_t n, void (*fn)(void *arg, int64_t i, int worker),
                    void *arg) {
    mimic_threads_pool *p = ctx->threads;
    if (n <= 1 || p->threads == 1 || p->busy || !mimic_on_own_thread(ctx)) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    p->busy = true;
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->running, p->threads - 1, memory_order_relaxed);
    start_job(p);
    work(p, 0);
    for (int spins = 0; atomic_load_explicit(&p->running, memory_order_acquire) > 0; spins++) {
        if (spins < SPIN)
            pause_cpu();
        else
            sched_yield();
    }
    p->busy = false;
}

static void join(mimic_threads_pool *p, int started) {
    atomic_store(&p->stop, true);
    start_job(p);
    for (int i = 0; i < started; i++)
        pthread_join(p->workers[i].thread, NULL);
}

void mimic_threads_close(mimic_ctx *ctx) {
    mimic_threads_pool *p = ctx->threads;
    if (!p)
        return;
    join(p, p->threads - 1);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    mimic_free(ctx, p->workers);
    mimic_free(ctx, p);
    ctx->threads = NULL;
}

static int default_threads(void) {
    const char *env = getenv("MIMIC_THREADS");
    if (env && atoi(env) > 0)
        return atoi(env);
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

mimic_status mimic_threads_init(mimic_ctx *ctx, int threads) {
    if (threads <= 0)
        threads = default_threads();
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    mimic_threads_pool *p = mimic_calloc(ctx, sizeof *p);
    if (!p)
        return MIMIC_ENOMEM;
    p->workers = mimic_calloc(ctx, (size_t)threads * sizeof *p->workers);
    if (!p->workers) {
        mimic_free(ctx, p);
        return MIMIC_ENOMEM;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = threads;
    for (int i = 0; i + 1 < threads; i++) {
        p->workers[i] = (worker){.pool = p, .index = i + 1};
        if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]) != 0) {
            p->threads = i + 1;
            ctx->threads = p;
            mimic_threads_close(ctx);
            return mimic_fail(ctx, MIMIC_ENOMEM, "cannot start compute thread %d of %d", i + 2,
                              threads);
        }
    }
    ctx->threads = p;
    return MIMIC_OK;
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
    ctx->threads = NULL;
    mimic_status st = mimic_threads_init(ctx, threads);
    if (st) {
        ctx->threads = old;
        return st;
    }
    mimic_threads_pool *fresh = ctx->threads;
    ctx->threads = old;
    mimic_threads_close(ctx);
    ctx->threads = fresh;
    return MIMIC_OK;
}

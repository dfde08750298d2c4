/* The matrix product around the register tile: packs B into panels, cuts C into tiles of about
 * GEMM_MAX_MB rows that the threads claim, and blocks k for the caches. Tile shape may follow the
 * number of threads, since an element's arithmetic does not depend on it; the blocks of k are
 * fixed. */
#include "backend/cpu/gemm.h"

/* Bytes of B packed at a time: weights whole; a long k (rows of a batch, summed into C) in pieces
 * that stay in cache from packing to use. */
#define GEMM_PACKED_WHOLE (16 << 20)
#define GEMM_PACKED_PIECE (2 << 20)
#define GEMM_LONG_K 3072
/* Multiply-adds below which threads are not woken. */
#define GEMM_SERIAL_WORK 1000000

typedef struct gemm_job {
    gemm_args g;
    gemm_kind kind;
    int unit, nr;
    int64_t K, units;               /* elements and units of k */
    bool a_packed;                  /* A is copied into scratch, else read in place */
    bool b_packed, direct;          /* sums wait in C itself */
    int64_t mb, nb, tasks_n, tasks; /* a task: mb rows by nb panels */
    int64_t panels, k0, k1;         /* units packed now */
    char *packed;                   /* panels, (k1-k0)*nr units each */
    char *scratch;
    size_t scratch_size; /* of one worker: A block, then sums */
    size_t a_size;
    int64_t batch, sa, sb, sc; /* bytes */
} gemm_job;

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t up(int64_t n, int64_t step) {
    return (n + step - 1) / step;
}

/* Fetches m rows of `bytes` that will be written: they lie too far apart for the hardware to
 * foresee, and a store that waits for its line holds up all behind it. */
static void fetch_rows(const char *p, int64_t ld, int m, int64_t bytes) {
    for (int i = 0; i < m; i++, p += ld) {
        for (int64_t b = 0; b < bytes; b += 64)
            __builtin_prefetch(p + b, 1);
        __builtin_prefetch(p + bytes - 1, 1);
    }
}

static gemm_tile_fn tile_fn(gemm_kind kind, bool kmajor, int m, int nv) {
#ifdef __AMX_BF16__
    if (kind == GEMM_TILES)
        return KERNEL(gemm_amx_tile)(m, nv);
#endif
    return KERNEL(gemm_tile)(kind, kmajor, m, nv);
}

/* One register tile at (row, panel j) for units kb..kb+kc of A at `a`; finishes it after the last
 * unit. */
static void tile(const gemm_job *job, int64_t row, int m, int64_t j, const char *a, int64_t lda,
                 int64_t kb, int64_t kc, char *sums, int64_t sums_ld) {
    const gemm_args *g = &job->g;
    const int w = gemm_vector(job->kind), size = job->kind == GEMM_F64 ? 8 : 4;
    int64_t col = j * job->nr;
    int n = (int)min64(job->nr, g->n - col), nv = (n + w - 1) / w;
    const char *b =
        job->b_packed ? job->packed + (j * (job->k1 - job->k0) + kb - job->k0) * job->nr * job->unit
                      : (const char *)g->b + (kb * g->ldb + col) * job->unit;
    int64_t ldb = (job->b_packed ? job->nr : g->ldb) * job->unit;
    bool last = kb + kc == job->units;
    bool edge = job->direct && (n % w != 0 || (job->kind == GEMM_TILES && m % AMX_ROWS != 0));
    bool finish = last && (edge || !job->direct || g->bias || g->act != GEMM_ACT_NONE);
    if (kb == 0) { /* the tile takes longer than the lines it writes */
        const int64_t out = (int64_t)mimic_dtype_size(g->out), at = (row * g->ldc + col) * out;
        fetch_rows((const char *)g->c + at, g->ldc * out, m, n * out);
        if (g->pre)
            fetch_rows((const char *)g->pre + at, g->ldc * out, m, n * out);
    }
    char own_sums[AMX_GROUP * GEMM_NR_MAX * sizeof(float)] __attribute__((aligned(64)));
    char *c = sums;
    int64_t ldc = sums_ld;
    if (edge || (!job->direct && kb == 0 && last)) {
        c = own_sums; /* stays in the nearest cache */
        ldc = job->nr * size;
        for (int i = 0; i < m && kb > 0; i++)
            memcpy(c + i * ldc, sums + i * sums_ld, (size_t)(n * size));
    }
    tile_fn(job->kind, g->ta, m, nv)(kc, a, lda, b, ldb, c, ldc, kb > 0);
    if (finish)
        KERNEL(gemm_finish)(g, row, m, col, n, c, ldc / size);
    else if (edge)
        for (int i = 0; i < m; i++)
            memcpy(sums + i * sums_ld, c + i * ldc, (size_t)(n * size));
}

/* How many of the last rows of a task are packed although A is read in place: whole registers are
 * loaded. */
static int64_t packed_rows(const gemm_job *job, int64_t rows) {
    return job->kind == GEMM_TILES && rows % AMX_ROWS != 0 ? rows % AMX_GROUP : 0;
}

/* Rows m0.. and panels j0.. of C for units k0..k1. */
static void run_task(const gemm_job *job, int64_t task, int worker) {
    const gemm_args *g = &job->g;
    const int64_t size = job->kind == GEMM_F64 ? 8 : 4, in = (int64_t)mimic_dtype_size(g->in);
    const int mr = gemm_mr(job->kind);
    int64_t m0 = task / job->tasks_n * job->mb, m1 = min64(m0 + job->mb, g->m);
    int64_t j0 = task % job->tasks_n * job->nb, j1 = min64(j0 + job->nb, job->panels);
    char *copy = job->scratch ? job->scratch + (size_t)worker * job->scratch_size : NULL;
    char *sums =
        job->direct ? (char *)g->c + (m0 * g->ldc + j0 * job->nr) * size : copy + job->a_size;
    int64_t sums_ld = (job->direct ? g->ldc : job->nb * job->nr) * size;
    const int64_t p0 = job->a_packed ? m0 : m1 - packed_rows(job, m1 - m0); /* packed from here */
    for (int64_t kb = job->k0; kb < job->k1; kb += GEMM_BLOCK_K) {
        int64_t kc = min64(GEMM_BLOCK_K, job->k1 - kb);
        /* as it lies, and packed: the bytes of a row and from one group of mr rows to the next */
        int64_t lda = g->lda * in, packed_lda = 0, group = mr * (g->ta ? in : lda), packed_group;
        const char *a =
            (const char *)g->a + (g->ta ? kb * lda + m0 * in : m0 * lda + kb * job->unit);
        if (job->kind == GEMM_TILES) {
            packed_group = kc * mr * job->unit;
        } else {
            packed_lda = (g->ta ? GEMM_MR : kc) * job->unit;
            packed_group = g->ta ? GEMM_GROUP(kc, job->unit) : GEMM_MR * packed_lda;
        }
        if (p0 < m1) {
            KERNEL(gemm_pack_a)
            (job->kind, g->in, g->ta, g->a, g->lda, p0, m1 - p0, kb, kb + kc, job->K, copy);
        }
        for (int64_t j = j0; j < j1; j++) {
            for (int64_t i = m0; i < m1; i += mr) {
                const char *ai =
                    i < p0 ? a + (i - m0) / mr * group : copy + (i - p0) / mr * packed_group;
                tile(job, i, (int)min64(mr, m1 - i), j, ai, i < p0 ? lda : packed_lda, kb, kc,
                     sums + (i - m0) * sums_ld + (j - j0) * job->nr * size, sums_ld);
            }
        }
    }
}
static void task_fn(void *arg, int64_t i, int worker) {
    const gemm_job *job = arg;
#ifdef __AMX_BF16__
    if (job->kind == GEMM_TILES) {
        KERNEL(gemm_amx_begin)();
        run_task(job, i, worker);
        KERNEL(gemm_amx_end)();
        return;
    }
#endif
    run_task(job, i, worker);
}

static void pack_fn(void *arg, int64_t i, int worker) {
    const gemm_job *job = arg;
    const gemm_args *g = &job->g;
    (void)worker;
    int64_t blocks = up(job->k1 - job->k0, GEMM_BLOCK_K), j = i / blocks;
    int64_t kb = job->k0 + i % blocks * GEMM_BLOCK_K, ke = min64(kb + GEMM_BLOCK_K, job->k1);
    KERNEL(gemm_pack_b)
    (job->kind, g->in, g->tb, g->b, g->ldb, j * job->nr, min64(job->nr, g->n - j * job->nr), kb, ke,
     job->K, job->packed + (j * (job->k1 - job->k0) + kb - job->k0) * job->nr * job->unit);
}

/* Units of k packed at a time. */
static int64_t k_step(const gemm_job *job) {
    int64_t row = job->panels * job->nr * job->unit;
    bool whole = job->units <= GEMM_LONG_K && row * job->units <= GEMM_PACKED_WHOLE;
    if (!job->b_packed || !job->direct || whole)
        return job->units;
    int64_t blocks = GEMM_PACKED_PIECE / (row * GEMM_BLOCK_K);
    return (blocks > 0 ? blocks : 1) * GEMM_BLOCK_K;
}

/* One problem: with ctx on all threads, else on this one as `worker`. */
static void run(gemm_job *job, mimic_ctx *ctx, int worker) {
    int64_t step = k_step(job);
    for (job->k0 = 0; job->k0 < job->units; job->k0 = job->k1) {
        job->k1 = min64(job->k0 + step, job->units);
        int64_t packs = job->b_packed ? job->panels * up(job->k1 - job->k0, GEMM_BLOCK_K) : 0;
        if (ctx && packs > 1) {
            mimic_parallel(ctx, packs, pack_fn, job);
        } else {
            for (int64_t i = 0; i < packs; i++)
                pack_fn(job, i, worker);
        }
        if (ctx) {
            mimic_parallel(ctx, job->tasks, task_fn, job);
        } else {
            for (int64_t i = 0; i < job->tasks; i++)
                task_fn(job, i, worker);
        }
    }
}

static void move_to_item(gemm_job *job, const gemm_job *first, int64_t i) {
    job->g.a = (const char *)first->g.a + i * first->sa;
    job->g.b = (const char *)first->g.b + i * first->sb;
    job->g.c = (char *)first->g.c + i * first->sc;
}
/* A problem of the batch on one thread, B packed into the worker's own scratch. */
static void batch_fn(void *arg, int64_t i, int worker) {
    const gemm_job *first = arg;
    gemm_job job = *first;
    move_to_item(&job, first, i);
    if (job.b_packed) {
        size_t packed = (size_t)(k_step(&job) * job.panels * job.nr * job.unit);
        job.packed = job.scratch + (size_t)(worker + 1) * job.scratch_size - packed;
    }
    run(&job, NULL, worker);
}

/* Fills in kind, tile shape and what has to be copied. */
static void plan(gemm_job *job, int threads) {
    const gemm_args *g = &job->g;
    job->kind = g->in == MIMIC_F64 ? GEMM_F64 : GEMM_F32;
#if defined(__AMX_BF16__)
    if (g->in == MIMIC_BF16)
        job->kind = GEMM_TILES;
#elif defined(__AVX512BF16__)
    if (g->in == MIMIC_BF16)
        job->kind = GEMM_PAIRS;
#endif
    const bool widened = job->kind == GEMM_F32 && g->in == MIMIC_BF16;
    job->unit = gemm_unit(job->kind);
    job->nr = gemm_nr(job->kind);
    job->K = g->k;
    job->units = job->kind == GEMM_PAIRS   ? up(g->k, 2)
                 : job->kind == GEMM_TILES ? up(g->k, 2 * AMX_UNITS) * AMX_UNITS
                                           : g->k;
    job->panels = up(g->n, job->nr);
    job->direct = g->out == mimic_accum_dtype(g->in);
    const int mr = gemm_mr(job->kind);
    if (job->kind == GEMM_TILES)
        job->a_packed = g->ta || g->k % (2 * AMX_UNITS) != 0;
    else if (g->ta) /* in place when read once only: strided, but no copy */
        job->a_packed = g->in == MIMIC_BF16 || (job->panels > 1 && g->m > 2 * mr);
    else
        job->a_packed = widened || (job->kind == GEMM_PAIRS && g->k % 2 != 0);
    job->b_packed = g->tb || g->in == MIMIC_BF16 || g->n % gemm_vector(job->kind) != 0 ||
                    (g->m > GEMM_MAX_MB / 2 && g->k * g->n > 8192);
    job->mb = job->kind == GEMM_TILES ? GEMM_AMX_MB : GEMM_MAX_MB;
    /* A is converted anew for each nb panels */
    job->nb = min64(job->panels, widened || job->kind == GEMM_TILES ? 16 : 8);
    job->tasks_n = up(job->panels, job->nb);
    job->tasks = up(g->m, job->mb) * job->tasks_n;
    while (threads > 1 && job->tasks < 4 * threads && (job->nb > 2 || job->mb > 4 * mr)) {
        if (job->nb > 2)
            job->nb = up(job->nb, 2);
        else
            job->mb /= 2;
        job->tasks_n = up(job->panels, job->nb);
        job->tasks = up(g->m, job->mb) * job->tasks_n;
    }
    int64_t rows = min64(job->mb, up(g->m, mr) * mr), kc = min64(GEMM_BLOCK_K, job->units);
    int64_t group = job->kind == GEMM_TILES ? kc * mr * job->unit : GEMM_GROUP(kc, job->unit);
    int64_t groups = job->a_packed ? up(rows, mr) : packed_rows(job, g->m) > 0;
    job->a_size = (size_t)(groups * group + 63) & ~(size_t)63;
    job->scratch_size = job->a_size;
    if (!job->direct && kc < job->units)
        job->scratch_size += (size_t)(rows * job->nb * job->nr) * sizeof(float);
}

mimic_status KERNEL(gemm)(mimic_ctx *ctx, const gemm_args *args, int64_t batch, int64_t sa,
                          int64_t sb, int64_t sc) {
    if (args->m == 0 || args->n == 0 || batch == 0)
        return MIMIC_OK;
    const int64_t in = (int64_t)mimic_dtype_size(args->in),
                  out = (int64_t)mimic_dtype_size(args->out);
    if (args->k == 0) { /* an empty sum */
        const char zeros[GEMM_NR_MAX * sizeof(double)] = {0};
        for (int64_t i = 0; i < batch; i++) {
            gemm_args g = *args;
            g.c = (char *)args->c + i * sc * out;
            for (int64_t row = 0; row < g.m; row++)
                for (int64_t col = 0; col < g.n; col += GEMM_NR_MAX)
                    KERNEL(gemm_finish)(&g, row, 1, col, min64(GEMM_NR_MAX, g.n - col), zeros, 0);
        }
        return MIMIC_OK;
    }
    gemm_job job = {.g = *args, .batch = batch, .sa = sa * in, .sb = sb * in, .sc = sc * out};
    int threads = mimic_threads(ctx);
    double work = (double)args->m * (double)args->n * (double)args->k;
    bool items =
        batch > 1 && (batch >= 2 * threads || work < GEMM_SERIAL_WORK); /* an item is a task */
    bool serial = work * (items ? (double)batch : 1.0) < GEMM_SERIAL_WORK;
    if (serial)
        threads = 1;
    plan(&job, items ? 1 : threads);
    size_t packed = job.b_packed ? (size_t)(k_step(&job) * job.panels * job.nr * job.unit) : 0;
    if (items) {
        job.scratch_size += packed;
        packed = 0;
    }
    size_t bytes = packed + job.scratch_size * (size_t)threads;
    void *memory = NULL;
    if (bytes > 0) {
        mimic_status status = mimic_pool_get(ctx, bytes, &memory);
        if (status != MIMIC_OK)
            return status;
    }
    if (memory) {
        job.packed = memory;
        job.scratch = (char *)memory + packed;
    }
    if (items && !serial) {
        mimic_parallel(ctx, batch, batch_fn, &job);
    } else {
        for (int64_t i = 0; i < batch; i++) {
            if (items) {
                batch_fn(&job, i, 0);
            } else {
                gemm_job item = job;
                move_to_item(&item, &job, i);
                run(&item, serial ? NULL : ctx, 0);
            }
        }
    }
    if (bytes > 0)
        mimic_pool_put(ctx, memory, bytes);
    return MIMIC_OK;
}

void KERNEL(gemm_block)(gemm_kind kind, int64_t m, int64_t n, int64_t k, const void *a, int64_t lda,
                        bool kmajor, const void *b, int64_t ldb, int64_t panel, void *c,
                        int64_t ldc, bool add) {
    const int nr = gemm_nr(kind), w = gemm_vector(kind), unit = gemm_unit(kind);
    const int64_t size = kind == GEMM_F64 ? 8 : 4;
    for (int64_t kb = 0; kb < k; kb += GEMM_BLOCK_K) {
        int64_t kc = min64(GEMM_BLOCK_K, k - kb);
        for (int64_t j = 0; j < n; j += nr) {
            int nv = (int)up(min64(nr, n - j), w);
            const char *bp = (const char *)b + j / nr * panel + kb * ldb;
            for (int64_t i = 0; i < m; i += GEMM_MR) {
                const char *ap =
                    (const char *)a + (kmajor ? kb * lda + i * unit : i * lda + kb * unit);
                KERNEL(gemm_tile)
                (kind, kmajor, (int)min64(GEMM_MR, m - i),
                 nv)(kc, ap, lda, bp, ldb, (char *)c + i * ldc + j * size, ldc, add || kb > 0);
            }
        }
    }
}

/* Files that outlive a process: safetensors checkpoints and the results database. */
#ifndef MIMIC_STORE_H
#define MIMIC_STORE_H

#include <signal.h>

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- safetensors (strict): 8-byte length, JSON header, raw little-endian data -------------------
 */

typedef struct mimic_safetensors mimic_safetensors; /* an open, validated file */

/* Refuses: short files, headers beyond the file, overlapping or uncovered ranges, sizes that do not
 * match shape x dtype, duplicate names, unknown dtypes. Messages name path and tensor. */
mimic_status mimic_safetensors_open(mimic_ctx *ctx, const char *path, mimic_safetensors **out);
void mimic_safetensors_close(mimic_safetensors *f);
int mimic_safetensors_count(const mimic_safetensors *f);
const char *mimic_safetensors_name(const mimic_safetensors *f, int i);    /* in file order */
int mimic_safetensors_find(const mimic_safetensors *f, const char *name); /* -1 if absent */
/* `dtype_name` as written in the file: F16, I64, I16, I8, BOOL exist in files only. rank <=
 * MIMIC_MAX_RANK. */
void mimic_safetensors_info(const mimic_safetensors *f, int i, const char **dtype_name, int *rank,
                            const int64_t **shape);
/* __metadata__ value or NULL; key i of n for listing. */
const char *mimic_safetensors_meta(const mimic_safetensors *f, const char *key);
int mimic_safetensors_meta_count(const mimic_safetensors *f);
const char *mimic_safetensors_meta_key(const mimic_safetensors *f, int i);
/* A new tensor with the values (F16 -> f32; I16, I8 and I64 -> i32, the latter range-checked; BOOL
 * -> u8). Other dtypes of the format (U16, F8_E4M3, ...) open but do not load: MIMIC_EUNSUPPORTED.
 */
mimic_status mimic_safetensors_load(mimic_safetensors *f, int i, mimic_tensor **out);

/* Opens a PyTorch checkpoint (.pth, .pt, both layouts of torch.save) in the same way: names of
 * nested dicts are joined by dots, plain values on top become metadata. Nothing in it is executed:
 * classes and pickle opcodes beyond tensors and plain data are refused by name. Compressed entries,
 * TorchScript and big-endian files are MIMIC_EUNSUPPORTED. */
mimic_status mimic_pth_open(mimic_ctx *ctx, const char *path, mimic_safetensors **out);

/* Writes path atomically (temporary file, fsync, rename, fsync of the folder). meta: n_meta pairs
 * key, value. On failure (full disk, read-only) no trace of the temporary is left and an old file
 * at `path` is untouched. sha256 (may be NULL) gets the hash of the whole file. */
mimic_status mimic_safetensors_save(mimic_ctx *ctx, const char *path, const char *const *names,
                                    mimic_tensor *const *tensors, int n, const char *const *meta,
                                    int n_meta, uint8_t sha256[32], int64_t *bytes);

void mimic_sha256(const void *data, size_t size, uint8_t out[32]);
mimic_status mimic_sha256_file(mimic_ctx *ctx, const char *path, uint8_t out[32]);

/* --- results database ---------------------------------------------------------------------------
 */

typedef struct mimic_db mimic_db;

typedef enum mimic_value_kind {
    MIMIC_NULL,
    MIMIC_INT,
    MIMIC_REAL,
    MIMIC_TEXT,
    MIMIC_BLOB
} mimic_value_kind;
typedef struct mimic_value {
    mimic_value_kind kind;
    int64_t i;
    double r;
    const char *s; /* TEXT (may contain zeros) and BLOB */
    size_t size;
} mimic_value;

/* Opens (and with `write` creates or migrates) a results file: WAL, foreign keys, schema of
 * results/schema.sql, lock file NAME.lock around write transactions. Refuses files of other
 * programs (MIMIC_EFORMAT), network file systems with `write`, and writing a file of a newer
 * version (both MIMIC_EUNSUPPORTED). An older version is copied to PATH.vN.bak and migrated. */
mimic_status mimic_db_open(mimic_ctx *ctx, const char *path, bool write, mimic_db **out);
mimic_status mimic_db_close(mimic_db *db); /* flushes the writer thread first; NULL allowed */
const char *mimic_db_path(const mimic_db *db);

/* Runs one statement with bound values, as many as it has parameters; each row is given to `row`
 * (may be NULL), which returns false to stop. Texts and blobs in `values` live during that call.
 * Outside mimic_db_begin each statement is its own transaction under the lock. Without bound values
 * and `row` it may hold several statements: all are done or none. BEGIN, COMMIT, SAVEPOINT and the
 * pragmas that mimic_db_open sets are refused. */
typedef bool (*mimic_row_fn)(void *user, int columns, const char *const *names,
                             const mimic_value *values);
mimic_status mimic_db_exec(mimic_db *db, const char *sql, const mimic_value *bind, int n_bind,
                           mimic_row_fn row, void *user);
/* Statements end with MIMIC_EDB soon after *asked is not 0: a signal handler sets it. */
void mimic_db_stop_when(mimic_db *db, const volatile sig_atomic_t *asked);
int64_t mimic_db_changes(const mimic_db *db);
int64_t mimic_db_last_id(const mimic_db *db);
/* Immediate transaction under the file lock; `durable` syncs at commit (synchronous=FULL). A commit
 * that fails has rolled back. Metrics are written by another connection: flush before begin, not
 * inside. */
mimic_status mimic_db_begin(mimic_db *db, bool durable);
mimic_status mimic_db_commit(mimic_db *db);
mimic_status mimic_db_rollback(mimic_db *db);

/* Metrics go through a queue to the writer thread, which batches them (1,000 rows, 500 ms); the
 * caller never waits for the disk. The latest value of a (run, name, step) counts. NaN is stored as
 * NULL and counted in series.bad_n. A write error (full disk) is reported once by the next
 * mimic_db_log or mimic_db_flush; the rows, also that of the reporting call, stay queued and are
 * tried again. An unknown run is MIMIC_EINVAL. */
mimic_status mimic_db_log(mimic_db *db, int64_t run, const char *name, int64_t step, double value);
/* Returns when all rows are committed. MIMIC_ESTATE inside a transaction. */
mimic_status mimic_db_flush(mimic_db *db);
/* Takes back the metrics of a run after `step` and computes its series summaries anew, durably:
 * before continuing from a checkpoint of that step. Flushes first. */
mimic_status mimic_db_rewind(mimic_db *db, int64_t run, int64_t step);

/* From now on the writer thread renews the lease of a trial, so that a worker which computes for
 * long is not taken for dead: every ms/4 its row gets lease = now + ms, as long as it is running
 * and has this token. One trial at a time. */
mimic_status mimic_db_hold(mimic_db *db, int64_t trial, const uint8_t token[8], int64_t ms);
bool mimic_db_held(mimic_db *db); /* false: another worker had taken it at the last renewal */
/* Ends that. False: another worker had taken the trial when the lease was renewed last. */
bool mimic_db_let_go(mimic_db *db);

/* Writes the database as it is now, queued metrics included, to a file that does not exist yet. */
mimic_status mimic_db_copy(mimic_db *db, const char *path);

typedef struct mimic_db_counts {
    int64_t logged, written, lost; /* rows; lost: of runs deleted meanwhile */
    int64_t queued, queued_max;
    int64_t batches, failures; /* transactions */
    int64_t stalls;            /* calls of mimic_db_log that had to wait for the writer */
} mimic_db_counts;
void mimic_db_stats(mimic_db *db, mimic_db_counts *out);

/* Stores a blob by content: in the row up to 64 KiB, else as PATH.files/aa/bbbb...; returns its
 * hash. */
mimic_status mimic_db_put_blob(mimic_db *db, const void *data, size_t size, uint8_t sha256[32]);
/* *data is malloc'ed; MIMIC_EFORMAT when the stored bytes do not match the hash. */
mimic_status mimic_db_get_blob(mimic_db *db, const uint8_t sha256[32], void **data, size_t *size);

#ifdef __cplusplus
}
#endif
#endif

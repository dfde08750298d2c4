/* Inside of the store, for its own files: atomic file writing, hashing, strict JSON. */
#ifndef MIMIC_STORE_IMPL_H
#define MIMIC_STORE_IMPL_H

#include <sys/types.h>
#include <sha2.h>

#include "core/ctx.h"
#include "mimic/store.h"

typedef struct mimic_hash {
    SHA2_CTX md;
    bool fast; /* this processor does blocks itself */
} mimic_hash;

void mimic_hash_init(mimic_hash *h);
void mimic_hash_update(mimic_hash *h, const void *data, size_t size);
void mimic_hash_final(mimic_hash *h, uint8_t out[32]);
bool mimic_sha256_fast(void);
/* Only where mimic_sha256_fast. */
void mimic_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks);

/* A file that appears under its name complete and durable, or not at all: written beside it under a
 * temporary name and hashed on the way. After open, exactly one of commit and abort is called; a
 * failed write or commit leaves nothing behind and an old file of that name untouched, but still
 * wants abort. */
typedef struct mimic_outfile {
    mimic_ctx *ctx;
    const char *path; /* the caller's, must live until commit */
    char *temp;
    int fd;
    int64_t bytes;
    mimic_hash sha;
} mimic_outfile;

mimic_status mimic_outfile_open(mimic_ctx *ctx, const char *path, mimic_outfile *o);
mimic_status mimic_outfile_write(mimic_outfile *o, const void *data, size_t size);
mimic_status mimic_outfile_commit(mimic_outfile *o, uint8_t sha256[32]); /* sha256 may be NULL */
void mimic_outfile_abort(mimic_outfile *o);

/* Makes a name in the folder of `path` durable. */
mimic_status mimic_sync_folder(mimic_ctx *ctx, const char *path);
/* Opens a regular file for reading and gives its size. */
mimic_status mimic_open_regular(mimic_ctx *ctx, const char *path, int *fd, int64_t *size);
/* Reads exactly `size` bytes at `at`; a file that ends before is MIMIC_EIO. */
mimic_status mimic_pread_all(mimic_ctx *ctx, const char *path, int fd, void *data, size_t size,
                             int64_t at);

#define MIMIC_HEX_SIZE 65
void mimic_hex(const uint8_t sha256[32], char out[MIMIC_HEX_SIZE]);

/* A pull scanner over strict JSON (RFC 8259) of known structure: the caller asks for what must come
 * next, so depth is bounded by the caller's code. Unescapes in place. After a failure `error` says
 * why and `at` where; further calls fail too. */
typedef struct mimic_json {
    char *text;
    size_t size, at;
    const char *error;
} mimic_json;

bool mimic_json_token(mimic_json *j, char c); /* spaces, then this character */
bool mimic_json_peek(mimic_json *j, char c);  /* is it next? consumes spaces only */
/* A string: valid UTF-8 without control characters or zeros; NULL on failure. Lives in `text`. */
char *mimic_json_string(mimic_json *j);
bool mimic_json_whole(mimic_json *j,
                      int64_t *out); /* 0 .. INT64_MAX, no sign, fraction or exponent */
bool mimic_json_end(mimic_json *j);  /* nothing but spaces follows */
/* Length of the UTF-8 character at s (1..4), 0 if it is not a valid one. */
int mimic_utf8_length(const char *s, size_t left);

#endif

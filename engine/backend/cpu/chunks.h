/* How work is cut: by shape alone, never by the number of threads, so that results do not depend on
 * it. Work below 2 * CHUNK elements is one chunk, which the caller's thread does. */
#ifndef MIMIC_CPU_CHUNKS_H
#define MIMIC_CPU_CHUNKS_H

#include <stdint.h>

enum { CHUNK = 16384 };

/* Rows of `len` elements that make up a chunk. */
static inline int64_t chunk_rows(int64_t rows, int64_t len) {
    int64_t l = len > 0 ? len : 1;
    if (rows <= 1 || rows <= 2 * CHUNK / l)
        return rows > 0 ? rows : 1;
    return l >= CHUNK ? 1 : CHUNK / l;
}

static inline int64_t chunk_count(int64_t n, int64_t per) {
    return (n + per - 1) / per;
}

/* One past the last of chunk i. */
static inline int64_t chunk_end(int64_t i, int64_t per, int64_t n) {
    return (i + 1) * per < n ? (i + 1) * per : n;
}

#endif

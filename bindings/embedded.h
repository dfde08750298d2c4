/* The Lua library and SQL files inside the binary. */
#ifndef MIMIC_EMBEDDED_H
#define MIMIC_EMBEDDED_H

#include <stddef.h>

typedef struct mimic_embedded {
    const char *name; /* "mimic.vit" or "results/schema.sql" */
    const char *text;
    size_t size;
} mimic_embedded;

extern const mimic_embedded mimic_embedded_files[]; /* ends with a NULL name */

#endif

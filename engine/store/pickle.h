/* The data subset of Python's pickle: values are built, code is never run. What is not known is
 * refused by name. */
#ifndef MIMIC_PICKLE_H
#define MIMIC_PICKLE_H

#include "store/store_impl.h"

typedef enum mimic_py_kind {
    MIMIC_PY_NONE,
    MIMIC_PY_BOOL,    /* i */
    MIMIC_PY_INT,     /* i */
    MIMIC_PY_LONG,    /* an integer beyond 64 bits: text, n little-endian bytes */
    MIMIC_PY_FLOAT,   /* f */
    MIMIC_PY_TEXT,    /* text, n bytes; also bytes objects */
    MIMIC_PY_LIST,    /* item, n; tuples and sets too */
    MIMIC_PY_DICT,    /* item, n: key, value, key, value ... */
    MIMIC_PY_CLASS,   /* text = "module.name" */
    MIMIC_PY_STORAGE, /* item: those of the persistent id's tuple */
    MIMIC_PY_TENSOR,  /* item: storage, offset, size, stride */
    MIMIC_PY_OPAQUE   /* a known object without meaning here */
} mimic_py_kind;

typedef struct mimic_py mimic_py;
struct mimic_py {
    mimic_py_kind kind;
    uint32_t n, room;
    union {
        int64_t i;
        double f;
        const char *text; /* inside the bytes given to mimic_pickle_load, not terminated */
        mimic_py **item;
    };
};

typedef struct mimic_pickle {
    mimic_ctx *ctx;
    const char *path; /* for messages */
    const uint8_t *data;
    size_t size, at; /* at: behind the STOP after a load */
    mimic_py **all;  /* every value made */
    size_t n_all, room_all;
    mimic_py **stack, **memo;
    size_t n_stack, room_stack, room_memo;
    size_t *marks;
    size_t n_marks, room_marks;
} mimic_pickle;

/* Loads the pickle at p->at; *out lives until mimic_pickle_free. May be called again for a pickle
 * that follows. */
mimic_status mimic_pickle_load(mimic_pickle *p, mimic_py **out);
void mimic_pickle_free(mimic_pickle *p);
bool mimic_py_is(const mimic_py *v, const char *text); /* a text or class of that name */

#endif

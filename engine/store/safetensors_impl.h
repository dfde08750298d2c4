/* An open safetensors file, shared by its reader and its loader. */
#ifndef MIMIC_SAFETENSORS_IMPL_H
#define MIMIC_SAFETENSORS_IMPL_H

#include "store/store_impl.h"

typedef struct mimic_file_dtype {
    const char *name; /* as in the file */
    int size;         /* bytes of an element in the file */
    bool loads;       /* a tensor can be made of it */
    mimic_dtype as;   /* of that dtype */
} mimic_file_dtype;

typedef struct mimic_entry {
    const char *name; /* inside `header` */
    const mimic_file_dtype *dtype;
    int rank;
    int64_t shape[MIMIC_MAX_RANK];
    int64_t begin, end; /* in the data part */
    bool strided;       /* .pth: element (i,j,...) lies at begin + i stride[0] + j stride[1] ... */
    int64_t stride[MIMIC_MAX_RANK]; /* elements */
} mimic_entry;

typedef struct mimic_meta_pair {
    const char *key, *value;
} mimic_meta_pair;

struct mimic_safetensors {
    mimic_ctx *ctx;
    char *path;
    int fd;
    int64_t bytes, data_at; /* of the file; where its data part begins */
    char *header;           /* its JSON, strings unescaped in place */
    mimic_entry *entries;   /* in file order */
    mimic_entry **sorted;   /* by name */
    mimic_meta_pair *meta;  /* by key */
    int n, cap, n_meta, cap_meta;
};

/* Puts `sorted` and `meta` in order of names; two of one name are refused. */
mimic_status mimic_safetensors_sort(mimic_safetensors *f);
const mimic_file_dtype *mimic_file_dtype_find(const char *name); /* NULL if unknown */
/* "[2,3]" of an entry. */
void mimic_entry_shape(const mimic_entry *e, char *buf, size_t size);

#endif

/* What the dataset formats share. A format reads its index on the caller's thread and fills the
 * sample table; afterwards a data set is constant, so that any thread may read samples. */
#ifndef MIMIC_DATASET_IMPL_H
#define MIMIC_DATASET_IMPL_H

#include "mimic/data.h"
#include "core/ctx.h"

#define MIMIC_PATH_MAX 4096

typedef struct mimic_sample {
    size_t name;   /* offset in `text` */
    uint64_t at;   /* packs: offset of the JPEG in the tar */
    uint32_t size; /* packs: its bytes */
    int32_t label; /* -1: none */
} mimic_sample;

struct mimic_dataset {
    mimic_ctx *ctx;
    const char *format;
    char *text; /* all names, NUL-terminated; offset 0 holds "" */
    size_t text_used, text_room;
    mimic_sample *samples;
    int64_t count, room, dropped;
    size_t *class_names; /* offsets in `text` */
    int classes;
    size_t root; /* leading bytes of names that say where the set lies: not part of its hash */
    int fd;      /* packs: the tar; -1 otherwise */
};

/* Appends a sample "dir/name" (dir "" or NULL: just name; separator '/' or ':'). */
mimic_status mimic_dataset_add(mimic_dataset *d, const char *dir, char separator, const char *name,
                               int32_t label, uint64_t at, uint32_t size);
/* Makes classes 0..classes-1 exist, nameless ones named "". */
mimic_status mimic_dataset_set_classes(mimic_dataset *d, int classes);
mimic_status mimic_dataset_name_class(mimic_dataset *d, int k, const char *name);
#define MIMIC_LABEL_MAX 1000000

mimic_status mimic_dataset_open_folders(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_rafdb(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_list(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_pack(mimic_dataset *d, const mimic_dataset_config *cfg);
bool mimic_is_rafdb(const char *root);

/* --- files.c --- */

/* A text file in memory, cut into lines. */
typedef struct mimic_text {
    mimic_ctx *ctx;
    const char *path;
    char *data, *next;
    size_t size;
    int64_t line; /* number of the line last returned */
} mimic_text;
/* `path` must outlive the text. */
mimic_status mimic_text_open(mimic_text *t, mimic_ctx *ctx, const char *path);
void mimic_text_close(mimic_text *t);
/* The next line without its line end (LF or CRLF), or NULL at the end. */
char *mimic_text_line(mimic_text *t);
/* A failure at the current line: "path:line: ...". */
mimic_status mimic_text_fail(mimic_text *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Whole text as a decimal integer in lo..hi. */
bool mimic_parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out);

/* Names in a folder, sorted as bytes, hidden ones left out. */
typedef struct mimic_listing {
    char **names; /* pointers into text */
    char *text;
    int64_t count;
    size_t room, used;
} mimic_listing;
typedef enum mimic_listing_kind { MIMIC_LIST_FOLDERS, MIMIC_LIST_JPEGS } mimic_listing_kind;
mimic_status mimic_list_folder(mimic_ctx *ctx, const char *path, mimic_listing_kind kind,
                               mimic_listing *out);
void mimic_listing_free(mimic_ctx *ctx, mimic_listing *l);
bool mimic_is_folder(const char *path);
bool mimic_is_file(const char *path);
/* "a/, b.txt, ... and 12 more", or why the folder cannot be read. */
void mimic_describe_folder(const char *path, char *buf, size_t size);
/* snprintf that refuses to cut: MIMIC_EINVAL with a message. */
mimic_status mimic_path(mimic_ctx *ctx, char out[MIMIC_PATH_MAX], const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif

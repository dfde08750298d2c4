/* What the dataset formats share. A format reads its index on the caller's thread and fills the
 * sample table; afterwards a data set is constant, so that any thread may read samples. */
#ifndef MIMIC_DATASET_IMPL_H
#define MIMIC_DATASET_IMPL_H

#include "mimic/data.h"
#include "core/ctx.h"

#define MIMIC_PATH_MAX 4096
#define MIMIC_LISTS 3 /* lists of one set at most */

typedef struct mimic_sample {
    size_t name;   /* offset in `text` */
    uint64_t at;   /* offset in the open file; in folders a box to crop (mimic_box), 0: none */
    uint32_t size; /* its bytes there; in folders the line of the list that names it, or 0 */
    int32_t label; /* -1: none */
} mimic_sample;

/* Reads the picture of sample i; thread-safe. */
typedef mimic_status (*mimic_sample_reader)(const mimic_dataset *d, int64_t i, mimic_image *out,
                                            mimic_err *err);

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
    int fd;      /* the one file that holds all pictures, or -1 */
    mimic_sample_reader read;
    float *soft; /* [room,classes] soft labels, or NULL */
    int64_t soft_room;
    bool no_split;    /* opening failed since there is no such split */
    bool draws;       /* the label is to be drawn from the soft one in every epoch */
    const char *mode; /* label rule, "" when the format has one only */
    struct {
        size_t name;      /* offset in `text` */
        int64_t first;    /* the first sample of this list */
    } lists[MIMIC_LISTS]; /* files that name the pictures, for messages */
    int list_count;
    struct mimic_pixels *map; /* dataset_pixels.c */
};

/* Appends a sample "dir/name" (dir "" or NULL: just name; separator '/' or ':'). */
mimic_status mimic_dataset_add(mimic_dataset *d, const char *dir, char separator, const char *name,
                               int32_t label, uint64_t at, uint32_t size);
/* The samples that follow are named by this list: `size` of each is its line there. */
mimic_status mimic_dataset_add_list(mimic_dataset *d, const char *path);
/* Gives the sample added last a soft label over `n` classes, the same n for all. Samples without
 * one get the unit vector of their label in the end. */
mimic_status mimic_dataset_add_soft(mimic_dataset *d, const double *p, int n);
/* Makes classes 0..classes-1 exist, nameless ones named "". */
mimic_status mimic_dataset_set_classes(mimic_dataset *d, int classes);
mimic_status mimic_dataset_name_class(mimic_dataset *d, int k, const char *name);
/* The first n classes at once. */
mimic_status mimic_dataset_name_classes(mimic_dataset *d, const char *const *names, int n);
/* Adds a sample with a label, or, when label is -1, counts it as dropped if labels are needed. */
mimic_status mimic_dataset_add_or_drop(mimic_dataset *d, bool need_labels, const char *dir,
                                       char separator, const char *name, int32_t label, uint64_t at,
                                       uint32_t size);
/* Packs a box into `at`; false when a side is not positive or a number beyond 16 bits. */
bool mimic_box(int64_t x, int64_t y, int64_t w, int64_t h, uint64_t *at);
/* Readers: a picture file, cropped to its box; bytes [at, at + size) of fd, decoded. */
mimic_status mimic_read_file(const mimic_dataset *d, int64_t i, mimic_image *out, mimic_err *err);
mimic_status mimic_read_member(const mimic_dataset *d, int64_t i, mimic_image *out, mimic_err *err);
/* Reads `size` bytes of fd at `at` into `to`. */
mimic_status mimic_read_into(const mimic_dataset *d, uint64_t at, void *to, size_t size,
                             const char *name, mimic_err *err);
/* Bytes [at, at + size) of fd in memory from mimic_try_alloc. */
mimic_status mimic_read_bytes(const mimic_dataset *d, uint64_t at, size_t size, const char *name,
                              uint8_t **out, mimic_err *err);
#define MIMIC_LABEL_MAX 1000000

mimic_status mimic_dataset_open_folders(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_rafdb(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_list(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_pack(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_ferplus(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_affectnet(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_recordio(mimic_dataset *d, const mimic_dataset_config *cfg);
mimic_status mimic_dataset_open_pixels(mimic_dataset *d, const mimic_dataset_config *cfg);
/* PATH<end>, or with a split PATH_SPLIT<end>, which must be there; a PATH that has the ending must
 * itself name the split. */
mimic_status mimic_pack_path(mimic_dataset *d, const mimic_dataset_config *cfg, const char *end,
                             char out[MIMIC_PATH_MAX]);
bool mimic_is_rafdb(const char *root);
bool mimic_is_ferplus(const char *path);
bool mimic_is_affectnet(const char *root);
bool mimic_is_recordio(const char *path);
/* Size and channels of the records of a .pixels file; false for other formats. */
bool mimic_dataset_form(const mimic_dataset *d, int *width, int *height, int *channels);
void mimic_pixels_close(mimic_dataset *d);
/* Refuses a mode that is none of names; NULL gives the first. Returns its index or -1. */
int mimic_dataset_choose_mode(mimic_dataset *d, const char *mode, const char *const *names, int n);
/* The split `wanted` (NULL: all) as an index into {train, val, test}, -1 for all, -2 after a
 * failure; "valid" and "validation" mean val. `test`: whether there is a test split. */
int mimic_dataset_choose_split(mimic_dataset *d, const char *what, const char *wanted, bool test);

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
/* The next line without its line end (LF or CRLF) and, at the beginning of the file, without a byte
 * order mark; NULL at the end. */
char *mimic_text_line(mimic_text *t);
/* A failure at the current line: "path:line: ...". */
mimic_status mimic_text_fail(mimic_text *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Whole text as a decimal integer in lo..hi. */
bool mimic_parse_int(const char *s, int64_t lo, int64_t hi, int64_t *out);

/* Cuts a row at its commas, in place; quotes around a field are taken off. Returns the number of
 * fields, -1 when there are more than `max` or a quote is out of place. */
int mimic_split_row(char *line, char **field, int max);

/* Position of a name among the fields of a header, or -1; blanks before a field do not count. */
int mimic_find_column(char **field, int n, const char *name);
/* The text behind UTF-8's byte order mark, which Windows programs put in front. */
char *mimic_skip_mark(char *text);

/* Names in a folder, sorted as bytes, hidden ones left out. */
typedef struct mimic_listing {
    char **names; /* pointers into text */
    char *text;
    int64_t count;
    size_t room, used;
} mimic_listing;
typedef enum mimic_listing_kind { MIMIC_LIST_FOLDERS, MIMIC_LIST_PICTURES } mimic_listing_kind;
mimic_status mimic_list_folder(mimic_ctx *ctx, const char *path, mimic_listing_kind kind,
                               mimic_listing *out);
void mimic_listing_free(mimic_ctx *ctx, mimic_listing *l);
bool mimic_is_folder(const char *path);
bool mimic_is_file(const char *path);
/* The same for ROOT/NAME; a name that is too long is not there. */
bool mimic_has_folder(const char *root, const char *name);
bool mimic_has_file(const char *root, const char *name);
/* "a/, b.txt, ... and 12 more", or why the folder cannot be read. */
void mimic_describe_folder(const char *path, char *buf, size_t size);
/* Failures: the set has not the split that was asked for; the second since `root` lacks the file or
 * folder `name`. Every other failure of opening is of a split that is there and cannot be read. */
mimic_status mimic_no_split(mimic_dataset *d, mimic_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
mimic_status mimic_no_part(mimic_dataset *d, const char *root, const char *name);
/* snprintf that refuses to cut: MIMIC_EINVAL with a message. */
mimic_status mimic_path(mimic_ctx *ctx, char out[MIMIC_PATH_MAX], const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif

/* Contents by hash: small ones in the row, larger ones as files beside the database. What is read
 * back is checked against the hash. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/db_impl.h"

enum { IN_ROW = 64 * 1024 };

/* PATH.files/aa/rest, or with `folder` PATH.files/aa; mimic_free the result. */
static char *blob_path(mimic_db *db, const char *below) {
    size_t size = strlen(db->path) + strlen(below) + 8;
    char *p = mimic_alloc(db->ctx, size);
    if (p)
        snprintf(p, size, "%s.files/%s", db->path, below);
    return p;
}

static mimic_status make_folders(mimic_db *db, char *file) {
    char *slash[2] = {strrchr(file, '/'), NULL};
    *slash[0] = 0;
    slash[1] = strrchr(file, '/');
    mimic_status st = MIMIC_OK;
    for (int i = 1; i >= 0 && !st; i--) {
        if (i == 1)
            *slash[1] = 0;
        else
            *slash[1] = '/';
        if (mkdir(file, 0777) == 0)
            st = mimic_sync_folder(db->ctx, file);
        else if (errno != EEXIST)
            st = mimic_fail(db->ctx, MIMIC_EIO, "%s: cannot make this folder: %s", file,
                            strerror(errno));
    }
    *slash[1] = *slash[0] = '/';
    return st;
}

/* The file is there, durable and right when this returns; a damaged one is replaced. */
static mimic_status put_file(mimic_db *db, const char *below, const void *data, size_t size,
                             const uint8_t sha256[32]) {
    mimic_outfile o = {.fd = -1};
    uint8_t have[32];
    mimic_status st = MIMIC_OK;
    char *path = blob_path(db, below);
    if (!path)
        return MIMIC_ENOMEM;
    if (access(path, F_OK) == 0 && mimic_sha256_file(db->ctx, path, have) == MIMIC_OK &&
        memcmp(have, sha256, 32) == 0)
        goto done;
    if ((st = make_folders(db, path)) || (st = mimic_outfile_open(db->ctx, path, &o)) ||
        (st = mimic_outfile_write(&o, data, size)))
        goto done;
    st = mimic_outfile_commit(&o, NULL);
done:
    mimic_outfile_abort(&o);
    mimic_free(db->ctx, path);
    return st;
}

mimic_status mimic_db_put_blob(mimic_db *db, const void *data, size_t size, uint8_t sha256[32]) {
    char hex[MIMIC_HEX_SIZE], below[72];
    mimic_sha256(data, size, sha256);
    mimic_hex(sha256, hex);
    snprintf(below, sizeof below, "%.2s/%s", hex, hex + 2);
    mimic_value bind[4] = {{.kind = MIMIC_BLOB, .s = (const char *)sha256, .size = 32},
                           {.kind = MIMIC_INT, .i = (int64_t)size},
                           {.kind = MIMIC_NULL},
                           {.kind = MIMIC_NULL}};
    if (!db->write)
        return mimic_fail(db->ctx, MIMIC_ESTATE, "%s is open for reading only", db->path);
    if (size <= IN_ROW)
        bind[2] = (mimic_value){.kind = MIMIC_BLOB, .s = data, .size = size};
    else {
        mimic_status st = put_file(db, below, data, size, sha256);
        if (st)
            return st;
        bind[3] = (mimic_value){.kind = MIMIC_TEXT, .s = below, .size = strlen(below)};
    }
    return mimic_db_exec(db,
                         "INSERT INTO blob(sha256, bytes, data, path) VALUES(?, ?, ?, ?) "
                         "ON CONFLICT(sha256) DO NOTHING",
                         bind, 4, NULL, NULL);
}

typedef struct found {
    mimic_db *db;
    bool any;
    void *data; /* malloc'ed */
    size_t size;
    mimic_status st;
} found;

static void *copy_of(found *f, size_t size) {
    void *p = malloc(size ? size : 1);
    if (!p)
        f->st = mimic_fail(f->db->ctx, MIMIC_ENOMEM, "%s: no memory for a blob of %zu bytes",
                           f->db->path, size);
    return p;
}

static bool get_row(void *user, int n, const char *const *names, const mimic_value *v) {
    (void)n;
    (void)names;
    found *f = user;
    f->any = true;
    if (v[1].kind == MIMIC_BLOB) {
        if ((f->data = copy_of(f, v[1].size)))
            memcpy(f->data, v[1].s, f->size = v[1].size);
        return false;
    }
    char *path = blob_path(f->db, v[2].s);
    int fd = -1;
    int64_t size = 0;
    f->st = path ? mimic_open_regular(f->db->ctx, path, &fd, &size) : MIMIC_ENOMEM;
    if (!f->st && size != v[0].i)
        f->st = mimic_fail(f->db->ctx, MIMIC_EFORMAT, "%s: has %lld bytes, %lld were stored", path,
                           (long long)size, (long long)v[0].i);
    if (!f->st && (f->data = copy_of(f, (size_t)size)))
        f->st = mimic_pread_all(f->db->ctx, path, fd, f->data, f->size = (size_t)size, 0);
    if (fd >= 0)
        close(fd);
    mimic_free(f->db->ctx, path);
    return false;
}

mimic_status mimic_db_get_blob(mimic_db *db, const uint8_t sha256[32], void **data, size_t *size) {
    char hex[MIMIC_HEX_SIZE];
    uint8_t have[32];
    found f = {.db = db};
    const mimic_value bind = {.kind = MIMIC_BLOB, .s = (const char *)sha256, .size = 32};
    mimic_hex(sha256, hex);
    mimic_status st = mimic_db_exec(db, "SELECT bytes, data, path FROM blob WHERE sha256 = ?",
                                    &bind, 1, get_row, &f);
    st = st ? st : f.st;
    if (!st && !f.any)
        st = mimic_fail(db->ctx, MIMIC_EINVAL, "%s: no blob %s", db->path, hex);
    if (!st) {
        mimic_sha256(f.data, f.size, have);
        if (memcmp(have, sha256, 32) != 0)
            st = mimic_fail(db->ctx, MIMIC_EFORMAT,
                            "%s: blob %s is damaged: its content has another hash", db->path, hex);
    }
    if (st)
        free(f.data);
    else {
        *data = f.data;
        *size = f.size;
    }
    return st;
}

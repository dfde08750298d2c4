/* Files that appear complete or not at all. A failure of the disk is a message with path and
 * reason, and leaves no temporary file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "store/store_impl.h"

static mimic_status io_error(mimic_ctx *ctx, const char *path, const char *what, int error) {
    return mimic_fail(ctx, MIMIC_EIO, "%s: cannot %s: %s", path, what, strerror(error));
}

mimic_status mimic_outfile_open(mimic_ctx *ctx, const char *path, mimic_outfile *o) {
    size_t size = strlen(path) + 40;
    *o = (mimic_outfile){.ctx = ctx, .path = path, .fd = -1};
    o->temp = mimic_alloc(ctx, size);
    if (!o->temp)
        return MIMIC_ENOMEM;
    for (int attempt = 0; o->fd < 0 && attempt < 100; attempt++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(o->temp, size, "%s.%x-%x%x.tmp", path, (unsigned)getpid(), (unsigned)now.tv_sec,
                 (unsigned)now.tv_nsec);
        o->fd = open(o->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (o->fd < 0 && errno != EEXIST && errno != EINTR)
            break;
    }
    if (o->fd < 0) {
        int error = errno;
        mimic_free(ctx, o->temp);
        o->temp = NULL;
        return io_error(ctx, path, "write", error);
    }
    mimic_hash_init(&o->sha);
    return MIMIC_OK;
}

mimic_status mimic_outfile_write(mimic_outfile *o, const void *data, size_t size) {
    enum { CHUNK = 256 * 1024 }; /* hashed and written while in the cache */
    const uint8_t *p = data;
    while (size > 0) {
        size_t want = size < CHUNK ? size : CHUNK;
        ssize_t n = write(o->fd, p, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return io_error(o->ctx, o->path, "write", n < 0 ? errno : EIO);
        mimic_hash_update(&o->sha, p, (size_t)n);
        p += n;
        size -= (size_t)n;
        o->bytes += n;
    }
    return MIMIC_OK;
}

mimic_status mimic_outfile_commit(mimic_outfile *o, uint8_t sha256[32]) {
    uint8_t hash[32];
    if (fsync(o->fd))
        return io_error(o->ctx, o->path, "write", errno);
    int fd = o->fd;
    o->fd = -1;
    if (close(fd)) /* NFS reports a full disk here */
        return io_error(o->ctx, o->path, "write", errno);
    if (rename(o->temp, o->path))
        return io_error(o->ctx, o->path, "replace", errno);
    mimic_free(o->ctx, o->temp);
    o->temp = NULL;
    mimic_hash_final(&o->sha, hash);
    if (sha256)
        memcpy(sha256, hash, 32);
    return mimic_sync_folder(o->ctx, o->path);
}

void mimic_outfile_abort(mimic_outfile *o) {
    if (o->fd >= 0)
        close(o->fd);
    if (o->temp) {
        unlink(o->temp);
        mimic_free(o->ctx, o->temp);
    }
    o->fd = -1;
    o->temp = NULL;
}

mimic_status mimic_sync_folder(mimic_ctx *ctx, const char *path) {
    char *folder = mimic_strdup(ctx, path);
    if (!folder)
        return MIMIC_ENOMEM;
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mimic_status st = MIMIC_OK;
    /* EINVAL: a file system that has nothing to sync for a folder. */
    if (fd < 0 || (fsync(fd) && errno != EINVAL))
        st = io_error(ctx, slash ? folder : ".", "sync the folder", errno);
    if (fd >= 0)
        close(fd);
    mimic_free(ctx, folder);
    return st;
}

mimic_status mimic_open_regular(mimic_ctx *ctx, const char *path, int *fd, int64_t *size) {
    struct stat s;
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (f < 0)
        return io_error(ctx, path, "open", errno);
    int error = fstat(f, &s) ? errno : S_ISDIR(s.st_mode) ? EISDIR : 0;
    if (error || !S_ISREG(s.st_mode)) {
        close(f);
        return error ? io_error(ctx, path, "read", error)
                     : mimic_fail(ctx, MIMIC_EIO, "%s: cannot read: not a regular file", path);
    }
    *fd = f;
    *size = s.st_size;
    return MIMIC_OK;
}

mimic_status mimic_pread_all(mimic_ctx *ctx, const char *path, int fd, void *data, size_t size,
                             int64_t at) {
    char *p = data;
    while (size > 0) {
        ssize_t n = pread(fd, p, size < (1u << 30) ? size : (1u << 30), at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_error(ctx, path, "read", errno);
        if (n == 0)
            return mimic_fail(ctx, MIMIC_EIO, "%s: cannot read: the file ends at byte %lld", path,
                              (long long)at);
        p += n;
        size -= (size_t)n;
        at += n;
    }
    return MIMIC_OK;
}

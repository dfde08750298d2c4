/* Picture files whatever their name: the first bytes decide between the decoders. */
#include "image/image_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES ((int64_t)1 << 30)

/* What a file is by its first bytes, NULL when that is not known. */
const char *mimic_image_kind(const uint8_t *data, size_t size) {
    static const struct {
        const char *magic;
        size_t length;
        const char *name;
    } known[] = {{"\xff\xd8", 2, "a JPEG"},
                 {"\x89PNG", 4, "a PNG"},
                 {"GIF8", 4, "a GIF"},
                 {"RIFF", 4, "a WebP"},
                 {"BM", 2, "a BMP"},
                 {"II*\0", 4, "a TIFF"},
                 {"MM\0*", 4, "a TIFF"},
                 {"<", 1, "a HTML or XML text"},
                 {"version https://git-lfs", 23, "a Git LFS pointer"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (size >= known[i].length && memcmp(data, known[i].magic, known[i].length) == 0)
            return known[i].name;
    return NULL;
}

mimic_status mimic_image_decode(const uint8_t *data, size_t size, const char *name,
                                mimic_image *out, mimic_err *err) {
    const char *kind = mimic_image_kind(data, size);
    if (kind && strcmp(kind, "a PNG") == 0)
        return mimic_png_decode(data, size, name, out, err);
    if (size == 0 || (kind && strcmp(kind, "a JPEG") == 0))
        return mimic_jpeg_decode(data, size, name, out, err);
    return mimic_err_fail(err, MIMIC_EFORMAT, "%s: %s%s%snot a JPEG or PNG", name,
                          kind ? "the file is " : "", kind ? kind : "", kind ? ", " : "");
}

mimic_status mimic_image_read(const char *path, mimic_image *out, mimic_err *err) {
    mimic_status s = MIMIC_OK;
    uint8_t *data = NULL;
    struct stat st;
    size_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (fd < 0 || fstat(fd, &st) != 0) {
        s = mimic_err_fail(err, MIMIC_EIO, "%s: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        s = mimic_err_fail(err, MIMIC_EIO, "%s: not a regular file", path);
        goto done;
    }
    if (st.st_size > MAX_FILE_BYTES) {
        s = mimic_err_fail(err, MIMIC_EFORMAT, "%s: %lld bytes are too many for a picture", path,
                           (long long)st.st_size);
        goto done;
    }
    data = malloc((size_t)st.st_size + 1);
    if (!data) {
        s = mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for its %lld bytes", path,
                           (long long)st.st_size);
        goto done;
    }
    while (got < (size_t)st.st_size) {
        ssize_t n = read(fd, data + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            s = mimic_err_fail(err, MIMIC_EIO, "%s: %s", path, strerror(errno));
            goto done;
        }
        if (n == 0)
            break;
        got += (size_t)n;
    }
    s = mimic_image_decode(data, got, path, out, err);
done:
    free(data);
    if (fd >= 0)
        close(fd);
    return s;
}

/* SHA-256 of memory and files; the arithmetic is libmd's. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "store/store_impl.h"

void mimic_sha256(const void *data, size_t size, uint8_t out[32]) {
    SHA2_CTX sha;
    SHA256Init(&sha);
    if (size > 0)
        SHA256Update(&sha, data, size);
    SHA256Final(out, &sha);
}

mimic_status mimic_sha256_file(mimic_ctx *ctx, const char *path, uint8_t out[32]) {
    enum { CHUNK = 256 * 1024 };
    SHA2_CTX sha;
    SHA256Init(&sha);
    int fd = -1;
    int64_t size;
    uint8_t *buf = NULL;
    mimic_status st = mimic_open_regular(ctx, path, &fd, &size);
    if (st)
        goto done;
    buf = mimic_alloc(ctx, CHUNK);
    if (!buf) {
        st = MIMIC_ENOMEM;
        goto done;
    }
    for (;;) {
        ssize_t n = read(fd, buf, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = mimic_fail(ctx, MIMIC_EIO, "%s: cannot read: %s", path, strerror(errno));
            goto done;
        }
        if (n == 0)
            break;
        SHA256Update(&sha, buf, (size_t)n);
    }
    SHA256Final(out, &sha);
done:
    mimic_free(ctx, buf);
    if (fd >= 0)
        close(fd);
    return st;
}

void mimic_hex(const uint8_t sha256[32], char out[MIMIC_HEX_SIZE]) {
    static const char digit[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        out[2 * i] = digit[sha256[i] >> 4];
        out[2 * i + 1] = digit[sha256[i] & 15];
    }
    out[64] = 0;
}

/* SHA-256 of memory, streams and files: libmd, helped by the processor where that can. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "store/store_impl.h"

void mimic_hash_init(mimic_hash *h) {
    SHA256Init(&h->md);
    h->fast = mimic_sha256_fast();
}

/* Whole blocks go past libmd's buffer, whose fill is known from the number of bits so far. */
void mimic_hash_update(mimic_hash *h, const void *data, size_t size) {
    const uint8_t *p = data;
    if (h->fast && size >= 2 * SHA256_BLOCK_LENGTH) {
        size_t filled = h->md.bitcount[0] / 8 % SHA256_BLOCK_LENGTH;
        size_t head = filled ? SHA256_BLOCK_LENGTH - filled : 0;
        if (head > 0)
            SHA256Update(&h->md, p, head);
        size_t blocks = (size - head) / SHA256_BLOCK_LENGTH, bytes = blocks * SHA256_BLOCK_LENGTH;
        mimic_sha256_blocks(h->md.state.st32, p + head, blocks);
        h->md.bitcount[0] += (uint64_t)bytes * 8;
        p += head + bytes;
        size -= head + bytes;
    }
    if (size > 0)
        SHA256Update(&h->md, p, size);
}

void mimic_hash_final(mimic_hash *h, uint8_t out[32]) {
    SHA256Final(out, &h->md);
}

void mimic_sha256(const void *data, size_t size, uint8_t out[32]) {
    mimic_hash h;
    mimic_hash_init(&h);
    mimic_hash_update(&h, data, size);
    mimic_hash_final(&h, out);
}

mimic_status mimic_sha256_file(mimic_ctx *ctx, const char *path, uint8_t out[32]) {
    enum { CHUNK = 256 * 1024 };
    mimic_hash sha;
    mimic_hash_init(&sha);
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
        mimic_hash_update(&sha, buf, (size_t)n);
    }
    mimic_hash_final(&sha, out);
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

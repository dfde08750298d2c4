/* Any bytes as a data set: a list file, a RAF-DB list, or a pack (CSV and tar, whose checksums are
 * made right so that the rest is reached). The first byte selects, the second gives the length of
 * the CSV. */
#include "fuzz.h"

#include "folder.h"

/* Checksums of the headers as far as sizes lead to further ones. */
static void repair(uint8_t *tar, size_t size) {
    for (size_t at = 0; at + 512 <= size;) {
        uint8_t *h = tar + at;
        unsigned sum = 0;
        char text[9], *end;
        memset(h + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += h[i];
        snprintf(text, sizeof text, "%06o", sum & 0777777);
        memcpy(h + 148, text, 7);
        memcpy(text, h + 124, 8);
        text[8] = 0;
        size_t n = strtoul(text, &end, 8) << 9 | (strtoul((char *)h + 132, NULL, 8) & 511);
        at += 512 + (n + 511) / 512 * 512;
        if (n > size)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mimic_ctx *ctx;
    static uint8_t copy[1 << 16];
    char path[200];
    if (!ctx)
        ctx = start((const char *[]){"raf", "raf/EmoLabel", "raf/Image"}, 3);
    if (size < 2 || size > sizeof copy)
        return 0;
    int kind = data[0] % 3;
    size_t csv = data[1] < size - 2 ? data[1] : size - 2;
    memcpy(copy, data, size);
    mimic_dataset_config cfg = {.path = path, .need_labels = data[0] & 64};
    if (kind == 0) {
        put("x.tsv", copy + 2, size - 2);
        snprintf(path, sizeof path, "%s/x.tsv", folder);
    } else if (kind == 1) {
        put("raf/EmoLabel/list_patition_label.txt", copy + 2, size - 2);
        snprintf(path, sizeof path, "%s/raf", folder);
        cfg.format = "rafdb";
    } else {
        repair(copy + 2 + csv, size - 2 - csv);
        put("x.csv", copy + 2, csv);
        put("x.tar", copy + 2 + csv, size - 2 - csv);
        snprintf(path, sizeof path, "%s/x.tar", folder);
    }
    open_set(ctx, &cfg);
    return 0;
}

size_t fuzz_seed(int i, uint8_t *out, size_t cap) {
    static const char *const text[] = {"a.jpg\t3\nb/c.jpg\t0\n\nd.jpg\t1\n",
                                       "a.jpg\t0.1,0.7,0.2\nb.jpg\t1,0,0\n",
                                       "train_00001.jpg 5\ntest_0001.jpg 4\ntest_0002.jpg 1\n",
                                       "path,label\na.jpg,3\nb.jpg,\"1\"\n"};
    if (i >= 4 || cap < 8192)
        return 0;
    size_t n = strlen(text[i]), at = 2 + n;
    out[0] = (uint8_t)(i < 2 ? 0 : i - 1);
    out[1] = (uint8_t)n;
    memcpy(out + 2, text[i], n);
    if (i < 3)
        return at;
    for (int k = 0; k < 2; k++) { /* two members */
        uint8_t *h = out + at;
        memset(h, 0, 1024);
        snprintf((char *)h, 100, "%c.jpg", 'a' + k);
        memcpy(h + 100, "0000644\0000000000\0000000000\00000000000007\00000000000000\0", 48);
        h[156] = '0';
        memcpy(h + 257, "ustar\00000", 8);
        memcpy(h + 512, "picture", 7);
        at += 1024;
    }
    memset(out + at, 0, 1024);
    return at + 1024;
}

/* Any bytes as FERPlus (pixels and votes; label.csv), AffectNet (training.csv; a .npy annotation),
 * RecordIO (index and records) or decoded pictures. The first byte selects, the second gives the
 * length of the first of two files in units of 4 bytes. */
#include "fuzz.h"

#include "folder.h"

enum { PAIR, FOLDERS, CSV, NPY, REC, PIXELS, KINDS };

static const char *const folders[] = {
    "fer",
    "ff",
    "ff/FER2013Train",
    "an",
    "an/Manually_Annotated_Images",
    "npy",
    "npy/val_set",
    "npy/val_set/images",
    "npy/val_set/annotations",
    "ms",
};

/* With the checksums of index and header made right, so that what lies behind them is reached. */
static void put_pixels(const uint8_t *data, size_t size) {
    static uint8_t copy[1 << 16];
    uint64_t index = 0;
    size = size < sizeof copy ? size : sizeof copy;
    memcpy(copy, data, size);
    if (size >= 128) {
        memcpy(&index, copy + 48, 8);
        if (index <= size - 128)
            mimic_sha256(copy + 128, index, copy + 64);
        mimic_sha256(copy, 96, copy + 96);
    }
    put("x.pixels", copy, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mimic_ctx *ctx;
    static const char *const names[] = {"fer", "ff", "an", "npy", "ms", "x.pixels"};
    static const char *const modes[] = {"maxvote", "majority", "crossentropy", "multi_target"};
    char path[200];
    if (!ctx) {
        ctx = start(folders, sizeof folders / sizeof *folders);
        put("npy/val_set/images/1.jpg", (const uint8_t *)"x", 1);
    }
    if (size < 2)
        return 0;
    int kind = (data[0] & 15) % KINDS;
    size_t first = (size_t)data[1] * 4 < size - 2 ? (size_t)data[1] * 4 : size - 2;
    const uint8_t *a = data + 2, *b = a + first;
    size_t rest = size - 2 - first;
    mimic_dataset_config cfg = {.path = path, .need_labels = data[0] & 64};
    snprintf(path, sizeof path, "%s/%s", folder, names[kind]);
    if (kind <= FOLDERS)
        cfg.mode = modes[data[0] >> 4 & 3];
    if (kind == PAIR) {
        put("fer/fer2013.csv", a, first);
        put("fer/fer2013new.csv", b, rest);
    } else if (kind == FOLDERS)
        put("ff/FER2013Train/label.csv", a, size - 2);
    else if (kind == CSV)
        put("an/training.csv", a, size - 2);
    else if (kind == NPY)
        put("npy/val_set/annotations/1_exp.npy", a, size - 2);
    else if (kind == REC) {
        put("ms/train.idx", a, first);
        put("ms/train.rec", b, rest);
    } else
        put_pixels(a, size - 2);
    open_set(ctx, &cfg);
    return 0;
}

static size_t two(uint8_t *out, int kind, const void *a, size_t n, const void *b, size_t m) {
    size_t padded = (n + 3) / 4 * 4;
    out[0] = (uint8_t)kind;
    out[1] = (uint8_t)(padded / 4);
    memset(out + 2, '\n', padded);
    memcpy(out + 2, a, n);
    memcpy(out + 2 + padded, b, m);
    return 2 + padded + m;
}

size_t fuzz_seed(int i, uint8_t *out, size_t cap) {
    static const char pixels[] = "emotion,pixels,Usage\n0,1 2 3,Training\n3,255 0,PublicTest\n";
    static const char votes[] =
        "Usage,Image "
        "name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
        "Training,fer0.png,4,0,0,1,3,2,0,0,0,0\nPublicTest,,0,0,0,0,0,0,0,0,0,10\n";
    static const char label[] = "fer0.png,\"(0, 0, 48, 48)\",4,0,0,1,3,2,0,0,0,0\n";
    static const char list[] =
        "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression\n"
        "1/a.jpg,2,3,6,5,1.5;2.5,1\n2/b.jpg,0,0,10,10,1;2,10\n";
    static const char npy[] =
        "\x93NUMPY\1\0\x38\0{'descr': '<U1', 'fortran_order': False, 'shape': (), "
        "}\n3\0\0";
    if (cap < 16384)
        return 0;
    switch (i) {
    case 0:
        return two(out, PAIR, pixels, sizeof pixels - 1, votes, sizeof votes - 1);
    case 1:
        return two(out, FOLDERS | 32, label, sizeof label - 1, "", 0);
    case 2:
        return two(out, CSV, list, sizeof list - 1, "", 0);
    case 3:
        return two(out, NPY, npy, sizeof npy, "", 0);
    case 4: { /* record 0, a picture in two parts, an identity */
        uint8_t rec[200] = {0};
        static const uint32_t head[] = {0xced7230a, 32, 2, 0, 0, 0, 0, 0};
        const float keys[] = {2, 3}, range[] = {1, 2};
        memcpy(rec, head, sizeof head);
        memcpy(rec + 32, keys, 8);
        memcpy(rec + 40, (uint32_t[]){0xced7230a, 1u << 29 | 24}, 8);
        memcpy(rec + 72, (uint32_t[]){0xced7230a, 3u << 29 | 4, 0xe0ffd8ff}, 12);
        memcpy(rec + 84, head, sizeof head);
        memcpy(rec + 116, range, 8);
        return two(out, REC, "0\t0\n1\t40\n2\t84\n", 15, rec, 124);
    }
    case 5: { /* a small file of decoded pictures, made by the writer */
        static const char names[] = "a.jpg\t0.5,0.5\nb.jpg\t1\n";
        mimic_ctx *ctx = NULL;
        mimic_image img = {0};
        mimic_err err;
        uint8_t *jpeg = NULL;
        char path[200], to[200];
        size_t n = 0;
        mimic_dataset *d = NULL;
        ctx = start(folders, 0);
        if (mimic_synth_face(1, 1, 1, 8, &img, &err) ||
            mimic_jpeg_encode(&img, 90, &jpeg, &n, &err))
            abort();
        put("a.jpg", jpeg, n);
        put("b.jpg", jpeg, n);
        put("list.txt", (const uint8_t *)names, sizeof names - 1);
        snprintf(path, sizeof path, "%s/list.txt", folder);
        snprintf(to, sizeof to, "%s/o.pixels", folder);
        if (mimic_dataset_open(ctx, &(mimic_dataset_config){.path = path}, &d) ||
            mimic_pixels_write(ctx, d, &(mimic_pixels_config){.path = to}, NULL))
            abort();
        FILE *f = fopen(to, "rb");
        n = f ? fread(out + 2, 1, cap - 2, f) : 0;
        if (f)
            fclose(f);
        out[0] = PIXELS;
        out[1] = 0;
        free(jpeg);
        mimic_image_free(&img);
        mimic_dataset_free(d);
        mimic_close(ctx);
        remove_folder();
        return n + 2;
    }
    default:
        return 0;
    }
}

/* FERPlus, AffectNet and RecordIO: exact formats, traps, label rules, messages; soft labels through
 * the loader; every allocation of opening may fail. */
#include "data_util.h"
#include "data/ferplus_label.h"

static mimic_status try_set(const char *path, const char *split, const char *mode, bool need,
                            mimic_dataset **d) {
    mimic_dataset_config cfg = {
        .path = at(path), .split = split, .mode = mode, .need_labels = need};
    *d = NULL;
    return mimic_dataset_open(ctx, &cfg, d);
}

static mimic_dataset *open_mode(const char *path, const char *split, const char *mode, bool need) {
    mimic_dataset *d;
    must(try_set(path, split, mode, need, &d));
    return d;
}

static void refuse_mode(const char *path, const char *split, const char *mode, mimic_status status,
                        const char *part) {
    mimic_dataset *d;
    must_fail(try_set(path, split, mode, true, &d), status, part);
}

static void assert_soft(const mimic_dataset *d, int64_t i, const float *p) {
    const float *soft = mimic_dataset_soft(d, i);
    assert_non_null(soft);
    for (int k = 0; k < mimic_dataset_classes(d); k++)
        assert_float_equal(soft[k], p[k], 1e-7);
}

/* A row of each kind, and what the five rules make of it (-1: discarded). */
static const struct {
    int votes[10];
    int label[5];
    float share[8]; /* crossentropy */
} rules[] = {
    {{10}, {0, 0, 0, 0, 0}, {1}},
    {{0, 6, 0, 0, 3, 1}, {1, 1, 1, 1, 1}, {0, 6 / 9.f, 0, 0, 3 / 9.f}},
    {{5, 5}, {0, -1, 0, 0, 0}, {0.5f, 0.5f}}, /* a tie: no majority, shared otherwise */
    {{0, 0, 4, 3, 3}, {2, -1, 2, 2, 2}, {0, 0, 0.4f, 0.3f, 0.3f}},
    {{3, 3, 2, 2}, {0, -1, -1, -1, 0}, {0}}, /* four emotions until 75 % */
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 10}, {-1, -1, -1, -1, -1}, {0}},
    {{0, 3, 0, 0, 0, 0, 0, 0, 7}, {1, -1, -1, -1, -1}, {0}},      /* unknown wins */
    {{0, 0, 0, 6, 0, 0, 0, 0, 4}, {3, 3, 3, 3, 3}, {0, 0, 0, 1}}, /* unknown after an emotion */
    {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {0, -1, -1, -1, -1}, {0}},
    {{0, 0, 0, 0, 0, 0, 1, 9}, {7, 7, 7, 7, 7}, {0, 0, 0, 0, 0, 0, 0, 1}},
};
enum { RULES = sizeof rules / sizeof *rules };

static void test_label_rules(void **state) {
    (void)state;
    for (int r = 0; r < RULES; r++)
        for (int mode = 0; mode < MIMIC_FERPLUS_MODES; mode++) {
            int label = -1;
            double share[8];
            bool kept =
                mimic_ferplus_label(rules[r].votes, (mimic_ferplus_mode)mode, &label, share);
            if (kept != (rules[r].label[mode] >= 0) || (kept && label != rules[r].label[mode]))
                fail_msg("row %d mode %d: %d, %d", r, mode, kept, label);
            if (kept && mode == MIMIC_FERPLUS_CROSSENTROPY)
                for (int k = 0; k < 8; k++)
                    assert_float_equal(share[k], rules[r].share[k], 1e-6);
        }
    int label;
    double share[8];
    assert_true(
        mimic_ferplus_label((int[10]){0, 6, 0, 0, 4}, MIMIC_FERPLUS_MULTI_TARGET, &label, share));
    assert_true(share[1] == 0.5 && share[4] == 0.5); /* equal shares of 60 % and 40 % */
}

#define HEAD                                                                                       \
    "Usage,Image "                                                                                 \
    "name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"

/* The pair with row r of `rules` for training, then one row for each of the other splits. */
static void put_pair(const char *folder, const char *name_of_row_3) {
    char path[200], pixels[200], *csv = malloc(1 << 20), *votes = malloc(1 << 16);
    size_t c = 0, v = 0;
    assert_true(csv && votes);
    c += (size_t)sprintf(csv + c, "emotion,pixels,Usage\n");
    v += (size_t)sprintf(votes + v, HEAD);
    for (int r = 0; r < RULES + 2; r++) {
        const char *usage = r < RULES ? "Training" : r == RULES ? "PublicTest" : "PrivateTest";
        const int *n = rules[r % RULES].votes;
        c += (size_t)sprintf(csv + c, "%d,", r % 7);
        for (int k = 0; k < 48 * 48; k++)
            c += (size_t)sprintf(csv + c, "%s%d", k ? " " : "", (k + r * 9) % 256);
        c += (size_t)sprintf(csv + c, ",%s\n", usage);
        v += (size_t)sprintf(votes + v, "%s,%s,%d,%d,%d,%d,%d,%d,%d,%d,%d,%d\n", usage,
                             r == 3 ? name_of_row_3 : "fer0000001.png", n[0], n[1], n[2], n[3],
                             n[4], n[5], n[6], n[7], n[8], n[9]);
    }
    snprintf(path, sizeof path, "%s/fer2013new.csv", folder);
    snprintf(pixels, sizeof pixels, "%s/fer2013.csv", folder);
    put_text(path, votes);
    put_text(pixels, csv);
    free(csv);
    free(votes);
}

static void test_ferplus_pair(void **state) {
    (void)state;
    mimic_image img = {0};
    mimic_err err;
    put_pair("fp", "fer0000001.png"); /* one name for all: rows are what joins */
    mimic_dataset *d = open_mode("fp", "train", NULL, true);
    assert_string_equal(mimic_dataset_format(d), "ferplus");
    assert_string_equal(mimic_dataset_mode(d), "maxvote");
    assert_int_equal(mimic_dataset_size(d), RULES - 1);
    assert_int_equal(mimic_dataset_dropped(d), 1);
    assert_int_equal(mimic_dataset_classes(d), 8);
    assert_string_equal(mimic_dataset_class_name(d, 7), "contempt");
    assert_null(mimic_dataset_soft(d, 0));
    /* Row 6 of the table, line 8 of the file, is sample 5. */
    assert_string_equal(mimic_dataset_sample_name(d, 5), "fer2013.csv:8");
    assert_int_equal(mimic_dataset_label(d, 5), 1);
    assert_int_equal(mimic_dataset_read(d, 5, &img, &err), MIMIC_OK);
    assert_true(img.width == 48 && img.height == 48);
    for (int k = 0; k < 48 * 48; k++)
        assert_true(img.pixels[3 * k] == (k + 54) % 256 &&
                    img.pixels[3 * k + 2] == img.pixels[3 * k]);
    mimic_dataset_free(d);
    for (int mode = 0; mode < 5; mode++) {
        static const char *const names[] = {"maxvote", "majority", "crossentropy", "probability",
                                            "multi_target"};
        int expected = 0;
        for (int r = 0; r < RULES; r++)
            expected += rules[r].label[mode] >= 0;
        d = open_mode("fp", "train", names[mode], true);
        assert_int_equal(mimic_dataset_size(d), expected);
        assert_int_equal(mimic_dataset_draws(d), mode == 3);
        assert_int_equal(mimic_dataset_soft(d, 0) != NULL, mode >= 2);
        if (mode == 2)
            assert_soft(d, 1, rules[1].share);
        mimic_dataset_free(d);
    }
    d = open_mode("fp/fer2013.csv", NULL, "majority", false); /* the file; all splits, all rows */
    assert_int_equal(mimic_dataset_size(d), RULES + 2);
    assert_int_equal(mimic_dataset_label(d, 5), -1);
    mimic_dataset_free(d);
    d = open_mode("fp", "val", NULL, true);
    assert_int_equal(mimic_dataset_size(d), 1);
    assert_string_equal(mimic_dataset_sample_name(d, 0), "fer2013.csv:12");
    mimic_dataset_free(d);
    put_pair("fp", ""); /* without an image name there is no face, whatever the votes */
    d = open_mode("fp", "train", NULL, false);
    assert_int_equal(mimic_dataset_size(d), RULES - 1);
    mimic_dataset_free(d);
    refuse_mode("fp", "dev", NULL, MIMIC_EINVAL, "train, val and test, not \"dev\"");
    refuse_mode("fp", NULL, "max", MIMIC_EINVAL, "no mode \"max\"; it has: maxvote, majority");
    mimic_image_free(&img);
}

static void test_ferplus_errors(void **state) {
    (void)state;
    mimic_image img = {0};
    mimic_err err;
    put_text("bad/fer2013new.csv", HEAD "Training,a.png,10,0,0,0,0,0,0,0,0,0\n");
    refuse_mode("bad", NULL, NULL, MIMIC_EIO, "fer2013.csv is missing");
    static const struct {
        const char *pixels, *part;
    } cases[] = {
        {"emotion,Usage\n0,1 2,Training\n", "fer2013.csv:1: the header is \"emotion,Usage\""},
        {"emotion,pixels,Usage\n0,1 2,PublicTest\n", "do not belong together"},
        {"emotion,pixels,Usage\n", "has more rows than"},
        {"emotion,pixels,Usage\n0,1 2,Training\n0,1,Training\n", "has more rows than"},
        {"emotion,pixels,Usage\n0,1,2,Training\n", "fer2013.csv:2: 4 fields, the header has 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text("bad/fer2013.csv", cases[i].pixels);
        refuse_mode("bad", NULL, NULL, MIMIC_EFORMAT, cases[i].part);
    }
    put_text("bad/fer2013.csv", "emotion,pixels,Usage\n0,1 2,Training\n");
    static const struct {
        const char *votes, *part;
    } rows[] = {{"Training,a.png,10,0\n", "fer2013new.csv:2: 4 fields instead of 12"},
                {"Training,a.png,10,0,0,0,x,0,0,0,0,0\n", "\"x\" is not a count"},
                {"Training,a.png,10,0,0,-1,0,0,0,0,0,0\n", "\"-1\" is not a count"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[300];
        snprintf(text, sizeof text, HEAD "%s", rows[i].votes);
        put_text("bad/fer2013new.csv", text);
        refuse_mode("bad", NULL, NULL, MIMIC_EFORMAT, rows[i].part);
    }
    static const char *const heads[] = {
        "Usage,name\n",
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,"
        "none\n",
        "Usage,Image "
        "name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF,"
        "more\n"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        put_text("bad/fer2013new.csv", heads[i]);
        refuse_mode("bad", NULL, NULL, MIMIC_EFORMAT, "fer2013new.csv:1: the header is");
    }
    /* A byte order mark in front and an empty line at the end, in either file. */
    put_text("bad/fer2013.csv", "\xef\xbb\xbf"
                                "emotion,pixels,Usage\r\n0,1 2,Training\r\n\r\n");
    put_text("bad/fer2013new.csv", HEAD "Training,a.png,10,0,0,0,0,0,0,0,0,0\n");
    mimic_dataset_free(open_mode("bad", NULL, NULL, true));
    refuse_mode("bad", "test", NULL, MIMIC_EFORMAT,
                "fer2013new.csv has no row of Usage PrivateTest");
    put_text("bad/fer2013.csv", "pixels,emotion,Usage\n1 2,0,Training\n");
    put_text("bad/fer2013new.csv", "\xef\xbb\xbf" HEAD "Training,a.png,10,0,0,0,0,0,0,0,0,0\n\n");
    mimic_dataset_free(open_mode("bad", NULL, NULL, true));
    put_text("bad/fer2013.csv", "emotion,pixels,Usage\n0,1 2,Training\n");
    /* Pixels are looked at when they are read. */
    put_text("bad/fer2013new.csv", HEAD "Training,a.png,10,0,0,0,0,0,0,0,0,0\n");
    mimic_dataset *d = open_mode("bad", NULL, NULL, true);
    assert_int_equal(mimic_dataset_read(d, 0, &img, &err), MIMIC_EFORMAT);
    assert_string_equal(err.text, "fer2013.csv:2: 2 pixels instead of 48 x 48 = 2304");
    mimic_dataset_free(d);
    put_text("bad/fer2013.csv", "emotion,pixels,Usage\n0,1 256,Training\n");
    d = open_mode("bad", NULL, NULL, true);
    assert_int_equal(mimic_dataset_read(d, 0, &img, &err), MIMIC_EFORMAT);
    assert_string_equal(err.text, "fer2013.csv:2: pixel 2 is not a number from 0 to 255");
    mimic_dataset_free(d);
    mimic_image_free(&img);
}

static void test_ferplus_folders(void **state) {
    (void)state;
    mimic_image img = {0};
    mimic_err err;
    uint8_t *png;
    size_t size;
    fill_image(&img, 48, 48, 99);
    assert_int_equal(mimic_png_encode(&img, true, &png, &size, &err), MIMIC_OK);
    make_folder("ff/FER2013Train");
    make_folder("ff/FER2013Valid");
    write_file(at("ff/FER2013Train/fer0032220.png"), png, size);
    free(png);
    put_text("ff/FER2013Train/label.csv",
             "fer0032220.png,\"(0, 0, 48, 48)\",0,0,0,0,0,8,0,2,0,0\n"
             "fer0032221.png,\"(8, 4, 40, 48)\",0,0,0,0,0,0,0,0,0,10\n");
    put_text("ff/FER2013Valid/label.csv", "x.png,\"(0, 0, 48, 48)\",10,0,0,0,0,0,0,0,0,0\r\n");
    mimic_dataset *d = open_mode("ff", "train", NULL, true);
    assert_int_equal(mimic_dataset_size(d), 1);
    assert_int_equal(mimic_dataset_label(d, 0), 5);
    assert_int_equal(mimic_dataset_read(d, 0, &img, &err), MIMIC_OK);
    assert_true(img.width == 48 && img.height == 48);
    mimic_dataset_free(d);
    d = open_mode("ff", NULL, NULL, false);
    assert_int_equal(mimic_dataset_size(d), 3);
    mimic_dataset_free(d);
    put_text("ff/FER2013Train/label.csv",
             "fer0032220.png,\"(8, 4, 40, 48)\",0,0,0,0,0,8,0,2,0,0\n");
    d = open_mode("ff", "train", NULL, true);
    assert_int_equal(mimic_dataset_read(d, 0, &img, &err), MIMIC_OK);
    assert_true(img.width == 32 && img.height == 44);
    mimic_dataset_free(d);
    put_text("ff/FER2013Train/label.csv", "fer0032220.png,(0 0 48 48),0,0,0,0,0,8,0,2,0,0\n");
    refuse_mode("ff", "train", NULL, MIMIC_EFORMAT, "label.csv:1: \"(0 0 48 48)\" is not a box");
    refuse_mode("ff", "test", NULL, MIMIC_EIO, "FER2013Test is missing");
    make_folder("ff/FER2013Test");
    refuse_mode("ff", "test", NULL, MIMIC_EIO, "FER2013Test/label.csv");
    rmdir(at("ff/FER2013Test"));
    mimic_image_free(&img);
}

#define AFFECTNET_HEAD                                                                             \
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"      \
    "valence,arousal\n"

static void test_affectnet_csv(void **state) {
    (void)state;
    mimic_image img = {0};
    mimic_err err;
    put_jpeg("an/Manually_Annotated_Images/1/a.jpg", 100); /* 12 x 10 */
    put_jpeg("an/Manually_Annotated_Images/2/b.jpg", 50);
    put_text("an/training.csv",
             "\xef\xbb\xbf" AFFECTNET_HEAD "1/a.jpg,2,3,6,5,1.5;2.5;3;4,1,0.5,0.1\n"
             "2/b.jpg,-2,-1,200,200,1;2,7,0,0\n"
             "2/b.jpg,0,0,0,0,1;2,10,-2,-2\n"
             "2/b.jpg,50,50,9,9,1;2,6,0,0\n");
    put_text("an/validation.csv", "1/a.jpg,0,0,12,10,1;2,3,0,0\n"); /* without a header */
    mimic_dataset *d = open_mode("an", "train", NULL, true);
    assert_string_equal(mimic_dataset_format(d), "affectnet");
    assert_int_equal(mimic_dataset_size(d), 2);
    assert_int_equal(mimic_dataset_dropped(d), 2);
    assert_int_equal(mimic_dataset_classes(d), 7);
    assert_int_equal(mimic_dataset_label(d, 0), 1);
    assert_int_equal(mimic_dataset_read(d, 0, &img, &err), MIMIC_OK);
    assert_true(img.width == 6 && img.height == 5);
    assert_true(abs(img.pixels[0] - 255 * 2 / 12) < 16 && abs(img.pixels[1] - 255 * 3 / 10) < 16);
    assert_int_equal(mimic_dataset_read(d, 1, &img, &err), MIMIC_EFORMAT);
    assert_non_null(strstr(err.text, "2/b.jpg: the box (50, 50) of 9 x 9 lies outside"));
    mimic_dataset_free(d);
    d = open_mode("an", NULL, "8", true);
    assert_int_equal(mimic_dataset_size(d), 4);
    assert_int_equal(mimic_dataset_label(d, 1), 7);
    assert_string_equal(mimic_dataset_class_name(d, 7), "contempt");
    assert_int_equal(mimic_dataset_read(d, 1, &img, &err), MIMIC_OK);
    assert_true(img.width == 12 && img.height == 10); /* a box larger than the picture */
    assert_int_equal(mimic_dataset_label(d, 3), 3);
    mimic_dataset_free(d);
    refuse_mode("an", "test", NULL, MIMIC_EINVAL, "train and val, not \"test\"");
    static const struct {
        const char *row, *part;
    } bad[] = {{"1/a.jpg,2,3\n", "validation.csv:1: 3 fields"},
               {"1/a.jpg,2,3,4,5,1;2,1\n", "validation.csv:1: 7 fields instead of 9"},
               {"1/a.jpg,2,3,4,5,1;2,1,0,0,9\n", "validation.csv:1: 10 fields instead of 9"},
               {AFFECTNET_HEAD "1/a.jpg,2,3,4,5,1;2,1,0\n", "validation.csv:2: 8 fields instead"},
               {"subDirectory_filePath,face_y,face_x,face_width,face_height,facial_landmarks,"
                "expression,valence,arousal\n1/a.jpg,2,3,4,5,1;2,1,0,0\n",
                "validation.csv:1: column 2 of the header is \"face_y\", expected \"face_x\""},
               {"1/a.jpg,2,3,x,5,1;2,1,0,0\n", "\"x\" is not a number of pixels"},
               {"1/a.jpg,2,3,0,5,1;2,1,0,0\n", "a face of 0 x 5 pixels"},
               {"1/a.jpg,2,3,4,5,1;2,11,0,0\n", "expression \"11\" is not 0 to 10"},
               {"../a.jpg,2,3,4,5,1;2,1,0,0\n", "is not a path below"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_text("an/validation.csv", bad[i].row);
        refuse_mode("an", "val", NULL, MIMIC_EFORMAT, bad[i].part);
    }
    mimic_image_free(&img);
}

static void put_npy(const char *name, int version, const char *dict, const void *data,
                    size_t size) {
    char path[200], file[600];
    size_t n = strlen(dict), head = version == 1 ? 10 : 12;
    memcpy(file, "\x93NUMPY", 6);
    memcpy(file + 6, (uint8_t[]){(uint8_t)version, 0, (uint8_t)n, 0, 0, 0}, 6);
    memcpy(file + head, dict, n);
    memcpy(file + head + n, data, size);
    snprintf(path, sizeof path, "al/val_set/annotations/%s", name);
    write_file(at(path), file, head + n + size);
}

#define DICT(descr, shape) "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }\n"

static void test_affectnet_npy(void **state) {
    (void)state;
    put_jpeg("al/val_set/images/2.jpg", 20);
    put_jpeg("al/val_set/images/10.jpg", 10);
    make_folder("al/val_set/annotations");
    put_npy("2_exp.npy", 1, DICT("<U1", "()"), "4\0\0\0", 4);
    put_npy("10_exp.npy", 1, DICT("<U2", "()"), "7\0\0\0\0\0\0\0", 8);
    mimic_dataset *d = open_mode("al", "val", NULL, true);
    assert_int_equal(mimic_dataset_size(d), 1);
    assert_int_equal(mimic_dataset_label(d, 0), 4);
    mimic_dataset_free(d);
    static const struct {
        const char *dict;
        int version;
        const char *data;
        size_t size;
    } numbers[] = {{DICT("|i1", "()"), 1, "\x05", 1},
                   {DICT("<i8", "()"), 2, "\5\0\0\0\0\0\0\0", 8},
                   {DICT(">i4", "(1,)"), 1, "\0\0\0\5", 4},
                   {DICT("<f4", "()"), 1, "\0\0\xa0\x40", 4},
                   {DICT("<f8", "()"), 1, "\0\0\0\0\0\0\x14\x40", 8},
                   {DICT("|S2", "()"), 1, "5\0", 2},
                   {DICT(">U1", "()"), 3, "\0\0\0005", 4}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        put_npy("10_exp.npy", numbers[i].version, numbers[i].dict, numbers[i].data,
                numbers[i].size);
        d = open_mode("al", "val", "8", true);
        assert_int_equal(mimic_dataset_size(d), 2); /* in order of their numbers: 2, 10 */
        assert_int_equal(mimic_dataset_label(d, 0), 4);
        assert_int_equal(mimic_dataset_label(d, 1), 5);
        mimic_dataset_free(d);
    }
    static const struct {
        const char *dict, *data;
        size_t size;
        mimic_status status;
        const char *part;
    } bad[] = {{DICT("|O", "()"), "5", 1, MIMIC_EUNSUPPORTED, "dtype '|O' is neither"},
               {DICT("<U1", "(3,)"), "5", 1, MIMIC_EFORMAT, "shape (3,)"},
               {DICT("<U1", "()"), "5\0\0", 3, MIMIC_EFORMAT, "not of the size"},
               {DICT("<U1", "()"), "x\0\0\0", 4, MIMIC_EFORMAT, "\"x\" is not a number"},
               {DICT("<i4", "()"), "\x0b\0\0\0", 4, MIMIC_EFORMAT, "expression 11 is not 0 to 10"},
               {DICT("<f4", "()"), "\0\0\0\x3f", 4, MIMIC_EFORMAT, "expression 0.5 is not"},
               {"{'shape': ()}", "", 0, MIMIC_EFORMAT, "no plain 'descr'"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_npy("10_exp.npy", 1, bad[i].dict, bad[i].data, bad[i].size);
        refuse_mode("al", "val", "8", bad[i].status, bad[i].part);
    }
    unlink(at("al/val_set/annotations/10_exp.npy"));
    refuse_mode("al", "val", "8", MIMIC_EIO, "10_exp.npy: No such file");
}

/* Appends a record in parts cut after `cut` bytes (0: whole), with the magic left out between. */
static void put_part(FILE *f, uint32_t flag, const uint8_t *data, size_t n) {
    uint32_t head[2] = {0xced7230a, flag << 29 | (uint32_t)n};
    fwrite(head, 1, 8, f);
    fwrite(data, 1, n, f);
    fwrite("\0\0\0", 1, (4 - n % 4) % 4, f);
}

static size_t labels_of(uint8_t *out, uint32_t flag, float label, const float *more) {
    memset(out, 0, 24);
    memcpy(out, &flag, 4);
    memcpy(out + 4, &label, 4);
    if (flag)
        memcpy(out + 24, more, flag * 4);
    return 24 + flag * 4;
}

/* Pictures 1..n-1 of two identities n and n+1; picture 2 comes in two parts. */
static void put_rec(int n, bool with_header) {
    static uint8_t data[1 << 16];
    make_folder("ms");
    FILE *rec = fopen(at("ms/train.rec"), "wb"), *idx = fopen(at("ms/train.idx"), "w");
    assert_true(rec && idx);
    if (with_header) {
        fprintf(idx, "0\t%ld\n", ftell(rec));
        put_part(rec, 0, data, labels_of(data, 2, 0, (float[]){(float)n, (float)n + 2}));
    }
    for (int i = 1; i < n; i++) {
        size_t size, at_data = labels_of(data, 0, (float)(i % 5), NULL);
        uint8_t *jpeg = make_jpeg(16, 16, 10 * i, &size);
        memcpy(data + at_data, jpeg, size);
        free(jpeg);
        fprintf(idx, "%d\t%ld\n", i, ftell(rec));
        if (i == 2) { /* a comment that holds the magic, where the record is cut */
            memmove(data + at_data + 2 + 10, data + at_data + 2, size - 2);
            memcpy(data + at_data + 2, "\xff\xfe\0\x08\0\0\x0a\x23\xd7\xce", 10);
            size_t cut = at_data + 2 + 6;
            put_part(rec, 1, data, cut);
            put_part(rec, 3, data + cut + 4, at_data + size + 10 - cut - 4);
        } else
            put_part(rec, 0, data, at_data + size);
    }
    if (with_header) {
        float ranges[2][2] = {{1, 4}, {4, (float)n - 1}}; /* the last picture is of nobody */
        for (int k = 0; k < 2; k++) {
            fprintf(idx, "%d\t%ld\n", n + k, ftell(rec));
            put_part(rec, 0, data, labels_of(data, 2, 0, ranges[k]));
        }
    }
    fclose(rec);
    fclose(idx);
    put_text("ms/property", "2,16,16");
}

static void test_recordio(void **state) {
    (void)state;
    mimic_image img = {0};
    mimic_err err;
    put_rec(8, true);
    mimic_dataset *d = open_mode("ms", NULL, NULL, false);
    assert_string_equal(mimic_dataset_format(d), "recordio");
    assert_int_equal(mimic_dataset_size(d), 7);
    assert_int_equal(mimic_dataset_classes(d), 2);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(mimic_dataset_label(d, i), i < 3 ? 0 : i < 6 ? 1 : -1);
        if (mimic_dataset_read(d, i, &img, &err) != MIMIC_OK)
            fail_msg("%s", err.text);
        assert_true(abs(img.pixels[8 * 16 * 3 + 2] - 10 * (i + 1)) < 16);
    }
    assert_string_equal(mimic_dataset_sample_name(d, 1), "train.rec:2");
    mimic_dataset_free(d);
    d = open_mode("ms/train.rec", NULL, NULL, true);
    assert_int_equal(mimic_dataset_size(d), 6);
    assert_int_equal(mimic_dataset_dropped(d), 1);
    mimic_dataset_free(d);
    put_rec(5, false); /* an older pack: labels in front of the pictures */
    d = open_mode("ms", NULL, NULL, true);
    assert_int_equal(mimic_dataset_size(d), 4);
    assert_int_equal(mimic_dataset_classes(d), 5);
    assert_int_equal(mimic_dataset_label(d, 2), 3);
    assert_int_equal(mimic_dataset_read(d, 1, &img, &err), MIMIC_OK);
    mimic_dataset_free(d);
    refuse_mode("ms", "train", NULL, MIMIC_EINVAL, "RecordIO has no splits");
    refuse_mode("ms", NULL, "8", MIMIC_EINVAL, "format recordio has no modes");
    put_text("ms/train.idx", "1\t0\n1\t40\n");
    refuse_mode("ms", NULL, NULL, MIMIC_EFORMAT, "key 1 occurs twice");
    put_text("ms/train.idx", "1\t99999999\n");
    refuse_mode("ms", NULL, NULL, MIMIC_EFORMAT, "train.idx:1: offset 99999999 is beyond");
    put_text("ms/train.idx", "1 0\n");
    refuse_mode("ms", NULL, NULL, MIMIC_EFORMAT, "train.idx:1: not KEY<TAB>OFFSET");
    put_text("ms/train.idx", "1\t4\n");
    refuse_mode("ms", NULL, NULL, MIMIC_EFORMAT, "train.rec:1: no record at byte 4");
    put_text("ms/train.idx", "1\t0\n2\t9\n");
    put_text("ms/train.rec", "\x0a\x23\xd7\xce\x40...........");
    refuse_mode("ms", NULL, NULL, MIMIC_EFORMAT, "train.rec:1: the record is cut off");
    unlink(at("ms/train.idx"));
    refuse_mode("ms", NULL, NULL, MIMIC_EIO, "train.idx: No such file");
    mimic_image_free(&img);
}

/* Soft labels come with the batch; drawn ones follow the shares, new in every epoch, and evaluation
 * does not draw. */
static void test_soft_batches(void **state) {
    (void)state;
    mimic_loader *l;
    mimic_batch b;
    put_pair("fp", "fer0000001.png");
    mimic_dataset *d = open_mode("fp", "train", "crossentropy", true);
    mimic_loader_config cfg = {.transform = {.size = 8}, .batch = 2, .shuffle = true, .seed = 4};
    must(mimic_loader_new(ctx, d, &cfg, &l));
    must(mimic_loader_start(l, 0, 0));
    for (;;) {
        must(mimic_loader_next(l, &b));
        if (b.n == 0)
            break;
        assert_int_equal(mimic_tensor_shape(b.soft)[1], 8);
        for (int i = 0; i < b.n; i++) {
            int32_t k = ((int32_t *)mimic_tensor_data(b.index))[i];
            assert_memory_equal((float *)mimic_tensor_data(b.soft) + 8 * i,
                                mimic_dataset_soft(d, k), 8 * sizeof(float));
        }
        mimic_tensor_release(b.images);
        mimic_tensor_release(b.labels);
        mimic_tensor_release(b.soft);
        mimic_tensor_release(b.index);
    }
    mimic_loader_free(l);
    mimic_dataset_free(d);
    d = open_mode("fp", "train", "probability", true);
    for (int draw = 0; draw < 2; draw++) {
        int happy = 0, others = 0;
        cfg.draw_labels = draw;
        cfg.batch = (int)mimic_dataset_size(d);
        cfg.shuffle = false;
        must(mimic_loader_new(ctx, d, &cfg, &l));
        for (int epoch = 0; epoch < 200; epoch++) {
            must(mimic_loader_start(l, epoch, 0));
            must(mimic_loader_next(l, &b));
            int32_t label = ((int32_t *)mimic_tensor_data(b.labels))[1]; /* happiness 2/3, anger */
            happy += label == 1;
            others += label != 1 && label != 4;
            assert_int_equal(((int32_t *)mimic_tensor_data(b.labels))[0], 0);
            assert_int_equal(b.soft == NULL, draw);
            mimic_tensor_release(b.images);
            mimic_tensor_release(b.labels);
            mimic_tensor_release(b.soft);
            mimic_tensor_release(b.index);
        }
        assert_int_equal(others, 0);
        if (draw)
            assert_in_range(happy, 110, 156);
        else
            assert_int_equal(happy, 200);
        mimic_loader_free(l);
    }
    mimic_dataset_free(d);
}

static void test_no_memory(void **state) {
    (void)state;
    put_rec(8, true);
    put_text("an/validation.csv", "1/a.jpg,0,0,12,10,1;2,3,0,0\n");
    put_text("ff/FER2013Train/label.csv", "a.png,\"(8, 4, 40, 48)\",0,0,0,0,0,8,0,2,0,0\n");
    put_npy("10_exp.npy", 1, DICT("<U1", "()"), "1\0\0\0", 4);
    static const char *const paths[] = {"fp", "ff", "an", "al", "ms"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        mimic_status s = MIMIC_ENOMEM;
        for (int64_t n = 1; s != MIMIC_OK; n++) {
            mimic_dataset *d;
            mimic_fail_alloc(ctx, n, true);
            s = try_set(paths[i], NULL, i < 2 ? "crossentropy" : NULL, false, &d);
            mimic_fail_alloc(ctx, 0, false);
            if (s != MIMIC_OK && s != MIMIC_ENOMEM)
                fail_msg("%s: %s", paths[i], mimic_message(ctx));
            mimic_dataset_free(d);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_label_rules),    cmocka_unit_test(test_ferplus_pair),
        cmocka_unit_test(test_ferplus_errors), cmocka_unit_test(test_ferplus_folders),
        cmocka_unit_test(test_affectnet_csv),  cmocka_unit_test(test_affectnet_npy),
        cmocka_unit_test(test_recordio),       cmocka_unit_test(test_soft_batches),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

/* Data set formats: class folders, RAF-DB in both forms, list files, packs; and the messages of
 * everything that can be wrong with them. */
#include "data_util.h"

static void refuse(const char *path, const char *format, const char *split, bool need_labels,
                   mimic_status want, const char *part) {
    mimic_dataset *d = NULL;
    mimic_dataset_config cfg = {
        .path = at(path), .format = format, .split = split, .need_labels = need_labels};
    must_fail(mimic_dataset_open(ctx, &cfg, &d), want, part);
    assert_null(d);
}

static void assert_sample(const mimic_dataset *d, int64_t i, const char *end, int label) {
    const char *name = mimic_dataset_sample_name(d, i);
    size_t n = strlen(name), k = strlen(end);
    if (n < k || strcmp(name + n - k, end) != 0)
        fail_msg("sample %lld is %s, not %s", (long long)i, name, end);
    assert_int_equal(mimic_dataset_label(d, i), label);
}

/* All samples decode; the blue channel tells which file it was. */
static void assert_tone(const mimic_dataset *d, int64_t i, int tone) {
    mimic_image img = {0};
    mimic_err err;
    if (mimic_dataset_read(d, i, &img, &err) != MIMIC_OK)
        fail_msg("%s", err.text);
    assert_true(abs(img.pixels[(img.width * img.height / 2) * 3 + 2] - tone) < 16);
    mimic_image_free(&img);
}

static void test_folders(void **state) {
    (void)state;
    put_jpeg("in/train/b/2.JPEG", 20);
    put_jpeg("in/train/b/1.jpg", 10);
    put_jpeg("in/train/B/1.jpeg", 30);
    put_jpeg("in/train/c/1.jpg", 40);
    put_text("in/train/c/notes.txt", "no picture");
    put_jpeg("in/val/c/v.jpg", 50);
    put_jpeg("in/val/a/v.jpg", 60);
    mimic_dataset *d = open_set("in", NULL, "train", true);
    assert_string_equal(mimic_dataset_format(d), "folders");
    assert_int_equal(mimic_dataset_size(d), 4);
    assert_int_equal(mimic_dataset_classes(d), 4); /* B a b c: of both splits */
    assert_string_equal(mimic_dataset_class_name(d, 0), "B");
    assert_string_equal(mimic_dataset_class_name(d, 1), "a");
    assert_string_equal(mimic_dataset_class_name(d, 4), "");
    assert_sample(d, 0, "in/train/B/1.jpeg", 0);
    assert_sample(d, 1, "in/train/b/1.jpg", 2);
    assert_sample(d, 2, "in/train/b/2.JPEG", 2);
    assert_tone(d, 2, 20);
    int64_t counts[4];
    mimic_dataset_counts(d, counts);
    assert_true(counts[0] == 1 && counts[1] == 0 && counts[2] == 2 && counts[3] == 1);
    mimic_dataset_free(d);
    d = open_set("in", NULL, "val", true);
    assert_sample(d, 1, "in/val/c/v.jpg", 3);
    mimic_dataset_free(d);
    d = open_set("in", "folders", NULL, false);
    assert_int_equal(mimic_dataset_size(d), 6);
    mimic_dataset_free(d);
    d = open_set("in/val", NULL, NULL, false);
    assert_int_equal(mimic_dataset_size(d), 2);
    mimic_dataset_free(d);
    refuse("in", NULL, "test", false, MIMIC_EIO, "/in/test is missing; ");
    refuse("in", NULL, "test", false, MIMIC_EIO, "/in holds: train/, val/");
    refuse("in/train/c", NULL, NULL, false, MIMIC_EFORMAT, "it holds: 1.jpg, notes.txt");
    refuse("inn", NULL, NULL, false, MIMIC_EIO, "no data set at");
    refuse("in", "folder", NULL, false, MIMIC_EINVAL,
           "folders, rafdb, ferplus, affectnet, recordio, list, pack, pixels");
    refuse("in", NULL, "../x", false, MIMIC_EINVAL, "is not a name");
}

static void test_hash(void **state) {
    (void)state;
    uint8_t a[32], b[32];
    put_jpeg("h1/x/1.jpg", 1);
    put_jpeg("h2/x/1.jpg", 1);
    mimic_dataset *d = open_set("h1", NULL, NULL, false);
    mimic_dataset_hash(d, a);
    mimic_dataset_free(d);
    d = open_set("h2", NULL, NULL, false);
    mimic_dataset_hash(d, b);
    assert_memory_equal(a, b, 32); /* not where it lies */
    put_text("h2/x/1.jpg", "another size");
    mimic_dataset_hash(d, b);
    assert_memory_not_equal(a, b, 32);
    mimic_dataset_free(d);
}

static void test_rafdb(void **state) {
    (void)state;
    put_jpeg("raf/Image/aligned/train_00001_aligned.jpg", 100);
    put_jpeg("raf/Image/aligned/test_0001_aligned.jpg", 200);
    put_text("raf/EmoLabel/list_patition_label.txt",
             "train_00001.jpg 5\r\ntrain_00002.jpg 1\r\ntest_0001.jpg 7\r\n");
    mimic_dataset *d = open_set("raf", NULL, "train", true);
    assert_string_equal(mimic_dataset_format(d), "rafdb");
    assert_int_equal(mimic_dataset_size(d), 2);
    assert_int_equal(mimic_dataset_classes(d), 7);
    assert_string_equal(mimic_dataset_class_name(d, 0), "surprise");
    assert_string_equal(mimic_dataset_class_name(d, 6), "neutral");
    assert_sample(d, 0, "raf/Image/aligned/train_00001_aligned.jpg", 4);
    assert_tone(d, 0, 100);
    mimic_image img = {0};
    mimic_err err;
    assert_int_equal(mimic_dataset_read(d, 1, &img, &err), MIMIC_EIO);
    assert_non_null(
        strstr(err.text, "train_00002_aligned.jpg: No such file or directory (named in "));
    assert_non_null(strstr(err.text, "/raf/EmoLabel/list_patition_label.txt:2)"));
    mimic_image_free(&img);
    mimic_dataset_free(d);
    d = open_set("raf", NULL, "test", true);
    assert_sample(d, 0, "test_0001_aligned.jpg", 6);
    mimic_dataset_free(d);
    d = open_set("raf", NULL, NULL, true);
    assert_int_equal(mimic_dataset_size(d), 3);
    mimic_dataset_free(d);
    refuse("raf", NULL, "val", false, MIMIC_EINVAL, "train and test");
    put_text("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg 5\ntrain_00002.jpg 8\n");
    refuse("raf", NULL, "train", false, MIMIC_EFORMAT, "list_patition_label.txt:2: label \"8\"");
    put_text("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg 5\n");
    refuse("raf", NULL, "test", false, MIMIC_EFORMAT, "names no picture for test");
    put_text("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg\n");
    refuse("raf", NULL, "train", false, MIMIC_EFORMAT, ":1: ");
    refuse("in", "rafdb", NULL, false, MIMIC_EIO, "is not RAF-DB");

    put_jpeg("mirror/DATASET/train/5/train_00001_aligned.jpg", 90);
    put_jpeg("mirror/DATASET/test/2/test_0001_aligned.jpg", 80);
    d = open_set("mirror", NULL, NULL, true);
    assert_int_equal(mimic_dataset_size(d), 2);
    assert_sample(d, 0, "DATASET/train/5/train_00001_aligned.jpg", 4);
    mimic_dataset_free(d);
    put_text("mirror/train_labels.csv", "\xef\xbb\xbfimage,label\ntrain_00001_aligned.jpg,5\n");
    d = open_set("mirror", NULL, "train", true);
    assert_int_equal(mimic_dataset_size(d), 1);
    assert_tone(d, 0, 90);
    mimic_dataset_free(d);
    put_text("mirror/train_labels.csv", "image,label\ntrain_00001_aligned.jpg;5\n");
    refuse("mirror", NULL, "train", true, MIMIC_EFORMAT, "train_labels.csv:2: ");
    put_text("mirror/train_labels.csv", "name,label\n");
    refuse("mirror", NULL, "train", true, MIMIC_EFORMAT, "expected \"image,label\"");
}

static void test_list(void **state) {
    (void)state;
    put_jpeg("l/a b.jpg", 70);
    put_jpeg("l/sub/c.jpg", 75);
    put_text("l/hard.txt", "a b.jpg\t2\r\nsub/c.jpg\t0\n\n");
    mimic_dataset *d = open_set("l/hard.txt", NULL, NULL, true);
    assert_string_equal(mimic_dataset_format(d), "list");
    assert_int_equal(mimic_dataset_classes(d), 3);
    assert_sample(d, 0, "l/a b.jpg", 2);
    assert_sample(d, 1, "l/sub/c.jpg", 0);
    assert_tone(d, 0, 70);
    assert_tone(d, 1, 75);
    mimic_dataset_free(d);
    put_text("l/soft.tsv", "a b.jpg\t0.1,0.2,0.6,0.1\nsub/c.jpg\t0.5,0.5,0,0\n");
    d = open_set("l/soft.tsv", NULL, NULL, true);
    assert_int_equal(mimic_dataset_classes(d), 4);
    assert_sample(d, 0, "a b.jpg", 2);
    assert_sample(d, 1, "c.jpg", 0);
    mimic_dataset_free(d);
    put_text("l/none.txt", "a b.jpg\t-1\n");
    d = open_set("l/none.txt", NULL, NULL, false);
    assert_sample(d, 0, "a b.jpg", -1);
    mimic_dataset_free(d);
    refuse("l/none.txt", NULL, NULL, true, MIMIC_EFORMAT, "none.txt:1: ");
    static const char *const bad[] = {"a.jpg 3\n",
                                      "a.jpg\t\n",
                                      "\t3\n",
                                      "a.jpg\tx\n",
                                      "a.jpg\t-2\n",
                                      "a.jpg\t0.5,x\n",
                                      "a.jpg\t0,0,0\n",
                                      "a.jpg\t-1,2\n",
                                      "a.jpg\t1.5\n",
                                      "a.jpg\tnan,1\n",
                                      "a.jpg\t99999999999\n",
                                      "a.jpg\t1e,2\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[100];
        snprintf(text, sizeof text, "ok.jpg\t0\n%s", bad[i]);
        put_text("l/bad.txt", text);
        refuse("l/bad.txt", NULL, NULL, false, MIMIC_EFORMAT, "l/bad.txt:2: ");
    }
    put_text("l/bad.txt", "a\t0.5,0.5\nb\t0.2,0.3,0.5\n");
    refuse("l/bad.txt", NULL, NULL, false, MIMIC_EFORMAT, ":2: 3 probabilities, but 2 before");
    put_text("l/bad.txt", "a\t0.5,0.5\nb\t5\n");
    refuse("l/bad.txt", NULL, NULL, false, MIMIC_EFORMAT, "soft labels have 2 classes");
    put_text("l/bad.txt", "");
    refuse("l/bad.txt", NULL, NULL, false, MIMIC_EFORMAT, "no sample");
    write_file(at("l/bad.txt"), "a\t1\nb\0\t1\n", 9);
    refuse("l/bad.txt", NULL, NULL, false, MIMIC_EFORMAT, ":2: a zero byte");
    refuse("l/hard.txt", NULL, "train", false, MIMIC_EINVAL, "one list per split");
    put_text("l/mark.txt", "\xef\xbb\xbf"
                           "a b.jpg\t0\n\nmissing.jpg\t0\n"); /* a byte order mark */
    d = open_set("l/mark.txt", NULL, NULL, true);
    assert_tone(d, 0, 70);
    mimic_image img = {0};
    mimic_err err;
    assert_int_equal(mimic_dataset_read(d, 1, &img, &err), MIMIC_EIO);
    assert_non_null(strstr(err.text, "l/missing.jpg: No such file or directory (named in "));
    assert_non_null(strstr(err.text, "/l/mark.txt:3)"));
    mimic_dataset_free(d);
}

/* Changes one byte of a file. */
static void poke(const char *name, long offset, int byte) {
    FILE *f = fopen(at(name), "r+b");
    assert_non_null(f);
    fseek(f, offset, SEEK_SET);
    fputc(byte, f);
    fclose(f);
}

static void test_pack(void **state) {
    (void)state;
    put_pack("p_train", 23, 3, true);
    mimic_dataset *d = open_set("p_train.tar", NULL, NULL, true);
    assert_string_equal(mimic_dataset_format(d), "pack");
    assert_int_equal(mimic_dataset_size(d), 20);
    assert_int_equal(mimic_dataset_dropped(d), 3);
    assert_int_equal(mimic_dataset_classes(d), 3);
    assert_string_equal(mimic_dataset_class_name(d, 2), "class2");
    assert_string_equal(mimic_dataset_sample_name(d, 1), "p_train.tar:set/x0002.jpg");
    for (int i = 0; i < 20; i += 7)
        assert_tone(d, i, i == 0 ? 0 : i == 7 ? 8 : 16);
    mimic_dataset_free(d);
    d = open_set("p", NULL, "train", false);
    assert_int_equal(mimic_dataset_size(d), 23);
    assert_sample(d, 1, "x0001.jpg", -1);
    mimic_dataset_free(d);
    d = open_set("p_train.tar", NULL, "train", false);
    mimic_dataset_free(d);
    refuse("p_train.tar", NULL, "test", false, MIMIC_EINVAL, "NAME_SPLIT.tar");
    refuse("p", NULL, "test", false, MIMIC_EIO, "no data set at");
    refuse("p", "pack", "test", false, MIMIC_EIO, "p_test.tar: No such file");
    mimic_dataset_config cfg = {.path = at("p_train.tar"), .label_column = "other"};
    must(mimic_dataset_open(ctx, &cfg, &d));
    assert_int_equal(mimic_dataset_classes(d), 23);
    assert_string_equal(mimic_dataset_class_name(d, 2), "");
    mimic_dataset_free(d);
    cfg.label_column = "lable";
    must_fail(mimic_dataset_open(ctx, &cfg, &d), MIMIC_EFORMAT,
              "p_train.csv:1: no column \"lable\"; the columns are path,label,label_name,other");

    put_pack("q", 5, 5, false);
    poke("q.tar", 3, 'y'); /* a name that no longer fits the checksum */
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT,
           "q.tar: the header's checksum is wrong at byte 0");
    put_pack("q", 5, 5, false);
    assert_int_equal(truncate(at("q.tar"), 700), 0);
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT, "cut off");
    put_pack("q", 5, 5, false);
    put_text("q.csv", "path,label\nset/x0000.jpg,0\nset/x0002.jpg,1\n");
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT,
           "q.csv:3: path \"set/x0002.jpg\", but the tar has \"set/x0001.jpg\"");
    put_text("q.csv", "path,label\nset/x0000.jpg,0\n");
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT, "no row for member \"set/x0001.jpg\"");
    put_pack("one", 1, 1, false);
    put_text("one.csv",
             "\xef\xbb\xbfpath,label\r\nset/x0000.jpg,0\r\n\r\n"); /* as Windows leaves it */
    mimic_dataset_free(open_set("one.tar", NULL, NULL, true));
    put_text("q.csv", "path,label\nset/x0000.jpg\n");
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT, "q.csv:2: 1 fields, the header has 2");
    put_text("q.csv", "path,label\nset/x0000.jpg,\"1\"2\n");
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT,
           "q.csv:2: too many fields, or a quote out of place");
    put_text("q.csv", "path,label\nset/x0000.jpg,one\n");
    refuse("q.tar", NULL, NULL, false, MIMIC_EFORMAT, "label \"one\"");
    unlink(at("q.csv"));
    refuse("q.tar", NULL, NULL, false, MIMIC_EIO, "q.csv: No such file");
    put_text("r.tar", "this is no tar");
    refuse("r.tar", NULL, NULL, false, MIMIC_EIO, "r.csv");
    put_text("r.csv", "path,label\na,0\n");
    refuse("r.tar", NULL, NULL, false, MIMIC_EFORMAT, "cut off");
}

/* Only a split that there is not may be left out; one that is there and damaged is an error. */
static void test_optional_split(void **state) {
    (void)state;
    put_text("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg 5\n");
    static const char *const absent[][2] = {
        {"in", "test"}, {"raf", "val"},   {"raf", "test"},        {"l/hard.txt", "train"},
        {"p", "test"},  {"none", "test"}, {"p_train.tar", "test"}};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        mimic_dataset *d = NULL;
        mimic_dataset_config cfg = {
            .path = at(absent[i][0]), .split = absent[i][1], .optional = true};
        must(mimic_dataset_open(ctx, &cfg, &d));
        assert_null(d);
    }
    put_text("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg 8\n");
    put_text("p_test.tar", "this is no tar");
    static const char *const broken[][2] = {{"raf", "train"}, {"p", "test"}, {"none", NULL}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        mimic_dataset *d = NULL;
        mimic_dataset_config cfg = {
            .path = at(broken[i][0]), .split = broken[i][1], .optional = true};
        assert_int_not_equal(mimic_dataset_open(ctx, &cfg, &d), MIMIC_OK);
        assert_null(d);
    }
    unlink(at("p_test.tar"));
}

/* Every allocation of opening fails in turn: an error, no leak, no crash. */
static void test_no_memory(void **state) {
    (void)state;
    static const char *const paths[] = {"in", "raf", "l/hard.txt", "p_train.tar"};
    put_text("raf/EmoLabel/list_patition_label.txt", "train_00001.jpg 5\n");
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        mimic_status s = MIMIC_ENOMEM;
        for (int64_t n = 1; s != MIMIC_OK; n++) {
            mimic_dataset *d = NULL;
            mimic_dataset_config cfg = {.path = at(paths[i])};
            mimic_fail_alloc(ctx, n, true);
            s = mimic_dataset_open(ctx, &cfg, &d);
            mimic_fail_alloc(ctx, 0, false);
            assert_true(s == MIMIC_OK || s == MIMIC_ENOMEM);
            mimic_dataset_free(d);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),   cmocka_unit_test(test_hash),
        cmocka_unit_test(test_rafdb),     cmocka_unit_test(test_list),
        cmocka_unit_test(test_pack),      cmocka_unit_test(test_optional_split),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

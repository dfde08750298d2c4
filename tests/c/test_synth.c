/* The synthetic sets: deterministic bytes whatever the threads, layouts that the readers accept,
 * class proportions, and errors of the disk. */
#include "data_util.h"

static mimic_synth_config config(const char *dir) {
    return (mimic_synth_config){.dir = at(dir),
                                .seed = 3,
                                .general_train = 40,
                                .general_val = 13,
                                .faces_train = 140,
                                .faces_test = 75,
                                .size = 24};
}

static void test_drawings(void **state) {
    (void)state;
    mimic_image a = {0}, b = {0};
    mimic_err err;
    for (int kind = 0; kind < 2; kind++) {
        mimic_status (*draw)(uint64_t, uint32_t, int, int, mimic_image *, mimic_err *) =
            kind ? mimic_synth_face : mimic_synth_general;
        int classes = kind ? MIMIC_SYNTH_FACE_CLASSES : MIMIC_SYNTH_GENERAL_CLASSES;
        for (int label = 0; label < classes; label++)
            for (uint32_t i = 0; i < 6; i++) {
                int size = (int[]){8, 48, 100}[i % 3];
                assert_int_equal(draw(1, i, label, size, &a, &err), MIMIC_OK);
                assert_true(a.width == size && a.height == size);
                assert_int_equal(draw(1, i, label, size, &b, &err), MIMIC_OK);
                assert_memory_equal(a.pixels, b.pixels, (size_t)(size * size * 3));
                assert_int_equal(draw(2, i, label, size, &b, &err), MIMIC_OK);
                assert_memory_not_equal(a.pixels, b.pixels, (size_t)(size * size * 3));
            }
        assert_int_equal(draw(1, 0, classes, 64, &a, &err), MIMIC_EINVAL);
        assert_int_equal(draw(1, 0, -1, 64, &a, &err), MIMIC_EINVAL);
        assert_int_equal(draw(1, 0, 0, 4, &a, &err), MIMIC_EINVAL);
    }
    mimic_image_free(&a);
    mimic_image_free(&b);
}

static bool count_calls(void *user, int64_t done, int64_t total) {
    int64_t *last = user;
    assert_true(done > *last && done <= total);
    *last = done;
    return true;
}

static bool stop(void *user, int64_t done, int64_t total) {
    (void)done;
    (void)total;
    (*(int *)user)++;
    return false;
}

static void assert_same_file(const char *a, const char *b) {
    size_t n, m;
    char *x = read_file(at(a), &n), *y = read_file(at(b), &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void test_sets(void **state) {
    (void)state;
    int64_t last = 0, counts[MIMIC_SYNTH_GENERAL_CLASSES];
    mimic_synth_config cfg = config("s1");
    cfg.progress = count_calls;
    cfg.user = &last;
    int threads = mimic_threads(ctx);
    must(mimic_set_threads(ctx, 1));
    must(mimic_synth_write(ctx, &cfg));
    assert_int_equal(last, 268);
    must(mimic_set_threads(ctx, 3));
    cfg = config("s2");
    must(mimic_synth_write(ctx, &cfg));
    must(mimic_synth_write(ctx, &cfg)); /* again: the same settings */
    must(mimic_set_threads(ctx, threads));
    assert_same_file("s1/general/train/n90000003/train_15.JPEG",
                     "s2/general/train/n90000003/train_15.JPEG");
    assert_same_file("s1/faces/Image/aligned/test_0075_aligned.jpg",
                     "s2/faces/Image/aligned/test_0075_aligned.jpg");
    assert_same_file("s1/faces/EmoLabel/list_patition_label.txt",
                     "s2/faces/EmoLabel/list_patition_label.txt");

    mimic_dataset *d = open_set("s1/general", NULL, "train", true);
    assert_string_equal(mimic_dataset_format(d), "folders");
    assert_true(mimic_dataset_size(d) == 40 && mimic_dataset_classes(d) == 12);
    mimic_dataset_counts(d, counts);
    assert_true(counts[0] == 4 && counts[11] == 3);
    mimic_dataset_free(d);
    static const char *const splits[] = {"train", "test"};
    for (int i = 0; i < 2; i++) {
        d = open_set("s1/faces", NULL, splits[i], true);
        assert_string_equal(mimic_dataset_format(d), "rafdb");
        assert_int_equal(mimic_dataset_size(d), i ? 75 : 140);
        mimic_dataset_counts(d, counts);
        for (int k = 0; k < 7; k++)
            assert_true(counts[k] >= 1 && counts[k] <= counts[3]);
        mimic_image img = {0};
        mimic_err err;
        for (int64_t k = 0; k < mimic_dataset_size(d); k++)
            assert_int_equal(mimic_dataset_read(d, k, &img, &err), MIMIC_OK);
        assert_int_equal(img.width, 24);
        mimic_image_free(&img);
        mimic_dataset_free(d);
    }
}

static int locked_out(void) {
    mimic_synth_config cfg = config("locked/x");
    mimic_status s = mimic_synth_write(ctx, &cfg);
    return s != MIMIC_EIO || !strstr(mimic_message(ctx), "locked/x");
}

static void test_errors(void **state) {
    (void)state;
    mimic_synth_config cfg = config("s1");
    cfg.seed = 4;
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EINVAL, "other settings (seed 3");
    make_folder("s3/general");
    cfg = config("s3");
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EINVAL, "exists already");
    put_text("s4", "a file");
    cfg = config("s4");
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EIO, "cannot make the folder");
    cfg = (mimic_synth_config){.dir = at("s5")};
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EINVAL, "no synthetic pictures");
    cfg.faces_train = -1;
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EINVAL, "-1");
    cfg = config("s5");
    cfg.size = 7;
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EINVAL, "size = 7");
    int calls = 0;
    cfg = config("s6");
    cfg.progress = stop;
    cfg.user = &calls;
    must_fail(mimic_synth_write(ctx, &cfg), MIMIC_ESTATE, "drawing was stopped after");
    assert_int_equal(calls, 1);
    make_folder("locked");
    assert_int_equal(chmod(at("locked"), 0555), 0);
    assert_int_equal(chmod(scratch, 0755), 0);
    assert_int_equal(as_nobody(locked_out), 0);
    if (small_disk("small", "64k")) {
        char path[400];
        snprintf(path, sizeof path, "%s/x", at("small"));
        cfg.dir = path;
        cfg.size = 64;
        must_fail(mimic_synth_write(ctx, &cfg), MIMIC_EIO, "No space left on device");
        umount(at("small"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drawings),
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

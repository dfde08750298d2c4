/* Files of decoded pictures: the same numbers as from the pictures themselves, damage found, the
 * file there only when complete. */
#include "data_util.h"
#include "data/pixels.h"

static mimic_err err;

static void write_pixels(const mimic_dataset *d, const char *name, int size, bool skip,
                         int64_t *damaged) {
    mimic_pixels_config cfg = {.path = at(name), .size = size, .skip_damaged = skip};
    must(mimic_pixels_write(ctx, d, &cfg, damaged));
}

/* All batches of an epoch in one digest of bits. */
static uint64_t digest(const mimic_dataset *d, int pre_resize) {
    mimic_loader *l;
    mimic_batch b;
    uint64_t sum = 1469598103934665603u;
    mimic_loader_config cfg = {.transform = {.size = 16,
                                             .pre_resize = pre_resize,
                                             .crop = true,
                                             .scale = {0.5, 1},
                                             .flip = 0.5},
                               .batch = 7,
                               .views = 2,
                               .shuffle = true,
                               .workers = 2,
                               .seed = 11};
    must(mimic_loader_new(ctx, d, &cfg, &l));
    must(mimic_loader_start(l, 3, 0));
    for (;;) {
        must(mimic_loader_next(l, &b));
        if (b.n == 0)
            break;
        mimic_tensor *t[] = {b.images, b.labels, b.index};
        for (int k = 0; k < 3; k++) {
            const uint32_t *p = mimic_tensor_data(t[k]);
            for (int64_t i = 0; i < mimic_tensor_count(t[k]); i++)
                sum = (sum ^ p[i]) * 1099511628211u;
        }
        for (int k = 0; k < 3; k++)
            mimic_tensor_release(t[k]);
    }
    mimic_loader_free(l);
    return sum;
}

static void test_same_numbers(void **state) {
    (void)state;
    put_pack("src", 40, 4, false); /* colour, several sizes */
    mimic_dataset *d = open_set("src.tar", NULL, NULL, false), *p;
    write_pixels(d, "one.pixels", 24, false, NULL);
    p = open_set("one.pixels", NULL, NULL, false);
    assert_string_equal(mimic_dataset_format(p), "pixels");
    assert_int_equal(mimic_dataset_size(p), 40);
    assert_int_equal(mimic_dataset_classes(p), 4);
    assert_string_equal(mimic_dataset_class_name(p, 3), "class3");
    assert_string_equal(mimic_dataset_sample_name(p, 7), "src.tar:set/x0007.jpg");
    assert_true(digest(d, 24) == digest(p, 24));
    assert_true(digest(d, 24) == digest(p, 0));
    mimic_dataset_free(p);
    /* Threads do not matter. */
    must(mimic_set_threads(ctx, 3));
    write_pixels(d, "two.pixels", 24, false, NULL);
    must(mimic_set_threads(ctx, 1));
    size_t n, m;
    char *a = read_file(at("one.pixels"), &n), *b = read_file(at("two.pixels"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    free(a);
    free(b);
    mimic_pixels_config cfg = {.path = at("three.pixels")};
    must_fail(mimic_pixels_write(ctx, d, &cfg, NULL), MIMIC_EINVAL,
              "set/x0001.jpg has 13 x 10 pixels, the first 12 x 10; give a size");
    assert_true(access(at("three.pixels"), F_OK) != 0);
    mimic_dataset_free(d);
}

/* Grey pictures take a third of the room; unlabelled ones, splits and soft labels are kept. */
static void test_contents(void **state) {
    (void)state;
    mimic_image img = {0}, back = {0};
    fill_image(&img, 10, 8, 100);
    for (int i = 0; i < 10 * 8; i++)
        memset(img.pixels + 3 * i, i * 3, 3);
    uint8_t *png;
    size_t size;
    assert_int_equal(mimic_png_encode(&img, true, &png, &size, &err), MIMIC_OK);
    make_folder("grey");
    write_file(at("grey/a.png"), png, size);
    write_file(at("grey/b.png"), png, size);
    put_text("grey/list.txt", "a.png\t0.25,0.75\nb.png\t-1\na.png\t0\n");
    mimic_dataset *d = open_set("grey/list.txt", NULL, NULL, false);
    write_pixels(d, "grey_val.pixels", 0, false, NULL);
    mimic_dataset_free(d);
    d = open_set("grey", "pixels", "val", false);
    assert_int_equal(mimic_dataset_size(d), 3);
    assert_int_equal(mimic_dataset_label(d, 1), -1);
    assert_true(mimic_dataset_soft(d, 0)[1] == 0.75f && mimic_dataset_soft(d, 2)[0] == 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mimic_dataset_read(d, i, &back, &err), MIMIC_OK);
        assert_true(back.width == 10 && back.height == 8);
        assert_memory_equal(back.pixels, img.pixels, 10 * 8 * 3);
    }
    mimic_dataset_free(d);
    struct stat st;
    assert_int_equal(stat(at("grey_val.pixels"), &st), 0);
    assert_int_equal(st.st_size, 4096 + 3 * 10 * 8);
    d = open_set("grey_val.pixels", NULL, NULL, true);
    assert_int_equal(mimic_dataset_size(d), 2);
    assert_int_equal(mimic_dataset_dropped(d), 1);
    assert_int_equal(mimic_dataset_read(d, 1, &back, &err), MIMIC_OK);
    mimic_dataset_free(d);
    free(png);
    mimic_image_free(&img);
    mimic_image_free(&back);
}

static bool stop(void *user, int64_t done, int64_t total) {
    (void)user;
    return done < total;
}

static void test_damaged_sources(void **state) {
    (void)state;
    int64_t damaged = -1;
    put_pack("hurt", 70, 3, false);
    mimic_dataset *d = open_set("hurt.tar", NULL, NULL, false);
    FILE *f = fopen(at("hurt.tar"), "r+b");
    fseek(f, 512, SEEK_SET); /* the first picture */
    fwrite("none", 1, 4, f);
    fclose(f);
    mimic_pixels_config cfg = {.path = at("hurt.pixels"), .size = 16};
    must_fail(mimic_pixels_write(ctx, d, &cfg, NULL), MIMIC_EFORMAT, "hurt.tar:set/x0000.jpg");
    write_pixels(d, "hurt.pixels", 16, true, &damaged);
    assert_int_equal(damaged, 1);
    mimic_dataset *p = open_set("hurt.pixels", NULL, NULL, false);
    assert_int_equal(mimic_dataset_size(p), 69);
    assert_string_equal(mimic_dataset_sample_name(p, 0), "hurt.tar:set/x0001.jpg");
    mimic_dataset_free(p);
    unlink(at("hurt.pixels"));
    cfg = (mimic_pixels_config){
        .path = at("hurt.pixels"), .size = 16, .skip_damaged = true, .progress = stop};
    must_fail(mimic_pixels_write(ctx, d, &cfg, NULL), MIMIC_ESTATE, "stopped after 70");
    assert_true(access(at("hurt.pixels"), F_OK) != 0);
    cfg = (mimic_pixels_config){.path = at("nowhere/x.pixels"), .size = 16};
    must_fail(mimic_pixels_write(ctx, d, &cfg, NULL), MIMIC_EIO, "nowhere/x.pixels");
    mimic_dataset_free(d);
}

static void test_damage(void **state) {
    (void)state;
    mimic_image img = {0};
    size_t n;
    put_pack("dam", 5, 2, false);
    mimic_dataset *d = open_set("dam.tar", NULL, NULL, false), *p;
    write_pixels(d, "dam.pixels", 16, false, NULL);
    mimic_dataset_free(d);
    char *good = read_file(at("dam.pixels"), &n), *bad = malloc(n + 1);
    mimic_dataset_config cfg = {.path = at("bad.pixels")};
    for (size_t i = 0; i < n; i += i < 400 ? 1 : 61) { /* every byte of header and index counts */
        memcpy(bad, good, n);
        bad[i] ^= 4;
        write_file(at("bad.pixels"), bad, n);
        mimic_status s = mimic_dataset_open(ctx, &cfg, &p);
        if (s == MIMIC_OK) {
            int failed = 0;
            for (int k = 0; k < 5; k++)
                if (mimic_dataset_read(p, k, &img, &err) != MIMIC_OK) {
                    failed++;
                    assert_non_null(strstr(err.text, "is damaged"));
                }
            bool record = i >= n - 5 * 16 * 16 * 3;
            assert_int_equal(failed, record); /* the space between index and records is free */
            assert_true(record || i > 128 + 5 * 8);
            mimic_dataset_free(p);
        } else
            assert_true(s == MIMIC_EFORMAT || s == MIMIC_EUNSUPPORTED);
    }
    for (size_t k = 0; k < n; k += 97) {
        write_file(at("bad.pixels"), good, k);
        must_fail(mimic_dataset_open(ctx, &cfg, &p), MIMIC_EFORMAT, "bad.pixels");
    }
    memcpy(bad, good, n);
    bad[n] = 0;
    write_file(at("bad.pixels"), bad, n + 1);
    must_fail(mimic_dataset_open(ctx, &cfg, &p), MIMIC_EFORMAT, "its header promises");
    bad[8] = 2;
    write_file(at("bad.pixels"), bad, n);
    must_fail(mimic_dataset_open(ctx, &cfg, &p), MIMIC_EUNSUPPORTED, "version 2 of the format");
    write_file(at("bad.pixels"), good, n);
    must(mimic_dataset_open(ctx, &cfg, &p)); /* shorter after it was opened: an error, no crash */
    assert_int_equal(truncate(at("bad.pixels"), (long)n - 800), 0);
    assert_int_equal(mimic_dataset_read(p, 4, &img, &err), MIMIC_EFORMAT);
    assert_non_null(strstr(err.text, "its file ends too early"));
    mimic_dataset_free(p);
    free(good);
    free(bad);
    mimic_image_free(&img);
}

static void test_no_memory(void **state) {
    (void)state;
    put_pack("mem", 5, 2, false);
    mimic_dataset *d = open_set("mem.tar", NULL, NULL, false), *p;
    mimic_pixels_config cfg = {.path = at("mem.pixels"), .size = 16};
    mimic_dataset_config open_cfg = {.path = at("mem.pixels")};
    for (int what = 0; what < 2; what++) {
        mimic_status s = MIMIC_ENOMEM;
        for (int64_t n = 1; s != MIMIC_OK; n++) {
            p = NULL;
            mimic_fail_alloc(ctx, n, true);
            s = what ? mimic_dataset_open(ctx, &open_cfg, &p)
                     : mimic_pixels_write(ctx, d, &cfg, NULL);
            mimic_fail_alloc(ctx, 0, false);
            assert_true(s == MIMIC_OK || s == MIMIC_ENOMEM);
            assert_true(what || s == MIMIC_OK || access(at("mem.pixels"), F_OK) != 0);
            mimic_dataset_free(p);
        }
    }
    mimic_dataset_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_numbers),    cmocka_unit_test(test_contents),
        cmocka_unit_test(test_damaged_sources), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

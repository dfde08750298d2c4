/* Batches made on the device against those of the CPU pipeline: every float, label and index is
 * equal, for drawn transform programs over pictures of odd sizes, grey and colour, sent and kept;
 * too little memory for keeping a set. */
#include "c/data_util.h"

#include <stdio.h>

enum { PICTURES = 23, BATCH = 7 };

static mimic_rng drawn;

static int between(int lo, int hi) {
    return lo + (int)mimic_rng_below(&drawn, (uint32_t)(hi - lo + 1));
}

static bool maybe(void) {
    return between(0, 1);
}

/* Noise over a slope, so that both smooth and sharp places are there. */
static void put_picture(const char *set, int i, int w, int h, bool grey) {
    char name[100];
    mimic_image img = {0};
    mimic_err err;
    uint8_t *data = NULL;
    size_t size = 0;
    fill_image(&img, w, h, i * 37 % 256);
    for (int k = 0; k < w * h * 3; k++) {
        int v = img.pixels[k] + between(-60, 60);
        img.pixels[k] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
    for (int k = 0; grey && k < w * h; k++)
        img.pixels[3 * k] = img.pixels[3 * k + 1] = img.pixels[3 * k + 2];
    assert_int_equal(mimic_png_encode(&img, grey, &data, &size, &err), MIMIC_OK);
    snprintf(name, sizeof name, "%s/class%d/p%03d.png", set, i % 3, i);
    char *slash = strrchr(name, '/');
    *slash = 0;
    make_folder(name);
    *slash = '/';
    write_file(at(name), data, size);
    free(data);
    mimic_image_free(&img);
}

static int make_sets(void **state) {
    int status = scratch_open(state);
    mimic_rng_init(&drawn, 11, 0, 0);
    if (mimic_set_device(ctx, "cuda") != MIMIC_OK) {
        if (!getenv("MIMIC_GPU_TEST"))
            fail_msg("%s", mimic_message(ctx));
        printf("skipped: %s\n", mimic_message(ctx));
        scratch_close(state);
        exit(77);
    }
    own_blocks = mimic_alloc_live(ctx);
    for (int i = 0; i < PICTURES; i++) {
        put_picture("odd", i, between(1, 70), between(1, 70), i % 4 == 3);
        put_picture("even", i, 33, 26, false);
        put_picture("grey", i, 24, 24, true);
    }
    mimic_dataset *d = open_set("grey", NULL, NULL, false);
    mimic_pixels_config cfg = {.path = at("packed.pixels")};
    must(mimic_pixels_write(ctx, d, &cfg, NULL));
    mimic_dataset_free(d);
    return status;
}

static mimic_transform draw_program(int size) {
    mimic_transform t = {.size = size, .flip = 0.5, .filter = (mimic_filter)between(0, 1)};
    if (maybe()) {
        t.crop = true;
        t.scale[0] = 0.1;
        t.scale[1] = 1;
    } else if (maybe()) {
        t.resize_short = size + between(0, 9);
    }
    if (between(0, 2) == 0) {
        t.randaugment_n = between(1, 6);
        t.randaugment_m = 9;
        t.randaugment_std = 0.5;
    } else if (maybe()) {
        double jitter[4] = {0.4, maybe() ? 0.6 : 0, 0.4, maybe() ? 0.3 : 0};
        memcpy(t.jitter, jitter, sizeof jitter);
        t.jitter_p = 0.8;
    }
    t.grey_p = maybe() * 0.3;
    t.solarize_p = maybe() * 0.3;
    if (maybe()) {
        t.blur_p = 0.6;
        t.blur_sigma[1] = between(1, 9);
    }
    t.erase_p = maybe() * 0.7;
    for (int c = 0; c < 3 && maybe(); c++) {
        for (int k = 0; k < 3; k++) {
            t.mean[k] = 0.1 * (k + 3);
            t.std[k] = 0.3 - 0.07 * k;
        }
    }
    return t;
}

static mimic_loader *make(const char *device, const mimic_dataset *d,
                          const mimic_loader_config *cfg) {
    mimic_loader *l = NULL;
    must(mimic_set_device(ctx, device));
    must(mimic_loader_new(ctx, d, cfg, &l));
    return l;
}

static void same_bytes(const mimic_tensor *a, const mimic_tensor *b, const char *what,
                       const char *about) {
    static float x[1 << 18], y[1 << 18];
    int64_t n = mimic_tensor_count(a);
    assert_int_equal(mimic_tensor_count(b), n);
    assert_true(n <= 1 << 18);
    must(mimic_tensor_read(ctx, a, MIMIC_F32, x, n));
    must(mimic_tensor_read(ctx, b, MIMIC_F32, y, n));
    for (int64_t i = 0; i < n; i++)
        if (memcmp(x + i, y + i, sizeof *x) != 0)
            fail_msg("%s (%s): element %lld of %lld is %.9g, on the host %.9g", what, about,
                     (long long)i, (long long)n, (double)y[i], (double)x[i]);
}

static void drop(mimic_batch *b) {
    mimic_tensor_release(b->images);
    mimic_tensor_release(b->labels);
    mimic_tensor_release(b->index);
    mimic_tensor_release(b->soft);
}

/* The rest of an epoch from a position, on both. */
static void compare(mimic_loader *host, mimic_loader *device, int64_t epoch, int64_t position) {
    char about[256];
    mimic_loader_about(device, about, sizeof about);
    must(mimic_loader_start(host, epoch, position));
    must(mimic_loader_start(device, epoch, position));
    for (;;) {
        mimic_batch a, b;
        must(mimic_loader_next(host, &a));
        must(mimic_loader_next(device, &b));
        assert_int_equal(a.n, b.n);
        if (a.n == 0)
            break;
        same_bytes(a.images, b.images, "image", about);
        same_bytes(a.labels, b.labels, "label", about);
        same_bytes(a.index, b.index, "index", about);
        drop(&a);
        drop(&b);
    }
    assert_int_equal(mimic_loader_damaged(host), mimic_loader_damaged(device));
}

static mimic_loader_config draw_config(void) {
    int size = between(1, 4) == 1 ? between(1, 7) : between(8, 34);
    mimic_loader_config cfg = {.transform = draw_program(size),
                               .batch = BATCH,
                               .views = between(1, 3),
                               .shuffle = maybe(),
                               .workers = between(1, 3),
                               .seed = (uint64_t)between(0, 99)};
    if (maybe())
        cfg.transform.pre_resize = between(5, 50);
    if (maybe()) {
        cfg.second = draw_program(size);
        cfg.second.pre_resize = cfg.transform.pre_resize;
    }
    return cfg;
}

static void test_drawn_programs(void **state) {
    static const char *const sets[] = {"odd", "even", "packed.pixels"};
    int kept = 0;
    (void)state;
    for (int round = 0; round < 36; round++) {
        mimic_dataset *d = open_set(sets[round % 3], NULL, NULL, false);
        mimic_loader_config cfg = draw_config();
        mimic_loader *host = make("cpu", d, &cfg);
        cfg.workers = between(1, 3);
        cfg.device = round % 4 == 3 ? MIMIC_DATA_STREAM : MIMIC_DATA_AUTO;
        mimic_loader *device = make("cuda", d, &cfg);
        kept += mimic_loader_kept(device) > 0;
        compare(host, device, 0, 0); /* pictures are sent, and kept */
        compare(host, device, 1, 0);
        mimic_loader_free(device);
        device = make("cuda", d, &cfg);
        compare(host, device, 1, 2); /* resume */
        mimic_loader_free(host);
        mimic_loader_free(device);
        mimic_dataset_free(d);
    }
    assert_true(kept > 10);
}

static void about_is(const mimic_loader *l, const char *want) {
    char about[256];
    mimic_loader_about(l, about, sizeof about);
    if (!strstr(about, want))
        fail_msg("\"%s\" is not in \"%s\"", want, about);
}

static mimic_loader_config plain(void) {
    return (mimic_loader_config){
        .transform = {.size = 16, .crop = true, .scale = {0.3, 1}, .flip = 0.5},
        .batch = BATCH,
        .views = 2,
        .shuffle = true};
}

/* Draws with replacement, damaged pictures that others stand in for, one kept byte a pixel. */
static void test_orders(void **state) {
    (void)state;
    write_file(at("even/class1/p004.png"), "no picture", 10);
    mimic_dataset *d = open_set("even", NULL, NULL, true);
    mimic_loader_config cfg = plain();
    cfg.balanced = cfg.skip_damaged = true;
    cfg.shuffle = false;
    mimic_loader *host = make("cpu", d, &cfg), *device = make("cuda", d, &cfg);
    for (int epoch = 0; epoch < 3; epoch++)
        compare(host, device, epoch, 0);
    assert_true(mimic_loader_damaged(device) > 0);
    assert_int_equal(mimic_loader_kept(device), PICTURES * 33 * 26 * 3);
    about_is(device, "device, 0.1 MiB of pictures kept there");
    about_is(host, "host");
    mimic_loader_free(host);
    mimic_loader_free(device);
    mimic_dataset_free(d);
    d = open_set("packed.pixels", NULL, NULL, false);
    device = make("cuda", d, &cfg);
    assert_int_equal(mimic_loader_kept(device), PICTURES * 24 * 24);
    mimic_loader_free(device);
    mimic_dataset_free(d);
}

static void test_sizes(void **state) {
    (void)state;
    mimic_dataset *d = open_set("odd", NULL, NULL, false);
    mimic_loader_config cfg = plain();
    mimic_loader *none;
    must(mimic_set_device(ctx, "cuda"));
    cfg.device = MIMIC_DATA_KEEP;
    must_fail(mimic_loader_new(ctx, d, &cfg, &none), MIMIC_EINVAL, "pictures differ in size");
    cfg.device = (mimic_data_device)4;
    must_fail(mimic_loader_new(ctx, d, &cfg, &none), MIMIC_EINVAL, "device = 4");
    mimic_dataset_free(d);
}

/* Too little memory: kept is refused with both numbers, auto sends; the batches are the same. */
static void test_memory(void **state) {
    (void)state;
    mimic_dataset *d = open_set("packed.pixels", NULL, NULL, false);
    mimic_loader_config cfg = plain();
    cfg.transform.pre_resize = 200; /* 23 pictures of 117 KiB */
    mimic_loader *host = make("cpu", d, &cfg), *none;
    must(mimic_set_device(ctx, "cuda"));
    mimic_trim(ctx);
    mimic_memory m;
    mimic_memory_stats(ctx, &m);
    mimic_set_memory_limit(ctx, m.live + (800 << 10));
    cfg.device = MIMIC_DATA_KEEP;
    must_fail(mimic_loader_new(ctx, d, &cfg, &none), MIMIC_ENOMEM,
              "device = keep: 23 pictures of 200 x 200 need 0.9 MiB, 0.8 MiB are free");
    cfg.device = MIMIC_DATA_AUTO;
    mimic_loader *device = make("cuda", d, &cfg);
    about_is(device,
             "device, pictures sent with each batch: 23 pictures of 200 x 200 need 0.9 MiB");
    mimic_set_memory_limit(ctx, 0);
    compare(host, device, 0, 0);
    mimic_loader_free(device);
    for (int n = 1; n < 40; n++) { /* free by the numbers, but not to be had */
        mimic_fail_alloc(ctx, n, false);
        mimic_status s = mimic_loader_new(ctx, d, &cfg, &device);
        mimic_fail_alloc(ctx, 0, false);
        if (s == MIMIC_OK) {
            compare(host, device, 0, 0);
            mimic_loader_free(device);
        } else {
            assert_int_equal(s, MIMIC_ENOMEM);
        }
    }
    cfg.device = MIMIC_DATA_KEEP;
    device = make("cuda", d, &cfg);
    assert_int_equal(mimic_loader_kept(device), PICTURES * 200 * 200);
    mimic_memory_stats(ctx, &m);
    mimic_set_memory_limit(ctx, m.live + (1 << 20));
    mimic_tensor *big;
    int64_t n = 1 << 20;
    must_fail(mimic_tensor_new(ctx, MIMIC_F32, 1, &n, &big), MIMIC_ENOMEM,
              "(pictures kept on the device) u8 [23,40000] 0.9 MiB");
    mimic_set_memory_limit(ctx, 0);
    mimic_loader_free(device);
    mimic_loader_free(host);
    mimic_dataset_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_drawn_programs),
                                       cmocka_unit_test(test_orders), cmocka_unit_test(test_sizes),
                                       cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, make_sets, scratch_close);
}

/* The loader: results do not depend on the number of workers, resume lands on the same batches,
 * damaged pictures, balanced draws, the cache, clean ends at any moment. */
#include "data_util.h"

enum { PICTURES = 53, SIDE = 8 };

static mimic_loader_config base(int batch) {
    return (mimic_loader_config){
        .transform = {.size = SIDE, .crop = true, .scale = {0.3, 1}, .flip = 0.5},
        .batch = batch,
        .shuffle = true,
        .seed = 9};
}

static mimic_loader *make(const mimic_dataset *d, const mimic_loader_config *cfg) {
    mimic_loader *l = NULL;
    must(mimic_loader_new(ctx, d, cfg, &l));
    return l;
}

static void drop(mimic_batch *b) {
    mimic_tensor_release(b->images);
    mimic_tensor_release(b->labels);
    mimic_tensor_release(b->index);
}

static uint64_t mixed(uint64_t h, const void *data, size_t n) {
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* A number that stands for everything in the batch. */
static uint64_t digest(const mimic_batch *b) {
    uint64_t h = 0xcbf29ce484222325u;
    h = mixed(h, mimic_tensor_data(b->images), (size_t)mimic_tensor_count(b->images) * 4);
    h = mixed(h, mimic_tensor_data(b->labels), (size_t)b->n * 4);
    return mixed(h, mimic_tensor_data(b->index), (size_t)b->n * 4);
}

/* Digests of all batches of an epoch from `position`; returns their number. */
static int epoch_digests(mimic_loader *l, int64_t epoch, int64_t position, uint64_t *out) {
    int n = 0;
    must(mimic_loader_start(l, epoch, position));
    for (;; n++) {
        mimic_batch b;
        must(mimic_loader_next(l, &b));
        if (b.n == 0)
            return n;
        out[n] = digest(&b);
        drop(&b);
    }
}

static void test_shapes(void **state) {
    (void)state;
    put_pack("set", PICTURES, 5, false);
    mimic_dataset *d = open_set("set.tar", NULL, NULL, true);
    mimic_loader_config cfg = base(8);
    cfg.views = 2;
    cfg.shuffle = false;
    mimic_loader *l = make(d, &cfg);
    mimic_batch b;
    must_fail(mimic_loader_next(l, &b), MIMIC_ESTATE, "no epoch");
    assert_int_equal(mimic_loader_batches(l), 7);
    must(mimic_loader_start(l, 0, 0));
    for (int i = 0; i < 7; i++) {
        must(mimic_loader_next(l, &b));
        assert_int_equal(b.n, i < 6 ? 8 : 5);
        const int64_t *shape = mimic_tensor_shape(b.images);
        assert_true(shape[0] == 2 * b.n && shape[1] == 3 && shape[2] == SIDE && shape[3] == SIDE);
        const int32_t *index = mimic_tensor_data(b.index), *label = mimic_tensor_data(b.labels);
        for (int k = 0; k < b.n; k++)
            assert_true(index[k] == i * 8 + k && label[k] == index[k] % 5);
        /* The two views are of the same picture (its blue tone), but not equal. */
        const float *x = mimic_tensor_data(b.images), *y = x + b.n * 3 * SIDE * SIDE;
        assert_memory_not_equal(x, y, 3 * SIDE * SIDE * sizeof *x);
        for (int k = 0; k < b.n; k++)
            assert_float_equal(x[(k * 3 + 2) * SIDE * SIDE + 20], y[(k * 3 + 2) * SIDE * SIDE + 20],
                               0.25);
        drop(&b);
    }
    must(mimic_loader_next(l, &b));
    assert_true(b.n == 0 && !b.images);
    must(mimic_loader_next(l, &b));
    assert_int_equal(b.n, 0);
    mimic_loader_free(l);
    cfg.drop_last = true;
    l = make(d, &cfg);
    assert_int_equal(mimic_loader_batches(l), 6);
    mimic_loader_free(l);
    mimic_dataset_free(d);
}

static void test_workers(void **state) {
    (void)state;
    mimic_dataset *d = open_set("set.tar", NULL, NULL, true);
    uint64_t want[2][7], got[7];
    for (int round = 0; round < 6; round++) {
        mimic_loader_config cfg = base(8);
        cfg.views = 2;
        cfg.workers = (int[]){1, 4, 3, 2, 7, 5}[round];
        cfg.ahead = (int[]){0, 1, 5, 3, 2, 64}[round];
        cfg.cache_bytes = round >= 3 ? (round == 4 ? 4000 : 1 << 20) : 0;
        cfg.transform.pre_resize = 10;
        mimic_loader *l = make(d, &cfg);
        for (int epoch = 0; epoch < 2; epoch++) {
            assert_int_equal(epoch_digests(l, epoch, 0, round ? got : want[epoch]), 7);
            if (round)
                assert_memory_equal(got, want[epoch], sizeof got);
        }
        /* Resume: the rest of epoch 1 from batch 3, also on a fresh loader. */
        assert_int_equal(epoch_digests(l, 1, 3, got), 4);
        assert_memory_equal(got, want[1] + 3, 4 * sizeof *got);
        mimic_loader_free(l);
        l = make(d, &cfg);
        assert_int_equal(epoch_digests(l, 1, 3, got), 4);
        assert_memory_equal(got, want[1] + 3, 4 * sizeof *got);
        assert_int_equal(epoch_digests(l, 1, 7, got), 0);
        must_fail(mimic_loader_start(l, 1, 8), MIMIC_EINVAL, "position 8 of 7");
        mimic_loader_free(l);
    }
    assert_memory_not_equal(want[0], want[1], sizeof want[0]);
    mimic_dataset_free(d);
}

/* The second program serves all views but the first; it must start from the same picture. */
static void test_second_transform(void **state) {
    (void)state;
    mimic_dataset *d = open_set("set.tar", NULL, NULL, true);
    mimic_loader_config cfg = base(8);
    cfg.shuffle = false;
    cfg.views = 3;
    cfg.transform = (mimic_transform){.size = SIDE};
    cfg.second = (mimic_transform){.size = SIDE, .solarize_p = 1};
    cfg.second.size = 2 * SIDE;
    mimic_loader *l;
    must_fail(mimic_loader_new(ctx, d, &cfg, &l), MIMIC_EINVAL, "second transform");
    cfg.second.size = SIDE;
    l = make(d, &cfg);
    mimic_batch b;
    must(mimic_loader_start(l, 0, 0));
    must(mimic_loader_next(l, &b));
    /* Solarized: a value of at least 128 / 255 has become its negative, others are as they were. */
    static const float mean = 0.406f, std = 0.225f; /* of the blue channel */
    size_t picture = 3 * SIDE * SIDE, view = 8 * picture;
    const float *x = mimic_tensor_data(b.images);
    for (size_t k = 0; k < 8; k++) {
        size_t at = k * picture + 2 * SIDE * SIDE + 20;
        float v = x[at] * std + mean, w = v >= 128.0f / 255 - 1e-4f ? 1 - v : v;
        assert_float_equal(x[view + at] * std + mean, w, 1e-4);
        assert_memory_equal(x + view + k * picture, x + 2 * view + k * picture,
                            picture * sizeof *x);
    }
    drop(&b);
    mimic_loader_free(l);
    mimic_dataset_free(d);
}

/* Every sample once per epoch; another order in another epoch and with another seed. */
static void test_order(void **state) {
    (void)state;
    mimic_dataset *d = open_set("set.tar", NULL, NULL, true);
    int32_t order[3][PICTURES];
    for (int round = 0; round < 3; round++) {
        mimic_loader_config cfg = base(16);
        cfg.seed += round == 2;
        mimic_loader *l = make(d, &cfg);
        int seen[PICTURES] = {0}, n = 0;
        must(mimic_loader_start(l, round == 1, 0));
        for (mimic_batch b;;) {
            must(mimic_loader_next(l, &b));
            if (b.n == 0)
                break;
            const int32_t *index = mimic_tensor_data(b.index);
            for (int i = 0; i < b.n; i++) {
                order[round][n++] = index[i];
                seen[index[i]]++;
            }
            drop(&b);
        }
        for (int i = 0; i < PICTURES; i++)
            assert_int_equal(seen[i], 1);
        mimic_loader_free(l);
    }
    assert_memory_not_equal(order[0], order[1], sizeof order[0]);
    assert_memory_not_equal(order[0], order[2], sizeof order[0]);
    mimic_dataset_free(d);
}

static void test_balanced(void **state) {
    (void)state;
    /* 40 of class 0, 4 of class 1, none of class 2, 2 of class 3. */
    char text[4000] = "";
    for (int i = 0; i < 46; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "p.jpg\t%d\n",
                 i < 40   ? 0
                 : i < 44 ? 1
                          : 3);
    put_text("bal/list.txt", text);
    put_jpeg("bal/p.jpg", 50);
    mimic_dataset *d = open_set("bal/list.txt", NULL, NULL, true);
    mimic_loader_config cfg = base(46);
    cfg.balanced = true;
    cfg.workers = 2;
    mimic_loader *l = make(d, &cfg);
    int count[4] = {0}, twice = 0, equal = 0;
    for (int epoch = 0; epoch < 40; epoch++) {
        mimic_batch b;
        must(mimic_loader_start(l, epoch, 0));
        must(mimic_loader_next(l, &b));
        const int32_t *label = mimic_tensor_data(b.labels), *index = mimic_tensor_data(b.index);
        const float *x = mimic_tensor_data(b.images);
        const size_t bytes = 3 * SIDE * SIDE * sizeof *x;
        for (int i = 0; i < b.n; i++) {
            count[label[i]]++;
            for (int k = 0; k < i; k++)
                if (index[i] == index[k]) { /* a repeated sample is augmented anew */
                    twice++;
                    equal += memcmp(x + i * 3 * SIDE * SIDE, x + k * 3 * SIDE * SIDE, bytes) == 0;
                }
        }
        drop(&b);
    }
    assert_int_equal(count[2], 0);
    for (int k = 0; k < 4; k++)
        assert_true(k == 2 || (count[k] > 500 && count[k] < 730)); /* 613 expected */
    assert_true(twice > 1000 && equal < twice / 50);
    mimic_loader_free(l);
    mimic_dataset_free(d);
    put_text("bal/list.txt", "p.jpg\t-1\np.jpg\t1\n");
    d = open_set("bal/list.txt", NULL, NULL, false);
    must_fail(mimic_loader_new(ctx, d, &cfg, &l), MIMIC_EINVAL, "has no label");
    mimic_dataset_free(d);
}

static void test_damaged(void **state) {
    (void)state;
    char text[600] = "";
    for (int i = 0; i < 12; i++) {
        char name[40];
        snprintf(name, sizeof name, "dam/%02d.jpg", i);
        put_jpeg(name, i * 20);
        if (i == 4 || i == 5 || i == 11)
            put_text(name, "\xff\xd8 nonsense");
        snprintf(text + strlen(text), sizeof text - strlen(text), "%02d.jpg\t%d\n", i, i);
    }
    put_text("dam/list.txt", text);
    mimic_dataset *d = open_set("dam/list.txt", NULL, NULL, true);
    mimic_loader_config cfg = base(4);
    cfg.shuffle = false;
    for (int workers = 1; workers <= 3; workers++) {
        cfg.workers = workers;
        cfg.skip_damaged = false;
        mimic_loader *l = make(d, &cfg);
        mimic_batch b;
        must(mimic_loader_start(l, 0, 0));
        must(mimic_loader_next(l, &b));
        drop(&b);
        must_fail(mimic_loader_next(l, &b), MIMIC_EFORMAT, "dam/04.jpg: damaged JPEG");
        assert_true(b.n == 0 && !b.images);
        mimic_loader_free(l);
        cfg.skip_damaged = true;
        l = make(d, &cfg);
        static const int want[12] = {0, 1, 2, 3, 6, 6, 6, 7, 8, 9, 10, 0};
        for (int epoch = 0; epoch < 2; epoch++) {
            must(mimic_loader_start(l, epoch, 0));
            for (int i = 0; i < 12; i += 4) {
                must(mimic_loader_next(l, &b));
                assert_memory_equal(mimic_tensor_data(b.index), want + i, 16);
                assert_memory_equal(mimic_tensor_data(b.labels), want + i, 16);
                drop(&b);
            }
            assert_int_equal(mimic_loader_damaged(l), 4 * (epoch + 1)); /* 4 twice over, 5, 11 */
        }
        mimic_loader_free(l);
    }
    /* A file that is gone is no damage. */
    unlink(at("dam/04.jpg"));
    mimic_loader *l = make(d, &cfg);
    mimic_batch b;
    must(mimic_loader_start(l, 0, 1));
    must_fail(mimic_loader_next(l, &b), MIMIC_EIO, "dam/04.jpg: No such file");
    mimic_loader_free(l);
    mimic_dataset_free(d);
    put_text("dam/only.txt", "05.jpg\t0\n11.jpg\t1\n");
    d = open_set("dam/only.txt", NULL, NULL, true);
    l = make(d, &cfg);
    must(mimic_loader_start(l, 0, 0));
    must_fail(mimic_loader_next(l, &b), MIMIC_EFORMAT, "damaged JPEG");
    mimic_loader_free(l);
    mimic_dataset_free(d);
}

/* Freed before, during and after an epoch, restarted in the middle. */
static void test_shutdown(void **state) {
    (void)state;
    mimic_dataset *d = open_set("set.tar", NULL, NULL, true);
    for (int i = 0; i < 60; i++) {
        mimic_loader_config cfg = base(4);
        mimic_batch b;
        cfg.workers = 1 + i % 4;
        cfg.cache_bytes = i % 2 ? 1 << 20 : 0;
        mimic_loader *l = make(d, &cfg);
        if (i % 3)
            must(mimic_loader_start(l, i, 0));
        for (int k = 0; i % 3 && k < i % 5; k++) {
            must(mimic_loader_next(l, &b));
            drop(&b);
        }
        if (i % 3 == 2) {
            must(mimic_loader_start(l, i + 1, 2));
            must(mimic_loader_next(l, &b));
            drop(&b);
        }
        mimic_loader_free(l);
    }
    mimic_loader_free(NULL);
    mimic_dataset_free(d);
}

static void test_arguments(void **state) {
    (void)state;
    mimic_dataset *d = open_set("set.tar", NULL, NULL, true);
    mimic_loader *l;
    mimic_loader_config cfg = base(0);
    must_fail(mimic_loader_new(ctx, d, &cfg, &l), MIMIC_EINVAL, "batch = 0");
    cfg = base(64);
    cfg.drop_last = true;
    must_fail(mimic_loader_new(ctx, d, &cfg, &l), MIMIC_EINVAL, "53 samples make no batch of 64");
    cfg = base(4);
    cfg.workers = 1000;
    must_fail(mimic_loader_new(ctx, d, &cfg, &l), MIMIC_EINVAL, "workers = 1000");
    cfg = base(4);
    cfg.transform.flip = 2;
    must_fail(mimic_loader_new(ctx, d, &cfg, &l), MIMIC_EINVAL, "flip = 2");
    /* Every allocation of making a loader fails in turn. */
    cfg = base(4);
    cfg.balanced = true;
    cfg.cache_bytes = 1000;
    cfg.workers = 2;
    mimic_status s = MIMIC_ENOMEM;
    for (int64_t n = 1; s != MIMIC_OK; n++) {
        l = NULL;
        mimic_fail_alloc(ctx, n, true);
        s = mimic_loader_new(ctx, d, &cfg, &l);
        mimic_fail_alloc(ctx, 0, false);
        assert_true(s == MIMIC_OK || s == MIMIC_ENOMEM);
        mimic_loader_free(l);
    }
    mimic_dataset_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),           cmocka_unit_test(test_workers),
        cmocka_unit_test(test_second_transform), cmocka_unit_test(test_order),
        cmocka_unit_test(test_balanced),         cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_shutdown),         cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

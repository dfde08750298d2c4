/* PyTorch's checkpoints: both layouts, strides, dtypes; what is refused is refused by name, and
 * every damaged file is one error. (tests/bench/interchange reads files that PyTorch itself wrote.)
 */
#include <math.h>

#include "store_util.h"
#include "pth_bytes.h"

static mimic_safetensors *open_pth(const char *name) {
    mimic_safetensors *f = NULL;
    must(mimic_pth_open(ctx, at(name), &f));
    return f;
}

static void refuse(const bytes *b, mimic_status status, const char *part) {
    mimic_safetensors *f = NULL;
    write_file(at("bad.pth"), b->data, b->n);
    must_fail(mimic_pth_open(ctx, at("bad.pth"), &f), status, part);
}

static void refuse_pickle(const bytes *pickle, mimic_status status, const char *part) {
    static zip z;
    pth_zip(&z, pickle);
    refuse(&z.file, status, part);
}

static void assert_values(mimic_safetensors *f, const char *name, int64_t rows, int64_t cols,
                          const double *expected) {
    mimic_tensor *t = NULL;
    double got[64];
    int i = mimic_safetensors_find(f, name);
    assert_true(i >= 0);
    must(mimic_safetensors_load(f, i, &t));
    assert_true(mimic_tensor_rank(t) == 2 && mimic_tensor_shape(t)[0] == rows &&
                mimic_tensor_shape(t)[1] == cols);
    must(mimic_tensor_read(ctx, t, MIMIC_F64, got, rows * cols));
    for (int k = 0; k < rows * cols; k++)
        assert_true(got[k] == expected[k]);
    mimic_tensor_release(t);
}

static void test_layouts(void **state) {
    (void)state;
    static const double straight[] = {0, 1, 2, 3, 4, 5}, turned[] = {0, 3, 1, 4, 2, 5};
    for (int legacy = 0; legacy < 2; legacy++) {
        static zip z;
        static bytes pickle, old;
        pickle.n = 0;
        py_checkpoint(&pickle, legacy);
        pth_zip(&z, &pickle);
        pth_legacy(&old, &pickle);
        write_file(at("x.pth"), legacy ? old.data : z.file.data, legacy ? old.n : z.file.n);
        mimic_safetensors *f = open_pth("x.pth");
        assert_int_equal(mimic_safetensors_count(f), 2);
        assert_string_equal(mimic_safetensors_name(f, 0), "model.a");
        assert_string_equal(mimic_safetensors_meta(f, "epoch"), "7");
        assert_null(mimic_safetensors_meta(f, "model"));
        assert_values(f, "model.a", 2, 3, straight);
        assert_values(f, "model.t", 3, 2, turned);
        mimic_safetensors_close(f);
    }
}

/* Pickles longer than the first look at a file of the older layout. */
static void test_long_pickle(void **state) {
    (void)state;
    static bytes p, old;
    static char note[500 * 1000];
    memset(note, 'n', sizeof note - 1);
    p.n = 0;
    add_text(&p, "\x80\x02}(");
    py_text(&p, "note");
    py_text(&p, note);
    py_text(&p, "w");
    py_tensor(&p, "FloatStorage", "0", 6, 0, 2, 3, 3, 1, 1);
    add_text(&p, "u.");
    pth_legacy(&old, &p);
    write_file(at("long.pth"), old.data, old.n);
    mimic_safetensors *f = open_pth("long.pth");
    assert_values(f, "w", 2, 3, (const double[]){0, 1, 2, 3, 4, 5});
    assert_int_equal(strlen(mimic_safetensors_meta(f, "note")), 199); /* plain values are cut */
    mimic_safetensors_close(f);
    old.n -= 100;
    refuse(&old, MIMIC_EFORMAT, "that is cut off");
}

/* Sub-matrices, and types that become others. */
static void test_strides_and_types(void **state) {
    (void)state;
    static const struct {
        const char *type;
        size_t size;
        uint8_t data[32];
        double expected[4];
        mimic_status status;
    } types[] = {
        {"HalfStorage", 2, {0, 0x3c, 0, 0xc0, 0, 0, 0, 0x7c}, {1, -2, 0, INFINITY}, 0},
        {"BFloat16Storage", 2, {0x80, 0x3f, 0, 0xc0, 0, 0, 0x80, 0x7f}, {1, -2, 0, INFINITY}, 0},
        {"ShortStorage", 2, {1, 0, 0xff, 0xff, 3, 0, 4, 0}, {1, -1, 3, 4}, 0},
        {"CharStorage", 1, {1, 0xff, 3, 4}, {1, -1, 3, 4}, 0},
        {"ByteStorage", 1, {1, 255, 3, 4}, {1, 255, 3, 4}, 0},
        {"BoolStorage", 1, {1, 0, 1, 0}, {1, 0, 1, 0}, 0},
        {"BoolStorage", 1, {1, 2, 1, 0}, {0}, MIMIC_EFORMAT},
        {"IntStorage", 4, {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3}, {1, -1, 3, 0}, 0},
        {"LongStorage", 8, {1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3}, {1, 2, 3, 0}, 0},
        {"LongStorage", 8, {1, 0, 0, 0, 1}, {0}, MIMIC_EFORMAT},
        {"DoubleStorage", 8, {0, 0, 0, 0, 0, 0, 0xf0, 0x3f}, {1, 0, 0, 0}, 0},
    };
    for (int strided = 0; strided < 2; strided++)
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            static zip z;
            static bytes p;
            mimic_tensor *t = NULL;
            double got[4];
            p.n = 0;
            memset(&z, 0, sizeof z);
            add_text(&p, "\x80\x02");
            /* [2,2]: its transpose is the same elements in another order */
            py_tensor(&p, types[i].type, "7", 4, 0, 2, 2, strided ? 1 : 2, strided ? 2 : 1, 0);
            add_text(&p, ".");
            zip_add(&z, "m/data.pkl", p.data, p.n, 0);
            zip_add(&z, "m/data/7", types[i].data, 4 * types[i].size, 0);
            zip_end(&z);
            write_file(at("y.pth"), z.file.data, z.file.n);
            mimic_safetensors *f = open_pth("y.pth");
            assert_string_equal(mimic_safetensors_name(f, 0), "tensor");
            mimic_status s = mimic_safetensors_load(f, 0, &t);
            assert_int_equal(s, types[i].status);
            if (s == MIMIC_OK) {
                must(mimic_tensor_read(ctx, t, MIMIC_F64, got, 4));
                for (int k = 0; k < 4; k++)
                    assert_true(got[k] == types[i].expected[strided ? (k & 1) * 2 + k / 2 : k]);
            }
            mimic_tensor_release(t);
            mimic_safetensors_close(f);
        }
}

static void test_refused_by_name(void **state) {
    (void)state;
    static bytes p;
    static const struct {
        const char *module, *name;
    } classes[] = {{"os", "system"},
                   {"builtins", "eval"},
                   {"torch", "load"},
                   {"torch.nn.modules.linear", "Linear"},
                   {"torch", "FloatStorages"}};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        char part[100];
        p.n = 0;
        add_text(&p, "\x80\x02");
        py_class(&p, classes[i].module, classes[i].name);
        py_text(&p, "touch executed");
        add_text(&p, "\x85R.");
        snprintf(part, sizeof part, "class %s.%s is not read", classes[i].module, classes[i].name);
        if (strcmp(classes[i].name, "load") != 0) { /* torch.lowercase is a dtype: data */
            refuse_pickle(&p, MIMIC_EUNSUPPORTED, part);
            assert_true(access("executed", F_OK) != 0);
        }
    }
    static const struct {
        const char *text, *part;
        mimic_status status;
    } pickles[] = {
        {"\x80\x02I5\n.", "opcode 'I' is not read", MIMIC_EUNSUPPORTED},
        {"\x80\x02P1\n.", "opcode 'P' is not read", MIMIC_EUNSUPPORTED},
        {"\x80\x02i", "opcode 'i' is not read", MIMIC_EUNSUPPORTED},
        {"\x80\x02\x82\x01.", "opcode 0x82 is not read", MIMIC_EUNSUPPORTED},
        {"\x80\x09.", "unknown protocol", MIMIC_EFORMAT},
        {"\x80\x02}", "the pickle is cut off", MIMIC_EFORMAT},
        {"\x80\x02.", "no single value", MIMIC_EFORMAT},
        {"\x80\x02t.", "no mark", MIMIC_EFORMAT},
        {"\x80\x02}}R.", "a call of something", MIMIC_EFORMAT},
        {"\x80\x02h\x05.", "was not remembered", MIMIC_EFORMAT},
        {"\x80\x02X\xff\xff\xff\x7f"
         "a.",
         "a text that is cut off", MIMIC_EFORMAT},
        {"\x80\x02NQ.", "no storage", MIMIC_EFORMAT},
        {"\x80\x02N]s.", "nothing to add to", MIMIC_EFORMAT},
        {"\x80\x02NNNs.", "no list or dict", MIMIC_EFORMAT},
        {"\x80\x02}.", "no tensors in it", MIMIC_EFORMAT},
    };
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        p.n = 0;
        add_text(&p, pickles[i].text);
        refuse_pickle(&p, pickles[i].status, pickles[i].part);
    }
}

static void test_lying_tensors(void **state) {
    (void)state;
    static bytes p;
    static const struct {
        int elements, offset, rows, cols, row_stride, col_stride;
        const char *part;
    } cases[] = {
        {7, 0, 2, 3, 3, 1, "cannot hold 7 elements"},
        {6, 1, 2, 3, 3, 1, "reach beyond its storage of 6"},
        {6, 0, 2, 3, 4, 1, "reach beyond"},
        {6, 0, 100000, 100000, 0, 0, "reach beyond"}, /* a small storage, endlessly repeated */
        {6, 0, 0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff, "reach beyond"},
        {6, -1, 2, 3, 3, 1, "reach beyond"},
        {6, 0, 2, -3, 3, 1, "reach beyond"},
        {6, 0, 2, 3, -3, 1, "reach beyond"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        p.n = 0;
        add_text(&p, "\x80\x02}");
        py_text(&p, "w");
        py_tensor(&p, "FloatStorage", "0", cases[i].elements, cases[i].offset, cases[i].rows,
                  cases[i].cols, cases[i].row_stride, cases[i].col_stride, 0);
        add_text(&p, "s.");
        refuse_pickle(&p, MIMIC_EFORMAT, cases[i].part);
    }
    p.n = 0;
    add_text(&p, "\x80\x02}");
    py_text(&p, "w");
    py_tensor(&p, "FloatStorage", "nine", 6, 0, 2, 3, 3, 1, 0);
    add_text(&p, "s.");
    refuse_pickle(&p, MIMIC_EFORMAT, "tensor 'w': entry 'archive/data/nine' is missing");
    p.n = 0; /* one name for two tensors */
    add_text(&p, "\x80\x02}(");
    for (int k = 0; k < 2; k++) {
        py_text(&p, "w");
        py_tensor(&p, "FloatStorage", "0", 6, 0, 2, 3, 3, 1, 0);
    }
    add_text(&p, "u.");
    refuse_pickle(&p, MIMIC_EFORMAT, "two tensors are named 'w'");
}

/* Depth and breadth that a few bytes promise. */
static void test_bombs(void **state) {
    (void)state;
    static bytes p;
    p.n = 0;
    add_text(&p, "\x80\x02");
    for (int i = 0; i < 3000; i++)
        add_text(&p, "]");
    for (int i = 1; i < 3000; i++)
        add_text(&p, "a");
    add_text(&p, ".");
    refuse_pickle(&p, MIMIC_EFORMAT, "nested too deep");
    p.n = 0; /* a list that holds itself */
    add_text(&p, "\x80\x02]q\x01h\x01"
                 "a.");
    refuse_pickle(&p, MIMIC_EFORMAT, "nested too deep");
    p.n = 0; /* each of 25 lists holds the one before ten times */
    add_text(&p, "\x80\x02Nq\x01");
    for (int i = 0; i < 25; i++)
        add_text(&p, "](h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01"
                     "eq\x01");
    add_text(&p, ".");
    refuse_pickle(&p, MIMIC_EFORMAT, "no single value");
    p.n = 0;
    add_text(&p, "\x80\x02Nq\x01"
                 "0");
    for (int i = 0; i < 25; i++)
        add_text(&p, "](h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01h\x01"
                     "eq\x01"
                     "0");
    add_text(&p, "h\x01.");
    refuse_pickle(&p, MIMIC_EFORMAT, "more than four million values");
}

/* Cut off anywhere, a file is one error. */
static void refuse_every_cut(bytes *b) {
    size_t full = b->n;
    for (b->n = 0; b->n < full; b->n++)
        refuse(b, MIMIC_EFORMAT, "bad.pth: ");
}

static void test_archives(void **state) {
    (void)state;
    static zip z;
    static bytes p, cut;
    p.n = 0;
    py_checkpoint(&p, 0);
    for (int method = 8; method >= 0; method -= 8) {
        memset(&z, 0, sizeof z);
        zip_add(&z, "a/data.pkl", p.data, p.n, 0);
        zip_add(&z, "a/data/0", pth_values, sizeof pth_values, method);
        if (!method)
            zip_add(&z, "a/constants.pkl", "x", 1, 0);
        zip_end(&z);
        refuse(&z.file, MIMIC_EUNSUPPORTED,
               method ? "entry 'a/data/0' is compressed" : "a TorchScript archive");
    }
    memset(&z, 0, sizeof z);
    zip_add(&z, "a/data.pkl", p.data, p.n, 0);
    zip_add(&z, "a/byteorder", "big", 3, 0);
    zip_end(&z);
    refuse(&z.file, MIMIC_EUNSUPPORTED, "byte order 'big'");
    memset(&z, 0, sizeof z);
    zip_add(&z, "readme.txt", "hello", 5, 0);
    zip_end(&z);
    refuse(&z.file, MIMIC_EFORMAT, "not one of torch.save");
    pth_zip(&z, &p);
    refuse_every_cut(&z.file);
    static bytes old;
    p.n = 0;
    py_checkpoint(&p, 1);
    pth_legacy(&old, &p);
    refuse_every_cut(&old);
    cut = old;
    cut.data[4] ^= 1;
    refuse(&cut, MIMIC_EFORMAT, "not one of torch.save");
    cut.n = 0;
    add_text(&cut, "GIF89a, certainly no weights");
    refuse(&cut, MIMIC_EFORMAT, "neither a zip archive nor a pickle");
    mimic_safetensors *f = NULL;
    must_fail(mimic_pth_open(ctx, at("none.pth"), &f), MIMIC_EIO, "none.pth");
}

static void test_no_memory(void **state) {
    (void)state;
    static zip z;
    static bytes p, old;
    for (int legacy = 0; legacy < 2; legacy++) {
        mimic_status s = MIMIC_ENOMEM;
        p.n = 0;
        py_checkpoint(&p, legacy);
        pth_zip(&z, &p);
        pth_legacy(&old, &p);
        write_file(at("m.pth"), legacy ? old.data : z.file.data, legacy ? old.n : z.file.n);
        for (int64_t n = 1; s != MIMIC_OK; n++) {
            mimic_safetensors *f = NULL;
            mimic_tensor *t = NULL;
            mimic_fail_alloc(ctx, n, true);
            s = mimic_pth_open(ctx, at("m.pth"), &f);
            if (s == MIMIC_OK)
                s = mimic_safetensors_load(f, 1, &t);
            mimic_fail_alloc(ctx, 0, false);
            assert_true(s == MIMIC_OK || s == MIMIC_ENOMEM);
            mimic_tensor_release(t);
            mimic_safetensors_close(f);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_pickle),       cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_strides_and_types), cmocka_unit_test(test_refused_by_name),
        cmocka_unit_test(test_lying_tensors),     cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_archives),          cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

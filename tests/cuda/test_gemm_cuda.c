/* The file of chosen cublasLt algorithms, on the emulated device: a choice is kept and repeated;
 * what is damaged, foreign or no longer valid costs a new choice and a warning, never a result. */
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/gemm.h"
#include "cuda_util.h"

static char path[64], folder[64];
static int *heuristics, *epilogue, *algorithm_time, *gelu_time, warnings;
static char warned[512];

static void hear(void *user, int level, const char *text) {
    (void)user;
    if (level == 2) {
        warnings++;
        snprintf(warned, sizeof warned, "%s", text);
    }
}

/* A context on the device; NULL, once it is closed again, where the library is a real one, which
 * does not count. */
static mimic_ctx *open_counted(void) {
    mimic_config cfg = {.threads = 1, .log = hear};
    mimic_ctx *ctx = NULL;
    assert_int_equal(mimic_open(&cfg, &ctx), MIMIC_OK);
    assert_int_equal(open_cuda(ctx), 0);
    void *lib = dlopen(getenv("MIMIC_CUDA"), RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(lib);
    heuristics = dlsym(lib, "emu_lt_heuristics");
    epilogue = dlsym(lib, "emu_lt_epilogue");
    algorithm_time = dlsym(lib, "emu_lt_time");
    gelu_time = dlsym(lib, "emu_lt_gelu_time");
    if (heuristics)
        return ctx;
    mimic_close(ctx);
    return NULL;
}

/* y [2,2] = a [2,3] b [3,2] in a context of its own; how often algorithms were asked for. */
static int multiply(float y[4]) {
    const float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 0, 0, 1, 1, 1};
    const int64_t sa[2] = {2, 3}, sb[2] = {3, 2};
    mimic_tensor *in[2] = {NULL, NULL}, *out = NULL;
    mimic_ctx *ctx = open_counted();
    if (!ctx)
        skip();
    int before = *heuristics;
    assert_int_equal(mimic_tensor_from(ctx, MIMIC_F32, 2, sa, a, &in[0]), MIMIC_OK);
    assert_int_equal(mimic_tensor_from(ctx, MIMIC_F32, 2, sb, b, &in[1]), MIMIC_OK);
    if (mimic_op_apply(ctx, &mimic_op_matmul, in, 2, NULL, &out) ||
        mimic_tensor_read(ctx, out, MIMIC_F32, y, 4))
        fail_msg("%s", mimic_message(ctx));
    mimic_tensor_release(in[0]);
    mimic_tensor_release(in[1]);
    mimic_tensor_release(out);
    mimic_close(ctx);
    return *heuristics - before;
}

/* multiply, its result checked; warnings counts what was said. */
static int asked(void) {
    float y[4];
    warnings = 0;
    int n = multiply(y);
    assert_true(y[0] == 4 && y[1] == 5 && y[2] == 10 && y[3] == 11);
    return n;
}

static long size_of_file(void) {
    struct stat st;
    return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

static void text_of_file(char *text, size_t size) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, size - 1, f)] = 0;
    fclose(f);
}

static void write_file(const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* Every test starts without a file, in a folder that is not there. */
static int fresh(void **state) {
    (void)state;
    remove(path);
    rmdir(folder);
    return 0;
}

static void test_kept(void **state) {
    (void)state;
    assert_int_equal(asked(), 1);
    long size = size_of_file();
    assert_true(size > 0);
    assert_int_equal(asked(), 0);
    assert_int_equal(size_of_file(), size);
    assert_int_equal(warnings, 0);
}

static void test_damaged(void **state) {
    (void)state;
    char text[2048];
    assert_int_equal(asked(), 1);
    long size = size_of_file();
    text_of_file(text, sizeof text);
    char *words = strchr(strchr(text, '\n'), ' ');
    words[1] ^= 1;
    write_file(text);
    assert_int_equal(asked(), 1); /* chosen anew, and the file is whole again */
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(warned, path));
    assert_non_null(strstr(warned, "damaged"));
    assert_int_equal(size_of_file(), size);
    assert_int_equal(asked(), 0);
    assert_int_equal(warnings, 0);
    text_of_file(text, sizeof text);
    text[size / 2] = 0; /* cut off in the middle */
    write_file(text);
    assert_int_equal(asked(), 1);
    assert_int_equal(warnings, 1);
}

static void test_foreign(void **state) {
    (void)state;
    char text[64];
    mkdir(folder, 0777);
    write_file("a letter to somebody\n");
    assert_int_equal(asked(), 1);
    assert_int_equal(warnings, 1);
    assert_non_null(strstr(warned, "left alone"));
    text_of_file(text, sizeof text);
    assert_string_equal(text, "a letter to somebody\n");
}

/* Whole lines whose algorithm the library refuses, and choices of other shapes. */
static void test_refused(void **state) {
    (void)state;
    char text[2048], key[GEMM_KEY];
    const char *warning;
    gemm_choice c, none = {.algorithm = {1, 2, 3}};
    assert_int_equal(asked(), 1);
    text_of_file(text, sizeof text);
    char *line = strchr(text, '\n') + 1;
    snprintf(key, sizeof key, "%.*s", (int)strcspn(line, " "), line);
    assert_true(gemm_cache_find(path, key, &c, &warning));
    assert_null(warning);
    assert_true(gemm_cache_add(path, "another", &none, false, &warning));
    assert_true(gemm_cache_add(path, key, &none, true, &warning));
    assert_int_equal(asked(), 1);
    assert_int_equal(warnings, 0);
    assert_true(gemm_cache_find(path, key, &none, &warning));
    assert_memory_equal(&none, &c, sizeof c);
    assert_true(gemm_cache_find(path, "another", &none, &warning));
    assert_int_equal(none.algorithm[1], 2);
    assert_false(gemm_cache_find(path, "anothe", &none, &warning));
}

/* What another process has kept meanwhile counts. */
static void test_first_decides(void **state) {
    (void)state;
    const char *warning;
    gemm_choice first = {.algorithm = {1}, .workspace = 10}, second = {.algorithm = {2}};
    assert_true(gemm_cache_add(path, "key", &first, false, &warning));
    assert_true(gemm_cache_add(path, "key", &second, false, &warning));
    assert_memory_equal(&second, &first, sizeof first);
    second.workspace = 11;
    assert_true(gemm_cache_add(path, "key", &second, true, &warning));
    assert_true(gemm_cache_find(path, "key", &first, &warning));
    assert_int_equal(first.workspace, 11);
}

/* The folder is a file: products go on, with one warning. */
static void test_unwritable(void **state) {
    (void)state;
    FILE *f = fopen(folder, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(asked(), 1);
    assert_int_equal(warnings, 1);
    remove(folder);
}

/* The quickest is chosen, not the first. */
static void test_quickest(void **state) {
    (void)state;
    gemm_choice c;
    const char *warning;
    char text[2048], key[GEMM_KEY];
    assert_int_equal(asked(), 1);
    for (int slow = 0; slow < 2; slow++) {
        remove(path);
        algorithm_time[slow] = 5;
        assert_int_equal(asked(), 1);
        algorithm_time[slow] = 1;
        text_of_file(text, sizeof text);
        char *line = strchr(text, '\n') + 1;
        snprintf(key, sizeof key, "%.*s", (int)strcspn(line, " "), line);
        assert_true(gemm_cache_find(path, key, &c, &warning));
        assert_int_equal(c.algorithm[1], !slow); /* of the stand-in: the number of its algorithm */
    }
}

/* gelu_tanh(x w^T + bias), [2,8] of [2,8] and [8,8], in a context of its own: whether the GELU was
 * in the product, asked of a second call (the first may try). */
static bool gelu_in_product(float y[16]) {
    enum { GELU_TANH = 3, GELU_BIT = 32 };
    const int64_t shapes[3][2] = {{2, 8}, {8, 8}, {8}};
    const mimic_attrs attrs = {.v = {{.i = GELU_TANH}}};
    float v[64];
    mimic_tensor *in[3] = {NULL}, *out = NULL;
    mimic_ctx *ctx = open_counted();
    if (!ctx)
        skip();
    for (int i = 0; i < 64; i++)
        v[i] = (float)(i % 7) * 0.25f - 0.7f;
    for (int i = 0; i < 3; i++)
        assert_int_equal(mimic_tensor_from(ctx, MIMIC_F32, i < 2 ? 2 : 1, shapes[i], v, &in[i]),
                         MIMIC_OK);
    for (int call = 0; call < 2; call++) {
        mimic_tensor_release(out);
        out = NULL;
        if (mimic_op_apply(ctx, &mimic_op_linear, in, 3, &attrs, &out) ||
            mimic_tensor_read(ctx, out, MIMIC_F32, y, 16))
            fail_msg("%s", mimic_message(ctx));
    }
    bool whole = (*epilogue & GELU_BIT) != 0;
    for (int i = 0; i < 3; i++)
        mimic_tensor_release(in[i]);
    mimic_tensor_release(out);
    mimic_close(ctx);
    return whole;
}

/* The tanh GELU is in the product where that is quicker, or was when it was chosen. */
static void test_ways(void **state) {
    (void)state;
    float whole[16], parts[16];
    const char *warning;
    gemm_choice c = {.algorithm = {7}};
    char text[4096], key[GEMM_KEY];
    assert_true(gelu_in_product(whole));
    *gelu_time = 9;
    assert_true(gelu_in_product(parts)); /* kept */
    assert_memory_equal(parts, whole, sizeof whole);
    remove(path);
    assert_false(gelu_in_product(parts));
    for (int i = 0; i < 16; i++)
        assert_true(fabsf(parts[i] - whole[i]) < 1e-5f);
    *gelu_time = 0;
    int before = *heuristics;
    assert_false(gelu_in_product(parts)); /* kept */
    assert_int_equal(*heuristics, before);
    text_of_file(text, sizeof text);
    char *line = strstr(text, "\nway,");
    assert_non_null(line);
    snprintf(key, sizeof key, "%.*s", (int)strcspn(line + 1, " "), line + 1);
    assert_true(gemm_cache_add(path, key, &c, true, &warning)); /* no way that there is */
    assert_true(gelu_in_product(whole));
    assert_true(gemm_cache_find(path, key, &c, &warning));
    assert_int_equal(c.algorithm[0], 1);
    assert_int_equal(warnings, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_kept, fresh),
        cmocka_unit_test_setup(test_damaged, fresh),
        cmocka_unit_test_setup(test_foreign, fresh),
        cmocka_unit_test_setup(test_refused, fresh),
        cmocka_unit_test_setup(test_first_decides, fresh),
        cmocka_unit_test_setup(test_quickest, fresh),
        cmocka_unit_test_setup(test_ways, fresh),
        cmocka_unit_test_setup_teardown(test_unwritable, fresh, fresh)};
    snprintf(folder, sizeof folder, "/tmp/mimic-gemm-%ld", (long)getpid());
    snprintf(path, sizeof path, "%s/gemm.txt", folder);
    setenv("MIMIC_GEMM_CACHE", path, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

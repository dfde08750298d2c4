/* safetensors: round trips, every refusal with its message, damaged files, full and read-only
 * disks. */
#include "store_util.h"

#include <math.h>

#include "store/store_impl.h"

/* A file of this header and data. */
static void make(const char *path, const char *header, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    uint64_t n = strlen(header);
    assert_non_null(f);
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, n, f);
    if (size > 0)
        fwrite(data, 1, size, f);
    fclose(f);
}

static mimic_tensor *load(mimic_safetensors *f, const char *name) {
    mimic_tensor *t;
    int i = mimic_safetensors_find(f, name);
    assert_true(i >= 0);
    must(mimic_safetensors_load(f, i, &t));
    return t;
}

static void round_trip(void **state) {
    (void)state;
    static const mimic_dtype dtypes[] = {MIMIC_U8,  MIMIC_F32, MIMIC_BF16,
                                         MIMIC_F64, MIMIC_I32, MIMIC_F32};
    static const char *const names[] = {"bytes", "w \"x\" \\ \n\x01 \xc3\xa9", "half", "d", "i",
                                        "scalar"};
    static const int64_t shape[] = {3, 5};
    const char *meta[] = {"format", "pt", "note", "line\n\"two\" \xe2\x82\xac", "empty", ""};
    mimic_tensor *t[6];
    uint8_t raw[120], sha[32], again[32];
    int64_t bytes;
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)(i * 37 + 11);
    for (int i = 0; i < 6; i++)
        must(mimic_tensor_from(ctx, dtypes[i], i == 5 ? 0 : 2, shape, raw, &t[i]));
    must(mimic_safetensors_save(ctx, at("a"), names, t, 6, meta, 3, sha, &bytes));
    must(mimic_sha256_file(ctx, at("a"), again));
    assert_memory_equal(sha, again, 32);
    struct stat s;
    stat(at("a"), &s);
    assert_int_equal(s.st_size, bytes);
    mimic_safetensors *f;
    must(mimic_safetensors_open(ctx, at("a"), &f));
    assert_int_equal(mimic_safetensors_count(f), 6);
    assert_int_equal(mimic_safetensors_find(f, "none"), -1);
    assert_int_equal(mimic_safetensors_meta_count(f), 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(mimic_safetensors_meta(f, meta[2 * i]), meta[2 * i + 1]);
    assert_null(mimic_safetensors_meta(f, "x"));
    for (int i = 0; i < 6; i++) {
        const char *dtype;
        const int64_t *dims;
        int rank;
        assert_string_equal(mimic_safetensors_name(f, i), names[i]);
        mimic_safetensors_info(f, i, &dtype, &rank, &dims);
        assert_int_equal(rank, i == 5 ? 0 : 2);
        mimic_tensor *got = load(f, names[i]);
        assert_int_equal(mimic_tensor_dtype(got), dtypes[i]);
        size_t size = (size_t)mimic_tensor_count(got) * mimic_dtype_size(dtypes[i]);
        assert_memory_equal(mimic_tensor_data(got), raw, size);
        mimic_tensor_release(got);
    }
    mimic_safetensors_close(f);
    for (int i = 0; i < 6; i++)
        mimic_tensor_release(t[i]);
    must(mimic_safetensors_save(ctx, at("none"), NULL, NULL, 0, NULL, 0, NULL, NULL));
    must(mimic_safetensors_open(ctx, at("none"), &f));
    assert_int_equal(mimic_safetensors_count(f), 0);
    mimic_safetensors_close(f);
    assert_int_equal(files_in(scratch), 2); /* no temporary left */
}

static void conversions(void **state) {
    (void)state;
    struct {
        int64_t i64[2];
        uint16_t f16[6];
        int16_t i16[2];
        int8_t i8[2];
        uint8_t flag[2];
        uint16_t u16[1];
        uint8_t pad[6];
    } d = {{-5, INT32_MAX},
           {0x3c00, 0xc500, 0x0001, 0x83ff, 0x7c00, 0x7e00},
           {-300, 7},
           {-128, 5},
           {0, 1},
           {9},
           {0}};
    const char *header = "{\"l\":{\"dtype\":\"I64\",\"shape\":[2],\"data_offsets\":[0,16]},"
                         "\"h\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[16,28]},"
                         "\"s\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":[28,32]},"
                         "\"c\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[32,34]},"
                         "\"b\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[34,36]},"
                         "\"u\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[36,38]}}   ";
    make(at("c"), header, &d, 38);
    mimic_safetensors *f;
    must(mimic_safetensors_open(ctx, at("c"), &f));
    static const int32_t whole[3][2] = {{-5, INT32_MAX}, {-300, 7}, {-128, 5}};
    static const char *const names[] = {"l", "s", "c"};
    for (int i = 0; i < 3; i++) {
        mimic_tensor *t = load(f, names[i]);
        assert_int_equal(mimic_tensor_dtype(t), MIMIC_I32);
        assert_memory_equal(mimic_tensor_data(t), whole[i], 8);
        mimic_tensor_release(t);
    }
    mimic_tensor *t = load(f, "h");
    const float *h = mimic_tensor_data(t);
    assert_true(h[0] == 1.0f && h[1] == -5.0f && h[2] == 0x1p-24f && h[3] == -0x3ffp-24f);
    assert_true(isinf(h[4]) && isnan(h[5]));
    mimic_tensor_release(t);
    t = load(f, "b");
    assert_int_equal(mimic_tensor_dtype(t), MIMIC_U8);
    mimic_tensor_release(t);
    must_fail(mimic_safetensors_load(f, 5, &t), MIMIC_EUNSUPPORTED,
              "tensor 'u': dtype U16 cannot be loaded");
    must_fail(mimic_safetensors_load(f, 6, &t), MIMIC_EINVAL, "no tensor number 6");
    mimic_safetensors_close(f);
    d.i64[1] = (int64_t)INT32_MAX + 1;
    d.flag[1] = 2;
    make(at("c"), header, &d, 38);
    must(mimic_safetensors_open(ctx, at("c"), &f));
    must_fail(mimic_safetensors_load(f, 0, &t), MIMIC_EFORMAT,
              "tensor 'l': element 1 of I64 does not fit in i32");
    must_fail(mimic_safetensors_load(f, 4, &t), MIMIC_EFORMAT, "tensor 'b': element 1 of BOOL");
    assert_int_equal(truncate(at("c"), 250), 0); /* shrinks while it is open */
    must_fail(mimic_safetensors_load(f, 0, &t), MIMIC_EIO, "the file ends at byte");
    mimic_safetensors_close(f);
}

#define ONE(name, dtype, shape, range)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

/* Headers over 24 bytes of data, and what is said of them. */
static const struct refusal {
    const char *header, *message;
} refusals[] = {
    {"{" ONE("blocks.0.attn.qkv.weight", "F32", "[3,2]", "[0,12]") "}",
     "tensor 'blocks.0.attn.qkv.weight': data [0,12) is 12 bytes, shape [3,2] of F32 needs 24"},
    {"{" ONE("a", "F32", "[6]", "[24,0]") "}", "ends before it begins"},
    {"{" ONE("a", "F32", "[3]", "[0,12]") "," ONE("b", "F32", "[4]", "[8,24]") "}",
     "tensor 'b': data [8,24) overlaps tensor 'a' [0,12)"},
    {"{" ONE("a", "F32", "[2]", "[0,8]") "," ONE("b", "F32", "[3]", "[12,24]") "}",
     "belong to no tensor"},
    {"{" ONE("a", "F32", "[2]", "[0,8]") "}", "16 bytes after the last tensor"},
    {"{" ONE("a", "F32", "[7]", "[0,28]") "}", "reaches beyond the file, which has 24"},
    {"{" ONE("a", "F32", "[3]", "[0,12]") "," ONE("a", "F32", "[3]", "[12,24]") "}",
     "two tensors are named 'a'"},
    {"{" ONE("a", "F31", "[6]", "[0,24]") "}", "unknown dtype 'F31'"},
    {"{" ONE("a", "F32", "[4611686018427387904,4]", "[0,24]") "}", "is too large"},
    {"{" ONE("a", "F32", "[99999999999999999999]", "[0,24]") "}", "number too large"},
    {"{" ONE("a", "F32", "[-6]", "[0,24]") "}", "expected a whole number"},
    {"{" ONE("a", "F32", "[6.0]", "[0,24]") "}", "expected a whole number"},
    {"{" ONE("a", "F32", "[06]", "[0,24]") "}", "leading zero"},
    {"{" ONE("a", "F32", "[1,1,1,1,1,1,6]", "[0,24]") "}", "more than 6 axes"},
    {"{" ONE("a", "F32", "[6 7]", "[0,24]") "}", "expected ','"},
    {"{" ONE("a", "F32", "[6]", "[0,24,1]") "}", "expected ']'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6]}}", "'data_offsets' is missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[6]}}", "twice the field 'dtype'"},
    {"{\"a\":{\"dtype\":\"F32\",\"sharp\":[6]}}", "unknown field 'sharp'"},
    {"{\"a\":[1]}", "expected '{'"},
    {"{" ONE("a", "F32", "[6]", "[0,24]") ",}", "expected a string"},
    {"{" ONE("a", "F32", "[6]", "[0,24]") "} x", "nothing more"},
    {"{" ONE("a", "F32", "[6]", "[0,24]"), "expected ','"},
    {"[]", "expected '{'"},
    {"{\"a", "does not end"},
    {"{\"a\\q\":1}", "unknown escape"},
    {"{\"a\\u12\":1}", "wrong \\u escape"},
    {"{\"a\\ud800\":1}", "wrong \\u escape"},
    {"{\"a\\udc00\":1}", "wrong \\u escape"},
    {"{\"a\\u0000\":1}", "zero character"},
    {"{\"a\n\":1}", "control character"},
    {"{\"\xc0\xaf\":1}", "not valid UTF-8"},
    {"{\"\xed\xa0\x80\":1}", "not valid UTF-8"},
    {"{\"\xf4\x90\x80\x80\":1}", "not valid UTF-8"},
    {"{\"__metadata__\":{\"k\":1}}", "expected a string"},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}," ONE("a", "F32", "[6]", "[0,24]") "}",
     "has 'k' twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", "__metadata__ comes twice"},
};

static void every_refusal_has_its_message(void **state) {
    (void)state;
    char data[24] = {0};
    mimic_safetensors *f;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        make(at("bad"), refusals[i].header, data, sizeof data);
        mimic_status st = mimic_safetensors_open(ctx, at("bad"), &f);
        assert_null(f);
        assert_non_null(strstr(mimic_message(ctx), at("bad")));
        must_fail(st, strstr(refusals[i].message, "axes") ? MIMIC_EUNSUPPORTED : MIMIC_EFORMAT,
                  refusals[i].message);
    }
    uint64_t huge[4] = {UINT64_MAX, 0, 0, 0};
    write_file(at("bad"), huge, sizeof huge);
    must_fail(mimic_safetensors_open(ctx, at("bad"), &f), MIMIC_EFORMAT,
              "header of 18446744073709551615 bytes");
    huge[0] = 100 * 1000 * 1000 + 1;
    write_file(at("bad"), huge, sizeof huge);
    assert_int_equal(truncate(at("bad"), 200 * 1000 * 1000), 0);
    must_fail(mimic_safetensors_open(ctx, at("bad"), &f), MIMIC_EFORMAT, "too large");
    write_file(at("bad"), "", 0);
    must_fail(mimic_safetensors_open(ctx, at("bad"), &f), MIMIC_EFORMAT, "too short");
    must_fail(mimic_safetensors_open(ctx, at("absent"), &f), MIMIC_EIO, "No such file");
    must_fail(mimic_safetensors_open(ctx, scratch, &f), MIMIC_EIO, "Is a directory");
    must_fail(mimic_safetensors_open(ctx, "/dev/zero", &f), MIMIC_EIO, "not a regular file");
    make(at("ok"),
         "{\"\\ud83d\\ude00\\u00e9\\/\":{\"shape\":[ 0 , 3 "
         "],\"dtype\":\"F32\",\"data_offsets\":[0,0]}}",
         NULL, 0);
    must(mimic_safetensors_open(ctx, at("ok"), &f));
    assert_string_equal(mimic_safetensors_name(f, 0), "\xf0\x9f\x98\x80\xc3\xa9/");
    mimic_safetensors_close(f);
}

/* Opens and loads what opens; a failure must have a message. Returns whether it opened. */
static bool probe(const char *path) {
    mimic_safetensors *f;
    mimic_tensor *t;
    if (mimic_safetensors_open(ctx, path, &f)) {
        assert_non_null(strstr(mimic_message(ctx), path));
        return false;
    }
    for (int i = 0; i < mimic_safetensors_count(f); i++)
        if (mimic_safetensors_load(f, i, &t) == MIMIC_OK)
            mimic_tensor_release(t);
    mimic_safetensors_close(f);
    return true;
}

static void damaged_files_are_refused(void **state) {
    (void)state;
    const char *names[] = {"a", "b.weight"}, *meta[] = {"k", "v"};
    const int64_t shape[] = {2, 3};
    float values[6] = {1, 2, 3, 4, 5, 6};
    mimic_tensor *t[2];
    for (int i = 0; i < 2; i++)
        must(mimic_tensor_from(ctx, MIMIC_F32, 2, shape, values, &t[i]));
    must(mimic_safetensors_save(ctx, at("good"), names, t, 2, meta, 1, NULL, NULL));
    size_t size;
    char *good = read_file(at("good"), &size), *bad = malloc(size + 8);
    for (size_t n = 0; n < size; n++) {
        write_file(at("cut"), good, n);
        assert_false(probe(at("cut")));
    }
    memcpy(bad, good, size);
    write_file(at("cut"), bad, size + 8); /* and longer */
    assert_false(probe(at("cut")));
    mimic_rng r;
    mimic_rng_init(&r, 7, 0, 0);
    int opened = 0;
    for (int i = 0; i < 4000; i++) {
        memcpy(bad, good, size);
        for (uint32_t k = mimic_rng_below(&r, 3) + 1; k > 0; k--)
            bad[mimic_rng_below(&r, (uint32_t)size)] = (char)mimic_rng_u32(&r);
        write_file(at("flip"), bad, size);
        opened += probe(at("flip"));
    }
    assert_true(opened > 0 &&
                opened < 3000); /* changed values and names are no damage of the form */
    free(good);
    free(bad);
    for (int i = 0; i < 2; i++)
        mimic_tensor_release(t[i]);
}

static void saving_refuses(void **state) {
    (void)state;
    const char *same[] = {"a", "a"}, *odd[] = {"\xff"}, *meta[] = {"k", "1", "k", "2"},
               *kept[] = {"__metadata__"};
    const int64_t shape[] = {4};
    mimic_tensor *t[2];
    for (int i = 0; i < 2; i++)
        must(mimic_tensor_new(ctx, MIMIC_F32, 1, shape, &t[i]));
    must_fail(mimic_safetensors_save(ctx, at("s"), same, t, 2, NULL, 0, NULL, NULL), MIMIC_EINVAL,
              "two tensors are named 'a'");
    must_fail(mimic_safetensors_save(ctx, at("s"), odd, t, 1, NULL, 0, NULL, NULL), MIMIC_EINVAL,
              "UTF-8");
    must_fail(mimic_safetensors_save(ctx, at("s"), same, t, 1, meta, 2, NULL, NULL), MIMIC_EINVAL,
              "two metadata keys are named 'k'");
    must_fail(mimic_safetensors_save(ctx, at("s"), kept, t, 1, NULL, 0, NULL, NULL), MIMIC_EINVAL,
              "__metadata__");
    must_fail(mimic_safetensors_save(ctx, at("no/folder"), same, t, 1, NULL, 0, NULL, NULL),
              MIMIC_EIO, "No such file");
    mimic_tensor_free(t[1]);
    must_fail(mimic_safetensors_save(ctx, at("s"), same + 1, t + 1, 1, NULL, 0, NULL, NULL),
              MIMIC_ESTATE, "freed");
    assert_int_equal(files_in(scratch), 0);
    for (int i = 0; i < 2; i++)
        mimic_tensor_release(t[i]);
}

static int save_as_nobody(void) {
    const char *name[] = {"a"};
    mimic_tensor *t;
    if (mimic_tensor_new(ctx, MIMIC_F32, 0, NULL, &t))
        return 1;
    if (mimic_safetensors_save(ctx, at("ro/x"), name, &t, 1, NULL, 0, NULL, NULL) != MIMIC_EIO)
        return 2;
    return strstr(mimic_message(ctx), "Permission denied") ? 0 : 3;
}

static void full_and_read_only_disks(void **state) {
    (void)state;
    const char *name[] = {"a"};
    const int64_t small[] = {1000}, big[] = {1000000};
    mimic_tensor *s, *b;
    mkdir(at("ro"), 0555);
    assert_int_equal(as_nobody(save_as_nobody), 0);
    if (!small_disk("disk", "1m"))
        return;
    must(mimic_tensor_new(ctx, MIMIC_F32, 1, small, &s));
    must(mimic_tensor_new(ctx, MIMIC_F32, 1, big, &b));
    must(mimic_safetensors_save(ctx, at("disk/x"), name, &s, 1, NULL, 0, NULL, NULL));
    must_fail(mimic_safetensors_save(ctx, at("disk/x"), name, &b, 1, NULL, 0, NULL, NULL),
              MIMIC_EIO, "No space left on device");
    assert_int_equal(files_in(at("disk")), 1); /* no temporary, and the old file is whole */
    assert_true(probe(at("disk/x")));
    assert_int_equal(mount(NULL, at("disk"), NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    must_fail(mimic_safetensors_save(ctx, at("disk/x"), name, &s, 1, NULL, 0, NULL, NULL),
              MIMIC_EIO, "Read-only file system");
    umount(at("disk"));
    mimic_tensor_release(s);
    mimic_tensor_release(b);
}

/* Every allocation of saving and opening fails once: a status, no leak, no file. */
static void out_of_memory(void **state) {
    (void)state;
    const char *name[] = {"a"}, *meta[] = {"k", "v"};
    const int64_t shape[] = {4};
    mimic_tensor *t, *got;
    mimic_safetensors *f;
    must(mimic_tensor_new(ctx, MIMIC_F32, 1, shape, &t));
    mimic_status st = MIMIC_ENOMEM;
    for (int n = 1; st && n < 50; n++) {
        int64_t live = mimic_alloc_live(ctx);
        mimic_fail_alloc(ctx, n, false);
        st = mimic_safetensors_save(ctx, at("m"), name, &t, 1, meta, 1, NULL, NULL);
        mimic_fail_alloc(ctx, 0, false);
        assert_int_equal(mimic_alloc_live(ctx), live);
        assert_true(st == MIMIC_OK || st == MIMIC_ENOMEM);
        assert_int_equal(exists(at("m")), st == MIMIC_OK || n > 5);
        if (st)
            unlink(at("m"));
    }
    must(st);
    for (int n = 1, done = 0; !done && n < 50; n++) {
        int64_t live = mimic_alloc_live(ctx);
        mimic_fail_alloc(ctx, n, false);
        st = mimic_safetensors_open(ctx, at("m"), &f);
        if (!st) {
            st = mimic_safetensors_load(f, 0, &got);
            if (!st)
                mimic_tensor_release(got);
            done = !st;
            mimic_safetensors_close(f);
        }
        mimic_fail_alloc(ctx, 0, false);
        mimic_trim(ctx);
        assert_true(done || st == MIMIC_ENOMEM);
        assert_int_equal(mimic_alloc_live(ctx), live);
    }
    mimic_tensor_release(t);
}

static void hashes(void **state) {
    (void)state;
    uint8_t h[32];
    mimic_sha256("abc", 3, h);
    assert_int_equal(h[0] << 8 | h[1], 0xba78);
    mimic_sha256(NULL, 0, h);
    assert_int_equal(h[0] << 8 | h[1], 0xe3b0);
    static uint8_t data[1000], want[32];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * i >> 2);
    for (size_t n = 0; n < sizeof data;
         n++) /* in one piece and in two, against libmd's own blocks */
        for (size_t cut = 0; cut <= n; cut += 37) {
            SHA2_CTX md;
            mimic_hash mine;
            SHA256Init(&md);
            SHA256Update(&md, data, n);
            SHA256Final(want, &md);
            mimic_hash_init(&mine);
            mimic_hash_update(&mine, data, cut);
            mimic_hash_update(&mine, data + cut, n - cut);
            mimic_hash_final(&mine, h);
            assert_memory_equal(h, want, 32);
        }
    must_fail(mimic_sha256_file(ctx, at("absent"), h), MIMIC_EIO, "No such file");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_open, scratch_close)
    const struct CMUnitTest tests[] = {T(round_trip),
                                       T(conversions),
                                       T(every_refusal_has_its_message),
                                       T(damaged_files_are_refused),
                                       T(saving_refuses),
                                       T(full_and_read_only_disks),
                                       T(out_of_memory),
                                       T(hashes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* JPEG: round trip, colour spaces, orientation, and that damaged bytes are an error that names the
 * file. */
#include "data_util.h"

#include <jpeglib.h>

static mimic_err err;

/* Encodes with any colour space libjpeg writes from `components` equal channels. */
static uint8_t *encode_as(const mimic_image *img, J_COLOR_SPACE in, J_COLOR_SPACE out,
                          bool progressive, size_t *size) {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr e;
    unsigned char *data = NULL;
    unsigned long bytes = 0;
    int n = in == JCS_GRAYSCALE ? 1 : in == JCS_CMYK ? 4 : 3;
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &data, &bytes);
    c.image_width = (unsigned)img->width;
    c.image_height = (unsigned)img->height;
    c.input_components = n;
    c.in_color_space = in;
    jpeg_set_defaults(&c);
    jpeg_set_colorspace(&c, out);
    jpeg_set_quality(&c, 95, TRUE);
    if (progressive)
        jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    uint8_t *line = malloc((size_t)img->width * (size_t)n);
    while (c.next_scanline < c.image_height) {
        for (int x = 0; x < img->width; x++)
            for (int k = 0; k < n; k++) {
                const uint8_t *p =
                    img->pixels + ((size_t)c.next_scanline * (size_t)img->width + (size_t)x) * 3;
                /* Adobe's inverted CMYK without black: 255 - C = R. */
                line[x * n + k] = k == 3 ? 255 : p[k];
            }
        jpeg_write_scanlines(&c, &line, 1);
    }
    free(line);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    *size = bytes;
    return data;
}

static int worst(const mimic_image *a, const mimic_image *b, bool grey) {
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    int most = 0;
    for (int i = 0; i < a->width * a->height * 3; i++) {
        int d = abs(a->pixels[i] - b->pixels[grey ? i / 3 * 3 : i]);
        most = d > most ? d : most;
    }
    return most;
}

static void test_colour_spaces(void **state) {
    (void)state;
    static const struct {
        J_COLOR_SPACE in, out;
    } spaces[] = {{JCS_RGB, JCS_YCbCr},
                  {JCS_RGB, JCS_RGB},
                  {JCS_GRAYSCALE, JCS_GRAYSCALE},
                  {JCS_CMYK, JCS_CMYK},
                  {JCS_CMYK, JCS_YCCK}};
    mimic_image img = {0}, back = {0};
    fill_image(&img, 40, 24, 90);
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        for (int progressive = 0; progressive < 2; progressive++) {
            size_t size;
            uint8_t *data = encode_as(&img, spaces[i].in, spaces[i].out, progressive, &size);
            if (mimic_jpeg_decode(data, size, "a.jpg", &back, &err) != MIMIC_OK)
                fail_msg("%s", err.text);
            assert_true(worst(&back, &img, spaces[i].in == JCS_GRAYSCALE) < 24);
            free(data);
        }
    mimic_image_free(&img);
    mimic_image_free(&back);
}

/* A JPEG with an EXIF block that says `orientation`. */
static uint8_t *with_exif(const uint8_t *jpeg, size_t size, int orientation, bool big,
                          size_t *total) {
    uint8_t app[36] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0};
    const uint8_t little_ifd[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0};
    const uint8_t big_ifd[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1};
    memcpy(app + 10, big ? big_ifd : little_ifd, 18);
    app[big ? 29 : 28] = (uint8_t)orientation;
    uint8_t *out = malloc(size + sizeof app);
    memcpy(out, jpeg, 2);
    memcpy(out + 2, app, sizeof app);
    memcpy(out + 2 + sizeof app, jpeg + 2, size - 2);
    *total = size + sizeof app;
    return out;
}

static void test_orientation(void **state) {
    (void)state;
    mimic_image plain = {0}, turned = {0};
    size_t size, total;
    uint8_t *jpeg = make_jpeg(32, 20, 0, &size);
    assert_int_equal(mimic_jpeg_decode(jpeg, size, "a", &plain, &err), MIMIC_OK);
    for (int o = 0; o <= 9; o++) {
        uint8_t *data = with_exif(jpeg, size, o, o % 2, &total);
        assert_int_equal(mimic_jpeg_decode(data, total, "a", &turned, &err), MIMIC_OK);
        free(data);
        bool swapped = o >= 5 && o <= 8;
        assert_int_equal(turned.width, swapped ? 20 : 32);
        /* Where the first pixel of the stored picture must show: EXIF's table of row 0 and column
         * 0. */
        bool right = o == 2 || o == 3 || o == 6 || o == 7,
             bottom = o == 3 || o == 4 || o == 7 || o == 8;
        int x = right ? turned.width - 1 : 0, y = bottom ? turned.height - 1 : 0;
        assert_memory_equal(turned.pixels + (y * turned.width + x) * 3, plain.pixels, 3);
        /* Its right neighbour lies beside it, or below or above when the axes are swapped. */
        x += swapped ? 0 : right ? -1 : 1;
        y += swapped ? (bottom ? -1 : 1) : 0;
        assert_memory_equal(turned.pixels + (y * turned.width + x) * 3, plain.pixels + 3, 3);
    }
    free(jpeg);
    mimic_image_free(&plain);
    mimic_image_free(&turned);
}

static void must_be_damaged(const void *data, size_t size, const char *part) {
    mimic_image img = {0};
    assert_int_equal(mimic_jpeg_decode(data, size, "dir/x.JPEG", &img, &err), MIMIC_EFORMAT);
    assert_memory_equal(err.text, "dir/x.JPEG: ", 12);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, err.text);
    mimic_image_free(&img);
}

static void test_damaged(void **state) {
    (void)state;
    size_t size;
    uint8_t *jpeg = make_jpeg(64, 48, 9, &size);
    for (size_t n = 2; n < size; n += n < 700 ? 1 : 37)
        must_be_damaged(jpeg, n, "");
    must_be_damaged(jpeg, size - 1, "Premature end");
    must_be_damaged("", 0, "empty");
    must_be_damaged("\x89PNG\r\n\x1a\n......", 14, "a PNG, not a JPEG");
    must_be_damaged("RIFF....WEBP", 12, "a WebP");
    must_be_damaged("hello world", 11, "not a JPEG");
    /* A header that promises far more pixels than the bytes can hold. */
    for (size_t i = 2; i + 9 < size; i++)
        if (jpeg[i] == 0xff && jpeg[i + 1] == 0xc0) {
            memset(jpeg + i + 5, 0x3f, 4);
            break;
        }
    must_be_damaged(jpeg, size, "cannot hold");
    free(jpeg);
    mimic_image img = {0};
    assert_int_equal(mimic_image_read(at("none.jpg"), &img, &err), MIMIC_EIO);
    assert_non_null(strstr(err.text, "none.jpg: No such file"));
    assert_int_equal(mimic_image_read(scratch, &img, &err), MIMIC_EIO);
    mimic_image_free(&img);
}

/* Random damage: any status is fine, a crash or a hang is not. */
static void test_fuzz(void **state) {
    (void)state;
    mimic_rng rng;
    mimic_image img = {0};
    int good = 0;
    mimic_rng_init(&rng, 1, 2, 3);
    for (int i = 0; i < 600; i++) {
        size_t size;
        mimic_image src = {0};
        fill_image(&src, 20 + i % 50, 30, i % 255);
        uint8_t *data =
            encode_as(&src, i % 3 ? JCS_RGB : JCS_CMYK, i % 3 ? JCS_YCbCr : JCS_YCCK, i % 2, &size);
        int flips = 1 + (int)mimic_rng_below(&rng, 8);
        for (int k = 0; k < flips; k++)
            data[2 + mimic_rng_below(&rng, (uint32_t)size - 2)] = (uint8_t)mimic_rng_u32(&rng);
        mimic_status s = mimic_jpeg_decode(data, size, "f", &img, &err);
        assert_true(s == MIMIC_OK || s == MIMIC_EFORMAT);
        good += s == MIMIC_OK;
        free(data);
        mimic_image_free(&src);
    }
    assert_true(good < 500);
    mimic_image_free(&img);
}

static void test_encode(void **state) {
    (void)state;
    mimic_image img = {0}, back = {0};
    uint8_t *data;
    size_t size;
    assert_int_equal(mimic_jpeg_encode(&img, 90, &data, &size, &err), MIMIC_EINVAL);
    fill_image(&img, 33, 17, 128);
    assert_int_equal(mimic_jpeg_encode(&img, 0, &data, &size, &err), MIMIC_EINVAL);
    assert_int_equal(mimic_jpeg_encode(&img, 100, &data, &size, &err), MIMIC_OK);
    assert_int_equal(mimic_jpeg_decode(data, size, "a", &back, &err), MIMIC_OK);
    assert_true(worst(&back, &img, false) < 12);
    free(data);
    mimic_image_free(&img);
    mimic_image_free(&back);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_colour_spaces), cmocka_unit_test(test_orientation),
        cmocka_unit_test(test_damaged),       cmocka_unit_test(test_fuzz),
        cmocka_unit_test(test_encode),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}

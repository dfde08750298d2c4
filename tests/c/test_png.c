/* PNG of every kind becomes 8-bit RGB as stored; damage is refused with a message; the first bytes
 * decide, not the name. */
#include "data_util.h"

#include <png.h>

static mimic_err err;

typedef struct sink {
    uint8_t data[1 << 16];
    size_t size;
} sink;

static void sink_write(png_structp png, png_bytep data, size_t n) {
    sink *s = png_get_io_ptr(png);
    assert_true(s->size + n <= sizeof s->data);
    memcpy(s->data + s->size, data, n);
    s->size += n;
}

static void sink_flush(png_structp png) {
    (void)png;
}

enum { W = 13, H = 9 };

/* A PNG of W x H whose sample s of pixel (x, y) is (x * 17 + y * 29 + s * 61) within its depth. */
static void make(sink *out, int type, int depth, bool interlaced, bool extras) {
    static const int channels[] = {1, 0, 3, 1, 2, 0, 4};
    png_color palette[16];
    uint8_t rows[H][W * 8];
    png_bytep row[H];
    out->size = 0;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, out, sink_write, sink_flush);
    png_set_IHDR(png, info, W, H, depth, type, interlaced, 0, 0);
    for (int i = 0; i < 16; i++)
        palette[i] = (png_color){(uint8_t)(i * 10), (uint8_t)(200 - i), (uint8_t)(i * i)};
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 16);
    if (extras) {
        png_set_gAMA(png, info, 0.3);
        if (type == PNG_COLOR_TYPE_GRAY)
            png_set_tRNS(png, info, NULL, 0, &(png_color_16){.gray = 3});
    }
    png_write_info(png, info);
    if (depth < 8)
        png_set_packing(png);
    for (int y = 0; y < H; y++) {
        row[y] = rows[y];
        for (int i = 0; i < W * channels[type]; i++) {
            int x = i / channels[type], s = i % channels[type], v = x * 17 + y * 29 + s * 61;
            if (depth == 16) {
                rows[y][2 * i] = (uint8_t)v;
                rows[y][2 * i + 1] = 77;
            } else
                rows[y][i] = (uint8_t)(v & ((1 << depth) - 1));
        }
    }
    png_write_image(png, row);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
}

static void test_kinds(void **state) {
    (void)state;
    static const struct {
        int type, depth;
    } kinds[] = {{0, 1}, {0, 2}, {0, 4}, {0, 8},  {0, 16}, {2, 8}, {2, 16},
                 {3, 4}, {3, 8}, {4, 8}, {4, 16}, {6, 8},  {6, 16}};
    static sink s;
    mimic_image img = {0};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int variant = 0; variant < 4; variant++) {
            int type = kinds[k].type, depth = kinds[k].depth;
            if (type == 3 && depth == 8)
                continue; /* indices beyond the 16 colours */
            make(&s, type, depth, variant & 1, variant & 2);
            if (mimic_image_decode(s.data, s.size, "p.JPEG", &img, &err) != MIMIC_OK)
                fail_msg("type %d depth %d: %s", type, depth, err.text);
            assert_true(img.width == W && img.height == H);
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    for (int c = 0; c < 3; c++) {
                        int from = type == 2 || type == 6 ? c : 0;
                        int v = (x * 17 + y * 29 + from * 61) & 255;
                        if (depth < 8)
                            v &= (1 << depth) - 1;
                        if (type == 3)
                            v = c == 0 ? v * 10 : c == 1 ? 200 - v : v * v;
                        else if (depth < 8)
                            v = v * 255 / ((1 << depth) - 1);
                        assert_int_equal(img.pixels[(y * W + x) * 3 + c], v);
                    }
        }
    mimic_image_free(&img);
}

static void test_encode(void **state) {
    (void)state;
    mimic_image img = {0}, back = {0};
    uint8_t *data;
    size_t size;
    fill_image(&img, 31, 22, 200);
    assert_int_equal(mimic_png_encode(&img, false, &data, &size, &err), MIMIC_OK);
    assert_int_equal(mimic_png_decode(data, size, "x", &back, &err), MIMIC_OK);
    assert_true(back.width == 31 && back.height == 22);
    assert_memory_equal(img.pixels, back.pixels, 31 * 22 * 3);
    free(data);
    assert_int_equal(mimic_png_encode(&img, true, &data, &size, &err), MIMIC_OK);
    assert_int_equal(mimic_png_decode(data, size, "x", &back, &err), MIMIC_OK);
    for (int i = 0; i < 31 * 22; i++) {
        const uint8_t *p = img.pixels + 3 * i, *q = back.pixels + 3 * i;
        assert_int_equal(q[0], (19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 32768) >> 16);
        assert_true(q[0] == q[1] && q[1] == q[2]);
    }
    free(data);
    mimic_image_free(&img);
    mimic_image_free(&back);
}

static void test_damage(void **state) {
    (void)state;
    static sink s, t;
    mimic_image img = {0};
    mimic_rng rng;
    make(&s, 2, 8, true, true);
    for (size_t n = 0; n < s.size - 12; n++) /* all but the last chunk's own bytes */
        assert_int_equal(mimic_image_decode(s.data, n, "a/b.png", &img, &err), MIMIC_EFORMAT);
    assert_memory_equal(err.text, "a/b.png: damaged PNG: ", 22);
    mimic_rng_init(&rng, 1, 2, 3);
    for (int run = 0; run < 2000; run++) { /* a changed byte is seen by a checksum, or harmless */
        t = s;
        t.data[8 + mimic_rng_below(&rng, (uint32_t)s.size - 8)] ^=
            (uint8_t)(1u << mimic_rng_below(&rng, 8));
        err.text[0] = 0;
        mimic_status st = mimic_image_decode(t.data, t.size, "f", &img, &err);
        assert_true(st == MIMIC_OK || (st == MIMIC_EFORMAT && err.text[0]));
    }
    /* A header that promises far more than the bytes can hold (its checksum made right). */
    t = s;
    memset(t.data + 16, 0, 8);
    t.data[17] = t.data[21] = 15;
    png_uint_32 crc = 0xffffffff;
    for (int i = 12; i < 29; i++) {
        crc ^= t.data[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
    for (int i = 0; i < 4; i++)
        t.data[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    assert_int_equal(mimic_image_decode(t.data, t.size, "f", &img, &err), MIMIC_EFORMAT);
    assert_non_null(strstr(err.text, "too many"));
    assert_int_equal(mimic_image_decode((const uint8_t *)"GIF89a..", 8, "f.jpg", &img, &err),
                     MIMIC_EFORMAT);
    assert_string_equal(err.text, "f.jpg: the file is a GIF, not a JPEG or PNG");
    mimic_image_free(&img);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kinds), cmocka_unit_test(test_encode),
                                       cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

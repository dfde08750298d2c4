/* PNG in and out through libpng. As in jpeg.c, setjmp and longjmp stay inside this file. */
#include "image/image_impl.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <png.h>

#define MAX_PIXELS ((uint64_t)1 << 28)

typedef struct decoder {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t size, at;
    png_bytep *rows;
    char text[160];
} decoder;

static void on_error(png_structp png, png_const_charp text) {
    decoder *d = png_get_error_ptr(png);
    snprintf(d->text, sizeof d->text, "%s", text);
    png_longjmp(png, 1);
}

/* Remarks on ancillary chunks do not touch the pixels; damage of those is an error in libpng. */
static void on_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

static void read_bytes(png_structp png, png_bytep out, size_t n) {
    decoder *d = png_get_io_ptr(png);
    if (n > d->size - d->at)
        png_error(png, "the file ends too early");
    memcpy(out, d->data + d->at, n);
    d->at += n;
}

/* The part that may jump. Pixels are taken as stored: gamma and transparency are ignored. */
static mimic_status decode_body(decoder *d, const char *name, mimic_image *out, mimic_err *err) {
    png_structp png = d->png;
    png_set_read_fn(png, d, read_bytes);
    png_set_user_limits(png, 1 << 20, 1 << 20);
    png_set_chunk_malloc_max(png, 8000000);
    png_read_info(png, d->info);
    uint32_t width = png_get_image_width(png, d->info), height = png_get_image_height(png, d->info);
    uint64_t pixels = (uint64_t)width * height;
    if (pixels > MAX_PIXELS)
        return mimic_err_fail(err, MIMIC_EFORMAT, "%s: %u x %u pixels are too many", name, width,
                              height);
    /* A byte of deflate makes at most 1,032, and a byte holds at most 8 pixels. */
    if (pixels / (1032 * 8) > d->size)
        return mimic_err_fail(err, MIMIC_EFORMAT,
                              "%s: damaged PNG: %zu bytes cannot hold %u x %u pixels", name,
                              d->size, width, height);
    png_set_strip_16(png);
    png_set_palette_to_rgb(png);
    png_set_expand_gray_1_2_4_to_8(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, d->info);
    if (png_get_rowbytes(png, d->info) != (size_t)width * 3)
        return mimic_err_fail(err, MIMIC_EUNSUPPORTED, "%s: a PNG of an unknown kind", name);
    mimic_status s = mimic_image_reserve(out, (int)width, (int)height, err);
    if (s != MIMIC_OK)
        return s;
    d->rows = malloc((size_t)height * sizeof *d->rows);
    if (!d->rows)
        return mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for %u rows", name, height);
    for (uint32_t y = 0; y < height; y++)
        d->rows[y] = out->pixels + (size_t)y * width * 3;
    png_read_image(png, d->rows);
    png_read_end(png, NULL);
    return MIMIC_OK;
}

mimic_status mimic_png_decode(const uint8_t *data, size_t size, const char *name, mimic_image *out,
                              mimic_err *err) {
    decoder *d = calloc(1, sizeof *d);
    mimic_status s = MIMIC_ENOMEM;
    if (d)
        d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    if (d && d->png)
        d->info = png_create_info_struct(d->png);
    if (!d || !d->info) {
        mimic_err_fail(err, s, "%s: no memory for the PNG decoder", name);
        goto done;
    }
    d->data = data;
    d->size = size;
    if (setjmp(png_jmpbuf(d->png)) == 0)
        s = decode_body(d, name, out, err);
    else
        s = mimic_err_fail(err, MIMIC_EFORMAT, "%s: damaged PNG: %s", name, d->text);
done:
    if (d && d->png)
        png_destroy_read_struct(&d->png, &d->info, NULL);
    if (d)
        free(d->rows);
    free(d);
    return s;
}

mimic_status mimic_png_encode(const mimic_image *img, bool grey, uint8_t **data, size_t *size,
                              mimic_err *err) {
    *data = NULL;
    *size = 0;
    if (!img->pixels || img->width < 1 || img->height < 1)
        return mimic_err_fail(err, MIMIC_EINVAL, "a picture of %d x %d pixels cannot be a PNG",
                              img->width, img->height);
    size_t pixels = (size_t)img->width * (size_t)img->height;
    uint8_t *luma = grey ? malloc(pixels) : NULL;
    for (size_t i = 0; luma && i < pixels; i++)
        luma[i] = (uint8_t)mimic_luma(img->pixels + 3 * i);
    const void *from = grey ? luma : img->pixels;
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (uint32_t)img->width,
                     .height = (uint32_t)img->height,
                     .format = grey ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB};
    size_t room = PNG_IMAGE_PNG_SIZE_MAX(png);
    uint8_t *out = malloc(room);
    mimic_status s = MIMIC_OK;
    if (!out || !from)
        s = mimic_err_fail(err, MIMIC_ENOMEM, "no memory for the PNG encoder");
    else if (!png_image_write_to_memory(&png, out, &room, 0, from, 0, NULL))
        s = mimic_err_fail(err, MIMIC_ENOMEM, "PNG encoder: %s", png.message);
    png_image_free(&png);
    free(luma);
    if (s == MIMIC_OK) {
        *data = out;
        *size = room;
    } else {
        free(out);
    }
    return s;
}

/* JPEG in and out through libjpeg. setjmp and longjmp stay inside this file: every entry point
 * returns a status, and everything it allocated hangs on a struct that outlives the jump. */
#include "image/image_impl.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

#define MAX_LIBRARY_BYTES ((int64_t)1 << 31) /* coefficients of a progressive file */
#define MAX_SCANS 200 /* a hostile progressive file repeats scans over a huge picture */

typedef struct jpeg_state {
    struct jpeg_error_mgr base; /* first: libjpeg hands it back to us */
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    char text[JMSG_LENGTH_MAX + 64];
} jpeg_state;

static void on_error(j_common_ptr info) {
    jpeg_state *st = (jpeg_state *)info->err;
    if (!st->text[0])
        info->err->format_message(info, st->text);
    longjmp(st->jump, 1);
}

/* A warning means damaged data, which libjpeg papers over; here it ends the decoding. Remarks on
 * header fields that do not touch the pixels pass. */
static void on_message(j_common_ptr info, int level) {
    if (level < 0 && info->err->msg_code != JWRN_ADOBE_XFORM &&
        info->err->msg_code != JWRN_JFIF_MAJOR)
        on_error(info);
}

static void on_output(j_common_ptr info) {
    (void)info;
}

static void on_progress(j_common_ptr info) {
    jpeg_state *st = (jpeg_state *)info->err;
    if (info->is_decompressor && ((j_decompress_ptr)info)->input_scan_number > MAX_SCANS) {
        snprintf(st->text, sizeof st->text, "more than %d scans", MAX_SCANS);
        on_error(info);
    }
}

static void state_init(jpeg_state *st) {
    memset(st, 0, sizeof *st);
    jpeg_std_error(&st->base);
    st->base.error_exit = on_error;
    st->base.emit_message = on_message;
    st->base.output_message = on_output;
    st->progress.progress_monitor = on_progress;
}

static unsigned get16(const uint8_t *p, bool big) {
    return big ? (unsigned)p[0] << 8 | p[1] : (unsigned)p[1] << 8 | p[0];
}

static uint32_t get32(const uint8_t *p, bool big) {
    return big ? (uint32_t)get16(p, true) << 16 | get16(p + 2, true)
               : (uint32_t)get16(p + 2, false) << 16 | get16(p, false);
}

/* The orientation tag (0x0112) of IFD 0 of an EXIF block, 1 when there is none or it is malformed.
 */
static int exif_orientation(const struct jpeg_marker_struct *m) {
    for (; m; m = m->next) {
        const uint8_t *p = m->data;
        size_t n = m->data_length;
        if (m->marker != JPEG_APP0 + 1 || n < 14 || memcmp(p, "Exif\0\0", 6) != 0)
            continue;
        p += 6;
        n -= 6;
        bool big = p[0] == 'M';
        uint32_t at = get32(p + 4, big);
        if (n < 2 || at > n - 2)
            return 1;
        unsigned entries = get16(p + at, big);
        at += 2;
        for (unsigned i = 0; i < entries && n >= 12 && at <= n - 12; i++, at += 12)
            if (get16(p + at, big) == 0x0112) {
                unsigned v = get16(p + at + 8, big);
                return v >= 1 && v <= 8 ? (int)v : 1;
            }
        return 1;
    }
    return 1;
}

/* One line of (Adobe: inverted) CMYK to RGB, with Pillow's rounding. */
static void cmyk_line(const uint8_t *in, uint8_t *out, int width) {
    for (int x = 0; x < width; x++, in += 4, out += 3)
        for (int c = 0; c < 3; c++) {
            int t = (255 - in[c]) * in[3] + 128;
            out[c] = mimic_clip8(in[3] - (((t >> 8) + t) >> 8));
        }
}

typedef struct decoder {
    jpeg_state state;
    struct jpeg_decompress_struct info;
    uint8_t *line; /* CMYK only */
    int orientation;
} decoder;

/* The part that may jump. Everything it needs to free is in `d`. */
static mimic_status decode_body(decoder *d, const uint8_t *data, size_t size, const char *name,
                                mimic_image *out, mimic_err *err) {
    struct jpeg_decompress_struct *info = &d->info;
    jpeg_create_decompress(info);
    info->mem->max_memory_to_use = (long)MAX_LIBRARY_BYTES;
    info->progress = &d->state.progress;
    jpeg_mem_src(info, data, (unsigned long)size);
    jpeg_save_markers(info, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(info, TRUE);
    /* A block of 64 pixels takes at least one bit, so the header cannot promise more than this. */
    int64_t pixels = (int64_t)info->image_width * info->image_height;
    if (pixels > (int64_t)1 << 28)
        return mimic_err_fail(err, MIMIC_EFORMAT, "%s: %u x %u pixels are too many", name,
                              info->image_width, info->image_height);
    if (pixels / 1024 > (int64_t)size)
        return mimic_err_fail(err, MIMIC_EFORMAT,
                              "%s: damaged JPEG: %zu bytes cannot hold %u x %u pixels", name, size,
                              info->image_width, info->image_height);
    bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
    if (!cmyk && info->num_components != 1 && info->num_components != 3)
        return mimic_err_fail(err, MIMIC_EFORMAT,
                              "%s: a JPEG of %d components: 1 (grey), 3 and 4 (CMYK) are read",
                              name, info->num_components);
    info->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    d->orientation = exif_orientation(info->marker_list);
    jpeg_start_decompress(info);
    int width = (int)info->output_width;
    mimic_status s = mimic_image_reserve(out, width, (int)info->output_height, err);
    if (s != MIMIC_OK)
        return s;
    if (cmyk && !(d->line = malloc((size_t)width * 4)))
        return mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for a line", name);
    while (info->output_scanline < info->output_height) {
        uint8_t *row = out->pixels + (size_t)info->output_scanline * (size_t)width * 3;
        uint8_t *target = cmyk ? d->line : row;
        jpeg_read_scanlines(info, &target, 1);
        if (cmyk)
            cmyk_line(d->line, row, width);
    }
    jpeg_finish_decompress(info);
    return MIMIC_OK;
}

mimic_status mimic_jpeg_decode(const uint8_t *data, size_t size, const char *name, mimic_image *out,
                               mimic_err *err) {
    if (size == 0)
        return mimic_err_fail(err, MIMIC_EFORMAT, "%s: the file is empty", name);
    if (size < 4 || data[0] != 0xff || data[1] != 0xd8) {
        const char *what = mimic_image_kind(data, size);
        return mimic_err_fail(err, MIMIC_EFORMAT, "%s: %s%s%snot a JPEG", name,
                              what ? "the file is " : "", what ? what : "", what ? ", " : "");
    }
    mimic_status s;
    decoder *d = calloc(1, sizeof *d);
    if (!d)
        return mimic_err_fail(err, MIMIC_ENOMEM, "%s: no memory for the JPEG decoder", name);
    mimic_image tmp = {0};
    state_init(&d->state);
    d->info.err = &d->state.base;
    if (setjmp(d->state.jump) == 0) {
        s = decode_body(d, data, size, name, out, err);
    } else {
        bool memory = d->state.base.msg_code == JERR_OUT_OF_MEMORY;
        s = mimic_err_fail(err, memory ? MIMIC_ENOMEM : MIMIC_EFORMAT, "%s: damaged JPEG: %s", name,
                           d->state.text);
    }
    jpeg_destroy_decompress(&d->info);
    free(d->line);
    if (s == MIMIC_OK)
        s = mimic_image_orient(out, &tmp, d->orientation, err);
    mimic_image_free(&tmp);
    free(d);
    return s;
}

typedef struct encoder {
    jpeg_state state;
    struct jpeg_compress_struct info;
    unsigned char *data;
    unsigned long size;
} encoder;

static void encode_body(encoder *e, const mimic_image *img, int quality) {
    struct jpeg_compress_struct *info = &e->info;
    jpeg_create_compress(info);
    jpeg_mem_dest(info, &e->data, &e->size);
    info->image_width = (JDIMENSION)img->width;
    info->image_height = (JDIMENSION)img->height;
    info->input_components = 3;
    info->in_color_space = JCS_RGB;
    jpeg_set_defaults(info);
    jpeg_set_quality(info, quality, TRUE);
    jpeg_start_compress(info, TRUE);
    while (info->next_scanline < info->image_height) {
        uint8_t *row = img->pixels + (size_t)info->next_scanline * (size_t)img->width * 3;
        jpeg_write_scanlines(info, &row, 1);
    }
    jpeg_finish_compress(info);
}

mimic_status mimic_jpeg_encode(const mimic_image *img, int quality, uint8_t **data, size_t *size,
                               mimic_err *err) {
    *data = NULL;
    *size = 0;
    if (quality < 1 || quality > 100)
        return mimic_err_fail(err, MIMIC_EINVAL, "JPEG quality is 1 to 100, not %d", quality);
    if (!img->pixels || img->width < 1 || img->height < 1 || img->width > 65500 ||
        img->height > 65500)
        return mimic_err_fail(err, MIMIC_EINVAL, "a picture of %d x %d pixels cannot be a JPEG",
                              img->width, img->height);
    /* Room for the worst picture at once: libjpeg's own growing cannot be undone after an error. */
    mimic_status s = MIMIC_ENOMEM;
    unsigned long room = (unsigned long)img->width * (unsigned long)img->height * 6 + 65536;
    encoder *e = calloc(1, sizeof *e);
    uint8_t *buffer = malloc(room);
    if (!e || !buffer) {
        mimic_err_fail(err, s, "no memory for the JPEG encoder");
        goto done;
    }
    e->data = buffer;
    e->size = room;
    state_init(&e->state);
    e->info.err = &e->state.base;
    if (setjmp(e->state.jump) == 0) {
        encode_body(e, img, quality);
        s = MIMIC_OK;
    } else {
        mimic_err_fail(err, s, "JPEG encoder: %s", e->state.text);
    }
    jpeg_destroy_compress(&e->info);
    if (s == MIMIC_OK) {
        if (e->data == buffer)
            buffer = NULL;
        *size = e->size;
        *data = realloc(e->data, e->size);
        if (!*data)
            *data = e->data;
    }
done:
    free(buffer);
    free(e);
    return s;
}

#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x

const char *mimic_jpeg_version(void) {
#ifdef LIBJPEG_TURBO_VERSION
    return "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION);
#else
    return "libjpeg " TEXT(JPEG_LIB_VERSION);
#endif
}
